"""Properties of a GPU device, for programs that name them; ovjit drives none, and refuses them by their
names."""

from __future__ import annotations

from ovjit.api.run.property_values import Property, instance_of
from ovjit.compat.properties.intel_gpu import hint


class MemoryType:
    """Kinds of memory of a GPU's tensors."""

    surface = "GPU_SURFACE"
    buffer = "GPU_BUFFER"


class CapabilityGPU:
    """Values in OPTIMIZATION_CAPABILITIES of a GPU."""

    HW_MATMUL = "GPU_HW_MATMUL"
    USM_MEMORY = "GPU_USM_MEMORY"


device_max_alloc_mem_size = Property("GPU_DEVICE_MAX_ALLOC_MEM_SIZE")
device_total_mem_size = Property("GPU_DEVICE_TOTAL_MEM_SIZE")
disable_winograd_convolution = Property("GPU_DISABLE_WINOGRAD_CONVOLUTION", instance_of(bool))
enable_loop_unrolling = Property("GPU_ENABLE_LOOP_UNROLLING", instance_of(bool))
execution_units_count = Property("GPU_EXECUTION_UNITS_COUNT")
memory_statistics = Property("GPU_MEMORY_STATISTICS")
uarch_version = Property("GPU_UARCH_VERSION")

__all__ = [
    "CapabilityGPU", "MemoryType", "device_max_alloc_mem_size", "device_total_mem_size",
    "disable_winograd_convolution", "enable_loop_unrolling", "execution_units_count", "hint",
    "memory_statistics", "uarch_version",
]  # fmt: skip
