"""PyTorch modules as Models: beside what PyTorch itself computes, with all dimensions open."""

from __future__ import annotations

import collections
import gc
import io
import warnings

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
F = torch.nn.functional
SEED = 20261122
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


class Of(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function, **weights):
        super().__init__()
        self.function = function
        for name, value in weights.items():
            self.register_buffer(name, value)

    def forward(self, *args):
        return self.function(self, *args)


def of(function, **weights):
    return Of(lambda _, *args: function(*args), **weights) if not weights else Of(function, **weights)


def leaves(value):
    from torch.utils._pytree import tree_leaves

    return [leaf.detach().numpy() for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def compare(module, *given, more=(), tolerance=1e-5, model=None):
    """Convert with `given`, and run with these and with the lists of inputs in `more`."""
    module.eval()
    if model is None:
        model = ov.convert_model(module, example_input=tuple(x.clone() for x in given))
    assert all(port.get_partial_shape().is_dynamic for port in model.inputs if len(port.get_partial_shape()))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for inputs in (given, *more):
        with torch.no_grad():
            wanted = leaves(module(*(x.clone() for x in inputs)))
        result = compiled([x.numpy() for x in inputs])
        assert len(result) == len(wanted)
        for i, want in enumerate(wanted):
            assert result[i].shape == want.shape and result[i].dtype == want.dtype, f"seed {SEED}, output {i}"
            np.testing.assert_allclose(
                result[i], want, rtol=tolerance, atol=tolerance, err_msg=f"seed {SEED}"
            )
    return model


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(SEED)


def rand(*shape):
    return torch.randn(*shape)


def check_rows_of_four(model, module):
    """A model of two dimensions that was converted without an example, beside its module."""
    model.inputs[0].get_node().set_element_type(ov.Type.f32)
    model.reshape([-1, 4])
    x = rand(2, 4)
    result = ov.compile_model(model, "CPU", EXACT)(x.numpy())[0]
    np.testing.assert_allclose(result, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


torch.manual_seed(SEED)  # the numbers below are the same whichever tests were imported before
I5 = torch.tensor([0, 2, 2, 1, 0])


def _write_indexed(x, values):
    x[-1, I5] = values
    return x


HALF = torch.tensor([[0, 1, 0, 1], [2, 0, 2, 2]])
#: name -> function, inputs, and inputs of other shapes.
OPERATORS = {
    "index_add": (lambda x, s: x.index_add(0, I5, s), [rand(3, 4), rand(5, 4)], [[rand(6, 2), rand(5, 2)]]),
    "index_put": (lambda x, s: x.index_put((I5,), s, accumulate=True), [rand(3, 4), rand(5, 4)], []),
    "index_put_ones": (lambda x, s: _write_indexed(x.clone(), s), [rand(3, 4), rand(1, 1, 5)], []),
    "index_put_pairs": (
        lambda x: x.index_put((I5, torch.tensor([0, 1, 1, 3, 0])), torch.ones(5), accumulate=True),
        [rand(3, 4)],
        [[rand(7, 5)]],
    ),
    **{
        f"scatter_reduce_{mode}_{own}": (
            lambda x, s, mode=mode, own=own: x.scatter_reduce(0, HALF, s, mode, include_self=own),
            [rand(3, 4), rand(2, 4)],
            [[rand(5, 4), rand(2, 4)]],
        )
        for mode in ("sum", "prod", "mean", "amax", "amin")
        for own in (True, False)
    },
    "scatter_add": (lambda x, s: x.scatter_add(0, HALF, s), [rand(3, 4), rand(2, 4)], []),
    "rms_norm": (lambda x: F.rms_norm(x, (4,)), [rand(2, 4)], [[rand(3, 4)]]),
    "attention_gqa": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
        [rand(1, 4, 5, 8), rand(1, 2, 5, 8)],
        [[rand(2, 4, 3, 8), rand(2, 2, 7, 8)]],
    ),
    "attention_causal": (
        lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True, scale=0.3),
        [rand(1, 2, 5, 8)],
        [[rand(2, 2, 3, 8)]],
    ),
    "rotary": (
        lambda x, f: torch.view_as_real(
            torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(torch.ones_like(f), f)
        ).flatten(-2),
        [rand(2, 5, 8), rand(5, 4)],
        [[rand(1, 3, 8), rand(3, 4)]],
    ),
    "adaptive_avg": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), [rand(1, 2, 7, 5)], [[rand(2, 2, 8, 9)]]),
    "adaptive_max": (lambda x: F.adaptive_max_pool2d(x, 3), [rand(1, 2, 7, 5)], [[rand(2, 2, 8, 9)]]),
    "area": (lambda x: F.interpolate(x, (3, 4), mode="area"), [rand(1, 2, 7, 5)], [[rand(1, 2, 9, 8)]]),
    "bicubic_aa": (
        lambda x: F.interpolate(x, (4, 5), mode="bicubic", antialias=True),
        [rand(1, 2, 9, 12)],
        [],
    ),
    "factors_aa": (
        lambda x: (
            F.interpolate(x, scale_factor=0.45, mode="bicubic", antialias=True),
            F.interpolate(x, scale_factor=1.3, mode="bilinear", antialias=True),
            torch.ops.aten._upsample_bilinear2d_aa(x, [3, 4], True, None),
        ),
        [rand(1, 2, 20, 30)],
        [[rand(2, 2, 23, 31)]],
    ),
    "factors_nearest": (  # the places 9 / 0.6 and 10 / 0.3 are between two elements in f32
        lambda x: tuple(
            F.interpolate(x, scale_factor=(0.6, 0.3), mode=m) for m in ("nearest", "nearest-exact")
        ),
        [rand(1, 2, 20, 40)],
        [[rand(2, 2, 30, 60)]],
    ),
    "factors_lengths": (  # 50 * 2.3 < 115 in f64, not in f32
        lambda x: F.interpolate(x, scale_factor=2.3, mode="linear"),
        [rand(1, 2, 50)],
        [[rand(2, 1, 20)]],
    ),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), [rand(1, 2, 5, 6)], []),
    "sort": (lambda x: torch.sort(x.round(), dim=0, stable=True), [rand(9, 3)], [[rand(12, 2)]]),
    "argsort": (lambda x: torch.argsort(x.round(), dim=-1, descending=True, stable=True), [rand(3, 9)], []),
    "take_along_dim": (lambda x: torch.take_along_dim(x, x.argsort(1), 1), [rand(3, 5)], [[rand(2, 7)]]),
    "searchsorted": (lambda x, v: torch.searchsorted(x.sort().values, v), [rand(9), rand(4)], []),
    "bincount": (lambda x: torch.bincount(x, minlength=3), [torch.tensor([1, 4, 4, 0])], []),
    "kthvalue": (lambda x: torch.kthvalue(x, 3, dim=1), [rand(4, 6)], [[rand(2, 5)]]),
    "rfft": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=10), [rand(2, 10)], []),
    "fft2": (lambda x: torch.fft.fft2(x).abs(), [rand(2, 6, 5)], []),
    "stft": (
        lambda x: torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True).abs(),
        [rand(2, 64)],
        [[rand(1, 80)]],
    ),
    "inv": (
        lambda x: torch.linalg.inv(x @ x.mT + torch.eye(x.shape[-1])),
        [rand(2, 4, 4)],
        [[rand(1, 3, 3)]],
    ),
    "fold": (
        lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[-2:], 3, padding=1),
        [rand(1, 2, 6, 5)],
        [[rand(2, 2, 4, 7)]],
    ),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), [rand(1, 4, 3, 3)], [[rand(2, 6, 2, 2)]]),
    "rot90": (lambda x: torch.rot90(x, 3, (1, 2)), [rand(2, 3, 4)], [[rand(1, 5, 2)]]),
    "bitwise": (
        lambda x: (x & 6) | (x ^ 3) | (~x << 1),
        [torch.arange(8)],
        [],
    ),
    "repeat_interleave": (
        lambda x: torch.repeat_interleave(x[None].expand(2, -1, 1), 3, dim=-1),
        [rand(5, 1)],
        [[rand(7, 1)]],
    ),
    "repeat_counts": (
        lambda x, n: torch.repeat_interleave(x, n, dim=0),
        [rand(3, 2), torch.tensor([2, 0, 3])],
        [],
    ),
    "masks": (lambda x: x[x > 0], [rand(4, 5)], [[rand(2, 3)]]),
    "index_between": (lambda x: x[:, I5, :, torch.tensor([1, 0, 2, 2, 1])], [rand(2, 3, 4, 3)], []),
    "cdist": (lambda x, y: torch.cdist(x, y), [rand(2, 3, 4), rand(2, 5, 4)], []),
    "cumulative": (lambda x: (x.cumsum(1), x.cumprod(0), *x.cummax(1)), [rand(3, 5)], [[rand(2, 6)]]),
    "quantile": (lambda x: torch.quantile(x, 0.3, dim=1), [rand(3, 8)], []),
    "group_norm": (lambda x: F.group_norm(x, 2), [rand(2, 4, 5)], [[rand(1, 4, 3)]]),
    "chunks": (lambda x: x.chunk(3, dim=1), [rand(2, 7)], []),
    "written": (lambda x: torch.cat([x[:, :1].clone().add_(1), x.clone().relu_()], 1), [rand(2, 4)], []),
    "remainder": (lambda x: (x // 2, x % 3, torch.fmod(x, 3)), [torch.arange(-5, 6)], []),
    "grid": (
        lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False),
        [rand(1, 2, 5, 5), rand(1, 3, 4, 2)],
        [],
    ),
    "transposes of complex matrices": (
        lambda x: [
            torch.view_as_real(f(torch.view_as_complex(x)))
            for f in (
                torch.t,
                lambda z: torch.adjoint(z) * 1,
                lambda z: z.mH * 1,
                lambda z: z.mT,
                lambda z: z.T,
            )
        ],
        [rand(3, 4, 2)],
        [],
    ),
    "powers": (  # products of integers wrap around, and are exact beyond 2^53
        lambda i, x: (
            i**2,
            i**5,
            torch.view_as_real(torch.view_as_complex(x) ** 3),
            torch.view_as_real(torch.view_as_complex(x) ** -0.5),
            torch.view_as_real(torch.view_as_complex(x) ** (0.5 + 1j)),
            torch.view_as_real(torch.view_as_complex(x).sqrt().log()),
            torch.special.entr(x),
        ),
        [torch.tensor([2**31 + 1, -3, 2**40]), rand(3, 4, 2)],
        [[torch.tensor([2**53 + 1]), rand(1, 2, 2)]],
    ),
    "matrix_power": (
        lambda x: [torch.linalg.matrix_power(x, k) for k in (-2, 0, 1, 5, 8)],
        [rand(2, 3, 3) + 2 * torch.eye(3)],
        [[rand(3, 4, 4) + 2 * torch.eye(4)]],
    ),
    "circular": (lambda x: F.pad(x, (-1, 2), mode="circular"), [rand(1, 2, 5)], [[rand(2, 2, 7)]]),
    "avg_pool_divisor": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, divisor_override=2),
        [rand(1, 2, 8, 7)],
        [[rand(2, 2, 6, 9)]],
    ),
    "max_pool_ceil": (
        lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
        [rand(1, 2, 8, 8)],
        [[rand(2, 2, 9, 7)]],
    ),
    "tril": (lambda x: (x.tril(1), x.triu(-1)), [rand(3, 4)], [[rand(5, 3)]]),
    "einsum": (lambda x, y: torch.einsum("bij,bkj->bik", x, y), [rand(2, 3, 4), rand(2, 5, 4)], []),
    "logs": (
        lambda x: (x.abs().log1p(), x.expm1(), torch.logsumexp(x, 0), x.logcumsumexp(1)),
        [rand(3, 4)],
        [],
    ),
    "distances": (lambda x: (x.norm(dim=1), x.norm(p=3), x.std(0), x.var(correction=0)), [rand(3, 4)], []),
    "squeeze": (lambda x: x.squeeze(), [rand(5, 1, 5, 1)], [[rand(1, 3, 1, 2)], [rand(2, 3, 4, 5)]]),
    "cat_of_nothing": (lambda x, y: torch.cat([x, y], 1), [rand(0), rand(3, 4)], [[rand(0), rand(2, 5)]]),
    "tensordot": (
        lambda x, y: torch.tensordot(x, y, dims=([0, 2], [2, 0])),
        [rand(2, 3, 4), rand(4, 5, 2)],
        [[rand(3, 2, 5), rand(5, 1, 3)]],
    ),
    "cov": (lambda x: (torch.cov(x), torch.corrcoef(x), torch.cov(x[0])), [rand(3, 6)], [[rand(2, 4)]]),
    "cov_of_one_row": (lambda x: torch.cov(x), [rand(1, 6)], [[rand(1, 4)]]),
    "vecdot": (lambda x, y: torch.linalg.vecdot(x, y, dim=1), [rand(2, 3, 4)] * 2, [[rand(5, 0, 1)] * 2]),
    "histogram": (
        lambda x, w: (
            *torch.histogram(x, 4, weight=w),
            *torch.histogram(x, 3, range=(-1.0, 1.0), density=True),
        ),
        [rand(3, 4), rand(3, 4).abs()],
        [[rand(7, 2), rand(7, 2)], [torch.ones(2, 2), rand(2, 2)]],
    ),
    "histogram_by_edges": (
        lambda x, e: torch.histogram(x, e)[0],
        [torch.tensor([-3.0, -1.0, 0.2, 0.5, 2.0, 2.1]), torch.tensor([-1.0, 0.0, 0.5, 2.0])],
        [[rand(9), torch.tensor([-1.0, 1.0])]],
    ),
    "norm_of_no_columns": (
        lambda x: (torch.linalg.norm(x, 1), torch.linalg.norm(x, torch.inf, keepdim=True)),
        [rand(0, 0)],
        [[rand(2, 3)]],
    ),
    "nonzero_of_numbers": (
        lambda x: (torch.nonzero(x.sum() > 0), torch.masked_select(x.sum(), x.sum() > 0), torch.isreal(x)),
        [torch.ones(3)],
        [[-torch.ones(2)]],
    ),
    "heads": (  # patterns of open dimensions: copied, computed, and two that are multiplied
        lambda x: (
            x.view(x.shape[0], x.shape[1], 2, -1).transpose(1, 2),
            x.view(x.shape[0] * x.shape[1], -1),
            x.view(-1, x.shape[1] * 2, 4),
            x.transpose(0, 1).reshape(x.shape[1], x.shape[0], 4, 2),
            x.reshape(x.shape[1], x.shape[0], 8),
            x[:, 1:].reshape(x.shape[0], x.shape[1] - 1, 2, 4),
        ),
        [rand(2, 3, 8)],
        [[rand(3, 2, 8)], [rand(1, 1, 8)]],
    ),
    "heads_of_nothing": (
        lambda x: (
            x.view(x.shape[0], x.shape[1], 2, 4),
            x.view(x.shape[0] * x.shape[1], 8),
            x.transpose(0, 1).reshape(x.shape[1], x.shape[0], 8),
        ),
        [rand(2, 3, 8)],
        [[rand(0, 4, 8)], [rand(2, 0, 8)]],
    ),
    "det": (
        lambda x: (torch.linalg.det(x), *torch.linalg.slogdet(x)),
        [rand(2, 5, 5)],
        [[rand(1, 3, 3)], [rand(1, 20, 20)], [torch.ones(2, 2, 2)], [rand(2, 0, 0)]],
    ),
    "lu": (lambda x: (*torch.linalg.lu(x), *torch.linalg.lu_factor(x)), [rand(2, 5, 4)], [[rand(3, 4, 6)]]),
    "qr": (
        lambda x: (*torch.linalg.qr(x), *torch.linalg.qr(x, mode="complete")),
        [rand(2, 5, 4)],
        [[rand(3, 4, 6)], [rand(1, 1, 1)]],
    ),
    "cholesky": (
        lambda x: (
            torch.linalg.cholesky(x @ x.mT + 2 * torch.eye(x.shape[-1])),
            *torch.linalg.cholesky_ex(x @ x.mT - torch.eye(x.shape[-1]))[1:],
        ),
        [rand(2, 5, 5)],
        [[rand(1, 3, 3)]],
    ),
    "gcd": (
        lambda x, y: (torch.gcd(x, y), torch.lcm(x, y)),
        [torch.tensor([[12], [-18], [0], [2**40]]), torch.tensor([18, 0, 12, 2**20 * 3])],
        [],
    ),
    "nextafter": (
        lambda x, y: (torch.nextafter(x, y) - x) * 2**23,
        [torch.tensor([1.0, 1.0, -1.0, 2.0, 3.0, np.nan]), torch.tensor([2.0, 0.0, 0.0, 2.0, np.inf, 0.0])],
        [],
    ),
    "var_mean": (lambda x: torch.var_mean(x, 0), [rand(3, 4)], [[rand(0, 4)], [rand(1, 4)]]),
    "consecutive": (
        lambda x: (
            *torch.unique_consecutive(x, return_inverse=True, return_counts=True),
            *torch.unique_consecutive(x, return_inverse=True, return_counts=True, dim=1),
        ),
        [torch.tensor([[1, 1, 2, 2], [2, 2, 2, 2]])],
        [[torch.tensor([[3, 1, 1], [1, 4, 4]])]],
    ),
    "nonzero_static": (
        lambda x: (torch.nonzero_static(x, size=3), torch.nonzero_static(x, size=1, fill_value=7)),
        [torch.tensor([[0, 1], [0, 2]])],
        [],
    ),
    "renormed_table": (
        lambda x: F.embedding(torch.tensor([[1, 2], [1, 1]]), x * 1.0, max_norm=1.0),
        [rand(4, 3)],
        [],
    ),
    "diagonals": (
        lambda x: (torch.linalg.diagonal(x), torch.linalg.diagonal(x, offset=-1, dim1=0, dim2=1)),
        [rand(3, 4, 5)],
        [[rand(4, 2, 2)]],
    ),
    "large_hypot": (
        lambda x, y: torch.hypot(x, y),
        [torch.tensor([3e30, 0.0, np.inf, 3.0]), torch.tensor([4e30, 0.0, 1.0, 4.0])],
        [],
    ),
    "istft_of_both_sides": (
        lambda x: torch.istft(torch.view_as_complex(x), 10, window=torch.ones(10)),
        [rand(10, 6, 2)],
        [],
    ),
    "whole_numbers": (
        lambda x: (
            F.hardtanh(x, -1.5, 2.5),
            F.relu6(x),
            F.avg_pool2d(x, 3, 2, 1),
            F.avg_pool1d(x[0], 7),
            F.avg_pool2d(x, 2, divisor_override=3),
            torch.arange(0.7, 5, 1.5, dtype=torch.int64),
        ),
        [torch.arange(-32, 32).reshape(1, 1, 8, 8)],
        [],
    ),
    "cuts": (
        lambda x, at, parts: (
            *torch.tensor_split(x, 3),
            *torch.tensor_split(x, at),
            *torch.tensor_split(x, parts),
        ),
        [rand(7, 3), torch.tensor([1, 4]), torch.tensor(2)],
        [[rand(2, 3), torch.tensor([1, -1]), torch.tensor(2)]],
    ),
    "ihfft2": (lambda x: torch.view_as_real(torch.fft.ihfft2(x)), [rand(5, 6)], []),
    "truths": (lambda x: (torch.add(x, ~x, alpha=False), x.square()), [torch.tensor([True, False])], []),
    "atan2": (lambda x, y: (torch.atan2(x, y), torch.hypot(x, y)), [rand(3, 4), rand(3, 4)], []),
    **{
        f"irfftn_{s}": (
            lambda x, s=s: torch.fft.irfftn(torch.complex(x, -x), s=s, dim=[0, -1]),
            [rand(6, 5)],
            [[rand(4, 7)]],
        )
        for s in ([-1, -1], [4, -1], [-1, 7], [5, 6])
    },
    "fftfreq": (
        lambda x: (
            torch.fft.fftfreq(x.shape[0], 0.5) * x,
            torch.fft.rfftfreq(x.shape[0]),
            torch.fft.fftfreq(7),
        ),
        [rand(8)],
        [[rand(5)]],
    ),
    "fake_quantize_negative": (
        lambda x: torch.fake_quantize_per_tensor_affine(x, -0.01, 3, 0, 255),
        [rand(3, 4)],
        [[rand(2, 5)]],
    ),
    "fake_quantize_signs": (
        lambda x: torch.fake_quantize_per_channel_affine(
            x, torch.tensor([-0.005, 0.7, -0.3]), torch.tensor([1, 0, 2], dtype=torch.int32), 0, -128, 127
        ),
        [rand(3, 4)],
        [[rand(3, 7)]],
    ),
    **{
        f"fake_quantize_mask_{on}": (
            lambda x, s, z, on=on: torch._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
                x * 3, s, z, torch.tensor(on), 0, 255
            ),
            [rand(3, 4), torch.tensor([0.02]), torch.tensor([100], dtype=torch.int32)],
            [[rand(2, 5), torch.tensor([-0.05]), torch.tensor([7], dtype=torch.int32)]],
        )
        for on in (0, 1)
    },
    "divmod": (
        lambda x: [x * n for pair in (divmod(x.shape[0], 5), divmod(17, x.shape[1])) for n in pair],
        [rand(7, 3)],
        [[rand(12, 4)]],
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_as_in_pytorch(name) -> None:
    function, given, more = OPERATORS[name]
    compare(of(function), *given, more=more, tolerance=1e-4)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.head, self.scale = torch.nn.Linear(8, 5), torch.nn.LayerNorm(5)

    def forward(self, x, unused, y=None):
        h = torch.relu(self.norm(self.conv(x)))
        h = F.adaptive_avg_pool2d(h, 1).flatten(1)
        return {"logits": self.scale(self.head(h)), "hidden": h}


def test_names_and_shapes_are_those_of_openvino() -> None:
    import openvino as real

    module, given = Small().eval(), (rand(1, 3, 8, 8), rand(2))
    told = []
    for package in (real, ov):
        model = package.convert_model(module, example_input=given)
        ports = [[(sorted(p.names), str(p.get_element_type()), str(p.get_partial_shape())) for p in side]
                 for side in (model.inputs, model.outputs)]  # fmt: skip
        kinds = {"MatMul", "Relu"}
        nodes = sorted(n.get_friendly_name() for n in model.get_ordered_ops() if n.get_type_name() in kinds)
        told.append((ports, nodes))
    assert told[0] == told[1]
    compare(module, *given, more=[[rand(2, 3, 5, 6), rand(4)]], tolerance=1e-4)


class Normalized(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.before = torch.nn.Linear(3, 8)

    def forward(self, x):
        h = self.before(x)
        return (h - h.mean(-1, keepdim=True)) / torch.sqrt(h.var(-1, keepdim=True, unbiased=False) + 1e-5)


def kinds_of(model):
    left = {"Parameter", "Result", "Constant", "Convert"}
    return collections.Counter(n.get_type_name() for n in model.get_ops() if n.get_type_name() not in left)


#: Modules whose operations NNCF tells by their types, and examples.
TOLD_BY_TYPE = {
    "prelu": lambda: (torch.nn.PReLU(4, 0.3), [rand(2, 4, 5)], [rand(1, 4, 3)]),
    "prelu of one": lambda: (torch.nn.PReLU(init=-0.3), [rand(2, 4, 5)], [rand(1, 3, 4)]),
    "prelu of as many channels as columns": lambda: (
        torch.nn.PReLU(4, 0.3),
        [rand(2, 4, 4)],
        [rand(4, 4, 4)],
    ),
    "neg": lambda: (of(lambda x: -x), [rand(2, 3)], [rand(4, 1)]),
    "neg of integers": lambda: (of(lambda x: -x), [torch.arange(-3, 3)], [torch.arange(4)]),
    "norm": lambda: (of(lambda x: x.norm(p=1, dim=-1)), [rand(2, 3)], [rand(4, 1)]),
    "bits": lambda: (
        of(lambda x, y: ((x & y) | ~x, x ^ y)),
        [rand(6) > 0, rand(6) > 0],
        [rand(3) > 0, rand(3) > 0],
    ),
    "reciprocal": lambda: (of(lambda x: x.reciprocal()), [rand(2, 3)], [rand(4, 1)]),
    "logarithms to 10": lambda: (of(lambda x: x.log10()), [rand(2, 3).abs()], [rand(4, 1).abs()]),
    "outer": lambda: (of(torch.outer), [rand(2), rand(3)], [rand(4), rand(1)]),
    "distances of all rows": lambda: (
        of(torch.cdist),
        [rand(2, 3, 4), rand(2, 5, 4)],
        [rand(1, 2, 4), rand(1, 1, 4)],
    ),
    "difference from a number": lambda: (of(lambda x: (x - 2, x - 0.5)), [rand(2, 3)], [rand(4, 1)]),
    "integers between fractions": lambda: (
        of(lambda x: x.sum() + torch.arange(0.5, 2.5 * x.shape[0] - 0.5, 2.5, dtype=torch.int64)),
        [torch.zeros(4, 2, dtype=torch.int64)],
        [torch.zeros(5, 2, dtype=torch.int64)],
    ),
    "difference of integers": lambda: (of(lambda x: x - 2), [torch.arange(3)], [torch.arange(5)]),
    "largest": lambda: (of(lambda x: (x.max(-1)[0], x.min(0)[0])), [rand(2, 3)], [rand(4, 1)]),
    "largest and its place": lambda: (of(lambda x: tuple(x.max(-1))), [rand(2, 3)], [rand(4, 1)]),
    "numbers as truths": lambda: (
        of(lambda x, y: (x.bool(), x.logical_and(y), x.logical_not(), x.any(-1), x.all(-1))),
        [rand(4, 3), torch.tensor([0.0, 0.25, float("inf")])],
        [rand(1, 2), torch.zeros(2)],
    ),
    "norm of matrices": lambda: (of(torch.linalg.matrix_norm), [rand(2, 3)], [rand(5, 4)]),
    "variance": lambda: (of(lambda x: x.var(-1, unbiased=False)), [rand(2, 3)], [rand(4, 5)]),
    "parts of an open dimension": lambda: (of(lambda x: x.split(2, -1)), [rand(2, 4)], [rand(3, 3)]),
    "biases that nothing has trained": lambda: (
        of(lambda x: torch.relu(torch.nn.functional.linear(x, torch.ones(2, 3), torch.zeros(2)))),
        [rand(2, 3)],
        [rand(4, 3)],
    ),
    "zero that broadcasts": lambda: (of(lambda x: x.relu() + torch.zeros(2, 1)), [rand(1, 3)], [rand(2, 3)]),
    "pooling to one place": lambda: (
        of(lambda x: torch.nn.functional.adaptive_max_pool2d(x, 1)),
        [rand(1, 2, 4, 4)],
        [rand(3, 2, 5, 3)],
    ),
    "normalization by var": lambda: (Normalized(), [rand(2, 3)], [rand(5, 3)]),
    "equal nodes": lambda: (
        of(lambda x: (x.relu() + x.relu() * 2, x.softmax(-1) * x.softmax(-1), x.sigmoid(), x.sigmoid())),
        [rand(2, 3)],
        [rand(4, 1)],
    ),
    "zero added to integers": lambda: (
        of(lambda x: x.cumsum(1) + 0),
        [torch.arange(6).reshape(2, 3)],
        [torch.arange(4).reshape(4, 1)],
    ),
    "reshape to the same shape": lambda: (
        of(lambda x: x.relu().reshape(x.shape[0], 3) * 2 if x.shape[1:] == (3,) else x),
        [rand(2, 3)],
        [rand(4, 3)],
    ),
    "expand to the shape of another": lambda: (
        of(lambda x, y: x.expand(y.shape[0], y.shape[1]) + y),
        [rand(1, 3), rand(2, 3)],
        [rand(1, 1), rand(4, 2)],
    ),
    "lstm": lambda: (torch.nn.LSTM(4, 5, batch_first=True), [rand(2, 3, 4)], [rand(1, 6, 4)]),
    "lstm of two ways": lambda: (
        torch.nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True),
        [rand(2, 3, 4)],
        [rand(3, 2, 4)],
    ),
    "gru": lambda: (torch.nn.GRU(4, 5, batch_first=True), [rand(2, 3, 4)], [rand(1, 6, 4)]),
    "scales that nothing has trained": lambda: (
        of(lambda x: x.relu() * torch.ones(3) / torch.ones(1, 3) + x.tanh() * torch.ones(2, 1, 3)),
        [rand(2, 3)],
        [rand(1, 3)],
    ),
    "number of elements": lambda: (
        of(lambda x: x.sum() / x.numel()),
        [rand(2, 3, 4)],
        [rand(4, 1, 1)],
    ),
    "normalization by the root of the mean square": lambda: (
        torch.nn.Sequential(torch.nn.RMSNorm(4), torch.nn.Linear(4, 3), torch.nn.RMSNorm(3, eps=1e-6)),
        [rand(2, 4)],
        [rand(3, 4)],
    ),
    "sums of numbers": lambda: (
        of(lambda x: (x + 1 + 2 + EIGHT[:3], x - 0.5 + 0.25)),
        [rand(2, 3)],
        [rand(4, 3)],
    ),
    "products of numbers": lambda: (of(lambda x: x * 2 * 3 / 4 * EIGHT[:3]), [rand(2, 3)], [rand(4, 3)]),
    "sums that are read": lambda: (of(lambda x: ((x + 1) * x.relu(), x + 1 + 2)), [rand(2, 3)], [rand(1, 3)]),
    "a sum that broadcasts": lambda: (
        of(lambda x: x + EIGHT[:2, None] + EIGHT[:3]),
        [rand(2, 3)],
        [rand(2, 3)],
    ),
    "factors of convolutions": lambda: (
        torch.nn.Sequential(
            torch.nn.Conv2d(4, 6, 3),
            Scaled(6),
            torch.nn.Conv2d(6, 4, 3, groups=2, bias=False),
            Scaled(4),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(4, 3, 2),
            Scaled(1),
        ),
        [rand(1, 4, 8, 8)],
        [rand(2, 4, 7, 9)],
    ),
    "factors before convolutions": lambda: (
        torch.nn.Sequential(
            Scaled(1),
            torch.nn.Conv2d(4, 6, 3),
            torch.nn.ReLU(),
            Scaled(6),
            torch.nn.Conv2d(6, 4, 1, groups=2),
        ),
        [rand(1, 4, 8, 8)],
        [rand(2, 4, 7, 9)],
    ),
    "padding before convolutions": lambda: (
        torch.nn.Sequential(
            torch.nn.ZeroPad2d((1, 2, 0, 1)),
            torch.nn.Conv2d(3, 4, 3, padding=1),
            torch.nn.ConstantPad2d(1, 0.5),
            torch.nn.Conv2d(4, 2, 3, stride=2),
        ),
        [rand(1, 3, 8, 8)],
        [rand(2, 3, 5, 6)],
    ),
    "a batch norm behind a layer": lambda: (
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval(),
        [rand(2, 3)],
        [rand(5, 3)],
    ),
    "slices of slices": lambda: (
        of(lambda x: (x[:, 1:, ::2] * 2, x[:1, 1:, :-1] * 3, x[..., 1:][:, :2][..., :1] * 4, x[1:][1:] * 5)),
        [rand(3, 4, 5)],
        [rand(4, 3, 6)],
    ),
    "turned halves": lambda: (
        of(lambda x: torch.cat([-x[..., 2:], x[..., :2]], -1)),
        [rand(2, 3, 4)],
        [rand(1, 7, 4)],
    ),
}


class Scaled(torch.nn.Module):
    """Factors for the dimension 1."""

    def __init__(self, channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("name", TOLD_BY_TYPE)
def test_types_of_operations_are_those_of_openvino(name) -> None:
    import openvino as real

    module, given, others = TOLD_BY_TYPE[name]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.linspace(-1, 9, parameter.numel()).sin().reshape(parameter.shape))
    told = [kinds_of(package.convert_model(module, example_input=tuple(given))) for package in (real, ov)]
    # since 2.14 PyTorch counts such integers by the fractions, and OpenVINO as before
    differs = name == "integers between fractions" and len(torch.arange(1, 2.5, dtype=torch.int64)) > 1
    assert differs or told[0] == told[1]
    compare(module, *given, more=[others])


class Tables(torch.nn.Module):
    """Layers that hold equal tables, as layers of transformers' models do, and one with another number."""

    def __init__(self):
        super().__init__()
        table = rand(32, 8)
        for name in "abc":
            self.register_buffer(name, table.clone())
        self.c[17, 3] += 1

    def forward(self, i):
        return self.a[i] * 2, self.b[i] * 3, self.c[i] * 4


def test_nodes_of_equal_constants_are_one() -> None:
    """NNCF would compress a table for each layer."""
    import openvino as real

    module, i = Tables(), torch.tensor([17, 2])
    model = compare(module, i, more=[[torch.tensor([3, 17, 0])]])
    assert kinds_of(model) == kinds_of(real.convert_model(module, example_input=i))
    assert kinds_of(model)["Gather"] == 2


class Keywords(torch.nn.Module):
    """Two inputs, and one between them that is left out."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)
        self.pool = torch.nn.AdaptiveAvgPool1d(1)

    def forward(self, x, mask=None, y=None):
        made = self.pool(self.layer(x))
        return (made if mask is None else made * mask) + (1 if y is None else y)


@pytest.mark.parametrize(
    "example",
    [
        {"x": torch.ones(2, 3, 3), "y": torch.ones(1)},
        {"y": torch.ones(1), "x": torch.ones(2, 3, 3)},
        {"x": torch.ones(2, 3, 3), "mask": torch.ones(1)},
        (torch.ones(2, 3, 3), None, torch.ones(1)),
    ],
    ids=["a gap", "another order", "no gap", "none"],
)
def test_names_of_nodes_are_those_of_openvino(example) -> None:
    """Ignored scopes of NNCF name them. OpenVINO calls a module with gaps between keywords from one of its
    own, and the module's name there is in all names."""
    import openvino as real

    told = []
    for package in (real, ov):
        model = package.convert_model(Keywords().eval(), example_input=example)
        named = [(n.get_type_name(), n.get_friendly_name()) for n in model.get_ops()]
        kinds = ("MatMul", "Add", "ReduceMean")
        told.append({name for kind, name in named if kind in kinds or name.endswith("weight")})
    assert told[0] == told[1]


@pytest.mark.parametrize("scripted", [False, True])
def test_scales_of_layer_norms_are_named_as_those_of_openvino(scripted: bool) -> None:
    """OpenVINO makes a Multiply for the axes and folds it: its name is not given to another."""
    torch.manual_seed(SEED)
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.LayerNorm(4)).eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_()
    given = torch.jit.script(module) if scripted else module
    model = ov.convert_model(given, example_input=(torch.ones(2, 4),))
    found = [n.get_friendly_name() for n in model.get_ordered_ops() if n.get_type_name() == "Multiply"]
    if scripted:
        assert found == ["aten::layer_norm/Multiply_1", "aten::layer_norm/Multiply_3"]
    else:
        assert found == [f"__module.{i}/aten::layer_norm/Multiply_1" for i in (1, 2)]


