"""Elementwise operators, comparisons, logic, and matrix products."""

from __future__ import annotations

from ovjit.readers.onnx.activations import activation, rescale
from ovjit.readers.onnx.rule_language import *

#: Operators with the meaning of an operation of OpenVINO and no attributes: their names, or pairs of names
#: where they differ.
SAME_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil:Ceiling Cos Cosh Exp Floor HardSwish:HSwish Log Mish "
    "Neg:Negative Not:LogicalNot Relu Sigmoid Sign Sin Sinh Softplus:SoftPlus Softsign:SoftSign Sqrt Tan "
    "Tanh BitwiseNot IsNaN"
)
#: ... of two operands that broadcast.
SAME_BINARY = (
    "Add Sub:Subtract Mul:Multiply Equal Greater Less GreaterOrEqual:GreaterEqual LessOrEqual:LessEqual "
    "And:LogicalAnd Or:LogicalOr Xor:LogicalXor BitwiseAnd BitwiseOr BitwiseXor PRelu"
)
#: Operators that recurrent and fused ones name as their activation, too.
ACTIVATIONS = "Affine Elu HardSigmoid LeakyRelu ScaledTanh ThresholdedRelu"


def legacy_operands(n: OnnxNode) -> tuple[Output, Output]:
    """The two operands; before opset 7 the second one's dimensions may align with those from `axis` on."""
    a, b = n[0], n[1]
    if not n.attr("broadcast", 0) or "axis" not in n.attributes:
        return a, b
    rank, axis = n.rank(a), n.axis(n.attr("axis"), n.rank(a))
    trailing = rank - axis - n.rank(b)
    if trailing < 0:
        raise ModelError(f"an operand of rank {n.rank(b)} does not fit rank {rank} from axis {axis} on")
    return a, n.unsqueeze(b, [n.rank(b) + i for i in range(trailing)])


@onnx_op("Pow")
def power(n: OnnxNode) -> Any:
    """Power with an exponent of any type, computed in the wider type and converted to the base's type."""
    base, exponent = legacy_operands(n)
    kind = n.dtype(base)
    if n.dtype(exponent) == kind:
        return n("Power", base, exponent)
    common = "f32" if kind in ("f16", "bf16") else kind
    if n.is_real(exponent) and not ELEMENT_TYPES[kind].is_real:
        common = "f64" if ELEMENT_TYPES[kind].bits > 16 else "f32"
    return n.convert(n("Power", n.convert(base, common), n.convert(exponent, common)), kind)


@onnx_op("Mod")
def mod(n: OnnxNode) -> Any:
    """Remainder with the sign of the divisor, or with fmod=1 of the dividend."""
    real = n.is_real(n[0])
    if real and not n.attr("fmod") and n.version < 28:
        raise ModelError("floating-point inputs need fmod=1")
    return n("Mod" if n.attr("fmod") else "FloorMod", n[0], n[1])


def _fold_variadic(op: str):
    def rule(n: OnnxNode) -> Any:
        out = n.chain(op, n.tensors())
        return n("Identity", out) if len(n) == 1 else out

    return rule


onnx_op("Max")(_fold_variadic("Maximum"))
onnx_op("Min")(_fold_variadic("Minimum"))
onnx_op("Sum")(_fold_variadic("Add"))


@onnx_op("Mean")
def mean(n: OnnxNode) -> Any:
    total = _fold_variadic("Add")(n)
    return n("Divide", total, n.like(total, len(n)))


@onnx_op("Clip")
def clip(n: OnnxNode) -> Any:
    low, high = n.attributes.get("min"), n.attributes.get("max")
    out = n[0]
    if low is not None:
        out = n("Maximum", out, n.like(out, low))
    if high is not None:
        out = n("Minimum", out, n.like(out, high))
    return n("Identity", out) if low is None and high is None else out


@onnx_op("Clip", 11)
def clip_11(n: OnnxNode) -> Any:
    """Clip. Constant bounds in order become a Clamp, others a Maximum and a Minimum."""
    x, low, high = n[0], n.optional(1), n.optional(2)
    if low is None and high is None:
        return n("Identity", x)
    kind = n.dtype(x)
    if ELEMENT_TYPES[kind].is_real and kind != "f64":
        bottom = -math.inf if low is None else n.value(low)
        top = math.inf if high is None else n.value(high)
        if bottom is not None and top is not None:
            lowest, highest = (float(np.asarray(v).reshape(-1)[0]) for v in (bottom, top))
            if lowest <= highest and math.isfinite(lowest) and math.isfinite(highest):
                return n("Clamp", x, min=lowest, max=highest)
    if low is not None:
        x = n("Maximum", x, n.scalar(low))
    return x if high is None else n("Minimum", x, n.scalar(high))


@onnx_op("Erf")
def erf(n: OnnxNode) -> Any:
    """Erf; results for integers are truncated toward zero, where OpenVINO rounds."""
    kind = n.dtype(n[0])
    return n.convert(n("Erf", n[0] if ELEMENT_TYPES[kind].is_real else n.convert(n[0], "f32")), kind)


