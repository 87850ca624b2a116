"""Operators that move elements: views, parts, joins, repetitions."""

from __future__ import annotations

import sys
import warnings

from ovjit.readers.torch.fusions.constants import in_pairs
from ovjit.readers.torch.naming import UNPACK
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import Chunks, Picked, are_all_parts, parts_of


@aten("view", "reshape", "_unsafe_view", "view_copy", "_reshape_copy")
def view(n: Call, x: Any, size: Any = None, shape: Any = None) -> Any:
    dims = list(shape if size is None else size)
    if isinstance(x, Complex):
        return Complex(n.to_shape(x.pair, [*dims, 2]))
    return n.to_shape(x, dims)


@aten("flatten")
def flatten(n: Call, x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    rank = n.rank(x)
    if rank == 0:
        return n.reshape(x, [1])
    first, last = n.axis(start_dim, rank), n.axis(end_dim, rank)
    if first == last:
        return x
    if last + 1 == rank:  # what stands before is as it is: 0 in a pattern
        return n("Reshape", x, [0] * first + [-1], special_zero=True)
    dims: list[Any] = [*n.sizes(x)]
    return n.to_shape(x, [*dims[:first], -1, *dims[last + 1 :]])


@aten("unflatten")
def unflatten(n: Call, x: Output, dim: int, sizes: Any) -> Output:
    axis = n.pick_axis(x, dim)
    dims = n.sizes(x)
    return n.to_shape(x, [*dims[:axis], *sizes, *dims[axis + 1 :]])


@aten("unsqueeze", "unsqueeze_copy")
def unsqueeze(n: Call, x: Any, dim: int) -> Any:
    value, rank, typed = n.unwrap(x)
    return typed(n.unsqueeze(value, [n.axis(dim, rank + 1)]))


@aten("squeeze", "squeeze_copy")
def squeeze(n: Call, x: Any, dim: Any = None) -> Any:
    """Remove dimensions of 1. Without an axis, they are found at run time."""
    value = x.pair if isinstance(x, Complex) else x
    if n.shape(value) is None:
        raise UnsupportedError("the input's rank is dynamic")
    value, rank, typed = n.unwrap(x)
    shape = n.shape(value)[:rank]  # type: ignore[index]
    if not shape:
        return x
    if dim is None and any(n.may_be_one(d) and d != 1 for d in shape):
        return typed(n("Squeeze", value, opset=1))
    dims_to_squeeze: Any = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [n.axis(d, rank) for d in dims_to_squeeze]
    if dim is not None and n.uses.rank == rank:
        return x
    squeezed_axes = [a for a in axes if shape[a] == 1 or (dim is not None and n.may_be_one(shape[a]))]
    if dim is not None and n.uses.rank is not None and rank - len(squeezed_axes) < n.uses.rank:
        return typed(_squeezed_to(n, value, squeezed_axes, n.rank(value) - rank + n.uses.rank))
    return typed(n.squeeze(value, squeezed_axes))


def _squeezed_to(n: Call, x: Output, axes: list[int], rank: int) -> Output:
    """A tensor with fewer dimensions: those `axes` that are 1 at run time are removed."""
    shape, is_squeezable = n.shape_of(x), n.const([a in axes for a in range(n.rank(x))])
    is_kept = n("LogicalNot", n("LogicalAnd", is_squeezable, n("Equal", shape, n.const(1))))
    remaining_axes = n.reshape(n("NonZero", is_kept, output_type="i64"), [rank])
    return n.reshape(x, n("Gather", shape, remaining_axes, 0))


@aten("permute", "permute_copy")
def permute(n: Call, x: Any, dims: Sequence[int]) -> Any:
    value, rank, typed = n.unwrap(x)
    return typed(n.transpose(value, [*n.axes(dims, rank), *range(rank, n.rank(value))]))


@aten("transpose", "swapaxes", "swapdims", "transpose_copy")
def transpose(n: Call, x: Any, dim0: int = 0, dim1: int = 1, axis0: Any = None, axis1: Any = None) -> Any:
    first, second = (dim0, dim1) if axis0 is None else (axis0, axis1)
    rank = n.unwrap(x)[1]
    if rank == 0:
        return x
    order = list(range(rank))
    a, b = n.axis(first, rank), n.axis(second, rank)
    order[a], order[b] = order[b], order[a]
    return permute(n, x, order)


@aten("movedim", "moveaxis")
def movedim(n: Call, x: Output, source: Any, destination: Any) -> Output:
    rank = n.rank(x)
    sources = n.axes([source] if isinstance(source, int) else source, rank)
    targets = n.axes([destination] if isinstance(destination, int) else destination, rank)
    remaining_axes = iter(axis for axis in range(rank) if axis not in sources)
    order = [sources[targets.index(i)] if i in targets else next(remaining_axes) for i in range(rank)]
    return n.transpose(x, order)


@aten("expand", "broadcast_to", "expand_copy")
def expand(n: Call, x: Any, size: Any) -> Any:
    dims = [1 if isinstance(d, int) and d == -1 else d for d in size]
    if isinstance(x, Complex):
        return Complex(n.expand(x.pair, [*dims, 2]))
    return n.expand(x, dims)


@aten("repeat", "tile")
def repeat(n: Call, x: Any, repeats: Any = None, dims: Any = None) -> Any:
    times = list(dims if repeats is None else repeats)
    pair = x.pair if isinstance(x, Complex) else None
    if n.op == "aten::tile":
        times = [1] * (n.rank(x) - len(times) if pair is None else n.rank(pair) - 1 - len(times)) + times
    if pair is not None and times:
        rank = n.rank(pair) - 1
        ones = n.const([1] * (len(times) - rank), "i64")
        expanded = n("Reshape", pair, n.concat([ones, n.shape_of(pair)], 0)) if len(times) > rank else pair
        return Complex(n("Tile", expanded, n.ints([*times, 1])))
    return n("Tile", x, n.ints(times)) if times else x


def _as_whole(n: Call, x: Any) -> Any:
    """The whole tensor if `x` lists all of its parts, of which there may be any number; else `x`."""
    return Stacked(n.also("movedim", x[0].source, [x[0].axis], [0])) if are_all_parts(x) else x


@aten("cat", "concat", "concatenate")
def cat(n: Call, x: Any, dim: int = 0) -> Any:
    x = _as_whole(n, x)
    if isinstance(x, Stacked):
        axis = n.axis(dim, n.rank(x.rows) - 1)
        return n.also("flatten", n.also("movedim", x.rows, [0], [axis]), axis, axis + 1)
    ranks = [0 if isinstance(v, Complex) else n.rank(v) for v in x]
    x = [v for v, rank in zip(x, ranks, strict=True) if rank != 1 or max(ranks) < 2]  # others are empty
    values = [v for v in x if isinstance(v, Complex) or n.shape(v) != (0,)] or list(x[:1])
    if any(isinstance(v, Complex) for v in values):
        pairs = [v if isinstance(v, Complex) else n.complex_of(v) for v in values]
        return Complex(n.concat([p.pair for p in pairs], n.axis(dim, n.rank(pairs[0].pair) - 1)))
    same = n.same_kind([*values, *(v for v in x if n.shape(v) == (0,))])[: len(values)]
    axis = n.pick_axis(same[0], dim)
    return n.concat([v for v in same if n.size(v, axis) != 0] or same[:1], axis)


@aten("stack")
def stack(n: Call, x: Any, dim: int = 0) -> Any:
    x = _as_whole(n, x)
    if isinstance(x, Stacked):
        return n.also("movedim", x.rows, [0], [dim])
    if any(isinstance(v, Complex) for v in x):
        pairs = [(v if isinstance(v, Complex) else n.complex_of(v)).pair for v in x]
        axis = n.axis(dim, n.rank(pairs[0]))
        return Complex(n.concat([n.unsqueeze(p, [axis]) for p in pairs], axis))
    values = n.same_kind(x)
    axis = n.axis(dim, n.rank(values[0]) + 1)
    packed = in_pairs(values) if axis == n.rank(values[0]) else None
    if packed is not None:
        return n.convert(packed, "u8")
    return n.concat([n.unsqueeze(v, [axis]) for v in values], axis)


@aten("hstack", "vstack", "dstack", "column_stack")
def stack_tensors(n: Call, x: Any) -> Output:
    name = n.op.removeprefix("aten::")
    values = n.same_kind(x)
    if name == "hstack":
        values = [n.reshape(v, [1]) if n.rank(v) == 0 else v for v in values]
        return n.concat(values, 0 if n.rank(values[0]) == 1 else 1)
    if name == "column_stack":
        values = [n.reshape(v, [-1, 1]) if n.rank(v) <= 1 else v for v in values]
        return n.concat(values, 1)
    values = [n.also(f"atleast_{2 if name == 'vstack' else 3}d", v) for v in values]
    return n.concat(values, 0 if name == "vstack" else 2)


@aten("atleast_1d", "atleast_2d", "atleast_3d")
def at_least(n: Call, x: Any) -> Any:
    if isinstance(x, (list, tuple)) and not isinstance(x, Complex):
        return [at_least(n, v) for v in x]
    value, rank, typed = n.unwrap(x)
    least_rank = int(n.op[-2])
    if rank >= least_rank:
        return x
    if least_rank < 3 or rank == 0:
        return typed(n.unsqueeze(value, list(range(least_rank - rank))))
    return typed(n.unsqueeze(value, [0, 2] if rank == 1 else [2]))


@aten("slice", "slice_copy")
def slice_(n: Call, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    first, last = 0 if start is None else start, LAST if end is None else end
    step = n.known_number(step) or step
    value, rank, typed = n.unwrap(x)
    result = n.cut(value, n.axis(dim, rank), first, last, step)
    if result is value:
        n.skip_name("Slice")  # OpenVINO makes one and leaves it out
    return typed(result)


@aten("select", "select_copy")
def select(n: Call, x: Any, dim: int, index: Any) -> Any:
    value, rank, typed = n.unwrap(x)
    return typed(n("Gather", value, n.index(index), n.axis(dim, rank)))


@aten("narrow", "narrow_copy")
def narrow(n: Call, x: Output, dim: int, start: Any, length: Any) -> Output:
    axis = n.axis(dim, n.rank(x))
    constant = n.known_number(start)
    if constant is not None and constant < 0:
        start = n.compute("Add", n.size(x, axis), constant)
    return n.cut(x, axis, start, n.compute("Add", start, length))


@aten("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_copy",
      "split_with_sizes_copy")  # fmt: skip
def split(n: Call, x: Any, split_size: Any = None, split_sizes: Any = None, dim: int = 0) -> Any:
    """Parts of equal length, the last one shorter, or parts of given lengths."""
    axis = n.pick_axis(x, dim)
    size = split_size if split_sizes is None else split_sizes
    if isinstance(size, (list, tuple)):
        return n.all("VariadicSplit", x, axis, n.ints(list(size))) if len(size) > 1 else [x]
    length, total = n.known_number(size), n.size(x, axis)
    if length is None or isinstance(total, Number):
        return parts_of_open(n, x, axis, size)
    if total == 0:
        return [x]
    lengths = [min(length, total - at) for at in range(0, total, length)]
    return n.split(x, axis, lengths) if len(lengths) > 1 else [x]


def parts_of_open(n: Call, x: Output, axis: int, length: Any) -> Any:
    """Split a dynamic dimension, or one with parts of a dynamic length, as the graph uses it.

    Returns the number of parts that the graph takes, or only the parts that it reads, by their indices.
    """
    count = n.uses.number()
    items = n.uses.items
    if count is None and items is not None:
        is_list = items and min(items) >= 0 and not n.uses.is_counted
        read = range(max(items) + 1) if is_list else items
        result = Picked({i: _part_of_open(n, x, axis, length, i) for i in read})
        if is_list:
            return list(result.values())
        if n.uses.is_counted:
            result.number = _number_of_parts(n, n.size(x, axis), length)
        return result
    if count is None:
        raise UnsupportedError(
            "the number of parts of a dynamic dimension is not known when the model is read"
        )
    if n.uses.is_examples:
        label = n.base.replace(UNPACK, n.op)
        message = f"{label} splits a dynamic dimension into {count} parts"
        message += ", which might be incorrect for other lengths"
        warnings.warn(message, sys.modules["torch"].jit.TracerWarning, stacklevel=2)
    return n.all("VariadicSplit", x, axis, n.ints([*[length] * (count - 1), -1])) if count > 1 else [x]


def _number_of_parts(n: Call, total: Any, length: Any) -> Any:
    """Return ceil(total / length), the number of parts."""
    return n.compute("Divide", n.compute("Add", total, n.compute("Subtract", length, 1)), length)


def _part_of_open(n: Call, x: Output, axis: int, length: Any, index: int) -> Output:
    """One part of a dynamic dimension. A negative index counts from the last part, which may be shorter."""
    if index < 0:
        count = _number_of_parts(n, n.size(x, axis), length)
        first = n.compute("Multiply", n.compute("Add", count, index), length)
    else:
        first = n.compute("Multiply", length, index)
    return n.cut(x, axis, first, LAST if index == -1 else n.compute("Add", first, length))


@aten("chunk", "unsafe_chunk")
def chunk(n: Call, x: Any, chunks: int, dim: int = 0) -> Any:
    axis, total = n.pick_axis(x, dim), n.size(x, n.pick_axis(x, dim))
    if not isinstance(total, Number):
        return split(n, x, max(1, -(-total // chunks)), None, axis)
    length = n.compute("Divide", n.compute("Add", total, chunks - 1), chunks)
    if chunks == 2:  # of more parts the last ones may be empty
        result = Chunks(n.all("VariadicSplit", x, axis, n.ints([length, -1])))
    else:
        bounds: list[Any] = [n.compute("Multiply", length, i) for i in range(chunks + 1)]
        result = Chunks(n.cut(x, axis, a, b) for a, b in zip(bounds, [*bounds[1:-1], LAST], strict=False))
    if n.uses.is_counted:
        result.number = _number_of_parts(n, total, length)
    return result


@aten("tensor_split")
def tensor_split(
    n: Call, x: Output, sections: Any = None, indices: Any = None, dim: int = 0,
    tensor_indices_or_sections: Any = None,
) -> Any:  # fmt: skip
    axis = n.pick_axis(x, dim)
    splits = next((v for v in (indices, sections, tensor_indices_or_sections) if v is not None), None)
    if isinstance(splits, Output):
        constant = n.value(splits)
        splits = _listed_places(n, splits) if constant is None else constant.tolist()
    if isinstance(splits, (list, tuple)):
        ends = [0, *splits, LAST]
        return [n.cut(x, axis, a, b) for a, b in zip(ends, ends[1:], strict=False)]
    total, count = n.size(x, axis), n.known_int(splits, "the number of parts")
    if isinstance(total, Number):
        # the first parts are longer by one, as many as total % count says
        length, longer = n.compute("Divide", total, count), n.compute("FloorMod", total, count)
        more = (
            n.compute("Minimum", n.compute("Maximum", n.compute("Subtract", longer, i), 0), 1)
            for i in range(count - 1)
        )
        return n.all("VariadicSplit", x, axis, n.ints([*(n.compute("Add", length, m) for m in more), -1]))
    lengths = [total // count + (i < total % count) for i in range(count)]
    return n.split(x, axis, lengths)


def _listed_places(n: Call, positions: Output) -> list[Any] | int:
    """The positions of cuts from a tensor as scalars, or the number of parts, if the graph has that."""
    if n.shape(positions) is None or n.rank(positions) > 1 or n.uses.listed is None:
        raise UnsupportedError("the split positions are not known when the model is read")
    if n.rank(positions) == 0:
        return n.uses.listed
    return [Number(n("Gather", positions, i, 0)) for i in range(n.uses.listed - 1)]


@aten("hsplit", "vsplit", "dsplit")
def named_split(n: Call, x: Output, sections: Any = None, indices: Any = None) -> Any:
    axis = {"h": 0 if n.rank(x) == 1 else 1, "v": 0, "d": 2}[n.op[6]]
    return tensor_split(n, x, sections, indices, axis)


def squeezed_parts(n: Call, parts: Sequence[Output], axis: int) -> list[Output]:
    """Slices with the axis removed. OpenVINO numbers the names of unpacked ones from 0, beginning with the
    second."""
    if not n.base.endswith(UNPACK):
        return [n.squeeze(part, [axis]) for part in parts]
    names = ["Squeeze", *(f"Squeeze_{i}" for i in range(len(parts) - 1))]
    pairs = zip((n.reader.name(n.base, name) for name in names), parts, strict=True)
    return [n.named(name, "Squeeze", part, [axis], opset=1)[0] for name, part in pairs]


@aten("unbind", "unbind_copy")
def unbind(n: Call, x: Any, dim: int = 0) -> Any:
    value, rank, typed = n.unwrap(x)
    axis = n.axis(dim, rank)
    count = n.size(value, axis)
    is_open = isinstance(count, Number)
    if isinstance(count, Number):
        if n.uses.items is not None and not n.uses.is_counted and not isinstance(x, Complex):
            return Picked({i: n("Gather", value, i, axis) for i in n.uses.items})
        if n.uses.listed is None and not isinstance(x, Complex):
            return Stacked(n.also("movedim", value, [axis], [0]))
        if n.uses.listed is None:
            raise UnsupportedError("splitting a complex tensor along a dynamic dimension is not supported")
        count = n.uses.number()
    parts = n.all("Split", value, axis, num_splits=count) if count > 1 else [value]
    parts = [typed(squeezed) for squeezed in squeezed_parts(n, parts[:count], axis)]
    return parts_of(value, axis, parts) if is_open and not isinstance(x, Complex) else parts


@aten("flip")
def flip(n: Call, x: Any, dims: Sequence[int]) -> Any:
    value, rank, typed = n.unwrap(x)
    if not rank or not dims:
        return x
    axes, count = n.axes(dims, rank), len(dims)
    return typed(n("Slice", value, [-1] * count, [-LAST] * count, [-1] * count, axes))


@aten("roll")
def roll(n: Call, x: Any, shifts: Any, dims: Any = ()) -> Any:
    """Roll elements. Shifts along one axis add up; without axes the tensor is flattened."""
    elements, rank, typed = n.unwrap(x)
    shifts = list(shifts) if isinstance(shifts, (list, tuple)) else [shifts]
    dims = [dims] if isinstance(dims, int) else list(dims or ())
    if not dims:
        row = n.reshape(elements, [-1, 2] if isinstance(x, Complex) else [-1])
        result = n.reshape(n("Roll", row, n.ints(shifts), [0]), n.shape_of(elements))
    else:
        by_axis: dict[int, Any] = {}
        for dim, shift in zip(dims, shifts, strict=True):
            axis = n.axis(dim, rank)
            by_axis[axis] = n.compute("Add", by_axis[axis], shift) if axis in by_axis else shift
        result = n("Roll", elements, n.ints(list(by_axis.values())), list(by_axis))
    return typed(result)


@aten("rot90")
def rot90(n: Call, x: Output, k: int = 1, dims: Sequence[int] = (0, 1)) -> Output:
    a, b = n.axes(dims, n.rank(x))
    turns = k % 4
    if turns == 0:
        return x
    if turns == 2:
        return flip(n, x, [a, b])
    return transpose(n, flip(n, x, [b]), a, b) if turns == 1 else flip(n, transpose(n, x, a, b), [b])


def _images(n: Call, x: Output, body: Any) -> Output:
    """Apply `body` to images with one batch dimension, into which all leading ones are merged."""
    rank = n.rank(x)
    if rank == 4:
        return body(x)
    dims = n.sizes(x)
    result = body(n.to_shape(x, [-1, *dims[-3:]]))
    return n.to_shape(result, [*dims[:-3], *n.sizes(result)[-3:]])


@aten("pad", "constant_pad_nd", "_pad_circular", "_pad_enum",
      "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
      "replication_pad1d", "replication_pad2d", "replication_pad3d")  # fmt: skip
def pad(n: Call, x: Output, pad: Any = None, mode: str = "constant", value: Any = None,
        padding: Any = None) -> Output:  # fmt: skip
    name = n.op.removeprefix("aten::")
    mode = {"r": name.split("_")[0], "_": "circular"}.get(name[0], mode)
    amounts = list(padding if pad is None else pad)
    rank = n.rank(x)
    begin: list[Any] = [0] * rank
    end: list[Any] = [0] * rank
    for i in range(len(amounts) // 2):
        begin[rank - 1 - i], end[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    if mode == "circular":
        return _circular(n, x, n.known_ints(begin, "the padding"), n.known_ints(end, "the padding"))
    kinds = {"constant": "constant", "reflection": "reflect", "reflect": "reflect", "replication": "edge",
             "replicate": "edge"}  # fmt: skip
    if mode not in kinds:
        raise ModelError(f"the padding mode {mode!r} is unknown")
    before, after = n.ints(begin), n.ints(end)
    if not isinstance(before, Output) and not isinstance(after, Output) and not any(before + after):
        return x
    filling = [n.tensor(0 if value is None else value, n.dtype(x))] if kinds[mode] == "constant" else []
    return n("Pad", x, before, after, *filling, pad_mode=kinds[mode])


def _circular(n: Call, x: Output, begin: list[int], end: list[int]) -> Output:
    for axis, (before, after) in enumerate(zip(begin, end, strict=True)):
        # what is cut off is cut off first, and the rest goes round
        x = n.cut(x, axis, max(-before, 0), after if after < 0 else LAST)
        last = [n.cut(x, axis, -before, LAST)] if before > 0 else []
        first = [n.cut(x, axis, 0, after)] if after > 0 else []
        x = n.concat([*last, x, *first], axis)
    return x


@aten("diagonal", "diagonal_copy", "linalg_diagonal")
def diagonal(n: Call, x: Output, offset: int = 0, dim1: Any = None, dim2: Any = None) -> Output:
    """The elements [i, i + offset] along the last dimension, as a strided slice of the flattened matrices."""
    usual = (-2, -1) if n.op == "aten::linalg_diagonal" else (0, 1)
    dim1, dim2 = usual[0] if dim1 is None else dim1, usual[1] if dim2 is None else dim2
    rank = n.rank(x)
    a, b = n.axis(dim1, rank), n.axis(dim2, rank)
    x = n.transpose(x, [*(i for i in range(rank) if i not in (a, b)), a, b])
    rows, columns = n.size(x, -2), n.size(x, -1)
    down, right = max(-offset, 0), max(offset, 0)
    length = n.compute("Minimum", n.compute("Subtract", rows, down), n.compute("Subtract", columns, right))
    length = n.compute("Maximum", length, 0)
    flat = n.to_shape(x, [*n.sizes(x)[:-2], -1]) if rank > 2 else n.reshape(x, [-1])
    steps = n("Multiply", n.arange(length), n.index(n.compute("Add", columns, 1)))
    first = n.compute("Add", n.compute("Multiply", columns, down), right)
    return n("Gather", flat, n("Add", steps, n.index(first)), -1)


@aten("diag_embed")
def diag_embed(n: Call, x: Output, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Output:
    """Each row as a diagonal: row times (i + offset == j)"""
    rank = n.rank(x) + 1
    size = n.compute("Add", n.size(x, -1), abs(offset))
    indices = n.arange(size)
    shifted_rows = n("Add", indices, n.const(offset))
    on = n("Equal", n.unsqueeze(shifted_rows, [1]), n.unsqueeze(indices, [0]))
    down = max(-offset, 0)
    begin = [0] * (rank - 2) + [down]
    end = [0] * (rank - 2) + [abs(offset) - down]
    filled = n("Pad", n.tensor(x, "u8") if n.dtype(x) == "boolean" else x, begin, end, pad_mode="constant")
    result = n("Select", on, n.unsqueeze(filled, [rank - 1]), n.like(filled, 0))
    result = n.to_type(result, n.dtype(x))
    a, b = n.axis(dim1, rank), n.axis(dim2, rank)
    other_axes = iter(range(rank - 2))
    order = [rank - 2 if i == a else rank - 1 if i == b else next(other_axes) for i in range(rank)]
    return n.transpose(result, order)


@aten("tril", "triu")
def triangle(n: Call, x: Output, diagonal: int = 0) -> Output:
    rows, columns = n.arange(n.size(x, -2)), n.arange(n.size(x, -1))
    gap = n("Subtract", n.unsqueeze(columns, [0]), n.unsqueeze(rows, [1]))
    mask = n("LessEqual" if n.op == "aten::tril" else "GreaterEqual", gap, n.tensor(diagonal, "i64"))
    return n("Select", mask, x, n.like(x, 0))


@aten("tril_indices", "triu_indices")
def triangle_indices(n: Call, row: int, col: int = 0, offset: int = 0, dtype: Any = None) -> Output:
    is_lower = n.op == "aten::tril_indices"
    constants = n.known_number(row), n.known_number(col), n.known_number(offset)
    if None not in constants:
        result = np.stack(
            (np.tril_indices if is_lower else np.triu_indices)(constants[0], constants[2], constants[1])
        )
        return n.cast(n.const(result.astype(np.int64)), dtype)
    ends = n("Add", n.unsqueeze(n.arange(row), [1]), n.tensor(offset, "i64"))
    inside = n("GreaterEqual" if is_lower else "LessEqual", ends, n.unsqueeze(n.arange(col), [0]))
    return n.cast(n("NonZero", inside, output_type="i64"), dtype)


@aten("repeat_interleave")
def repeat_interleave(
    n: Call, x: Any, repeats: Any = None, dim: int | None = None, output_size: Any = None
) -> Output:
    """Repeat each element of an axis; the numbers of repetitions may differ."""
    if repeats is None or n.overload == "Tensor":  # the indices that a tensor of counts gives
        return _by_counts(n, x)
    if dim is None:
        x, dim = n.flat(x), 0
    axis = n.pick_axis(x, dim)
    if isinstance(repeats, Output):
        shape = n.shape(repeats)
        if shape in ((), (1,)):
            repeats = Number(n.scalar(repeats))
        else:
            if shape is not None and n.may_be_one(shape[0]):  # one count for all elements
                repeats = n.expand(repeats, [n.size(x, axis)])
            return n("Gather", x, _by_counts(n, repeats), axis)
    repeated = n.unsqueeze(x, [axis + 1])
    dims = n.sizes(repeated)
    target: list[Any] = [1] * len(dims)
    target[axis + 1] = repeats
    repeated = n.expand(repeated, target)
    dims = n.sizes(x)
    dims[axis] = n.compute("Multiply", dims[axis], repeats)
    return n.to_shape(repeated, dims)


def _by_counts(n: Call, counts: Output) -> Output:
    """0, 1, 1, 2, 2, 2 ...: each index i repeated counts[i] times, from comparisons with cumulative sums."""
    ends = n("CumSum", n.convert(counts, "i64"), n.const(0))
    total = n.scalar(n("ReduceMax", n("Concat", n.const([0]), ends, axis=0), [0], keep_dims=True))
    positions = n.upto(total)
    return n("SearchSorted", ends, positions, right_mode=True, output_type="i64")


@aten("unfold", "unfold_copy")
def unfold(n: Call, x: Output, dimension: int, size: int, step: int) -> Output:
    """Windows along an axis: x[..., start + i, ...] as a new last dimension."""
    rank = n.rank(x)
    axis = n.pick_axis(x, dimension)
    if rank == 0:
        return n.reshape(x, [size])
    count = n.compute("Add", n.compute("Divide", n.compute("Subtract", n.size(x, axis), size), step), 1)
    starts = n("Multiply", n.arange(count), n.index(step))
    within = n.const(np.arange(size)) if isinstance(size, int) else n.arange(size)
    positions = n("Add", n.unsqueeze(starts, [1]), within)
    result = n("Gather", x, positions, axis)
    return n.transpose(result, [*(i for i in range(rank + 1) if i != axis + 1), axis + 1])


@aten("as_strided", "as_strided_copy")
def as_strided(n: Call, x: Output, size: Any, stride: Any, storage_offset: Any = None) -> Output:
    """Elements at computed positions of the row-major order of x, which is its order in memory."""
    return n("Gather", n.flat(x), _strided_indices(n, size, stride, storage_offset), 0)


def _strided_indices(n: Call, size: Any, stride: Any, storage_offset: Any) -> Output:
    positions: Any = n.index(storage_offset or 0)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        steps = n("Multiply", n.arange(length), n.index(step))
        positions = n("Add", positions, n.unsqueeze(steps, list(range(1, len(size) - axis))))
    return positions


@aten("as_strided_scatter")
def as_strided_scatter(
    n: Call, x: Output, src: Output, size: Any, stride: Any, storage_offset: Any = None
) -> Output:
    """x with elements of `src` at strided positions."""
    positions = n.flat(_strided_indices(n, size, stride, storage_offset))
    result = n("ScatterElementsUpdate", n.flat(x), positions, n.flat(n.to_type(src, n.dtype(x))), 0)
    return n.reshape(result, n.shape_of(x))


@aten("meshgrid")
def meshgrid(n: Call, x: Any, indexing: str = "ij") -> list[Output]:
    values = [n.flat(v) for v in x]
    if indexing == "xy" and len(values) > 1:
        result = _grid(n, [values[1], values[0], *values[2:]])
        return [result[1], result[0], *result[2:]]
    return _grid(n, values)


def _grid(n: Call, values: list[Output]) -> list[Output]:
    dims = [n.size(v, 0) for v in values]
    count = len(values)
    shaped = [n.reshape(v, [1] * i + [-1] + [1] * (count - 1 - i)) for i, v in enumerate(values)]
    return [n.expand(v, dims) for v in shaped]


@aten("cartesian_prod")
def cartesian_product(n: Call, x: Any) -> Output:
    """The Cartesian product of one-dimensional tensors."""
    if len(x) == 1:
        return n.flat(x[0])
    rows = [n.unsqueeze(n.flat(v), [1]) for v in _grid(n, [n.flat(v) for v in n.same_kind(x)])]
    return n.concat(rows, 1)


@aten("broadcast_tensors")
def broadcast_tensors(n: Call, x: Any) -> list[Output]:
    total = n.shape_of(x[0])
    zero = n("Broadcast", n.const(0), total)
    for v in x[1:]:
        zero = n("Broadcast", zero, n.shape_of(v), mode="bidirectional")
    return [n.expand(v, n.shape_of(zero)) for v in x]


@aten("block_diag")
def block_diag(n: Call, x: Any) -> Output:
    values = [n.also("atleast_2d", v) for v in n.same_kind(x)]
    columns_before: Any = 0
    total: Any = 0
    for v in values:
        total = n.compute("Add", total, n.size(v, 1))
    rows = []
    for v in values:
        columns_after = n.compute("Subtract", total, n.compute("Add", columns_before, n.size(v, 1)))
        pads = n.ints([0, columns_before]), n.ints([0, columns_after])
        rows.append(n("Pad", v, *pads, n.like(v, 0), pad_mode="constant"))
        columns_before = n.compute("Add", columns_before, n.size(v, 1))
    return n.concat(rows, 0)


#: Operators that are one expression.
aten_rows({
    "view_as reshape_as": lambda n, x, other: n.reshape(x, n.shape_of(other)),
    "t numpy_T t_copy": lambda n, x: permute(n, x, list(range(n.unwrap(x)[1]))[::-1]),
    "mT": lambda n, x: transpose(n, x, -2, -1),
    "adjoint mH matrix_H": lambda n, x: n.also("conj", transpose(n, x, -2, -1)),
    "expand_as": lambda n, x, other: n.expand(x, n.shape_of(other)),
    "fliplr flipud": lambda n, x: flip(n, x, [1 if n.op.endswith("lr") else 0]),
    "ravel": lambda n, x: n.flat(x),
    "pixel_shuffle": lambda n, x, upscale_factor:
        _images(n, x, lambda v: n("DepthToSpace", v, mode="depth_first", block_size=upscale_factor)),
    "pixel_unshuffle": lambda n, x, downscale_factor:
        _images(n, x, lambda v: n("SpaceToDepth", v, mode="depth_first", block_size=downscale_factor)),
    "channel_shuffle native_channel_shuffle": lambda n, x, groups:
        n("ShuffleChannels", x, axis=1, group=groups),
    "diag": lambda n, x, diagonal=0:
        n.also("diag_embed", x, diagonal) if n.rank(x) == 1 else n.also("diagonal", x, diagonal),
    "diagflat": lambda n, x, offset=0: n.also("diag_embed", n.reshape(x, [-1]), offset),
})  # fmt: skip