def test_numbers_that_round_are_no_sum() -> None:
    """x + n - n is x on the grid of n. Factors whose product is no number of f32 stay, too."""
    module, x = of(lambda x: (x + 12582912.0 - 12582912.0, x * 1e-30 * 1e-30)), 8 * rand(50)
    assert kinds_of(compare(module, x, tolerance=0)) == {"Add": 2, "Multiply": 2}


class Parted(torch.nn.Module):
    """Parts by each way that gives a list, of an open and of a known dimension."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 12)

    def forward(self, x):
        width = x.shape[-1]
        q, k = self.layer(x).split(width, -1)
        a, b = q.chunk(2, -1)
        d, e = self.layer.weight.unbind(0)[:2]
        f, g = k[..., 1:][..., :4].split([1, 3], -1)
        return a * b, d * e, f * g


def test_parts_are_named_as_those_of_openvino() -> None:
    import openvino as real

    told, x = [], rand(2, 5, 6)
    for package in (real, ov):
        model = package.convert_model(Parted().eval(), example_input=x)
        kinds = ("VariadicSplit", "Slice")
        told.append(sorted(n.get_friendly_name() for n in model.get_ops() if n.get_type_name() in kinds))
    assert told[0] == told[1] and "prim::ListUnpack/VariadicSplit" in told[0]
    compare(Parted(), x, more=[[rand(1, 7, 6)]])


def test_names_of_folded_operators_are_those_of_openvino() -> None:
    import openvino as real

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.RMSNorm(4), torch.nn.Linear(4, 4)).eval()
    with torch.no_grad():
        module[1].weight.uniform_(0.5, 2)
    told = []
    for package in (real, ov):
        model = package.convert_model(module, example_input=rand(2, 4))
        named = [(n.get_type_name(), n.get_friendly_name()) for n in model.get_ops()]
        told.append(sorted(pair for pair in named if "rms_norm/" in pair[1] and pair[0] != "Constant"))
    assert told[0] == told[1] and told[0]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "padded"])
def test_inputs_of_convolutions_have_openvinos_channels(kind: str, groups: int) -> None:
    import openvino as real

    layer = torch.nn.Conv2d if kind == "padded" else getattr(torch.nn, kind)
    module = layer(6, 4, 3, groups=groups)
    if kind == "padded":
        module = torch.nn.Sequential(torch.nn.ZeroPad2d(1), module)
    told = [str(p.convert_model(module, example_input=rand(1, 6, 8, 8)).input(0).get_partial_shape())
            for p in (real, ov)]  # fmt: skip
    assert told[0] == told[1]


def test_dimensions_of_branches_are_not_those_behind_them() -> None:
    """A branch gives its input, the other one a tensor of another size: the If has neither size."""

    class Chosen(torch.nn.Module):
        def forward(self, x):
            y = x
            if x.sum() > 0:
                y = torch.cat([x, x], 1)
            return torch.zeros(y.shape[1]), y.reshape(-1) * y.shape[0]

    script = torch.jit.script(Chosen())
    compiled = ov.compile_model(ov.convert_model(script, example_input=rand(2, 3)), "CPU", EXACT)
    for given in (torch.ones(2, 3), -torch.ones(4, 5)):
        for port, wanted in enumerate(script(given)):
            np.testing.assert_array_equal(compiled(given)[port], wanted)


@pytest.mark.parametrize("layer", [torch.nn.LSTM, torch.nn.GRU])
def test_states_of_layers_are_taken_apart_without_slices(layer) -> None:
    """NNCF passes quantizers through Split, as in OpenVINO's models, but not through Slice."""
    import openvino as real

    module = layer(4, 5, 2, bidirectional=True, batch_first=True).eval().requires_grad_(False)
    given, states = rand(2, 3, 4), [rand(4, 2, 5) for _ in range(1 + (layer is torch.nn.LSTM))]
    for package in (real, ov):
        assert not kinds_of(package.convert_model(module, example_input=given))["Slice"]
    compare(of(lambda x, *s: module(x, tuple(s) if len(s) > 1 else s[0])), given, *states)
    compare(module, given, more=[[rand(1, 6, 4)]])


