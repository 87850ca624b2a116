"""Matrix products and convolutions."""

from __future__ import annotations

from ovjit.readers.jax.elementwise import convert
from ovjit.readers.jax.rule_language import *
from ovjit.readers.jax.shapes import dilate
from ovjit.readers.numerics import factorization
from ovjit.readers.numerics.convolutions import apply_filters
from ovjit.readers.numerics.matrices import inverse_of_triangle, lower_factor


@primitive("dot_general")
def dot_general(n: JaxNode) -> Any:
    """Sums of products over pairs of dimensions: [batch..., left..., right...]."""
    (left_sum, right_sum), (left_batch, right_batch) = n.params["dimension_numbers"]
    a, b = _order_axes(n, n[0], left_batch, left_sum), _order_axes(n, n[1], right_batch, right_sum)
    result = n("MatMul", *_convert(n, a, b), transpose_a=False, transpose_b=True)
    return convert(n, n.reshape_to(result, n.out_dims()), n.out().dtype)


def _convert(n: JaxNode, a: Output, b: Output) -> list[Output]:
    """Convert operands to the type in which their products are summed: the result's, unless real operands
    have more bits or the result is an integer."""
    dtype = n.params.get("preferred_element_type")
    kind = n.out().dtype if dtype is None else element_type(dtype)
    for operand_kind in (n.dtype(v) for v in (a, b) if n.is_real(v)):
        if not ELEMENT_TYPES[kind].is_real or ELEMENT_TYPES[operand_kind].bits > ELEMENT_TYPES[kind].bits:
            kind = operand_kind
    return [n.convert(v, kind) for v in (a, b)]


@primitive("ragged_dot_general")
def ragged_dot_general(n: JaxNode) -> Any:
    """Multiply each row by the matrix of its group; the last operand has the sizes of the groups. All
    products are computed, and each row selects one. Rows after the last group are 0."""
    numbers = n.params["ragged_dot_dimension_numbers"]
    lhs_axes, rhs_axes = numbers.dot_dimension_numbers[0]
    form = (
        tuple(lhs_axes),
        tuple(rhs_axes),
        *map(tuple, numbers.dot_dimension_numbers[1]),
        tuple(numbers.lhs_ragged_dimensions),
    )
    if form != ((1,), (1,), (), (), (0,)) or tuple(numbers.rhs_group_dimensions) != (0,) or n.rank(n[2]) != 1:
        raise UnsupportedError("only rows [m, k] by matrices [groups, k, n] are supported")
    a, b = _convert(n, n[0], n[1])
    each = n("MatMul", a, b, transpose_a=False, transpose_b=False)
    ends = n("CumSum", n.convert(n[2], "i64"), n.const(0), exclusive=False, reverse=False)
    begins = n("Subtract", ends, n.convert(n[2], "i64"))
    row = n.const(np.arange(n.dims(a)[0])[:, None])
    ends, begins = (n.reshape(v, [-1, 1, 1]) for v in (ends, begins))
    is_in_group = n("LogicalAnd", n("GreaterEqual", row, begins), n("Less", row, ends))
    total = n("ReduceSum", n("Select", is_in_group, each, n.like(each, 0)), [0], keep_dims=False)
    return convert(n, total, n.out().dtype)


def _order_axes(n: JaxNode, x: Output, batch: Any, summed: Any) -> Output:
    """A tensor as [batch, free, summed]; [free, summed] where there is no batch."""
    shape = n.dims(x)
    batch, summed = [int(d) for d in batch], [int(d) for d in summed]
    free = [d for d in range(len(shape)) if d not in batch and d not in summed]
    x = n.transpose(x, [*batch, *free, *summed])
    sizes = [math.prod(shape[d] for d in group) for group in (batch, free, summed)]
    return n.reshape_to(x, sizes if batch else sizes[1:])


