"""Random nodes of OpenVINO's opsets: the Parameters and Constants that they are made with.

The real package builds them, `tests/support/opsets/beside_openvino.py` runs both; the modules
`opset_samples_*` have a function for each family.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino.opset13 as o13

from tests.support.onnx.samples import F, Rng, flip, values

Built = tuple[Any, list[tuple[Any, np.ndarray]]]


class Inputs:
    """Parameters that are made, with their values; some are constants instead, some dimensions are open."""

    def __init__(self, rng: Rng):
        self.rng = rng
        self.rows: list[tuple[Any, np.ndarray]] = []
        self.opened = flip(rng, 0.35)

    def __call__(self, value: Any, constant: bool | None = None) -> Any:
        value = np.asarray(value)
        if constant or (constant is None and flip(self.rng, 0.3)):
            return o13.constant(value)
        shape = [-1 if self.opened and flip(self.rng, 0.5) else d for d in value.shape]
        parameter = o13.parameter(openvino.PartialShape(shape), value.dtype)
        self.rows.append((parameter, value))
        return parameter

    def real(self, *shape: int, dtype: Any = F, scale: float = 2.0) -> Any:
        return self(values(self.rng, shape, dtype, scale), False)

    def const(self, value: Any, dtype: Any = None) -> Any:
        return o13.constant(np.asarray(value, dtype))
