"""Reading of ONNX files: names as OpenVINO's, sources of models, external data, and what is refused."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper

import ovjit as ov
from ovjit.readers.onnx import reader
from tests.support.onnx.files import FLOAT, boundary, make, node


def relu_model() -> onnx.ModelProto:
    return make([node("Relu", "x", "y", "r")], [("x", ["N", 3])], ["y"])


W = np.arange(6, dtype=np.float32).reshape(2, 3)

NAMED = {
    "a chain": ([node("Relu", "x", "a", "first"), node("Neg", "a", "y", "second")], [("x", [2, 3])], ["y"]),
    "without names": ([node("Relu", "x", "a"), node("Neg", "a", "y")], [("x", [2, 3])], ["y"]),
    "inner output": ([node("Relu", "x", "a", "n"), node("Neg", "a", "y")], [("x", [2, 3])], ["y", "a"]),
    "an identity": ([node("Relu", "x", "a", "n"), node("Identity", "a", "y", "i")], [("x", [2, 3])], ["y"]),
    "split": ([node("Split", "x", "a b", "s", axis=1)], [("x", [2, 4])], ["b", "a"]),
    "split inside": (
        [node("Split", "x", "a b", axis=1), node("Add", "a b", "y", "add")],
        [("x", [2, 4])],
        ["y"],
    ),
    "a constant": ([node("Add", "x w", "y", "add")], [("x", [2, 3])], ["y"]),
    "dropout": (
        [node("Relu", "x", "a", "r"), node("Dropout", "a", "d", "drop"), node("Neg", "d", "y")],
        [("x", [2, 3])],
        ["y"],
    ),
    "same names": ([node("Relu", "x", "a", "n"), node("Neg", "a", "b", "n"), node("Abs", "b", "y", "n")],
                   [("x", [2, 3])], ["y"]),
    "unused input": ([node("Relu", "x", "y", "r")], [("u", [2]), ("x", [2, 3])], ["y"]),
    "gemm": ([node("Gemm", "x w c", "a", "gemm", transB=1), node("Relu", "a", "y")],
             [("x", ["N", 3])], ["y"]),
    "input is output": ([node("Relu", "x", "y", "r")], [("x", [2, 3])], ["y", "x"]),
    "constant is output": ([node("Relu", "x", "y", "r")], [("x", [2, 3])], ["y", "w"]),
    "order": ([node("Sub", "b a", "y", "s")], [("b", [2, 3]), ("a", [2, 3])], ["y"]),
    "conv": ([node("Conv", "x f", "a", "conv"), node("Relu", "a", "y")], [("x", [1, 3, "H", "W"])], ["y"]),
    "conv with biases": (
        [node("Conv", "x f c", "a", "conv"), node("Conv", "a g c", "b"), node("Relu", "b", "y")],
        [("x", [1, 3, "H", "W"])],
        ["y"],
    ),
    "pool": ([node("MaxPool", "x", "a", "pool", kernel_shape=[2, 2]), node("Flatten", "a", "y")],
             [("x", [1, 3, 4, 4])], ["y"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_names_are_openvinos(case: str) -> None:
    nodes, inputs, outputs = NAMED[case]
    constants = {"w": W, "c": W[:, 0], "f": np.ones((2, 3, 2, 2), np.float32)}
    constants["g"] = np.ones((2, 2, 1, 1), np.float32)
    used = {name for n in nodes for name in n.input} | set(outputs)
    data = make(
        nodes, inputs, outputs, {k: v for k, v in constants.items() if k in used}, 11
    ).SerializeToString()
    ours, theirs = ov.Core().read_model(data), openvino.Core().read_model(data)
    assert boundary(ours) == boundary(theirs)
    assert ours.get_friendly_name() == theirs.get_friendly_name()
    for mine, other in zip(ours.get_results(), theirs.get_results(), strict=True):
        assert mine.get_friendly_name() == other.get_friendly_name()
    for mine, other in zip(ours.get_parameters(), theirs.get_parameters(), strict=True):
        assert mine.get_friendly_name() == other.get_friendly_name()
    # every node that stands for one of the file's, and every named tensor
    names = {n.name for n in nodes} | {o for n in nodes for o in n.output}
    names |= {f"{name}/WithoutBiases" for name in names}

    def known(model: Any) -> set[Any]:
        return {
            (
                op.get_type_name(),
                op.get_friendly_name(),
                tuple(tuple(sorted(o.get_names())) for o in op.outputs()),
            )
            for op in model.get_ordered_ops()
            if op.get_friendly_name() in names
        }

    assert known(ours) == known(theirs)


def test_metadata_and_an_unnamed_graph() -> None:
    proto = relu_model()
    proto.graph.name = ""
    helper.set_model_props(proto, {"author": "someone"})
    model = ov.Core().read_model(proto.SerializeToString())
    assert model.get_friendly_name() == model.get_name()
    assert model.get_rt_info(["framework", "author"]).astype(str) == "someone"


def test_sources(tmp_path: Path) -> None:
    proto = relu_model()
    data = proto.SerializeToString()
    folder = tmp_path / "пример 模型"
    folder.mkdir()
    path = folder / "m.onnx"
    path.write_bytes(data)
    x = np.array([[-1, 0, 2]], np.float32)
    for source in (str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), proto):
        model = ov.Core().read_model(source)
        assert model.input("x").get_partial_shape() == ov.PartialShape([-1, 3])
        np.testing.assert_array_equal(ov.Core().compile_model(model, "CPU")(x)["y"], [[0, 0, 2]])
    np.testing.assert_array_equal(ov.compile_model(path)(x)[0], [[0, 0, 2]])
    with pytest.raises(TypeError):
        ov.Core().read_model(3)


def external_model(location: str, **entries: str) -> onnx.ModelProto:
    proto = make([node("Add", "x w", "y")], [("x", [2, 3])], ["y"], {"w": W})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return proto


def infer(model: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    results = ov.Core().compile_model(model, "CPU")(list(inputs))
    return [results[i] for i in range(len(results))]


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(bytes(16) + W.tobytes() + bytes(5))
    path = tmp_path / "m.onnx"
    path.write_bytes(external_model("data/w.bin", offset="16", length="24").SerializeToString())
    zeros = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(infer(path, zeros)[0], W)
    proto = external_model("w", length="24")
    read = ov.Core().read_model(proto.SerializeToString(), {"w": W.tobytes()})
    np.testing.assert_array_equal(infer(read, zeros)[0], W)
    with pytest.raises(RuntimeError, match="path"):
        ov.Core().read_model(proto.SerializeToString())


def test_external_data_of_a_store_of_links(tmp_path: Path) -> None:
    """snapshots/rev/m.onnx and its data are links into blobs, as in a Hugging Face cache."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "rev"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "aaaa").write_bytes(external_model("m.onnx_data").SerializeToString())
    (blobs / "bbbb").write_bytes(W.tobytes())
    (snapshot / "m.onnx").symlink_to("../../blobs/aaaa")
    (snapshot / "m.onnx_data").symlink_to("../../blobs/bbbb")
    np.testing.assert_array_equal(infer(snapshot / "m.onnx", np.zeros((2, 3), np.float32))[0], W)


