"""CACHE_DIR as a user tends it: hashing spared and never wrongly, filled, listed and pruned from outside."""

from __future__ import annotations

import json
import logging
import mmap
import os
import pathlib
import shutil
import tempfile
import time

import numpy as np
import onnx
import pytest

import ovjit
import ovjit.cache
from ovjit import opset8
from ovjit.data import digits
from ovjit.disk import notice, sealed
from ovjit.readers.files.weights import MAP_FROM
from ovjit.readers.ir.writer import to_bytes
from ovjit.storage import graph_format, origins
from ovjit.storage.container import Container
from ovjit.tools import cache as cli
from tests.support.run import printed

X = np.random.default_rng(5).normal(size=(1, 600)).astype(np.float32)
SHIFT = 5.0  # the second matrix is found by its first value


@pytest.fixture(autouse=True)
def warnings_anew(monkeypatch):
    monkeypatch.setattr(notice, "_topics", {})


def write_model(folder: pathlib.Path) -> pathlib.Path:
    """A model whose weights, 1.4 MB, are mapped; the files are a minute old."""
    rng = np.random.default_rng(4)
    a = opset8.parameter([1, 600], np.float32, name="a")
    w = rng.normal(size=(600, 600)).astype(np.float32)
    w[0, 0] = SHIFT
    xml, weights = to_bytes(ovjit.Model([opset8.matmul(a, opset8.constant(w), False, False, name="y")], [a]))
    assert len(weights) > MAP_FROM
    (folder / "m.xml").write_bytes(xml)
    (folder / "m.bin").write_bytes(weights)
    settle(folder / "m.bin")
    return folder / "m.xml"


def settle(path: pathlib.Path, seconds: float = 60) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.fixture
def model(tmp_path, monkeypatch) -> pathlib.Path:
    # the time of the last change of an inode cannot be set back
    monkeypatch.setattr(origins, "SETTLED_SECONDS", 0.0)
    path = write_model(tmp_path)
    time.sleep(0.02)
    return path


def compile_model(path: pathlib.Path, by_file: bool = False, **config) -> ovjit.CompiledModel:
    """`by_file`: the file's name is given, and the file perhaps not read at all."""
    core = ovjit.Core()
    settings = {"CACHE_DIR": path.parent / "c", **config}
    model = path if by_file else core.read_model(path, None, {"ENABLE_MMAP": config.get("ENABLE_MMAP", True)})
    return core.compile_model(model, "CPU", settings)


def from_cache(path: pathlib.Path, by_file: bool = False, **config) -> bool:
    return bool(compile_model(path, by_file, **config).get_property("LOADED_FROM_CACHE"))


both_ways = pytest.mark.parametrize("by_file", [False, True])


