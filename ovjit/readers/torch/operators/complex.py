"""Complex numbers: pairs in a last dimension."""

from __future__ import annotations

import inspect
from itertools import product

from ovjit.readers.torch.operators import elementwise as elementwise
from ovjit.readers.torch.registry import changed_later
from ovjit.readers.torch.rule_language import *


def pair_of(n: Call, value: Any) -> Complex:
    """A tensor or number as a Complex."""
    if isinstance(value, Complex):
        return value
    if isinstance(value, complex):
        return Complex(n.const([value.real, value.imag], "f32"))
    return n.complex_of(n.real(value))


def _of_one_type(n: Call, x: Any, other: Any) -> tuple[Any, Any]:
    """Both operands as Complex or both as real tensors, with parts of the wider type. Scalars and integers do
    not widen it."""
    kinds = [_part_type(n, value) for value in (x, other)]
    leading = [kind for kind, is_weak in kinds if kind and not is_weak] or [kind for kind, _ in kinds if kind]
    kind = max(leading, key=_WIDTHS.index, default="f32")
    x, other = (
        n.tensor(value, kind) if isinstance(value, (Output, int, float)) else pair_of(n, value)
        for value in (x, other)
    )
    x, other = (Complex(n.to_type(v.pair, kind)) if isinstance(v, Complex) else v for v in (x, other))
    return x, other


_WIDTHS = ["f16", "f32", "f64"]


def _part_type(n: Call, value: Any) -> tuple[str | None, bool]:
    """(element type of a tensor's real numbers, or None; whether it is a scalar, which does not widen other
    types)."""
    if isinstance(value, Complex):
        return n.dtype(value.pair), n.rank(value.pair) == 1
    if isinstance(value, Output) and n.dtype(value) in _WIDTHS:
        return n.dtype(value), n.rank(value) == 0
    return None, True


@aten("complex")
def complex_(n: Call, x: Output, imag: Output) -> Complex:
    a, b = n.also("broadcast_tensors", n.same_kind([x, imag]))
    return n.complex_of(a, b)


@aten("polar")
def polar(n: Call, x: Output, angle: Output) -> Complex:
    return n.complex_of(n("Multiply", x, n("Cos", angle)), n("Multiply", x, n("Sin", angle)))


@aten("real")
def real(n: Call, x: Any) -> Any:
    if isinstance(x, complex):
        return x.real
    return n.part(x, 0) if isinstance(x, Complex) else x


@aten("imag")
def imag(n: Call, x: Any) -> Any:
    if isinstance(x, complex):
        return x.imag
    return n.part(x, 1) if isinstance(x, Complex) else n.zeros(x)


@aten("conj", "_conj", "conj_physical", "_conj_physical")
def conj(n: Call, x: Any) -> Any:
    if isinstance(x, complex):
        return x.conjugate()
    return Complex(n("Multiply", x.pair, n.like(x.pair, [1, -1]))) if isinstance(x, Complex) else x


@aten("angle")
def angle(n: Call, x: Any) -> Output:
    if isinstance(x, Complex):
        return n.also("atan2", n.part(x, 1), n.part(x, 0))
    x = n.real(x)
    right = n("Select", n("NotEqual", x, x), x, n.like(x, 0))
    return n("Select", n("Less", x, n.like(x, 0)), n.like(x, math.pi), right)


def multiply(n: Call, a: Complex, b: Complex) -> Complex:
    return bilinear(n, partial(n, "Multiply"), a, b)


def bilinear(n: Call, product: Callable[..., Any], a: Any, b: Any) -> Complex:
    """(a + bi)(c + di) = ac - bd + (ad + bc)i"""
    a, b = _of_one_type(n, pair_of(n, a), pair_of(n, b))
    p, q, r, s = n.part(a, 0), n.part(a, 1), n.part(b, 0), n.part(b, 1)
    return n.complex_of(n("Subtract", product(p, r), product(q, s)), n("Add", product(p, s), product(q, r)))