@pytest.mark.parametrize(
    "location",
    [
        "../w",
        "a/../../w",
        "/etc/hostname",
        "link",
        "folder/w",
        "hard",
        "fifo",
        "sub",
        "",
        "a\\w",
        "none",
        "./../m/../w",
    ],
)
def test_external_data_that_lead_out(tmp_path: Path, location: str) -> None:
    home = tmp_path / "m"
    (home / "sub").mkdir(parents=True)
    secret = tmp_path / "w"
    secret.write_bytes(W.tobytes())
    (home / "link").symlink_to(secret)
    (home / "folder").symlink_to(tmp_path)
    os.link(secret, home / "hard")
    os.mkfifo(home / "fifo")
    path = home / "m.onnx"
    path.write_bytes(external_model(location).SerializeToString())
    with pytest.raises(RuntimeError, match="external data"):
        ov.Core().read_model(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-1"}, {"offset": "1"}, {"offset": str(2**63 - 1)}, {"offset": "9" * 30}, {"length": "23"},
        {"length": "25"}, {"length": ""}, {"offset": "0x10"}, {"offset": "1e1"}, {"__class__": "x"},
        {"basepath": "/"}, {"offset": "٣"},
    ],
)  # fmt: skip
def test_external_data_that_do_not_fit(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "w").write_bytes(W.tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(external_model("w", **entries).SerializeToString())
    with pytest.raises(RuntimeError, match="external data"):
        ov.Core().read_model(path)


# -- constants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.dims.__setitem__(0, -2),
        lambda t: t.dims.__setitem__(0, 2**62),
        lambda t: t.dims.__setitem__(0, 3),
        lambda t: t.dims.extend([1] * 70),
        lambda t: t.float_data.extend([1.0] * 6),
        lambda t: t.__setattr__("raw_data", t.raw_data[:-1]),
        lambda t: t.__setattr__("data_type", 0),
        lambda t: t.__setattr__("data_type", 99),
        lambda t: t.__setattr__("data_type", TensorProto.COMPLEX64),
        lambda t: t.__setattr__("data_type", TensorProto.STRING),
        lambda t: (t.ClearField("raw_data"), t.int32_data.extend([1] * 6)),
        lambda t: t.ClearField("raw_data"),
        lambda t: t.segment.__setattr__("begin", 1),
    ],
)
def test_constants_that_do_not_fit(change: Any) -> None:
    proto = make([node("Add", "x w", "y")], [("x", [2, 3])], ["y"], {"w": W})
    change(proto.graph.initializer[0])
    with pytest.raises(RuntimeError):
        ov.Core().read_model(proto.SerializeToString())


