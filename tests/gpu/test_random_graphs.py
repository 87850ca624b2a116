"""Random graphs on the stand-in for a card, beside the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.engine import compile_graph
from tests.support.fake_cuda import FakeCuda
from tests.support.random_graphs import Maker
from tests.support.sweeps import some


def run(graph: Any, config: dict[str, Any], inputs: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The outputs of two runs of a job; the second one has its inputs negated."""
    job, results = compile_graph(graph, config).new_job(), []
    for sign in (1, -1):
        for i, array in enumerate(inputs):
            job.set_input(i, sign * array)
        job.run()
        results.append([np.array(output) for output in job.outputs])
    return results


@pytest.mark.parametrize("seed", some(range(24), 3))
def test_cards_have_the_results_of_the_cpu(cuda: FakeCuda, seed: int) -> None:
    maker = Maker(np.random.default_rng(seed), dynamic=seed % 3 == 0)
    graph, inputs = maker.grow(5), maker.inputs
    exact = {"EXECUTION_MODE_HINT": "ACCURACY"}
    expected, results = run(graph, exact, inputs), run(graph, {"card": 0, **exact}, inputs)
    for wants, outputs in zip(expected, results, strict=True):
        for want, result in zip(wants, outputs, strict=True):
            scale = max(1.0, float(np.abs(want).max(initial=0)))
            np.testing.assert_allclose(result, want, rtol=1e-4, atol=1e-5 * scale, err_msg=f"seed {seed}")
    assert cuda.replays
