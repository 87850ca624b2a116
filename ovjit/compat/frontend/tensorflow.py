"""Extensions for TensorFlow's front end, which ovjit does not have.

Programs that make them for several frameworks run; models of TensorFlow are not read, and the operators of an
ONNX file are not converted by them.
"""

from __future__ import annotations

from ovjit.compat.frontend import extensions


class ConversionExtension(extensions.ConversionExtension):
    """How an operator of TensorFlow is converted."""

    framework = "TensorFlow"


class OpExtension(extensions.OpExtension):
    """An operator of TensorFlow that is an operation of OpenVINO's."""

    framework = "TensorFlow"


__all__ = ["ConversionExtension", "OpExtension"]
