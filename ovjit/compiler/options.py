"""What a compilation may do, for lowerings to ask: set while a program is being made."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Options(NamedTuple):
    """`exact`: no algorithm that trades accuracy for speed (EXECUTION_MODE_HINT=ACCURACY). `precision`: the
    element type that convolutions and matrix products of f32 compute in (INFERENCE_PRECISION_HINT).
    `dynamic`: elements of the groups in which rows are quantized before they are multiplied with compressed
    weights (DYNAMIC_QUANTIZATION_GROUP_SIZE), 0: they are not."""

    exact: bool = False
    precision: str = "f32"
    dynamic: int = 0

    @staticmethod
    def of(config: Mapping[str, Any]) -> Options:
        """What a compilation's properties say of it."""
        exact = str(config.get("EXECUTION_MODE_HINT", "")).endswith("ACCURACY")
        asked = config.get("INFERENCE_PRECISION_HINT")
        low = getattr(asked, "_name", asked) == "bf16"
        dynamic = int(config.get("DYNAMIC_QUANTIZATION_GROUP_SIZE") or 0)
        return Options(exact, "bf16" if low else "f32", dynamic)


#: Properties that say how caches of keys and values are stored.
CACHES = ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")


def caches_in_full(config: Mapping[str, Any]) -> bool:
    """True where f32 is asked for of any cache: all are kept so then."""
    return any(getattr(asked, "_name", asked) == "f32" for asked in map(config.get, CACHES))


_DEFAULT = Options()
_current: contextvars.ContextVar[Options] = contextvars.ContextVar("ovjit_options", default=_DEFAULT)


def options() -> Options:
    """The options of the compilation under way."""
    return _current.get()


@contextlib.contextmanager
def compiling(chosen: Options) -> Iterator[None]:
    """Lowerings made inside see `chosen`."""
    token = _current.set(chosen)
    try:
        yield
    finally:
        _current.reset(token)
