"""Chooses the next token by its logits: the likeliest one, or a random one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.errors import OvjitError
from ovjit.records import NamedTuple


class Settings(NamedTuple):
    """Parameters of sampling, and conditions of stopping.

    `most`: maximum number of new tokens. `temperature`: 0 for the largest logit, else logits are divided by
    it. `top_k`: only the k largest; 0: all. `top_p`: only the smallest set whose probabilities reach p.
    `seed`: of the random numbers; None: a new one each time. `ends`: tokens that end the text. `min_p`: only
    tokens whose probability is at least this part of the largest. `penalty`: divides the positive logits, and
    multiplies the negative ones, of tokens that the sequence already has.
    """

    most: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    ends: frozenset[int] = frozenset()
    min_p: float = 0.0
    penalty: float = 1.0

    def check(self) -> None:
        """Raise OvjitError for a value out of range."""
        for name, good, expected in (
            ("most", self.most >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < float("inf"), "a number from 0 on"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("penalty", 0 < self.penalty < float("inf"), "a number above 0"),
            ("seed", self.seed is None or self.seed >= 0, "0 or more"),
        ):
            if not good:
                raise OvjitError(f"{name} is {getattr(self, name)}; it should be {expected}")


class Chooser:
    """Chooses tokens in order. Each takes one random number. So the same logits give the same tokens, whether
    or not several are computed at a time."""

    def __init__(self, settings: Settings):
        settings.check()
        self._settings = settings
        self._random = np.random.default_rng(settings.seed)

    def __call__(self, logits: np.ndarray, before: Sequence[int] = ()) -> int:
        """The token for `logits` [words], which follows the tokens `before`. Raises OvjitError if all logits
        are NaN."""
        s = self._settings
        if s.penalty != 1 and len(before):
            had = np.unique(np.asarray(before))
            had = had[had < len(logits)]
            logits = logits.astype(np.float64)
            logits[had] *= np.where(logits[had] < 0, s.penalty, 1 / s.penalty)
        best = int(logits.argmax())  # the first NaN, if there is one
        if not np.isfinite(logits[best]):
            raise OvjitError(f"the model's largest logit is {logits[best]}: no token can be chosen")
        if s.temperature == 0:
            return best
        with np.errstate(over="ignore"):
            values = (logits.astype(np.float64) - logits[best]) / s.temperature
        order = np.argsort(-values, kind="stable")
        if s.top_k:
            order = order[: s.top_k]
        weights = np.exp(values[order])
        sums = np.cumsum(weights / weights.sum())
        if s.top_p < 1:
            order = order[: int(np.searchsorted(sums, s.top_p)) + 1]
            sums, weights = sums[: len(order)], weights[: len(order)]
        if s.min_p:
            count = int((weights >= s.min_p).sum())  # the greatest has the weight 1
            order, sums = order[:count], sums[:count]
        return int(order[np.searchsorted(sums, self._random.random() * sums[-1], side="right")])
