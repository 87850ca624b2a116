"""Reductions over axes."""

from __future__ import annotations

from ovjit.readers.numerics.cumulative import running
from ovjit.readers.numerics.special import log_add
from ovjit.readers.torch.operators.sorting import sort_elements
from ovjit.readers.torch.rule_language import *


def reduce_axes(n: Call, op: str, x: Output, dim: Any, keepdim: Any) -> Output:
    axes = n.all_axes(x, dim)
    if n.rank(x) == 0:
        x = n.unsqueeze(x, [0])
        return n(op, x, [0], keep_dims=False)
    return n(op, x, axes, keep_dims=bool(keepdim))


def _complex_reduced(n: Call, op: str, x: Complex, dim: Any, keepdim: bool) -> Complex:
    rank = n.rank(x.pair) - 1
    axes = n.axes(dim, rank) if dim else list(range(rank))
    return Complex(n(op, x.pair, axes, keep_dims=bool(keepdim)))


def _cast_summands(n: Call, x: Output, dtype: Any) -> Output:
    """The elements of a sum or product: integers and booleans become i64 if no type is passed."""
    if dtype is not None:
        return n.cast(x, dtype)
    return x if n.is_real(x) else n.convert(x, "i64")


@aten("sum", "nansum")
def total(n: Call, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if isinstance(x, Complex):
        return _complex_reduced(n, "ReduceSum", n.cast(x, dtype), dim, keepdim)
    x = _cast_summands(n, x, dtype)
    if n.dtype(x) == "boolean":
        return reduce_axes(n, "ReduceLogicalOr", x, dim, keepdim)
    if n.op == "aten::nansum" and n.is_real(x):
        x = n("Select", n("IsNaN", x), n.like(x, 0), x)
    return reduce_axes(n, "ReduceSum", x, dim, keepdim)


@aten("mean")
def mean(n: Call, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if isinstance(x, Complex):
        return _complex_reduced(n, "ReduceMean", n.cast(x, dtype), dim, keepdim)
    x = n.cast(x, dtype)
    shape = n.shape(x) or ()
    axes = n.all_axes(x, dim) if shape else []
    if any(n.reader.is_often_none(shape[axis]) for axis in axes):  # of no elements, ReduceMean gives 0
        count = n.count(x, axes)
        return n("Divide", reduce_axes(n, "ReduceSum", x, dim, keepdim), n.tensor(count, n.dtype(x)))
    result = reduce_axes(n, "ReduceMean", x, dim, keepdim)
    is_empty = any(shape[axis] == 0 for axis in axes)
    return n.alike(result, math.nan) if is_empty else result


@aten("nanmean")
def nanmean(n: Call, x: Output, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Output:
    x = n.cast(x, dtype)
    missing = n("IsNaN", x)
    is_number = n.convert(n("LogicalNot", missing), n.dtype(x))
    total = reduce_axes(n, "ReduceSum", n("Select", missing, n.like(x, 0), x), dim, keepdim)
    return n("Divide", total, reduce_axes(n, "ReduceSum", is_number, dim, keepdim))


@aten("prod")
def prod(n: Call, x: Output, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Output:
    x = _cast_summands(n, x, dtype)
    if n.dtype(x) == "boolean":
        return reduce_axes(n, "ReduceLogicalAnd", x, dim, keepdim)
    return reduce_axes(n, "ReduceProd", x, dim, keepdim)


@aten("amax", "amin", "max", "min")
def extreme(n: Call, x: Any, dim: Any = None, keepdim: bool = False) -> Output:
    top = "max" in n.op
    if n.dtype(x) == "boolean":
        return reduce_axes(n, "ReduceLogicalOr" if top else "ReduceLogicalAnd", x, dim, keepdim)
    return reduce_axes(n, "ReduceMax" if top else "ReduceMin", x, dim, keepdim)


@aten("max.dim", "min.dim", "max.names_dim")
def extreme_with_index(n: Call, x: Output, dim: int, keepdim: bool = False) -> list[Output]:
    """(extreme values, their indices) along an axis. The model sorts only if the indices are used."""
    mode = "max" if "max" in n.op else "min"
    indices = extreme_along(n, mode, x, dim, keepdim)[1]
    return [n.also(f"a{mode}", x, dim, keepdim), indices]


@aten("argmax", "argmin")
def argmax(n: Call, x: Output, dim: Any = None, keepdim: bool = False) -> Output:
    if dim is None:
        flat = n.flat(x)
        result = extreme_along(n, n.op[-3:], flat, 0, False)[1]
        return n.reshape(result, [1] * n.rank(x)) if keepdim else result
    return extreme_along(n, n.op[-3:], x, dim, keepdim)[1]


def extreme_along(n: Call, mode: str, x: Output, dim: int, keepdim: bool) -> list[Output]:
    """Values and indices of the largest or smallest along an axis, the first of equal ones."""
    if n.rank(x) == 0:
        return [x, n.const(0)]
    # NaN is the largest of all to TopK, but the smallest, too, to PyTorch's min
    is_negated = mode == "min" and n.is_real(x)
    values, indices = sort_elements(
        n, n("Negative", x) if is_negated else x, 1, dim, is_negated or mode == "max"
    )
    result = [n("Negative", values) if is_negated else values, indices]
    return result if keepdim else [n.squeeze(v, [n.pick_axis(x, dim)]) for v in result]


@aten("any", "all")
def reduce_any_or_all(n: Call, x: Output, dim: Any = None, keepdim: bool = False) -> Output:
    """Reduce by any or all. The result for u8 is u8, as in PyTorch."""
    op = "ReduceLogicalOr" if n.op == "aten::any" else "ReduceLogicalAnd"
    result = reduce_axes(n, op, n.to_type(x, "boolean"), dim, keepdim)
    return n.convert(result, "u8") if n.dtype(x) == "u8" else result


def deviation(
    n: Call, x: Output, dim: Any, correction: Any, keepdim: Any, root: bool = False
) -> list[Output]:
    """Variance, or its root, and mean: sum((x - mean)^2) / (count - correction)"""
    kind, upcast = n.dtype(x), n.upcast(n.real(x))
    axes = n.all_axes(upcast, dim)
    center = n("ReduceMean", upcast, axes, keep_dims=True) if n.rank(x) else upcast
    gap = n("Subtract", upcast, center)
    squares = n("Multiply", gap, gap)
    count = n.tensor(n.count(upcast, axes) if n.rank(x) else 1, n.dtype(upcast))
    divisor = n("Maximum", n("Subtract", count, n.like(upcast, correction)), n.like(upcast, 0))
    # a quotient, as the mean of nothing is no number in PyTorch
    middle = n("Divide", reduce_axes(n, "ReduceSum", upcast, dim, keepdim), count)
    if correction == 0:
        spread = n.also("mean", squares, dim, keepdim)
    else:
        spread = n("Divide", reduce_axes(n, "ReduceSum", squares, dim, keepdim), divisor)
    return [n.convert(n("Sqrt", spread) if root else spread, kind), n.convert(middle, kind)]


@aten("var", "std", "var_mean", "std_mean")
def var(n: Call, x: Output, dim: Any = None, unbiased: Any = None, correction: Any = None,
        keepdim: bool = False) -> Any:  # fmt: skip
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    spread, middle = deviation(n, x, dim, correction, keepdim, "std" in n.op)
    return [spread, middle] if n.op.endswith("mean") else spread


@aten("logsumexp", "special_logsumexp")
def logsumexp(n: Call, x: Any, dim: Any, keepdim: bool = False) -> Output:
    x = n.real(x)
    if n.rank(x) == 0:
        return x
    kind, upcast = n.dtype(x), n.upcast(x)
    axes = n.all_axes(x, dim)
    top = n("ReduceMax", upcast, axes, keep_dims=True)
    top = n("Select", n("IsFinite", top), top, n.like(top, 0))
    out = n("Add", n("Log", n("ReduceSum", n("Exp", n("Subtract", upcast, top)), axes, keep_dims=True)), top)
    return n.convert(out if keepdim else n.squeeze(out, axes), kind)


@aten("norm", "linalg_vector_norm", "frobenius_norm", "linalg_norm")
def norm(n: Call, x: Any, p: Any = 2, ord: Any = None, dim: Any = None, keepdim: bool = False,
         dtype: Any = None) -> Output:  # fmt: skip
    """(sum |x|^p)^(1/p), of infinite p the largest or the smallest, of 0 how many are not 0"""
    if isinstance(x, Complex):
        x = n.also("abs", x)
    x = n.real(n.cast(x, dtype))
    p = ord if ord is not None else p
    if (
        n.op == "aten::linalg_norm"
        and ord is not None
        and (isinstance(ord, str) or (len(dim) if dim else n.rank(x)) == 2)
    ):
        return n.also("linalg_matrix_norm", x, ord, dim or [-2, -1], keepdim)
    if p is None or p == "fro":
        p = 2
    if p == "nuc":
        return n.also("linalg_matrix_norm", x, p, dim or [-2, -1], keepdim)
    if p == 2:
        return reduce_axes(n, "ReduceL2", x, dim, keepdim)
    if p == 1:
        return reduce_axes(n, "ReduceL1", x, dim, keepdim)
    size = n("Abs", x)
    if p in (np.inf, -np.inf):
        return reduce_axes(n, "ReduceMax" if p > 0 else "ReduceMin", size, dim, keepdim)
    if p == 0:
        is_nonzero = n.convert(n("NotEqual", x, n.like(x, 0)), n.dtype(x))
        return reduce_axes(n, "ReduceSum", is_nonzero, dim, keepdim)
    upcast = n.upcast(size)  # powers may be out of the range of f16
    powers = reduce_axes(n, "ReduceSum", n("Power", upcast, n.like(upcast, p)), dim, keepdim)
    return n.convert(n("Power", powers, n.like(upcast, 1.0 / p)), n.dtype(x))


@aten("cumsum")
def cumsum(n: Call, x: Output, dim: int, dtype: Any = None) -> Output:
    x = _cast_summands(n, x, dtype)
    return n("CumSum", x, n.const(n.pick_axis(x, dim))) if n.rank(x) else x


@aten("logcumsumexp")
def logcumsumexp(n: Call, x: Output, dim: int) -> Output:
    """Compute the running logarithm of sums of exponentials in f64, by pairs.

    Subtracting the maximum of the whole row would underflow for elements far below it.
    """
    if n.rank(x) == 0:
        return x
    result = running(n, n.convert(x, "f64"), n.pick_axis(x, dim), partial(log_add, n))
    return n.convert(result, n.dtype(x))


@aten("cumprod")
def cumprod(n: Call, x: Output, dim: int, dtype: Any = None) -> Output:
    x = _cast_summands(n, x, dtype)
    if n.rank(x) == 0:
        return x
    upcast = n.convert(x, "f64") if n.dtype(x) == "f32" else n.upcast(x)  # as PyTorch multiplies
    result = running(n, upcast, n.pick_axis(x, dim), partial(n, "Multiply"))
    return n.convert(result, n.dtype(x))


@aten("cummax", "cummin")
def cummax(n: Call, x: Output, dim: int) -> list[Output]:
    """(running maxima or minima, the last index of each)."""
    if n.rank(x) == 0:
        return [x, n.const(0)]
    kind, axis = n.dtype(x), n.pick_axis(x, dim)
    operand = n.convert(x, "i32") if kind == "boolean" else x
    values = running(n, operand, axis, partial(n, "Maximum" if n.op == "aten::cummax" else "Minimum"))
    steps = n.along(n.arange(n.size(x, axis)), axis, n.rank(x))
    here = n("Equal", operand, values)
    if n.is_real(operand):  # NaN equals nothing, and results after it are NaN
        here = n("LogicalOr", here, n("IsNaN", operand))
    last_equal = n("Select", here, steps, n.const(-1))
    return [n.to_type(values, kind), running(n, last_equal, axis, partial(n, "Maximum"))]


@aten("renorm")
def renorm(n: Call, x: Output, p: Any, dim: int, maxnorm: Any) -> Output:
    """Scale slices along an axis whose norm exceeds a bound down to it."""
    axis = n.pick_axis(x, dim)
    norms = norm(n, x, p, None, [i for i in range(n.rank(x)) if i != axis], True)
    factor = n("Divide", n.like(x, maxnorm), n("Add", norms, n.like(x, 1e-7)))
    return n("Multiply", x, n("Select", n("Greater", norms, n.like(x, maxnorm)), factor, n.like(x, 1)))


@aten("equal")
def equal(n: Call, x: Output, other: Output) -> Number:
    same = n("Equal", *n.same_kind([x, other]))
    return Number(reduce_axes(n, "ReduceLogicalAnd", same, None, False))


@aten("allclose")
def allclose(
    n: Call, x: Output, other: Output, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False
) -> Number:
    each = n.also("isclose", x, other, rtol, atol, equal_nan)
    return Number(reduce_axes(n, "ReduceLogicalAnd", each, None, False))


@aten("trapezoid", "trapz", "cumulative_trapezoid")
def trapezoid(n: Call, y: Output, x: Any = None, dx: Any = 1, dim: int = -1) -> Any:
    """The area below points by the trapezoidal rule, or its cumulative sums."""
    axis, rank = n.axis(dim, n.rank(y)), n.rank(y)
    sums = n("Add", n.cut(y, axis, 1, LAST), n.cut(y, axis, 0, -1))
    if x is None:
        width: Any = dx
    elif n.rank(x) == 1:
        width = n.along(n.also("diff", x), axis, rank)
    else:
        width = n.also("diff", x, dim=dim)
    parts = n.also("mul", n.also("mul", sums, width), 0.5)
    name = "sum" if n.op != "aten::cumulative_trapezoid" else "cumsum"
    return n.also(name, parts, [axis] if name == "sum" else axis)


@aten("diff")
def diff(
    n: Call, x: Output, /, dim: int = -1, prepend: Any = None, append: Any = None, **order_by_name: Any
) -> Any:
    """Differences of adjacent elements, taken `n` times; for 0 times `x` alone, as in PyTorch."""
    if order_by_name.get("n") == 0:
        return x
    axis = n.pick_axis(x, dim)
    differences = n.concat(n.same_kind([v for v in (prepend, x, append) if v is not None]), axis)
    op = "LogicalXor" if n.dtype(differences) == "boolean" else "Subtract"
    for _ in range(order_by_name.get("n", 1)):
        differences = n(op, n.cut(differences, axis, 1, LAST), n.cut(differences, axis, 0, -1))
    return differences


#: Operators that are one expression.
aten_rows({
    "aminmax _aminmax": lambda n, x, dim=None, keepdim=False:
        [n.also("amin", x, dim, keepdim), n.also("amax", x, dim, keepdim)],
    "count_nonzero": lambda n, x, dim=None:
        reduce_axes(n, "ReduceSum", n.convert(n.to_type(x, "boolean"), "i64"), dim, False),
    "dist": lambda n, x, other, p=2: norm(n, n("Subtract", *n.same_kind([x, other])), p),
})  # fmt: skip
