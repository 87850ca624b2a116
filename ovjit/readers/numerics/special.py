"""Special functions, by series and asymptotic expansions.

Arguments and results are f64 where nothing else is said.
"""

from __future__ import annotations

from ovjit.readers.rule_language import *

#: Expansions of the gamma function begin at this distance from the argument.
SHIFT = 8
#: Numbers of Bernoulli, B2 to B16.
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
#: Expansions of log gamma and of its derivative by odd and even powers of 1 / w.
STIRLING = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI, 1))
DERIVED = tuple(-b / (2 * k) for k, b in enumerate(BERNOULLI, 1))
#: Bessel functions I0 and I1 / x by powers of x^2 up to |x| = MIDDLE, and times sqrt(x) exp(-x) by those of
#: MIDDLE / x above: fits by Chebyshev polynomials, within 5e-17.
MIDDLE = 12
BELOW = {
    order: tuple(0.25**k / (math.factorial(k) * math.factorial(k + order) * 2**order) for k in range(30))
    for order in range(2)
}
ABOVE = {
    0: (0.39894228040143265, 0.004155648754199583, 0.00019479603401234381, 1.6909417357049294e-05,
        2.1571057158652333e-06, 3.6963287505138447e-07, 4.36190558819e-08, 1.5232242744695514e-07,
        -3.7054463450502265e-07, 7.521547125291735e-07, -1.0505924920966499e-06, 1.0123517438321777e-06,
        -6.362781021592094e-07, 2.347694316533813e-07, -3.8197870607673084e-08),
    1: (0.3989422804014327, -0.01246694626256406, -0.0003246600574842109, -2.3673171389801604e-05,
        -2.7735509272460694e-06, -4.5093242067951357e-07, -5.526526929450038e-08, -1.6427170893312588e-07,
        3.94681401440724e-07, -8.008675541434458e-07, 1.1167268777931634e-06, -1.0743303710464947e-06,
        6.740317758008693e-07, -2.4823671025473513e-07, 4.0306225946436366e-08),
}  # fmt: skip
#: exp(x^2) erfc(x) / t by powers of t = 2 / (2 + x), where x >= FAR: fits by Chebyshev polynomials. That of
#: f32 is within 2e-8, that of f64 within 4e-14.
SCALED_ERFC = {
    "f32": (0.28209478757089024, 0.2820957062965061, 0.24680219150855331, 0.1766610168236093,
            0.0823378324009115, -0.006487549487713081, -0.01961055270594241, -0.18506099688696126,
            0.20417163534803162, -0.06307239227170137),
    "f64": (0.28209479177386726, 0.28209479178414093, 0.24683294126503744, 0.17630933513488364,
            0.08374411449230937, -0.0043561118829287555, -0.05737957944235535, -0.048130111144836694,
            -0.035722465144113674, 0.18850553229150588, -0.38252997720972326, 0.9609249379312503,
            -1.4979961682465963, 0.9848942689784965, 0.38026186486695845, -1.225899564072635,
            0.9869920663759975, -0.381242028146244, 0.0606017752018729),
}  # fmt: skip
#: Where 1 - erf(x) begins to lose digits.
FAR = 0.5


def in_f64(function: Callable[..., Output]) -> Callable[[Any], Output]:
    """The rule of a function of a node's operands that is computed in f64."""
    return lambda n: n.convert(function(n, *(n.convert(v, "f64") for v in n.inputs)), n.dtype(n[0]))


def polynomial(n: Builder, x: Output, coefficients: Sequence[float]) -> Output:
    """c[0] + x (c[1] + x (c[2] + ...))"""
    out = n.like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        out = n("Add", n("Multiply", out, x), n.like(x, c))
    return out


def _reflect(n: Builder, x: Output) -> tuple[Output, Output]:
    """(mask of x < 1/2, argument: 1 - x where the mask is true, else x)."""
    mask = n("Less", x, n.like(x, 0.5))
    return mask, n("Select", mask, n("Subtract", n.like(x, 1), x), x)


