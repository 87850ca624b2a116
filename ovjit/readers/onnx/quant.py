"""Quantisation: scales and zero points are arithmetic that later passes see through; integer products are
exact.

Sums of products of 8-bit integers are kept in f32 while they stay below 2^24, where f32 is exact, and in
wider types beyond.
"""

from __future__ import annotations

from ovjit.readers.onnx.nn import convolve
from ovjit.readers.onnx.rule_language import *
from ovjit.readers.onnx.tensor import LARGEST, to_float8

#: f32 holds every integer up to this one.
F32_EXACT = 1 << 24
#: The largest sum of products of two 8-bit integers, for each pair.
PRODUCT = 255 * 255


def along(n: OnnxNode, value: Output, x: Output, axis: int, block: int = 0) -> Output:
    """Reshape a scale or zero point to broadcast with `x`: a scalar, one per index along `axis`, or one per
    `block` indices."""
    shape = n.shape(value)
    if shape is None or len(shape) == 0:
        return value
    if block:
        rank = n.rank(x)
        axis = n.axis(axis, rank)
        size = (n.shape(x) or ())[axis]
        if isinstance(size, Interval):
            open_places = n("Divide", n.upto(n.dim_of(x, axis)), block)
            return n("Gather", value, open_places, axis, opset=8)
        block_indices = np.arange(n.check_count(size, "elements in blocks"), dtype=np.int64) // block
        return n("Gather", value, block_indices, axis, opset=8)
    if len(shape) == 1 and shape[0] == 1:
        return n.scalar(value)
    if len(shape) != 1:
        return value
    return n.along(value, n.axis(axis, n.rank(x)), n.rank(x))


def dequantize(
    n: OnnxNode, x: Output, scale: Output, zero: Output | None, axis: int = 1, block: int = 0,
    kind: str | None = None,
) -> Output:  # fmt: skip
    """(x - zero) * scale, of type `kind`, by default that of the scale"""
    kind = kind or n.dtype(scale)
    exact = ELEMENT_TYPES[n.dtype(x)].bits <= 8 and n.dtype(scale) == kind
    compute_dtype = "f32" if kind in ("f16", "bf16") and not exact else kind
    out = n.convert(x, compute_dtype)
    if zero is not None and not _is_zero(n, zero):
        out = n("Subtract", out, n.convert(along(n, zero, x, axis, block), compute_dtype))
    return n.convert(n("Multiply", out, n.convert(along(n, scale, x, axis, block), compute_dtype)), kind)


def _is_zero(n: OnnxNode, zero: Output) -> bool:
    value = n.value(zero) if ELEMENT_TYPES[n.dtype(zero)].numpy is not None else None
    return value is not None and not value.astype(np.float32).any()


def quantize(
    n: OnnxNode, x: Output, scale: Output, zero: Output | None, kind: str, axis: int = 1, block: int = 0,
    precision: str = "",
) -> Output:  # fmt: skip
    """saturate(round(x / scale) + zero), of type `kind`; rounding goes to even. The division is one of the
    type `precision`, by default of f32 or f64."""
    if precision:
        x, scale = n.convert(x, precision), n.convert(scale, precision)
    compute_dtype = n.dtype(x) if n.dtype(x) in ("f32", "f64") else "f32"
    steps = n(
        "Divide", n.convert(x, compute_dtype), n.convert(along(n, scale, x, axis, block), compute_dtype)
    )
    if precision:
        steps = n.convert(n.convert(steps, precision), compute_dtype)
    return saturate(n, steps, along(n, zero, x, axis, block) if zero is not None else None, kind)


def saturate(n: OnnxNode, steps: Output, zero: Output | None, kind: str) -> Output:
    """Round floats to integers of type `kind` with saturation, after adding `zero`."""
    if ELEMENT_TYPES[kind].is_real:
        if zero is not None and not _is_zero(n, zero):
            steps = n("Add", steps, n.convert(zero, n.dtype(steps)))
        return to_float8(n, steps, kind) if kind in LARGEST else n.convert(steps, kind)
    out = n("Round", steps, mode="half_to_even")
    if zero is not None and not _is_zero(n, zero):
        out = n("Add", out, n.convert(zero, n.dtype(out)))
    low, high = value_range(kind)
    return n.convert(n("Clamp", out, min=float(low), max=float(high)), kind)


@onnx_op("QuantizeLinear")
def quantize_linear(n: OnnxNode) -> Any:
    zero = n.optional(2)
    number = n.attr("output_dtype", 0)
    kind = n.dtype(zero) if zero is not None else tensors.element_type(number) if number else "u8"
    requested_precision = n.attr("precision", 0)
    precision = tensors.element_type(requested_precision) if requested_precision else ""
    if not requested_precision and n.version >= 23 and not n.domain and n.dtype(n[0]) == n.dtype(n[1]):
        precision = n.dtype(n[1]) if n.dtype(n[1]) != "f32" else ""
    out = quantize(n, n[0], n[1], zero, kind, n.attr("axis", 1), n.attr("block_size", 0), precision)
    return n.fold(out)  # weights as reals, quantized in the graph (AddQDQPairToWeight)


