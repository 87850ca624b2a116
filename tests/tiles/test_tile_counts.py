"""The tiles of products of 8 rows: each of them reads all weights of its panels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu.host import host_target
from ovjit.tiles import tile

SEED = 20261129
ROWS = 8


@pytest.mark.parametrize(
    ("depth", "outs", "expected"), [(512, 64, {4: 4}), (512, 512, {14: 16})], ids=["near", "far"]
)
def test_rows_that_wait_for_memory(
    depth: int, outs: int, expected: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lower tiles compute less, but only weights in the cache are read twice at no cost."""
    if host_target().name != "avx512":
        pytest.skip("heights of tiles of AVX-512")
    counts: Counter[int] = Counter()
    run_tile = tile.run_tile

    def count(rows: int, *arguments: Any) -> None:
        counts[rows] += 1
        run_tile(rows, *arguments)

    monkeypatch.setattr(tile, "run_tile", count)
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    rng = np.random.default_rng(SEED)
    x = op.parameter([ROWS, depth], np.float32)
    product = op.matmul(x, op.constant(rng.standard_normal((depth, outs)).astype(np.float32)), False, False)
    compiled = ov.Core().compile_model(ov.Model([product], [x]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled(rng.standard_normal((ROWS, depth)).astype(np.float32))
    assert counts == expected, f"seed {SEED}"
