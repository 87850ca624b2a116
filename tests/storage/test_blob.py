"""Compiled models as files: the same answers from every form of a blob, and no code from a stranger."""

from __future__ import annotations

import ast
import concurrent.futures
import hashlib
import io
import json
import logging
import mmap
import multiprocessing
import os
import pathlib
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

import ovjit
from ovjit import opset8
from ovjit.codegen import compiling
from ovjit.codegen.cpu.host import host_target
from ovjit.disk import folders, keys, notice
from ovjit.execution.runner import ROUTINES, native_kernel
from ovjit.readers.ir.writer import to_bytes
from ovjit.storage import blob as blob_module
from ovjit.storage import container, mapped, model_cache
from ovjit.storage.container import (
    _BODY,
    _ENTRY,
    _TABLE,
    AUTHENTICATED,
    LARGEST_COMPRESSED,
    SECTIONS,
    BlobError,
    Container,
    checksum,
    write_container,
)
from ovjit.storage.graph_format import Reader, dump
from ovjit.storage.mapped import ALIGNMENT
from tests.support import ROOT
from tests.support.blob_models import CASES, X, small_model
from tests.support.forged import place_of
from tests.support.run import printed

FOREIGN = bytes(range(32))


MODELS = {
    name: (CASES[name].build, CASES[name].feeds[0][0])
    for name in ("small", "host", "dynamic", "digits", "digits dynamic")
}


def compiled(name: str, **config) -> ovjit.CompiledModel:
    return ovjit.Core().compile_model(MODELS[name][0](), "CPU", config)


def bits(model: ovjit.CompiledModel, x: np.ndarray) -> list[bytes]:
    return [value.tobytes() for value in model(x).values()]


def blob_of(model: ovjit.CompiledModel) -> bytes:
    return model.export_model().getvalue()


def load(content) -> ovjit.CompiledModel:
    return ovjit.Core().import_model(content, "CPU")


@pytest.fixture(scope="module")
def small() -> tuple[bytes, list[bytes]]:
    """A blob, and what its model answers to X."""
    model = compiled("small")
    return blob_of(model), bits(model, X)


@pytest.fixture(autouse=True)
def warnings_anew(monkeypatch):
    monkeypatch.setattr(notice, "_topics", {})


# --- the same model


@pytest.mark.parametrize("name", MODELS)
def test_what_comes_back_is_the_same_model(name: str) -> None:
    before, x = compiled(name, PERF_COUNT=True, NUM_STREAMS=2), MODELS[name][1]
    content = blob_of(before)
    after = load(content)
    assert after.get_property("LOADED_FROM_CACHE") and not before.get_property("LOADED_FROM_CACHE")
    assert bits(after, x) == bits(before, x)
    for ends in ("inputs", "outputs"):
        facts = [
            [
                (p.get_names(), p.get_element_type(), p.get_partial_shape(), p.get_node().get_friendly_name())
                for p in getattr(m, ends)
            ]
            for m in (before, after)
        ]
        assert facts[0] == facts[1]
    for key in set(before.get_property("SUPPORTED_PROPERTIES")) - {"LOADED_FROM_CACHE"}:
        assert after.get_property(key) == before.get_property(key), key
    rows = [
        [(r.node_name, r.node_type, r.exec_type, r.status) for r in request.profiling_info]
        for request in (before.create_infer_request(), after.create_infer_request())
        if request.infer(x) is not None
    ]
    assert rows[0] == rows[1] != []
    assert blob_of(after) == blob_of(before) == content
    assert blob_of(load(blob_of(after))) == content
    request = after.create_infer_request()
    request.start_async(x)
    request.wait()
    assert [v.tobytes() for v in request.results.values()] == bits(before, x)


def test_every_form_of_a_blob_is_read(small, tmp_path) -> None:
    content, answer = small
    path = tmp_path / "модель 模型.blob"
    path.write_bytes(content)
    stream = io.BytesIO(content)
    stream.seek(5)
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    array = np.frombuffer(content, np.uint8).copy()
    forms = [
        content,
        bytearray(content),
        stream,
        stream,
        ovjit.Tensor(array),
        ovjit.Tensor(array, shared_memory=True),
        memoryview(content),
        np.frombuffer(content + b"x" * (-len(content) % 2), np.uint8)[: len(content)].data,
        memoryview(np.repeat(array, 2))[::2],
        mapped,
        str(path),
        path,
    ]
    for form in forms:
        model = load(form)
        assert bits(model, X) == answer and model.get_property("LOADED_FROM_CACHE"), type(form)
    array[:] = 255  # what was imported does not depend on it
    assert bits(model, X) == answer
    into = io.BytesIO()
    assert load(content).export(into) is None and into.tell() == 0 and into.getvalue() == content
    with pytest.raises(TypeError, match="must be an io.BytesIO object or bytes"):
        load(17)
    with pytest.raises(RuntimeError, match="no such|No such"):
        load(tmp_path / "none.blob")
    with pytest.raises(RuntimeError):
        load(tmp_path)


