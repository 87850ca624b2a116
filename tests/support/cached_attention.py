"""One layer of attention to all earlier tokens, keys and values in variables."""

from __future__ import annotations

from typing import Any

import numpy as np

import ovjit
from ovjit import opset13 as op

HEADS, SIZE = 2, 8


def decoder(ov: Any, read_otherwise: str = "", size: int = SIZE) -> Any:
    """Attention to all earlier tokens; the keys in "key", the values in "value". `read_otherwise`: keys are
    summed too, are an output, or are written anew each time."""
    ops = ov.opset13
    x = ops.parameter(ov.PartialShape([-1, HEADS, -1, size]), np.float32, name="x")
    order = ops.parameter(ov.PartialShape([-1]), np.int32, name="beam_idx")
    zero = ops.constant(np.int64(0))
    batch = ops.gather(ops.shape_of(x, "i64"), ops.constant(np.array([0], np.int64)), zero)
    sinks, joined = [], []
    for name, factor in (("key", 0.37), ("value", 2.1)):
        sizes = [ops.constant(np.array([n], np.int64)) for n in (HEADS, 0, size)]
        start = ops.broadcast(ops.constant(np.float32(0)), ops.concat([batch, *sizes], 0))
        before = ops.read_value(start, name, np.float32, ov.PartialShape([-1, HEADS, -1, size]))
        before = ops.gather(before, order, zero)
        whole = ops.concat([before, ops.multiply(x, ops.constant(np.float32(factor)))], 2)
        sinks.append(ops.assign(ops.tanh(whole) if read_otherwise == "anew" else whole, name))
        joined.append(whole)
    y = ops.scaled_dot_product_attention(x, *joined)
    outputs = [ops.result(y)]
    if read_otherwise == "summed":
        outputs.append(ops.result(ops.reduce_sum(joined[0], ops.constant(np.array([2])), False)))
    if read_otherwise == "output":
        outputs.append(ops.result(joined[0]))
    return ov.Model(outputs, sinks, [x, order], "decoder")


def stored(model: Any) -> list[str]:
    return [v.stored for v in model._executable.program.variables]


def step(request: Any, x: np.ndarray, order: Any = None) -> np.ndarray:
    order = np.arange(len(x)) if order is None else order
    return np.array(request.infer({"x": x, "beam_idx": np.asarray(order, np.int32)})[0])


def compiled(model: Any, **more: Any) -> Any:
    return ovjit.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **more})


def kernels(request: Any) -> list[str]:
    return [row.exec_type for row in request.profiling_info]


def shared_heads() -> Any:
    """Keys and values of 2 heads for 4 of queries, repeated as exporters write it, products and a softmax."""
    x = op.parameter(ovjit.PartialShape([1, 4, -1, 16]), np.float32, name="x")
    new = op.parameter(ovjit.PartialShape([1, 2, -1, 16]), np.float32, name="new")
    read, sinks = [], []
    for name in ("key", "value"):
        start = op.constant(ovjit.Tensor(np.zeros((1, 2, 0, 16), np.float32)))
        before = op.read_value(start, name, np.float32, ovjit.PartialShape([1, 2, -1, 16]))
        whole = op.concat([before, new], 2)
        sinks.append(op.assign(whole, name))
        length = op.gather(op.shape_of(whole, "i64"), op.constant(np.array([2])), op.constant(np.int64(0)))
        sizes = [op.constant(np.array([1, 2, 2])), length, op.constant(np.array([16]))]
        wide = op.broadcast(op.unsqueeze(whole, op.constant(np.array([2]))), op.concat(sizes, 0))
        read.append(op.reshape(wide, op.constant(np.array([0, 4, -1, 16])), True))
    weights = op.softmax(op.matmul(x, read[0], False, True), 3)
    return ovjit.Model([op.result(op.matmul(weights, read[1], False, False))], sinks, [x, new], "shared")
