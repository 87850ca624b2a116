"""TensorFlow Lite files with bytes and numbers changed: our own error, or the interpreter's answer."""

from __future__ import annotations

import base64
import functools
import json
import random
import struct
import sys
from collections.abc import Iterator
from typing import Any

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

NETS = (("INT8", True), ("UINT8", False), ("INT16", True))


@functools.cache
def files() -> list[bytes]:
    """One file for each operator and option, and quantised networks."""
    from tests.support.tflite.cases import all_cases
    from tests.support.tflite.nets import quantized_net

    return [*all_cases().values(), *(quantized_net(*row) for row in NETS)]


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


def make(seed: int) -> dict[str, Any]:
    base = random.Random(seed // BLOCK).randrange(len(files()))
    data = changed(random.Random(seed), files()[base])
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


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Nothing can be left out of a file of offsets."""
    yield from ()


def script(case: dict[str, Any]) -> str:
    text = json.dumps(json.dumps(case))
    return f"import json\nfrom tests.fuzz import fuzz_tflite\nprint(fuzz_tflite.check(json.loads({text})))"


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
