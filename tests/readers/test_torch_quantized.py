"""PyTorch's quantized modules as Models: beside PyTorch's own kernels of integers."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SEED = 20261124
pytestmark = pytest.mark.filterwarnings("ignore")


class Quantizable(torch.nn.Module):
    """Layers between the stubs by which PyTorch quantizes a part of a network."""

    def __init__(self):
        super().__init__()
        from torch.ao.quantization import DeQuantStub, QuantStub

        self.first, self.last = QuantStub(), DeQuantStub()
        self.a = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.b = torch.nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.act = torch.nn.ReLU()
        self.sum = torch.ao.nn.quantized.FloatFunctional()
        self.linear = torch.nn.Linear(16, 5)

    def forward(self, x):
        x = self.act(self.a(self.first(x)))
        x, y = (torch.nn.functional.max_pool2d(v, 8) for v in (x, self.b(x)))
        y = torch.cat([x, self.sum.add(x, y)], 1)
        return self.last(self.linear(y.flatten(1)))


def test_quantized_layers() -> None:
    """As in PyTorch but for roundings at the borders of steps, which are rare and one step wide."""
    from torch.ao import quantization

    module = Quantizable().eval()
    module.qconfig = quantization.get_default_qconfig("fbgemm")
    quantization.prepare(module, inplace=True)
    data = [torch.rand(16, 3, 8, 8) for _ in range(2)]
    module(data[0])
    quantization.convert(module, inplace=True)
    model = ov.convert_model(module, example_input=data[1])
    assert {op.get_type_name() for op in model.get_ops()} >= {
        "FakeQuantize",
        "Convolution",
        "GroupConvolution",
    }
    got = ov.compile_model(model, "CPU", EXACT)(data[1].numpy())[0]
    steps = np.abs(got - module(data[1]).numpy()) / module.linear.scale
    assert steps.max() < 1.01 and (steps > 0.01).mean() < 0.1


def results(module, example, *inputs):
    """(ovjit's, PyTorch's) for each of the inputs."""
    with torch.no_grad():
        compiled = ov.compile_model(ov.convert_model(module, example_input=example), "CPU", EXACT)
        return [(compiled(x.numpy())[0], module(x).numpy()) for x in inputs]


class AfterGrid(torch.nn.Module):
    """A tensor that is no longer quantized, and what would be rounded if it were."""

    def forward(self, x):
        on_grid = torch.quantize_per_tensor(x, 0.25, 3, torch.quint8)
        real, pooled = on_grid.dequantize(), torch.nn.functional.avg_pool2d(on_grid, 2).dequantize()
        made = [torch.nn.functional.gelu(real), torch.nn.functional.elu(real), real.sigmoid()]
        means = torch.nn.functional.avg_pool2d(real, 2)
        return torch.cat([v.flatten() for v in (*made, real.mean(), means, pooled, on_grid.dequantize())])


def test_reals_are_off_the_grid():
    """What follows dequantize is not rounded, also where the quantized tensor itself is read elsewhere."""
    torch.manual_seed(SEED)
    x = torch.randn(2, 3, 4, 6) * 4
    ((got, want),) = results(AfterGrid(), x, x)
    np.testing.assert_allclose(got, want, 1e-6, 1e-6, err_msg=f"seed {SEED}")


class Wide(torch.nn.Module):
    """Tensors of 32-bit integers, by tensor and by channel."""

    def forward(self, x):
        scales, zeros = torch.tensor([0.5, 0.21, 1.3]), torch.tensor([0, -7, 4])
        whole = torch.quantize_per_tensor(x, 0.21, -7, torch.qint32)
        rows = torch.quantize_per_channel(x, scales, zeros, 1, torch.qint32)
        return torch.cat([whole.dequantize(), rows.dequantize()])


@pytest.mark.parametrize("form", ["module", "script"])
def test_integers_of_32_bits(form):
    """OpenVINO bounds them as bytes."""
    torch.manual_seed(SEED)
    x, more = torch.randn(2, 3, 4) * 20, torch.randn(2, 3, 4) * 5000
    made = Wide() if form == "module" else torch.jit.script(Wide())
    for got, want in results(made, x, x, more):
        np.testing.assert_allclose(got, want, 1e-6, 1e-6, err_msg=f"seed {SEED}")


def perceptron():
    layers = [torch.nn.Linear(64, 48), torch.nn.GELU(), torch.nn.Linear(48, 8)]
    return torch.nn.Sequential(*layers).eval()


@pytest.mark.parametrize("reference", [False, True])
def test_fx_modules(reference):
    """By PyTorch's FX graphs, with gelu between integers. Reference modules quantize by channels.

    As in PyTorch but for roundings at the borders of steps, which are rare and one step wide.
    """
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    torch.manual_seed(SEED)
    x = torch.randn(5, 64)
    module = quantize_fx.prepare_fx(perceptron(), get_default_qconfig_mapping("x86"), (x,))
    module(x)
    made = quantize_fx.convert_to_reference_fx(module) if reference else quantize_fx.convert_fx(module)
    for got, want in results(made, x, x, torch.randn(9, 64)):
        step = np.diff(np.unique(want)).min()
        steps = np.abs(got - want) / step
        assert steps.max() < 1.01 and (steps > 0.01).mean() < 0.05, f"seed {SEED}"


@pytest.mark.parametrize("kind", ["qint8", "float16"])
def test_dynamic_layers(kind):
    """Products with the unpacked weights: PyTorch also rounds the inputs to integers, which is left out."""
    torch.manual_seed(SEED)
    x = torch.randn(5, 64)
    module = torch.ao.quantization.quantize_dynamic(perceptron(), {torch.nn.Linear}, getattr(torch, kind))
    plain = perceptron()
    for i in (0, 2):
        weight, bias = module[i]._packed_params._packed_params.unpack()
        plain[i].weight.data = weight.dequantize() if weight.is_quantized else weight.float()
        plain[i].bias.data = bias
    for y in (x, torch.randn(9, 64)):
        ((got, rounded),) = results(module, x, y)
        want = plain(y).detach().numpy()
        np.testing.assert_allclose(got, want, 1e-5, 1e-6, err_msg=f"seed {SEED}")
        np.testing.assert_allclose(got, rounded, 0, 0.05 * np.abs(want).max(), err_msg=f"seed {SEED}")


def test_tables_of_bytes():
    from torch.ao import quantization

    torch.manual_seed(SEED)
    module = torch.nn.Sequential(torch.nn.Embedding(50, 16)).eval()
    module[0].qconfig = quantization.float_qparams_weight_only_qconfig
    module = quantization.convert(quantization.prepare(module))
    for got, want in results(module, torch.tensor([[1, 2]]), torch.tensor([[1, 2]]), torch.arange(50)[None]):
        np.testing.assert_allclose(got, want, 1e-5, 1e-6, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("name", ["choose_qparams", "choose_qparams_symmetric"])
@pytest.mark.parametrize("kind", [torch.int8, torch.uint8])
def test_ranges_of_data(name, kind):
    """What exported programs compute where the range is that of the data."""
    import torch.ao.quantization.fx._decomposed  # registers the operators

    low, high = (-128, 127) if kind is torch.int8 else (0, 255)
    library = torch.ops.quantized_decomposed

    class Ranged(torch.nn.Module):
        def forward(self, x):
            scale, zero = getattr(library, name).tensor(x, low, high, 1e-5, kind)
            codes = library.quantize_per_tensor.tensor(x, scale, zero, low, high, kind)
            real = library.dequantize_per_tensor.tensor(codes, scale, zero, low, high, kind)
            return torch.cat([real.flatten(), scale.float(), zero.float()])

    torch.manual_seed(SEED)
    inputs = [torch.randn(3, 8) * 3, torch.rand(5, 8) + 1, -torch.rand(2, 8) - 1, torch.zeros(1, 8)]
    for got, want in results(Ranged(), inputs[0], *inputs):
        np.testing.assert_allclose(got, want, 1e-6, 1e-6, err_msg=f"seed {SEED}")


class Coded(torch.nn.Module):
    """Numbers between two steps of a grid as codes, which exported programs have for weights and inputs."""

    def __init__(self):
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # registers the operators

        self.scales, self.zeros = torch.rand(6) * 0.1 + 0.01, torch.tensor([0, 3, -2, 0, 1, 7])

    def forward(self, x):
        library = torch.ops.quantized_decomposed
        ends, scale = (-128, 127, torch.int8), self.scales[1]
        made = [
            library.quantize_per_channel(x, self.scales, self.zeros, 0, *ends),
            library.quantize_per_tensor(x, 0.03, 3, *ends),
            library.quantize_per_tensor.tensor(x, scale, self.zeros[1], *ends),
        ]
        return torch.stack([codes.float() for codes in made])


def test_codes_between_two_steps():
    """PyTorch multiplies by the reciprocal, which rounds otherwise than a quotient."""
    torch.manual_seed(SEED)
    module = Coded()
    x = (torch.randint(-100, 100, (6, 500)) + 0.5) * module.scales[:, None]
    exported = torch.export.export(module, (x,))
    want = module(x).numpy()
    quotients = torch.round(x / module.scales[:, None]) + module.zeros[:, None]
    assert (want[0] != quotients.clamp(-128, 127).numpy()).any(), f"seed {SEED}"
    compiled = ov.compile_model(ov.convert_model(exported), "CPU", EXACT)
    np.testing.assert_array_equal(compiled(x.numpy())[0], want, err_msg=f"seed {SEED}")


def test_modules_of_exported_programs():
    """They have no modes of training and evaluation."""
    torch.manual_seed(SEED)
    x = torch.randn(5, 64)
    module = torch.export.export(perceptron(), (x,)).module()
    for got, want in results(module, x, x):
        np.testing.assert_allclose(got, want, 1e-5, 1e-6, err_msg=f"seed {SEED}")


class RoundedWeights(torch.nn.Module):
    """A layer that rounds its weights in `forward`, as NNCF's modules and those of training for integers."""

    def __init__(self, shape, axis, ends, layer, normed=False, zero=0):
        super().__init__()
        torch.manual_seed(SEED)
        self.weight = torch.nn.Parameter(torch.randn(shape))
        others = [i for i in range(len(shape)) if i != axis]
        steps = min(ends[1] - zero, zero - ends[0])
        self.register_buffer("scale", self.weight.detach().abs().amax(others) / steps)
        self.register_buffer("zero", torch.full((shape[axis],), zero, dtype=torch.int32))
        self.axis, self.ends, self.layer, self.norm = axis, ends, layer, None
        if normed:
            self.norm = torch.nn.BatchNorm2d(6)
            self.norm.weight.data.normal_()
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        ends, rounded = self.ends, torch.fake_quantize_per_channel_affine
        x = torch.fake_quantize_per_tensor_affine(x, 0.03, 128, 0, 255)
        y = self.layer(x, rounded(self.weight, self.scale, self.zero, self.axis, *ends))
        return y if self.norm is None else self.norm(y)


