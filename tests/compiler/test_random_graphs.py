"""Random graphs of convolutions, views, concatenations and elementwise operations against the interpreter.

What single operations can't show: fusion, layouts and halos, concatenations written in place, outputs over
operands that die. Every value of the graph may be an output, so that each is looked at.
"""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.interp import evaluate
from tests.support.compiled import run_passes
from tests.support.random_graphs import Maker
from tests.support.sweeps import some

SEED = 20261124


def check(seed: int, dynamic: bool) -> None:
    rng = np.random.default_rng(seed)
    maker = Maker(rng, dynamic)
    graph = maker.grow(int(rng.integers(4, 16)))
    where = f"seed {seed} dynamic {dynamic}\n{graph}"
    expected = evaluate(graph, maker.inputs)
    rewritten = evaluate(run_passes(graph), maker.inputs)
    results = []
    for threads in (1, 2):
        job = compile_graph(graph, {"threads": threads}).new_job()
        for i, x in enumerate(maker.inputs):
            job.set_input(i, x)
        for _ in range(2):
            job.run()
        results.append([o.copy() for o in job.outputs])
    for k, (want, passed, one, two) in enumerate(zip(expected, rewritten, *results, strict=True)):
        limit = 1e-4 * max(1.0, np.abs(want).max()) if want.size else 0
        assert np.abs(passed - want).max(initial=0) <= limit, f"output {k} after the passes: {where}"
        assert one.shape == want.shape and np.abs(one - want).max(initial=0) <= limit, f"output {k}: {where}"
        np.testing.assert_array_equal(one, two, err_msg=f"output {k} at 2 threads: {where}")


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("batch", some(range(4), 1))
def test_random_graphs(batch: int, dynamic: bool) -> None:
    for i in range(8):
        check(SEED + 100 * batch + i, dynamic)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_many_random_graphs(dynamic: bool) -> None:
    for i in range(1000):
        check(SEED + 10_000 + i, dynamic)
