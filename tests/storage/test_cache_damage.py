"""What lies in a CACHE_DIR under a model's name, damaged or planted in every way: the answer is right."""

from __future__ import annotations

import os
import pathlib
import random
import struct
from collections.abc import Iterator

import pytest

import ovjit
from ovjit.disk import notice
from ovjit.storage.container import _BODY, _ENTRY, _TABLE, SECTIONS, Container, checksum, write_container
from tests.support.blob_models import X, small_model


class Folder:
    """A cache folder with one model in it, and the right answer."""

    def __init__(self, path: pathlib.Path):
        self.folder = path
        self.model = small_model()
        self.answer = self._bits(self._compile())
        (self.file,) = path.glob("*.blob")
        self.good = self.file.read_bytes()

    def _compile(self) -> ovjit.CompiledModel:
        return ovjit.Core().compile_model(self.model, "CPU", {"CACHE_DIR": self.folder})

    @staticmethod
    def _bits(model: ovjit.CompiledModel) -> list[bytes]:
        return [value.tobytes() for value in model(X).values()]

    def check(self, what: object, used: bool = False) -> None:
        """With what now lies there the answer is right, and comes from it only if `used`."""
        model = self._compile()
        assert bool(model.get_property("LOADED_FROM_CACHE")) == used, what
        assert self._bits(model) == self.answer, what

    def plant(self, content: bytes, what: object) -> None:
        self.file.write_bytes(content)
        self.check(what, content == self.good)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Folder:
    monkeypatch.setattr(notice, "_topics", {})
    return Folder(tmp_path / "c")


def with_table(content: bytearray) -> bytes:
    """With the right checksum of head and table."""
    content[_BODY - 16 : _BODY] = checksum(bytes(content[: _BODY - 16]))
    return bytes(content)


def test_cut_off_at_every_kilobyte(cache) -> None:
    for size in range(0, len(cache.good), 1024):
        cache.plant(cache.good[:size], size)
    cache.plant(cache.good + b"\0", "longer")


def flip(cache: Folder, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    padding = 0
    for i in range(rounds):
        flipped = bytearray(cache.good)
        place = rng.randrange(_BODY if i % 2 else len(flipped))
        flipped[place] ^= 1 << rng.randrange(8)
        cache.file.write_bytes(flipped)
        model = cache._compile()
        assert cache._bits(model) == cache.answer, f"seed {seed}, round {i}, byte {place}"
        padding += bool(model.get_property("LOADED_FROM_CACHE"))
    assert padding < rounds * 0.1  # what is between sections, or only needed to compile


def test_flipped_bits(cache) -> None:
    flip(cache, 200, 1)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_thousand_flipped_bits(cache) -> None:
    flip(cache, 10_000, 2)


def test_impossible_lengths(cache) -> None:
    for value in (2**63, 2**63 - 1, 2**64 - 1, 2**62, 0, 1):
        for place in (16, *(_TABLE + i * _ENTRY.size + at for i in range(len(SECTIONS)) for at in (8, 16))):
            forged = bytearray(cache.good)
            struct.pack_into("<Q", forged, place, value)
            if forged != cache.good:
                cache.plant(with_table(forged), (value, place))


def swapped(content: bytes) -> Iterator[tuple[bytes, tuple[str, str]]]:
    """The blob with two sections exchanged: rows of the table, and contents under a stranger's key."""
    sections = dict(Container(memoryview(content)).sections)
    for one in range(len(SECTIONS)):
        for other in range(one):
            names = SECTIONS[one], SECTIONS[other]
            forged = bytearray(content)
            a, b = (slice(_TABLE + i * _ENTRY.size, _TABLE + (i + 1) * _ENTRY.size) for i in (one, other))
            forged[a], forged[b] = content[b], content[a]
            yield with_table(forged), names
            exchanged = {names[0]: sections[names[1]], names[1]: sections[names[0]]}
            yield write_container({**sections, **exchanged}, bytes(range(32))), names


def test_swapped_sections(cache) -> None:
    for content, names in swapped(cache.good):
        cache.plant(content, names)


def test_a_stranger_s_model_with_the_right_header(cache) -> None:
    """Everything that is known from outside is right: name, header, checksums. The key is not."""
    sections = dict(Container(memoryview(cache.good)).sections)
    trap = {"code": b"\xcc" * len(sections["code"]), "words": b"\xff" * len(sections["words"])}
    cache.plant(write_container({**sections, **trap}, bytes(range(32))), "code")
    cache.plant(write_container(sections, bytes(range(32))), "foreign key")


def test_forged_checksums(cache) -> None:
    rng = random.Random(3)
    for kind in ("header", "program", "words", "data", "code", "graph", "packed"):
        row = _TABLE + SECTIONS.index(kind) * _ENTRY.size
        _, offset, size, *_ = _ENTRY.unpack_from(cache.good, row)
        for _ in range(3 if size else 0):
            forged = bytearray(cache.good)
            forged[offset + rng.randrange(size)] ^= 1 << rng.randrange(8)
            forged[row + 24 : row + 40] = checksum(bytes(forged[offset : offset + size]))
            cache.plant(with_table(forged), kind)


@pytest.mark.parametrize("kind", ["link", "link to itself", "fifo", "folder", "huge", "unreadable bytes"])
def test_what_is_no_file_of_ours(cache, kind: str, tmp_path) -> None:
    cache.file.unlink()
    if kind == "link":  # even to a genuine one
        (tmp_path / "genuine").write_bytes(cache.good)
        cache.file.symlink_to(tmp_path / "genuine")
    elif kind == "link to itself":
        cache.file.symlink_to(cache.file)
    elif kind == "fifo":
        os.mkfifo(cache.file)
    elif kind == "folder":
        cache.file.mkdir()
        (cache.file / "inside").write_text("")
    elif kind == "huge":
        with open(cache.file, "wb") as file:
            file.write(cache.good[:4096])
            file.truncate(1 << 40)
    else:
        cache.file.write_bytes(os.urandom(5000))
    cache.check(kind)
    if kind != "folder":  # what stood there has been replaced
        cache.check(kind, used=True)


@pytest.mark.parametrize("mode", [0o666, 0o622])
def test_a_file_that_others_may_write_to(cache, mode: int) -> None:
    cache.file.chmod(mode)
    cache.check(oct(mode))
    cache.check("written anew", used=True)
