"""Reading models format by format."""

from ovjit.frontend import onnx as onnx
from ovjit.frontend.extensions import (
    ConversionExtension,
    DecoderTransformationExtension,
    NodeContext,
    OpExtension,
    ProgressReporterExtension,
    TelemetryExtension,
)
from ovjit.frontend.failures import (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)
from ovjit.frontend.frontend import FrontEnd, FrontEndManager, InputModel, Place

__all__ = [
    "ConversionExtension", "DecoderTransformationExtension", "FrontEnd", "FrontEndManager", "GeneralFailure",
    "InitializationFailure", "InputModel", "NodeContext", "NotImplementedFailure", "OpConversionFailure",
    "OpExtension", "OpValidationFailure", "Place", "ProgressReporterExtension", "TelemetryExtension",
]  # fmt: skip
