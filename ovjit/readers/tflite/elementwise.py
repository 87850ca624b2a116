"""Operators that compute each element alone."""

from __future__ import annotations

from ovjit.readers.numerics.special import atan2
from ovjit.readers.rows import Rule
from ovjit.readers.tflite.file import TYPES, names_of
from ovjit.readers.tflite.layouts import add_leading_dims
from ovjit.readers.tflite.rule_language import *

#: Operator -> operation of OpenVINO of one operand with the same meaning.
SAME_UNARY = {
    "ABS": "Abs", "CEIL": "Ceiling", "COS": "Cos", "EXP": "Exp", "FLOOR": "Floor", "HARD_SWISH": "HSwish",
    "LOG": "Log", "LOGICAL_NOT": "LogicalNot", "LOGISTIC": "Sigmoid", "NEG": "Negative", "RELU": "Relu",
    "SIGN": "Sign", "SIN": "Sin", "TANH": "Tanh",
}  # fmt: skip
#: ... of two operands that broadcast.
SAME_BINARY = {
    "ADD": "Add", "SUB": "Subtract", "MUL": "Multiply", "MAXIMUM": "Maximum", "MINIMUM": "Minimum",
    "POW": "Power", "EQUAL": "Equal", "NOT_EQUAL": "NotEqual", "LESS": "Less", "LESS_EQUAL": "LessEqual",
    "GREATER": "Greater", "GREATER_EQUAL": "GreaterEqual", "LOGICAL_AND": "LogicalAnd",
    "LOGICAL_OR": "LogicalOr", "FLOOR_MOD": "FloorMod", "SQUARED_DIFFERENCE": "SquaredDifference",
    "BITWISE_XOR": "BitwiseXor",
}  # fmt: skip


def _unary(op: str) -> Rule:
    return lambda n: n.each(op, n[0])


def _binary(op: str) -> Rule:
    return lambda n: n.activate(n.each(op, n[0], n[1]))


tflite_ops({name: _unary(op) for name, op in SAME_UNARY.items()})
tflite_ops({name: _binary(op) for name, op in SAME_BINARY.items()})


@tflite_op("FLOOR_DIV")
def floor_div(n: LiteNode) -> Any:
    """floor(a / b); OpenVINO's quotient of integers is that already."""
    result = n.each("Divide", n[0], n[1], m_pythondiv=True)
    return n.each("Floor", result) if n.is_real(n[0]) else result


@tflite_op("CAST")
def cast(n: LiteNode) -> Any:
    """Convert to the result's type in the file."""
    target, x = n.out().dtype, n[0]
    if target not in ELEMENT_TYPES or n.dtype(x) not in ELEMENT_TYPES:
        raise UnsupportedError(f"a cast to {target} is not supported")
    return n.each("Convert", x, destination_type=target)


@tflite_op("BITCAST")
def bitcast(n: LiteNode) -> Any:
    """The same bits as another type, whose elements have the same size."""
    target, x = n.out().dtype, n[0]
    if target not in ELEMENT_TYPES or ELEMENT_TYPES[target].bits != ELEMENT_TYPES[n.dtype(x)].bits:
        raise UnsupportedError(f"a bitcast from {n.dtype(x)} to {target} is not supported")
    return x if n.dtype(x) == target else n("BitCast", x, destination_type=target)


@tflite_op("BUCKETIZE")
def bucketize(n: LiteNode) -> Any:
    """The number of boundaries that are no larger than each element."""
    boundaries = np.array(n.row.options.BoundariesAsNumpy(), np.float32, ndmin=1)
    if n.row.options.BoundariesIsNone() or (np.diff(boundaries) < 0).any():
        raise UnsupportedError("boundaries that are not sorted are not supported")
    return n("Bucketize", n[0], n.const(boundaries), output_type="i32", with_right_bound=False)


