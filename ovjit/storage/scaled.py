"""Weights that a blob holds once, multiplied: restored from products, factors, and rounding differences.

The compiler multiplies the weights of a convolution by the factors of its outputs. Products are rounded, so a
quotient may miss the weight by some units in the last place:

    weight = product / factor of its row, plus `difference` in its bits as an integer, from -8 to 7

Factors are f32, one for each row. Differences take 4 bits, plus 8, the first of two in the low bits.
"""

from __future__ import annotations

import numpy as np

from ovjit.storage.container import BlobError

#: Added to differences.
_MIDDLE = 8
#: Minimum weights of a row: each has a factor.
_FEWEST = 8
#: Maximum relative error in the first row of arrays that are worth a closer look.
_SPREAD = 1e-5


def difference_bytes(count: int) -> int:
    """The bytes of the differences of `count` weights."""
    return -(-count // 2)


def find_factors(weights: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Factors and differences from which `restore` makes the f32 `weights` out of `products`, of the same
    shape. None if there are none."""
    if weights.size < _FEWEST * len(weights):
        return None
    rows, there = (array.reshape(len(array), -1) for array in (weights, products))
    with np.errstate(all="ignore"):
        largest = abs(rows).argmax(1)[:, None]
        first = there[0, largest[0]] / rows[0, largest[0]]
        if not (abs(there[0] - first * rows[0]) <= _SPREAD * abs(there[0])).all():
            return None
        factors = (np.take_along_axis(there, largest, 1) / np.take_along_axis(rows, largest, 1)).reshape(-1)
        factors[~np.isfinite(factors) | (factors == 0)] = 1
        differences = rows.view("i4") - _quotients(there, factors).view("i4") + np.int32(_MIDDLE)
    if differences.min() < 0 or differences.max() >= 2 * _MIDDLE:
        return None
    nibbles = np.zeros(2 * difference_bytes(weights.size), np.uint8)
    nibbles[: weights.size] = differences.reshape(-1)
    return factors, nibbles[::2] | nibbles[1::2] << 4


def restore(products: np.ndarray, factors: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """The weights, flat, from flat f32 products. Raises BlobError for factors of another number of rows."""
    if not factors.size or products.size % factors.size:
        raise BlobError("the blob is not valid: factors of weights do not match their shape")
    nibbles = np.stack((differences & 15, differences >> 4), 1).reshape(-1)[: products.size]
    quotients = _quotients(products.reshape(factors.size, -1), factors).reshape(-1)
    bits: np.ndarray = quotients.view("i4") + (nibbles.astype(np.int32) - _MIDDLE)
    return bits.view(np.float32)


def _quotients(products: np.ndarray, factors: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return products / factors[:, None]
