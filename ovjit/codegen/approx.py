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
    """x P(x^2) up to 1, then 1 - exp(-x^2) Q(1 / (1 + |x|/2)), which is 1 from 4 on."""
    a = t.absolute(x)
    z = x * x
    p: t.Tracer = t.constant(x, ERF[-1])
    for c in reversed(ERF[:-1]):
        p = t.fma(p, z, c)
    near = x * p
    a = t.where(a > 4.0, t.constant(x, 4.0), a)
    u = 1 / t.fma(a, 0.5, 1.0)
    q: t.Tracer = t.constant(x, ERFC[-1])
    for c in reversed(ERFC[:-1]):
        q = t.fma(q, u, c)
    far = 1 - exp_f32(-(a * a)) * q
    far = t.where(x < 0.0, -far, far)
    return t.where(z <= 1.0, near, t.where(x == x, far, x))


#: erf(x) / x in powers of x^2 on [0, 1]
ERF = [
    1.128379166, -0.376126269, 0.1128359746, -0.0268543288, 0.005189311943, -0.0008018854994,
    7.882497116e-05,
]  # fmt: skip
#: erfc(x) exp(x^2) in powers of 1 / (1 + x/2) on [1, 4]
ERFC = [
    0.0006064087393, 0.2736181535, 0.3308406805, 0.1012682448, 0.4038383627, -0.05733873532,
    -0.05354061612,
]  # fmt: skip
