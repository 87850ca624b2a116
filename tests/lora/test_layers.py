"""Low-rank products in models, beside sums in float64; and files that are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench import transformers as nets
from ovjit.codegen import loading
from ovjit.errors import ModelError, OvjitError
from ovjit.genai.adapters import Adapter, AdapterConfig, AdapterController
from ovjit.lora import layers
from ovjit.lora.tensors import parse_adapter
from tests.support.genai_adapters import write_safetensors

SEED = 20261130
OPS = ov.opset13
MODES = ("DYNAMIC", "STATIC_RANK", "STATIC", "FUSE")
#: Inputs and outputs of the layers: groups of 64 are those of 4-bit weights.
INPUTS, OUTPUTS = 64, 24


def adapter_of(rng: np.random.Generator, name: str, rank: int, tail: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """An adapter, and the change B A of its layer."""
    a = rng.standard_normal((rank, INPUTS)).astype(np.float32)
    b = rng.standard_normal((OUTPUTS, rank)).astype(np.float32)
    data = write_safetensors({
        f"p.{name}.lora_A.weight": ("F32", a.reshape(*a.shape, *tail)),
        f"p.{name}.lora_B.weight": ("F32", b.reshape(*b.shape, *tail)),
    })  # fmt: skip
    return Adapter(safetensor=ov.Tensor(np.frombuffer(data, np.uint8))), b.astype(np.float64) @ a


def run_with(model: Any, config: AdapterConfig, x: np.ndarray, *others: AdapterConfig) -> list[np.ndarray]:
    """Results with the adapters of `config`, and then with others."""
    controller = AdapterController(config, "p.")
    controller.insert(model)
    request = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    results = []
    for each in (None, *others):
        controller.apply([request], each)
        results.append(np.array(request.infer({"x": x})[0]))
    return results


def product(rng: np.random.Generator, kind: str) -> tuple[Any, Any]:
    """A model of one layer named `block.layer`, and its function in float64."""
    net = nets.Net(ov, kind, kind if kind in ("u8", "i4") else "f32")
    net.rng = rng
    if kind == "convolution":
        x = OPS.parameter([-1, INPUTS, -1, -1], np.float32, name="x")
        weights = rng.standard_normal((OUTPUTS, INPUTS, 1, 1)).astype(np.float32)
        node = OPS.convolution(x, OPS.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
        compute = lambda x, w: np.einsum("nchw,oc->nohw", x.astype(np.float64), w)  # noqa: E731
        matrix = weights[:, :, 0, 0].astype(np.float64)
    else:
        x = OPS.parameter([-1, -1, INPUTS], np.float32, name="x")
        is_transposed = kind != "untransposed"
        if kind == "f16":
            source = OPS.convert(
                OPS.constant(rng.standard_normal((OUTPUTS, INPUTS)).astype(np.float16)), "f32"
            )
        elif kind in ("u8", "i4"):
            source = net.stored_weights(OUTPUTS, INPUTS, 8.0)
        else:
            shape = (OUTPUTS, INPUTS) if is_transposed else (INPUTS, OUTPUTS)
            source = OPS.constant(rng.standard_normal(shape).astype(np.float32))
        node = OPS.matmul(x, source, False, is_transposed)
        values = ov.compile_model(ov.Model([source], []), "CPU")([])[0].astype(np.float64)
        matrix = values if is_transposed else values.T
        compute = lambda x, w: x.astype(np.float64) @ w.T  # noqa: E731
    node.set_friendly_name("__module.block.layer/MatMul")
    x.output(0).set_names({"x"})
    result = OPS.multiply(node, OPS.constant(np.float32(2)))
    return ov.Model([result], [x]), lambda x, change: 2 * compute(x, matrix + change)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["plain", "untransposed", "f16", "u8", "i4", "convolution"])
def test_products_are_those_of_numpy(kind: str, mode: str) -> None:
    rng = np.random.default_rng([SEED, MODES.index(mode)])
    model, compute = product(rng, kind)
    tail = (1, 1) if kind == "convolution" else ()
    (first, change), (second, further) = (adapter_of(rng, "block.layer", rank, tail) for rank in (3, 5))
    shape = (2, INPUTS, 3, 4) if kind == "convolution" else (2, 3, INPUTS)
    x = rng.standard_normal(shape).astype(np.float32)
    config = AdapterConfig([(first, 0.5), (second, -2.0)], getattr(AdapterConfig.Mode, f"MODE_{mode}"))
    if mode == "FUSE" and kind in ("u8", "i4"):
        with pytest.raises(
            OvjitError, match=r"not supported decompression pattern.*Use f32/f16/bf16 weights"
        ):
            run_with(model, config, x)
        return
    others, changes = [], [0.5 * change - 2 * further]
    if mode == "DYNAMIC":
        others = [AdapterConfig(second, 0.25), AdapterConfig(), AdapterConfig(first)]
        changes += [0.25 * further, 0 * change, change]
    elif mode == "STATIC_RANK":
        others, changes = [AdapterConfig([(second, 1), (first, 0)])], [*changes, further]
    for result, each in zip(run_with(model, config, x, *others), changes, strict=True):
        np.testing.assert_allclose(result, compute(x, each), rtol=1e-4, atol=2e-2, err_msg=f"seed {SEED}")


def test_a_changed_adapter_loads_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the kernels for some adapters, and for none, are there."""
    rng = np.random.default_rng(SEED)
    model, _ = product(rng, "plain")
    adapters = [adapter_of(rng, "block.layer", rank)[0] for rank in (4, 9)]
    controller = AdapterController(AdapterConfig(adapters[0]), "p.")
    controller.insert(model)
    symbols: list[str] = []
    load = loading.objects.load

    def record(symbol: str, code: bytes) -> None:
        symbols.append(symbol)
        load(symbol, code)

    monkeypatch.setattr(loading.objects, "load", record)
    request = ov.compile_model(model, "CPU").create_infer_request()
    x = rng.standard_normal((1, 3, INPUTS)).astype(np.float32)

    def infer(config: AdapterConfig | None) -> None:
        controller.apply([request], config)
        request.infer({"x": x})

    for config in (None, AdapterConfig(adapters[1]), AdapterConfig()):
        infer(config)
    first = len(symbols)
    for config in (AdapterConfig(adapters[0]), AdapterConfig(adapters), AdapterConfig()):
        infer(config)
    assert symbols[first:] == []


