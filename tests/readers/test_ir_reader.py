"""Reader and writer of OpenVINO IR: beside the real one, and on hostile files."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as ops
import pytest

import ovjit
from ovjit.data import DIGITS_XML, digits
from ovjit.errors import UnsupportedError
from ovjit.graph.interp import evaluate
from ovjit.planning.constants import is_mapped
from ovjit.readers.ir.reader import read_ir
from ovjit.readers.ir.writer import save_model, serialize
from ovjit.readers.ir.xml import _defused_parser, _Target
from tests.support.run import printed

SMALL = b"""<?xml version="1.0"?>
<net name="small" version="11">
  <layers>
    <layer id="0" name="x" type="Parameter" version="opset1">
      <data shape="2,3" element_type="f32"/>
      <output><port id="0" precision="FP32" names="x"><dim>2</dim><dim>3</dim></port></output>
    </layer>
    <layer id="1" name="c" type="Const" version="opset1">
      <data element_type="f32" shape="3" offset="0" size="12"/>
      <output><port id="0" precision="FP32"><dim>3</dim></port></output>
    </layer>
    <layer id="2" name="sum" type="Add" version="opset1">
      <data auto_broadcast="numpy"/>
      <input><port id="0"><dim>2</dim><dim>3</dim></port><port id="1"><dim>3</dim></port></input>
      <output><port id="2" precision="FP32" names="y,also\\,y"><dim>2</dim><dim>3</dim></port></output>
    </layer>
    <layer id="3" name="out" type="Result" version="opset1">
      <input><port id="0"><dim>2</dim><dim>3</dim></port></input>
    </layer>
  </layers>
  <edges>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
    <edge from-layer="2" from-port="2" to-layer="3" to-port="0"/>
  </edges>
  <rt_info><a><b value="v"/></a></rt_info>