def divide(n: Call, a: Complex, b: Complex) -> Complex:
    a, b = _of_one_type(n, a, b)
    size = n("ReduceSum", n("Multiply", b.pair, b.pair), [-1], keep_dims=True)
    return Complex(n("Divide", multiply(n, a, conj(n, b)).pair, size))


@aten("complex_pow")
def complex_pow(n: Call, x: Any, other: Any) -> Complex:
    """x multiplied with itself, or |x|^c (cos ct + i sin ct) of the angle t, or exp(c (log |x| + it))"""
    times = n.known_number(other) if isinstance(other, (int, float, Output)) else None
    base = pair_of(n, x)
    if isinstance(times, int) and 0 < times <= elementwise.MOST_FACTORS:
        return elementwise.by_squaring(times, base, lambda p, q: multiply(n, p, q))
    size, phase = elementwise.absolute(n, base), angle(n, base)
    if not isinstance(other, (Complex, complex)):
        exponent = n.tensor(other, n.dtype(size))
        return polar(n, n("Power", size, exponent), n("Multiply", phase, exponent))
    result = multiply(n, pair_of(n, other), n.complex_of(n("Log", size), phase))
    return _exponential(n, result)


@aten("complex_einsum")
def complex_einsum(n: Call, x: str, tensors: Sequence[Any] = ()) -> Complex:
    """An einsum of complex tensors: the sum over all choices of a real or imaginary part of each factor,
    times i^(number of imaginary ones)."""
    sums: list[Any] = [None, None]
    for chosen in product((0, 1), repeat=len(tensors)):
        parts = [n.part(pair_of(n, v), i) for v, i in zip(tensors, chosen, strict=True)]
        result, turns = n.also("einsum", x, parts), sum(chosen)
        result = n("Negative", result) if turns % 4 > 1 else result
        before = sums[turns % 2]
        sums[turns % 2] = result if before is None else n("Add", before, result)
    return n.complex_of(*sums)


def extend_to_complex(names: str, complex_rule: Callable[..., Any], among: str = "") -> None:
    """Register `complex_rule(call, real rule, arguments)` for operators with a complex argument, one of
    `among` if given."""
    for name in names.split():
        changed_later(f"aten::{name}", partial(_of_either, complex_rule, among.split()))


def _of_either(complex_rule: Callable[..., Any], among: Sequence[str], rule: Rule) -> Rule:
    signature = inspect.signature(rule)

    def either(n: Call, *positional: Any, **named: Any) -> Any:
        _, *arguments = signature.bind(n, *positional, **named).arguments.items()
        if not any(_is_complex(value) for name, value in arguments if not among or name in among):
            return rule(n, *positional, **named)
        return complex_rule(n, rule, arguments[0][1], **dict(arguments[1:]))

    either.__signature__ = signature  # type: ignore[attr-defined]
    return either


def _is_complex(value: Any) -> bool:
    if isinstance(value, (list, tuple)) and not isinstance(value, Complex):
        return any(map(_is_complex, value))
    return isinstance(value, (Complex, complex))


def _sum(op: str) -> Any:
    def rule(n: Call, rule: Rule, x: Any, other: Any, alpha: Any = 1) -> Complex:
        a, b = (pair_of(n, value) for value in _of_one_type(n, x, other))
        right = b.pair if alpha == 1 else n("Multiply", b.pair, n.like(b.pair, alpha))
        return Complex(n(op, a.pair, right))

    return rule


def _product(n: Call, rule: Rule, x: Any, other: Any) -> Complex:
    x, other = _of_one_type(n, x, other)
    for a, b in ((x, other), (other, x)):
        if isinstance(a, Complex) and not isinstance(b, Complex):
            return Complex(n("Multiply", a.pair, n.unsqueeze(b, [-1]) if n.rank(b) else b))
    return multiply(n, x, other)


def _quotient(n: Call, rule: Rule, x: Any, other: Any, rounding_mode: Any = None) -> Complex:
    x, other = _of_one_type(n, x, other)
    if isinstance(other, Complex):
        return divide(n, pair_of(n, x), other)
    return Complex(n("Divide", x.pair, n.unsqueeze(other, [-1]) if n.rank(other) else other))


