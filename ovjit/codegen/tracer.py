"""The tracer that turns a scalar body into straight-line code, and the functions that bodies may call.

Bodies import these functions from `ovjit.codegen.trace`, which also has the transcendental functions. Those
are composed of the functions here (`approx.py`).

A scalar body such as `lambda x: maximum(x, 0)` is plain Python. The functions here run on Python
numbers and NumPy arrays (by NumPy) and on `Tracer`s, which record one instruction per call. The
recorded instructions, in the small set below, are what kernels are printed from.

Instructions (dtype of the result):
    arithmetic    add sub mul div neg fma exact_fma min max abs sqrt floor ceil trunc rint
    comparison    lt le gt ge eq ne (boolean)
    bits          and or xor not shl shr (operands' type)
    other         select, cast, trunc_int, round_int (unchecked), trunc_or_min, rcp (about 1 / x),
                  bits (reinterpret), saturate (i32 to 8 bits), whole_power (of integers),
                  libm_<name> (C library), seldom_<name> (C library in rare lanes, see `seldom`)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph import dtypes

__all__ = [
    "Recorder", "Tracer", "WIDENED", "absolute", "bits", "cast", "ceil", "constant", "dtype", "exact_fma",
    "floor", "floor_divide", "fma", "is_common", "is_float", "is_near", "is_zero", "isinf", "isnan",
    "maximum", "minimum", "number", "pow", "power", "rcp", "round_away", "round_even", "round_int",
    "saturate", "seldom", "sqrt", "to_int", "trace", "trunc", "trunc_or_min", "where", "whole_power",
]  # fmt: skip

#: Types that are computed in f32: loads widen them, stores round them to nearest even.
WIDENED = {"f16": "f32", "bf16": "f32"}


_COMMUTATIVE = frozenset(("add", "mul", "and", "or", "xor", "eq", "ne"))


class Recorder:
    """Collects instructions as (target, operation, arguments, dtype); equal ones are shared.

    Arguments are names of earlier targets, or `("const", value, dtype)`. `approximate`: results will be
    rounded to bf16, so that functions may have a relative error of 2**-13. `near`: all rounded values fit
    into i32.
    """

    approximate = False
    near = False

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, tuple, str]] = []
        self._tracers: dict[tuple, Tracer] = {}
        #: result of `round_int` -> its argument
        self.rounded: dict[str, Tracer] = {}

    def input(self, name: str, dtype: str) -> Tracer:
        return Tracer(self, name, WIDENED.get(dtype, dtype))

    def emit(self, operation: str, args: tuple, dtype: str) -> Tracer:
        if operation in _COMMUTATIVE:  # a + b and b + a give the same kernel
            args = tuple(sorted(args, key=lambda a: (isinstance(a, tuple), str(a))))
        key = (operation, args, dtype)
        traced = self._tracers.get(key)
        if traced is None:
            name = f"t{len(self.lines)}"
            self.lines.append((name, operation, args, dtype))
            traced = self._tracers[key] = Tracer(self, name, dtype)
        return traced


def _operator(operation: str) -> tuple[Callable[[Any, Any], Tracer], Callable[[Any, Any], Tracer]]:
    """The operator of an arithmetic instruction, and the one with the operands exchanged."""
    return lambda x, y: _binary(operation, x, y), lambda x, y: _binary(operation, y, x)


def _comparison(operation: str) -> Callable[[Any, Any], Tracer]:
    """The operator of a comparison."""
    return lambda x, y: _compare(operation, x, y)


class Tracer:
    """A value inside a body that is being traced."""

    __slots__ = ("dtype", "name", "recorder")
    __array_priority__ = 1000
    __array_ufunc__ = None

    def __init__(self, recorder: Recorder, name: Any, dtype: str):
        self.recorder = recorder
        self.name = name
        self.dtype = dtype

    def __bool__(self) -> bool:
        raise TypeError("a scalar body cannot branch on a traced value; use where(condition, a, b)")

    __add__, __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("sub")
    __mul__, __rmul__ = _operator("mul")
    __truediv__, __rtruediv__ = _operator("div")
    __and__, __rand__ = _operator("and")
    __or__, __ror__ = _operator("or")
    __xor__, __rxor__ = _operator("xor")
    __lshift__, __rlshift__ = _operator("shl")
    __rshift__, __rrshift__ = _operator("shr")
    __lt__, __le__, __gt__, __ge__ = map(_comparison, ("lt", "le", "gt", "ge"))
    __eq__, __ne__ = map(_comparison, ("eq", "ne"))  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __floordiv__(self, other: Any) -> Tracer:
        return floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tracer:
        return floor_divide(other, self)

    def __mod__(self, other: Any) -> Tracer:
        return self - floor_divide(self, other) * other

    def __neg__(self) -> Tracer:
        return self.recorder.emit("neg", (self.name,), self.dtype)

    def __invert__(self) -> Tracer:
        return self.recorder.emit("not", (self.name,), self.dtype)


def trace(body: Callable, arguments: list[Tracer], attrs: dict[str, Any]) -> Tracer:
    """Run `body` on tracers. If it returns a plain number, that becomes a constant."""
    out = body(*arguments, **attrs)
    return out if isinstance(out, Tracer) else constant(arguments[0], out)


def constant(like: Tracer, value: Any, dtype: str | None = None) -> Tracer:
    """`value` as a traced constant of `dtype` (the type of `like` if not given)."""
    dtype = dtype or like.dtype
    value = np.asarray(value).astype(dtypes.numpy_dtype(dtype)).item()
    return Tracer(like.recorder, ("const", _key(value), dtype), dtype)


def is_common(number: float) -> bool:
    """True for numbers that are printed into kernels, since many models have them: small integers, powers of
    two, 127 and 255, infinities and NaN."""
    if not math.isfinite(number):
        return True
    size = abs(number)
    return size in (127.0, 255.0) or (size <= 8 and size.is_integer()) or math.frexp(size)[0] == 0.5


def number(recorder: Recorder, value: Any, dtype: str) -> Tracer:
    """`value` as a constant of element type `dtype`."""
    dtype = WIDENED.get(dtype, dtype)
    return constant(Tracer(recorder, "", dtype), value, dtype)


def is_zero(x: Any) -> bool:
    """True for a traced constant of 0."""
    return isinstance(x, Tracer) and isinstance(x.name, tuple) and x.name[1] in (0, (0.0).hex())


def is_near(x: Any) -> bool:
    """True for a tracer whose recorder is `near`."""
    return isinstance(x, Tracer) and x.recorder.near


def _key(value: Any) -> Any:
    """A hashable form in which -0.0 and 0.0 differ, and NaN equals itself."""
    return value.hex() if isinstance(value, float) else value


def _as_tracers(x: Any, y: Any) -> tuple[Tracer, Tracer]:
    if not isinstance(x, Tracer):
        return constant(y, x), y
    if not isinstance(y, Tracer):
        return x, constant(x, y)
    if x.dtype != y.dtype:
        raise ModelError(f"a scalar body mixes {x.dtype} and {y.dtype}; use cast")
    return x, y


def _binary(operation: str, x: Any, y: Any) -> Tracer:
    x, y = _as_tracers(x, y)
    return x.recorder.emit(operation, (x.name, y.name), x.dtype)


def _compare(operation: str, x: Any, y: Any) -> Tracer:
    x, y = _as_tracers(x, y)
    return x.recorder.emit(operation, (x.name, y.name), "boolean")


def _is_traced(*xs: Any) -> bool:
    return any(isinstance(x, Tracer) for x in xs)


# --- properties of tracers, as Python values


def dtype(x: Any) -> str:
    """The element type's name."""
    return x.dtype if isinstance(x, Tracer) else dtypes.from_numpy(np.asarray(x).dtype)


