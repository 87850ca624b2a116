"""Properties of an NPU device, for programs that name them; ovjit drives none, and refuses them by their
names."""

from __future__ import annotations

from ovjit.api.run.property_values import Property, _Choice, instance_of, integer


class CompilerType(_Choice):
    """The compiler that an NPU uses: the plugin's or the driver's."""

    PLUGIN = 0
    DRIVER = 1
    PREFER_PLUGIN = 2


bypass_umd_caching = Property("NPU_BYPASS_UMD_CACHING", instance_of(bool))
compilation_mode_params = Property("NPU_COMPILATION_MODE_PARAMS", instance_of(str))
compiler_dynamic_quantization = Property("NPU_COMPILER_DYNAMIC_QUANTIZATION", instance_of(bool))
compiler_type = Property("NPU_COMPILER_TYPE", instance_of(CompilerType))
compiler_version = Property("NPU_COMPILER_VERSION")
defer_weights_load = Property("NPU_DEFER_WEIGHTS_LOAD", instance_of(bool))
device_alloc_mem_size = Property("NPU_DEVICE_ALLOC_MEM_SIZE")
device_total_mem_size = Property("NPU_DEVICE_TOTAL_MEM_SIZE")
disable_idle_memory_prunning = Property("NPU_DISABLE_IDLE_MEMORY_PRUNING", instance_of(bool))
driver_version = Property("NPU_DRIVER_VERSION")
enable_strides_for = Property("NPU_ENABLE_STRIDES_FOR", instance_of(str))
max_tiles = Property("NPU_MAX_TILES")
platform = Property("NPU_PLATFORM", instance_of(str))
qdq_optimization = Property("NPU_QDQ_OPTIMIZATION", instance_of(bool))
qdq_optimization_aggressive = Property("NPU_QDQ_OPTIMIZATION_AGGRESSIVE", instance_of(bool))
run_inferences_sequentially = Property("NPU_RUN_INFERENCES_SEQUENTIALLY", instance_of(bool))
tiles = Property("NPU_TILES", integer)
turbo = Property("NPU_TURBO", instance_of(bool))

__all__ = [
    "CompilerType", "bypass_umd_caching", "compilation_mode_params", "compiler_dynamic_quantization",
    "compiler_type", "compiler_version", "defer_weights_load", "device_alloc_mem_size",
    "device_total_mem_size", "disable_idle_memory_prunning", "driver_version", "enable_strides_for",
    "max_tiles", "platform", "qdq_optimization", "qdq_optimization_aggressive",
    "run_inferences_sequentially", "tiles", "turbo",
]  # fmt: skip
