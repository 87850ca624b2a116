"""Samples of `ovjit_ops/quantization`."""

from __future__ import annotations

import numpy as np

from ovjit.graph.byte_rows import ByteRows
from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


def _samples(rng: np.random.Generator, dtype: str = "f32"):
    shapes = ((4,), (3, 20), (2, 3, 64), (2, 1, 5, 12), (2, 3, 2, 2, 8), (3, 0, 8))
    cut = [((3, 24), 8, 6), ((2, 3, 64), 8, 32), ((3, 2, 80), 8, 20)]
    cut += [((8,), 4, 0), ((3, 40), 4, 0), ((2, 3, 64), 4, 0), ((2, 3, 64), 4, 16), ((3, 2, 80), 4, 40)]
    for shape, bits, group in (*((shape, 8, 0) for shape in shapes), *cut):
        yield random_array(rng, shape, "f32", (-3, 5)), ByteRows(bits, group)
    for bits in (8, 4):
        yield np.full((2, 8), 0.3, np.float32), ByteRows(bits)


@samples("QuantizeRows")
def quantize_rows(rng, dtype="f32"):
    for x, rows in _samples(rng, dtype):
        yield [x], rows._asdict()


@samples("DequantizeRows")
def dequantize_rows(rng, dtype="f32"):
    for x, rows in _samples(rng, dtype):
        packed = rows.to_bytes(x)
        yield [packed], rows._asdict()
        yield [packed, x], rows._asdict()
        if x.ndim > 1:
            yield [packed, x[..., :1, :]], rows._asdict()


@samples("Quantize")
def quantize(rng, dtype="f32"):
    for n in (1, 7, 16, 17, 33, 0):
        numbers = [np.array(v, numpy_dtype(dtype)) for v in (4, 3)]
        for high in (255, 254):
            attrs = {"low": 0, "high": high, "element_type": "u8"}
            yield [random_array(rng, (2, n), dtype, (-40, 80)), *numbers], attrs
    huge = np.array([3e9, -3e9, 1e38, np.inf, -np.inf, np.nan, 255.5, 254.5, 0.5], numpy_dtype(dtype))
    ones = [np.array(v, numpy_dtype(dtype)) for v in (1, 0)]
    yield [huge, *ones], {"low": 0, "high": 255, "element_type": "u8"}


@samples("MultiplyAdd")
def multiply_add(rng, dtype="f32"):
    for n in (1, 7, 16, 17, 33, 0):
        yield [*(random_array(rng, (2, n), dtype, (1, 4)) for _ in range(3))], {}
    channels = [random_array(rng, (1, 3, 1, 1), dtype, (1, 4)) for _ in range(2)]
    yield [random_array(rng, (2, 3, 4, 5), dtype, (1, 4)), *channels], {}
