"""Primitives that move elements, reduce, and sort."""

from __future__ import annotations

from ovjit.readers.jax import elementwise
from ovjit.readers.jax.reader import equations
from ovjit.readers.jax.registry import find_rule
from ovjit.readers.jax.rule_language import *
from ovjit.readers.numerics.bits import reinterpret_bits
from ovjit.readers.numerics.cumulative import running
from ovjit.readers.numerics.slices import replace_at
from ovjit.readers.numerics.special import log_add

REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd", "reduce_and": "ReduceLogicalAnd", "reduce_or": "ReduceLogicalOr",
}  # fmt: skip


@primitive("broadcast_in_dim")
def broadcast_in_dim(n: JaxNode) -> Any:
    """Broadcast: `broadcast_dimensions` has the position of each of the operand's dimensions in the
    result."""
    if len(n) > 1:
        raise UnsupportedError("a broadcast to symbolic dimensions is not supported")
    shape, axes = n.out_dims(), list(n.params["broadcast_dimensions"])
    dims = n.dims(n[0])
    between = [1] * len(shape)
    for axis, d in zip(axes, dims, strict=True):
        between[axis] = d
    return n.spread(n.reshape_to(n[0], between), shape)


@primitive("reshape", "squeeze", "expand_dims")
def reshape(n: JaxNode) -> Any:
    order = n.params.get("dimensions") if n.op_type == "reshape" else None
    x = n[0] if order is None else n.transpose(n[0], [int(d) for d in order])
    return n.reshape_to(x, n.out_dims())


@primitive("rev")
def rev(n: JaxNode) -> Any:
    x = n[0]
    for axis in n.params["dimensions"]:
        x = n.backwards(x, int(axis))
    return x


@primitive("stack")
def stack(n: JaxNode) -> Any:
    axis = int(n.params["axis"])
    return n.concat([n.unsqueeze(value, [axis]) for value in n.inputs], axis)


@primitive("unstack")
def unstack(n: JaxNode) -> list[Output]:
    axis = int(n.params["axis"])
    parts = n.all("Split", n[0], n.const(axis), num_splits=len(n.eqn.outvars))
    return [n.squeeze(part, [axis]) for part in parts]


@primitive("slice")
def slice_(n: JaxNode) -> Any:
    """Slice the axes that are not whole."""
    rank = n.rank(n[0])
    steps = n.params["strides"] or (1,) * rank
    starts, limits = plain_dims(n.params["start_indices"]), plain_dims(n.params["limit_indices"])
    rows = list(zip(range(rank), starts, limits, steps, strict=True))
    shape = n.dims(n[0])
    cut = [row for row in rows if (row[1], row[2], row[3]) != (0, shape[row[0]], 1)]
    if not cut:
        return n[0]
    axes, begin, end, step = (list(column) for column in zip(*cut, strict=True))
    return n("Slice", n[0], n.lengths(begin), n.lengths(end), [int(s) for s in step], axes)


@primitive("pad")
def pad(n: JaxNode) -> Any:
    """Pad by `padding_config`: (before, after, between elements) of each axis. Negative numbers crop."""
    x, fill = n[0], n[1]
    rows, shape = [tuple(plain_dims(row)) for row in n.params["padding_config"]], list(n.dims(n[0]))
    for axis, (_, _, between) in enumerate(rows):
        if between:
            x = dilate(n, x, axis, int(between), fill, shape)
            shape[axis] = _dilated_length(shape[axis], between)
    low, high = [row[0] for row in rows], [row[1] for row in rows]
    if all(is_number(d) and not d for d in (*low, *high)):
        return x
    return n("Pad", x, n.lengths(low), n.lengths(high), fill, pad_mode="constant")


def _dilated_length(length: Any, between: int) -> Any:
    """The length of an axis after `between` elements are inserted between its elements."""
    return length if is_number(length) and length < 2 else length * (between + 1) - between


