"""Operators that compute each element alone."""

from __future__ import annotations

import ml_dtypes

from ovjit.graph.symbolic import statically_known_equal
from ovjit.readers.numerics import special
from ovjit.readers.numerics.bits import next_after
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import dimension_of

#: Functions of floats: integers become f32 first.
OF_FLOATS = {
    "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh",
    "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp", "log": "Log", "sigmoid": "Sigmoid",
    "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh", "special_expit": "Sigmoid",
    "special_erf": "Erf", "arccos": "Acos", "arccosh": "Acosh", "arcsin": "Asin", "arcsinh": "Asinh",
    "arctan": "Atan", "arctanh": "Atanh", "hardswish": "HSwish", "mish": "Mish",
}  # fmt: skip
#: Functions that keep the element type. They return integers as they are.
ROUNDERS = {"ceil": "Ceiling", "floor": "Floor"}
#: Functions of two operands of one element type.
BINARY = {"eq": "Equal", "ne": "NotEqual", "lt": "Less", "le": "LessEqual", "gt": "Greater",
         "ge": "GreaterEqual", "not_equal": "NotEqual", "less": "Less", "less_equal": "LessEqual",
         "greater": "Greater", "greater_equal": "GreaterEqual", "remainder": "FloorMod", "fmod": "Mod",
         "bitwise_left_shift": "BitwiseLeftShift", "__lshift__": "BitwiseLeftShift",
         "bitwise_right_shift": "BitwiseRightShift", "__rshift__": "BitwiseRightShift",
         "__ilshift__": "BitwiseLeftShift", "__irshift__": "BitwiseRightShift"}  # fmt: skip
#: Functions of booleans: any number that is not 0 is true.
LOGICAL = {"logical_and": "LogicalAnd", "logical_or": "LogicalOr", "logical_xor": "LogicalXor"}
#: Functions of integers and of booleans.
BITS = {"bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor",
        "__and__": "BitwiseAnd", "__or__": "BitwiseOr", "__xor__": "BitwiseXor",
        "__iand__": "BitwiseAnd", "__ior__": "BitwiseOr", "__ixor__": "BitwiseXor"}  # fmt: skip
#: (operation for floats, value for other numbers, attributes of the operation).
PREDICATES = {
    "isnan": ("IsNaN", False, {}), "isinf": ("IsInf", False, {}), "isfinite": ("IsFinite", True, {}),
    "isposinf": ("IsInf", False, {"detect_negative": False}),
    "isneginf": ("IsInf", False, {"detect_positive": False}),
}  # fmt: skip


def _declare_float_function(name: str, op: str) -> None:
    aten(name)(lambda n, x: n(op, n.real(x)))


def _declare_rounder(name: str, op: str) -> None:
    aten(name)(lambda n, x: n(op, x) if n.is_real(x) else x)


def _declare_binary(name: str, op: str) -> None:
    aten(name)(lambda n, x, other: n(op, *n.same_kind([x, other])))


def _declare_logical(name: str, op: str) -> None:
    aten(name)(lambda n, x, other: n(op, n.tensor(x, "boolean"), n.tensor(other, "boolean")))


def _declare_predicate(name: str, what: tuple[str, bool, dict[str, Any]]) -> None:
    op, otherwise, attrs = what
    aten(name)(lambda n, x: n(op, x, **attrs) if n.is_real(x) else n.alike(x, otherwise, "boolean"))


_TABLES: list[tuple[Callable[..., None], dict[str, Any]]] = [
    (_declare_float_function, OF_FLOATS), (_declare_rounder, ROUNDERS), (_declare_binary, BINARY),
    (_declare_logical, LOGICAL), (_declare_binary, BITS), (_declare_predicate, PREDICATES),
]  # fmt: skip
for _make, _table in _TABLES:
    for _name, _what in _table.items():
        _make(_name, _what)


def scale(n: Call, other: Any, alpha: Any) -> Any:
    """other * alpha"""
    if alpha is None or (not isinstance(alpha, (Output, Number)) and alpha == 1):
        return other
    if not isinstance(other, (Output, Number)):
        return other * alpha
    kind = n.dtype(n.tensor(other))
    return mul(n, n.tensor(other), n.tensor(alpha, kind))


def with_scaled(n: Call, x: Any, other: Any, alpha: Any) -> list[Output]:
    """x and other * alpha, the product in their promoted type."""
    a, b = n.same_kind([x, other])
    return [a, scale(n, b, alpha)]


