"""Lowering: each group of nodes becomes an object that can plan its steps for any shapes.

An operation's record says how with `lower(group)`: it returns a `Lowering`, made once per compilation (it
prints its kernels and packs its weights), whose `plan(planner)` is called for every new set of shapes. Groups
without an anchor, copies and fills are lowered here; a node without a native lowering becomes a host step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import SIZE, elementwise_kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.transpose import OUTER, turn_kernel
from ovjit.compiler.fuse import Group, is_number, is_undecided
from ovjit.compiler.plan import Constants, Planner, ceil_div, overwritable, split
from ovjit.compiler.views import Layout, View, merge_dims, product
from ovjit.graph.graph import Value

#: Element types that native kernels know.
NATIVE_TYPES = frozenset(SIZE)


class Lowering:
    """What `lower` of an operation returns. `kernels` are all that its plans may call."""

    kernels: Sequence[Kernel] = ()
    #: Inputs that plans may need with a halo, besides those in `wishes`.
    pads: Sequence[Value] = ()
    #: True when it can write its output in any layout at the same cost.
    flexible = False

    def __init__(self, group: Group):
        self.group = group

    def pack(self, constants: Constants) -> None:
        """Place all constants that plans will use: by default the body's operands."""
        for value in self.group.operands:
            if value.constant is not None:
                constants.view(value.constant, value.dtype)

    def choose(self, layouts: dict[Value, Layout]) -> None:
        """Layouts are settled: print the kernels that depend on them."""

    def wishes(self) -> list[tuple[Value, Layout]]:
        """Layouts in which this lowering would like its inputs, most important first."""
        return []

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        """The order of dimensions in which it naturally writes its output; None: row-major."""
        return None

    def unify(self, layouts: dict[Value, Layout]) -> None:
        """Called in reverse order when all wishes are known: pass them on (a concatenation's parts)."""

    def prepare(self, planner: Planner) -> None:
        """Called in reverse order before planning: decide where producers shall write (concatenation)."""

    def ways(self, planner: Planner) -> Sequence[Lowering]:
        """The lowerings that do the group's work for the planner's shapes, in order: this one."""
        return (self,)

    def plan(self, planner: Planner) -> None:
        raise NotImplementedError


class Host(Lowering):
    """A node that runs by its NumPy reference."""

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        inputs = [planner.contiguous(v) for v in node.inputs]
        planner.host_step(node, inputs, [planner.output(v, None) for v in node.outputs])


class TwoWays(Lowering):
    """An anchor whose epilogue may turn out to broadcast its value: fused where an inference's shapes are
    equal, else the anchor alone and an elementwise step after it."""

    def __init__(self, fused: Lowering, apart: Sequence[Lowering]):
        super().__init__(fused.group)
        self.fused = fused
        self.apart = tuple(apart)
        self.flexible = fused.flexible

    @property
    def _all(self) -> tuple[Lowering, ...]:
        return (self.fused, *self.apart)

    def pack(self, constants: Constants) -> None:
        for way in self._all:
            way.pack(constants)

    def choose(self, layouts: dict[Value, Layout]) -> None:
        for way in self._all:
            way.choose(layouts)
        self.kernels = tuple(kernel for way in self._all for kernel in way.kernels)

    def wishes(self) -> list[tuple[Value, Layout]]:
        return self.fused.wishes()

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        return self.fused.prefers(layouts)

    def unify(self, layouts: dict[Value, Layout]) -> None:
        self.fused.unify(layouts)

    def ways(self, planner: Planner) -> Sequence[Lowering]:
        anchor = self.group.anchor
        assert anchor is not None
        same = planner.shape(anchor.output) == planner.shape(self.group.last.output)
        return (self.fused,) if same else self.apart


