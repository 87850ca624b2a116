"""Linear algebra: products, solutions, and the factors of LU, QR and Cholesky."""

from __future__ import annotations

from ovjit.readers.numerics import matrices
from ovjit.readers.numerics.factorization import *
from ovjit.readers.torch.operators.elementwise import by_squaring
from ovjit.readers.torch.rule_language import *


def _info(n: Call, x: Output, index: int) -> Output | None:
    """Output `index`, LAPACK's `info`: the first step of elimination, from 1 on, without a pivot; else 0."""
    if not n.is_used(index):
        return None
    return unstack(n, n.convert(eliminate(n, stack_matrices(n, x)).failed, "i32"), x, 0)


@aten("det", "linalg_det", "_linalg_det")
def det(n: Call, x: Output) -> Any:
    result = determinant(n, x)
    return [result, None, None] if n.op == "aten::_linalg_det" else result


@aten("linalg_solve", "linalg_solve_ex", "_linalg_solve_ex")
def solve(n: Call, x: Output, B: Output, left: bool = True) -> Any:
    """A^-1 B; a vector of right-hand sides is a column."""
    vector = n.rank(B) == 1 or (n.rank(B) == n.rank(x) - 1 and n.shape(B) == (n.shape(x) or ())[:-1])
    result = n("Inverse", x, adjoint=False)
    b = n.unsqueeze(B, [n.rank(B)]) if vector else B
    out = n("MatMul", result, b) if left else n("MatMul", b, result)
    out = n.squeeze(out, [-1]) if vector else out
    if n.op == "aten::linalg_solve":
        return out
    if n.op == "aten::linalg_solve_ex":
        return [out, _info(n, x, 1)]
    return [out, None, None, _info(n, x, 3)]


@aten("linalg_cross", "cross")
def cross(n: Call, x: Output, other: Output, dim: Any = -1) -> Output:
    """The cross product along a dimension."""
    a, b = n.same_kind([x, other])
    if dim is None:
        shape = n.shape(a) or ()
        dim = next((i for i, d in enumerate(shape) if d == 3), None)
        if dim is None:
            raise UnsupportedError("no dimension is known to be 3, and no axis of the cross product is given")
    axis = n.axis(dim, max(n.rank(a), n.rank(b)))
    return matrices.cross(n, a, b, axis)


@aten("linalg_matrix_norm")
def matrix_norm(n: Call, x: Output, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False) -> Output:
    rank = n.rank(x)
    rows, columns = n.axes(dim, rank)
    if ord == "fro":
        squares = n("ReduceSum", n("Multiply", x, x), [rows, columns], keep_dims=bool(keepdim))
        return n("Sqrt", squares)
    if ord in ("nuc", 2, -2):
        order = [*(i for i in range(rank) if i not in (rows, columns)), rows, columns]
        out = n.also("norm_by_singular_values", n.transpose(x, order), ord)
        return n.unsqueeze(out, sorted([rows, columns])) if keepdim else out
    if ord not in (1, -1, np.inf, -np.inf):
        raise UnsupportedError(f"the matrix norm {ord!r} is not supported")
    summed_axis, remaining_axis = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = n("ReduceSum", n("Abs", x), [summed_axis], keep_dims=True)
    out = n("ReduceMax" if ord > 0 else "ReduceMin", sums, [remaining_axis], keep_dims=True)
    if n.may_be_empty(x, [remaining_axis]):  # of no sums, the largest is 0
        out = n("Maximum", out, n.like(out, 0))
    return out if keepdim else n.squeeze(out, [rows, columns])


@aten("kron")
def kron(n: Call, x: Output, other: Output) -> Output:
    a, b = n.same_kind([x, other])
    rank = max(n.rank(a), n.rank(b))
    a, b = (n.unsqueeze(v, list(range(rank - n.rank(v)))) for v in (a, b))
    columns, rows = ([2 * i + k for i in range(rank)] for k in (1, 0))
    products = n.also("mul", n.unsqueeze(a, columns), n.unsqueeze(b, rows))
    dims = [n.compute("Multiply", n.size(a, i), n.size(b, i)) for i in range(rank)]
    return n.to_shape(products, dims)


@aten("chain_matmul", "linalg_multi_dot")
def chain(n: Call, x: Any) -> Output:
    out = x[0]
    for value in x[1:]:
        out = n("MatMul", out, value)
    return out


