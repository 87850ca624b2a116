"""Numbers that follow each other, as one: OpenVINO's `convert_model` does so, too.

x + a + b            x + (a + b)                    conv(x; w) * a      conv(x; w * a)
x * a * b            x * (a * b)                    conv(x * a; w)      conv(x; w * a)
conv(pad(x); w)      conv(x; w), padded             x[1:][:, 2:]        x[1:, 2:]

Weights of 4 bits that a module unpacks from bytes (NNCF) become constants of u4 and i4:

stack((bytes & 15, bytes >> 4), -1) -> reshape -> to floats              a constant of u4
stack(...) -> to i8 -> minus 8 -> reshape -> to floats                   a constant of i4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.build import Constant, Model, Output, attributes_of, make_constant, tensor_type
from ovjit.build.rules import ModelNode, ModelValue, ModelWriter, apply_rules
from ovjit.graph.converted import Unpacked
from ovjit.graph.shapes import is_static
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import Rule, rule
from ovjit.rewrite.weight_scales import f32_constant, join_factors, join_sums, scale_inputs, scale_outputs

_X = value("x")
_CONVOLUTION = op["Convolution GroupConvolution"]
_WEIGHTS = f32_constant("weights")


def _is_sum(x: ModelValue) -> bool:
    return op.Add(value("y"), f32_constant("term")).matches(x)


_FACTOR = op.Multiply(_X.where(lambda x: not _is_sum(x)), f32_constant("factor")).once
#: `scale_inputs`, but of sums with constants.
_scale_inputs = Rule(_CONVOLUTION(_FACTOR, _WEIGHTS), scale_inputs.after)


def join_constants(model: Model) -> None:
    """Apply the rules as long as one fits."""
    rules = [scale_outputs, _scale_inputs, join_sums, join_factors, join_slices, pad_convolution]
    while apply_rules(rules, model):
        pass


_BOUNDS = [constant("")] * 4
_SLICED = op.Slice(_X, *_BOUNDS).once.named("first")


@rule(op.Slice(_SLICED, *_BOUNDS))
def join_slices(w: ModelWriter, node: ModelNode, x: ModelValue, first: ModelValue) -> ModelValue | None:
    """x[1:][:, 2:] -> x[1:, 2:]: slices of different axes"""
    joined = [
        np.concatenate([np.asarray(value.constant, np.int64).reshape(-1) for value in bounds])
        for bounds in zip(first.node.inputs[1:], node.inputs[1:], strict=True)
    ]
    if x.shape is None or len(set(joined[3] % len(x.shape))) < joined[3].size:
        return None
    return w("Slice", x, *joined)


_PADDED = op.Pad(_X, constant("before"), constant("after"), constant("fill"), pad_mode="constant").once


@rule(_CONVOLUTION(_PADDED, _WEIGHTS, auto_pad="explicit"))
def pad_convolution(
    w: ModelWriter, node: ModelNode, x: ModelValue, before: ModelValue, after: ModelValue, fill: ModelValue
) -> Sequence[ModelValue] | None:
    """conv(pad(x)) -> conv(x) with more padding, if the padding is zeros"""
    low, high = (np.asarray(value.constant).reshape(-1).tolist() for value in (before, after))
    if np.any(fill.constant) or min(low + high) < 0 or any(low[:2] + high[:2]):
        return None
    pads = {
        key: [a + b for a, b in zip(node.attrs[key], more[2:], strict=True)]
        for key, more in (("pads_begin", low), ("pads_end", high))
    }
    return w.b.instead(node, [x, *node.inputs[1:]], {**node.attrs, **pads})


_FLOATS = ("f32", "f16", "bf16")
#: The nibbles of i4 are those of u4 with the highest bit changed, if 8 is subtracted from each number of u4.
_SIGNS = 0x88


def in_pairs(values: Sequence[Any]) -> Output | None:
    """The u4 constant [..., 2] that interleaves two tensors, the low and the high nibbles of bytes."""
    if len(values) != 2 or not all(isinstance(value, Output) for value in values):
        return None
    low, high = (_of_bytes(value, *step) for value, step in zip(values, _STEPS, strict=True))
    if low is None or high is None or not np.array_equal(low, high):
        return None
    return _packed(low, (*low.shape, 2), "u4")


_STEPS = (("BitwiseAnd", 15), ("BitwiseRightShift", 4))


def _of_bytes(value: Output, operation: str, number: int) -> np.ndarray | None:
    """The constant of bytes to which `operation` is applied with this number."""
    node = value.node
    if node.get_type_name() != operation or _number(node.input_value(1)) != number:
        return None
    source = node.input_value(0).node
    is_bytes = isinstance(source, Constant) and attributes_of(source)["element_type"] == "u8"
    return source.value if is_bytes else None


def _number(value: Output) -> Any:
    """The element of a constant [1] or scalar, through conversions; None for other values."""
    node = value.node
    while node.get_type_name() in ("Convert", "ConvertLike"):
        node = node.input_value(0).node
    return node.value.item() if isinstance(node, Constant) and node.value.size == 1 else None


def _packed(stored: np.ndarray, shape: tuple[int, ...], kind: str) -> Output:
    return make_constant(Unpacked(stored.reshape(-1), shape, kind), kind, shape)


def keep_packed(model: Model) -> None:
    """Keep 4-bit constants packed, and convert them to floats directly."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convert" and tensor_type(node.output(0)).dtype in _FLOATS:
            source = node.input_value(0)
            shape = tensor_type(source).shape
            codes = _codes(source) if is_static(shape) else None
            if codes is not None:
                stored, is_signed = codes
                result = stored ^ _SIGNS if is_signed else stored
                kind = "i4" if is_signed else "u4"
                node.input(0).replace_source_output(_packed(result, tuple(shape), kind))


def _codes(value: Output) -> tuple[np.ndarray, bool] | None:
    """(the packed bytes from which an integer tensor is unpacked, whether 8 is subtracted)."""
    node = value.node
    kind, dtype = node.get_type_name(), tensor_type(value).dtype
    if kind == "Reshape":
        return _codes(node.input_value(0))
    if kind == "Subtract" and dtype == "i8" and _number(node.input_value(1)) == 8:
        codes = _codes(node.input_value(0))
        return None if codes is None or codes[1] else (codes[0], True)
    if kind == "Convert" and dtype in ("u8", "i8"):
        source = node.input_value(0)
        stored = attributes_of(source.node).get("value")
        if tensor_type(source).dtype == "u4" and isinstance(stored, Unpacked):
            return stored.source, False
        return _codes(source) if dtype == "i8" else None
    return None
