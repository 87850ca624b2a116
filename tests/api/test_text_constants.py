"""Constants of texts: what is a text and what is refused, and files of them that are no UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.api.model.boundary import Constant

o = ov.opset15


def objects(*values: Any) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = [*values]
    return array


WRONG = {
    "None": objects("a", None), "number": objects("a", 3), "nan": objects(float("nan"), "a"),
    "truth": objects(True), "list": objects(["a", "b"], "c"), "dict": objects({"a": 1}),
    "bytearray": objects(bytearray(b"x")), "array": objects(np.array(["a", "b"]), "c"), "set": objects({1}),
}  # fmt: skip
MAKERS = {
    "Constant": lambda v: Constant(v),
    "Constant shared": lambda v: Constant(v, shared_memory=True),
    "Constant of values": lambda v: Constant(ov.Type.string, ov.Shape([len(v)]), v),
    "constant": lambda v: o.constant(v),
    "constant of strings": lambda v: o.constant(v, ov.Type.string),
    "constant of np.str_": lambda v: o.constant(v, np.str_),
    "constant shared": lambda v: o.constant(v, shared_memory=True),
    "opset8": lambda v: ov.opset8.constant(v, ov.Type.string),
    "an input": lambda v: o.string_tensor_unpack(v),
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_no_text_is_refused(make: Any, value: np.ndarray) -> None:
    kind = TypeError if make is MAKERS["an input"] else RuntimeError
    with pytest.raises(kind, match="Unsupported data type: object: element [01] is of"):
        make(value)


@pytest.mark.parametrize("value", [["a", None], [None], "list of lists"])
def test_lists_that_hold_no_texts_are_refused(value: Any) -> None:
    value = [["a"], [None]] if value == "list of lists" else value
    for element_type in (None, ov.Type.string, np.str_, bytes):
        with pytest.raises(RuntimeError, match="Unsupported data type: object: element [01] is of NoneType"):
            o.constant(value, element_type)
    with pytest.raises(RuntimeError, match="NoneType"):
        Constant(ov.Type.string, ov.Shape([len(value)]), value)


@pytest.mark.parametrize("value", [3, [1, 2], np.array([1.5]), True])
def test_numbers_are_no_texts(value: Any) -> None:
    with pytest.raises(RuntimeError, match="into Constant of type 'string'"):
        o.constant(value, ov.Type.string)


def test_a_text_that_utf8_has_not_is_refused() -> None:
    for value in (np.array(["\udcff"]), objects("a", "\ud800")):
        with pytest.raises(RuntimeError, match="not a text that UTF-8 has"):
            o.constant(value)


def test_objects_that_are_texts() -> None:
    value = objects("a", b"\xff\xfe", np.str_("ü"), np.bytes_(b"q"))
    for make in MAKERS.values():
        node = make(value)
        constant = node if isinstance(node, Constant) else node.input_value(0).get_node()
        assert constant.data.tolist() == [b"a", b"\xff\xfe", "ü".encode(), b"q"]
    assert Constant(objects()).shape == [0]


TEXTS = np.array([b"\xff\xfea", b"ok", "\u00fc".encode(), b"\xc3", b""])


def test_bytes_that_are_no_utf8_are_saved_and_read(tmp_path: Path) -> None:
    constant = o.constant(TEXTS)
    model = ov.Model([o.result(constant), o.result(o.string_tensor_unpack(constant).output(2))], [])
    ov.save_model(model, tmp_path / "model.xml")
    read = ov.Core().read_model(tmp_path / "model.xml")
    (again,) = (op for op in read.get_ops() if op.get_type_name() == "Constant")
    assert again.data.tolist() == TEXTS.tolist()
    ov.save_model(read, tmp_path / "second.xml")
    assert (tmp_path / "second.bin").read_bytes() == (tmp_path / "model.bin").read_bytes()
    request = ov.Core().compile_model(read, "CPU").create_infer_request()
    request.infer([])
    assert request.get_output_tensor(0).bytes_data.tolist() == TEXTS.tolist()
    assert request.get_output_tensor(1).data.tobytes() == b"".join(TEXTS.tolist())
    blob = ov.Core().compile_model(read, "CPU").export_model()
    request = ov.Core().import_model(blob, "CPU").create_infer_request()
    request.infer([])
    assert request.get_output_tensor(0).bytes_data.tolist() == TEXTS.tolist()


def test_openvino_reads_such_files_and_writes_them(tmp_path: Path) -> None:
    def outputs(package: Any, path: Path) -> list[bytes]:
        request = package.Core().compile_model(path, "CPU").create_infer_request()
        request.infer([])
        return request.get_output_tensor(0).bytes_data.tolist()

    constant = o.constant(TEXTS)
    ov.save_model(ov.Model([o.result(constant)], []), tmp_path / "ours.xml")
    theirs = openvino.op.Constant(openvino.Tensor(TEXTS))
    model = openvino.Model([openvino.opset15.result(theirs)], [])
    openvino.save_model(model, tmp_path / "theirs.xml")
    for path in (tmp_path / "ours.xml", tmp_path / "theirs.xml"):
        for package in (ov, openvino):
            assert outputs(package, path) == TEXTS.tolist()
