"""Products with matrices that indices select from a constant table (gathered GEMM), as in mixtures of
experts.

    MatMul(x, Gather(table [E, R, C], indices))  -> GatheredMatMul(x, table, indices)
    MatMul(Gather(table, indices), x)            -> Transpose(GatheredMatMul(Transpose(x), table, indices))

The table is packed once at compilation. Gather would copy all selected matrices in each inference.
"""

from __future__ import annotations

import numpy as np

from ovjit.graph.dtypes import HALVES
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import normalize_axis
from ovjit.rewrite.pattern import anything, constant, op, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer

_TAKEN = op.Gather(constant("table"), value("indices"), constant("axis"), batch_dims=lambda n: not n)
_MATRICES = _TAKEN | op.Convert(_TAKEN.where(lambda half: half.dtype in HALVES))


@rule(op.MatMul(_MATRICES, anything) | op.MatMul(anything, _MATRICES))
def gather_matrices(w: Writer, node: Node) -> Value | None:
    """MatMul of matrices of a constant table -> GatheredMatMul"""
    inputs = node.inputs
    if node.output.dtype != "f32" or any(v.shape is None for v in inputs):
        return None
    flags = [node.attrs["transpose_a"], node.attrs["transpose_b"]]
    for side, x in ((1, inputs[0]), (0, inputs[1])):
        operands = _named(w, inputs[side])
        if operands is None or len(x.shape) < 2:
            continue
        # gathered matrices on the left: (G x)^T = x^T G^T, so the flags are swapped and negated
        turn = flags if side else [not flags[1], not flags[0]]
        out = w("GatheredMatMul", x, *operands, transpose_a=turn[0], transpose_b=turn[1])
        if side == 0:
            rank = len(out.shape)
            out = w("Transpose", out, [*range(rank - 2), rank - 1, rank - 2])
        return out
    return None


def _named(w: Writer, gathered: Value) -> tuple[Value, Value] | None:
    """(table, indices: i64) of gathered matrices; None if `gathered` is not a Gather of a constant table."""
    match = _MATRICES.first(gathered)
    if match is None:
        return None
    table, indices, axis = match["table"], match["indices"], match["axis"]
    if len(table.shape) != 3 or not all(table.shape) or not indices.shape:
        return None
    if normalize_axis(int(np.ravel(axis.constant)[0]), 3):
        return None
    if table.dtype != gathered.dtype:
        table = w("Convert", table, destination_type="f32")
    return table, indices if indices.dtype == "i64" else w("Convert", indices, destination_type="i64")
