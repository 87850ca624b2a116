"""Launch kernels with declared tensors (`ovjit.codegen.tensors`): derives the step from the declaration.

    launch(planner, kernel, {"x": x, "y": y}, writes=("y",), work=..., factor=3)

The views of the tensors give the argument block: addresses, extents, byte strides, the number of items and
how many a chunk takes. Dimensions for which a declaration has `...` are merged. The declaration also says
which bytes an item writes. `OVJIT_CHECK` proves this of every chunk.

By default, axes are declared in the order of the view's dimensions. `axes={"n": 2}` maps axis n to dimension
2 of every view. The other axes take the remaining dimensions in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import WALKED
from ovjit.codegen.tensors import ITEMS, LANES, REST, Signature, extent_of, given_fields
from ovjit.errors import OvjitError
from ovjit.graph.symbolic import alike, sym_min
from ovjit.planning.chunks import ceil_div
from ovjit.planning.touches import Piece, Rows
from ovjit.planning.views import View, merge_axes, placed_values, product
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.planning.step_list import StepList


_DIGIT = re.compile(r"\d")


class _Operand(NamedTuple):
    """A tensor of a launch: its view, axis name -> dimension, and the dimensions for which `...` stands."""

    view: View
    named: Mapping[str, int]
    others: Sequence[int]

    def stride(self, axis: str) -> int:
        return self.view.strides[self.named[axis]]


class _Items(NamedTuple):
    """The merged dimensions of `...`: extents, and byte strides of each tensor. `lanes`: extent and strides
    of the axis of lanes, which is the fastest of them."""

    extents: Sequence[int]
    strides: Mapping[str, Sequence[int]]
    lanes: int
    lane_strides: Mapping[str, int]


def launch(
    planner: StepList, kernel: Kernel, tensors: Mapping[str, View], writes: Sequence[str], **options: Any
) -> None:
    """Add the steps of a kernel for these views: options as for `try_launch`. If lanes are not adjacent,
    items have one element. If `...` has too many dimensions, there is a step for each index of the slowest
    one. Raises OvjitError if views do not fit."""
    for single in (False, True):
        if try_launch(planner, kernel, tensors, writes, single=single, **options):
            return
    signature, axes = kernel.signature, options.get("axes") or {}
    assert signature is not None
    operands = {n: _operand(signature, n, v, axes) for n, v in tensors.items() if REST in signature.axes[n]}
    last = _last(operands, writes)
    candidates = [] if last is None else [i for i, d in enumerate(last.others) if last.view.shape[d] != 1]
    if last is None or len(candidates) <= WALKED:
        shapes = ", ".join(f"{name} {list(view.shape)}" for name, view in tensors.items())
        raise OvjitError(f"internal error: {kernel.name} cannot iterate over {shapes} in place")
    steps = [abs(last.view.strides[d]) for d in last.others]
    slowest = candidates[0] if options.get("ordered") else max(candidates, key=steps.__getitem__)
    extent = last.view.shape[last.others[slowest]]
    options["flops"] = options.get("flops", 0) / extent
    for index in range(extent):
        parts = {name: o.view.slice(o.others[slowest], index, 1) for name, o in operands.items()}
        launch(planner, kernel, {**tensors, **parts}, writes, **options)


def try_launch(
    planner: StepList,
    kernel: Kernel,
    tensors: Mapping[str, View],
    writes: Sequence[str],
    *,
    work: float | Callable[[int, Mapping[str, int]], float] = 0,
    flops: float = 0,
    axes: Mapping[str, int] | None = None,
    reads: Sequence[View] = (),
    disjoint: bool = True,
    ordered: str = "",
    some: bool = False,
    one_chunk: bool = False,
    single: bool = False,
    unit: int | None = None,
    type: str | None = None,
    **scalars: Any,
) -> bool:
    """Add the step of a kernel for these views, of which it writes `writes`. `work`: multiply-adds, or bytes,
    of one item, or a function of its lanes and of each tensor's stride along them. `scalars`: the kernel's
    other arguments; a view passes its address. A kernel without `over` has one chunk.

    `reads`: further views that the kernel reads, by addresses among the scalars. `disjoint`: False if data
    decide what an item writes, or axes cannot express it; then chunks are not checked for races. `ordered`:
    the tensor of indices by which several items may write one element; those items run in order, in one
    chunk. `some`: at least one chunk, even without items. `one_chunk`: exactly one chunk, since each item
    continues the previous one. `single`: items have one element, so that lanes need not be adjacent.
    `unit`: a chunk has a multiple of this many items. `type`: the step's type in the profile.

    Returns False without a step if strides do not fit: elements are not adjacent along an axis marked `:1`,
    or the dimensions of `...` do not merge to at most WALKED. Raises OvjitError if shapes do not fit, and
    TypeError for a keyword that neither the kernel nor this function has.
    """
    signature = kernel.signature
    assert signature is not None
    operands = {name: _operand(signature, name, view, axes or {}) for name, view in tensors.items()}
    extents = _extents(operands)
    dims = _items(signature, operands, writes, single, bool(ordered))
    if dims is None or not all(map(_is_adjacent, repeat(signature), operands, operands.values())):
        return False
    extents |= {LANES: dims.lanes} | {name: scalars[name] for name in signature.extent_arguments}
    count = _count(signature, extents, dims.extents, planner.target.lanes, scalars)
    along = count.items
    items = product(along)
    values = _values(signature, operands, extents, dims) | {ITEMS: items}
    values |= zip(map(signature.bound_of, signature.named), along[len(dims.extents) :], strict=True)
    values |= _scalar_values(kernel, signature, scalars)
    views = [o.view for name, o in operands.items() if name not in writes]
    views += [*reads, *(v for v in scalars.values() if isinstance(v, View))]
    written = [operands[name].view for name in writes]
    if not signature.over:
        planner.step(kernel, values, 1, views, written, flops)
        return True
    if callable(work):
        work = work(sym_min(dims.lanes, *count.sizes[-1:]), dims.lane_strides)
    proof = None
    if disjoint and not ordered:
        proof = partial(_rows_of_chunks, signature, operands, writes, extents, dims, count)
    if ordered or one_chunk:
        unit = _in_order(dims, ordered, writes[-1], items) if ordered else items
    planner.share_step(kernel, values, items, work, views, written, flops, proof, type, some, unit)
    return True


def _scalar_values(kernel: Kernel, signature: Signature, scalars: Mapping[str, Any]) -> Any:
    """The arguments that a launch gives. Raises TypeError for those that the kernel does not have."""
    names, tables = signature.argument_names, signature.tables
    if not names.issuperset(scalars):
        unknown = [n for n in scalars if n not in names and _DIGIT.split(n, 1)[0] not in tables]
        if unknown:
            options = (try_launch.__kwdefaults__ or {}).keys()
            raise TypeError(
                f"{kernel.name} has no argument {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(sorted(names.difference(signature.axes)))}; launches have {', '.join(options)}"
            )
        names.update(scalars)  # items are looked up once
    return ((name, getattr(v, "ptr", v)) for name, v in given_fields(signature, scalars).items())


def _in_order(dims: _Items, indices: str, target: str, items: Any) -> Any:
    """The number of items that must stay in one chunk. Indices of the slowest dimension may be in separate
    chunks if the tensor of indices does not depend on it."""
    free = dims.extents and dims.strides[indices][0] == 0 and dims.strides[target][0] != 0
    return items // dims.extents[0] if free else items


class _Count(NamedTuple):
    """Extents of the item space in elements (`rows`), and the elements of one item along each (`sizes`)."""

    rows: Sequence[int]
    sizes: Sequence[int]

    @property
    def items(self) -> list[int]:
        return list(map(ceil_div, self.rows, self.sizes))


def _count(
    signature: Signature,
    extents: Mapping[str, int],
    outer: Sequence[int],
    vector: int,
    scalars: Mapping[str, Any],
) -> _Count:
    splits = [signature.splits.get(axis) for axis in signature.named]
    sizes = [1 if split is None else split.elements(vector, scalars) for split in splits]
    return _Count([*outer, *(extents[axis] for axis in signature.named)], [*[1] * len(outer), *sizes])


def _rows_of_chunks(
    signature: Signature,
    operands: Mapping[str, _Operand],
    writes: Sequence[str],
    extents: Mapping[str, int],
    dims: _Items,
    count: _Count,
    per_chunk: int,
) -> Rows:
    """The bytes that each chunk of `per_chunk` items reads and writes."""
    pieces = {name: _piece(signature, name, o, extents, dims) for name, o in operands.items()}
    read = [p for name, p in pieces.items() if name not in writes and _is_walked(signature, name)]
    write = [pieces[name] for name in writes]
    return Rows(count.rows, per_chunk, read, write, count.sizes)


def _values(
    signature: Signature, operands: Mapping[str, _Operand], extents: Mapping[str, int], dims: _Items
) -> dict[str, Any]:
    """The arguments that derive from the views: addresses, extents, strides."""
    values: dict[str, Any] = {extent_of(axis): extent for axis, extent in extents.items()}
    for name, operand in operands.items():
        values[name] = operand.view.ptr
        values |= {f"{name}_{axis}": operand.stride(axis) for axis in operand.named}
    values |= {f"{name}_{LANES}": stride for name, stride in dims.lane_strides.items()}
    return values | placed_values(dims.extents, WALKED, **dims.strides) if REST in signature.over else values


def _operand(signature: Signature, name: str, view: View, axes: Mapping[str, int]) -> _Operand:
    """Map the declared axes of a tensor to dimensions of its view."""
    declared = [axis for axis in signature.axes[name] if axis != LANES]
    if not declared:
        return _Operand(view, {}, ())
    rank = len(view.shape)
    named = {axis: dimension for axis, dimension in axes.items() if axis in declared}
    unnamed = [d for d in range(rank) if d not in named.values()]
    waiting = [axis for axis in declared if axis not in named]
    if REST in waiting:
        before = waiting.index(REST)
        after = len(waiting) - before - 1
        others = unnamed[before : len(unnamed) - after]
        pairs = [*zip(waiting[:before], unnamed, strict=False)]
        pairs += zip(waiting[before + 1 :], unnamed[len(unnamed) - after :], strict=False)
        fits = len(unnamed) >= before + after
    else:
        others, pairs = [], list(zip(waiting, unnamed, strict=False))
        fits = len(unnamed) == len(waiting)
    if not fits:
        raise _misfit(name, view, f"has the axes {' '.join(declared)}")
    named.update(pairs)
    return _Operand(view, named, others)


def _is_adjacent(signature: Signature, name: str, operand: _Operand) -> bool:
    """Whether the elements are adjacent along the axis that is marked by `:1`."""
    axis = signature.adjacent.get(name)
    if axis is None:
        return True
    view, dimension = operand.view, operand.named[axis]
    return view.strides[dimension] == view.itemsize or view.shape[dimension] == 1


def _misfit(name: str, view: View, why: str) -> OvjitError:
    return OvjitError(
        f"internal error: tensor {name!r} of a kernel {why}; a view of {list(view.shape)} does not fit"
    )


def _extents(operands: Mapping[str, _Operand]) -> dict[str, int]:
    """The extent of each named axis. Raises OvjitError if two tensors disagree."""
    extents: dict[str, int] = {}
    for name, operand in operands.items():
        for axis, dimension in operand.named.items():
            extent = operand.view.shape[dimension]
            if axis in extents and not (alike(extents[axis], extent) or extents[axis] == extent):
                raise _misfit(name, operand.view, f"has another extent along {axis} than one before it")
            extents.setdefault(axis, extent)
    return extents


def _items(
    signature: Signature, operands: Mapping[str, _Operand], writes: Sequence[str], single: bool, ordered: bool
) -> _Items | None:
    """The dimensions of `...`, merged. They are walked in the memory order of the last output, or in logical
    order if `ordered`. None if lanes are not adjacent, or more than WALKED dimensions remain."""
    sharing = {name: o for name, o in operands.items() if REST in signature.axes[name]}
    last = _last(sharing, writes)
    if last is None:
        return _Items((), {}, 1, {})
    order: Sequence[int] = range(len(last.others))
    if not ordered:
        order = sorted(order, key=lambda i: (-abs(last.view.strides[last.others[i]]), i))
    views = []
    for name, operand in sharing.items():
        shape = [operand.view.shape[d] for d in operand.others]
        if len(shape) != len(order) or not all(map(alike, shape, [last.view.shape[d] for d in last.others])):
            raise _misfit(name, operand.view, "shares its other axes with tensors of another shape")
        strides = [operand.view.strides[d] for d in operand.others]
        views.append(operand.view.as_strided(shape, strides))
    extents, steps = merge_axes(order, views, WALKED + (LANES in signature.over))
    strides_of = dict(zip(sharing, steps, strict=True))
    lanes, lane_strides = 1, {name: o.view.itemsize for name, o in sharing.items()}
    adjacent = LANES in signature.splits and signature.splits[LANES].adjacent
    if LANES in signature.over and extents and not (adjacent and single):
        lanes = extents.pop()
        last_strides = {name: steps.pop() for name, steps in strides_of.items()}
        if adjacent and any(last_strides[name] != size for name, size in lane_strides.items()):
            return None
        lane_strides = last_strides
    if len(extents) > WALKED:
        return None
    return _Items(extents, strides_of, lanes, lane_strides)


def _last(sharing: Mapping[str, _Operand], writes: Sequence[str]) -> _Operand | None:
    """The operand whose memory order `...` follows: the last output, else the first operand that has
    `...`."""
    return sharing.get(writes[-1], next(iter(sharing.values()), None))


def _is_walked(signature: Signature, name: str) -> bool:
    """Whether the tensor has `...` and all axes of `over`, so that its index follows from an item's index."""
    axes = signature.axes[name]
    return all(axis in axes for axis in signature.over) and REST in axes


def _piece(
    signature: Signature, name: str, operand: _Operand, extents: Mapping[str, int], dims: _Items
) -> Piece:
    """The part of a tensor that an item touches: the full extent of all axes that are not in `over`."""
    view, axes = operand.view, signature.axes[name]
    along = [*dims.strides[name]] if REST in axes else [0] * len(dims.extents)
    for axis in signature.named:
        stride = dims.lane_strides.get(name, 0) if axis == LANES else 0
        along.append(operand.stride(axis) if axis in operand.named else stride)
    inside = [axis for axis in operand.named if axis not in signature.named]
    strides = [operand.stride(axis) for axis in inside]
    return Piece(view.ptr, along, [extents[axis] for axis in inside], strides, view.itemsize)
