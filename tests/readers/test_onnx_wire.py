"""Large data are cut out of ONNX files before these are parsed: the same messages, and views of the file."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

import ovjit as ov
from ovjit.planning.constants import is_mapped
from ovjit.readers.onnx import external, wire
from ovjit.storage import origins
from tests.support.onnx.files import FLOAT, make, node
from tests.support.onnx.mutations import mutate, seeds


def parsed(content: bytes) -> onnx.ModelProto | None:
    try:
        return onnx.ModelProto.FromString(content)
    except DecodeError:
        return None


def put_back(message: object, data: dict[bytes, np.ndarray]) -> int:
    """Write what was cut out into the parsed message again; how many marks there were."""
    count = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            repeated = hasattr(value, "add")
            count += sum(put_back(inner, data) for inner in (value if repeated else (value,)))
        elif field.name == "raw_data" and value in data:
            message.raw_data = data[value].tobytes()
            count += 1
    return count


def everywhere() -> onnx.ModelProto:
    """A tensor in each place that a file has for one."""

    def tensor(seed: int) -> TensorProto:
        value = np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32)
        return numpy_helper.from_array(value, f"t{seed}")

    def sparse(seed: int) -> onnx.SparseTensorProto:
        places = numpy_helper.from_array(np.arange(15, dtype=np.int64), "p")
        values = tensor(seed)
        values.dims[:] = [15]
        return helper.make_sparse_tensor(values, places, [15])

    constant = helper.make_node("Constant", [], ["c"], value=tensor(1))
    inner = helper.make_graph([constant], "in", [], [], [tensor(2)])
    nodes = [
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Odd", [], ["z"], domain="my", tensors=[tensor(3), tensor(4)], graphs=[inner, inner],
                         sparse_tensor=sparse(5), sparse_tensors=[sparse(6), sparse(7)]),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [], [], [tensor(8), tensor(9)], sparse_initializer=[sparse(10)])
    model = helper.make_model(graph)
    function = helper.make_function("my", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
    function.attribute_proto.append(helper.make_attribute("k", tensor(11)))
    model.functions.append(function)
    training = model.training_info.add()
    training.initialization.CopyFrom(inner)
    training.algorithm.CopyFrom(inner)
    return model


def test_tensors_in_all_places(monkeypatch) -> None:
    monkeypatch.setattr(wire, "SMALLEST", 60)
    content = everywhere().SerializeToString()
    message, data = wire.cut_out(np.frombuffer(content, np.uint8))
    count = 2 * 2 + 2 + 2 * 2 + 6  # of the branches, of tensors, of graphs, and of sparse tensors two each
    assert len(data) == 2 * count + 4 + 1 + 4 and len(message) < len(content)
    assert all(np.shares_memory(part, np.frombuffer(content, np.uint8)) for part in data.values())
    model = parsed(message)
    assert put_back(model, data) == len(data)
    assert model == parsed(content)


def test_whatever_comes_is_parsed_as_without(monkeypatch) -> None:
    """Mutated and truncated files: both ways refuse them, or both give the same message."""
    monkeypatch.setattr(wire, "SMALLEST", 8)
    files = [everywhere().SerializeToString(), *seeds()]
    read = cut = 0
    for seed in range(6000):
        rng = random.Random(seed)
        content = mutate(rng, files[seed % len(files)])
        if rng.random() < 0.2:
            content += files[(seed + 1) % len(files)][: rng.randrange(200)]  # fields again: they are merged
        message, data = wire.cut_out(np.frombuffer(content, np.uint8))
        got, want = parsed(bytes(message)), parsed(content)
        assert (got is None) == (want is None), f"seed {seed}"
        if want is not None:
            put_back(got, data)
            same = [x.SerializeToString(deterministic=True) for x in (got, want)]
            assert same[0] == same[1], f"seed {seed}"
            read, cut = read + 1, cut + bool(data)
    assert read > 300 and cut > 100, (read, cut)


def test_of_data_given_twice_the_last_count(monkeypatch) -> None:
    monkeypatch.setattr(wire, "SMALLEST", 8)
    value = np.arange(4, dtype=np.float32)
    model = make([node("Add", "x w", "y")], [("x", [4])], ["y"], {"w": value})
    raw = value.tobytes()
    twice = b"\x4a\x10" + bytes(16) + b"\x4a\x10" + raw
    model.graph.initializer[0].ClearField("raw_data")
    tensor = model.graph.initializer[0].SerializeToString() + twice
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString() + b"\x2a" + bytes([len(tensor)]) + tensor
    model.ClearField("graph")
    content = model.SerializeToString() + b"\x3a" + wire._varint(len(graph)) + graph
    read = ov.Core().read_model(content)
    assert (ov.compile_model(read, "CPU")(np.zeros(4, np.float32))[0] == value).all()


def test_too_deep_for_protobuf() -> None:
    content = b"\x0a" * 6 + bytes(5000)
    for _ in range(3000):  # functions' nodes' attributes' graphs' nodes ...
        content = b"\x0a" + wire._varint(len(content)) + content
    content = b"\x3a" + wire._varint(len(content)) + content
    message, data = wire.cut_out(np.frombuffer(content, np.uint8))
    assert not data and bytes(message) == content


def large(path: Path, odd: int) -> tuple[np.ndarray, np.ndarray]:
    """A file with a matrix of 1.2 MB as an initializer and one as an attribute; `odd` moves them by bytes."""
    rng = np.random.default_rng(7)
    a, b = (rng.normal(size=(560, 560)).astype(np.float32) for _ in "ab")
    model = make(
        [node("MatMul", "x a", "u"), node("Constant", "", "b", value=numpy_helper.from_array(b)),
         node("MatMul", "u b", "y")],
        [("x", [2, 560])], ["y"], {"a": a},
    )  # fmt: skip
    content = b"\x12" + bytes([odd]) + b"p" * odd + model.SerializeToString()  # the producer's name
    path.write_bytes(content)
    return a, b


@pytest.mark.parametrize("odd", range(4))
def test_constants_are_views_of_the_mapped_file(odd: int, tmp_path) -> None:
    a, b = large(tmp_path / "m.onnx", odd)
    model = ov.Core().read_model(tmp_path / "m.onnx")
    constants = {op.data.tobytes(): op for op in model.get_ops() if op.get_type_name() == "Constant"}
    for want in (a, b):
        value = constants[want.tobytes()]._tensors[0]._type.value
        assert is_mapped(value) and not value.flags.writeable
        assert origins.origin_of(value)[0].path == str((tmp_path / "m.onnx").resolve())
    (tmp_path / "m.onnx").unlink()
    x = np.random.default_rng(8).normal(size=(2, 560)).astype(np.float32)
    want = x.astype(np.float64) @ a @ b
    assert np.abs(ov.compile_model(model, "CPU")(x)[0] - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("given", ["bytes", "bytearray", "not mapped", "message"])
def test_other_ways_to_give_a_model(given: str, tmp_path) -> None:
    a, b = large(tmp_path / "m.onnx", 1)
    content = (tmp_path / "m.onnx").read_bytes()
    core = ov.Core()
    model: object = content
    if given == "bytearray":
        model = bytearray(content)
    elif given == "message":
        model = onnx.ModelProto.FromString(content)
    elif given == "not mapped":
        core.set_property({"ENABLE_MMAP": False})
        model = tmp_path / "m.onnx"
    read = core.read_model(model)
    if given == "bytearray":
        model[:] = bytes(len(content))  # what was read is not the caller's any more
    elif given == "not mapped":
        model.write_bytes(b"")
    found = {op.data.tobytes() for op in read.get_ops() if op.get_type_name() == "Constant"}
    assert {a.tobytes(), b.tobytes()} <= found


def test_labels_in_large_tensors() -> None:
    """Rules that read a tensor of an attribute themselves."""
    keys = np.arange(2000, dtype=np.int64) * 3
    values = np.random.default_rng(3).permutation(2000).astype(np.float32)
    encoder = helper.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_tensor=numpy_helper.from_array(keys),
        values_tensor=numpy_helper.from_array(values),
        default_tensor=numpy_helper.from_array(np.array([-1], np.float32)),
    )  # fmt: skip
    graph = helper.make_graph(
        [encoder], "g", [helper.make_tensor_value_info("x", TensorProto.INT64, [5])],
        [helper.make_tensor_value_info("y", FLOAT, [5])],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=imports).SerializeToString()
    assert wire.cut_out(np.frombuffer(model, np.uint8))[1]
    x = np.array([3, 4, 5997, 0, 300], np.int64)
    got = ov.compile_model(ov.Core().read_model(model), "CPU")(x)[0]
    assert got.tolist() == [values[1], -1, values[1999], values[0], values[100]]


def test_a_mark_is_no_data_of_a_file() -> None:
    """No file can have data that are taken for another tensor's: marks are drawn for each reading."""
    model = make([node("Add", "x w", "y")], [("x", [2048])], ["y"], {"w": np.zeros(2048, np.float32)})
    content = np.frombuffer(model.SerializeToString(), np.uint8)
    (one,), (other,) = (wire.cut_out(content)[1] for _ in "ab")
    assert one != other and one[:16] != other[:16] and len(one) == 24


