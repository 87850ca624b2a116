"""ONNX files with bytes, fields, names and nodes changed: our own error, or the interpreter's answer."""

from __future__ import annotations

import base64
import functools
import random
import sys
from typing import Any

import ovjit
from ovjit.readers.onnx import wire
from tests.fuzz import fuzz_models, fuzzing
from tests.support.onnx.cases import load_cases
from tests.support.onnx.mutations import mutate, mutate_fields, mutate_structure, seeds

#: Neighbouring seeds that change one model, and bytes of the largest one.
BLOCK, LARGEST = 64, 20_000


@functools.cache
def files() -> list[bytes]:
    """The hostile tests' own, and those of ONNX's tests that are there without being computed."""
    cases = load_cases(("simple", "pytorch-operator", "pytorch-converted"))
    return [*seeds(), *(case.model for case in cases if len(case.model) <= LARGEST)]


def make(seed: int) -> dict[str, Any]:
    base = random.Random(seed // BLOCK).randrange(len(files()))
    rng = random.Random(seed)
    how = rng.choices((mutate, mutate_fields, mutate_structure), (1, 2, 2))[0]
    changed = how(rng, files()[base])
    return {"base": base, "seed": seed, "data": base64.b64encode(changed).decode()}


def check(case: dict[str, Any]) -> str:
    fuzz_models.install()
    wire.SMALLEST = 8  # most data are cut out
    data = base64.b64decode(case["data"])
    return fuzz_models.read_and_run(
        lambda: ovjit.Core().read_model(data), {"INFERENCE_PRECISION_HINT": "f32"}
    )


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