def sources(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted((path.parent / "c").glob("*.source"))


@pytest.fixture
def hashed(monkeypatch) -> list[int]:
    """Sizes of the large arrays whose bytes have been hashed."""
    sizes: list[int] = []
    real = graph_format.raw_bytes

    def counting(array: np.ndarray) -> np.ndarray:
        if array.nbytes > 1 << 20:
            sizes.append(array.nbytes)
        return real(array)

    monkeypatch.setattr(graph_format, "raw_bytes", counting)
    return sizes


# --- hashing


def test_unchanged_files_are_hashed_once(model, hashed) -> None:
    assert not from_cache(model) and len(hashed) == 1
    assert len(sources(model)) == 1
    hashed.clear()
    assert from_cache(model) and hashed == []
    assert not from_cache(model, PERF_COUNT=True) and hashed == []  # other properties, the same weights
    assert from_cache(model, ENABLE_MMAP=False) and len(hashed) == 1  # what was read is no file's any more


@both_ways
def test_another_byte_of_weights_misses(by_file, model, hashed) -> None:
    """Written in place, size, inode and even the time of the content as they were."""
    before = compile_model(model, by_file)(X)[0].copy()
    weights = model.with_suffix(".bin")
    status = weights.stat()
    content = bytearray(weights.read_bytes())
    place = bytes(content).index(np.float32(SHIFT).tobytes())
    with open(weights, "r+b") as file:
        file.seek(place)
        file.write(np.float32(SHIFT + 1).tobytes())
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = weights.stat()
    assert (now.st_mtime_ns, now.st_size, now.st_ino) == (
        status.st_mtime_ns,
        status.st_size,
        status.st_ino,
    )
    hashed.clear()
    changed = compile_model(model, by_file)
    assert not changed.get_property("LOADED_FROM_CACHE") and hashed
    after = changed(X)[0]
    assert np.abs(after[0, 0] - before[0, 0] - X[0, 0]) < 1e-4 and np.array_equal(after[:, 1:], before[:, 1:])


@both_ways
def test_a_replaced_file_misses(by_file, model) -> None:
    compile_model(model, by_file)
    weights = model.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    draft = weights.with_suffix(".new")
    draft.write_bytes(content)
    settle(draft)
    os.replace(draft, weights)
    assert not from_cache(model, by_file)
    assert from_cache(model, by_file)


def test_weights_changed_between_reading_and_compiling(model, hashed) -> None:
    """What is mapped is what the file is now, so that the state it was opened in stands for nothing."""
    compile_model(model)
    core = ovjit.Core()
    read = core.read_model(model)
    weights = model.with_suffix(".bin")
    with open(weights, "r+b") as file:
        file.seek(weights.read_bytes().index(np.float32(SHIFT).tobytes()))
        file.write(np.float32(SHIFT + 1).tobytes())
    hashed.clear()
    compiled = core.compile_model(read, "CPU", {"CACHE_DIR": model.parent / "c"})
    assert not compiled.get_property("LOADED_FROM_CACHE") and hashed


@both_ways
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_weights_changed_through_a_mapping_miss(place, by_file, model) -> None:
    """Stores to a page that is mapped and dirty, or in memory, leave a file's times alone."""
    if place == "memory":
        folder = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
        path = pathlib.Path(shutil.copy(model, folder))
        shutil.copy(model.with_suffix(".bin"), folder)
        model = path
    weights = model.with_suffix(".bin")
    try:
        with open(weights, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            at = mapped[:].index(np.float32(SHIFT).tobytes())
            mapped[at : at + 4] = np.float32(SHIFT).tobytes()  # from now on the page is dirty
            settle(weights)
            time.sleep(0.02)
            before = compile_model(model, by_file)(X)[0].copy()
            status = weights.stat()
            mapped[at : at + 4] = np.float32(SHIFT + 1).tobytes()
            assert weights.stat().st_mtime_ns == status.st_mtime_ns
            after = compile_model(model, by_file)(X)[0]
            assert np.abs(after[0, 0] - before[0, 0] - X[0, 0]) < 1e-4
    finally:
        if place == "memory":
            shutil.rmtree(model.parent)


def test_a_file_of_just_now_is_not_recorded(tmp_path) -> None:
    path = write_model(tmp_path)
    compile_model(path)
    assert sources(path) == [] and from_cache(path)


def planted(kind: str, path: pathlib.Path, record: bytes) -> None:
    """Something else in the place of a record that says which digest a file's bytes have."""
    label = path.name.removesuffix(".source")
    path.unlink()
    if kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        forged = {
            "cut": record[:70],
            "empty": b"",
            "flipped": record[:-1] + bytes([record[-1] ^ 1]),
            "foreign key": sealed.seal(b"OVJITSRC", label, b"0" * 64, bytes(range(32))),
            "text": b"0" * 64,
            "huge": record + bytes(1 << 20),
        }
        path.write_bytes(forged[kind])


@pytest.mark.parametrize(
    "kind", ["cut", "empty", "flipped", "foreign key", "text", "huge", "link", "fifo", "folder"]
)
def test_planted_records_are_not_believed(kind: str, model, hashed, caplog) -> None:
    compile_model(model)
    (path,) = sources(model)
    planted(kind, path, path.read_bytes())
    hashed.clear()
    with caplog.at_level(logging.WARNING, "ovjit"):
        assert from_cache(model) and hashed  # the hash is the same, so the blob is found
    assert str(path) in caplog.text


def test_a_record_under_another_name_is_not_believed(model, hashed) -> None:
    """Genuine, but about other bytes: what was true of the old file is put where the new one is looked up."""
    compile_model(model)
    (old,) = sources(model)
    weights = model.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    settle(weights)
    time.sleep(0.02)
    assert not from_cache(model)
    (new,) = set(sources(model)) - {old}
    new.write_bytes(old.read_bytes())
    hashed.clear()
    assert from_cache(model) and hashed


# --- the blob of a file, found without reading it


def test_a_known_file_is_not_read(model, unread) -> None:
    first = compile_model(model, True)
    want = first(X)[0]
    unread.clear()
    again = compile_model(model, True)
    assert unread == [] and again.get_property("LOADED_FROM_CACHE")
    assert again(X)[0].tobytes() == want.tobytes()
    names = [[sorted(p.get_names()) for p in ports] for ports in (first.inputs, first.outputs)]
    assert names == [[sorted(p.get_names()) for p in ports] for ports in (again.inputs, again.outputs)]
    assert again.get_property("NETWORK_NAME") == first.get_property("NETWORK_NAME")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_known_onnx_file_is_not_read_if_its_data_are_in_it(elsewhere: bool, tmp_path, unread) -> None:
    w = onnx.numpy_helper.from_array(np.arange(256, dtype=np.float32), "w")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [256]) for name in "xy"]
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    path = tmp_path / "model.onnx"
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([add], "g", ends[:1], ends[1:], [w])), str(path),
        save_as_external_data=elsewhere, location="model.data", size_threshold=0,
    )  # fmt: skip
    core = ovjit.Core()
    core.set_property({"CACHE_DIR": str(tmp_path / "c")})
    x = np.ones(256, np.float32)
    assert not core.compile_model(str(path)).get_property("LOADED_FROM_CACHE")
    unread.clear()
    again = core.compile_model(str(path))
    assert again.get_property("LOADED_FROM_CACHE") and bool(unread) == elsewhere
    assert again(x)[0].tolist() == (np.arange(256) + 1).tolist()
    if elsewhere:
        (tmp_path / "model.data").write_bytes(np.zeros(256, np.float32).tobytes())
    else:
        path.write_bytes(path.read_bytes().replace(b"Add", b"Sub"))
    changed = core.compile_model(str(path))
    assert not changed.get_property("LOADED_FROM_CACHE")
    assert changed(x)[0].tolist() == ([1] * 256 if elsewhere else (1 - np.arange(256)).tolist())


