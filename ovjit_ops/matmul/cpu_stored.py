"""Base class of the products whose weights stay in the model's stored format, with and without quantized
rows."""

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
    """Scales or zeros: with their factors if they have some, unconverted if not converted yet."""
    return value.stored_array if isinstance(value.stored_array, Factored | Converted) else value.constant


class StoredWeights(TiledMatMul):
    """CompressedMatMul with integers or other codes [depth, outs], scales, and optional zero points."""

    def read_weights(self) -> None:
        integers = self.node.inputs[1].stored_array
        scale, zero = (*(_factor(v) for v in self.node.inputs[2:]), None)[:2]
        assert integers is not None and scale is not None
        self.integers, self.scale, self.zero = integers, scale, zero
        self.depth, self.outs = integers.shape
        self.weight_type = self.data.dtype

    def suits_matrices(self, form: Format) -> bool:
        return False

    def place_arrays(
        self, constants: Constants, arrays: Mapping[str, np.ndarray | Filling | None], *how: Any
    ) -> None:
        """Place the arrays that are not None, packed according to `how`. `offsets` maps the kernel's argument
        names to their offsets."""
        self.offsets = {
            name: constants.add(array, self.of_node(name, *how)).offset
            for name, array in arrays.items()
            if array is not None
        }

    def note_rows(self, constants: Constants, at: int, panel: int, word: int, flip: int = 0) -> None:
        """Record that the panels hold the rows of the model's table, so that gathers of rows can read them.
        `panel`: bytes of a panel; `word`: bytes of a word; `flip`: its bits that the panels have inverted."""
        table, width = self.integers, tile_width(self.target)
        if isinstance(table, Arranged) and table.transposed and len(table.source) == self.outs:
            count, odd = divmod(self.depth * table.dtype.itemsize, word)
            if not odd:
                constants.note_rows(table.source, PackedRows(at, word, count, panel, width, width, flip))

    def bind_constants(self, planner: Planner) -> dict[str, Any]:
        return {name: planner.constants.at(at) for name, at in self.offsets.items()}
