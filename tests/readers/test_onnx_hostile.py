"""Damaged and hostile ONNX files: an error of ovjit's own each, in bounded memory and time, no crash."""

from __future__ import annotations

import random
import resource
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import ovjit as ov
from tests.support.onnx.files import FLOAT, make, node
from tests.support.onnx.mutations import mutate, mutate_fields, mutate_structure, seeds

#: What reading may raise for a file.
EXPECTED = (RuntimeError,)


def attempt(data: bytes) -> str:
    """Read, compile to a graph and run by the references with zeros, if the file allows; what came of it."""
    try:
        model = ov.Core().read_model(data)
        model._graph()
    except EXPECTED as error:
        assert type(error).__module__.startswith("ovjit") or "Unsupported" in str(error), type(error)
        return "refused"
    return "read"


def test_the_seeds_are_read() -> None:
    assert [attempt(data) for data in seeds()] == ["read"] * 5


def test_truncated_anywhere() -> None:
    for data in seeds():
        for end in range(0, len(data), 3):
            attempt(data[:end])


def fuzz(seed: int, rounds: int) -> dict[str, int]:
    rng = random.Random(seed)
    sources = seeds()
    counts = {"read": 0, "refused": 0}
    for i in range(rounds):
        data = rng.choice(sources)
        changed = rng.choice((mutate, mutate_fields, mutate_structure))(rng, data)
        began = time.monotonic()
        try:
            counts[attempt(changed)] += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}, round {i}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - began < 20, f"seed {seed}, round {i} took too long"
    return counts


def test_mutated_files() -> None:
    counts = fuzz(20260901, 400)
    assert min(counts.values()) > 15, counts


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_many_mutated_files() -> None:
    for seed in range(20):
        fuzz(seed, 2000)


