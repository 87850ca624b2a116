"""TreeEnsemble beside its reference: sizes at which kernels change, shared nodes, invalid tables."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest

from ovjit.errors import OvjitError
from ovjit.graph.op import find_op
from ovjit_ops.ensembles.trees import EQ, LEAF, LEQ, LT, NAN_TRUE, distinct
from tests.support.op_samples import native_answer
from tests.support.samples.ensembles import random_forest
from tests.support.sweeps import in_turn

RECORD = find_op("TreeEnsemble")


def _check(data: np.ndarray, forest: Any, targets: int, reduction: str, where: str) -> None:
    thresholds, nodes, trees, weights = forest
    kind = data.dtype.type
    inputs = [data, thresholds.astype(kind), nodes, trees, weights.astype(kind)]
    attrs = RECORD.check_attributes({"targets": targets, "features": data.shape[1], "reduction": reduction})
    expected = RECORD.evaluate(inputs, attrs)[0]
    dtype = {np.float32: "f32", np.float64: "f64"}[kind]
    np.testing.assert_array_equal(native_answer(RECORD, inputs, attrs, dtype), expected, err_msg=where)


def _data(rng: np.random.Generator, rows: int, features: int, kind: type) -> np.ndarray:
    data = (np.round(rng.uniform(-2, 2, (rows, features)) * 4) / 4).astype(kind)
    data[rng.random(data.shape) < 0.05] = np.nan
    return data


@pytest.mark.parametrize(
    "depth, kind", in_turn(list(itertools.product([0, 1, 4, 5, 6, 8, 10], [np.float32, np.float64])), 3)
)
def test_trees_of_all_sizes(kind: type, depth: int) -> None:
    """By default every third pair of a depth and a type. One leaf, up to 32 in one word, several words, and
    more than have masks: from the root down."""
    rng = np.random.default_rng(depth)
    for rows in (1, 5, 6, 70):
        for targets, mixed in ((1, False), (3, True)):
            forest = random_forest(rng, 5, depth, 9, targets, mixed)
            _check(_data(rng, rows, 9, kind), forest, targets, "sum", f"seed {depth} rows {rows} {mixed}")


def test_nodes_that_trees_and_parents_share() -> None:
    """A graph without cycles is no tree, so that its leaves have no order; two trees may have one root."""
    nodes = [[LEQ, 0, 1, 2], [LT, 1, 3, 4], [EQ + NAN_TRUE, 2, 3, 4], [LEQ, 3, 5, 6], [LEAF, 0, 0, 0],
             [LEAF, 0, 1, 0], [LEAF, 0, 2, 0]]  # fmt: skip
    rng = np.random.default_rng(7)
    thresholds, weights = np.round(rng.uniform(-1, 1, 7) * 4) / 4, np.array([1.0, 2.0, 4.0])
    for roots in ([0], [0, 0], [0, 3, 1], [4, 0]):
        trees = np.array([[root, 0, 1] for root in roots], np.int32)
        for rows in (1, 40):
            forest = (thresholds, np.array(nodes, np.int32), trees, weights)
            _check(_data(rng, rows, 4, np.float32), forest, 1, "sum", f"{roots}")


def test_a_path_of_many_levels() -> None:
    levels = 2000
    inner = [[LEQ, i % 3, 2 * i + 1, 2 * i + 2] for i in range(levels)]
    nodes = np.zeros((2 * levels + 1, 4), np.int32)
    for i, row in enumerate(inner):  # the false child goes on
        nodes[2 * i] = [row[0], row[1], 2 * i + 1, 2 * i + 2]
    ends = np.flatnonzero(nodes[:, 0] == LEAF)
    nodes[ends, 2] = np.arange(len(ends))
    thresholds = np.repeat(np.linspace(-1, 1, levels + 1), 2)[: 2 * levels + 1]
    forest = (thresholds, nodes, np.array([[0, 0, 1]], np.int32), np.arange(len(ends)) * 1.0)
    rng = np.random.default_rng(1)
    data = rng.uniform(-1.1, 1.1, (20, 3)).astype(np.float32)
    _check(data, forest, 1, "sum", "a path")


@pytest.mark.parametrize(
    "place, value, says",
    [
        ((0, 2), 9, "child that does not exist"),
        ((0, 3), 0, "cycle"),
        ((0, 0), 8, "unknown mode"),
        ((1, 2), 5, "weights that do not exist"),
        ((0, 1), 4, "feature beyond"),
    ],
)
def test_invalid_tables(place: tuple[int, int], value: int, says: str) -> None:
    """Neither the reference nor the kernels take them."""
    nodes = np.array([[LEQ, 0, 1, 2], [LEAF, 0, 0, 0], [LEAF, 0, 1, 0]], np.int32)
    nodes[place] = value
    inputs = [np.zeros((8, 3), np.float32), np.zeros(3, np.float32), nodes,
              np.array([[0, 0, 1]], np.int32), np.ones(2, np.float32)]  # fmt: skip
    attrs = RECORD.check_attributes({"targets": 1, "features": 3, "reduction": "sum"})
    with pytest.raises(OvjitError, match=says):
        RECORD.evaluate(inputs, attrs)
    with pytest.raises(OvjitError, match=says):
        native_answer(RECORD, inputs, attrs, "f32")


def test_distinct_numbers() -> None:
    rng = np.random.default_rng(0)
    lowest = np.iinfo(np.int64).min
    for numbers in ([], [5], [3, 3, lowest], [[4, 1], [1, 4]], rng.integers(-50, 50, 400)):
        found = distinct(np.array(numbers, np.int64))
        assert found.dtype == np.int64 and found.tolist() == np.unique(numbers).tolist()


def test_distinct_numbers_of_many_nodes() -> None:
    """They cost a few sorts: `np.unique` takes a hundred of them for two million children of a forest."""
    children = np.random.default_rng(0).permutation(2_000_000) * 7

    def seconds(work: Any) -> float:
        begin = time.process_time()
        work(children)
        return time.process_time() - begin

    ratios = [seconds(distinct) / seconds(lambda c: np.sort(c, axis=None)) for _ in range(3)]
    assert min(ratios) < 4
