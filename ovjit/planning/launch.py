"""Launch kernels with declared tensors (`ovjit.codegen.tensors`): a step follows from the declaration.

    launch(planner, kernel, {"x": x, "y": y}, writes=("y",), work=..., factor=3)

The views of the tensors give the argument block: addresses, extents, byte strides, the number of items and
how many a chunk takes. Dimensions for which a declaration has `...` are merged. The declaration also says
which bytes an item writes. `OVJIT_CHECK` proves this of every chunk.

Axes stand in the declaration in the order of the view's dimensions. `axes={"n": 2}` says that axis n is
dimension 2 of every view, wherever it stands in the declaration; the others follow in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import WALKED
from ovjit.codegen.tensors import ITEMS, LANES, REST, Signature, extent_of, given_fields
from ovjit.errors import OvjitError
from ovjit.graph.graph import Value
from ovjit.graph.symbolic import alike, sym_min
from ovjit.planning.chunks import ceil_div
from ovjit.planning.races import Piece, Rows
from ovjit.planning.views import View, merge_axes, placed_values, product
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.planning.plan import Planner
    from ovjit.planning.step_list import StepList


class _Operand(NamedTuple):
    """A tensor of a launch: its view, which dimension is which axis, the merged strides of all others."""

    view: View
    named: Mapping[str, int]
    others: Sequence[int]

    def stride(self, axis: str) -> int:
        return self.view.strides[self.named[axis]]


class _Items(NamedTuple):
    """What items count through: extents and, for each tensor, byte strides of `...`; the axis of lanes."""

    rest: Sequence[int]
    strides: Mapping[str, Sequence[int]]
    lanes: int
    lane_strides: Mapping[str, int]


def launch(
    planner: StepList, kernel: Kernel, tensors: Mapping[str, View], writes: Sequence[str], **options: Any
) -> None:
    """Add the step of a kernel for these views, see `try_launch`. Where lanes are not adjacent, an item has
    one element. Where `...` is too much for a kernel, there is a step for each index of the slowest of its
    dimensions. Raises OvjitError where views do not fit."""
    for single in (False, True):
        if try_launch(planner, kernel, tensors, writes, single=single, **options):
            return
    signature, axes = kernel.signature, options.get("axes") or {}
    assert signature is not None
    operands = {n: _operand(signature, n, v, axes) for n, v in tensors.items() if REST in signature.axes[n]}
    last = _last(operands, writes)
    many = [] if last is None else [i for i, d in enumerate(last.others) if last.view.shape[d] != 1]
    if last is None or len(many) <= WALKED:
        shapes = ", ".join(f"{name} {list(view.shape)}" for name, view in tensors.items())
        raise OvjitError(f"internal error: {kernel.name} cannot walk {shapes} as they lie")
    steps = [abs(last.view.strides[d]) for d in last.others]
    slowest = many[0] if options.get("ordered") else max(many, key=steps.__getitem__)
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
    apart: bool = True,
    ordered: str = "",
    some: bool = False,
    whole: bool = False,
    single: bool = False,
    type: str | None = None,
    **scalars: Any,
) -> bool:
    """Add the step of a kernel for these views, of which it writes `writes`. `work`: multiply-adds, or bytes,
    of one item, or a function of its lanes and of each tensor's stride along them; `scalars`: the kernel's
    other arguments, views among them where these are addresses. A kernel that is over nothing is one chunk.

    `reads`: what it reads besides, where scalars have the addresses. `apart`: False where data say what an
    item writes, or more than axes can, so that the declaration proves nothing. `ordered`: the tensor of
    indices by which items may write one place twice; those follow one another in the order of dimensions, in
    one chunk. `some`: there is a chunk where there is no item. `whole`: there is one chunk, as each item goes
    on from the one before. `single`: an item has one element of the lanes that are to be adjacent. `type`:
    what the profile calls the step.

    False, and no step, where strides do not fit: elements are not adjacent that are to be, or the dimensions
    for which `...` stands do not merge into WALKED. Raises OvjitError where shapes do not fit.
    """
    signature = kernel.signature
    assert signature is not None
    operands = {name: _operand(signature, name, view, axes or {}) for name, view in tensors.items()}
    extents = _extents(operands)
    found = _items(signature, operands, writes, single, bool(ordered))
    if found is None or not all(map(_is_adjacent, repeat(signature), operands, operands.values())):
        return False
    extents |= {LANES: found.lanes} | {name: scalars[name] for name in signature.counted}
    count = _count(signature, extents, found.rest, planner.target.lanes, scalars)
    along = count.items
    items = product(along)
    values = _values(signature, operands, extents, found) | {ITEMS: items}
    values |= zip(map(signature.bound_of, signature.named), along[len(found.rest) :], strict=True)
    values |= {name: getattr(v, "ptr", v) for name, v in given_fields(signature, scalars).items()}
    views = [o.view for name, o in operands.items() if name not in writes]
    views += [*reads, *(v for v in scalars.values() if isinstance(v, View))]
    written = [operands[name].view for name in writes]
    if not signature.over:
        planner.step(kernel, values, 1, views, written, flops)
        return True
    if callable(work):
        work = work(sym_min(found.lanes, *count.sizes[-1:]), found.lane_strides)
    proof = None
    if apart and not ordered:
        proof = partial(_touched, signature, operands, writes, extents, found, count)
    unit = _in_order(found, ordered, writes[-1], items) if ordered else items if whole else None
    planner.share_step(kernel, values, items, work, views, written, flops, proof, type, some, unit)
    return True


def _in_order(found: _Items, indices: str, target: str, items: Any) -> Any:
    """How many items follow one another in a chunk. The slowest dimension is shared where no index depends on
    it."""
    free = found.rest and found.strides[indices][0] == 0 and found.strides[target][0] != 0
    return items // found.rest[0] if free else items


class _Count(NamedTuple):
    """What items count through: extents, of which an item has so many elements."""

    rows: Sequence[int]
    sizes: Sequence[int]

    @property
    def items(self) -> list[int]:
        return list(map(ceil_div, self.rows, self.sizes))


def _count(
    signature: Signature,
    extents: Mapping[str, int],
    rest: Sequence[int],
    vector: int,
    scalars: Mapping[str, Any],
) -> _Count:
    splits = [signature.splits.get(axis) for axis in signature.named]
    sizes = [1 if split is None else split.elements(vector, scalars) for split in splits]
    return _Count([*rest, *(extents[axis] for axis in signature.named)], [*[1] * len(rest), *sizes])


def _touched(
    signature: Signature,
    operands: Mapping[str, _Operand],
    writes: Sequence[str],
    extents: Mapping[str, int],
    found: _Items,
    count: _Count,
    per_chunk: int,
) -> Rows:
    """The bytes that a chunk of so many items touches."""
    pieces = {name: _piece(signature, name, o, extents, found) for name, o in operands.items()}
    read = [p for name, p in pieces.items() if name not in writes and _is_walked(signature, name)]
    write = [pieces[name] for name in writes]
    return Rows(count.rows, per_chunk, read, write, count.sizes)


def _values(
    signature: Signature, operands: Mapping[str, _Operand], extents: Mapping[str, int], found: _Items
) -> dict[str, Any]:
    """The arguments that follow from the views: addresses, extents, strides."""
    values: dict[str, Any] = {extent_of(axis): extent for axis, extent in extents.items()}
    for name, operand in operands.items():
        values[name] = operand.view.ptr
        values |= {f"{name}_{axis}": operand.stride(axis) for axis in operand.named}
    values |= {f"{name}_{LANES}": stride for name, stride in found.lane_strides.items()}
    return values | placed_values(found.rest, WALKED, **found.strides) if REST in signature.over else values


def launch_or_copy(
    planner: Planner,
    kernel: Kernel,
    reads: Mapping[str, Value],
    writes: Mapping[str, Value],
    seen: Callable[[View], View] = lambda view: view,
    **options: Any,
) -> None:
    """`launch` for values, each view as `seen` makes it: flipped, permuted. Where strides do not fit, the
    kernel gets row-major copies. Without elements to write there is no step."""
    sources = {name: planner.view(value) for name, value in reads.items()}
    targets = {name: planner.output(value) for name, value in writes.items()}
    if not all(view.count for view in targets.values()):
        return

    views = {name: seen(view) for name, view in (sources | targets).items()}
    if try_launch(planner, kernel, views, tuple(targets), **options):
        return
    sources = {name: planner.contiguous(value) for name, value in reads.items()}
    targets = {name: planner.instead(view) for name, view in targets.items()}
    views = {name: seen(view) for name, view in (sources | targets).items()}
    launch(planner, kernel, views, tuple(targets), **options)


def _operand(signature: Signature, name: str, view: View, given: Mapping[str, int]) -> _Operand:
    """Which dimension of the view is which declared axis."""
    declared = [axis for axis in signature.axes[name] if axis != LANES]
    if not declared:
        return _Operand(view, {}, ())
    rank = len(view.shape)
    named = {axis: dimension for axis, dimension in given.items() if axis in declared}
    left = [d for d in range(rank) if d not in named.values()]
    waiting = [axis for axis in declared if axis not in named]
    if REST in waiting:
        before = waiting.index(REST)
        after = len(waiting) - before - 1
        others = left[before : len(left) - after]
        pairs = [*zip(waiting[:before], left, strict=False)]
        pairs += zip(waiting[before + 1 :], left[len(left) - after :], strict=False)
        fits = len(left) >= before + after
    else:
        others, pairs = [], list(zip(waiting, left, strict=False))
        fits = len(left) == len(waiting)
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
        f"internal error: tensor {name!r} of a kernel {why}, a view of {list(view.shape)} does not fit"
    )


def _extents(operands: Mapping[str, _Operand]) -> dict[str, int]:
    """The extent of each named axis. Raises OvjitError where two tensors differ in it."""
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
    """The dimensions for which `...` stands, merged in the order in which the last output lies, or in that
    which they have."""
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
        views.append(View(operand.view.buffer, shape, strides, operand.view.itemsize, operand.view.offset))
    extents, steps = merge_axes(order, views, WALKED + (LANES in signature.over))
    strides_of = dict(zip(sharing, steps, strict=True))
    lanes, lane_strides = 1, {name: o.view.itemsize for name, o in sharing.items()}
    adjacent = LANES in signature.splits and signature.splits[LANES].adjacent
    if LANES in signature.over and extents and not (adjacent and single):
        lanes = extents.pop()
        apart = {name: steps.pop() for name, steps in strides_of.items()}
        if adjacent and any(apart[name] != size for name, size in lane_strides.items()):
            return None
        lane_strides = apart
    if len(extents) > WALKED:
        return None
    return _Items(extents, strides_of, lanes, lane_strides)


def _last(sharing: Mapping[str, _Operand], writes: Sequence[str]) -> _Operand | None:
    """The operand in whose order `...` is walked, of those that have it: the last output, or the first."""
    return sharing.get(writes[-1], next(iter(sharing.values()), None))


def _is_walked(signature: Signature, name: str) -> bool:
    """Whether an item reads of this tensor what it counts to and nothing else."""
    axes = signature.axes[name]
    return all(axis in axes for axis in signature.over) and REST in axes


def _piece(
    signature: Signature, name: str, operand: _Operand, extents: Mapping[str, int], found: _Items
) -> Piece:
    """What of a tensor an item touches: all of the axes that items do not count through."""
    view, axes = operand.view, signature.axes[name]
    along = [*found.strides[name]] if REST in axes else [0] * len(found.rest)
    for axis in signature.named:
        stride = found.lane_strides.get(name, 0) if axis == LANES else 0
        along.append(operand.stride(axis) if axis in operand.named else stride)
    inside = [axis for axis in operand.named if axis not in signature.named]
    strides = [operand.stride(axis) for axis in inside]
    return Piece(view.ptr, along, [extents[axis] for axis in inside], strides, view.itemsize)
