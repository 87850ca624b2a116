"""Tensors that are split, joined, cut and turned, and diagonals."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle  # type: ignore[import-not-found]

from .parts import Rule, constant_of, numbers_below, parts_of, sizes_of


def _flip(op: Any) -> Any:
    """The exporter refuses open sizes."""
    x = op.operand_source(0)
    axes = op.attrs()["axis"]
    if all(x.shape[axis] >= 0 for axis in axes):
        return None
    for axis in axes:
        size = sizes_of(x)[axis]
        x = paddle.gather(x, size - 1 - numbers_below(size), axis=axis % len(x.shape))
    return x


def _split(op: Any) -> Any:
    """The exporter refuses to divide an open size, and sections that are not all stated."""
    x = op.operand_source(0)
    axis = (constant_of(op.operand_source(op.num_operands() - 1)) or [None])[0]
    if axis is None or x.shape[int(axis)] >= 0:
        return None
    axis = int(axis) % len(x.shape)
    size = paddle.shape(x)[axis]
    if "num" in op.attrs():
        count = op.attrs()["num"]
        sections = [size // count] * count
    else:
        stated = constant_of(op.operand_source(1))
        if stated is None:
            return None
        open_size = size - sum(part for part in stated if part >= 0)
        sections = [part if part >= 0 else open_size for part in stated]
    parts, first = [], 0
    for section in sections:
        parts.append(paddle.slice(x, [axis], [first], [first + section]))
        first = first + section
    return [parts]


def _repeat(op: Any) -> Any:
    """The exporter repeats open dimensions wrongly."""
    x, axis, count = (
        op.operand_source(0),
        op.attrs()["axis"] % len(op.operand_source(0).shape),
        op.attrs()["repeats"],
    )
    if min(x.shape) >= 0:
        return None
    shape = sizes_of(x)
    shape[axis] = shape[axis] * count
    return paddle.reshape(paddle.concat([paddle.unsqueeze(x, axis + 1)] * count, axis=axis + 1), shape)


def _broadcast(op: Any) -> Any:
    values = parts_of(op.operand_source(0))
    if values[0].dtype == paddle.bool:
        return None
    nothing = paddle.zeros_like(values[0])
    for value in values[1:]:
        nothing = nothing + paddle.zeros_like(value)
    return [[value + nothing for value in values]]


def _kron(op: Any) -> Any:
    x, y = op.operands_source()
    rank = max(len(x.shape), len(y.shape))
    x, y = (paddle.unsqueeze(v, [*range(rank - len(v.shape))]) if len(v.shape) < rank else v for v in (x, y))
    shape = [a * b for a, b in zip(sizes_of(x), sizes_of(y), strict=True)]
    x = paddle.unsqueeze(x, [*range(1, 2 * rank, 2)])
    return paddle.reshape(x * paddle.unsqueeze(y, [*range(0, 2 * rank, 2)]), shape)


def _cross(op: Any) -> Any:
    x, y = op.operands_source()
    axis = op.attrs()["axis"]
    if axis == 9:  # it is not stated
        axis = next((i for i, size in enumerate(x.shape) if size == 3), None)
        if axis is None:
            return None
    rolled = [[paddle.roll(v, by, axis) for by in (-1, -2)] for v in (x, y)]
    return rolled[0][0] * rolled[1][1] - rolled[0][1] * rolled[1][0]


def _on_diagonal(rows: Any, columns: Any, offset: int) -> Any:
    """Mask [rows, columns] of the diagonal with this offset."""
    return paddle.unsqueeze(numbers_below(rows), 1) + offset == paddle.unsqueeze(numbers_below(columns), 0)


def _trace(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    axes = [attrs["axis1"] % len(x.shape), attrs["axis2"] % len(x.shape)]
    x = paddle.transpose(x, [*(i for i in range(len(x.shape)) if i not in axes), *axes])
    rows, columns = sizes_of(x)[-2:]
    inside = paddle.cast(_on_diagonal(rows, columns, attrs["offset"]), x.dtype)
    result = paddle.sum(paddle.sum(x * inside, axis=[-1]), axis=[-1], keepdim=True)
    return paddle.squeeze(result, axis=[-1])


def _diag_embed(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    rank = len(x.shape) + 1
    axes = [attrs["dim1"] % rank, attrs["dim2"] % rank]
    result = _as_diagonal(x, attrs["offset"], 0)
    order = [i for i in range(rank) if i not in axes] + axes
    return paddle.transpose(result, [order.index(i) for i in range(rank)])


def _diag(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    if len(x.shape) == 1:
        return _as_diagonal(x, attrs["offset"], attrs["padding_value"])
    offset, (rows, columns) = attrs["offset"], x.shape
    if min(x.shape) < 0:
        return None
    first = np.arange(max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)))
    coordinates = np.stack([first - min(offset, 0), first + max(offset, 0)], -1)
    return paddle.gather_nd(x, paddle.assign(coordinates.astype(np.int64)))


def _as_diagonal(x: Any, offset: int, fill: float) -> Any:
    """Matrices that have the last dimension on their diagonal."""
    size = sizes_of(x)[-1] + abs(offset)
    more = paddle.zeros([*sizes_of(x)[:-1], abs(offset)], x.dtype) if offset else None
    padded = x if more is None else paddle.concat([more, x] if offset > 0 else [x, more], axis=-1)
    row = paddle.unsqueeze(padded, -2)
    return paddle.where(_on_diagonal(size, size, offset), row, paddle.full([1], fill, x.dtype))


def _multiplex(op: Any) -> Any:
    result, *values = parts_of(op.operand_source(0))
    index = paddle.reshape(op.operand_source(1), [-1, *[1] * (len(result.shape) - 1)])
    for number, value in enumerate(values, 1):
        result = paddle.where(index == number, value, result)
    return result


def _index_add(op: Any) -> Any:
    x, index, value = op.operands_source()
    axis = op.attrs()["axis"] % len(x.shape)
    order = [axis, *(i for i in range(len(x.shape)) if i != axis)]
    back = [order.index(i) for i in range(len(order))]
    result = paddle.scatter_nd_add(
        paddle.transpose(x, order), paddle.unsqueeze(index, 1), paddle.transpose(value, order)
    )
    return paddle.transpose(result, back)


def _crop(op: Any) -> Any:
    x, shape, offsets = (
        op.operand_source(0),
        constant_of(op.operand_source(1)),
        constant_of(op.operand_source(2)),
    )
    if shape is None or offsets is None:
        return None
    ends = [first + size if size >= 0 else 2**31 - 1 for first, size in zip(offsets, shape, strict=True)]
    return paddle.slice(x, [*range(len(shape))], offsets, ends)


def _roll(op: Any) -> Any:
    """The exporter refuses open sizes where all elements are rolled as one row."""
    x, shift = op.operand_source(0), constant_of(op.operand_source(1))
    if op.attrs()["axis"] or shift is None or min(x.shape, default=0) >= 0:
        return None
    return paddle.reshape(paddle.roll(paddle.reshape(x, [-1]), shift, [0]), sizes_of(x))


def _expanded_as(op: Any) -> Any:
    """The exporter takes the sizes of the other tensor to be known."""
    x, y = op.operands_source()
    if not y.initialized() or min(y.shape, default=0) >= 0:
        return None
    return paddle.expand(x, paddle.shape(y))


def _count_of_list(op: Any) -> Any:
    """The exporter gives it no dimension."""
    return paddle.reshape(paddle._C_ops.array_length(op.operand_source(0)), [1])


RULES: dict[str, Rule] = {
    "flip": _flip,
    "split": _split,
    "split_with_num": _split,
    "repeat_interleave": _repeat,
    "broadcast_tensors": _broadcast,
    "kron": _kron,
    "cross": _cross,
    "trace": _trace,
    "diag": _diag,
    "diag_embed": _diag_embed,
    "multiplex": _multiplex,
    "index_add": _index_add,
    "index_add_": _index_add,
    "crop": _crop,
    "masked_select": lambda op: paddle.gather_nd(op.operand_source(0), paddle.nonzero(op.operand_source(1))),
    "roll": _roll,
    "expand_as": _expanded_as,
    "array_length": _count_of_list,
}