@onnx_op("Celu")
def celu(n: OnnxNode) -> Any:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))"""
    x, alpha = n[0], n.attr("alpha")
    quotient, zero = n("Divide", x, n.like(x, alpha)), n.like(x, 0)
    if alpha > 0:
        bent = n("Minimum", n("Multiply", n("Elu", quotient, alpha=1.0), n.like(x, alpha)), zero)
        return n("Maximum", x, bent)
    # Elu would leave the quotients of negative numbers as they are, which are positive
    bent = n("Multiply", n("Subtract", n("Exp", quotient), n.like(x, 1)), n.like(x, alpha))
    return n("Add", n("Maximum", x, zero), n("Minimum", bent, zero))


@onnx_op("Shrink")
def shrink(n: OnnxNode) -> Any:
    """x + bias below -lambd, x - bias above lambd, 0 between"""
    x, lambd, bias = n[0], n.attr("lambd"), n.attr("bias")
    kind = n.dtype(x)
    x_real = n.convert(x, "f32") if not ELEMENT_TYPES[kind].is_real else x
    is_below = n("Less", x_real, n.like(x_real, -lambd))
    raised = n("Select", is_below, n("Add", x_real, n.like(x_real, bias)), n.like(x_real, 0))
    lowered = n("Subtract", x_real, n.like(x_real, bias))
    return n.convert(n("Select", n("Greater", x_real, n.like(x_real, lambd)), lowered, raised), kind)


@onnx_op("BitCast")
def bit_cast(n: OnnxNode) -> Any:
    from ovjit.readers.numerics.bits import reinterpret_bits

    return reinterpret_bits(n, n[0], n.data_type("to"))


@onnx_op("Gemm")
def gemm(n: OnnxNode) -> Any:
    """alpha * op(A) @ op(B) + beta * C; integers with a factor that is no integer are computed in f64."""
    a, b, c = n[0], n[1], n.optional(2)
    kind = n.dtype(a)
    broken = [v for v in (n.attr("alpha"), n.attr("beta")) if v != int(v)]
    if broken and not ELEMENT_TYPES[kind].is_real:
        c_f64 = None if c is None else n.convert(c, "f64")
        return n.convert(_gemm(n, n.convert(a, "f64"), n.convert(b, "f64"), c_f64), kind)
    return _gemm(n, a, b, c)


def _gemm(n: OnnxNode, a: Output, b: Output, c: Output | None) -> Output:
    out = n("MatMul", a, b, transpose_a=bool(n.attr("transA")), transpose_b=bool(n.attr("transB")))
    out = out if c is None else n.without_biases(out)
    alpha, beta = n.attr("alpha"), n.attr("beta")
    if alpha != 1:
        out = n("Multiply", out, n.like(out, alpha))
    if c is None or beta == 0:
        return out
    return n("Add", out, n("Multiply", c, n.like(c, beta)) if beta != 1 else c)


@onnx_op("Det")
def det(n: OnnxNode) -> Any:
    from ovjit.readers.numerics.factorization import determinant

    return determinant(n, n[0])


def _named(pairs: str) -> Iterator[tuple[str, str]]:
    for pair in pairs.split():
        name, _, op = pair.partition(":")
        yield name, op or name


def _unary(op: str) -> Rule:
    return lambda n: n(op, n[0])


def _binary(op: str) -> Rule:
    return lambda n: n(op, *legacy_operands(n))


def _activation(name: str) -> Rule:
    return lambda n: activation(n, name, n[0], n.attr("alpha"), n.attr("beta"))


onnx_ops({name: _unary(op) for name, op in _named(SAME_UNARY)})
onnx_ops({name: _binary(op) for name, op in _named(SAME_BINARY)})
onnx_ops({name: _activation(name.lower()) for name in ACTIVATIONS.split()})
#: Operators that are one expression. Affine, ScaledTanh, ParametricSoftplus and Scale are of the first opset;
#: ONNX Runtime still runs them.
onnx_ops({
    # integers are rounded towards zero, as in the standard
    "Div": lambda n: n("Divide", *legacy_operands(n), m_pythondiv=False),
    "IsInf": lambda n: n("IsInf", n[0], detect_negative=bool(n.attr("detect_negative")),
                         detect_positive=bool(n.attr("detect_positive"))),
    "Gelu": lambda n:
        n("Gelu", n[0], approximation_mode="TANH" if n.attr("approximate") == "tanh" else "ERF", opset=7),
    "BitShift": lambda n:
        n("BitwiseLeftShift" if n.require("direction") == "LEFT" else "BitwiseRightShift", n[0], n[1]),
    "Reciprocal": lambda n: n("Divide", n.like(n[0], 1), n[0]),
    "Round": lambda n: n("Round", n[0], mode="half_to_even"),
    "Selu": lambda n: n("Selu", n[0], n.like(n[0], n.attr("alpha")), n.like(n[0], n.attr("gamma"))),
    "Swish": lambda n: n("Swish", n[0], n.like(n[0], n.attr("alpha"))),
    "Where": lambda n: n("Select", n[0], n[1], n[2]),
    "Scale": lambda n: n("Multiply", n[0], n.like(n[0], n.attr("scale", 1.0))),
    "MatMul": lambda n: n("MatMul", n[0], n[1]),
    "ParametricSoftplus": lambda n: rescale("SoftPlus")(n, n[0], n.attr("alpha", 1.0), n.attr("beta", 1.0)),
    "Einsum-12": lambda n: n("Einsum", *n.tensors(), equation=n.require("equation").replace(" ", "")),
})  # fmt: skip
