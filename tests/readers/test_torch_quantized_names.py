"""GPTQ's layers that cannot run on a CPU, by the names of OpenVINO's functions."""

from __future__ import annotations

import importlib
import types

import numpy as np
import openvino
import pytest

import ovjit

torch = pytest.importorskip("torch")
both = pytest.mark.parametrize("ov", [openvino, ovjit], ids=["openvino", "ovjit"])

IN, OUT, GROUP = 32, 16, 8


def part(package, name):
    """A module of OpenVINO's front end for PyTorch, here or in the real package."""
    root = "openvino" if package is openvino else "ovjit.compat"
    return importlib.import_module(f"{root}.frontend.pytorch.{name}")


def _packed(codes, axis):
    """Codes of 4 bits in words of 32, the lowest bits first."""
    codes = np.moveaxis(codes.astype(np.uint32), axis, -1)
    words = (codes.reshape(*codes.shape[:-1], -1, 8) << np.arange(0, 32, 4, dtype=np.uint32)).sum(-1)
    return torch.from_numpy(np.moveaxis(words.astype(np.uint32).view(np.int32), -1, axis).copy())


class Layer(torch.nn.Module):
    """A layer of 4 bits whose kernel is not there. `matrix` are its weights [in, out]."""

    QUANT_TYPE = "exllama"

    def __init__(self, is_symmetric, bias=True):
        super().__init__()
        rng = np.random.default_rng(7)
        self.bits, self.group_size = 4, GROUP
        codes = rng.integers(0, 16, (IN, OUT))
        shape = (IN // GROUP, OUT)
        zeros = np.full(shape, 8) if is_symmetric else rng.integers(1, 15, shape)
        scales = rng.uniform(0.5, 1.5, shape).astype(np.float16)
        self.register_buffer("qweight", _packed(codes, 0))
        self.register_buffer("qzeros", _packed(zeros - 1, 1))
        self.register_buffer("scales", torch.from_numpy(scales))
        self.register_buffer("bias", torch.randn(OUT).half() if bias else None)
        wide = [np.repeat(x.astype(np.float64), GROUP, 0) for x in (zeros, scales)]
        self.matrix = (codes - wide[0]) * wide[1]

    def forward(self, x):
        raise RuntimeError("no kernel for this device")


class Net(torch.nn.Module):
    def __init__(self, is_symmetric=False, method="gptq", **more):
        super().__init__()
        quantization = types.SimpleNamespace(quant_method=method, sym=is_symmetric)
        self.config = types.SimpleNamespace(quantization_config=quantization)
        self.layer = Layer(is_symmetric, **more)

    def forward(self, x):
        return self.layer(x)

    def wanted(self, x):
        found = x.double().numpy() @ self.layer.matrix
        return found if self.layer.bias is None else found + self.layer.bias.double().numpy()


@both
@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_of_gptq_run_and_are_given_back(ov, is_symmetric, bias) -> None:
    quantized = part(ov, "quantized")
    net, x = Net(is_symmetric, bias=bias), torch.randn(2, 3, IN)
    wanted, words = net.wanted(x), net.layer.qweight.clone()
    quantized.patch_quantized(net)
    with torch.no_grad():
        np.testing.assert_allclose(net(x).numpy(), wanted, rtol=1e-4, atol=1e-4)
        model = ov.convert_model(net, example_input=x)
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    narrow = {"u4", "i4"} if ov is ovjit else {"u4", "i4", "i8"}
    assert narrow & {node.get_element_type().get_type_name() for node in constants}
    made = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
    np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=1e-3)
    quantized.unpatch_quantized(net)
    assert net.layer.qweight.equal(words)
    with pytest.raises(RuntimeError, match="no kernel"):
        net(x)


def test_layers_of_gptq_are_exported() -> None:
    quantized = part(ovjit, "quantized")
    net, x = Net(), torch.randn(2, IN)
    wanted = net.wanted(x)
    quantized.patch_quantized_for_export(net)
    program = torch.export.export(net, (x,))
    np.testing.assert_allclose(program.module()(x).numpy(), wanted, rtol=1e-4, atol=1e-4)
    made = ovjit.compile_model(ovjit.convert_model(program), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(made(x.numpy())[0], wanted, rtol=1e-3, atol=1e-3)
    quantized.unpatch_quantized_for_export(net)
    with pytest.raises(RuntimeError, match="no kernel"):
        net(x)


@both
def test_what_quantized_modules_are_refused(ov) -> None:
    quantized, gptq = part(ov, "quantized"), part(ov, "gptq")
    plain = torch.nn.Linear(2, 2)
    assert quantized.detect_quantized_model(plain) is None
    assert quantized.detect_quantized_model(Net()) == "gptq"
    assert quantized.detect_quantized_model(types.SimpleNamespace(model=Net(method="awq"))) == "awq"
    for module in (plain, Net(method="other")):
        with pytest.raises(RuntimeError, match="Unknown quantization type"):
            quantized.patch_quantized(module)
    for name, value, says in (("bits", 8, "bits == 8"), ("QUANT_TYPE", "marlin", "QUANT_TYPE == marlin")):
        net = Net()
        setattr(net.layer, name, value)
        with pytest.raises(ValueError, match=says):
            gptq.patch_model(net)
