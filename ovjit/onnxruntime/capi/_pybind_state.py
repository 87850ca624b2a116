"""The names of ONNX Runtime's native module, in the module that its own Python code imports."""

from __future__ import annotations

from ovjit.onnxruntime.capi import onnxruntime_pybind11_state
from ovjit.onnxruntime.capi.onnxruntime_pybind11_state import *  # noqa: F403

__all__ = list(onnxruntime_pybind11_state.__all__)
