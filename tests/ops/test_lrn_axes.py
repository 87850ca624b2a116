"""LRN along any axes: what its kernel is not for is an average of squares, with these axes last."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from tests.support.run import run_job
from tests.support.sweeps import parts

SEED = 20261125


@pytest.mark.parametrize("cases", parts(range(24), 8), ids=len)
@pytest.mark.parametrize("kind", ["f32", "f64", "f16"])
def test_any_axes(kind: str, cases: range) -> None:
    """Up to three of five axes, known and open shapes, windows wider than a vector; without the host."""
    record = find_op("LRN")
    for case in cases:
        rng = np.random.default_rng([SEED, case])
        rank, opened = case % 5 + 1, bool(case & 1)
        shape = rng.integers(0 if case == 7 else 1, 7, rank).tolist()
        axes = rng.permutation(rank)[: int(rng.integers(1, min(rank, 3) + 1))]
        attrs = {"size": (1, 2, 3, 5, 45)[int(rng.integers(0, 5))], "beta": (0.5, 0.75, 1.0, 0.6)[case % 4]}
        checked = record.check_attributes({"alpha": 0.5, "bias": 2.0, **attrs})
        data = rng.standard_normal(shape).astype(numpy_dtype(kind))
        b = Builder()
        given = {"shape": tuple(ANY if opened else d for d in shape), "element_type": kind}
        x = b.add("Parameter", (), given).output
        graph = b.finish(b.add(record, [x, b.constant(axes)], checked).outputs)
        job = compile_graph(graph, {"threads": 1}).new_job()
        run_job(job, [data])
        where = f"{kind} case {case} seed {SEED}: {shape} {axes} {attrs} {opened}"
        assert not data.size or "ref_numpy" not in {row.exec_type for row in job.profile()}, where
        want = record.evaluate([data.astype(np.float64), axes], checked)[0]
        limit = {"f32": 3e-6, "f64": 1e-13, "f16": 2e-3}[kind]
        np.testing.assert_allclose(job.outputs[0].astype(np.float64), want, rtol=limit, err_msg=where)


@pytest.mark.parametrize("bias", [0.5, 1.9])
def test_the_bias_is_a_real_number(bias: float) -> None:
    """OpenVINO's CPU device takes its whole part: docs/operations.md."""
    data = np.random.default_rng(SEED).standard_normal((2, 5, 4)).astype(np.float32)
    b = Builder()
    x = b.add("Parameter", (), {"shape": data.shape, "element_type": "f32"}).output
    attrs = {"alpha": 1.0, "beta": 0.75, "bias": bias, "size": 1}
    graph = b.finish(b.add("LRN", [x, b.constant(np.array([1]))], attrs).outputs)
    job = compile_graph(graph, {"threads": 1}).new_job()
    run_job(job, [data])
    want = data.astype(np.float64)
    np.testing.assert_allclose(job.outputs[0], want / (bias + want**2) ** 0.75, rtol=3e-6)