@pytest.mark.parametrize(
    "number",
    [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16, 17, 19, 21, 22, 23, 24, 25],
)
@pytest.mark.parametrize("raw", [False, True])
def test_constants_of_every_type(number: int, raw: bool) -> None:
    from ovjit.readers.onnx import tensors

    dtype = helper.tensor_dtype_to_np_dtype(number)
    for count in (0, 1, 2, 3, 5, 8):
        values = (np.arange(count) % (2 if number == 9 else 3)).astype(dtype).reshape(count, 1)
        if raw:
            tensor = onnx.numpy_helper.from_array(values)
        else:
            tensor = helper.make_tensor("t", number, values.shape, values.reshape(-1).tolist())
        got, kind, shape = tensors.decode(tensor)
        assert shape == values.shape and got.shape == values.shape and got.dtype == dtype, (number, kind)
        np.testing.assert_array_equal(got.astype(np.float64), values.astype(np.float64))


def test_sparse_constants() -> None:
    proto = make([node("Add", "x w", "y")], [("x", [3, 4])], ["y"])
    for indices in (np.array([2, 7]), np.array([[0, 2], [1, 3]])):
        sparse = helper.make_sparse_tensor(
            onnx.numpy_helper.from_array(np.array([5, 6], np.float32), "w"),
            onnx.numpy_helper.from_array(indices),
            [3, 4],
        )
        del proto.graph.sparse_initializer[:]
        proto.graph.sparse_initializer.append(sparse)
        wanted = np.zeros((3, 4), np.float32)
        wanted[0, 2], wanted[1, 3] = 5, 6
        np.testing.assert_array_equal(
            infer(ov.Core().read_model(proto), np.zeros((3, 4), np.float32))[0], wanted
        )
        proto.graph.sparse_initializer[0].dims[0] = 1
        with pytest.raises(RuntimeError):
            ov.Core().read_model(proto)


# -- what is refused -----------------------------------------------------------------------------------------


def test_unsupported_operators_are_listed_at_once() -> None:
    inner = helper.make_graph(
        [node("Deep", "x", "d", "inside", domain="my.ops")],
        "b",
        [],
        [helper.make_tensor_value_info("d", FLOAT, None)],
    )
    proto = make(
        [
            node("Foo", "x", "a", "foo1", domain="my.ops"),
            node("Foo", "a", "b", "foo2", domain="my.ops"),
            node("Baz", "b", "c", "baz"),
            node("If", "k", "y", then_branch=inner, else_branch=inner),
        ],
        [("x", [2])],
        ["y", "c"],
        {"k": np.array(True)},
    )
    with pytest.raises(RuntimeError, match="No conversion rule found for operations: ") as caught:
        ov.Core().read_model(proto)
    for words in (
        "my.ops.Foo, 2 times",
        "Baz-17",
        "my.ops.Deep",
        "'foo1'",
        "'foo2'",
        "'inside'",
        "'baz'",
    ):
        assert words in str(caught.value)


