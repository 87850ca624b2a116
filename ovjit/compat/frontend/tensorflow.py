"""Extensions for TensorFlow's front end.

Models of TensorFlow are read by way of ONNX. Operators that have an extension pass it unchanged.
"""

import ovjit.compat.frontend.extensions as extensions


class ConversionExtension(extensions.ConversionExtension):
    """A converter of an operator of TensorFlow."""

    namespace = "tensorflow"


class OpExtension(extensions.OpExtension):
    """An operator of TensorFlow that maps to an OpenVINO operation."""

    namespace = "tensorflow"


__all__ = ["ConversionExtension", "OpExtension"]
