"""Tensors that are split, joined, cut and turned, and diagonals."""

from __future__ import annotations

from .parts import *


def _flip(op: Any) -> Any:
    """Flip by indices: the exporter refuses dynamic sizes."""
    x = op.operand_source(0)
    axes = op.attrs()["axis"]
    if all(x.shape[axis] >= 0 for axis in axes):
        return None
    for axis in axes:
        size = sizes_of(x)[axis]
        x = paddle.gather(x, size - 1 - numbers_below(size), axis=axis % len(x.shape))
    return x


def _split(op: Any) -> Any:
    """Split by slices: the exporter refuses to divide a dynamic size, and sections with a -1."""
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
    """Repeat elements by a broadcast: the exporter repeats dynamic dimensions wrongly."""
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
    """Roll a flattened tensor: the exporter refuses dynamic sizes without an axis."""
    x, shift = op.operand_source(0), constant_of(op.operand_source(1))
    if op.attrs()["axis"] or shift is None or min(x.shape, default=0) >= 0:
        return None
    return paddle.reshape(paddle.roll(paddle.reshape(x, [-1]), shift, [0]), sizes_of(x))


def _expanded_as(op: Any) -> Any:
    """Broadcast to the shape of another tensor: the exporter assumes that it is static."""
    x, y = op.operands_source()
    if not y.initialized() or min(y.shape, default=0) >= 0:
        return None
    return paddle.expand(x, paddle.shape(y))


def _count_of_list(op: Any) -> Any:
    """The number of tensors in a list as a tensor [1], which the exporter makes a scalar."""
    return paddle.reshape(paddle._C_ops.array_length(op.operand_source(0)), [1])


RULES: dict[str, Rule] = {
    "flip": _flip,
    "split": _split,
    "split_with_num": _split,
    "repeat_interleave": _repeat,
    "broadcast_tensors": _broadcast,
    "crop": _crop,
    "masked_select": lambda op: paddle.gather_nd(op.operand_source(0), paddle.nonzero(op.operand_source(1))),
    "roll": _roll,
    "expand_as": _expanded_as,
    "array_length": _count_of_list,
}
