"""Sums of integers that become bytes without being converted (`ovjit.tiles.rounding`): the same bytes."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.host import host_target
from ovjit.tiles import epilogues
from ovjit.tiles.lowering import Tiled
from ovjit.tiles.rounding import FIRST_BITS, one_rounding, reach_of
from ovjit.tiles.sizes import FARTHEST_SUM, FINEST, FIRST, JOINING
from tests.support.compiled import product_format
from tests.support.sweeps import some

SEED = 20261122
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
#: The least byte of a type.
LEAST = {"u8": 0, "i8": -128}


def rounded(x: np.ndarray, factor: np.float32, offset: np.float32, least: int) -> np.ndarray:
    """The bytes that a multiply-add of f32 and a conversion make: 64 bits hold what is rounded."""
    total = x.astype(np.longdouble) * np.longdouble(factor) + np.longdouble(offset)
    return np.clip(np.rint(total.astype(np.float32)), least, least + 255)


def numbers(rng: np.random.Generator, depth: int, outs: int, kind: str) -> tuple[np.ndarray, ...]:
    """Reach of sums, bias, factor and zero of a layer."""
    weights = np.clip(rng.standard_normal((1, depth, outs)) * 40, -127, 127).astype(np.int8)
    bias = rng.integers(-9000, 9000, outs).astype(np.int32)
    factor = (255 / (rng.uniform(2, 8, outs) * 147 * 40 * np.sqrt(depth))).astype(np.float32)
    zero = (rng.uniform(-40, 160, outs) + LEAST[kind]).astype(np.float32)
    zero[::3] = np.rint(zero[::3])
    return reach_of(weights) + bias.astype(np.int64), bias, factor, zero


@pytest.mark.parametrize("kind", LEAST)
@pytest.mark.parametrize("depth", [9, 64, 128])
def test_all_sums_that_there_may_be_give_the_same_bytes(depth: int, kind: str) -> None:
    rng = np.random.default_rng([SEED, depth])
    reach, bias, factor, zero = numbers(rng, depth, 16, kind)
    made = one_rounding(reach, bias, factor, zero, LEAST[kind])
    assert made is not None
    for c in range(0, 16, 3):
        sums = np.arange(reach[0, c], reach[1, c] + 1)
        want = rounded(sums, factor[c], zero[c], LEAST[kind])
        bits = (sums - int(bias[c]) + int(made.first[c])).astype(np.int32)
        got = rounded(bits.view(np.float32), made.factor[c], made.offset[c], LEAST[kind])
        np.testing.assert_array_equal(got, want, str((SEED, depth, kind, c)))


@pytest.mark.parametrize("changed", ["factor", "far", "huge"])
def test_what_cannot_be_proved_is_converted(changed: str) -> None:
    reach, bias, factor, zero = numbers(np.random.default_rng(SEED), 64, 16, "u8")
    assert one_rounding(reach, bias, factor, zero, 0) is not None
    if changed == "factor":
        factor[3] *= -1
    elif changed == "far":
        reach[1, 5] = 1 << 22
    else:
        zero[7] = 2.0**30
    assert one_rounding(reach, bias, factor, zero, 0) is None


def borders_of(
    factor: np.float32, zero: np.float32, reach: np.ndarray, least: int
) -> list[tuple[float, int]]:
    """By rational numbers: (the number between two bytes, the first sum within reach that has the larger)."""
    found = []
    for number in range(least + 1, least + 256):
        half, even = np.float32(number - 0.5), number % 2 == 0
        border = (float(half) + float(np.nextafter(half, np.float32(-np.inf if even else np.inf)))) / 2
        exact = (Fraction(border) - Fraction(float(zero))) / Fraction(float(factor))
        first = math.ceil(exact) if even else math.floor(exact) + 1
        found.append((border, min(max(first, int(reach[0])), int(reach[1]) + 1)))
    return found


def first_start(factor: np.float32, zero: np.float32, reach: np.ndarray, least: int) -> int | None:
    """The first number that sums may begin with, by trying one after the other."""
    exponent, zeros = int(np.frexp(factor)[1]), int(np.frexp(abs(zero))[1])
    fine = max(24 - exponent, -FINEST)
    one = 1 << (max(exponent, zeros - 23) + fine)
    scale = int(np.ldexp(float(factor), fine))
    borders = borders_of(factor, zero, reach, least)
    aboves = [int(np.ldexp(b, fine)) - n * scale for b, n in borders if n <= reach[1]]
    belows = [int(np.ldexp(b, fine)) - (n - 1) * scale for b, n in borders if n > reach[0]]
    above = max(aboves, default=min(belows, default=0) - one - 2)
    below = min(belows, default=above + one + 2)
    begin, last = FIRST - FARTHEST_SUM - int(reach[0]), FIRST + FARTHEST_SUM - int(reach[1])
    for start in range(0, last - begin, 1 << 16):
        tried = np.arange(start, min(start + (1 << 16), last - begin))
        good = np.flatnonzero(((begin + tried) * scale - above - 1) % one <= below - above - 2)
        if below - above >= 2 and good.size:
            return begin + int(tried[good[0]])
    return None


@pytest.mark.parametrize("kind", LEAST)
def test_the_first_number_is_found_where_there_is_one(kind: str) -> None:
    rng = np.random.default_rng([SEED, LEAST[kind] + 128])
    several = 0
    for depth in (9, 64, 200):
        reach, bias, factor, zero = numbers(rng, depth, 8, kind)
        factor[5:] *= np.float32([4.0, 0.001, 300.0])  # what is hardly rounded, and what is cut off
        for c in range(8):
            of_channel = slice(c, c + 1)
            given = (reach[:, of_channel], bias[of_channel], factor[of_channel], zero[of_channel])
            made = one_rounding(*given, LEAST[kind])
            want = first_start(factor[c], zero[c], reach[:, c], LEAST[kind])
            got = None if made is None else int(made.first[0]) - int(bias[c]) - FIRST_BITS + FIRST
            assert got == want, (SEED, kind, depth, c)
            several += want is not None
    assert several > 12, "hardly a test"


def model_of(rng: np.random.Generator, kind: str, residual: bool, groups: int, scale: float) -> ov.Model:
    """A convolution of bytes whose result is bytes, perhaps with other bytes added."""
    ops = ov.opset13
    low, high = (0.0, 4.0) if kind == "u8" else (-2.0, 1.984375)

    def quantized(x: Any, factor: float) -> Any:
        ends = (np.float32(end * factor) for end in (low, high, low, high))
        return ops.fake_quantize(x, *map(ops.constant, ends), 256)

    def weights(*shape: int) -> Any:
        integers = ops.convert(ops.constant(rng.integers(-127, 128, shape).astype(np.int8)), "f32")
        each = (*shape[:2], *[1] * (len(shape) - 2)) if groups > 1 else (shape[0], *[1] * (len(shape) - 1))
        return ops.multiply(integers, ops.constant(rng.uniform(0.002, 0.01, each).astype(np.float32)))

    x = ops.parameter([2, 16, 5, 7], np.float32)
    q = quantized(x, 1.0)
    y = ops.convolution(q, weights(40, 16, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]) if groups == 1 else (
        ops.group_convolution(q, weights(groups, 20, 16 // groups, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    )  # fmt: skip
    y = ops.add(y, ops.constant(rng.standard_normal((1, 40, 1, 1)).astype(np.float32)))
    if residual:
        y = ops.add(y, quantized(ops.concat([x, x, ops.slice(x, [0], [8], [1], [1])], 1), 1.0))
    y = ops.relu(y) if kind == "u8" else y
    z = ov.opset1.max_pool(quantized(y, scale), [1, 1], [0, 0], [0, 0], [2, 2])  # reads bytes
    return ov.Model([z], [x], "m")


@pytest.mark.skipif(
    host_target().name not in JOINING or product_format("u8", "i8") is None, reason="tiles that join bytes"
)
@pytest.mark.parametrize("kind, groups", [("u8", 1), ("i8", 1), ("u8", 2)])
@pytest.mark.parametrize(
    "how",
    some([(0.1, False), (30.0, True), (1.0, True), (30.0, False), (0.1, True), (1.0, False)], 2),
    ids=str,
)
def test_tiles_make_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, kind: str, groups: int, how: tuple[float, bool]
) -> None:
    scale, residual = how
    rng = np.random.default_rng([SEED, groups, residual])
    model = model_of(rng, kind, residual, groups, scale)
    data = rng.uniform(-3, 5, (2, 16, 5, 7)).astype(np.float32)

    def answer() -> tuple[np.ndarray, list[str]]:
        compiled = ov.compile_model(model, "CPU", CONFIG)
        tiles = [low for low in compiled._executable.program.lowerings if isinstance(low, Tiled)]
        return compiled([data])[0].copy(), [low.epilogue.text() for low in tiles]

    got, texts = answer()
    assert any("saturate" in text for text in texts), texts
    assert any("bits_f32(x0)" in text for text in texts) != residual, texts
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    np.testing.assert_array_equal(answer()[0], got, str(SEED))
    monkeypatch.delenv("OVJIT_INTERP")
    monkeypatch.setattr(epilogues, "one_rounding", lambda *given: None)
    monkeypatch.setattr(epilogues, "rounds_near", lambda *given: False)
    want, texts = answer()
    assert not any("saturate" in text for text in texts)
    np.testing.assert_array_equal(got, want, str(SEED))
    assert len(np.unique(got)) > 8, "hardly a test"
