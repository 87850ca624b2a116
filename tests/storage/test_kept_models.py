"""Small models are kept compiled beside the kernels: found again by their files alone, and never wrongly."""

from __future__ import annotations

import mmap
import os
import pathlib
import random
import time

import numpy as np
import pytest

import ovjit
import ovjit.cache
from ovjit import opset8
from ovjit.codegen.cpu.host import host_target
from ovjit.disk import kernel_cache as storage
from ovjit.disk import notice
from ovjit.planning import constants
from ovjit.readers.ir.writer import to_bytes
from ovjit.storage import by_file, container, file_models, kept_models, mapped, origins
from ovjit.storage.model_cache import prune
from tests.support import forged
from tests.support.run import printed

X = np.random.default_rng(5).normal(size=(1, 64)).astype(np.float32)


@pytest.fixture
def folder(monkeypatch, tmp_path) -> pathlib.Path:
    """Where models are kept in this test."""
    monkeypatch.setattr(storage, "_default", storage.KernelCache(tmp_path / "cache"))
    monkeypatch.setattr(notice, "_said", {})
    monkeypatch.setattr(origins, "SETTLED_SECONDS", 0.0)
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
print(*sorted(name for name in sys.modules if name.startswith(("ovjit", "ovjit_ops", "numba", "llvmlite"))))
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
        "ovjit.codegen.cpu.ir", "ovjit.rewrite.hoist", "ovjit.storage.by_file", "ovjit.tiles.pack",
        "numba", "llvmlite",
    }  # fmt: skip
    assert not again & spared
    assert spared - first <= {"numba", "llvmlite"}, "a name that no compilation imports"


@pytest.mark.parametrize("outs", [64, 8192])  # known by its bytes, and by the state of a large file
@pytest.mark.parametrize("named", [False, True], ids=["unasked", "CACHE_DIR"])
def test_links_to_files_are_followed(outs: int, named: bool, folder, tmp_path, monkeypatch, unread) -> None:
    """Stores of downloaded models have files under other names, and links to them."""
    monkeypatch.setattr(kept_models, "LARGEST_PACKED", 0)
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


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("where", ["packed", "in file", "full disk"])
def test_weights_are_kept_packed_or_stay_in_their_file(
    where: str, precision: str, folder, tmp_path, monkeypatch, unread
) -> None:
    path = tmp_path / "m.xml"
    write_convolutions(path)
    time.sleep(0.02)
    monkeypatch.setattr(mapped, "SMALLEST_MAPPED", 0)
    if where == "in file":
        monkeypatch.setattr(kept_models, "LARGEST_PACKED", 1 << 20)
    elif where == "full disk":
        disk = os.statvfs(tmp_path)
        monkeypatch.setattr(kept_models, "_FREE", 1 + disk.f_bavail * disk.f_frsize >> 20)
    filled = []
    real = by_file.filled
    monkeypatch.setattr(by_file, "filled", lambda *given: filled.append(1) or real(*given))
    x = np.random.default_rng(8).normal(size=(1, 64, 28, 28)).astype(np.float32)
    config = {"INFERENCE_PRECISION_HINT": precision}
    first, again = (ovjit.Core().compile_model(path, "CPU", config) for _ in "ab")
    (blob,) = folder.glob("*.blob")
    assert len(unread) == 1
    # weights that are rounded to bf16 for a matrix unit are kept packed
    rounded = precision == "bf16" and "amx-bf16" in host_target().extras
    assert bool(filled) == (where != "packed" and not rounded)
    weights = path.with_suffix(".bin").stat().st_size
    if where == "packed":  # the graph's weights are in their file as ever
        packed = first._executable.program.memory.nbytes
        assert packed < blob.stat().st_size < packed + weights / 2
        assert not again._executable.program.memory.flags.writeable  # mapped
    elif precision == "f32":
        assert blob.stat().st_size < weights / 2
    assert again(x)[0].tobytes() == first(x)[0].tobytes()
    read = ovjit.Core().compile_model(path, "CPU", {**config, "ENABLE_MMAP": False})
    assert len(unread) == 2  # nothing may be mapped
    assert read(x)[0].tobytes() == first(x)[0].tobytes()
    assert again.export_model().getvalue() == first.export_model().getvalue()