class BetweenUnused(torch.nn.Module):
    """A convolution over time, between inputs that are not used."""

    def forward(self, first, x, last):
        return torch.conv_tbc(x, torch.ones(2, 3, 4), torch.ones(4))


def test_unused_inputs_stay() -> None:
    module, given = BetweenUnused(), (rand(3), rand(5, 1, 3), torch.ones(2, 2, dtype=torch.int64))
    model = compare(module, *given, more=[[rand(4), rand(7, 2, 3), torch.ones(1, 3, dtype=torch.int64)]])
    told = [(port.any_name, str(port.get_element_type().to_string())) for port in model.inputs]
    assert told == [("first", "f32"), ("x", "f32"), ("last", "i64")]


def test_weights_are_shared_with_the_module() -> None:
    module = torch.nn.Linear(64, 64)
    model = ov.convert_model(module, example_input=rand(1, 64))
    weight = next(n for n in model.get_ordered_ops() if n.get_friendly_name() == "self.weight")
    assert np.shares_memory(weight.data, module.weight.detach().numpy())


def test_exported_programs() -> None:
    module, given = Small().eval(), (rand(2, 3, 8, 8), rand(2))
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, given, dynamic_shapes=({0: batch}, None))
    model = ov.convert_model(program)
    assert [port.any_name for port in model.inputs] == ["x", "unused"]
    compare(module, *given, more=[[rand(3, 3, 8, 8), rand(2)]], tolerance=1e-4, model=model)


