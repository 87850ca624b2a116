"""Native MVN and RMS over adjacent dimensions: rows are normalized one after the other, while they are in the
cache.

With channels last, the elements of a normalization over space are not adjacent; `expand_norm` expands it to
reductions.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.codegen.template import rows
from ovjit.graph.dtypes import FULL
from ovjit.planning.lower import Group, Lowering
from ovjit.planning.row_kernels import RowLowering
from ovjit_ops.normalization.expand_norm import mvn_axes


@rows("n", numbers=("eps",))
def mvn(x, y, eps, n, *, variance, inside):
    """y = (x - mean) / sqrt(mean of (x - mean)^2 + eps), or / (sqrt(...) + eps), or x - mean alone"""
    total = splat(0.0)
    for i in vectors(n):
        total = total + load(x, i)
    mean = splat(hadd(total)) / count_of(n)
    scale = splat(1.0)
    if variance:
        total = splat(0.0)
        for i in vectors(n):
            v = load(x, i) - mean
            total = fma(v, v, total)
        spread = splat(hadd(total)) / count_of(n)
        if inside:
            scale = 1.0 / sqrt(spread + eps)
        else:
            scale = 1.0 / (sqrt(spread) + eps)
    for i in vectors(n):
        finish(y, i, (load(x, i) - mean) * scale)


@rows("n", numbers=("eps",))
def rms(x, y, eps, n):
    """y = x / sqrt(mean of x^2 + eps)"""
    total = splat(0.0)
    for i in vectors(n):
        v = load(x, i)
        total = fma(v, v, total)
    scale = 1.0 / sqrt(splat(hadd(total)) / count_of(n) + eps)
    for i in vectors(n):
        finish(y, i, load(x, i) * scale)


def lower_mvn(group: Group) -> Lowering | None:
    anchor = group.node
    axes = mvn_axes(anchor, anchor.inputs)
    if axes is None:
        return None
    attrs = anchor.attrs
    inside = attrs.get("eps_mode", "inside_sqrt").lower() == "inside_sqrt"
    variance = bool(attrs["normalize_variance"])
    return RowLowering(group, mvn, axes, variance=variance, inside=inside, eps=attrs["eps"])


def lower_group_mvn(group: Group) -> Lowering | None:
    anchor = group.node
    data, groups = anchor.inputs[0], anchor.attrs["groups"]
    if data.shape is None or data.dtype not in FULL:
        return None
    axes, groups = range(1, len(data.shape)), 0 if groups == 1 else groups
    return RowLowering(group, mvn, axes, groups, variance=True, inside=True, eps=anchor.attrs["eps"])


def lower_rms(group: Group) -> Lowering | None:
    """RMS along the last axis, for f32 and f64."""
    anchor = group.node
    data = anchor.inputs[0]
    if data.dtype not in FULL or not data.shape:
        return None
    return RowLowering(group, rms, (len(data.shape) - 1,), eps=anchor.attrs["epsilon"])
