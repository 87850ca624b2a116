"""ONNX to IR: `convert_model` as OpenVINO's own. What is written is read there: `test_onnx_backend.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
from tests.support.onnx.files import boundary, make, node
from tests.support.run import printed, python

MODEL = make(
    [
        node("Conv", "x w", "a", "conv", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r", "relu"),
        node("Add", "r z", "s", "add"),
        node("ReduceMean", "s", "m", "mean", axes=[2, 3]),
    ],
    [("x", ["N", 3, "H", "W"]), ("z", [1, 4, 1, 1])],
    ["m", "s"],
    {"w": np.linspace(-1, 1, 108, dtype=np.float32).reshape(4, 3, 3, 3)},
    opset=13,
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input": [1, 3, 8, 8]},
        {"input": {"x": [2, 3, 8, 8]}},
        {"input": [("x", [1, 3, 8, 8]), ("z", [1, 4, 1, 1])]},
        {"input": [("z", [1, 4, 1, 1]), ("x", [1, 3, -1, 8])]},
        {"output": "s"},
        {"output": ["s", "m"]},
    ],
)
def test_convert_model_as_openvino(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL.SerializeToString())

    def converted(module: Any) -> Any:
        try:
            return boundary(module.convert_model(path, **options))
        except Exception as error:
            return isinstance(error, Exception)

    assert converted(ov) == converted(openvino), options


CLI_ARGUMENTS = {
    "is_single_input": (None, "a", "ab", "a,b", [], (), {}, 5, ("a",), ["a"], [2], [None], ("a", [1]),
                        ("a", "b"), ("a", [1], np.float32), ("a", [1], np.float32, 1), ([1], [2]), np.float32,
                        int),
    "input_to_input_cut_info": ([], (), {}, None, ["a"], ("a",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CLI_ARGUMENTS)
def test_functions_of_the_command_line(name):
    from openvino.tools.ovc import cli_parser as real
    from ovjit.tools.ovc import cli_parser as ours

    def told(module: Any, value: Any) -> Any:
        try:
            return getattr(module, name)(value)
        except Exception as error:
            return type(error).__name__

    for value in CLI_ARGUMENTS[name]:
        assert repr(told(ours, value)) == repr(told(real, value)), value


def test_torch_modules_that_are_not_traced() -> None:
    """The others are in `programs/torch_modules.py`: PyTorch is not installed for these tests."""
    from ovjit.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with pytest.raises(RuntimeError, match="not a TorchScript graph"):
        TorchScriptPythonDecoder(object(), graph_element=object())
    with pytest.raises(RuntimeError, match=r"Unknown model type: <class 'object'>.*PyTorch modules"):
        ov.convert_model(object())


@pytest.mark.parametrize(("scope", "kind", "label"), [
    ("", "aten::add", "aten::add"),
    ("__module.self", "aten::add", "aten::add"),
    ("__module.self/__module.self.a/__module.self.a.0.self", "aten::relu_", "__module.a.0.self/aten::relu_"),
    ("__module.a", "aten::relu", "__module.a/aten::relu"),
    ("__module.a/__module.a.b.2.1", "torchvision::nms", "__module.a.b.2.1/torchvision::nms"),
])  # fmt: skip
def test_labels_of_nodes_of_pytorch(scope, kind, label):
    from ovjit.readers.torch import naming

    assert naming.label(scope, kind) == label


@pytest.mark.parametrize(("name", "framework"), [("m.pb", "TensorFlow"), ("m.PDMODEL", "Paddle"),
                                                 ("saved", "TensorFlow")])  # fmt: skip
def test_packages_that_read_a_framework_are_named(tmp_path, name, framework, monkeypatch):
    """Where they are not installed."""
    found = importlib.util.find_spec
    hidden = ("tensorflow", "tf2onnx", "paddle", "paddle2onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in hidden else found(n))
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"\x0a\x05hello")
    else:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x08\x01")
    for read in (ov.Core().read_model, ov.convert_model):
        with pytest.raises(
            RuntimeError, match=f"Unable to read.*Models of {framework} need the packages"
        ) as e:
            read(path)
        assert "Please check" not in str(e.value), "the format is supported"


def test_the_file_of_a_saved_model_points_to_its_folder(tmp_path):
    path = tmp_path / "net" / "saved_model.pb"
    path.parent.mkdir()
    path.write_bytes(b"\x08\x01\x12\x02\x12\x00")  # a version and a graph
    for read in (ov.Core().read_model, ov.convert_model):
        with pytest.raises(
            RuntimeError, match=f"is a part of a SavedModel. Give its folder, .*{path.parent}"
        ):
            read(path)


def test_convert_model_of_what_is_a_model() -> None:
    model = ov.Core().read_model(MODEL)
    assert boundary(ov.convert_model(model)) == boundary(model)
    assert boundary(ov.convert_model(MODEL)) == boundary(model)
    assert boundary(ov.convert_model(MODEL, share_weights=False)) == boundary(model)
    cut = ov.convert_model(model, output=["r"])
    assert [sorted(p.get_names()) for p in cut.outputs] == [["r"]]


@pytest.mark.parametrize("compress", [True, False])
def test_saved_models_in_both(compress: bool, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "m.xml"
    ov.save_model(ov.convert_model(MODEL), path, compress_to_fp16=compress)
    rng = np.random.default_rng(1)
    given = {
        "x": rng.standard_normal((2, 3, 9, 9)).astype(np.float32),
        "z": rng.standard_normal((1, 4, 1, 1)).astype(np.float32),
    }
    ours = ov.Core().compile_model(path, "CPU")(given)
    theirs = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)
    direct = ov.Core().compile_model(ov.Core().read_model(MODEL), "CPU")(given)
    for name in ("m", "s"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours[name], direct[name], rtol=5e-3 if compress else 1e-6, atol=5e-3)
    size = path.with_suffix(".bin").stat().st_size
    assert (size < 400) == compress


def test_the_command(tmp_path: Path) -> None:
    source, target = tmp_path / "m.onnx", tmp_path / "out" / "m.xml"
    source.write_bytes(MODEL.SerializeToString())
    printed("-m", "ovjit", "convert", source, "-o", target, "--input", "x[1,3,8,8]")
    model = openvino.Core().read_model(target)
    assert str(model.input("x").get_partial_shape()) == "[1,3,8,8]"
    failed = python("-m", "ovjit", "convert", tmp_path / "none.onnx")
    assert failed.returncode and "none.onnx" in failed.stderr
