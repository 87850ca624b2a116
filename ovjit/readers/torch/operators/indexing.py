"""Reading by indices: tensors of them, masks, and lists with gaps."""

from __future__ import annotations

from ovjit.build import Node
from ovjit.readers.torch.operators.shapes import squeezed_parts
from ovjit.readers.torch.rule_language import *


def flattened_masks(n: Call, indices: Sequence[Any]) -> list[Any]:
    """Indices per axis, with masks replaced by the coordinates of their true elements."""
    out: list[Any] = []
    for index in indices:
        if index is not None and n.dtype(index) in ("boolean", "u8"):
            coordinates = n("NonZero", n.to_type(index, "boolean"), output_type="i64")
            rank = n.rank(index)
            rows = n.all("Split", coordinates, 0, num_splits=rank) if rank > 1 else [coordinates]
            out += [n.reshape(row, [-1]) for row in rows]
        else:
            out.append(None if index is None else n.convert(index, "i64"))
    return out


def broadcast_indices(n: Call, indices: Sequence[Any]) -> tuple[list[int], list[Output], int]:
    """(indexed axes, their indices broadcast to one shape, position of that shape's axes in the result)."""
    listed = flattened_masks(n, indices)
    axes = [i for i, index in enumerate(listed) if index is not None]
    index_tensors = [listed[axis] for axis in axes]
    if len(index_tensors) > 1:
        index_tensors = n.also("broadcast_tensors", index_tensors)
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    return axes, index_tensors, axes[0] if together else 0


@aten("index", "_unsafe_index")
def index(n: Call, x: Any, indices: Sequence[Any]) -> Any:
    if isinstance(x, Complex):
        return Complex(index(n, x.pair, indices))
    if all(i is None for i in indices):
        return x
    if not any(i is not None and n.dtype(i) in ("boolean", "u8") for i in indices):
        return _at_rows(n, x, indices)
    axes, index_tensors, at = broadcast_indices(n, indices)
    if len(axes) == 1:
        return n("Gather", x, index_tensors[0], axes[0])
    width = n.rank(index_tensors[0])
    rows = [n.unsqueeze(positive(n, g, x, a), [width]) for g, a in zip(index_tensors, axes, strict=True)]
    coordinates = n("Concat", *rows, axis=width)
    out = n("GatherND", _leading(n, x, axes), coordinates)
    if at == 0:
        return out
    back = [*range(width, width + at), *range(width), *range(width + at, n.rank(out))]
    return n.transpose(out, back)


def _leading(n: Call, x: Output, axes: Sequence[int]) -> Output:
    """Move these axes to the front."""
    return n.transpose(x, [*axes, *(i for i in range(n.rank(x)) if i not in axes)])


def _at_rows(n: Call, x: Output, indices: Sequence[Any]) -> Output:
    """Gather by index tensors over merged axes: x[i, j] is the element at i * columns + j."""
    index_by_axis = {axis: n.convert(index, "i64") for axis, index in enumerate(indices) if index is not None}
    axes = list(index_by_axis)
    if len(axes) == 1:
        return n("Gather", x, index_by_axis[axes[0]], axes[0])
    at, count = axes[0], len(axes)
    rows = positive(n, index_by_axis[at], x, at)
    for axis in axes[1:]:
        columns = n.size(x, axis)
        columns = n.one(columns) if n.rank(rows) else n.index(columns)
        rows = n("Add", n("Multiply", rows, columns), positive(n, index_by_axis[axis], x, axis))
    if axes != list(range(at, at + count)):
        x, at = _leading(n, x, axes), 0
    dims, merged = n.sizes(x), list(range(at, at + count))
    others = [*dims[:at], *dims[at + count :]]
    is_plain = all(isinstance(d, int) and d for d in others)
    merged_size = -1 if is_plain else n.count(x, merged)
    return n("Gather", n.to_shape(x, [*dims[:at], merged_size, *dims[at + count :]]), rows, at)


def positive(n: Call, index: Output, x: Output, axis: int) -> Output:
    """Nonnegative indices along an axis."""
    if _never_negative(n, index):
        return index
    size = n.index(n.size(x, axis))
    return n("Select", n("Less", index, n.const(0)), n("Add", index, size), index)


#: Operations whose numbers are those of their first input, in other places.
_MOVING = ("Convert", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Broadcast", "Tile", "Gather",
           "GatherElements", "GatherND", "Slice", "Split", "VariadicSplit", "CumSum")  # fmt: skip
#: Operations that give no negative numbers if no input is negative.
_JOINING = ("Add", "Multiply", "Concat", "Minimum")


def _never_negative(n: Call, value: Output) -> bool:
    """Whether integers are certainly nonnegative: from ranges, masks and sizes."""
    pending, visited = [value], set()
    while pending:
        value = pending.pop()
        node = value.get_node()
        if (port := (id(node), value.get_index())) in visited:
            continue
        visited.add(port)
        constant = n.value(value)
        sources = _deciding(n, node) if constant is None else [] if (constant >= 0).all() else None
        if sources is None:
            return False
        pending += sources
    return True


