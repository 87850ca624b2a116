"""Properties of a GPU device, for programs that name them; ovjit drives none, and refuses them by their
names."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.run.property_values import Property, instance_of
from ovjit.compat.properties.declare import declare
from ovjit.compat.properties.intel_gpu import hint


class MemoryType:
    """Kinds of memory of a GPU's tensors."""

    surface, buffer = "GPU_SURFACE", "GPU_BUFFER"


class CapabilityGPU:
    """Values in OPTIMIZATION_CAPABILITIES of a GPU."""

    HW_MATMUL, USM_MEMORY = "GPU_HW_MATMUL", "GPU_USM_MEMORY"


__all__ = ["CapabilityGPU", "MemoryType", "hint"]

__getattr__: Callable[[str], Property] = declare(__name__, "GPU_", {
    None: "device_max_alloc_mem_size device_total_mem_size execution_units_count memory_statistics "
    "uarch_version",
    instance_of(bool): "disable_winograd_convolution enable_loop_unrolling",
})  # fmt: skip