</net>
"""
WEIGHTS = np.arange(3, dtype=np.float32).tobytes()


def evaluated(model: ovjit.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    return evaluate(model._graph(), inputs)


def changed(old: str, new: str, count: int = -1) -> bytes:
    assert old.encode() in SMALL
    return SMALL.replace(old.encode(), new.encode(), count)


def test_small_model() -> None:
    model = read_ir(SMALL, WEIGHTS)
    assert repr(model.inputs) == "[<Output: names[x] shape[2,3] type: f32>]"
    assert model.output(0).names == {"y", "also,y"}
    assert model.friendly_name == "small"
    assert [n.friendly_name for n in model.get_ordered_ops()] == ["x", "c", "sum", "out"]
    assert model.get_rt_info(["a", "b"]).value == "v"
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(evaluated(model, x)[0], x + np.arange(3, dtype=np.float32))


def test_digits_as_openvino() -> None:
    xml, images, labels = digits()
    ours = read_ir(xml)
    theirs = openvino.Core().read_model(xml)
    for mine, real in zip((*ours.inputs, *ours.outputs), (*theirs.inputs, *theirs.outputs), strict=True):
        assert repr(mine) == repr(real)
    names = {n.get_friendly_name(): n for n in ours.get_ops()}
    for node in theirs.get_ops():
        mine = names[node.get_friendly_name()]
        assert mine.get_type_name() == node.get_type_name()
        for i, port in enumerate(node.outputs()):
            assert mine.output(i).names == port.names
            assert str(mine.get_output_partial_shape(i)) == str(port.get_partial_shape())
            assert mine.get_output_element_type(i).to_string() == port.get_element_type().to_string()
        if node.get_type_name() == "Constant":
            assert mine.data.tobytes() == node.data.tobytes()
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    want = openvino.Core().compile_model(theirs, "CPU", config)(images[:40])[0]
    got = evaluated(ours, images[:40])[0]
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (got.argmax(1) == labels[:40]).mean() >= 0.95


def real_model() -> openvino.Model:
    """Every kind of attribute and constant that matters: lists, floats, bools, types, packed, ranges."""
    rng = np.random.default_rng(7)
    x = ops.parameter(openvino.PartialShape("?,3,8..16,8"), np.float32, name="x")
    i = ops.parameter([2], np.int64, name="i")
    c = ops.convolution(
        x, rng.standard_normal((4, 3, 3, 3)).astype(np.float32), [1, 1], [1, 1], [1, 1], [1, 1]
    )
    c = ops.clamp(ops.add(c, rng.standard_normal((1, 4, 1, 1)).astype(np.float32)), -0.5, 6.0)
    c = ops.max_pool(c, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    c = ops.reduce_mean(c, np.array([2, 3]), True)
    c = ops.softmax(ops.reshape(c, np.array([0, -1]), True), 1)
    u4 = ops.convert(ops.constant([1, 2, 15], dtype=openvino.Type.u4), "i64")
    i4 = ops.convert(ops.constant([-8, 7], dtype=openvino.Type.i4), "i64")
    flags = ops.convert(ops.constant(np.array([True, False])), "i64")
    bf = ops.convert(ops.constant([1.5, 2.0], dtype=openvino.Type.bf16), "i64")
    empty = ops.constant(np.zeros((0,), np.int64))
    k = ops.add(ops.add(ops.add(i, i4), flags), bf)
    k = ops.concat([k, u4, empty, ops.constant(np.array([2**40]))], 0)
    model = openvino.Model([c, k], [x, i], "kinds")
    model.outputs[0].set_names({"first", "with,comma"})
    return model


def test_what_openvino_writes_is_read(tmp_path: Path) -> None:
    theirs = real_model()
    x = np.random.default_rng(8).standard_normal((2, 3, 10, 8)).astype(np.float32)
    i = np.array([5, 2**35])
    want = [
        openvino.Core().compile_model(theirs, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x, i])[0],
        np.concatenate([i + [-8, 7] + [1, 0] + [1, 2], [1, 2, 15], [2**40]]),
    ]
    for save, atol in ((openvino.serialize, 1e-5), (openvino.save_model, 1e-3)):
        save(theirs, str(tmp_path / "m.xml"))
        ours = read_ir(tmp_path / "m.xml")
        assert [str(p.partial_shape) for p in ours.inputs] == [str(p.partial_shape) for p in theirs.inputs]
        assert [p.names for p in ours.outputs] == [p.names for p in theirs.outputs]
        got = evaluated(ours, x, i)
        np.testing.assert_allclose(got[0], want[0], atol=atol)
        np.testing.assert_array_equal(got[1], want[1])


def test_what_we_write_is_read_by_openvino(tmp_path: Path) -> None:
    openvino.serialize(real_model(), str(tmp_path / "a.xml"))
    model = read_ir(tmp_path / "a.xml")
    model.set_rt_info("hello", ["notes", "first key"])
    x = np.random.default_rng(9).standard_normal((1, 3, 9, 8)).astype(np.float32)
    i = np.array([5, 6])
    want = evaluated(model, x, i)
    for save, atol in ((serialize, 1e-5), (save_model, 1e-3)):
        path = tmp_path / "new" / save.__name__ / "ünï.xml"
        save(model, path)
        theirs = openvino.Core().read_model(path)
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        answers = openvino.Core().compile_model(theirs, "CPU", config)([x, i])
        np.testing.assert_allclose(answers[0], want[0], atol=atol)
        np.testing.assert_array_equal(answers[1][:-1], want[1][:-1])  # the real one cuts 2**40 off
        assert [p.names for p in theirs.outputs] == [p.names for p in model.outputs]
        again = read_ir(path)
        np.testing.assert_allclose(evaluated(again, x, i)[0], want[0], atol=atol)
        np.testing.assert_array_equal(evaluated(again, x, i)[1], want[1])
        assert again.get_rt_info(["notes", "first key"]).value == "hello"
        types = {n.get_type_name() for n in again.get_ops() if n.friendly_name.endswith("_compressed")}
        assert types == ({"Constant"} if save is save_model else set())


def test_save_over_the_files_it_was_read_from(tmp_path: Path) -> None:
    """The constants are still mapped while they are replaced."""
    a = ovjit.opset13.parameter([1 << 19], np.float32, name="a")
    values = np.arange(1 << 19, dtype=np.float32)
    serialize(ovjit.Model(ovjit.opset13.add(a, values), [a]), tmp_path / "m.xml")
    model = read_ir(tmp_path / "m.xml")
    serialize(model, tmp_path / "m.xml")
    again = read_ir(tmp_path / "m.xml")
    np.testing.assert_array_equal(evaluated(again, np.zeros_like(values))[0], values)
    assert sorted(os.listdir(tmp_path)) == ["m.bin", "m.xml"]


def test_failed_save_leaves_the_old_files(tmp_path: Path) -> None:
    a = ovjit.opset13.parameter([1], name="a")
    model = ovjit.Model(ovjit.opset13.relu(a), [a])
    serialize(model, tmp_path / "m.xml")
    before = (tmp_path / "m.xml").read_bytes()
    model.get_ordered_ops()[1].friendly_name = "bell\a"
    with pytest.raises(RuntimeError, match="xml cannot represent"):
        serialize(model, tmp_path / "m.xml")
    assert (tmp_path / "m.xml").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["m.bin", "m.xml"]


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "bytearray", "memoryview", "BytesIO", "Tensor"])
def test_sources(kind: str, tmp_path: Path) -> None:
    import io

    folder = tmp_path / "模型 ü"
    folder.mkdir()
    (folder / "m.xml").write_bytes(SMALL)
    (folder / "m.bin").write_bytes(WEIGHTS)
    sources: dict[str, tuple[Any, Any]] = {
        "path": (folder / "m.xml", None),
        "str": (str(folder / "m.xml"), str(folder / "m.bin")),
        "bytes": (SMALL, WEIGHTS),
        "bytearray": (bytearray(SMALL), bytearray(WEIGHTS)),
        "memoryview": (memoryview(SMALL), memoryview(WEIGHTS)),
        "BytesIO": (io.BytesIO(SMALL), io.BytesIO(WEIGHTS)),
        "Tensor": (SMALL, ovjit.Tensor(np.frombuffer(WEIGHTS, np.uint8).copy())),
    }
    model = read_ir(*sources[kind])
    np.testing.assert_array_equal(evaluated(model, np.zeros((2, 3), np.float32))[0][1], [0, 1, 2])


def test_version_10_names_as_openvino() -> None:
    text = changed('version="11"', 'version="10"').replace(b'names="x"', b"")
    theirs = openvino.Core().read_model(text, WEIGHTS)
    ours = read_ir(text, WEIGHTS)
    assert [p.names for p in ours.inputs] == [p.names for p in theirs.inputs]
    assert [p.names for p in ours.outputs] == [p.names for p in theirs.outputs]


@pytest.mark.parametrize("kind", "f32 f16 bf16 f64 i8 i32 i64 u16 u32 u64 boolean".split())
def test_version_10_types_as_openvino(kind: str, tmp_path: Path) -> None:
    x = openvino.opset13.parameter([2, 3], getattr(openvino.Type, kind), name="x")
    halves = openvino.opset13.split(x, openvino.opset13.constant(0), 2, name="halves")
    both = openvino.opset13.concat([halves.output(1), halves.output(0)], 0, name="both")
    written = openvino.Model([halves.output(1), both.output(0)], [x], "m")
    openvino.serialize(written, tmp_path / "m.xml", tmp_path / "m.bin", "IR_V10")
    theirs = openvino.Core().read_model(tmp_path / "m.xml")
    ours = read_ir(tmp_path / "m.xml")
    for port, real in zip(ours.inputs + ours.outputs, theirs.inputs + theirs.outputs, strict=True):
        assert port.element_type.get_type_name() == real.element_type.get_type_name()
        assert str(port.partial_shape) == str(real.partial_shape)
    assert {*theirs.output(1).names, *theirs.input(0).names} == {*ours.output(1).names, *ours.input(0).names}
    if kind != "bf16":
        data = np.arange(6).reshape(2, 3) % 2
        result = evaluated(ours, data.astype(ours.input(0).element_type.to_dtype()))[1]
        assert result.dtype == ours.output(1).element_type.to_dtype()
        np.testing.assert_array_equal(result, data[::-1])


def test_no_names_as_openvino() -> None:
    text = changed('names="x"', "").replace(b'names="y,also\\,y"', b"")
    for read in (read_ir, openvino.Core().read_model):
        model = read(text, WEIGHTS)
        assert model.input(0).names == set() == model.output(0).names
        with pytest.raises(RuntimeError):
            model.input(0).any_name  # noqa: B018


BROKEN = {
    # offsets and sizes (B1)
    **{f"offset {v}": (f'offset="{v}"', 'offset="0"', "offset|outside") for v in
       (2**63, 2**64 - 1, -1, "", "1e9", "0x10", 13, "٣", " 4", 10**30)},
    **{f"size {v}": (f'size="{v}"', 'size="12"', "size|bytes|outside") for v in
       (2**63, 2**64 - 1, -1, "", "1e9", "0xC", 13, 8, 0)},
    "const shape": ('shape="4294967296,4294967296"', 'shape="3"', "needs"),
    "const open shape": ('shape="?"', 'shape="3"', "shape is dynamic"),
    "const rank": (f'shape="{"1," * 70}3"', 'shape="3"', "dimensions"),
    "const type": ('element_type="f33"', 'element_type="f32" shape="3"', "is not a member of enum"),
    "const other type": ('element_type="f64" shape="3"', 'element_type="f32" shape="3"', "needs 24"),
    "const dynamic": ('element_type="dynamic" shape="3"', 'element_type="f32" shape="3"', "dynamic"),
    # structure (B5)
    "duplicate id": ('<layer id="1"', '<layer id="0"', None),
    "dangling source": ('from-layer="7"', 'from-layer="1"', "no layer has that id"),
    "dangling target": ('to-layer="7"', 'to-layer="3"', "no layer has that id"),
    "missing output port": ('from-port="9"', 'from-port="2"', "output port 9 of layer 2 'sum'"),
    "missing input port": ('to-port="9"', 'to-port="1"', "input port 9 of layer 2 'sum'"),
    "self edge": ('from-layer="2" from-port="2" to-layer="2"', 'from-layer="1" from-port="0" to-layer="2"',
                  "'sum'.* feeds itself"),
    "unconnected": ("", '<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>', "not connected"),
    "two edges": ('to-port="0"/><edge from-layer="1" from-port="0" to-layer="2" to-port="0"/>',
                  'to-port="0"/>', "two edges"),
    "layer id": ('<layer id="x"', '<layer id="1"', "id of layer 'c'"),
    "no layer id": ("<layer", '<layer id="1"', "id of layer 'c'"),
    "port id": ('<port id="-1" precision="FP32" names="y', '<port id="2" precision="FP32" names="y',
                "port id"),
    "edge text": ('from-layer="one"', 'from-layer="1"', "from-layer"),
    "two ports": ('<port id="0"><dim>3</dim>', '<port id="1"><dim>3</dim>', "two ports"),
    # attributes (B7)
    "auto_broadcast": ('auto_broadcast="numpi"', 'auto_broadcast="numpy"', "sum"),
    "parameter shape": ('shape="2,x"', 'shape="2,3"', 'Cannot parse dimension: "x"'),
    "parameter negative": ('shape="2,-3"', 'shape="2,3"', "Cannot parse dimension"),
    "parameter digits": ('shape="2,٣"', 'shape="2,3"', "Cannot parse dimension"),
    "parameter range": ('shape="2,5..3"', 'shape="2,3"', "upper bound is below"),
    "parameter huge": (f'shape="2,{2**63}"', 'shape="2,3"', "64 bits"),
    "parameter type": ('element_type="float"', 'element_type="f32"', "is not a member of enum"),
    "does not fit": ('shape="2,4"', 'shape="2,3"', "'sum'"),
    "version": ('version="9"', 'version="11"', "version 9"),
    "not a net": ("<nyet", "<net", "."),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused(case: str) -> None:
    new, old, message = BROKEN[case]
    if case == "duplicate id":
        old, new, message = '<layer id="1"', '<layer id="0"', "two layers have the id 0: 'x' and 'c'"
    with pytest.raises(RuntimeError, match=message):
        read_ir(changed(old, new, 1), WEIGHTS)


def test_cycle_is_named() -> None:
    text = changed('from-layer="0" from-port="0" to-layer="2"', 'from-layer="4" from-port="1" to-layer="2"')
    text = text.replace(
        b"</layers>",
        b'<layer id="4" name="loop" type="ReLU" version="opset1"><input><port id="0"/></input>'
        b'<output><port id="1"/></output></layer></layers>',
    ).replace(b"</edges>", b'<edge from-layer="2" from-port="2" to-layer="4" to-port="0"/></edges>')
    with pytest.raises(RuntimeError, match="cycle through '(sum|loop)'"):
        read_ir(text, WEIGHTS)


def test_all_unknown_operations_in_one_error() -> None:
    text = changed('type="Add"', 'type="Foo"').replace(
        b"</layers>",
        b'<layer id="8" name="f2" type="Foo" version="opset1"/>'
        b'<layer id="9" name="g" type="Bar" version="extra"/>'
        b'<layer id="10" name="l" type="Loop" version="opset5"><body><layers>'
        b'<layer id="0" name="inner" type="Baz" version="opset1"/></layers></body></layer></layers>',
    )
    with pytest.raises(UnsupportedError) as caught:
        read_ir(text, WEIGHTS)
    message = str(caught.value)
    assert "Foo of opset1, 2 times ('sum', 'f2')" in message
    assert "Bar of extra, 1 times ('g')" in message
    assert "Baz of opset1, 1 times ('inner')" in message
    assert "Loop" not in message and "extension can define them" in message


BOMBS = {
    "laughs": b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><net version="11">&b;</net>',
    "external": b'<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]><net version="11">&a;</net>',
    "doctype": b'<!DOCTYPE net SYSTEM "http://localhost/x.dtd"><net version="11"/>',
    "deep": b'<net version="11">' + b"<a>" * 200_000 + b"</a>" * 200_000 + b"</net>",
    "deep body": b'<net version="11"><layers><layer id="0"><body>' + b"<layers>" * 200_000,
    "long attribute": b'<net version="11" name="' + b"x" * (4 << 20) + b'"/>',
    "long text": b'<net version="11">' + b"x" * (16 << 20),
    "nothing": b"",
    "zeros": bytes(1000),
    "cut off": SMALL[: len(SMALL) // 2],
    "encoding": b'<?xml version="1.0" encoding="no-such"?><net version="11"/>',
    "utf-16": SMALL.decode().encode("utf-16")[:-7],
    "png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "onnx": b"\x08\x07\x12\x04test:\x00",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_at_once(bomb: str) -> None:
    start = time.perf_counter()
    with pytest.raises(RuntimeError):
        read_ir(BOMBS[bomb], WEIGHTS)
    assert time.perf_counter() - start < 20  # read whole, they would take minutes and gigabytes


def test_damage_gives_only_runtime_errors() -> None:
    """Cut at every 7th byte, and 1,500 flipped bits: RuntimeError or a model, nothing else."""
    rng = np.random.default_rng(11)
    variants = [SMALL[:n] for n in range(0, len(SMALL), 7)]
    for _ in range(1500):
        damaged = bytearray(SMALL)
        damaged[rng.integers(len(SMALL))] ^= 1 << rng.integers(8)
        variants.append(bytes(damaged))
    read = 0
    for text in variants:
        try:
            read_ir(text, WEIGHTS)._graph()
            read += 1
        except RuntimeError:
            pass
    assert 0 < read < len(variants)


def test_long_chain_in_linear_time() -> None:
    def chain(n: int) -> float:
        layers = [
            b'<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>'
            b'<output><port id="0"/></output></layer>'
        ]
        layers += [
            b'<layer id="%d" name="r%d" type="ReLU" version="opset1">'
            b'<input><port id="0"><dim>1</dim></port></input>'
            b'<output><port id="0"><dim>1</dim></port></output></layer>' % (i, i)
            for i in range(1, n)
        ]
        layers.append(
            b'<layer id="%d" name="out" type="Result" version="opset1"><input><port id="0"/></input></layer>'
            % n
        )
        edges = [
            b'<edge from-layer="%d" from-port="0" to-layer="%d" to-port="0"/>' % (i, i + 1) for i in range(n)
        ]
        # consumers first: the order of the file must not matter
        text = b'<net name="n" version="11"><layers>%s</layers><edges>%s</edges></net>' % (
            b"".join(reversed(layers)), b"".join(edges),
        )  # fmt: skip
        gc.disable()  # a full collection looks at all objects of the test run
        start = time.process_time()
        model = read_ir(text)
        taken = time.process_time() - start
        gc.enable()
        assert len(model.get_ordered_ops()) == n + 1
        return taken

    chain(100)
    small, large = chain(2_000), chain(20_000)
    assert large < 60 * small, f"2,000 layers {small:.2f} s, 20,000 layers {large:.2f} s"


def test_files_that_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.xml")
    (tmp_path / "m.xml").write_bytes(SMALL)
    for path in (tmp_path / "none.xml", tmp_path, tmp_path / "fifo.xml", "/dev/zero", "nul\0.xml"):
        with pytest.raises(RuntimeError):
            read_ir(path)
    for weights in (tmp_path / "none.bin", tmp_path, tmp_path / "fifo.xml", "/dev/zero"):
        with pytest.raises(RuntimeError):
            read_ir(tmp_path / "m.xml", weights)
    with pytest.raises(RuntimeError, match="outside of the weights"):
        read_ir(tmp_path / "m.xml")
    for wrong in (5, None, object()):
        with pytest.raises(TypeError):
            read_ir(wrong)
    with pytest.raises(TypeError):
        read_ir(SMALL, 5)


def test_truncating_small_weights_is_harmless(tmp_path: Path) -> None:
    """Below 1 MiB the file is read, not mapped: what happens to it later does not matter."""
    (tmp_path / "m.xml").write_bytes(SMALL)
    (tmp_path / "m.bin").write_bytes(WEIGHTS)
    code = (
        "import sys, os; from ovjit.readers.ir.reader import read_ir\n"
        "model = read_ir(sys.argv[1]); os.truncate(sys.argv[1][:-3] + 'bin', 0)\n"
        "print(next(n for n in model.get_ops() if n.get_type_name() == 'Constant').data.tolist())"
    )
    assert printed("-c", code, tmp_path / "m.xml").strip() == "[0.0, 1.0, 2.0]"


def test_big_weights_are_mapped_unless_asked_not_to(tmp_path: Path) -> None:
    text = changed('shape="3" offset="0" size="12"', f'shape="{1 << 19},1" offset="4" size="{1 << 21}"')
    text = text.replace(b'shape="2,3"', b'shape="1,3"')
    (tmp_path / "m.xml").write_bytes(text)
    values = np.arange((1 << 19) + 1, dtype=np.float32)
    values.tofile(tmp_path / "m.bin")
    for use_mmap in (True, False):
        model = read_ir(tmp_path / "m.xml", use_mmap=use_mmap)
        constant = next(n for n in model.get_ops() if n.get_type_name() == "Constant")
        np.testing.assert_array_equal(constant.data[:, 0], values[1:])
        mapped = Path("/proc/self/maps").read_text()
        assert (str(tmp_path / "m.bin") in mapped) == use_mmap
        del constant, model
        assert str(tmp_path / "m.bin") not in Path("/proc/self/maps").read_text()


def test_digits_file_is_where_the_package_says() -> None:
    assert read_ir(DIGITS_XML).input(0).names == {"images"}


def test_a_constant_whose_shape_only_its_output_says() -> None:
    stated = b'element_type="f32" shape="3" offset'
    assert stated in SMALL
    for kind in (b"Const", b"Constant"):
        xml = SMALL.replace(stated, b'element_type="f32" offset').replace(b'"Const"', b'"%s"' % kind)
        (constant,) = (n for n in read_ir(xml, WEIGHTS).get_ops() if n.get_type_name() == "Constant")
        assert list(constant.get_output_shape(0)) == [3]


def test_text_between_tags_reaches_no_handler() -> None:
    """A builder of documents makes an object of each text. None of an IR's models has use for them."""
    parser = _defused_parser()
    assert parser.CharacterDataHandler is None
    heard: list[str] = []
    target = _Target(parser)
    parser.StartElementHandler, parser.EndElementHandler = target.start, target.end
    parser.DefaultHandler = heard.append
    parser.Parse(b"<net version='11'>text<layers>text</layers></net>", True)
    assert heard == ["text", "text"]


