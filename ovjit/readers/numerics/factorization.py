"""Factors of matrices, for which OpenVINO has no operations: by steps over columns, of all matrices at once.

The functions take matrices [count, rows, columns], as `stack_matrices` makes them, of any sizes.
"""

from __future__ import annotations

from ovjit.readers.numerics.counted_loops import Step, repeat_steps
from ovjit.readers.rule_language import *

#: Stands after all rows.
NO_ROW = (1 << 63) - 1


def stack_matrices(n: Builder, x: Output) -> Output:
    """Matrices with any dimensions before their own as [count, rows, columns]."""
    if len(n.shape(x) or ()) == 3:
        return x
    shape = n.shape_of(x)
    count = n("ReduceProd", n.slice(shape, 0, 0, -2), [0], keep_dims=True)
    return n.reshape(x, n("Concat", count, n.slice(shape, 0, -2), axis=0))


def unstack(n: Builder, value: Output, like: Output, dims: int) -> Output:
    """A result for each matrix, its last `dims` dimensions those of one, with the dimensions before the
    matrices in `like`."""
    if len(n.shape(like) or ()) == 3:
        return value
    head = n.slice(n.shape_of(like), 0, 0, -2)
    if not dims:
        return n.reshape(value, head)
    return n.reshape(value, n("Concat", head, n.slice(n.shape_of(value), 0, -dims), axis=0))


def steps_of(n: Builder, x: Output) -> int | Output:
    """min(rows, columns): the number of elimination steps."""
    shape = n.shape(x) or ()
    if all(isinstance(d, int) for d in shape[1:]):
        return min(shape[1:])  # type: ignore[type-var, return-value]
    return n("ReduceMin", n.slice(n("ShapeOf", x, output_type="i64"), 0, 1), [0], keep_dims=False)


def indices(n: Builder, x: Output, axis: int) -> Output:
    """0, 1, 2, ... along an axis of a tensor, i64 [length]."""
    return n.upto(n.dim_of(x, axis))


def _zeros(n: Builder, x: Output, kind: str) -> Output:
    """[count, rows] of zeros."""
    return n("Broadcast", n.const(0, kind), n.slice(n.shape_of(x), 0, 0, 2))


def identity(n: Builder, rows: Output, columns: Output, kind: str) -> Output:
    """The identity matrix, from the indices of rows and of columns."""
    return n.convert(n("Equal", n.unsqueeze(rows, [1]), n.unsqueeze(columns, [0])), kind)


class Eliminated(NamedTuple):
    """P^T A = L U: both factors in one matrix, the permutation, and the exchanges of rows."""

    #: L below the diagonal, U from it on.
    packed: Output
    #: The row of A at each place, i64 [count, rows].
    order: Output
    #: The row with which each one was exchanged, i64 [count, rows]; itself after the last step.
    swaps: Output
    #: The number of the first step without a pivot counted from 1, 0 where all have one: i64 [count].
    failed: Output


def eliminate(n: Builder, x: Output) -> Eliminated:
    """LU factorization by Gaussian elimination with partial pivoting."""
    rows = n("Add", _zeros(n, x, "i64"), indices(n, x, 1))
    failed = n("Broadcast", n.const(0), n.slice(n.shape_of(x), 0, 0, 1))
    return Eliminated(*repeat_steps(n, steps_of(n, x), [x, rows, rows, failed], _eliminate(n)))


def _eliminate(n: Builder) -> Step:
    def step(k: Output, state: list[Output], _: list[Output]) -> list[Output]:
        x, order, swaps, failed = state
        rows, columns = indices(n, x, 1), indices(n, x, 2)
        zero, below = n.like(x, 0), n("Greater", rows, k)
        size = n("Select", n("Less", rows, k), n.like(x, -1), n("Abs", n("Gather", x, k, 2)))
        top = n("Equal", size, n("ReduceMax", size, [1], keep_dims=True))
        best = n("ReduceMin", n("Select", top, rows, n.const(NO_ROW)), [1], keep_dims=True)
        best = n("Select", n("Equal", best, n.const(NO_ROW)), k, best)  # where all is NaN
        at_step = n("Equal", rows, k)
        permutation = exchange_rows(n, rows, k, best)
        x = n("Gather", x, permutation, 1, batch_dims=1)
        order = n("Gather", order, permutation, 1, batch_dims=1)
        swaps = n("Select", at_step, best, swaps)
        column, row = n("Gather", x, k, 2), n("Gather", x, n.unsqueeze(k, [0]), 1)
        pivot = n("Gather", column, n.unsqueeze(k, [0]), 1)
        empty = n("Equal", pivot, zero)
        factors = n("Divide", column, n("Select", empty, n.like(x, 1), pivot))
        factors = n.unsqueeze(n("Select", below, factors, zero), [2])
        right = n("Select", n("Greater", columns, k), row, zero)
        x = n("Subtract", x, n("Multiply", factors, right))
        in_column = n("LogicalAnd", n.unsqueeze(below, [1]), n("Equal", columns, k))
        x = n("Select", in_column, factors, x)
        first = n("LogicalAnd", n.squeeze(empty, [1]), n("Equal", failed, n.const(0)))
        failed = n("Select", first, n("Add", k, n.const(1)), failed)
        return [x, order, swaps, failed]

    return step


def exchange_rows(n: Builder, rows: Output, k: Output, best: Output) -> Output:
    """The order of rows after an exchange of the rows `k` and `best` of each matrix."""
    return n("Select", n("Equal", rows, k), best, n("Select", n("Equal", rows, best), k, rows))