F, BYTE = torch.nn.functional, (-128, 127)
ROUNDED = {
    "linear": ((8, 8), 0, BYTE, F.linear),
    "unsigned": ((8, 8), 0, (0, 255), F.linear, False, 120),
    "four bits": ((8, 8), 0, (-8, 7), F.linear),
    "seven bits": ((8, 8), 0, (-64, 63), F.linear),
    "many levels": ((8, 8), 0, (-2048, 2047), F.linear),
    "convolution": ((6, 4, 3, 3), 0, BYTE, F.conv2d),
    "groups": ((6, 2, 3, 3), 0, BYTE, lambda x, w: F.conv2d(x, w, groups=2)),
    "transposed": ((4, 6, 2, 2), 1, BYTE, F.conv_transpose2d),
    "normed": ((6, 4, 3, 3), 0, BYTE, F.conv2d, True),
    "normed four bits": ((6, 4, 3, 3), 0, (-8, 7), F.conv2d, True),
    "normed groups": ((6, 2, 3, 3), 0, BYTE, lambda x, w: F.conv2d(x, w, groups=2), True),
    "normed transposed": ((4, 6, 2, 2), 1, BYTE, F.conv_transpose2d, True),
}


def of_weights(model):
    """Kinds of operations on the way of weights, and the types and numbers of their constants."""
    ways = [n for n in model.get_ops() if n.get_output_partial_shape(0).is_static]
    types = {
        (n.get_element_type().to_string(), int(np.prod(n.get_output_shape(0))))
        for n in ways
        if n.get_type_name() == "Constant" and np.prod(n.get_output_shape(0)) > 16
    }
    return sorted(n.get_type_name() for n in ways if n.get_type_name() != "Constant"), types


@pytest.mark.parametrize("case", ROUNDED)
def test_rounded_weights_become_integers(case) -> None:
    """Weights of up to 256 levels are integers with a scale, as in OpenVINO. BatchNorm is in the scale."""
    openvino = pytest.importorskip("openvino")
    module = RoundedWeights(*ROUNDED[case]).eval()
    example = torch.randn((2, 4, 8, 8) if len(ROUNDED[case][0]) == 4 else (2, 8))
    with torch.no_grad():
        ours, real = (package.convert_model(module, example_input=example) for package in (ov, openvino))
        expected = module(example).numpy()
    assert of_weights(ours) == of_weights(real)
    assert ("f32" in {kind for kind, _ in of_weights(ours)[1]}) == (case == "many levels")
    got = np.array(ov.compile_model(ours, "CPU", EXACT)(example.numpy())[0])
    assert abs(got - expected).max() < 2e-5 * abs(expected).max()
