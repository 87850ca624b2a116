"""Shared by the lowerings of control flow: programs of bodies, and plans that run without Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit.errors import ModelError
from ovjit.graph.bodies import retype
from ovjit.graph.graph import Graph, Value
from ovjit.graph.op import TensorType
from ovjit.planning.lower import Lowering, NotNative, Planner, View, row_major
from ovjit.planning.plan import NO_STRIDES, Plan, Strides


class LoweredControl(Lowering):
    """A node with bodies: a control step if the bodies can be planned natively, else a host step."""

    def set_up(self) -> None:
        if self.target.is_gpu:
            raise NotNative
        self.programs: list[Any] = []

    def add_body(self, body: Graph, types: Sequence[TensorType], outputs: Sequence[Value]) -> None:
        """Compile a body for parameters of these types. Raises NotNative if it has state."""
        from ovjit.compiler.program import Program

        graph = self.infer_body(retype, body, types, outputs)
        if graph.has_state:
            raise NotNative
        self.programs.append(Program(graph, self.group.context))
        self.programs[-1].traces = None  # their plans are parts of the outer plan, which has the trace
        self.kernels = tuple(dict.fromkeys((*self.kernels, *self.programs[-1].kernels)))

    def infer_body(self, infer: Callable[..., Any], *args: Any) -> Any:
        """`infer(*args)` on a body. Raises NotNative if the body rejects types: the host raises that error,
        if the body runs."""
        try:
            return infer(*args)
        except ModelError as error:
            raise NotNative from error

    def pack(self, constants: Any) -> None:
        """Places nothing: the bodies' programs have their own constants."""

    def input_types(self, planner: Planner) -> list[TensorType]:
        """The types of the inputs for this plan."""
        pairs = ((v.dtype, planner.types[v]) for v in self.node.inputs)
        return [TensorType(dtype, type.shape, type.value) for dtype, type in pairs]


def plan_body(program: Any, shapes: Sequence[Any], strides: Strides = NO_STRIDES) -> Plan:
    """The plan of a body for these shapes only. Raises NotNative if a part needs Python."""
    inputs, outputs = map(_numbers, (strides.inputs, strides.outputs))
    plan = program.plan([tuple(map(int, s)) for s in shapes], Strides(inputs, outputs))
    if plan.cut is not None or plan.composite is not None or any(s.host is not None for s in plan.steps):
        raise NotNative
    return plan


def _numbers(strides: Mapping[int, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    return {i: tuple(map(int, steps)) for i, steps in strides.items()}


def strides_of(view: View) -> list[int] | None:
    """The view's strides in bytes; None if they are row-major."""
    plain = row_major(view.shape, view.itemsize)
    same = all(d == 1 or a == b for d, a, b in zip(view.shape, view.strides, plain, strict=True))
    return None if same or not view.count else list(view.strides)


def given_view(planner: Planner, value: Value) -> View:
    """The view of a value as input of a body. Negative strides are removed by a copy, since the address of a
    body's input is the start of its memory."""
    view = planner.view(value)
    backwards = any(s < 0 and d > 1 for s, d in zip(view.strides, view.shape, strict=True))
    return planner.contiguous(value) if backwards else view


def work_of(plan: Plan) -> float:
    """The floating-point operations of a plan, for the profile."""
    return sum(step.flops for step in plan.steps)
