"""Decoders with keys and values in variables, as exporters write them."""

from __future__ import annotations

import numpy as np

import ovjit as ov
from ovjit import opset13 as ops

HEADS, SIZE = 2, 8


def decoder(layers: int = 2, beams: bool = True, shared: bool = False, told: bool = True) -> ov.Model:
    """Attention to all earlier tokens, keys and values in variables, as `optimum` exports it. `told`: their
    number is an output, so that no plan serves two lengths."""
    x = ops.parameter(ov.PartialShape([-1, -1, HEADS * SIZE]), np.float32, name="x")
    order = ops.parameter(ov.PartialShape([-1]), np.int32, name="beam_idx")
    zero = ops.constant(np.int64(0))
    batch = ops.gather(ops.shape_of(x, "i64"), ops.constant(np.array([0], np.int64)), zero)
    sinks, outputs = [], []
    heads = ops.transpose(
        ops.reshape(x, ops.constant(np.array([0, 0, HEADS, SIZE], np.int64)), True),
        ops.constant(np.array([0, 2, 1, 3], np.int64)),
    )
    y = heads
    for i in range(layers):
        joined = []
        for kind, factor in (("key", 0.5), ("value", 2.0)):
            sizes = [ops.constant(np.array([n], np.int64)) for n in (HEADS, 0, SIZE)]
            start = ops.broadcast(ops.constant(np.float32(0)), ops.concat([batch, *sizes], 0))
            name = f"past_key_values.{i}.{kind}"
            before = ops.read_value(start, name, np.float32, ov.PartialShape([-1, HEADS, -1, SIZE]))
            if beams:
                before = ops.gather(before, order, zero)
            new = ops.multiply(ops.tanh(y), ops.constant(np.float32(factor)))
            whole = ops.concat([before, new], 2)
            sinks.append(ops.assign(whole, name))
            joined.append(whole)
        if shared and i == 0:
            outputs.append(ops.result(joined[0]))
        y = ops.scaled_dot_product_attention(y, joined[0], joined[1])
    length = ops.gather(ops.shape_of(joined[0], "i64"), ops.constant(np.int64(2)), zero)
    outputs += [ops.result(y), *([ops.result(ops.convert(length, "f32"))] if told else [])]
    return ov.Model(outputs, sinks, [x, order] if beams else [x], "decoder")
