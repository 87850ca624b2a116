"""Singular values and eigenvalues of matrices, for which OpenVINO has no operations: by Jacobi's rotations.

The functions take matrices [count, rows, columns] of f64, see `factorization`. Sizes are numbers where they
are known, else i64 tensors without dimensions.
"""

from __future__ import annotations

import operator

from ovjit.readers.numerics.counted_loops import repeat_steps
from ovjit.readers.numerics.factorization import apply_reflections, reflect
from ovjit.readers.rule_language import *

#: A number of rows or columns.
Size = int | Output

#: Sweeps over all pairs of columns at most, the cosine between columns that counts as 0, and the product of
#: lengths, relative to the square of all columns' length, below which columns are 0 but for rounding.
SWEEPS, RIGHT, NOTHING = 30, 1e-12, 1e-18


def size_of(n: Builder, x: Output, axis: int) -> Size:
    """A dimension of a tensor."""
    dim = (n.shape(x) or ())[axis]
    return dim if isinstance(dim, int) else n.reshape(n.dim_of(x, axis), [])


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add, "Subtract": operator.sub, "Multiply": operator.mul, "Divide": operator.floordiv,
    "FloorMod": operator.mod, "Maximum": max, "Minimum": min,
}  # fmt: skip


def _of(n: Builder, op: str, a: Size, b: Size) -> Size:
    """An operation `op`, such as a sum or quotient, of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return _ARITHMETIC[op](a, b)
    return n(op, *(v if isinstance(v, Output) else n.const(v) for v in (a, b)))


def _list(n: Builder, *sizes: Size) -> list[int] | Output:
    """Sizes as an i64 tensor of one dimension."""
    if all(isinstance(v, int) for v in sizes):
        return list(sizes)  # type: ignore[arg-type]
    return n.concat([n.unsqueeze(v, [0]) if isinstance(v, Output) else n.const([v]) for v in sizes], 0)


def _shape(n: Builder, head: Output, *sizes: Size) -> Output:
    """The shape of the leading dimensions `head`, followed by `sizes`."""
    listed = _list(n, *sizes)
    return n.concat([head, listed if isinstance(listed, Output) else n.const(listed)], 0)


def _cut(n: Builder, x: Output, axis: int, start: Size, stop: Size) -> Output:
    """x[..., start:stop, ...] along one axis."""
    return n("Slice", x, _list(n, start), _list(n, stop), [1], [axis])


def _pad(n: Builder, x: Output, rows: Size, columns: Size, value: float = 0) -> Output:
    """Append `rows` rows and `columns` columns of `value` to matrices."""
    if rows == 0 and columns == 0:
        return x
    none = [0] * (n.rank(x) - 2)
    return n("Pad", x, [0] * n.rank(x), _list(n, *none, rows, columns), n.like(x, value), pad_mode="constant")


def _eye(n: Builder, rows: Size, columns: Size) -> Output:
    """Ones on the diagonal, f64 [rows, columns]."""
    if isinstance(rows, int) and isinstance(columns, int):
        return n.const([[float(i == j) for j in range(columns)] for i in range(rows)] or [[]], "f64",
                       (rows, columns))  # fmt: skip
    return n.convert(n("Equal", n.unsqueeze(_steps(n, rows), [1]), _steps(n, columns)), "f64")


def _steps(n: Builder, size: Size) -> Output:
    """0, 1, 2, ..., i64 [size]"""
    last = size if isinstance(size, Output) else n.const(size)
    return n("Range", n.const(0), last, n.const(1), output_type="i64")


def _ring(n: Builder, even: Size, half: Size) -> Output:
    """Permutation of the columns in one round-robin step, i64 [even]: the source of each index.

    All columns but the first move by one index in a ring: 1, 2, ..., half - 1, then backwards even - 1, ...,
    half. So each column meets each other one in a sweep.
    """
    if isinstance(even, int) and isinstance(half, int):
        first, second = range(1, half - 1), range(half + 1, even)
        return n.const([0, half, *first, *second, half - 1][:even])
    index = _steps(n, even)
    half, last = (v if isinstance(v, Output) else n.const(v) for v in (half, _of(n, "Subtract", even, 1)))
    one = n.const(1)
    on = n("Select", n("Less", index, half), n("Subtract", index, one), n("Add", index, one))
    on = n("Select", n("Equal", index, last), n("Subtract", half, one), on)
    on = n("Select", n("Equal", index, one), half, on)
    return n("Select", n("Equal", index, n.const(0)), n.const(0), on)


def orthogonalize_columns(n: Builder, x: Output, size: Size) -> tuple[Output, Output]:
    """(A V with orthogonal columns, V): one-sided Jacobi method on the columns of A.

    x is f64 [count, rows, size]. A step turns as many pairs as half of the columns.
    """
    even = _of(n, "Maximum", _of(n, "Add", size, _of(n, "FloorMod", size, 2)), 2)
    x = _pad(n, x, 0, _of(n, "Subtract", even, size))
    rows, half = size_of(n, x, 1), _of(n, "Divide", even, 2)
    head = n.slice(n.shape_of(x), 0, 0, 1)
    one = n("Broadcast", _eye(n, even, even), _shape(n, head, even, even))

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        both, worst = state
        order, ends, *extra = others
        sizes = iter(extra)
        rows_, half_ = (v if isinstance(v, int) else next(sizes) for v in (rows, half))
        x = _cut(n, both, 1, 0, rows_)
        cosine, sine, near = _angles(n, x, half_)
        p, q = _split(n, both, half_)
        first = n("Subtract", n("Multiply", cosine, p), n("Multiply", sine, q))
        second = n("Add", n("Multiply", sine, p), n("Multiply", cosine, q))
        both = n("Gather", n.concat([first, second], 2), order, 2)
        last = n("Equal", n("FloorMod", k, ends), n("Subtract", ends, n.const(1)))
        worst = n("Maximum", worst, near)
        far = n("Greater", worst, n.like(worst, RIGHT))
        worst = n("Select", last, n.like(worst, 0), worst)
        return [both, worst, n("LogicalOr", n("LogicalNot", last), far)]

    sweep = _of(n, "Subtract", even, 1)
    state = [n.concat([x, one], 1), n.const(0.0, "f64")]
    others = [_ring(n, even, half), sweep if isinstance(sweep, Output) else n.const(sweep)]
    others += [v for v in (rows, half) if isinstance(v, Output)]
    both = repeat_steps(n, _of(n, "Multiply", sweep, SWEEPS), state, step, others, ends=True)[0]
    result = _cut(n, both, 2, 0, size)
    return _cut(n, result, 1, 0, rows), _cut(n, result, 1, rows, _of(n, "Add", rows, size))


def _split(n: Builder, x: Output, half: Size) -> list[Output]:
    """Split the columns into two halves."""
    return [_cut(n, x, 2, a, b) for a, b in ((0, half), (half, _of(n, "Add", half, half)))]


def _angles(n: Builder, x: Output, half: Size) -> tuple[Output, Output, Output]:
    """The cosines and sines [count, 1, half] of the rotations that make each column of the first half
    orthogonal to its partner in the second, and the largest cosine of an angle between partners."""
    p, q = _split(n, x, half)
    a, b, c = (n("ReduceSum", n("Multiply", *pair), [1], keep_dims=True) for pair in ((p, p), (q, q), (p, q)))
    zero, one = n.like(a, 0), n.like(a, 1)
    none = n("Equal", c, zero)
    ratio = n("Divide", n("Subtract", b, a), n("Multiply", n("Select", none, one, c), n.like(c, 2)))
    root = n("Sqrt", n("Add", n("Multiply", ratio, ratio), one))
    sign = n("Select", n("Less", ratio, zero), n.like(a, -1), one)
    tangent = n("Divide", sign, n("Add", n("Abs", ratio), root))
    tangent = n("Select", none, zero, tangent)
    cosine = n("Divide", one, n("Sqrt", n("Add", n("Multiply", tangent, tangent), one)))
    size = n("Sqrt", n("Multiply", a, b))
    total = n("ReduceSum", n("Add", a, b), [2], keep_dims=True)
    size = n("Maximum", size, n("Multiply", total, n.like(total, NOTHING)))
    near = n("Divide", n("Abs", c), n("Select", n("Equal", size, zero), one, size))
    near = n("ReduceMax", n.reshape(near, [-1]), [0], keep_dims=False)
    return cosine, n("Multiply", cosine, tangent), near


def _sort(n: Builder, keys: Output, columns: Sequence[Output], size: Size, largest: bool) -> list[Output]:
    """Keys [count, size] in order, and the columns of matrices in the same one."""
    mode = "max" if largest else "min"
    values, order = n.all("TopK", keys, size, axis=1, mode=mode, sort="value", index_element_type="i64")
    return [values, *(n("Gather", x, order, 2, batch_dims=1) for x in columns)]


def singular(n: Builder, x: Output, full: bool) -> tuple[Output, Output, Output]:
    """A = U diag(s) V^T, the largest s first: U, s and V of f64 [count, rows, columns]. `full`: U and V are
    square, else they have as many columns as there are singular values."""
    rows, columns = size_of(n, x, 1), size_of(n, x, 2)
    if not isinstance(rows, int) or not isinstance(columns, int):
        return _of_open_sizes(n, x, rows, columns, full)
    if rows < columns:
        v, s, u = _of_tall(n, n.transpose(x, [0, 2, 1]), columns, rows, full)
        return u, s, v
    return _of_tall(n, x, rows, columns, full)


def _of_open_sizes(
    n: Builder, x: Output, rows: Size, columns: Size, full: bool
) -> tuple[Output, Output, Output]:
    """The SVD for dynamic sizes: of A, or of its transpose if it has more columns than rows."""
    most, least = (_of(n, op, rows, columns) for op in ("Maximum", "Minimum"))
    is_wide = n("Less", *(v if isinstance(v, Output) else n.const(v) for v in (rows, columns)))
    down, right = n.unsqueeze(_steps(n, most), [1]), _steps(n, least)
    across = columns if isinstance(columns, Output) else n.const(columns)
    straight = n("Add", n("Multiply", down, across), right)
    swapped = n("Add", n("Multiply", right, across), down)
    flat = n("Reshape", x, [0, -1], special_zero=True)
    tall = n("Gather", flat, n("Select", is_wide, swapped, straight), 1)
    u, s, v = _of_tall(n, tall, most, least, full)
    v = _pad(n, v, _of(n, "Subtract", most, least), _of(n, "Subtract", most, least) if full else 0)
    first, second = n("Select", is_wide, v, u), n("Select", is_wide, u, v)
    first, second = _cut(n, first, 1, 0, rows), _cut(n, second, 1, 0, columns)
    if full:
        first, second = _cut(n, first, 2, 0, rows), _cut(n, second, 2, 0, columns)
    return first, s, second


def _of_tall(n: Builder, x: Output, rows: Size, columns: Size, full: bool) -> tuple[Output, Output, Output]:
    """The SVD of matrices with at least as many rows as columns."""
    rotated, v = orthogonalize_columns(n, x, columns)
    size = n("ReduceL2", rotated, [1], keep_dims=False)
    _, rotated, v = _sort(n, size, [rotated, v], columns, largest=True)
    packed, factors = reflect(n, rotated)
    size_u = rows if full else columns
    head = n.slice(n.shape_of(x), 0, 0, 1)
    start = n("Broadcast", _eye(n, rows, size_u), _shape(n, head, rows, size_u))
    count = columns if isinstance(columns, Output) else n.const(columns)
    u = apply_reflections(n, packed, factors, start, count)
    diagonal = n("Multiply", _cut(n, packed, 1, 0, columns), _eye(n, columns, columns))
    ends = n("ReduceSum", diagonal, [1], keep_dims=False)
    sign = n("Select", n("Less", ends, n.like(ends, 0)), n.like(ends, -1), n.like(ends, 1))
    signs = _pad(n, n.unsqueeze(sign, [1]), 0, _of(n, "Subtract", size_u, columns), 1)
    return n("Multiply", u, signs), n("Abs", ends), v


def symmetric(n: Builder, x: Output) -> tuple[Output, Output]:
    """Eigenvalues [count, size] of symmetric matrices of f64, the least first, and eigenvectors as columns.

    A + c 1, where c is as large as any of them, has the same vectors, and its columns times V are V's
    columns times its eigenvalues.
    """
    size = size_of(n, x, 2)
    c = n("ReduceL2", x, [1, 2], keep_dims=True)
    moved = n("Add", x, n("Multiply", _eye(n, size, size), c))
    rotated, v = orthogonalize_columns(n, moved, size)
    values = n("ReduceSum", n("Multiply", rotated, v), [1], keep_dims=False)
    values = n("Subtract", values, n.squeeze(c, [2]))
    ordered = _sort(n, values, [v], size, largest=False)
    return ordered[0], ordered[1]
