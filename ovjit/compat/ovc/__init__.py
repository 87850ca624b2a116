"""`convert_model`, and `ovc`, the same as a command."""

from ovjit.compat.ovc.convert import convert_model
from ovjit.compat.ovc.telemetry_stub import Telemetry
from ovjit.compat.ovc.telemetry_utils import init_ovc_telemetry, is_keras3, is_optimum, is_torch_compile

#: What others tell events to; it sends nothing.
telemetry = Telemetry()

__all__ = ["convert_model", "init_ovc_telemetry", "is_keras3", "is_optimum", "is_torch_compile", "telemetry"]