def test_another_file_or_property_is_read(model, unread) -> None:
    compile_model(model, True)
    unread.clear()
    assert not from_cache(model, True, PERF_COUNT=True) and unread
    unread.clear()
    xml = model.read_bytes()
    model.write_bytes(xml.replace(b'name="y"', b'name="z"'))
    compiled = compile_model(model, True)
    assert unread and not compiled.get_property("LOADED_FROM_CACHE")
    model.write_bytes(xml)
    unread.clear()
    assert from_cache(model, True) and not unread


def test_other_files_of_ovjit_void_it(model, unread, monkeypatch) -> None:
    from ovjit.storage import file_models

    compile_model(model, True)
    monkeypatch.setattr(file_models, "package_state", lambda *packages: "another")
    unread.clear()
    assert from_cache(model, True) and unread
    monkeypatch.setattr(file_models, "package_state", lambda *packages: None)
    unread.clear()
    assert from_cache(model, True) and unread


@pytest.mark.parametrize("kind", ["cut", "empty", "flipped", "text", "link", "folder", "no blob"])
def test_planted_file_records_are_not_believed(kind: str, model, unread) -> None:
    compile_model(model, True)
    (record,) = (model.parent / "c").glob("*.file")
    content = record.read_bytes()
    if kind == "no blob":
        for blob in (model.parent / "c").glob("*.blob"):
            blob.unlink()
    else:
        record.unlink()
        if kind == "link":
            record.symlink_to("/etc/hostname")
        elif kind == "folder":
            record.mkdir()
        else:
            flipped = content[:-1] + bytes([content[-1] ^ 1])
            record.write_bytes(
                {"cut": content[:70], "empty": b"", "flipped": flipped, "text": b"0" * 40}[kind]
            )
    unread.clear()
    assert from_cache(model, True) == (kind != "no blob") and unread


# --- from outside

COUNT = """
import sys, json, ovjit
import numpy as np
import onnx
config = {"CACHE_DIR": sys.argv[3]} if len(sys.argv) > 3 else {}
model = ovjit.Core().compile_model(sys.argv[1], "CPU", config)
values = [v.tobytes().hex() for v in model(np.load(sys.argv[2])).values()]
from ovjit.codegen.compiling import counts
print(json.dumps([counts["compiled"], model.get_property("LOADED_FROM_CACHE"), values]))
"""


def told(arguments: list, **variables) -> str:
    return printed(*arguments, OVJIT_KEY="6b" * 32, **variables)


def test_a_warm_cache_leaves_nothing_to_compile(tmp_path) -> None:
    """The embedded model, warmed by the command in one process, compiled and run in another."""
    network, images, _ = digits()
    np.save(tmp_path / "x.npy", images[:3])
    expected = ovjit.Core().compile_model(network, "CPU")(images[:3])
    for what, folder, other in (("kernels", tmp_path / "k", "0"), ("models", tmp_path / "c", tmp_path / "k")):
        is_model = what == "models"
        options = ["--cache-dir", folder] if is_model else []
        # the embedded model's kernels may all be shipped: none of them is to be used
        warmed = {"OVJIT_CACHE": str(other if is_model else folder), "OVJIT_SHIPPED": "0"}
        said = told(["-m", "ovjit", "cache", "warm", *options, network], **warmed)
        assert f" new {what} in " in said and " 0 new" not in said
        listed = told(["-m", "ovjit", "cache", "list", *options], **warmed).splitlines()
        assert len(listed) > 1 and f" {what}, " in listed[-1]
        assert told(["-m", "ovjit", "cache", "path", *options], **warmed) == f"{folder}\n"
        # models bring their code with them
        used = {"OVJIT_CACHE": "0"} if is_model else warmed
        again = ["-c", COUNT, network, tmp_path / "x.npy", *([folder] if is_model else [])]
        compiled, loaded, values = json.loads(told(again, **used))
        assert compiled == 0 and loaded is is_model
        assert values == [v.tobytes().hex() for v in expected.values()]
        assert " 0 new" in told(["-m", "ovjit", "cache", "warm", *options, network], **warmed)
    assert "0 left" in told(["-m", "ovjit", "cache", "prune", *options, "--max-bytes", "0"], **warmed)


