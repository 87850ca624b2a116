"""The input of planning: a graph's groups and their lowerings, layouts, kernels, packed constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ovjit import debug
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.transpose import ELEMENTS
from ovjit.compiler.options import Context, Memory
from ovjit.graph.graph import Graph, Value
from ovjit.planning.copies import copy_kernel, halo_kernels, transpose_kernel
from ovjit.planning.fuse import fuse
from ovjit.planning.growing import GrowingAxis, find_growing_axes
from ovjit.planning.lower import Lowering, ReferenceStep, Shapes, lower_groups
from ovjit.planning.plan import Constants, element_size
from ovjit.planning.views import Layout


class LoweredGraph:
    """A graph after all passes, lowered for a target. `interpreted`: each node is a host step."""

    def __init__(self, graph: Graph, context: Context, interpreted: bool, memory: Memory | None = None):
        """`memory`: allocates the bytes of constants."""
        self.context = context
        self.graph = graph
        groups = fuse(self.graph, context, alone=interpreted or debug.skips("fuse"))
        if debug.level() >= debug.GRAPHS:
            debug.show_groups(groups)
        lowered = [ReferenceStep(group) for group in groups] if interpreted else lower_groups(groups)
        self.lowerings: Sequence[Lowering] = lowered
        self.layouts = choose_layouts(self.lowerings, lambda value: value.shape)
        for lowering in self.lowerings:
            lowering.finalize(self.layouts)
        self.constants = Constants()
        #: The offsets of each lowering's constants. Dropped when repeated layers have been searched.
        self._packed = self._pack()
        #: Sizes of the elements that plans may transpose in blocks.
        self.transposed: list[int] = []
        #: The kernels among which a plan chooses by strides.
        self._by_strides: set[Kernel] = set()
        self.kernels = self._list_kernels()
        #: value -> number of groups that read it; a model output counts as one.
        self.readers = Counter(v for low in self.lowerings for v in low.group.inputs)
        self.readers.update(self.graph.outputs)
        for value in self.graph.outputs:
            if value.constant is not None and value.dtype != "string":
                self.constants.view(value.constant, value.dtype)
        self.memory = self.constants.materialize(memory and memory(self.constants.size), in_background=True)

    def _pack(self) -> list[Sequence[int]]:
        """Place the constants of all lowerings. Returns the offsets of each lowering's."""
        packed: list[Sequence[int]] = [()] * len(self.lowerings)
        for index, lowering in sorted(enumerate(self.lowerings), key=lambda each: each[1].packs_late):
            before = len(self.constants.placed_offsets)
            lowering.pack(self.constants)
            packed[index] = self.constants.placed_offsets[before:]
        return packed

    def _list_kernels(self) -> list[Kernel]:
        """The kernels that plans may have steps of."""
        needed = [k for lowering in self.lowerings for k in lowering.kernels]
        used = _list_values(self.graph)
        sizes = sorted({element_size(v.dtype) for v in used})
        needed += map(copy_kernel, sizes)
        by_strides = {kernel for lowering in self.lowerings for kernel in lowering.by_strides}
        surely = set(needed) - by_strides
        needed += [kernel for size in self._halo_sizes() for kernel in halo_kernels(size)]
        # values of rank 2 and less need the blocked kernels only if a node permutes them
        deep = {element_size(v.dtype) for v in used if len(v.shape or ()) > 2}
        deep |= {element_size(low.node.inputs[0].dtype) for low in self.lowerings if low.permutes}
        deep |= {4} if deep and 4 in sizes else set()
        self.transposed = [size for size in ELEMENTS if size in deep]
        needed += (transpose_kernel(size, self.context.target) for size in self.transposed)
        self._by_strides = by_strides.union(needed) - surely
        return list(dict.fromkeys(needed))

    def _halo_sizes(self) -> list[int]:
        """Element sizes of the values that may have a halo, and that of f32."""
        requested = [one for lowering in self.lowerings for one in lowering.input_layouts(lambda v: v.shape)]
        haloed = [v for v, layout in (*self.layouts.items(), *requested) if any(map(any, layout.halo))]
        haloed += [value for lowering in self.lowerings for value in lowering.pads]
        return sorted({4, *(element_size(v.dtype) for v in haloed)})

    def host_nodes(self) -> list[str]:
        """The nodes without a native lowering that plans may have to run, as "name (type)"."""
        nodes = (low.group.last for low in self.lowerings if isinstance(low, ReferenceStep))
        return [f"{n.name} ({n.op.name})" for n in nodes if any(v.type.value is None for v in n.outputs)]

    def growing(self, pairs: Sequence[tuple[int, int]]) -> tuple[GrowingAxis, ...]:
        """The (output, input) `pairs` that can share memory with room to grow."""
        return () if self.context.target.is_gpu else find_growing_axes(self.graph, pairs)


def _list_values(graph: Graph) -> list[Value]:
    """The values that a plan may have to copy."""
    used = [v for v, uses in graph.uses().items() if uses and v.node.op.role != "constant"]
    return [v for v in (*used, *graph.outputs) if v.dtype != "string"]


def choose_layouts(lowerings: Sequence[Lowering], shape: Shapes) -> dict[Value, Layout]:
    """The preferred layout of each value: the one that its producer writes most cheaply, with the halos that
    its consumers read. `shape` gives shapes that may have dynamic dimensions; halos may depend on them.

    A layout is a preference. The planner copies where a view does not fit.
    """
    layouts: dict[Value, Layout] = {}
    for lowering in lowerings:
        preferred = lowering.output_layout(layouts)
        if preferred is not None:
            layouts.update(dict.fromkeys((lowering.group.last.output, *lowering.group.extras), preferred))
    result = {v for lowering in lowerings for v in lowering.group.outputs}
    flexible = {v: low.group for low in lowerings if low.flexible for v in low.group.outputs}
    for lowering in lowerings:
        for value, want in lowering.input_layouts(shape):
            have = layouts.get(value)
            if value not in result:
                continue
            if have is None:
                group = flexible.get(value)
                if group is not None:  # the outputs of one loop have the same order
                    layouts.update(dict.fromkeys(group.outputs if group.extras else (), Layout(want.order)))
                    layouts[value] = want
            elif have.order == want.order:
                layouts[value] = have.combine(want)
    for lowering in reversed(lowerings):
        lowering.propagate_layouts(layouts)
    return layouts
