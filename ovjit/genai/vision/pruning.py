"""The tokens of a picture that remain: different ones that fit the text (arXiv 2506.10967)."""

from __future__ import annotations

import numpy as np

from ovjit.errors import OvjitError

_F32 = np.float32
_EPSILON = _F32(1e-6)


def normalize_rows(values: np.ndarray) -> np.ndarray:
    return values / np.sqrt((values * values).sum(-1, keepdims=True) + _EPSILON)


def choose_tokens(features: np.ndarray, text: np.ndarray, ratio: int, weight: float) -> np.ndarray:
    """The numbers of the tokens, of features f32 [tokens, size], that remain without `ratio` percent.
    `text` f32 [size]: the mean embedding of the words. `weight`: the share of the fit to them. Both halves
    of the tokens are searched separately. RuntimeError if no token remains."""
    total = len(features)
    count = int(np.floor(total * (1 - ratio / 100) + 0.5))
    if not count:
        raise OvjitError(
            f"pruning_ratio {ratio} leaves none of a picture's {total} tokens: use a smaller one"
        )
    middle = total // 2 if total > 1 else total
    parts = ((0, middle, count // 2 if total > 1 else count), (middle, total, count - count // 2))
    chosen = [
        begin + _choose_different(_relate(features[begin:end], text, weight), most)
        for begin, end, most in parts[: 1 + (total > 1)]
    ]
    return np.concatenate(chosen)


def _relate(features: np.ndarray, text: np.ndarray, weight: float) -> np.ndarray:
    """Similarities of tokens [tokens, tokens], weighted by their fit to the text."""
    rows = normalize_rows(features)
    fit = rows @ normalize_rows(text)
    fit = (fit - fit.min()) / (fit.max() - fit.min() + _EPSILON)
    alike = rows @ rows.T
    return alike * _F32(1 - weight) + fit[:, None] * alike * fit * _F32(weight)


def _choose_different(kernel: np.ndarray, count: int) -> np.ndarray:
    """The numbers of `count` rows, in order: each time the one with the largest part that the chosen rows do
    not have (arXiv 1709.05135)."""
    gains = kernel.diagonal().copy()
    parts = np.zeros((count, len(kernel)), _F32)
    chosen = np.zeros(count, np.int64)
    for i in range(count):
        best = chosen[i] = int(gains.argmax())
        part = kernel[best].copy()
        for other in parts[:i]:
            if abs(other[best]) >= _EPSILON:
                part -= other[best] * other
        parts[i] = part * (_F32(1) / np.sqrt(gains[best] + _EPSILON))
        gains -= parts[i] * parts[i]
        gains[best] = -np.inf
    return np.sort(chosen)
