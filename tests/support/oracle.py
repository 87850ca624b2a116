"""The real OpenVINO as an oracle: a model of its own is written to a file, read by ovjit, and both run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

import ovjit

F32 = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}
_CORE = openvino.Core()


def real_answers(model: openvino.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What OpenVINO's CPU device computes in f32."""
    results = _CORE.compile_model(model, "CPU", F32)(list(inputs))
    return [np.array(results[i]) for i in range(len(model.outputs))]


def our_answers(
    model: openvino.Model, inputs: Sequence[np.ndarray], **config: Any
) -> tuple[list[np.ndarray], set[str]]:
    """What ovjit computes for the same file, and the `exec_type` of every step."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        read = ovjit.Core().read_model(path)
    compiled = ovjit.Core().compile_model(read, "CPU", {"PERF_COUNT": True, **config})
    request = compiled.create_infer_request()
    results = request.infer(list(inputs))
    kinds = {row.exec_type for row in request.get_profiling_info()}
    return [np.array(results[i]) for i in range(len(model.outputs))], kinds


def assert_same(
    model: openvino.Model, inputs: Sequence[np.ndarray], where: str, rtol: float = 3e-5, atol: float = 3e-5
) -> set[str]:
    """Both give the same answers; returns ovjit's `exec_type`s."""
    ours, kinds = our_answers(model, inputs)
    for i, (mine, real) in enumerate(zip(ours, real_answers(model, inputs), strict=True)):
        assert mine.shape == real.shape and mine.dtype == real.dtype, f"{where}: output {i}"
        np.testing.assert_allclose(mine, real, rtol=rtol, atol=atol, err_msg=f"{where}: output {i}")
    return kinds