@aten("add")
def add(n: Call, x: Any, other: Any, alpha: Any = 1) -> Any:
    a, b = with_scaled(n, x, other, alpha)
    return n("LogicalOr" if n.dtype(a) == "boolean" else "Add", a, b)


def difference(n: Call, a: Output, b: Output) -> Output:
    """a - b. A dimension less itself is known to be 0: a length that is padded to itself needs no Pad."""
    dim = dimension_of(a)
    is_same = n.shape(a) == n.shape(b) and dim is not None and statically_known_equal(dim, dimension_of(b))
    return n.like(a, 0) if is_same else n("Subtract", a, b)


@aten("mul", "multiply")
def mul(n: Call, x: Any, other: Any) -> Any:
    a, b = n.same_kind([x, other])
    return n("LogicalAnd" if n.dtype(a) == "boolean" else "Multiply", a, b)


@aten("div", "divide", "true_divide", "floor_divide")
def div(n: Call, x: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """Division. Quotients are floats; with a rounding mode they have the operands' type."""
    mode = "floor" if n.op == "aten::floor_divide" else rounding_mode
    a, b = n.same_kind([x, other])
    if mode == "floor" and n.is_real(a):
        kind = n.dtype(a)  # a number is not rounded to f16
        b = n.upcast(b) if isinstance(other, Output) else n.tensor(other, n.dtype(n.upcast(a)))
        return n.convert(floor_divide_floats(n, n.upcast(a), b), kind)
    if mode is None:
        if not n.is_real(a):
            a, b = n.convert(a, "f32"), n.convert(b, "f32")
        return n("Divide", a, b)
    if n.is_real(a):
        return truncate(n, n("Divide", a, b))
    return n("Divide", a, b, m_pythondiv=mode == "floor")


def floor_divide_floats(n: Call, a: Output, b: Output) -> Output:
    """Python's a // b of reals. The quotient itself may be rounded up to a whole number: 0.9 // 0.1 is 8."""
    zero = n.like(a, 0)
    remainder = n("Mod", a, b)
    quotient = n("Divide", n("Subtract", a, remainder), b)
    signs_differ = n("LogicalXor", n("Less", remainder, zero), n("Less", b, zero))
    signs_differ = n("LogicalAnd", signs_differ, n("NotEqual", remainder, zero))
    quotient = n("Subtract", quotient, n.convert(signs_differ, n.dtype(a)))  # nearly a whole number
    below = n("Floor", quotient)
    rounded_up = n("Greater", n("Subtract", quotient, below), n.like(a, 0.5))
    result = n("Add", below, n.convert(rounded_up, n.dtype(a)))
    return n("Select", n("Equal", b, zero), n("Divide", a, b), result)


@aten("trunc", "fix")
def truncate(n: Call, x: Output) -> Output:
    """Towards 0: sign(x) * floor(|x|)"""
    if not n.is_real(x):
        return x
    return n("Multiply", n("Sign", x), n("Floor", n("Abs", x)))


@aten("round", "special_round")
def round_decimals(n: Call, x: Output, decimals: int = 0) -> Output:
    if not n.is_real(x):
        return x
    if not decimals:
        return n("Round", x, mode="half_to_even")
    kind, x = n.dtype(x), n.upcast(x)
    power = n.like(x, 10.0 ** abs(decimals))
    there, back = ("Multiply", "Divide") if decimals > 0 else ("Divide", "Multiply")
    return n.convert(n(back, n("Round", n(there, x, power), mode="half_to_even"), power), kind)


@aten("pow", "float_power")
def power(n: Call, x: Any, exponent: Any) -> Any:
    if isinstance(x, (Complex, complex)) or isinstance(exponent, (Complex, complex)):
        return n.also("complex_pow", x, exponent)
    a, b = n.same_kind([x, exponent])
    if n.op == "aten::float_power":
        a, b = n.convert(a, "f64"), n.convert(b, "f64")
    if not n.is_real(a):  # Power of integers is exact modulo 2^bits, as PyTorch's is
        times = n.known_number(exponent)
        if isinstance(times, int) and 0 < times <= MOST_FACTORS:
            return by_squaring(times, a, lambda p, q: n("Multiply", p, q))
    return n("Power", a, b)


#: Powers up to this one are products.
MOST_FACTORS = 64


def by_squaring(times: int, x: Any, product: Callable[[Any, Any], Any]) -> Any:
    """The product of `times` factors x, by repeated squaring with `product`."""
    out = x
    for bit in bin(times)[3:]:
        out = product(out, out)
        out = product(out, x) if bit == "1" else out
    return out


def extreme(n: Call, op: str, x: Any, other: Any) -> Output:
    """Return the element-wise maximum or minimum. NaN propagates from either float input."""
    a, b = n.same_kind([x, other])
    if n.dtype(a) == "boolean":
        return n("LogicalOr" if op == "Maximum" else "LogicalAnd", a, b)
    return n(op, a, b)


@aten("fmax", "fmin")
def fmax(n: Call, x: Any, other: Any) -> Output:
    """The maximum (fmax) or minimum of two; of a number and NaN the number."""
    a, b = n.same_kind([x, other])
    out = extreme(n, "Maximum" if n.op == "aten::fmax" else "Minimum", a, b)
    if not n.is_real(a):
        return out
    return n("Select", n("IsNaN", a), b, n("Select", n("IsNaN", b), a, out))


#: Types of Clamp.
_CLAMPED = ("f32", "f16", "bf16", "i64", "i32")


@aten("clamp", "clip")
def clamp(n: Call, x: Any, min: Any = None, max: Any = None) -> Output:
    bounds = [v for v in (min, max) if v is not None]
    kind = n.common([x, *bounds])
    out = n.tensor(x, kind)
    plain = all(isinstance(v, (int, float)) and math.isfinite(v) for v in bounds)
    plain = plain and all(abs(v) <= 2**53 for v in bounds)  # the bounds of Clamp are of f64
    if plain and len(bounds) == 2 and bounds[0] <= bounds[1] and kind in _CLAMPED:
        return n("Clamp", out, min=float(bounds[0]), max=float(bounds[1]))
    if min is not None:
        out = n("Maximum", out, n.tensor(min, kind))
    return out if max is None else n("Minimum", out, n.tensor(max, kind))


@aten("abs", "absolute")
def absolute(n: Call, x: Any) -> Output:
    if isinstance(x, Complex):
        return n("Sqrt", n("ReduceSum", n("Multiply", x.pair, x.pair), [-1], keep_dims=False))
    return x if n.dtype(x) in ("u8", "boolean") else n("Abs", x)


@aten("positive", "contiguous", "clone", "detach", "alias", "lift", "lift_fresh", "lift_fresh_copy",
      "alias_copy", "detach_copy", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout",
      "native_dropout", "resolve_conj", "resolve_neg", "requires_grad_",
      "cpu", "pin_memory")  # fmt: skip
def return_input(n: Call, x: Any, train: Any = False, training: Any = False) -> Any:
    if n.known_number(train) or n.known_number(training):
        raise UnsupportedError("dropout of a module in training mode is not supported: call eval() first")
    if n.op == "aten::native_dropout":
        return [x, n.alike(x, True, "boolean")]
    return x


def negate(n: Call, x: Output) -> Output:
    """-x, a product as in OpenVINO's models: NNCF knows no Negative."""
    return n("Subtract", n.like(x, 0), x) if n.dtype(x) == "u8" else n("Multiply", x, n.like(x, -1))


@aten("reciprocal")
def reciprocal(n: Call, x: Any) -> Output:
    x = n.real(x)
    return n("Power", x, n.like(x, -1))


@aten("rsqrt")
def rsqrt(n: Call, x: Any) -> Output:
    x = n.real(x)
    return n("Divide", n.like(x, 1), n("Sqrt", x))


@aten("sign", "sgn")
def sign(n: Call, x: Any) -> Any:
    if isinstance(x, Complex):
        size = n.unsqueeze(absolute(n, x), [-1])
        zero = n("Equal", size, n.like(size, 0))
        return Complex(n("Divide", x.pair, n("Select", zero, n.like(size, 1), size)))
    if n.dtype(x) == "boolean":
        return x
    return n("Select", n("IsNaN", x), n.like(x, 0), n("Sign", x)) if n.is_real(x) else n("Sign", x)


@aten("signbit")
def signbit(n: Call, x: Output) -> Output:
    """Return the sign bit. That of -0 is found by 1/x, which is negative."""
    if not n.is_real(x):
        return n("Less", n.tensor(x, "i64"), n.const(0))
    below = n("Less", x, n.like(x, 0))
    return n("LogicalOr", below, n("Less", n("Divide", n.like(x, 1), x), n.like(x, 0)))


@aten("isclose")
def isclose(
    n: Call, x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Output:
    a, b = n.same_kind([x, other])
    same = n("Equal", a, b)
    if equal_nan and n.is_real(a):
        same = n("LogicalOr", same, n("LogicalAnd", n("IsNaN", a), n("IsNaN", b)))
    compare_dtype = "f64" if n.dtype(a) in ("f64", "i64", "i32") else "f32"
    p, q = n.convert(a, compare_dtype), n.convert(b, compare_dtype)
    allowed = n("Add", n.like(p, atol), n("Multiply", n.like(p, rtol), n("Abs", q)))
    gap = n("Abs", n("Subtract", p, q))
    near = n("LogicalAnd", n("LessEqual", gap, allowed), n("IsFinite", gap))
    return n("LogicalOr", same, near)


@aten("nan_to_num")
def nan_to_num(n: Call, x: Output, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Output:
    if not n.is_real(x):
        return x
    info = ml_dtypes.finfo(ELEMENT_TYPES[n.dtype(x)].numpy)
    out = n("Select", n("IsNaN", x), n.like(x, nan or 0.0), x)
    for number, default, options in (
        (posinf, float(info.max), {"detect_negative": False, "detect_positive": True}),
        (neginf, float(info.min), {"detect_negative": True, "detect_positive": False}),
    ):
        is_infinite = n("IsInf", x, **options)
        out = n("Select", is_infinite, n.like(x, default if number is None else number), out)
    return out


@aten("where")
def where(n: Call, x: Output, self: Any = None, other: Any = None) -> Any:
    if self is None:
        return n.also("nonzero_numpy", x)
    if isinstance(self, Complex) or isinstance(other, Complex):
        a, b = (v if isinstance(v, Complex) else n.complex_of(n.tensor(v)) for v in (self, other))
        return Complex(n("Select", n.unsqueeze(n.tensor(x, "boolean"), [-1]), a.pair, b.pair))
    return n("Select", n.tensor(x, "boolean"), *n.same_kind([self, other]))


@aten("addcmul", "addcdiv")
def addcmul(n: Call, x: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Output:
    a, b, c = n.same_kind([x, tensor1, tensor2])
    op = "Multiply" if n.op == "aten::addcmul" else "Divide"
    if value == 1:
        return n("Add", a, n(op, b, c))
    kind = n.dtype(a)
    a, b, c = (n.upcast(v) for v in (a, b, c))
    return n.convert(n("Add", a, n(op, scale(n, b, value), c)), kind)


@aten("lerp")
def lerp(n: Call, x: Output, end: Output, weight: Any) -> Output:
    """x + weight (end - x); from the nearer end, so that the ends are exact and may be infinite"""
    constant, kind = n.known_number(weight), n.dtype(x)
    x, end = n.upcast(x), n.upcast(end)
    weight, gap = n.tensor(weight, n.dtype(x)), n("Subtract", end, x)
    near = n("Add", x, n("Multiply", weight, gap))
    if constant is not None and abs(constant) < 0.5:
        return n.convert(near, kind)
    far = n("Subtract", end, n("Multiply", gap, n("Subtract", n.like(x, 1), weight)))
    if constant is None:
        far = n("Select", n("Less", n("Abs", weight), n.like(x, 0.5)), near, far)
    return n.convert(far, kind)


@aten("log2", "log10", "log1p", "exp2", "expm1", "special_expm1", "special_log1p", "special_exp2")
def log_or_exp(n: Call, x: Any) -> Output:
    """log2, log10, exp2 and the like from log and exp; log1p and expm1 stay accurate near 0."""
    x = n.real(x)
    kind, upcast = n.dtype(x), n.upcast(x)
    name = n.op.removeprefix("aten::").removeprefix("special_")
    if name in ("log2", "log10"):
        out = n("Multiply", n("Log", upcast), n.like(upcast, 1 / math.log(2 if name == "log2" else 10)))
        n.rename(out, "Divide")
    elif name == "exp2":
        out = n("Power", n.like(upcast, 2), upcast)
    else:
        out = special.expm1(n, upcast) if name == "expm1" else special.log1p(n, upcast)
    return n.convert(out, kind)


@aten("atan2", "arctan2")
def atan2(n: Call, x: Any, other: Any) -> Output:
    y, x = (n.real(v) for v in n.same_kind([x, other]))
    return n.convert(special.atan2(n, n.upcast(y), n.upcast(x)), n.dtype(y))


@aten("hypot")
def hypot(n: Call, x: Any, other: Any) -> Output:
    """large * sqrt(1 + (small / large)^2), which squares nothing that is out of range then"""
    a, b = (n("Abs", v) for v in n.same_kind([x, other]))
    endless = n("LogicalOr", n("IsInf", a), n("IsInf", b))  # even where the other one is no number
    large, small = n("Maximum", a, b), n("Minimum", a, b)
    plain = n("LogicalAnd", n("Greater", large, n.like(a, 0)), n("IsFinite", large))
    part = n("Divide", small, n("Select", plain, large, n.like(a, 1)))
    root = n("Sqrt", n("Add", n("Multiply", part, part), n.like(a, 1)))
    result = n("Select", plain, n("Multiply", large, root), large)
    return n("Select", endless, n.like(a, math.inf), result)


@aten("copysign")
def copysign(n: Call, x: Any, other: Any) -> Output:
    size = n("Abs", n.real(x))
    sign_of = n.also("signbit", n.real(other))
    return n("Select", sign_of, n("Negative", size), size)


@aten("logaddexp", "logaddexp2")
def logaddexp(n: Call, x: Any, other: Any) -> Output:
    a, b = n.same_kind([x, other])
    unit = math.log(2) if n.op.endswith("2") else 1.0
    return n.convert(special.log_add(n, n.upcast(a), n.upcast(b), unit), n.dtype(a))


@aten("xlogy", "special_xlogy", "special_xlog1py")
def xlogy(n: Call, x: Any, other: Any) -> Output:
    a, b = (n.real(v) for v in n.same_kind([x, other]))
    log = n.also("log1p", b) if n.op.endswith("log1py") else n("Log", b)
    product = n("Select", n("Equal", a, n.like(a, 0)), n.like(a, 0), n("Multiply", a, log))
    return n("Select", n("IsNaN", b), b, product)


@aten("logit", "special_logit")
def logit(n: Call, x: Any, eps: float | None = None) -> Output:
    x = n.real(x)
    if eps is not None:
        x = n("Select", n("Less", x, n.like(x, eps)), n.like(x, eps), n("Minimum", x, n.like(x, 1 - eps)))
    return n("Log", n("Divide", x, n("Subtract", n.like(x, 1), x)))


@aten("sinc", "special_sinc")
def sinc(n: Call, x: Any) -> Output:
    kind, x = n.dtype(n.real(x)), n.upcast(n.real(x))
    zero = n("Equal", x, n.like(x, 0))
    angle = n("Multiply", n("Select", zero, n.like(x, 1), x), n.like(x, math.pi))
    return n.convert(n("Select", zero, n.like(x, 1), n("Divide", n("Sin", angle), angle)), kind)


@aten("deg2rad", "rad2deg")
def degrees(n: Call, x: Any) -> Output:
    x = n.real(x)
    factor = math.pi / 180 if n.op == "aten::deg2rad" else 180 / math.pi
    return n("Multiply", x, n.like(x, factor))


@aten("heaviside")
def heaviside(n: Call, x: Output, values: Output) -> Output:
    above = n.convert(n("Greater", x, n.like(x, 0)), n.dtype(x))
    return n("Select", n("Equal", x, n.like(x, 0)), values, above)


@aten("ldexp")
def ldexp(n: Call, x: Any, other: Any) -> Output:
    """x * 2^other"""
    a = n.real(x)
    power = n("Power", n.like(a, 2), n.to_type(n.tensor(other), n.dtype(a)))
    return n("Multiply", a, power)


@aten("isreal")
def isreal(n: Call, x: Any) -> Output:
    if isinstance(x, Complex):
        imaginary = n.part(x, 1)
        return n("Equal", imaginary, n.like(imaginary, 0))
    return n.alike(x, True, "boolean")


#: Operators that are one expression.
aten_rows({
    "sub subtract": lambda n, x, other, alpha=1: difference(n, *with_scaled(n, x, other, alpha)),
    "rsub": lambda n, x, other, alpha=1: difference(n, *with_scaled(n, other, x, alpha)),
    "nextafter": lambda n, x, other: next_after(n, *n.same_kind([x, other])),
    "prims::fma": lambda n, x, b, c: n.also("addcmul", c, x, b),
    "frac": lambda n, x: n("Subtract", x, truncate(n, x)),
    "maximum max.other": lambda n, x, other: extreme(n, "Maximum", x, other),
    "minimum min.other": lambda n, x, other: extreme(n, "Minimum", x, other),
    "clamp_min": lambda n, x, min: clamp(n, x, min=min),
    "clamp_max": lambda n, x, max: clamp(n, x, max=max),
    "neg negative": negate,
    "logical_not": lambda n, x: n("LogicalNot", n.tensor(x, "boolean")),
    "bitwise_not": lambda n, x: n("BitwiseNot", x),
    "square": lambda n, x: n.also("pow", x, 2),
    "masked_fill": lambda n, x, mask, value:
        n("Select", n.tensor(mask, "boolean"), n.tensor(value, n.dtype(x)), x),
})  # fmt: skip
