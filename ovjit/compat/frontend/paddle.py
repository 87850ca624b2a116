"""Extensions for Paddle's front end.

Programs that make them for several frameworks run. Models of Paddle are read by way of ONNX, whose operators
are not converted by these extensions.
"""

import ovjit.compat.frontend.extensions as extensions


class ConversionExtension(extensions.ConversionExtension):
    """A converter of an operator of Paddle."""

    namespace = None


class OpExtension(extensions.OpExtension):
    """An operator of Paddle that maps to an OpenVINO operation."""

    namespace = None


__all__ = ["ConversionExtension", "OpExtension"]
