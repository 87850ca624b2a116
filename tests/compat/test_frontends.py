"""Front ends and what extends them, beside OpenVINO's."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import openvino.frontend.onnx
import ovjit.frontend.onnx
import pytest
from onnx import TensorProto
from onnx import helper as make

import ovjit

BOTH = [openvino, ovjit]
pytestmark = pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
X = np.array([[-1.0, 0.5, 2.0]], np.float32)


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """x + [1, 2, 3], then an unknown operator."""
    nodes = [
        make.make_node("Add", ["x", "w"], ["y"]),
        make.make_node("Foo", ["y"], ["z"], alpha=0.5, times=3),
    ]
    x, z = (make.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xz")
    graph = make.make_graph(nodes, "g", [x], [z], [make.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3])])
    path = tmp_path / "unknown.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)]), path)
    return path


def converted(ov: Any, path: Path, *extensions: Any) -> Any:
    front = ov.frontend.FrontEndManager().load_by_framework("onnx")
    for extension in extensions:
        front.add_extension(extension)
    return front.convert(front.load(str(path)))


def infer(ov: Any, model: Any, x: np.ndarray = X) -> np.ndarray:
    return ov.compile_model(model, "CPU", F32)(x)[0]


def test_an_operator_that_nothing_converts(ov, unknown):
    with pytest.raises(
        ov.frontend.OpConversionFailure, match="No conversion rule found for operations: .*Foo"
    ):
        converted(ov, unknown)


def test_what_convert_model_raises_for_an_operator_that_nothing_converts(ov, unknown):
    proto = onnx.load(unknown)
    proto.graph.node[1].domain = "com.example"
    proto.opset_import.append(make.make_opsetid("com.example", 3))
    onnx.save(proto, unknown)
    with pytest.raises(ov.frontend.OpConversionFailure, match=r"operations: com\.example\.Foo\b(?!-3)"):
        ov.convert_model(str(unknown))


def missing(context: Any) -> Any:
    return [context.get_attribute("missing")]


def broken(context: Any) -> Any:
    raise KeyError("mine")


@pytest.mark.parametrize("converter, words", [
    (missing, "Attribute missing can't be converted to defined types"), (broken, "KeyError: 'mine'"),
])  # fmt: skip
def test_a_converter_that_raises(ov, unknown, converter, words):
    extension = ov.frontend.onnx.ConversionExtension("Foo", converter)
    core = ov.Core()
    core.add_extension(extension)
    ways = [
        (RuntimeError, lambda: core.read_model(str(unknown))),
        (ov.frontend.OpConversionFailure, lambda: ov.convert_model(str(unknown), extension=extension)),
        (ov.frontend.OpConversionFailure, lambda: converted(ov, unknown, extension)),
    ]
    for kind, way in ways:
        with pytest.raises(kind, match="Conversion is failed for: Foo") as caught:
            way()
        assert words in str(caught.value)


def test_a_converter_in_python(ov, unknown):
    seen = []

    def foo(context: Any) -> Any:
        seen.append((context.get_op_type(""), context.get_input_size(), context.has_attribute("none")))
        seen.append((context.get_attribute("times"), context.get_attribute("none", 7)))
        return ov.opset8.multiply(context.get_input(0), np.float32(context.get_attribute("alpha"))).outputs()

    model = converted(ov, unknown, ov.frontend.onnx.ConversionExtension("Foo", foo))
    np.testing.assert_allclose(infer(ov, model), (X + [1, 2, 3]) * 0.5)
    assert seen == [("Foo", 1, False), (3, 7)]
    assert model.output().get_names() == {"z"}


def test_a_converter_given_to_core(ov, unknown):
    core = ov.Core()
    extension = ov.frontend.onnx.ConversionExtension(
        "Foo", lambda n: ov.opset8.relu(n.get_input(0)).outputs()
    )
    core.add_extension(extension)
    np.testing.assert_allclose(infer(ov, core.read_model(unknown)), np.maximum(X + [1, 2, 3], 0))


def test_an_operation_under_another_name(ov, unknown):
    model = converted(ov, unknown, ov.frontend.onnx.OpExtension("opset8.Elu", "Foo"))
    y = X + [1, 2, 3]
    np.testing.assert_allclose(infer(ov, model), np.where(y < 0, 0.5 * np.expm1(y), y), rtol=1e-5)
    model = converted(ov, unknown, ov.frontend.onnx.OpExtension("opset8.Swish", "Foo", {}, {}))
    np.testing.assert_allclose(infer(ov, model), y / (1 + np.exp(-y)), rtol=1e-5)


@pytest.mark.parametrize("form", ["text", "bytes"])
def test_a_model_from_memory(ov, tmp_path, form):
    x = ov.opset13.parameter([1, 3], np.float32, name="x")
    model = ov.Model([ov.opset13.add(x, np.array([1, 2, 3], np.float32))], [x], "m")
    ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    text, weights = (tmp_path / "m.xml").read_text(), (tmp_path / "m.bin").read_bytes()
    core = ov.Core()
    if form == "text":
        read = core.read_model(text, ov.Tensor(np.frombuffer(weights, np.uint8)))
    else:
        read = core.read_model(text.encode(), weights)
    np.testing.assert_array_equal(infer(ov, read), X + [1, 2, 3])


@pytest.fixture
def forked(tmp_path: Path) -> Path:
    """(a + b), which is an output twice, and its absolute value."""
    nodes = [make.make_node("Add", ["a", "b"], ["s"]), make.make_node("Abs", ["s"], ["t"])]
    a, b, s, t = (make.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "abst")
    graph = make.make_graph(nodes, "g", [a, b], [s, s, t])
    path = tmp_path / "forked.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)]), path)
    return path


def test_inputs_are_given_other_shapes_one_after_the_other(ov, forked):
    front = ov.frontend.FrontEndManager().load_by_framework("onnx")
    loaded = front.load(str(forked))
    a, b = (loaded.get_place_by_tensor_name(tensor_name=name) for name in "ab")
    loaded.set_partial_shape(a, ov.PartialShape([4, 5]))
    assert loaded.get_partial_shape(a) == ov.PartialShape([4, 5])
    loaded.set_partial_shape(b, ov.PartialShape([4, 5]))
    assert front.convert(loaded).output("t").partial_shape == ov.PartialShape([4, 5])


def test_shapes_that_never_fit_are_found_at_the_conversion(ov, forked):
    front = ov.frontend.FrontEndManager().load_by_framework("onnx")
    loaded = front.load(str(forked))
    loaded.set_partial_shape(loaded.get_place_by_tensor_name(tensor_name="a"), ov.PartialShape([4, 5]))
    with pytest.raises(ov.frontend.OpConversionFailure, match="Argument shapes are inconsistent"):
        front.convert(loaded)


def test_an_output_that_is_chosen_twice_is_there_twice(ov, forked):
    front = ov.frontend.FrontEndManager().load_by_framework("onnx")
    loaded = front.load(str(forked))
    place = loaded.get_place_by_tensor_name(tensor_name="s")
    loaded.override_all_outputs([place, place])
    model = front.convert(loaded)
    assert [result.input_value(0).any_name for result in model.get_results()] == ["s", "s"]
    assert len({result.get_instance_id() for result in model.get_results()}) == 2
    assert len(model.get_ordered_ops()) == 5


def test_types_between_inputs_and_outputs_are_open_until_the_conversion(ov, tmp_path):
    nodes = [make.make_node("Add", ["a", "a"], ["s"]), make.make_node("Abs", ["s"], ["t"])]
    a, t = (make.make_tensor_value_info(name, TensorProto.INT32, [2]) for name in "at")
    onnx.save(make.make_model(make.make_graph(nodes, "g", [a], [t])), tmp_path / "int.onnx")
    loaded = ov.frontend.FrontEndManager().load_by_framework("onnx").load(str(tmp_path / "int.onnx"))
    types = [loaded.get_element_type(loaded.get_place_by_tensor_name(tensor_name=name)) for name in "ast"]
    assert types == [ov.Type.i32, ov.Type.dynamic, ov.Type.i32]


def test_operators_are_converted_when_it_is_asked_for(ov, unknown):
    front = ov.frontend.FrontEndManager().load_by_framework("onnx")
    loaded, failing = front.load(str(unknown)), front.load(str(unknown))
    with pytest.raises(ov.frontend.OpConversionFailure):
        front.convert(failing)
    abs_of = ov.frontend.onnx.ConversionExtension("Foo", lambda c: ov.opset13.abs(c.get_input(0)).outputs())
    front.add_extension(abs_of)
    np.testing.assert_array_equal(infer(ov, front.convert(loaded)), np.abs(X + [[1, 2, 3]]))


@pytest.mark.parametrize("returned", ["number", "failure", "node", "output", "nodes", "none"])
def test_a_converter_that_fails(ov, unknown, returned):
    """A list of Outputs is what a converter returns: what only resembles one is an error."""

    def foo(context: Any) -> Any:
        node = ov.opset13.abs(context.get_input(0))
        forms = {"number": 5, "node": node, "output": node.output(0), "nodes": [node], "none": None}
        return forms[returned]  # KeyError for the failure

    extension = ov.frontend.onnx.ConversionExtension("Foo", foo)
    with pytest.raises(ov.frontend.OpConversionFailure):
        converted(ov, unknown, extension)


def test_front_ends_by_their_names(ov):
    """GGUF's is there by its name alone."""
    manager = ov.frontend.FrontEndManager()
    listed = ["ir", "jax", "onnx", "paddle", "pytorch", "tf", "tflite"]
    assert sorted(manager.get_available_front_ends()) == listed
    assert [manager.load_by_framework(name).get_name() for name in [*listed, "gguf"]] == [*listed, "gguf"]
    for name in ("TF", "tensorflow", "", "nope"):
        with pytest.raises(ov.frontend.InitializationFailure, match=f"Framework {name} is not found"):
            manager.load_by_framework(name)
    assert manager.load_by_model(object()) is None
    assert not manager.load_by_framework("jax").supported(object())
    with pytest.raises(ov.frontend.GeneralFailure):
        manager.load_by_framework("pytorch").load(object())