def test_properties_given_now_go_before_the_blob_s(small) -> None:
    content = blob_of(compiled("small", PERF_COUNT=True, CACHE_DIR=""))
    core = ovjit.Core()
    assert core.import_model(content, "CPU").get_property("PERF_COUNT") in (True, "YES")
    other = core.import_model(content, "CPU", {"PERF_COUNT": False})
    assert other.get_property("PERF_COUNT") in (False, "NO")
    assert blob_of(other) != content and bits(other, X) == small[1]


def test_a_change_of_algorithms_is_compiled(small, caplog) -> None:
    """What the export was compiled without is not silently missing."""
    with caplog.at_level(logging.WARNING, "ovjit"):
        model = ovjit.Core().import_model(small[0], "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
    assert not model.get_property("LOADED_FROM_CACHE") and "EXECUTION_MODE_HINT" in caplog.text
    assert bits(model, X) == small[1]


def test_other_shapes_of_a_dynamic_model_use_the_blob_s_code() -> None:
    before = compiled("dynamic")
    after = load(blob_of(before))
    counts = dict(compiling.counts)
    for rows in (1, 5, 9):
        x = np.random.default_rng(rows).normal(size=(rows, 8)).astype(np.float32)
        assert bits(after, x) == bits(before, x)
    assert compiling.counts == counts
    with pytest.raises(RuntimeError):
        after(np.zeros((10, 8), np.float32))
    assert "MatMul" in str(load(blob_of(compiled("small")))._executable.graph)


def test_models_of_all_kinds_pickle() -> None:
    model = small_model()
    for again in (pickle.loads(pickle.dumps(model)), pickle.loads(pickle.dumps(model, 2))):
        assert again.get_friendly_name() == "small" and to_bytes(again) == to_bytes(model)
        assert bits(ovjit.Core().compile_model(again, "CPU"), X) == bits(compiled("small"), X)
    for device in ("CPU", "AUTO", "MULTI:CPU"):
        before = ovjit.Core().compile_model(model, device)
        after = pickle.loads(pickle.dumps(before))
        assert bits(after, X) == bits(before, X)
        assert after.get_property("EXECUTION_DEVICES") == before.get_property("EXECUTION_DEVICES")


def _answer(model, x):
    if isinstance(model, ovjit.Model):
        model = ovjit.compile_model(model, "CPU")
    return [value.tobytes() for value in model(x).values()]


def test_process_pools_ship_models() -> None:
    before = compiled("small")
    inputs = [X, -X, X * 2]
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_answer, [before, before, small_model()], inputs))
    assert found == [bits(before, x) for x in inputs]


# --- other processes

EXPORT = """
import sys, pathlib, ovjit
if sys.argv[3] == "history":
    from ovjit import opset8
    import numpy as np
    for n in (3, 4):
        a = opset8.parameter([n, 8], np.float32)
        other = ovjit.Model([opset8.sigmoid(opset8.softmax(a, 1))], [a])
        ovjit.compile_model(other, "CPU")(np.ones((n, 8), "f4"))
model = ovjit.compile_model(sys.argv[1], "CPU")
pathlib.Path(sys.argv[2]).write_bytes(model.export_model().getvalue())
"""

IMPORT = """
import sys, json, ovjit
import numpy as np
model = ovjit.Core().import_model(sys.argv[1], "CPU")
values = [v.tobytes().hex() for v in model(np.load(sys.argv[2])).values()]
from ovjit.codegen.compiling import counts
print(json.dumps([values, sorted(sys.modules), counts, model.get_property("LOADED_FROM_CACHE")]))
"""


def child(script: str, *arguments, cache, **variables) -> str:
    variables = {"OVJIT_CACHE": str(cache), "OVJIT_KEY": "5a" * 32, **variables}
    return printed("-c", script, *arguments, **variables)


