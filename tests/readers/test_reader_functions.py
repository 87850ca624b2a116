"""Functions that readers write with nodes, beside NumPy in f64: singular values and eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.build.builder import Builder, Draft
from ovjit.readers.numerics_contrib import jacobi

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
