"""Writing by indices. Where several writes meet, they are reduced as PyTorch reduces them."""

from __future__ import annotations

import functools

from ovjit.readers.torch.operators.indexing import broadcast_indices, positive
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import torch_types

#: OpenVINO's names of what PyTorch reduces by; `include_self` is use_init_val.
REDUCTIONS = {"sum": "sum", "add": "sum", "prod": "prod", "multiply": "prod", "mean": "mean", "amax": "max",
              "amin": "min"}  # fmt: skip


@aten("scatter", "scatter_add", "scatter_reduce")
def scatter(
    n: Call, x: Output, dim: int, index: Output, src: Any = None, value: Any = None, reduce: Any = None,
    include_self: bool = True,
) -> Output:  # fmt: skip
    source = value if src is None else src
    if n.op == "aten::scatter_add":
        reduce = "sum"
    return scatter_elements(n, x, dim, index, source, reduce, include_self)


def scatter_elements(
    n: Call, x: Output, dim: int, index: Output, source: Any, reduce: str | None, include_self: bool
) -> Output:
    kind = n.dtype(x)
    alone = n.rank(x) == 0
    if alone:
        x = n.reshape(x, [1])
    if n.rank(index) == 0:
        index = n.reshape(index, [1])
    if not isinstance(source, Output):
        source = n.expand(n.tensor(source, kind), n.shape_of(index))
    elif n.rank(source) == 0:
        source = n.reshape(source, [1])
    for i in range(n.rank(index)):
        if n.size(source, i) != n.size(index, i):
            source = n.cut(source, i, 0, n.size(index, i))
    mode = "none" if reduce is None else REDUCTIONS[reduce]
    work = kind
    if kind == "boolean" or (mode != "none" and kind in ("u8", "i8", "i16")):
        work = "i32"
    result = n("ScatterElementsUpdate", n.convert(x, work), n.convert(index, "i64"), n.convert(source, work),
             n.const(n.pick_axis(x, dim)), reduction=mode, use_init_val=bool(include_self))  # fmt: skip
    result = n.to_type(result, kind)
    return n.reshape(result, []) if alone else result


@aten("index_add", "index_reduce", "index_copy", "index_fill")
def index_add(
    n: Call, x: Output, dim: int, index: Output, source: Any = None, alpha: Any = 1,
    reduce: str | None = None, include_self: bool = True, value: Any = None,
) -> Output:  # fmt: skip
    """x[index[i]] (op)= source[i] for slices along an axis; equal indices accumulate."""
    name = n.op.removeprefix("aten::")
    axis = n.pick_axis(x, dim)
    is_scalar = n.rank(x) == 0
    if is_scalar:
        x = n.reshape(x, [1])
    index = n.flat(index) if n.rank(index) else n.unsqueeze(index, [0])
    if name == "index_fill":
        source = n.tensor(value, n.dtype(x))
        dims = n.sizes(x)
        dims[axis] = n.size(index, 0)
        source = n.expand(source, dims)
    elif n.rank(source) < n.rank(x):
        source = n.reshape(source, [1])
    if name == "index_add" and n.known_number(alpha) != 1:
        source = n("Multiply", source, n.tensor(alpha, n.dtype(source)))
    expanded_index = n.expand(n.along(n.convert(index, "i64"), axis, n.rank(x)), n.shape_of(source))
    mode = {"index_add": "sum", "index_reduce": reduce}.get(name)
    result = scatter_elements(n, x, axis, expanded_index, source, mode, include_self)
    return n.reshape(result, []) if is_scalar else result


