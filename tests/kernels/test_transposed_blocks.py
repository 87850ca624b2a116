"""Copies that transpose blocks in registers, of elements of all sizes, beside NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.transpose import ELEMENTS

SEED = 20261125
TYPES = {8: np.int64, 4: np.int32, 2: np.float16, 1: np.uint8}
#: shape, order of its dimensions: whole blocks, parts of some in both directions, outer dimensions.
CASES = [
    ((1, 64, 16, 16), (0, 2, 3, 1)),
    ((2, 16, 5, 64), (0, 3, 1, 2)),
    ((3, 33, 47), (0, 2, 1)),
    ((1, 17, 1, 29), (3, 2, 1, 0)),
    ((4, 8, 9, 10), (1, 3, 0, 2)),
    ((2, 7, 300), (0, 2, 1)),
    ((1, 31, 30, 3), (0, 3, 1, 2)),
    ((47, 65), (1, 0)),
]


def transposed(data: np.ndarray, order: tuple[int, ...]) -> tuple[np.ndarray, set[str]]:
    """The transposed data, and the kernels that ran."""
    x = ops.parameter(list(data.shape), data.dtype)
    y = ops.transpose(x, ops.constant(np.array(order)))
    config = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.compile_model(ov.Model([y], [x]), "CPU", config)
    request = compiled.create_infer_request()
    (found,) = request.infer([data]).values()
    return found, {row.exec_type for row in request.profiling_info}


@pytest.mark.parametrize("shape, order", CASES)
@pytest.mark.parametrize("size", ELEMENTS)
def test_elements_of_all_sizes(size: int, shape, order) -> None:
    rng = np.random.default_rng([SEED, size, *shape])
    data = rng.integers(0, 100, shape).astype(TYPES[size])
    found, kernels = transposed(data, order)
    np.testing.assert_array_equal(found, data.transpose(order), err_msg=f"seed {SEED}")
    if min(n for n in shape if n > 1) >= host_target().lanes:
        assert f"transpose_{ELEMENTS[size]}" in kernels


@pytest.mark.parametrize("size", ELEMENTS)
def test_blocks_in_python(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    data = np.random.default_rng(SEED).integers(0, 100, (1, 19, 21)).astype(TYPES[size])
    found, _ = transposed(data, (0, 2, 1))
    np.testing.assert_array_equal(found, data.transpose(0, 2, 1), err_msg=f"seed {SEED}")