class Untraceable(torch.nn.Module):
    """What torch.jit cannot trace: a function in `torch.func`, and a view of what is written to."""

    def forward(self, x):
        y = x * 2
        y[:, 0] = 0
        return torch.vmap(lambda row: row.sum() + row)(y)


def test_what_cannot_be_traced_is_exported() -> None:
    compare(Untraceable(), rand(3, 4), more=[[rand(2, 5)]])


def test_scripts_and_modules_without_an_example() -> None:
    class Branch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, x):
            rows = []
            for i in range(3):
                rows.append(self.layer(x) * i)
            return torch.relu(rows[0] + rows[1] - rows[2])

    module = Branch().eval()
    for given in (module, torch.jit.script(module)):
        check_rows_of_four(ov.convert_model(given), module)


class Minus(torch.nn.Module):
    def forward(self, first, second):
        return first - second * 2


def names_and_shapes(model):
    return [[*port.get_names(), str(port.get_partial_shape())] for port in model.inputs]


class Named(torch.nn.Module):
    def forward(self, x) -> dict[str, torch.Tensor]:
        return {"more": x + 1, "twice": x * 2}


@pytest.mark.parametrize("example", [None, torch.ones(2)])
def test_outputs_of_scripts_have_the_keys_of_a_dict(example) -> None:
    for module in (Named(), torch.jit.script(Named())):
        model = ov.convert_model(module, example_input=example)
        assert [port.names for port in model.outputs] == [{"more"}, {"twice"}]


@pytest.mark.parametrize("way", ["traced", "zeros", "exported", "scripted", "types"])
def test_inputs_have_the_order_of_their_descriptions(way: str) -> None:
    """As in OpenVINO, if the descriptions name all inputs."""
    module, given = Minus().eval(), (torch.ones(1, 3), torch.ones(2, 3))
    last = ".1" if way == "scripted" else ""
    described = [(f"second{last}", [2, 3]), (f"first{last}", [1, 3])]
    more = {} if way in ("zeros", "exported") else {"example_input": given}
    if way == "exported":
        module = torch.export.export(module, given)
    elif way == "scripted":
        module = torch.jit.script(module)
    elif way == "types":
        described = [name for name, _ in described]
    model = ov.convert_model(module, input=described, **more)
    assert [port.get_any_name() for port in model.inputs] == [f"second{last}", f"first{last}"]
    compiled = ov.compile_model(model, "CPU", EXACT)
    second, first = rand(2, 3), rand(1, 3)
    np.testing.assert_allclose(
        compiled([second.numpy(), first.numpy()])[0], (first - second * 2).numpy(), rtol=1e-6, atol=1e-6
    )


def test_descriptions_of_some_inputs_leave_the_order() -> None:
    model = ov.convert_model(
        Minus(), example_input=(torch.ones(2, 3), torch.ones(2, 3)), input=[("second", [2, 3])]
    )
    assert names_and_shapes(model) == [["first", "[?,?]"], ["second", "[2,3]"]]


def test_without_an_example_some_inputs_are_described() -> None:
    """Inputs of modules are called as in the signature, those of scripts as in the graph."""
    assert names_and_shapes(ov.convert_model(Minus())) == [["first", "[...]"], ["second", "[...]"]]
    for described in ({"second": [2, 3]}, [("second", [2, 3])]):
        model = ov.convert_model(Minus(), input=described)
        assert names_and_shapes(model) == [["first", "[...]"], ["second", "[2,3]"]]
    model = ov.convert_model(Minus(), input=[[2, 3]])
    assert names_and_shapes(model) == [["first", "[2,3]"], ["second", "[...]"]]
    script = torch.jit.script(Minus())
    model = ov.convert_model(script, input=[("second.1", [2, 3])])
    assert names_and_shapes(model) == [["first.1", "[...]"], ["second.1", "[2,3]"]]


@pytest.mark.parametrize(
    "module, shape, told",
    [
        (torch.nn.Conv2d(3, 2, 3), (1, 3, 6, 6), "[?,3,?,?]"),
        (torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(3, 2, 3)), (1, 3, 6, 6), "[?,3,?,?]"),
        (torch.nn.Conv1d(3, 2, 3), (2, 3, 8), "[?,3,?]"),
        (torch.nn.Conv2d(4, 8, 3, groups=4), (1, 4, 6, 6), "[?,4,?,?]"),
    ],
    ids=["convolution", "activation", "one dimension", "groups"],
)
def test_without_an_example_a_convolution_tells_of_its_input(module, shape, told) -> None:
    model = ov.convert_model(module.eval())
    assert str(model.input().get_partial_shape()) == told
    x = rand(*shape)
    result = ov.compile_model(model, "CPU", EXACT)(x.numpy())[0]
    np.testing.assert_allclose(result, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_without_an_example_weights_have_their_own_type() -> None:
    module = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)).eval()
    check_rows_of_four(ov.convert_model(module), module)


