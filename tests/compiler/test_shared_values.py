"""Random graphs in which several operations and outputs read a value, mostly through views, against the
interpreter: see `tests/fuzz/fuzz_shared.py`. A third of them is proved under OVJIT_CHECK=1."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzz_shared, fuzzing

SEED = 20261200


@pytest.mark.timeout(0)
def test_some_graphs() -> None:
    report = fuzzing.fuzz(fuzz_shared, 3600, SEED, count=300)
    assert report.cases == 300 and not report.findings, report.text()


@pytest.mark.long
@pytest.mark.timeout(0)
def test_many_graphs() -> None:
    report = fuzzing.fuzz(fuzz_shared, 36_000, 0, count=20_000)
    assert report.cases == 20_000 and not report.findings, report.text()


def test_they_are_of_all_kinds() -> None:
    """Operations with samples, views, rows in place, states and loops; values that several nodes read."""
    sampled, kinds, shared = set(), set(), 0
    for seed in range(0, 1600, fuzz_shared.BLOCK):
        case = fuzz_shared.make(seed)
        assert len(case["sets"]) == 3
        read = [i for node in case["nodes"] for i in node["in"] if isinstance(i, int)]
        shared += len(read) > len(set(read))
        for node in case["nodes"]:
            kinds.add(node["op"])
            sampled.add(node.get("record", "").partition("-")[0])
    assert len(sampled) > 80 and shared > 100
    assert {"NormalizedView", "Reshape", "Transpose", "Concat", "Loop", "Remember", "TensorIterator"} <= kinds
