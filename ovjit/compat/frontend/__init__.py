"""Reading models format by format."""

from ovjit.compat.frontend import onnx as onnx
from ovjit.compat.frontend.extensions import (
    ConversionExtension,
    DecoderTransformationExtension,
    NodeContext,
    OpExtension,
    ProgressReporterExtension,
    TelemetryExtension,
)
from ovjit.compat.frontend.failures import (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)
from ovjit.compat.frontend.frontend import FrontEnd, FrontEndManager, InputModel, Place

__all__ = [
    "ConversionExtension", "DecoderTransformationExtension", "FrontEnd", "FrontEndManager", "GeneralFailure",
    "InitializationFailure", "InputModel", "NodeContext", "NotImplementedFailure", "OpConversionFailure",
    "OpExtension", "OpValidationFailure", "Place", "ProgressReporterExtension", "TelemetryExtension",
]  # fmt: skip