def _compare(op: str, joined: str) -> Any:
    def rule(n: Call, rule: Rule, x: Any, other: Any) -> Output:
        a, b = (pair_of(n, value) for value in _of_one_type(n, x, other))
        each = n(op, a.pair, b.pair)
        return n(joined, each, [-1], keep_dims=False)

    return rule


for _name, _rule in (("add", _sum("Add")), ("sub", _sum("Subtract")), ("mul", _product), ("div", _quotient),
                     ("eq", _compare("Equal", "ReduceLogicalAnd")),
                     ("ne", _compare("NotEqual", "ReduceLogicalOr"))):  # fmt: skip
    extend_to_complex(_name, _rule)


def _of_one(name: str, of_complex: Callable[[Call, Complex], Any]) -> None:
    extend_to_complex(name, lambda n, rule, x: of_complex(n, pair_of(n, x)))


def _exponential(n: Call, x: Complex) -> Complex:
    """exp(a) (cos b + i sin b)"""
    return polar(n, n("Exp", n.part(x, 0)), n.part(x, 1))


def _hyperbolic(n: Call, x: Complex, first: str, second: str) -> Complex:
    """sinh(a + bi) = sinh a cos b + i cosh a sin b, and cosh with both exchanged"""
    a, b = n.part(x, 0), n.part(x, 1)
    return n.complex_of(n("Multiply", n(first, a), n("Cos", b)), n("Multiply", n(second, a), n("Sin", b)))


def _sinh(n: Call, x: Complex) -> Complex:
    return _hyperbolic(n, x, "Sinh", "Cosh")


def _cosh(n: Call, x: Complex) -> Complex:
    return _hyperbolic(n, x, "Cosh", "Sinh")


def _tanh(n: Call, x: Complex) -> Complex:
    """tanh(a + bi) = (t + i u (1 - t t)) / (c c + t t s s) of t = tanh a, c = cos b, s = sin b, u = s c"""
    t, c, s = n("Tanh", n.part(x, 0)), n("Cos", n.part(x, 1)), n("Sin", n.part(x, 1))
    square, ts = n("Multiply", t, t), n("Multiply", t, s)
    size = n("Add", n("Multiply", c, c), n("Multiply", ts, ts))
    height = n("Multiply", n("Multiply", s, c), n("Subtract", n.like(t, 1), square))
    return n.complex_of(n("Divide", t, size), n("Divide", height, size))


def _multiply_by_i(n: Call, x: Complex, back: bool = False) -> Complex:
    """i x, or -i x"""
    a, b = n.part(x, 0), n.part(x, 1)
    return n.complex_of(b, n("Negative", a)) if back else n.complex_of(n("Negative", b), a)


def _by_rotation(function: Callable[[Call, Complex], Complex]) -> Callable[[Call, Complex], Complex]:
    """sin x = -i sinh ix, and so on"""
    return lambda n, x: _multiply_by_i(n, function(n, _multiply_by_i(n, x)), back=True)


def _scale(factor: float, function: Callable[[Call, Any], Any], before: bool) -> Any:
    """Make a rule: `function` of the argument times a factor if `before`, else the result times the
    factor."""

    def rule(n: Call, x: Complex) -> Complex:
        value = function(n, _times(n, x, factor) if before else x)
        return value if before else _times(n, value, factor)

    return rule


def _times(n: Call, x: Complex, factor: float) -> Complex:
    return Complex(n("Multiply", x.pair, n.like(x.pair, factor)))


def _add_real(n: Call, x: Complex, number: float) -> Complex:
    return Complex(n("Add", x.pair, n.like(x.pair, [number, 0])))


def _logarithm(n: Call, x: Complex) -> Complex:
    return n.complex_of(n("Log", elementwise.absolute(n, x)), angle(n, x))


def _sigmoid(n: Call, x: Complex) -> Complex:
    """(1 + tanh(x / 2)) / 2"""
    return _times(n, _add_real(n, _tanh(n, _times(n, x, 0.5)), 1), 0.5)