@aten("index_put", "_unsafe_index_put", "_index_put_impl", "index_put_impl")
def index_put(
    n: Call, x: Output, indices: Sequence[Any], values: Any = None, accumulate: Any = False
) -> Output:
    kind = n.dtype(x)
    values = n.tensor(values, kind)
    reduction = "sum" if n.known_number(accumulate) else "none"
    index_values = [i for i in indices if i is not None]
    if not index_values:
        out = n.expand(values, n.shape_of(x))
        return n("Add", x, out) if reduction == "sum" else out
    masks = [i for i in index_values if n.dtype(i) in ("boolean", "u8")]
    if len(index_values) == 1 and masks and n.rank(values) == 0 and len(indices) == 1 and reduction == "none":
        mask = n.to_type(index_values[0], "boolean")  # one number for all elements that a mask selects
        mask = n.unsqueeze(mask, list(range(n.rank(mask), n.rank(x))))
        return n("Select", mask, values, x)
    axes, index_tensors, at = broadcast_indices(n, indices)
    rank, width = n.rank(x), n.rank(index_tensors[0])
    other_axes = [i for i in range(rank) if i not in axes]
    extra = len(n.shape(values) or ()) - width - len(other_axes)  # dimensions of 1 in front
    values = n.squeeze(values, range(extra))
    order = [*axes, *other_axes]
    leading = n.transpose(x, order)
    coordinates = [
        n.unsqueeze(positive(n, g, x, a), [width]) for g, a in zip(index_tensors, axes, strict=True)
    ]
    shape = n.shape_of(index_tensors[0])
    other_sizes = [n.dim_of(x, a) for a in other_axes]
    rows = [*(n("Gather", shape, [i], 0) for i in range(width)), *other_sizes]
    target_shape = n("Concat", *rows, axis=0) if rows else n.const([])
    if at and width:  # the result of reading has the indices' axes in between: values come so
        read_shape = n(
            "Concat",
            *other_sizes[:at],
            *(n("Gather", shape, [i], 0) for i in range(width)),
            *other_sizes[at:],
            axis=0,
        )
        values = n("Broadcast", values, read_shape)
        values = n.transpose(
            values, [*range(at, at + width), *range(at), *range(at + width, width + len(other_axes))]
        )
    else:
        values = n("Broadcast", values, target_shape)
    if kind == "boolean":
        leading, values = n.convert(leading, "i32"), n.convert(values, "i32")
    result = n("ScatterNDUpdate", leading, n("Concat", *coordinates, axis=width), values, reduction=reduction)
    return n.transpose(n.to_type(result, kind), [order.index(i) for i in range(rank)])


@aten("masked_scatter")
def masked_scatter(n: Call, x: Output, mask: Output, source: Output) -> Output:
    """x with the elements that a mask selects replaced by those of `source`, in order."""
    expanded, selection = n.also("broadcast_tensors", [x, n.convert(mask, "i64")])
    flat = n.flat(selection)
    order = n("CumSum", flat, n.const(0), exclusive=True)
    count = n.index(n.compute("Maximum", n.compute("Subtract", n.count(source), 1), 0))
    values = n("Gather", n.flat(source), n("Minimum", order, count), 0)
    result = n("Select", n.to_type(flat, "boolean"), n.convert(values, n.dtype(x)), n.flat(expanded))
    return n.reshape(result, n.shape_of(expanded))


