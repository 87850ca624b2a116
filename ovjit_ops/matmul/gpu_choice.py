"""Selects the lowerings of matrix products on GPUs."""

from __future__ import annotations

from ovjit.graph.dtypes import HALVES
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, NotNative
from ovjit_ops.matmul.cpu_plain import PlainProduct
from ovjit_ops.matmul.gpu_block_lowering import BlockProduct
from ovjit_ops.matmul.gpu_compressed_lowering import CompressedOnGpu
from ovjit_ops.matmul.gpu_product_lowerings import HalfProduct, TensorProduct


def lower_on_gpu(group: Group) -> Lowering | None:
    """The lowering of a product of two tensors: on tensor cores if possible, by blocks if the card has
    them."""
    for kind in (BlockProduct, TensorProduct):
        try:
            lowering = kind.of(group)
        except NotNative:
            continue
        if lowering is not None:
            return lowering
    return (HalfProduct if group.node.inputs[0].dtype in HALVES else PlainProduct).of(group)


def lower_compressed_on_gpu(group: Group) -> Lowering | None:
    """The lowering of a product with weights of 8 or 4 bits; None for other ones, which run on the host."""
    try:
        return CompressedOnGpu.of(group)
    except NotNative:
        return None
