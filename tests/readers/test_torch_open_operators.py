"""Operators of scripts that depend on open lengths, and numbers of tensors, beside eager mode."""

from __future__ import annotations

from typing import Dict, Tuple  # noqa: UP035 - by these names scripts know them

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
functional, Tensor = torch.nn.functional, torch.Tensor
SEED = 20261128
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def norms(x: Tensor):
    images = torch.stack([x, x * 2 + 1], 1)
    flat = functional.layer_norm(x, [x.size(1)], eps=0.0)
    return functional.group_norm(images, 2, eps=0.0), functional.group_norm(images, 1, eps=-1e-6), flat


def triangles(x: Tensor):
    rows, columns = x.size(0), x.size(1)
    below = torch.tril_indices(rows, columns, -1)
    return torch.tril_indices(rows, columns), torch.triu_indices(rows, columns, 1), below


def windows(x: Tensor):
    n = x.size(0)
    cosines = torch.hann_window(n), torch.hamming_window(n, periodic=False), torch.blackman_window(n)
    return cosines[0], cosines[1], cosines[2], torch.bartlett_window(n)


def areas(x: Tensor):
    places = x.cumsum(0)
    return (torch.trapezoid(x), torch.trapezoid(x, places, dim=0), torch.trapezoid(x, dx=0.5, dim=1),
            torch.trapezoid(x, places[0]), torch.cumulative_trapezoid(x),
            torch.cumulative_trapezoid(x, places, dim=0), torch.cumulative_trapezoid(x, dx=0.5))  # fmt: skip


def products(x: Tensor):
    return torch.cartesian_prod(x[0], x[:, 0]), torch.cartesian_prod(x[0])


def numbers(x: Tensor):
    n = int((x * 100).to(torch.int32)[0, 0].item())
    return torch.tensor([n, 2]), torch.full([2], n)


def ordered_lists(x: Tensor):
    """The first numbers that differ decide."""
    rows, columns = x.size(0), x.size(1)
    greatest = max([3, rows, 1], [rows, columns, 7])
    smallest = min([3, rows, 1], [rows, columns, 7])
    return torch.tensor(greatest), torch.tensor(smallest), torch.tensor(max([rows, columns], [3, 4]))


@pytest.mark.parametrize("function", [norms, triangles, windows, areas, products, numbers, ordered_lists])
def test_open_lengths(function) -> None:
    generator = torch.Generator().manual_seed(SEED)
    examples = [torch.rand(shape, generator=generator) for shape in ((3, 4), (5, 2), (2, 7))]
    script = torch.jit.script(function)
    for given in ({"example_input": (examples[0],)}, {"input": [([-1, -1], ov.Type.f32)]}):
        compiled = ov.compile_model(ov.convert_model(script, **given), "CPU", EXACT)
        for x in examples:
            wanted, result = script(x.clone()), compiled([x.numpy()])
            for i, want in enumerate(wanted):
                assert result[i].dtype == want.numpy().dtype, i
                np.testing.assert_allclose(
                    result[i], want.numpy(), rtol=1e-4, atol=1e-5, err_msg=f"seed {SEED}, {i}"
                )


class OfPairs(torch.nn.Module):
    def forward(self, pair: Tuple[Tensor, Tensor], z: Tensor):  # noqa: UP006
        return pair[0] * 2 + pair[1] + z


class OfNames(torch.nn.Module):
    def forward(self, named: Dict[str, Tensor]):  # noqa: UP006
        return named["a"] * 2 + named["b"]


@pytest.mark.parametrize("traced", [True, False])
def test_flat_inputs_of_tuples_and_dicts(traced) -> None:
    """As OpenVINO does, a flat list describes one tensor after another."""
    a, b, c = (torch.rand(2, 3) for _ in range(3))
    rows = [([2, 3], ov.Type.f32), ([2, 3], ov.Type.f32), ([-1, 3], ov.Type.f32)]
    for module, example, flat in (
        (OfPairs(), ((a, b), c), [a, b, c]),
        (OfNames(), ({"a": a, "b": b},), [a, b]),
    ):
        script = torch.jit.trace(module, example, strict=False) if traced else torch.jit.script(module)
        model = ov.convert_model(script, input=rows[3 - len(flat) :])
        assert [str(port.get_partial_shape()) for port in model.inputs] == ["[2,3]", "[2,3]", "[?,3]"][
            -len(flat) :
        ]
        result = ov.compile_model(model, "CPU", EXACT)([t.numpy() for t in flat])[0]
        np.testing.assert_allclose(result, module(*example).numpy(), rtol=1e-6)
