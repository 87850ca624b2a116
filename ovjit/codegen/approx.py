"""Transcendental functions of f32 as short polynomials over the trace vocabulary.

Each is within 2 ULP where the result is normal, keeps NaN, and gives the exact infinities and zeros.
Coefficients are Taylor's where the range is small enough, else a Chebyshev fit to the C library's function in
double precision (error of the fit below 3e-9).
"""

from __future__ import annotations

import math

from ovjit.codegen import tracer as t

LOG2E = 1.4426950408889634
LN2_HI = 0.693145751953125  # 16 bits of ln 2: n * LN2_HI is exact for |n| < 256
LN2_LO = 1.42860682030941723212e-6


def exp_f32(x: t.Tracer) -> t.Tracer:
    """2**n * exp(r) with n = round(x / ln 2), |r| <= ln(2)/2; the scale in two steps keeps denormals."""
    x = t.where(x > 89.0, t.constant(x, 89.0), t.where(x < -104.0, t.constant(x, -104.0), x))
    n = t.round_even(x * LOG2E)
    r = t.fma(n, -LN2_LO, t.fma(n, -LN2_HI, x))
    p: t.Tracer = t.constant(x, 1 / math.factorial(7))
    for k in range(6, -1, -1):
        p = t.fma(p, r, 1 / math.factorial(k))
    exponent = t.to_int(n, "i32")
    half = exponent >> 1
    return p * _power_of_two(half) * _power_of_two(exponent - half)


def exp_below_zero(x: t.Tracer) -> t.Tracer:
    """exp(x) for x <= 0, within 3 ULP down to -20 and 4e-7 of it below; 0 below -87.7, denormals too."""
    return _exp_low(t.where(x < -88.0, t.constant(x, -88.0), x))


def exp_rough(x: t.Tracer) -> t.Tracer:
    """The same for any x; infinity from 88.4 on."""
    x = t.where(x > 88.8, t.constant(x, 88.8), x)
    return exp_below_zero(x)


#: exp(r) = 1 + EXP[0] r + EXP[1] r^2 + ... for |r| <= ln(2)/2, within 1e-7: fitted to the relative error.
EXP = [0.9999997, 0.4999915, 0.16667639, 0.04189816, 0.008290272]
#: Added to a small number it leaves that, rounded to even and 127 more, in the lowest bits of the sum.
ROUNDING = 1.5 * 2.0**23 + 127


def one_more_than_exp(x: t.Tracer) -> t.Tracer:
    """1 + exp(x), within 3 ULP; infinity where exp(x) is. Beside 1, what is small need not be exact, which is
    half of `exp_f32`: the exponent is made one too small by a shift of the sum that rounds, and the
    multiplication by 2 that is then left over is one with the addition."""
    x = t.where(x < -87.0, t.constant(x, -87.0), t.where(x > 89.0, t.constant(x, 89.0), x))
    shifted = t.fma(x, LOG2E, t.constant(x, ROUNDING - 1))
    n = shifted - (ROUNDING - 1)
    r = t.fma(n, -LN2_LO, t.fma(n, -LN2_HI, x))
    return t.fma(_short_exp(r) * t.bits(t.bits(shifted, "i32") << 23, "f32"), 2.0, 1.0)


def _exp_low(x: t.Tracer) -> t.Tracer:
    """exp(x) with the exponent made by one shift of the sum that rounds, for -88 <= x < 88.8."""
    shifted = t.fma(x, LOG2E, t.constant(x, ROUNDING))
    r = t.fma(shifted - ROUNDING, -math.log(2), x)
    return _short_exp(r) * t.bits(t.bits(shifted, "i32") << 23, "f32")


def _short_exp(r: t.Tracer) -> t.Tracer:
    p: t.Tracer = t.constant(r, EXP[-1])
    for c in (*reversed(EXP[:-1]), 1.0):
        p = t.fma(p, r, c)
    return p


def _power_of_two(n: t.Tracer) -> t.Tracer:
    return t.bits((n + 127) << 23, "f32")


def log_f32(x: t.Tracer) -> t.Tracer:
    """n ln 2 + 2 atanh((m - 1) / (m + 1)) with x = m 2**n, m in [sqrt(1/2), sqrt(2))."""
    tiny = x < 1.1754944e-38  # denormal: scale up
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
    """ln u with u = 1 + x as it is rounded, and what rounding took of x, over u."""
    u = 1 + x
    y = log_f32(u)
    return t.where(t.absolute(y) < math.inf, y + (x - (u - 1)) / u, y)


def tanh_f32(x: t.Tracer) -> t.Tracer:
    """An odd Taylor polynomial near 0, else 1 - 2 / (exp(2 |x|) + 1) with the sign of x."""
    a = t.absolute(x)
    e = exp_f32(a + a)
    large = 1 - 2 / (e + 1)
    z = x * x
    p: t.Tracer = t.constant(x, TANH[-1])
    for c in reversed(TANH[:-1]):
        p = t.fma(p, z, c)
    small = t.fma(x * z, p, x)
    return t.where(a < 0.55, small, t.where(x < 0.0, -large, large))


#: tanh(x) = x + x^3 (TANH[0] + TANH[1] x^2 + ...)
TANH = [
    -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875,
    6404582 / 10854718875,
]  # fmt: skip


def erf_f32(x: t.Tracer) -> t.Tracer:
    """x P(x^2) / Q(x^2) up to 3.92, from where on it is 1; within 5 ULP."""
    a = t.where(x > 3.92, t.constant(x, 3.92), t.where(x < -3.92, t.constant(x, -3.92), x))
    z = a * a
    p: t.Tracer = t.constant(x, ERF[-1])
    for c in reversed(ERF[:-1]):
        p = t.fma(p, z, c)
    q: t.Tracer = t.constant(x, ERF_BELOW[-1])
    for c in reversed(ERF_BELOW[:-1]):
        q = t.fma(q, z, c)
    return a * p / q


#: erf(x) / x on [0, 3.92] is a quotient of powers of x^2, fitted to the C library's function in double
#: precision for
#: the least relative error (2e-8). It takes a third of the instructions that exp(-x^2) takes: GELU behind
#: every layer of a transformer was a third of its time.
ERF = [1.128379146, 0.1903968644, 0.05274727535, 0.003765158506, 0.0002848648538, 2.050061868e-06]
ERF_BELOW = [1.0, 0.5020675712, 0.1141049827, 0.01496830139, 0.00116241037, 3.809051633e-05]
