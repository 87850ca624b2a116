"""Names of properties, as OpenVINO spells them: strings that make a pair of name and value when called."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.run.property_values import (
    CacheMode,
    CompatibilityCheck,
    Property,
    WorkloadType,
    count,
    instance_of,
    integer,
)
from ovjit.api.tensors.types import Type
from ovjit.compat.properties import device, hint, intel_auto, intel_cpu, intel_gpu, intel_npu, log, streams
from ovjit.compat.properties.declare import declare

__all__ = [
    "CacheMode", "CompatibilityCheck", "WorkloadType", "device", "hint",
    "intel_auto", "intel_cpu", "intel_gpu", "intel_npu", "log", "streams",
]  # fmt: skip

__getattr__: Callable[[str], Property] = declare(__name__, "", {
    None: "available_devices compatibility_check execution_devices loaded_from_cache max_batch_size "
    "model_name=NETWORK_NAME optimal_batch_size optimal_number_of_infer_requests "
    "range_for_async_infer_requests range_for_streams runtime_requirements supported_properties",
    count: "auto_batch_timeout key_cache_group_size value_cache_group_size",
    integer: "compilation_num_threads inference_num_threads",
    instance_of(bool): "enable_mmap enable_profiling=PERF_COUNT enable_weightless force_tbb_terminate",
    instance_of(str): "cache_dir weights_path",
    instance_of(dict): "cache_encryption_callbacks",
    instance_of(Type): "key_cache_precision value_cache_precision",
    instance_of(CacheMode): "cache_mode",
    instance_of(WorkloadType): "workload_type",
    instance_of(streams.Num): "num_streams",
})  # fmt: skip
