"""Gather and scatter, in the general form that XLA gives them.

A row of the index tensor says where a slice begins in some dimensions of the operand. Dimensions of the slice
that are not collapsed are those of the result at `offset_dims`; all others are the index tensor's.
"""

from __future__ import annotations

from ovjit.readers.jax.reader import closed_of
from ovjit.readers.jax.rule_language import *
from ovjit.readers.jax.shapes import by_elements


class Plan(NamedTuple):
    """Layout of slices in a gather or scatter: the roles of the operand's and the result's dimensions."""

    operand: tuple[Any, ...]
    indices: Output
    sizes: list[Any]  # of a slice
    starts: list[int]  # the operand's dimension of each entry of a row
    dropped: list[int]  # dimensions of the slice that are not in the result
    batches: list[int]  # dimensions that go along with one of the index tensor's
    index_batches: list[int]
    offsets: list[int]  # positions of the slice's dimensions in the result
    result: tuple[Any, ...]


def _mode(n: JaxNode) -> str:
    return str(n.params["mode"]).rpartition(".")[2].lower()


def _batch_places(p: Plan) -> list[int]:
    """The positions of the index tensor's dimensions in the result's."""
    return [i for i in range(len(p.result)) if i not in p.offsets]


def _coordinates(n: JaxNode, p: Plan) -> tuple[list[Output], Output | None]:
    """For each dimension of the operand, its index as it broadcasts to the result; and whether each slice is
    within the operand, None if all are known to be."""
    rank, spots = len(p.result), _batch_places(p)
    batch_shape = [p.result[i] for i in spots]
    broadcast_shape: list[Any] = [1] * rank
    for i in spots:
        broadcast_shape[i] = p.result[i]
    indices, constant_indices = n.convert(p.indices, "i64"), n.value(p.indices)
    window_dims = [d for d in range(len(p.operand)) if d not in p.dropped and d not in p.batches]
    out, inside = [], None
    for d, size in enumerate(p.operand):
        parts: list[Output] = []
        if d in p.starts:
            entry = p.starts.index(d)
            start = n.reshape_to(n("Gather", indices, entry, -1), batch_shape)
            high = size - p.sizes[d]
            is_inside = (
                constant_indices is not None
                and is_number(high)
                and 0 <= constant_indices[..., entry].min(initial=0)
                and constant_indices[..., entry].max(initial=0) <= high
            )
            if not is_inside:
                fits = n(
                    "LogicalAnd", n("GreaterEqual", start, n.const(0)), n("LessEqual", start, n.length(high))
                )
                inside = fits if inside is None else n("LogicalAnd", inside, fits)
                start = n("Minimum", n("Maximum", start, n.const(0)), n.length(high))
            parts.append(n.reshape_to(start, broadcast_shape))
        if d in p.batches:
            spot = spots[p.index_batches[p.batches.index(d)]]
            parts.append(_line(n, p.result[spot], spot, rank))
        if d in window_dims and not (is_number(p.sizes[d]) and p.sizes[d] <= 1):
            spot = p.offsets[window_dims.index(d)]
            parts.append(_line(n, p.sizes[d], spot, rank))
        out.append(n.chain("Add", parts) if parts else n.const(np.zeros([1] * rank, np.int64)))
    return out, None if inside is None else n.reshape_to(inside, broadcast_shape)


def _line(n: JaxNode, size: Any, axis: int, rank: int) -> Output:
    shape = [-1 if i == axis else 1 for i in range(rank)]
    return n.const(np.arange(size).reshape(shape)) if is_number(size) else n.reshape(n.arange(size), shape)


def _stack_indices(n: JaxNode, coordinates: Sequence[Output], shape: Sequence[Any]) -> Output:
    """Indices of GatherND: [result..., dimensions of the operand]."""
    if all(map(is_number, shape)):
        n.check_count(int(np.prod(shape)) * len(coordinates), "indices")
    spread = [n.unsqueeze(n.spread(c, shape), [len(shape)]) for c in coordinates]
    return n.concat(spread, len(shape))


@primitive("gather")
def gather(n: JaxNode) -> Any:
    """Gather slices. Slices beyond the operand are moved inside, or filled in the mode FILL_OR_DROP."""
    numbers, operand = n.params["dimension_numbers"], n[0]
    p = Plan(
        n.dims(operand), n[1], plain_dims(n.params["slice_sizes"]), list(numbers.start_index_map),
        list(numbers.collapsed_slice_dims), list(numbers.operand_batching_dims),
        list(numbers.start_indices_batching_dims), list(numbers.offset_dims), n.out_dims(),
    )  # fmt: skip
    values = _take_slices(n, p)
    coordinates, inside = _coordinates(n, p)
    if values is None:
        values = n("GatherND", operand, _stack_indices(n, coordinates, p.result), batch_dims=0)
    if inside is None or _mode(n) != "fill_or_drop":
        return values
    fill = n.params["fill_value"]
    kind = n.dtype(operand)
    if fill is None:
        fill = np.nan if n.is_real(operand) else 0 if kind == "boolean" else _extreme(kind)
    return n("Select", inside, values, n.const(fill, kind))


