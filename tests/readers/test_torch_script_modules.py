"""Scripts of modules: fused attention layers, objects of classes, inputs without an example."""

from __future__ import annotations

from typing import List, Tuple  # noqa: UP035 - by these names scripts know them

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import UnsupportedError

torch = pytest.importorskip("torch")
nn, Tensor = torch.nn, torch.Tensor
SEED = 20261127
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def check(module, *examples, **given):
    """Convert the script of a module, and compare with the module itself for all examples."""
    script = torch.jit.script(module.eval())
    compiled = ov.compile_model(ov.convert_model(script, **given), "CPU", EXACT)
    for inputs in examples:
        with torch.no_grad():
            wanted = module(*(x.clone() for x in inputs))
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        result = compiled([x.numpy() for x in inputs])
        assert len(result) == len(wanted)
        for i, want in enumerate(wanted):
            np.testing.assert_allclose(result[i], want.numpy(), rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(SEED)


def padding(*lengths, width, left=False):
    """A mask that is true at elements of padding."""
    places = torch.arange(width)
    rows = [places < width - n if left else places >= n for n in lengths]
    return torch.stack(rows)


class Attending(nn.Module):
    def __init__(self, weights: bool, **how):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, **how)
        self.weights = weights

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        own, weights = self.attention(x, x, x, need_weights=self.weights)
        other = self.attention(x, y, y, key_padding_mask=mask, need_weights=False)[0]
        assert weights is not None or not self.weights
        return own, other if weights is None else weights


@pytest.mark.parametrize(
    "how", [{}, {"batch_first": True}, {"batch_first": True, "add_bias_kv": True, "add_zero_attn": True},
            {"batch_first": True, "kdim": 16, "vdim": 16}],
)  # fmt: skip
@pytest.mark.parametrize("weights", [False, True])
def test_attention_layer(how, weights) -> None:
    def example(batch, length, other):
        shapes = (batch, length, 16), (batch, other, 16)
        mask = padding(*([other - 1] * batch), width=other)
        made = [torch.rand(s) if "batch_first" in how else torch.rand(s[1], s[0], 16) for s in shapes]
        return (*made, mask)

    examples = example(2, 5, 7), example(3, 9, 4)
    check(Attending(weights, **how), *examples, example_input=examples[0])


class Masked(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=mask)


@pytest.mark.parametrize("nests", [False, True])
@pytest.mark.parametrize("how", [{}, {"norm_first": True, "activation": "gelu"}])
@pytest.mark.parametrize("scripted", [False, True])
def test_encoder_with_padding(nests, how, scripted) -> None:
    """PyTorch nests samples with padding behind them, and writes 0 there; other masks leave numbers."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **how)
    module = Masked(nn.TransformerEncoder(layer, 2, enable_nested_tensor=nests)).eval()
    module.requires_grad_(False)
    examples = [
        (torch.rand(2, 5, 16), padding(3, 5, width=5)), (torch.rand(3, 9, 16), padding(1, 9, 4, width=9)),
        (torch.rand(2, 6, 16), padding(2, 6, width=6, left=True)),
    ]  # fmt: skip
    if scripted:
        check(module, *examples, example_input=examples[0])
        return
    model = ov.convert_model(module, example_input=examples[0])
    compiled = ov.compile_model(model, "CPU", EXACT)
    for x, mask in examples[:2]:
        with torch.no_grad():
            wanted = module(x, mask)
        result = compiled([x.numpy(), mask.numpy()])[0]
        kept = ~mask.numpy()
        np.testing.assert_allclose(result[kept], wanted.numpy()[kept], rtol=1e-5, atol=1e-5)


def test_transformer() -> None:
    def example(batch, length, other):
        return torch.rand(batch, length, 16), torch.rand(batch, other, 16)

    module = nn.Transformer(16, 4, 1, 1, 32, batch_first=True).requires_grad_(False)
    check(module, example(2, 5, 7), example(3, 9, 4), example_input=example(2, 5, 7))


@torch.jit.script
class Images:
    def __init__(self, tensors: Tensor, sizes: List[int]):  # noqa: UP006
        self.tensors = tensors
        self.sizes = sizes
        self.scale = 2.0

    def scaled(self) -> Tensor:
        return self.tensors * self.scale


class OfObjects(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        images = Images(x, [x.size(0), x.size(1)] * 2)
        images.scale = 3.0
        if bool(x.sum() > 0):
            images.tensors = x + 1
        own = images.tensors
        own[0] = 7.0
        return images.scaled(), torch.ones(images.sizes[2], images.sizes[1])


def test_objects_of_classes() -> None:
    check(OfObjects(), *[(x,) for x in (torch.rand(2, 3), -torch.rand(4, 5))],
          example_input=torch.rand(2, 3))  # fmt: skip


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps = 2
        for _ in range(3):
            self.steps += 1
        return x * self.steps


class CountingWhereDataDecide(Counting):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            self.steps = 5
        return x * self.steps


def test_attributes_of_modules() -> None:
    check(Counting(), (torch.rand(2, 3),), example_input=torch.rand(2, 3))
    script = torch.jit.script(CountingWhereDataDecide())
    with pytest.raises(UnsupportedError, match="attribute of a module where data decide"):
        ov.convert_model(script, example_input=torch.rand(2, 3))


class ShapeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        small = self.conv(nn.functional.pad(x, [0, 1, 0, 1]))[:, :, ::2, ::2]
        return nn.functional.interpolate(small, size=size, mode="bilinear", align_corners=False)


class Unpacked(ShapeFirst):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return self.conv(x).reshape(n, -1, h * w)


@pytest.mark.parametrize("kind", [ShapeFirst, Unpacked])
@pytest.mark.parametrize("given", [{}, {"input": [-1, 3, -1, -1]}, {"input": [2, 3, 8, 9]}])
def test_sizes_are_read_before_the_convolution(kind, given) -> None:
    """The rank and the element type of the input are those that the convolution has."""
    examples = [(torch.rand(2, 3, 8, 9),), (torch.rand(1, 3, 11, 6),)]
    fixed = -1 not in given.get("input", [-1])
    check(kind().requires_grad_(False), *examples[: 1 if fixed else 2], **given)


def test_what_is_unknown_without_an_example_is_told() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    model = ov.convert_model(torch.jit.script(layer))
    with pytest.raises(UnsupportedError, match=r"element type is unknown: give it by 'input' or an example"):
        ov.compile_model(model, "CPU")
    examples = [(torch.rand(2, 5, 16),), (torch.rand(3, 4, 16),)]
    check(layer.requires_grad_(False), *examples, input=[-1, -1, 16])
