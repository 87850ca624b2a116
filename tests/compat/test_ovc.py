"""The command `ovc`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import helper, numpy_helper
from ovjit.tools.ovc.error import Error
from ovjit.tools.ovc.main import main

import ovjit
from tests.support.run import printed


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The IR of relu(a) and of -b."""
    a, b = (ovjit.opset13.parameter([2, 3], np.float32, name=name) for name in "ab")
    for parameter in (a, b):
        parameter.output(0).set_names({parameter.friendly_name})
    model = ovjit.Model([ovjit.opset13.relu(a), ovjit.opset13.negative(b)], [a, b])
    ovjit.save_model(model, tmp_path / "in.xml")
    return tmp_path / "in.xml"


def ours(*args: Any) -> int:
    return main([str(arg) for arg in args])


@pytest.mark.parametrize(("given", "made"), [("m", "m.xml"), ("m.xml", "m.xml"), ("new/", "new/in.xml"),
                                             ("there", "there/in.xml"), ("a.b", "a.b.xml")])  # fmt: skip
def test_where_the_model_is_written(source, tmp_path, given, made):
    (tmp_path / "there").mkdir()
    assert ours(source, "--output_model", f"{tmp_path}{os.sep}{given}") == 0
    assert ovjit.Core().read_model(tmp_path / made).input("a").partial_shape == [2, 3]