class Optionally(torch.nn.Module):
    def forward(self, x, y: torch.Tensor | None = None, factor: float = 3.0, add: bool = True):
        if y is not None:
            x = x + y
        return x * factor + (1 if add else 0)


def test_arguments_of_scripts_that_the_example_leaves_out_have_their_defaults() -> None:
    script = torch.jit.script(Optionally())
    compare(script, rand(2, 3), more=[[rand(4, 1)]])
    compare(script, rand(2, 3), rand(2, 3))
    model = ov.convert_model(torch.jit.script(lengthened))
    kinds = [port.get_element_type().get_type_name() for port in model.inputs]
    assert kinds == ["dynamic", "i64", "f32", "boolean"]


def lengthened(x, times: int, factor: float, twice: bool):
    return x.repeat(times) * (factor * 2 if twice else factor)


class Gathered(torch.nn.Module):
    def forward(
        self, pair: tuple[torch.Tensor, torch.Tensor], named: dict[str, torch.Tensor], scale: float
    ):  # fmt: skip
        return pair[0] * scale - pair[1] + named["bias"]


class Joined(torch.nn.Module):
    def forward(self, parts: list[torch.Tensor], times: int = 2):
        return torch.cat(parts) * times


def test_scripts_that_take_lists_and_dicts() -> None:
    """Each tensor is an input. How many there are is told by an example, a tuple's type, or a dict's uses."""
    pair, named = [rand(2, 3), rand(2, 3)], {"bias": rand(3)}
    script = torch.jit.script(Gathered())
    wanted = script(tuple(pair), named, 3.0)
    model = ov.convert_model(script, example_input=(tuple(pair), named, 3.0))
    assert [port.any_name for port in model.inputs] == ["pair.0", "pair.1", "bias"]
    given = [x.numpy() for x in (*pair, named["bias"])]
    np.testing.assert_allclose(ov.compile_model(model, "CPU", EXACT)(given)[0], wanted, rtol=1e-6)
    model = ov.convert_model(script)
    assert {port.any_name for port in model.inputs} == {"pair.0", "pair.1", "bias", "scale.1"}

    script = torch.jit.script(Joined())
    with pytest.raises(RuntimeError, match=r"'parts' is of the type List\[Tensor\].*\n.*'example_input'"):
        ov.convert_model(script)
    model = ov.convert_model(script, example_input=(pair,))
    got = ov.compile_model(model, "CPU", EXACT)([x.numpy() for x in pair])[0]
    np.testing.assert_allclose(got, script(pair), rtol=1e-6)


class Exported(torch.nn.Module):
    """A method that scripts see, and a property."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    @property
    def width(self) -> int:
        return self.layer.out_features

    @torch.jit.export
    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.doubled(x) + self.width


def test_modules_with_methods_for_scripts_are_traced() -> None:
    recursive, internal = torch.jit._recursive, torch._jit_internal
    before = recursive.get_overload_annotations, recursive.get_property_stubs, internal.module_has_exports
    compare(torch.nn.Sequential(Exported(), torch.nn.ReLU()), rand(2, 3))
    assert internal.module_has_exports(Exported())
    assert before == (
        recursive.get_overload_annotations, recursive.get_property_stubs, internal.module_has_exports,
    )  # fmt: skip


class Generating(Exported):
    """Exported methods that a trace leaves out: one joins tensors, one cannot be compiled beside a trace."""

    def __init__(self):
        super().__init__()
        self.recurrent = torch.nn.GRU(3, 3, batch_first=True)

    @torch.jit.export
    def joined(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], 0)

    @torch.jit.export
    def states(self, x: torch.Tensor) -> torch.Tensor:
        return self.recurrent(x)[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([super().forward(x), self.recurrent(x[:, None])[0][:, 0]], 1)


def test_exported_methods_are_not_compiled(caplog) -> None:
    caplog.set_level("INFO", "ovjit")
    compare(Generating().eval(), rand(2, 3))
    # of ways that failed before; a compilation of kernels is logged, too, if the cache has none of them
    assert not [message for message in caplog.messages if not message.startswith("compiled ")]


@pytest.mark.parametrize("names", [("x", "y"), ("y", "x"), None])
def test_scripts_of_traces_are_read_by_their_graphs(names) -> None:
    """They have no signature for Python, and names of arguments differ from those of values."""
    parts = {"x": rand(2, 3), "y": rand(2, 3)}
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()).requires_grad_(False)
    traced = torch.jit.trace(of(lambda x, y: network(x * 2) - y.sum()), tuple(parts.values()))
    saved = io.BytesIO()
    torch.jit.save(traced, saved)
    saved.seek(0)
    script = torch.jit.load(saved)
    example = tuple(parts.values()) if names is None else {name: parts[name] for name in names}
    model = ov.convert_model(script, example_input=example)
    given = [parts[port.any_name.split(".")[0]].numpy() for port in model.inputs]
    got = ov.compile_model(model, "CPU", EXACT)(given)[0]
    np.testing.assert_allclose(got, script(*parts.values()).detach(), rtol=1e-5, atol=1e-6)


class Sized(torch.nn.Module):
    def forward(self, x, sizes: list[int], factors: list[float] | None = None):
        rows, columns = sizes
        total = 0
        for size in sizes:
            total += size
        x = x.reshape(sizes)[:, : sizes[-1] - 1] + total * len(sizes) + rows
        return x if factors is None else x * factors[0] + torch.tensor(factors).sum()


@pytest.mark.parametrize("count", [2, 3])
def test_lists_of_numbers_are_inputs_of_one_dimension(count) -> None:
    """The description of the inputs tells their lengths."""
    script = torch.jit.script(Sized())
    described = [([2, 12], np.float32), ([2], np.int64), ([2], np.float32)][:count]
    model = ov.convert_model(script, input=described)
    names = ["x.1", "sizes.1", "factors.1"][:count]
    assert [port.any_name.split(".")[0] for port in model.inputs] == [name.split(".")[0] for name in names]
    compiled, x = ov.compile_model(model, "CPU", EXACT), rand(2, 12)
    for sizes, factors in (([4, 6], [0.5, 2.0]), ([3, 8], [3.0, -1.0])):
        given = [x.numpy(), np.array(sizes), np.array(factors, np.float32)][:count]
        wanted = script(x, sizes, factors) if count == 3 else script(x, sizes)
        np.testing.assert_allclose(compiled(given)[0], wanted, rtol=1e-6)


@pytest.mark.parametrize("given", [{}, {"input": [([2, 12], np.float32), ([-1], np.int64)]}])
def test_lists_of_numbers_of_unknown_lengths_are_told(given) -> None:
    with pytest.raises(
        RuntimeError, match=r"'sizes' is of the type List\[int\].*\n.*'input' with the list's"
    ):
        ov.convert_model(torch.jit.script(Sized()), **given)


def test_an_operator_that_is_not_read_is_named_with_its_place(capfd) -> None:
    module = torch.nn.Sequential(of(lambda x: torch.linalg.eigvals(x)))
    with pytest.raises(
        RuntimeError, match=r"No conversion rule found for operations: aten::\w*eig.*test_torch.py"
    ):
        ov.convert_model(module, example_input=rand(3, 3))
    assert capfd.readouterr().out == ""


def test_sums_of_fused_attention() -> None:
    """PyTorch's decomposition has the weights in their place. Sums of other kernels are refused."""
    x = rand(1, 2, 3, 4)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    compare(of(lambda x: fused(x, x, x)[0]), x)
    compare(of(lambda x: fused(x, x, x)), x)
    script = torch.jit.script(fused_sums)
    with pytest.raises(RuntimeError, match="without its output 1"):
        ov.convert_model(script, input=[(ov.PartialShape([-1, 2, -1, 4]), ov.Type.f32)])


def fused_sums(x: torch.Tensor):
    return torch.ops.aten._scaled_dot_product_efficient_attention(x, x, x, None, True)[1]


def test_warnings_of_what_may_be_incorrect_are_shown() -> None:
    module = of(lambda x: x * 2 if x.sum() > 0 else x - 1)
    with pytest.warns(torch.jit.TracerWarning, match="might cause the trace to be incorrect") as shown:
        ov.convert_model(module, example_input=torch.ones(3))
    assert {warning.filename for warning in shown} == {__file__}


def test_a_converter_that_fails_is_told() -> None:
    """The model is not read in another way, without the converter."""
    from ovjit.frontend.pytorch import ConversionExtension

    from ovjit import opset13

    module, x = torch.nn.Sigmoid(), rand(2, 4)
    for given in (module, torch.export.export(module, (x,))):
        for wrong in (lambda of: [opset13.relu(of.get_input(0))], lambda of: of.get_input(7).outputs()):
            names = ("aten::sigmoid", "aten.sigmoid.default")
            converters = [ConversionExtension(name, wrong) for name in names]
            with pytest.raises(RuntimeError, match="converter of|its converter raised"):
                ov.convert_model(given, example_input=x, extension=converters)


def test_extensions_for_operators_and_modules() -> None:
    from ovjit.frontend.pytorch import ConversionExtension, ModuleExtension

    from ovjit import opset13

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid()).eval()
    x = rand(2, 4)

    def tripled(context):
        return opset13.multiply(context.get_input(0), np.float32(3)).outputs()

    model = ov.convert_model(module, example_input=x, extension=ConversionExtension("aten::sigmoid", tripled))
    wanted = module[0](x).detach().numpy() * 3
    np.testing.assert_allclose(
        ov.compile_model(model, "CPU", EXACT)(x.numpy())[0], wanted, rtol=1e-5, atol=1e-5
    )
    both = [ModuleExtension(torch.nn.Linear, "MyLinear"), ConversionExtension("MyLinear", tripled)]
    model = ov.convert_model(module, example_input=x, extension=both)
    wanted = torch.sigmoid(3 * x).numpy()
    np.testing.assert_allclose(
        ov.compile_model(model, "CPU", EXACT)(x.numpy())[0], wanted, rtol=1e-5, atol=1e-5
    )
    assert "forward" not in module[0].__dict__


def test_conversions_by_names_of_exported_graphs() -> None:
    from ovjit.frontend.pytorch import ConversionExtension

    from ovjit import opset13

    x = rand(2, 4)
    extension = ConversionExtension("aten.relu.default", lambda of: opset13.abs(of.get_input(0)).outputs())
    model = ov.convert_model(torch.export.export(torch.nn.ReLU(), (x,)), extension=extension)
    np.testing.assert_array_equal(ov.compile_model(model, "CPU", EXACT)(x.numpy())[0], abs(x.numpy()))


def test_a_module_whose_operator_is_not_known_is_refused() -> None:
    """It was the example's result."""
    from ovjit.frontend.pytorch import ModuleExtension

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid()).eval()
    with pytest.raises(RuntimeError, match="No conversion rule found for operations: Unknown"):
        extension = ModuleExtension(torch.nn.Sigmoid, "Unknown")
        ov.convert_model(module, example_input=rand(2, 4), extension=extension)


@pytest.mark.parametrize("wrong", [("NoSuch", "aten::relu"), ("Elu", "aten::relu"),
                                   ("extension.Abs", "aten::relu")])  # fmt: skip
