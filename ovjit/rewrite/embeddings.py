"""Gathers rows of compressed tables before it decompresses them, so that no table is expanded to f32.

    Gather([Reshape] Multiply([Subtract(] Convert(integers), zero)], scale), indices)     along the first axis
    -> [Reshape] Multiply([Subtract(] Convert(Gather(integers)), Gather(zero))], Gather(scale))
    Gather(Convert(x: f16), indices) -> Convert(Gather(x, indices))

A byte has two elements of 4 bits, with the first half of a row in the low bits. Floats of 8 or 4 bits are
looked up in a table of all their values. An index out of range still gives zeros: its gathered scale is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.graph.converted import InBlocks
from ovjit.graph.dtypes import HALVES, numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import normalize_axis
from ovjit.graph.stored_floats import bits_of, levels_of
from ovjit.rewrite.compression import INTEGERS, SMALLEST, scaled_integers
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer

_STORED = op.Convert(constant("stored").where(lambda stored: stored.dtype in HALVES))

#: Rows that are converted at a time.
_ROWS = 4096


@rule(op.Gather(value("table"), value("indices"), constant("axis"), batch_dims=lambda n: not n))
def gather_compressed(w: Writer, node: Node, table: Value, indices: Value, axis: Value) -> Value | None:
    """Gather(a large compressed table, indices) -> decompressed rows of the stored table"""
    shape, axis_value = table.shape, axis.constant
    if node.output.dtype != "f32" or shape is None or axis_value is None:
        return None
    if indices.shape is None or indices.constant is not None:
        return None
    if not all(isinstance(d, int) for d in shape) or int(np.prod(shape, dtype=np.int64)) < SMALLEST:
        return None
    if normalize_axis(int(axis_value.reshape(-1)[0]), len(shape)):
        return None
    stored = _STORED.first(table)
    if stored is not None:
        rows = w(node.op, stored["stored"], *node.inputs[1:], **node.attrs)
        return w("Convert", rows, destination_type="f32")
    return _numbers(w, node, shape)


def _numbers(w: Writer, node: Node, shape: Sequence[int]) -> Value | None:
    """The gathered rows of a table of integers, or of floats of 8 or 4 bits. None for other tables."""
    for array, dtype, zero, scale in scaled_integers(node.inputs[0], rounded=True):
        rows = array.shape[0] if array.ndim else 0
        parts = [v for v in (scale, zero) if v is not None]
        if rows != shape[0] or array.ndim < 2 or any(v.ndim > array.ndim for v in parts):
            continue
        if any(v.ndim == array.ndim and v.shape[0] not in (1, rows) for v in parts):
            continue
        if isinstance(array, InBlocks) or isinstance(scale, InBlocks):
            return _of_blocks(w, node.inputs[1:], array, levels_of(dtype), zero, scale)
        assert isinstance(zero, np.ndarray | None)
        return _decompress_rows(w, node.inputs[1:], np.asarray(array), dtype, zero, scale)
    return None


def _of_blocks(
    w: Writer, operands: Sequence[Value], array: Any, levels: np.ndarray | None,
    zero: np.ndarray | InBlocks | None, scale: np.ndarray | InBlocks,
) -> Value:  # fmt: skip
    """Gathered rows of a file's blocks: codes [rows, groups, elements] of `bits` bits, perhaps of `levels`,
    and factors of scales."""
    lead, groups = len(w.node.inputs[1].shape or ()), array.shape[1]

    def factor(values: np.ndarray | InBlocks) -> Value:
        """[..., groups, 1] in f32"""
        if not isinstance(values, InBlocks):
            return w("Convert", w(w.node.op, values, *operands, **w.node.attrs), destination_type="f32")
        assert values.factors is not None
        parts = [v for v in values.factors(values.raw(0, len(values.source))) if v is not None]
        runs = parts[0].shape[1]
        gathered = [
            w(w.node.op, np.ascontiguousarray(v).reshape(len(v), runs, -1), *operands, **w.node.attrs)
            for v in parts
        ]
        result = [w("Convert", v, destination_type="f32") for v in gathered]
        product = w("Multiply", *result, auto_broadcast="numpy") if len(result) > 1 else result[0]
        return w("Reshape", product, [*[0] * lead, groups, 1], special_zero=True)

    bits = array.bits if isinstance(array, InBlocks) else 4
    codes = _codes_of_rows(w, operands, array, bits)
    if levels is None:
        real = w("Convert", codes, destination_type="f32")
    else:
        indices = w("Convert", codes, destination_type="i32")
        real = w("Gather", np.ascontiguousarray(levels), indices, np.array(0), batch_dims=0)
    low = factor(zero) if isinstance(zero, InBlocks) else None
    if zero is not None and low is None:
        real = w("Subtract", real, np.asarray(zero, np.float32).reshape(()), auto_broadcast="numpy")
    real = w("Multiply", real, factor(scale), auto_broadcast="numpy")
    if low is not None:
        real = w("Add", real, low, auto_broadcast="numpy")
    final = tuple(w.node.inputs[0].shape)
    return w("Reshape", real, [*[0] * lead, *final[1:]], special_zero=True)


def _codes_of_rows(w: Writer, operands: Sequence[Value], array: Any, bits: int) -> Value:
    """Gathered codes of `bits` bits. The table is stored as planes of 4, 2 and 1 bits. A byte of a plane has
    one element of each of the equal parts into which a group is split."""
    planes = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2)}[bits]
    tables = [np.empty((*array.shape[:-1], array.shape[-1] * p // 8), np.uint8) for p in planes]
    for first in range(0, len(array), _ROWS):
        end = min(first + _ROWS, len(array))
        codes, down = array.rows(first, end).reshape(end - first, *array.shape[1:]), 0
        for plane, width in zip(tables, planes, strict=True):
            some = (codes >> np.uint8(down)) & np.uint8((1 << width) - 1)
            parts = np.split(some, 8 // width, -1)
            plane[first:end] = sum(part << np.uint8(i * width) for i, part in enumerate(parts))
            down += width
    result: list[Value] = []
    down = 0
    for plane, width in zip(tables, planes, strict=True):
        rows = w(w.node.op, plane, *operands, **w.node.attrs)
        shifts = range(0, 8, width)
        each = [w("BitwiseRightShift", rows, i, auto_broadcast="numpy") if i else rows for i in shifts]
        mask = (1 << width) - 1
        joined = w("Concat", *(w("BitwiseAnd", v, mask, auto_broadcast="numpy") for v in each), axis=-1)
        result.append(w("BitwiseLeftShift", joined, down, auto_broadcast="numpy") if down else joined)
        down += width
    return w("BitwiseOr", *result, auto_broadcast="numpy") if len(result) > 1 else result[0]


def _decompress_rows(
    w: Writer, operands: Sequence[Value], array: np.ndarray, dtype: str, zero: np.ndarray | None,
    scale: np.ndarray,
) -> Value:  # fmt: skip
    """The rows of a table by the indices rest[0], decompressed to f32. `operands`: inputs of the Gather
    after the table."""
    shape, node = array.shape, w.node

    def has_rows(array: np.ndarray) -> bool:
        return array.ndim == len(shape) and array.shape[0] == shape[0]

    def rows(array: np.ndarray) -> Value:
        """The gathered rows of `array`, which broadcasts to the table; all of it if all rows share it."""
        if not has_rows(array):
            return w.b.constant(array if array.ndim < len(shape) else array[0])
        return w(node.op, array, *operands, **node.attrs)

    packed = (dtype in ("i4", "u4") or bits_of(dtype) == 4) and array.shape[-1] % 2 == 0
    if dtype == "i4":
        array, zero = array.astype(np.int8) + np.int8(8), (np.zeros(()) if zero is None else zero) + 8.0
    codes = array.astype(np.int8 if dtype == "i8" else np.uint8, copy=False)
    if packed:
        half = codes.shape[-1] // 2
        gathered = rows(codes[..., :half] | (codes[..., half:] << 4))
        low = w("BitwiseAnd", gathered, 15, auto_broadcast="numpy")
        high = w("BitwiseRightShift", gathered, 4, auto_broadcast="numpy")
        gathered = w("Concat", low, high, axis=-1)
    else:
        gathered = rows(codes)
    if dtype in INTEGERS:
        real = w("Convert", gathered, destination_type="f32")
    else:
        all_codes = np.arange(256, dtype=np.uint8)
        level_table = levels_of(dtype)
        levels = all_codes.view(numpy_dtype(dtype)).astype(np.float32) if level_table is None else level_table
        indices = w("Convert", gathered, destination_type="i32")
        real = w("Gather", np.ascontiguousarray(levels), indices, np.array(0), batch_dims=0)
    if zero is not None:
        real = w("Subtract", real, rows(zero.astype(np.float32)), auto_broadcast="numpy")
    first = 0 if dtype in INTEGERS else levels[0]
    if not has_rows(scale) and (first or (zero is not None and not has_rows(zero))):  # a 0 is not zero
        if scale.size > 1:
            real = w("Multiply", real, rows(scale.astype(np.float32)), auto_broadcast="numpy")
            scale = np.ones(1)
        scale = np.broadcast_to(scale.reshape(-1), shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
    real = w("Multiply", real, rows(scale.astype(np.float32)), auto_broadcast="numpy")
    final = tuple(node.inputs[0].shape)
    if shape == final:
        return real
    lead = len(node.inputs[1].shape or ())
    return w("Reshape", real, [*[0] * lead, *final[1:]], special_zero=True)
