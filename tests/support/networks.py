"""The benchmark's networks for the tests, and the real OpenVINO's answers to compare with."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import openvino

from bench.networks import NAMES, build, network_input

#: The real OpenVINO in f32, on one thread.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}

__all__ = [
    "NAMES", "build", "error", "expected", "expected_of",
    "network_input", "read_with_outputs", "real_core",
]  # fmt: skip


@functools.cache
def real_core() -> openvino.Core:
    return openvino.Core()


@functools.cache
def expected(name: str) -> np.ndarray:
    """What the real OpenVINO makes of `network_input(name)`."""
    return _answers(real_core().compile_model(build(name), "CPU", EXACT), name)[0]


def expected_of(model: openvino.Model, name: str) -> list[np.ndarray]:
    return _answers(real_core().compile_model(model, "CPU", EXACT), name)


def _answers(compiled: openvino.CompiledModel, name: str) -> list[np.ndarray]:
    return [np.array(a) for a in compiled([network_input(name)]).values()]


def read_with_outputs(core: Any, name: str, layers: list[tuple[str, int]]) -> Any:
    """The network as `core` (ovjit's or the real one) reads it, with the outputs (layer, index) added."""
    model = core.read_model(str(build(name)))
    model.add_outputs(layers)
    return model


def error(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference as a share of the largest value wanted. NaN if there is one."""
    assert got.shape == wanted.shape
    return float(np.abs(got.astype(np.float64) - wanted).max() / np.abs(wanted).max())
