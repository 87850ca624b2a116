"""Bessel functions, and incomplete gamma functions, beside SciPy's in f64."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
special = pytest.importorskip("scipy.special")

NAMES = {
    "bessel_j0": "j0", "bessel_j1": "j1", "bessel_y0": "y0", "bessel_y1": "y1", "i0": "i0", "i0e": "i0e",
    "i1": "i1", "i1e": "i1e", "modified_bessel_i0": "i0", "modified_bessel_i1": "i1",
    "modified_bessel_k0": "k0", "modified_bessel_k1": "k1", "scaled_modified_bessel_k0": "k0e",
    "scaled_modified_bessel_k1": "k1e", "spherical_bessel_j0": "spherical_jn",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bessel_functions(name) -> None:
    class Module(torch.nn.Module):
        def forward(self, x):
            return getattr(torch.special, name)(x)

    def wanted(x):
        function = getattr(special, NAMES[name])
        return function(0, x) if name.startswith("spherical") else function(x)

    of_all = "_y" not in name and "_k" not in name
    x = np.concatenate(
        [np.linspace(-40 if of_all else 0.01, 40, 997), [0.0, math.nan], np.logspace(-6, 2, 50)]
    )
    x = x.astype(np.float32)
    model = ov.convert_model(Module(), example_input=torch.from_numpy(x))
    made = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    want = wanted(x.astype(np.float64))
    fits = np.abs(want) < 1e38  # the others are infinite in f32
    np.testing.assert_allclose(made[fits], want[fits], rtol=1e-6, atol=2e-7)
    np.testing.assert_array_equal(np.isnan(made), np.isnan(want))
    assert np.isinf(made[~fits & ~np.isnan(want)]).all()
    if of_all and name.rpartition("_")[2][0] == "j":
        far = np.array([math.inf, -math.inf], np.float32)
        again = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([far])[0]
        np.testing.assert_array_equal(np.abs(again), np.zeros(2, np.float32))


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma_functions_by_their_special_names(name) -> None:
    class Module(torch.nn.Module):
        def forward(self, a, x):
            return getattr(torch.special, name)(a, x)

    a, x = np.float32([0.5, 1, 2, 7]), np.float32([0.3, 2, 1, 9])
    model = ov.convert_model(Module(), example_input=(torch.from_numpy(a), torch.from_numpy(x)))
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([a, x])[0]
    np.testing.assert_allclose(result, getattr(special, name)(a, x), rtol=1e-5)
