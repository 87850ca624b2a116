"""MatMul: matrix products with broadcast batch dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import find_format, float_types
from ovjit.codegen.cpu.targets import Target
from ovjit.errors import check
from ovjit.graph.graph import Node
from ovjit.graph.op import Bool, TensorType, op
from ovjit.graph.shapes import Dim, broadcast, broadcast_dims, compatible
from ovjit_ops.common.images import matrix_images
from ovjit_ops.common.values import widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases, common_dtype
from ovjit_ops.matmul.gathered import gather_matrices


def matrix_shapes(a: tuple[Dim, ...], b: tuple[Dim, ...], transpose_a: bool, transpose_b: bool):
    """(shape of a as [..., m, k], shape of b as [..., k, n], shape of the result).

    A 1-D `a` is a row, a 1-D `b` a column; the added dimension is not in the result, and transposing has no
    effect. Raises ModelError if the inner dimensions differ or the batch dimensions do not broadcast.
    """
    check(len(a) and len(b), "Scalars are not supported as MatMul inputs.")
    rows_by_depth = (1, *a) if len(a) == 1 else (*a[:-2], a[-1], a[-2]) if transpose_a else a
    right = (*b, 1) if len(b) == 1 else (*b[:-2], b[-1], b[-2]) if transpose_b else b
    check(
        compatible(rows_by_depth[-1], right[-2]),
        f"Incompatible MatMul matrix dimension. First input dimension={rows_by_depth[-1]} at COL_INDEX_DIM="
        f"{len(rows_by_depth) - 1} doesn't match the second input dimension={right[-2]} at ROW_INDEX_DIM="
        f"{len(right) - 2}",
    )
    one, other = rows_by_depth[:-2], right[:-2]
    for i in range(1, min(len(one), len(other)) + 1):
        check(
            broadcast_dims(one[-i], other[-i]) is not None,
            f"Incompatible MatMul batch dimension. Can't merge first input dimension={one[-i]} with second "
            f"input dimension={other[-i]} at index={max(len(one), len(other)) - i}",
        )
    batch = broadcast(one, other) or ()
    rows = () if len(a) == 1 else (rows_by_depth[-2],)
    columns = () if len(b) == 1 else (right[-1],)
    return rows_by_depth, right, (*batch, *rows, *columns)


def _transpose_sample(a: tuple[int, ...], b: tuple[int, ...], which: int) -> tuple[Any, ...]:
    """A sample: shapes of the operands, transposed according to the bits of `which`, and the attributes."""
    ta, tb = bool(which & 1), bool(which & 2)
    a = (*a[:-2], a[-1], a[-2]) if ta and len(a) > 1 else a
    b = (*b[:-2], b[-1], b[-2]) if tb and len(b) > 1 else b
    return a, b, {"transpose_a": ta, "transpose_b": tb}


def _multiplies_bytes(target: Target, node: Node) -> bool:
    """True if products of u8 and i8 are native, with sums in i32: tensor cores read 16 bytes of a row."""
    if not target.is_gpu:
        return find_format("u8", "i8", target) is not None
    shape = node.inputs[0].shape
    depth = shape[-2 if node.attrs["transpose_a"] else -1] if len(shape) > 1 else 0
    return isinstance(depth, int) and depth > 0 and depth % 16 == 0 and len(node.inputs[1].shape) > 1


_CASES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 1), (1, 1)),
    ((7, 8), (8, 9)),
    ((1, 33), (33, 17)),
    ((16, 16), (16, 16)),
    ((15, 17), (17, 33)),
    ((33, 7), (7, 1)),
    ((3, 0), (0, 4)),
    ((0, 3), (3, 4)),
    ((5,), (5,)),
    ((5,), (5, 7)),
    ((7, 5), (5,)),
    ((2, 3, 7, 5), (5,)),
    ((5,), (2, 5, 7)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 6)),
    ((2, 3, 3, 4), (2, 3, 4, 17)),
]


#: Minimum elements of a column that is multiplied by sums of rows.
MIN_DEPTH = 64


def _multiplies_a_column(target: Target, node: Node) -> bool:
    """Whether the right-hand side is computed and has one column. A tile would use one lane of its vectors:
    500 x 500 by 500 x 1 takes three times as long as sums of rows."""
    (x, y), attrs = node.inputs, node.attrs
    if target.is_gpu or x.dtype != "f32" or attrs["transpose_a"] or None in (x.shape, y.shape):
        return False
    if min(len(x.shape), len(y.shape)) < 2 or x.stored_array is not None or y.stored_array is not None:
        return False
    depth, columns = (y.shape[-1], y.shape[-2]) if attrs["transpose_b"] else y.shape[-2:]
    return columns == 1 and isinstance(depth, int) and depth >= MIN_DEPTH and x.shape[-2] != 1


@op(
    "MatMul", opset=1, types=NUMBERS, epilogue=True, native=float_types,
    multiplied=2, rules=[gather_matrices], rules_for=["MatMul"], images=matrix_images,
)  # fmt: skip
class MatMul:
    """out[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]"""

    def infer(data_a, data_b, *, transpose_a: Bool = False, transpose_b: Bool = False):
        dtype = common_dtype(data_a, data_b, [*NUMBERS, "boolean"])
        if data_a.shape is None or data_b.shape is None:
            return TensorType(dtype, None)
        return TensorType(dtype, matrix_shapes(data_a.shape, data_b.shape, transpose_a, transpose_b)[2])

    def ref(data_a, data_b, *, transpose_a=False, transpose_b=False):
        a = data_a.swapaxes(-1, -2) if transpose_a and data_a.ndim > 1 else data_a
        b = data_b.swapaxes(-1, -2) if transpose_b and data_b.ndim > 1 else data_b
        return np.asarray(np.matmul(widen_floats(a), widen_floats(b))).astype(data_a.dtype)

    def expand(w, node, inputs):
        """MatMul(x, y: [..., k, 1]) -> ReduceSum(x * row of y, -1), if both are computed
        MatMul(x: boolean, y) -> MatMul(Convert(x, f32), Convert(y, f32)) != 0
        MatMul(x: i8 or u8, y) -> Convert(MatMul(Convert(x, u8), Convert(y, i8)): i32, i8 or u8)

        Sums of bytes that wrap around do not depend on the sign of the bytes.
        """
        out = node.output
        if _multiplies_a_column(w.b.context.target, node):
            x, y = inputs
            rank = len(y.shape)
            order = [*range(rank - 2), rank - 1, rank - 2]
            row = y if node.attrs["transpose_b"] else w("Transpose", y, order)
            return [w("ReduceSum", w("Multiply", x, row), [-1], keep_dims=True)]
        in_bytes = out.dtype in ("i8", "u8") and out.shape is not None
        if in_bytes and _multiplies_bytes(w.b.context.target, node):
            operands = [
                w("Convert", x, destination_type=t) for x, t in zip(inputs, ("u8", "i8"), strict=True)
            ]
            types = [TensorType("i32", out.shape)]
            sums = w.b.add(
                node.op, operands, node.attrs, origins=node.origins, types=types, lowered=True
            ).output
            return [w("Convert", sums, destination_type=out.dtype)]
        if out.dtype != "boolean":
            return None
        counts = [w("Convert", x, destination_type="f32") for x in inputs]
        return [w("NotEqual", w("MatMul", *counts, **node.attrs), 0)]

    def lower(group):
        from ovjit_ops.matmul.cpu_matmul import lower_matmul

        return lower_matmul(group)

    samples = cases(*(_transpose_sample(*row, i % 4) for i, row in enumerate(_CASES)), domain=(-2, 2))


@op(
    "GatheredMatMul", opset=1, types=("f32",), internal=True, epilogue=True, native=float_types, multiplied=2,
    lower=MatMul.lower,
)  # fmt: skip
class GatheredMatMul:
    """out[..., i, j] = sum over k of x[..., i, k] * table[indices[...], k, j]; 0 for indices out of range"""

    def infer(x, table, indices, *, transpose_a: Bool = False, transpose_b: Bool = False):
        check(table.shape is not None and len(table.shape) == 3, f"{table} should have 3 dimensions")
        if x.shape is None or indices.shape is None:
            return TensorType(x.dtype, None)
        matrices = (*indices.shape, *table.shape[1:])
        return TensorType(x.dtype, matrix_shapes(x.shape, matrices, transpose_a, transpose_b)[2])

    def ref(x, table, indices, **attrs):
        from ovjit_ops.indexing.gather import gather

        return MatMul.ref(x, gather(table, indices, 0), **attrs)
