"""Modified Bessel functions, beside SciPy's in f64."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
special = pytest.importorskip("scipy.special")

NAMES = {
    "i0": "i0", "i0e": "i0e", "i1": "i1", "i1e": "i1e",
    "modified_bessel_i0": "i0", "modified_bessel_i1": "i1",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bessel_functions(name) -> None:
    class Module(torch.nn.Module):
        def forward(self, x):
            return getattr(torch.special, name)(x)

    x = np.concatenate([np.linspace(-40, 40, 997), [0.0, math.nan], np.logspace(-6, 2, 50)])
    x = x.astype(np.float32)
    model = ov.convert_model(Module(), example_input=torch.from_numpy(x))
    made = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    want = getattr(special, NAMES[name])(x.astype(np.float64))
    fits = np.abs(want) < 1e38  # the others are infinite in f32
    np.testing.assert_allclose(made[fits], want[fits], rtol=1e-6, atol=2e-7)
    np.testing.assert_array_equal(np.isnan(made), np.isnan(want))
    assert np.isinf(made[~fits & ~np.isnan(want)]).all()


FUNCTIONS = {name: name for name in ("i0", "i0e", "i1", "i1e")} | {"gammaln": "gammaln", "digamma": "digamma"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_doubles_have_their_precision(name) -> None:
    class Module(torch.nn.Module):
        def forward(self, x):
            return getattr(torch.special, name)(x)

    x = np.concatenate([np.linspace(-40, 40, 997), np.logspace(-6, 2, 50), [1e40, 1e200, -1e300, 700]])
    model = ov.convert_model(Module(), example_input=torch.from_numpy(x))
    made = ov.compile_model(model, "CPU")([x])[0]
    want = getattr(special, FUNCTIONS[name])(x)
    fits = np.isfinite(want)
    np.testing.assert_allclose(made[fits], want[fits], rtol=1e-13, atol=3e-14)
    # SciPy has NaN as digamma of a whole number below 0
    np.testing.assert_array_equal(made[np.isinf(want)], want[np.isinf(want)])
