"""IR that ovjit writes, read by the real OpenVINO."""

from __future__ import annotations

import re

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.graph import dtypes


@pytest.mark.parametrize("exclude", [True, False])
def test_attributes_with_a_dash_in_their_name(exclude, tmp_path):
    """AvgPool's `exclude-pad`: the corners of a padded average tell both values apart."""
    ops = ovjit.opset8
    x = ops.parameter([1, 1, 4, 4], np.float32, name="x")
    y = ops.avg_pool(x, [1, 1], [1, 1], [1, 1], [3, 3], exclude)
    model = ovjit.Model([y], [x], "pool")
    ovjit.save_model(model, tmp_path / "pool.xml", compress_to_fp16=False)
    data = np.random.default_rng(3).standard_normal((1, 1, 4, 4)).astype(np.float32)
    theirs = openvino.Core().compile_model(tmp_path / "pool.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = theirs(data)[0]
    assert expected[0, 0, 0, 0] == pytest.approx(data[0, 0, :2, :2].sum() / (4 if exclude else 9), abs=1e-5)
    for read in (model, ovjit.Core().read_model(tmp_path / "pool.xml")):
        np.testing.assert_allclose(ovjit.compile_model(read, "CPU")(data)[0], expected, atol=1e-5)


def weighed(library, kind: str):
    """A product with weights in some form, a sum behind it."""
    ops = library.opset13
    rng = np.random.default_rng(11)

    def real(*shape: int):
        return ops.constant(rng.standard_normal(shape).astype(np.float32))

    x = ops.parameter([1, 8], np.float32, name="x")
    data = x
    few = ops.convert(ops.constant(rng.integers(0, 9, (8, 8)).astype(np.uint8)), np.float32)
    if kind in ("quantized", "converted"):
        ends = [real(1, 1) for _ in range(4)]
        data = ops.fake_quantize(x, *ends, 256) if kind == "quantized" else None
        data = data or ops.fake_convert(x, real(1), real(1), "f8e4m3")
        weights = real(8, 8)
    elif kind == "real":
        weights = real(8, 8)
    elif kind == "without scale":
        weights = ops.subtract(few, real(8, 1))
    elif kind == "scale in f16":
        half = ops.constant(rng.standard_normal((8, 1)).astype(np.float16))
        weights = ops.multiply(few, ops.convert(half, np.float32))
    elif kind == "of 16 bits":
        many = ops.constant(rng.integers(0, 9, (8, 8)).astype(np.int16))
        weights = ops.multiply(ops.convert(many, np.float32), real(8, 1))
    elif kind == "with zero points":
        weights = ops.multiply(real(8, 1), ops.subtract(few, real(8, 1)))
    else:
        assert kind == "scaled"
        weights = ops.reshape(ops.multiply(few, real(8, 1)), np.array([8, 8]), False)
    return library.Model([ops.add(ops.matmul(data, weights, False, True), real(1, 8))], [x], "m")


@pytest.mark.parametrize(
    "kind",
    [
        "real", "quantized", "converted", "scaled", "with zero points", "without scale", "scale in f16",
        "of 16 bits",
    ],
)  # fmt: skip
def test_constants_of_quantized_models_stay_f32(kind, tmp_path):
    """Whether constants are stored as f16 is a question of the whole model, as in OpenVINO."""
    types = []
    for library in (openvino, ovjit):
        path = tmp_path / f"{library.__name__}.xml"
        library.save_model(weighed(library, kind), path, compress_to_fp16=True)
        constants = openvino.Core().read_model(path).get_ops()
        types.append(sorted(str(n.get_element_type()) for n in constants if n.get_type_name() == "Constant"))
        model = weighed(library, kind)
        offline = __import__(f"{library.__name__}._offline_transformations", fromlist=["_"])
        offline.compress_model_transformation(model)
        constants = [n for n in model.get_ops() if n.get_type_name() == "Constant"]
        types.append(sorted(n.get_element_type().get_type_name() for n in constants))
    assert types[:2] == types[2:], kind


def stateful(library):
    """Two variables, their sinks not in the order of the results, and what is read not first in a sum."""
    ops = library.opset13

    def named(node, name):
        node.set_friendly_name(name)
        return node

    x, y = (named(ops.parameter([1, 4], np.float32), name) for name in "xy")
    results, sinks = [], []
    for i, source in enumerate((ops.relu(y), x)):
        first = named(ops.constant(np.full((1, 4), i, np.float32)), f"first{i}")
        read = named(ops.read_value(first, f"v{i}"), f"read{i}")
        given, old = named(source, ("relu", "x")[i]), named(ops.sigmoid(read), f"sigmoid{i}")
        new = named(ops.add(given, old), f"new{i}")
        sinks.append(named(ops.assign(new, f"v{i}"), f"assign{i}"))
        results.append(named(ops.result(named(ops.abs(new), f"abs{i}")), f"result{i}"))
    return library.Model([*results, named(ops.result(x), "result2")], sinks[::-1], [y, x], "m")


def branching(library):
    """If with bodies: what a layer says of them is before and behind its ports."""
    ops = library.opset13
    x, a, b = (ops.parameter([2, 2], np.float32) for _ in range(3))
    choice = ops.parameter([], bool)
    first, second = ops.result(ops.relu(a)), ops.result(ops.sigmoid(b))
    node = ops.if_op(choice.output(0))
    node.set_then_body(library.Model([first], [a], "then"))
    node.set_else_body(library.Model([second], [b], "else"))
    node.set_input(x.output(0), a, b)
    return library.Model([node.set_output(first, second)], [x, choice], "m")


def outline(xml: str) -> list[str]:
    """Tags of an IR with what says where they belong."""
    wanted = r'<(/?\w+)(?: id="(\d+)")?(?: name="([a-z]+\d?)")?((?: (?:from|to|ext|int)[a-z_-]+="\d+")*)'
    return ["".join(found) for found in re.findall(wanted, xml) if found[0] not in ("data", "dim", "/data")]


@pytest.mark.parametrize("make", [stateful, branching])
def test_layers_stand_where_openvino_puts_them(make, tmp_path):
    """Parameters, nodes, sinks, results; edges by their beginning. Who reads the file sees the same order."""
    outlines, orders = [], []
    for library in (openvino, ovjit):
        path = tmp_path / f"{library.__name__}.xml"
        library.serialize(make(library), path)
        outlines.append(outline(path.read_text()))
        read = library.Core().read_model(tmp_path / "openvino.xml")
        for model in (read, read.clone()):
            walks = model.get_ops(), model.get_ordered_ops(), model.get_sinks()
            orders.append([[node.get_friendly_name() for node in walk] for walk in walks])
            orders[-1].append(sorted(v.info.variable_id for v in model.get_variables()))
    assert outlines[0] == outlines[1]
    assert orders[:2] == orders[2:]


def constants(library, kind: str):
    """A model that gives constants of several sizes, types and contents as they are."""
    ops = library.opset13
    x = ops.parameter([1], np.float32, name="x")
    values = {
        "odd sizes": [np.arange(3, dtype=np.uint8), np.arange(3, dtype=np.float32), np.arange(2)],
        "equal": [np.arange(3, dtype=np.float32)] * 3,
        "equal bytes": [np.zeros(4, np.float32), np.zeros(4, np.int32), np.zeros((2, 2), np.float32)],
        "part of another": [np.zeros(4, np.float32), np.zeros(2, np.float32)],
        "scalars": [np.array(v) for v in (1, 2, 1, 3, 2)],
        "empty": [np.zeros((0, 3), np.float32), np.arange(3, dtype=np.uint8), np.zeros(0, np.float32)],
        "halves": [np.arange(40, dtype=np.float32), np.arange(41, dtype=np.float32), np.arange(3)],
        "truth values": [np.array([True, False, True]), np.arange(5.0)],
        "few bits": [(np.arange(5) % 4, library.Type.u4), np.arange(2), (np.arange(5) % 2, library.Type.u1)],
    }[kind]
    made = [ops.constant(v[0], dtype=v[1]) if isinstance(v, tuple) else ops.constant(v) for v in values]
    return library.Model([ops.result(node) for node in (x, *made)], [x], "constants")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", [
    "odd sizes", "equal", "equal bytes", "part of another", "scalars", "empty", "halves", "truth values",
    "few bits",
])  # fmt: skip
def test_constants_lie_in_the_file_as_openvinos_do(kind, compress, tmp_path):
    """The same bytes: one behind the other without gaps, equal ones once."""
    written = []
    for library in (ovjit, openvino):
        library.save_model(constants(library, kind), tmp_path / "m.xml", compress_to_fp16=compress)
        written.append((tmp_path / "m.bin").read_bytes())
    assert written[0] == written[1]
    read = ovjit.compile_model(ovjit.Core().read_model(tmp_path / "m.xml"))
    again = ovjit.compile_model(constants(ovjit, kind))
    for one, other in zip(*(list(c([np.zeros(1, np.float32)]).values()) for c in (read, again)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", sorted(dtypes.ELEMENT_TYPES))
def test_types_have_openvinos_names(kind, tmp_path):
    """Readers of the xml other than OpenVINO's know BIN and not U1."""
    named = []
    for ov in (ovjit, openvino):
        x = ov.opset13.parameter([2], getattr(ov.Type, kind))
        ov.save_model(ov.Model([ov.opset13.result(x)], [x], "net"), tmp_path / "net.xml")
        named.append(re.findall(r'precision="(\w+)"', (tmp_path / "net.xml").read_text()))
        again = ovjit.Core().read_model(tmp_path / "net.xml")
        assert again.input().get_element_type().get_type_name() == kind
    assert named[0] == named[1]
