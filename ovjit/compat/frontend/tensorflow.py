"""Extensions for TensorFlow's front end.

Programs that make them for several frameworks run. Models of TensorFlow are read by way of ONNX, whose
operators are not converted by these extensions.
"""

from __future__ import annotations

import ovjit.compat.frontend.extensions as extensions


class ConversionExtension(extensions.ConversionExtension):
    """How an operator of TensorFlow is converted."""

    framework = "TensorFlow"


class OpExtension(extensions.OpExtension):
    """An operator of TensorFlow that is an operation of OpenVINO's."""

    framework = "TensorFlow"


__all__ = ["ConversionExtension", "OpExtension"]
