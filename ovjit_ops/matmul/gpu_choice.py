"""Selects the lowerings of matrix products on GPUs."""

from __future__ import annotations

from ovjit.graph.dtypes import HALVES
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, first_lowering
from ovjit_ops.matmul.cpu_plain import PlainProduct
from ovjit_ops.matmul.gpu_block_lowering import BlockProduct
from ovjit_ops.matmul.gpu_product_lowerings import HalfProduct, TensorProduct


def lower_on_gpu(group: Group) -> Lowering | None:
    """The lowering of a product of two tensors: on tensor cores if possible, by blocks if the card has
    them."""
    plain = HalfProduct if group.node.inputs[0].dtype in HALVES else PlainProduct
    return first_lowering(group, BlockProduct, TensorProduct) or plain.of(group)
