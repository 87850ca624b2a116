"""Lowering: each group of nodes becomes an object that can plan its steps for any shapes.

`lower(group)` of an operation's record returns a `Lowering`. It is made once per compilation, prints its
kernels and packs its weights. Its `plan(planner)` is called for every new set of shapes. Groups without an
anchor, copies and fills are lowered here. A node without a native lowering becomes a host step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np

from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.elementwise import NATIVE_TYPES, dimensions_of_rows, elementwise_kernel
from ovjit.errors import ModelError
from ovjit.forks import made_once
from ovjit.graph.graph import Value
from ovjit.graph.shapes import is_static
from ovjit.planning.copies import SHORTEST_ROW
from ovjit.planning.copies import plan_copy as plan_copy
from ovjit.planning.copies import plan_elementwise as plan_elementwise
from ovjit.planning.fuse import Group, is_number, is_undecided
from ovjit.planning.plan import Constants, NotNative, Planner, in_place_candidates
from ovjit.planning.views import Layout, View, channels_last

#: What tells a value's shape, of which dimensions may be open.
Shapes = Callable[[Value], Sequence[Any]]


def place_constants(constants: Constants, values: Iterable[Value]) -> None:
    """Place those of the values that are constants, as they are."""
    for value in values:
        if value.constant is not None:
            constants.view(value.constant, value.dtype)


class Lowering:
    """A group that can plan its steps; `lower` of a record returns one. A record may name `of` of a class,
    which checks the types and ranks that the class declares."""

    #: Element types of the inputs in order, the last one for the rest. None: any native one.
    takes: Sequence[Collection[str] | None] = (None,)
    #: How many dimensions the first inputs may have.
    ranks: Sequence[Collection[int]] = ()
    #: So many of its first inputs are read as they are where they are constants; None: all.
    constant_inputs: int | None = 0
    #: The kernel that its plans call, where there is one.
    kernel: Any = None
    #: All kernels that its plans may call.
    kernels: Any = made_once(lambda self: () if self.kernel is None else (self.kernel,))
    #: Those of them of which the strides that a plan finds choose one.
    by_strides: Collection[Any] = ()
    #: Whether it looks how others have packed a constant before it places that.
    packs_late = False
    #: Inputs that plans may need with a halo, besides those in `input_layouts`.
    pads: Sequence[Value] = ()
    #: True when it can write its output in any layout at the same cost.
    flexible = False
    #: Results that plans may leave as they are before their elements are repeated, see `Planner.repeat`.
    repeats: Collection[Value] = ()

    def __init__(self, group: Group):
        self.group = group
        self.node = group.node
        self.out = group.last.outputs[0]
        self.set_up()

    @property
    def target(self) -> Target:
        """What its kernels are compiled for."""
        return self.group.context.target

    def set_up(self) -> None:
        """Prepare what does not depend on shapes, above all the kernels. Raises NotNative where the reference
        has to compute the group."""

    @classmethod
    def of(cls, group: Group) -> Lowering | None:
        """The group's lowering; None where the inputs have other types or numbers of dimensions."""
        inputs = group.node.inputs
        ranked = all(len(v.shape) in ranks for v, ranks in zip(inputs, cls.ranks, strict=False))
        takes = chain(cls.takes, repeat(cls.takes[-1]))
        typed = all(types is None or v.dtype in types for v, types in zip(inputs, takes, strict=False))
        return cls(group) if ranked and typed else None

    def of_node(self, *name: Any) -> tuple[Any, ...]:
        """The key of what is packed of the node's constants: a lowering with the epilogue and one without it
        share that. `name` says what it is, and what decides how it is packed besides the class."""
        return self.node, type(self), *name

    def pack(self, constants: Constants) -> None:
        """Place all constants that plans will use: by default the operands of front and body, and
        `constant_inputs`."""
        sources = self.group.sources if self.group.front else ()
        inputs = self.node.inputs[: self.constant_inputs]
        place_constants(constants, (*sources, *self.group.operands, *inputs))

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        """Layouts are settled: print the kernels that depend on them."""

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        """Layouts in which this lowering would like its inputs, most important first. Asked when the program
        is made, and for each plan with what open dimensions are then."""
        return []

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """The order of dimensions in which it naturally writes its output; None: row-major."""
        return None

    def propagate_layouts(self, layouts: dict[Value, Layout]) -> None:
        """Called in reverse order when all inputs' layouts are known: pass them on (a concatenation's)."""

    def place_outputs(self, planner: Planner) -> None:
        """Called in reverse order before planning: decide where producers shall write (concatenation)."""

    def fits(self, planner: Planner) -> bool:
        """Whether what the front reads lies so that the kernel can walk it."""
        return True

    def ways(self, planner: Planner) -> Sequence[Lowering]:
        """The lowerings that do the group's work for the planner's shapes, in order: this one."""
        return (self,)

    def plan(self, planner: Planner) -> None:
        """Add the steps for the planner's shapes. Raises NotNative where the reference is to do them."""
        raise NotImplementedError


