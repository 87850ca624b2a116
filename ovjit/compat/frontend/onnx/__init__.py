"""Extensions for the reader of ONNX files."""

from ovjit.compat.frontend.extensions import ConversionExtension, OpExtension

__all__ = ["ConversionExtension", "OpExtension"]
