"""CompressedMatMul: a matrix product whose right-hand side is stored as integers with scales."""

from __future__ import annotations

import numpy as np

from ovjit.codegen.cpu.formats import unpacked_types
from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import Bool, Int, Str, TensorType, op
from ovjit.graph.shapes import broadcast
from ovjit.graph.stored_floats import bits_of, levels_of
from ovjit_ops.matmul.matmul import matrix_shapes


def dequantize_codes(codes: np.ndarray, kind: str) -> np.ndarray:
    """The numbers of codes of this type; integers without a kind are unchanged."""
    levels = levels_of(kind)
    if levels is not None:
        return levels[codes]
    return codes.view(numpy_dtype(kind)) if kind else codes


def fake_quantize(x: np.ndarray, size: int) -> np.ndarray:
    """x, fake-quantized to 8 bits in groups of `size` elements of the last axis; scale: max |x| / 127."""
    starts = np.arange(0, x.shape[-1], size)
    each = np.arange(x.shape[-1]) // size
    scale = (np.maximum.reduceat(np.abs(x), starts, axis=-1) / 127)[..., each]
    return np.rint(x / np.where(scale > 0, scale, 1)) * scale


@op(
    "CompressedMatMul", opset=1, types=("f32",), internal=True, epilogue=True, native=unpacked_types,
    multiplied=2,
)  # fmt: skip
class CompressedMatMul:
    """out[..., n] = sum over k of x[..., k] * (integers[k, n] - zero[g, n]) * scale[g, n],  g = k // group

    `integers` [K, N] are bytes. With fewer than 8 `bits` they are unsigned, such as 0 to 15 for 4 bits.
    `scale` and `zero` are [groups, N].
    `kind`: instead of integers, the bits of numbers of this type (nf4, f4e2m1, f8e4m3, f8e5m2, f16), or
    indices of this codebook. Then there is no zero; beside `indices` it is ignored.
    `dynamic`: x is first quantized to 8 bits, in groups of this many elements of K; 0: not quantized.
    With `indices` [M] for the rows of x [M, K], `integers` has `kinds` matrices side by side, [K, kinds * N].
    Each row is multiplied by the matrix of its index; the result is 0 for indices out of range.
    """

    def infer(
        x, integers, scale, zero=None, indices=None, *,
        bits: Int = 8, group: Int = 0, transpose_a: Bool = False, dynamic: Int = 0, kind: Str = "",
        kinds: Int = 1,
    ):  # fmt: skip
        check(bits == bits_of(kind) if bits_of(kind) else not kind and bits in (2, 3, 4, 5, 6, 8),
              f"bits {bits} should be 2 to 6 or 8, or those of the kind {kind!r}")  # fmt: skip
        check(
            not kind or zero is None or indices is not None,
            f"weights of the kind {kind!r} take no zero point",
        )
        check(group > 0, f"the group size {group} should be positive")
        if x.shape is None or (indices is not None and indices.shape is None):
            return TensorType(x.dtype, None)
        if indices is not None:
            outs = integers.shape[1] // kinds
            return TensorType(x.dtype, (*(broadcast(x.shape[:-1], indices.shape) or ()), outs))
        return TensorType(x.dtype, matrix_shapes(x.shape, integers.shape, transpose_a, False)[2])

    def ref(
        x, integers, scale, zero=None, indices=None, *,
        bits=8, group=0, transpose_a=False, dynamic=0, kind="", kinds=1,
    ):  # fmt: skip
        each = np.arange(integers.shape[0]) // group
        sum_type = np.float64 if x.dtype == np.float64 else np.float32
        weights = dequantize_codes(integers, kind).astype(sum_type)
        if zero is not None and not kind:
            weights = weights - zero.astype(sum_type)[each]
        a = (x.swapaxes(-1, -2) if transpose_a and x.ndim > 1 else x).astype(sum_type)
        if dynamic:
            a = fake_quantize(a, dynamic)
        weights = weights * scale.astype(sum_type)[each]
        if indices is not None:
            inside = (indices >= -kinds) & (indices < kinds)
            matrices = weights.reshape(len(weights), kinds, -1).swapaxes(0, 1)
            selected = matrices[np.where(inside, indices, 0)] * inside[:, None, None]
            return np.matmul(a[:, None], selected)[:, 0].astype(x.dtype)
        return np.matmul(a, weights).astype(x.dtype)

    def lower(group):
        from ovjit_ops.matmul.cpu_compressed import lower_compressed

        return lower_compressed(group)