@onnx_op("DequantizeLinear")
def dequantize_linear(n: OnnxNode) -> Any:
    number = n.attr("output_dtype", 0)
    kind = tensors.element_type(number) if number else None
    return dequantize(n, n[0], n[1], n.optional(2), n.attr("axis", 1), n.attr("block_size", 0), kind)


def dynamic_quantize(n: OnnxNode, x: Output) -> tuple[Output, Output, Output]:
    """(x as u8, scale, zero point), the range being that of x and 0"""
    axes = list(range(n.rank(x)))
    top = n("Maximum", n("ReduceMax", x, axes, keep_dims=False), n.const(0.0))
    bottom = n("Minimum", n("ReduceMin", x, axes, keep_dims=False), n.const(0.0))
    scale = n("Divide", n("Subtract", top, bottom), n.const(255.0))
    safe = n("Select", n("Equal", scale, n.const(0.0)), n.const(1.0), scale)
    zero = saturate(n, n("Divide", n("Negative", bottom), safe), None, "u8")
    return quantize(n, x, safe, zero, "u8"), scale, zero


# -- products ------------------------------------------------------------------------------------------------


def _subtract_zero(n: OnnxNode, x: Output, zero: Output | None, kind: str) -> Output:
    out = n.convert(x, kind)
    return out if zero is None or _is_zero(n, zero) else n("Subtract", out, n.convert(zero, kind))


def _depth_of(n: OnnxNode, value: Output, axis: int) -> int | None:
    shape = n.shape(value)
    size = None if shape is None or not shape else shape[axis]
    return size if isinstance(size, int) else None


def integer_matmul(n: OnnxNode, a: Output, b: Output, a_zero: Output | None, b_zero: Output | None) -> Output:
    """(a - a_zero) @ (b - b_zero), exact: f32 where that is enough, else i32"""
    depth = _depth_of(n, b, -2 if n.rank(b) > 1 else 0) or _depth_of(n, a, -1)
    kind = "f32" if depth is not None and depth * PRODUCT < F32_EXACT else "i32"
    if n.is_real(a):
        kind = "f32"
    if a_zero is not None and n.shape(a_zero) not in ((), (1,)) and len(n.shape(a_zero) or ()) == 1:
        a_zero = n.unsqueeze(a_zero, [1])  # one for each row
    return n("MatMul", _subtract_zero(n, a, a_zero, kind), _subtract_zero(n, b, b_zero, kind))


def integer_convolution(
    n: OnnxNode, x: Output, w: Output, x_zero: Output | None, w_zero: Output | None
) -> Output:
    """The convolution of x - x_zero and w - w_zero, exact: f32 where that is enough, else f64"""
    terms = n.size((n.shape(w) or (Interval(0, None),))[1:])
    kind = "f32" if terms is not None and terms * PRODUCT < F32_EXACT else "f64"
    if w_zero is not None and n.shape(w_zero) not in ((), (1,)):
        w_zero = n.reshape(w_zero, [-1] + [1] * (n.rank(w) - 1))
    return convolve(n, _subtract_zero(n, x, x_zero, kind), _subtract_zero(n, w, w_zero, kind), None)


def _integers(product: Callable[..., Output]) -> Rule:
    return lambda n: n.convert(product(n, n[0], n[1], n.optional(2), n.optional(3)), "i32")


onnx_ops({
    "MatMulInteger-10": _integers(integer_matmul), "ConvInteger-10": _integers(integer_convolution),
    "DynamicQuantizeLinear-11": lambda n: list(dynamic_quantize(n, n[0])),
})  # fmt: skip


def requantize(
    n: OnnxNode, total: Output, factor: Output, scale: Output, zero: Output | None, kind: str
) -> Output:
    """An integer sum in units of `factor` as a number of type `kind` in units of `scale`"""
    steps = n(
        "Multiply", n.convert(total, "f32"), n("Divide", n.convert(factor, "f32"), n.convert(scale, "f32"))
    )
    return saturate(n, steps, zero, kind)


@onnx_op("QLinearConv", 10)
def qlinear_conv(n: OnnxNode) -> Any:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (n[i] for i in range(8))
    last = bool(n.attr("channels_last", 0))
    rank = n.rank(w)
    if last:
        x = n.channels_first(x)
    total = integer_convolution(n, x, w, x_zero, w_zero)
    if n.has(8):
        total = n("Add", total, n.per_channel(n.convert(n[8], n.dtype(total)), rank))
    factor = n("Multiply", x_scale, along(n, w_scale, total, 1))
    out = requantize(n, total, factor, y_scale, y_zero, n.dtype(y_zero))
    return n.channels_last(out) if last else out


@onnx_op("QLinearMatMul", 10)
def qlinear_matmul(n: OnnxNode) -> Any:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (n[i] for i in range(8))
    total = integer_matmul(n, a, b, a_zero, b_zero)
    if len(n.shape(a_scale) or ()) == 1 and n.shape(a_scale) != (1,):
        a_scale = n.unsqueeze(a_scale, [1])
    return requantize(n, total, n("Multiply", a_scale, b_scale), y_scale, y_zero, n.dtype(y_zero))
