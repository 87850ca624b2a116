"""Elementwise arithmetic and mathematics, one row each; activations and logic have files of their own.

`scalar` is the body for one element, in the functions of `ovjit.codegen.trace`. Fused kernels and epilogues
of tiles are made from it. `ref` is the same in NumPy: the specification. Binary operations broadcast by
NumPy's rules (`auto_broadcast="numpy"`), the right operand to the left one's first dimensions ("pdpd"), or
not at all ("none").

Integers wrap around. Division by zero gives 0 for integers, and the smallest integer divided by -1 is
itself: no data can stop a kernel.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import ModelError, check
from ovjit.graph import symbolic
from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, Float, Op, TensorType, Word, register
from ovjit.graph.shapes import broadcast, merge
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.values import INTEGERS, in_f32, with_value
from ovjit_ops.elementwise.division import divide, divide_body, floor_divide, floor_mod_body, mod_body

NUMBERS = "f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16 u32 u64".split()
REALS = "f32 f64 f16 bf16".split()
INTS = "i8 i16 i32 i64 u8 u16 u32 u64".split()


def random_array(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, domain: tuple[float, float] = (-8, 8)
) -> np.ndarray:
    """A reproducible array of element type `dtype`, uniform over `domain` (from 0 on for unsigned)."""
    if dtype == "boolean":
        return np.asarray(rng.random(shape) < 0.5)
    low = max(domain[0], 0) if dtype[0] == "u" else domain[0]
    return np.asarray(rng.uniform(low, domain[1], shape)).astype(numpy_dtype(dtype))


def cases(
    *rows: tuple, each: Sequence[dict[str, Any]] = ({},), domain: tuple[float, float] = (-8, 8)
) -> Callable:
    """Make a `samples` function. A row has the inputs, then optionally attributes. Each dict in
    `each` makes a sample of it. An input is a shape (a tuple), for an array of the tested type, uniform over
    `domain`; or integers (a list or a number)."""

    def samples(rng: np.random.Generator, dtype: str = "f32"):
        for row in rows:
            *inputs, attrs = row if isinstance(row[-1], dict) else (*row, {})
            for more in each:
                yield (
                    [
                        random_array(rng, x, dtype, domain) if isinstance(x, tuple) else np.array(x, np.int64)
                        for x in inputs
                    ],
                    {**attrs, **more},
                )

    return samples


def samples_for(arity: int, domain: tuple[float, float], variants: tuple[dict, ...] = ({},)) -> Callable:
    """Make a `samples` function with shapes around the vector width, broadcast, scalar and empty ones.

    `variants`: sets of attributes. The first is used with all shapes, the others with two shapes.
    """

    def samples(rng: np.random.Generator, dtype: str = "f32"):
        shapes: list[tuple[tuple[int, ...], ...]] = [((n,),) * arity for n in (1, 7, 8, 15, 16, 17, 33, 1000)]
        shapes += [((),) * arity, ((0, 3),) * arity, ((2, 3, 4, 5),) * arity]
        if arity == 2:
            shapes += [
                ((3, 17), (17,)),
                ((3, 17), (3, 1)),
                ((3, 1), (1, 17)),
                ((2, 3, 5, 7), (3, 1, 1)),
                ((), (5,)),
            ]
        for shape in shapes:
            yield [random_array(rng, s, dtype, domain) for s in shape], dict(variants[0])
        for attrs in variants[1:]:
            for shape in shapes[5:7]:
                yield [random_array(rng, s, dtype, domain) for s in shape], dict(attrs)

    return samples


def _row(
    name: str,
    arity: int,
    infer: Callable,
    ref: Callable,
    *,
    opset: int = 1,
    domain: tuple[float, float] = (-8, 8),
    variants: tuple[dict, ...] = ({},),
    **options: Any,
) -> Op:
    """Register an elementwise operation. `domain`: the range of its samples."""
    return register(Op(name, opset, infer, ref, samples=samples_for(arity, domain, variants), **options))


def unary(
    name: str,
    ref: Callable,
    scalar: Callable,
    *,
    types: list[str] = NUMBERS,
    takes: list[str] | None = None,
    infer: Callable | None = None,
    ulp: float = 4,
    **options: Any,
) -> Op:
    """Register y = f(x). `infer` declares attributes, if there are any. `types`: the element types of
    kernels. `takes`: all element types of x, if there are more."""

    reference = in_f32(ref)

    def infer_same(node: TensorType) -> TensorType:
        return with_value(same_type(node, takes or types), reference, node)

    return _row(name, 1, infer or infer_same, reference, scalar=scalar, ulp=ulp, types=types, **options)


def function(name: str, ref: Callable, scalar: Callable, **options: Any) -> Op:
    """Register y = f(x), a function of reals. Integers are converted to reals (`Op.in_real`)."""
    return unary(name, ref, scalar, types=REALS, takes=NUMBERS, in_real=1, **options)


#: Words of `auto_broadcast`, after OpenVINO's name of their enumeration.
BROADCASTS = "ov::op::AutoBroadcastType: NONE EXPLICIT=NONE NUMPY PDPD"


def binary(
    name: str,
    ref: Callable,
    scalar: Callable,
    *,
    types: list[str] = NUMBERS,
    takes: list[str] | None = None,
    result: str | None = None,
    infer: Callable | None = None,
    partially: Callable | bool = False,
    ulp: float = 2,
    **options: Any,
) -> Op:
    """Register z = f(x, y) with broadcasting. `result`: the element type of z, if not that of x. `takes`: all
    element types of operands, if kernels do not support all. `partially`: f for symbolic integers."""

    def infer_broadcast(
        left_node: TensorType, right_node: TensorType, *, auto_broadcast: Word = "numpy"
    ) -> TensorType:
        out = binary_type(left_node, right_node, auto_broadcast, takes or types, result)
        if auto_broadcast == "pdpd":
            return out
        return with_value(out, reference, left_node, right_node, partially=partially)

    def reference(x: np.ndarray, y: np.ndarray, auto_broadcast: str = "numpy", **attrs: Any) -> np.ndarray:
        if auto_broadcast == "pdpd":
            broadcast_along(TensorType("", x.shape), TensorType("", y.shape))
            y = y.reshape(*y.shape, *[1] * (x.ndim - y.ndim))
        return in_wide(x, y, **attrs)

    def body(x: Any, y: Any, *, auto_broadcast: str = "numpy", **attrs: Any) -> Any:
        return scalar(x, y, **attrs)

    in_wide = in_f32(ref)
    return _row(
        name, 2, infer or infer_broadcast, reference, scalar=body, ulp=ulp, types=types,
        words={"auto_broadcast": BROADCASTS}, **options,
    )  # fmt: skip


def _check_type(x: TensorType, types: list[str], what: str) -> None:
    """Raise ModelError, with OpenVINO's message, unless the type of x is in `types`."""
    if x.dtype in types or x.dtype == "dynamic":
        return
    if types == ["boolean"]:
        says = "Operands for logical operators must have boolean element type but have element type "
        says += f"{x.dtype}."
    elif "f32" not in types:
        says = f"The element type of the input tensor must be integer {'or boolean' * ('boolean' in types)}"
        says = says.rstrip() + ("." if "boolean" in types else " number.")
    elif "i32" in types:
        says = f"This operation does not support {what} with element type: {x.dtype}."
    else:
        says = "The element type of the input tensor must be a floating point number."
    raise ModelError(f"{says} Supported types are {' '.join(types)}, not {x.dtype}")


