"""Operations that are views: no kernel runs if strides can express the result.

Reshape, Squeeze, Unsqueeze, Transpose, Split, VariadicSplit and Concat; slices are in `cpu_slices`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ovjit.graph.graph import Value
from ovjit.graph.symbolic import alike
from ovjit.planning.lower import Group, Layout, Lowering, Planner, View


class Reshaped(Lowering):
    """The same elements in row-major order with another shape."""

    flexible = True

    def place_outputs(self, planner: Planner) -> None:
        value, out = self.group.last.inputs[0], self.group.last.output
        planner.offer_output(out, value, reshaped=True)
        if out in planner.reader_orders and planner.readers.get(value) == 1:
            parts = split_dims(planner.shape(out), planner.shape(value))
            if parts is not None:
                planner.reader_orders[value] = [axis for a in planner.reader_orders[out] for axis in parts[a]]

    def plan(self, planner: Planner) -> None:
        value, out = self.group.last.inputs[0], self.group.last.output
        source, shape = planner.view(value), planner.shape(out)
        view = source.reshape(shape)
        if view is not None:
            planner.alias_or_copy(out, view)
            return
        target = planner.output(out)
        seen_as_source = target.reshape(source.shape)
        if seen_as_source is not None:
            planner.copy_step(source, seen_as_source, "")
        else:
            planner.copy_step(planner.contiguous(value).as_shape(shape), target, "")


def split_dims(shape: Sequence[int], parts: Sequence[int]) -> list[range] | None:
    """For each dimension of a shape its dimensions in `parts`, of which one is split; None for others."""
    more = len(parts) - len(shape)
    pairs = zip(shape, parts, strict=False)
    split = next((i for i, pair in enumerate(pairs) if not alike(*pair)), len(shape) - 1)
    if more < 0 or not all(map(alike, shape[split + 1 :], parts[split + 1 + more :])):
        return None
    return [range(i + more * (i > split), i + 1 + more * (i >= split)) for i in range(len(shape))]


class Transposed(Lowering):
    """Dimensions in another order."""

    flexible = permutes = True

    def _order(self, planner: Planner) -> Sequence[int]:
        node = self.group.last
        rank = len(planner.shape(node.inputs[0]))
        permutation = planner.types[node.inputs[1]].value if len(node.inputs) > 1 and rank else None
        order: Sequence[int] = [] if permutation is None else permutation.reshape(-1).tolist()
        return order or range(rank)[::-1]

    def place_outputs(self, planner: Planner) -> None:
        source = self.group.last.inputs[0]
        if planner.readers.get(source) == 1:
            planner.reader_orders[source] = self._order(planner)

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        view = planner.view(node.inputs[0])
        planner.alias_or_copy(node.output, view.permute(self._order(planner)))


class Sliced(Lowering):
    """Parts of a tensor along an axis. `parts(planner, group, view)` returns a view for each output."""

    def __init__(self, group: Group, parts: Callable[[Planner, Group, View], Sequence[View]]):
        super().__init__(group)
        self.parts = parts

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """The parts have the layout of the input, without its halo."""
        layout = layouts.get(self.group.last.inputs[0])
        if layout is None:
            return None
        layouts.update((v, Layout(layout.order)) for v in self.group.last.outputs)
        return Layout(layout.order)

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        views = self.parts(planner, self.group, planner.view(node.inputs[0]))
        for value, view in zip(node.outputs, views, strict=True):
            planner.alias_or_copy(value, view)


def split_parts(planner: Planner, group: Group, view: View) -> list[View]:
    """The views of Split and VariadicSplit: consecutive parts along an axis, with the extents of the
    outputs."""
    node = group.last
    axis = int(planner.types[node.inputs[1]].value.reshape(-1)[0]) % len(view.shape)
    start, out = 0, []
    for value in node.outputs:
        size = planner.shape(value)[axis]
        out.append(view.slice(axis, start, size))
        start += size
    return out


class Concatenated(Lowering):
    """Concat: producers write their parts into the result. Parts that cannot be placed there are copied."""

    flexible = True

    def set_up(self) -> None:
        self.axis = int(self.node.attrs["axis"]) % len(self.node.output.shape)

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        orders = [layouts[v].order for v in self.node.inputs if v in layouts]
        return Layout(orders[0]) if orders else None

    def propagate_layouts(self, layouts: dict[Value, Layout]) -> None:
        """Give parts and result, which share a buffer, the widest halo that consumers of a part read."""
        mine = layouts.get(self.node.output)
        if mine is None:
            return
        for value in self.node.inputs:
            part = layouts.get(value)
            if part is not None and part.order == mine.order:
                mine = mine.combine(part)
        halo = list(mine.halo)
        halo[self.axis] = (0, 0)
        layouts[self.node.output] = Layout(mine.order, halo, mine.gap)
        for value in self.node.inputs:
            if value in layouts:
                layouts[value] = Layout(mine.order, halo, mine.gap)

    def place_outputs(self, planner: Planner) -> None:
        result = planner.reserve(self.node.output)
        start = 0
        for value in self.node.inputs:
            size = planner.shape(value)[self.axis]
            if self.node.inputs.count(value) == 1 and not planner.is_fixed(value):
                planner.place_output(value, result.slice(self.axis, start, size))
            start += size

    def plan(self, planner: Planner) -> None:
        start, result = 0, planner.reserve(self.node.output)
        planner.clear_halo(result.buffer)
        for value in self.node.inputs:
            view = planner.view(value)
            part = result.slice(self.axis, start, view.shape[self.axis])
            if view.buffer is not part.buffer or (view.offset, view.strides) != (part.offset, part.strides):
                planner.copy_step(view, part, "")
            start += view.shape[self.axis]
        planner.views[self.node.output] = result


lower_split = partial(Sliced, parts=split_parts)
