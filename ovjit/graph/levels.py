"""The values of 4-bit codes: a table for each element type of 16 levels."""

import numpy as np

#: nf4: quantiles of the normal distribution.
NF4_LEVELS = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
#: The largest number that gets each code but the last: the midpoint of two levels, or the f32 next to it.
NF4_LAST = np.array(
    [
        -0.8480964303016663, -0.6106328964233398, -0.4599952697753906, -0.33967941999435425,
        -0.23460739850997925,
        -0.13791173696517944, -0.045525018125772476, 0.03979014977812767, 0.1202552542090416,
        0.2035212516784668,
        0.2920137643814087, 0.3893125355243683, 0.5016633868217468, 0.6427869200706482, 0.8614783883094788,
    ],
    np.float32,
)  # fmt: skip
#: f4e2m1: a sign, two bits of exponent, one of the fraction.
F4E2M1_LEVELS = np.array([sign * x for sign in (1.0, -1.0) for x in (0, 0.5, 1, 1.5, 2, 3, 4, 6)], np.float32)
