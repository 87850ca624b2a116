"""nf4 as NumPy arrays: 4-bit codes of 16 levels, which are quantiles of the normal distribution.

An array of nf4 has one code per byte. Its dtype distinguishes it from u8.
"""

from __future__ import annotations

import numpy as np

NF4 = np.dtype([("nf4", np.uint8)])
#: code -> value
LEVELS = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
#: The largest number that gets each code but the last: the midpoint of two levels, or the f32 next to it.
_LAST = np.array(
    [
        -0.8480964303016663, -0.6106328964233398, -0.4599952697753906, -0.33967941999435425,
        -0.23460739850997925,
        -0.13791173696517944, -0.045525018125772476, 0.03979014977812767, 0.1202552542090416,
        0.2035212516784668,
        0.2920137643814087, 0.3893125355243683, 0.5016633868217468, 0.6427869200706482, 0.8614783883094788,
    ],
    np.float32,
)  # fmt: skip


def to_nf4(x: np.ndarray) -> np.ndarray:
    """The code of the nearest level of each number. NaN gets the first code."""
    real = np.asarray(x).astype(np.float32)
    codes = np.searchsorted(_LAST, np.where(np.isnan(real), -1, real), side="left")
    return codes.astype(np.uint8).reshape(real.shape).view(NF4)


def from_nf4(x: np.ndarray) -> np.ndarray:
    """The levels as f32."""
    return LEVELS[np.ascontiguousarray(x).view(np.uint8).reshape(x.shape) & 15]
