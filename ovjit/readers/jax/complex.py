"""Complex numbers: what primitives do with their two parts."""

from __future__ import annotations

from ovjit.readers.jax import elementwise
from ovjit.readers.jax.multi_tensor import part_type
from ovjit.readers.jax.registry import find_rule
from ovjit.readers.jax.rule_language import *
from ovjit.readers.jax.shapes import fold_axes
from ovjit.readers.numerics import special


def _pair(n: JaxNode, index: int) -> tuple[Output, Output]:
    value: Any = n[index]
    if not isinstance(value, Parts):
        return value, n.like(value, 0)
    if len(value.parts) != 2:
        raise UnsupportedError("keys are not supported")
    return value.parts[0], value.parts[1]


def _times(n: JaxNode, a: Any, b: Any) -> Parts:
    return Parts((
        n("Subtract", n("Multiply", a[0], b[0]), n("Multiply", a[1], b[1])),
        n("Add", n("Multiply", a[0], b[1]), n("Multiply", a[1], b[0])),
    ))  # fmt: skip


def _over(n: JaxNode, a: Any, b: Any) -> Parts:
    """a / b of complex numbers. Both are scaled by the larger part of b, whose square may overflow."""
    size = n("Maximum", n("Abs", b[0]), n("Abs", b[1]))
    c, d = (n("Divide", v, size) for v in b)
    below = n("Multiply", n("Add", n("Multiply", c, c), n("Multiply", d, d)), size)
    result = _times(n, a, (c, n("Negative", d))).parts
    return Parts((n("Divide", result[0], below), n("Divide", result[1], below)))


def _size(n: JaxNode, a: Any) -> Output:
    """|a|, scaled by the larger part."""
    one, other = n("Abs", a[0]), n("Abs", a[1])
    high, low = n("Maximum", one, other), n("Minimum", one, other)
    zero = n("Equal", high, n.like(high, 0))
    share = n("Divide", low, n("Select", zero, n.like(high, 1), high))
    return n("Multiply", high, n("Sqrt", n("Add", n("Multiply", share, share), n.like(high, 1))))


def _angle(n: JaxNode, a: Any) -> Output:
    return n.convert(special.atan2(n, n.upcast(a[1]), n.upcast(a[0])), n.dtype(a[0]))


def _exp(n: JaxNode, a: Any) -> Parts:
    size = n("Exp", a[0])
    return Parts((n("Multiply", size, n("Cos", a[1])), n("Multiply", size, n("Sin", a[1]))))


def _log(n: JaxNode, a: Any) -> Parts:
    return Parts((n("Log", _size(n, a)), _angle(n, a)))


def _sqrt(n: JaxNode, a: Any) -> Parts:
    """The root whose real part is not negative. One of its parts is t = sqrt((|a| + |Re a|) / 2), the other
    one Im a / 2t."""
    half, zero = n.like(a[0], 0.5), n.like(a[0], 0)
    t = n("Sqrt", n("Multiply", n("Add", _size(n, a), n("Abs", a[0])), half))
    none = n("Equal", t, zero)
    other = n("Divide", n("Multiply", a[1], half), n("Select", none, n.like(t, 1), t))
    right, below = n("GreaterEqual", a[0], zero), n("Less", a[1], zero)
    real = n("Select", right, t, n("Abs", other))
    return Parts((real, n("Select", right, other, n("Select", below, n("Negative", t), t))))


def _power(n: JaxNode, a: Any, exponent: int) -> Any:
    """An integer power, by repeated squaring."""
    out, square = None, a
    for bit in reversed(f"{abs(exponent):b}"):
        if bit == "1":
            out = square if out is None else _times(n, out, square).parts
        square = _times(n, square, square).parts
    out = (n.like(a[0], 1), n.like(a[0], 0)) if out is None or not exponent else out
    return _over(n, (n.like(a[0], 1), n.like(a[0], 0)), out).parts if exponent < 0 else out


def _wave(n: JaxNode, a: Any, op: str, other: str, sign: str) -> Parts:
    real = n("Multiply", n(op, a[0]), n("Cosh", a[1]))
    return Parts((real, n(sign, n("Multiply", n(other, a[0]), n("Sinh", a[1])))))


def _row(name: str, function: Callable[..., Any], count: int = 1) -> None:
    of_parts(name)(lambda n: function(n, *(_pair(n, i) for i in range(count))))


