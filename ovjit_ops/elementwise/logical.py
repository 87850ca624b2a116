"""Elementwise comparisons, logical and bitwise operations, and Select; one call each. Comparisons give
boolean."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import check
from ovjit.graph import symbolic
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, TensorType, Word, op
from ovjit.graph.shapes import is_static
from ovjit.rewrite.pattern import operation, value
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.values import with_value
from ovjit_ops.elementwise.arithmetic import (
    BROADCASTS,
    INTS,
    NUMBERS,
    REALS,
    binary,
    broadcast_types,
    common_dtype,
    unary,
)

COMPARABLE = [*NUMBERS, "boolean"]
BOOLEAN = ["boolean"]
BITS = [*INTS, "boolean"]

SMALL = (-3.0, 3.0)
#: Comparison -> its result for equal numbers.
REFLEXIVE = {
    "Equal": True, "LessEqual": True, "GreaterEqual": True,
    "NotEqual": False, "Less": False, "Greater": False,
}  # fmt: skip


@rule(operation(" ".join(REFLEXIVE))(value("x"), value("x")))
def compare_with_itself(w: Writer, node: Node, x: Value) -> Value | None:
    """n == n -> true, n < n -> false, ... for integers

    Exporters compare a dimension with itself to select a branch. The other branch is then removed.
    """
    if x.dtype not in (*INTS, "boolean") or not is_static(x.shape):
        return None
    return w.b.constant(np.full(x.shape, REFLEXIVE[node.op.name]))


_COMPARISON: dict[str, Any] = {
    "types": COMPARABLE, "takes": list(ELEMENT_TYPES), "result": "boolean", "domain": SMALL,
    "any_number": True,
}  # fmt: skip
binary(
    "Equal", np.equal, lambda x, y: x == y, rules=[compare_with_itself], rules_for=list(REFLEXIVE),
    partially=symbolic.equal, commutative=True, **_COMPARISON,
)  # fmt: skip
binary("NotEqual", np.not_equal, lambda x, y: x != y, **_COMPARISON, commutative=True)
binary("Less", np.less, lambda x, y: x < y, **_COMPARISON)
binary("LessEqual", np.less_equal, lambda x, y: x <= y, **_COMPARISON)
binary("Greater", np.greater, lambda x, y: x > y, **_COMPARISON)
binary("GreaterEqual", np.greater_equal, lambda x, y: x >= y, **_COMPARISON)
binary("LogicalAnd", np.logical_and, lambda x, y: x & y, types=BOOLEAN, result="boolean", commutative=True)
binary("LogicalOr", np.logical_or, lambda x, y: x | y, types=BOOLEAN, result="boolean", commutative=True)
binary(
    "LogicalXor",  # OpenVINO's opset 1 has it, too, with version opset2
    np.logical_xor,
    lambda x, y: x ^ y,
    opset=2,
    commutative=True,
    types=BOOLEAN,
    result="boolean",
)
binary("Xor", np.logical_xor, lambda x, y: x ^ y, types=BOOLEAN, result="boolean")
binary("BitwiseAnd", np.bitwise_and, lambda x, y: x & y, opset=13, types=BITS, commutative=True)
binary("BitwiseOr", np.bitwise_or, lambda x, y: x | y, opset=13, types=BITS, commutative=True)
binary("BitwiseXor", np.bitwise_xor, lambda x, y: x ^ y, opset=13, types=BITS, commutative=True)


unary(
    "LogicalNot",  # of numbers: 1 for 0, 0 for others
    lambda x: np.logical_not(x).astype(x.dtype),
    lambda x: x ^ True if t.dtype(x) == "boolean" else t.cast(x == 0, t.dtype(x)),
    types=COMPARABLE,
)
unary("BitwiseNot", np.invert, lambda x: x ^ True if t.dtype(x) == "boolean" else ~x, opset=13, types=BITS)


def _shift_body(is_left: bool) -> Any:
    """The body of a shift. Shifts by negative amounts, or by the width or more, give 0 or the sign."""

    def body(x: Any, y: Any) -> Any:
        bits = int(t.dtype(x)[1:])
        inside = y < bits if t.dtype(y)[0] == "u" else (y >= 0) & (y < bits)
        y = t.where(inside, y, 0)
        if is_left:
            return t.where(inside, x << y, 0)
        overflow = t.where(x < 0, -1 + 0 * x, 0 * x) if t.dtype(x)[0] == "i" else 0
        return t.where(inside, x >> y, overflow)

    return body


def _shift(ufunc: Any) -> Any:
    def ref(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        bits = 8 * x.dtype.itemsize
        inside = (y >= 0) & (y < bits)
        past = ufunc(ufunc(x, x.dtype.type(bits - 1)), x.dtype.type(1))
        return np.where(inside, ufunc(x, np.where(inside, y, 0).astype(x.dtype)), past).astype(x.dtype)

    return ref


_SHIFTS: dict[str, Any] = {
    "opset": 15, "types": INTS, "domain": (0, 7),
}  # fmt: skip
binary("BitwiseLeftShift", _shift(np.left_shift), _shift_body(True), **_SHIFTS)
binary("BitwiseRightShift", _shift(np.right_shift), _shift_body(False), **_SHIFTS)


def _infer_test(data: TensorType) -> TensorType:
    check_type(data, REALS)
    return TensorType("boolean", data.shape)


def _infer_isinf(
    data: TensorType, *, detect_negative: Bool = True, detect_positive: Bool = True
) -> TensorType:
    return _infer_test(data)


def _isinf(x: np.ndarray, *, detect_negative: bool = True, detect_positive: bool = True) -> np.ndarray:
    return (detect_negative & (x == -np.inf)) | (detect_positive & (x == np.inf))


def _isinf_body(x: Any, *, detect_negative: bool = True, detect_positive: bool = True) -> Any:
    if detect_negative and detect_positive:
        return t.isinf(x)
    if detect_negative:
        return x == float("-inf")
    return x == float("inf") if detect_positive else x < float("-inf")


unary(
    "IsNaN", np.isnan, lambda x: t.isnan(x), opset=10, types=REALS, infer=_infer_test,
    part="keep",
)  # fmt: skip
unary(
    "IsFinite", np.isfinite, lambda x: t.absolute(x) < float("inf"), opset=10, types=REALS, infer=_infer_test,
    part="keep",
)  # fmt: skip
unary(
    "IsInf",
    _isinf,
    _isinf_body,
    opset=10,
    types=REALS,
    infer=_infer_isinf,
    part="keep",
    variants=({}, {"detect_negative": False}, {"detect_positive": False}),
)


@op("Select", opset=1, types=COMPARABLE, any_number=True)
class Select:
    """then_node where cond holds, else else_node; all three broadcast."""

    words = {"auto_broadcast": BROADCASTS}

    def infer(cond, then_node, else_node, *, auto_broadcast: Word = "numpy"):
        check(
            cond.dtype in ("boolean", "dynamic"),
            f"Argument 0 must have boolean element type (element type: {cond.dtype}).",
        )
        dtype = common_dtype(then_node, else_node, [*COMPARABLE, "string"])
        branches = TensorType(dtype, broadcast_types(then_node, else_node, auto_broadcast))
        out = TensorType(dtype, broadcast_types(cond, branches, auto_broadcast))
        return with_value(out, np.where, cond, then_node, else_node, partially=symbolic.select)

    def ref(cond, x, y, *, auto_broadcast="numpy"):
        return np.where(cond, x, y)

    def scalar(cond, x, y, *, auto_broadcast="numpy"):
        return t.where(cond, x, y)
