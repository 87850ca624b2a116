"""TensorFlow Lite files with bytes and fields changed: our own error, or the interpreter's answer."""

from __future__ import annotations

import base64
import functools
import math
import random
import struct
import sys
from typing import Any
from unittest import mock

import ovjit
from tests.fuzz import fuzz_models, fuzzing

#: Neighbouring seeds that change one model.
BLOCK = 64
NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    16,
    127,
    128,
    255,
    4096,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32 - 2,
    2**32 - 8,
)

#: Values of fields of floating point.
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-30, 3e38, math.inf, -math.inf, math.nan)
#: Elements of a vector, from its first one, that count as fields.
ELEMENTS = 64

NETS = (("INT8", True), ("UINT8", False), ("INT16", True))


@functools.cache
def files() -> list[bytes]:
    """One file for each operator and option, quantised networks, and recurrent operators."""
    from tests.support.tflite.cases import all_cases
    from tests.support.tflite.nets import quantized_net
    from tests.support.tflite.recurrent import recurrent_files

    return [*all_cases().values(), *recurrent_files(), *(quantized_net(*row) for row in NETS)]


def changed(rng: random.Random, data: bytes) -> bytes:
    """Words and bytes with other values, words that are exchanged, and an end that is missing."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        how, place = rng.randrange(6), rng.randrange(2, len(out) // 4) * 4
        if how == 0:
            struct.pack_into("<I", out, place, rng.choice(NUMBERS))
        elif how == 1:
            word = struct.unpack_from("<I", out, place)[0]
            struct.pack_into("<I", out, place, (word + rng.choice((-8, -4, -1, 1, 4, 8))) & 0xFFFFFFFF)
        elif how == 2:
            struct.pack_into("<H", out, place + rng.choice((0, 2)), rng.choice(NUMBERS) & 0xFFFF)
        elif how == 3:
            out[rng.randrange(8, len(out))] = rng.choice((0, 1, 2, 3, 4, 6, 8, 127, 128, 255))
        elif how == 4:
            other = rng.randrange(2, len(out) // 4) * 4
            out[place : place + 4], out[other : other + 4] = out[other : other + 4], out[place : place + 4]
        elif rng.random() < 0.1:
            del out[place:]
            return bytes(out)
    return bytes(out)


@functools.cache
def fields(base: int) -> list[tuple[int, str]]:
    """(position, code of `struct`) of all that the reader asks a file's accessors for: numbers, offsets,
    entries of vtables, lengths of vectors and their elements."""
    from flatbuffers import encode

    found: dict[tuple[int, str], None] = {}
    one, many = encode.Get, encode.GetVectorAsNumpy

    def get(packer: struct.Struct, buffer: Any, at: int) -> Any:
        found[at, packer.format] = None
        return one(packer, buffer, at)

    def get_vector(dtype: Any, buffer: Any, count: int, at: int) -> Any:
        made = many(dtype, buffer, count, at)
        step = made.dtype.itemsize
        found.update(((at + i * step, "<" + made.dtype.char), None) for i in range(min(count, ELEMENTS)))
        return made

    with mock.patch.object(encode, "Get", get), mock.patch.object(encode, "GetVectorAsNumpy", get_vector):
        ovjit.Core().read_model(files()[base])
    return list(found)


def changed_fields(rng: random.Random, data: bytes, places: list[tuple[int, str]]) -> bytes:
    """Fields with hostile values, with those beside theirs, and with those of other fields of their type."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, code = rng.choice(places)
        (old,) = struct.unpack_from(code, out, at)
        how = rng.randrange(4)
        if how == 0:
            other = rng.choice([place for place, form in places if form == code])
            (value,) = struct.unpack_from(code, out, other)
            if struct.calcsize(code) == 4 and rng.random() < 0.5:
                value = old + other - at  # as an offset: to where the other field is
        elif code[-1] in "fd":
            value = rng.choice((*REALS, -old, old * 2))
        elif how == 1:
            value = old + rng.choice((-8, -4, -2, -1, 1, 2, 4, 8))
        else:
            value = rng.choice(NUMBERS)
        if code[-1] in "fd":
            struct.pack_into(code, out, at, value)
        else:
            size = struct.calcsize(code)
            out[at : at + size] = (int(value) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(out)


def make(seed: int) -> dict[str, Any]:
    base, rng = random.Random(seed // BLOCK).randrange(len(files())), random.Random(seed)
    if rng.random() < 0.3:
        data = changed(rng, files()[base])
    else:
        data = changed_fields(rng, files()[base], fields(base))
    return {"base": base, "seed": seed, "data": base64.b64encode(data).decode()}


def check(case: dict[str, Any]) -> str:
    fuzz_models.install()
    data = base64.b64decode(case["data"])
    if data[4:8] != b"TFL3":
        return ""
    what = fuzz_models.read_and_run(
        lambda: ovjit.Core().read_model(data), {"INFERENCE_PRECISION_HINT": "f32"}
    )
    # a network of integers may round a sum to the next one: test_tflite.py compares those
    return "" if case["base"] >= len(files()) - len(NETS) and what.startswith("output") else what


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
