"""Matrix products with a constant right-hand side by the tile kernel: rows are pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner
from ovjit.compiler.views import Layout
from ovjit.graph.graph import Value
from ovjit.tiles.lowering import Tiled, tile_format
from ovjit_ops.matmul.cpu_products import lower_product


class TiledMatMul(Tiled):
    """MatMul with a constant right-hand matrix: every row of the left one is a pixel."""

    channel_axis = -1

    def __init__(self, group: Group):
        anchor = group.anchor
        assert anchor is not None
        self.data = anchor.inputs[0]
        self.transposed = bool(anchor.attrs["transpose_a"]) and len(self.data.shape) > 1
        self.group = group
        self.read_weights()
        super().__init__(group, "matmul")

    def read_weights(self) -> None:
        node = self.group.anchor
        assert node is not None
        weights = node.inputs[1].constant
        assert weights is not None
        self.constant = weights
        self.turned = bool(node.attrs["transpose_b"])
        if self.turned:
            weights = weights.swapaxes(-1, -2)
        self.depth, self.outs = weights.shape[-2:]
        self.weight_type = node.inputs[1].dtype

    @property
    def sum_words(self) -> int:
        return self.form.words(self.depth)

    def arranged(self) -> tuple[np.ndarray, Sequence[int], Sequence[int]]:
        return self.constant, self.constant.shape[-2:], (1, 0) if self.turned else (0, 1)

    def rows(self) -> Layout:
        """The left-hand side with adjacent elements along the depth, in whole words."""
        rank = len(self.data.shape)
        halo = [(0, 0)] * rank
        axis = rank - 2 if self.transposed else rank - 1
        halo[axis] = (0, -self.depth % self.form.group)
        return Layout((*(a for a in range(rank) if a != axis), axis), halo)

    def wishes(self) -> list[tuple[Value, Layout]]:
        return [(self.data, self.rows())] if self.depth % self.form.group else []

    def plan(self, planner: Planner) -> None:
        x = planner.with_layout(self.data, self.rows())
        if self.transposed:
            rank = len(x.shape)
            x = x.permute((*range(rank - 2), rank - 1, rank - 2))
        lead = x.shape[:-1]
        y = planner.channels_last_output(self.out, -1)
        missing = 3 - len(lead)  # the leading dimensions stand for N, OH, OW
        images = (1,) * missing + tuple(lead)
        strides = (0,) * missing + x.strides[: len(lead)]
        axes = (None,) * missing + tuple(range(len(lead)))
        taps = (1, 0, 1, 0, self.form.words(self.depth))
        self.emit(planner, x, y, images, strides, axes, taps, 0, self.weights)


def lower_matmul(group: Group) -> Lowering | None:
    """Tiled where the right-hand side is one constant matrix and the left-hand side has 1 to 4 dimensions;
    else packed while running."""
    anchor = group.anchor
    assert anchor is not None
    data, weights = anchor.inputs
    b = weights.constant
    rank = len(data.shape)
    one_matrix = b is not None and b.ndim >= 2 and b.size and b.size == b.shape[-1] * b.shape[-2]
    if (
        not one_matrix
        or not 1 <= rank <= 4
        or len(anchor.output.shape) != rank
        or not tile_format(data, weights)
    ):
        return lower_product(group)
    return TiledMatMul(group)
