"""Properties of an NPU device, for programs that name them; ovjit drives none, and refuses them by their
names."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.run.property_values import Property, _Choice, instance_of, integer
from ovjit.compat.properties.declare import declare


class CompilerType(_Choice):
    """The compiler that an NPU uses: the plugin's or the driver's."""

    PLUGIN, DRIVER, PREFER_PLUGIN = range(3)


__all__ = ["CompilerType"]

__getattr__: Callable[[str], Property] = declare(__name__, "NPU_", {
    None: "compiler_version device_alloc_mem_size device_total_mem_size driver_version max_tiles",
    instance_of(bool): "bypass_umd_caching compiler_dynamic_quantization defer_weights_load "
    "disable_idle_memory_prunning=NPU_DISABLE_IDLE_MEMORY_PRUNING qdq_optimization "
    "qdq_optimization_aggressive run_inferences_sequentially turbo",
    instance_of(str): "compilation_mode_params enable_strides_for platform",
    instance_of(CompilerType): "compiler_type",
    integer: "tiles",
})  # fmt: skip
