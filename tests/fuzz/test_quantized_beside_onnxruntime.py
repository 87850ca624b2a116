"""Random quantized ONNX graphs beside ONNX Runtime: see `fuzz_qdq`."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzz_qdq


@pytest.mark.parametrize(
    ("first", "last"), [(0, 10), pytest.param(10, 1300, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
def test_random_graphs(first: int, last: int) -> None:
    found = {seed: fuzz_qdq.check(fuzz_qdq.make(seed)) for seed in range(first, last)}
    assert not {seed: what for seed, what in found.items() if what}