def test_no_name_is_the_models_own(source, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert ours(source, "--output_model", "") == 0
    assert (tmp_path / "here" / "in.xml").exists()


def test_a_model_is_not_replaced_by_itself(source, monkeypatch, capsys):
    monkeypatch.chdir(source.parent)
    before = source.read_bytes(), source.with_suffix(".bin").read_bytes()
    assert ours("in.xml") == 1 and "would replace the model in.xml" in capsys.readouterr().err
    assert (source.read_bytes(), source.with_suffix(".bin").read_bytes()) == before
    assert ours("in.xml", "--output_model", "in.xml") == 0  # which is what was asked for


@pytest.mark.parametrize(
    ("described", "shapes"),
    [
        ("a[4,?],b[1..5,2]", ["[4,?]", "[1..5,2]"]),
        ("b[7,1]", ["[2,3]", "[7,1]"]),
        ("[6,6],[5,?]", ["[6,6]", "[5,?]"]),
        ("a,b", ["[2,3]", "[2,3]"]),
    ],
)
def test_inputs_are_given_shapes(source, tmp_path, described, shapes):
    assert ours(source, "--input", described, "--output_model", tmp_path / "out.xml") == 0
    model = ovjit.Core().read_model(tmp_path / "out.xml")
    assert [str(model.input(name).partial_shape) for name in "ab"] == shapes


@pytest.mark.parametrize("args", [["--input", "a[1"], ["--input", "a[2,3]{f16}"],
                                  ["--extension", "lib.so"], ["--input", "c[1,2]"],
                                  ["--input", "[2,3],b[2,3]"], ["--input", "a,,b"], ["--output", ""],
                                  ["--output", "s,"], ["--output", "s r"]])  # fmt: skip
def test_what_is_refused(source, tmp_path, args, capsys):
    assert ours(source, *args, "--output_model", tmp_path / "out.xml") == 1
    assert not (tmp_path / "out.xml").exists() and "[ ERROR ]" in capsys.readouterr().err


def test_one_model_is_converted(source, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        ours(source, source, "--output_model", tmp_path / "out.xml")
    assert ended.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err
    assert not (tmp_path / "out.xml").exists()


def test_what_is_said_of_a_conversion(source, tmp_path, capsys):
    assert ours(source, "--output_model", tmp_path / "out", "--verbose") == 0
    said = capsys.readouterr().out
    assert f"IR output name: \t{tmp_path / 'out.xml'}" in said
    assert said.index("FP16") < said.index("SUCCESS")
    assert ours(source, "--output_model", tmp_path / "out", "--compress_to_fp16=False") == 0
    assert "FP16" not in capsys.readouterr().out


def test_the_usage_is_as_in_openvino():
    parsers = [importlib.import_module(f"{name}.tools.ovc.cli_parser") for name in ("ovjit", "openvino")]
    said = [parser.get_all_cli_parser() for parser in parsers]
    for parser in said:
        parser.prog = "ovc"
    assert said[0].format_usage().split() == said[1].format_usage().split()


def test_it_runs_as_a_module_under_the_other_name(source, tmp_path):
    command = ["-m", "ovjit", "run", "-m", "openvino.tools.ovc"]
    said = printed(*command, source, "--output_model", tmp_path / "x")
    assert "SUCCESS" in said and (tmp_path / "x.xml").exists()
    assert "usage" in printed(*command, "--help")


def texts(ov_name: str) -> Any:
    """What a package reads in the texts and objects that inputs are described with."""
    parser = importlib.import_module(f"{ov_name}.tools.ovc.cli_parser")
    package = importlib.import_module(ov_name)
    kinds, dim = package.Type, package.Dimension
    described = [
        None, "a,b[1]", ["a", "b"], [("a", [1, 2]), "b"], {"a": kinds.f32, "b": ([1, 2], np.int8)}, [1, 2],
        (1, 2), [[1, 2], [3]], [np.float32, [1]], np.float32, int, package.Shape([1, 2]), ("a", [1], [2]),
        ("a", [dim(1, 3), -1], np.int8), ("a", "b"), 5, {"a": (None, np.int8)},
        [("a", None), "b"], [None], (None, "a"), {"x": "y"}, {1: "y"}, [object()],
    ]  # fmt: skip
    written = ["a", "a,b", "a[1 2],b[]", "[1,2],[3]", "a[1..3, ?,-1,..4,5..]", "a[x]", "a[1", "a]1[", "",
               "a,", "a[1][2]", "a[1,2]b", "a->1", "1:a[3 1],b:2"]  # fmt: skip
    made = []
    for function, items in ((parser.input_to_input_cut_info, described), (parser.parse_inputs, written)):
        for item in items:
            try:
                made.append(str(function(item)))
            except Exception as error:
                made.append(re.sub("incorrect. .*", "incorrect", str(error).partition("\n")[0]))
    return [line.replace("ovjit", "openvino") for line in made]


def test_inputs_are_described_as_in_openvino():
    assert texts("ovjit") == texts("openvino")


def test_what_a_conversion_raises(source):
    model = str(source)
    for given, words in (({"input": "c"}, "No node with name c"), ({"output": "c"}, "No node with name c"),
                         ({"input": [[1], [2], [3]]}, "does not have enough inputs"),
                         ({"input": [("a", [1, 1]), [1, 1]]}, "unnamed inputs and named inputs"),
                         ({"output": 5}, "it should be string or a list")):  # fmt: skip
        with pytest.raises((Error, AssertionError), match=words):
            ovjit.convert_model(model, **given)
    a = ovjit.opset13.parameter([2, 3], np.float32)
    relu = ovjit.opset13.relu(a)
    relu.output(0).set_names({"relu"})
    other = ovjit.Model([ovjit.opset13.abs(relu)], [a])
    with pytest.raises(Error, match="Name relu is not found among model inputs"):
        ovjit.convert_model(other, input="relu")


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """An ONNX file of (a + b) @ w."""
    nodes = [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["z"])]
    a, b, z = (helper.make_tensor_value_info(n, 1, [2, 3 + (n == "z")]) for n in "abz")
    w = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    graph = helper.make_graph(nodes, "g", [a, b], [z], [w])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "product.onnx"
    )
    return tmp_path / "product.onnx"


@pytest.mark.parametrize("ov", [openvino, ovjit], ids=["openvino", "ovjit"])
def test_shapes_and_types_that_operations_do_not_take(product, ov):
    for given in ({"a": [4, 3]}, {"a": np.float16}, ([2, 3, 4], np.int32), [[2, 4], [2, 4]]):
        with pytest.raises(ov.frontend.OpConversionFailure):
            ov.convert_model(product, input=given)


