"""Primitives that move elements, reduce, and sort."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import UnsupportedError
from ovjit.readers.jax.reader import JaxNode, element_type
from ovjit.readers.jax.registry import primitive, primitives

REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd", "reduce_and": "ReduceLogicalAnd", "reduce_or": "ReduceLogicalOr",
}  # fmt: skip


@primitive("broadcast_in_dim")
def broadcast_in_dim(n: JaxNode) -> Any:
    """Each dimension of the operand is at a place of the result's; the others repeat it."""
    if len(n) > 1:
        raise UnsupportedError("a broadcast to symbolic dimensions is not supported")
    shape, places = n.out_dims(), list(n.params["broadcast_dimensions"])
    own = n.dims(n[0])
    between = [1] * len(shape)
    for place, d in zip(places, own, strict=True):
        between[place] = d
    return n.spread(n.shaped(n[0], between), shape)


@primitive("reshape", "squeeze", "expand_dims")
def reshape(n: JaxNode) -> Any:
    if n.params.get("dimensions") is not None and n.op_type == "reshape":
        raise UnsupportedError("a reshape that also transposes is not supported")
    return n.shaped(n[0], n.out_dims())


@primitive("rev")
def rev(n: JaxNode) -> Any:
    x = n[0]
    for axis in n.params["dimensions"]:
        x = n.slice(x, int(axis), -1, None, -1)
    return x


@primitive("stack")
def stack(n: JaxNode) -> Any:
    axis = int(n.params["axis"])
    return n.concat([n.unsqueeze(value, [axis]) for value in n.inputs], axis)


@primitive("slice")
def slice_(n: JaxNode) -> Any:
    """Axes that are taken whole are left out."""
    rank = n.rank(n[0])
    steps = n.params["strides"] or (1,) * rank
    rows = list(zip(range(rank), n.params["start_indices"], n.params["limit_indices"], steps, strict=True))
    shape = n.dims(n[0])
    cut = [row for row in rows if (row[1], row[2], row[3]) != (0, shape[row[0]], 1)]
    if not cut:
        return n[0]
    axes, begin, end, step = ([int(v) for v in column] for column in zip(*cut, strict=True))
    return n("Slice", n[0], begin, end, step, axes)


@primitive("pad")
def pad(n: JaxNode) -> Any:
    """Rows are (before, behind, between the elements); negative ones cut off."""
    x, fill = n[0], n[1]
    rows = [tuple(int(v) for v in row) for row in n.params["padding_config"]]
    for axis, (_, _, between) in enumerate(rows):
        if between:
            x = dilated(n, x, axis, between, fill)
    low, high = [row[0] for row in rows], [row[1] for row in rows]
    if not any(low) and not any(high):
        return x
    return n("Pad", x, low, high, fill, pad_mode="constant")


