"""Matrix products with a constant right-hand side by the tile kernel; rows are its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ovjit.codegen.cpu.formats import WORD
from ovjit.graph.converted import Converted
from ovjit.graph.graph import Value
from ovjit.graph.shapes import Dim
from ovjit.graph.traced import identity
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, Shapes, place_constants
from ovjit.planning.plan import Constants, Planner
from ovjit.planning.views import Layout, View, row_major
from ovjit.records import NamedTuple
from ovjit.tiles.lowering import Tiled, tile_format
from ovjit.tiles.sharing import Picks, Weights
from ovjit_ops.matmul.cpu_products import lower_product


class Walk(NamedTuple):
    """Neighbouring dimensions merged into one: the last of them, and the extent of all."""

    axis: int
    extent: int


#: (dimensions over which steps are repeated, dimensions of pixels, dimensions of groups)
Walks = tuple[list[Walk], list[Walk], list[Walk]]
#: A missing dimension.
_NONE = Walk(-1, 1)
#: Dimensions of rows in a step: N, OH and OW of a convolution.
_IMAGES = 3


class TiledMatMul(Tiled):
    """MatMul with constant right-hand matrices. Rows of the left side are pixels, right-hand matrices are
    groups. For GatheredMatMul, a group is an index, which selects a matrix."""

    channel_axis = -1

    def __init__(self, group: Group):
        anchor = group.node
        self.data = anchor.inputs[0]
        self.transposed = bool(anchor.attrs["transpose_a"]) and len(self.data.shape) > 1
        self.permutes = self.transposed
        self.group, self.node = group, anchor
        #: Batch dimensions of the right-hand side; for GatheredMatMul, the shape of its indices.
        self.batch: tuple[Dim, ...] = ()
        self.read_weights()
        super().__init__(group, "matmul")

    def read_weights(self) -> None:
        node = self.node
        weights = node.inputs[1].stored_array
        assert isinstance(weights, np.ndarray | Converted)
        self.constant = weights
        self.transposes_weights = bool(node.attrs["transpose_b"])
        *batch, rows, columns = weights.shape
        self.depth, self.outs = (columns, rows) if self.transposes_weights else (rows, columns)
        self.batch, self.groups = tuple(batch), math.prod(batch)
        if len(node.inputs) > 2:
            self.picks = node.inputs[2]
            self.batch = tuple(self.picks.shape)
        self.weight_type = node.inputs[1].dtype

    @property
    def sum_words(self) -> int:
        return self.form.words(self.depth)

    def arrange_weights(self) -> tuple[np.ndarray | Converted, Sequence[int], Sequence[int]]:
        matrix, order = self.constant.shape[-2:], (1, 0) if self.transposes_weights else (0, 1)
        if self.groups == 1:
            return self.constant, matrix, order
        return self.constant, (self.groups, *matrix), (0, *(a + 1 for a in order))

    def takes_lists(self) -> bool:
        return self.groups == 1 and super().takes_lists()

    def _take_bias(self) -> int:
        if self.groups == 1 and self.picks is None:
            return super()._take_bias()
        self.bias = None  # a bias shared by several matrices is an operand
        return 0

    def reach(self) -> np.ndarray | None:
        return super().reach() if self.groups == 1 else None

    def rows(self) -> Layout:
        """The layout of the left-hand side: adjacent elements along the depth, padded to whole words."""
        rank = len(self.data.shape)
        halo = [(0, 0)] * rank
        axis = rank - 2 if self.transposed else rank - 1
        halo[axis] = (0, -self.depth % self.form.group)
        return Layout((*(a for a in range(rank) if a != axis), axis), halo)

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return [(self.data, self.rows())] if self.depth % self.form.group else []

    def plan(self, planner: Planner) -> None:
        x = planner.with_layout(self.data, self.rows())
        y = self._full(planner.channels_last_output(self.out, -1))
        operands = zip(self.operands, self.epilogue.operands, strict=True)
        views = [y, *(self._full(self.operand_view(planner, v, o.kind)) for v, o in operands if not o.shared)]
        lead = y.shape[:-1]
        matrix = self._view_rows(x, lead)
        outer, images, groups = self._walks(planner, lead, [matrix, *views])
        if outer and not x.is_contiguous:
            strides = self.rows().allocate(x.shape, x.itemsize)[1]  # of a copy with the layout `rows`
            flat = View(x.buffer, x.shape, strides, x.itemsize)
            if len(self._walks(planner, lead, [self._view_rows(flat, lead), *views])[0]) < len(outer):
                matrix = self._view_rows(planner.copy(self.data, self.rows()), lead)
                outer, images, groups = self._walks(planner, lead, [matrix, *views])
        walks = [*groups, *[_NONE] * (1 + _IMAGES - len(groups) - len(images)), *images]
        matrices = self._matrices(planner, lead)
        for index in np.ndindex(*(w.extent for w in outer)):

            def part(view: View, index: Sequence[int] = index) -> View:
                """The part of a view for this step: [G, N, OH, OW, ...]. The view has the output's leading
                dimensions."""
                offset = sum(i * view.strides[w.axis] for i, w in zip(index, outer, strict=True))
                shape = (*(w.extent for w in walks), view.shape[-1])
                strides = (*(0 if w is _NONE else view.strides[w.axis] for w in walks), view.strides[-1])
                return View(view.buffer, shape, strides, view.itemsize, view.offset + offset)

            rows, right = part(matrix), part(matrices)
            self.emit(
                planner, rows, part(y), rows.shape[1:-1], rows.strides[1:-1], (1, 2, 3),
                (1, 0, 1, 0, self.form.words(self.depth)), rows.strides[0],
                self._of_groups(planner, right), part=lambda view: part(self._full(view)), group_axis=0,
                more=[right] if self.picks is not None else [],
            )  # fmt: skip

    def _of_groups(self, planner: Planner, right: View) -> Weights:
        """The weights of a step's groups. `right`: its part of `_matrices`."""
        if self.picks is None:
            return self.weights._replace(groups=right.shape[0], at=right.ptr)
        none = planner.constants.at(self.nothing)
        picks = Picks(right.ptr, right.strides[0], self.groups, none)
        return self.weights._replace(groups=right.shape[0], picks=picks)

    def pack(self, constants: Constants) -> None:
        super().pack(constants)
        if self.picks is not None:
            place_constants(constants, [self.picks])
            zeros = np.zeros(self.weights.sizes.panel // WORD, np.int32)
            self.nothing = constants.add(zeros, ("zeros", zeros.size)).offset

    def _full(self, view: View) -> View:
        """The view of the output or an operand as [..., rows, columns]."""
        return view if len(self.data.shape) > 1 else view.insert(len(view.shape) - 1)

    def _view_rows(self, x: View, lead: Sequence[int]) -> View:
        """The view of the left-hand side as [*lead, depth], in place."""
        shape, strides = list(x.shape), list(x.strides)
        if len(shape) == 1:
            shape, strides = [1, *shape], [0, *strides]
        elif self.transposed:
            shape[-2:], strides[-2:] = shape[:-3:-1], strides[:-3:-1]
        missing = len(lead) + 1 - len(shape)
        shape, strides = [1] * missing + shape, [0] * missing + strides
        for axis, extent in enumerate(self._batch(lead)):
            if extent != 1 and shape[axis] == 1:
                strides[axis] = 0
        return x.as_strided((*lead, shape[-1]), strides)

    def _batch(self, lead: Sequence[int]) -> tuple[Dim, ...]:
        """The batch dimensions of the right-hand side, padded with 1 to all of `lead` but the rows."""
        return (1,) * (len(lead) - 1 - len(self.batch)) + self.batch

    def _matrices(self, planner: Planner, lead: Sequence[int]) -> View:
        """A view [*lead, 1] of the beginnings of the matrices' panels, or of their indices."""
        if self.picks is not None:
            named = planner.view(self.picks).expand(lead[:-1])
            return named.as_strided((*lead, 1), (*named.strides, 0, 0))
        at = planner.constants.at(self.weights.at) if isinstance(self.weights.at, int) else self.weights.at
        batch = [d for d in self._batch(lead) if isinstance(d, int)]
        steps = row_major(batch, self.weights.sizes.group)
        strides = [0 if d == 1 else step for d, step in zip(batch, steps, strict=True)]
        return View(at.buffer, (*lead, 1), (*strides, 0, 0), 1, at.offset)

    def _walks(self, planner: Planner, lead: Sequence[int], views: Sequence[View]) -> Walks:
        """Split the leading dimensions into steps, pixels and groups. If they would need several steps,
        neighbouring dimensions with compatible strides in all views are merged."""
        batch = (*self._batch(lead), 1)
        surely = self.out.shape[: len(lead)] if len(self.data.shape) > 1 else (*self.out.shape[:-1], 1)
        axes = tuple([a for a in range(len(lead)) if surely[a] != 1])  # constant in traces
        strides = [identity(v.strides) for v in views]
        key = ("walks", batch, axes, identity(lead), *strides)
        return planner.shared(key, lambda: _walks_of(batch, [Walk(a, lead[a]) for a in axes], views))


def _walks_of(batch: Sequence[Dim], walks: Sequence[Walk], views: Sequence[View]) -> Walks:
    def sorted_out(parts: Sequence[Walk]) -> Walks:
        images = [w for w in parts if batch[w.axis] == 1]
        groups = [w for w in parts if batch[w.axis] != 1]
        outer = max(0, len(images) - _IMAGES)
        return [*images[:outer], *groups[:-1]], images[outer:], groups[-1:]

    result = sorted_out(walks)
    if not result[0]:
        return result
    merged: list[Walk] = []
    for axis, extent in walks:
        last = merged[-1] if merged else None
        together = last is not None and (batch[last.axis] == 1) == (batch[axis] == 1)
        if last and together and all(v.strides[last.axis] == v.strides[axis] * extent for v in views):
            merged[-1] = Walk(axis, last.extent * extent)
        else:
            merged.append(Walk(axis, extent))
    return sorted_out(merged)


def lower_matmul(group: Group) -> Lowering | None:
    """The tiled lowering for constant right-hand matrices; else the right-hand side is packed at run time."""
    anchor = group.node
    data, weights = anchor.inputs[:2]
    b, form = weights.stored_array, tile_format(data, weights, group.context.target)
    if b is None or b.ndim < 2 or not b.size or not data.shape or form is None:
        return lower_product(group) if len(anchor.inputs) == 2 else None
    return TiledMatMul(group)
