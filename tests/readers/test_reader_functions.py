"""Functions that readers write with nodes, beside sums and NumPy in f64: incomplete gamma and beta functions,
zeta, singular values and eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.build.builder import Builder, Draft
from ovjit.readers.numerics_contrib import gamma_beta, jacobi

SEED = 20261126
RNG = np.random.default_rng(SEED)


def computed(write: Callable[..., Sequence[Output]], *arrays: Any) -> list[np.ndarray]:
    """What `write(builder, *values)` makes of arrays in f64."""
    given = [np.asarray(array, np.float64) for array in arrays]
    n = Builder()
    n.reader, n.base = Draft(), ""
    parameters = [Parameter._of("f64", array.shape, f"x{i}") for i, array in enumerate(given)]
    made = write(n, *(Output._of(p, 0) for p in parameters))
    model = Model._from_parts([Result._of(value) for value in made], parameters, (), "")
    found = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)
    return [found[i] for i in range(len(made))]


def test_incomplete_gamma_functions_of_whole_numbers_are_poisson_sums() -> None:
    a = np.arange(1, 41).repeat(6)
    x = a * np.tile([0.01, 0.4, 0.98, 1.03, 1.7, 6], 40)
    lower, upper = computed(gamma_beta.gamma_parts, a, x)
    want = [math.fsum(math.exp(k * math.log(v) - v - math.lgamma(k + 1)) for k in range(n))
            for n, v in zip(a.tolist(), x.tolist(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(upper, want, rtol=1e-9)
    np.testing.assert_allclose(lower, 1 - np.array(want), atol=1e-9)


def test_incomplete_gamma_functions_of_a_half_are_those_of_errors() -> None:
    x = np.geomspace(1e-8, 600, 60)
    lower, upper = computed(gamma_beta.gamma_parts, np.full(60, 0.5), x)
    np.testing.assert_allclose(lower, [math.erf(math.sqrt(v)) for v in x], rtol=1e-9)
    np.testing.assert_allclose(upper, [math.erfc(math.sqrt(v)) for v in x], rtol=1e-9)


def test_ends_of_incomplete_gamma_functions() -> None:
    nan, inf = math.nan, math.inf
    a = [0, 1, 0, 2, -1, nan, inf, 3, inf]
    x = [2, 0, 0, inf, 1, 1, 2, -1, inf]
    lower, upper = computed(gamma_beta.gamma_parts, a, x)
    np.testing.assert_array_equal(lower, [1, 0, nan, 1, nan, nan, 0, nan, 1])
    np.testing.assert_array_equal(upper, [0, 1, nan, 0, nan, nan, 1, nan, 0])


def test_zeta_and_polygamma() -> None:
    s, q = (
        np.array([2, 2, 4, 2, 1.5, 3, 20, 1, 0.5, 2, 3, 2, 2.5, math.nan, 2]),
        np.array([1, 2, 1, 0.5, 0.25, 7, 3, 1, 1, 0, -1.5, -9.5, -9.5, 1, math.nan]),
    )
    (found,) = computed(lambda n, *given: [gamma_beta.zeta(n, *given)], s, q)
    pi = math.pi
    np.testing.assert_allclose(found[:4], [pi**2 / 6, pi**2 / 6 - 1, pi**4 / 90, pi**2 / 2], rtol=1e-13)
    k = np.arange(2_000_000.0)
    rest = [2 / math.sqrt(k.size + 0.25 - 0.5), 1 / (2 * (k.size + 6.5) ** 2), 0]
    sums = [((k + b) ** -a).sum() + more for a, b, more in zip(s[4:7], q[4:7], rest, strict=True)]
    np.testing.assert_allclose(found[4:7], sums, rtol=1e-10)
    np.testing.assert_array_equal(found[7:10], [math.inf, math.nan, math.inf])
    np.testing.assert_allclose(found[10], sum((j - 1.5) ** -3.0 for j in range(400_000)), rtol=1e-10)
    want = pi**2 / 2 + math.fsum((j - 9.5) ** -2.0 for j in range(10))  # and zeta(2, 1/2)
    np.testing.assert_allclose(found[11], want, rtol=1e-12)
    np.testing.assert_array_equal(found[12:], math.nan)  # roots of numbers below 0
    orders, x = np.array([0, 1, 2, 3]), np.array([1.0, 1.0, 1.0, 0.5])
    (found,) = computed(lambda n, *given: [gamma_beta.polygamma(n, *given)], orders, x)
    np.testing.assert_allclose(found, [-0.5772156649015329, pi**2 / 6, -2.4041138063191885, pi**4], rtol=1e-9)


def test_incomplete_beta_functions_of_whole_numbers_are_binomial_sums() -> None:
    a, b = RNG.integers(1, 30, 60), RNG.integers(1, 30, 60)
    x = RNG.random(60)
    (found,) = computed(lambda n, *given: [gamma_beta.beta_part(n, *given)], a, b, x)
    want = [math.fsum(math.comb(p + q - 1, j) * v**j * (1 - v) ** (p + q - 1 - j) for j in range(p, p + q))
            for p, q, v in zip(a.tolist(), b.tolist(), x.tolist(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, want, rtol=1e-8, err_msg=f"seed {SEED}")
    a, b, x = [1, 1, 1, 0, 2, -1, 1, 0], [1, 1, 1, 2, 0, 1, 1, 0], [0, 1, 1.5, 0.5, 0.5, 0.5, math.nan, 0.5]
    (found,) = computed(lambda n, *given: [gamma_beta.beta_part(n, *given)], a, b, x)
    np.testing.assert_array_equal(found, [0, 1, math.nan, 1, 0, math.nan, math.nan, math.nan])


def matrices() -> dict[str, np.ndarray]:
    thin = RNG.normal(size=(1, 6, 2)) @ RNG.normal(size=(1, 2, 5))
    return {
        "tall": RNG.normal(size=(2, 7, 4)),
        "wide": RNG.normal(size=(3, 3, 6)),
        "odd": RNG.normal(size=(1, 5, 5)),
        "of rank 2": thin,
        "zeros": np.zeros((1, 3, 3)),
        "a column": RNG.normal(size=(2, 4, 1)),
        "a number": np.array([[[-2.0]]]),
        "large": RNG.normal(size=(1, 20, 17)) * 1e6,
        "far apart": RNG.normal(size=(1, 4, 4)) @ np.diag([1e4, 1, 1e-2, 1e-4]),
        "ones": np.ones((1, 4, 4)),
    }


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", matrices())
def test_singular_values(name: str, full: bool) -> None:
    x = matrices()[name]
    rows, columns = x.shape[1:]
    u, s, v = computed(lambda n, value: jacobi.singular(n, value, full), x)
    want = np.linalg.svd(x, full_matrices=full)
    assert u.shape == want[0].shape and v.transpose(0, 2, 1).shape == want[2].shape
    near = {"rtol": 0, "atol": 1e-10 * max(1, np.abs(x).max())}
    np.testing.assert_allclose(s, want[1], **near, err_msg=f"seed {SEED}")
    least = min(rows, columns)
    np.testing.assert_allclose((u[..., :least] * s[:, None]) @ v[..., :least].transpose(0, 2, 1), x, **near)
    for square in (u, v):
        eye = np.broadcast_to(np.eye(square.shape[2]), (len(x), *[square.shape[2]] * 2))
        np.testing.assert_allclose(square.transpose(0, 2, 1) @ square, eye, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_eigenvalues(size: int) -> None:
    x = RNG.normal(size=(3, size, size))
    x = x + x.transpose(0, 2, 1)
    x[1] = np.ones((size, size))  # equal values
    values, vectors = computed(lambda n, value: jacobi.symmetric(n, value), x)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(x), rtol=0, atol=1e-10, err_msg=f"seed {SEED}")
    np.testing.assert_allclose(x @ vectors, vectors * values[:, None], rtol=0, atol=1e-10)
    eye = np.broadcast_to(np.eye(size), x.shape)
    np.testing.assert_allclose(vectors.transpose(0, 2, 1) @ vectors, eye, rtol=0, atol=1e-10)


def test_singular_values_of_nan_are_nan() -> None:
    x = np.full((1, 3, 3), np.nan)
    _, s, _ = computed(lambda n, value: jacobi.singular(n, value, False), x)
    assert np.isnan(s).all()
