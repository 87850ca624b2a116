"""Extensions for Paddle's front end, which ovjit does not have.

Programs that make them for several frameworks run; models of Paddle are not read, and the operators of an
ONNX file are not converted by them.
"""

from __future__ import annotations

from ovjit.compat.frontend import extensions


class ConversionExtension(extensions.ConversionExtension):
    """How an operator of Paddle is converted."""

    framework = "Paddle"


class OpExtension(extensions.OpExtension):
    """An operator of Paddle that is an operation of OpenVINO's."""

    framework = "Paddle"


__all__ = ["ConversionExtension", "OpExtension"]
