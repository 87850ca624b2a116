"""Lowering: turns each fusion group into an object that can plan its steps for any shapes.

`lower(group)` of an operation's record returns a `Lowering`. It is created once per compilation, declares
its kernels and packs its weights. Its `plan(planner)` is called for every new set of shapes. This module
lowers elementwise groups. A node without a native lowering becomes a host step. Operations import from here
what their lowerings need: the planner, views, and `launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any

import numpy as np

from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.elementwise import NATIVE_TYPES, dimensions_of_rows, elementwise_kernel
from ovjit.errors import ModelError
from ovjit.forks import made_once
from ovjit.graph.graph import Value
from ovjit.graph.shapes import is_static
from ovjit.planning.copies import SHORTEST_ROW, plan_copy, plan_elementwise  # noqa: F401
from ovjit.planning.fuse import Group, is_number, is_undecided
from ovjit.planning.launch import launch, try_launch  # noqa: F401
from ovjit.planning.plan import Constants, NotNative, Planner, ceil_div, element_size, in_place_candidates  # noqa: F401
from ovjit.planning.views import Layout, View, channels_last, product, row_major, row_major_layout  # noqa: F401

#: value -> its shape, which may have dynamic dimensions
Shapes = Callable[[Value], Sequence[Any]]


def place_constants(constants: Constants, values: Iterable[Value]) -> None:
    """Place the constants among `values` in constant memory, unpacked."""
    for value in values:
        if value.constant is not None:
            constants.view(value.constant, value.dtype)


class Lowering:
    """Plans the steps of one group; `lower` of an operation's record returns it. A record may name the `of`
    of a subclass, which checks the types and ranks that the class declares."""

    #: Allowed element types of each input; the last entry covers all further inputs. None: any native type.
    takes: Sequence[Collection[str] | None] = (None,)
    #: Allowed ranks of the first inputs.
    ranks: Sequence[Collection[int]] = ()
    #: The first n inputs are read unpacked if they are constants; None: all inputs.
    constant_inputs: int | None = 0
    #: The kernel that plans call, if there is only one.
    kernel: Any = None
    #: All kernels that plans may call.
    kernels: Any = made_once(lambda self: () if self.kernel is None else (self.kernel,))
    #: Alternatives among `kernels`: a plan calls the one that fits the strides.
    by_strides: Collection[Any] = ()
    #: Whether `pack` depends on how other lowerings have packed the same constant, and so runs after theirs.
    packs_late = False
    #: Inputs that plans may need with a halo, besides those in `input_layouts`.
    pads: Sequence[Value] = ()
    #: True if the output can be written in any layout at the same cost.
    flexible = False
    #: True if plans may have to copy the first input with its axes permuted.
    permutes = False
    #: Results that plans may leave unexpanded, before their elements are repeated: see `Planner.repeat`.
    repeats: Collection[Value] = ()

    def __init__(self, group: Group):
        self.group = group
        self.node = group.node
        self.out = group.last.outputs[0]
        self.set_up()

    @property
    def target(self) -> Target:
        """The target that the kernels are compiled for."""
        return self.group.context.target

    def set_up(self) -> None:
        """Prepare what does not depend on shapes, such as kernels. Raises NotNative if the group must be
        computed by its NumPy reference."""

    @classmethod
    def of(cls, group: Group) -> Lowering | None:
        """The group's lowering. None if an input's type or rank is not among `takes` and `ranks`."""
        inputs = group.node.inputs
        ranked = all(len(v.shape) in ranks for v, ranks in zip(inputs, cls.ranks, strict=False))
        takes = chain(cls.takes, repeat(cls.takes[-1]))
        typed = all(types is None or v.dtype in types for v, types in zip(inputs, takes, strict=False))
        return cls(group) if ranked and typed else None

    def of_node(self, *name: Any) -> tuple[Any, ...]:
        """The key of a packed constant of the node, shared by its lowerings with and without the epilogue.
        `name` identifies the constant and all parameters of its packing besides the class."""
        return self.node, type(self), *name

    def pack(self, constants: Constants) -> None:
        """Place all constants that plans use: by default those among the operands of prologue and epilogue,
        and among the first `constant_inputs` inputs."""
        sources = self.group.sources if self.group.prologue else ()
        inputs = self.node.inputs[: self.constant_inputs]
        place_constants(constants, (*sources, *self.group.operands, *inputs))

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        """Called when all layouts are chosen: make the kernels that depend on layouts."""

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        """Preferred layouts of inputs, most important first. Called when the program is made, and for each
        plan with its concrete shapes."""
        return []

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """The layout in which the output is written most cheaply. None: row-major."""
        return None

    def propagate_layouts(self, layouts: dict[Value, Layout]) -> None:
        """Called in reverse order after all layouts are chosen: a concatenation passes its own to its
        inputs."""

    def place_outputs(self, planner: Planner) -> None:
        """Called in reverse order before planning: a concatenation places its inputs into its own buffer."""

    def fits(self, planner: Planner) -> bool:
        """Whether the kernel supports the strides of the prologue's inputs."""
        return True

    def ways(self, planner: Planner) -> Sequence[Lowering]:
        """The lowerings, in order, that compute the group for the planner's shapes. By default only this
        one."""
        return (self,)

    def plan(self, planner: Planner) -> None:
        """Add the steps for the planner's shapes. Raises NotNative if the reference must compute the node."""
        raise NotImplementedError