def same_type(x: TensorType, types: list[str]) -> TensorType:
    """The type of x, checked to be one of `types`."""
    _check_type(x, types, "input")
    return TensorType(x.dtype, x.shape)


def binary_type(
    x: TensorType, y: TensorType, rule: str, types: list[str], result: str | None = None
) -> TensorType:
    dtype = common_dtype(x, y, types)
    shape = broadcast_along(x, y) if rule == "pdpd" else broadcast_types(x, y, rule)
    return TensorType(result or dtype, shape)


def common_dtype(x: TensorType, y: TensorType, types: list[str]) -> str:
    """The element type that `x` and `y` share. Raises ModelError when they differ."""
    check(
        x.dtype == y.dtype or "dynamic" in (x.dtype, y.dtype),
        f"Arguments do not have the same element type (arg0 element type: {x.dtype}, arg1 element type: "
        f"{y.dtype}). Insert a Convert",
    )
    for operand in (x, y):
        _check_type(operand, types, "inputs")
    return y.dtype if x.dtype == "dynamic" else x.dtype


def broadcast_along(x: TensorType, y: TensorType) -> Any:
    """The result shape for "pdpd": y broadcasts to the first dimensions of x. None if a rank is unknown.
    Raises ModelError if the shapes do not fit."""
    if x.shape is None or y.shape is None:
        return None
    pairs = zip(x.shape, y.shape, strict=False)
    fits = len(y.shape) <= len(x.shape) and all(b == 1 or merge(a, b) is not None for a, b in pairs)
    check(fits, f"Argument shapes are inconsistent. {x} and {y} cannot be broadcast with auto_broadcast pdpd")
    return broadcast(x.shape, (*y.shape, *[1] * (len(x.shape) - len(y.shape))))


