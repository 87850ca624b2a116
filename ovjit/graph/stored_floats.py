"""Storage types of weights and tables with few bits: bits per number, and the values of codes.

A *kind* is the name of an element type, or a codebook. A codebook is the table of values of 4-bit or 8-bit
codes, encoded as text.
"""

from __future__ import annotations

from operator import itemgetter

import numpy as np

from ovjit.graph.dtypes import ELEMENT_TYPES

#: The element types besides integers that can be stored, and their bits.
_PAIRS = [(row.name, row.bits) for row in ELEMENT_TYPES.values() if row.weights]
FLOAT_BITS = dict(sorted(_PAIRS, key=itemgetter(1)))
_BOOK = "codebook "


def codebook(levels: np.ndarray, bits: int) -> str:
    """The kind whose codes have these values. Further codes have the value 0."""
    table = np.zeros(1 << bits, "<f4")
    table[: len(levels)] = levels
    return _BOOK + table.tobytes().hex()


def levels_of(kind: str) -> np.ndarray | None:
    """The values of a kind's codes in f32; None for kinds without a table."""
    if kind.startswith(_BOOK):
        return np.frombuffer(bytes.fromhex(kind[len(_BOOK) :]), "<f4").astype(np.float32)
    row = ELEMENT_TYPES.get(kind)
    return None if row is None else row.levels


def integer_levels(kind: str) -> tuple[np.ndarray, float] | None:
    """The values of a kind's 4-bit codes as i8, and the power of two that they are multiplied by. None if
    bytes do not represent them."""
    levels = levels_of(kind)
    if levels is None or len(levels) != 16 or not np.isfinite(levels).all():
        return None
    for power in range(8):
        scaled = levels * np.float32(2.0**power)
        if abs(scaled).max() > 127:
            return None
        if (scaled == np.rint(scaled)).all():
            return scaled.astype(np.int8), 2.0**-power
    return None


def bits_of(kind: str) -> int:
    """Bits of a number of a kind; 0 for integers."""
    levels = levels_of(kind)
    return FLOAT_BITS.get(kind, 0) if levels is None else 4 if len(levels) == 16 else 8