def _extreme(kind: str) -> float:
    """JAX's fill value of integers: the minimum of signed types, the maximum of unsigned ones."""
    low, high = value_range(kind)
    return low or high


def _take_slices(n: JaxNode, p: Plan) -> Output | None:
    """A gather of whole slices along one dimension, as `jnp.take` makes it; None for other gathers."""
    if len(p.starts) != 1 or p.dropped != p.starts or p.batches:
        return None
    axis = p.starts[0]
    if any(p.sizes[d] != p.operand[d] for d in range(len(p.operand)) if d != axis):
        return None
    index = n.convert(p.indices, "i64")
    index = n.reshape_to(index, n.dims(p.indices)[:-1])
    index = n("Minimum", n("Maximum", index, n.const(0)), n.length(p.operand[axis] - 1))
    result = n("Gather", n[0], index, axis)
    # operand dims before the axis, the index tensor's, operand dims after it
    before = [p.offsets[i] for i in range(axis)]
    after = [p.offsets[i] for i in range(axis, len(p.offsets))]
    axis_order = [*before, *_batch_places(p), *after]
    return n.transpose(result, [axis_order.index(i) for i in range(len(axis_order))])


def _updates(n: JaxNode, updates: Output, coordinates: Sequence[Output], shape: Sequence[Any]) -> Output:
    """The new elements: the updates, or the function `update_jaxpr` of both if there is one."""
    body = closed_of(n.params.get("update_jaxpr"))
    if body is None or body.jaxpr.outvars[0] is body.jaxpr.invars[1]:
        return updates
    if not n.params["unique_indices"]:
        raise UnsupportedError("an update function with indices that may repeat is not supported")
    old = n("GatherND", n[0], _stack_indices(n, coordinates, shape), batch_dims=0)
    return by_elements(n, body, [old, updates])[0]


#: How updates are combined with the elements that they update.
JOINED = {"scatter": "none", "scatter-add": "sum", "scatter_add": "sum", "scatter-mul": "prod",
          "scatter_mul": "prod", "scatter-min": "min", "scatter_min": "min", "scatter-max": "max",
          "scatter_max": "max", "scatter-sub": "sum", "scatter_sub": "sum"}  # fmt: skip


def _joined_number(n: JaxNode, operand: Output, updates: Output) -> Output:
    """A scalar operand, updated once per row of an empty index."""
    if JOINED[n.op_type] == "none":
        body, update = (
            closed_of(n.params.get("update_jaxpr")),
            n.scalar(n.slice(n.reshape(updates, [-1]), 0, -1)),
        )
        return update if body is None else n.run(body, [operand, update])[0]
    both = n.concat([n.reshape(operand, [1]), n.reshape(updates, [-1])], 0)
    names = {"sum": "ReduceSum", "prod": "ReduceProd", "min": "ReduceMin", "max": "ReduceMax"}
    return n(names[JOINED[n.op_type]], both, [0], keep_dims=False)


@primitive(*JOINED)
def scatter(n: JaxNode) -> Any:
    """Scatter. Updates outside of the operand are dropped: they go to an extra row, which is removed."""
    numbers, operand, updates = n.params["dimension_numbers"], n[0], n[2]
    if n.op_type in ("scatter-sub", "scatter_sub"):
        updates = n("Subtract", n.like(updates, 0), updates)
    shape, batches = n.dims(operand), list(numbers.operand_batching_dims)
    dropped, result = list(numbers.inserted_window_dims), n.dims(updates)
    offsets = list(numbers.update_window_dims)
    window_dims = [d for d in range(len(shape)) if d not in dropped and d not in batches]
    sizes: list[Any] = [1] * len(shape)
    for d, dim in zip(window_dims, offsets, strict=True):
        sizes[d] = result[dim]
    p = Plan(
        shape, n[1], sizes, list(numbers.scatter_dims_to_operand_dims), dropped, batches,
        list(numbers.scatter_indices_batching_dims), offsets, result,
    )  # fmt: skip
    if not shape:
        return _joined_number(n, operand, updates)
    coordinates, inside = _coordinates(n, p)
    reduction = JOINED[n.op_type]
    if reduction == "none":
        updates = _updates(n, updates, coordinates, result)
    if inside is None or _mode(n) == "clip":
        index_tensor = _stack_indices(n, coordinates, result)
        return n("ScatterNDUpdate", operand, index_tensor, updates, reduction=reduction, opset=15)
    no_pads = [0] * (len(shape) - 1)
    wider = n("Pad", operand, [0, *no_pads], [1, *no_pads], n.like(operand, 0), pad_mode="constant")
    coordinates[0] = n("Select", inside, coordinates[0], n.length(shape[0]))
    indices = _stack_indices(n, coordinates, result)
    out = n("ScatterNDUpdate", wider, indices, updates, reduction=reduction, opset=15)
    return n.slice(out, 0, 0, -1)
