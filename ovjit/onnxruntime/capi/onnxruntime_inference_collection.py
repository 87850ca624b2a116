"""The classes that ONNX Runtime defines in Python."""

from ovjit.onnxruntime.surface import PYTHON, import_names

_NAMES = import_names(PYTHON)
globals().update(_NAMES)
__all__ = sorted(_NAMES)