@pytest.mark.parametrize("where", ["packed", "in file"])
def test_weights_of_onnx_files_stay_in_them(where: str, folder, tmp_path, monkeypatch, unread) -> None:
    from onnx import numpy_helper

    from tests.support.onnx.files import make, node

    w = np.random.default_rng(6).normal(size=(64, 9000)).astype(np.float32)
    model = make([node("MatMul", "x w", "y")], [("x", [1, 64])], ["y"], {"w": w})
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(w, "w"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    time.sleep(0.02)
    if where == "in file":
        monkeypatch.setattr(kept_models, "LARGEST_PACKED", 1 << 20)
    first = answer(path)
    (blob,) = folder.glob("*.blob")
    assert right(first, w) and blob.stat().st_size < w.nbytes * (1.2 if where == "packed" else 0.2)
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


def protections(address: int) -> str:
    """What the system allows at an address, and whether it is shared: "rw-p"."""
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        place, allowed, *_ = line.split()
        first, last = (int(x, 16) for x in place.split("-"))
        if first <= address < last:
            return allowed
    raise AssertionError(f"nothing is mapped at {address:#x}")


def test_weights_are_packed_into_the_file(folder, tmp_path, unread) -> None:
    """They are in memory once, read-only afterwards, and the next process has them."""
    path = tmp_path / "m.xml"
    w = write(path, 8192)
    time.sleep(0.02)
    first = ovjit.Core().compile_model(path, "CPU")
    (blob,) = folder.glob("*.blob")
    memory = first._executable.program.memory
    assert constants.is_mapped(memory) and protections(memory.ctypes.data) == "r--s"
    raw = blob.read_bytes()
    assert raw[container.FIRST : container.FIRST + memory.nbytes] == memory.tobytes()
    assert blob.stat().st_mode & 0o777 == 0o600 and not drafts(folder)
    assert right(first(X)[0], w)
    again = ovjit.Core().compile_model(path, "CPU")
    assert len(unread) == 1 and again(X)[0].tobytes() == first(X)[0].tobytes()
    blob.unlink()
    assert right(first(X)[0], w)


def pages_of(array: np.ndarray) -> int:
    """How many pages of its memory this process has."""
    first, end = (place // mmap.PAGESIZE for place in np.lib.array_utils.byte_bounds(array))
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(8 * first)
        entries = np.frombuffer(file.read(8 * (end - first)), np.uint64)
    return int((entries >> np.uint64(63)).sum())


def test_a_table_in_the_file_has_no_pages_before_it_is_read(folder, tmp_path) -> None:
    """Of words, say, of which a prompt has few."""
    table = np.random.default_rng(5).normal(size=(40000, 64)).astype(np.float32)
    ids = opset8.parameter([1, 2], np.int64, name="ids")
    rows = opset8.gather(opset8.constant(table), ids, np.int64(0))
    xml, weights = to_bytes(ovjit.Model([opset8.relu(rows)], [ids]))
    path = tmp_path / "m.xml"
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(weights)
    time.sleep(0.02)
    compiled = ovjit.Core().compile_model(path, "CPU")
    memory = compiled._executable.program.memory
    assert constants.is_mapped(memory) and len(list(folder.glob("*.blob"))) == 1
    assert memory.nbytes >= table.nbytes and pages_of(memory) < 100
    got = compiled(np.array([[3, 39999]]))[0]
    assert (got == np.maximum(table[[[3, 39999]]], 0)).all()
    again = ovjit.Core().compile_model(path, "CPU")(np.array([[3, 39999]]))[0]
    assert (again == got).all()


@pytest.mark.parametrize("failing", ["posix_fallocate", "replace", "lseek", "preadv"])
def test_weights_that_have_no_place_in_a_file(failing: str, folder, tmp_path, monkeypatch) -> None:
    """A disk that is full, or fails: the model runs, and no file without a name stays."""
    path = tmp_path / "m.xml"
    w = write(path, 8192)
    time.sleep(0.02)
    real = getattr(os, failing)

    def fail(first, *more):
        if failing == "replace" and not str(more[0]).endswith(".blob"):
            return real(first, *more)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    compiled = ovjit.Core().compile_model(path, "CPU")
    monkeypatch.undo()
    assert right(compiled(X)[0], w) and not drafts(folder)
    assert len(list(folder.glob("*.blob"))) == (failing == "posix_fallocate")  # written in one piece


def test_a_compilation_that_fails_leaves_no_file(folder, tmp_path, monkeypatch) -> None:
    path = tmp_path / "m.xml"
    write(path, 8192)
    time.sleep(0.02)
    monkeypatch.setattr(kept_models, "keep", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ovjit.Core().compile_model(path, "CPU")
    assert folder.exists() and not list(folder.iterdir())


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
    monkeypatch.setattr(kept_models, "LARGEST", 1000)  # the plan's tables and code
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


def test_open_shapes_of_weights_that_stay_in_their_file(folder, tmp_path, unread, monkeypatch) -> None:
    """The blob has no constants that plans of before could read."""
    monkeypatch.setattr(kept_models, "_has_room", lambda where, executable: False)
    w = np.random.default_rng(4).normal(size=(64, 512)).astype(np.float32)
    a = opset8.parameter(ovjit.PartialShape([-1, 64]), np.float32, name="a")
    model = ovjit.Model([opset8.matmul(a, opset8.constant(w), False, False)], [a])
    ovjit.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    assert all(right(answer(tmp_path / "m.xml", INFERENCE_PRECISION_HINT="f32"), w) for _ in range(4))
    assert len(unread) == 1


def decoding(rows: int, weights: int) -> ovjit.Model:
    """A cache that grows by `rows` rows (-1: any number) of products with a matrix and begins with what is
    computed of the input, and one that counts and begins with 7."""
    rng = np.random.default_rng(8)
    w = rng.normal(size=(8, weights)).astype(np.float32)
    x = opset8.parameter(ovjit.PartialShape([rows, 8]), np.float32, name="x")
    y = opset8.matmul(x, opset8.constant(w), False, False)
    shape = ovjit.PartialShape([-1 if rows < 0 else rows, weights])
    begin = opset8.multiply(y, opset8.constant(np.float32(0.5)))
    seen = opset8.read_value(begin, "seen", np.float32, shape)
    count = opset8.read_value(opset8.constant(np.float32([7])), "count", np.float32, ovjit.PartialShape([1]))
    new = opset8.concat([seen, y], 0) if rows < 0 else opset8.add(seen, y)
    more = opset8.add(count, opset8.constant(np.float32([1])))
    sinks = [opset8.assign(new, "seen"), opset8.assign(more, "count")]
    results = [opset8.result(opset8.reduce_sum(new, opset8.constant([1]), False)), opset8.result(more)]
    return ovjit.Model(results, sinks, [x], "decoding")


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("rows", [2, -1])
def test_models_with_state_are_kept(folder, tmp_path, unread, monkeypatch, rows, in_file) -> None:
    if in_file:
        monkeypatch.setattr(kept_models, "_has_room", lambda where, executable: False)
    ovjit.save_model(decoding(rows, 512), tmp_path / "m.xml", compress_to_fp16=False)
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
