"""The bits of real numbers as integers and back, by BitCast, an operation that OpenVINO does not have."""

from __future__ import annotations

from ovjit.graph.dtypes import numpy_dtype
from ovjit.readers.rule_language import *


class _Format(NamedTuple):
    fraction: int  # bits of it
    bias: int


FORMATS = {"f16": _Format(10, 15), "bf16": _Format(7, 127), "f32": _Format(23, 127), "f64": _Format(52, 1023)}


def bits_of(n: Builder, x: Output) -> Output:
    """The bits of real numbers that are not below 0, as i64."""
    return n.convert(reinterpret_bits(n, x, f"i{ELEMENT_TYPES[n.dtype(x)].bits}"), "i64")


def real_of(n: Builder, bits: Output, kind: str) -> Output:
    """The real numbers that have these bits, which are i64."""
    return reinterpret_bits(n, n.convert(bits, f"i{ELEMENT_TYPES[kind].bits}"), kind)


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


def reinterpret_bits(n: Builder, x: Output, kind: str) -> Output:
    """The bits of `x` as elements of the type `kind`, which has the same size. UnsupportedError if no
    operations can express it."""
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
