"""Loop and TensorIterator as control steps of the runner.

If the body has the same shapes in each iteration, it is planned once, and the runner repeats the plan. A
sliced input is a view whose address advances. So is a part of a concatenated output. A carried result is
written to two places alternately, or directly to its slot of the concatenation.
"""

from __future__ import annotations

from typing import Any

from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port, axis_of, slice_bounds
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import is_static
from ovjit.planning.plan import NotNative, Planner, Strides, element_size
from ovjit.planning.views import FIRST_IO, Buffer, View, row_major
from ovjit.records import NamedTuple
from ovjit_ops.control.cpu_bodies import LoweredControl, given_view, plan_body, strides_of, work_of
from ovjit_ops.control.ends import check_end, loop_iterations, ports_of

#: Loops with more iterations run on a worker, so that the main thread can receive Ctrl-C.
MANY_ITERATIONS = 1 << 17


class Role(NamedTuple):
    """An output of the body's program: a result and its destination. `port`: the concatenation of which it is
    a part. Otherwise it is written to two places alternately (`swap`), or to one."""

    result: int
    port: Port | None
    swap: bool


class LoweredRepeat(LoweredControl):
    def set_up(self) -> None:
        super().set_up()
        node = self.node
        self.bounded = node.op.name == "BoundedLoop"
        self.is_loop = self.bounded or node.op.name == "Loop"
        self.given_values = node.inputs[:-1] if self.bounded else node.inputs
        self.ends = ports_of(node.attrs, len(self.given_values))
        if self.is_loop:
            check_end([v.type for v in self.given_values], self.ends, f"node {node.name!r} (Loop): ")
        self.inputs = [self._settle(port) for port in self.ends.inputs]
        if any(port.kind == LAST and port.iteration != -1 for port in self.ends.outputs):
            raise NotNative
        types = [TensorType(v.dtype, v.shape) for v in self.given_values]
        feeds, result_types = self.infer_body(self.ends.feeds, types)
        if any(t.shape is None for t in (*feeds, *result_types)):
            raise NotNative
        if self.ends.iteration != -1 and feeds[self.ends.iteration].dtype not in ("i32", "i64"):
            raise NotNative
        body = self.ends.body
        #: The result that is the condition; -1: always true.
        self.again = self.ends.condition
        constant = None if self.again == -1 else body.outputs[self.again].constant
        if constant is not None and constant.all():
            self.again = -1
        self.roles, self.primary = self._roles(result_types)
        self.add_body(body, feeds, [body.outputs[role.result] for role in self.roles])

    def _settle(self, port: Port) -> Port:
        """The port; a value that is carried unchanged becomes invariant."""
        body = self.ends.body
        if port.kind == MERGED and body.outputs[port.back] is body.inputs[port.inner]:
            return port._replace(kind=INVARIANT)
        return port

    def _roles(self, result_types: list[TensorType]) -> tuple[list[Role], dict[int, int]]:
        """(the outputs of the body's program, result -> index of the output, for results that are read after
        an iteration)."""
        ends = self.ends
        carried = {port.back for port in self.inputs if port.kind == MERGED}
        lasts = {port.inner for port in ends.of(LAST)}
        results = carried | lasts | {port.inner for port in ends.outputs}
        if self.again != -1:
            results.add(self.again)
        roles: list[Role] = []
        primary: dict[int, int] = {}
        for r in sorted(results):
            parts = [port for port in ends.of(CONCAT) if port.inner == r]
            main = next((port for port in parts if _leads(port, result_types[r])), None)
            if main is not None or r in carried or r in lasts or r == self.again:
                primary[r] = len(roles)
                roles.append(Role(r, main, main is None and r in carried))
            roles += [Role(r, port, False) for port in parts if port is not main]
        return roles, primary

    def iterations(self, types: list[TensorType]) -> int | None:
        if self.is_loop:
            return loop_iterations(types, self.ends)
        parts = self.ends.slice_iterations([t.shape for t in types])
        return parts if self.ends.of(SLICED) else 1

    def plan(self, planner: Planner) -> None:
        node, ends = self.node, self.ends
        types = self.input_types(planner)[: len(self.given_values)]
        feeds, result_types = self.infer_body(ends.feeds, types)
        if not all(is_static(t.shape) for t in (*feeds, *result_types)):
            raise NotNative
        iterations = self.iterations(types)
        if iterations == 0 or (iterations is None and ends.of(CONCAT) and not self.bounded):
            raise NotNative  # without iterations the body's parts do not exist
        views, strides = self._inputs(planner)
        part_strides = self._part_strides(planner, result_types)
        body = plan_body(self.programs[0], [t.shape for t in feeds], Strides(strides, part_strides))
        outs = planner.row_major_outputs(node)  # NotNative may not be raised from here on

        def step(p: Port, part: View) -> int:
            return p.stride * part.strides[axis_of(p, part.shape)] if p.kind == SLICED else 0

        rows = [
            [FIRST_IO + p.inner, views[p.inner].ptr, step(p, views[p.inner])]
            for p in self.inputs
            if p.kind != MERGED
        ]
        carried = [
            [FIRST_IO + p.inner, views[p.inner].ptr, self.primary[p.back]]
            for p in self.inputs
            if p.kind == MERGED
        ]
        writing, writes = self._writing(planner, outs, result_types, iterations)
        lasts: list[Any] = []
        initial = {p.back: views[p.inner] for p in ends.of(MERGED)}
        for port in ends.of(LAST):
            to, before = outs[port.outer], initial.get(port.inner)
            start = [-1, 0] if before is None else [before.ptr]
            lasts.append([self.primary[port.inner], *start, to.ptr, to.count * to.itemsize])
        numbers = [len(rows), len(carried), len(writing), len(lasts)]
        head, head_reads, head_writes = self._head(planner, types, iterations, numbers)
        args = [*head, *(word for row in (*rows, *carried, *writing, *lasts) for word in row)]
        flops = work_of(body) * (iterations or 1)
        reads, touched = [*views.values(), *head_reads], [*writes, *head_writes, *outs]
        planner.control_step(
            "repeat", args, [body], reads, touched, len(self.roles), flops,
            endless=self._may_be_endless(types, iterations),
        )  # fmt: skip

    def _inputs(self, planner: Planner) -> tuple[dict[int, View], dict[int, Any]]:
        """(views of the body's inputs, with the first part of sliced ones; strides of inputs that are not
        contiguous)."""
        views: dict[int, View] = {}
        strides: dict[int, Any] = {}
        going_round = {port.inner for port in self.ends.of(MERGED)}
        for port in self.inputs:
            value = self.node.inputs[port.outer]
            view = planner.contiguous(value) if port.inner in going_round else given_view(planner, value)
            if port.kind == SLICED:
                view = _part(port, view)
            views[port.inner] = view
            if (steps := strides_of(view)) is not None:
                strides[port.inner] = steps
        return views, strides

    def _part_strides(self, planner: Planner, result_types: list[TensorType]) -> dict[int, Any]:
        """The strides of results that are parts of a concatenated output and not contiguous."""
        wholes = [_row_major(planner, value) for value in self.node.outputs]
        strides = {}
        for k, role in enumerate(self.roles):
            if role.port is not None:
                steps = strides_of(_slot(role.port, wholes[role.port.outer], result_types[role.result], 0))
                if steps is not None:
                    strides[k] = steps
        return strides

    def _writing(
        self, planner: Planner, outs: list[View], result_types: list[TensorType], iterations: int | None
    ) -> tuple[list[Any], list[View]]:
        """The destination of each result of the body, and its memory: a moving part of an output, one place,
        or two alternately."""
        writing: list[Any] = []
        writes: list[View] = []
        lasts = {p.inner: outs[p.outer] for p in reversed(self.ends.of(LAST))}
        for slot, role in enumerate(self.roles, FIRST_IO + len(self.ends.body.inputs)):
            type = result_types[role.result]
            if role.port is not None:
                view = _slot(role.port, outs[role.port.outer], type, iterations or 0)
                axis = axis_of(role.port, view.shape)
                step = view.strides[axis] * view.shape[axis]
                writing.append([slot, view.ptr, -step if role.port.stride < 0 else step, -1, 0])
                continue
            size = element_size(type.dtype)
            here = lasts[role.result] if role.result in lasts else planner.allocate(type.shape, size)
            writes.append(here)
            if not role.swap:
                writing.append([slot, here.ptr, 0, -1, 0])
                continue
            there = planner.allocate(type.shape, size)
            writes.append(there)
            if iterations is not None and iterations % 2 == 0:
                here, there = there, here  # the last iteration writes to the output
            writing.append([slot, here.ptr, 0, there.ptr])
        return writing, writes

    def _may_be_endless(self, types: list[TensorType], iterations: int | None) -> bool:
        """Whether the number of iterations may exceed MANY_ITERATIONS."""
        if iterations is None:
            count = types[0].value
            iterations = -1 if count is None else int(count.reshape(-1)[0])
            if iterations < 0 and self.bounded and self.ends.of(CONCAT):
                return False  # the capacity bounds it
        return not 0 <= iterations <= MANY_ITERATIONS

    def _head(
        self, planner: Planner, types: list[TensorType], iterations: int | None, rows: list[int]
    ) -> tuple[list[Any], list[View], list[View]]:
        """(the arguments from R_COUNT to R_ROWS, the views that they read, the views that they write).
        `rows`: the number of rows of each kind that follow. A pointer is two int64s."""
        ends = self.ends
        reads: list[View] = []
        writes: list[View] = []
        count: list[Any] = [0, -1 if iterations is None else iterations, 0]
        go: list[Any] = [-1, 0]
        if self.is_loop and iterations is None:
            number, condition = (planner.view(v) for v in self.node.inputs[:2])
            count, go = [number.ptr, number.itemsize], [condition.ptr]
            reads += [number, condition]
        parts = ends.slice_iterations([t.shape for t in types])
        limit, strict = (-1 if parts is None else parts), 1
        done: list[Any] = [-1, 0]
        if self.bounded:
            done = [planner.view(self.node.outputs[-1]).ptr]
            room = planner.shape(self.node.inputs[-1])[0]
            if ends.of(CONCAT) and (parts is None or room < parts):
                limit, strict = room, 0
        counter: list[Any] = [-1, 0, 0, 0]
        if ends.iteration != -1:
            size = element_size(ends.body.inputs[ends.iteration].dtype)
            memory = planner.allocate((1,), size)
            writes.append(memory)
            counter = [FIRST_IO + ends.iteration, size, memory.ptr]
        again = -1 if self.again == -1 else self.primary[self.again]
        return [*count, *go, limit, strict, *counter, again, *rows, *done, 0], reads, writes


def _row_major(planner: Planner, value: Any) -> View:
    """A row-major view with an output's shape, in a dummy buffer."""
    shape, size = planner.shape(value), element_size(value.dtype)
    return View(Buffer(0), shape, row_major(shape, size), size)


def _leads(port: Port, type: TensorType) -> bool:
    """Whether the parts of a concatenation are contiguous in memory."""
    axis = axis_of(port, type.shape)
    return all(d == 1 for d in type.shape[:axis])


def _part(port: Port, view: View) -> View:
    """The first part of a sliced input."""
    axis = axis_of(port, view.shape)
    first, _, count = slice_bounds(port, view.shape[axis])
    return view.slice(axis, first if count else 0, port.part_size)


def _slot(port: Port, view: View, part: TensorType, iterations: int) -> View:
    """The place of the first iteration's part of a concatenated output."""
    axis = axis_of(port, view.shape)
    size = part.shape[axis]
    first = (iterations - 1) * size if port.stride < 0 and iterations else 0
    return view.slice(axis, first, size)
