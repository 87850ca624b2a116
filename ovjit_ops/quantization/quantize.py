"""Quantize: what the quantization pass makes of FakeQuantize where integers are what is read of it."""

from __future__ import annotations

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import DType, Int, TensorType, op
from ovjit.graph.shapes import broadcast
from ovjit_ops.elementwise.arithmetic import random_array


@op("Quantize", opset=1, types=("f32",), internal=True, ulp=0)
class Quantize:
    """round(x / scale) + zero, to the nearest even, held between `low` and `high`. NaN becomes `low`.

    `factor` is 1 / scale, a number, as `zero` is, which has the type of x.
    """

    def infer(x, factor, zero, *, low: Int, high: Int, element_type: DType):
        check(x.dtype == factor.dtype == zero.dtype, f"{x}, {factor} and {zero} differ in element type")
        return TensorType(element_type, broadcast(x.shape, factor.shape, zero.shape))

    def ref(x, factor, zero, *, low, high, element_type):
        y = np.rint(x * factor + zero)
        return np.where(y > low, np.minimum(y, high), low).astype(numpy_dtype(element_type))

    def scalar(x, factor, zero, *, low, high, element_type):
        # held first, as its bounds are whole: then one instruction rounds and converts
        y = x * factor if t.is_zero(zero) else x * factor + zero
        y = t.where(y > float(low), y, float(low))
        return t.round_int(t.where(y < float(high), y, float(high)), element_type)

    def samples(rng, dtype="f32"):
        for n in (1, 7, 16, 17, 33, 0):
            numbers = [np.array(v, numpy_dtype(dtype)) for v in (4, 3)]
            attrs = {"low": 0, "high": 255, "element_type": "u8"}
            yield [random_array(rng, (2, n), dtype, (-40, 80)), *numbers], attrs