def dilated(n: JaxNode, x: Output, axis: int, between: int, fill: Output) -> Output:
    """`between` elements of `fill` between those of an axis."""
    shape = list(n.dims(x))
    if shape[axis] < 2:
        return x
    rank = len(shape)
    apart = n.reshape(x, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    behind = [0] * (rank + 1)
    behind[axis + 1] = between
    filled = n("Pad", apart, [0] * (rank + 1), behind, fill, pad_mode="constant")
    whole = n.reshape(filled, [*shape[:axis], shape[axis] * (between + 1), *shape[axis + 1 :]])
    return n.slice(whole, axis, 0, shape[axis] * (between + 1) - between)


@primitive(*REDUCTIONS)
def reduction(n: JaxNode) -> Any:
    axes = [int(a) for a in n.params["axes"]]
    if not axes:
        return n[0]
    if n.op_type in ("reduce_and", "reduce_or") and not n.is_bool(n[0]):
        raise UnsupportedError("of bits of numbers it is not supported")
    return n(REDUCTIONS[n.op_type], n[0], axes, keep_dims=False)


@primitive("argmax", "argmin")
def arg_extreme(n: JaxNode) -> Any:
    (axis,) = (int(a) for a in n.params["axes"])
    kind = element_type(n.params["index_dtype"])
    wide = kind if kind in ("i32", "i64") else "i64"
    found = n.all(
        "TopK", n[0], 1, axis=axis, mode=n.op_type[3:], sort="value", index_element_type=wide, stable=True
    )
    return n.convert(n.squeeze(found[1], [axis]), kind)


@primitive("top_k")
def top_k(n: JaxNode) -> Any:
    axis = int(n.params.get("axis", n.rank(n[0]) - 1))
    kind, count = n.out(1).dtype, int(n.params["k"])
    rest: dict[str, Any] = {"axis": axis, "sort": "value", "index_element_type": kind, "stable": True}
    return n.all("TopK", n[0], count, mode="max", **rest)


@primitive("sort")
def sort(n: JaxNode) -> Any:
    """By the first operand; the others are brought into its order."""
    if n.params["num_keys"] != 1:
        raise UnsupportedError("a sort by several keys is not supported")
    axis = int(n.params["dimension"])
    count = n.dims(n[0])[axis]
    found = n.all(
        "TopK", n[0], count, axis=axis, mode="min", sort="value", index_element_type="i64", stable=True
    )
    return [found[0], *(n("GatherElements", x, found[1], axis=axis) for x in n.inputs[1:])]


@primitive("cumsum")
def cumsum(n: JaxNode) -> Any:
    axis = n.const(int(n.params["axis"]))
    return n("CumSum", n[0], axis, exclusive=False, reverse=bool(n.params["reverse"]))


@primitive("iota")
def iota(n: JaxNode) -> Any:
    shape, axis = n.out_dims(), int(n.params["dimension"])
    n.limited(int(np.prod(shape)), "elements of iota")
    line = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return n.const(np.ascontiguousarray(np.broadcast_to(line, shape)), n.out().dtype)


@primitive("dynamic_slice")
def dynamic_slice(n: JaxNode) -> Any:
    """Begins that would go over the end are moved back, as JAX does."""
    x, shape = n[0], n.dims(n[0])
    for axis, (start, size) in enumerate(zip(n.inputs[1:], n.params["slice_sizes"], strict=False)):
        if int(size) != shape[axis]:
            x = n("Gather", x, places(n, start, int(size), shape[axis]), axis)
    return x


@primitive("dynamic_update_slice")
def dynamic_update_slice(n: JaxNode) -> Any:
    x, update, starts = n[0], n[1], n.inputs[2:]
    shape, sizes = n.dims(x), n.dims(update)
    rows = [(a, places(n, starts[a], sizes[a], shape[a])) for a in range(len(shape)) if sizes[a] != shape[a]]
    return _updated(n, x, update, rows)


def _updated(n: JaxNode, x: Output, update: Output, rows: list[tuple[int, Output]]) -> Output:
    """Along each axis of `rows`, the elements at its places are replaced."""
    if not rows:
        return n.same(update)
    axis, index = rows[0]
    part = update if len(rows) == 1 else _updated(n, n("Gather", x, index, axis), update, rows[1:])
    return n("ScatterUpdate", x, index, part, axis)


def places(n: JaxNode, start: Output, size: int, dim: int) -> Output:
    """`size` indices from `start` on, within a dimension; negative starts count from the front."""
    start = n.convert(start, "i64")
    held = n("Minimum", n("Maximum", start, n.const(0)), n.const(dim - size))
    return n("Add", n.shaped(held, [1]), n.const(np.arange(n.limited(size, "a slice"))))


#: Operators that are one expression.
primitives({
    "transpose": lambda n: n.transpose(n[0], [int(p) for p in n.params["permutation"]]),
    "concatenate": lambda n: n.concat(n.inputs, int(n.params["dimension"])),
    "tile": lambda n: n("Tile", n[0], [int(r) for r in n.params["reps"]]),
    "split": lambda n: n.split(n[0], int(n.params["axis"]), [int(s) for s in n.params["sizes"]]),
})  # fmt: skip