class Elementwise(Lowering):
    """A group of elementwise nodes: one kernel, operands broadcast by strides of 0."""

    flexible = True

    def __init__(self, group: Group):
        super().__init__(group)
        body = group.make_body()
        assert body is not None
        self.body = body
        self.inputs = group.operands
        self.out = group.last.output
        self.rank = len(self.out.shape)
        names = [n.op.name.lower() for n in group.body]
        self.name = "_".join(names[:4]) + (f"_{len(names)}" if len(names) > 4 else "") + f"_{self.out.dtype}"
        self.order: tuple[int, ...] = tuple(range(self.rank))
        self.kernel: Kernel | None = None

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        """As its largest operand lies."""
        best: tuple[int, Layout] | None = None
        for value in self.inputs:
            layout = layouts.get(value)
            if layout is not None and len(layout.order) == self.rank:
                full = sum(not isinstance(d, int) or d != 1 for d in value.shape)
                if best is None or full > best[0]:
                    best = (full, layout)
        return Layout(best[1].order) if best else None

    def choose(self, layouts: dict[Value, Layout]) -> None:
        """Print the kernel for the layouts that were chosen."""
        layout = layouts.get(self.out)
        self.order = layout.order if layout else tuple(range(self.rank))
        self.modes = "".join(self._mode(v) for v in self.inputs)
        self.kernel = elementwise_kernel(self.name, self.body, self.modes, max(self.rank - 1, 0))
        self.kernels = (self.kernel,)

    def _mode(self, value: Value) -> str:
        """ "n" for numbers, "s" where the innermost dimension is surely one element of it, else "v"."""
        if is_number(value):
            return "n"
        lead = self.rank - len(value.shape)
        for axis in reversed(self.order):
            extent = self.out.shape[axis]
            if extent == 1:
                continue
            return "s" if axis < lead or value.shape[axis - lead] == 1 else "v"
        return "v"

    def plan(self, planner: Planner) -> None:
        shape = planner.shape(self.out)
        read = self.operands(planner)
        out = planner.output(self.out, over=overwritable(read))
        views = [view.expand(shape) for view in read]
        assert self.kernel is not None
        plan_elementwise(planner, self.kernel, self.modes, views, out, len(self.body.lines))

    def operands(self, planner: Planner) -> list[View]:
        """The views of `inputs`, which broadcast to the output's shape by NumPy's rule."""
        return [planner.view(v) for v in self.inputs]


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
            view = planner.view(value).reshape(aligned[value])
            assert view is not None  # only dimensions of 1 are added
            views.append(view)
        return views


