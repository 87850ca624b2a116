"""Paged attention with wrong inputs, in memory that ends beside inaccessible pages.

`python -m tests.fuzz.hostile_pages SIDE SEED CASES`: a touch ends the process. Any of the inputs has another
rank, type or length, or numbers that are negative, huge, or none. An error leaves the caches as they were.
Results with numbers that are allowed are for `test_paged_random`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import ovjit as ov
from tests.execution.test_paged_random import Case
from tests.support.guard_pages import guarded
from tests.support.paged_op import GIVEN, KINDS, TABLES, rows_of

TRIALS = 25
WHOLE = (-(2**31), 2**31 - 1, -1, 0, 1, -2, 2**16, 2**30, 2**31 - 32)
REAL = (np.nan, np.inf, -np.inf, 3e38, -1.0, 0.0, 1e-40)
TYPES = (np.int64, np.float32, np.int32, np.float16, np.uint8, np.float64)
WAYS = ("one", "all", "shorter", "longer", "empty", "rank", "type", "shuffled")


def changed(rng: np.random.Generator, array: np.ndarray, way: str) -> np.ndarray:
    """The array, wrong in one way; as it is where that cannot be."""
    array = array.copy()
    choice = REAL if array.dtype == np.float32 else WHOLE if array.dtype == np.int32 else (0, 1, 255)
    if way == "one" and array.size:
        array.reshape(-1)[rng.integers(array.size)] = rng.choice(choice)
    elif way == "all":
        array[...] = rng.choice(choice)
    elif way in ("shorter", "empty") and array.ndim:
        return array[: -1 if way == "shorter" else 0].copy()
    elif way == "longer" and array.ndim:
        more = array[-1:] if len(array) else np.full((1, *array.shape[1:]), rng.choice(choice), array.dtype)
        return np.concatenate([array, more])
    elif way == "rank":
        return array[None] if array.ndim < 2 or rng.random() < 0.5 else array.reshape(-1)
    elif way == "type":
        with np.errstate(all="ignore"):
            return array.astype(rng.choice(TYPES))
    elif way == "shuffled":
        rng.shuffle(array.reshape(-1))
    return array


def inputs_of(case: Case) -> dict[str, np.ndarray] | None:
    """What a right call is given; None where there is no sequence."""
    rows = case._rows()
    if not rows:
        return None
    data = rows_of(case.rng, sum(new for _, new, _ in rows), case.sizes)
    given: dict[str, Any] = {
        "past_lens": [r[0] for r in rows], "subsequence_begins": np.cumsum([0, *(r[1] for r in rows)]),
        "block_indices": sum((r[2] for r in rows), []),
        "block_indices_begins": np.cumsum([0, *(len(r[2]) for r in rows)]),
        "max_context_len": max(r[0] + r[1] for r in rows),
    }  # fmt: skip
    more = case._more(rows)
    given |= {name: more.get(name, np.zeros([0] * TABLES[name][1])) for name in case.given}
    arrays = {name: np.array(value, KINDS[TABLES[name][0]]) for name, value in given.items()}
    return arrays | dict(zip(("query", "key", "value"), data, strict=True))


def attack(case: Case, rng: np.random.Generator, side: str) -> str:
    """One call with one or two wrong inputs: "taken" or "refused"; AssertionError where a cache was touched
    for an error."""
    held = [*map(list, case.tables)], [*case.pasts], [*case.free]
    arrays = inputs_of(case)
    case.tables, case.pasts, case.free = held
    if arrays is None:
        return ""
    names, caches = ["query", "key", "value", *GIVEN, *case.given], case.run.caches.values()
    wrong = {str(rng.choice(names)): str(rng.choice(WAYS)) for _ in range(rng.integers(1, 3))}
    for name, way in wrong.items():
        arrays[name] = changed(rng, arrays[name], way)
    before = [np.array(t.data) for t in caches]
    given = {n: ov.Tensor(guarded(a, side) if a.size else a, shared_memory=True) for n, a in arrays.items()}
    try:
        case.run.request.infer(given)
        return "taken"
    except RuntimeError:
        for array, tensor in zip(before, caches, strict=True):
            assert array.tobytes() == np.array(tensor.data).tobytes(), wrong
        return "refused"
    finally:
        for array, tensor in zip(before, caches, strict=True):
            tensor.data[...] = array


def main() -> None:
    side, seed, cases = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = {"taken": 0, "refused": 0, "": 0}
    for n in range(cases):
        case, rng = Case(seed + n), np.random.default_rng([seed, n])
        case.call()
        for trial in range(TRIALS):
            print("case", seed + n, trial, flush=True)
            found[attack(case, rng, side)] += 1
    print("ran", found["taken"], found["refused"])


if __name__ == "__main__":
    main()
