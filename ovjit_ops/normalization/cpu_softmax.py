"""Native Softmax and LogSoftmax: maximum, exponentials with their sum, scale."""

from __future__ import annotations

import numpy as np

from ovjit.codegen.template import rows
from ovjit.codegen.words import *
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.rows import RowLowering
from ovjit.graph.dtypes import FULL, numpy_dtype


@rows("n")
def softmax(x, y, n, *, keep, normal):
    """y = exp(x - max(x)) / sum(exp(x - max(x))); `keep`: y holds the exponentials meanwhile.

    What would be less than `normal`, the smallest normal number, is 0: CPUs take some 150 cycles for a vector
    with such a result, and as many for each operation that reads it.
    """
    top = splat(-inf)
    for i in vectors(n):
        top = maximum(top, load(x, i))
    top = splat(hmax(top))
    total = splat(0.0)
    for i in vectors(n):
        e = exp_below_zero(load(x, i) - top)
        if keep:
            store(y, i, e)
        total = total + e
    total = splat(hadd(total))
    scale = 1.0 / total
    least = total * normal
    for i in vectors(n):
        if keep:
            finish(y, i, not_below(load(y, i), least) * scale)
        else:
            finish(y, i, not_below(exp_below_zero(load(x, i) - top), least) * scale)


@rows("n")
def log_softmax(x, y, n):
    """y = x - max(x) - log(sum(exp(x - max(x))))"""
    top = splat(-inf)
    for i in vectors(n):
        top = maximum(top, load(x, i))
    top = splat(hmax(top))
    total = splat(0.0)
    for i in vectors(n):
        total = total + exp_below_zero(load(x, i) - top)
    size = log(splat(hadd(total)))
    for i in vectors(n):
        # one after the other: the sum of a large maximum and a logarithm keeps nothing of the latter
        finish(y, i, load(x, i) - top - size)


class Softmax(RowLowering):
    work = 20.0


def lower_softmax(group: Group) -> Lowering | None:
    """Native for f32 and f64; rank 0 has no axis."""
    anchor = group.node
    data = anchor.inputs[0]
    if data.dtype not in FULL or not data.shape:
        return None
    axes = (int(anchor.attrs["axis"]) % len(data.shape),)
    if anchor.op.name == "LogSoftmax":
        return Softmax(group, log_softmax, axes)
    normal = float(np.finfo(numpy_dtype(data.dtype)).smallest_normal)
    return Softmax(group, softmax, axes, keep=group.last.output.dtype == data.dtype, normal=normal)
