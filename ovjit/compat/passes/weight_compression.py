"""Weights of products as integers of 8 or 4 bits with scales, made from a model's reals.

    w -> Convert(integers) [- zero] * scale

8 bits: unsigned, a scale and a zero for each output. 4 bits: signed, a scale for each group of the depth.
Tables of words, the last product, and depths that no group divides keep 8 bits.
"""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import Constant, constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.model import Model
from ovjit.api.model.model_rules import ModelNode
from ovjit.api.model.node import Output
from ovjit.rewrite.pattern import anything, constant, op

#: Elements of a group of 4 bits, and the fewest elements of a weight that is made smaller.
GROUP, SMALLEST = 128, 1 << 12
_REALS = ("f32", "f16", "bf16")


def compress_weights(model: Model, bits: int, group: int = GROUP) -> int:
    """Compress the matrices of products (also of experts) and embedding tables to integers of `bits` bits in
    place. Returns their number. Integer weights stay as they are.

    `group`: elements of the depth that share a scale, of 4 bits. ValueError for other numbers
    of bits, and for groups that are no positive multiple of 16.
    """
    if bits not in (8, 4):
        raise ValueError(f"weights are compressed to 8 or 4 bits, not {bits!r}")
    if group < 16 or group % 16:
        raise ValueError(f"the group size should be a multiple of 16, not {group!r}")
    order = model.get_ordered_ops()
    products = [n for n in order if n._tensors and _PRODUCT.matches(ModelNode(n).output)]
    last = {id(_weight(n.input_value(1))) for n in products[-1:]}
    tables = [n for n in order if n._tensors and _TABLE.matches(ModelNode(n).output)]
    done: dict[int, Output | None] = {}
    for node, index in [*((n, 0) for n in tables), *((n, 1) for n in products)]:
        source = node.input_value(index)
        weight = _weight(source)
        if weight is None:  # made smaller as another node's input
            continue
        small = bits == 4 and index == 1 and id(weight) not in last and node._attrs["transpose_b"]
        if id(weight) not in done:
            by_row = index == 0 or node._attrs["transpose_b"]
            done[id(weight)] = _compress(weight, 4 if small else 8, group, bool(by_row))
        result = done[id(weight)]
        if result is not None:
            node.input(index).replace_source_output(result)
    model.validate_nodes_and_infer_types()
    return sum(result is not None for result in done.values())


def _weight(source: Output) -> Constant | None:
    """The float constant of a matrix, possibly converted; None without one."""
    node = source._node
    while node._op.name == "Convert":
        node = node.input_value(0)._node
    if not isinstance(node, Constant) or node._attrs["element_type"] not in _REALS:
        return None
    shape = node._tensors[0]._type.shape
    return node if len(shape) in (2, 3) and int(np.prod(shape)) >= SMALLEST else None


_WEIGHT = anything.where(lambda candidate: _weight(candidate.port) is not None)
_PRODUCT = op.MatMul(anything, _WEIGHT)
_FIRST = constant("axis").where(lambda axis: int(axis.constant.reshape(-1)[0]) == 0)
_TABLE = op.Gather(_WEIGHT, anything, _FIRST)


def _compress(weight: Constant, bits: int, group: int, by_row: bool) -> Output | None:
    """Nodes that decompress the quantized weights to f32; None if no scale is possible."""
    real = weight.value.astype(np.float32)
    if not np.isfinite(real).all():
        return None
    name = weight.get_friendly_name()
    if bits == 4 and real.shape[-1] % group == 0:
        return _quantize_signed(real.reshape(*real.shape[:-1], -1, group), name)
    return _quantize_unsigned(real, -1 if by_row else -2, name)


def _quantize_unsigned(real: np.ndarray, axis: int, name: str) -> Output:
    low, high = real.min(axis, keepdims=True).clip(max=0), real.max(axis, keepdims=True).clip(min=0)
    scale = (high - low) / 255
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale).astype(np.float32)
    zero = np.rint(-low / scale).clip(0, 255)
    quantized = (np.rint(real / scale) + zero).clip(0, 255).astype(np.uint8)
    result = _op("Subtract", _in_f32(quantized, "u8"), _in_f32(zero.astype(np.uint8), "u8"))
    return _op("Multiply", result, scale, name=name)


def _quantize_signed(blocks: np.ndarray, name: str) -> Output:
    """Quantize blocks symmetrically: the number of largest magnitude becomes -8."""
    at = abs(blocks).argmax(-1, keepdims=True)
    scale = np.take_along_axis(blocks, at, -1) / -8
    scale = np.where(abs(scale) < np.finfo(np.float16).tiny, np.float32(2.0**-14), scale)
    scale = scale.astype(np.float16).astype(np.float32)
    quantized = np.rint(blocks / scale).clip(-8, 7).astype(np.int8)
    result = _op("Multiply", _in_f32(quantized, "i4"), _in_f32(scale.astype(np.float16), "f16"))
    return _op("Reshape", result, np.array([*blocks.shape[:-2], -1]), special_zero=False, name=name)


def _in_f32(value: np.ndarray, dtype: str) -> Output:
    """Convert(Constant of the type `dtype`) to f32."""
    return _op("Convert", constant_node(value, dtype), destination_type="f32")