def dilate(
    n: JaxNode, x: Output, axis: int, between: int, fill: Output, operand_shape: Sequence[Any] | None = None
) -> Output:
    """Inserts `between` elements of `fill` between those of an axis. `operand_shape` is needed for a tensor
    that is not an operand."""
    shape = list(n.dims(x) if operand_shape is None else operand_shape)
    if not between or shape[axis] < 2:
        return x
    rank = len(shape)
    spaced = n.reshape_to(x, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    pad_end = [0] * (rank + 1)
    pad_end[axis + 1] = between
    filled = n("Pad", spaced, [0] * (rank + 1), pad_end, fill, pad_mode="constant")
    merged = n.reshape_to(filled, [*shape[:axis], shape[axis] * (between + 1), *shape[axis + 1 :]])
    return n.slice(merged, axis, 0, -between)


@primitive(*REDUCTIONS)
def reduction(n: JaxNode) -> Any:
    axes = [int(a) for a in n.params["axes"]]
    if not axes:
        return n[0]
    if n.op_type in ("reduce_and", "reduce_or") and not n.is_bool(n[0]):
        return _fold_bits(n, axes, "BitwiseAnd" if n.op_type == "reduce_and" else "BitwiseOr")
    if n.is_bool(n[0]) and n.op_type in ("reduce_max", "reduce_min"):
        op = "ReduceLogicalOr" if n.op_type == "reduce_max" else "ReduceLogicalAnd"
        return n(op, n[0], axes, keep_dims=False)
    return n(REDUCTIONS[n.op_type], n[0], axes, keep_dims=False)


@primitive("argmax", "argmin")
def arg_extreme(n: JaxNode) -> Any:
    (axis,) = (int(a) for a in n.params["axes"])
    kind = element_type(n.params["index_dtype"])
    search_dtype = kind if kind in ("i32", "i64") else "i64"
    x, mode = n[0], n.op_type[3:]
    if n.is_bool(x):
        x = n.convert(x, "u8")
    return n.convert(n.squeeze(n.extreme_index(x, axis, mode, search_dtype), [axis]), kind)


@primitive("top_k")
def top_k(n: JaxNode) -> Any:
    """The largest elements, in the total order of real numbers: -0 is below 0, a negative NaN below all."""
    x, count, index = n[0], int(n.params["k"]), n.out(1).dtype
    axis = int(n.params.get("axis", n.rank(x) - 1))
    if not n.is_real(x):
        return n.top_k(x, count, axis, index=index)
    indices = n.top_k(_order_of_real(n, x), count, axis, index=index)[1]
    return [n("GatherElements", x, indices, axis=axis), indices]


def _order_of_real(n: JaxNode, x: Output) -> Output:
    """The bits of real numbers as integers in their total order: those of negative ones are flipped, but for
    the sign."""
    kind = ELEMENT_TYPES[n.dtype(x)]
    bits = reinterpret_bits(n, x, f"i{kind.bits}")
    bits = n.convert(bits, "i32") if kind.bits < 32 else bits
    flipped = n("BitwiseXor", bits, n.like(bits, (1 << (kind.bits - 1)) - 1))
    return n("Select", n("Less", bits, n.like(bits, 0)), flipped, bits)


@primitive("approx_top_k")
def approx_top_k(n: JaxNode) -> Any:
    """An exact top_k: JAX computes no approximation on a CPU either."""
    axis = n.axis(int(n.params["reduction_dimension"]), n.rank(n[0]))
    mode = "max" if n.params["is_max_k"] else "min"
    return n.top_k(n[0], int(n.params["k"]), axis, mode, n.out(1).dtype)


@primitive("sort")
def sort(n: JaxNode) -> Any:
    """Sorts all operands by the first `num_keys` of them: a stable sort by each key, the last key first."""
    axis, values = int(n.params["dimension"]), list(n.inputs)
    for key in reversed(range(int(n.params["num_keys"]))):
        result, order = _sorted(n, values[key], axis, n.dims(n[key])[axis])
        values = [
            result if i == key else n("GatherElements", x, order, axis=axis) for i, x in enumerate(values)
        ]
    return values


def _sorted(n: JaxNode, x: Output, axis: int, length: Any) -> list[Output]:
    """[sorted elements, their indices in x]."""
    count = length if is_number(length) else n.length(length)
    operand = n.convert(x, "u8") if n.is_bool(x) else x
    result, order = n.top_k(operand, count, axis, "min")
    return [n.convert(result, n.dtype(x)), order]


#: Reductions of all elements up to each one: how two are joined.
RUNNING = {"cumprod": "Multiply", "cummax": "Maximum", "cummin": "Minimum"}


@primitive(*RUNNING, "cumlogsumexp")
def running_reduction(n: JaxNode) -> Any:
    axis, back = int(n.params["axis"]), bool(n.params["reverse"])
    if n.op_type == "cumlogsumexp":
        return n.convert(running(n, n.upcast(n[0]), axis, partial(log_add, n), back), n.dtype(n[0]))
    return running(n, n[0], axis, partial(n, RUNNING[n.op_type]), back)


@primitive("reduce_xor")
def reduce_xor(n: JaxNode) -> Any:
    return _fold_bits(
        n, [int(a) for a in n.params["axes"]], "LogicalXor" if n.is_bool(n[0]) else "BitwiseXor"
    )


def _fold_bits(n: JaxNode, axes: Sequence[int], op: str) -> Output:
    """Reduce along axes by an operation on bits. Over no elements all bits are 1 for BitwiseAnd, else 0."""
    none = n.like(n[0], 0)
    starts = [n("BitwiseNot", none) if op == "BitwiseAnd" else none]
    return fold_axes(n, [n[0]], axes, lambda a, b: [n(op, a[0], b[0])], starts)[0]


@primitive("reduce")
def reduce_by_function(n: JaxNode) -> Any:
    """Reduce by an associative function of two values: pairs are combined until one value remains. Operands:
    tensors, then initial values."""
    count, body, axes = len(n) // 2, n.body(), [int(a) for a in n.params["dimensions"]]

    def join(a: Sequence[Output], b: Sequence[Output]) -> list[Output]:
        return by_elements(n, body, [*a, *b])

    result = fold_axes(n, n.inputs[:count], axes, join, n.inputs[count:])
    if 0 in n.dims(n[0]):
        return result
    return join([n.spread(v, n.dims(x)) for v, x in zip(n.inputs[count:], result, strict=True)], result)


def fold_axes(
    n: JaxNode, values: Sequence[Output], axes: Sequence[int], join: Callable[[Any, Any], list[Output]],
    starts: Sequence[Output],
) -> list[Output]:  # fmt: skip
    """Reduce tensors along axes by `join`, which combines two values. Results over no elements: `starts`."""
    result, dims = list(values), n.dims(values[0])
    if 0 in dims:
        return [n.spread(v, [d for axis, d in enumerate(dims) if axis not in axes]) for v in starts]
    for axis in sorted(axes, reverse=True):
        length = n.dims(result[0])[axis]
        while length > 1:
            half = length // 2
            parts = [[n.slice(v, axis, i * half, (i + 1) * half) for v in result] for i in range(2)]
            joined = join(*parts)
            if length % 2:
                joined = [
                    n.concat([v, n.slice(x, axis, length - 1)], axis)
                    for v, x in zip(joined, result, strict=True)
                ]
            result, length = joined, half + length % 2
        result = [n.squeeze(v, [axis]) for v in result]
    return result


def by_elements(n: JaxNode, body: Any, values: Sequence[Output]) -> list[Output]:
    """Apply a jaxpr on scalars to each element of tensors. UnsupportedError if it is not elementwise."""
    for eqn in equations(body.jaxpr):
        rule = find_rule(eqn.primitive.name)
        if getattr(rule, "__module__", "") != elementwise.__name__ or rule is elementwise.bitcast:
            raise UnsupportedError(f"a function of elements with {eqn.primitive.name} is not supported")
    shape = next((n.dims(v) for v in values), ())
    return [n.spread(v, shape) for v in n.run(body, values)]


@primitive("cumsum")
def cumsum(n: JaxNode) -> Any:
    axis = n.const(int(n.params["axis"]))
    return n("CumSum", n[0], axis, exclusive=False, reverse=bool(n.params["reverse"]))


@primitive("iota")
def iota(n: JaxNode) -> Any:
    shape, axis = n.out_dims(), int(n.params["dimension"])
    if not all(map(is_number, shape)):
        indices = n.convert(n.arange(shape[axis]), n.out().dtype)
        return n.spread(n.reshape(indices, [-1 if i == axis else 1 for i in range(len(shape))]), shape)
    n.check_count(int(np.prod(shape)), "elements of iota")
    line = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return n.const(np.ascontiguousarray(np.broadcast_to(line, shape)), n.out().dtype)


@primitive("dynamic_slice")
def dynamic_slice(n: JaxNode) -> Any:
    """Slice from computed starts, which are clamped so that the slice is inside."""
    x, shape = n[0], n.dims(n[0])
    sizes = plain_dims(n.params["slice_sizes"])
    for axis, (start, size) in enumerate(zip(n.inputs[1:], sizes, strict=False)):
        if size != shape[axis]:
            x = n("Gather", x, slice_indices(n, start, size, shape[axis]), axis)
    return x


@primitive("dynamic_update_slice")
def dynamic_update_slice(n: JaxNode) -> Any:
    x, update, starts = n[0], n[1], n.inputs[2:]
    shape, sizes = n.dims(x), n.dims(update)
    cut = [a for a in range(len(shape)) if sizes[a] != shape[a]]
    rows = [(a, slice_indices(n, starts[a], sizes[a], shape[a])) for a in cut]
    return replace_at(n, x, update, rows)


def slice_indices(n: JaxNode, start: Output, size: Any, dim: Any) -> Output:
    """`size` indices from `start` on, within a dimension; negative starts count from the front."""
    start = n.convert(start, "i64")
    clamped = n("Minimum", n("Maximum", start, n.const(0)), n.length(dim - size))
    if is_number(size):
        n.check_count(size, "a slice")
    return n("Add", n.reshape_to(clamped, [1]), n.arange(size))


#: Operators that are one expression.
primitives({
    "transpose": lambda n: n.transpose(n[0], [int(p) for p in n.params["permutation"]]),
    "concatenate": lambda n: n.concat(n.inputs, int(n.params["dimension"])),
    "tile": lambda n: n("Tile", n[0], n.lengths(n.params["reps"])),
    "split": lambda n: n.all("VariadicSplit", n[0], int(n.params["axis"]), n.lengths(n.params["sizes"])),
    "empty2": lambda n: n.spread(n.const(0, n.out().dtype), n.out_dims()),
    "dim_as_value": lambda n: n.convert(n.length(n.params["dim"]), n.out().dtype),
})  # fmt: skip
