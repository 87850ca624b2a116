"""InputModels of ONNX: places are those of the file, and edits change its graph. Numbers are NumPy's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx import helper as make

import ovjit as ov
from ovjit.compat.frontend.extensions import ConversionExtension
from ovjit.compat.frontend.failures import NotImplementedFailure
from ovjit.compat.frontend.frontend import FrontEndManager

RNG = np.random.default_rng(20261127)
A, B = (RNG.normal(size=(2, 3)).astype(np.float32) for _ in range(2))
W = RNG.normal(size=(3, 4)).astype(np.float32)
C = RNG.normal(size=4).astype(np.float32)


@pytest.fixture
def front():
    return FrontEndManager().load_by_framework("onnx")


@pytest.fixture
def loaded(front, tmp_path: Path):
    """Nodes that become several operations, one without a name, and one that nothing converts."""
    nodes = [
        make.make_node("Add", ["a", "b"], ["sum"]),
        make.make_node("Split", ["sum"], ["top", "rest"], name="halves", axis=0),
        make.make_node("Gemm", ["sum", "w", "c"], ["dense"], name="fc", alpha=2.0, beta=0.5),
        make.make_node("Mul", ["dense", "dense"], ["square"], name="times"),
        make.make_node("Foo", ["rest"], ["foo"], name="unknown"),
        make.make_node("Abs", ["foo"], ["last"], name="abs"),
    ]
    info = make.make_tensor_value_info
    inputs = [info(name, TensorProto.FLOAT, [2, 3]) for name in "ab"]
    outputs = [info("top", TensorProto.FLOAT, [1, 3]), info("square", TensorProto.FLOAT, [2, 4]),
               info("last", TensorProto.FLOAT, [1, 3])]  # fmt: skip
    values = [onnx.numpy_helper.from_array(value, name) for value, name in ((W, "w"), (C, "c"))]
    graph = make.make_graph(nodes, "g", inputs, outputs, values)
    path = tmp_path / "m.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)]), path)
    return front.load(str(path))


def tensor(loaded, name):
    return loaded.get_place_by_tensor_name(tensor_name=name)


def operation(loaded, name):
    return loaded.get_place_by_operation_name(operation_name=name)


def names(places):
    return [place.get_names()[0] for place in places]


def run(front, loaded, *values):
    model = front.convert(loaded)
    return [*ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(list(values)).values()]


def dense(x):
    return 2 * x @ W + 0.5 * C


def test_operations_have_the_names_and_ports_of_the_file(loaded) -> None:
    port = loaded.get_place_by_operation_name_and_input_port("halves", 0)
    assert port.is_equal(tensor(loaded, "rest").get_producing_operation().get_input_port(input_port_index=0))
    assert (
        loaded.get_place_by_operation_name_and_output_port("halves", 1).get_target_tensor().is_output()
        is False
    )
    assert names([operation(loaded, "fc").get_source_tensor(input_port_index=i) for i in range(3)]) == [
        "sum", "w", "c",
    ]  # fmt: skip
    assert operation(loaded, "fc").get_input_port(input_port_index=3) is None
    assert names(tensor(loaded, "sum").get_consuming_operations()) == ["halves", "fc"]
    assert names([tensor(loaded, "sum").get_producing_operation()]) == [""]
    assert [p.is_equal(operation(loaded, "times").get_input_port(input_port_index=i))
            for i, p in enumerate(tensor(loaded, "dense").get_consuming_ports())] == [True, True]  # fmt: skip
    assert operation(loaded, "halves").get_target_tensor() is None
    assert operation(loaded, "halves").get_output_port(output_name="top").is_output()
    assert operation(loaded, "") is None and operation(loaded, "none") is None
    assert port.is_equal_data(tensor(loaded, "sum")) and not port.is_equal_data(tensor(loaded, "a"))


def test_a_part_of_the_file_is_taken(front, loaded) -> None:
    """Between a port of a node that becomes several operations, and its output."""
    loaded.extract_subgraph(
        [operation(loaded, "fc").get_input_port(input_port_index=0)], [tensor(loaded, "dense")]
    )
    assert names(loaded.get_inputs()) == ["dense/placeholder_port_0"] and names(loaded.get_outputs()) == [
        "dense"
    ]
    np.testing.assert_allclose(run(front, loaded, A)[0], dense(A), rtol=1e-5)


def test_edits_come_before_extensions_that_are_added_later(front, loaded) -> None:
    loaded.remove_output(tensor(loaded, "top"))
    loaded.cut_and_add_new_input(operation(loaded, "times").get_input_port(input_port_index=1), "factor")
    loaded.set_tensor_value(tensor(loaded, "b"), B)
    assert names(loaded.get_inputs()) == ["a", "factor"]
    front.add_extension(ConversionExtension("Foo", lambda n: ov.opset13.relu(n.get_input(0)).outputs()))
    factor = RNG.normal(size=(2, 4)).astype(np.float32)
    square, last = run(front, loaded, A, factor)
    np.testing.assert_allclose(square, dense(A + B) * factor, rtol=1e-4)
    np.testing.assert_allclose(last, np.maximum(A + B, 0)[1:], rtol=1e-6)
    front.add_extension(ConversionExtension("Foo", lambda n: ov.opset13.negative(n.get_input(0)).outputs()))
    np.testing.assert_allclose(run(front, loaded, A, factor)[1], np.abs(A + B)[1:], rtol=1e-6)


def test_inputs_are_chosen_anew(front, loaded) -> None:
    """Inputs that are needed beside those that are chosen stay, before them."""
    loaded.override_all_outputs([tensor(loaded, "square"), tensor(loaded, "sum")])
    loaded.override_all_inputs([tensor(loaded, "a")])
    assert names(loaded.get_inputs()) == ["a", "b"]
    loaded.override_all_inputs([tensor(loaded, "dense"), tensor(loaded, "b")])
    assert names(loaded.get_inputs()) == ["a", "b", "dense"]
    given = dense(A)
    square, total = run(front, loaded, A, B, given)
    np.testing.assert_allclose(square, given**2, rtol=1e-5)
    np.testing.assert_allclose(total, A + B, rtol=1e-6)


@pytest.mark.parametrize("cut", [False, True])
def test_one_of_several_outputs_is_replaced(front, loaded, cut) -> None:
    """The node that made it is still there for its other output."""
    front.add_extension(ConversionExtension("Foo", lambda n: ov.opset13.relu(n.get_input(0)).outputs()))
    loaded.override_all_outputs([tensor(loaded, "top"), tensor(loaded, "last")])
    given = RNG.normal(size=(1, 3)).astype(np.float32)
    if cut:
        loaded.cut_and_add_new_input(tensor(loaded, "rest"))
        assert names(loaded.get_inputs()) == ["a", "b", "rest"]
        top, last = run(front, loaded, A, B, given)
    else:
        loaded.set_tensor_value(tensor(loaded, "rest"), given)
        top, last = run(front, loaded, A, B)
    np.testing.assert_allclose(top, (A + B)[:1], rtol=1e-6)
    np.testing.assert_allclose(last, np.maximum(given, 0))


def test_names_of_tensors_and_operations(front, loaded) -> None:
    loaded.override_all_outputs([tensor(loaded, "square")])
    place = tensor(loaded, "dense")
    loaded.set_name_for_tensor(place, "dense")
    for name, words in (("", "must not be empty"), ("a", "already used by another tensor")):
        with pytest.raises(RuntimeError, match=words):
            loaded.set_name_for_tensor(place, name)
    loaded.set_name_for_tensor(place, "layer")
    assert tensor(loaded, "dense") is None and tensor(loaded, "layer").is_equal(place)
    loaded.add_name_for_tensor(tensor(loaded, "a"), "first")
    with pytest.raises(NotImplementedFailure, match="free_name_for_tensor is not applicable for ONNX"):
        loaded.free_name_for_tensor("a")
    times = operation(loaded, "times")
    loaded.set_name_for_operation(times, "product")
    assert operation(loaded, "times") is None and operation(loaded, "product").is_equal(times)
    loaded.free_name_for_operation("product")
    assert operation(loaded, "product") is None
    model = front.convert(loaded)
    assert [port.get_names() for port in model.inputs] == [{"a", "first"}, {"b"}]
    assert "layer" in {
        name for node in model.get_ops() for port in node.outputs() for name in port.get_names()
    }
    np.testing.assert_allclose(run(front, loaded, A, B)[0], dense(A + B) ** 2, rtol=1e-4)


def test_dimensions_get_names(front, loaded) -> None:
    loaded.override_all_outputs([tensor(loaded, "square")])
    for name in "ab":
        loaded.set_name_for_dimension(tensor(loaded, name), 0, "batch")
        assert loaded.get_partial_shape(tensor(loaded, name)) == ov.PartialShape([-1, 3])
    for place, name, words in (
        ("a", "", "must not be empty"),
        ("w", "n", "initializer"),
        ("dense", "n", "dense"),
    ):
        with pytest.raises(RuntimeError, match=words):
            loaded.set_name_for_dimension(tensor(loaded, place), 0, name)
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(run(front, loaded, x, x)[0], dense(2 * x) ** 2, rtol=1e-4)


def test_ranges_of_dimensions_are_kept(front, loaded) -> None:
    loaded.override_all_outputs([tensor(loaded, "sum")])
    shape = ov.PartialShape([ov.Dimension(1, 5), ov.Dimension(3)])
    for name in "ab":
        loaded.set_partial_shape(tensor(loaded, name), shape)
    assert front.convert(loaded).output(0).get_partial_shape() == shape


@pytest.mark.parametrize("form", ["path", "bytes", "stream", "proto"])
def test_a_graph_in_memory_is_edited(front, tmp_path: Path, form) -> None:
    info = [make.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xz"]
    nodes = [make.make_node("Relu", ["x"], ["y"]), make.make_node("Neg", ["y"], ["z"])]
    proto = make.make_model(
        make.make_graph(nodes, "g", info[:1], info[1:]), opset_imports=[make.make_opsetid("", 13)]
    )
    before = proto.SerializeToString()
    (tmp_path / "m.onnx").write_bytes(before)
    forms = {"path": tmp_path / "m.onnx", "bytes": before, "stream": io.BytesIO(before), "proto": proto}
    model = front.load(forms[form])
    model.cut_and_add_new_input(tensor(model, "y"))
    x = np.array([-1, 2], np.float32)
    np.testing.assert_array_equal(run(front, model, x)[0], -x)
    assert proto.SerializeToString() == before
    with pytest.raises(TypeError):
        front.load(3)


def test_what_bodies_take_is_renamed_and_cut(front, tmp_path: Path) -> None:
    info = make.make_tensor_value_info
    make_body = lambda kind: make.make_graph(  # noqa: E731
        [make.make_node(kind, ["y"], ["r"])], "b", [], [info("r", TensorProto.FLOAT, None)]
    )
    nodes = [
        make.make_node("Relu", ["x"], ["y"]),
        make.make_node(
            "If", ["c"], ["z"], name="if", then_branch=make_body("Exp"), else_branch=make_body("Neg")
        ),
    ]
    graph = make.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, [2]), info("c", TensorProto.BOOL, [])],
        [info("z", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    path = tmp_path / "if.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)]), path)
    model = front.load(str(path))
    model.set_name_for_tensor(tensor(model, "y"), "inner")
    x = np.array([-1, 2], np.float32)
    np.testing.assert_allclose(run(front, model, x, np.array(True))[0], np.exp(np.maximum(x, 0)), rtol=1e-5)
