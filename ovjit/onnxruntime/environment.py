"""The functions of the module onnxruntime: versions, logging, and other devices."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ovjit.errors import arguments_error
from ovjit.onnxruntime.failures import STATE, refuse
from ovjit.version import ONNXRUNTIME
from ovjit.version import __version__ as ovjit_version

_INTEGER = "typing.SupportsInt | typing.SupportsIndex"
#: ONNX Runtime's severity -> Python's level.
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_logger = logging.getLogger("ovjit")


def _checked_integer(function: str, value: Any) -> int:
    if not hasattr(value, "__index__"):
        why = f"an int is needed, not {type(value).__name__}"
        raise arguments_error(function, "function", [f"arg0: {_INTEGER}"], [value], {}, why)
    return int(value)


def get_device() -> str:
    return "CPU"


def get_version_string() -> str:
    return ONNXRUNTIME


def get_build_info() -> str:
    return f"ORT Build Info: ovjit {ovjit_version}, with the Python API of onnxruntime {ONNXRUNTIME}"


def has_collective_ops() -> bool:
    return False


def set_seed(seed: int, /) -> None:
    """Accept a seed. Random operators without a seed of their own draw new numbers in each session."""
    _checked_integer("set_seed", seed)


def set_default_logger_severity(severity: int, /) -> None:
    """Set the level of the logger `ovjit`: 0 debug, 1 info, 2 warning, 3 error, 4 critical."""
    number = _checked_integer("set_default_logger_severity", severity)
    if not 0 <= number < len(_LEVELS):
        raise RuntimeError("Invalid logging severity. 0:Verbose, 1:Info, 2:Warning, 3:Error, 4:Fatal")
    _logger.setLevel(_LEVELS[number])


def set_default_logger_verbosity(verbosity: int, /) -> None:
    """Accept a verbosity: there is one form of debug messages."""
    _checked_integer("set_default_logger_verbosity", verbosity)


class _Callback(logging.Handler):
    """A handler that passes messages to ONNX Runtime's kind of function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def emit(self, record: logging.LogRecord) -> None:
        severity = sum(record.levelno >= level for level in _LEVELS) - 1
        self._function(max(severity, 0), record.name, "", record.pathname, record.getMessage())


def set_default_logger_callback(callback: Callable[..., Any] | None, severity: int = 2) -> None:
    """Set the function `callback(severity, category, logger_id, code_location, message)` for messages of the
    logger `ovjit`; None removes it."""
    if callback is not None and not callable(callback):
        raise RuntimeError("callback must be a callable")
    for handler in [h for h in _logger.handlers if isinstance(h, _Callback)]:
        _logger.removeHandler(handler)
    if callback is not None:
        handler = _Callback(callback)
        handler.setLevel(_LEVELS[severity])
        _logger.addHandler(handler)


def enable_telemetry_events() -> None:
    """Do nothing: ovjit collects no telemetry."""


def disable_telemetry_events() -> None:
    """Do nothing: ovjit collects no telemetry."""


def set_global_thread_pool_sizes(intra_op_num_threads: int = 0, inter_op_num_threads: int = 0) -> None:
    """Accept sizes of pools for sessions without threads of their own. Sessions share ovjit's workers."""


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: Any = None) -> None:
    """Do nothing: there are no native libraries."""


def print_debug_info() -> None:
    """Print the versions."""
    print(f"{get_build_info()}\nAvailable providers: CPUExecutionProvider")


def create_and_register_allocator(memory: Any, config: Any, /) -> None:
    """Accept an allocator of the CPU's memory."""


def create_and_register_allocator_v2(provider: str, memory: Any, options: Any, config: Any, /) -> None:
    """Accept an allocator of the CPU's memory."""


def register_execution_provider_library(name: str, path: str, /) -> None:
    """Raise NotImplemented: native libraries are never loaded."""
    refuse(f"native libraries of execution providers ({path})", "use the CPUExecutionProvider")


def unregister_execution_provider_library(name: str, /) -> None:
    """Raise NotImplemented: there are no such libraries."""
    refuse(f"native libraries of execution providers ({name})", "use the CPUExecutionProvider")


def get_default_session_options() -> Any:
    """New options."""
    from ovjit.onnxruntime.options import SessionOptions

    return SessionOptions()


def _missing_class(name: str, instead: str, *constructors: str) -> Any:
    """A class whose constructors raise NotImplemented."""

    def refuse_construction(*args: Any, **named: Any) -> None:
        refuse(name, instead)

    members = dict.fromkeys(constructors, staticmethod(refuse_construction))
    return type(name, (), {"__init__": refuse_construction, "__module__": STATE, **members})


_OTHER = "a separate environment with the real onnxruntime has it"
AdapterFormat = _missing_class("AdapterFormat", "merge the adapter into the model's weights", "read_adapter")
LoraAdapter = _missing_class("LoraAdapter", "merge the adapter into the model's weights")
ModelCompiler = _missing_class("ModelCompiler", "models are compiled by InferenceSession, and kept")
ModelPackage = _missing_class("ModelPackage", _OTHER)
OrtSyncStream = _missing_class("OrtSyncStream", _OTHER)
