"""Complex tensors: what moves their elements, writes to parts of them, and functions of them, beside PyTorch
in traces and scripts, at the example's size and another."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
Tensor = torch.Tensor
SEED = 20261127


def to_slices(x: Tensor, mask: Tensor):
    v = torch.view_as_complex(x)
    out = torch.zeros(v.shape[0], v.shape[1] + 2, v.shape[2] + 1, dtype=torch.cfloat)
    out[:, : v.shape[1], : v.shape[2]] = v
    out[:, -2:, :2] = v[:, :2, :2] * 2
    out[:, :1, :2] += v[:, 1:2, 1:3]
    rows = v.clone()
    rows[0] = rows[1] * 2
    rows[:, 1] = 0
    rows[:, 2] = 1 + 2j
    return torch.view_as_real(out), torch.view_as_real(rows)


def to_masks(x: Tensor, mask: Tensor):
    v = torch.view_as_complex(x)
    zeroed = v.clone()
    zeroed[mask] = 0
    added = torch.zeros_like(v)
    added.index_put_([torch.tensor([1, 1])], v[:2], True)
    turned = v.clone()
    turned[torch.tensor([0, 1])] = v[torch.tensor([1, 0])] * 2j
    filled = v.masked_fill(mask, 1.5)
    return zeroed, added, turned, filled, v.masked_select(mask)


def spectral(x: Tensor, mask: Tensor):
    """A convolution of the lowest frequencies, as neural operators have it."""
    found = torch.fft.rfft2(x[..., 0])
    weights = torch.ones(2, 2, dtype=torch.cfloat) * (1 + 2j)
    out = torch.zeros(found.shape[0], found.shape[1], found.shape[2], dtype=torch.cfloat)
    out[:, :2, :2] = found[:, :2, :2] * weights
    out[:, -2:, :2] = found[:, -2:, :2] * weights
    return torch.fft.irfft2(out, s=(x.shape[1], x.shape[2]))


def moved(x: Tensor, mask: Tensor):
    v = torch.view_as_complex(x)
    return (
        v.split(2, 1)[0], torch.tensor_split(v, 2, 1)[1], v.tril(), v.triu(1), v.diagonal(0, 1, 2),
        torch.diag(v[0, 0]), torch.diag_embed(v[0]), torch.trace(v[0]), v.unfold(1, 2, 1),
        v[:, :1].squeeze(1), torch.atleast_3d(v[0]), v.flatten(1), torch.hstack([v, v]),
        torch.rot90(v, 1, [1, 2]),
        torch.nn.functional.pad(v, (1, 2, 0, 1), value=1.0),
        torch.nn.functional.pad(v, (1, 1), mode="reflect"), torch.full_like(v, 2.5 + 1j),
        torch.slice_scatter(v, v[:, 1:2], 1, 0, 1), torch.select_scatter(v, v[:, 1], 1, 0),
        torch.zeros_like(v).index_add(1, torch.tensor([0, 0]), v[:, :2]), v.cumsum(1), v.movedim(0, 1),
        v.index_fill(1, torch.tensor([0]), 2.0), torch.diff(v, dim=1), torch.addcmul(v, v, v, value=2.0),
        torch.fft.hfft(v), torch.fft.hfft2(v, norm="ortho"),
    )  # fmt: skip


def functions(x: Tensor, mask: Tensor):
    v = torch.view_as_complex(x)
    return (
        v.sin(), v.cos(), v.tan(), v.sinh(), v.cosh(), v.tanh(), v.asin(), v.acos(), v.atan(), v.asinh(),
        v.acosh(), v.atanh(), v.sigmoid(), v.exp2(), v.log2(), v.log10(), v.log1p(), v.expm1(), v.rsqrt(),
        v.isnan(), v.isinf(), v.isfinite(), v.logical_not(),
    )  # fmt: skip


def inputs(size):
    generator = torch.Generator().manual_seed(SEED)
    shape = (2 + size, 3 + 2 * size, 4 + size)
    x = torch.randn(*shape, 2, generator=generator)
    return x, torch.randn(*shape, generator=generator) > 0


def array(tensor):
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).numpy()


def of_wholes(x: Tensor, mask: Tensor):
    """Products, variances and matrices."""
    v = torch.view_as_complex(x)
    spread, middle = torch.var_mean(v, 2)
    rows, columns = torch.meshgrid([v[0, 0], v[0, :, 1]], indexing="ij")
    square = v @ v.mH + torch.eye(v.shape[1])
    return (
        v.prod(), v.prod(1, keepdim=True), v.cumprod(2), v.var(), v.std(1), spread, middle,
        torch.kron(v[0], v[1]), rows * columns, torch.linalg.multi_dot([v[0], v[1].mH, v[0]]),
        torch.linalg.inv(square), torch.linalg.solve(square, v), torch.linalg.solve(square[0], v[0, :, 0]),
    )  # fmt: skip


@pytest.mark.parametrize("scripted", [False, True], ids=["trace", "script"])
@pytest.mark.parametrize("function", [to_slices, to_masks, spectral, moved, functions, of_wholes])
def test_beside_pytorch(function, scripted):
    class Module(torch.nn.Module):
        def forward(self, x, mask):
            return function(x, mask)

    given = torch.jit.script(function) if scripted else Module()
    model = ov.convert_model(given, example_input=inputs(0))
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in (0, 1):
        x, mask = inputs(size)
        wanted = function(x.clone(), mask)
        wanted = [wanted] if isinstance(wanted, Tensor) else wanted
        made = compiled([x.numpy(), mask.numpy()])
        assert len(made) == len(wanted)
        for i, want in enumerate(map(array, wanted)):
            assert made[i].shape == want.shape, f"seed {SEED}, output {i}"
            np.testing.assert_allclose(
                made[i], want, rtol=2e-5, atol=2e-5, err_msg=f"seed {SEED}, output {i}"
            )


@pytest.mark.parametrize("open_size", [False, True])
def test_the_imaginary_part_of_real_numbers_is_0(open_size: bool) -> None:
    """Infinities, NaN and negative numbers as well: the root of -1 is i, not -i."""

    class Module(torch.nn.Module):
        def forward(self, x):
            z = x.to(torch.complex64)
            wide = torch.stack([x * 1j, z])
            return [torch.view_as_real(v) for v in (z, wide, torch.sqrt(z[:3]), torch.log(z[:3]))] + [
                torch.angle(x), torch.angle(z[:5])
            ]  # fmt: skip

    x = torch.tensor([-1.0, -4.0, 2.0, 0.0, np.inf, -np.inf, np.nan])
    model = ov.convert_model(Module(), example_input=x, input=[-1] if open_size else [7])
    result = ov.compile_model(model, "CPU")([x.numpy()])
    for i, want in enumerate(Module()(x)):
        if i < 2:
            np.testing.assert_array_equal(result[i][..., :2], want.numpy()[..., :2])
        np.testing.assert_allclose(result[i], want.numpy(), 1e-6, 1e-6)
