"""`onnxruntime` on ovjit: sessions that run ONNX models on the CPU.

    import ovjit.onnxruntime as ort
    session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    results = session.run(None, {"x": x})

Under `ovjit.as_onnxruntime` and `python -m ovjit run --as onnxruntime` it is the module `onnxruntime`.
"""

from __future__ import annotations

from typing import Any

from ovjit.onnxruntime.binding import IOBinding
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
from ovjit.onnxruntime.environment import (
    AdapterFormat,
    LoraAdapter,
    ModelCompiler,
    ModelPackage,
    OrtSyncStream,
    create_and_register_allocator,
    create_and_register_allocator_v2,
    disable_telemetry_events,
    enable_telemetry_events,
    get_build_info,
    get_device,
    get_version_string,
    has_collective_ops,
    preload_dlls,
    print_debug_info,
    register_execution_provider_library,
    set_default_logger_callback,
    set_default_logger_severity,
    set_default_logger_verbosity,
    set_global_thread_pool_sizes,
    set_seed,
    unregister_execution_provider_library,
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
from ovjit.onnxruntime.session import InferenceSession
from ovjit.onnxruntime.sparse import SparseTensor
from ovjit.onnxruntime.values import (
    OrtArenaCfg,
    OrtDevice,
    OrtDeviceVendorId,
    OrtMemoryInfo,
    OrtValue,
    copy_tensors,
)
from ovjit.version import ONNXRUNTIME

__all__ = [
    "AdapterFormat", "ExecutionMode", "ExecutionOrder", "GraphOptimizationLevel", "IOBinding",
    "InferenceSession", "LoraAdapter", "ModelCompiler", "ModelMetadata", "ModelPackage", "NodeArg",
    "OrtAllocatorType", "OrtArenaCfg", "OrtCompileApiFlags", "OrtDevice", "OrtDeviceMemoryType",
    "OrtDeviceVendorId", "OrtEpDevice", "OrtExecutionProviderDevicePolicy", "OrtHardwareDevice",
    "OrtHardwareDeviceType", "OrtMemType", "OrtMemoryInfo", "OrtMemoryInfoDeviceType", "OrtSparseFormat",
    "OrtSyncStream", "OrtValue", "RunOptions", "SessionOptions", "SparseTensor", "copy_tensors",
    "create_and_register_allocator", "create_and_register_allocator_v2", "disable_telemetry_events",
    "enable_telemetry_events", "get_all_providers", "get_available_providers", "get_build_info",
    "get_device", "get_ep_devices", "get_version_string", "has_collective_ops", "preload_dlls",
    "print_debug_info", "register_execution_provider_library", "set_default_logger_callback",
    "set_default_logger_severity", "set_default_logger_verbosity", "set_global_thread_pool_sizes",
    "set_seed", "unregister_execution_provider_library",
]  # fmt: skip

__version__ = version = ONNXRUNTIME
__author__ = "Microsoft"
package_name, cuda_version = "onnxruntime", ""


def __getattr__(name: str) -> Any:
    if name == "capi":
        import ovjit.onnxruntime.capi as capi

        return capi
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(
        f"ovjit's onnxruntime has no {name}: docs/onnxruntime_programs.md lists what it has. The rest needs "
        "the real onnxruntime, in a separate environment"
    )
