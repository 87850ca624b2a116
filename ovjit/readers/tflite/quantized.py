"""Quantised tensors: stored numbers, and the numbers that they stand for."""

from __future__ import annotations

import numpy as np

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.readers.tflite.file import Quant, TensorRow
from ovjit.readers.tflite.layouts import Layouts

#: The range of the numbers that quantised tensors are stored in.
RANGES = {"u8": (0, 255), "i8": (-128, 127), "i16": (-32768, 32767), "u16": (0, 65535), "i4": (-8, 7)}


def _bounds(row: TensorRow, rank: int) -> tuple[int, int, np.ndarray, np.ndarray]:
    """(lowest stored integer, highest one, lowest float, highest one) of a quantized tensor, as arrays that
    broadcast with `rank` dimensions."""
    quant = row.quant
    assert isinstance(quant, Quant)
    low, high = RANGES[row.dtype]
    scale, zero = quant.fit_rank(rank)
    with np.errstate(over="ignore"):
        bottom, top = ((scale * (end - zero)).astype(np.float32) for end in (low, high))
    return low, high, bottom, top


def _is_too_wide(bottom: np.ndarray, top: np.ndarray) -> bool:
    """Whether f32 does not hold the width of a range, so that FakeQuantize has no answer: that of attention
    masks with the lowest f32 among 16-bit numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.isfinite(top - bottom).all()


def _quantize(n: Builder, value: Output, row: TensorRow) -> tuple[Output, Output, Output]:
    """(stored numbers less their zero point, scale, zero point)"""
    assert row.quant is not None
    scale, zero = row.quant.fit_rank(n.rank(value))
    low, high = (n.const((end - zero).astype(np.float32)) for end in RANGES[row.dtype])
    step = n.const(scale)
    steps = n("Round", n("Divide", value, step), mode="half_to_even")
    return n("Minimum", n("Maximum", steps, low), high), step, n.const(zero.astype(np.float32))


def dequantize(n: Builder, value: Output, row: TensorRow) -> Output:
    """Dequantize stored integers."""
    real = n.convert(value, "f32")
    rank = n.rank(value)
    assert row.quant is not None
    if row.dtype not in RANGES or _is_too_wide(*_bounds(row, rank)[2:]):
        scale, zero = row.quant.fit_rank(rank)
        if zero.any():
            real = n("Subtract", real, n.const(zero.astype(np.float32)))
        return n("Multiply", real, n.const(scale))
    low, high, bottom, top = _bounds(row, rank)
    ends = [n.const(np.float32(v)) for v in (low, high)]
    return n("FakeQuantize", real, *ends, n.const(bottom), n.const(top), levels=high - low + 1)


def fake_quantized(layouts: Layouts, n: Builder, value: Output, row: TensorRow) -> Output:
    """Round floats to those that the tensor can represent."""
    if row.dtype not in RANGES:
        return value
    low, high, bottom, top = _bounds(row, n.rank(value))
    if _is_too_wide(bottom, top):
        steps, step, _ = _quantize(n, value, row)
        return n("Multiply", steps, step)
    ends = [n.const(bottom), n.const(top)]
    return layouts.each(
        n, lambda x, a, b: n("FakeQuantize", x, a, b, a, b, levels=high - low + 1), [value, *ends]
    )


def requantize(layouts: Layouts, n: Builder, value: Output, row: TensorRow) -> Output:
    """Quantize floats to the integers that the tensor stores."""
    assert row.quant is not None
    if row.dtype not in RANGES:
        scale, zero = row.quant.fit_rank(n.rank(value))
        steps = n("Round", n("Divide", value, n.const(scale)), mode="half_to_even")
        return n.convert(n("Add", steps, n.const(zero.astype(np.float32))), row.dtype)
    low, high, bottom, top = _bounds(row, n.rank(value))
    if _is_too_wide(bottom, top):
        steps, _, origin = _quantize(n, value, row)
        return n.convert(n("Add", steps, origin), row.dtype)
    ends = [n.const(bottom), n.const(top), n.const(np.float32(low)), n.const(np.float32(high))]

    def make(x: Output, *bounds: Output) -> Output:
        return n.convert(n("FakeQuantize", x, *bounds, levels=high - low + 1), row.dtype)

    return layouts.each(n, make, [value, *ends])
