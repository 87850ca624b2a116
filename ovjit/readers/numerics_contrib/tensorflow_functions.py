"""TensorFlow's incomplete gamma and beta functions, zeta and polygamma."""

from __future__ import annotations

from ovjit.readers.frameworks.operators import TENSORFLOW
from ovjit.readers.numerics.special import in_f64
from ovjit.readers.numerics_contrib import gamma_beta

TENSORFLOW.update({
    "Igamma": in_f64(lambda n, a, x: gamma_beta.gamma_parts(n, a, x)[0]),
    "Igammac": in_f64(lambda n, a, x: gamma_beta.gamma_parts(n, a, x)[1]),
    "Betainc": in_f64(gamma_beta.beta_part),
    "Zeta": in_f64(gamma_beta.zeta),
    "Polygamma": in_f64(gamma_beta.polygamma),
})  # fmt: skip
