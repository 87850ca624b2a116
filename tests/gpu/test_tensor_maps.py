"""Data that a tensor map cannot describe as they lie: the stand-in refuses what the driver refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.engine import compile_graph
from tests.support.fake_cuda import FakeCuda

op = ov.opset13
SEED = 20261129


def weights(*shape: int) -> np.ndarray:
    return (np.random.default_rng([SEED, *shape]).standard_normal(shape) / 8).astype(np.float32)


def product(x: Any) -> Any:
    return op.matmul(x, weights(x.get_output_partial_shape(0).get_max_shape()[-1], 64), False, False)


def convolution(x: Any, side: int = 3) -> Any:
    rank = x.get_output_partial_shape(0).rank.get_length() - 2
    ones, pads = [1] * rank, [side // 2] * rank
    return op.convolution(x, weights(64, 64, *[side] * rank), ones, pads, pads, ones)


def part(x: Any, axis: int, begin: int, end: int, step: int) -> Any:
    return op.slice(x, *(np.array([n]) for n in (begin, end, step, axis)))


def reverse(x: Any, axis: int) -> Any:
    return part(x, axis, -1, -(2**31), -1)


#: Shape of the input, what is computed before, and what is changed of its result.
CASES: dict[str, tuple[tuple[int, ...], Any, Callable[[Any], Any], Any]] = {
    "repeated rows": ((1, 64), product, lambda x: op.broadcast(x, np.array([20, 64])), product),
    "reversed rows": ((20, 64), product, lambda x: reverse(x, 0), product),
    "one row of several": ((20, 64), product, lambda x: part(x, 0, 3, 4, 1), product),
    "columns from byte 8 on": ((20, 64), product, lambda x: part(x, 1, 4, 36, 1), product),
    "one dimension": ((1, 64, 12), convolution, lambda x: x, convolution),
    "reversed columns": ((1, 64, 3, 8), convolution, lambda x: reverse(x, 3), convolution),
    "swapped lines and columns": (
        (1, 64, 3, 8), convolution, lambda x: op.transpose(x, np.array([0, 1, 3, 2])), convolution
    ),
    "reversed images": ((2, 64, 3, 8), convolution, lambda x: reverse(x, 0), convolution),
    "repeated lines": (
        (1, 64, 1, 8), convolution, lambda x: op.broadcast(x, np.array([1, 64, 3, 8])), convolution
    ),
    "channels of one image": (
        (1, 64, 3, 8), lambda x: op.concat([convolution(x), op.tanh(convolution(x))], 1),
        lambda x: part(x, 1, 32, 96, 1), convolution
    ),
    "a part as one line": (
        (1, 64, 4, 12), convolution, lambda x: part(x, 3, 1, 9, 1), lambda x: convolution(x, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_views_that_a_map_does_not_take_are_copied(name: str, cuda: FakeCuda) -> None:
    shape, first, change, second = CASES[name]
    x = op.parameter(list(shape), np.float32, name="x")
    model = ov.Model([second(change(op.relu(first(x))))], [x])
    job = compile_graph(model._graph(), {"card": 0, "INFERENCE_PRECISION_HINT": "f16"}).new_job()
    data = np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
    job.set_input(0, data)
    job.run()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    want = ov.compile_model(model, "CPU", exact)(data)[0]
    assert np.abs(job.outputs[0] - want).max() <= 4e-3 * np.abs(want).max()
    assert cuda.calls.count("cuTensorMapEncodeTiled") >= 2