class ChannelsLast(Lowering):
    """A lowering that reads `data` and writes `out` in channels-last layout."""

    data: Value

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return [(self.data, channels_last(len(shape(self.data))))]

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return channels_last(len(self.out.shape))


class AsInput(Lowering):
    """A lowering whose output takes the layout of its first input, without halo, if their ranks are equal."""

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        layout, shape = layouts.get(self.node.inputs[0]), self.out.shape
        fits = layout is not None and shape is not None and len(shape) == len(layout.order)
        return Layout(layout.order) if layout is not None and fits else None


class ReferenceStep(Lowering):
    """Runs a node by its NumPy reference. Raises ModelError if the operation has neither a reference nor a
    lowering."""

    def set_up(self) -> None:
        record = self.group.last.op
        if record.ref is None and not record.runs_body:
            raise ModelError(
                f"Unsupported operation of type: {record.name} name: {self.group.last.name}. The operation "
                "has no reference implementation; an operation written in Python needs `evaluate`"
            )

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        inputs = [planner.contiguous(v) for v in node.inputs]
        planner.host_step(node, inputs, [planner.output(v, None) for v in node.outputs])


class Versions(Lowering):
    """Several lowerings of a group or of its parts, from which each plan chooses: see `ways`. The first one's
    inputs get the borders."""

    def __init__(self, group: Group, versions: Sequence[Lowering]):
        super().__init__(group)
        self.versions = tuple(versions)
        self.pads = versions[0].pads

    def pack(self, constants: Constants) -> None:
        for version in self.versions:
            version.pack(constants)

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        for version in self.versions:
            version.finalize(layouts)
        self.kernels = tuple(kernel for version in self.versions for kernel in version.kernels)
        self.by_strides = tuple(kernel for version in self.versions for kernel in version.by_strides)


class MultiVersioned(Versions):
    """A fused lowering, and the lowerings of its group's parts as the fallback.

    A plan uses `fused` if the anchor's output and the group's output have equal shapes, and the kernel
    supports the strides of the prologue's inputs. Otherwise it uses `separate`: separate steps."""

    def __init__(self, fused: Lowering, separate: Sequence[Lowering]):
        super().__init__(fused.group, (fused, *separate))
        self.fused = fused
        self.separate = tuple(separate)
        self.flexible = fused.flexible

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return self.fused.input_layouts(shape)

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return self.fused.output_layout(layouts)

    def propagate_layouts(self, layouts: dict[Value, Layout]) -> None:
        self.fused.propagate_layouts(layouts)

    def ways(self, planner: Planner) -> Sequence[Lowering]:
        same = planner.shape(self.node.output) == planner.shape(self.group.last.output)
        if same and self.fused.fits(planner):
            return self.fused.ways(planner)
        return [way for part in self.separate for way in part.ways(planner)]


