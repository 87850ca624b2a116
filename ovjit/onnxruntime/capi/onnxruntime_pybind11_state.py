"""The names of ONNX Runtime's native module: exceptions, options, enumerations and values."""

from ovjit.onnxruntime.engine import Engine
from ovjit.onnxruntime.surface import NATIVE, SHARED, import_names
from ovjit.onnxruntime.values import NativeDevice

_NAMES = {**import_names(SHARED, NATIVE), "InferenceSession": Engine, "OrtDevice": NativeDevice}
globals().update(_NAMES)
__all__ = sorted(_NAMES)
