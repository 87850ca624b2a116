"""Products with weights that are kept as the model stores them: what those with and without quantized rows
share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.compiler.plan import Constants, Planner
from ovjit.compiler.views import View
from ovjit_ops.matmul.cpu_matmul import TiledMatMul


class StoredWeights(TiledMatMul):
    """CompressedMatMul: integers or other codes [depth, outs], their scales, and perhaps zero points."""

    def read_weights(self) -> None:
        constants = [v.constant for v in self.node.inputs[1:]]
        whole, scale, zero = (*constants, None)[:3]
        assert whole is not None and scale is not None
        self.integers, self.scale, self.zero = whole, scale, zero
        self.depth, self.outs = whole.shape
        self.weight_type = self.data.dtype

    def place(self, constants: Constants, arrays: Mapping[str, np.ndarray | None]) -> None:
        """Place those that there are; `places` says where, by the names that kernels have for them."""
        self.places = {
            name: constants.place(array, (self, name)).offset
            for name, array in arrays.items()
            if array is not None
        }

    def placed(self, planner: Planner) -> dict[str, Any]:
        return {name: planner.constants.at(at) for name, at in self.places.items()}

    def operand_rows(self, planner: Planner) -> tuple[dict[str, Any], list[View]]:
        """Addresses of the epilogue's operands, and the bytes from row to row of those that have rows."""
        values: dict[str, Any] = {}
        reads = []
        for i, (value, operand) in enumerate(zip(self.operands, self.epilogue.operands, strict=True)):
            view = self.operand_view(planner, value, operand.kind)
            if not operand.shared:
                step = row_step(view)
                if step is None:
                    flat = planner.allocate(view.shape, view.itemsize)
                    planner.copy_step(view, flat)
                    view, step = flat, flat.shape[-1] * flat.itemsize
                values[f"e{i}_w"] = step
            values[f"e{i}"] = view.ptr
            reads.append(view)
        return values, reads


def row_step(view: View) -> int | None:
    """The bytes from a row of the last dimension to the next, None where they are not the same everywhere."""
    step: int | None = None
    whole = 0  # the bytes that all dimensions so far go over
    for extent, stride in zip(reversed(view.shape[:-1]), reversed(view.strides[:-1]), strict=True):
        if extent == 1:
            continue
        if step is None:
            step = stride
        elif stride != whole:
            return None
        whole = stride * extent
    return 0 if step is None else step