class Elementwise(Lowering):
    """A group of elementwise nodes: one kernel. Broadcast operands have strides of 0."""

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
        self.repeat: tuple[Value, ...] = ()

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """The layout of the largest operand."""
        return layout_of_largest(self.inputs, self.rank, layouts)

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        """Make the kernel for the chosen layouts."""
        layout = layouts.get(self.out)
        self.order = layout.order if layout else tuple(range(self.rank))
        self.modes = "".join(operand_mode(v, self.out.shape, self.order) for v in self.inputs)
        outer = dimensions_of_rows(self.rank + (MOST_REPEATED if self.repeat else 0))
        self.kernel = elementwise_kernel(self.name, self.body, self.modes, outer, self.target.is_gpu)

    def plan(self, planner: Planner) -> None:
        shape = planner.shape(self.out)
        if self.repeat and self._plan_repeated(planner, shape):
            return
        read = self.operands(planner)
        outs = self._outputs(planner, in_place_candidates(read))
        if self.rank and (len(outs) > 1 or self._copies_pay(planner, outs[0])):
            read, outs = self._all_adjacent(planner, read, outs)
        views, outs = self._long_rows(planner, [view.expand(shape) for view in read], list(outs))
        self._add_step(planner, views, outs)

    def _add_step(self, planner: Planner, views: Sequence[View], outs: Sequence[View]) -> None:
        assert self.kernel is not None
        plan_elementwise(planner, self.kernel, self.modes, views, outs, len(self.body.lines))

    def _outputs(self, planner: Planner, over: Sequence[View]) -> list[View]:
        """The views of the outputs. Each may overwrite a view of `over`, and no two the same buffer."""
        outs: list[View] = []
        for value in self.group.outputs:
            buffers = {out.buffer for out in outs}
            outs.append(planner.output(value, over=[v for v in over if v.buffer not in buffers]))
        return outs

    def _copies_pay(self, planner: Planner, out: View) -> bool:
        """Whether to copy operands whose layout differs from the output's before the loop. True if the
        program has the blocked transpose kernel, and rows are too long to be gathered as fast."""
        return out.itemsize in planner.may_transpose and out.shape[self.order[-1]] > SHORTEST_ROW

    def _all_adjacent(
        self, planner: Planner, read: Sequence[View], outs: Sequence[View]
    ) -> tuple[list[View], list[View]]:
        """The views, with row-major copies of those whose strides would make the loop gather every operand
        element by element. If all outputs have such strides, nothing is copied."""
        layout, inner = Layout(self.order), self.order[-1:]
        torn = [any(out.strides[a] != out.itemsize and out.shape[a] != 1 for a in inner) for out in outs]
        if all(torn):
            return list(read), list(outs)
        full = [m == "v" and len(v.shape) == self.rank for v, m in zip(self.inputs, self.modes, strict=True)]
        read = [
            planner.with_layout(value, layout) if w else view
            for value, view, w in zip(self.inputs, read, full, strict=True)
        ]
        return read, [planner.instead(o, layout) if t else o for o, t in zip(outs, torn, strict=True)]

    def _plan_repeated(self, planner: Planner, shape: Sequence[int]) -> bool:
        """Add a step that reads inputs before their elements are repeated. False if there is no such input.
        Inputs with other repetitions than the first are expanded in memory."""
        sources: dict[Value, View] = {}
        times: Mapping[int, int] = {}
        for value in self.repeat:
            before = planner.before_repeats(value)
            if before is None or len(before[1]) > MOST_REPEATED or planner.shape(value) != shape:
                continue
            if not sources or before[1] == times:
                sources[value], times = before
        if not sources:
            return False
        others = [planner.view(v) for v in self.inputs if v not in sources]
        outs = self._outputs(planner, in_place_candidates(others, list(sources.values())))
        views = [
            sources[v].repeat(times) if v in sources else planner.view(v).expand(shape).split_axes(times)
            for v in self.inputs
        ]
        self._add_step(planner, views, [out.split_axes(times) for out in outs])
        return True

    def _long_rows(
        self, planner: Planner, views: list[View], outs: list[View]
    ) -> tuple[list[View], list[View]]:
        """The views, with broadcast operands expanded if the loop's rows then get longer.

        Examples are the mean per colour of a channels-last image, and a mask of the pixels of several images.
        Constants are expanded to a row of pixels, others by a copy that is read several times. Only for
        static shapes: a trace cannot record what is expanded as a function of shapes.
        """
        if not is_static(self.out.shape):
            return views, outs
        axes = _fastest_first(outs[0])
        if len(axes) < 2:
            return views, outs
        short, long = axes[:2]
        width, length = outs[0].shape[short], outs[0].shape[long]
        if width >= FEW_CHANNELS or outs[0].strides[long] != width * outs[0].strides[short]:
            return views, outs
        each = zip(self.inputs, views, strict=True)
        if all(view.strides[long] == width * view.strides[short] or is_number(value) for value, view in each):
            return views, outs
        if outs[0].count >= OFTEN * width * length:
            expanded = self._expand_views(planner, views, outs[0])
            if expanded is not None:
                return expanded, outs
        most = min(SHORT_PART // width, length // OFTEN)
        part = next((n for n in range(most, 0, -1) if length % n == 0), 1)
        if width * part < SHORTEST_PART:
            return views, outs
        split = [view.split(long, view.shape[long] // part, part) for view in (*views, *outs)]
        expanded = self._expand_views(planner, split[: len(views)], split[len(views)])
        return (expanded, split[len(views) :]) if expanded is not None else (views, outs)

    def _expand_views(self, planner: Planner, views: list[View], out: View) -> list[View] | None:
        """The views, expanded where the two fastest dimensions of `out` are not one in them. None if one
        cannot be expanded."""
        axes = _fastest_first(out)
        short, long = axes[:2]
        width, length = out.shape[short], out.shape[long]
        ways: list[Callable[[], View] | None] = []
        for value, view in zip(self.inputs, views, strict=True):
            ways.append(None)
            if view.strides[long] != width * view.strides[short] and not is_number(value):
                array = planner.types[value].value if len(out.shape) == self.rank else None
                if not view.strides[long] and array is not None and array.size * length <= LONGEST_CONSTANT:
                    ways[-1] = partial(_materialize, planner, array, value.dtype, out.shape, long, short)
                elif inner := _read_again(view, out, axes):
                    ways[-1] = partial(_copy_expanded, planner, view, out, inner)
                else:
                    return None
        return [view if way is None else way() for view, way in zip(views, ways, strict=True)]

    def operands(self, planner: Planner) -> list[View]:
        """The views of `inputs`, which broadcast to the output's shape by NumPy's rules."""
        return [planner.view(v) for v in self.inputs]


#: Maximum axes along which a kernel repeats elements while it reads them.
MOST_REPEATED = 2
#: Innermost dimensions below this are merged with the next one by expanding constants.
FEW_CHANNELS = 16
#: Maximum elements of an expanded constant.
LONGEST_CONSTANT = 8192


#: Minimum number of times that an expanded operand is read.
OFTEN = 4
#: Maximum and minimum elements of a row that a longer dimension of short rows is cut into.
SHORT_PART, SHORTEST_PART = 1024, 32


def _fastest_first(view: View) -> list[int]:
    """The axes of `view` that are not 1, from the fastest on."""
    return sorted((a for a, d in enumerate(view.shape) if d != 1), key=lambda a: view.strides[a])


def _read_again(view: View, out: View, axes: Sequence[int]) -> Sequence[int]:
    """The axes along which `view` is copied so that the copy is read repeatedly along all others.

    `axes`: those of `out`, the fastest first. The result has the first two and those along which `view`
    varies. It is empty if the copy would be read fewer than OFTEN times."""
    inner = [*axes[:2], *(axis for axis in axes[2:] if view.strides[axis])]
    return inner if product([out.shape[a] for a in inner]) * OFTEN <= out.count else ()


def _copy_expanded(planner: Planner, view: View, out: View, inner: Sequence[int]) -> View:
    """A view of a copy of `view`, expanded along the axes `inner` (the fastest first), in their order."""
    slow = list(reversed(inner))
    result = planner.allocate([out.shape[a] for a in slow], view.itemsize)
    narrow = view.as_strided(result.shape, [view.strides[a] for a in slow])
    planner.copy_step(narrow, result, "a small operand is expanded")
    steps = dict(zip(slow, result.strides, strict=True))
    strides = [steps.get(a, 0) for a in range(len(out.shape))]
    return View(result.buffer, out.shape, strides, view.itemsize, result.offset)


def layout_of_largest(values: Iterable[Value], rank: int, layouts: Mapping[Value, Layout]) -> Layout | None:
    """The layout, without halo, of the first of the largest values that has a layout of this rank. None
    without one, and if an input of the model is larger. Largest are those with the most dimensions that are
    not 1."""
    sizes = {
        v: sum(not isinstance(d, int) or d != 1 for d in v.shape)
        for v in values
        if v.node.op.role == "parameter" or len(getattr(layouts.get(v), "order", ())) == rank
    }
    fitting = (v for v, size in sizes.items() if v in layouts and size == max(sizes.values()))
    largest = next(fitting, None)
    return None if largest is None else Layout(layouts[largest].order)


def innermost_axis(shape: Sequence[Any], order: Sequence[int]) -> int | None:
    """The fastest dimension in this order that is not statically 1. None if all are."""
    return next((axis for axis in reversed(order) if shape[axis] != 1), None)


def operand_mode(value: Value, shape: Sequence[Any], order: Sequence[int]) -> str:
    """Access mode of an operand that broadcasts to `shape`.

    "n" for a constant of one element, "s" (splat) if it is statically broadcast along the innermost
    dimension, else "v" (vector).
    """
    if is_number(value):
        return "n"
    axis = innermost_axis(shape, order)
    lead = len(shape) - len(value.shape)
    return "v" if axis is None or (axis >= lead and value.shape[axis - lead] != 1) else "s"


def _materialize(
    planner: Planner, array: np.ndarray, dtype: str, shape: Sequence[int], long: int, short: int
) -> View:
    """A constant as a view of `shape`, materialised along `long` and `short`; `short` is innermost in
    memory."""
    rank = len(shape)
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    full = [shape[a] if a in (long, short) else array.shape[a] for a in range(rank)]
    order = [a for a in range(rank) if a not in (long, short)] + [long, short]
    lying = np.ascontiguousarray(np.broadcast_to(array, full).transpose(order))
    return planner.data.view(lying, dtype).permute([order.index(a) for a in range(rank)]).expand(shape)


class Aligned(Elementwise):
    """One node whose operands do not broadcast by NumPy's rules. `align` of its record maps their concrete
    shapes to shapes that do."""

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
    """The lowerings of all groups. An anchor without a native lowering is a host step, and its prologue and
    epilogue are lowered as groups of their own."""
    out = [lowering for group in groups for lowering in lower_group(group)]
    if groups and groups[0].context.target.is_gpu:
        out = _for_gpu(out)
    repeats = {value for lowering in out for value in lowering.repeats}
    for lowering in out if repeats else ():
        if type(lowering) is Elementwise and not is_static(lowering.out.shape):
            lowering.repeat = tuple(v for v in lowering.inputs if v in repeats)
    return out


def _for_gpu(lowerings: Sequence[Lowering]) -> list[Lowering]:
    """The lowerings of a GPU: groups with kernels that have no code for it are host steps, node by node."""
    from ovjit.codegen.gpu.supported import has_gpu_code, has_gpu_words

    def has_code(lowering: Lowering) -> bool:
        if isinstance(lowering, Elementwise):  # its kernel depends on layouts
            return has_gpu_words("\n".join(lowering.body.source("")[0]))
        return all(map(has_gpu_code, lowering.kernels))

    out: list[Lowering] = []
    done: set[Any] = set()
    for lowering in lowerings:
        group = lowering.group
        if has_code(lowering):
            done.update(group.nodes)
            out.append(lowering)
            continue
        for node in group.nodes:
            if node not in done:
                done.add(node)
                alone = Group(group.context, None, (node,)) if node.op.scalar else Group(group.context, node)
                out.append(ReferenceStep(alone))
    return out


def lower_group(group: Group) -> list[Lowering]:
    """The lowering of a group, or the lowerings of its parts if the anchor has none for the whole group."""
    if group.anchor is None:
        return [Aligned(group) if is_undecided(group.last) else Elementwise(group)]
    result = _lower_anchor(group)
    if result is not None and group.uniform and not group.prologue:
        return [result]
    if not group.body and not group.prologue:
        return [ReferenceStep(group)]
    separate = [lowering for part in group.parts() for lowering in lower_group(part)]
    return separate if result is None else [MultiVersioned(result, separate)]


def _lower_anchor(group: Group) -> Lowering | None:
    anchor, lower = group.node, group.node.op.lowering()
    native = all(v.dtype in NATIVE_TYPES and v.shape is not None for v in (*anchor.inputs, *anchor.outputs))
    try:
        return lower(group) if lower is not None and native else None
    except NotNative:
        return None


def first_lowering(group: Group, *kinds: type[Lowering]) -> Lowering | None:
    """The lowering of the first of these classes that takes the group and its epilogue; None if none does."""
    for kind in kinds:
        try:
            lowering = kind.of(group)
        except NotNative:
            continue
        if lowering is not None:
            return lowering
    return None