@aten("slice_scatter")
def slice_scatter(
    n: Call, x: Output, src: Output, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Output:
    first, last = 0 if start is None else start, LAST if end is None else end
    source, step = n.to_type(src, n.dtype(x)), n.known_int(step, "the step")
    return n("SliceScatter", x, source, n.ints([first]), n.ints([last]), [step], [n.axis(dim, n.rank(x))])


@aten("select_scatter")
def select_scatter(n: Call, x: Output, src: Output, dim: int, index: Any) -> Output:
    axis = n.axis(dim, n.rank(x))
    part = n.unsqueeze(n.to_type(src, n.dtype(x)), [axis])
    constant = n.known_number(index)
    if constant is None:  # it may be counted from the end
        index = n.compute("FloorMod", index, n.size(x, axis))
    elif constant < 0:
        index = n.compute("Add", n.size(x, axis), index)
    return n("ScatterUpdate", x, n.one(index), part, n.const(axis))


@aten("diagonal_scatter")
def diagonal_scatter(
    n: Call, x: Output, src: Output, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Output:
    """x with a diagonal replaced, at the indices that `diagonal` of a tensor of indices gives."""
    flat = n.arange(n.count(x))
    where = n.also("diagonal", n.reshape(flat, n.shape_of(x)), offset, dim1, dim2)
    result = n("ScatterUpdate", n.flat(x), n.flat(where), n.flat(n.to_type(src, n.dtype(x))), n.const(0))
    return n.reshape(result, n.shape_of(x))


@aten("put")
def put_elements(n: Call, x: Output, index: Output, source: Output, accumulate: bool = False) -> Output:
    flat = scatter_elements(
        n, n.flat(x), 0, n.flat(index), n.flat(source), "sum" if accumulate else None, True
    )
    return n.reshape(flat, n.shape_of(x))


@aten("fill_diagonal")
def fill_diagonal(n: Call, x: Output, fill_value: Any, wrap: bool = False) -> Output:
    """Fill elements whose indices are all equal. `wrap` repeats the diagonal below a tall matrix's end."""
    rank = n.rank(x)
    first, *others = (n.along(n.arange(n.size(x, axis)), axis, rank) for axis in range(rank))
    if wrap and rank == 2:
        columns = n.one(n.size(x, 1))
        flat = n("Add", n("Multiply", first, columns), others[0])
        chosen = n("Equal", n("FloorMod", flat, n("Add", columns, n.const(1))), n.const(0))
    else:
        equal = (n("Equal", first, other) for other in others)
        chosen = functools.reduce(lambda a, b: n("LogicalAnd", a, b), equal)
    return n("Select", chosen, n.tensor(fill_value, n.dtype(x)), x)


@aten("bincount")
def bincount(n: Call, x: Output, weights: Any = None, minlength: Any = 0) -> Output:
    """Count each number, or sum its weights."""
    index = n.convert(x, "i64")
    top = n("ReduceMax", n("Concat", index, n.const([-1]), axis=0), [0], keep_dims=True)
    length = n("Maximum", n("Add", top, n.const(1)), n.one(minlength))
    kind = "i64" if weights is None else "f32" if n.dtype(weights) == "f32" else "f64"
    zeros = n("Broadcast", n.const(0, kind), length)
    ones = (
        n("Broadcast", n.const(1, kind), n.shape_of(index)) if weights is None else n.convert(weights, kind)
    )
    return n("ScatterElementsUpdate", zeros, index, ones, n.const(0), reduction="sum")


@aten("histogram")
def histogram(n: Call, x: Output, bins: Any = 100, range: Any = None, weight: Any = None,
              density: bool = False) -> list[Output]:  # fmt: skip
    """Count the elements, or sum their weights, in each bin. Returns the counts and the bin edges."""
    flat = n.flat(x)
    edges = bins if isinstance(bins, Output) else _edges(n, flat, bins, range)
    count = n.compute("Subtract", n.size(edges, 0), 1)
    bin_index = n("Subtract", n("SearchSorted", edges, flat, right_mode=True, output_type="i64"), n.const(1))
    low, high = n.cut(edges, 0, 0, 1), n.cut(edges, 0, -1, LAST)
    inside = n("LogicalAnd", n("GreaterEqual", flat, low), n("LessEqual", flat, high))
    last = n("Maximum", n("Minimum", bin_index, n.index(n.compute("Subtract", count, 1))), n.const(0))
    ones = n.alike(flat, 1) if weight is None else n.flat(weight)
    ones = n("Select", inside, ones, n.like(x, 0))
    zeros = n.fill(0, [count], n.dtype(x))
    counts = n("ScatterElementsUpdate", zeros, last, ones, n.const(0), reduction="sum")
    if density:
        widths = n("Subtract", n.cut(edges, 0, 1, LAST), n.cut(edges, 0, 0, -1))
        counts = n("Divide", n("Divide", counts, n("ReduceSum", counts, [0], keep_dims=True)), widths)
    return [counts, edges]


def _edges(n: Call, flat: Output, bins: Any, range: Any) -> Output:
    """Edges of bins of one length, from the least element to the largest where no range is given."""
    if range is None:
        low, high = (n(op, flat, [0], keep_dims=False) for op in ("ReduceMin", "ReduceMax"))
    else:
        low, high = (n.like(flat, v) for v in range)
    middle = n("Select", n("Equal", low, high), n.like(flat, 0.5), n.like(flat, 0))
    low, high = n("Subtract", low, middle), n("Add", high, middle)
    return n.also("linspace", low, high, bins + 1, dtype=torch_types()[n.dtype(flat)])


@aten("histc")
def histc(n: Call, x: Output, bins: int = 100, min: Any = 0, max: Any = 0) -> Output:
    if min == max:
        low, high = (n(op, n.flat(x), [0], keep_dims=False) for op in ("ReduceMin", "ReduceMax"))
        one = n.convert(n("Equal", low, high), n.dtype(x))  # numbers that are all the same are in the middle
        low, high = n("Subtract", low, one), n("Add", high, one)
    else:
        low, high = n.like(x, min), n.like(x, max)
    # a product first: a share times the number of bins may be below a whole number
    bin_index = n("Multiply", n("Subtract", n.flat(x), low), n.like(x, bins))
    bin_index = n("Floor", n("Divide", bin_index, n("Subtract", high, low)))
    inside = n("LogicalAnd", n("GreaterEqual", n.flat(x), low), n("LessEqual", n.flat(x), high))
    bin_index = n("Select", inside, bin_index, n.like(x, 0))  # NaN has no place
    index = n.convert(n("Maximum", n("Minimum", bin_index, n.like(x, bins - 1)), n.like(x, 0)), "i64")
    zeros = n.fill(0, [bins], n.dtype(x))
    return n(
        "ScatterElementsUpdate", zeros, index, n.convert(inside, n.dtype(x)), n.const(0), reduction="sum"
    )