@aten("tensordot")
def tensordot(n: Call, x: Any, other: Any, dims_self: Any, dims_other: Any) -> Any:
    """The sum of products over pairs of axes: a matrix product, with the free and the contracted axes of each
    operand merged into one axis each."""
    parts = []
    for value, dims, contracted_first in ((x, dims_self, False), (other, dims_other, True)):
        elements, rank, wrap = n.unwrap(value)
        axes = n.axes(list(dims), rank)
        free_axes = [a for a in range(rank) if a not in axes]
        sizes = [[n.size(elements, a) for a in part] for part in (free_axes, axes)]
        matrix = [n.product(part) for part in (sizes[::-1] if contracted_first else sizes)]
        order = [*axes, *free_axes] if contracted_first else [*free_axes, *axes]
        part_axes = range(rank, n.rank(elements))  # that of the two parts of complex numbers
        matrix_value = n.to_shape(
            n.transpose(elements, [*order, *part_axes]), [*matrix, *(n.size(elements, a) for a in part_axes)]
        )
        parts.append((wrap(matrix_value), sizes[0]))
    (left_matrix, rows), (right_matrix, columns) = parts
    elements, rank, wrap = n.unwrap(n.also("matmul", left_matrix, right_matrix))
    part_axes = range(rank, n.rank(elements))
    return wrap(n.to_shape(elements, [*rows, *columns, *(n.size(elements, a) for a in part_axes)]))


