"""The lowering of attention for a target."""

from __future__ import annotations

from ovjit.planning.lower import Group, Lowering


def lower_attention(group: Group) -> Lowering | None:
    """The lowering of attention for the group's target."""
    if group.context.target.is_gpu:
        from ovjit_ops.attention.gpu_attention import GpuAttention

        return GpuAttention.of(group)
    from ovjit_ops.attention.cpu_attention import Attention

    return Attention.of(group)
