"""Paged states, and moves of cached tokens, with wrong lists of indices, beside inaccessible pages.

`python -m tests.fuzz.hostile_states SIDE SEED CASES`: a touch ends the process. Block indices are negative,
huge, duplicated or too few; begins fall or leave their list; pasts and intervals are any integers. What the
reference refuses is refused before a table is written. What it accepts has its results and tables.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.errors import OvjitError
from ovjit.graph.op import find_op
from tests.execution import test_paged_moves as moves
from tests.fuzz.hostile_pages import WAYS, changed
from tests.ops import test_paged_states as states
from tests.support.guard_pages import guarded

TRIALS = 60
#: Integers that are near to those of right lists.
NEAR = range(-2, 9)
ROWS = [(0, 5, 2, [8, 1, 3, 2]), (3, 1, 4, [5, 5]), (7, 3, 0, [4, 9]), (1, 6, 3, [7, 7, 6, 0])]


def make_wrong(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """The list with some integers near the right ones, or wrong in another way."""
    if rng.random() < 0.4 or not array.size:
        return changed(rng, array, str(rng.choice(WAYS[:5])))
    array = array.copy()
    for _ in range(rng.integers(1, 4)):
        array[rng.integers(array.size)] = rng.choice(NEAR)
    return array


class States:
    """One of the operations on tables of states."""

    def __init__(self, name: str, rng: np.random.Generator):
        self.name = name
        extents = states.EXTENTS[rng.integers(len(states.EXTENTS))]
        self.request = states.request_of(ov, states.file_of(name, extents))
        self.first = len(states.OPS[name][0].split())
        self.tables = [states.OPS[name][1]]
        rows = [ROWS[i] for i in rng.permutation(len(ROWS))[: rng.integers(1, 5)]]
        data = states.data_of(name, extents, sum(row[1] for row in rows), rng)
        self.arrays = [*data, *states.lists_of(*rows)]

    def expect(self, arrays: list[np.ndarray]) -> np.ndarray:
        return find_op(self.name).evaluate(arrays, {})[0]


class Moves:
    """PaKVReorder on caches in f32."""

    name, first, tables = "PaKVReorder", 2, (0, 1)

    def __init__(self, name: str, rng: np.random.Generator):
        self.request = moves.reorder("f32")
        shape = moves.BLOCKS, moves.HEADS, moves.TOKENS, moves.SIZE
        caches = [rng.standard_normal(shape).astype(np.float32) for _ in range(2)]
        lists = [4, 0, 2], [0, 2, 3], [33, 3, 4, 5, 1, 0], [0, 2, 3]
        self.request = self.request.create_infer_request()
        self.arrays = [*caches, *(np.array(x, np.int32) for x in lists)]

    def expect(self, arrays: list[np.ndarray]) -> np.ndarray:
        return find_op(self.name).evaluate(arrays, {})[0]


def attack(case: Any, rng: np.random.Generator, side: str) -> str:
    """One call with one or two wrong lists: "taken" or "refused"; AssertionError where the reference does
    otherwise."""
    arrays = [x.copy() for x in case.arrays]
    for i in rng.choice(np.arange(case.first, len(arrays)), rng.integers(1, 3), replace=False):
        arrays[i] = make_wrong(rng, arrays[i])
    kept = [x.copy() for x in arrays]
    try:
        want = case.expect(kept)
    except OvjitError:
        want = None
        kept = arrays
    given = [guarded(x, side) if x.size else x for x in arrays]
    for i, array in enumerate(given):
        case.request.set_input_tensor(i, ov.Tensor(array, shared_memory=True))
    where = f"{case.name}: {[x.tolist() for x in arrays[case.first :]]}"
    try:
        case.request.infer()
    except RuntimeError as error:
        assert want is None, f"{where} is refused: {error}"
    else:
        assert want is not None, f"{where} is computed"
        found = case.request.get_output_tensor(0).data
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4, err_msg=where)
    for i in case.tables:
        np.testing.assert_allclose(given[i], kept[i], rtol=1e-4, atol=1e-4, err_msg=where)
    return "refused" if want is None else "taken"


def main() -> None:
    side, seed, cases = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = {"taken": 0, "refused": 0}
    for n in range(cases):
        rng = np.random.default_rng([seed, n])
        for name in (*states.OPS, "PaKVReorder"):
            case = (Moves if name == "PaKVReorder" else States)(name, rng)
            for trial in range(TRIALS):
                print("case", seed, n, name, trial, flush=True)
                found[attack(case, rng, side)] += 1
    print("ran", found["taken"], found["refused"])


if __name__ == "__main__":
    main()