def limited(source: str, memory: int = 1 << 30) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own, with so much memory beyond what it has at the start."""
    head = f"""
        import resource, sys
        sys.path[:0] = {sys.path!r}
        import numpy as np, onnx
        from onnx import helper, TensorProto
        import ovjit as ov
        from tests.support.onnx.files import make, node, FLOAT
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + {memory}, now + {memory}))
    """
    code = textwrap.dedent(head) + textwrap.dedent(source)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)


BOMBS = {
    "a constant of 2^40 elements": """
        model = make([node("ConstantOfShape", "s", "y")], [("x", [1])], ["y"], {"s": np.array([1 << 20, 1 <<
        20])})
    """,
    "an Expand": """
        model = make([node("Expand", "c s", "e"), node("ReduceSum", "e", "y", keepdims=0)], [("x", [1])],
        ["y"],
                     {"s": np.array([1 << 20, 1 << 19]), "c": np.ones(1, np.float32)})
    """,
    "a Tile in a chain": """
        nodes = [node("Tile", f"t{i} r", f"t{i + 1}") for i in range(20)]
        model = make([*nodes, node("Reshape", "x t20", "y")], [("x", [1])], ["y"],
                     {"t0": np.ones(2, np.int64), "r": np.array([8])})
    """,
    "a Range": """
        model = make([node("Range", "a b c", "r"), node("Reshape", "x r", "y")], [("x", [1])], ["y"],
                     {"a": np.array(0), "b": np.array(1 << 40), "c": np.array(1)})
    """,
    "a OneHot": """
        model = make([node("OneHot", "i d v", "h"), node("Reshape", "x h", "y")], [("x", [1])], ["y"],
                     {"i": np.array([1, 2]), "d": np.array(1 << 40), "v": np.array([0, 1])})
    """,
    "pads": """
        model = make([node("Pad", "c p", "d"), node("Reshape", "x d", "y")], [("x", [1])], ["y"],
                     {"c": np.array([1]), "p": np.array([0, 1 << 40])})
    """,
    "a sparse tensor": """
        model = make([node("Add", "x w", "y")], [("x", [1])], ["y"])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(
            onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"),
            onnx.numpy_helper.from_array(np.array([0])),
            [1 << 20, 1 << 20]))
    """,
    "a resized image": """
        model = make([node("Resize", "x - s", "y", mode="cubic", antialias=1)], [("x", [1, 1, 64, 64])],
        ["y"],
                     {"s": np.array([1, 1, 1e9, 1e9], np.float32)}, opset=18)
    """,
    "a shape of many dimensions": """
        model = make([node("Expand", "x s", "y")], [("x", [3])], ["y"])
        model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [(1 << 31) - 1]))
    """,
    "a packed tensor": """
        model = make([node("Cast", "w", "y", to=1)], [("x", [1])], ["y"], opset=21)
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type, tensor.raw_data = "w", TensorProto.INT4, bytes(1)
        tensor.dims.extend([1 << 30])
    """,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    """Reading takes no memory for what a small file says; compiling raises, or leaves it to the inference."""
    after = """
        try:
            read = ov.Core().read_model(model)
            print("read")
        except (RuntimeError, MemoryError) as error:
            print(type(error).__name__)
    """
    done = limited(textwrap.dedent(BOMBS[name]) + textwrap.dedent(after), 400 << 20)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() in ("read", "ModelError", "UnsupportedError"), done.stdout


def test_a_number_that_fills_gaps_between_texts() -> None:
    pads = helper.make_node("Pad", ["x"], ["y"], pads=[0, 1], value=2.0)
    ends = [helper.make_tensor_value_info(n, TensorProto.STRING, [s]) for n, s in (("x", 2), ("y", 3))]
    graph = helper.make_graph([pads], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 2)], ir_version=8)
    with pytest.raises(RuntimeError, match="is not a string"):
        ov.Core().read_model(model.SerializeToString())


@pytest.mark.timeout(100)
def test_a_window_larger_than_any_memory() -> None:
    """Compiling takes no longer for it; running it raises."""
    model = make([node("HannWindow", "n", "y")], [("x", [4])], ["y"], {"n": np.array(1 << 45)})
    compiled = ov.Core().compile_model(ov.Core().read_model(model.SerializeToString()), "CPU")
    with pytest.raises((RuntimeError, MemoryError)):
        compiled({})


@pytest.mark.parametrize("what", ["node", "tensor", "weights", "graph", "key", "value", "Relu"])
def test_names_that_are_no_utf8(what: str) -> None:
    nodes = [node("Relu", "x", "tensor", "node"), node("Add", "tensor weights", "y")]
    model = make(nodes, [("x", [2])], ["y"], {"weights": np.ones(2, np.float32)})
    model.graph.name = "graph"
    entry = model.metadata_props.add()
    entry.key, entry.value = "key", "value"
    data = model.SerializeToString().replace(what.encode(), b"\xff\xfe\xc0\xff\xfe\xc0\xff"[: len(what)])
    with pytest.raises(RuntimeError, match="is not valid UTF-8"):
        ov.Core().read_model(data)


def two_of_a_name(where: str) -> onnx.ModelProto:
    model = make([node("Neg", "x", "y")], [("x", [2])], ["y"])
    if where == "graph":
        model.graph.input.append(model.graph.input[0])
        return model
    if where == "function":
        function = helper.make_function(
            "my", "F", ["a", "a"], ["b"], [node("Neg", "a", "b")], [helper.make_opsetid("", 17)]
        )
        model = make(
            [node("F", "x x", "y", domain="my")], [("x", [2])], ["y"], imports=[helper.make_opsetid("my", 1)]
        )
        model.functions.append(function)
        return model
    infos = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in (("i", TensorProto.INT64), ("c", TensorProto.BOOL), ("v", FLOAT), ("v", FLOAT))
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in ("c2", "o", "o")]
    body = helper.make_graph([node("Neg", "v", "o"), node("Identity", "c", "c2")], "b", infos, outputs)
    trips = {"n": np.array(3), "go": np.array(True)}
    return make([node("Loop", "n go x x", "y z", body=body)], [("x", [2])], ["y"], trips)


@pytest.mark.parametrize("where", ["graph", "function", "body"])
def test_two_inputs_of_one_name(where: str) -> None:
    with pytest.raises(RuntimeError, match="two inputs"):
        ov.Core().read_model(two_of_a_name(where).SerializeToString())


@pytest.mark.parametrize(
    ("words", "indices", "shape"),
    [("integers", np.array([0.5, np.nan]), [3, 4]), ("integers", np.array([True, False]), [3, 4]),
     ("integers", np.array(["0", "1"], object), [3, 4]), ("integers", np.zeros((2, 2, 1), np.int64), [3, 4]),
     ("out of range", np.array([0, 12]), [3, 4]), ("out of range", np.array([-1, 0]), [3, 4]),
     ("out of range", np.array([(1 << 64) - 1, 0], np.uint64), [3, 4]),
     ("indices of length 0", np.zeros((2, 0), np.int64), [3, 4]),
     ("indices of length 3", np.zeros((2, 3), np.int64), [3, 4]),
     ("not valid", np.zeros(2, np.int64), [0, 1 << 62, 1 << 62]),
     ("not valid", np.zeros(2, np.int64), [-1, -12]),
     ("not valid", np.zeros(2, np.int64), [1] * 99)],
)  # fmt: skip
def test_sparse_tensors_that_are_not_valid(words: str, indices: np.ndarray, shape: list[int]) -> None:
    model = make([node("Add", "x w", "y")], [("x", [1])], ["y"])
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(2, np.float32), "w"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(indices))
    sparse.dims.extend(shape)
    with pytest.raises(RuntimeError, match=words):
        ov.Core().read_model(model.SerializeToString())


@pytest.mark.parametrize("shape", [[0, 1 << 62], [1 << 40, 0, 1 << 40]])
def test_empty_tensors_larger_than_any_memory(shape: list[int]) -> None:
    model = make([node("Add", "x w", "y")], [("x", [1])], ["y"])
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type = "w", FLOAT
    tensor.dims.extend(shape)
    with pytest.raises(RuntimeError, match="dimensions .* are not valid"):
        ov.Core().read_model(model.SerializeToString())


def test_attributes_whose_value_is_of_another_kind() -> None:
    model = make([node("Transpose", "x", "y", perm=[1, 0])], [("x", [2, 3])], ["y"])
    attribute = model.graph.node[0].attribute[0]
    attribute.ClearField("ints")
    attribute.floats.extend([1.0, 0.0])
    with pytest.raises(RuntimeError, match="'perm' has the type INTS, but its value is in 'floats'"):
        ov.Core().read_model(model.SerializeToString())


def test_bodies_within_bodies() -> None:
    graph = helper.make_graph(
        [node("Relu", "x", "o")], "b", [], [helper.make_tensor_value_info("o", FLOAT, None)]
    )
    for depth in range(33):
        branch = helper.make_graph(
            [node("If", "c", "o", then_branch=graph, else_branch=graph)],
            f"b{depth}",
            [],
            [helper.make_tensor_value_info("o", FLOAT, None)],
        )
        if depth > 8:  # two of each would double at every level
            branch.node[0].attribute[1].g.CopyFrom(
                helper.make_graph(
                    [node("Neg", "x", "o")], "n", [], [helper.make_tensor_value_info("o", FLOAT, None)]
                )
            )
        graph = branch
        if depth == 8:
            graph = helper.make_graph(
                [node("Relu", "x", "o")], "b", [], [helper.make_tensor_value_info("o", FLOAT, None)]
            )
    proto = make([node("If", "c", "y", then_branch=graph, else_branch=graph)], [("x", [2])], ["y"])
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    data = proto.SerializeToString()
    with pytest.raises(RuntimeError):
        onnx_depth(data)


def onnx_depth(data: bytes) -> None:
    """Reads, and raises for models that are read: protobuf refuses messages that nest deeper than 100."""
    model = ov.Core().read_model(data)
    raise RuntimeError(f"read with {len(model.get_ops())} nodes")


def test_a_long_chain() -> None:
    """Nodes are read in time that grows with their number."""
    count = 10_000
    nodes = [node("Relu", f"t{i}", f"t{i + 1}") for i in range(count)]
    proto = make(nodes, [("t0", [2])], [f"t{count}"])
    data = proto.SerializeToString()
    began = time.monotonic()
    model = ov.Core().read_model(data)
    assert len(model.get_ops()) == count + 2
    assert time.monotonic() - began < 60
    # backwards: sorted first
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert len(ov.Core().read_model(proto).get_ops()) == count + 2


def test_wrong_kinds_of_files(tmp_path: Path) -> None:
    xml = b'<?xml version="1.0"?><net name="m" version="11"><layers/><edges/></net>'
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(100)
    for content in (xml, png, b"", b"\0" * 10_000):
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        with pytest.raises(RuntimeError):
            ov.Core().read_model(path)
    sparse = tmp_path / "sparse.onnx"
    with open(sparse, "wb") as file:
        file.truncate(64 << 20)
    for _ in range(2):  # zeros, and then fields of two bytes that no message has
        before = time.process_time()
        with pytest.raises(RuntimeError):
            ov.Core().read_model(sparse)
        assert time.process_time() - before < 10, "each of its bytes is looked at in Python"
        sparse.write_bytes(bytes((9 << 3, 1)) * (16 << 20))
    for missing in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(RuntimeError):
            ov.Core().read_model(missing)


def test_memory_of_this_process_stays() -> None:
    """Refused files leave nothing behind."""
    data = seeds()
    rng = random.Random(7)
    for _ in range(50):
        attempt(mutate_fields(rng, rng.choice(data)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        attempt(mutate_fields(rng, rng.choice(data)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
