"""PRelu with slopes of every shape, beside the real OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit


@pytest.mark.parametrize("slope", ["", "1", "1,1", "1,1,3", "1,1,2,1", "3"])
def test_slopes_of_more_dimensions_than_the_data(slope: str) -> None:
    """Leading dimensions of 1 do not change the shape of the result."""
    sides = [int(d) for d in slope.split(",") if d]
    shape = [] if not any(d > 1 for d in sides) else [2, 3]
    x: Any = -np.arange(1, 7, dtype="f4").reshape(2, 3) if shape else np.float32(-3)
    by = np.linspace(0.5, 2, int(np.prod(sides)), dtype="f4").reshape(sides)
    found = []
    for ov in (openvino, ovjit):
        p = ov.opset13.parameter(shape, np.float32)
        model = ov.Model([ov.opset13.prelu(p, by)], [p])
        found.append(ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0])
    assert found[1].shape == tuple(shape)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
