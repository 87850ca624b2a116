"""Lowerings of kernels over rows (`ovjit.codegen.template`): their arguments, and where their tensors must
lie.

A row is the elements along some dimensions, adjacent and in one piece; all other dimensions are the rows'.
What fits no kernel's nest is copied first, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.template import DIMS, Finish, Template
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner, in_place_candidates
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import Layout, View, merge_axes, placed_values, product
from ovjit.graph.graph import Value


class RowLowering(Lowering):
    """An operation on the rows of one tensor, and the elementwise body behind it.

    `axes` are the dimensions that make a row; `work` is the arithmetic of an element. `integers(n)` are the
    further integers of the kernel's arguments for rows of n elements.
    """

    work = 8.0

    def __init__(self, group: Group, template: Template, axes: Sequence[int], **constants: Any):
        super().__init__(group)
        anchor = group.node
        self.data: Value = anchor.inputs[0]
        self.axes = tuple(axes)
        body = group.make_body()
        self.operands = group.operands if body is not None else []
        names = "_".join(n.op.name.lower() for n in group.body[:4])
        out = self.out.dtype
        modes = "".join(map(self._mode, self.operands))
        if body is None and out != self.data.dtype:
            body = Body([self.data.dtype], [out], [], ["x0"])
        self.kernel = template.kernel((self.data.dtype, out), Finish(body, modes), names, **constants)
        self.modes = modes

    def _mode(self, value: Value) -> str:
        """ "s" where a row surely has one element of this operand."""
        lead = len(self.out.shape) - len(value.shape)
        return "s" if all(a < lead or value.shape[a - lead] == 1 for a in self.axes) else "v"

    def integers(self, n: int) -> Mapping[str, int]:
        return {"n": n}

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        layout = layouts.get(self.data)
        if layout is None or set(layout.order[-len(self.axes) :]) != set(self.axes):
            return None
        return Layout(layout.order)

    def place_outputs(self, planner: Planner) -> None:
        if self.data not in self.operands:
            planner.offer_output(self.out, self.data)

    def plan(self, planner: Planner) -> None:
        x = planner.view(self.data)
        order = self._order(x)
        # kernels read each element of a row for the last time where they write
        operands = [planner.view(v) for v in self.operands]
        y = planner.output(self.out, Layout(order), in_place_candidates([x], operands))
        operands = [view.expand(y.shape) for view in operands]
        if not y.count or self._plan(planner, order, x, y, operands):
            return
        # rows that are torn apart: everything row by row, the result to where it is wanted
        order = (*(a for a in range(len(x.shape)) if a not in self.axes), *sorted(self.axes))
        layout = Layout(order)
        x = planner.copy(self.data, layout)
        y = planner.instead(y, layout)
        for k, view in enumerate(operands):
            whole = planner.allocate(view.shape, view.itemsize, layout)
            planner.copy_step(view, whole)
            operands[k] = whole
        done = self._plan(planner, order, x, y, operands)
        assert done

    def _order(self, x: View) -> tuple[int, ...]:
        """The order of dimensions in which x lies, rows before what is inside of them."""
        return tuple(sorted(range(len(x.shape)), key=lambda a: (a in self.axes, -abs(x.strides[a]), a)))

    def _plan(
        self, planner: Planner, order: Sequence[int], x: View, y: View, operands: Sequence[View]
    ) -> bool:
        """Add the step; False where a row is not in one piece or the rows' dimensions do not merge."""
        views = (x, y, *operands)
        along = [v for v, mode in zip(views, "vv" + self.modes, strict=True) if mode == "v"]
        inner, steps = merge_axes([a for a in order if a in self.axes], along)
        if len(inner) > 1 or (inner and any(s[0] != v.itemsize for s, v in zip(steps, along, strict=True))):
            return False
        extents, strides = merge_axes([a for a in order if a not in self.axes], views, DIMS)
        if len(extents) > DIMS:
            return False
        n, rows = product(inner), product(extents)
        names = ["x", "y", *(f"e{k}" for k in range(len(operands)))]
        values: dict[str, Any] = {"rows": rows, **self.integers(n)}
        values |= {name: view.ptr for name, view in zip(names, views, strict=True)}
        values |= placed_values(extents, **dict(zip(names, strides, strict=True)))

        def touches(each: int) -> Rows:
            read, written, *more = (
                Piece(v.ptr, outer, (n if mode == "v" else 1,), (v.itemsize,), v.itemsize)
                for v, outer, mode in zip(views, strides, "vv" + self.modes, strict=True)
            )
            return Rows(extents, each, [read, *more], [written])

        work, flops = n * self.work, self.work * y.count
        planner.share_step(self.kernel, values, rows, work, [x, *operands], [y], flops, touches)
        return True
