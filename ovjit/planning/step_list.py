"""The steps of a plan, as lowerings add them: calls of kernels, host steps, bodies, copies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.tensors import given_fields
from ovjit.errors import OvjitError
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import Interval
from ovjit.graph.symbolic import sym_max
from ovjit.graph.traced import identity, is_traced_number
from ovjit.planning.chunks import ceil_div, split_for
from ovjit.planning.plan_steps import ControlCall, HostCall, Plan, Probe, Step
from ovjit.planning.touches import Touches, Trace
from ovjit.planning.views import ARENA, Buffer, View, product


class NotNative(Exception):
    """The node must run by its reference. Raised when a lowering is made, or by `plan` before it gets
    outputs."""


Result = TypeVar("Result")


class StepList:
    """Steps for concrete shapes on a target. `types`: value -> (dtype, shape, known value or None)."""

    def __init__(self, types: Mapping[Value, Any], target: Target):
        self.target = target
        self.types = types
        self.steps: list[Step] = []
        self.scratch = 0
        self.open = False  # True for dynamic shapes: then no decision depends on divisors of a dimension
        self.may_transpose: Collection[int] = ()  # element sizes for which the program has a transpose kernel
        self.trace: Trace | None = None  # the record that `check_races` checks
        self.probes: list[Probe] = []  # of a watched program
        self._group: Any = None
        self._why = ""  # the reason of the steps that are added now, if no operation asks for them
        self._shared: dict[tuple, Any] = {}
        self._fitting: dict[tuple, int] = {}  # key of a view that fits its buffer -> bytes of the view

    @property
    def last_is_open(self) -> bool:
        """True if an output of the current group has a dynamic last dimension."""
        outputs = self._group.outputs if self._group else ()
        return any(isinstance(d, Interval) for v in outputs for d in (v.shape or ())[-1:])

    def shape(self, value: Value) -> tuple[int, ...]:
        return self.types[value].shape

    def shape_value(self, value: Value) -> np.ndarray:
        """The elements of a value that follows from shapes. Raises NotNative if they depend on data."""
        array = self.types[value].value
        if array is None:
            raise NotNative
        return array

    def shared(self, key: tuple, make: Callable[[], Result]) -> Result:
        """The result of `make`, which is called once per key and plan."""
        result: Result | None = self._shared.get(key)
        if result is None:
            result = self._shared[key] = make()
        return result

    def step(
        self, kernel: Kernel, values: Mapping[str, Any], chunks: int, reads: Sequence[View] = (),
        writes: Sequence[View] = (), flops: float = 0, type: str | None = None,
        touches: Touches | None = None,
    ) -> None:  # fmt: skip
        """Add a call of `kernel`. `values`: its arguments by name, structures among them. The buffers of
        `reads` and `writes` stay alive until this step.

        `touches`: the bytes that a chunk reads and writes, for the proof that chunks do not race.
        """
        if not is_traced_number(chunks) and chunks <= 0:
            return
        moved = self._uses(reads, writes, touches)
        args = kernel.frame.pack(given_fields(kernel.signature, values))
        self.steps.append(Step(kernel, args, chunks, *self._step_label(type), flops, moved, why=self._why))

    def _step_label(self, type: str | None = None) -> tuple[str, str, tuple[str, ...]]:
        """(name, type, friendly names of the model's nodes) for a step of the current group."""
        group = self._group
        return group.name, type or (group.node.op.name if group.nodes else "Reorder"), group.origins

    def share_step(
        self, kernel: Kernel, values: Mapping[str, Any], items: int, work: float, reads: Sequence[View],
        writes: Sequence[View], flops: float = 0, touches: Callable[[int], Touches] | None = None,
        type: str | None = None, some: bool = False, unit: int | None = None,
    ) -> None:  # fmt: skip
        """Add a call of a kernel whose chunks `share(items, per_chunk)`. `work`: multiply-adds, or bytes, of
        one item. `touches`: items per chunk -> `touches` of `step`. `some`: at least one chunk, even without
        items. `unit`: a chunk has a multiple of this many items."""
        if unit is None:
            per_chunk = split_for(self.target, items, work)
        else:
            per_chunk = unit * split_for(self.target, items // unit, work * unit)
        touched = touches(per_chunk) if touches and self.trace else None
        values = {**values, "per_chunk": per_chunk}
        chunks = ceil_div(items, per_chunk)
        self.step(kernel, values, sym_max(chunks, 1) if some else chunks, reads, writes, flops, type, touched)

    def host_step(self, node: Node, inputs: list[View], outputs: list[View]) -> None:
        """Add a step that runs the node's NumPy reference."""
        self._uses(inputs, outputs)
        self.steps.append(
            Step(None, [], 1, node.name, node.op.name, node.origins, host=HostCall(node, inputs, outputs))
        )

    def control_step(
        self, function: str, args: Sequence[Any], bodies: Sequence[Plan], reads: Sequence[View],
        writes: Sequence[View], room: int = 0, flops: float = 0, endless: bool = False,
    ) -> None:  # fmt: skip
        """Add a step that runs bodies. Its first argument is the index of its record."""
        self._uses(reads, writes)
        number = sum(step.control is not None for step in self.steps)
        call = ControlCall(function, bodies, room, endless)
        self.steps.append(Step(None, [number, *args], 1, *self._step_label(), flops, control=call))

    def need_scratch(self, size: int) -> None:
        self.scratch = sym_max(self.scratch, size)

    def _uses(self, reads: Sequence[View], writes: Sequence[View], touches: Touches | None = None) -> int:
        """Mark the buffers of the next step's views as alive until that step. Returns the views' bytes."""
        if self.trace is not None:
            self.trace.step(reads, writes, touches)
        moved = 0
        for view in (*reads, *writes):
            moved += self._within(view)
            self._touch(view.buffer, len(self.steps))
        return moved

    def _within(self, view: View) -> int:
        """The bytes of the view. Raises OvjitError unless the view, with its halo, is inside of its
        buffer."""
        key = (identity((view.buffer.size, view.offset)), view.identity)
        moved = self._fitting.get(key)
        if moved is not None:  # an equal view of another layer
            return moved
        first, end = view.reach
        # an empty view touches nothing; a traced one also fits when empty, so emptiness needs no guard
        traced = is_traced_number(first) or is_traced_number(end)
        if (traced or first != end) and (first < 0 or end > view.buffer.size):
            raise OvjitError(
                f"internal error: a step of {self._group.name!r} would access the bytes {first} to "
                f"{end} of a buffer of {view.buffer.size}"
            )
        # a dimension with stride 0 repeats the same bytes
        along = zip(view.shape, view.strides, strict=True)
        count = product([n for n, stride in along if type(stride) is not int or stride])
        moved = self._fitting[key] = count * view.itemsize
        return moved

    def _touch(self, buffer: Buffer, step: int) -> None:
        if buffer.base == ARENA:
            if buffer.first < 0:
                buffer.first = step
            buffer.last = step
