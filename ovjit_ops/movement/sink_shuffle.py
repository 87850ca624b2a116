"""ShuffleChannels without a pass over memory.

Two steps remove it. Rewrite rules sink it below channel-wise operations, whose constants are permuted
instead. A 1x1 convolution that reads it adds its products in the shuffled order, by the taps of the tile.
Only other consumers cause a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.codegen.transpose import interleave_kernel, interleave_sizes
from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.shapes import Interval, is_static, normalize_axis
from ovjit.planning.copies import MOST_WOVEN, plan_interleave
from ovjit.planning.lower import Layout, Lowering, Planner, View, element_size
from ovjit.rewrite.pattern import constant, op, operation, value
from ovjit.rewrite.rules import Uses, rule
from ovjit.rewrite.writer import Writer


class Shuffled(Lowering):
    """ShuffleChannels by a deferred copy (`Planner.defer`)."""

    def set_up(self) -> None:
        size, self.groups = element_size(self.group.last.output.dtype), self.group.last.attrs["group"]
        #: With few groups, a kernel interleaves their channels in registers.
        self.weaves = 1 < self.groups <= MOST_WOVEN and size in interleave_sizes(self.target)
        self.kernels = (interleave_kernel(size, self.groups),) if self.weaves else ()

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        out = node.output

        def copy() -> View:
            source = planner.view(node.inputs[0])
            axis = normalize_axis(node.attrs["axis"], len(source.shape))
            groups = node.attrs["group"]
            target = planner.output(out)
            parts = (*source.shape[:axis], groups, source.shape[axis] // groups, *source.shape[axis + 1 :])
            blocks = source.reshape(parts) or planner.contiguous(node.inputs[0]).as_shape(parts)
            if self.weaves and self._interleave(planner, blocks, target, axis):
                return target
            order = list(range(len(parts)))
            order[axis : axis + 2] = axis + 1, axis
            swapped = blocks.permute(order)
            planner.copy_step(swapped, target.as_shape(swapped.shape), "")
            return target

        planner.defer(out, copy, node.inputs[0])

    def _interleave(self, planner: Planner, blocks: View, target: View, axis: int) -> bool:
        """Interleave groups of adjacent channels from `blocks` to `target`. Returns False if their strides
        are not supported."""
        parts = blocks.shape
        shape = (*parts[:axis], parts[axis + 1], parts[axis], *parts[axis + 2 :])
        target_view = target.reshape(shape)
        others = [a for a in range(len(parts)) if a not in (axis, axis + 1)]
        if target_view is None:
            return False
        source = blocks.permute((*others, axis, axis + 1))
        return plan_interleave(planner, source, target_view.permute((*others, axis, axis + 1)))

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return layouts.get(self.group.last.inputs[0])


def channel_shuffle(value: Value) -> int | None:
    """The number of groups if `value` shuffles dimension 1 with a static extent, else None."""
    node = value.node
    if node.op.name != "ShuffleChannels" or value.shape is None or len(value.shape) < 2:
        return None
    if isinstance(value.shape[1], Interval):
        return None
    return node.attrs["group"] if normalize_axis(node.attrs["axis"], len(value.shape)) == 1 else None


_BLOCKS = op.Reshape(value("x"), ...).named("blocks")


@rule(op.Reshape(op.Transpose(_BLOCKS, constant("order")), ...))
def recognize_shuffle(w: Writer, node: Node, x: Value, blocks: Value, order: Value) -> Value | None:
    """Reshape(Transpose(Reshape(x, [N, groups, C / groups, ...]), [0, 2, 1, ...]), [N, C, ...]) ->
    ShuffleChannels(x)

    Only in bf16: a convolution that reads the shuffled channels then adds in another order.
    """
    if w.b.context.options.precision == "f32":
        return None
    shapes = [v.shape for v in (x, blocks, node.output)]
    if not all(shape is not None and is_static(shape) for shape in shapes) or len(shapes[1]) < 4:
        return None
    (batch, channels, *spatial), (n, groups, each, *others), out = shapes
    same_shape = out == x.shape and (n, groups * each, others) == (batch, channels, spatial)
    swaps = order.constant.tolist() == [0, 2, 1, *range(3, len(shapes[1]))]  # type: ignore[union-attr]
    if not (same_shape and swaps) or groups in (1, channels):
        return None
    return w("ShuffleChannels", x, axis=1, group=groups)


def unshuffle(array: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """Reorder constants of the shuffled channels along `axis` to the order of the channels before the
    shuffle."""
    shape = array.shape
    parts = (*shape[:axis], shape[axis] // groups, groups, *shape[axis + 1 :])
    return np.ascontiguousarray(array.reshape(parts).swapaxes(axis, axis + 1).reshape(shape))


@rule(operation(lambda record: record.scalar is not None or record.name == "GroupConvolution")(...))
def sink_shuffle(b: Builder, node: Node, readers: Uses) -> Sequence[Value] | None:
    """f(ShuffleChannels(x)) -> ShuffleChannels(f'(x)) for elementwise and depthwise f"""
    inputs = node.inputs
    at = next((i for i, v in enumerate(inputs) if channel_shuffle(v)), None)
    if at is None or len(node.outputs) != 1 or not readers.single(inputs[at]):
        return None
    shuffled = inputs[at]
    groups, channels, rank = channel_shuffle(shuffled), shuffled.shape[1], len(shuffled.shape)
    assert groups is not None
    if node.output.shape is None or len(node.output.shape) != rank or node.output.shape[1] != channels:
        return None
    new = list(inputs)
    new[at] = shuffled.node.inputs[0]
    if node.op.name == "GroupConvolution":
        weights = inputs[1].constant
        if at != 0 or weights is None or weights.shape[:3] != (channels, 1, 1):
            return None
        new[1] = b.constant(unshuffle(weights, 0, groups))
    else:
        for i, other in enumerate(inputs):
            if i == at:
                continue
            array = other.constant
            if array is None:
                return None
            lead = rank - array.ndim
            if lead <= 1 and array.shape[1 - lead] != 1:
                new[i] = b.constant(unshuffle(array, 1 - lead, groups), other.dtype)
    return b.instead(shuffled.node, b.instead(node, new))