class ChannelsLast(Lowering):
    """One that reads `data` and writes `out` with the channels of a pixel side by side."""

    data: Value

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return [(self.data, channels_last(len(shape(self.data))))]

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return channels_last(len(self.out.shape))


class AsInput(Lowering):
    """One whose output lies as its first input does, without the halo, where they have as many dimensions."""

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        layout, shape = layouts.get(self.node.inputs[0]), self.out.shape
        fits = layout is not None and shape is not None and len(shape) == len(layout.order)
        return Layout(layout.order) if layout is not None and fits else None


class ReferenceStep(Lowering):
    """A node that runs by its NumPy reference. ModelError for an operation that has none, nor a lowering."""

    def set_up(self) -> None:
        record = self.group.last.op
        if record.ref is None and not record.runs_body:
            raise ModelError(
                f"node {self.group.last.name!r} cannot be run: {record.name} has no reference; one written "
                "in Python needs `evaluate`"
            )

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        inputs = [planner.contiguous(v) for v in node.inputs]
        planner.host_step(node, inputs, [planner.output(v, None) for v in node.outputs])


class MultiVersioned(Lowering):
    """An anchor whose epilogue may broadcast its value, or whose prologue may read strides that the kernel
    does not support. It is fused if an inference's shapes are equal and strides fit, else planned as separate
    steps."""

    def __init__(self, fused: Lowering, apart: Sequence[Lowering]):
        super().__init__(fused.group)
        self.fused = fused
        self.apart = tuple(apart)
        self.flexible = fused.flexible
        self.pads = fused.pads

    @property
    def _all(self) -> tuple[Lowering, ...]:
        return (self.fused, *self.apart)

    def pack(self, constants: Constants) -> None:
        for way in self._all:
            way.pack(constants)

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        for way in self._all:
            way.finalize(layouts)
        self.kernels = tuple(kernel for way in self._all for kernel in way.kernels)
        self.by_strides = tuple(kernel for way in self._all for kernel in way.by_strides)

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return self.fused.input_layouts(shape)

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return self.fused.output_layout(layouts)

    def propagate_layouts(self, layouts: dict[Value, Layout]) -> None:
        self.fused.propagate_layouts(layouts)

    def ways(self, planner: Planner) -> Sequence[Lowering]:
        same = planner.shape(self.node.output) == planner.shape(self.group.last.output)
        if same and self.fused.fits(planner):
            return (self.fused,)
        return [way for part in self.apart for way in part.ways(planner)]


