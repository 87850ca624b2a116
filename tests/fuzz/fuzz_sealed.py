"""Blobs of one's own key, changed without it: refused, or compiled from their graph as a stranger's are.

Whatever needs no key is made right, and edits keep the sums of rows and columns where there are enough. The
native code, the plan and the packed constants of a changed blob are never used.
"""

from __future__ import annotations

import functools
import logging
import random
import sys
from typing import Any

import ovjit
from tests.fuzz import fuzz_bases, fuzz_models, fuzzing
from tests.support import forged

BLOCK = 64


@functools.lru_cache(16)
def blob(number: tuple[int, int]) -> bytes:
    model = fuzz_bases.base(number)
    return bytes(ovjit.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1}).export_model().getvalue())


def make(seed: int) -> dict[str, Any]:
    number, rng = fuzz_bases.pick(random.Random(seed // BLOCK)), random.Random(seed)
    kinds = [kind for kind in forged.SECTIONS if forged.place_of(blob(number), kind)[1]]
    weighty = [kind for kind in kinds if kind in ("packed", "weights")]
    kind = rng.choice(weighty or kinds) if rng.random() < 0.7 else rng.choice(kinds)
    return {"base": number, "kind": kind, "how": rng.choice(forged.KINDS), "seed": seed}


def check(case: dict[str, Any]) -> str:
    logging.getLogger("ovjit").setLevel(logging.ERROR)
    fuzz_models.install()
    number = tuple(case["base"])
    good = blob(number)
    content = forged.forge(good, case["kind"], case["how"], random.Random(case["seed"]))
    if content == good:
        return ""
    try:
        model = ovjit.Core().import_model(content, "CPU")
    except RuntimeError:
        return ""
    if not model.get_property("LOADED_FROM_CACHE"):  # a stranger's
        return ""
    if case["kind"] != "weights":
        return f"a blob is used whose section {case['kind']!r} is forged"
    try:  # its plan does not need the graph
        model._executable.program.given()
    except RuntimeError:
        return ""
    return "a graph is made of forged weights"


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
