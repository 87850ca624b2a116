"""Chooses the next token of a sequence, in the order and the precision of openvino_genai: penalties, top_k,
temperature, min_p, top_p, and one draw of a Mersenne twister. Sums are in f32, one term after another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

import ovjit.genai.orders as orders
from ovjit.errors import OvjitError
from ovjit.forks import made_once
from ovjit.genai.config import GenerationConfig
from ovjit.genai.fields import UNLIMITED
from ovjit.genai.grammar_masks import Matcher

_F32 = np.float32


class RandomNumbers:
    """Numbers in [0, 1) as f32, from a Mersenne twister (mt19937) with this seed."""

    def __init__(self, seed: int):
        self._bits = np.random.MT19937()
        self._bits._legacy_seeding(seed & 0xFFFFFFFF)

    def draw(self) -> np.float32:
        number = _F32(int(self._bits.random_raw())) / _F32(2**32)
        return number if number < 1 else np.nextafter(_F32(1), _F32(0))

    def draw_array(self, count: int) -> np.ndarray:
        """The next `count` numbers."""
        numbers = self._bits.random_raw(count).astype(_F32) / _F32(2**32)
        return np.minimum(numbers, np.nextafter(_F32(1), _F32(0)))


class Choice:
    """A token, and its log-probability: 0 for greedy choices without `logprobs`."""

    __slots__ = ("log_probability", "token")

    def __init__(self, token: int, log_probability: float):
        self.token, self.log_probability = token, log_probability


class Sampler:
    """The choices of one request with this configuration. Its sequences share the random numbers, and the
    counts of generated tokens that penalties use."""

    def __init__(self, config: GenerationConfig, prompt: Sequence[int]):
        self.config = config
        self._prompt = np.unique(np.asarray(prompt, np.int64))
        self._generated: Counter[int] = Counter()
        self._is_multinomial = config.is_multinomial()
        penalties = config.presence_penalty, config.frequency_penalty
        #: Generated tokens up to which logits are changed.
        self._changed = (
            UNLIMITED if config.repetition_penalty != 1 or any(penalties) else config.min_new_tokens
        )

    @made_once
    def random(self) -> RandomNumbers:
        """The random numbers. NumPy's generators are not imported for greedy choices."""
        return RandomNumbers(self.config.rng_seed)

    def choose(
        self, logits: np.ndarray, length: int, count: int = 1, matcher: Matcher | None = None
    ) -> list[Choice]:
        """`count` choices by `logits` [words] of a sequence that has `length` generated tokens, among those
        that `matcher` allows. RuntimeError if no token can be chosen."""
        config = self.config
        raw = np.asarray(logits, _F32)
        best = int(raw.argmax())  # the first NaN, if there is one
        if math.isnan(raw[best]):
            raise OvjitError("the model's logits are not numbers (NaN): no token can be chosen")
        is_changed = matcher is not None or length < self._changed
        values = self._penalize(raw.copy(), length) if is_changed else raw
        if matcher is not None:
            matcher.mask(values)
            if values.max() == -np.inf:  # the grammar's end comes before min_new_tokens
                values = raw.copy()
                matcher.mask(values)
        if self._is_multinomial:
            choices = self._draw(values, raw, count)
        else:
            token = int(values.argmax()) if is_changed else best
            choices = [Choice(token, float(raw[token] - log_sum(raw)) if config.logprobs else 0.0)]
        for choice in choices:
            self._generated[choice.token] += 1
        return choices

    def _penalize(self, logits: np.ndarray, length: int) -> np.ndarray:
        config, size = self.config, len(logits)
        if length < config.min_new_tokens:
            logits[[token for token in config.stop_token_ids if token < size]] = -np.inf
        tokens = np.fromiter(self._generated, np.int64, len(self._generated))
        if config.repetition_penalty != 1:
            both = np.union1d(self._prompt, tokens)
            if both.size and not 0 <= both[0] <= both[-1] < size:
                raise OvjitError(f"a token of the prompt is not in [0, {size}), the model's vocabulary")
            values, penalty = logits[both].astype(np.float64), config.repetition_penalty
            logits[both] = np.where(values >= 0, values / penalty, values * penalty)
        times = np.fromiter(self._generated.values(), np.float64, len(self._generated))
        for amounts in (config.presence_penalty * np.ones_like(times), config.frequency_penalty * times):
            if amounts.any():
                values = logits[tokens].astype(np.float64)
                logits[tokens] = np.where(values >= 0, values - amounts, values + amounts)
        return logits

    def _draw(self, values: np.ndarray, raw: np.ndarray, count: int) -> list[Choice]:
        tokens, weights, logs = weigh(values, self.config)
        sums = np.cumsum(weights, dtype=_F32)
        if not (sums[-1] > 0 and np.isfinite(sums[-1])):
            raise OvjitError("no token has a probability above 0: none can be chosen")
        choices = []
        for _ in range(count):
            at = int(np.searchsorted(sums, sums[-1] * self.random.draw(), side="right"))
            at = min(at, len(tokens) - 1)
            log = raw[tokens[at]] - log_sum(raw) if self.config.logprobs else logs[at]
            choices.append(Choice(int(tokens[at]), float(log)))
        return choices


def _exp(values: np.ndarray) -> np.ndarray:
    """Exponentials, rounded once."""
    return np.exp(values.astype(np.float64)).astype(_F32)


def log_sum(logits: np.ndarray) -> np.float32:
    """The logarithm of the sum of exponentials."""
    top = logits.max()
    return _F32(np.log(np.cumsum(_exp(logits - top), dtype=_F32)[-1])) + top


def weigh(logits: np.ndarray, config: GenerationConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens that may be drawn in the order in which they are summed, their weights, their
    log-probabilities)."""
    limited, cut = 0 < config.top_k < UNLIMITED, 0 < config.top_k < len(logits)
    tokens = np.arange(len(logits))
    if cut:
        tokens = largest(logits, config.top_k)
        logits = logits[tokens]
    scale = _F32(1) / _F32(config.temperature)
    top = logits.max()
    if limited and config.top_p == 1 and not config.min_p and (cut or config.logprobs):
        # only here are logits scaled first
        logits = logits * scale
        top = logits.max()
        weights = _exp(logits - top)
        return tokens, weights, logits - (np.log(np.cumsum(weights, dtype=_F32)[-1]) + top)
    weights = _exp((logits - top) * scale)
    weights = weights / np.cumsum(weights, dtype=_F32)[-1]
    if config.min_p:
        likely = weights >= _F32(config.min_p) * weights.max()
        tokens, weights = tokens[likely], weights[likely]
    if config.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        above = np.cumsum(weights[order], dtype=_F32) > _F32(config.top_p)
        order = order[: int(above.argmax()) + 1] if above.any() else order
        tokens, weights = tokens[order], weights[order]
    with np.errstate(divide="ignore"):
        logs = np.log(weights) - np.log(np.cumsum(weights, dtype=_F32)[-1])
    return tokens, weights, logs


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` largest values, in the order of a heap with the smallest first: values are
    pushed one after another, so the order decides how their weights are summed."""
    heap = orders.make_heap([(float(values[i]), i) for i in range(count)], _is_larger)
    start = count
    while start < len(values):
        end = min(len(values), 2 * start)
        for i in start + np.flatnonzero(values[start:end] > heap[0][0]):
            value = float(values[i])
            if value > heap[0][0]:
                orders.replace_root(heap, (value, int(i)), _is_larger)
        start = end
    return np.array([i for _, i in heap], np.int64)


def _is_larger(first: tuple[float, int], second: tuple[float, int]) -> bool:
    return first[0] > second[0]
