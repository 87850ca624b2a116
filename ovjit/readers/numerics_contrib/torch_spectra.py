"""Singular values and eigenvalues of matrices, and what is defined by them. All is computed in f64."""

from __future__ import annotations

from ovjit.readers.numerics.factorization import stack_matrices, unstack
from ovjit.readers.numerics_contrib.jacobi import singular, symmetric
from ovjit.readers.torch.rule_language import *


def _stack_f64(n: Call, x: Output) -> Output:
    """Matrices as f64 [count, rows, columns]."""
    return n.convert(stack_matrices(n, x), "f64")


def _restore(n: Call, like: Output, *parts: tuple[Output, int]) -> list[Output]:
    """Results in the type and the leading dimensions of `like`. Each part comes with the number of its
    dimensions per matrix."""
    return [n.convert(unstack(n, value, like, core_rank), n.dtype(like)) for value, core_rank in parts]


def _transpose(n: Call, x: Output) -> Output:
    return n.transpose(x, [0, 2, 1])


@aten("linalg_svd", "_linalg_svd", "svd")
def svd(n: Call, x: Output, full_matrices: bool = True, some: bool = True) -> list[Output]:
    """The singular value decomposition. svd returns V; linalg_svd its transpose."""
    old = n.op == "aten::svd"
    u, s, v = singular(n, _stack_f64(n, x), not some if old else bool(full_matrices))
    return _restore(n, x, (u, 2), (s, 1), (v if old else _transpose(n, v), 2))


def _decompose_symmetric(n: Call, x: Output, UPLO: str = "L") -> tuple[Output, Output]:
    """Eigenvalues and eigenvectors of symmetric matrices, read from the triangle `UPLO`."""
    x_f64 = _stack_f64(n, x)
    lower = UPLO.upper() == "L"
    part = n.also("tril" if lower else "triu", x_f64)
    other = n.also("tril" if lower else "triu", x_f64, -1 if lower else 1)
    return symmetric(n, n("Add", part, _transpose(n, other)))


@aten("linalg_eigh", "_linalg_eigh")
def eigh(n: Call, x: Output, UPLO: str = "L") -> list[Output]:
    values, vectors = _decompose_symmetric(n, x, UPLO)
    return _restore(n, x, (values, 1), (vectors, 2))


def _scaled_product(n: Call, u: Output, scales: Output, v: Output) -> Output:
    """u diag(scales) v^T"""
    return n("MatMul", n("Multiply", u, n.unsqueeze(scales, [1])), v, transpose_a=False,
             transpose_b=True)  # fmt: skip


@aten("linalg_matrix_sqrth")
def square_root(n: Call, x: Output) -> Output:
    """The square root of symmetric matrices: V diag(sqrt(w)) V^T, with negative w as 0."""
    values, vectors = _decompose_symmetric(n, x)
    values = n("Maximum", values, n.like(values, 0))
    return _restore(n, x, (_scaled_product(n, vectors, n("Sqrt", values), vectors), 2))[0]


@aten("linalg_polar")
def polar(n: Call, x: Output) -> list[Output]:
    """The polar decomposition of U diag(s) V^T: (U V^T, V diag(s) V^T)."""
    u, s, v = singular(n, _stack_f64(n, x), False)
    turning = n("MatMul", u, v, transpose_a=False, transpose_b=True)
    return _restore(n, x, (turning, 2), (_scaled_product(n, v, s, v), 2))


def _sizes(n: Call, x: Output, hermitian: bool) -> tuple[Output, Output, Output]:
    """(left vectors, right vectors, values): singular values, or absolute eigenvalues if `hermitian`."""
    if hermitian:
        values, vectors = _decompose_symmetric(n, x)
        return vectors, vectors, values
    u, s, v = singular(n, _stack_f64(n, x), False)
    return u, v, s


