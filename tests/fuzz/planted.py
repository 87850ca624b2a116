"""A fuzzer with faults that are known, for the tests of `fuzzing`: lists of numbers, of which one ends the
process and two together are a wrong answer."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

from tests.fuzz import fuzzing


def make(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    return {"numbers": [rng.randrange(60) for _ in range(9)]}


def check(case: dict[str, Any]) -> str:
    numbers = case["numbers"]
    if 13 in numbers:
        os.kill(os.getpid(), signal.SIGSEGV)
    return "7 and 8" if {7, 8} <= set(numbers) else ""


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return ({"numbers": numbers} for numbers in fuzzing.without(case["numbers"]))


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
