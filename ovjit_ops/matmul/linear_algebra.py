"""Inverse, Eye and GroupedMatMul."""

from __future__ import annotations

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import FULL, numpy_dtype
from ovjit.graph.op import Bool, DType, TensorType, op
from ovjit.graph.shapes import merge
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INDEX_TYPES, extent_of, extents_of, in_f32, shape_scalar
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS, cases


@op("Inverse", opset=14, types=REALS, native=FULL, lower=".cpu_inverse:Inverses.of")
class Inverse:
    """The inverse of each square matrix, or of its transpose; NaN for singular ones, as in OpenVINO."""

    def infer(data, *, adjoint: Bool = False):
        check_type(data, REALS)
        if data.shape is None:
            return TensorType(data.dtype, None)
        check(len(data.shape) >= 2, f"the data should be matrices, not {data}")
        side = merge(data.shape[-1], data.shape[-2])
        check(side is not None, f"Input must contain square matrices of the same shape. The shape is {data}")
        return TensorType(data.dtype, data.shape)

    def ref(data, *, adjoint=False):
        matrices = data.astype(np.float64)
        out = np.full(matrices.shape, np.nan)
        for at in np.ndindex(matrices.shape[:-2]):
            try:
                inverse = np.linalg.inv(matrices[at])
            except np.linalg.LinAlgError:
                continue
            out[at] = inverse.T if adjoint else inverse
        return out.astype(data.dtype)


@op("Eye", opset=9, types=["i64"], lower=".cpu_eye:Identity", bounds=(0, 1, 2, 3))
class Eye:
    """Matrices of zeros with ones on one diagonal: 0 is the main one, positive ones are above it."""

    words = {"output_type": (*NUMBERS, "boolean")}

    def infer(num_rows, num_columns, diagonal_index, batch_shape=None, *, output_type: DType):
        rows, columns = extent_of(num_rows, "num_rows"), extent_of(num_columns, "num_columns")
        shape_scalar(diagonal_index, "diagonal_index")
        batch = [] if batch_shape is None else extents_of(batch_shape, "batch_shape")
        if batch is None:
            return TensorType(output_type, None)
        return TensorType(output_type, (*batch, rows, columns))

    def ref(num_rows, num_columns, diagonal_index, batch_shape=None, *, output_type):
        rows, columns, k = (int(x.reshape(-1)[0]) for x in (num_rows, num_columns, diagonal_index))
        batch = () if batch_shape is None else tuple(int(d) for d in batch_shape.reshape(-1))
        check(
            min(rows, columns, *batch, 0) >= 0,
            f"{rows} x {columns} matrices {batch} have a negative dimension",
        )
        out = np.zeros((*batch, rows, columns), numpy_dtype(output_type))
        first = max(-k, 0)
        last = min(rows, columns - k)
        if first < last:
            # the ones are `columns + 1` elements apart
            start = first * columns + first + k
            flat = out.reshape(*batch, rows * columns)
            flat[..., start : last * columns : columns + 1] = 1
        return out

    samples = cases(
        (3, 4, 1, {"output_type": "f32"}),
        (5, 2, -1, [2, 3], {"output_type": "i32"}),
        (1, 1, 0, {"output_type": "i64"}),
        (3, 3, 7, [1], {"output_type": "u8"}),
        (2, 3, 1, [2], {"output_type": "u16"}),
        (3, 2, 0, {"output_type": "boolean"}),
        (4, 4, -9, {"output_type": "f16"}),
    )


def checked_groups(offsets: np.ndarray, rows: int, groups: int) -> np.ndarray:
    """The end row of each group. Raises InferenceError for ends that decrease or do not cover all rows."""
    ends = offsets.astype(np.int64).reshape(-1)
    if len(ends) != groups or (
        len(ends) and (ends.min() < 0 or (np.diff(ends) < 0).any() or ends[-1] != rows)
    ):
        raise InferenceError(f"offsets {ends.tolist()[:8]} should increase to {rows} in {groups} steps")
    return ends


@op(
    "GroupedMatMul", opset=17, types=NUMBERS, ulp=32, native=FULL,
    lower=".cpu_grouped:GroupedProduct.of",
)  # fmt: skip
class GroupedMatMul:
    """Products of groups of rows: mat_a [rows, K] by mat_b [groups, N, K], transposed. Group g ends at row
    offsets[g]. Without offsets, mat_a is [groups, rows, K]."""

    def infer(mat_a, mat_b, offsets=None):
        check_same_type(mat_a, mat_b, "mat_a")
        check_type(mat_a, NUMBERS)
        dims = unify(mat_b=(mat_b, "GNK"))
        if mat_a.shape is None:
            return TensorType(mat_a.dtype, None)
        check(len(mat_a.shape) in (2, 3), f"mat_a should have two or three dimensions, not {mat_a}")
        if len(mat_a.shape) == 3:
            check(offsets is None, "offsets are valid only with mat_a of two dimensions")
            dims.fit("mat_a", mat_a, "GTK")
            return TensorType(mat_a.dtype, dims.shape("GTN"))
        check(offsets is not None, "mat_a of two dimensions needs offsets")
        check_type(offsets, INDEX_TYPES, "offsets")
        dims.fit("mat_a", mat_a, "TK")
        dims.fit("offsets", offsets, "G")
        return TensorType(mat_a.dtype, dims.shape("TN"))

    @in_f32
    def ref(a, b, offsets=None):
        columns = b.swapaxes(-1, -2)
        if a.ndim == 3:
            return np.matmul(a, columns)
        out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
        start = 0
        for group, stop in enumerate(checked_groups(offsets, a.shape[0], b.shape[0])):
            out[start:stop] = a[start:stop] @ columns[group]
            start = int(stop)
        return out

    def expand(w, node, inputs):
        """GroupedMatMul(a: [G, T, K], b) -> MatMul(a, b transposed)"""
        if len(inputs) > 2 or inputs[0].shape is None or inputs[1].shape is None:
            return None
        return w.b.instead(node, inputs, {"transpose_b": True}, "MatMul")

    samples = cases(
        ((7, 5), (3, 6, 5), [2, 4, 7]),
        ((3, 17), (2, 8, 17), [0, 3]),
        ((2, 3, 5), (2, 16, 5)),
        ((1, 7, 16), (1, 33, 16)),
        domain=(-2, 2),
    )