def log_gamma(n: Builder, x: Output) -> Output:
    """log|gamma(x)| = Stirling(x + 8) - log(x (x + 1) ... (x + 7)), where 1/2 <= x < 8, Stirling(x) above

    log(pi / |sin(pi x)|) - log|gamma(1 - x)| elsewhere
    """
    mask, z = _reflect(n, x)
    low = n("Less", z, n.like(z, SHIFT))
    small = n("Minimum", z, n.like(z, SHIFT))
    product = small
    for k in range(1, SHIFT):
        product = n("Multiply", product, n("Add", small, n.like(z, k)))
    w = n("Select", low, n("Add", z, n.like(z, SHIFT)), z)
    series = n("Divide", polynomial(n, n("Divide", n.like(w, 1), n("Multiply", w, w)), STIRLING), w)
    main = n("Subtract", n("Multiply", n("Subtract", w, n.like(w, 0.5)), n("Log", w)), w)
    right = n("Add", n("Add", main, n.like(w, math.log(2 * math.pi) / 2)), series)
    right = n("Subtract", right, n("Select", low, n("Log", product), n.like(z, 0)))
    # exactly 0 at the poles, and as near to them as the argument is
    part = n("Abs", n("Subtract", x, n("Round", x)))
    sine = n("Sin", n("Multiply", part, n.like(part, math.pi)))
    mirrored = n("Subtract", n("Log", n("Divide", n.like(sine, math.pi), sine)), right)
    out = n("Select", mask, mirrored, right)
    pole = n("LogicalAnd", mask, n("Equal", part, n.like(part, 0)))
    endless = n("LogicalOr", pole, n("IsInf", x))
    return n("Select", endless, n.like(x, math.inf), out)


def digamma(n: Builder, x: Output) -> Output:
    """lgamma's derivative: log(w) - 1 / (2 w) + series - sum(1 / (x + k)), w = x + 8"""
    mask, z = _reflect(n, x)
    w = n("Add", z, n.like(z, SHIFT))
    square = n("Divide", n.like(w, 1), n("Multiply", w, w))
    out = n("Subtract", n("Log", w), n("Divide", n.like(w, 0.5), w))
    out = n("Add", out, n("Multiply", square, polynomial(n, square, DERIVED)))
    for k in range(SHIFT):
        out = n("Subtract", out, n("Divide", n.like(z, 1), n("Add", z, n.like(z, k))))
    part = n("Subtract", x, n("Round", x))
    pole = n("Equal", part, n.like(part, 0))
    reflection = n("Divide", n.like(part, math.pi), n("Tan", n("Multiply", part, n.like(part, math.pi))))
    result = n("Select", mask, n("Subtract", out, reflection), out)
    result = n("Select", n("LogicalAnd", pole, mask), n.like(result, math.nan), result)
    zero = n("Equal", x, n.like(x, 0))  # -1 / x tells its sign
    return n("Select", zero, n("Divide", n.like(x, -1), x), result)


def erfc(n: Builder, x: Output) -> Output:
    """erfc(x) = 1 - erf(x), accurate for small results; in f32 or f64."""
    start = n.like(x, FAR)
    far = n("Maximum", x, start)
    tail = n("Multiply", n("Exp", n("Negative", n("Multiply", far, far))), _scaled_tail(n, far))
    return n("Select", n("Greater", x, start), tail, n("Subtract", n.like(x, 1), n("Erf", x)))


def scaled_erfc(n: Builder, x: Output) -> Output:
    """exp(x^2) erfc(x), of f32 or f64"""
    start = n.like(x, FAR)
    near = n("Minimum", x, start)
    near = n("Multiply", n("Exp", n("Multiply", near, near)), n("Subtract", n.like(x, 1), n("Erf", near)))
    return n("Select", n("Greater", x, start), _scaled_tail(n, n("Maximum", x, start)), near)


def _scaled_tail(n: Builder, far: Output) -> Output:
    t = n("Divide", n.like(far, 2), n("Add", far, n.like(far, 2)))
    return n("Multiply", t, polynomial(n, t, SCALED_ERFC[n.dtype(far)]))


