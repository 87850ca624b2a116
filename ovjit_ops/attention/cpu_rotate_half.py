"""Native `RotateHalf`, the rotation of a rotary embedding, with elementwise operations as its epilogue."""

from __future__ import annotations

from collections.abc import Mapping

from ovjit.codegen.kernel_language import *
from ovjit.codegen.template import rows
from ovjit.graph.dtypes import FULL
from ovjit.planning.lower import Group, Lowering
from ovjit.planning.row_kernels import RowLowering


@rows("half")
def rotate_halves(x, y, half):
    """y = [-second half of x, first half]. Both parts are loaded before either is stored, so y may overwrite
    x."""
    for i in vectors(half):
        first = load(x, i)
        second = load(x, i + half)
        finish(y, i, -second)
        finish(y, i + half, first)


@rows("n")
def rotate_pairs(x, y, n):
    """y = [-x1, x0, -x3, x2, ...]"""
    for i in vectors(n):
        finish(y, i, turned_pairs(load(x, i)))


class _Halves(RowLowering):
    def integers(self, n: int) -> Mapping[str, int]:
        return {"half": n // 2}


def lower_rotate_half(group: Group) -> Lowering | None:
    data = group.node.inputs[0]
    if data.dtype not in FULL or not data.shape:
        return None
    last = (len(data.shape) - 1,)
    if group.node.attrs["pairs"]:
        return RowLowering(group, rotate_pairs, last)
    return _Halves(group, rotate_halves, last)
