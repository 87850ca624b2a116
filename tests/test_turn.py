"""Copies between layouts: dimensions turned in blocks, at every size around the vector width."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.execution.build import compile_graph
from ovjit.graph.graph import Builder

SEED = 20261123


@pytest.mark.parametrize(
    "order", [(0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 3, 2), (2, 0, 1, 3)], ids=str
)
@pytest.mark.parametrize("dtype", ["f32", "i32"])
def test_transposes_are_exact(order: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (b_any := [_open()] * 4), "element_type": dtype}).output
    assert b_any
    y = b.add("Transpose", [x, b.constant(np.array(order, np.int64))]).output
    job = compile_graph(b.finish([y]), {}).new_job()
    many = [(1, 17, 15, 33), (3, 31, 2, 18), (1, 3, 40, 41)]
    for shape in [(1, 1, 1, 1), (2, 3, 5, 7), (1, 16, 16, 16), *many, (2, 0, 3, 4)]:
        array = rng.integers(-1000, 1000, shape).astype(np.float32 if dtype == "f32" else np.int32)
        job.set_input(0, array)
        job.run()
        np.testing.assert_array_equal(job.outputs[0], array.transpose(order), err_msg=f"{shape} seed {SEED}")


def _open():
    from ovjit.graph.shapes import ANY

    return ANY