def _limits(n: Call, x: Output, sizes: Output, atol: Any, rtol: Any) -> Output:
    """Return the tolerance below which `sizes` [count, least] count as 0: max(atol, rtol * largest)."""
    precision = float(np.finfo(ELEMENT_TYPES[n.dtype(x)].numpy).eps)
    longer = n.tensor(n.compute("Maximum", n.size(x, -2), n.size(x, -1)), "f64")
    usual = n("Multiply", longer, n.const(precision, "f64"))
    zero = n.const(0, "f64")
    absolute = zero if atol is None else _for_each(n, x, atol)
    if rtol is None:
        relative = usual if atol is None else n("Select", n("Greater", absolute, zero), zero, usual)
    else:
        relative = _for_each(n, x, rtol)
    largest = n("ReduceMax", _with_zero(n, sizes), [1], keep_dims=True)
    return n("Maximum", absolute, n("Multiply", relative, largest))


def _with_zero(n: Call, sizes: Output) -> Output:
    """Append a 0 to each row, so that the maximum of an empty row is 0."""
    return n("Pad", sizes, [0, 0], [0, 1], n.like(sizes, 0), pad_mode="constant")


def _for_each(n: Call, x: Output, limit: Any) -> Output:
    """A limit as an f64 scalar, or as [count, 1] for one per matrix."""
    value = n.tensor(limit, "f64")
    if n.rank(value) == 0:
        return value
    spread = n.expand(value, n.ints(n.sizes(x)[:-2]))
    return n.reshape(spread, [-1, 1])


@aten("linalg_pinv", "pinverse")
def pinv(n: Call, x: Output, rcond: Any = None, hermitian: bool = False, atol: Any = None,
         rtol: Any = None) -> Output:  # fmt: skip
    """V diag(1 / s) U^T, without the s that count as 0."""
    if n.op == "aten::pinverse" and rcond is None:
        rcond = 1e-15
    u, v, values = _sizes(n, x, bool(hermitian))
    size = n("Abs", values)
    counts = n("Greater", size, _limits(n, x, size, atol, rcond if rtol is None else rtol))
    one = n.like(values, 1)
    inverse = n("Select", counts, n("Divide", one, n("Select", counts, values, one)), n.like(values, 0))
    return _restore(n, x, (_scaled_product(n, v, inverse, u), 2))[0]


@aten("linalg_matrix_rank")
def matrix_rank(n: Call, x: Output, tol: Any = None, hermitian: bool = False, atol: Any = None,
                rtol: Any = None) -> Output:  # fmt: skip
    """Count the singular values, or absolute eigenvalues if `hermitian`, above the tolerance."""
    size = n("Abs", _sizes(n, x, bool(hermitian))[2])
    limits = _limits(n, x, size, tol, 0.0) if tol is not None else _limits(n, x, size, atol, rtol)
    counts = n.convert(n("Greater", size, limits), "i64")
    return unstack(n, n("ReduceSum", counts, [1], keep_dims=False), x, 0)


@aten("norm_by_singular_values")
def by_singular_values(n: Call, x: Output, ord: Any) -> Output:
    """The norms "nuc", 2 and -2 of matrices: the sum, the largest and the smallest of the singular values."""
    s = singular(n, _stack_f64(n, x), False)[1]
    if ord == "nuc":
        result = n("ReduceSum", s, [1], keep_dims=False)
    else:
        result = n("ReduceMax", _with_zero(n, s), [1], keep_dims=False)
        result = result if ord > 0 else n("ReduceMin", s, [1], keep_dims=False)
    return _restore(n, x, (result, 0))[0]


@aten("linalg_cond")
def cond(n: Call, x: Output, p: Any = None) -> Output:
    """The norm of a matrix times that of its inverse; by singular values the largest over the smallest."""
    if p in (None, 2, -2):
        s = singular(n, _stack_f64(n, x), False)[1]
        ends = [n(op, s, [1], keep_dims=False) for op in ("ReduceMax", "ReduceMin")]
        return _restore(n, x, (n("Divide", *(ends if p != -2 else ends[::-1])), 0))[0]
    norms = [n.also("linalg_matrix_norm", v, p, [-2, -1], False) for v in (x, n.also("linalg_inv", x))]
    return n("Multiply", *norms)


#: Operators that are one expression.
aten_rows({
    "linalg_svdvals": lambda n, x: _restore(n, x, (singular(n, _stack_f64(n, x), False)[1], 1))[0],
    "linalg_eigvalsh": lambda n, x, UPLO="L": _restore(n, x, (_decompose_symmetric(n, x, UPLO)[0], 1))[0],
})  # fmt: skip