@tflite_op("DEQUANTIZE")
def dequantize(n: LiteNode) -> Any:
    """Dequantize. Constants keep their stored type, so that f16 weights stay f16."""
    constant = n.file_constant(0)
    target = n.out().dtype
    if constant is not None:
        return constant.as_type(target)
    return n[0] if n.dtype(n[0]) == target else n.each("Convert", n[0], destination_type=target)


@tflite_op("SELECT", "SELECT_V2", "WHERE")
def select(n: LiteNode) -> Any:
    """SELECT, whose one-dimensional condition selects rows, and WHERE, which with a condition alone returns
    indices."""
    if n.op_type == "WHERE":
        return n.transpose(n("NonZero", n[0], output_type="i64"), [1, 0])
    condition = n[0]
    if n.op_type == "SELECT" and n.rank(condition) == 1 and n.rank(n[1]) > 1:
        condition = n.unsqueeze(condition, list(range(1, n.rank(n[1]))))
    return n.each("Select", condition, n[1], n[2])


@tflite_op("BROADCAST_ARGS")
def broadcast_args(n: LiteNode) -> Any:
    """The shape to which two shapes broadcast: a dimension of 1 gives way to the other."""
    a, b = n[0], n[1]
    lengths = [n.count_of_axes(v, "the number of dimensions") for v in (a, b)]
    ones = [n.like(v, [1] * (max(lengths) - k)) for v, k in zip((a, b), lengths, strict=True)]
    both = [n.concat([one, v], 0) for one, v in zip(ones, (a, b), strict=True)]
    one = n.like(a, 1)
    return n("Select", n("Equal", both[0], one), both[1], both[0])


def typed(number: int) -> str:
    """The element type of a number of TensorType."""
    kind = TYPES.get(names_of("TensorType").get(number, ""), "")
    if kind not in ELEMENT_TYPES:
        raise UnsupportedError(f"the element type {number} is not supported")
    return kind


#: Operators that are one expression.
tflite_ops({
    "GELU": lambda n: n.each(
        "Gelu", n[0], approximation_mode="TANH" if n.option("Approximate", False) else "ERF", opset=7),
    # slopes broadcast from the last dimension on; one of one dimension is for the second in OpenVINO
    "PRELU": lambda n: n.each("PRelu", n[0], add_leading_dims(n, n[1], n.rank(n[0]))),
    "ELU": lambda n: n.each("Elu", n[0], alpha=1.0),
    "RELU6": lambda n: n.each("Clamp", n[0], min=0.0, max=6.0),
    "RELU_0_TO_1": lambda n: n.each("Clamp", n[0], min=0.0, max=1.0),
    "RELU_N1_TO_1": lambda n: n.each("Clamp", n[0], min=-1.0, max=1.0),
    "ROUND": lambda n: n.each("Round", n[0], mode="half_to_even"),
    "SQRT": lambda n: n.each("Power", n[0], n.like(n[0], 0.5)),
    "RSQRT": lambda n: n.each("Power", n[0], n.like(n[0], -0.5)),
    "SQUARE": lambda n: n.each("Multiply", n[0], n[0]),
    "LEAKY_RELU": lambda n: n.each("PRelu", n[0], n.like(n[0], n.option("Alpha"))),
    "ATAN2": lambda n: atan2(n, n[0], n[1]),
    "RIGHT_SHIFT": lambda n: n.each("BitwiseRightShift", n[0], n[1], opset=15),
    "ADD_N": lambda n: reduce(lambda a, b: n.each("Add", a, b), n.inputs[1:], n[0]),
    "ZEROS_LIKE": lambda n: n.broadcast(n.like(n[0], 0), n.shape_of(n[0])),
    # quotients of integers are cut off towards zero
    "DIV": lambda n: n.activate(n.each("Divide", n[0], n[1], m_pythondiv=n.is_real(n[0]))),
    # real numbers stay so: the result is rounded as every tensor that is quantised
    "QUANTIZE": lambda n: n.each("Convert", n[0], destination_type="f32"),
})  # fmt: skip