@pytest.mark.parametrize("kind", ["float32", "float16", "int32", "int64"])
def test_large_constants_stay_in_the_mapped_file_at_any_address(tmp_path: Path, kind: str) -> None:
    """A boolean before them moves their offsets by one."""
    ops, rng = ovjit.opset13, np.random.default_rng(7)
    x, flag = ops.parameter([3, 1024], np.float32), ops.constant(np.array(True))
    rows = rng.integers(-9, 9, (1024, 768)).astype(kind)
    weights = ops.constant(rows) if kind == "float32" else ops.convert(ops.constant(rows), "f32")
    product = ops.matmul(ops.select(flag, x, ops.constant(np.float32(0))), weights, False, False)
    ovjit.save_model(ovjit.Model([product], [x]), tmp_path / "moved.xml", compress_to_fp16=False)
    model = ovjit.Core().read_model(tmp_path / "moved.xml")
    (stored,) = (n.data for n in model.get_ops() if n.get_type_name() == "Constant" and n.data.size > 1)
    assert not stored.flags.aligned and is_mapped(stored) and (stored == rows).all()
    values = rng.integers(-9, 9, (3, 1024)).astype(np.float32)
    compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    blob = compiled.export_model()
    for one in (compiled, ovjit.Core().import_model(blob, "CPU")):
        assert (one([values])[0] == values @ rows.astype(np.float32)).all()
    ovjit.save_model(model, tmp_path / "again.xml", compress_to_fp16=False)
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "moved.bin").read_bytes()
