"""Primitives that compute each element alone. Operands have one shape; numbers broadcast."""

from __future__ import annotations

from functools import reduce
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.jax.reader import JaxNode, element_type
from ovjit.readers.jax.registry import primitive, primitives

#: Primitive -> operation of one operand with the same meaning.
UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "ceil": "Ceiling", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "is_finite": "IsFinite", "log": "Log", "logistic": "Sigmoid", "neg": "Negative",
    "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
#: ... of two operands.
BINARY = {
    "add": "Add", "add_any": "Add", "sub": "Subtract", "mul": "Multiply", "max": "Maximum", "min": "Minimum",
    "pow": "Power", "rem": "Mod", "eq": "Equal", "ne": "NotEqual", "lt": "Less", "le": "LessEqual",
    "gt": "Greater", "ge": "GreaterEqual",
}  # fmt: skip
#: ... of numbers, and of truth values.
LOGICAL = {"and": ("BitwiseAnd", "LogicalAnd"), "or": ("BitwiseOr", "LogicalOr"),
           "xor": ("BitwiseXor", "LogicalXor"), "not": ("BitwiseNot", "LogicalNot")}  # fmt: skip
#: Primitives that are about where and how something is computed.
SAME = ("copy", "copy_p", "device_put", "name", "optimization_barrier", "pbroadcast", "pvary",
        "sharding_constraint", "stop_gradient")  # fmt: skip


def _unary(name: str, op: str) -> None:
    primitive(name)(lambda n: n(op, n[0]))


def _binary(name: str, op: str) -> None:
    primitive(name)(lambda n: n(op, n[0], _like_first(n, n[1])))


def _logical(name: str, ops: tuple[str, str]) -> None:
    primitive(name)(lambda n: n(ops[n.is_bool(n[0])], *n.inputs))


def _like_first(n: JaxNode, value: Any) -> Any:
    """The second operand; an exponent may be of another type."""
    return n.convert(value, n.dtype(n[0]))


for _name, _op in UNARY.items():
    _unary(_name, _op)
for _name, _op in BINARY.items():
    _binary(_name, _op)
for _name, _ops in LOGICAL.items():
    _logical(_name, _ops)


@primitive(*SAME)
def same(n: JaxNode) -> Any:
    return list(n.inputs)


@primitive("div")
def div(n: JaxNode) -> Any:
    """Quotients of integers are cut off towards zero."""
    return n("Divide", n[0], n[1], m_pythondiv=n.is_real(n[0]))


@primitive("cbrt")
def cbrt(n: JaxNode) -> Any:
    return n("Multiply", n("Sign", n[0]), n("Power", n("Abs", n[0]), n.like(n[0], 1 / 3)))


@primitive("integer_pow")
def integer_pow(n: JaxNode) -> Any:
    if n.params["y"] == 2:
        return n("Multiply", n[0], n[0])
    return n("Power", n[0], n.like(n[0], n.params["y"]))


@primitive("round")
def round_(n: JaxNode) -> Any:
    even = int(n.params["rounding_method"]) == 1
    return n("Round", n[0], mode="half_to_even" if even else "half_away_from_zero")


@primitive("clamp")
def clamp(n: JaxNode) -> Any:
    low, x, high = n.inputs
    return n("Minimum", n("Maximum", x, low), high)


@primitive("select_n")
def select_n(n: JaxNode) -> Any:
    """The case of the number that the first operand has: false is 0."""
    which, cases = n[0], n.inputs[1:]
    if n.is_bool(which):
        return n("Select", which, cases[1], cases[0])
    made = cases[-1]
    for i in reversed(range(len(cases) - 1)):
        made = n("Select", n("LessEqual", which, n.like(which, i)), cases[i], made)
    return made


@primitive("convert_element_type")
def convert_element_type(n: JaxNode) -> Any:
    target = element_type(n.params["new_dtype"])
    if target == "boolean" and not n.is_bool(n[0]):
        return n("NotEqual", n[0], n.like(n[0], 0))
    return n.convert(n[0], target)


@primitive("shift_left", "shift_right_arithmetic", "shift_right_logical")
def shift(n: JaxNode) -> Any:
    if n.op_type == "shift_right_logical" and not n.dtype(n[0]).startswith("u"):
        raise UnsupportedError("a logical shift of signed numbers is not supported")
    return n("BitwiseLeftShift" if n.op_type == "shift_left" else "BitwiseRightShift", n[0], n[1])


#: Operators that are one expression.
primitives({
    "square": lambda n: n("Multiply", n[0], n[0]),
    "rsqrt": lambda n: n("Power", n[0], n.like(n[0], -0.5)),
    "exp2": lambda n: n("Power", n.like(n[0], 2), n[0]),
    "log1p": lambda n: n("Log", n("Add", n[0], n.like(n[0], 1))),
    "expm1": lambda n: n("Subtract", n("Exp", n[0]), n.like(n[0], 1)),
    "erfc": lambda n: n("Subtract", n.like(n[0], 1), n("Erf", n[0])),
    "add_n": lambda n: reduce(lambda a, b: n("Add", a, b), n.inputs),
})  # fmt: skip
