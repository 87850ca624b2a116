"""Lowerings of row kernels (`ovjit.codegen.template`): their arguments, and the layouts of their tensors.

A row has the elements along the lowering's axes, contiguous in memory. All other dimensions count rows.
Tensors whose strides a kernel does not support are copied first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.memory import DIMS, SIZE
from ovjit.codegen.row_function import NOTHING, Finish, Start
from ovjit.codegen.template import Template
from ovjit.codegen.trace import WIDENED
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Value
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, layout_of_largest
from ovjit.planning.plan import Constants, NotNative, Planner, in_place_candidates
from ovjit.planning.touches import Piece, Rows
from ovjit.planning.views import Buffer, Layout, View, merge_axes, placed_values, product

#: Maximum instructions of a prologue that is recomputed in each loop over a row. A longer one is not fused.
CHEAP = 3


class RowLowering(Lowering):
    """An operation on the rows of one tensor, with its elementwise prologue and epilogue.

    `axes`: the dimensions of a row. With `groups`, the first of them is split into that many groups, and each
    group is a row. `work`: operations per element. `integers(n)`: further integer arguments of the kernel,
    for rows of n elements. `given`: values of the kernel's numbers and constants.
    """

    work = 8.0

    def __init__(
        self, group: Group, template: Template, axes: Sequence[int], groups: int = 0, **numbers: Any
    ):
        super().__init__(group)
        anchor = group.node
        self.data: Value = anchor.inputs[0]
        self.axes = tuple(axes)
        self.groups = groups
        body, prologue = group.make_body(), group.make_prologue()
        self.sources = group.sources
        self.operands = group.operands if body is not None else []
        before, names = (
            "_".join(n.op.name.lower() for n in nodes[:4]) for nodes in (group.prologue, group.body)
        )
        dtype, out = self.data.dtype, self.out.dtype
        #: Index of the first source that has the shape of `data`.
        self.main = next((k for k, v in enumerate(self.sources) if v.shape == self.data.shape), None)
        self.read, self.modes = ("".join(map(self._mode, values)) for values in (self.sources, self.operands))
        start = NOTHING
        if prologue is None:
            self.read = "v"
        else:
            start = Start(prologue, self.read, out == dtype)
            self.work += len(prologue.lines)
            if self.main is None or (not start.is_stored and len(prologue.lines) > CHEAP):
                raise NotNative
        if body is None and out != dtype:
            body = Body([dtype], [out], [], ["x0"])
        kind = WIDENED.get(dtype, dtype)
        #: name -> (the number as an array, its key in constant memory)
        self.numbers = {
            name: (np.array([numbers[name]], numpy_dtype(kind)), ("number", kind, float(numbers[name])))
            for name in template.numbers
        }
        finish = Finish(body, self.modes)
        self.kernel = template.kernel((dtype, out), finish, names, start, before, **numbers)
        self.names = template.names(finish, start)

    def _mode(self, value: Value) -> str:
        """Access mode of an operand in a row.

        "s" if one element serves the row, "c" if one element serves each index of the row's first dimension,
        else "v".
        """
        lead, first = len(self.out.shape) - len(value.shape), self.axes[0]
        more = [a for a in self.axes if a >= lead and value.shape[a - lead] != 1]
        if not more or (more == [first] and self.groups and self.data.shape[first] == self.groups):
            return "s"
        return "c" if more == [first] and any(self.data.shape[a] != 1 for a in self.axes[1:]) else "v"

    def pack(self, constants: Constants) -> None:
        super().pack(constants)
        for array, key in self.numbers.values():
            constants.add(array, key)

    def integers(self, n: int) -> Mapping[str, int]:
        return {"n": n}

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        layout = layout_of_largest(self.sources, len(self.data.shape), layouts)
        last = layout.order[-len(self.axes) :] if layout is not None else ()
        if layout is None or (last if self.groups else tuple(sorted(last))) != tuple(sorted(self.axes)):
            return None
        return Layout(layout.order)

    def place_outputs(self, planner: Planner) -> None:
        if self.data not in self.operands:
            planner.offer_output(self.out, self.data)

    def _views(self, planner: Planner) -> tuple[list[View], tuple[int, ...]]:
        """Views of the sources, broadcast to the shape of `data`, and the memory order of their
        dimensions."""
        shape = planner.shape(self.data)
        views = [planner.view(v).expand(shape) for v in self.sources]
        return views, self._order(views[self.main or 0])

    def fits(self, planner: Planner) -> bool:
        views, order = self._views(planner)
        _, steps, _ = Layout(order).allocate(views[0].shape, SIZE[self.out.dtype])
        y = View(Buffer(0), views[0].shape, steps, SIZE[self.out.dtype])
        return self._rows(order, (*views, y), self.read + "v") is not None

    def plan(self, planner: Planner) -> None:
        views, order = self._views(planner)
        # in place: a kernel reads an element for the last time when it writes the same index
        operands = [planner.view(v) for v in self.operands]
        y = planner.output(self.out, self._layout(planner, order), in_place_candidates(views, operands))
        operands = [view.expand(y.shape) for view in operands]
        if not y.count or self._plan(planner, order, views, y, operands):
            return
        # rows are not contiguous: copy the inputs row-major, and copy the result if its rows are not either
        order = (*(a for a in range(len(y.shape)) if a not in self.axes), *sorted(self.axes))
        layout = Layout(order)

        def copy(view: View) -> View:
            result = planner.allocate(view.shape, view.itemsize, layout)
            planner.copy_step(view, result, "rows of the kernel are contiguous")
            return result

        views = [planner.copy(self.data, layout)] if not self.group.prologue else list(map(copy, views))
        pairs = zip(operands, self.modes, strict=True)
        operands = [copy(view) if mode == "v" else view for view, mode in pairs]
        if self._plan(planner, order, views, y, operands):
            return
        y = planner.instead(y, layout)
        done = self._plan(planner, order, views, y, list(map(copy, operands)))
        assert done

    def _layout(self, planner: Planner, order: Sequence[int]) -> Layout:
        """The layout of the result: that of its source. Row-major for a model output, if rows are contiguous
        there and the outer dimensions need not be merged."""
        rank = len(order)
        last = set(self.axes) == set(range(rank - len(self.axes), rank))
        row_major = last and rank - len(self.axes) <= DIMS and planner.goes_out(self.out)
        return Layout(range(rank) if row_major else order)

    def _order(self, x: View) -> tuple[int, ...]:
        """The memory order of x's dimensions, with the dimensions of a row last."""
        inside = range(len(x.shape)) if self.groups else ()  # the dimensions of a group keep their order

        def key(a: int) -> tuple[bool, int, int]:
            return a in self.axes, 0 if a in self.axes and inside else -abs(x.strides[a]), a

        return tuple(sorted(range(len(x.shape)), key=key))

    def _rows(
        self, order: Sequence[int], views: Sequence[View], modes: str
    ) -> tuple[int, int, list[int], list[list[int]], list[int]] | None:
        """(elements of a row, elements per index of its first dimension, extents of the outer dimensions,
        strides of each view along those, strides along the first dimension). None if rows are not contiguous,
        or if more than DIMS outer dimensions remain."""
        outer, row = ([a for a in order if (a in self.axes) == inside] for inside in (False, True))
        first = self.axes[0]
        if "c" in modes and row[0] != first:
            return None
        if self.groups:  # dimension a becomes 2a and 2a + 1
            times = {first: views[0].shape[first] // self.groups}
            views = [view.split_axes(times) for view in views]
            outer, row = [2 * a for a in (*outer, first)], [2 * a + (a == first) for a in row]
            first = 2 * first + 1
        along = [v for v, mode in zip(views, modes, strict=True) if mode == "v"]
        inner, steps = merge_axes(row, along)
        if len(inner) > 1 or (inner and any(s[0] != v.itemsize for s, v in zip(steps, along, strict=True))):
            return None
        extents, strides = merge_axes(outer, views, DIMS)
        part = product([views[0].shape[a] for a in row[1:]])
        result = product(inner), part, extents, strides, [v.strides[first] for v in views]
        return None if len(extents) > DIMS else result

    def _plan(
        self, planner: Planner, order: Sequence[int], read: Sequence[View], y: View, operands: Sequence[View]
    ) -> bool:
        """Add the step. False if the kernel does not support the views' strides."""
        views, modes = (*read, y, *operands), self.read + "v" + self.modes
        walk = self._rows(order, views, modes)
        if walk is None:
            return False
        n, part, extents, strides, first_strides = walk
        rows = product(extents)
        values: dict[str, Any] = {"rows": rows, **self.integers(n)}
        values |= {name: planner.constants.add(*number) for name, number in self.numbers.items()}
        values |= {name: view.ptr for name, view in zip(self.names, views, strict=True)}
        values |= placed_values(extents, **dict(zip(self.names, strides, strict=True)))
        if "c" in modes:
            pairs = zip(self.names, modes, first_strides, strict=True)
            values |= {"part": part, **{f"{name}_part": s for name, mode, s in pairs if mode == "c"}}

        def touches(each: int) -> Rows:
            count = {"v": n, "s": 1, "c": n // part if part else 0}
            pieces = [
                Piece(v.ptr, outer, (count[mode],), (v.itemsize if mode == "v" else step,), v.itemsize)
                for v, outer, mode, step in zip(views, strides, modes, first_strides, strict=True)
            ]
            written = pieces.pop(len(read))
            return Rows(extents, each, pieces, [written])

        work, flops = n * self.work, self.work * y.count
        planner.share_step(self.kernel, values, rows, work, [*read, *operands], [y], flops, touches)
        return True
