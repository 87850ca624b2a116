"""The bits of real numbers as integers and back.

`recast` keeps all bits, by an operation that OpenVINO does not have. The others use arithmetic: sign,
exponent and fraction are found exactly, those of subnormal numbers too. NaN is the quiet one.
"""

from __future__ import annotations

import numpy as np

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.errors import UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype
from ovjit.records import NamedTuple


class _Format(NamedTuple):
    fraction: int  # bits of it
    bias: int

    @property
    def highest(self) -> int:
        """The exponent's field of what is no finite number."""
        return 2 * self.bias + 1

    def power(self, n: Builder, field: Output) -> Output:
        """2 to the exponent that a field (1 ... highest - 1) says, exactly"""
        powers = np.ldexp(1.0, np.arange(1, self.highest) - self.bias)
        return n("Gather", n.const(powers, "f64"), n("Subtract", field, 1), 0, opset=8)


FORMATS = {"f16": _Format(10, 15), "bf16": _Format(7, 127), "f32": _Format(23, 127), "f64": _Format(52, 1023)}


def _f64(n: Builder, value: float) -> Output:
    return n.const(value, "f64")


def _sign(width: int) -> int:
    """The bit of the sign, as i64."""
    return -(1 << 63) if width == 64 else 1 << (width - 1)


def bits_of(n: Builder, x: Output) -> Output:
    """The bits of real numbers, as i64."""
    kind = n.dtype(x)
    form, width = FORMATS[kind], ELEMENT_TYPES[kind].bits
    x = n.convert(x, "f64")
    size = n("Abs", x)
    finite = n("Less", size, _f64(n, np.inf))  # and no NaN
    size = n("Select", finite, size, _f64(n, 1.0))
    least = _f64(n, float(np.ldexp(1.0, 1 - form.bias)))
    guess = n("Floor", n("Divide", n("Log", n("Maximum", size, least)), _f64(n, float(np.log(2)))))
    field = n("Add", n.convert(guess, "i64"), form.bias)
    field = n("Maximum", n("Minimum", field, form.highest - 1), 1)
    # the logarithm may be one beside
    field = n("Subtract", field, n.convert(n("Greater", form.power(n, field), size), "i64"))
    field = n("Maximum", field, 1)
    scaled = n("Divide", size, form.power(n, field))
    over = n("GreaterEqual", scaled, _f64(n, 2.0))
    field = n("Add", field, n.convert(over, "i64"))
    scaled = n("Select", over, n("Multiply", scaled, _f64(n, 0.5)), scaled)
    normal = n("GreaterEqual", scaled, _f64(n, 1.0))
    fraction = n("Subtract", scaled, n("Select", normal, _f64(n, 1.0), _f64(n, 0.0)))
    fraction = n.convert(n("Multiply", fraction, _f64(n, float(2**form.fraction))), "i64")
    bits = n("Add", n("Multiply", n("Select", normal, field, 0), 1 << form.fraction), fraction)
    beyond = n("Select", n("Equal", x, x), form.highest << form.fraction,
               (2 * form.highest + 1) << (form.fraction - 1))  # fmt: skip
    bits = n("Select", finite, bits, beyond)
    below = (n("Less", v, _f64(n, 0.0)) for v in (x, n("Divide", _f64(n, 1.0), x)))  # the one of -0, too
    negative = n("LogicalOr", *below)
    return n("Select", negative, n("Add", bits, _sign(width)), bits)


def real_of(n: Builder, bits: Output, kind: str) -> Output:
    """The real numbers that have these bits, which are integers of as many bits as the numbers."""
    form, width = FORMATS[kind], ELEMENT_TYPES[kind].bits
    bits = n.convert(bits, "i64")
    negative = n("NotEqual", n("BitwiseAnd", bits, _sign(width)), 0)
    bits = n("BitwiseAnd", bits, (1 << (width - 1)) - 1)
    field = n("Divide", bits, 1 << form.fraction)
    fraction = n("BitwiseAnd", bits, (1 << form.fraction) - 1)
    part = n("Multiply", n.convert(fraction, "f64"), _f64(n, 2.0**-form.fraction))
    leading = n("Select", n("Greater", field, 0), _f64(n, 1.0), _f64(n, 0.0))
    power = form.power(n, n("Maximum", n("Minimum", field, form.highest - 1), 1))
    value = n("Multiply", n("Add", leading, part), power)
    beyond = n("Select", n("Equal", fraction, 0), _f64(n, np.inf), _f64(n, np.nan))
    value = n("Select", n("Equal", field, form.highest), beyond, value)
    return n.convert(n("Select", negative, n("Negative", value), value), kind)


def next_after(n: Builder, x: Output, y: Output) -> Output:
    """The neighbour of x in the direction of y. The neighbour's bits, as a number, are one more or less."""
    kind, zero = n.dtype(x), n.like(x, 0)
    least = n.like(x, float(np.ldexp(1.0, 1 - FORMATS[kind].bias - FORMATS[kind].fraction)))
    up = n("Greater", y, x)
    away = n("Equal", up, n("Greater", x, zero))
    size = real_of(n, n("Add", bits_of(n, n("Abs", x)), n("Select", away, n.const(1), n.const(-1))), kind)
    size = n("Select", n("Less", x, zero), n("Negative", size), size)
    from_zero = n("Select", up, least, n("Negative", least))
    result = n("Select", n("Equal", x, zero), from_zero, size)
    result = n("Select", n("Equal", x, y), y, result)
    valid = n("LogicalAnd", n("Equal", x, x), n("Equal", y, y))
    return n("Select", valid, result, n("Add", x, y))


def recast(n: Builder, x: Output, kind: str) -> Output:
    """The same bits as another type of as many. UnsupportedError where no operations say it."""
    old, new, value = ELEMENT_TYPES[n.dtype(x)], ELEMENT_TYPES[kind], n.value(x)
    if kind == n.dtype(x):
        return n.same(x)
    if value is not None and old.bits == new.bits:
        return n.const(np.ascontiguousarray(value).view(numpy_dtype(kind)).reshape(value.shape), kind)
    if old.kind == "b" and new.bits == 8 and not new.is_real:
        return n.convert(x, kind)
    supported = all(row.name in FORMATS if row.is_real else row.kind in "iu" for row in (old, new))
    if not supported or old.bits != new.bits or new.bits < 8:
        raise UnsupportedError(
            f"the bits of non-constant {old.name} as {kind}: no operation of OpenVINO expresses this"
        )
    return n("BitCast", x, destination_type=kind)
