"""Operators of scripts without rules, read as PyTorch composes them, at sizes that are open."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import UnsupportedError

torch = pytest.importorskip("torch")
F = torch.nn.functional
Tensor = torch.Tensor
SEED = 20261128


def losses(x: Tensor, y: Tensor):
    signs = torch.sign(y)
    return (
        F.cosine_embedding_loss(x, y, signs[:, 0], margin=0.3, reduction="none"),
        F.triplet_margin_loss(x, y, x * y, swap=True, p=1.0, reduction="none"),
        F.margin_ranking_loss(x, y, signs, margin=0.5),
        F.hinge_embedding_loss(x, signs, margin=0.5, reduction="none"),
        F.poisson_nll_loss(x, y.abs() * 3, full=True, reduction="none"),
        F.kl_div(x, torch.log_softmax(y, 1), log_target=True, reduction="batchmean"),
    )


def transforms(x: Tensor, y: Tensor):
    return (
        torch.fft.hfft(x), torch.fft.hfft2(x), torch.fft.hfftn(x, norm="forward"),
        torch.fft.ihfft(x).abs(), torch.fft.ihfft2(x).abs(), torch.linalg.vander(x[0], N=4),
        torch.inner(x, y), torch.mvlgamma(x.abs() + 3, 2), torch.special.multigammaln(x.abs() + 3, 3),
    )  # fmt: skip


def shapes(x: Tensor, y: Tensor):
    picked = x + 1 if x.sum().gt(1e9).is_nonzero() else x
    near = x if torch.allclose(x, y) else y
    return (
        torch.nn.utils.rnn.pad_sequence([x, y[1:]], True),
        torch.nn.utils.rnn.pad_sequence([y[2:], x], False, -1.0),
        x.sum_to_size(x.shape[0], 1), torch.row_stack([x, y]), torch.norm_except_dim(x, 2, 0), picked, near,
    )  # fmt: skip


def logarithms(x: Tensor, y: Tensor):
    q, k = x[None, None], y[None, None]
    plain = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, k, 0.0, False)
    causal = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, k, 0.0, True, scale=0.3)
    masked = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, k, 0.0, False, attn_mask=q @ k.mT
    )
    return plain[0], plain[1], causal[1], masked[1], torch._scaled_dot_product_attention_math(q, k, k)[1]


def inputs(size):
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randn(3 + size, 4 + 2 * size, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("function", [losses, transforms, shapes, logarithms])
def test_scripts(function):
    script = torch.jit.script(function)
    model = ov.convert_model(script, input=[(ov.PartialShape([-1, -1]), ov.Type.f32)] * 2)
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in (0, 1):
        given = inputs(size)
        wanted = script(*given)
        made = compiled([value.numpy() for value in given])
        assert len(made) == len(wanted)
        for i, want in enumerate(wanted):
            assert made[i].shape == tuple(want.shape), f"output {i}"
            np.testing.assert_allclose(made[i], want.numpy(), rtol=1e-4, atol=2e-5, err_msg=f"output {i}")


def test_what_depends_on_lengths_is_refused():
    """Pairs of complex numbers are composed by how many numbers there are."""

    def pairs(x: Tensor):
        v = torch.view_as_complex(x)
        return torch.view_as_real(torch.combinations(v[0]))

    with pytest.raises(UnsupportedError, match="aten::combinations"):
        ov.convert_model(torch.jit.script(pairs), input=[(ov.PartialShape([-1, -1, 2]), ov.Type.f32)])