def test_operations_that_do_not_exist_are_no_conversions(wrong) -> None:
    """PyTorch's own operator was read instead."""
    from ovjit.frontend import OpExtension

    with pytest.raises(RuntimeError, match="Conversion is failed for: aten::relu"):
        ov.convert_model(torch.nn.ReLU(), example_input=rand(2, 4), extension=OpExtension(*wrong))


@pytest.mark.parametrize("example", ["tuple", "dict", "list", "tensor"])
def test_forms_of_examples(example) -> None:
    module = of(lambda a, b=None: a if b is None else a - b)
    a, b = rand(2, 3), rand(3)
    if example == "dict":

        class Named(torch.nn.Module):
            def forward(self, a, b):
                return a - b

        module = Named()
    given = {"tuple": (a, b), "dict": {"b": b, "a": a}, "list": [a, b], "tensor": a}[example]
    model = ov.convert_model(module, example_input=given)
    result = ov.compile_model(model, "CPU", EXACT)([a.numpy(), b.numpy()][: len(model.inputs)])[0]
    np.testing.assert_allclose(result, (a if example == "tensor" else a - b).numpy())


def test_complex_inputs_are_pairs() -> None:
    module = of(lambda x: torch.view_as_real(x * (1 + 2j)))
    x = torch.view_as_complex(rand(3, 2))
    model = ov.convert_model(module, example_input=x)
    result = ov.compile_model(model, "CPU", EXACT)(torch.view_as_real(x).numpy())[0]
    np.testing.assert_allclose(result, module(x).numpy(), rtol=1e-5, atol=1e-5)


def test_a_saved_model_is_the_same(tmp_path) -> None:
    """index_add with equal indices: the file has the sum."""
    x, s = torch.zeros(3, 2), torch.ones(5, 2)
    model = ov.convert_model(of(lambda x, s: x.index_add(0, I5, s)), example_input=(x, s))
    ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    import openvino as real

    core = real.Core()
    again = core.read_model(tmp_path / "m.xml")
    result = core.compile_model(again, "CPU")([x.numpy(), s.numpy()])[0]
    np.testing.assert_allclose(result, x.index_add(0, I5, s).numpy())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("ways", [False, True])
def test_recurrent_layers(kind, ways) -> None:
    layer = getattr(torch.nn, kind)(4, 3, num_layers=2, bidirectional=ways, batch_first=ways)
    compare(layer, rand(5, 2, 4), more=[[rand(3, 1, 4)]])


@pytest.mark.parametrize("ways", [False, True])
def test_an_lstm_with_projections(ways) -> None:
    layer = torch.nn.LSTM(4, 5, num_layers=2, proj_size=3, bidirectional=ways, bias=ways)
    compare(layer, rand(5, 2, 4), more=[[rand(7, 1, 4)]])


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_places_in_volumes(mode, padding, align_corners) -> None:
    def function(x, grid):
        return F.grid_sample(x, grid, mode, padding, align_corners)

    more = [[rand(1, 2, 2, 3, 4), rand(1, 3, 2, 4, 3)]]
    compare(of(function), rand(2, 3, 4, 5, 3), 1.5 * rand(2, 2, 3, 2, 3), more=more)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_rows_with_padding(mode) -> None:
    bags = torch.nn.EmbeddingBag(9, 4, mode=mode, padding_idx=2)
    starts, more = torch.tensor([0, 3, 3, 7]), torch.tensor([0, 5])
    compare(bags, torch.randint(0, 9, (12,)), starts, more=[[torch.full((6,), 2), more]])
    compare(bags, torch.randint(0, 4, (3, 5)), more=[[torch.randint(0, 4, (2, 7))]])
    if mode == "sum":

        def weighted(_, ids, starts, weights):
            return bags(ids, starts, weights)

        compare(Of(weighted, rows=bags.weight), torch.randint(0, 4, (9,)), starts, torch.rand(9))


class Depending(torch.nn.Module):
    """PyTorch's operators for branches and loops that depend on data."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x, times):
        x = torch.cond(x.sum() > 0, lambda x: self.linear(x).sin(), lambda x: x * 2, (x,))
        step = torch._higher_order_ops.while_loop
        state = torch.zeros_like(times), x
        return step(lambda i, x: i < times, lambda i, x: (i + 1, self.linear(x).tanh()), state)[1]


def test_operators_for_branches_and_loops() -> None:
    more = [(-torch.ones(5, 4), torch.tensor(6)), (torch.ones(2, 4), torch.tensor(0))]
    compare(Depending(), torch.ones(3, 4), torch.tensor(2), more=more)


def _mapped(x, start):
    from torch._higher_order_ops.map import map

    return map(lambda row, start: (row.sin() @ start, row + 1), x, start)


def _scanned(x, start):
    from torch._higher_order_ops.scan import scan

    def step(state, row):
        return state * 0.5 + row, (state * row, row.sum())

    return scan(step, start, x), scan(step, start, x, reverse=True)


@pytest.mark.parametrize("function", [_mapped, _scanned])
def test_functions_of_rows_in_exported_programs(function) -> None:
    given, more = [rand(4, 3), rand(3)], [[rand(7, 3), rand(3)]]
    rows = ({0: torch.export.Dim.AUTO}, None)
    program = torch.export.export(of(function), tuple(given), dynamic_shapes=(rows,), strict=False)
    made = ov.compile_model(ov.convert_model(program), "CPU", EXACT)
    for inputs in (given, *more):
        result = made([x.numpy() for x in inputs])
        for i, want in enumerate(leaves(program.module()(*inputs))):
            assert result[i].shape == want.shape
            np.testing.assert_allclose(result[i], want, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


def test_quiet_conversion_of_a_plain_module() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ov.convert_model(torch.nn.Linear(2, 2), example_input=rand(1, 2))


class Layer(torch.nn.Module):
    """A layer of an encoder whose input is a sum, in which two lengths are broadcast."""

    def __init__(self, written_out, transpose_last=True):
        super().__init__()
        self.written_out, self.transpose_last = written_out, transpose_last
        self.parts = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))
        self.norm = torch.nn.LayerNorm(8)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter)

    def heads(self, part, x):
        return part(x).view(x.size(0), x.size(1), -1, 4).transpose(1, 2)

    def forward(self, x, y, mask):
        x = x + y
        q, k, v = (self.heads(part, x) for part in self.parts[:3])
        if self.written_out:
            turned = k.transpose(-1, -2) if self.transpose_last else k.permute(0, 1, 3, 2)
            weights = torch.softmax(q @ turned * 0.5 + mask, -1)
            made = weights @ v
        else:
            made = F.scaled_dot_product_attention(q, k, v, mask, scale=0.5)
        made = made.transpose(1, 2).reshape(x.size(0), x.size(1), -1)
        return self.norm(self.parts[3](made) + x)


@pytest.mark.parametrize("written_out", [True, False])
def test_an_encoder_layer_has_openvinos_kinds_of_nodes(written_out) -> None:
    """Open dimensions keep their names behind a broadcast, but where a mask of open shape may be larger."""
    other = [rand(3, 7, 8), rand(1, 7, 8), rand(3, 1, 7, 7)]
    model = compare(
        Layer(written_out), rand(2, 5, 8), rand(2, 5, 8), rand(1, 1, 5, 5), more=[other], tolerance=1e-4
    )
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert kinds.count("ScaledDotProductAttention") == 1 and kinds.count("Reshape") == 4
    assert kinds.count("Concat") == kinds.count("ShapeOf") == int(written_out) and "Softmax" not in kinds


def test_weights_of_attention_that_are_read_stay() -> None:
    def function(q, k):
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2, -1)
        return weights @ k, weights

    model = compare(of(function), rand(2, 3, 5, 4), rand(2, 3, 5, 4))
    assert "Softmax" in [node.get_type_name() for node in model.get_ops()]


def test_dimensions_are_computed_once() -> None:
    """One ShapeOf serves all uses of all dimensions of a tensor. Two of three are one Gather of it."""

    def function(x, y):
        dims = x.size(0), x.size(1)
        return y.expand(*dims, 4) + torch.zeros(*dims, 1), y.expand(*dims, 4) * 2

    model = compare(of(function), rand(2, 3), rand(1, 3, 4), more=[[rand(5, 6), rand(5, 1, 4)]])
    assert (kinds_of(model)["ShapeOf"], kinds_of(model)["Gather"]) == (1, 0)
    model = compare(of(function), rand(2, 3, 2), rand(1, 3, 4), more=[[rand(5, 6, 1), rand(5, 1, 4)]])
    assert (kinds_of(model)["ShapeOf"], kinds_of(model)["Gather"]) == (1, 1)


def test_lengths_padded_to_themselves_are_not_padded() -> None:
    """Masks of transformers' models: they are padded to the number of keys, which is theirs."""
    function = of(lambda x: torch.nn.functional.pad(x.exp(), (0, x.shape[1] - x.exp().shape[1])) + 1)
    model = compare(function, rand(2, 3), more=[[rand(1, 5)]])
    assert kinds_of(model) == {"Exp": 1, "Add": 1}


INDICES = {
    "both": (lambda x, i, j: x[i, j], 1),
    "one of a row for each column": (lambda x, i, j: x[i[:, None], j], 1),
    "of three": (lambda x, i, j: x[i, j, -1], 2),
    "last two": (lambda x, i, j: x[:, i, j], 2),
    "apart": (lambda x, i, j: x[i, :, j], 2),
    "first and last, of which one is none": (lambda x, i, j: x[i, :, j][:, :0], 2),
    "one for all": (lambda x, i, j: x[i, j[0]], 1),
    "a number": (lambda x, i, j: x[i[0], j], 2),
}


@pytest.mark.parametrize("name", INDICES)
def test_tensors_of_indices_read_one_dimension(name) -> None:
    """A Gather of the indexed dimensions as one, as in OpenVINO; there indices below 0 are wrong."""
    function, more = INDICES[name]
    i, j = torch.tensor([1, -2, 0]), torch.tensor([-1, 0, 1])
    others = [rand(4, 5, *[2] * (more - 1)), torch.tensor([3, -1]), torch.tensor([1, -1])]
    if name == "last two":
        others[0] = rand(1, 5, 2)
        others[1] = torch.tensor([4, -5])
    model = compare(of(function), rand(*[3] * (more + 1)), i, j, more=[others])
    assert not kinds_of(model)["GatherND"] and kinds_of(model)["Gather"]


