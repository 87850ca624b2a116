"""Properties of the CPU device."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.run.property_values import Property, TbbPartitioner, instance_of, number
from ovjit.compat.properties.declare import declare

__all__ = ["TbbPartitioner"]

__getattr__: Callable[[str], Property] = declare(__name__, "CPU_", {
    instance_of(bool): "denormals_optimization",
    number: "sparse_weights_decompression_rate",
    instance_of(TbbPartitioner): "tbb_partitioner=TBB_PARTITIONER",
})  # fmt: skip
