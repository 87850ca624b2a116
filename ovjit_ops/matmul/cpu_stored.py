"""Products with weights that are kept as the model stores them: what those with and without quantized rows
share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import Format
from ovjit.graph.converted import Arranged, Converted, Factored
from ovjit.graph.graph import Value
from ovjit.planning.constants import PackedRows
from ovjit.planning.plan import Constants, Filling, Planner
from ovjit.tiles.pack import tile_width
from ovjit_ops.matmul.cpu_matmul import TiledMatMul


def _factor(value: Value) -> Any:
    """Scales or zeros; with their factors if they have some, and not converted yet."""
    return value.stored if isinstance(value.stored, Factored | Converted) else value.constant


class StoredWeights(TiledMatMul):
    """CompressedMatMul: integers or other codes [depth, outs], their scales, and perhaps zero points."""

    def read_weights(self) -> None:
        whole = self.node.inputs[1].stored
        scale, zero = (*(_factor(v) for v in self.node.inputs[2:]), None)[:2]
        assert whole is not None and scale is not None
        self.integers, self.scale, self.zero = whole, scale, zero
        self.depth, self.outs = whole.shape
        self.weight_type = self.data.dtype

    def suits_matrices(self, form: Format) -> bool:
        return False

    def place(
        self, constants: Constants, arrays: Mapping[str, np.ndarray | Filling | None], *how: Any
    ) -> None:
        """Place those that there are, which were packed `how`; `places` says where, by the names that kernels
        have for them."""
        self.places = {
            name: constants.place(array, self.of_node(name, *how)).offset
            for name, array in arrays.items()
            if array is not None
        }

    def note_rows(self, constants: Constants, at: int, panel: int, word: int) -> None:
        """Who takes rows of the model's table finds them in panels of so many bytes."""
        whole, width = self.integers, tile_width(self.target)
        if isinstance(whole, Arranged) and whole.turned and len(whole.source) == self.outs:
            count, rest = divmod(self.depth * whole.dtype.itemsize, word)
            if not rest:
                constants.note_rows(whole.source, PackedRows(at, word, count, panel, width, width))

    def placed(self, planner: Planner) -> dict[str, Any]:
        return {name: planner.constants.at(at) for name, at in self.places.items()}