def determinant(n: Builder, x: Output) -> Output:
    """The product of the pivots, with the sign of the permutation."""
    factors = eliminate(n, stack_matrices(n, x))
    rows, columns = (indices(n, factors.packed, axis) for axis in (1, 2))
    diagonal = n("Select", n("Equal", n.unsqueeze(rows, [1]), columns), factors.packed, n.like(x, 0))
    product = n("ReduceProd", n("ReduceSum", diagonal, [2], keep_dims=False), [1], keep_dims=False)
    is_swapped = n.convert(n("NotEqual", factors.swaps, rows), "i64")
    odd = n("FloorMod", n("ReduceSum", is_swapped, [1], keep_dims=False), n.const(2))
    sign = n("Subtract", n.const(1), n("Multiply", odd, n.const(2)))
    return unstack(n, n("Multiply", product, n.convert(sign, n.dtype(x))), x, 0)


def reflect(n: Builder, x: Output) -> tuple[Output, Output]:
    """A = Q R by Householder's reflections 1 - f v v^T, as LAPACK has them.

    R from the diagonal on, and below it the vectors, whose elements on the diagonal are 1; the factors f,
    [count, rows], of which the first min(rows, columns) count.
    """
    factors = _zeros(n, x, n.dtype(x))
    result = repeat_steps(n, steps_of(n, x), [x, factors], _reflect(n))
    return result[0], result[1]


def _reflect(n: Builder) -> Step:
    def step(k: Output, state: list[Output], _: list[Output]) -> list[Output]:
        x, factors = state
        rows, columns = indices(n, x, 1), indices(n, x, 2)
        zero, one = n.like(x, 0), n.like(x, 1)
        below, at_step = n("Greater", rows, k), n("Equal", rows, k)
        column = n("Gather", x, k, 2)
        first = n("Gather", column, n.unsqueeze(k, [0]), 1)
        norm = n("ReduceL2", n("Select", below, column, zero), [1], keep_dims=True)
        none = n("Equal", norm, zero)
        size = n("Sqrt", n("Add", n("Multiply", first, first), n("Multiply", norm, norm)))
        end = n("Select", n("Less", first, zero), size, n("Negative", size))
        end = n("Select", none, first, end)
        factor = n("Divide", n("Subtract", end, first), n("Select", none, one, end))
        part = n("Divide", column, n("Select", none, one, n("Subtract", first, end)))
        vector = n("Select", below, part, n("Select", at_step, one, zero))
        matrix = n.unsqueeze(vector, [2])
        products = n("MatMul", matrix, x, transpose_a=True, transpose_b=False)
        right = n("Select", n("Greater", columns, k), products, zero)
        scale = n.unsqueeze(factor, [2])
        x = n("Subtract", x, n("Multiply", n("Multiply", scale, matrix), right))
        new_column = n.unsqueeze(n("Select", below, vector, n("Select", at_step, end, column)), [2])
        x = n("Select", n("Equal", columns, k), new_column, x)
        return [x, n("Select", at_step, factor, factors)]

    return step


def apply_reflections(n: Builder, packed: Output, factors: Output, other: Output, count: Output) -> Output:
    """Q other: the reflections of `packed` on the rows of other matrices, the last one first."""

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        value, (vectors, scales, steps) = state[0], others
        k = n("Subtract", n("Subtract", steps, n.const(1)), k)
        rows = indices(n, vectors, 1)
        column = n("Gather", vectors, k, 2)
        head = n("Select", n("Equal", rows, k), n.like(value, 1), n.like(value, 0))
        vector = n.unsqueeze(n("Select", n("Greater", rows, k), column, head), [2])
        products = n("MatMul", vector, value, transpose_a=True, transpose_b=False)
        scale = n.unsqueeze(n("Gather", scales, n.unsqueeze(k, [0]), 1), [2])
        return [n("Subtract", value, n("Multiply", n("Multiply", scale, vector), products))]

    return repeat_steps(n, count, [other], step, [packed, factors, count])[0]


def cholesky(n: Builder, x: Output) -> tuple[Output, Output]:
    """The lower factor of A = L L^T by the lower triangle of A, and the number of the first leading minor
    that is not positive, 0 for none."""

    def step(k: Output, state: list[Output], _: list[Output]) -> list[Output]:
        x, failed = state
        rows, columns = indices(n, x, 1), indices(n, x, 2)
        column, zero = n("Gather", x, k, 2), n.like(x, 0)
        square = n("Gather", column, n.unsqueeze(k, [0]), 1)
        root = n("Sqrt", square)
        below = n("Select", n("Greater", rows, k), n("Divide", column, root), zero)
        matrix = n.unsqueeze(below, [2])
        x = n("Subtract", x, n("Multiply", matrix, n.unsqueeze(below, [1])))
        new_column = n.unsqueeze(n("Select", n("Equal", rows, k), root, below), [2])
        x = n("Select", n("Equal", columns, k), new_column, x)
        bad = n("LogicalNot", n("Greater", n.squeeze(square, [1]), zero))
        first = n("LogicalAnd", bad, n("Equal", failed, n.const(0)))
        return [x, n("Select", first, n("Add", k, n.const(1)), failed)]

    failed = n("Broadcast", n.const(0), n.slice(n.shape_of(x), 0, 0, 1))
    result = repeat_steps(n, steps_of(n, x), [x, failed], step)
    rows, columns = indices(n, x, 1), indices(n, x, 2)
    is_lower = n("GreaterEqual", n.unsqueeze(rows, [1]), columns)
    return n("Select", is_lower, result[0], n.like(x, 0)), result[1]
