"""Weights of few bits in blocks, each with a scale and perhaps a zero point."""

from __future__ import annotations

from ovjit.graph.levels import NF4_LEVELS
from ovjit.readers.onnx_contrib.rule_language import *

#: The values of bitsandbytes' 4-bit floats.
_FP4 = np.array([0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4], np.float32)


@ms("MatMulNBits")
def matmul_nbits(n: OnnxNode) -> Any:
    """a @ dequantised(b).T: b is [N, blocks, bytes] of `bits` each, the first value in the low bits."""
    a, packed, scales = n[0], n.static(1, "the packed weights"), n[2]
    rows, depth, bits = n.require("N"), n.require("K"), n.attr("bits", 4)
    block = n.require("block_size")
    if block < 1 or rows < 1 or depth < 1:
        raise ModelError(f"{rows} by {depth} weights in blocks of {block} are not valid")
    blocks = -(-depth // block)
    kind = {2: "u2", 4: "u4", 8: "u8"}[bits]
    values = unpack_bits(packed.reshape(rows, -1), bits, rows, blocks * block)
    real = n.dtype(a)
    if n.has(3) and n.dtype(n[3]) == "u8":
        zeros = unpack_bits(n.static(3, "the zero points").reshape(rows, -1), bits, rows, blocks)
        zero = n.convert(n.const(zeros.reshape(rows, blocks, 1), kind), real)
    elif n.has(3):
        zero = n.convert(n.reshape(n[3], [rows, blocks, 1]), real)
    else:
        zero = n.const(np.array([[[1 << (bits - 1)]]]), real)
    scale = n.convert(n.reshape(scales, [rows, blocks, 1]), real)
    if n.has(4):  # the block of each column
        columns = n.static(4, "g_idx").reshape(-1).astype(np.int64)[:depth]
        if columns.size != depth or columns.min() < 0 or columns.max() >= blocks:
            raise ModelError(
                f"g_idx should contain an index of one of {blocks} blocks for each of {depth} columns"
            )
        weights = n.convert(n.const(np.ascontiguousarray(values[:, :depth]), kind), real)
        scale, zero = (
            n.squeeze(n("Gather", v, columns, 1, opset=8), [2]) if n.shape(v) != (1, 1, 1) else v
            for v in (scale, zero)
        )
        zero = n.reshape(zero, [1, 1]) if n.rank(zero) == 3 else zero
        scale = n.reshape(scale, [1, 1]) if n.rank(scale) == 3 else scale
        weights = n("Multiply", n("Subtract", weights, zero), scale)
    else:
        weights = n.convert(n.const(values.reshape(rows, blocks, block), kind), real)
        weights = n("Multiply", n("Subtract", weights, zero), scale)
        weights = n.reshape(weights, [rows, blocks * block])
        if blocks * block != depth:
            weights = n.slice(weights, 1, 0, depth)
    return n.add_input(n("MatMul", a, weights, transpose_b=True), 5)


@ms("MatMulBnb4")
def matmul_bnb4(n: OnnxNode) -> Any:
    """a @ b.T: b is [N, K] flat, two values in a byte, high bits first, times their block's largest."""
    packed, largest = n.static(1, "the packed weights").reshape(-1), n.static(2, "absmax").reshape(-1)
    rows, depth, block = n.require("N"), n.require("K"), n.require("block_size")
    kind = n.require("quant_type")
    if min(rows, depth, block) < 1 or not n.attr("transB", 1):
        raise UnsupportedError(f"blocks of {block}, or weights that are not transposed, are not supported")
    count = n.check_count(rows * depth, "weights", 1 << 30)
    raw = np.ascontiguousarray(packed).view(np.uint8)
    if 2 * raw.size < count or largest.size < -(-count // block):
        raise ModelError(
            f"{2 * raw.size} packed values and {largest.size} blocks do not match {count} weights"
        )
    table = NF4_LEVELS if kind else np.concatenate([_FP4, -_FP4])
    values = table[np.stack([raw >> 4, raw & 15], 1).reshape(-1)[:count]]
    values = values * np.repeat(largest.astype(np.float32), block)[:count]
    return n("MatMul", n[0], n.like(n[0], values.reshape(rows, depth)), transpose_b=True)


@ms("GatherBlockQuantized")
def gather_block_quantized(n: OnnxNode) -> Any:
    """(data, indices, scales, zero points): rows that are gathered, and then dequantised."""
    data, indices, scales = n[0], n[1], n[2]
    rank = n.rank(data)
    bits, block = n.attr("bits", 4), n.attr("block_size", 128)
    gather = n.axis(n.attr("gather_axis", 0), rank, "gather_axis")
    axis = n.axis(n.attr("quantize_axis", 1), rank, "quantize_axis")
    if gather == axis or bits not in (4, 8) or block < 1:
        raise ModelError(
            f"blocks of {block} values of {bits} bits along the axis {axis} are not valid "
            "with the axis of the indices"
        )
    packed = n.dtype(data) == "u8"
    if packed and axis != rank - 1:
        raise ModelError("packed values should be along the last dimension")

    def gather_rows(value: Output) -> Output:
        out = n("Gather", value, indices, gather, opset=8)
        return unpack_nibbles(n, out) if packed and bits == 4 and n.dtype(value) == "u8" else out

    real = n.dtype(scales)
    data_values = n.convert(gather_rows(data), real)
    count = n.rank(data_values)
    block_axis = axis + (count - rank if axis > gather else 0)
    blocks = n.shape(scales)
    size = None if blocks is None else blocks[axis]
    length = n.dim_of(data_values, block_axis)
    if n.has(3):
        zero = n.convert(gather_rows(n[3]), real)
        if packed and bits == 4 and isinstance(size, int):
            zero = n.slice(zero, block_axis, 0, size)
    else:
        zero = n.const((1 << (bits - 1)) if packed else 0, real)
    block_indices = n("Divide", n.upto(length), block)

    def spread(value: Output) -> Output:
        return n("Gather", value, block_indices, block_axis, opset=8) if n.rank(value) else value

    scale = n("Gather", scales, indices, gather, opset=8)
    return n("Multiply", n("Subtract", data_values, spread(zero)), spread(scale))


def unpack_nibbles(n: OnnxNode, x: Output) -> Output:
    """Bytes [..., m] as 4-bit numbers [..., 2 * m], the low one first."""
    rank = n.rank(x)
    low = n("BitwiseAnd", x, n.like(x, 15))
    high = n("BitwiseRightShift", x, n.like(x, 4))
    pairs = n("Concat", *(n.unsqueeze(v, [rank]) for v in (low, high)), axis=rank)
    return n("Reshape", pairs, [0] * (rank - 1) + [-1], special_zero=True)


def unpack_bits(data: np.ndarray, bits: int, rows: int, count: int) -> np.ndarray:
    """[rows, count] of values that lie `8 / bits` in a byte, rows beginning with a byte."""
    per = 8 // bits
    raw = np.ascontiguousarray(data).view(np.uint8)
    values = (raw[:, :, None] >> (np.arange(per, dtype=np.uint8) * bits)) & ((1 << bits) - 1)
    values = values.reshape(rows, -1)
    if values.shape[1] < count:
        raise ModelError(f"{values.shape[1]} packed values do not match {count}")
    return np.ascontiguousarray(values[:, :count])