def test_models_are_listed_and_pruned(model, capsys) -> None:
    folder = model.parent / "c"
    compile_model(model)
    compile_model(model, PERF_COUNT=True)
    found = ovjit.cache.entries(folder)
    assert len(found) == 2 and all(e.about["ovjit"] == ovjit.version.__version__ for e in found)
    (folder / ("0" * 40 + ".blob")).write_bytes(b"no blob")
    (folder / "notes.txt").write_text("mine")
    assert {e.key for e in ovjit.cache.entries(str(folder))} == {e.key for e in found}
    assert cli.main(["list", "--cache-dir", str(folder)]) == 0
    assert "2 models" in capsys.readouterr().out.splitlines()[-1]
    for path in folder.glob("*.blob"):
        settle(path, 1e6)
    freed = ovjit.cache.prune(max_age=1e5, cache_dir=folder)
    assert freed == sum(e.bytes for e in found) + len(b"no blob")
    assert ovjit.cache.entries(folder) == [] and len(sources(model)) == 1
    assert cli.main(["prune", "--cache-dir", str(folder), "--max-bytes", "0"]) == 0
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    for command in ("list", "prune"):
        assert cli.main([command, "--cache-dir", str(folder / "none")]) == 1
    assert "No such file" in capsys.readouterr().err
    with pytest.raises(ValueError, match="negative"):
        ovjit.cache.prune(max_age=-1, cache_dir=folder)


def blobs(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted((path.parent / "c").glob("*.blob"))


def left_in(blob: bytes) -> list | None:
    """The file in which a blob leaves the graph's weights."""
    return json.loads(bytes(Container(memoryview(blob)).sections["program"])).get("file")


@both_ways
def test_weights_are_stored_once(model, by_file) -> None:
    """The blob has the packed weights. Those of the graph stay in the model's file."""
    assert not from_cache(model, by_file)
    (blob,) = blobs(model)
    size = model.with_suffix(".bin").stat().st_size
    assert size < blob.stat().st_size < 1.1 * size + 200_000
    sections = Container(memoryview(blob.read_bytes())).sections
    assert len(sections["weights"]) < size // 100
    again = compile_model(model, by_file)
    assert again.get_property("LOADED_FROM_CACHE")
    constants = [n.output.constant for n in again._executable.graph.nodes if n.op.name == "Constant"]
    assert any(array.size == 600 * 600 and array.reshape(-1)[0] == SHIFT for array in constants)


def test_without_mapping_the_blob_has_all(model) -> None:
    assert not from_cache(model, ENABLE_MMAP=False)
    (blob,) = blobs(model)
    assert left_in(blob.read_bytes()) is None
    assert from_cache(model, ENABLE_MMAP=False)


def test_a_mapped_file_is_read_for_who_maps_nothing(model) -> None:
    want = compile_model(model)(X)[0]
    again = compile_model(model, ENABLE_MMAP=False)
    assert again.get_property("LOADED_FROM_CACHE")
    np.testing.assert_array_equal(again(X)[0], want)


def test_what_is_exported_from_the_cache_stands_alone(model) -> None:
    want = compile_model(model)(X)[0]
    again = compile_model(model, by_file=True)
    assert again.get_property("LOADED_FROM_CACHE")
    blob = again.export_model().getvalue()
    assert left_in(blob) is None and left_in(blobs(model)[0].read_bytes()) is not None
    shutil.rmtree(model.parent / "c")
    model.with_suffix(".bin").unlink()
    np.testing.assert_array_equal(ovjit.Core().import_model(blob, "CPU")(X)[0], want)


@both_ways
def test_a_blob_of_a_file_that_is_gone_is_compiled_again(model, by_file, caplog) -> None:
    """The same content in another place: found by its content, and its file is another one."""
    want = compile_model(model)(X)[0]
    moved = model.parent / "moved"
    moved.mkdir()
    for suffix in (".xml", ".bin"):
        shutil.copy(model.with_suffix(suffix), moved / f"m{suffix}")
        model.with_suffix(suffix).unlink()
    settle(moved / "m.bin")
    time.sleep(0.02)
    config = {"CACHE_DIR": model.parent / "c"}
    for from_there in (False, True):
        found = compile_model(moved / "m.xml", by_file, **config)
        assert found.get_property("LOADED_FROM_CACHE") is from_there
        np.testing.assert_array_equal(found(X)[0], want)
    assert not caplog.records