class Elementwise(Lowering):
    """A group of elementwise nodes: one kernel, operands broadcast by strides of 0."""

    flexible = True

    def set_up(self) -> None:
        body = self.group.make_body()
        assert body is not None
        self.body = body
        self.inputs = self.group.operands
        self.rank = len(self.out.shape)
        names = [n.op.name.lower() for n in self.group.body]
        self.name = "_".join(names[:4]) + (f"_{len(names)}" if len(names) > 4 else "") + f"_{self.out.dtype}"
        self.order: tuple[int, ...] = tuple(range(self.rank))
        #: Inputs that may be read before their elements are repeated.
        self.repeated: tuple[Value, ...] = ()

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """As its largest operand lies."""
        return layout_of_largest(self.inputs, self.rank, layouts)

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        """Print the kernel for the layouts that were chosen."""
        layout = layouts.get(self.out)
        self.order = layout.order if layout else tuple(range(self.rank))
        self.modes = "".join(self._mode(v) for v in self.inputs)
        outer = dimensions_of_rows(self.rank + (MOST_REPEATED if self.repeated else 0))
        self.kernel = elementwise_kernel(self.name, self.body, self.modes, outer)

    def _mode(self, value: Value) -> str:
        return operand_mode(value, self.out.shape, self.order)

    def plan(self, planner: Planner) -> None:
        shape = planner.shape(self.out)
        if self.repeated and self._plan_repeated(planner, shape):
            return
        read = self.operands(planner)
        outs = self._outputs(planner, in_place_candidates(read))
        if self.rank and (len(outs) > 1 or self._copies_pay(planner, outs[0])):
            read, outs = self._all_adjacent(planner, read, outs)
        views = self._long_rows(planner, [view.expand(shape) for view in read], outs[0])
        self._add_step(planner, views, outs)

    def _add_step(self, planner: Planner, views: Sequence[View], outs: Sequence[View]) -> None:
        assert self.kernel is not None
        plan_elementwise(planner, self.kernel, self.modes, views, outs, len(self.body.lines))

    def _outputs(self, planner: Planner, over: Sequence[View]) -> list[View]:
        """Where its values are written, each over another one of `over` if over any."""
        outs: list[View] = []
        for value in self.group.outputs:
            taken = {out.buffer for out in outs}
            outs.append(planner.output(value, over=[v for v in over if v.buffer not in taken]))
        return outs

    def _copies_pay(self, planner: Planner, out: View) -> bool:
        """Whether operands that lie otherwise than the only output are copied first: if the program has the
        kernel that transposes in blocks, and rows are not so short that they are gathered as fast."""
        return out.itemsize in planner.may_transpose and out.shape[self.order[-1]] > SHORTEST_ROW

    def _all_adjacent(
        self, planner: Planner, read: Sequence[View], outs: Sequence[View]
    ) -> tuple[list[View], list[View]]:
        """The views, with copies if one of them alone would make the loop gather all of them element by
        element. A group in which all views are such has no better way."""
        layout, inner = Layout(self.order), self.order[-1:]
        torn = [any(out.strides[a] != out.itemsize and out.shape[a] != 1 for a in inner) for out in outs]
        if all(torn):
            return list(read), list(outs)
        whole = [m == "v" and len(v.shape) == self.rank for v, m in zip(self.inputs, self.modes, strict=True)]
        read = [
            planner.with_layout(value, layout) if w else view
            for value, view, w in zip(self.inputs, read, whole, strict=True)
        ]
        return read, [planner.instead(o, layout) if t else o for o, t in zip(outs, torn, strict=True)]

    def _plan_repeated(self, planner: Planner, shape: Sequence[int]) -> bool:
        """Add the step that reads inputs as they are before their elements are repeated; False where none is
        there. Those that are repeated otherwise than the first are made."""
        found: dict[Value, View] = {}
        times: Mapping[int, int] = {}
        for value in self.repeated:
            before = planner.before_repeats(value)
            if before is None or len(before[1]) > MOST_REPEATED or planner.shape(value) != shape:
                continue
            if not found or before[1] == times:
                found[value], times = before
        if not found:
            return False
        others = [planner.view(v) for v in self.inputs if v not in found]
        outs = self._outputs(planner, in_place_candidates(others, list(found.values())))
        views = [
            found[v].repeated(times) if v in found else planner.view(v).expand(shape).parted(times)
            for v in self.inputs
        ]
        self._add_step(planner, views, [out.parted(times) for out in outs])
        return True

    def _long_rows(self, planner: Planner, views: list[View], out: View) -> list[View]:
        """The views, with constants of a few channels expanded to a row of pixels if that makes long rows of
        short ones. An example is the mean of each colour, in an image whose colours are adjacent. Only for
        static shapes: the expanded constant is not a function of a plan's shapes."""
        if not is_static(self.out.shape):
            return views
        axes = sorted((a for a in range(self.rank) if out.shape[a] != 1), key=lambda a: out.strides[a])
        if len(axes) < 2:
            return views
        short, long = axes[:2]
        few, many = out.shape[short], out.shape[long]
        if few >= FEW_CHANNELS or out.strides[long] != few * out.strides[short] or out.count < 4 * few * many:
            return views
        found = []
        for value, view in zip(self.inputs, views, strict=True):
            if view.strides[long] != few * view.strides[short] and not is_number(value):
                known = planner.types[value].value
                if view.strides[long] or known is None or known.size * many > LONGEST_CONSTANT:
                    return views
                view = _written_out(planner, known, value.dtype, out.shape, long, short)
            found.append(view)
        return found

    def operands(self, planner: Planner) -> list[View]:
        """The views of `inputs`, which broadcast to the output's shape by NumPy's rule."""
        return [planner.view(v) for v in self.inputs]


