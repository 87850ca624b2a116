"""The operations: what each one is and how it runs, one class or row per operation.

Importing this package fills the registry of `ovjit.graph.op`. Nothing here imports Numba.
"""

from ovjit_ops import activations, basic, convolution, elementwise, logical, matmul, pooling

__all__ = ["activations", "basic", "convolution", "elementwise", "logical", "matmul", "pooling"]