@aten("cov", "corrcoef")
def cov(n: Call, x: Output, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Output:
    """(x - mean) w (x - mean)^T / (count - correction), rows are variables; corrcoef divides by roots."""
    alone = n.rank(x) < 2
    rows = n.real(n.reshape(x, [1, -1]) if alone else x)
    kind = n.common([rows, *(v for v in (fweights, aweights) if v is not None)])
    weight_factors = [n.to_type(v, kind) for v in (fweights, aweights) if v is not None]
    rows = n.to_type(rows, kind)
    count = n.to_type(n.tensor(n.size(rows, 1)), kind)
    divisor = n("Subtract", count, n.like(rows, correction))
    if weight_factors:
        weights = weight_factors[0] if len(weight_factors) == 1 else n("Multiply", *weight_factors)
        total = n("ReduceSum", weights, [0], keep_dims=False)
        mean = n("Divide", n("ReduceSum", n("Multiply", rows, weights), [1], keep_dims=True), total)
        lost_freedom = n.like(rows, correction)
        if aweights is not None:  # correction * sum(w a) / sum(w)
            pairs = n("ReduceSum", n("Multiply", weights, weight_factors[-1]), [0], keep_dims=False)
            lost_freedom = n("Divide", n("Multiply", lost_freedom, pairs), total)
        divisor = n("Subtract", total, lost_freedom)
    else:
        mean = n("ReduceMean", rows, [1], keep_dims=True)
    middle = n("Subtract", rows, mean)
    weighted = n("Multiply", middle, weights) if weight_factors else middle
    result = n("MatMul", weighted, middle, transpose_a=False, transpose_b=True)
    if n.op == "aten::corrcoef":  # the divisor cancels
        root = n("Sqrt", n("ReduceSum", n("Multiply", middle, middle), [1], keep_dims=True))
        result = n("Divide", n("Divide", result, root), n.transpose(root, [1, 0]))
        result = n("Minimum", n("Maximum", result, n.like(result, -1)), n.like(result, 1))
    else:
        result = n("Divide", result, n("Maximum", divisor, n.like(divisor, 0)))
    return n.scalar(result) if alone or n.uses.rank == 0 else result


@aten("logdet", "linalg_slogdet", "slogdet", "_linalg_slogdet")
def logdet(n: Call, x: Output) -> Any:
    """log(det), or its sign and log|det|"""
    det = determinant(n, x)
    if n.op == "aten::logdet":
        return n("Log", det)
    result = [n("Sign", det), n("Log", n("Abs", det))]
    return [*result, None, None] if n.op == "aten::_linalg_slogdet" else result


#: exp(A) = p(A / 2^HALVINGS)^(2^HALVINGS), where p is the power series with TERMS terms.
HALVINGS, TERMS = 10, 10


def _identity(n: Call, x: Output) -> Output:
    """The identity matrix for the columns of a matrix, in its type."""
    indices = n.arange(n.size(x, -1))
    same = n("Equal", n.unsqueeze(indices, [0]), n.unsqueeze(indices, [1]))
    return n.convert(same, n.dtype(x))


@aten("matrix_exp", "linalg_matrix_exp")
def matrix_exp(n: Call, x: Output) -> Output:
    """Compute exp(x) by scaling and squaring in f64. The error is below 1e-7 for norms up to 2^10."""
    x_f64 = n.convert(x, "f64")
    scaled_x = n("Multiply", x_f64, n.like(x_f64, 0.5**HALVINGS))
    one = _identity(n, x_f64)
    # p - 1, and (1 + r)^2 - 1 = 2 r + r r: what is small stays exact
    series = scaled_x
    for k in range(TERMS, 1, -1):
        series = n("MatMul", scaled_x, n("Add", one, n("Multiply", series, n.like(series, 1 / k))))
    for _ in range(HALVINGS):
        series = n("Add", n("Add", series, series), n("MatMul", series, series))
    return n.convert(n("Add", series, one), n.dtype(x))


@aten("linalg_matrix_power", "matrix_power")
def matrix_power(call: Call, x: Output, **power: Any) -> Output:
    """Compute the power `n` of a matrix by repeated squaring."""
    exponent = call.known_int(power["n"], "the power of a matrix")
    if exponent == 0:
        return call.expand(_identity(call, x), call.shape_of(x))
    base = call("Inverse", x, adjoint=False) if exponent < 0 else x
    return by_squaring(abs(exponent), base, lambda p, q: call("MatMul", p, q))


@aten("linalg_solve_triangular", "triangular_solve")
def solve_triangular(
    n: Call, x: Output, B: Any = None, upper: bool = True, left: bool = True, unitriangular: bool = False,
    A: Any = None, transpose: bool = False,
) -> Any:  # fmt: skip
    """A^-1 B, or B A^-1 unless `left`, from one triangle of A, whose diagonal is ones if `unitriangular`."""
    old = n.op == "aten::triangular_solve"
    a, b = (A, x) if old else (x, B)

    def invert() -> Output:
        part = n.also("triu" if upper else "tril", a, int(unitriangular) * (1 if upper else -1))
        if unitriangular:
            part = n("Add", part, _identity(n, a))
        return n("Inverse", part, adjoint=False)

    # delta rules solve for two right-hand sides
    inverse = n.reader.once(("triangle", upper, unitriangular), a, invert)
    if old:
        return [n("MatMul", inverse, b, transpose_a=transpose, transpose_b=False), a]
    return n("MatMul", inverse, b) if left else n("MatMul", b, inverse)


@aten("cholesky_inverse", "cholesky_solve")
def by_cholesky(n: Call, x: Output, input2: Any = None, upper: bool = False) -> Output:
    """(L L^T)^-1, or its product with right-hand sides, from one triangle of L."""
    factor = n.also("triu" if upper else "tril", x if input2 is None else input2)
    inverse = n("Inverse", factor, adjoint=False)
    result = n("MatMul", inverse, inverse, transpose_a=not upper, transpose_b=upper)
    return result if input2 is None else n("MatMul", result, x)


@aten("transformers::grouped_mm_fallback")
def grouped_product(n: Call, x: Output, weight: Output, offs: Output) -> Output:
    """Rows x[offs[i - 1]:offs[i]] times weight[i], one after another: the experts of transformers."""
    ends = n.convert(offs, "i64")
    experts = n.known_int(n.size(weight, 0), "the number of experts")
    row_bounds = n("Concat", n.const([0]), ends, axis=0)
    parts = []
    for i in range(experts):
        first, last = (n("Gather", row_bounds, [j], 0) for j in (i, i + 1))
        rows = n("Slice", x, first, last, n.const([1]), n.const([0]))
        parts.append(n("MatMul", rows, n("Gather", weight, i, 0)))
    return n("Concat", *parts, axis=0)


#: Operators that are one expression.
aten_rows({
    "linalg_inv_ex": lambda n, x: [n("Inverse", x, adjoint=False), _info(n, x, 1)],
    # the sum of conj(x) y along an axis
    "linalg_vecdot": lambda n, x, y, dim=-1: n.also("sum", n.also("mul", n.also("conj", x), y), [dim]),
    "trace": lambda n, x: n.also("sum", n.also("diagonal", x)),
    "inverse linalg_inv": lambda n, x: n("Inverse", x, adjoint=False),
})  # fmt: skip


def _least(n: Call, x: Output) -> Any:
    """min(rows, columns)."""
    return n.compute("Minimum", n.size(x, -2), n.size(x, -1))


def _first(n: Call, value: Output, axis: int, count: Any) -> Output:
    """The first `count` elements along an axis."""
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
    """The first `columns` columns of Q, from Householder reflections."""
    rows = indices(n, packed, 1)
    one = identity(n, rows, n.arange(columns), n.dtype(packed))
    target_shape = n("Concat", n.dim_of(packed, 0), n("ShapeOf", one, output_type="i64"), axis=0)
    return apply_reflections(n, packed, factors, n("Broadcast", one, target_shape), steps)


@aten("cholesky", "linalg_cholesky", "linalg_cholesky_ex")
def cholesky_factor(n: Call, x: Output, upper: bool = False) -> Any:
    """The Cholesky factor L of A = L L^T; with `upper` its transpose, from the upper triangle."""
    a = stack_matrices(n, x)
    lower, failed = cholesky(n, n.transpose(a, [0, 2, 1]) if upper else a)
    result = unstack(n, n.transpose(lower, [0, 2, 1]) if upper else lower, x, 2)
    return [result, unstack(n, n.convert(failed, "i32"), x, 0)] if n.op.endswith("_ex") else result


@aten("linalg_lstsq")
def lstsq(n: Call, x: Output, b: Output, rcond: Any = None) -> list[Any]:
    """Least squares: the X that minimises |A X - B| for A of full rank, of smallest norm if it is not unique.

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
