"""TaylorSeer: outputs of a denoiser that follow from those of the steps before (arXiv 2503.06923)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.fields import SIZE, Integer, Settings

#: The first steps, which give a value and a slope.
_LEAST_STEPS = 2


class TaylorSeerCacheConfig(Settings):
    """The steps whose outputs are predicted: all but each `cache_interval`-th, from
    `disable_cache_before_step` up to `disable_cache_after_step`, which counts from the end if negative."""

    _fields = {
        "cache_interval": (3, SIZE), "disable_cache_before_step": (6, SIZE),
        "disable_cache_after_step": (-2, Integer(-(2**31))),
    }  # fmt: skip

    def to_string(self) -> str:
        """The fields, one a line."""
        lines = "".join(f"  {name}: {self._values[name]}\n" for name in self._fields)
        return f"{type(self).__name__} {{\n{lines}}}"

    __repr__ = to_string


class TaylorSeer:
    """The outputs of the steps of one call. Without a configuration all are computed."""

    def __init__(self, config: TaylorSeerCacheConfig | None, steps: int):
        self._predicted = _choose_steps(config, steps)
        #: The last computed output, its change in a step, and the step's number.
        self._value = self._slope = np.zeros(0, np.float32)
        self._last: int | None = None

    def run(self, index: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The output of a step: predicted, or that of `compute`."""
        if index in self._predicted:
            assert self._last is not None
            return self._value + self._slope * np.float32(index - self._last)
        output = compute()
        if self._predicted and index < max(self._predicted):
            if self._last is not None:
                self._slope = (output - self._value) * np.float32(1 / (index - self._last))
            self._value, self._last = output, index
        return output


def _choose_steps(config: TaylorSeerCacheConfig | None, steps: int) -> set[int]:
    """The steps whose outputs are predicted. RuntimeError for an interval below 2."""
    if config is None:
        return set()
    interval, before = config.cache_interval, config.disable_cache_before_step
    if interval < 2:
        raise OvjitError(f"TaylorSeerCacheConfig: cache_interval must be at least 2, got {interval}")
    end = config.disable_cache_after_step
    end += steps if end < 0 else 0
    if end <= before:
        return set()
    begin = max(before, _LEAST_STEPS)
    return {step for step in range(begin, min(end, steps)) if (step - begin + 1) % interval}
