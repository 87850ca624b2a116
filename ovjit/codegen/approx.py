"""Transcendental functions of f32, and some of f64, as short polynomials in the functions of `tracer`.

Unless stated otherwise, each is within 2 ULP if the result is normal, keeps NaN, and gives exact infinities
and zeros. Coefficients are Taylor's if the range is small enough, else a Chebyshev fit to the C library's
function in f64 (error of the fit below 3e-9).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ovjit.codegen import tracer as t

LOG2E = 1.4426950408889634
LN2_HI = 0.693145751953125  # 16 bits of ln 2: n * LN2_HI is exact for |n| < 256
LN2_LO = 1.42860682030941723212e-6


def exp_f32(x: t.Tracer) -> t.Tracer:
    """2**n * exp(r) with n = round(x / ln 2), |r| <= ln(2)/2. Scaling in two steps keeps subnormal
    results."""
    return _scaled_exp(t.where(x > 89.0, t.constant(x, 89.0), t.where(x < -104.0, t.constant(x, -104.0), x)))


def _half_exp(x: t.Tracer) -> t.Tracer:
    """exp(x) / 2 for x >= 0, for hyperbolic functions. It overflows where they do."""
    return _scaled_exp(t.where(x > 90.0, t.constant(x, 90.0), x), -1)


def _scaled_exp(x: t.Tracer, scale: int = 0) -> t.Tracer:
    """exp(x) * 2**scale."""
    n = t.round_even(x * LOG2E)
    r = t.fma(n, -LN2_LO, t.fma(n, -LN2_HI, x))
    p: t.Tracer = t.constant(x, 1 / math.factorial(7))
    for k in range(6, -1, -1):
        p = t.fma(p, r, 1 / math.factorial(k))
    exponent = t.to_int(n, "i32") + scale if scale else t.to_int(n, "i32")
    half = exponent >> 1
    return p * _power_of_two(half) * _power_of_two(exponent - half)


def exp_below_zero(x: t.Tracer) -> t.Tracer:
    """exp(x) for x <= 0: within 3 ULP down to -20, within 4e-7 (relative) below. Below -87.7 it is 0, so that
    there are no subnormal results."""
    return _exp_low(t.where(x < -88.0, t.constant(x, -88.0), x))


def exp_below_zero_bf16(x: t.Tracer) -> t.Tracer:
    """exp(x) for x <= 0 within 2**-13, for results that are rounded to the 8 bits of bf16."""
    return _exp_low(t.where(x < -88.0, t.constant(x, -88.0), x), EXP_BF16)


def exp_approximate(x: t.Tracer) -> t.Tracer:
    """`exp_below_zero` for all x; infinity from 88.4 on."""
    x = t.where(x > 88.8, t.constant(x, 88.8), x)
    return exp_below_zero(x)


#: exp(r) = 1 + EXP[0] r + EXP[1] r^2 + ... for |r| <= ln(2)/2, within 1e-7: fitted to the relative error.
EXP = [0.9999997, 0.4999915, 0.16667639, 0.04189816, 0.008290272]
#: The same within 1.02e-4.
EXP_BF16 = [1.0001962, 0.5041345, 0.16517829]
#: Adding it to a small number leaves that number, rounded to even and plus 127, in the lowest bits of the
#: sum.
ROUNDING = 1.5 * 2.0**23 + 127


def one_more_than_exp(x: t.Tracer) -> t.Tracer:
    """1 + exp(x), within 3 ULP; infinity where exp(x) is. Next to 1, a small exp(x) need not be exact, which
    takes half of the instructions of `exp_f32`. The exponent, shifted from the rounded sum, is one too small;
    the factor 2 is fused with the addition."""
    x = t.where(x < -87.0, t.constant(x, -87.0), t.where(x > 89.0, t.constant(x, 89.0), x))
    shifted = t.fma(x, LOG2E, t.constant(x, ROUNDING - 1))
    n = shifted - (ROUNDING - 1)
    r = t.fma(n, -LN2_LO, t.fma(n, -LN2_HI, x))
    return t.fma(_short_exp(r) * t.bits(t.bits(shifted, "i32") << 23, "f32"), 2.0, 1.0)


def _exp_low(x: t.Tracer, powers: Sequence[float] = EXP) -> t.Tracer:
    """exp(x) for -88 <= x < 88.8. One shift of the rounded sum gives the exponent."""
    shifted = t.fma(x, LOG2E, t.constant(x, ROUNDING))
    r = t.fma(shifted - ROUNDING, -math.log(2), x)
    return _short_exp(r, powers) * t.bits(t.bits(shifted, "i32") << 23, "f32")


def _short_exp(r: t.Tracer, powers: Sequence[float] = EXP) -> t.Tracer:
    p: t.Tracer = t.constant(r, powers[-1])
    for c in (*reversed(powers[:-1]), 1.0):
        p = t.fma(p, r, c)
    return p


def _power_of_two(n: t.Tracer) -> t.Tracer:
    return t.bits((n + 127) << 23, "f32")


def log_f32(x: t.Tracer) -> t.Tracer:
    """n ln 2 + 2 atanh((m - 1) / (m + 1)) with x = m 2**n, m in [sqrt(1/2), sqrt(2))."""
    tiny = x < 1.1754944e-38  # subnormal: scale up
    scaled = t.where(tiny, x * 8388608.0, x)
    i = t.bits(scaled, "i32")
    n = (i - 0x3F3504F3) >> 23  # 0x3F3504F3 is sqrt(1/2)
    m = t.bits(i - (n << 23), "f32")
    exponent = t.cast(n, "f32") - t.where(tiny, t.constant(x, 23.0), t.constant(x, 0.0))
    f = m - 1
    s = f / (m + 1)
    z = s * s
    p: t.Tracer = t.constant(x, 2 / 11)
    for k in (9, 7, 5, 3):
        p = t.fma(p, z, 2 / k)
    # log m = 2 s + s z p  and  2 s = f - s f
    log_m = f - s * (f - z * p)
    y = t.fma(exponent, LN2_HI, t.fma(exponent, LN2_LO, log_m))
    y = t.where(x == 0.0, t.constant(x, -math.inf), y)
    y = t.where(x == math.inf, x, y)
    return t.where(x < 0.0, t.constant(x, math.nan), t.where(x == x, y, x))


def log1p_f32(x: t.Tracer) -> t.Tracer:
    """ln u with u = 1 + x rounded, plus the rounding error of u divided by u."""
    return _log_of_sum(x, log_f32)


def _log_of_sum(x: t.Tracer, log: Callable[[t.Tracer], t.Tracer]) -> t.Tracer:
    u = 1 + x
    y = log(u)
    return t.where(t.absolute(y) < math.inf, y + (x - (u - 1)) / u, y)


def log1p_up_to_one(x: t.Tracer) -> t.Tracer:
    """ln(1 + x) for 0 <= x <= 1, without the two divisions of `log1p_f32`."""
    return x * _powers(LOG1P, x)


def _with_sign(y: t.Tracer, x: t.Tracer) -> t.Tracer:
    """y, which is not negative, with the sign of x."""
    same = f"i{x.dtype[1:]}"
    return t.bits(t.bits(y, same) | (t.bits(x, same) & -(1 << (int(x.dtype[1:]) - 1))), x.dtype)


def tanh_f32(x: t.Tracer) -> t.Tracer:
    """An odd Taylor polynomial near 0, else 1 - 2 / (exp(2 |x|) + 1), with the sign of x."""
    a = t.absolute(x)
    e = exp_f32(a + a)
    large = 1 - 2 / (e + 1)
    z = x * x
    return _with_sign(t.where(a < 0.55, t.fma(a * z, _powers(TANH, z), a), large), x)


def logistic_by_tanh(z: t.Tracer, x: t.Tracer) -> t.Tracer:
    """tanh(x) / (1 + exp(-z)) with one division. The gates of an LSTM then take three divisions instead of
    five, which would take as long as the rest. Within 5 ULP; 0 below 3e-31."""
    a = t.absolute(x)
    near, square = a < 0.55, x * x
    e = _exp_low(t.where(a > 9.1, t.constant(x, 18.2), a + a))
    one = t.constant(x, 1.0)
    top = t.where(near, t.fma(a * square, _powers(TANH, square), a), e - 1)
    below = t.where(near, one, e + 1) * one_more_than_exp(-z)
    return _with_sign(top / below, x)


#: ln(1 + x) = x (LOG1P[0] + LOG1P[1] x + ...) for 0 <= x <= 1, within 1e-9: fitted to the relative error.
LOG1P = [
    1.0, -0.4999998211860657, 0.33332559466362, -0.24987269937992096, 0.19890744984149933,
    -0.16105680167675018, 0.12418410927057266, -0.08244139701128006, 0.04147792235016823,
    -0.013407386839389801, 0.002030212664976716,
]  # fmt: skip

#: tanh(x) = x + x^3 (TANH[0] + TANH[1] x^2 + ...)
TANH = [
    -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875,
    6404582 / 10854718875,
]  # fmt: skip


def erf_f32(x: t.Tracer) -> t.Tracer:
    """x P(x^2) / Q(x^2), with x^2 limited to 3.92^2; within 6 ULP. The result is clamped to [-1, 1]: the
    rounded quotient may exceed 1, and 1 - erf(x) would be negative."""
    square = x * x
    z = t.where(square > 15.3664, t.constant(x, 15.3664), square)
    p: t.Tracer = t.constant(x, ERF[-1])
    for c in reversed(ERF[:-1]):
        p = t.fma(p, z, c)
    q: t.Tracer = t.constant(x, ERF_BELOW[-1])
    for c in reversed(ERF_BELOW[:-1]):
        q = t.fma(q, z, c)
    y = x * p / q
    y = t.where(y > 1.0, t.constant(x, 1.0), y)
    return t.where(y < -1.0, t.constant(x, -1.0), y)


#: erf(x) / x on [0, 3.92] as a quotient of polynomials in x^2, fitted to the C library's function in f64 with
#: minimum relative error (2e-8). It takes a third of the instructions of exp(-x^2): GELU after each layer
#: took a third of a transformer's time.
ERF = [1.128379146, 0.1903968644, 0.05274727535, 0.003765158506, 0.0002848648538, 2.050061868e-06]
ERF_BELOW = [1.0, 0.5020675712, 0.1141049827, 0.01496830139, 0.00116241037, 3.809051633e-05]


def sin_f32(x: t.Tracer) -> t.Tracer:
    """The sine, within 2 ULP."""
    quadrant, sine, cosine, far = _reduce_range(x)
    y = _select_by_quadrant(quadrant, sine, cosine)
    return t.seldom("sin", far, x, y)


def cos_f32(x: t.Tracer) -> t.Tracer:
    """The cosine, within 2 ULP: the sine, one quadrant further."""
    quadrant, sine, cosine, far = _reduce_range(x)
    y = _select_by_quadrant(quadrant + 1, sine, cosine)
    return t.seldom("cos", far, x, y)


def tan_f32(x: t.Tracer) -> t.Tracer:
    """The tangent, within 3 ULP: sine over cosine; in odd quadrants -cosine over sine."""
    quadrant, sine, cosine, far = _reduce_range(x)
    odd = (quadrant & 1) != 0
    return t.seldom("tan", far, x, t.where(odd, -cosine, sine) / t.where(odd, sine, cosine))


def exp_f64(x: t.Tracer) -> t.Tracer:
    """As `exp_f32`, within 1.2 ULP. n and the powers of two are read from the lowest bits of sums, since AVX2
    cannot convert f64 to integers."""
    x = t.where(x > 710.0, t.constant(x, 710.0), t.where(x < -746.0, t.constant(x, -746.0), x))
    n, r, slope = _wide_exp(x)
    half = t.fma(n, 0.5, t.constant(x, WHOLE)) - WHOLE
    return t.fma(r, slope, 1.0) * _wide_power_of_two(half) * _wide_power_of_two(n - half)


def _wide_exp(x: t.Tracer) -> tuple[t.Tracer, t.Tracer, t.Tracer]:
    """n, r and s with exp(x) = 2**n (1 + r s)."""
    n = t.fma(x, LOG2E, t.constant(x, WHOLE)) - WHOLE
    r = t.fma(n, -LN2_LEAST, t.fma(n, -LN2_MOST, x))
    return n, r, t.fma(r, _powers(EXP_WIDE, r), 1.0)


def tanh_f64(x: t.Tracer) -> t.Tracer:
    """m / (m + 2) with m = exp(2 |x|) - 1, with the sign of x."""
    a = t.absolute(x)
    n, r, slope = _wide_exp(2 * t.where(a > 20.0, t.constant(x, 20.0), a))
    scale = _wide_power_of_two(n)
    m = t.fma(scale, r * slope, scale - 1)
    return _with_sign(m / (m + 2), x)


def erf_f64(x: t.Tracer) -> t.Tracer:
    """x P(x^2) for |x| < 1, else 1 - exp(-x^2) Q(u) with u = (|x| - 2) / (|x| + 2), with the sign of x."""
    a = t.absolute(x)
    a = t.where(a > 6.0, t.constant(x, 6.0), a)
    far = 1 - exp_f64(-(a * a)) * _powers(ERFCX_WIDE, (a - 2) / (a + 2))
    return t.where(a < 1.0, x * _powers(ERF_WIDE, x * x), _with_sign(far, x))


def _wide_power_of_two(n: t.Tracer) -> t.Tracer:
    return t.bits(t.bits(n + (WHOLE + 1023), "i64") << 52, "f64")


def log_f64(x: t.Tracer) -> t.Tracer:
    """As `log_f32`, within 1 ULP."""
    tiny = x < 2.0**-1022  # subnormal: scale up
    i = t.bits(t.where(tiny, x * 2.0**54, x), "i64")
    above = (i - (ROOT_HALF - (1023 << 52))) >> 52  # the exponent relative to sqrt(1/2), plus 1023
    m = t.bits(i - ((above - 1023) << 52), "f64")
    shifted_exponent = t.bits(above + (0x433 << 52), "f64") - (2.0**52 + 1023)
    exponent = shifted_exponent - t.where(tiny, t.constant(x, 54.0), t.constant(x, 0.0))
    f = m - 1
    s = f / (m + 1)
    z = s * s
    square = f * f * 0.5
    # log m = 2 s + s z p  and  2 s = f - s f = f - f^2 / 2 + s f^2 / 2
    low_part = t.fma(s, square + z * _powers(LOG_WIDE, z), exponent * LN2_LEAST)
    y = t.fma(exponent, LN2_MOST, f - (square - low_part))
    y = t.where(x == 0.0, t.constant(x, -math.inf), y)
    y = t.where(x == math.inf, x, y)
    return t.where(x < 0.0, t.constant(x, math.nan), t.where(x == x, y, x))


def log1p_f64(x: t.Tracer) -> t.Tracer:
    """As `log1p_f32`."""
    return _log_of_sum(x, log_f64)


def _reduce_range(x: t.Tracer) -> tuple[t.Tracer, t.Tracer, t.Tracer, t.Tracer]:
    """Range reduction x = n pi/2 + r: (n in the lowest bits of an integer, sine of r, cosine of r, mask of
    the x that are too large for it).

    In f64, r has all its digits even if x is the f32 nearest to a multiple of pi/2. This needs no fused
    multiply-add, which some CPUs lack, and takes as long as a reduction by several short parts of pi/2 in
    f32.
    """
    x_in_f64 = t.cast(x, "f64")
    shifted = t.fma(x_in_f64, 2 / math.pi, WHOLE)
    n = shifted - WHOLE  # +0 for zeros of both signs, so that r keeps the sign
    r = t.cast(t.fma(n, -QUARTER_LO, t.fma(n, -QUARTER_HI, x_in_f64)), "f32")
    z = r * r
    sine = r * t.fma(z, _powers(SIN, z), 1.0)  # not r + r z (...): that loses the sign of zero
    cosine = t.fma(z * z, _powers(COS, z), t.fma(z, -0.5, 1.0))
    return t.cast(t.bits(shifted, "i64"), "i32"), sine, cosine, t.absolute(x) >= FAR


def _select_by_quadrant(quadrant: t.Tracer, sine: t.Tracer, cosine: t.Tracer) -> t.Tracer:
    """The sine of r + quadrant * pi/2, from the sine and the cosine of r."""
    y = t.where((quadrant & 1) != 0, cosine, sine)
    return t.bits(t.bits(y, "i32") ^ ((quadrant & 2) << 30), "f32")


def _powers(coefficients: list[float], z: t.Tracer) -> t.Tracer:
    """coefficients[0] + coefficients[1] z + coefficients[2] z^2 + ..."""
    p: t.Tracer = t.constant(z, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        p = t.fma(p, z, c)
    return p


#: Adding it to a small f64 leaves that number, rounded to even, in the lowest bits of the sum.
WHOLE = 1.5 * 2.0**52
#: 32 bits of ln 2, so that n * LN2_MOST is exact, and the remainder.
LN2_MOST = 0.6931471803691238
LN2_LEAST = 1.9082149292705877e-10
#: exp(r) = 1 + r (1 + r (EXP_WIDE[0] + EXP_WIDE[1] r + ...)) for |r| <= ln(2)/2
EXP_WIDE = [1 / math.factorial(k) for k in range(2, 14)]
#: erf(x) / x for |x| <= 1 in powers of x^2, and exp(x^2) erfc(x) for x from 1 to 6 in powers of
#: (x - 2) / (x + 2), fitted at Chebyshev points to 4.4e-17 and 5.3e-16.
ERF_WIDE = [
    1.1283791670955126, -0.37612638903183543, 0.11283791670945006, -0.02686617064323777,
    0.0052239776071164225, -0.0008548325975389692, 0.00012055294904839707, -1.492473690741966e-05,
    1.6447424703317362e-06, -1.6208483801871705e-07, 1.3720064546777686e-08, -7.795898827002142e-10,
]  # fmt: skip
ERFCX_WIDE = [
    0.2553956763105057, -0.4271858474139585, 0.24165819424248763, -0.07897858101571269, 0.0037328924016564484,
    0.006997461739200575, -0.0008471431229415333, -0.0009819771114740715, 4.355265359817883e-05,
    0.00017436477257256738, 2.7560352756678313e-05, -2.7640727821912852e-05, -1.4166339069117108e-05,
    1.859427387429402e-06, 4.146302183268488e-06, -2.22812957637235e-07,
]  # fmt: skip
#: The bits of sqrt(1/2).
ROOT_HALF = 0x3FE6A09E667F3BCD
#: ln((1 + s) / (1 - s)) = 2 s + s z (LOG_WIDE[0] + LOG_WIDE[1] z + ...) with z = s^2 up to (sqrt(2) - 1)^4,
#: fitted at Chebyshev points to 1.1e-18.
LOG_WIDE = [
    0.6666666666666666, 0.4000000000000088, 0.2857142857080315, 0.22222222391792662, 0.18181795631159273,
    0.15386240272217483, 0.13268755541930133, 0.13086833005966172,
]  # fmt: skip
#: 27 bits of pi/2, so that n * QUARTER_HI is exact for n < 2**26, and the remainder, with the digits that
#: math.pi lacks.
QUARTER_HI = math.floor(math.pi / 2 * 2.0**26) / 2.0**26
QUARTER_LO = math.pi / 2 - QUARTER_HI + 6.123233995736766e-17
FAR = 2.0**26
#: For |r| <= pi/4: sin(r) = r + r^3 (SIN[0] + SIN[1] r^2 + ...).
#: Likewise: cos(r) = 1 - r^2 / 2 + r^4 (COS[0] + COS[1] r^2 + ...).
SIN = [-0.16666655, 0.00833218, -0.00019517]
COS = [0.0416666457, -0.00138873156, 2.44330826e-05]


def atan_f32(x: t.Tracer) -> t.Tracer:
    """An odd polynomial for |x| <= 1, else pi/2 - atan(1 / |x|) with the sign of x."""
    a = t.absolute(x)
    beyond = a > 1.0
    one = t.constant(x, 1.0)
    r = t.where(beyond, one, a) / t.where(beyond, a, one)
    z = r * r
    y = t.fma(r * z, _powers(ATAN, z), r)
    return _with_sign(t.where(beyond, _from_right_angle(y), y), x)


def _from_right_angle(y: t.Tracer) -> t.Tracer:
    """pi/2 - y, with more digits of pi than f32 has."""
    return RIGHT_ANGLE - (y - RIGHT_ANGLE_REST)


RIGHT_ANGLE = 1.57079637050628662109375
RIGHT_ANGLE_REST = math.pi / 2 - RIGHT_ANGLE
#: atan(x) = x + x^3 (ATAN[0] + ATAN[1] x^2 + ...) for |x| <= 1
ATAN = [
    -0.33333153, 0.19993773, -0.14211055, 0.10666004, -0.07552214, 0.04321185, -0.01636792, 0.00292069,
]  # fmt: skip


def asin_f32(x: t.Tracer) -> t.Tracer:
    """An odd polynomial for |x| < 1/2, else pi/2 - 2 asin(sqrt((1 - |x|) / 2)) with the sign of x."""
    near, y = _near_asin(t.absolute(x))
    return _with_sign(t.where(near, y, _from_right_angle(y + y)), x)


def acos_f32(x: t.Tracer) -> t.Tracer:
    """pi/2 - asin(x) for |x| < 1/2, else 2 asin(sqrt((1 - |x|) / 2)), or pi minus that for negative x."""
    near, y = _near_asin(t.absolute(x))
    twice = y + y
    beyond = t.where(x < 0.0, 2 * RIGHT_ANGLE - (twice - 2 * RIGHT_ANGLE_REST), twice)
    return t.where(near, _from_right_angle(_with_sign(y, x)), beyond)


def _near_asin(a: t.Tracer) -> tuple[t.Tracer, t.Tracer]:
    """(whether a < 1/2, the arcsine of a if so, else of sqrt((1 - a) / 2))."""
    near = a < 0.5
    z = t.where(near, a * a, (1 - a) * 0.5)
    r = t.where(near, a, t.sqrt(z))
    return near, t.fma(r * z, _powers(ASIN, z), r)


#: asin(x) = x + x^3 (ASIN[0] + ASIN[1] x^2 + ...) for |x| <= 1/2
ASIN = [0.16666753, 0.07495289, 0.04547161, 0.02417295, 0.04217823]


def sinh_f32(x: t.Tracer) -> t.Tracer:
    """An odd polynomial for |x| < 1, else from exp(|x|) / 2, which overflows no earlier; within 3 ULP."""
    a = t.absolute(x)
    h = _half_exp(a)
    z = x * x
    return t.where(a < 1.0, t.fma(x * z, _powers(SINH, z), x), _with_sign(h - 0.25 / h, x))


#: sinh(x) = x + x^3 (SINH[0] + SINH[1] x^2 + ...) for |x| <= 1
SINH = [1.66666665e-01, 8.33335006e-03, 1.98361588e-04, 2.81695737e-06]


def cosh_f32(x: t.Tracer) -> t.Tracer:
    """From exp(|x|) / 2, which overflows no earlier."""
    h = _half_exp(t.absolute(x))
    return h + 0.25 / h


def asinh_f32(x: t.Tracer) -> t.Tracer:
    """ln(|x| + sqrt(x^2 + 1)) with the sign of x, as ln(1 + z); within 4 ULP."""
    a = t.absolute(x)
    square = a * a
    return _with_sign(_log1p_or_twice(a + square / (1 + t.sqrt(square + 1)), a), x)


def acosh_f32(x: t.Tracer) -> t.Tracer:
    """ln(x + sqrt(x^2 - 1)) as ln(1 + z); within 4 ULP."""
    over = x - 1
    y = _log1p_or_twice(over + t.sqrt(over * (over + 2)), x)
    return t.where(x < 1.0, t.constant(x, math.nan), y)


def _log1p_or_twice(z: t.Tracer, a: t.Tracer) -> t.Tracer:
    """ln(1 + z), for large `a` as ln(2 a): there f32 does not distinguish z from 2 a, and z may overflow."""
    large = a > 8192.0
    u = t.where(large, a, 1 + z)
    return log_f32(u) + t.where(large, t.constant(u, math.log(2)), (z - (u - 1)) / u)


def atanh_f32(x: t.Tracer) -> t.Tracer:
    """ln(1 + 2 |x| / (1 - |x|)) / 2 with the sign of x; within 3 ULP."""
    a = t.absolute(x)
    return _with_sign(log1p_f32((a + a) / (1 - a)) * 0.5, x)
