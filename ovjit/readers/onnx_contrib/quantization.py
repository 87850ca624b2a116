"""Operators of com.microsoft that ONNX Runtime's quantizers write in addition to the standard's."""

from __future__ import annotations

from ovjit.readers.onnx.nn import Window, average, pad_to_ceiling
from ovjit.readers.onnx.quant import *
from ovjit.readers.onnx_contrib.rule_language import *


def _as_real(n: OnnxNode, first: int) -> Output:
    """The dequantized input `first`; the next two inputs are its scale and zero point."""
    return dequantize(n, n[first], n[first + 1], n.optional(first + 2))


def _through_f32(n: OnnxNode, function: Any) -> Output:
    """(x, scale, zero, y scale, y zero): `function` of the dequantized input, quantized again."""
    return quantize(n, function(_as_real(n, 0)), n[3], n.optional(4), n.dtype(n[0]))


def _of_two(n: OnnxNode, op: str) -> Output:
    """(a, scale, zero, b, scale, zero, y scale, y zero)"""
    return quantize(n, n(op, _as_real(n, 0), _as_real(n, 3)), n[6], n.optional(7), n.dtype(n[0]))


@ms("QLinearSoftmax")
def qlinear_softmax(n: OnnxNode) -> Any:
    """Quantized softmax: from opset 13 on along `axis`, before over all dimensions from it on."""
    x = n[0]
    axis = n.axis(n.attr("axis", -1), n.rank(x))
    if n.attr("opset", 13) < 13 and axis != n.rank(x) - 1:

        def all_from_axis(x: Output) -> Output:
            rows = n("Reshape", x, [0] * axis + [-1], special_zero=True)
            return n("Reshape", n("Softmax", rows, axis=axis, opset=8), n.shape_of(x), special_zero=False)

        return _through_f32(n, all_from_axis)
    return _through_f32(n, lambda x: n("Softmax", x, axis=axis, opset=8))


@ms("QLinearGlobalAveragePool")
def qlinear_global_average_pool(n: OnnxNode) -> Any:
    last = bool(n.attr("channels_last", 0))
    axes = list(range(2 - last, n.rank(n[0]) - last))
    return _through_f32(n, lambda x: n("ReduceMean", x, axes, keep_dims=True))


@ms("QLinearReduceMean")
def qlinear_reduce_mean(n: OnnxNode) -> Any:
    axes, keep = list(n.attr("axes") or range(n.rank(n[0]))), bool(n.attr("keepdims", 1))
    return _through_f32(n, lambda x: n("ReduceMean", x, axes, keep_dims=keep))


@ms("QLinearAveragePool")
def qlinear_average_pool(n: OnnxNode) -> Any:
    """Quantized average pooling. If padding counts, the divisor is the whole window even beyond the
    padding."""
    rank = n.rank(n[0])
    last = bool(n.attr("channels_last", 0))
    window = Window(n, None, rank - 2)
    ceil, counts_padding = bool(n.attr("ceil_mode", 0)), bool(n.attr("count_include_pad", 0))

    def pool(x: Output) -> Output:
        x = n.channels_first(x) if last else x
        padded = ceil and counts_padding and window.auto_pad == "explicit"
        x = pad_to_ceiling(n, x, window) if padded else x
        out = average(n, x, window, not counts_padding, ceil and not padded)
        return n.channels_last(out) if last else out

    return _through_f32(n, pool)


@ms("QLinearConcat")
def qlinear_concat(n: OnnxNode) -> Any:
    """(y scale, y zero, then x, scale, zero of each part)"""
    if (len(n) - 2) % 3 or len(n) < 5:
        raise ModelError(f"the node has {len(n)} inputs; expected are two, and three for each part")
    parts = [_as_real(n, i) for i in range(2, len(n), 3)]
    return quantize(n, n("Concat", *parts, axis=n.require("axis")), n[0], n.optional(1), n.dtype(n[2]))


@ms("QLinearWhere")
def qlinear_where(n: OnnxNode) -> Any:
    """(condition, x, scale, zero, y, scale, zero, z scale, z zero)"""
    chosen = n("Select", n[0], _as_real(n, 1), _as_real(n, 4))
    return quantize(n, chosen, n[7], n.optional(8), n.dtype(n[1]))


@ms("QGemm")
def qgemm(n: OnnxNode) -> Any:
    """(a, scale, zero, b, scale, zero, c, y scale, y zero): alpha * a @ b + c, quantised if there is a y
    scale"""
    a, b = n[0], n[3]
    if n.attr("transA", 0):
        a = n.transpose(a, [1, 0])
    if n.attr("transB", 0):
        b = n.transpose(b, [1, 0])
    total = integer_matmul(n, a, b, n.optional(2), n.optional(5))
    if n.has(6):
        total = n("Add", total, n.convert(n[6], n.dtype(total)))
    factor = n("Multiply", n[1], n[4])
    if n.attr("alpha", 1.0) != 1:
        factor = n("Multiply", factor, n.const(float(n.attr("alpha"))))
    if not n.has(7):
        return n("Multiply", n.convert(total, "f32"), factor)
    return requantize(n, total, factor, n[7], n.optional(8), n.dtype(n[8]) if n.has(8) else n.dtype(n[0]))


@ms("MatMulIntegerToFloat")
def matmul_integer_to_float(n: OnnxNode) -> Any:
    """(a, b, a scale, b scale, a zero, b zero, bias)"""
    total = n.convert(integer_matmul(n, n[0], n[1], n.optional(4), n.optional(5)), n.dtype(n[2]))
    return n.add_input(n("Multiply", total, n("Multiply", n[2], n[3])), 6)


@ms("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(n: OnnxNode) -> Any:
    """(a, b, b scale, b zero, bias), a in real numbers"""
    a, scale, zero = dynamic_quantize(n, n[0])
    total = n.convert(integer_matmul(n, a, n[1], zero, n.optional(3)), "f32")
    return n.add_input(n("Multiply", total, n("Multiply", scale, n[2])), 4)


#: Operators that are one expression, or as the standard has them.
onnx_ops({
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "QLinearConv": qlinear_conv,
    "QLinearAdd": lambda n: _of_two(n, "Add"),
    "QLinearMul": lambda n: _of_two(n, "Multiply"),
    "QLinearSigmoid": lambda n: _through_f32(n, lambda x: n("Sigmoid", x)),
    "QLinearLeakyRelu": lambda n:
        _through_f32(n, lambda x: n("PRelu", x, np.array([n.attr("alpha", 0.01)], np.float32))),
}, MICROSOFT)  # fmt: skip
