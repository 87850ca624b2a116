"""Sorting, the largest of many, and searching."""

from __future__ import annotations

from ovjit.readers.torch.rule_language import *


@aten("sort", "argsort", "msort")
def sort(n: Call, x: Output, dim: int = -1, descending: bool = False, stable: Any = True) -> Any:
    """A stable sort, also where stability is not required."""
    if n.op == "aten::msort":
        dim = 0
    result = [x, n.const(0)] if n.rank(x) == 0 else sort_elements(n, x, n.size(x, dim), dim, descending)
    return result[1] if n.op == "aten::argsort" else result[0] if n.op == "aten::msort" else result


def sort_elements(n: Call, x: Output, count: Any, dim: int, largest: bool) -> list[Output]:
    """(the `count` largest or smallest elements along an axis in order, their indices)."""
    kind = n.dtype(x)
    operand = n.convert(x, "i32") if kind in ("boolean", "u8", "i8", "i16") else x
    axis, mode = n.axis(dim, n.rank(x)), "max" if largest else "min"
    values, indices = n.top_k(operand, n.index(count), axis, mode)
    return [n.to_type(values, kind), indices]


@aten("topk")
def topk(n: Call, x: Output, k: Any, dim: int = -1, largest: bool = True) -> list[Output]:
    if n.rank(x) == 0:
        return [x, n.const(0)]
    return sort_elements(n, x, k, dim, largest)


@aten("kthvalue")
def kthvalue(n: Call, x: Output, k: Any, dim: int = -1, keepdim: bool = False) -> list[Output]:
    if n.rank(x) == 0:
        return [x, n.const(0)]
    axis = n.axis(dim, n.rank(x))
    last = n.index(n.compute("Subtract", k, 1))
    return _pick(n, sort_elements(n, x, k, axis, False), last, axis, keepdim)


def _pick(
    n: Call, values_and_indices: list[Output], position: Output, axis: int, keepdim: bool
) -> list[Output]:
    out = [n("Gather", v, position, axis) for v in values_and_indices]
    return [n.unsqueeze(v, [axis]) for v in out] if keepdim else out


@aten("median", "median.dim", "nanmedian", "nanmedian.dim")
def median(n: Call, x: Output, dim: Any = None, keepdim: bool = False) -> Any:
    """The median, the lower one of an even number. With NaN it is NaN; nanmedian ignores NaN."""
    if n.rank(x) == 0:
        return x if dim is None else [x, n.const(0)]
    elements, axis = (n.flat(x), 0) if dim is None else (x, n.axis(dim, n.rank(x)))
    size = n.size(elements, axis)
    if n.is_real(x):
        if dim is None:  # one NaN more, which is the median of no elements
            elements = n("Concat", elements, n.reshape(n.like(x, np.nan), [1]), axis=0)
        result = _real_median(n, elements, axis, size, n.op == "aten::nanmedian")
        result = result if keepdim and dim is not None else [n.squeeze(v, [axis]) for v in result]
    else:
        middle = n.index(n.compute("Divide", n.compute("Subtract", size, 1), 2))
        result = _pick(
            n, sort_elements(n, elements, size, axis, False), middle, axis, keepdim and dim is not None
        )
    return result[0] if dim is None else result


def _real_median(n: Call, x: Output, axis: int, size: Any, ignores_nan: bool) -> list[Output]:
    """(medians along a kept axis, their indices).

    Numbers come first in the order. A row with NaN among its `size` elements has its first NaN as median,
    if that is not ignored.
    """
    numbers = n("LogicalNot", n("IsNaN", x))
    count = n("ReduceSum", n.convert(numbers, "i64"), [axis], keep_dims=True)
    last = n("Maximum", n("Subtract", count, n.const(1)), n.const(0))
    position = n("Divide", last, n.const(2), m_pythondiv=True)
    if not ignores_nan:
        position = n("Select", n("Less", count, n.tensor(size)), count, position)
    # NaN is sorted after all numbers
    full = n("Select", numbers, x, n.like(x, np.inf)) if ignores_nan else x
    values, indices = sort_elements(n, full, n.size(x, axis), axis, False)
    medians = n("GatherElements", values, position, axis=axis)
    if ignores_nan:
        medians = n("Select", n("Equal", count, n.const(0)), n.like(x, np.nan), medians)
    return [medians, n("GatherElements", indices, position, axis=axis)]