@pytest.mark.parametrize("length", [0, 1, 2, 5, 8])
def test_parts_of_an_open_dimension_are_split(length) -> None:
    """NNCF passes quantizers through VariadicSplit, but not through Slice."""
    model = compare(
        of(lambda x: (*x.tensor_split(3, 1), *x[:, : x.shape[1] // 2 * 2].chunk(2, 1)) if x.shape[1] else x),
        rand(2, 4),
        more=[[rand(2, length)]] if length > 1 else [],
    )
    assert kinds_of(model)["VariadicSplit"] == 2
    only = ov.compile_model(ov.convert_model(of(lambda x: x.tensor_split(3, 1)), example_input=rand(2, 4)))
    made = only(np.ones((2, length), np.float32))
    parts = torch.ones(2, length).tensor_split(3, 1)
    assert [made[k].shape for k in range(3)] == [tuple(part.shape) for part in parts]


def test_masks_larger_than_the_scores_repeat_them() -> None:
    def function(q, k, v, mask):
        return torch.softmax(q @ k.transpose(-1, -2) * 0.5 + mask, -1) @ v

    heads = [rand(2, 2, 3, 4) for _ in range(3)]
    other = [rand(1, 2, 3, 4) for _ in range(3)]
    compare(of(function), *heads, rand(2, 1, 3, 3), more=[[*other, rand(3, 1, 3, 3)]], tolerance=1e-4)


def heads(x):
    return x.view(x.shape[0], x.shape[1], 4, 8).transpose(1, 2)


def attended(q, k, v, scale=0.35, mask=None, key=1.0):
    """Attention as modules write it; the mask is a function of the scores."""
    k = k if isinstance(key, float) and key == 1 else k * key
    scores = q @ k.transpose(-1, -2)
    scores = scores if scale is None else scores * scale
    return torch.softmax(scores if mask is None else scores + mask, -1) @ v


def sunk(q, k, mask=None, less=True, sinks=None, last=-1):
    """gpt-oss: a logit for each head takes part in the softmax, and has no value."""
    k = torch.cat([k, k], 2)
    scores = q @ k.transpose(-1, -2) * 0.35
    sinks = (SINKS if sinks is None else sinks).expand(q.shape[0], -1, q.shape[-2], -1)
    scores = torch.cat([scores if mask is None else scores + mask, sinks], -1)
    scores = scores - scores.max(-1, keepdim=True).values if less else scores
    return torch.softmax(scores, -1)[..., :last] @ k[..., : k.shape[2] + 1 + last, :]


LARGE, FOUR, TABLE = rand(2, 6, 32), rand(2, 4, 6, 8), rand(1, 4, 6, 6)
EIGHT, SINKS, WIDE = rand(8), rand(1, 4, 1, 1), rand(2, 1, 6, 12)
#: What a module computes, of inputs of 6 rows.
ATTENTIONS = {
    "heads": (lambda q, k: attended(heads(q), heads(k), heads(k)), LARGE, LARGE),
    "quotient": (lambda q: torch.softmax(heads(q) @ heads(q).transpose(-1, -2) / 3, -1) @ heads(q), LARGE),
    "other batches": (attended, LARGE, LARGE, LARGE),
    "one batch": (lambda x: attended(x, x + 1, x * 2), LARGE),
    "other heads": (attended, FOUR, FOUR, FOUR),
    "five dimensions": (lambda q: attended(heads(q)[None], heads(q)[None], heads(q)[None]), LARGE),
    "scaled key": (lambda q: attended(heads(q), heads(q), heads(q), None, key=0.4), LARGE),
    "two scales": (lambda q: attended(heads(q), heads(q), heads(q), key=0.4), LARGE),
    "weighted key": (lambda q: attended(heads(q), heads(q), heads(q), key=EIGHT), LARGE),
    "scale of an input": (lambda q, s: attended(heads(q), heads(q), heads(q), s), LARGE, torch.tensor(0.3)),
    "open mask": (lambda q, m: attended(heads(q), heads(q), heads(q), mask=m), LARGE, TABLE),
    "open row": (lambda q, m: attended(heads(q), heads(q), heads(q), mask=m), LARGE, TABLE[0, 0, 0]),
    "leading ones": (lambda q, m: attended(*[heads(q)] * 3, mask=m[None, None]), LARGE, TABLE[0, 0]),
    "constant mask": (lambda q: attended(heads(q), heads(q), heads(q), mask=TABLE), LARGE),
    "sinks": (lambda q, m: sunk(heads(q), heads(q), m), LARGE, WIDE),
    "sinks and all scores": (lambda q, m: sunk(heads(q), heads(q), m, less=False), LARGE, WIDE),
    "constant for heads": (lambda q: attended(heads(q), heads(q), heads(q), mask=TABLE[..., :1, :1]), LARGE),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTIONS)
def test_written_out_attention_is_one_node_where_openvino_makes_it_so(name: str) -> None:
    import openvino

    function, *given = ATTENTIONS[name]
    counted = []
    for package in (ov, openvino):
        kinds = collections.Counter(
            node.get_type_name()
            for node in package.convert_model(of(function), example_input=tuple(given)).get_ops()
        )
        counted.append({kind: kinds[kind] for kind in ("ScaledDotProductAttention", "Softmax", "Squeeze")})
    assert counted[0] == counted[1]
    model = ov.convert_model(of(function), example_input=tuple(given))
    result = ov.compile_model(model, "CPU", EXACT)([x.numpy() for x in given])
    np.testing.assert_allclose(result[0], function(*given).numpy(), atol=1e-5)


def test_sinks_without_a_mask() -> None:
    """OpenVINO fails there."""
    model = compare(of(lambda q: sunk(heads(q), heads(q))), LARGE)
    assert "ScaledDotProductAttention" in [node.get_type_name() for node in model.get_ops()]


@pytest.mark.parametrize("more", [{"last": -2}, {"sinks": TABLE[..., :1]}], ids=["two columns", "rows"])
def test_what_is_no_sink_stays(more: dict) -> None:
    """OpenVINO makes attention of it, which gives other numbers."""
    model = compare(of(lambda q, m: sunk(heads(q), heads(q), m, **more)), LARGE, WIDE)
    assert "Softmax" in [node.get_type_name() for node in model.get_ops()]


def written_out(x):
    """Activations and normalizations as modules write them, and movements behind movements."""
    erf, root = torch.erf(x / 2**0.5), (2 / np.pi) ** 0.5
    centred = x - x.mean(-1, keepdim=True)
    gelus = [x * 0.5 * (1 + erf), x * (0.5 * (1 + torch.erf(x * 0.70710678))), x * (1 + erf) * 0.5]
    gelus += [0.5 * x * (1 + torch.tanh(root * (x + 0.044715 * x.pow(3))))]
    gelus += [0.5 * x * (1 + torch.tanh(x * root * (1 + 0.044715 * x * x)))]
    gates = [x * torch.sigmoid(x), x * torch.sigmoid(1.702 * x), x * torch.tanh(F.softplus(x))]
    gates += [x * (F.relu6(x + 3) * (1 / 6)), F.relu6(x + 3) / 6, torch.log(1 + torch.exp(x))]
    norms = [centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5) * EIGHT]
    moved = [x.transpose(0, 1).permute(0, 2, 1), x.transpose(0, 1).transpose(0, 1) + 1]
    moved += [x.reshape(10, 8).reshape(2, 5, 8) + x, x.clamp(min=0).clamp(max=1), F.normalize(x, dim=-1)]
    return *gelus, *gates, *norms, *moved, x.long().clamp(0, 3), ~(x > 0)


def test_what_modules_write_out_is_one_node_where_openvino_makes_it_so() -> None:
    import openvino

    x = rand(2, 5, 8) * 3
    model = compare(of(written_out), x, tolerance=1e-4)
    theirs = openvino.convert_model(of(written_out), example_input=x)
    ours, wanted = (
        collections.Counter(node.get_type_name() for node in m.get_ops()) for m in (model, theirs)
    )
    del ours["Constant"], wanted["Constant"]
    assert ours == wanted


def test_what_looks_like_an_activation_stays() -> None:
    """Other numbers, another tensor behind the gate, and results that are broadcast."""

    def function(x, y):
        gates = [x * 0.5 * (1 + torch.erf(x / 1.5)), x * torch.sigmoid(y), x * (F.relu6(x + 2) / 6)]
        return *gates, x * torch.sigmoid(torch.tensor([[[[1.5]]]]) * x), x.clamp(min=2).clamp(max=1)

    model = compare(of(function), rand(2, 3), rand(2, 3), tolerance=1e-4)
    kinds = {node.get_type_name() for node in model.get_ops()}
    assert not kinds & {"Gelu", "Swish", "HSwish", "HSigmoid"}


def test_transposes_are_flags_of_products() -> None:
    def function(a, b):
        return a.transpose(-1, -2) @ b.transpose(1, 2)

    model = compare(of(function), rand(2, 3, 4), rand(2, 5, 3))
    (product,) = (node for node in model.get_ops() if node.get_type_name() == "MatMul")
    assert product.get_attributes() == {"transpose_a": True, "transpose_b": True}
    assert "Transpose" not in {node.get_type_name() for node in model.get_ops()}


def test_tensors_within_a_model_have_names() -> None:
    """Those of the trace's values; names of inputs and outputs belong to these alone."""

    class Module(torch.nn.Module):
        def forward(self, x, y):
            middle = x * 2
            y = y + middle
            return {"middle": y.relu()}

    model = compare(Module(), rand(2, 3), rand(2, 3))
    named = {node.get_type_name(): node.output(0).get_names() for node in model.get_ops()}
    assert named["Multiply"] and named["Add"] and not named["Multiply"] & named["Add"]
    assert named["Relu"] == {"middle"} and "middle" not in named["Multiply"]
    assert "y" not in named["Add"] and model.input("y").get_names() == {"y"}


def test_a_comparison_of_the_number_of_samples_with_one() -> None:
    """The example has one sample; the program is for any number."""

    def function(ids):
        positions = torch.arange(ids.shape[1])[None]
        if ids.shape[0] != positions.shape[0]:
            positions = positions.expand(ids.shape[0], -1)
        return torch.vmap(torch.neg)(positions)[torch.arange(ids.shape[0])] + ids  # not traced

    compare(of(function), torch.arange(5)[None], more=[[torch.arange(21).reshape(3, 7)]])


def test_a_module_that_is_another_for_one_sample_stays_that_of_the_example() -> None:
    def function(x):
        made = torch.vmap(torch.neg)(x)
        return made[0] if x.shape[0] == 1 else made

    compare(of(function), rand(1, 5), more=[[rand(1, 7)]])


class Experts(torch.nn.Module):
    """Layers for the rows that choose them, as in transformers. `way` is how those are found."""

    def __init__(self, way, count=4):
        super().__init__()
        self.way = way
        self.experts = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(count)])

    def forward(self, x, chosen):
        if self.way == "split":
            order = chosen.argsort(stable=True)
            counts = F.one_hot(chosen, len(self.experts)).sum(0).tolist()
            made = [layer(part) for layer, part in zip(self.experts, x[order].split(counts), strict=True)]
            return torch.zeros_like(x).index_add(0, order, torch.cat(made))
        out = torch.zeros_like(x)
        mask = F.one_hot(chosen, len(self.experts)).T
        if self.way == "exported":
            mask = torch.vmap(torch.abs)(mask)
        if self.way == "names":
            for i in torch.nonzero(mask.sum(1), as_tuple=True)[0].tolist():
                rows = mask[i].bool()
                out[rows] = getattr(self.experts, f"{i}")(x[rows])
            return out
        if self.way == "numel":
            for i, layer in enumerate(self.experts):
                rows = torch.where(mask[i])[0]
                if rows.numel() > 0:
                    out.index_add_(0, rows, layer(x[rows]))
            return out
        for i in (mask.sum(1) > 0).nonzero()[:]:
            rows = torch.where(mask[i].squeeze(0))[0]
            out.index_add_(0, rows, self.experts[i](x[rows]))
        return out


@pytest.mark.parametrize("way", ["numel", "places", "names", "exported", "split"])
def test_experts_that_the_example_does_not_choose(way: str) -> None:
    given = rand(4, 3), torch.tensor([1, 1, 3, 1])
    compare(Experts(way), *given, more=[(rand(6, 3), torch.tensor([0, 0, 2, 3, 2, 0]))])


def test_a_loop_that_is_not_the_same_for_all_places_stays_that_of_the_example() -> None:
    def function(x, mask):
        for i in mask.nonzero():
            x = x + i
            if x.sum() > 4:
                break
        return x

    with pytest.warns(Warning, match="incorrect"):
        compare(of(function), rand(4), torch.tensor([True, False, True]))


