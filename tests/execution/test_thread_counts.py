"""The same bits at every number of threads, again and again on cores that others use too.

Work is cut into many small chunks and spread over threads however small it is. By default a tenth, whole with
`-m long`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import ovjit
from ovjit.data import digits
from ovjit.engine import compile_graph
from ovjit.execution import runner
from ovjit.graph.graph import Builder
from ovjit.graph.op import Op
from ovjit.planning import chunks, plan
from tests.support import networks
from tests.support.op_samples import graph_of, native_ops
from tests.support.samples import samples_of

SEED = 20261121
#: 25 form three groups, see `ovjit.execution.layout.GROUP`.
THREADS = (1, 2, 3, 5, 25)
#: Of these, those of the default suite's operations.
FEW = (1, 3, 25)
REPEATS = 50


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks.split, "__defaults__", (500.0,))
    monkeypatch.setattr(plan, "PARALLEL_WORK", 0)


@pytest.fixture(scope="module", autouse=True)
def loaded_cores() -> Iterator[None]:
    """Another process is busy, so threads are preempted within steps: the suite's other worker, or a loop."""
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield
    other.kill()
    other.wait()


def bits(arrays: list[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for a in arrays]


def check_record(record: Op, samples: int | None, repeats: int, numbers: Sequence[int]) -> int:
    """Every sample (or so many of the last) at these numbers of threads; how many there were."""
    dtype = "f32" if "f32" in record.types else record.types[0]
    cases = list(samples_of(record, np.random.default_rng(SEED), dtype))
    for inputs, attrs in cases[-samples:] if samples else cases:
        graph, data = graph_of(record, inputs, attrs, dtype)
        want: list[bytes] = []
        for threads in numbers:
            job = compile_graph(graph, {"threads": threads}).new_job()
            for i, array in enumerate(data):
                job.set_input(i, np.asarray(array, order="C"))
            for _ in range(repeats):
                for out in job.outputs:
                    if not out.dtype.hasobject:
                        out.reshape(-1).view(np.uint8)[...] = 0xA5
                job.run()
                want = want or bits(job.outputs)
                where = f"{record!r} {[a.shape for a in inputs]} {attrs} with {threads} threads"
                assert bits(job.outputs) == want, where
    return len(cases)


def records() -> list[Op]:
    return [record for record in native_ops() if not record.stateful]


@pytest.mark.parametrize("part", range(8))
def test_operations(part: int) -> None:
    for record in records()[part::8]:
        check_record(record, 1, REPEATS // 10, FEW)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(8))
def test_all_samples(part: int) -> None:
    for record in records()[part::8]:
        check_record(record, None, REPEATS, THREADS)


def test_more_chunks_than_are_claimed_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks.split, "__defaults__", (1.0,))
    b = Builder()
    x = b.add("Parameter", (), {"shape": (runner.IN_HALVES + 10, 32), "element_type": "f32"}).output
    graph = b.finish([b.add("Softmax", [x], {"axis": 1}).output])
    data = np.random.default_rng(SEED).standard_normal(x.shape).astype(np.float32)
    exact = np.exp(data.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    want = None
    for threads in THREADS:
        job = compile_graph(graph, {"threads": threads}).new_job()
        job.set_input(0, data)
        job.run()
        assert max(step.chunks for step in job._table.plan.steps) > runner.IN_HALVES
        want = job.outputs[0].copy() if want is None else want
        assert np.array_equal(job.outputs[0], want), f"{threads} threads, seed {SEED}"
        np.testing.assert_allclose(job.outputs[0], exact, rtol=1e-6)


def check_model(path: str, inputs: list[np.ndarray], repeats: int) -> None:
    want: list[bytes] = []
    core = ovjit.Core()
    for threads in THREADS:
        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        compiled = core.compile_model(path, "CPU", config)
        compiled._executable.threads = threads  # there may be fewer cores
        compiled._executable.pool = ovjit.execution.streams.pool_for(1, threads)
        request = compiled.create_infer_request()
        for _ in range(repeats):
            results = request.infer(inputs)
            want = want or bits(list(results.values()))
            assert bits(list(results.values())) == want, f"{path} with {threads} threads"


def test_the_embedded_network() -> None:
    path, images, _ = digits()
    check_model(str(path), [images[:1]], REPEATS)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", networks.NAMES)
def test_networks(name: str) -> None:
    check_model(str(networks.build(name)), [networks.network_input(name)], REPEATS)
