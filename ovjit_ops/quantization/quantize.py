"""Quantize, which replaces a FakeQuantize whose consumers read integers, and MultiplyAdd, the merged scales
and offsets before it."""

from __future__ import annotations

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import DType, Int, TensorType, op
from ovjit.graph.shapes import broadcast


@op("Quantize", opset=1, types=("f32",), internal=True, ulp=0, any_number=True)
class Quantize:
    """round(x * factor + zero), to the nearest even, saturated to `low` and `high`. NaN becomes `low`.

    `factor` is 1 / scale. x, factor and zero have the same type and are broadcast.
    """

    def infer(x, factor, zero, *, low: Int, high: Int, element_type: DType):
        check(
            x.dtype == factor.dtype == zero.dtype,
            f"{x}, {factor} and {zero} should have the same element type",
        )
        return TensorType(element_type, broadcast(x.shape, factor.shape, zero.shape))

    def ref(x, factor, zero, *, low, high, element_type):
        y = np.rint(x * factor + zero)
        return np.where(y > low, np.minimum(y, high), low).astype(numpy_dtype(element_type))

    def scalar(x, factor, zero, *, low, high, element_type):
        # Saturate first, which is exact as the bounds are integers. Then one instruction rounds and converts.
        y = x * factor if t.is_zero(zero) else t.fma(x, factor, zero)
        if t.is_near(y) and (low, high) in ((0, 255), (-128, 127)):
            return t.saturate(t.round_int(y, "i32"), element_type)
        if (element_type, low) != ("u8", 0):
            y = t.where(y > float(low), y, float(low))
        if (element_type, high) != ("u8", 255):
            y = t.where(y < float(high), y, float(high))
        return t.round_int(y, element_type)


@op("MultiplyAdd", opset=1, types=("f32",), internal=True, ulp=1, any_number=True)
class MultiplyAdd:
    """y = x * factor + offset, rounded once if the CPU has fused multiply-add."""

    def infer(x, factor, offset):
        check(
            x.dtype == factor.dtype == offset.dtype,
            f"{x}, {factor} and {offset} should have the same element type",
        )
        return TensorType(x.dtype, broadcast(x.shape, factor.shape, offset.shape))

    def ref(x, factor, offset):
        return x * factor + offset

    def scalar(x, factor, offset):
        return t.fma(x, factor, offset)
