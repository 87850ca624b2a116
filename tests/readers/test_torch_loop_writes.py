"""Loops that write to a tensor in place in each iteration, such as sums: beside PyTorch for other lengths."""

from __future__ import annotations

from typing import List  # noqa: UP035 - by this name scripts know it

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import UnsupportedError

torch = pytest.importorskip("torch")
Tensor = torch.Tensor
SEED = 20261130


def sums(x: Tensor):
    total = x[torch.tensor([0, 1])]
    total += x[0]
    for i in range(1, x.shape[0]):
        total += x[i - 1]
        total += x[i] * 2
    total += x[1]
    return total


def by_other_names(x: Tensor):
    total = x[0] * 1
    same, part = total, total.view(2, 2)
    for i in range(x.shape[0]):
        total += x[i]
    part += 1
    return total, same


def row(x: Tensor):
    y = x.clone()
    first = y[0]
    for i in range(x.shape[0]):
        first += x[i]
    return y, first


def copies_in_a_list(x: Tensor):
    total = x[0] * 1
    out: List[Tensor] = []  # noqa: UP006
    for i in range(x.shape[0]):
        out.append(total.clone())
        total += x[i]
    return torch.stack(out), total


def nested(x: Tensor):
    total = x[0] * 1
    for i in range(x.shape[0]):
        for j in range(i):
            total += x[j]
        total *= 0.5
    return total


def inputs():
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randn(rows, 4, generator=generator) for rows in (3, 5, 2)]


def compare(model, function, lengths=3):
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for x in inputs()[:lengths]:
        wanted = function(x.clone())
        made = compiled([x.numpy()])
        for i, want in enumerate([wanted] if isinstance(wanted, Tensor) else wanted):
            assert made[i].shape == tuple(want.shape)
            np.testing.assert_allclose(made[i], want.numpy(), rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("function", [sums, by_other_names, row, copies_in_a_list, nested])
def test_scripts(function):
    described = [(ov.PartialShape([-1, 4]), ov.Type.f32)]
    compare(ov.convert_model(torch.jit.script(function), input=described), function)


@pytest.mark.parametrize("function", [sums, by_other_names, row, copies_in_a_list])
def test_traces_have_the_iterations_of_the_example(function):
    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    with pytest.warns(torch.jit.TracerWarning, match="incorrect for other lengths"):
        model = ov.convert_model(Module(), example_input=inputs()[0])
    compare(model, function, 1)


def test_what_is_added_to_a_list_and_written_is_refused():
    """All items are one tensor, which holds the last sum."""

    def one_tensor(x: Tensor):
        total = x[0] * 1
        out: List[Tensor] = []  # noqa: UP006
        for i in range(x.shape[0]):
            total += x[i]
            out.append(total)
        return torch.stack(out)

    with pytest.raises(UnsupportedError, match="a loop writes to what it has added to a list"):
        ov.convert_model(torch.jit.script(one_tensor), input=[(ov.PartialShape([-1, 4]), ov.Type.f32)])
