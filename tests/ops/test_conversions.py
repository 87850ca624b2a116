"""Convert of floats to integers at the ends of all types, beside Python's integers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.graph.dtypes import numpy_dtype
from tests.support.sweeps import in_turn

SEED = 20261125
FLOATS = ("f32", "f64", "f16", "bf16")
INTEGERS = {name: int(name[1:]) for name in ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64")}


def values(kind: str) -> np.ndarray:
    """Numbers at and around the ends of all integer types, and in between; NaN, infinities, subnormals."""
    rng = np.random.default_rng(SEED)
    ends = [sign * 2.0**bits for bits in (7, 8, 15, 16, 31, 32, 63, 64) for sign in (1, -1)]
    around = [end + off for end in ends for off in (-1, -0.5, 0, 0.5, 1)]
    beside = np.array([np.nextafter(np.float32(e), np.float32(to)) for e in ends for to in (np.inf, -np.inf)])
    rest = [np.nan, -np.nan, np.inf, -np.inf, 0, -0.0, 0.999, -0.999, 1e-40, 1e30, -1e30, 65504, -65504]
    between = [rng.normal(0, width, 40) for width in (300, 4e9, 1e19)]
    with np.errstate(over="ignore"):
        return rng.permutation(np.concatenate([around, beside, rest, *between])).astype(numpy_dtype(kind))


def converted(x: float, to: str) -> int:
    """The integer part in 32 bits, or in 64 for i64, u64 and u32; the minimum if it does not fit. Narrower
    types keep its low bits. u64 has 64 bits for positive numbers."""
    bits, wide = INTEGERS[to], 64 if to in ("i64", "u64", "u32") else 32
    whole = math.trunc(x) if math.isfinite(x) else -(2**99)
    highest = 2**64 if to == "u64" else 2 ** (wide - 1)
    kept = whole if -(2 ** (wide - 1)) <= whole < highest else -(2 ** (wide - 1))
    low = kept % 2**bits
    return low - 2**bits if to[0] == "i" and low >= 2 ** (bits - 1) else low


@pytest.mark.parametrize("size", in_turn([1, 5, 16, 0], 2))
@pytest.mark.parametrize("kind", FLOATS)
def test_floats_to_integers(kind: str, size: int) -> None:
    """So many numbers, 0: all of them."""
    x = values(kind)[: size or None]
    given = ops.parameter(list(x.shape), getattr(ov.Type, kind))
    model = ov.Model([ops.convert(given, to) for to in INTEGERS], [given])
    found = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x]).values()
    for to, got in zip(INTEGERS, found, strict=True):
        wanted = [converted(float(one), to) for one in x]
        assert got.dtype == numpy_dtype(to)
        wrong = [(float(one), int(g), w) for one, g, w in zip(x, got, wanted, strict=True) if int(g) != w]
        assert not wrong, f"{kind} to {to}, seed {SEED}: {wrong[:5]}"
