"""Selects the lowering of a convolution on GPUs: on tensor cores, by blocks if the card has them,
depthwise, or direct."""

from __future__ import annotations

from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, first_lowering
from ovjit_ops.convolution.cpu_direct import Direct
from ovjit_ops.convolution.gpu_block_convolution import BlockConvolution
from ovjit_ops.convolution.gpu_convolution import TensorConvolution
from ovjit_ops.convolution.gpu_depthwise import GpuDepthwise


def lower_on_gpu(group: Group) -> Lowering | None:
    """The first of the lowerings that takes the convolution; None if none does with the group's epilogue."""
    return first_lowering(group, BlockConvolution, TensorConvolution, GpuDepthwise) or Direct.of(group)
