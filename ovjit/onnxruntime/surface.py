"""Public names, by the module here that defines them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

#: Of the package and of its native module.
SHARED = {
    "choices": "ExecutionMode ExecutionOrder GraphOptimizationLevel OrtAllocatorType OrtCompileApiFlags "
    "OrtDeviceMemoryType OrtExecutionProviderDevicePolicy OrtHardwareDeviceType OrtMemType "
    "OrtMemoryInfoDeviceType OrtSparseFormat",
    "environment": "disable_telemetry_events enable_telemetry_events get_build_info get_device "
    "get_version_string has_collective_ops set_default_logger_callback set_default_logger_severity "
    "set_default_logger_verbosity set_seed",
    "graph_info": "ModelMetadata NodeArg",
    "options": "RunOptions SessionOptions",
    "providers": "OrtEpDevice OrtHardwareDevice get_all_providers get_available_providers get_ep_devices",
    "values": "OrtArenaCfg OrtMemoryInfo OrtValue copy_tensors",
}
#: Of the package alone.
PACKAGE = {
    "binding": "IOBinding",
    "environment": "AdapterFormat LoraAdapter ModelCompiler ModelPackage OrtSyncStream "
    "create_and_register_allocator create_and_register_allocator_v2 preload_dlls print_debug_info "
    "register_execution_provider_library set_global_thread_pool_sizes "
    "unregister_execution_provider_library",
    "session": "InferenceSession",
    "sparse": "SparseTensor",
    "values": "OrtDevice OrtDeviceVendorId",
}
#: Of the native module alone.
NATIVE = {
    "environment": "get_default_session_options",
    "failures": "DeviceReset EPFail EngineError Fail InvalidArgument InvalidGraph InvalidProtobuf "
    "ModelLoadCanceled ModelLoaded ModelRequiresCompilation NoModel NoSuchFile NotFound NotImplemented "
    "RuntimeException",
    "values": "OrtValueVector",
}
#: What ONNX Runtime defines in Python.
PYTHON = {
    "binding": "IOBinding",
    "session": "InferenceSession Session",
    "values": "OrtDevice OrtDeviceVendorId OrtValue copy_tensors",
}


def import_names(*tables: Mapping[str, str]) -> dict[str, Any]:
    """The objects of all names in the tables."""
    return {
        name: getattr(importlib.import_module(f"ovjit.onnxruntime.{module}"), name)
        for table in tables
        for module, names in table.items()
        for name in names.split()
    }
