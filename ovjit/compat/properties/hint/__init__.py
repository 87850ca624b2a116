"""Hints: what the user wants, in general terms."""

from __future__ import annotations

from collections.abc import Callable
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
from ovjit.compat.properties.declare import declare


def _model(value: Any) -> Any:
    """The model of `model`, a Model."""
    from ovjit.api.model.model import Model

    return instance_of(Model)(value)


__all__ = ["ExecutionMode", "ModelDistributionPolicy", "PerformanceMode", "Priority", "SchedulingCoreType"]

__getattr__: Callable[[str], Property] = declare(__name__, "", {
    count: "dynamic_quantization_group_size num_requests=PERFORMANCE_HINT_NUM_REQUESTS",
    number: "activations_scale_factor",
    instance_of(bool): "allow_auto_batching enable_cpu_pinning enable_cpu_reservation enable_hyper_threading",
    instance_of(Tensor): "compiled_blob",
    instance_of(Type): "inference_precision=INFERENCE_PRECISION_HINT kv_cache_precision",
    instance_of(ExecutionMode): "execution_mode=EXECUTION_MODE_HINT",
    instance_of(PerformanceMode): "performance_mode=PERFORMANCE_HINT",
    instance_of(Priority): "model_priority",
    instance_of(SchedulingCoreType): "scheduling_core_type",
    instance_of(set, frozenset): "model_distribution_policy",
    _model: "model=MODEL_PTR",
})  # fmt: skip
