"""Small models are kept compiled beside the kernels: found again by their files alone, and never wrongly."""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import time

import numpy as np
import pytest

import ovjit
import ovjit.cache
from ovjit import opset8
from ovjit.codegen import routines
from ovjit.codegen.cpu.formats import emulates_bf16, float_types
from ovjit.codegen.cpu.host import host_target
from ovjit.disk import kernel_cache as storage
from ovjit.disk import notice
from ovjit.readers.ir.writer import to_bytes
from ovjit.storage import by_file, file_models, kept_models, late_writes, origins, stored_program
from ovjit.storage.model_cache import prune
from tests.support import forged
from tests.support.run import printed

X = np.random.default_rng(5).normal(size=(1, 64)).astype(np.float32)


@pytest.fixture
def folder(monkeypatch, tmp_path) -> pathlib.Path:
    """Where models are kept in this test."""
    monkeypatch.setattr(storage, "_default", storage.KernelCache(tmp_path / "cache"))
    monkeypatch.setattr(notice, "_topics", {})
    monkeypatch.setattr(origins, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(late_writes, "write_later", lambda executable, write: write(executable))
    for name in kept_models._WATCHING:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "models"


def write(path: pathlib.Path, outs: int = 64, seed: int = 4) -> np.ndarray:
    """A product with a matrix, which is returned."""
    w = np.random.default_rng(seed).normal(size=(64, outs)).astype(np.float32)
    a = opset8.parameter([1, 64], np.float32, name="a")
    xml, weights = to_bytes(ovjit.Model([opset8.matmul(a, opset8.constant(w), False, False, name="y")], [a]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(weights)
    return w


def answer(path: pathlib.Path, **config) -> np.ndarray:
    return ovjit.Core().compile_model(path, "CPU", config)(X)[0]


def right(result: np.ndarray, w: np.ndarray) -> bool:
    return bool(np.abs(result - X.astype(np.float64) @ w).max() < 1e-4)


def test_a_known_file_is_not_read(folder, tmp_path, unread) -> None:
    w = write(tmp_path / "m.xml")
    first = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    want = first(X)[0]
    assert right(want, w) and len(list(folder.glob("*.blob"))) == 1 and unread
    unread.clear()
    again = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    assert unread == [] and again(X)[0].tobytes() == want.tobytes()
    assert not again.get_property("LOADED_FROM_CACHE")  # which is about CACHE_DIR
    assert again.get_property("NETWORK_NAME") == first.get_property("NETWORK_NAME")
    assert [p.get_names() for p in again.outputs] == [p.get_names() for p in first.outputs]
    ops = [[n.get_type_name() for n in c.get_runtime_model().get_ordered_ops()] for c in (first, again)]
    assert ops[0] == ops[1]


START = """
import sys, numpy as np, ovjit
compiled = ovjit.Core().compile_model(sys.argv[1], "CPU")
compiled(np.zeros((1, 64), np.float32))
from ovjit.storage import late_writes
late_writes.finish()
packages = "ovjit", "ovjit_ops", "numba", "llvmlite", "lzma"
print(*sorted(name for name in sys.modules if name.startswith(packages)))
"""


def test_a_start_needs_neither_planner_nor_generators(tmp_path) -> None:
    write(tmp_path / "m.xml")
    unset = dict.fromkeys(kept_models._WATCHING)
    first, again = (
        set(printed("-c", START, tmp_path / "m.xml", **unset, OVJIT_CACHE=str(tmp_path / "cache")).split())
        for _ in "ab"
    )
    spared = {
        "ovjit_ops", "ovjit.readers.ir.reader", "ovjit.planning.plan", "ovjit.compiler.program",
        "ovjit.planning.races", "ovjit.codegen.elementwise", "ovjit.codegen.function", "ovjit.codegen.tracer",
        "ovjit.codegen.cpu.ir", "ovjit.compiler.pass_pipeline", "ovjit.rewrite.hoist", "ovjit.tiles.pack",
        "numba", "llvmlite", "lzma",  # shipped files are unpacked with it
    }  # fmt: skip
    assert not again & spared
    assert spared - first <= {"numba", "llvmlite"}, "a name that no compilation imports"


@pytest.mark.parametrize("state", ["the same", "another", None])
def test_routines_of_the_same_files_are_not_looked_up(state, folder, tmp_path, monkeypatch, unread) -> None:
    w = write(tmp_path / "m.xml")
    answer(tmp_path / "m.xml")
    unread.clear()
    monkeypatch.setattr(routines, "provided", {})
    if state != "the same":
        monkeypatch.setattr(stored_program, "package_state", lambda *packages: state)
    assert right(answer(tmp_path / "m.xml"), w) and unread == []
    assert ("runner" in routines.provided) == (state == "the same")


@pytest.mark.parametrize("outs", [64, 8192])  # known by its bytes, and by the state of a large file
@pytest.mark.parametrize("named", [False, True], ids=["unasked", "CACHE_DIR"])
def test_links_to_files_are_followed(outs: int, named: bool, folder, tmp_path, unread) -> None:
    """Stores of downloaded models have files under other names, and links to them."""
    for where in ("store", "model"):
        (tmp_path / where).mkdir()
    ws = [write(tmp_path / "store" / f"{i}.xml", outs, seed=i) for i in (1, 2)]
    for i in (1, 2):
        for kind in ("xml", "bin"):
            os.rename(tmp_path / "store" / f"{i}.{kind}", tmp_path / "store" / f"{i}{kind}")
    config = {"CACHE_DIR": str(tmp_path / "named")} if named else {}
    time.sleep(0.02)
    for i, known in ((1, False), (1, True), (2, False), (1, True), (2, True)):
        for kind in ("xml", "bin"):
            link = tmp_path / "model" / f"m.{kind}"
            link.unlink(missing_ok=True)
            link.symlink_to(f"../store/{i}{kind}")
        assert right(answer(tmp_path / "model" / "m.xml", **config), ws[i - 1]), (i, known)
        assert bool(unread) != known, (i, known)
        unread.clear()
    if not named:
        assert all(blob.stat().st_size < 300_000 for blob in folder.glob("*.blob"))


@pytest.mark.parametrize("outs", [64, 8192])
def test_what_is_exported_is_the_same(outs: int, folder, tmp_path, unread) -> None:
    """A kept model has no more than a start needs; its export has all."""
    write(tmp_path / "m.xml", outs)
    time.sleep(0.02)
    blobs = [ovjit.Core().compile_model(tmp_path / "m.xml", "CPU").export_model().getvalue() for _ in "ab"]
    assert len(unread) == 1 and blobs[0] == blobs[1]


def write_convolutions(path: pathlib.Path) -> None:
    """Weights of 1.6 MB: by Winograd, grouped, of a stride, a matrix as it is and turned, an operand."""
    rng = np.random.default_rng(6)

    def weights(*shape: int) -> ovjit.Node:
        return opset8.constant(rng.normal(size=shape).astype(np.float32) / 30)

    window = [1, 1], [1, 1], [1, 1], [1, 1]
    a = opset8.parameter([1, 64, 28, 28], np.float32, name="a")
    x = opset8.relu(opset8.convolution(a, weights(128, 64, 3, 3), *window))
    x = opset8.convolution(x, weights(130, 128, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
    x = opset8.group_convolution(x, weights(2, 37, 65, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    x = opset8.add(x, weights(1, 74, 14, 14))
    x = opset8.reshape(x, np.array([74, 196]), False)
    x = opset8.matmul(opset8.matmul(x, weights(196, 200), False, False), weights(300, 200), False, True)
    xml, content = to_bytes(ovjit.Model([x], [a]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(content)


def save_halves(path: pathlib.Path) -> None:
    """Weights of 2.8 MB in f16, of products and convolutions, as `save_model` compresses them."""
    rng = np.random.default_rng(6)

    def weights(*shape: int) -> ovjit.Node:
        return opset8.convert(opset8.constant((rng.normal(size=shape) / 30).astype(np.float16)), "f32")

    window = [1, 1], [1, 1], [1, 1], [1, 1]
    a = opset8.parameter([1, 64, 16, 16], np.float32, name="a")
    x = opset8.relu(opset8.convolution(a, weights(512, 64, 3, 3), *window))
    x = opset8.reshape(x, np.array([512, 256]), False)
    x = opset8.matmul(opset8.matmul(x, weights(256, 1024), False, False), weights(800, 1024), False, True)
    xml, content = to_bytes(ovjit.Model([x], [a]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(content)


def save_integers(path: pathlib.Path) -> None:
    """Compressed weights of 1.2 MB, in u8 and in groups of i4."""
    rng = np.random.default_rng(6)
    a = opset8.parameter(ovjit.PartialShape([-1, 1024]), np.float32, name="a")
    codes = opset8.constant(rng.integers(0, 255, (1024, 1024), np.uint8))
    scales = opset8.constant(rng.uniform(0.001, 0.01, (1024, 1)).astype(np.float32))
    zeros = opset8.constant(rng.integers(100, 156, (1024, 1)).astype(np.float32))
    plain = opset8.multiply(opset8.subtract(opset8.convert(codes, "f32"), zeros), scales)
    x = opset8.matmul(a, plain, False, True)
    small = opset8.constant(rng.integers(-8, 8, (256, 8, 128)).astype(np.int8), ovjit.Type.i4)
    groups = opset8.constant(rng.uniform(0.001, 0.01, (256, 8, 1)).astype(np.float32))
    product = opset8.multiply(opset8.convert(small, "f32"), groups)
    x = opset8.matmul(x, opset8.reshape(product, np.array([256, 1024]), False), False, True)
    xml, content = to_bytes(ovjit.Model([x], [a]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(content)


def save_recurrent(path: pathlib.Path) -> None:
    """Weights of 1.3 MB of an LSTM of 200 units and of a GRU of 72, whose last panels are not full."""
    rng = np.random.default_rng(6)

    def weights(*shape: int) -> ovjit.Node:
        return opset8.constant((rng.normal(size=shape) / 30).astype(np.float32))

    a = opset8.parameter([2, 5, 64], np.float32, name="a")
    lengths, first = (
        opset8.constant(np.full(2, 5, np.int32)),
        opset8.constant(np.zeros((2, 1, 200), np.float32)),
    )
    packed = weights(1, 800, 64), weights(1, 800, 200), weights(1, 800)
    x = opset8.lstm_sequence(a, first, first, lengths, *packed, 200, "forward").output(0)
    x = opset8.squeeze(x, opset8.constant(np.array([1])))
    first = opset8.constant(np.zeros((2, 2, 72), np.float32))
    packed = weights(2, 216, 200), weights(2, 216, 72), weights(2, 216)
    x = opset8.gru_sequence(x, first, lengths, *packed, 72, "bidirectional").output(0)
    xml, content = to_bytes(ovjit.Model([x], [a]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(content)


@pytest.mark.parametrize(
    ("write", "precision"),
    [
        *itertools.product((write_convolutions, save_halves, save_integers), ("f32", "bf16")),
        (save_recurrent, "f32"),
    ],
)
def test_packed_weights_are_made_again_from_the_file(write, precision: str, folder, tmp_path, unread) -> None:
    target = host_target()
    if precision == "bf16" and precision not in float_types(target) and emulates_bf16(target):
        pytest.skip("weights that are rounded to bf16 and widened again have no packing function")
    path = tmp_path / "m.xml"
    write(path)
    time.sleep(0.02)
    config = {"INFERENCE_PRECISION_HINT": precision}
    first, again = (ovjit.Core().compile_model(path, "CPU", config) for _ in "ab")
    shape = [d.get_length() if d.is_static else 3 for d in first.input(0).partial_shape]
    x = np.random.default_rng(8).normal(size=shape).astype(np.float32)
    (blob,) = folder.glob("*.blob")
    assert len(unread) == 1
    weights = path.with_suffix(".bin").stat().st_size
    packed = first._executable.program.memory.nbytes
    assert blob.stat().st_size < min(weights, packed) / 2 and kept_models.SMALLEST < weights
    memories = [compiled._executable.program.memory for compiled in (first, again)]
    assert memories[0].tobytes() == memories[1].tobytes()
    assert again(x)[0].tobytes() == first(x)[0].tobytes()
    read = ovjit.Core().compile_model(path, "CPU", {**config, "ENABLE_MMAP": False})
    assert len(unread) == 2  # nothing may be mapped
    assert read(x)[0].tobytes() == first(x)[0].tobytes()
    assert again.export_model().getvalue() == first.export_model().getvalue()


def test_small_models_are_kept_with_each_weight_once(folder, tmp_path, unread) -> None:
    """Weights of files that are not mapped, as the graph has them and as packed, would exceed the limit."""
    rng, path = np.random.default_rng(9), tmp_path / "m.xml"
    a = x = opset8.parameter([1, 256], np.float32, name="a")
    for _ in range(3):
        weights = opset8.constant((rng.normal(size=(256, 256)) / 30).astype(np.float32))
        x = opset8.relu(opset8.matmul(x, weights, False, True))
    xml, content = to_bytes(ovjit.Model([x], [a]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(content)
    assert len(content) < kept_models.SMALLEST < 2 * len(content)
    first, again = (ovjit.Core().compile_model(path, "CPU") for _ in "ab")
    (blob,) = folder.glob("*.blob")
    assert len(unread) == 1 and blob.stat().st_size < len(content) + 150_000
    x = rng.normal(size=(1, 256)).astype(np.float32)
    assert again(x)[0].tobytes() == first(x)[0].tobytes()
    assert again.export_model().getvalue() == first.export_model().getvalue()
    mine, other = (c._executable.graph for c in (first, again))
    for node, there in zip(mine.nodes, other.nodes, strict=True):
        for key, value in node.attrs.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(there.attrs[key], value, strict=True)


def test_a_model_beyond_the_limit_is_kept_compressed(folder, tmp_path, monkeypatch, unread) -> None:
    w = write(tmp_path / "m.xml")
    assert right(answer(tmp_path / "m.xml"), w)
    (plain,) = folder.glob("*.blob")
    limit = plain.stat().st_size - 1
    plain.unlink()
    monkeypatch.setattr(kept_models, "SMALLEST", limit)
    for _ in range(2):
        assert right(answer(tmp_path / "m.xml"), w)
    (compressed,) = folder.glob("*.blob")
    assert compressed.stat().st_size <= limit and len(unread) == 2


def test_weights_of_onnx_files_stay_in_them(folder, tmp_path, unread) -> None:
    from onnx import numpy_helper

    from tests.support.onnx.files import make, node

    w = np.random.default_rng(6).normal(size=(64, 9000)).astype(np.float32)
    model = make([node("MatMul", "x w", "y")], [("x", [1, 64])], ["y"], {"w": w})
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(w, "w"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    time.sleep(0.02)
    first = answer(path)
    (blob,) = folder.glob("*.blob")
    assert right(first, w) and blob.stat().st_size < w.nbytes * 0.1
    unread.clear()
    again = ovjit.Core().compile_model(path, "CPU")
    assert unread == [] and again(X)[0].tobytes() == first.tobytes()
    unread.clear()
    path.write_bytes(model.SerializeToString().replace(w[0, :4].tobytes(), bytes(16)))
    changed = w.copy()
    changed[0, :4] = 0
    assert right(answer(path), changed) and unread


def drafts(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".tmp"]


@pytest.mark.parametrize("named", [True, False], ids=["a name at the end", "a temporary name"])
@pytest.mark.parametrize("failing", ["write", "replace", "link"])
def test_a_write_that_fails_leaves_no_file(failing: str, named: bool, folder, tmp_path, monkeypatch) -> None:
    w = write(tmp_path / "m.xml", 8192)
    time.sleep(0.02)
    real = getattr(os, failing)

    def fail(first, *more, **options):
        if str(folder) not in str(more):
            return real(first, *more, **options)
        raise OSError(28, "No space left on device")

    if not named:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(os, failing, fail if failing != "write" else failing_write(folder))
    compiled = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    monkeypatch.undo()
    assert right(compiled(X)[0], w) and not drafts(folder)
    assert len(list(folder.glob("*.blob"))) == (failing == "link" and not named)


def failing_write(folder: pathlib.Path):
    """An `os.write` that fails in this folder."""
    real = os.write

    def write(descriptor: int, content) -> int:
        if str(folder) in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        return real(descriptor, content)

    return write


def test_a_file_that_is_not_there_any_more_is_missed(folder, tmp_path, monkeypatch, unread) -> None:
    """Changed between the look at its state and its opening."""
    path = tmp_path / "m.xml"
    write(path, 8192)
    time.sleep(0.02)
    answer(path)
    unread.clear()
    real = kept_models.bytes_of

    def changing(origin):
        write(path, 8192, seed=11)
        return real(origin)

    monkeypatch.setattr(kept_models, "bytes_of", changing)
    got = answer(path)
    content = np.frombuffer(path.with_suffix(".bin").read_bytes(), np.float32)
    assert unread and right(got, content[: 64 * 8192].reshape(64, 8192))


def changed_weights(path: pathlib.Path) -> None:
    write(path, seed=5)


def changed_in_place(path: pathlib.Path) -> None:
    """The same inode and size, and the times of the content as they were."""
    path = path.with_suffix(".bin")
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(256)
        file.write(np.float32(100).tobytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = path.stat()
    assert (now.st_mtime_ns, now.st_size, now.st_ino) == (status.st_mtime_ns, status.st_size, status.st_ino)


def changed_text(path: pathlib.Path) -> None:
    content = path.read_bytes()
    changed = content.replace(b'name="y"', b'name="z"')
    assert changed != content
    path.write_bytes(changed)


@pytest.mark.parametrize("outs", [64, 8192])  # known by its bytes, and by the state of a large file
@pytest.mark.parametrize("change", [changed_weights, changed_in_place, changed_text])
def test_a_changed_file_is_read(change, outs: int, folder, tmp_path, unread) -> None:
    path = tmp_path / "m.xml"
    write(path, outs)
    time.sleep(0.02)
    before = answer(path)
    unread.clear()
    assert np.array_equal(answer(path), before) and not unread
    if change is changed_weights:
        write(path, outs, seed=5)
    else:
        change(path)
    after = answer(path)
    assert unread
    content = np.frombuffer(path.with_suffix(".bin").read_bytes(), np.float32)
    assert right(after, content[: 64 * outs].reshape(64, outs))


def another_property(path: pathlib.Path, monkeypatch) -> dict:
    return {"PERF_COUNT": True}


def other_sources(path: pathlib.Path, monkeypatch) -> dict:
    monkeypatch.setattr(file_models, "package_state", lambda *packages: "another")
    return {}


def another_version(path: pathlib.Path, monkeypatch) -> dict:
    real = file_models.machine
    monkeypatch.setattr(file_models, "machine", lambda: {**real(), "ovjit": "0.0.1"})
    return {}


def another_numpy(path: pathlib.Path, monkeypatch) -> dict:
    monkeypatch.setattr(np, "__version__", "0.1")
    return {}


def another_switch(path: pathlib.Path, monkeypatch) -> dict:
    monkeypatch.setenv("OVJIT_SKIP", "fuse")
    return {}


def another_key(path: pathlib.Path, monkeypatch) -> dict:
    return {"OVJIT_KEY": "6b" * 32}


@pytest.mark.parametrize(
    "change", [another_property, other_sources, another_version, another_numpy, another_switch, another_key]
)
def test_anything_else_changed_is_compiled(change, folder, tmp_path, unread, monkeypatch) -> None:
    path = tmp_path / "m.xml"
    w = write(path)
    answer(path)
    unread.clear()
    config = change(path, monkeypatch)
    assert right(answer(path, **config), w) and unread


@pytest.mark.parametrize(
    "kind", ["cut", "empty", "flipped", "same sums", "another model's", "link", "folder", "open"]
)
def test_planted_blobs_are_not_believed(kind: str, folder, tmp_path, unread) -> None:
    path = tmp_path / "m.xml"
    w = write(path, 600)
    answer(path)
    (blob,) = folder.glob("*.blob")
    content = blob.read_bytes()
    if kind == "same sums":
        blob.write_bytes(forged.forge(content, "packed", "rectangle", random.Random(3)))
        assert blob.read_bytes() != content
    elif kind == "open":
        blob.chmod(0o666)
    else:
        blob.unlink()
    if kind == "another model's":
        write(tmp_path / "n.xml", seed=9)
        answer(tmp_path / "n.xml")
        (other,) = folder.glob("*.blob")
        other.rename(blob)
    elif kind == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        blob.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        blob.mkdir()
    elif kind not in ("open", "same sums"):
        at = content.index(b"matmul") if b"matmul" in content else 100
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        blob.write_bytes({"cut": content[:70], "empty": b"", "flipped": flipped}[kind])
    unread.clear()
    assert right(answer(path), w) and unread


def test_a_file_of_just_now_is_not_kept(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(origins, "SETTLED_SECONDS", 60.0)
    write(tmp_path / "m.xml", 8192)
    answer(tmp_path / "m.xml")
    assert not list(folder.glob("*"))


def test_a_file_changed_meanwhile_is_not_kept(folder, tmp_path, monkeypatch) -> None:
    from ovjit.api.run import core

    write(tmp_path / "m.xml")
    real = core._compile

    def changing(*given):
        write(tmp_path / "m.xml", seed=7)
        return real(*given)

    monkeypatch.setattr(core, "_compile", changing)
    answer(tmp_path / "m.xml")
    assert not list(folder.glob("*"))


def test_they_are_bounded(folder, tmp_path, monkeypatch, unread) -> None:
    for seed in range(4):
        write(tmp_path / f"{seed}.xml", seed=seed)
        answer(tmp_path / f"{seed}.xml")
        for age, blob in enumerate(sorted(folder.glob("*.blob"), key=os.path.getmtime)[::-1]):
            os.utime(blob, (time.time() - 10 * age - 1,) * 2)
    blobs = list(folder.glob("*.blob"))
    size = max(blob.stat().st_size for blob in blobs)
    assert len(blobs) == 4
    monkeypatch.setattr(kept_models, "MAX_BYTES", 2 * size + 1)
    write(tmp_path / "4.xml", seed=4)
    answer(tmp_path / "4.xml")
    assert len(list(folder.glob("*.blob"))) == 2
    unread.clear()
    answer(tmp_path / "4.xml")
    assert not unread  # the last one stays
    monkeypatch.setattr(kept_models, "SMALLEST", 1000)  # the plan's tables and code
    write(tmp_path / "5.xml", seed=5)
    answer(tmp_path / "5.xml")
    assert len(list(folder.glob("*.blob"))) == 2
    ovjit.cache.prune(max_bytes=0)
    assert not list(folder.glob("*.blob")) and prune(folder, 0) == 0


@pytest.mark.parametrize("name", ["OVJIT_CHECK", "OVJIT_DEBUG", "OVJIT_COMPARE"])
def test_who_watches_compiling_sees_it(name: str, folder, tmp_path, monkeypatch, unread) -> None:
    w = write(tmp_path / "m.xml")
    answer(tmp_path / "m.xml")
    monkeypatch.setenv(name, "1")
    unread.clear()
    assert right(answer(tmp_path / "m.xml"), w) and unread


def test_none_is_kept_without_a_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OVJIT_CACHE", "0")
    monkeypatch.setattr(storage, "_default", storage.KernelCache())
    w = write(tmp_path / "m.xml")
    assert right(answer(tmp_path / "m.xml"), w) and kept_models.folder() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]


def test_open_shapes_of_weights_that_stay_in_their_file(folder, tmp_path, unread) -> None:
    w = np.random.default_rng(4).normal(size=(64, 9000)).astype(np.float32)
    a = opset8.parameter(ovjit.PartialShape([-1, 64]), np.float32, name="a")
    model = ovjit.Model([opset8.matmul(a, opset8.constant(w), False, False)], [a])
    ovjit.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    time.sleep(0.02)
    for _ in range(3):
        compiled = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        assert right(compiled(X)[0], w)
    assert len(unread) == 1
    assert compiled._executable.program._compiled is None  # neither constants nor plans are made again
    (blob,) = folder.glob("*.blob")
    assert blob.stat().st_size < w.nbytes / 10


def decoding(rows: int, weights: int) -> ovjit.Model:
    """A cache that grows by `rows` rows (-1: any number) of products with a matrix, and one that counts and
    begins with 7. The first begins with what is computed of the input, or with zeros if weights are many."""
    rng = np.random.default_rng(8)
    w = rng.normal(size=(8, weights)).astype(np.float32)
    x = opset8.parameter(ovjit.PartialShape([rows, 8]), np.float32, name="x")
    y = opset8.matmul(x, opset8.constant(w), False, False)
    shape = ovjit.PartialShape([-1 if rows < 0 else rows, weights])
    begin = opset8.multiply(y, opset8.constant(np.float32(0.5)))
    if weights > 1000:
        begin = opset8.constant(np.zeros((2, weights), np.float32))
    seen = opset8.read_value(begin, "seen", np.float32, shape)
    count = opset8.read_value(opset8.constant(np.float32([7])), "count", np.float32, ovjit.PartialShape([1]))
    new = opset8.concat([seen, y], 0) if rows < 0 else opset8.add(seen, y)
    more = opset8.add(count, opset8.constant(np.float32([1])))
    sinks = [opset8.assign(new, "seen"), opset8.assign(more, "count")]
    results = [opset8.result(opset8.reduce_sum(new, opset8.constant([1]), False)), opset8.result(more)]
    return ovjit.Model(results, sinks, [x], "decoding")


@pytest.mark.parametrize("weights", [512, 33000])
@pytest.mark.parametrize("rows", [2, -1])
def test_models_with_state_are_kept(folder, tmp_path, unread, rows, weights) -> None:
    ovjit.save_model(decoding(rows, weights), tmp_path / "m.xml", compress_to_fp16=False)
    time.sleep(0.02)
    told = []
    for _ in range(3):
        compiled = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request = compiled.create_infer_request()
        for step in range(4):
            if step == 2:
                request.reset_state()
            x = np.full((2, 8), step + 1, np.float32)
            told.append([value.tolist() for value in request.infer([x]).values()])
        told[-1].append({s.name: s.state.data.tolist() for s in request.query_state()})
    assert len(unread) == 1 and len(list(folder.glob("*.blob"))) == 1
    assert told[:4] == told[4:8] == told[8:]
    assert [row[1] for row in told[:4]] == [[8], [9], [8], [9]]


def test_plans_of_states_that_grow_are_kept_though_the_inputs_are_static(folder, tmp_path) -> None:
    x = opset8.parameter([1, 8], np.float32, name="x")
    empty = opset8.constant(np.zeros((1, 8), np.float32))
    seen = opset8.read_value(empty, "seen", np.float32, ovjit.PartialShape([-1, 8]))
    new = opset8.concat([seen, opset8.relu(x)], 0)
    result = opset8.result(opset8.reduce_sum(new, opset8.constant([0, 1]), False))
    ovjit.save_model(ovjit.Model([result], [opset8.assign(new, "seen")], [x], "m"), tmp_path / "m.xml", False)
    traces = []
    for config in ({}, {}, {"CACHE_DIR": str(tmp_path / "c")}, {"CACHE_DIR": str(tmp_path / "c")}):
        compiled = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", config)
        traces.append(getattr(compiled._executable.main.program, "traces", None))
        request = compiled.create_infer_request()
        sums = [float(request.infer([np.ones((1, 8), np.float32)])[0]) for _ in range(3)]
        assert sums == [8, 16, 24]
    assert list(traces[1]) and list(traces[3])  # kept by the process before, or traced ahead of time


def test_cuts_are_compiled_each_time(folder, tmp_path, unread) -> None:
    """What is made of several programs is not kept, and runs."""
    a = opset8.parameter([4], np.float32, name="a")
    found = opset8.non_zero(a)
    ovjit.save_model(ovjit.Model([found], [a]), tmp_path / "cut.xml", False)
    for _ in range(2):
        compiled = ovjit.Core().compile_model(tmp_path / "cut.xml", "CPU")
        assert compiled(np.array([0, 1, 0, 2], np.float32))[0].tolist() == [[1, 3]]
    assert len(unread) == 2


# --- when they are written


LATE = """
import os, sys, time
import numpy as np, ovjit
from ovjit.storage import kept_models, late_writes, origins
origins.SETTLED_SECONDS = 0.0
late_writes.PATIENCE = {patience}
written = []
real = kept_models.keep
kept_models.keep = lambda *given: (real(*given), written.append(1))
compiled = ovjit.Core().compile_model(sys.argv[1], "CPU")
x = np.zeros((1, 64), np.float32)

def wait(seconds):
    end = time.monotonic() + seconds
    while not written and time.monotonic() < end:
        time.sleep(0.01)
{then}
"""


def run_late(path: pathlib.Path, then: str, patience: float = 60) -> str:
    """Run a program that has compiled the file. Returns its output."""
    unset = dict.fromkeys(kept_models._WATCHING)
    code = LATE.format(then=then, patience=patience)
    return printed("-c", code, path, **unset, OVJIT_CACHE=str(path.parent / "cache")).strip()


def blobs(path: pathlib.Path) -> list[pathlib.Path]:
    return list((path.parent / "cache" / "models").glob("*.blob"))


@pytest.mark.parametrize(
    "run", ["compiled(x)", "r = compiled.create_infer_request(); r.start_async(x); r.wait()"]
)
def test_they_are_written_after_the_first_inference(run: str, tmp_path) -> None:
    write(tmp_path / "m.xml")
    then = f"wait(0.3); print(written, late_writes._queue.has_thread); {run}; wait(30); late_writes.finish()"
    last = "; time.sleep(1); print(written, late_writes._queue.has_thread)"
    assert run_late(tmp_path / "m.xml", then + last) == "[] True\n[1] False"
    assert len(blobs(tmp_path / "m.xml")) == 1


def test_they_are_written_after_some_seconds_without_an_inference(tmp_path) -> None:
    write(tmp_path / "m.xml")
    assert run_late(tmp_path / "m.xml", "wait(30); print(written)", 0.1) == "[1]"
    assert len(blobs(tmp_path / "m.xml")) == 1


def test_the_end_of_a_process_waits_for_no_write(tmp_path) -> None:
    """Neither for one that waits for an inference, nor for one that has begun."""
    write(tmp_path / "m.xml")
    assert run_late(tmp_path / "m.xml", "print(len(late_writes._queue.pending))") == "1"
    endless = "os.link = lambda *a, **k: (written.append(1), time.sleep(600)); "
    assert run_late(tmp_path / "m.xml", f"{endless} compiled(x); wait(30); print(written)") == "[1]"
    assert not blobs(tmp_path / "m.xml") and not drafts(tmp_path / "cache")


def test_a_process_that_is_killed_while_it_writes_leaves_no_file(tmp_path) -> None:
    write(tmp_path / "m.xml")
    killed = """
import signal
from ovjit.disk import folders
parts = folders.write_parts
def write_parts(descriptor, *given):
    its = "/models/" in os.readlink(f"/proc/self/fd/{descriptor}")
    parts(descriptor, *(given[: len(given) // 2] if its else given))
    if its:
        os.kill(os.getpid(), signal.SIGKILL)
folders.write_parts = write_parts
if not os.fork():
    ovjit.Core().compile_model(sys.argv[1], "CPU")(x)
    late_writes.finish()
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert run_late(tmp_path / "m.xml", killed) == "-9"
    assert not blobs(tmp_path / "m.xml") and not drafts(tmp_path / "cache")


def test_a_forked_child_does_not_write(tmp_path) -> None:
    """What the parent has compiled; what the child compiles itself is written."""
    write(tmp_path / "m.xml")
    fork = """
if not os.fork():
    print(late_writes._queue.pending, late_writes._queue.has_thread, flush=True)
    compiled(x); late_writes.finish(); time.sleep(0.2)
    print(written, flush=True)
    again = ovjit.Core().compile_model(sys.argv[1], "CPU")
    again(x); wait(30)
    print(written, flush=True)
    os._exit(0)
os.wait()
print(written)
"""
    assert run_late(tmp_path / "m.xml", fork) == "[] False\n[]\n[1]\n[]"


def test_a_file_that_changes_before_the_write_is_not_kept(tmp_path) -> None:
    for outs in (64, 8192):
        write(tmp_path / "m.xml", outs)
        time.sleep(0.02)
        change = "open(sys.argv[1][:-3] + 'bin', 'r+b').write(b'1234'); compiled(x); wait(30); print(written)"
        assert run_late(tmp_path / "m.xml", change) == "[1]"
        assert not blobs(tmp_path / "m.xml")


def test_a_model_that_is_dropped_is_not_written(tmp_path) -> None:
    write(tmp_path / "m.xml")
    drop = "compiled(x); late_writes._queue.lock.lock.acquire(); del compiled; import gc; gc.collect()"
    end = "; late_writes._queue.lock.lock.release(); late_writes.finish(); print(written)"
    assert run_late(tmp_path / "m.xml", drop.replace("compiled(x); ", "") + end) == "[]"


def test_two_processes_at_once_keep_one_model(tmp_path) -> None:
    write(tmp_path / "m.xml", 8192)
    time.sleep(0.02)
    both = """
pid = os.fork()
again = ovjit.Core().compile_model(sys.argv[1], "CPU")
again(x); late_writes.finish()
if not pid:
    os._exit(len(written) - 1)
print(os.waitstatus_to_exitcode(os.wait()[1]), bool(written))
"""
    assert run_late(tmp_path / "m.xml", both) == "0 True"
    (blob,) = blobs(tmp_path / "m.xml")
    assert not drafts(tmp_path / "cache")
    known = "print(compiled._executable.main.program.__class__.__name__)"
    assert run_late(tmp_path / "m.xml", known) == "StoredProgram"


def test_what_cannot_be_made_again_and_is_large_is_not_kept(folder, tmp_path, monkeypatch, unread) -> None:
    write_convolutions(tmp_path / "m.xml")
    time.sleep(0.02)
    monkeypatch.setattr(by_file, "_names", dict)
    monkeypatch.setattr(kept_models, "SMALLEST", 1 << 19)
    late = []
    monkeypatch.setattr(late_writes, "write_later", lambda *given: late.append(given))
    for _ in "ab":
        ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    assert len(unread) == 2 and not late and not folder.exists()