_row("mul", _times, 2)
_row("div", _over, 2)
_row("abs", _size)
_row("exp", _exp)
_row("log", _log)
_row("sqrt", _sqrt)
_row("square", lambda n, a: _times(n, a, a))
_row("pow", lambda n, a, b: _exp(n, _times(n, _log(n, a).parts, b).parts), 2)
_row("rsqrt", lambda n, a: _over(n, (n.like(a[0], 1), n.like(a[0], 0)), _sqrt(n, a).parts))
_row("cos", lambda n, a: _wave(n, a, "Cos", "Sin", "Negative"))
_row("sin", lambda n, a: _wave(n, a, "Sin", "Cos", "Identity"))
_row("is_finite", lambda n, a: n("LogicalAnd", n("IsFinite", a[0]), n("IsFinite", a[1])))


@of_parts("integer_pow")
def integer_pow(n: JaxNode) -> Any:
    return Parts(tuple(_power(n, _pair(n, 0), int(n.params["y"]))))


@of_parts("sign")
def sign(n: JaxNode) -> Any:
    a = _pair(n, 0)
    size = _size(n, a)
    size = n("Select", n("Equal", size, n.like(size, 0)), n.like(size, 1), size)
    return Parts((n("Divide", a[0], size), n("Divide", a[1], size)))


@of_parts("eq", "ne")
def equal(n: JaxNode) -> Any:
    """Equality of complex numbers, or of random keys."""
    a: Any = n[0]
    b: Any = n[1]
    op, join = ("Equal", "LogicalAnd") if n.op_type == "eq" else ("NotEqual", "LogicalOr")
    return n.chain(join, [n(op, x, y) for x, y in zip(a.parts, b.parts, strict=True)])


@primitive("conj")
def conj(n: JaxNode) -> Any:
    re, im = _pair(n, 0)
    if not isinstance(n[0], Parts):
        return Parts((re, n.spread(im, n.dims(re))))
    return Parts((re, n("Negative", im)))


@of_parts("convert_element_type")
def convert(n: JaxNode) -> Any:
    """Convert to or from complex numbers: the imaginary part of a real number is 0, that of a complex one is
    dropped."""
    re, im = _pair(n, 0)
    kind = part_type(n.eqn.outvars[0].aval)
    if kind is not None:
        return Parts((n.convert(re, kind[0]), n.convert(n.spread(im, n.dims(re)), kind[0])))
    if n.out().dtype == "boolean":
        return n("LogicalOr", n("NotEqual", re, n.like(re, 0)), n("NotEqual", im, n.like(im, 0)))
    return elementwise.convert(n, re, n.out().dtype)


@of_parts("dot_general", "conv_general_dilated")
def product(n: JaxNode) -> Any:
    """A product of complex numbers, or of a complex and a real number."""
    operands: list[Sequence[Any]] = [v.parts if isinstance(v, Parts) else (v, None) for v in n.inputs]
    (a, b), (c, d) = operands
    rule, params = find_rule(n.op_type), {**n.params, "preferred_element_type": None}
    assert rule is not None

    def real(x: Output, y: Output) -> Output:
        result: Output = rule(JaxNode(n.reader, n.eqn, [x, y], n.base, n.sizes, params))
        return result

    if b is None:
        return Parts((real(a, c), real(a, d)))
    if d is None:
        return Parts((real(a, c), real(b, c)))
    return Parts((n("Subtract", real(a, c), real(b, d)), n("Add", real(a, d), real(b, c))))


@of_parts("reduce_prod")
def reduce_prod(n: JaxNode) -> Any:
    axes, pair = [int(a) for a in n.params["axes"]], _pair(n, 0)
    starts = [n.like(pair[0], value) for value in (1, 0)]
    return Parts(tuple(fold_axes(n, pair, axes, lambda a, b: list(_times(n, a, b).parts), starts)))


@primitive("fft")
def fft(n: JaxNode) -> Any:
    """FFT over the last axes, one for each length. The inverse divides by the length in JAX and in
    OpenVINO."""
    kind = n.params["fft_type"].name
    value: Any = n[0]
    x = join_parts(n, Parts(_pair(n, 0))) if isinstance(value, Parts) else value
    lengths = [int(v) for v in n.params["fft_lengths"]]
    rank = n.rank(x) - isinstance(value, Parts)
    axes, op = list(range(rank - len(lengths), rank)), {"FFT": "DFT", "IFFT": "IDFT"}.get(kind, kind)
    if kind == "RFFT":
        return separate_parts(n, n("RDFT", x, axes, lengths))
    if kind == "IRFFT":
        return n("IRDFT", x, axes, lengths)
    return separate_parts(n, n(op, x, axes))


#: Operators that are one expression.
primitives({
    "complex": lambda n: Parts((n[0], n[1])),
    "real": lambda n: _pair(n, 0)[n.op_type == "imag"],
    "imag": lambda n: _pair(n, 0)[n.op_type == "imag"],
})  # fmt: skip