def test_what_a_file_holds_says_whether_it_can_be_read(ov, unknown, tmp_path):
    manager = ov.frontend.FrontEndManager()
    front, junk = manager.load_by_framework("onnx"), tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    assert [front.supported(x) for x in (str(unknown), str(junk), [str(unknown)])] == [True, False, False]
    for given in ("", str(tmp_path / "none.onnx")):
        with pytest.raises(ov.frontend.GeneralFailure):
            manager.load_by_model(given)
    with pytest.raises(TypeError):
        manager.load_by_framework(5)
    with pytest.raises(TypeError, match="Please provide a valid"):
        front.convert(5)


@pytest.mark.parametrize("name", ["two", "two.dat", "two.pb"])
def test_contents_tell_a_format_that_a_name_does_not(ov, forked, tmp_path, name):
    path = forked.rename(tmp_path / name)
    front = ov.frontend.FrontEndManager().load_by_model(str(path))
    assert front.get_name() == "onnx"
    for model in (front.convert(front.load(str(path))), ov.Core().read_model(path), ov.convert_model(path)):
        assert model.output("t").partial_shape == [2, 3]


def test_a_name_does_not_make_a_model(ov, forked, tmp_path):
    manager, whole = ov.frontend.FrontEndManager(), forked.read_bytes()
    contents = {"cut.onnx": whole[: len(whole) // 2], "empty.onnx": b"", "empty.xml": b"", "empty.pb": b"",
                "noise.pb": b"\xff\xff\xff", "cut.pb": b"\n\x09\n\x01x",
                "page.xml": b"<html/>", "old.xml": b'<net version="1"/>'}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert manager.load_by_model(str(tmp_path / name)) is None, name
        with pytest.raises(importlib.import_module(f"{ov.__name__}.tools.ovc.error").Error):
            ov.convert_model(tmp_path / name)
    with pytest.raises(ov.frontend.GeneralFailure):
        manager.load_by_model(str(tmp_path))  # a folder without a model
    (tmp_path / "ir.xml").write_text('<net name="n" version="11"><layers/><edges/></net>')
    assert manager.load_by_model(str(tmp_path / "ir.xml")).get_name() == "ir"
    with pytest.raises(ov.frontend.GeneralFailure):
        manager.load_by_framework("onnx").load(str(tmp_path / "ir.xml"))


def test_a_converter_is_of_one_domain(ov, unknown):
    proto = onnx.load(unknown)
    proto.graph.node[1].domain = "com.example"
    proto.opset_import.append(make.make_opsetid("com.example", 3))
    onnx.save(proto, unknown)

    def foo(context: Any) -> Any:
        return ov.opset13.abs(context.get_input(0)).outputs()

    kind = ov.frontend.onnx.ConversionExtension
    y = X + [1, 2, 3]
    np.testing.assert_allclose(infer(ov, converted(ov, unknown, kind("Foo", "com.example", foo))), np.abs(y))
    elu = ov.frontend.onnx.OpExtension("opset1.Elu", "Foo", "com.example", {}, {"alpha": 0.5})
    np.testing.assert_allclose(
        infer(ov, converted(ov, unknown, elu)), np.where(y < 0, np.expm1(y) / 2, y), rtol=1e-5
    )
    for other in (
        kind("Foo", foo),
        kind("Foo", "com.other", foo),
        ov.frontend.onnx.OpExtension("Abs", "Foo"),
    ):
        with pytest.raises(ov.frontend.OpConversionFailure, match="No conversion rule found"):
            converted(ov, unknown, other)


def test_inputs_of_a_converter_are_counted_from_0(ov, unknown):
    seen = []

    def foo(context: Any) -> Any:
        for index in (-1, 1):
            with pytest.raises(IndexError):
                context.get_input(index)
        seen.append(context.get_input_size())
        return ov.opset13.abs(context.get_input(0)).outputs()

    converted(ov, unknown, ov.frontend.onnx.ConversionExtension("Foo", foo))
    assert seen == [1]


def test_more_steps_than_there_are(ov):
    with pytest.raises(ov.frontend.GeneralFailure):
        ov.frontend.ProgressReporterExtension(lambda *steps: None).report_progress(0.5, 10, 11)


def test_all_names_of_the_module_leave_onnx_alone(ov):
    assert "onnx" not in getattr(ov.frontend, "__all__", ())  # `import onnx` before it is ONNX's package


@pytest.mark.parametrize("framework", ["tensorflow", "paddle"])
def test_an_extension_for_another_framework_converts_nothing_of_onnx(ov, unknown, framework):
    module = importlib.import_module(f"{ov.__name__}.frontend.{framework}")
    extension = module.ConversionExtension("Foo", lambda c: ov.opset13.abs(c.get_input(0)).outputs())
    with pytest.raises(ov.frontend.OpConversionFailure):
        converted(ov, unknown, extension)


@pytest.mark.parametrize("name", ["tf", "paddle"])
def test_a_file_of_another_framework_is_not_loaded(ov, unknown, name):
    front = ov.frontend.FrontEndManager().load_by_framework(name)
    assert not front.supported(str(unknown))
    with pytest.raises(ov.frontend.GeneralFailure):
        front.load(str(unknown))


def test_a_graph_of_tensorflow_is_no_ir(ov, tmp_path):
    (tmp_path / "m.pb").write_bytes(b"\x0a\x05\x0a\x01x\x12\x00")
    front = ov.frontend.FrontEndManager().load_by_framework("ir")
    with pytest.raises((RuntimeError, ov.frontend.GeneralFailure)):
        front.load(str(tmp_path / "m.pb"))


def test_a_place_that_is_not_there(ov, forked):
    front = ov.frontend.FrontEndManager().load_by_framework("onnx")
    loaded = front.load(str(forked))
    nowhere = loaded.get_place_by_tensor_name(tensor_name="nowhere")
    assert nowhere is None
    edits = [
        lambda: loaded.get_partial_shape(nowhere),
        lambda: loaded.set_partial_shape(nowhere, ov.PartialShape([2, 3])),
        lambda: loaded.get_element_type(nowhere),
        lambda: loaded.set_element_type(nowhere, ov.Type.f32),
        lambda: loaded.override_all_outputs([nowhere]),
    ]
    for edit in edits:
        with pytest.raises(ov.frontend.GeneralFailure):
            edit()
