"""Chooses the next token of a sequence, in the order and the precision of openvino_genai: penalties, top_k,
temperature, min_p, top_p, and one draw of a Mersenne twister."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.config import UNLIMITED, GenerationConfig


class RandomNumbers:
    """Numbers in [0, 1) as f32, from a Mersenne twister (mt19937) with this seed."""

    def __init__(self, seed: int):
        self._bits = np.random.MT19937()
        self._bits._legacy_seeding(seed & 0xFFFFFFFF)

    def draw(self) -> np.float32:
        return np.float32(int(self._bits.random_raw()) / 2**32)


class Choice:
    """A token, and its log-probability: 0 for greedy choices without `logprobs`."""

    __slots__ = ("log_probability", "token")

    def __init__(self, token: int, log_probability: float):
        self.token, self.log_probability = token, log_probability


class Sampler:
    """The choices of one request with this configuration. Its sequences share the random numbers."""

    def __init__(self, config: GenerationConfig, prompt: Sequence[int]):
        self.config = config
        self.random = RandomNumbers(config.rng_seed)
        self._prompt = np.unique(np.asarray(prompt, np.int64))

    def choose(self, logits: np.ndarray, generated: Sequence[int]) -> Choice:
        """The token for `logits` [words] of a sequence that has generated these tokens. RuntimeError if no
        token can be chosen."""
        config = self.config
        raw = np.asarray(logits, np.float32)
        values = self._with_penalties(raw, generated)
        if len(generated) < config.min_new_tokens:
            values = values.copy() if values is raw else values
            stops = [token for token in config.stop_token_ids if token < len(values)]
            values[stops] = -np.inf
        if not config.is_multinomial():
            token = int(values.argmax())
            if not np.isfinite(values[token]):
                raise OvjitError(f"the model's largest logit is {values[token]}: no token can be chosen")
            return Choice(token, _log_probability(raw, token) if config.logprobs else 0.0)
        tokens, probabilities = filter_tokens(values, config)
        sums = np.cumsum(probabilities, dtype=np.float32)
        at = int(np.searchsorted(sums, self.random.draw() * sums[-1], side="left"))
        at = min(at, len(tokens) - 1)
        token = int(tokens[at])
        if config.logprobs:
            return Choice(token, _log_probability(raw, token))
        return Choice(token, float(np.log(probabilities[at])))

    def _with_penalties(self, logits: np.ndarray, generated: Sequence[int]) -> np.ndarray:
        config, size = self.config, len(logits)
        if config.repetition_penalty != 1:
            logits = logits.copy()
            had = np.union1d(self._prompt, np.asarray(generated, np.int64))
            had = had[had < size]
            penalty = np.float32(config.repetition_penalty)
            logits[had] = np.where(logits[had] >= 0, logits[had] / penalty, logits[had] * penalty)
        if generated and (config.presence_penalty or config.frequency_penalty):
            logits = logits.copy()
            counts = Counter(token for token in generated if token < size)
            tokens = np.fromiter(counts, np.int64, len(counts))
            times = np.fromiter(counts.values(), np.float32, len(counts))
            amount = np.float32(config.presence_penalty) + np.float32(config.frequency_penalty) * times
            logits[tokens] = np.where(logits[tokens] >= 0, logits[tokens] - amount, logits[tokens] + amount)
        return logits


def filter_tokens(logits: np.ndarray, config: GenerationConfig) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, their probabilities in f32) that may be drawn, in the order in which they are summed."""
    if config.top_k != UNLIMITED and config.top_k < len(logits):
        tokens = np.argsort(-logits, kind="stable")[: config.top_k]
    else:
        tokens = np.arange(len(logits))
    values = logits[tokens] / np.float32(config.temperature) if config.temperature != 1 else logits[tokens]
    weights = np.exp(values - values.max(), dtype=np.float32)
    probabilities = weights / weights.sum(dtype=np.float32)
    if config.min_p:
        kept = probabilities >= np.float32(config.min_p) * probabilities.max()
        tokens, probabilities = tokens[kept], probabilities[kept] / probabilities[kept].sum(dtype=np.float32)
    if config.top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        sums = np.cumsum(probabilities[order], dtype=np.float32)
        count = int(np.searchsorted(sums, np.float32(config.top_p), side="right")) + 1
        order = order[:count]
        tokens, probabilities = tokens[order], probabilities[order]
        probabilities = probabilities / probabilities.sum(dtype=np.float32)
    return tokens, probabilities


def _log_probability(logits: np.ndarray, token: int) -> float:
    values = logits.astype(np.float64)
    top = values.max()
    return float(values[token] - top - np.log(np.exp(values - top).sum()))