def test_names() -> None:
    names = ["p.model.layers.1.q_proj", "p.model.layers.11.q_proj", "other.model.layers.2.q_proj", "p.a_b.c"]
    found = [
        layers.find_name(names, node, "p.")
        for node in (
            "__module.model.layers.1.q_proj/MatMul", "__module.model.layers.11.q_proj/MatMul",
            "model.layers.2.q_proj", "model_layers_1_q_proj", "x.a_b.c",
        )
    ]  # fmt: skip
    assert found == [names[0], names[1], None, None, "p.a_b.c"]
    # kohya's names have underscores where those of layers have dots
    assert layers.find_name(["p.down_blocks_0_to_q"], "__module.down_blocks.0.to_q/MatMul", "p.") is not None


def test_files_that_are_damaged(tmp_path: Path) -> None:
    good = {
        "p.x.lora_A.weight": ("F32", np.ones((2, 3), np.float32)),
        "p.x.lora_B.weight": ("F32", np.ones((4, 2), np.float32)),
    }
    data = write_safetensors(good)
    assert {
        name: (each.a.shape, each.b.shape)
        for name, each in parse_adapter(np.frombuffer(data, np.uint8)).layers.items()
    } == {"p.x": ((2, 3), (4, 2))}
    for size in (0, 7, 20, len(data) - 1):
        with pytest.raises(ModelError, match="Cannot parse safetensor as a Safetensors file format"):
            parse_adapter(np.frombuffer(data[:size], np.uint8))
    wide = good | {"p.x.lora_A.weight": ("F32", np.ones((2, 3, 3, 3), np.float32))}
    with pytest.raises(OvjitError, match="not pointwise Convolutional kernel"):
        parse_adapter(np.frombuffer(write_safetensors(wide), np.uint8))
    with pytest.raises(OvjitError, match="Expected .safetensors file"):
        Adapter(tmp_path)
