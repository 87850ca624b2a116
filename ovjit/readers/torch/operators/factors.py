"""Factors of matrices: LU, QR and Cholesky's, and what is solved by them."""

from __future__ import annotations

from typing import Any

from ovjit.build import Output
from ovjit.errors import UnsupportedError
from ovjit.readers.numerics.factorization import (
    Eliminated,
    apply_reflections,
    cholesky,
    eliminate,
    identity,
    indices,
    reflect,
    stack_matrices,
    unstack,
)
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten


def _least(n: Call, x: Output) -> Any:
    """The smaller one of the numbers of rows and columns."""
    return n.compute("Minimum", n.size(x, -2), n.size(x, -1))


def _first(n: Call, value: Output, axis: int, count: Any) -> Output:
    """The first elements along an axis."""
    return n.cut(value, n.axis(axis, n.rank(value)), 0, count)


@aten("linalg_lu_factor", "linalg_lu_factor_ex", "_lu_with_info", "linalg_lu")
def lu(n: Call, x: Output, pivot: bool = True) -> list[Output]:
    if not pivot:
        raise UnsupportedError("LU without pivoting is not supported")
    elimination = eliminate(n, stack_matrices(n, x))
    if n.op == "aten::linalg_lu":
        return _unpack(n, x, elimination)
    rows = _first(n, n("Add", elimination.swaps, n.const(1)), 1, _least(n, x))
    result = [unstack(n, elimination.packed, x, 2), unstack(n, n.convert(rows, "i32"), x, 1)]
    return [*result, unstack(n, n.convert(elimination.failed, "i32"), x, 0)]


def _unpack(n: Call, x: Output, elimination: Eliminated) -> list[Output]:
    """P, L and U"""
    return [
        _permutation(n, x, elimination.order, indices(n, elimination.packed, 1)),
        *_unpack_triangles(n, x, elimination.packed),
    ]


def _permutation(n: Call, like: Output, order: Output, rows: Output) -> Output:
    """The permutation matrix P: 1 where `rows` (0, 1 ...) equals the pivoted row `order`."""
    moved = n("Equal", n.unsqueeze(rows, [1]), n.unsqueeze(order, [1]))
    return unstack(n, n.convert(moved, n.dtype(like)), like, 2)


def _unpack_triangles(n: Call, like: Output, packed: Output) -> list[Output]:
    """L (with its unit diagonal) and U of an LU decomposition that stores both in one matrix."""
    least = _least(n, like)
    lower = n.also("tril", _first(n, packed, 2, least), -1)
    unit = identity(n, indices(n, lower, 1), indices(n, lower, 2), n.dtype(like))
    upper = n.also("triu", _first(n, packed, 1, least))
    return [unstack(n, v, like, 2) for v in (n("Add", lower, unit), upper)]


@aten("linalg_qr", "qr")
def qr(n: Call, x: Output, mode: str = "reduced", some: bool = True) -> list[Output]:
    mode = "complete" if not some else mode
    a = stack_matrices(n, x)
    packed, factors = reflect(n, a)
    count = n.size(a, 1) if mode == "complete" else _least(n, a)
    upper = unstack(n, n.also("triu", _first(n, packed, 1, count)), x, 2)
    if mode == "r":
        return [n.const([], n.dtype(x)), upper]
    steps = n.index(_least(n, a))
    return [unstack(n, _product(n, packed, factors, count, steps), x, 2), upper]


def _product(n: Call, packed: Output, factors: Output, columns: Any, steps: Output) -> Output:
    """The first columns of Q."""
    rows = indices(n, packed, 1)
    one = identity(n, rows, n.arange(columns), n.dtype(packed))
    target_shape = n("Concat", n.dim_of(packed, 0), n("ShapeOf", one, output_type="i64"), axis=0)
    return apply_reflections(n, packed, factors, n("Broadcast", one, target_shape), steps)


@aten("cholesky", "linalg_cholesky", "linalg_cholesky_ex")
def by_cholesky(n: Call, x: Output, upper: bool = False) -> Any:
    """L of A = L L^T, or its transpose, which is computed of the upper triangle."""
    a = stack_matrices(n, x)
    lower, failed = cholesky(n, n.transpose(a, [0, 2, 1]) if upper else a)
    result = unstack(n, n.transpose(lower, [0, 2, 1]) if upper else lower, x, 2)
    return [result, unstack(n, n.convert(failed, "i32"), x, 0)] if n.op.endswith("_ex") else result


@aten("linalg_lstsq")
def lstsq(n: Call, x: Output, b: Output, rcond: Any = None) -> list[Any]:
    """The X of least |A X - B| for an A of full rank, the smallest one where several are.

    A = Q R gives X = R^-1 Q^T B. A^T = Q R, for fewer rows than columns, gives X = Q (R^T)^-1 B. Of open
    sizes the rows are taken to be no fewer: R has no inverse otherwise.
    """
    if any(n.is_used(i) for i in (1, 2, 3)):
        raise UnsupportedError("residuals, ranks and singular values of linalg.lstsq are not supported")
    vector = n.rank(b) == 1 or n.rank(b) < n.rank(x)
    right = n.unsqueeze(b, [n.rank(b)]) if vector else b
    rows, columns = n.size(x, -2), n.size(x, -1)
    is_wide = isinstance(rows, int) and isinstance(columns, int) and rows < columns
    q, r = n.also("linalg_qr", n.swap_rows_and_columns(x) if is_wide else x)
    inverse = n("Inverse", r, adjoint=False)
    if not is_wide:
        result = n("MatMul", inverse, n("MatMul", q, right, transpose_a=True, transpose_b=False))
    else:
        result = n("MatMul", q, n("MatMul", inverse, right, transpose_a=True, transpose_b=False))
    return [n.squeeze(result, [n.rank(x) - 1]) if vector else result, None, None, None]
