"""The operations: what each one is and how it runs, one class or row per operation.

Importing this package fills the registry of `ovjit.graph.op`. Nothing here imports Numba.
"""

from ovjit_ops import (
    activations,
    basic,
    conversion,
    convolution,
    elementwise,
    extension,
    indexing,
    logical,
    matmul,
    movement,
    normalization,
    pooling,
    rearrangement,
    reduce,
    scatter,
    slicing,
    state,
)

__all__ = [
    "activations",
    "basic",
    "conversion",
    "convolution",
    "elementwise",
    "extension",
    "indexing",
    "logical",
    "matmul",
    "movement",
    "normalization",
    "pooling",
    "rearrangement",
    "reduce",
    "scatter",
    "slicing",
    "state",
]