def _inverse(n: Call, x: Complex) -> Complex:
    return divide(n, pair_of(n, complex(1)), x)


def _root(n: Call, x: Complex) -> Complex:
    return complex_pow(n, x, 0.5)


def _asinh(n: Call, x: Complex) -> Complex:
    """log(x + sqrt(x x + 1)), of that of x and -x whose real part is not below 0: no digits cancel"""
    a = n.part(x, 0)
    sign = n.unsqueeze(n("Select", n("Less", a, n.like(a, 0)), n.like(a, -1), n.like(a, 1)), [-1])
    upper = Complex(n("Multiply", x.pair, sign))
    root = _root(n, _add_real(n, multiply(n, upper, upper), 1))
    return Complex(n("Multiply", _logarithm(n, Complex(n("Add", upper.pair, root.pair))).pair, sign))


def _atanh(n: Call, x: Complex) -> Complex:
    """(log(1 + x) - log(1 - x)) / 2"""
    logs = [_logarithm(n, _add_real(n, v, 1)) for v in (x, Complex(n("Negative", x.pair)))]
    return _times(n, Complex(n("Subtract", logs[0].pair, logs[1].pair)), 0.5)


def _acosh(n: Call, x: Complex) -> Complex:
    """log(x + sqrt(x + 1) sqrt(x - 1))"""
    roots = multiply(n, _root(n, _add_real(n, x, 1)), _root(n, _add_real(n, x, -1)))
    return _logarithm(n, Complex(n("Add", x.pair, roots.pair)))


def _acos(n: Call, x: Complex) -> Complex:
    """pi / 2 - asin x"""
    return _add_real(n, Complex(n("Negative", _by_rotation(_asinh)(n, x).pair)), math.pi / 2)


def _either_part(op: str, joined: str) -> Callable[[Call, Complex], Output]:
    return lambda n, x: n(joined, n(op, x.pair), [-1], keep_dims=False)


_of_one("neg", lambda n, x: Complex(n("Negative", x.pair)))
_of_one("exp", _exponential)
_of_one("log", _logarithm)
_of_one("sqrt", _root)
_of_one("square", lambda n, x: multiply(n, x, x))
_of_one("reciprocal", _inverse)
_of_one("rsqrt", lambda n, x: _inverse(n, _root(n, x)))
_of_one("sinh", _sinh)
_of_one("cosh", _cosh)
_of_one("tanh", _tanh)
_of_one("sin", _by_rotation(_sinh))
_of_one("cos", lambda n, x: _cosh(n, _multiply_by_i(n, x)))
_of_one("tan", _by_rotation(_tanh))
_of_one("asinh", _asinh)
_of_one("acosh", _acosh)
_of_one("atanh", _atanh)
_of_one("asin", _by_rotation(_asinh))
_of_one("acos", _acos)
_of_one("atan", _by_rotation(_atanh))
_of_one("sigmoid", _sigmoid)
_of_one("exp2", _scale(math.log(2), _exponential, before=True))
_of_one("log2", _scale(1 / math.log(2), _logarithm, before=False))
_of_one("log10", _scale(1 / math.log(10), _logarithm, before=False))
_of_one("log1p", lambda n, x: _logarithm(n, _add_real(n, x, 1)))
_of_one("expm1", lambda n, x: _add_real(n, _exponential(n, x), -1))
_of_one("isnan", _either_part("IsNaN", "ReduceLogicalOr"))
_of_one("isinf", _either_part("IsInf", "ReduceLogicalOr"))
_of_one("isfinite", _either_part("IsFinite", "ReduceLogicalAnd"))
_of_one("logical_not", lambda n, x: n.also("eq", x, 0))


#: Operators that are one expression.
aten_rows({
    "view_as_complex": lambda n, x: Complex(x),
    "view_as_real _view_as_real_physical view_as_real_copy": lambda n, x: x.pair,
    "_neg_view": lambda n, x: n("Negative", x),
    "complex_matmul": lambda n, x, other: bilinear(n, partial(n, "MatMul"), x, other),
})  # fmt: skip
