"""QuantizeRows and DequantizeRows: how caches of keys and values in bytes are written and read."""

from __future__ import annotations

import numpy as np

from ovjit.errors import check
from ovjit.graph.byte_rows import HEAD, in_bytes, in_floats, may_have_rows, to_bytes, to_floats
from ovjit.graph.op import op
from ovjit_ops.elementwise.arithmetic import random_array
from ovjit_ops.quantization.cpu_byte_rows import QuantizedRows


def _samples(rng: np.random.Generator, dtype: str = "f32"):
    for shape in ((4,), (3, 20), (2, 3, 64), (2, 1, 5, 12), (2, 3, 2, 2, 8), (3, 0, 8)):
        x = random_array(rng, shape, "f32", (-3, 5))
        yield x
    yield np.full((2, 8), 0.3, np.float32)


@op("QuantizeRows", types=("f32",), internal=True, ulp=0, lower=QuantizedRows.of)
class QuantizeRows:
    """Rows of f32 as bytes with a scale and a zero: `byte_rows`."""

    def infer(x):
        check(may_have_rows(x.shape), f"{x} has no rows that can be bytes")
        return in_bytes(x)

    def ref(x):
        return to_bytes(x)

    def samples(rng, dtype="f32"):
        for x in _samples(rng, dtype):
            yield [x], {}


@op("DequantizeRows", types=("f32",), internal=True, ulp=1, lower=QuantizedRows.of)
class DequantizeRows:
    """What rows of bytes stand for, in f32. `fresh`: the last of them before they were rounded, which are the
    result where they are all there is, in a prompt."""

    def infer(x, fresh=None):
        check(x.dtype == "u8", f"rows of bytes, not {x}")
        check(may_have_rows(in_floats(x).shape), f"{x} has no rows with a head of {HEAD} bytes")
        return in_floats(x)

    def ref(x, fresh=None):
        return to_floats(x) if fresh is None or fresh.shape[:-1] != x.shape[:-1] else fresh

    def samples(rng, dtype="f32"):
        for x in _samples(rng, dtype):
            yield [to_bytes(x)], {}
            yield [to_bytes(x), x], {}
            if x.ndim > 1:
                yield [to_bytes(x), x[..., :1, :]], {}