def test_bytes_are_the_same_everywhere_and_need_no_compiler(tmp_path) -> None:
    """Two processes with other hash seeds and histories, nothing shared but the key; a third one imports."""
    xml, weights = to_bytes(small_model())
    (tmp_path / "m.xml").write_bytes(xml)
    (tmp_path / "m.bin").write_bytes(weights)
    np.save(tmp_path / "x.npy", X)
    blobs = [tmp_path / "1.blob", tmp_path / "2.blob"]
    for seed, (path, history) in enumerate(zip(blobs, ("none", "history"), strict=True)):
        xml = tmp_path / "m.xml"
        child(EXPORT, xml, path, history, cache=tmp_path / history, PYTHONHASHSEED=str(seed + 1))
    first, second = (path.read_bytes() for path in blobs)
    for kind in SECTIONS:
        one, other = (Container(memoryview(b)).sections[kind] for b in (first, second))
        assert one == other, f"section {kind} differs"
    assert first == second

    values, modules, counts, from_cache = json.loads(
        child(IMPORT, blobs[0], tmp_path / "x.npy", cache=tmp_path / "empty")
    )
    model = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    assert values == [v.tobytes().hex() for v in model(X).values()]
    is_shipped = native_kernel("runner").find_shipped(host_target()) is not None
    assert from_cache and counts == {"compiled": 0, "cached": 0, "shipped": int(is_shipped)}  # the runner
    for name in ("numba", "ovjit_ops", "ovjit.readers", "ovjit.compiler.program", "onnx", "openvino"):
        assert not [m for m in modules if m == name or m.startswith(name + ".")], name


