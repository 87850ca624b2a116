"""Hints: what the user wants, in general terms."""

from __future__ import annotations

from typing import Any

from ovjit.api.run.property_values import (
    ExecutionMode,
    ModelDistributionPolicy,
    PerformanceMode,
    Priority,
    Property,
    SchedulingCoreType,
    count,
    instance_of,
    number,
)
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.types import Type


def _model(value: Any) -> Any:
    from ovjit.api.model.model import Model

    return instance_of(Model)(value)


activations_scale_factor = Property("ACTIVATIONS_SCALE_FACTOR", number)
allow_auto_batching = Property("ALLOW_AUTO_BATCHING", instance_of(bool))
compiled_blob = Property("COMPILED_BLOB", instance_of(Tensor))
dynamic_quantization_group_size = Property("DYNAMIC_QUANTIZATION_GROUP_SIZE", count)
enable_cpu_pinning = Property("ENABLE_CPU_PINNING", instance_of(bool))
enable_cpu_reservation = Property("ENABLE_CPU_RESERVATION", instance_of(bool))
enable_hyper_threading = Property("ENABLE_HYPER_THREADING", instance_of(bool))
execution_mode = Property("EXECUTION_MODE_HINT", instance_of(ExecutionMode))
inference_precision = Property("INFERENCE_PRECISION_HINT", instance_of(Type))
kv_cache_precision = Property("KV_CACHE_PRECISION", instance_of(Type))
model = Property("MODEL_PTR", _model)
model_distribution_policy = Property("MODEL_DISTRIBUTION_POLICY", instance_of(set, frozenset))
model_priority = Property("MODEL_PRIORITY", instance_of(Priority))
num_requests = Property("PERFORMANCE_HINT_NUM_REQUESTS", count)
performance_mode = Property("PERFORMANCE_HINT", instance_of(PerformanceMode))
scheduling_core_type = Property("SCHEDULING_CORE_TYPE", instance_of(SchedulingCoreType))

__all__ = [
    "ExecutionMode", "ModelDistributionPolicy", "PerformanceMode", "Priority", "SchedulingCoreType",
    "activations_scale_factor", "allow_auto_batching", "compiled_blob", "dynamic_quantization_group_size",
    "enable_cpu_pinning", "enable_cpu_reservation", "enable_hyper_threading", "execution_mode",
    "inference_precision", "kv_cache_precision", "model", "model_distribution_policy", "model_priority",
    "num_requests", "performance_mode", "scheduling_core_type",
]  # fmt: skip
