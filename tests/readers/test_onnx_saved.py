"""Models that ONNX Runtime has optimised and saved, with images in blocks among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from ovjit.readers.onnx_contrib import nchwc
from tests.support.onnx.beside_onnxruntime import by_onnxruntime, by_ovjit
from tests.support.onnx.exported import NETS, STEPS
from tests.support.onnx.nets import Built, F, Net

LEVELS = onnxruntime.GraphOptimizationLevel


def saved(model: onnx.ModelProto, folder: Path, level: Any = LEVELS.ORT_ENABLE_ALL) -> onnx.ModelProto:
    """The model as ONNX Runtime saves it after its passes for this CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "saved.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "saved.onnx")


def check(model: onnx.ModelProto, values: dict[str, np.ndarray], where: str, step: float = 0) -> None:
    """ovjit's answers to the file are ONNX Runtime's."""
    data = model.SerializeToString()
    for mine, other in zip(by_ovjit(data, values, False), by_onnxruntime(data, values), strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape, where
        if mine.dtype.kind == "f" and mine.size:
            tolerance = step or 3e-5 * float(np.abs(other).max())
            np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance, err_msg=where)
        else:
            np.testing.assert_array_equal(mine, other, err_msg=where)


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node if node.domain == nchwc.DOMAIN}


@pytest.mark.parametrize("name", NETS)
def test_networks(name: str, tmp_path: Path) -> None:
    model, values = NETS[name](0)
    level = LEVELS.ORT_ENABLE_EXTENDED if len(name) % 2 else LEVELS.ORT_ENABLE_ALL
    check(saved(model, tmp_path, level), values, f"{name} at {level}", STEPS.get(name, 0))


def blocked_net(seed: int, channels: int) -> Built:
    """Every operator of the domain; counts of channels that fill no whole block, and groups."""
    n = Net(seed)
    x = n.input("x", n.rng.standard_normal((2, channels, 14, 11)).astype(F))
    x = n.conv(x, channels, 20)
    a, b = n.conv(x, 20, 48, 1, act=None), n.conv(x, 20, 48, 3, act="LeakyRelu")
    x = n("Relu", n("Add", a, b))
    x = n("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = n.conv(n.conv(x, 48, 48, 3, g=48), 48, 32, 5, s=2)
    x = n.conv(n("Concat", x, x, axis=1), 64, 32, 3, g=2)
    x = n("AveragePool", x, kernel_shape=[2, 2], count_include_pad=1, pads=[0, 0, 1, 1])
    sizes = n.const(np.array([1, 1, 2, 3], F))
    for more in ({"mode": "nearest", "nearest_mode": "floor"}, {"mode": "linear"}):
        y = n("Resize", x, None, sizes, coordinate_transformation_mode="asymmetric", **more)
        x = n("Add", n.conv(y, 32, 32, 3, s=2), n("GlobalMaxPool", n.conv(y, 32, 32, 1)))
    pooled = n("GlobalAveragePool", n.conv(x, 32, 12, 1))
    return n.model(x, pooled, n("Transpose", n.conv(x, 32, 9), perm=[0, 2, 3, 1])), n.values


@pytest.mark.parametrize("channels", [3, 8, 12, 20])
def test_blocked_images(channels: int, tmp_path: Path) -> None:
    model, values = blocked_net(channels, channels)
    made = saved(model, tmp_path)
    if not operators(made):
        pytest.skip("ONNX Runtime writes no blocks for this CPU")
    wanted = {"Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "ReorderOutput", "Upsample"}
    assert operators(made) >= wanted | ({"ReorderInput"} if channels >= nchwc._block_of_cpu() else set())
    check(made, values, f"{channels} channels")


def in_blocks(filters: np.ndarray, block: int) -> np.ndarray:
    """Filters [out, in, height, width] as ONNX Runtime stores them, element by element."""
    out, depth, height, width = filters.shape
    inner = block if depth % block == 0 else 1
    stored = [
        filters[o + bo, i + bi, y, x]
        for o in range(0, out, block)
        for i in range(0, depth, inner)
        for y in range(height)
        for x in range(width)
        for bi in range(inner)
        for bo in range(block)
    ]
    return np.array(stored, F).reshape(filters.shape)


@pytest.mark.parametrize(("block", "depth"), [(8, 40), (16, 12), (8, 3), (16, 48)])
def test_blocks_of_other_machines(block: int, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of channels say how wide a block is, or else the CPU does."""
    rng = np.random.default_rng(block + depth)
    x = rng.standard_normal((1, depth, 5, 5)).astype(F)
    w = rng.standard_normal((32 + block, depth, 3, 3)).astype(F)
    monkeypatch.setattr(nchwc, "_block_of_cpu", lambda: block if depth == 48 else 24 - block)
    plain = Net(0)
    plain.input("x", x)
    plain_model = plain.model(plain("Conv", "x", plain.const(w)))
    n = Net(0)
    n.input("x", x)
    y = n("Conv", "x", n.const(in_blocks(w, block)), domain=nchwc.DOMAIN)
    model = n.model(n("ReorderOutput", y, domain=nchwc.DOMAIN, channels=len(w)))
    model.opset_import.append(helper.make_opsetid(nchwc.DOMAIN, 1))
    ours = by_ovjit(model.SerializeToString(), {"x": x}, False)[0]
    wanted = by_onnxruntime(plain_model.SerializeToString(), {"x": x})[0]
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-4)