#: Axes along which elements are repeated while they are read, at most.
MOST_REPEATED = 2
#: Dimensions below this are worth joining to the next one.
FEW_CHANNELS = 16
#: Elements that a constant is written out to at most.
LONGEST_CONSTANT = 8192


def layout_of_largest(values: Iterable[Value], rank: int, layouts: Mapping[Value, Layout]) -> Layout | None:
    """The layout of the largest of those that have one of so many dimensions, without its halo."""
    best: tuple[int, Layout] | None = None
    for value in values:
        layout = layouts.get(value)
        if layout is not None and len(layout.order) == rank:
            full = sum(not isinstance(d, int) or d != 1 for d in value.shape)
            if best is None or full > best[0]:
                best = (full, layout)
    return Layout(best[1].order) if best else None


def innermost_axis(shape: Sequence[Any], order: Sequence[int]) -> int | None:
    """The fastest dimension in this order that is not surely 1."""
    return next((axis for axis in reversed(order) if shape[axis] != 1), None)


def operand_mode(value: Value, shape: Sequence[Any], order: Sequence[int]) -> str:
    """How an operand is read that broadcasts to `shape`: "n" for numbers, "s" where the innermost dimension
    is surely one element of it, else "v"."""
    if is_number(value):
        return "n"
    axis = innermost_axis(shape, order)
    lead = len(shape) - len(value.shape)
    return "v" if axis is None or (axis >= lead and value.shape[axis - lead] != 1) else "s"


def _written_out(
    planner: Planner, known: np.ndarray, dtype: str, shape: Sequence[int], long: int, short: int
) -> View:
    """A constant as a view of `shape`, there for every index along `long`, which lies around `short`."""
    rank = len(shape)
    known = known.reshape((1,) * (rank - known.ndim) + known.shape)
    full = [shape[a] if a in (long, short) else known.shape[a] for a in range(rank)]
    order = [a for a in range(rank) if a not in (long, short)] + [long, short]
    lying = np.ascontiguousarray(np.broadcast_to(known, full).transpose(order))
    return planner.data.view(lying, dtype).permute([order.index(a) for a in range(rank)]).expand(shape)


class Aligned(Elementwise):
    """One node whose operands do not broadcast by NumPy's rule: option `align` of its record gives the shapes
    that do, which depend on those of the inference."""

    def operands(self, planner: Planner) -> list[View]:
        node = self.group.last
        assert node.op.align is not None
        shapes = node.op.align(*(planner.shape(v) for v in node.inputs))
        aligned = dict(zip(node.inputs, shapes, strict=True))
        views = []
        for value in self.inputs:
            view = planner.view(value).as_shape(aligned[value])  # only dimensions of 1 are added
            views.append(view)
        return views


def lower_groups(groups: Sequence[Group]) -> list[Lowering]:
    """The native lowering of each group. Where an anchor has none, it is a host step and its body a group."""
    out = [lowering for group in groups for lowering in _lowered(group)]
    repeats = {value for lowering in out for value in lowering.repeats}
    for lowering in out if repeats else ():
        if type(lowering) is Elementwise and not is_static(lowering.out.shape):
            lowering.repeated = tuple(v for v in lowering.inputs if v in repeats)
    return out


def _lowered(group: Group) -> list[Lowering]:
    """The lowering of a group, or those of its parts where the anchor's has none for all of it."""
    if group.anchor is None:
        return [Aligned(group) if is_undecided(group.last) else Elementwise(group)]
    made = _lower_anchor(group)
    if made is not None and group.sure and not group.front:
        return [made]
    if not group.body and not group.front:
        return [ReferenceStep(group)]
    apart = [lowering for part in group.parts() for lowering in _lowered(part)]
    return apart if made is None else [MultiVersioned(made, apart)]


def _lower_anchor(group: Group) -> Lowering | None:
    anchor, lower = group.node, group.node.op.lowering()
    native = all(v.dtype in NATIVE_TYPES and v.shape is not None for v in (*anchor.inputs, *anchor.outputs))
    try:
        return lower(group) if lower is not None and native else None
    except NotNative:
        return None
