"""Blobs of one's own key that were changed without it, and what a mapped file can still change."""

from __future__ import annotations

import hashlib
import hmac
import logging
import mmap
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

import ovjit
from ovjit import opset8
from ovjit.codegen.cpu.formats import U8I8, find_format
from ovjit.codegen.cpu.host import host_target
from ovjit.disk.keys import user_key
from ovjit.planning import constants
from ovjit.storage import mapped, tags
from ovjit.storage.container import (
    AUTHENTICATED,
    VERSION,
    BlobError,
    Checksum,
    Container,
    checksum,
    write_container,
)
from ovjit.storage.graph_format import dump, parse
from tests.support import forged

SEED = 20261122
KEY = bytes(range(7, 39))
BLOCK = 8192


# --- the tag


def nh(block: bytes, keys: bytes) -> bytes:
    """Four sums of one block, as the definition has them."""
    words, keys = np.frombuffer(block, "<u4").astype(np.uint64), np.frombuffer(keys, "<u4").astype(np.uint64)
    out = []
    for n in range(4):
        both = (words + keys[2 * n : 2 * n + words.size]) & np.uint64(2**32 - 1)
        out.append(int((both[::2] * both[1::2]).sum(dtype=np.uint64)))
    return struct.pack("<4Q", *out)


def code(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(struct.pack("<Q", len(p)) + p for p in parts), hashlib.sha256).digest()


def reference(key: bytes, kind: str, content: bytes) -> bytes:
    """The tag by hashlib, hmac and NumPy."""
    left, level = content, 0
    while len(left) >= BLOCK:
        seed = code(key, b"ovjit: keys of the universal hash", bytes([level]))
        keys = hashlib.shake_256(seed).digest(BLOCK + 24)
        whole = len(left) // BLOCK * BLOCK
        sums = [nh(left[i : i + BLOCK], keys) for i in range(0, whole, BLOCK)]
        left, level = b"".join(sums) + left[whole:], level + 1
    length = len(content).to_bytes(8, "little")
    return code(key, b"ovjit: tag of a section", kind.encode(), length, left)[:16]


@pytest.mark.parametrize(
    "size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 40 * BLOCK, 256 * BLOCK + 9, 521 * BLOCK]
)
def test_the_tag_is_what_its_page_says(size: int) -> None:
    content = np.random.default_rng([SEED, size]).integers(0, 256, size, dtype=np.uint8).tobytes()
    want = reference(KEY, "packed", content)
    assert tags.tag(KEY, "packed", content) == want, SEED
    in_pieces, summed = tags.Tag(KEY, "packed", size), Checksum(size)
    for first in range(0, size, 32 * BLOCK):
        piece = np.frombuffer(content, np.uint8)[first : first + 32 * BLOCK]
        in_pieces.add(piece)
        summed.add(piece)
    assert in_pieces.code() == want and summed.code() == checksum(content)
    assert tags.tag(KEY, "packed", memoryview(b"x" + content)[1:]) == want  # wherever it lies
    assert tags.tag(KEY, "weights", content) != want != tags.tag(KEY[::-1], "packed", content)


