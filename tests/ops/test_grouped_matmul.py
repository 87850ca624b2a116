"""GroupedMatMul as a kernel: lengths of groups around those of tiles, and ends that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.execution.executable import Executable
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from tests.support.run import run
from tests.support.sweeps import in_turn

SEED = 20261123


def compiled(kind: str, matrices: np.ndarray | None, index: str, width: int) -> Executable:
    """Of open numbers of rows; without `matrices`, they are an input of open shape."""
    b = Builder()
    shapes = [((ANY, width), kind), ((ANY,), index)] + ([((ANY,) * 3, kind)] if matrices is None else [])
    a, ends, *given = (b.add("Parameter", (), {"shape": s, "element_type": t}).output for s, t in shapes)
    right = given[0] if matrices is None else b.constant(matrices, kind)
    return compile_graph(b.finish(b.add("GroupedMatMul", [a, right, ends]).outputs), {"threads": 2})


def answer(executable: Executable, arrays: list[np.ndarray]) -> np.ndarray:
    return run(executable, arrays, native=True)[0]


@pytest.mark.parametrize("kind", in_turn(["f32", "f64", "f16", "i32", "i64", "u8"], 2))
def test_groups_of_any_length(kind: str) -> None:
    rng = np.random.default_rng(SEED)
    for case, (groups, n, k) in enumerate([(1, 33, 5), (5, 7, 16), (3, 70, 33), (4, 16, 1)]):
        low = 0 if kind[0] == "u" else -3
        right = rng.integers(low, 4, (groups, n, k)).astype(numpy_dtype(kind))
        index = ("i32", "i64")[case & 1]
        given = [compiled(kind, right, index, k), compiled(kind, None, index, k)]
        for lengths in ([0] * groups, [13] * groups, rng.integers(0, 30, groups), [0] * (groups - 1) + [2]):
            ends = np.cumsum(lengths).astype(numpy_dtype(index))
            a = rng.integers(low, 4, (int(ends[-1]), k)).astype(numpy_dtype(kind))
            want = find_op("GroupedMatMul").evaluate([a, right, ends], {})[0]  # exact: small whole numbers
            where = f"{kind} {groups, n, k} {ends} seed {SEED}"
            for executable, arrays in zip(given, ([a, ends], [a, ends, right]), strict=True):
                np.testing.assert_array_equal(answer(executable, arrays), want, err_msg=where)


def test_ends_that_do_not_fit_are_refused() -> None:
    right = np.ones((3, 17, 4), np.float32)
    executable = compiled("f32", right, "i32", 4)
    a = np.ones((6, 4), np.float32)
    for ends in ([1, 7, 6], [4, 2, 6], [-1, 2, 6], [1, 2, 5], [1, 2, 7], [-9, -9, -9], [2**31 - 1] * 3):
        with pytest.raises(OvjitError):
            answer(executable, [a, np.array(ends, np.int32)])
    assert (answer(executable, [a, np.array([0, 6, 6], np.int32)]) == 4).all()


def test_stacks_of_matrices_of_open_shapes() -> None:
    b = Builder()
    a, right = (b.add("Parameter", (), {"shape": (ANY,) * 3, "element_type": "f32"}).output for _ in "ab")
    executable = compile_graph(b.finish(b.add("GroupedMatMul", [a, right]).outputs), {"threads": 1})
    rng = np.random.default_rng(SEED)
    x, y = (rng.integers(-3, 4, s).astype(np.float32) for s in ((2, 5, 7), (2, 9, 7)))
    np.testing.assert_array_equal(answer(executable, [x, y]), x @ y.swapaxes(1, 2))
    with pytest.raises(OvjitError):  # not one matrix for all
        answer(executable, [x, y[:1]])