@aten("combinations")
def combinations(n: Call, x: Output, r: int = 2, with_replacement: bool = False) -> Output:
    """Combinations of r elements: those index tuples that rise, selected from a table of r dimensions."""
    positions = n.arange(n.size(x, 0))
    if r == 0:
        return n.const([], n.dtype(x))
    grid = [n.reshape(positions, [1] * i + [-1] + [1] * (r - 1 - i)) for i in range(r)]
    is_rising = n("GreaterEqual", grid[0], n.const(0))
    for a, b in zip(grid, grid[1:], strict=False):
        is_rising = n("LogicalAnd", is_rising, n("LessEqual" if with_replacement else "Less", a, b))
    coordinates = n("NonZero", is_rising, output_type="i64")
    return n("Gather", x, n.transpose(coordinates, [1, 0]), n.const(0))


@aten("mode")
def mode(n: Call, x: Output, dim: int = -1, keepdim: bool = False) -> list[Output]:
    """The smallest of the most frequent elements; occurrences are counted by comparing pairs."""
    if n.rank(x) == 0:
        return [x, n.const(0)]
    if n.dtype(x) == "boolean":
        value, index = n.also("mode", n.convert(x, "u8"), dim, keepdim)
        return [n.convert(value, "boolean"), index]
    axis, rank = n.axis(dim, n.rank(x)), n.rank(x)
    rows = n.transpose(x, [*(i for i in range(rank) if i != axis), axis])
    same = n("Equal", n.unsqueeze(rows, [rank]), n.unsqueeze(rows, [rank - 1]))
    counts = n("ReduceSum", n.convert(same, "i64"), [rank], keep_dims=False)
    highest = n("ReduceMax", counts, [-1], keep_dims=True)
    most = n("Equal", counts, highest)
    edge = value_range(n.dtype(x))[1]
    value = n("ReduceMin", n("Select", most, rows, n.like(x, edge)), [-1], keep_dims=True)
    here = n("Equal", rows, value)
    candidates = n("Select", here, n.arange(n.size(rows, -1)), n.const(-1))
    index = n("ReduceMax", candidates, [-1], keep_dims=True)
    if n.is_real(x):  # as the sort behind PyTorch's: a NaN at the front stays there, and equals nothing
        first = n.cut(rows, rank - 1, 0, 1)
        stays = n("LogicalAnd", n("IsNaN", first), n("LessEqual", highest, n.const(1)))
        value, index = n("Select", stays, first, value), n("Select", stays, n.const(0), index)
    out = [n.squeeze(v, [-1]) for v in (value, index)]
    return [n.unsqueeze(v, [axis]) for v in out] if keepdim else out


@aten("quantile", "nanquantile")
def quantile(n: Call, x: Output, q: Any, dim: Any = None, keepdim: bool = False,
             interpolation: str = "linear") -> Output:  # fmt: skip
    if n.op == "aten::nanquantile":
        raise UnsupportedError("nanquantile is not supported")
    elements, axis = (n.flat(x), 0) if dim is None else (x, n.axis(dim, n.rank(x)))
    size = n.size(elements, axis)
    values = sort_elements(n, elements, size, axis, False)[0]
    # one NaN, which is the last in order, makes all quantiles NaN
    greatest = n("Gather", values, n.const([-1]), axis)
    values = n("Select", n("IsNaN", greatest), greatest, values)
    last = n.tensor(n.index(n.compute("Subtract", size, 1)), n.dtype(x))
    at = n("Multiply", n.tensor(q, n.dtype(x)), last)
    low = n("Floor", at)
    high = n("Ceiling", at)
    below, above = (n("Gather", values, n.convert(v, "i64"), axis) for v in (low, high))
    part = n("Subtract", at, low)
    if interpolation != "linear":
        part = {
            "lower": n.like(x, 0),
            "higher": n.like(x, 1),
            "midpoint": n("Multiply", n("Ceiling", part), n.like(x, 0.5)),
            "nearest": n("Round", part),
        }[interpolation]
        if interpolation == "nearest":
            nearest = n("Gather", values, n.convert(n("Round", at), "i64"), axis)
            return _quantile_out(n, x, nearest, q, axis, dim, keepdim)
    if n.rank(at) == 1 and n.rank(part):
        part = n.along(part, axis, n.rank(values))
    result = n.also("lerp", below, above, part)
    return _quantile_out(n, x, result, q, axis, dim, keepdim)


