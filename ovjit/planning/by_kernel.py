"""The lowering of an operation that is one kernel, derived from the kernel's declaration.

    @kernel(over="... lanes/VL:1", x="... m", y="... n")
    def moving_average(x: Tensor, y: Tensor, window, *, T): ...

    @op("MovingAverage", lower=by_kernel(moving_average, ("f32", "f64")))

The tensors are the node's inputs and then its outputs, in order. Other arguments are the node's attributes of
these names, integers. The constant T is the element type of the first output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ovjit.codegen.function import FunctionKernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import SIZE
from ovjit.codegen.tensors import LANES, REST, Signature
from ovjit.graph.graph import Value
from ovjit.planning.fuse import Group
from ovjit.planning.launch import launch, try_launch
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Planner
from ovjit.planning.views import View, product


def launch_or_copy(
    planner: Planner,
    kernel: Kernel,
    reads: Mapping[str, Value],
    writes: Mapping[str, Value],
    transform: Callable[[View], View] = lambda view: view,
    **options: Any,
) -> None:
    """`launch` for values. `transform` is applied to each view first, to flip or permute it. If strides do
    not fit, the kernel gets row-major copies. No step is added if an output is empty."""
    sources = {name: planner.view(value) for name, value in reads.items()}
    targets = {name: planner.output(value) for name, value in writes.items()}
    if not all(view.count for view in targets.values()):
        return

    views = {name: transform(view) for name, view in (sources | targets).items()}
    if try_launch(planner, kernel, views, tuple(targets), **options):
        return
    sources = {name: planner.contiguous(value) for name, value in reads.items()}
    targets = {name: planner.instead(view) for name, view in targets.items()}
    views = {name: transform(view) for name, view in (sources | targets).items()}
    launch(planner, kernel, views, tuple(targets), **options)


def by_kernel(
    function: FunctionKernel, types: Collection[str], along: str = "axis"
) -> Callable[[Group], Lowering | None]:
    """A record's `lower`, for inputs of these element types. Other types run by the reference.

    `along`: the attribute that selects the dimension of the named axes, in all tensors. Without this
    attribute, axes have the positions of the declaration."""

    def lower(group: Group) -> Lowering | None:
        takes = all(v.dtype in types and v.shape for v in group.node.inputs)
        return ByKernel(group, function, along) if takes else None

    return lower


class ByKernel(Lowering):
    """The lowering that `by_kernel` returns."""

    def __init__(self, group: Group, function: FunctionKernel, along: str):
        assert function.signature is not None
        self.signature: Signature = function.signature
        self.names = [p.name for p in function.arguments]
        self.along = group.node.attrs.get(along)
        self.kernel = function(T=group.last.outputs[0].dtype)
        super().__init__(group)

    def plan(self, planner: Planner) -> None:
        inputs, outputs = self.node.inputs, self.node.outputs
        tensors = [name for name in self.names if name in self.signature.axes]
        reads = dict(zip(tensors, inputs, strict=False))
        writes = dict(zip(tensors[len(inputs) :], outputs, strict=True))
        scalars = {name: self.node.attrs[name] for name in self.names if name not in tensors}
        axes = {}
        if self.along is not None:
            dimension = self.along % len(planner.shape(inputs[0]))
            axes = {a: dimension for name in tensors for a in self._named(name)}
        each = self._bytes(planner, reads | writes, axes)
        launch_or_copy(
            planner, self.kernel, reads, writes, axes=axes, work=lambda lanes, _: each * lanes, **scalars
        )

    def _named(self, tensor: str) -> list[str]:
        """The named axes of a tensor that are not in `over`."""
        return [a for a in self.signature.axes[tensor] if a not in (REST, LANES, *self.signature.over)]

    def _bytes(self, planner: Planner, tensors: Mapping[str, Value], axes: Mapping[str, int]) -> int:
        """Bytes that an item of one lane reads and writes."""
        total = 0
        for name, value in tensors.items():
            declared = [a for a in self.signature.axes[name] if a != LANES]
            shape, extents = planner.shape(value), []
            for axis in self._named(name):
                dimension = declared.index(axis)
                dimension -= len(declared) if REST in declared[:dimension] else 0
                extents.append(shape[axes.get(axis, dimension)])
            total += product(extents) * SIZE[value.dtype]
        return total