def test_strides_are_about_memory() -> None:
    def function(x):
        return x.transpose(0, 1).as_strided((2, 3, 4), (8, 4, 1))

    compare(of(function), rand(5, 4))


def test_a_dimension_that_the_example_does_not_squeeze_stays() -> None:
    compare(of(lambda x: x[:, ::2].squeeze(-1) * 2), rand(2, 6), more=[[rand(3, 9)]])


def test_outputs_are_named_by_the_variables_of_the_trace() -> None:
    """As in OpenVINO; an output that nothing else reads has no name, an input that is given back keeps its
    own."""

    class Inner(torch.nn.Module):
        def forward(self, x):
            key = x * 2
            return key + 1, key

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            value, key = self.inner(x)
            return torch.relu(value), key, x

    model = ov.convert_model(Outer(), example_input=torch.rand(2, 3))
    assert [port.get_names() for port in model.outputs] == [set(), {"key"}, {"x"}]
    assert model.inputs[0].get_names() == {"x"}


class Normed(torch.nn.Module):
    """BatchNorm behind each kind of convolution, with and without a bias; and where another node reads the
    convolution, or there is none."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8),
            nn.ConvTranspose2d(8, 6, 3), nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 6, 2, groups=3, bias=False),
            nn.BatchNorm2d(6, affine=False),
        )  # fmt: skip
        self.last, self.norm, self.alone = nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)

    def forward(self, x):
        x = self.last(self.layers(x))
        return self.alone((self.norm(x) + x).relu())


def test_batch_norms_are_in_the_weights_of_convolutions() -> None:
    """As in OpenVINO: a factor stays where another node reads the convolution, and where there is none."""
    module, x = Normed().eval(), torch.rand(2, 3, 8, 8)
    model = ov.convert_model(module, example_input=x)
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert "BatchNormInference" not in kinds and "Reshape" not in kinds and kinds.count("Multiply") == 2
    got = ov.compile_model(model, "CPU", EXACT)(x.numpy())[0]
    np.testing.assert_allclose(got, module(x).detach().numpy(), 1e-4, 1e-5, err_msg=f"seed {SEED}")


class Written(torch.nn.Module):
    """Parts of tensors that are written in place: slices of slices, rows, and by operators such as mul_."""

    def forward(self, x):
        mask, count = x.new_zeros((x.shape[0], x.shape[1])), 0
        for rows in ((0, -3), (-3, -1), (-1, None)):
            for columns in ((0, -3), (-3, -1), (-1, None)):
                mask[rows[0] : rows[1], columns[0] : columns[1]] = count
                count += 1
        y = x * 1
        y[:, 1] = y[:, 0] + mask[0, 0]
        y[1:, 2:4].mul_(3)
        y[0][1] += 5
        part = y[-1]
        part.clamp_(min=0.5)
        return mask + y, y.sum(0), part


def test_writes_to_parts_of_tensors() -> None:
    module = Written()
    decoder = ov.convert_model(module, example_input=torch.randn(6, 7))
    kinds = {node.get_friendly_name().split("/")[0] for node in decoder.get_ops()}
    assert "aten::fill_" in kinds  # read as it was traced
    compiled = ov.compile_model(decoder, "CPU", EXACT)
    for shape in ((6, 7), (9, 5)):
        x = torch.randn(shape)
        got = compiled(x.numpy())
        for i, want in enumerate(module(x)):
            np.testing.assert_allclose(got[i], want.numpy(), 1e-5, 1e-6, err_msg=f"seed {SEED}, {shape}")


def test_writes_to_parts_in_lists_and_of_narrower_values() -> None:
    """`y[:, 1:3] = v` is recorded with the lengths of the example."""

    def parts(x, v):
        y, z = x * 1, x.new_zeros(2, x.shape[0], x.shape[1])
        y[:, 1:3] = v
        y[:, :1] = v[:1, None]
        z[0], z[1, :, :] = x, x[0]
        first, second = z.chunk(2, 2)
        first.add_(second)
        return y, z

    given = [torch.randn(1, 4), torch.randn(2)]
    compare(of(parts), *given, more=[(torch.randn(5, 6), given[1])])


def test_numbers_among_the_outputs_of_exported_programs() -> None:
    def sized(x):
        return torch.vmap(lambda v: v * 2)(x), x.shape[0]

    compiled = ov.compile_model(ov.convert_model(of(sized), example_input=torch.randn(3, 4)), "CPU")
    assert len(compiled.outputs) == 2 and int(compiled(np.zeros((5, 4), np.float32))[1]) == 5


def test_shapes_changed_in_place() -> None:
    def wide(x):
        y = (x * 2).unsqueeze_(-1)
        z = y.transpose_(0, 1)
        return y + 1, z.squeeze_(-1)

    compare(of(wide), torch.randn(3, 4), more=[(torch.randn(2, 5),)])


def test_writes_to_constants_of_a_trace() -> None:
    """A trace keeps the tensors themselves, with what recording has written to them."""

    def scaled(x):
        factor = torch.tensor([2.0, 3.0, 4.0]).reshape(1, 3)
        return x / factor.div_(2.0)

    compare(of(scaled), torch.randn(2, 3), more=[(torch.randn(5, 3),)])


def test_weights_repeated_for_open_channels() -> None:
    """As blurs of images have them: one small matrix for each channel."""

    def blurred(x):
        kernel = torch.full((3, 3), 1 / 9).expand(x.shape[-3], 1, 3, 3)
        y = x.clone()
        part = y[..., 1:-1, 1:-1]
        part.add_(F.conv2d(y, kernel, groups=x.shape[-3]), alpha=0.5)
        return y.clamp_(0, 1)

    compare(of(blurred), torch.rand(1, 3, 6, 7), more=[(torch.rand(2, 3, 8, 5),)])


def test_graphs_that_write_to_constants() -> None:
    from ovjit.readers.torch.scripts.shared_memory import writes_to_constants

    def graph(function):
        return torch.jit.trace(function, torch.rand(4), check_trace=False).graph

    def written(x):
        y = x * 2
        y[1:].add_(1)
        return y

    def constant(x):
        return x * torch.tensor([1.0]).add_(1)

    assert [writes_to_constants(graph(each)) for each in (written, constant)] == [False, True]


def test_the_front_end_by_its_name():
    """A decoder goes through load and convert, with extensions, as in programs without convert_model."""
    import ovjit.opset8 as opset

    from ovjit.compat.frontend.extensions import ConversionExtension
    from ovjit.compat.frontend.frontend import FrontEndManager
    from ovjit.compat.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    x = torch.randn(2, 3)
    decoder = TorchScriptPythonDecoder(of(lambda x: torch.sigmoid(x) + 1), example_input=(x,))
    manager = FrontEndManager()
    front = manager.load_by_model(decoder)
    assert front.get_name() == "pytorch" and front.supported(decoder)
    compare(decoder.pt_module, x, model=front.convert(front.load(decoder)))
    front.add_extension(ConversionExtension("aten::sigmoid", lambda x: opset.relu(x.get_input(0)).outputs()))
    got = ov.compile_model(front.convert(front.load(decoder)), "CPU", EXACT)(x.numpy())[0]
    np.testing.assert_allclose(got, np.maximum(x.numpy(), 0) + 1, rtol=1e-6)


@pytest.mark.parametrize("masked", ["nothing", "keys", "pairs"])
def test_attention_is_read_as_pytorch_fuses_it(masked) -> None:
    """Three products of the parts of one matrix, and one ScaledDotProductAttention, as by OpenVINO. Sizes
    that the module asks for are followed by a mode."""
    layer = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    torch.nn.init.normal_(layer.in_proj_bias)
    layer.requires_grad_(False)

    def function(x, *mask):
        torch._assert(x.shape[-1] == 16, "another size")
        named = {"key_padding_mask" if masked == "keys" else "attn_mask": mask[0]} if mask else {}
        return layer(x, x, x, need_weights=False, **named)[0]

    def inputs(batch, length):
        x = torch.rand(batch, length, 16)
        masks = {
            "nothing": (),
            "keys": (torch.arange(length).expand(batch, length) > length - 2,),
            "pairs": (torch.ones(length, length, dtype=torch.bool).triu(1),),
        }
        return [x, *masks[masked]]

    module = of(function)
    module.layer = layer
    model = compare(module, *inputs(2, 5), more=[inputs(3, 8)])
    kinds = collections.Counter(node.get_type_name() for node in model.get_ops())
    assert (kinds["MatMul"], kinds["ScaledDotProductAttention"], kinds["Transpose"]) == (4, 1, 4)


def test_padding_that_pytorch_nests_is_read_as_fused_attention(caplog) -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 1).eval().requires_grad_(False)
    x, mask = torch.rand(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with caplog.at_level("INFO", "ovjit"):
        model = ov.convert_model(encoder, example_input={"src": x, "src_key_padding_mask": mask})
    assert "without PyTorch's fused attention" not in caplog.text
    made = ov.compile_model(model, "CPU", EXACT)([x.numpy(), mask.numpy()])[0]
    np.testing.assert_allclose(made[0], encoder(x)[0].numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made[1, :3], encoder(x[1:, :3])[0].numpy(), rtol=1e-5, atol=1e-5)


def test_attention_of_one_sample_without_heads() -> None:
    """Tensors of two dimensions, by PyTorch's operator and by what an exported program has of it."""
    function = F.scaled_dot_product_attention
    q, mask = torch.randn(5, 4), torch.randn(5, 5)
    more = [(torch.randn(3, 4), torch.randn(3, 3))]
    compare(of(lambda q, m: function(q, q, q, m)), q, mask, more=more)
    module = of(lambda q: function(q, q, q, is_causal=True))
    compare(module, q, model=ov.convert_model(torch.export.export(module, (q,))))


def test_numbers_of_open_dimensions_are_not_reshaped_between_operations() -> None:
    def function(x):
        made = x.new_zeros(x.shape[1])
        made[2 : x.shape[1] - 3] = 1
        return made * x

    model = compare(of(function), torch.rand(2, 8), more=[[torch.rand(3, 11)]])
    kinds = collections.Counter(node.get_type_name() for node in model.get_ops())
    assert kinds["Reshape"] <= 4, kinds


def test_what_reads_an_output_is_in_the_model() -> None:
    """Nodes that the reader has replaced are not told, though Python may keep them."""

    def function(x, q):
        y = x.view(x.shape[0], x.shape[1] // 1, -1)
        return ((q * 0.5) @ y.transpose(-1, -2)).softmax(-1) @ y

    gc.disable()
    try:
        model = ov.convert_model(of(function), example_input=(rand(2, 3, 4), rand(2, 3, 4)))
        nodes = set(model.get_ops())
        for node in nodes:
            for port in node.outputs():
                assert {target.get_node() for target in port.get_target_inputs()} <= nodes
    finally:
        gc.enable()


def test_padded_masks_stay_boolean() -> None:
    """As in OpenVINO's models: programs that count compressed weights count tensors of u8."""

    def function(x):
        return F.pad(x > 0, (1, 2), value=True)

    model = compare(of(function), rand(2, 3, 4), more=[[rand(1, 2, 5)]])
    pads = [node for node in model.get_ops() if node.get_type_name() == "Pad"]
    assert [node.get_output_element_type(0) for node in pads] == [ov.Type.boolean]
