"""Operations written in Python, beside the real OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit

BOTH = [openvino, ovjit]


def plus(ov: Any) -> Any:
    class Plus(ov.Op):
        """x + amount"""

        def __init__(self, inputs: Any = None, **attrs: Any):
            super().__init__(self, inputs)
            self._attrs = attrs

        def validate_and_infer_types(self) -> None:
            self.set_output_type(0, self.get_input_element_type(0), self.get_input_partial_shape(0))

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            if outputs[0].shape != inputs[0].shape:
                outputs[0].shape = inputs[0].shape
            outputs[0].data[...] = inputs[0].data + 1
            return True

        def has_evaluate(self) -> bool:
            return True

        def visit_attributes(self, visitor: Any) -> bool:
            visitor.on_attributes(self._attrs)
            return True

    return Plus


def model(ov: Any, shape: Any = (-1, 3)) -> Any:
    x = ov.opset13.parameter(list(shape), name="x")
    node = plus(ov)([x], amount=3, text="t")
    return ov.Model([ov.opset13.relu(node, name="relu")], [x], "m")


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_what_it_is(ov):
    node = model(ov).get_ordered_ops()[1]
    assert node.get_type_name() == "Plus" and type(node).__name__ == "Plus"
    assert node.get_type_info().version_id == "extension"
    assert str(node.get_output_partial_shape(0)) == "[?,3]"
    assert node.get_attributes() == {"amount": 3, "text": "t"}


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_an_array_among_the_attributes_becomes_a_list(ov):
    attrs = {"numbers": np.array([1.5, 2.5], np.float32)}
    node = plus(ov)([ov.opset13.parameter([2], name="x")], **attrs)
    assert node.get_attributes() == {"numbers": [1.5, 2.5]}
    assert isinstance(node._attrs["numbers"], list)


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_it_runs_alone_and_in_a_model(ov):
    made = model(ov)
    made.reshape([2, 3])
    assert str(made.output(0).get_partial_shape()) == "[2,3]"
    x = np.full((2, 3), -0.5, np.float32)
    assert ov.compile_model(made, "CPU")(x)[0].tolist() == [[0.5] * 3] * 2
    outputs = [ov.Tensor(np.zeros((2, 3), np.float32))]
    assert made.get_ordered_ops()[1].evaluate(outputs, [ov.Tensor(x)])
    assert outputs[0].data.tolist() == [[0.5] * 3] * 2
    assert made.clone().get_ordered_ops()[1].get_type_name() == "Plus"


def test_open_shapes_copies_and_the_original():
    made = model(ovjit)
    compiled = ovjit.compile_model(made, "CPU")
    copy = ovjit.compile_model(made.clone(), "CPU")
    for rows in (1, 5, 2):
        x = np.ones((rows, 3), np.float32)
        assert compiled(x)[0].tolist() == copy(x)[0].tolist() == [[2.0] * 3] * rows
    assert made.clone().get_ordered_ops()[1].get_attributes() == {"amount": 3, "text": "t"}


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_files_need_the_extension(ov, tmp_path):
    ov.save_model(model(ov, (2, 3)), tmp_path / "m.xml")
    with pytest.raises(RuntimeError):
        ov.Core().read_model(tmp_path / "m.xml")
    core = ov.Core()
    core.add_extension(plus(ov))
    read = core.read_model(tmp_path / "m.xml")
    assert core.compile_model(read, "CPU")(np.ones((2, 3), np.float32))[0].tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_a_type_of_ones_own_name_and_version(ov, tmp_path):
    class Renamed(plus(ov)):  # type: ignore[misc]
        class_type_info = ov.DiscreteTypeInfo("More", "mine")

        def get_type_info(self) -> Any:
            return Renamed.class_type_info

    x = ov.opset13.parameter([2, 3], name="x")
    ov.save_model(ov.Model([Renamed([x])], [x], "m"), tmp_path / "m.xml")
    core = ov.Core()
    core.add_extension(plus(ov))  # of another name and version
    with pytest.raises(RuntimeError):
        core.read_model(tmp_path / "m.xml")
    core.add_extension(Renamed)
    node = core.read_model(tmp_path / "m.xml").get_ordered_ops()[1]
    assert (node.get_type_name(), node.get_type_info().version_id) == ("More", "mine")


def test_attributes_are_read_back(tmp_path):
    ovjit.save_model(model(ovjit, (2, 3)), tmp_path / "m.xml")

    class Plus(plus(ovjit)):  # type: ignore[misc]
        def __init__(self, inputs: Any = None):
            super().__init__(inputs, amount=0, text="")

    core = ovjit.Core()
    core.add_extension([ovjit.OpExtension(Plus)])
    node = core.read_model(tmp_path / "m.xml").get_ordered_ops()[1]
    assert node.get_attributes() == {"amount": 3, "text": "t"}


def test_a_constant_made_late():
    calls = []

    def maker() -> Any:
        calls.append(1)
        return ovjit.Tensor(np.array([1, 2], np.float32))

    late = ovjit.utils.make_postponed_constant(ovjit.Type.f32, ovjit.Shape([2]), maker)
    assert not calls
    x = ovjit.opset13.parameter([2])
    compiled = ovjit.compile_model(ovjit.Model([ovjit.opset13.add(x, late)], [x]), "CPU")
    assert compiled(np.zeros(2, np.float32))[0].tolist() == [1, 2] and calls


def test_evaluate_that_fails_names_the_node():
    class Broken(plus(ovjit)):  # type: ignore[misc]
        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            return False

    x = ovjit.opset13.parameter([2])
    node = Broken([x])
    node.set_friendly_name("the one")
    compiled = ovjit.compile_model(ovjit.Model([node], [x]), "CPU")
    with pytest.raises(RuntimeError, match="the one"):
        compiled(np.zeros(2, np.float32))


@pytest.mark.parametrize("wrong", ["/no/lib.so", 5, [plus, 3], int])
def test_extensions_that_are_none(wrong):
    with pytest.raises((RuntimeError, TypeError)):
        ovjit.Core().add_extension(wrong)


def test_it_is_neither_cached_nor_exported(tmp_path):
    x = np.full((2, 3), -0.5, np.float32)
    for _ in range(2):
        core = ovjit.Core()
        core.set_property({"CACHE_DIR": str(tmp_path)})
        compiled = core.compile_model(model(ovjit), "CPU")
        assert compiled(x)[0].tolist() == [[0.5] * 3] * 2
        assert not compiled.get_property("LOADED_FROM_CACHE")
    with pytest.raises(RuntimeError, match="Plus is written in Python"):
        compiled.export_model()