def test_data_of_other_files_at_odd_places(tmp_path) -> None:
    a = np.random.default_rng(2).normal(size=(600, 600)).astype(np.float32)
    (tmp_path / "w.bin").write_bytes(b"abc" + a.tobytes())
    tensor = TensorProto(name="a", data_type=FLOAT, dims=a.shape, data_location=1)
    for key, value in (("location", "w.bin"), ("offset", "3"), ("length", str(a.nbytes))):
        tensor.external_data.add(key=key, value=value)
    value, _, _ = external_decode(tensor, tmp_path)
    assert is_mapped(value) and (value == a).all()


def external_decode(tensor: TensorProto, folder: Path) -> tuple[np.ndarray, str, tuple[int, ...]]:
    from ovjit.readers.onnx.tensors import decode

    return decode(tensor, external.ExternalData(folder / "m.onnx"))


def test_lists_of_attributes_are_not_searched(monkeypatch) -> None:
    """Lists that are not packed count as one field, and data behind them are cut out."""
    monkeypatch.setattr(wire, "_MOST_FIELDS", 200)
    rng = np.random.default_rng(5)
    lists = {"ints": rng.integers(-(1 << 62), 1 << 62, 40000).tolist(), "few": list(range(-3, 60000)),
             "floats": rng.standard_normal(30000).tolist(), "strings": ["a" * 300] * 300}  # fmt: skip
    value = onnx.numpy_helper.from_array(np.arange(5000, dtype=np.float32))
    nodes = [helper.make_node("N", ["x"], ["y"], **lists, value=value, domain="d")]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    content = model.SerializeToString()
    message, data = wire.cut_out(np.frombuffer(content, np.uint8))
    assert [len(part) for part in data.values()] == [20000]
    got = parsed(bytes(message))
    put_back(got, data)
    assert got == parsed(content)