@pytest.mark.parametrize("size", [100, 3 * BLOCK, 300 * BLOCK + 5])
def test_the_tag_sees_every_change(size: int) -> None:
    rng = np.random.default_rng([SEED, size])
    content = rng.integers(0, 256, size, dtype=np.uint8)
    good = tags.tag(KEY, "packed", content)
    for place in rng.integers(size, size=30):
        other = content.copy()
        other[place] ^= 1 << int(rng.integers(8))
        assert tags.tag(KEY, "packed", other) != good, (SEED, place)
    if size > 2 * BLOCK:
        words = content[: size // 8 * 8].view("<u8")
        for by in (1, -1, 2**32, 2**63):
            other = words.copy()
            forged.keep_sums(other, 5, 1024 + 77, by)
            raw = np.concatenate([other.view(np.uint8), content[size // 8 * 8 :]])
            assert checksum(raw) == checksum(content) and tags.tag(KEY, "packed", raw) != good, by
        swapped = content.copy()
        swapped[:BLOCK], swapped[BLOCK : 2 * BLOCK] = content[BLOCK : 2 * BLOCK], content[:BLOCK]
        assert tags.tag(KEY, "packed", swapped) != good


# --- changed blobs


def product(seed: int = 4, outs: int = 600) -> ovjit.Model:
    """A product with a matrix that is not stored twice, and one that is looked up."""
    rng = np.random.default_rng(seed)
    a = opset8.parameter([2, 64], np.float32, name="a")
    w = opset8.constant(rng.normal(size=(64, outs)).astype(np.float32), name="w")
    where = opset8.constant(rng.integers(0, outs, 3000), name="where")
    axis = opset8.constant(np.int64(1), name="axis")
    y = opset8.gather(opset8.matmul(a, w, False, False, name="y"), where, axis, name="picked")
    y.output(0).set_names({"picked"})
    return ovjit.Model([y], [a], "product")


X = np.random.default_rng(SEED).normal(size=(2, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def sealed() -> tuple[bytes, bytes]:
    """A blob, and what its model answers to X."""
    model = ovjit.Core().compile_model(product(), "CPU")
    return model.export_model().getvalue(), model(X)[0].tobytes()


def rectangle(content: bytes) -> bytes:
    forgery = forged.forge(content, "packed", "rectangle", random.Random(SEED))
    places = slice(*np.cumsum(forged.place_of(content, "packed")))
    assert forgery[places] != content[places] and checksum(forgery[places]) == checksum(content[places])
    return forgery


def test_weights_with_the_same_sums_are_refused(sealed, tmp_path: Path) -> None:
    content, _ = sealed
    forgery = rectangle(content)
    path = tmp_path / "forged.blob"
    path.write_bytes(forgery)
    with open(path, "rb") as file:
        seen = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for form in (forgery, bytearray(forgery), path, seen):
        with pytest.raises(BlobError, match="forged: the tag of its section 'packed'"):
            ovjit.Core().import_model(form, "CPU")


def test_forged_models_in_a_cache_folder_are_compiled_again(sealed, tmp_path: Path, caplog) -> None:
    core, model = ovjit.Core(), product()
    right = core.compile_model(model, "CPU", {"CACHE_DIR": tmp_path})(X)[0]
    (path,) = tmp_path.glob("*.blob")
    path.write_bytes(rectangle(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "ovjit"):
        found = core.compile_model(model, "CPU", {"CACHE_DIR": tmp_path})
    assert not found.get_property("LOADED_FROM_CACHE") and "forged" in caplog.text
    assert found(X)[0].tobytes() == right.tobytes()


@pytest.mark.parametrize("kind", forged.SECTIONS)
@pytest.mark.parametrize("how", sorted(set(forged.KINDS)))
def test_no_section_can_be_changed_without_the_key(kind: str, how: str, sealed) -> None:
    content, right = sealed
    if not forged.place_of(content, kind)[1]:
        pytest.skip("nothing there")
    rng = random.Random(SEED)
    forgery = forged.forge(content, kind, how, rng)
    while forgery == content:
        forgery = forged.forge(content, kind, how, rng)
    try:
        model = ovjit.Core().import_model(forgery, "CPU")
    except RuntimeError:
        return
    assert not model.get_property("LOADED_FROM_CACHE")
    if kind in ("program", "words", "data", "code"):  # the others are a stranger's then
        assert model(X)[0].tobytes() == right


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 3 * 8192, 130 * 8192 + 77])
def test_the_checksum_is_what_its_page_says(size: int) -> None:
    content = np.random.default_rng([SEED, size]).integers(0, 256, size, dtype=np.uint8).tobytes()
    end = size // 8192 * 8192
    words = np.frombuffer(content[:end], "<u8").reshape(-1, 1024)
    rows, columns = (words.sum(axis, dtype=np.uint64).astype("<u8").tobytes() for axis in (1, 0))
    digests = [
        function(struct.pack("<Q", size) + rows + some + content[end:]).digest()[:16]
        for function, some in (
            (hashlib.blake2b, columns if end else b""),
            (hashlib.sha256, columns if end else b""),
            (hashlib.sha256, columns),
        )
    ]
    assert [checksum(content), checksum(content, 5), checksum(content, 4)] == digests, SEED


def test_the_authentication_code_is_what_its_page_says() -> None:
    content = ovjit.Core().compile_model(product(), "CPU", {"OVJIT_KEY": KEY}).export_model().getvalue()
    places = [forged.place_of(content, kind) for kind in AUTHENTICATED]
    digests = [hashlib.blake2b(content[offset : offset + size]).digest() for offset, size in places]
    assert content[32:64] == code(KEY, b"ovjit: blob", content[:32], content[64:512], *digests)


@pytest.mark.parametrize("version", [4, 5])
def test_older_formats_are_compiled_from_their_graph(version: int, sealed, caplog) -> None:
    content, right = sealed
    other = forged.older_format(content, version)
    with caplog.at_level(logging.WARNING, "ovjit"):
        model = ovjit.Core().import_model(other, "CPU")
    assert not model.get_property("LOADED_FROM_CACHE") and f"format {version}" in caplog.text
    assert model(X)[0].tobytes() == right
    offset, _ = forged.place_of(other, "graph")
    with pytest.raises(BlobError, match="checksum"):
        ovjit.Core().import_model(other[:offset] + bytes([other[offset] ^ 1]) + other[offset + 1 :], "CPU")


def test_the_first_format_is_compiled_from_its_graph(sealed, tmp_path: Path, caplog) -> None:
    content, right = sealed
    with caplog.at_level(logging.WARNING, "ovjit"):
        model = ovjit.Core().import_model(forged.first_format(content), "CPU")
    assert not model.get_property("LOADED_FROM_CACHE") and "format 1" in caplog.text
    assert model(X)[0].tobytes() == right
    with pytest.raises(BlobError, match=f"format {VERSION + 1}"):
        ovjit.Core().import_model(content[:8] + struct.pack("<I", VERSION + 1) + content[12:], "CPU")
    damaged = bytearray(forged.first_format(content))
    damaged[-5] ^= 1
    with pytest.raises(BlobError, match="checksum"):
        ovjit.Core().import_model(bytes(damaged), "CPU")


def test_weights_are_authenticated_where_the_graph_is_compiled(sealed) -> None:
    """With the right key and for another CPU, the graph's weights are what was exported, too."""
    content, right = sealed
    sections = dict(Container(memoryview(content)).sections)
    header = parse(sections["header"], "header")
    header["machine"]["cpu"] = "another"
    other = write_container({**sections, "header": dump(header)}, user_key())
    assert ovjit.Core().import_model(other, "CPU")(X)[0].tobytes() == right
    with pytest.raises(BlobError, match="forged"):
        ovjit.Core().import_model(rectangle(other), "CPU")


# --- files that change while they are mapped


def test_tables_are_pinned_before_they_are_believed(sealed, tmp_path: Path, monkeypatch) -> None:
    """What kernels may follow without a look is what was authenticated, whatever is written to the file."""
    monkeypatch.setattr(mapped, "SMALLEST_MAPPED", 0)
    content, right = sealed
    path = tmp_path / "a.blob"
    path.write_bytes(content)
    model = ovjit.Core().import_model(path, "CPU")
    program = model._executable.main.program
    steering = parse(program.sections["program"], "program")["steering"]
    assert sum(size for _, size in steering) >= 3000 * 8
    before = [program.memory[at : at + size].tobytes() for at, size in steering]
    offset, length = forged.place_of(content, "packed")
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\x55" * length)
    assert [program.memory[at : at + size].tobytes() for at, size in steering] == before
    assert b"\x55" * 64 in program.memory.tobytes()  # the weights are the file's, shared by all processes
    assert model(X)[0].shape == (2, 3000)
    constants.release_pages(program.memory)
    assert [program.memory[at : at + size].tobytes() for at, size in steering] == before


def test_memory_that_cannot_be_pinned_is_copied(sealed, tmp_path: Path, monkeypatch) -> None:
    from ovjit.codegen.cpu import elf

    def refuse(*_: int) -> None:
        raise OSError("no")

    monkeypatch.setattr(mapped, "SMALLEST_MAPPED", 0)
    content, right = sealed
    path = tmp_path / "a.blob"
    path.write_bytes(content)
    monkeypatch.setattr(elf, "protect", refuse)
    model = ovjit.Core().import_model(path, "CPU")
    assert not constants.is_mapped(model._executable.main.program.memory)
    assert model(X)[0].tobytes() == right


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="makes a file in memory")
def test_pages_are_those_of_the_places() -> None:
    page = mmap.PAGESIZE
    descriptor = os.memfd_create("blob")
    os.write(descriptor, bytes(20 * page))
    home = mapped.MappedFile(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    memory = np.frombuffer(home, np.uint8)[64:]
    places = [(5 * page, 8), (3 * page - 72, 16), (9 * page - 64, 3 * page), (0, 0)]
    assert mapped.pin(memory, places) is memory
    os.pwrite(descriptor, b"\1" * 20 * page, 0)
    own = [n for n in range(20) if home[n * page] == 0]
    assert own == [2, 3, 5, 9, 10, 11], own
    for wrong in [(20 * page, 8), (-8, 8), (8, -1)]:
        with pytest.raises(ValueError, match="bytes at"):
            mapped.pin(memory, [wrong])
    os.close(descriptor)


# --- lists of places

without_vnni = (find_format("u8", "i8", host_target()) or U8I8).products != 1


def bytes_convolution() -> ovjit.Model:
    """A convolution of bytes, whose weights are listed on CPUs without VNNI."""
    rng = np.random.default_rng(SEED)
    a = opset8.parameter([1, 64, 9, 9], np.float32, name="a")
    ends = [opset8.constant(np.float32(v)) for v in (0.0, 255.0, 0.0, 255.0)]
    data = opset8.fake_quantize(a, *ends, 256)
    integers = np.clip(np.rint(rng.normal(0, 33, (128, 64, 3, 3))), -128, 127).astype(np.int8)
    scaled = opset8.multiply(
        opset8.convert(opset8.constant(integers), "f32"),
        opset8.constant(np.full((128, 1, 1, 1), 0.01, np.float32)),
    )
    return ovjit.Model([opset8.convolution(data, scaled, [1, 1], [1, 1], [1, 1], [1, 1])], [a])


def test_places_of_listed_weights_are_authenticated_and_pinned(tmp_path: Path, monkeypatch) -> None:
    """Kernels add what lies at listed places of a pixel: on CPUs without VNNI, or as if on one."""
    monkeypatch.setenv("OVJIT_ISA", "avx2")
    if (find_format("u8", "i8", host_target()) or U8I8).products == 1:
        pytest.skip("this CPU multiplies bytes by VNNI")
    monkeypatch.setattr(mapped, "SMALLEST_MAPPED", 0)
    x = np.random.default_rng(SEED).integers(0, 256, (1, 64, 9, 9)).astype(np.float32)
    model = ovjit.Core().compile_model(bytes_convolution(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    right, content = model(x)[0].tobytes(), model.export_model().getvalue()
    memory = parse(Container(memoryview(content)).sections["program"], "program")["memory"]
    ((_, _, (name, arguments), _),) = memory["filled"]
    assert name == "sorted", "no weights are listed"
    places = arguments["lists"][0]
    ((begin, _, at),) = (run for run in memory["literal"] if run[0] <= places < run[0] + run[1])
    lists = [(at + places - begin, 128 // 8 * 16 * 9 * 8)]
    offset, _ = forged.place_of(content, "packed")
    words = np.frombuffer(content, np.uint8)[offset:].copy()
    first = -(-lists[0][0] // 8)
    forged.keep_sums(words[: words.size // 8 * 8].view("<u8"), first, first + 1025, 2**33)
    with pytest.raises(BlobError, match="forged"):
        ovjit.Core().import_model(forged.resum(bytearray(content[:offset] + words.tobytes())), "CPU")
    path = tmp_path / "a.blob"
    path.write_bytes(content)
    found = ovjit.Core().import_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert found.get_property("LOADED_FROM_CACHE") and found(x)[0].tobytes() == right
    with open(path, "r+b") as file:
        for at, size in lists:
            file.seek(offset + at)
            file.write(b"\x7f" * size)
    assert found(x)[0].tobytes() == right