@primitive("conv_general_dilated")
def conv_general_dilated(n: JaxNode) -> Any:
    numbers = n.params["dimension_numbers"]
    x, w = _convert(n, n.transpose(n[0], list(numbers.lhs_spec)), n.transpose(n[1], list(numbers.rhs_spec)))
    groups, batches = int(n.params["feature_group_count"]), int(n.params["batch_group_count"])
    if batches != 1:  # each group of batches goes with filters of its own, as a group of channels does
        count, channels, *rest_of = n.dims(x)
        x = n.reshape(x, [batches, count // batches, channels, *rest_of])
        x = n.transpose(x, [1, 0, *range(2, len(rest_of) + 3)])
        x, groups = n.reshape(x, [count // batches, batches * channels, *rest_of]), batches
    flat = not n.params["window_strides"]  # no dimensions but batches and channels
    if flat:
        x, w = (n.unsqueeze(v, [2]) for v in (x, w))
    shape = [n.dims(n[0])[d] for d in numbers.lhs_spec]
    for axis, step in enumerate(n.params["lhs_dilation"]):
        if step > 1:
            operand_shape = shape if batches == 1 else None
            x = dilate(n, x, 2 + axis, int(step) - 1, n.like(x, 0), operand_shape)
            shape[2 + axis] = shape[2 + axis] * int(step) - int(step) + 1
    pads = [(int(a), int(b)) for a, b in n.params["padding"]] or [(0, 0)]
    if any(min(row) < 0 for row in pads):
        cut = [(0, 0), (0, 0), *((min(a, 0), min(b, 0)) for a, b in pads)]
        x = n("Pad", x, [a for a, _ in cut], [b for _, b in cut], n.like(x, 0), pad_mode="constant")
        pads = [(max(a, 0), max(b, 0)) for a, b in pads]
    options: dict[str, Any] = {
        "strides": [int(s) for s in n.params["window_strides"]] or [1],
        "dilations": [int(d) for d in n.params["rhs_dilation"]] or [1], "pads_begin": [a for a, _ in pads],
        "pads_end": [b for _, b in pads], "auto_pad": "explicit",
    }  # fmt: skip
    result = apply_filters(n, x, w, groups, **options)
    result = n.squeeze(result, [2]) if flat else result
    back = list(numbers.out_spec)
    result = n.transpose(result, [back.index(i) for i in range(len(back))])
    return convert(n, result, n.out().dtype)


@primitive("triangular_solve")
def triangular_solve(n: JaxNode) -> Any:
    """Solve A X = B or X A = B for X, by one triangle of A."""
    p, a = n.params, n[0]
    if p["conjugate_a"] and not n.is_real(a):
        raise UnsupportedError("complex numbers are not supported")
    inverse = inverse_of_triangle(n, a, p["lower"], p["unit_diagonal"], p["transpose_a"])
    return n("MatMul", inverse, n[1]) if p["left_side"] else n("MatMul", n[1], inverse)


@primitive("cholesky")
def cholesky(n: JaxNode) -> Any:
    return lower_factor(n, n[0])


@primitive("lu")
def lu(n: JaxNode) -> Any:
    """LU decomposition: (both factors in one matrix, the row that each row was exchanged with, the
    permutation)."""
    elimination = factorization.eliminate(n, factorization.stack_matrices(n, n[0]))
    steps = n.slice(elimination.swaps, 1, 0, min(n.dims(n[0])[-2:]))
    result = [(elimination.packed, 2), (n.convert(steps, "i32"), 1), (n.convert(elimination.order, "i32"), 1)]
    return [factorization.unstack(n, value, n[0], core_rank) for value, core_rank in result]


@primitive("qr")
def qr(n: JaxNode) -> Any:
    if n.params.get("pivoting"):
        raise UnsupportedError("pivots are not supported")
    rows, columns = n.dims(n[0])[-2:]
    least = min(rows, columns)
    row_count = rows if n.params["full_matrices"] else least
    packed, factors = factorization.reflect(n, factorization.stack_matrices(n, n[0]))
    above = n.const(np.arange(rows)[:, None] <= np.arange(columns))
    upper = n.slice(n("Select", above, packed, n.like(packed, 0)), 1, 0, row_count)
    one = n.spread(n.like(packed, np.eye(rows, row_count)), [n.dims(packed)[0], rows, row_count])
    q = factorization.apply_reflections(n, packed, factors, one, n.const(least))
    return [factorization.unstack(n, value, n[0], 2) for value in (q, upper)]
