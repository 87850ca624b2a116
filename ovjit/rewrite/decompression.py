"""Weights stored as small numbers with 16-bit scales are decompressed in f32, as OpenVINO does.

    Convert([Reshape] Multiply([Subtract(] Convert(integers, f16), zero: f16)], scale: f16), f32)
    -> [Reshape] Multiply([Subtract(] Convert(integers, f32), zero: f32)], scale: f32)

The same applies to codebooks, Gather(table: f16, integers), and to scales that are products, which become
constants. Conversions of stored numbers and of scales to f16 are kept, with their rounding. The product is
not rounded to f16, although the graph says so: the relative error of a weight would be 5e-4.
"""

from __future__ import annotations

import numpy as np

from ovjit.graph.converted import in_f32
from ovjit.graph.dtypes import ELEMENT_TYPES, HALVES, ROUNDED, cast, numpy_dtype
from ovjit.graph.graph import Builder, Node, Value
from ovjit.rewrite.conversions import converts, skip_convert
from ovjit.rewrite.pattern import op, value
from ovjit.rewrite.rules import rule

_PRODUCT, _DIFFERENCE = op.Multiply(...), op.Subtract(...)
_ARITHMETIC, _TAKEN = _PRODUCT | _DIFFERENCE, op.Gather(...)
_REALS = HALVES | {"f32"}
_MOVES = op["Reshape Transpose Squeeze Unsqueeze"](...)


def _is_stored(value: Value) -> bool | None:
    """Whether a chain begins with stored numbers of few bits; None if it is not a decompression chain."""
    node = value.node
    if node.op.role == "constant":
        return False
    if value.dtype not in _REALS or not node.inputs:
        return None
    first, *others = node.inputs
    if converts(node):
        stored = ELEMENT_TYPES[first.dtype]
        return _is_stored(first) if first.stored_array is None else stored.kind in "iu" or stored.bits <= 8
    if _TAKEN.fits(node.op) and first.dtype in _REALS and _indices(others[0]) is not None:
        is_table = others[1].stored_array is not None and len(first.shape or ()) == 1
        return (is_table and (first.stored_array is not None or _is_stored(first) is not None)) or None
    if _MOVES.fits(node.op) and all(v.stored_array is not None for v in others):
        return _is_stored(first)
    if not _ARITHMETIC.fits(node.op):
        return None
    sides = [_is_stored(v) for v in node.inputs]
    return None if None in sides else any(sides)


def _indices(value: Value) -> Value | None:
    """The constant of unsigned integers of at most 8 bits that the indices are, possibly converted."""
    source = skip_convert(value)
    stored = ELEMENT_TYPES[source.dtype]
    return source if source.stored_array is not None and stored.kind == "u" and stored.bits <= 8 else None


@rule(op.Convert(value("half"), destination_type="f32"))
def decompress(b: Builder, node: Node, half: Value) -> Value | None:
    """Convert(chain: f16, f32) -> the chain in f32"""
    return _to_f32(b, half, node) if half.dtype in HALVES and _is_stored(half) else None


def _to_f32(b: Builder, value: Value, end: Node) -> Value:
    """`value` of a chain, in f32."""
    node, attrs = value.node, value.node.attrs
    if value.constant is not None:
        return b.constant(in_f32(value.constant))
    first, *others = node.inputs
    if _ARITHMETIC.fits(node.op):
        operands = [_to_f32(b, v, end) if array is None else b.constant(array) for v, array in _sides(node)]
    elif not converts(node):
        operands = [_to_f32(b, first, end), *(_copy_constant(b, v, end) for v in others)]
    elif first.stored_array is None or ELEMENT_TYPES[first.dtype].bits > 16:
        array = _fold(value)
        return _to_f32(b, first, end) if array is None else b.constant(array)
    else:
        operands, attrs = [b.constant(first.stored_array, first.dtype)], {"destination_type": "f32"}
        if first.dtype in ROUNDED and value.dtype in HALVES:
            operands = [b.add("Convert", operands, node.attrs, origins=end.origins).output]
    return b.add(node.op, operands, attrs, name=f"{end.name}/{node.op.name}", origins=end.origins).output


def _copy_constant(b: Builder, value: Value, end: Node) -> Value:
    """A copy of a constant, or of a converted constant, in its own type."""
    first = skip_convert(value)
    constant = b.constant(first.stored_array, first.dtype)
    if first is value:
        return constant
    return b.add(value.node.op, [constant], value.node.attrs, origins=end.origins).output


def _sides(node: Node) -> list[tuple[Value, np.ndarray | None]]:
    """The operands of a product or difference. Operands that are smaller than the result and computed are
    returned with their elements."""
    small = (v.shape != node.output.shape and skip_convert(v).stored_array is None for v in node.inputs)
    return [(v, _fold(v) if some else None) for v, some in zip(node.inputs, small, strict=True)]


def _fold(value: Value) -> np.ndarray | None:
    """The elements in f32 of a product or difference of constants, possibly converted; else None."""
    node, elements = value.node, value.constant
    if _ARITHMETIC.fits(node.op):
        one, other = map(_fold, node.inputs)
        if one is None or other is None:
            return None
        return one * other if _PRODUCT.fits(node.op) else one - other
    if converts(node):
        elements = _fold(node.inputs[0])
    return None if elements is None else cast(cast(elements, numpy_dtype(value.dtype)), np.dtype(np.float32))
