"""FakeQuantize and FakeConvert of constant weights, as integers with a scale."""

from __future__ import annotations

import numpy as np

from ovjit.build import Constant, Model, Node, attributes_of
from ovjit.build.rules import ModelNode, ModelValue, ModelWriter, apply_rules
from ovjit.build.tensors import constant_node
from ovjit.graph import dtypes
from ovjit.graph.op import find_op
from ovjit.rewrite.pattern import op
from ovjit.rewrite.rules import rule

_NEAR = 1e-4


def compress_quantized(model: Model) -> None:
    """Replace FakeQuantize and FakeConvert of constant weights by (Convert(small integers or floats) - zero
    point) * scale.

    Up to 16 levels make 4 bits, up to 256 make 8; unsigned where no value is below 0. The zero point is left
    out where it is 0, or where the integers can be moved by it within their type.
    """
    apply_rules([compress_fake_quantize, compress_fake_convert], model, names_all=False)


def _weight(node: Node) -> np.ndarray | None:
    """The value of a constant, seen through a conversion from another float."""
    if isinstance(node, Constant):
        real = dtypes.ELEMENT_TYPES[attributes_of(node)["element_type"]].is_real
        return node.value.astype(np.float32) if real else None
    if node.get_type_name() == "Convert" and isinstance(node.input_value(0).node, Constant):
        return _weight(node.input_value(0).node)
    return None


@rule(op.FakeQuantize(...))
def compress_fake_quantize(w: ModelWriter, node: ModelNode) -> ModelValue | None:
    """FakeQuantize(weights) -> (Convert(integers) - zero point) * scale"""
    levels = int(node.attrs["levels"])
    values = [_weight(source.node) for source in node.of.input_values()]
    if not 2 < levels <= 256 or any(value is None for value in values):
        return None
    weight, in_low, in_high, out_low, out_high = (np.asarray(v, np.float32) for v in values)
    signed = bool((out_low < 0).any())
    bits = 4 if levels <= 16 else 8
    low = -(levels // 2) if signed else 0
    with np.errstate(all="ignore"):
        steps = (np.clip(weight, in_low, in_high) - in_low) / (in_high - in_low) * np.float32(levels - 1)
        integers = np.rint(np.where(weight <= in_low, 0, np.where(weight > in_high, levels - 1, steps))) + low
        scale = ((out_high - out_low) / np.float32(levels - 1)).astype(np.float32)
        zero = np.where(scale == 0, 0, np.float32(low) - out_low / scale).astype(np.float32)
    if not np.isfinite(integers).all() or integers.shape != tuple(node.output.shape):
        return None
    shift = np.rint(zero)
    if np.abs(zero - shift).max(initial=0) < _NEAR:
        moved = integers - shift
        bottom = -(1 << (bits - 1)) if signed else 0
        if moved.min(initial=0) >= bottom and moved.max(initial=0) < bottom + (1 << bits):
            integers, zero = moved, np.zeros_like(zero)
    return _write_scaled(w, node, integers, f"{'i' if signed else 'u'}{bits}", zero, scale)


@rule(op.FakeConvert(...))
def compress_fake_convert(w: ModelWriter, node: ModelNode) -> ModelValue | None:
    """FakeConvert(weights) -> (Convert(values of 8 bits) - zero point) * scale"""
    values = [_weight(source.node) for source in node.of.input_values()]
    if any(value is None for value in values):
        return None
    weight, scale, *shifts = (np.asarray(v, np.float32) for v in values)
    shift = shifts[0] if shifts else np.zeros_like(scale)
    dtype = node.attrs["destination_type"]
    with np.errstate(all="ignore"):
        small = find_op("Convert").evaluate([weight * scale - shift], {"destination_type": dtype})[0]
        return _write_scaled(w, node, small, dtype, -shift, np.float32(1) / scale)


def _write_scaled(
    w: ModelWriter, node: ModelNode, values: np.ndarray, dtype: str, zero: np.ndarray, scale: np.ndarray
) -> ModelValue:
    """(Convert(values) - zero point) * scale, in the type of `node`."""
    real = node.output.dtype
    small = values.astype(np.int32) if values.dtype.kind == "f" else values
    out = w("Convert", ModelValue(constant_node(small, dtype).output(0)), destination_type=real)
    if np.abs(zero).max(initial=0) >= _NEAR:
        out = w("Subtract", out, ModelValue(constant_node(zero, real).output(0)))
    return w("Multiply", out, ModelValue(constant_node(scale, real).output(0)))
