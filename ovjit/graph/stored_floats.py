"""Floats of few bits as weights and tables are stored: how many bits they have, and what codes stand for."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ovjit.graph import nf4

#: Element types of 4 bits -> what their codes stand for.
LEVELS = {
    "nf4": nf4.LEVELS,
    "f4e2m1": np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32),
}
#: The element types besides integers that can be stored, and their bits.
FLOAT_BITS = {**dict.fromkeys(LEVELS, 4), "f8e4m3": 8, "f8e5m2": 8, "f16": 16}