def broadcast_types(x: TensorType, y: TensorType, rule: str) -> Any:
    """The shape of an elementwise result. Raises ModelError when the operands do not fit together."""
    rule = rule.lower()
    if rule not in ("none", "numpy"):
        raise ModelError(
            f'"{rule.upper()}" is not a member of enum ov::op::AutoBroadcastType that is supported: use '
            "numpy or none"
        )
    if rule == "numpy":
        return broadcast(x.shape, y.shape)
    if x.shape is None or y.shape is None:
        return y.shape if x.shape is None else x.shape
    merged = (
        [merge(a, b) for a, b in zip(x.shape, y.shape, strict=True)]
        if len(x.shape) == len(y.shape)
        else [None]
    )
    says = f"Argument shapes are inconsistent. {x} and {y} differ and auto_broadcast is none"
    check(None not in merged, says)
    return tuple(merged)


def _floor_mod(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return np.mod(x, y)
    return np.where(y == 0, 0, x - floor_divide(x, y) * y).astype(x.dtype)


def _mod(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return np.fmod(x, y)
    return np.where(y == 0, 0, x - divide(x, y, m_pythondiv=False) * y).astype(x.dtype)


def _power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x ** y. Integers wrap; a negative exponent truncates: 0 unless x is 1 or -1 (and 0 for x = 0)."""
    if x.dtype.kind == "f":
        return np.power(x, y)
    positive = np.power(x, np.maximum(y, 0))
    if x.dtype.kind == "u":
        return positive
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
    return np.where(y < 0, inverse, positive).astype(x.dtype)


def _power_body(x: Any, y: Any) -> Any:
    """x ** y"""
    if t.is_float(x):
        return t.pow(x, y)
    out = t.whole_power(x, y)
    if t.dtype(x)[0] == "u":
        return out
    inverse = t.where(x == 1, x, t.where(x == -1, t.where((y & 1) != 0, x, -x), 0))
    return t.where(y < 0, inverse, out)


def _infer_divide(
    left_node: TensorType, right_node: TensorType, *, auto_broadcast: Word = "numpy", m_pythondiv: Bool = True
) -> TensorType:
    out = binary_type(left_node, right_node, auto_broadcast, NUMBERS)
    exact = symbolic.divide if m_pythondiv else symbolic.quotient
    return with_value(out, divide, left_node, right_node, partially=exact, m_pythondiv=m_pythondiv)


binary("Add", np.add, lambda x, y: x + y, partially=operator.add, commutative=True, any_number=True)
binary("Subtract", np.subtract, lambda x, y: x - y, partially=symbolic.subtract, any_number=True)
binary("Multiply", np.multiply, lambda x, y: x * y, partially=operator.mul, commutative=True, any_number=True)
binary(
    "Divide", divide, divide_body, infer=_infer_divide, variants=({}, {"m_pythondiv": False}), divides=True
)
binary("Power", _power, _power_body, ulp=8, part="keep")
binary(
    "Maximum", np.maximum, lambda x, y: t.maximum(x, y), partially=symbolic.sym_max, commutative=True,
    any_number=True,
)  # fmt: skip
binary(
    "Minimum", np.minimum, lambda x, y: t.minimum(x, y), partially=symbolic.sym_min, commutative=True,
    any_number=True,
)  # fmt: skip
binary("Mod", _mod, mod_body, partially=symbolic.modulo, divides=True, part="keep")
binary("FloorMod", _floor_mod, floor_mod_body, partially=symbolic.modulo, divides=True, part="keep")
binary(
    "SquaredDifference",
    lambda x, y: (x - y) * (x - y),
    lambda x, y: (x - y) * (x - y),
    ulp=4,
    commutative=True,
    any_number=True,
)


def integer_bounds(dtype: str, low: float, high: float) -> tuple[int, int]:
    """The integers from `low` to `high` that `dtype` can hold, as (smallest, largest)."""
    info = np.iinfo(numpy_dtype(dtype))
    return (
        math.ceil(min(max(low, info.min), info.max)),
        math.floor(max(min(high, info.max), info.min)),
    )


def _infer_clamp(data: TensorType, *, min: Float, max: Float) -> TensorType:
    check(min <= max, f"Attribute 'min' must be less or equal than 'max'. Got: {min:g} and {max:g}")
    exact = data.dtype in INTEGERS and symbolic.clamp(*integer_bounds(data.dtype, min, max))
    return with_value(same_type(data, NUMBERS), in_f32(_clamp), data, partially=exact, min=min, max=max)


def _clamp(x: np.ndarray, *, min: float, max: float) -> np.ndarray:
    if x.dtype.kind != "f":
        low, high = integer_bounds(f"{x.dtype.kind}{8 * x.dtype.itemsize}", min, max)
        return np.clip(x, x.dtype.type(low), x.dtype.type(high))
    return np.clip(x, x.dtype.type(min), x.dtype.type(max))


def _clamp_body(x: Any, *, min: float, max: float) -> Any:
    low, high = (min, max) if t.is_float(x) else integer_bounds(t.dtype(x), min, max)
    return t.minimum(t.maximum(x, low), high)


def _is_usual(limit: float) -> bool:
    """True for common limits of activations and bytes. Other powers of two may be sizes of images."""
    size = abs(limit)
    return t.is_common(limit) and (size <= 8 or size in (127, 128, 255) or not math.isfinite(limit))


def _expand_clamp(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """Clamp(x) -> Minimum(Maximum(x, min), max)     for uncommon limits, which become operands"""
    low, high = node.attrs["min"], node.attrs["max"]
    if ELEMENT_TYPES[node.output.dtype].kind != "f" or (_is_usual(low) and _is_usual(high)):
        return None
    return [w("Minimum", w("Maximum", inputs[0], low), high)]


unary(
    "Clamp",
    _clamp,
    _clamp_body,
    infer=_infer_clamp,
    expand=_expand_clamp,
    variants=({"min": -1.5, "max": 4.7}, {"min": 0.0, "max": 6.0}, {"min": -math.inf, "max": 2.0}),
)

erf = np.frompyfunc(math.erf, 1, 1)


def reference_erf(x: np.ndarray) -> np.ndarray:
    """erf, correctly rounded or nearly so, in the type of x."""
    return np.asarray(erf(x.astype(np.float64)), dtype=np.float64).astype(x.dtype)


def round_half_away(x: np.ndarray) -> np.ndarray:
    """Round to the nearest integer, ties away from zero."""
    integers = np.trunc(x)
    return np.where(np.abs(x - integers) >= 0.5, integers + np.sign(x), integers).astype(x.dtype)


def _infer_round(data: TensorType, *, mode: Word = "half_to_even") -> TensorType:
    return with_value(same_type(data, NUMBERS), in_f32(_round), data, mode=mode)


def _round(x: np.ndarray, *, mode: str = "half_to_even") -> np.ndarray:
    if x.dtype.kind != "f":
        return x
    return np.rint(x) if mode == "half_to_even" else round_half_away(x)


def _round_body(x: Any, *, mode: str = "half_to_even") -> Any:
    if not t.is_float(x):
        return x
    return t.round_even(x) if mode == "half_to_even" else t.round_away(x)


def _sign_body(x: Any) -> Any:
    if t.dtype(x)[0] == "u":
        return t.where(x > 0, 1, x)
    return t.where(x > 0, 1, t.where(x < 0, -1, x))  # NaN and signed zeros are unchanged


def _apply_to_floats(f: Callable) -> Callable:
    """`f` for reals, the identity for integers."""
    return lambda x: f(x) if x.dtype.kind == "f" else x


unary("Abs", np.abs, lambda x: x if t.dtype(x)[0] == "u" else t.absolute(x))
unary("Negative", np.negative, lambda x: -x)
unary("Sign", np.sign, _sign_body, part="keep")
unary("Floor", _apply_to_floats(np.floor), lambda x: t.floor(x) if t.is_float(x) else x, part="keep")
unary("Ceiling", _apply_to_floats(np.ceil), lambda x: t.ceil(x) if t.is_float(x) else x, part="keep")
unary(
    "Round",
    _round,
    _round_body,
    opset=5,
    infer=_infer_round,
    part="keep",
    words={"mode": "op::v5::Round::RoundMode: HALF_TO_EVEN HALF_AWAY_FROM_ZERO"},
    variants=({"mode": "half_to_even"}, {"mode": "half_away_from_zero"}),
)

function("Sqrt", np.sqrt, lambda x: t.sqrt(x), domain=(0, 100))
function("Exp", np.exp, lambda x: t.exp(x), part="keep")
function("Log", np.log, lambda x: t.log(x), domain=(0, 100), part="keep")
function("Erf", reference_erf, lambda x: t.erf(x), domain=(-4, 4))
function("Sin", np.sin, lambda x: t.sin(x), part="keep")
function("Cos", np.cos, lambda x: t.cos(x), part="keep")
function("Tan", np.tan, lambda x: t.tan(x), domain=(-1.5, 1.5), ulp=8, part="keep")
function("Asin", np.arcsin, lambda x: t.asin(x), domain=(-1, 1), part="keep")
function("Acos", np.arccos, lambda x: t.acos(x), domain=(-1, 1), part="keep")
function("Atan", np.arctan, lambda x: t.atan(x), part="keep")
function("Sinh", np.sinh, lambda x: t.sinh(x), part="keep")
function("Cosh", np.cosh, lambda x: t.cosh(x), part="keep")
function("Tanh", np.tanh, lambda x: t.tanh(x))
function("Asinh", np.arcsinh, lambda x: t.asinh(x), opset=4, part="keep")
function("Acosh", np.arccosh, lambda x: t.acosh(x), opset=4, domain=(1, 50), part="keep")
function("Atanh", np.arctanh, lambda x: t.atanh(x), opset=4, domain=(-1, 1), part="keep")