def _quantile_out(
    n: Call, x: Output, quantiles: Output, q: Any, axis: int, dim: Any, keepdim: bool
) -> Output:
    """A quantile result with the quantiles' axis first."""
    if isinstance(q, Output) and n.rank(q) == 1:
        rank = n.rank(quantiles)
        quantiles = n.transpose(quantiles, [axis, *(i for i in range(rank) if i != axis)])
        if keepdim:
            count = n.rank(x)
            quantiles = n.unsqueeze(quantiles, list(range(1, count + 1)) if dim is None else [axis + 1])
        return quantiles
    if keepdim:
        quantiles = n.unsqueeze(quantiles, list(range(n.rank(x))) if dim is None else [axis])
    return quantiles


@aten("searchsorted")
def searchsorted(
    n: Call, x: Output, self: Any = None, out_int32: bool = False, right: bool = False, side: Any = None,
    sorter: Any = None,
) -> Output:  # fmt: skip
    if sorter is not None:
        x = n("GatherElements", x, sorter, axis=n.rank(x) - 1)
    right = right or side == "right"
    a, b = n.same_kind([x, n.tensor(self)])
    alone = n.rank(b) == 0
    if alone:
        b = n.reshape(b, [1])
    out = n("SearchSorted", a, b, right_mode=bool(right), output_type="i32" if out_int32 else "i64")
    return n.reshape(out, []) if alone else out


@aten("bucketize")
def bucketize(n: Call, x: Any, boundaries: Output, out_int32: bool = False, right: bool = False) -> Output:
    """right=False: boundaries[i-1] < x <= boundaries[i]"""
    a, b = n.same_kind([n.tensor(x), boundaries])
    alone = n.rank(a) == 0
    if alone:
        a = n.reshape(a, [1])
    out = n("SearchSorted", b, n.flat(a), right_mode=bool(right), output_type="i32" if out_int32 else "i64")
    return n.reshape(out, [] if alone else n.shape_of(a))


@aten("unique_consecutive")
def unique_consecutive(n: Call, x: Output, dim: Any = None) -> list[Output]:
    """Remove consecutive duplicates along an axis, or of the flattened tensor.

    Returns the elements, the inverse indices and the counts.
    """
    elements, axis = (n.flat(x), 0) if dim is None else (x, n.axis(dim, n.rank(x)))
    later = n("NotEqual", n.cut(elements, axis, 1, LAST), n.cut(elements, axis, 0, -1))
    others = [i for i in range(n.rank(elements)) if i != axis]
    later = n("ReduceLogicalOr", later, others, keep_dims=False) if others else later
    first = n.alike(n.cut(n.arange(n.size(elements, axis)), 0, 0, 1), True, "boolean")
    starts = n("Concat", first, later, axis=0)
    start_indices = n.flat(n("NonZero", starts, output_type="i64"))
    inverse = n("Subtract", n("CumSum", n.convert(starts, "i64"), n.const(0)), n.const(1))
    ends = n("Concat", n.cut(start_indices, 0, 1, LAST), n.one(n.size(elements, axis)), axis=0)
    inverse = n.reshape(inverse, n.shape_of(x)) if dim is None else inverse
    return [n("Gather", elements, start_indices, axis), inverse, n("Subtract", ends, start_indices)]


@aten("_unique2", "unique_dim", "_unique")
def unique(n: Call, x: Output, dim: Any = None) -> list[Output]:
    if dim is None:
        result = n.all("Unique", x, sorted=True)
        inverse = n.reshape(result[2], n.shape_of(x))
    else:
        result = n.all("Unique", x, n.const(dim), sorted=True)
        inverse = result[2]
    return [result[0], inverse, result[3]]


@aten("isin")
def isin(
    n: Call, x: Any, test_elements: Any = None, test_element: Any = None, invert: bool = False
) -> Output:
    other = test_elements if test_element is None else test_element
    a, b = n.same_kind([n.tensor(x), n.tensor(other)])
    flat = n.flat(b) if n.rank(b) else n.reshape(b, [1])
    is_member = n("ReduceLogicalOr", n("Equal", n.unsqueeze(a, [n.rank(a)]), flat), [-1], keep_dims=False)
    return n("LogicalNot", is_member) if invert else is_member
