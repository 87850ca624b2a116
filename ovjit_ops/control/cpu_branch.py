"""If as a control step: both branches are planned, the runner selects one."""

from __future__ import annotations

from typing import Any

from ovjit.graph.bodies import body_types
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import is_static
from ovjit.planning.plan import NotNative, Planner, Strides
from ovjit.planning.views import FIRST_IO, View, row_major_layout
from ovjit_ops.control.conditions import branch_inputs, branch_of, known_condition
from ovjit_ops.control.cpu_bodies import LoweredControl, given_view, plan_body, strides_of, work_of


class LoweredIf(LoweredControl):
    def set_up(self) -> None:
        super().set_up()
        types = [TensorType(v.dtype, v.shape) for v in self.node.inputs[1:]]
        self.sides = [branch_of(self.node.attrs, chosen) for chosen in (True, False)]
        for body, rows, results in self.sides:
            self.add_body(body, branch_inputs(body, rows, types), [body.outputs[i] for i in results])

    def plan(self, planner: Planner) -> None:
        types = self.input_types(planner)
        truth = known_condition(types[0])
        choices = (True, False) if truth is None else (truth, truth)
        sides = [(self.sides[0 if side else 1], self.programs[0 if side else 1]) for side in choices]
        out_shapes = [planner.shape(v) for v in self.node.outputs]
        for (body, rows, results), _ in sides:
            result_types = self.infer_body(body_types, body, branch_inputs(body, rows, types[1:]))
            shapes = [result_types[i].shape for i in results]
            if not all(map(is_static, shapes)) or shapes != out_shapes:
                raise NotNative
        condition = planner.view(self.node.inputs[0])
        views = [given_view(planner, v) for v in self.node.inputs[1:]]
        placed = {i: planner.placed[v] for i, v in enumerate(self.node.outputs) if v in planner.placed}
        strides = {i: s for i, view in placed.items() if (s := strides_of(view)) is not None}
        plans = [self._plan(side, program, views, strides) for side, program in sides]
        outs = [planner.output(v, row_major_layout(len(planner.shape(v)))) for v in self.node.outputs]
        args: list[Any] = [condition.ptr]
        blocks: list[Any] = []
        for side, _ in sides:
            taken_views = branch_inputs(side[0], side[1], views)
            ends = FIRST_IO + len(taken_views)
            rows = [(FIRST_IO + i, view) for i, view in enumerate(taken_views)]
            rows += [(ends + i, view) for i, view in enumerate(outs)]
            args.append(len(rows))
            for slot, view in rows:
                blocks += [slot, view.ptr]
        args += [0, *blocks]  # the rows begin at B_ROWS
        flops = max(map(work_of, plans))
        planner.control_step("branch", args, plans, [condition, *views], outs, flops=flops)

    def _plan(self, side: Any, program: Any, views: list[View], outputs: dict[int, Any]) -> Any:
        arguments = branch_inputs(side[0], side[1], views)
        inputs = {i: s for i, view in enumerate(arguments) if (s := strides_of(view)) is not None}
        return plan_body(program, [view.shape for view in arguments], Strides(inputs, outputs))
