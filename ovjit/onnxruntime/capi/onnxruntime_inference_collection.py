"""The classes that ONNX Runtime defines in Python."""

from __future__ import annotations

from ovjit.onnxruntime.binding import IOBinding
from ovjit.onnxruntime.session import InferenceSession, Session
from ovjit.onnxruntime.values import OrtDevice, OrtDeviceVendorId, OrtValue, copy_tensors

__all__ = [
    "IOBinding", "InferenceSession", "OrtDevice", "OrtDeviceVendorId", "OrtValue", "Session", "copy_tensors",
]  # fmt: skip
