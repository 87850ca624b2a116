"""The names of ONNX Runtime's native module: exceptions, options, enumerations and values."""

from __future__ import annotations

from ovjit.onnxruntime.choices import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    OrtAllocatorType,
    OrtCompileApiFlags,
    OrtDeviceMemoryType,
    OrtExecutionProviderDevicePolicy,
    OrtHardwareDeviceType,
    OrtMemoryInfoDeviceType,
    OrtMemType,
    OrtSparseFormat,
)
from ovjit.onnxruntime.engine import Engine as InferenceSession
from ovjit.onnxruntime.environment import (
    disable_telemetry_events,
    enable_telemetry_events,
    get_build_info,
    get_default_session_options,
    get_device,
    get_version_string,
    has_collective_ops,
    set_default_logger_callback,
    set_default_logger_severity,
    set_default_logger_verbosity,
    set_seed,
)
from ovjit.onnxruntime.failures import (
    DeviceReset,
    EngineError,
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    ModelLoadCanceled,
    ModelLoaded,
    ModelRequiresCompilation,
    NoModel,
    NoSuchFile,
    NotFound,
    NotImplemented,
    RuntimeException,
)
from ovjit.onnxruntime.graph_info import ModelMetadata, NodeArg
from ovjit.onnxruntime.options import RunOptions, SessionOptions
from ovjit.onnxruntime.providers import (
    OrtEpDevice,
    OrtHardwareDevice,
    get_all_providers,
    get_available_providers,
    get_ep_devices,
)
from ovjit.onnxruntime.values import NativeDevice as OrtDevice
from ovjit.onnxruntime.values import OrtArenaCfg, OrtMemoryInfo, OrtValue, OrtValueVector, copy_tensors

__all__ = [
    "DeviceReset", "EPFail", "EngineError", "ExecutionMode", "ExecutionOrder", "Fail",
    "GraphOptimizationLevel", "InferenceSession", "InvalidArgument", "InvalidGraph", "InvalidProtobuf",
    "ModelLoadCanceled", "ModelLoaded", "ModelMetadata", "ModelRequiresCompilation", "NoModel",
    "NoSuchFile", "NodeArg", "NotFound", "NotImplemented", "OrtAllocatorType", "OrtArenaCfg",
    "OrtCompileApiFlags", "OrtDevice", "OrtDeviceMemoryType", "OrtEpDevice",
    "OrtExecutionProviderDevicePolicy", "OrtHardwareDevice", "OrtHardwareDeviceType", "OrtMemType",
    "OrtMemoryInfo", "OrtMemoryInfoDeviceType", "OrtSparseFormat", "OrtValue", "OrtValueVector",
    "RunOptions", "RuntimeException", "SessionOptions", "copy_tensors", "disable_telemetry_events",
    "enable_telemetry_events", "get_all_providers", "get_available_providers", "get_build_info",
    "get_default_session_options", "get_device", "get_ep_devices", "get_version_string",
    "has_collective_ops", "set_default_logger_callback", "set_default_logger_severity",
    "set_default_logger_verbosity", "set_seed",
]  # fmt: skip