def is_float(x: Any) -> bool:
    return dtypes.ELEMENT_TYPES[dtype(x)].kind == "f"


# --- the functions that bodies may call


def maximum(x: Any, y: Any) -> Any:
    """The larger one; NaN if one is NaN."""
    return _binary("max", x, y) if _is_traced(x, y) else np.maximum(x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller one; NaN if one is NaN."""
    return _binary("min", x, y) if _is_traced(x, y) else np.minimum(x, y)


def _unary(
    name: str, reference: Callable, operation: str | None = None, float_only: bool = False
) -> Callable:
    def function(x: Any) -> Any:
        if not isinstance(x, Tracer):
            return reference(x)
        if float_only and not is_float(x):
            return x
        return x.recorder.emit(operation or name, (x.name,), x.dtype)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name}(x), elementwise."
    return function


absolute = _unary("absolute", np.abs, "abs")
sqrt = _unary("sqrt", np.sqrt)
#: 1 / x with a relative error of at most 2**-14; for `approximate` bodies.
rcp = _unary("rcp", np.reciprocal)
floor = _unary("floor", np.floor, float_only=True)
ceil = _unary("ceil", np.ceil, float_only=True)
trunc = _unary("trunc", np.trunc, float_only=True)
round_even = _unary("round_even", np.rint, "rint", float_only=True)


def round_away(x: Any) -> Any:
    """Round half away from zero."""
    if isinstance(x, Tracer) and not is_float(x):
        return x
    base = trunc(x)
    return where(absolute(x - base) >= 0.5, base + where(x < 0, -1.0 + 0 * x, 1.0 + 0 * x), base)


def fma(x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once if the target has the instruction."""
    if not _is_traced(x, y, z):
        return x * y + z
    like = next(v for v in (x, y, z) if isinstance(v, Tracer))
    x, y, z = (v if isinstance(v, Tracer) else constant(like, v) for v in (x, y, z))
    if not is_float(x):
        return x * y + z
    return like.recorder.emit("fma", (x.name, y.name, z.name), like.dtype)


def exact_fma(x: Tracer, y: Tracer, z: Tracer) -> Tracer:
    """x * y + z of floats, exactly if that is representable."""
    return x.recorder.emit("exact_fma", (x.name, y.name, z.name), x.dtype)


def where(condition: Any, x: Any, y: Any) -> Any:
    """Select x if the condition is true, else y. Both are computed."""
    if not _is_traced(condition, x, y):
        return np.where(condition, x, y)
    if not isinstance(condition, Tracer):
        return x if condition else y
    if not _is_traced(x, y):
        raise ModelError("where needs a traced branch; use cast(value, dtype) for one of them")
    x, y = _as_tracers(x, y)
    return condition.recorder.emit("select", (condition.name, x.name, y.name), x.dtype)


def cast(x: Any, to: str) -> Any:
    """x converted to element type `to`: floats truncate and saturate, integers wrap, boolean is x != 0."""
    if not isinstance(x, Tracer):
        return np.asarray(x).astype(dtypes.numpy_dtype(to))
    to = WIDENED.get(to, to)
    if x.dtype == to:
        return x
    if to == "boolean":
        return x != 0
    if isinstance(x.name, tuple):
        value = x.name[1]
        return constant(x, float.fromhex(value) if isinstance(value, str) else value, to)
    rounded = x.recorder.rounded.get(x.name)
    if rounded is not None and rounded.dtype == to:
        if x.dtype == "u8":
            rounded = where(rounded > 0.0, rounded, 0.0)
            rounded = where(rounded < 255.0, rounded, 255.0)
        return round_even(rounded)
    return x.recorder.emit("cast", (x.name,), to)


def to_int(x: Any, to: str) -> Any:
    """x truncated to the integer type `to`. The result is undefined for NaN, and if it does not fit."""
    return x.recorder.emit("trunc_int", (x.name,), to) if isinstance(x, Tracer) else cast(x, to)


def trunc_or_min(x: Any, to: str) -> Any:
    """x truncated to the signed integer type `to`; its minimum for NaN and for values that do not fit."""
    if not isinstance(x, Tracer):
        return dtypes.truncate_to(x, dtypes.numpy_dtype(to))
    return x.recorder.emit("trunc_or_min", (x.name,), to)


def round_int(x: Any, to: str) -> Any:
    """x rounded to the nearest integer of type `to`, ties to even. The result is undefined for NaN, and if it
    does not fit. Except for u8, which saturates to 0 or 255, with 0 for NaN. A cast of the result to float is
    traced as a rounding of x, without a conversion to integers."""
    if not isinstance(x, Tracer):
        return cast(np.rint(np.where(x > 0, np.minimum(x, 255), 0) if to == "u8" else x), to)
    rounded = x.recorder.emit("round_int", (x.name,), to)
    x.recorder.rounded[rounded.name] = x
    return rounded


def saturate(x: Tracer, to: str) -> Tracer:
    """An i32 saturated to the 8-bit type `to`."""
    return x.recorder.emit("saturate", (x.name,), to)


def bits(x: Any, to: str) -> Any:
    """The bits of x read as element type `to` of the same width."""
    if not isinstance(x, Tracer):
        return np.asarray(x).view(dtypes.numpy_dtype(to))
    return x.recorder.emit("bits", (x.name,), to)


def seldom(name: str, mask: Tracer, *xs: Tracer) -> Tracer:
    """The last of `xs`; in lanes where the mask is true, the C library's function `name` of the others. A
    branch skips the call for vectors without such a lane. For arguments outside of a polynomial's range."""
    y = xs[-1]
    return y.recorder.emit(f"seldom_{name}", (mask.name, *(x.name for x in xs)), y.dtype)


def isnan(x: Any) -> Any:
    return x != x if isinstance(x, Tracer) else np.isnan(x)


def isinf(x: Any) -> Any:
    if not isinstance(x, Tracer):
        return np.isinf(x)
    return absolute(x) == math.inf if is_float(x) else (x != x)


def floor_divide(x: Any, y: Any) -> Any:
    """Division rounded towards minus infinity; an integer divided by 0 is 0."""
    if not _is_traced(x, y):
        return np.floor_divide(x, y)
    x, y = _as_tracers(x, y)
    if is_float(x):
        return floor(x / y)
    quotient = x / y
    if dtypes.ELEMENT_TYPES[x.dtype].kind == "u":
        return quotient
    inexact = (quotient * y != x) & ((x < 0) ^ (y < 0)) & (y != 0)
    return where(inexact, quotient - 1, quotient)


def power(x: Any, y: Any) -> Any:
    """x ** y. Integers wrap; with a negative exponent the result is the real power, truncated."""
    if not _is_traced(x, y):
        return np.power(x, y)
    x, y = _as_tracers(x, y)
    if not is_float(x):
        return cast(
            cast(x, "f64").recorder.emit("libm_pow", (cast(x, "f64").name, cast(y, "f64").name), "f64"),
            x.dtype,
        )
    if isinstance(y.name, tuple):
        exponent = float.fromhex(y.name[1])
        if exponent in (1.0, 2.0, 3.0, -1.0, 0.5):
            return {1.0: lambda: x, 2.0: lambda: x * x, 3.0: lambda: x * x * x,
                    -1.0: lambda: 1 / x, 0.5: lambda: _sqrt_power(x)}[exponent]()  # fmt: skip
    return x.recorder.emit("libm_pow", (x.name, y.name), x.dtype)


def whole_power(x: Any, y: Any) -> Any:
    """x ** max(y, 0) of integers, which wraps."""
    if not _is_traced(x, y):
        return np.power(x, np.maximum(y, 0))
    x, y = _as_tracers(x, y)
    if not isinstance(y.name, tuple):
        return x.recorder.emit("whole_power", (x.name, maximum(y, 0).name), x.dtype)
    exponent, square, out = max(y.name[1], 0), x, 0 * x + 1
    while exponent:
        out = out * square if exponent & 1 else out
        square, exponent = square * square, exponent >> 1
    return out


def _sqrt_power(x: Tracer) -> Tracer:
    """pow(x, 0.5): +inf for -inf and +0 for -0, unlike sqrt, which gives NaN and -0."""
    return where(x == -math.inf, constant(x, math.inf), sqrt(x) + 0)


pow = power
