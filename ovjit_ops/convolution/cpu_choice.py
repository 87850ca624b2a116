"""Selects the lowering of a convolution: depthwise, Winograd, tiled, or direct."""

from __future__ import annotations

from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, NotNative
from ovjit.tiles.lowering import tile_format
from ovjit_ops.convolution.cpu_convolution import ComputedConvolution, TiledConvolution
from ovjit_ops.convolution.cpu_depthwise import Depthwise, is_depthwise
from ovjit_ops.convolution.cpu_direct import Direct
from ovjit_ops.convolution.cpu_winograd import Winograd, WinogradIfLarge, winograd_way


def lower_computed(group: Group) -> Lowering | None:
    """The lowering for computed filters: tiled if their shape is static, else direct."""
    try:
        return ComputedConvolution(group)
    except NotNative:
        return Direct.of(group)


def lower_convolution(group: Group) -> Lowering | None:
    """The lowering of Convolution and GroupConvolution. Direct if the target has no tile format for the
    types."""
    anchor = group.node
    data, filters = anchor.inputs
    constant, target = filters.constant, group.context.target
    if target.is_gpu:
        from ovjit_ops.convolution.gpu_choice import lower_on_gpu

        return lower_on_gpu(group)
    if 0 in filters.shape or len(data.shape) not in (3, 4, 5) or tile_format(data, filters, target) is None:
        return Direct.of(group)
    if len(data.shape) == 5:
        # other 3-D convolutions of static shape have been expanded
        adjacent = anchor.op.name == "Convolution" and (anchor.attrs["dilations"] or (1,))[-1] == 1
        if not adjacent and not is_depthwise(anchor, target):
            return Direct.of(group)
    if constant is None:
        return lower_computed(group)
    if is_depthwise(anchor, target):
        return Depthwise(group)
    m, least = winograd_way(group)
    if not m:
        return TiledConvolution(group)
    return WinogradIfLarge(group, m, least) if least else Winograd(group, m)