def bessel_i(n: Builder, x: Output, order: int, scaled: bool) -> Output:
    """The modified Bessel function of order 0 or 1; scaled ones are times exp(-|x|)."""
    size, middle = n("Abs", x), n.like(x, MIDDLE)
    small, large = n("Minimum", size, middle), n("Maximum", size, middle)
    below = polynomial(n, n("Multiply", small, small), BELOW[order])
    above = n("Divide", polynomial(n, n("Divide", middle, large), ABOVE[order]), n("Sqrt", large))
    if scaled:
        below = n("Multiply", below, n("Exp", n("Negative", small)))
    else:  # exp(x / 2) twice, which overflows where the result does
        half = n("Exp", n("Multiply", large, n.like(large, 0.5)))
        above = n("Multiply", n("Multiply", above, half), half)
    inner = n("Less", size, middle)
    if order:  # an odd function
        below = n("Multiply", below, x)
        above = n("Multiply", above, n("Sign", x))
    return n("Select", inner, below, above)


def atan2(n: Builder, y: Output, x: Output) -> Output:
    """atan(y/x), turned by pi to the left of the origin, with the sign of y; of f32 or f64."""
    zero, pi = n.like(y, 0), n.like(y, math.pi)
    minus = n("LogicalOr", n("Less", y, zero), n("Less", n("Divide", n.like(y, 1), y), zero))
    both_infinite = n("LogicalAnd", n("IsInf", y), n("IsInf", x))
    ratio = n("Select", both_infinite, n("Divide", n("Sign", y), n("Sign", x)), n("Divide", y, x))
    base = n("Atan", ratio)
    is_left = n("LogicalOr", n("Less", x, zero), is_minus_zero(n, x))
    rotated = n("Add", base, n("Select", minus, n("Negative", pi), pi))
    out = n("Select", is_left, rotated, base)
    origin = n("LogicalAnd", n("Equal", x, zero), n("Equal", y, zero))
    half = n("Select", is_left, pi, zero)
    return n("Select", origin, n("Select", minus, n("Negative", half), half), out)


def is_minus_zero(n: Builder, x: Output) -> Output:
    zero = n("Equal", x, n.like(x, 0))
    return n("LogicalAnd", zero, n("Less", n("Divide", n.like(x, 1), x), n.like(x, 0)))


def expm1(n: Builder, x: Output) -> Output:
    """exp(x) - 1 that keeps small numbers: tanh(x / 2) (exp(x) + 1)."""
    one, exp = n.like(x, 1), n("Exp", x)
    small = n("Multiply", n("Tanh", n("Multiply", x, n.like(x, 0.5))), n("Add", exp, one))
    return n("Select", n("Less", n("Abs", x), n.like(x, 0.5)), small, n("Subtract", exp, one))


def log1p(n: Builder, x: Output) -> Output:
    """log(1 + x) that keeps small numbers: log(1 + x) x / ((1 + x) - 1)."""
    one, zero = n.like(x, 1), n.like(x, 0)
    total = n("Add", x, one)
    difference = n("Subtract", total, one)
    lost = n("Equal", difference, zero)
    ratio = n("Divide", x, n("Select", lost, one, difference))
    near = n("Select", lost, x, n("Multiply", n("Log", total), ratio))
    return n("Select", n("Less", n("Abs", x), one), near, n("Log", total))


def log_add(n: Builder, a: Output, b: Output, unit: float = 1.0) -> Output:
    """log(exp(a) + exp(b)), of two equal infinities that one; `unit`: log of another base, log(2) for 2."""
    top, gap = n("Maximum", a, b), n("Abs", n("Subtract", a, b))
    more = log1p(n, n("Exp", n("Multiply", gap, n.like(gap, -unit))))
    same = n("LogicalAnd", n("IsInf", a), n("Equal", a, b))
    return n("Select", same, a, n("Add", top, n("Divide", more, n.like(gap, unit))))