def _deciding(n: Call, node: Node) -> list[Output] | None:
    """The inputs that must be nonnegative so that a node's results are; None if unknown."""
    kind, inputs = node.get_type_name(), node.input_values()
    if kind in ("NonZero", "ShapeOf"):
        return []
    if kind == "Range":
        step = n.value(inputs[2])
        return inputs[:1] if step is not None and step > 0 else None
    if kind == "Convert" and n.dtype(inputs[0]) == "boolean":
        return []
    if kind == "Convert" and n.is_real(inputs[0]):
        return None
    if kind in _MOVING:
        return inputs[:1]
    return inputs if kind in _JOINING else None


@aten("index_select", "_index_select")
def index_select(n: Call, x: Any, dim: int, index: Output) -> Any:
    value, rank, typed = n.unwrap(x)
    if rank == 0:
        return x
    flat = n.flat(index) if n.rank(index) else n.unsqueeze(index, [0])
    return typed(n("Gather", value, flat, n.axis(dim, rank)))


@aten("gather")
def gather(n: Call, x: Any, dim: int, index: Output) -> Any:
    """x[i][index[i][j]]; the index may be smaller along the other axes."""
    if isinstance(x, Complex):
        return n.complex_of(*(gather(n, n.part(x, i), dim, index) for i in (0, 1)))
    rank = n.rank(x)
    if rank == 0:
        return n.expand(x, n.shape_of(index))
    if n.rank(index) == 0:
        return n("Gather", x, index, 0)
    if n.rank(index) != rank:  # PyTorch takes that only of an index without elements
        return n.expand(n.like(x, 0), n.shape_of(index))
    axis = n.axis(dim, rank)
    part = smaller(n, x, index, axis)
    return n("GatherElements", part, index, axis=axis)


def smaller(n: Call, x: Output, index: Output, axis: int) -> Output:
    """x cropped to the lengths of the index along all axes but one."""
    for i in range(n.rank(x)):
        if i != axis and not n.same_size(x, index, i):
            x = n.cut(x, i, 0, n.size(index, i))
    return x


@aten("take_along_dim")
def take_along_dim(n: Call, x: Any, indices: Output, dim: Any = None) -> Any:
    """Index and tensor broadcast along the other axes."""
    if isinstance(x, Complex):
        return n.complex_of(*(take_along_dim(n, n.part(x, i), indices, dim) for i in (0, 1)))
    if dim is None:
        return n("Gather", n.flat(x), n.flat(indices), 0)
    axis, rank = n.axis(dim, n.rank(x)), n.rank(x)
    ones = [n("Concat", *(n.const([1]) if i == axis else n.dim_of(v, i) for i in range(rank)), axis=0)
            for v in (x, indices)]  # fmt: skip
    x = n.expand(x, ones[1])
    return n("GatherElements", x, n.expand(indices, ones[0]), axis=axis)


@aten("take")
def take(n: Call, x: Any, index: Output) -> Any:
    if isinstance(x, Complex):
        return n.complex_of(*(take(n, n.part(x, i), index) for i in (0, 1)))
    return n("Gather", n.flat(x) if n.rank(x) else n.reshape(x, [1]), index, 0)


@aten("masked_select")
def masked_select(n: Call, x: Output, mask: Output) -> Output:
    a, b = n.also("broadcast_tensors", [x, n.convert(mask, "u8")])
    if n.rank(a) == 0:
        a, b = n.reshape(a, [1]), n.reshape(b, [1])
    coordinates = n("NonZero", n.to_type(b, "boolean"), output_type="i64")
    return n("GatherND", a, n.transpose(coordinates, [1, 0]))


@aten("nonzero", "argwhere")
def nonzero(n: Call, x: Output) -> Output:
    if n.rank(x) == 0:  # a row without columns, or none
        coordinates = n("NonZero", n.reshape(x, [1]), output_type="i64")
        return n.cut(n.transpose(coordinates, [1, 0]), 1, 0, 0)
    return n.transpose(n("NonZero", x, output_type="i64"), [1, 0])


@aten("nonzero_static")
def nonzero_static(n: Call, x: Output, size: Any, fill_value: int = -1) -> Output:
    """The first `size` coordinates, padded with rows of `fill_value`."""
    coordinates = nonzero(n, x)
    fill_rows = n.fill(fill_value, [size, n.rank(x)], "i64")
    return n.cut(n("Concat", coordinates, fill_rows, axis=0), 0, 0, size)


@aten("nonzero_numpy")
def nonzero_numpy(n: Call, x: Output) -> list[Output]:
    if n.rank(x) == 0:
        x = n.reshape(x, [1])
    coordinates = n("NonZero", x, output_type="i64")
    return squeezed_parts(n, n.all("Split", coordinates, 0, num_splits=n.rank(x)), 0)