SHARE = """
import sys, ovjit, re
import numpy as np
model = ovjit.Core().import_model(sys.argv[1], "CPU")
model(np.ones((1, 2048), np.float32))
print("ready", flush=True)
sys.stdin.readline()
text = open("/proc/self/smaps").read().split(sys.argv[1] + "\\n")[1]
keys = "Rss", "Pss", "Private_Dirty"
print(*(int(re.search(key + r": +(\\d+) kB", text)[1]) for key in keys), flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_mapped_weights_are_in_memory_once(tmp_path) -> None:
    a = opset8.parameter([1, 2048], np.float32, name="a")
    w = opset8.constant(np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32))
    config = {"INFERENCE_PRECISION_HINT": "f32"}  # in bf16 each process would pack them again
    model = ovjit.Core().compile_model(ovjit.Model([opset8.matmul(a, w, False, False)], [a]), "CPU", config)
    path = tmp_path / "weights.blob"
    path.write_bytes(blob_of(model))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(4)
    ]
    try:
        assert [p.stdout.readline() for p in processes] == ["ready\n"] * 4
        sizes = []
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
            sizes.append(tuple(map(int, process.stdout.readline().split())))
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
    packed = 2048 * 2048 * 4 / 1024
    for resident, proportional, dirty in sizes:
        assert resident >= packed and proportional <= resident / 3.5 and dirty == 0, sizes


@pytest.mark.parametrize("use_mmap", [True, False])
def test_mmap_is_as_asked_for(use_mmap: bool, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mapped, "SMALLEST_MAPPED", 0)
    path = tmp_path / "a.blob"
    path.write_bytes(blob_of(compiled("small")))
    model = ovjit.Core().import_model(path, "CPU", {"ENABLE_MMAP": use_mmap})
    base = model._executable.program.memory
    while isinstance(base, (np.ndarray, memoryview)):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    assert isinstance(base, mmap.mmap) is use_mmap


# --- code that is not used


def told(caplog, content) -> tuple[ovjit.CompiledModel, str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ovjit"):
        model = load(content)
    return model, caplog.text


def resealed(content: bytes, key: bytes, **changed) -> bytes:
    """The blob with other sections, all checksums right, sealed with `key`."""
    sections = dict(Container(memoryview(content)).sections)
    return write_container({**sections, **changed}, key)


def test_a_stranger_s_code_is_not_run(small, caplog, monkeypatch) -> None:
    """With another key the right answer comes from the graph, whatever is in place of plan and code."""
    content, answer = small
    sections = Container(memoryview(content)).sections
    trap = {
        "code": b"\xcc" * len(sections["code"]),
        "words": b"\xff" * len(sections["words"]),
        "program": b"][",
        "data": b"\1\2\3",
    }
    for forged in (resealed(content, FOREIGN), resealed(content, FOREIGN, **trap)):
        model, text = told(caplog, forged)
        assert bits(model, X) == answer
        assert not model.get_property("LOADED_FROM_CACHE") and "another user's key" in text
    # the name of the right key is no secret
    monkeypatch.setattr(container, "name_of_key", lambda key: b"the same")
    forged = resealed(content, FOREIGN, **trap)
    model, text = told(caplog, forged)
    assert bits(model, X) == answer and "authentication code is wrong" in text
    assert not model.get_property("LOADED_FROM_CACHE")
    again = load(blob_of(model))
    assert bits(again, X) == answer and again.get_property("LOADED_FROM_CACHE")


@pytest.mark.parametrize(
    "what", ["ovjit", "numba", "llvmlite", "generators", "isa", "cpu", "features", "platform", "switches"]
)
def test_another_machine_s_code_is_not_run(what: str, caplog) -> None:
    model = compiled("small")
    here = blob_module.machine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blob_module, "machine", lambda config=None: {**here, what: here[what] + ",+other"})
        content = blob_of(model)
    found, text = told(caplog, content)
    assert bits(found, X) == bits(model, X) and not found.get_property("LOADED_FROM_CACHE")
    assert ("another CPU" if what == "features" else what) in text and "+other" in text


def test_the_key_can_be_shared_by_a_fleet(small, monkeypatch, caplog) -> None:
    monkeypatch.setenv("OVJIT_KEY", "77" * 32)
    content = blob_of(load(small[0]))
    assert load(content).get_property("LOADED_FROM_CACHE")
    monkeypatch.delenv("OVJIT_KEY")
    assert not load(content).get_property("LOADED_FROM_CACHE")


# --- damage


def outcome(content: bytes, answer: list[bytes]) -> str:
    """ "refused" or "right"; anything else is a failure."""
    try:
        model = load(content)
    except RuntimeError as error:
        assert "blob" in str(error), error
        return "refused"
    assert bits(model, X) == answer
    return "right"


def test_a_blob_that_is_cut_off_is_refused(small) -> None:
    content, answer = small
    for size in (*range(0, _BODY + 100, 3), *range(_BODY, len(content), 1024), len(content) - 1):
        assert outcome(content[:size], answer) == "refused", size
    assert outcome(content + b"\0", answer) == "refused"
    assert outcome(b"", answer) == outcome(b"<?xml version='1.0'?>" + bytes(5000), answer) == "refused"


def flip_bits(content: bytes, answer: list[bytes], rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for i in range(rounds):
        flipped = bytearray(content)
        # half of them where the numbers are
        place = rng.randrange(_BODY if i % 2 else len(content))
        flipped[place] ^= 1 << rng.randrange(8)
        try:
            refused += outcome(bytes(flipped), answer) == "refused"
        except BaseException:
            print(f"seed {seed}, round {i}, byte {place}")
            raise
    assert refused > rounds * 0.9  # the others were in the key's name and the code, of a stranger's blob


def test_padding_is_zero(small) -> None:
    """No byte of a blob can be changed without its reader seeing it."""
    content, answer = small
    ends = [offset + size for offset, size in (place_of(content, kind) for kind in SECTIONS)]
    gaps = [place for end in ends for place in range(end, end + -end % ALIGNMENT) if place < len(content)]
    assert len(gaps) > 20
    for place in gaps[::7]:
        changed = bytearray(content)
        changed[place] = 1
        with pytest.raises(RuntimeError, match="padding before its section"):
            ovjit.Core().import_model(bytes(changed), "CPU")


def test_flipped_bits_are_refused(small) -> None:
    flip_bits(*small, 1000, 1)


@pytest.mark.long
def test_ten_thousand_flipped_bits_are_refused(small) -> None:
    flip_bits(*small, 10_000, 2)


def rehead(content: bytearray) -> bytes:
    """With the right checksum of head and table."""
    content[_BODY - 16 : _BODY] = checksum(bytes(content[: _BODY - 16]))
    return bytes(content)


@pytest.mark.parametrize("value", [2**63, 2**63 - 1, 2**64 - 1, 2**62, 0, 1])
def test_lengths_and_offsets_are_checked(value: int, small) -> None:
    content, answer = small
    for i in range(len(SECTIONS)):
        for field in (8, 16):
            forged = bytearray(content)
            struct.pack_into("<Q", forged, _TABLE + i * _ENTRY.size + field, value)
            if forged != content:
                assert outcome(rehead(forged), answer) == "refused", (SECTIONS[i], field)
    forged = bytearray(content)
    struct.pack_into("<Q", forged, 16, value)
    assert outcome(rehead(forged), answer) == "refused"
    for field in (8, 12):
        forged = bytearray(content)
        struct.pack_into("<I", forged, field, value % 2**32)
        if forged != content:
            assert outcome(rehead(forged), answer) == "refused"


def test_lengths_of_compressed_sections_are_checked(small, monkeypatch) -> None:
    """A wrong length of the content is refused before memory is allocated for it."""
    content, answer = small
    compressed = 0
    for number, kind in enumerate(SECTIONS):
        row = _TABLE + number * _ENTRY.size
        (length,) = struct.unpack_from("<Q", content, row + 40)
        compressed += kind in AUTHENTICATED and length > 0
        for value in (1, length - 1, length + 1, LARGEST_COMPRESSED, LARGEST_COMPRESSED + 1, 2**64 - 1):
            if kind in AUTHENTICATED and 0 < value != length:
                forged = bytearray(content)
                struct.pack_into("<Q", forged, row + 40, value)
                must = kind in ("header", "graph")  # others are not used without authentication
                assert outcome(rehead(forged), answer) == "refused" or not must, (kind, value)
    assert compressed >= 4


def test_compressed_sections_are_bounded(small) -> None:
    """A graph that is larger than a compressed section may be; and streams that are cut off or continue."""
    content, answer = small
    graph = bytes(Container(memoryview(content)).sections["graph"])
    _, offset, size, *_ = _ENTRY.unpack_from(content, _TABLE + SECTIONS.index("graph") * _ENTRY.size)
    stream = content[offset : offset + size]
    assert zlib.decompress(stream) == graph
    for wrong in (
        bytes(size),
        stream[:-1] + bytes(1),
        zlib.compress(graph[:-9], 0)[:size].ljust(size, b"\1"),
    ):
        forged = bytearray(content)
        forged[offset : offset + size] = wrong
        row = _TABLE + SECTIONS.index("graph") * _ENTRY.size
        forged[row + 24 : row + 40] = checksum(wrong)
        assert outcome(rehead(forged), answer) == "refused"
    bomb = zlib.compress(bytes(LARGEST_COMPRESSED + 1), 9)
    with pytest.raises(BlobError, match="does not have"):
        container._decompress("graph", bomb, LARGEST_COMPRESSED)


def test_a_kernel_is_compressed_once() -> None:
    """By the first export of a process, also for other models and after an import: the bytes are the same."""
    container._compress_part.cache_clear()
    model = compiled("small")
    first = blob_of(model)
    parts = container._compress_part.cache_info().misses
    section = _ENTRY.unpack_from(first, _TABLE + SECTIONS.index("code") * _ENTRY.size)
    stream, sections = first[section[1] :][: section[2]], Container(memoryview(first)).sections
    assert zlib.decompress(stream) == sections["code"]
    rows = json.loads(sections["program"])["kernels"]
    assert parts == len({row[3] for row in rows}) > 1
    assert blob_of(model) == blob_of(load(first)) == first
    assert stream in blob_of(compiled("small"))  # names of nodes are others
    info = container._compress_part.cache_info()
    assert info.misses == parts and info.hits == 3 * parts


def lengths_of(content: bytes) -> list[int]:
    """The lengths of the contents of the compressed sections."""
    rows = [_ENTRY.unpack_from(content, _TABLE + _ENTRY.size * i) for i in range(len(SECTIONS))]
    lengths = [
        struct.unpack("<Q8x", tag)[0] for kind, *_, tag in rows if kind.strip(b"\0").decode() in AUTHENTICATED
    ]
    return list(filter(None, lengths))


def test_what_is_small_beside_the_weights_is_not_compressed() -> None:
    x = opset8.parameter([1, 512], np.float32)
    weights = np.random.default_rng(3).standard_normal((512, 1024), np.float32)
    model = ovjit.Model([opset8.matmul(x, weights, False, False)], [x])
    before = ovjit.compile_model(model, "CPU")
    content, values = blob_of(before), np.ones((1, 512), np.float32)
    assert not lengths_of(content) and len(content) < 1.1 * weights.nbytes
    assert bits(load(content), values) == bits(before, values)
    few = ovjit.Model([opset8.matmul(x, weights[:, :8], False, False)], [x])
    assert len(lengths_of(blob_of(ovjit.compile_model(few, "CPU")))) >= 3


def test_swapped_sections_are_refused(small) -> None:
    content, answer = small
    sections = Container(memoryview(content)).sections
    for one in range(len(SECTIONS)):
        for other in range(one):
            # the rows of the table change places ...
            forged = bytearray(content)
            a, b = (slice(_TABLE + i * _ENTRY.size, _TABLE + (i + 1) * _ENTRY.size) for i in (one, other))
            forged[a], forged[b] = content[b], content[a]
            assert outcome(rehead(forged), answer) == "refused"
            # ... and the contents: checksums are right, the key is a stranger's
            names = SECTIONS[one], SECTIONS[other]
            swapped = resealed(
                content, FOREIGN, **{names[0]: sections[names[1]], names[1]: sections[names[0]]}
            )
            if {"header", "graph"} & set(names):
                assert outcome(swapped, answer) == "refused", names
            elif {"packed", "weights"} & set(names):
                try:  # other weights are another model
                    bits(load(swapped), X)
                except RuntimeError as error:
                    assert "blob" in str(error)
            else:
                assert outcome(swapped, answer) == "right", names


def test_a_forged_checksum_lets_no_code_in(small, caplog) -> None:
    """Code and plan are changed and their checksums made right: the authentication code sees it."""
    content, answer = small
    rng = random.Random(5)
    for kind in ("words", "code", "program", "header"):
        i = SECTIONS.index(kind)
        row = _TABLE + i * _ENTRY.size
        _, offset, size, *_ = _ENTRY.unpack_from(content, row)
        for _ in range(5):
            forged = bytearray(content)
            place = offset + rng.randrange(size)
            forged[place] ^= 1 << rng.randrange(7)
            forged[row + 24 : row + 40] = checksum(bytes(forged[offset : offset + size]))
            caplog.clear()
            with caplog.at_level(logging.WARNING, "ovjit"):
                if outcome(rehead(forged), answer) == "right":
                    assert "authentication code is wrong" in caplog.text
                else:
                    assert kind == "header"  # which is used without the key


def mutate(value, rng: random.Random):
    """Another value of JSON, changed in one place."""
    if isinstance(value, (list, dict)) and value and rng.random() < 0.93:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        changed = dict(value) if isinstance(value, dict) else list(value)
        action = rng.random()
        if action < 0.05:
            del changed[key]
        elif action < 0.1 and isinstance(value, list):
            changed.insert(key, value[rng.randrange(len(value))])
        else:
            changed[key] = mutate(value[key], rng)
        return changed
    odd = [
        None,
        True,
        -1,
        0,
        1,
        7,
        2**31,
        2**63,
        2**64,
        -(2**63),
        1e300,
        float("nan"),
        "",
        "x",
        [],
        {},
        [[]],
        {"t": []},
        {"a": ["f32", [2**40, 2**40], "weights", 0]},
        {"a": ["f32", [1], "weights", 2**63]},
        {"a": ["string", [1], "weights", 0]},
        {"d": [5, 1]},
        {"s": [[2], ["a"]]},
        {"q": 1},
    ]
    return rng.choice(odd)


def test_graphs_of_strangers_are_checked(small) -> None:
    """Any change of the tables, with all checksums right: an error, or a model that compiles."""
    content, _ = small
    sections = Container(memoryview(content)).sections
    places = {kind: sections[kind] for kind in ("weights", "packed")}
    rng = random.Random(11)
    refused = 0
    for i in range(1500):
        tables = mutate(json.loads(sections["graph"]), rng)
        try:
            Reader(places).graph(json.loads(dump(tables)))
        except RuntimeError:
            refused += 1
        except BaseException:
            print(f"round {i}: {tables}")
            raise
    assert 1000 < refused < 1500
    for kind in ("graph", "header"):
        for _ in range(30):
            try:
                load(resealed(content, FOREIGN, **{kind: dump(mutate(json.loads(sections[kind]), rng))}))
            except RuntimeError:
                pass
    deep = b"[" * 100_000
    for kind in ("graph", "header"):
        with pytest.raises(RuntimeError, match="JSON"):
            load(resealed(content, FOREIGN, **{kind: deep}))


def test_nothing_that_is_read_is_run_as_python() -> None:
    """No pickle, marshal, eval, exec or import by name where blobs and caches are read."""
    forbidden = {"eval", "exec", "compile", "__import__"}
    for path in (ROOT / "ovjit" / "storage").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in forbidden, path
            names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            assert not {"pickle", "marshal", "importlib", "shelve", "dill"} & set(names), path


def test_the_checksum_sees_small_changes() -> None:
    rng = np.random.default_rng(2)
    for size in (0, 1, 7, 8, 8191, 8192, 8193, 100_000, 2_500_000):
        data = rng.integers(0, 256, size, dtype=np.uint8)
        good = checksum(data)
        assert good == checksum(data.tobytes()) != checksum(data.tobytes() + b"\0")
        for place in rng.integers(size, size=20) if size else ():
            other = data.copy()
            other[place] ^= 1 << int(rng.integers(8))
            assert checksum(other) != good, (size, place)
        if size > 16384:  # two rows, two columns, two words of different rows and columns
            for one, other_one, length in ((0, 8192, 8192), (0, 16, 8), (8, 8200, 8), (0, 8208, 8)):
                swapped = data.copy()
                swapped[one : one + length] = data[other_one : other_one + length]
                swapped[other_one : other_one + length] = data[one : one + length]
                assert checksum(swapped) != good, (size, one, other_one)


def test_damaged_graph_weights_are_seen_when_they_are_needed(tmp_path) -> None:
    content = blob_of(compiled("digits"))
    row = _TABLE + SECTIONS.index("weights") * _ENTRY.size
    _, offset, size, *_ = _ENTRY.unpack_from(content, row)
    assert size
    damaged = bytearray(content)
    damaged[offset + size // 2] ^= 1
    x = MODELS["digits"][1]
    model = load(bytes(damaged))
    assert bits(model, x) == bits(load(content), x)  # the plan does not need them
    with pytest.raises(BlobError, match="weights"):
        model._executable.graph  # noqa: B018


def test_small_imports_are_quick(small) -> None:
    content, _ = small
    core = ovjit.Core()
    times = []
    for _ in range(20):
        began = time.perf_counter()
        core.import_model(content, "CPU")
        times.append(time.perf_counter() - began)
    assert min(times) < 0.05, times  # one compiled kernel takes longer


# --- CACHE_DIR


def kept(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.blob"))


def cached(model: ovjit.Model, folder: pathlib.Path, **config) -> ovjit.CompiledModel:
    return ovjit.Core().compile_model(model, "CPU", {"CACHE_DIR": folder, **config})


def test_a_model_is_compiled_once(tmp_path) -> None:
    folder = tmp_path / "new" / "cache"
    first = cached(small_model(), folder)
    assert not first.get_property("LOADED_FROM_CACHE") and len(kept(folder)) == 1
    second = cached(pickle.loads(pickle.dumps(small_model())), folder)
    answer = bits(first, X)
    assert bits(second, X) == answer
    different = [cached(small_model(1.0000001), folder), cached(small_model(), folder, PERF_COUNT=True)]
    renamed = small_model()
    renamed.set_friendly_name("other")
    different.append(cached(renamed, folder))
    assert not any(m.get_property("LOADED_FROM_CACHE") for m in different)
    assert len({path.name for path in kept(folder)}) >= 4
    assert bits(different[0], X) != answer
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert {oct(p.stat().st_mode & 0o777) for p in folder.iterdir()} == {"0o600"}


def test_the_same_model_is_found_again(tmp_path) -> None:
    xml, weights = to_bytes(small_model())
    core = ovjit.Core()
    core.set_property({"CACHE_DIR": str(tmp_path / "c")})
    models = [core.compile_model(core.read_model(xml, weights), "CPU") for _ in range(2)]
    assert [m.get_property("LOADED_FROM_CACHE") for m in models] == [False, True]
    assert bits(models[0], X) == bits(models[1], X)
    assert len(kept(tmp_path / "c")) == 1
    # the cached blob has what an export gives, but for the digest of the source in its header, and with the
    # code of the runner
    cached_sections, sections = (
        Container(memoryview(content)).sections
        for content in (kept(tmp_path / "c")[0].read_bytes(), blob_of(models[0]))
    )
    same = [kind for kind in SECTIONS if kind not in ("header", "program", "code")]
    assert all(cached_sections[kind] == sections[kind] for kind in same)
    cached_names, names = (
        {row[1] for row in json.loads(bytes(some["program"]))["kernels"]}
        for some in (cached_sections, sections)
    )
    assert names <= cached_names and cached_names - names <= set(ROUTINES)
    again = Container(memoryview(blob_of(models[1]))).sections
    assert all(again[kind] == cached_sections[kind] for kind in SECTIONS if kind != "header")


def damage(path: pathlib.Path) -> dict[str, bytes]:
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    planted = resealed(good, FOREIGN, code=b"\xcc" * len(Container(memoryview(good)).sections["code"]))
    return {
        "cut": good[:1000],
        "empty": b"",
        "zeros": bytes(len(good)),
        "flipped": bytes(flipped),
        "planted": planted,
        "text": b"not a blob",
        "another model": blob_of(compiled("host")),
    }


def test_damaged_and_planted_entries_are_compiled_again(tmp_path, caplog, monkeypatch) -> None:
    xml, weights = to_bytes(small_model())

    def compile_it() -> ovjit.CompiledModel:
        return cached(ovjit.Core().read_model(xml, weights), tmp_path / "c")

    answer = bits(compile_it(), X)
    (path,) = kept(tmp_path / "c")
    for name, content in damage(path).items():
        path.write_bytes(content)
        monkeypatch.setattr(notice, "_topics", {})
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ovjit"):
            model = compile_it()
        assert bits(model, X) == answer and not model.get_property("LOADED_FROM_CACHE"), name
        assert len(caplog.records) == 1 and str(path) in caplog.text, name
        assert compile_it().get_property("LOADED_FROM_CACHE"), name  # it was written anew
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert bits(compile_it(), X) == answer
    path.unlink()
    os.mkfifo(path)
    assert bits(compile_it(), X) == answer


def test_folders_that_cannot_be_used_cost_a_warning(tmp_path, caplog, monkeypatch) -> None:
    answer = bits(compiled("small"), X)
    file = tmp_path / "file"
    file.write_text("")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for folder in (file, file / "below", shared, link):
        monkeypatch.setattr(notice, "_topics", {})
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ovjit"):
            for _ in range(2):
                assert bits(cached(small_model(), folder), X) == answer
        assert len(caplog.records) == 1, (folder, caplog.text)

    def full(path: str, *parts, **how) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_new", full)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ovjit"):
        assert bits(cached(small_model(), tmp_path / "full"), X) == answer
    assert "No space" in caplog.text and not list((tmp_path / "full").iterdir())


def test_a_key_that_does_not_last_keeps_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model_cache, "find_key", lambda given: keys.UserKey(FOREIGN, False))
    cached(small_model(), tmp_path / "c")
    assert kept(tmp_path / "c") == []


def test_the_cache_is_bounded(tmp_path) -> None:
    folder = tmp_path / "c"
    for scale in (1, 2, 3):
        cached(small_model(scale), folder)
    paths = kept(folder)
    for age, path in enumerate(paths):
        os.utime(path, (time.time() - 1000 * (age + 1),) * 2)
    (folder / "mine.txt").write_text("stays")
    draft = folder / f".ovjit-{'0' * 16}.tmp"
    draft.write_text("left behind")
    os.utime(draft, (0, 0))
    size = paths[0].stat().st_size
    assert model_cache.prune(folder, 2 * size + 100) == size + len("left behind")
    assert kept(folder) == sorted(paths[:2]) and (folder / "mine.txt").exists()
    model_cache.prune(folder, max_age=1500)
    assert kept(folder) == [paths[0]]


CACHED = """
import sys, hashlib, ovjit
import numpy as np
model = ovjit.Core().compile_model(sys.argv[1], "CPU", {"CACHE_DIR": sys.argv[2]})
print(hashlib.sha256(b"".join(v.tobytes() for v in model(np.load(sys.argv[3])).values())).hexdigest())
"""


def together(tmp_path: pathlib.Path, rounds: int, seed: int) -> None:
    """8 processes, one cache folder, the same model, some killed at a random moment."""
    rng = random.Random(seed)
    xml, weights = to_bytes(small_model())
    (tmp_path / "m.xml").write_bytes(xml)
    (tmp_path / "m.bin").write_bytes(weights)
    np.save(tmp_path / "x.npy", X)
    expected = hashlib.sha256(b"".join(bits(compiled("small"), X))).hexdigest()
    folder = tmp_path / "c"
    command = [sys.executable, "-c", CACHED, *(str(tmp_path / n) for n in ("m.xml", "c", "x.npy"))]
    survivors = 0
    for i in range(rounds):
        shutil.rmtree(folder, ignore_errors=True)
        processes = [
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for _ in range(8)
        ]
        for process in processes[:4]:
            time.sleep(rng.random() * 0.4)
            process.send_signal(signal.SIGKILL)
        for process in processes:
            out, errors = process.communicate(timeout=100)
            if process.returncode == 0:
                assert out.strip() == expected and not errors, f"seed {seed}, round {i}: {errors}"
                survivors += 1
            else:
                assert process.returncode == -signal.SIGKILL, f"seed {seed}, round {i}: {errors}"
        for path in kept(folder):
            assert not Container(memoryview(path.read_bytes())).why_foreign(keys.user_key())
    assert survivors >= 4 * rounds


def test_processes_share_a_cache_folder(tmp_path) -> None:
    together(tmp_path, 2, 3)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_processes_share_a_cache_folder_for_long(tmp_path) -> None:
    together(tmp_path, 50, 4)
