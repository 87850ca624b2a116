"""GGUF files with bytes, fields, entries of metadata and tensors changed: our own error, or the interpreter's
answer."""

from __future__ import annotations

import base64
import functools
import os
import random
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ovjit
from ovjit.readers.gguf import header
from tests.fuzz import fuzz_models, fuzzing

#: Neighbouring seeds that change one model, and cases of one child.
BLOCK, LIFE = 64, 1500
#: Bytes of the header: the magic number, the version and two counts.
HEAD = 24
#: Values of metadata by their types, with what no reader expects.
_TEXTS = ("", "llama", "gpt2", "gemma3", "none", "yarn", "linear", "x" * 300)
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_REALS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"), 0.5)


class Parts(NamedTuple):
    """A file: entries of metadata, descriptions of tensors, and the bytes behind them; the places of what a
    reader takes, as (position, bytes)."""

    entries: list[bytes]
    tensors: list[bytes]
    data: bytes
    fields: list[tuple[int, int]]

    def joined(self) -> bytes:
        counts = struct.pack("<IQQ", 3, len(self.tensors), len(self.entries))
        head = b"GGUF" + counts + b"".join(self.entries) + b"".join(self.tensors)
        return head + bytes(-len(head) % 32) + self.data


@functools.cache
def files() -> list[bytes]:
    """Small decoders of six architectures, whose weights have three types."""
    from tests.fuzz.guided_targets import Gguf

    return Gguf().seeds()


@functools.cache
def parts(base: int) -> Parts:
    """The parts of a file, as the reader's own walk through its header finds them."""
    content, fields = files()[base], list[tuple[int, int]]()

    class Walk(header._Walk):
        def take(self, size: int, what: str) -> memoryview:
            fields.append((self.at, size))
            return super().take(size, what)

    walk = Walk(np.frombuffer(content, np.uint8))
    walk.take(8, "")
    tensors, entries = walk.number("Q", ""), walk.number("Q", "")
    spans: list[list[bytes]] = []
    for count, read in ((entries, walk.entry), (tensors, lambda: walk.tensor(_any_type()))):
        spans.append([])
        for _ in range(count):
            start = walk.at
            read()
            spans[-1].append(content[start : walk.at])
    return Parts(spans[0], spans[1], content[-(-walk.at // 32) * 32 :], [f for f in fields if f[1]])


def _any_type() -> dict[int, tuple[str, int, int]]:
    return dict.fromkeys(range(64), ("", 1, 1))


def _value(rng: random.Random, kind: int) -> bytes:
    if kind == 8:
        text = rng.choice(_TEXTS).encode()
        return struct.pack("<Q", len(text)) + text
    if kind == 9:
        inner = rng.choice((0, 4, 5, 6, 7, 8, 9, 10, 12))
        count = rng.choice((0, 1, 2, 3, 70))
        return struct.pack("<IQ", inner, count) + b"".join(
            _value(rng, inner) for _ in range(count if inner != 9 else 0)
        )
    code = _CODES[kind]
    if code in "fd":
        return struct.pack("<" + code, rng.choice(_REALS))
    size = struct.calcsize(code)
    return (rng.choice(fuzz_models.NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")


def changed_entry(rng: random.Random, entry: bytes) -> bytes:
    """An entry of metadata with another value, often of another type."""
    size = struct.unpack_from("<Q", entry)[0]
    kind = struct.unpack_from("<I", entry, 8 + size)[0]
    kind = rng.choice((*_CODES, 8, 9)) if rng.random() < 0.6 or kind not in _CODES else kind
    return entry[: 8 + size] + struct.pack("<I", kind) + _value(rng, kind)


def changed_tensor(rng: random.Random, tensor: bytes) -> bytes:
    """A tensor with another name, other dimensions, another type or another place."""
    size = struct.unpack_from("<Q", tensor)[0]
    name, rank = tensor[8 : 8 + size], struct.unpack_from("<I", tensor, 8 + size)[0]
    dims = list(struct.unpack_from(f"<{rank}Q", tensor, 12 + size))
    kind, offset = struct.unpack_from("<IQ", tensor, 12 + size + 8 * rank)
    how = rng.randrange(6)
    if how == 0:
        name = rng.choice((name + b"x", b"", name[:-7] + b".bias", b"blk.99.attn_q.weight", b"\xff" + name))
    elif how == 1 and dims:
        dims[rng.randrange(rank)] = rng.choice((0, 1, 2, 32, 64, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
    elif how == 2:
        dims = rng.choice((dims[::-1], dims[:-1], [*dims, 1], [1, *dims], dims * 2, [2**32] * 2))
    elif how == 3:
        kind = rng.randrange(45)
    elif how == 4:
        offset = rng.choice((0, 1, offset + 1, offset + 32, 2**63, 2**64 - 1, 2**64 - 32))
    else:
        dims = [d * 2 if i == rng.randrange(max(rank, 1)) else d for i, d in enumerate(dims)]
    return (
        struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        + struct.pack("<IQ", kind, offset)
    )  # fmt: skip


def changed_parts(rng: random.Random, base: int) -> bytes:
    """Entries and tensors that are changed, left out, doubled, or taken from another file."""
    given = parts(base)
    entries, tensors = list(given.entries), list(given.tensors)
    for _ in range(rng.choice((1, 1, 2, 3))):
        own, change, other = rng.choice((
            (entries, changed_entry, parts(rng.randrange(len(files()))).entries),
            (entries, changed_entry, parts(rng.randrange(len(files()))).entries),
            (tensors, changed_tensor, parts(rng.randrange(len(files()))).tensors),
        ))  # fmt: skip
        if not own:
            continue
        at = rng.randrange(len(own))
        how = rng.random()
        if how < 0.7:
            own[at] = change(rng, own[at])
        elif how < 0.85:
            del own[at]
        else:
            own.insert(at, rng.choice((own[at], rng.choice(other))))
    return Parts(entries, tensors, given.data, []).joined()


def changed_fields(rng: random.Random, base: int) -> bytes:
    """Numbers and texts of the header with other values, and an end that is missing."""
    out, places = bytearray(files()[base]), parts(base).fields
    for _ in range(rng.choice((1, 1, 2))):
        at, size = rng.choice(places)
        if size in (1, 2, 4, 8):
            old = int.from_bytes(out[at : at + size], "little")
            value = rng.choice((*fuzz_models.NUMBERS, old + 1, old - 1, 0x7FC00000, 0xFF800000, 0xBF800000))
            out[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        else:
            out[at + rng.randrange(size)] = rng.choice((0, 1, 46, 48, 57, 127, 128, 255))
    if rng.random() < 0.05:
        del out[rng.randrange(len(out)) :]
    return bytes(out)


def make(seed: int) -> dict[str, Any]:
    base, rng = random.Random(seed // BLOCK).randrange(len(files())), random.Random(seed)
    data = rng.choice((changed_parts, changed_parts, changed_fields))(rng, base)
    return {"base": base, "seed": seed, "data": base64.b64encode(data).decode()}


@functools.cache
def _path() -> Path:
    return Path(tempfile.mkdtemp(prefix="ovjit-fuzz-gguf-"), f"{os.getpid()}.gguf")


def check(case: dict[str, Any]) -> str:
    fuzz_models.install()
    _path().unlink(missing_ok=True)  # what was read stays mapped
    _path().write_bytes(base64.b64decode(case["data"]))
    return fuzz_models.read_and_run(
        lambda: ovjit.Core().read_model(str(_path())), {"INFERENCE_PRECISION_HINT": "f32"}
    )


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
