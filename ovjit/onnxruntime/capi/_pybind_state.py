"""The names of ONNX Runtime's native module, in the module that its own Python code imports."""

from ovjit.onnxruntime.capi.onnxruntime_pybind11_state import *  # noqa: F403
from ovjit.onnxruntime.capi.onnxruntime_pybind11_state import __all__ as __all__
