"""Native Pad: the producer writes the data into the result, or it is copied. Then the borders are written,
one dimension after the other.

A border may be a view of existing elements: the edge (stride 0) or a mirror image (negative stride).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.elementwise import SIZE, elementwise_kernel
from ovjit.codegen.kernel import Kernel
from ovjit.graph.graph import Value
from ovjit.planning.copies import MOVED
from ovjit.planning.lower import AsInput, Constants, Planner, View, plan_copy, plan_elementwise

#: The default pad value, 0 in each element type.
ZERO = np.zeros(1, np.int64)


def spread_kernel(itemsize: int) -> Kernel:
    """The kernel that fills a view with the element at an address; elements of 1, 2, 4 or 8 bytes."""
    dtype = MOVED[itemsize]
    return elementwise_kernel(f"spread_{dtype}", Body([dtype], [dtype], [], ["x0"]), "s", 4)


class Padded(AsInput):
    """Pad in any mode. With pads that are unknown when shapes are known, the reference runs."""

    flexible = True

    def set_up(self) -> None:
        self.data = self.node.inputs[0]
        self.mode = self.node.attrs["pad_mode"]
        self.value: Value | None = self.node.inputs[3] if len(self.node.inputs) > 3 else None
        if self.mode == "constant":
            self.kernel = spread_kernel(SIZE[self.node.output.dtype])

    def pack(self, constants: Constants) -> None:
        constants.view(ZERO, "i64")
        if self.value is not None and self.value.constant is not None:
            constants.view(self.value.constant, self.value.dtype)

    def place_outputs(self, planner: Planner) -> None:
        """Make the producer write its data directly into the result, in the result's layout. Data that a
        consumer reads with a halo of zeros stay separate."""
        pads = [planner.types[v].value for v in self.node.inputs[1:3]]
        layout = planner.layouts.get(self.data)
        separate = layout is not None and any(map(any, layout.halo))
        if separate or any(p is None for p in pads) or planner.is_fixed(self.data):
            return
        begin, end = (p.reshape(-1).tolist() for p in pads)
        if min((*begin, *end), default=0) < 0 or not any((*begin, *end)):
            return
        inside = planner.reserve(self.node.output)
        for axis, size in enumerate(planner.shape(self.data)):
            inside = inside.slice(axis, begin[axis], size)
        planner.place_output(self.data, inside)

    def plan(self, planner: Planner) -> None:
        node = self.node
        begin, end = (planner.shape_value(v).reshape(-1).tolist() for v in node.inputs[1:3])
        source, out = planner.view(node.inputs[0]), node.output
        if min((*begin, *end), default=0) >= 0:
            result = planner.reserve(out)
            planner.clear_halo(result.buffer)
            self._pad(planner, source, result, begin)
            planner.views[out] = result
            return
        # a border may mirror elements that a negative pad then removes
        grown = [d + max(b, 0) + max(e, 0) for d, b, e in zip(source.shape, begin, end, strict=True)]
        result = planner.allocate(grown, source.itemsize)
        self._pad(planner, source, result, [max(b, 0) for b in begin])
        for axis, size in enumerate(planner.shape(out)):
            result = result.slice(axis, max(0, -begin[axis]), size)
        planner.alias_or_copy(out, result)

    def _pad(self, planner: Planner, source: View, target: View, begin: Sequence[int]) -> None:
        if not target.count:
            return
        if source.count:
            inside = target
            for axis, size in enumerate(source.shape):
                inside = inside.slice(axis, begin[axis], size)
            there = source.buffer is inside.buffer and source.offset == inside.offset
            if not (there and source.strides == inside.strides):
                plan_copy(planner, source, inside)
        constant = self._constant(planner, source.itemsize) if self.mode == "constant" else None
        for axis, n in enumerate(source.shape):
            # earlier dimensions are complete; later ones have no borders yet
            view = target
            for other in range(axis + 1, len(source.shape)):
                view = view.slice(other, begin[other], source.shape[other])
            b = begin[axis]
            e = target.shape[axis] - n - b
            for border, what in (
                (view.slice(axis, 0, b), constant or self._mirror(view, axis, b, b, 0)),
                (view.slice(axis, b + n, e), constant or self._mirror(view, axis, b + n - 1, e, 1)),
            ):
                if not border.count:
                    continue
                if constant is not None:
                    plan_elementwise(planner, self.kernel, "s", [what.expand(border.shape)], [border], 1)
                else:
                    plan_copy(planner, what, border)

    def _mirror(self, view: View, axis: int, edge: int, size: int, after: int) -> View:
        """The view of elements for a border of `size` elements along `axis`, next to the element `edge`.
        `after`: the border follows the data."""
        if self.mode == "edge":
            return view.slice(axis, edge, size, 0)
        skip = 1 if self.mode == "reflect" else 0
        first = edge - skip if after else edge + skip + size - 1
        return view.slice(axis, first, size, -1)

    def _constant(self, planner: Planner, itemsize: int) -> View:
        if self.value is not None:
            return planner.view(self.value)
        zero = planner.constants.view(ZERO, "i64")
        return View(zero.buffer, (), (), itemsize, zero.offset)