@pytest.mark.parametrize("ov", [openvino, ovjit], ids=["openvino", "ovjit"])
def test_arguments_that_are_empty_or_of_no_kind(product, ov):
    assert len(ov.convert_model(product, output=[]).outputs) == 1
    with pytest.raises(RuntimeError, match="Path: '5' does not exist"):
        ov.convert_model(product, extension=[5])
    with pytest.raises(
        importlib.import_module(f"{ov.__name__}.tools.ovc.error").Error, match="is not existing|must be"
    ):
        ov.convert_model([product.with_name("none.onnx")])


def test_sizes_are_numbers_of_numpy_too(product):
    sizes = np.int64(5), np.int32(3)
    assert ovjit.convert_model(product, input=[sizes, sizes]).output().partial_shape == [5, 4]


@pytest.fixture
def forked(tmp_path: Path) -> Path:
    """An ONNX file of relu(a), abs(a) and -a."""
    nodes = [
        helper.make_node(kind, ["a"], [name]) for kind, name in (("Relu", "r"), ("Abs", "s"), ("Neg", "t"))
    ]
    ends = {name: helper.make_tensor_value_info(name, 1, [2, 3]) for name in "arst"}
    graph = helper.make_graph(nodes, "g", [ends.pop("a")], list(ends.values()))
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "forked.onnx",
    )
    return tmp_path / "forked.onnx"


@pytest.mark.parametrize("ov", [openvino, ovjit], ids=["openvino", "ovjit"])
@pytest.mark.parametrize(("wanted", "made"), [
    ("t", "t"), ("ts", "ts"), ("tr", "tr"), ("tsr", "rst"), ("srt", "rst"), ("trt", "trt"), ("ss", "ss"),
    ("tsrt", "tsrt"),
])  # fmt: skip
def test_outputs_are_those_named_in_their_order(forked, ov, wanted, made):
    """All of the model's stay as they were."""
    model = ov.convert_model(forked, output=list(wanted))
    assert "".join(port.get_any_name() for port in model.outputs) == made
    given = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)
    found = ov.compile_model(model, "CPU")(given)
    expected = {"r": np.maximum(given, 0), "s": np.abs(given), "t": -given}
    for index, name in enumerate(made):
        np.testing.assert_array_equal(found[index], expected[name])


def test_outputs_are_between_commas_and_spaces(product, tmp_path):
    assert ours(product, "--output", " z , z", "--output_model", tmp_path / "out") == 0
    assert len(ovjit.Core().read_model(tmp_path / "out.xml").outputs) == 2


def test_a_file_says_what_it_was_made_of(source, tmp_path):
    assert ours(source, "--output_model", tmp_path / "out") == 0
    converted, written = ovjit.convert_model(source.as_posix()), ovjit.Core().read_model(tmp_path / "out.xml")
    for model in (converted, written):
        assert model.get_rt_info("Runtime_version").value == ovjit.get_version()
    assert converted.get_rt_info(["conversion_parameters", "input_model"]).value == "DIR/in.xml"
    assert "OpenVINO Runtime" in written.get_rt_info()


@pytest.mark.parametrize("args", [
    [], ["--compress_to_fp16=False"], ["--compress_to_fp16", "True"],
    ["--input", "a[2,3]", "--output", "t"], ["--verbose", "--dynamo"],
])  # fmt: skip
def test_a_file_has_the_options_of_the_command(forked, tmp_path, monkeypatch, args):
    found = []
    for name, package in (("openvino", openvino), ("ovjit", ovjit)):
        out = tmp_path / "out.xml"
        monkeypatch.setattr(sys, "argv", ["ovc", str(forked), "--output_model", str(out), *args])
        assert importlib.import_module(f"{name}.tools.ovc.main").main() == 0
        told = package.Core().read_model(out).get_rt_info(["conversion_parameters"])
        found.append({key: str(value) for key, value in told.astype(dict).items()})
    assert found[0] == found[1] and found[1]["output_model"]
