"""Models that ONNX Runtime has optimised and saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.support.onnx.beside_onnxruntime import by_onnxruntime, by_ovjit
from tests.support.onnx.exported import NETS, STEPS


def saved(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model as ONNX Runtime saves it after the passes that are for any CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "saved.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "saved.onnx")


def check(model: onnx.ModelProto, values: dict[str, np.ndarray], where: str, step: float = 0) -> None:
    """ovjit's answers to the file are ONNX Runtime's."""
    data = model.SerializeToString()
    for mine, other in zip(by_ovjit(data, values, False), by_onnxruntime(data, values), strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape, where
        if mine.dtype.kind == "f" and mine.size:
            tolerance = step or 3e-5 * float(np.abs(other).max())
            np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance, err_msg=where)
        else:
            np.testing.assert_array_equal(mine, other, err_msg=where)


@pytest.mark.parametrize("name", NETS)
def test_networks(name: str, tmp_path: Path) -> None:
    model, values = NETS[name](0)
    check(saved(model, tmp_path), values, name, STEPS.get(name, 0))