def plan_elementwise(
    planner: Planner, kernel: Kernel, modes: str, inputs: Sequence[View], out: View, operations: int,
    type: str | None = None,
) -> None:  # fmt: skip
    """Add the step of an elementwise kernel: merge dimensions, choose the innermost, cut rows into chunks."""
    if out.count == 0:
        return
    numbers = {f"x{i}p": v.ptr for i, (v, m) in enumerate(zip(inputs, modes, strict=True)) if m == "n"}
    names = [f"x{i}" for i, mode in enumerate(modes) if mode != "n"] + ["y0"]
    views = [*(v for v, mode in zip(inputs, modes, strict=True) if mode != "n"), out]
    wide = modes.replace("n", "") + "v"
    order = sorted(range(len(out.shape)), key=lambda a: (-abs(out.strides[a]), a))
    extents, strides = merge_dims(
        [out.shape[a] for a in order], [[v.strides[a] for a in order] for v in views]
    )
    outer = sum(name.startswith("d") and name[1:].isdigit() for name, _ in kernel.frame.fields)
    sizes = [v.itemsize for v in views]
    if not extents:
        extents, strides = [1], [[size] for size in sizes]
    at = _innermost(extents, strides, sizes, wide)
    inner = extents.pop(at)
    steps = [s.pop(at) for s in strides]
    rows = product(extents)
    work = 1 + operations
    # one long row is cut so that threads can share it
    if len(extents) < outer:
        piece = split(inner, work * 4) // 64 * 64
        if piece and rows * inner > 2 * piece and inner > 2 * piece and inner % piece == 0:
            extents.append(inner // piece)
            for s, step in zip(strides, steps, strict=True):
                s.append(step * piece)
            rows, inner = rows * (inner // piece), piece
    if len(extents) > outer:
        # more dimensions than the kernel has: one step for each index of the slowest
        axis = next(a for a in order if out.shape[a] != 1)
        for i in range(out.shape[axis]):
            parts = [v if m == "n" else v.slice(axis, i, 1) for v, m in zip(inputs, modes, strict=True)]
            plan_elementwise(planner, kernel, modes, parts, out.slice(axis, i, 1), operations, type)
        return
    extents = [1] * (outer - len(extents)) + extents
    strides = [[0] * (outer - len(s)) + s for s in strides]
    wanted = [{"v": size, "s": 0}[m] for m, size in zip(wide, sizes, strict=True)]
    general = any(step != want for step, want in zip(steps, wanted, strict=True)) and inner > 1
    if inner == 1:
        # a row of one element: what "v" reads is right for any stride, "s" too
        general = False
    per_chunk = split(rows, inner * work * (8 if general else 1) * 4)
    values: dict[str, Any] = {"general": general, "n": inner, "rows": rows, "per_chunk": per_chunk, **numbers}
    for i, (name, view) in enumerate(zip(names, views, strict=True)):
        values[f"{name}p"] = view.ptr
        values |= {f"{name}_s{d}": s for d, s in enumerate([*strides[i], steps[i]])}
    values |= {f"d{d}": e for d, e in enumerate(extents)}
    planner.step(kernel, values, ceil_div(rows, per_chunk), inputs, [out], rows * inner * operations, type)


def _innermost(
    extents: Sequence[int], strides: Sequence[Sequence[int]], sizes: Sequence[int], wide: str
) -> int:
    """The dimension that runs in vectors: the last one, unless its short rows are not contiguous anyway."""
    last = len(extents) - 1
    wanted = [{"v": size, "s": 0}[m] for m, size in zip(wide, sizes, strict=True)]
    if extents[last] >= 16 or all(s[last] == w for s, w in zip(strides, wanted, strict=True)):
        return last
    return max(range(len(extents)), key=lambda i: (min(extents[i], 64), i))


_COPY_TYPES = {1: "u8", 2: "i16", 4: "i32", 8: "i64"}
_COPY_RANK = 5


def copy_kernel(itemsize: int) -> Kernel:
    """Copies elements of 1, 2, 4 or 8 bytes between any strides."""
    dtype = _COPY_TYPES[itemsize]
    return elementwise_kernel(f"copy_{dtype}", Body([dtype], [dtype], [], ["x0"]), "v", _COPY_RANK)


def fill_kernel(itemsize: int) -> Kernel:
    """Writes zeros of 1, 2, 4 or 8 bytes."""
    dtype = _COPY_TYPES[itemsize]
    return elementwise_kernel(f"clear_{dtype}", Body([], [dtype], [], [("const", 0, dtype)]), "", 4)


def plan_copy(planner: Planner, source: View, target: View) -> None:
    if not _plan_turn(planner, source, target):
        plan_elementwise(planner, copy_kernel(source.itemsize), "v", [source], target, 1, "Reorder")


#: Dimensions shorter than this are not worth turning in blocks.
SHORTEST_TURN = 3


def _plan_turn(planner: Planner, source: View, target: View) -> bool:
    """Turn in blocks where source and target differ in the adjacent dimension; False where that can't be."""
    if source.itemsize != 4 or not planner.may_turn or not target.count:
        return False
    order = sorted(range(len(target.shape)), key=lambda i: (-abs(target.strides[i]), i))
    extents, (xs, ys) = merge_dims(
        [target.shape[i] for i in order], [[v.strides[i] for i in order] for v in (source, target)]
    )
    if not extents or ys[-1] != 4 or 4 not in xs[:-1] or len(extents) > OUTER + 2:
        return False
    nb, x_b = extents.pop(), xs.pop()
    ys.pop()
    at = xs.index(4)
    na, y_a = extents.pop(at), ys.pop(at)
    xs.pop(at)
    if min(na, nb) < SHORTEST_TURN or x_b == 0:
        return False
    lanes = host_isa().lanes
    blocks = ceil_div(na, lanes)
    items = product(extents) * blocks
    per_chunk = split(items, nb * lanes * 8)
    values: dict[str, Any] = {
        "x": source.ptr, "y": target.ptr, "x_b": x_b, "y_a": y_a, "na": na, "nb": nb, "blocks": blocks,
        "items": items, "per_chunk": per_chunk,
    }  # fmt: skip
    missing = OUTER - len(extents)
    extents, xs, ys = [1] * missing + extents, [0] * missing + xs, [0] * missing + ys
    for d in range(OUTER):
        values |= {f"d{d}": extents[d], f"x_{d}": xs[d], f"y_{d}": ys[d]}
    planner.step(turn_kernel(), values, ceil_div(items, per_chunk), [source], [target], type="Reorder")
    return True


def plan_fill(planner: Planner, view: View) -> None:
    plan_elementwise(planner, fill_kernel(view.itemsize), "", [], view, 1, "Reorder")


def lower_groups(groups: Sequence[Group]) -> list[Lowering]:
    """The native lowering of each group. Where an anchor has none, it is a host step and its body a group."""
    out: list[Lowering] = []
    for group in groups:
        if group.anchor is None:
            out.append(Aligned(group) if is_undecided(group.last) else Elementwise(group))
            continue
        made = _lower_anchor(group)
        apart: list[Lowering] = []
        if made is None or not group.sure:
            alone = group.part(0)
            apart = [(_lower_anchor(alone) if made else None) or Host(alone)]
            apart += [Elementwise(group.part(1))] if group.body else []
        out += apart if made is None else [TwoWays(made, apart) if apart else made]
    return out


def _lower_anchor(group: Group) -> Lowering | None:
    assert group.anchor is not None
    lower = group.anchor.op.lower
    return lower(group) if lower is not None and _native_values(group) else None


def _native_values(group: Group) -> bool:
    anchor = group.anchor
    assert anchor is not None
    values = (*anchor.inputs, *anchor.outputs)
    return all(v.dtype in NATIVE_TYPES and v.shape is not None for v in values)
