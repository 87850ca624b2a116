"""The converter's telemetry functions. `Telemetry` sends nothing."""

from __future__ import annotations

import numbers
import os
import sys
from typing import Any

from ovjit.compat.ovc.cli_parser import get_params_with_paths_list as get_params_with_paths_list
from ovjit.compat.ovc.telemetry_params import telemetry_params
from ovjit.compat.ovc.telemetry_stub import Telemetry
from ovjit.compat.ovc.utils import check_values_equal as check_values_equal


def init_ovc_telemetry(app_name: str = "OVC", app_version: str | None = None) -> Telemetry:
    """A Telemetry, which sends nothing."""
    return Telemetry()


def init_telemetry_class(
    tid: Any, app_name: Any, app_version: Any, backend: Any, enable_opt_in_dialog: Any, disable_in_ci: Any
) -> Telemetry:
    """A Telemetry, which sends nothing."""
    return Telemetry()


def send_framework_info(framework: str) -> None:
    """Nothing is sent."""


def send_conversion_result(conversion_result: str, need_shutdown: bool = False) -> None:
    """Nothing is sent."""


def send_params_info(params: dict[str, Any]) -> None:
    """Nothing is sent."""


def get_tid() -> str:
    """The ID for telemetry: empty, as nothing is sent."""
    return telemetry_params["TID"]


def arg_to_str(arg: Any) -> str:
    """A number, text, shape, type or layout as text; of another object its class."""
    from ovjit import Layout, PartialShape, Shape, Type

    printable = (PartialShape, Shape, Type, Layout, str, numbers.Number)
    return str(arg if isinstance(arg, printable) else type(arg))


def is_optimum() -> bool:
    """Whether optimum-intel or its exporters are calling."""
    return _called_from(("optimum", "intel"), ("optimum", "exporters", "openvino"))


def is_torch_compile() -> bool:
    """Whether torch.compile is calling."""
    return _called_from(("torch", "_dynamo", "backends", "registry.py"))


def is_keras3() -> bool:
    """Whether Keras 3 with its backend for OpenVINO is calling."""
    return _called_from(("keras", "src", "backend", "openvino"))


def _called_from(*suffixes: tuple[str, ...]) -> bool:
    paths = [os.path.join(*suffix) for suffix in suffixes]
    frame = sys._getframe(1) if hasattr(sys, "_getframe") else None
    while frame is not None:
        if any(path in frame.f_code.co_filename for path in paths):
            return True
        frame = frame.f_back
    return False