def test_operators_of_a_branch_that_is_not_read() -> None:
    """OpenVINO refuses both models."""
    infos = [helper.make_tensor_value_info("d", FLOAT, None)]
    branches = {
        f"{which}_branch": helper.make_graph([node(op, "x", "d", "inside", domain=domain)], which, [], infos)
        for which, op, domain in (("then", "Neg", ""), ("else", "Deep", "my.ops"))
    }  # fmt: skip
    x = np.float32([1, -2])
    nodes = [node("Not", "k", "c"), node("If", "c", "y", **branches)]
    proto = make(nodes, [("x", [2])], ["y"], {"k": np.array(False)})
    np.testing.assert_array_equal(ov.compile_model(proto, "CPU")(x)[0], -x)
    proto = make([node("Cast", "n", "c", to=9), nodes[1]], [("x", [2]), ("n", [])], ["y"])
    with pytest.raises(
        RuntimeError, match=r"No conversion rule found for operations: my\.ops\.Deep.*'inside'"
    ):
        ov.Core().read_model(proto)


@pytest.mark.parametrize(
    ("words", "proto"),
    [
        ("no node computes it", make([node("Relu", "missing", "y")], [("x", [2])], ["y"])),
        ("is not produced by any operation", make([node("Relu", "x", "a")], [("x", [2])], ["y"])),
        ("defined twice", make([node("Relu", "x", "y"), node("Neg", "x", "y")], [("x", [2])], ["y"])),
        ("cycle", make([node("Add", "x b", "a"), node("Relu", "a", "b")], [("x", [2])], ["b"])),
        ("cycle", make([node("Add", "x a", "a")], [("x", [2])], ["a"])),
        ("is not part of", make([node("Relu", "x", "y", nonsense=1)], [("x", [2])], ["y"])),
        (
            "has the type FLOAT; expected INT",
            make([node("Concat", "x x", "y", axis=0.5)], [("x", [2])], ["y"]),
        ),
        ("'axis' is missing", make([node("Concat", "x x", "y")], [("x", [2])], ["y"])),
        ("inputs", make([node("Add", "x", "y")], [("x", [2])], ["y"])),
        ("outputs", make([node("Relu", "x", "y z")], [("x", [2])], ["y"])),
        ("Transpose", make([node("Transpose", "x", "y", perm=[0, 0])], [("x", [2, 3])], ["y"])),
        ("no outputs", make([node("Relu", "x", "y")], [("x", [2])], [])),
    ],
)
def test_models_that_are_not_valid(words: str, proto: onnx.ModelProto) -> None:
    with pytest.raises(RuntimeError, match=words):
        ov.Core().read_model(proto)


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"\x08\x08\x12", b"\xff" * 100, b"PK\x03\x04", bytes(1000)]
)
def test_what_is_no_onnx(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(RuntimeError, match="Unable to read the model"):
            ov.Core().read_model(source)


def test_what_a_body_takes_comes_before_it() -> None:
    """ONNX Runtime's quantiser writes such files; a body's own `a` is none of the graph's."""
    inner = [node("Add", "x late", "a"), node("Abs", "a", "b")]
    branch = helper.make_graph(inner, "body", [], [helper.make_tensor_value_info("b", FLOAT, None)])
    nodes = [
        node("If", "flag", "out", then_branch=branch, else_branch=branch),
        node("Neg", "x", "late"),
        node("Exp", "out", "y"),
    ]
    model = make(nodes, [("x", [3])], ["y"], opset=17)
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    x = np.array([1, -2, 3], np.float32)
    got = ov.compile_model(model, "CPU")({"x": x, "flag": np.array(True)})[0]
    np.testing.assert_array_equal(got, np.ones(3, np.float32))


def test_nodes_out_of_order_are_sorted() -> None:
    proto = make([node("Neg", "b", "y"), node("Abs", "a", "b"), node("Relu", "x", "a")], [("x", [3])], ["y"])
    x = np.array([-1, 0, 2], np.float32)
    np.testing.assert_array_equal(infer(ov.Core().read_model(proto), x)[0], -np.maximum(x, 0))


# -- functions -----------------------------------------------------------------------------------------------


def function(name: str, nodes: Sequence[Any], attributes: Sequence[str] = (), domain: str = "my") -> Any:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    return helper.make_function(domain, name, ["a"], ["c"], nodes, imports, attributes)


def call_model(functions: Sequence[Any], **attributes: Any) -> onnx.ModelProto:
    proto = make(
        [node(functions[0].name, "x", "y", "call", domain="my", **attributes)],
        [("x", [2, 3])],
        ["y"],
        imports=[helper.make_opsetid("my", 1)],
    )
    proto.functions.extend(functions)
    return proto


def test_functions_are_inlined() -> None:
    leaky = node("LeakyRelu", "a", "b")
    reference = leaky.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    inner = function("Inner", [leaky, node("Neg", "b", "c")], ["slope"])
    call = node("Inner", "a", "b", "deep", domain="my")
    passed = call.attribute.add()
    passed.name, passed.ref_attr_name, passed.type = "slope", "s", onnx.AttributeProto.FLOAT
    outer = function("Outer", [call, node("Inner", "b", "c", domain="my")], ["s"])
    proto = call_model([outer, inner], s=0.25)
    x = np.array([[-4, 0, 2], [1, -1, 8]], np.float32)
    first = -np.where(x < 0, 0.25 * x, x)
    np.testing.assert_allclose(
        infer(ov.Core().read_model(proto), x)[0], -np.where(first < 0, 0.01 * first, first)
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(infer(ov.Core().read_model(proto), x)[0], session.run(None, {"x": x})[0])


def test_functions_that_call_each_other() -> None:
    ring = [function(f"F{i}", [node(f"F{(i + 1) % 3}", "a", "c", domain="my")]) for i in range(3)]
    with pytest.raises(RuntimeError, match="F0 -> F1 -> F2 -> F0"):
        ov.Core().read_model(call_model(ring))


def test_functions_that_grow_without_bound(monkeypatch) -> None:
    """30 functions that each call the next one twice: 2^30 nodes."""
    monkeypatch.setattr(reader, "MAX_NODES", reader.MAX_NODES // 10)
    functions = [
        function(
            f"F{i}", [node(f"F{i + 1}", "a", "b", domain="my"), node(f"F{i + 1}", "b", "c", domain="my")]
        )
        for i in range(30)
    ]
    functions.append(function("F30", [node("Relu", "a", "c")]))
    with pytest.raises(RuntimeError, match="more than"):
        ov.Core().read_model(call_model(functions))


def test_a_chain_of_many_functions() -> None:
    functions = [function(f"F{i}", [node(f"F{i + 1}", "a", "c", domain="my")]) for i in range(400)]
    functions.append(function("F400", [node("Relu", "a", "c")]))
    x = np.array([[-4, 0, 2], [1, -1, 8]], np.float32)
    np.testing.assert_array_equal(infer(ov.Core().read_model(call_model(functions)), x)[0], np.maximum(x, 0))


def beside_onnxruntime(proto: onnx.ModelProto, x: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": x})[0]
    got = infer(ov.Core().read_model(proto), x)[0]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_filters_whose_shape_comes_through_identity() -> None:
    """As PyTorch writes standardised weights: what is shared is an Identity of it."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Identity", "dims", "same"),
        node("Reshape", "w same", "filters"),
        node("Conv", "x filters", "y"),
    ]
    constants = {"dims": np.array([4, 3, 3, 3]), "w": rng.standard_normal((4, 27)).astype(np.float32)}
    proto = make(nodes, [("x", ["n", 3, 8, 8])], ["y"], constants)
    beside_onnxruntime(proto, rng.standard_normal((2, 3, 8, 8)).astype(np.float32))


@pytest.mark.parametrize("batch", ["n", 2])
def test_col2im_of_any_batch(batch: Any) -> None:
    nodes = [node("Col2Im", "x image block", "y", strides=[2, 2], pads=[1, 1, 1, 1])]
    constants = {"image": np.array([9, 8]), "block": np.array([3, 3])}
    proto = make(nodes, [("x", [batch, 18, 20])], ["y"], constants, opset=18)
    beside_onnxruntime(proto, np.random.default_rng(2).standard_normal((2, 18, 20)).astype(np.float32))
