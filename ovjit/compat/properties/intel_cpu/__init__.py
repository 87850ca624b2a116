"""Properties of the CPU device."""

from __future__ import annotations

from ovjit.api.run.property_values import Property, TbbPartitioner, instance_of, number

denormals_optimization = Property("CPU_DENORMALS_OPTIMIZATION", instance_of(bool))
sparse_weights_decompression_rate = Property("CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE", number)
tbb_partitioner = Property("TBB_PARTITIONER", instance_of(TbbPartitioner))

__all__ = ["TbbPartitioner", "denormals_optimization", "sparse_weights_decompression_rate", "tbb_partitioner"]
