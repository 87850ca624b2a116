"""Plans run on a card: the order and arguments of the driver's calls, by a stand-in for the driver."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import Cancelled, InferenceError, UnsupportedError
from ovjit.gpu import device_job, driver
from ovjit.gpu.driver import CardError
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.interp import evaluate
from ovjit.graph.symbolic import Interval
from tests.support.fake_cuda import FakeCuda, install
from tests.support.run import run_job


def graph_of(*shape: Any) -> Graph:
    """Outputs relu(x w) and the sum of its rows."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
    product = b.add("MatMul", [x, b.constant(weights)], {"transpose_a": False, "transpose_b": False}).output
    y = b.add("Relu", [product]).output
    total = b.add("ReduceSum", [y, b.constant(np.array([1]))], {"keep_dims": False}).output
    return b.finish([y, total])


def run(job, *arrays: np.ndarray) -> list[np.ndarray]:
    return run_job(job, arrays)


def expected(x: np.ndarray) -> list[np.ndarray]:
    y = np.maximum(x @ (np.arange(12, dtype=np.float32).reshape(4, 3) - 5), 0)
    return [y, y.sum(1)]


def test_results_are_those_of_numpy(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(5, 4), {"card": 0}).new_job()
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((5, 4)).astype(np.float32)
        for result, want in zip(run(job, x), expected(x), strict=True):
            np.testing.assert_allclose(result, want, rtol=1e-5, atol=1e-5)
    assert cuda.replays == 3 and cuda.calls.count("cuStreamBeginCapture_v2") == 1


def test_kernels_are_loaded_at_a_time(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver compiles a kernel when it is loaded: two threads are in that call at once."""
    inside, both = list[int](), threading.Event()
    load = FakeCuda.do_cuModuleLoadDataEx

    def wait(self: FakeCuda, *arguments: Any) -> int:
        inside.append(threading.get_ident())
        if len(set(inside)) > 1:
            both.set()
        assert both.wait(60), "no other kernel is loaded meanwhile"
        return load(self, *arguments)

    monkeypatch.setattr(FakeCuda, "do_cuModuleLoadDataEx", wait)
    x = np.ones((5, 4), np.float32)
    results = run(compile_graph(graph_of(5, 4), {"card": 0}).new_job(), x)
    np.testing.assert_allclose(results[0], expected(x)[0], rtol=1e-5)
    assert len(inside) == len(cuda.modules)


def test_kernels_are_loaded_without_threads(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the interpreter no thread starts."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", refuse)
    x = np.ones((5, 4), np.float32)
    results = run(compile_graph(graph_of(5, 4), {"card": 0}).new_job(), x)
    np.testing.assert_allclose(results[0], expected(x)[0], rtol=1e-5)


def test_constants_are_uploaded_once_for_all_jobs(cuda: FakeCuda) -> None:
    executable = compile_graph(graph_of(2, 4), {"card": 0})
    x = np.ones((2, 4), np.float32)
    first, second = executable.new_job(), executable.new_job()
    run(first, x)
    count = len(cuda.memory)
    run(second, x)
    per_job = len(cuda.memory) - count
    run(second, x)
    assert len(cuda.memory) == count + per_job
    assert first.device.addresses[1] == second.device.addresses[1]


def check(job, *shape: int) -> None:
    x = np.random.default_rng(shape).standard_normal(shape).astype(np.float32)
    for result, want in zip(run(job, x), expected(x), strict=True):
        np.testing.assert_allclose(result, want, rtol=1e-5, atol=1e-5)


def test_other_shapes_have_graphs_of_their_own(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(Interval(0, None), 4), {"card": 0}).new_job()
    for rows in (3, 70, 3, 1):
        check(job, rows, 4)
    assert (cuda.instantiated, cuda.updates, cuda.replays) == (3, 1, 4)  # 70 rows have moved the arena


def test_graphs_of_further_shapes_are_updated(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(Interval(0, None), 4), {"card": 0}).new_job()
    for rows in range(8, 8 + device_job.MOST_GRAPHS):
        check(job, rows, 4)
    made, memory = cuda.instantiated, len(cuda.memory)
    assert made == device_job.MOST_GRAPHS
    for rows in (40, 9, 700, 41, 42, 9, 8):
        check(job, rows, 4)
    assert cuda.instantiated == made  # other rows need other grids, not other graphs
    assert 0 < cuda.updates and len(cuda.memory) == memory
    assert len(job.device.replays) == device_job.MOST_GRAPHS


def test_graphs_with_other_nodes_are_made_anew(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_job, "MOST_GRAPHS", 1)
    cuda.fail["cuGraphExecUpdate_v2"] = 910
    job = compile_graph(graph_of(Interval(0, None), 4), {"card": 0}).new_job()
    for rows in (1, 700, 2):
        check(job, rows, 4)
    assert cuda.instantiated == 3 and not cuda.updates and len(cuda.graphs) == 1


def test_a_cancelled_run_leaves_nothing_on_the_stream(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(Interval(0, None), 4), {"card": 0}).new_job()
    check(job, 2, 4)
    cuda.fail["cuGraphLaunch"] = 1
    with pytest.raises(CardError, match="invalid argument"):
        check(job, 2, 4)
    assert not any(cuda.streams.values())
    del cuda.fail["cuGraphLaunch"]
    check(job, 900, 4)  # which frees the memory of the smaller tensors
    del job
    assert not cuda.streams


def test_host_steps_run_between_graphs(cuda: FakeCuda) -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (2, 3), "element_type": "f32"}).output
    positive = b.add("Relu", [x]).output
    host = b.add(
        "Inverse",
        [b.add("MatMul", [positive, positive], {"transpose_a": False, "transpose_b": True}).output],
        {"adjoint": False},
    ).output
    graph = b.finish([b.add("Exp", [host]).output])
    executable = compile_graph(graph, {"card": 0})
    job = executable.new_job()
    x = np.array([[1, 2, 3], [4, 5, 7]], np.float32)
    want = np.exp(np.linalg.inv((x @ x.T).astype(np.float64)))
    np.testing.assert_allclose(run(job, x)[0], want, rtol=1e-3)


def test_profiles_have_times_of_events(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(2, 4), {"card": 0, "PERF_COUNT": True}).new_job()
    run(job, np.ones((2, 4), np.float32))
    rows = job.profile()
    assert [row.status for row in rows] == ["EXECUTED"] * len(rows)
    assert all(row.real_ns == 250_000 for row in rows)
    assert not cuda.events


def test_memory_is_freed_with_the_job_and_the_model(cuda: FakeCuda) -> None:
    executable = compile_graph(graph_of(2, 4), {"card": 0})
    job = executable.new_job()
    run(job, np.ones((2, 4), np.float32))
    assert cuda.memory and cuda.streams and cuda.graphs
    del job
    assert len(cuda.memory) == 1 and not cuda.streams and not cuda.graphs and not cuda.pinned
    del executable
    assert not cuda.memory


def test_out_of_memory_is_an_error_and_the_process_goes_on(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(2, 4), {"card": 0}).new_job()
    cuda.capacity = 300
    with pytest.raises(CardError, match="out of memory: the card has too little free memory"):
        run(job, np.ones((2, 4), np.float32))
    cuda.capacity = 1 << 30
    np.testing.assert_allclose(
        run(job, np.ones((2, 4), np.float32))[0], expected(np.ones((2, 4), np.float32))[0]
    )


def test_a_kernel_error_names_the_node(cuda: FakeCuda) -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (2, 5), "element_type": "f32"}).output
    indices = b.add("Parameter", (), {"shape": (3,), "element_type": "i64"}).output
    gathered = b.add(
        "GatherND", [x, b.add("Unsqueeze", [indices, b.constant(np.array([1]))]).output], {"batch_dims": 0}
    )
    gathered.name = "pick"
    job = compile_graph(b.finish([gathered.output]), {"card": 0}).new_job()
    with pytest.raises(InferenceError, match="index is out of range"):
        run(job, np.ones((2, 5), np.float32), np.array([0, 9, 1]))


def test_a_lost_card_says_what_to_do(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(2, 4), {"card": 0}).new_job()
    cuda.fail["cuStreamSynchronize"] = 700
    with pytest.raises(CardError, match="illegal memory access .*: a kernel accessed memory outside"):
        run(job, np.ones((2, 4), np.float32))


def test_cancelled_jobs_stop(cuda: FakeCuda) -> None:
    job = compile_graph(graph_of(2, 4), {"card": 0}).new_job()
    job.set_input(0, np.ones((2, 4), np.float32))
    copy = cuda.do_cuMemcpyHtoDAsync

    def cancel(self, *arguments):
        job.cancel()
        return copy(*arguments)

    cuda.__class__ = type("Cancelling", (FakeCuda,), {**FakeCuda.__dict__, "do_cuMemcpyHtoDAsync": cancel})
    with pytest.raises(Cancelled):
        job.run()
    assert cuda.replays == 0


def test_without_a_driver_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(driver, "load_library", missing)
    driver.forget()
    try:
        assert driver.cards() == [] and "libcuda.so.1 is not installed" in driver.why_no_card()
        with pytest.raises(
            UnsupportedError, match="Context was not initialized for 0 device: the NVIDIA driver"
        ):
            driver.open_card(0)
    finally:
        driver.forget()


def test_old_cards_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(capability=(7, 5)))
    assert driver.cards() == [] and "compute capability 8.0 or more" in driver.why_no_card()
    driver.forget()


def test_a_forked_child_gets_an_error(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    job = compile_graph(graph_of(2, 4), {"card": 0}).new_job()
    run(job, np.ones((2, 4), np.float32))
    monkeypatch.setattr(driver.os, "getpid", lambda: -1)
    with pytest.raises(UnsupportedError, match="after a fork: compile it in this process"):
        run(job, np.ones((2, 4), np.float32))
    with pytest.raises(UnsupportedError, match="forked from one that used the CUDA driver"):
        driver.open_card(0)
    monkeypatch.undo()


def test_warps_that_await_each_other_run_at_a_time(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recurrent layer of all warps has as many blocks as the card runs at a time."""
    from ovjit_ops.recurrent import gpu_recurrent

    monkeypatch.setattr(gpu_recurrent, "BLOCK_WEIGHTS", 0)
    rng = np.random.default_rng(7)
    b = Builder()
    x, h = (
        b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
        for shape in ((1, 3, 9), (1, 1, 9))
    )
    w, r = (b.constant(rng.standard_normal((1, 9, 9)).astype(np.float32) / 3) for _ in range(2))
    inputs = [x, h, b.constant(np.array([3])), w, r, b.constant(np.zeros((1, 9), np.float32))]
    graph = b.finish(b.add("RNNSequence", inputs, {"hidden_size": 9, "direction": "forward"}).outputs)
    data = [rng.standard_normal(tuple(v.shape)).astype(np.float32) for v in graph.inputs]
    for cuda.multiprocessors, cuda.resident, warps in ((132, 2, 12), (1, 1, 4), (1, 2, 8)):
        job = compile_graph(graph, {"card": 0}).new_job()
        for result, want in zip(run(job, *data), evaluate(graph, data), strict=True):
            np.testing.assert_allclose(result, want, rtol=1e-4, atol=1e-5)
        assert cuda.grids[-1] == warps


def test_a_failure_within_a_capture_is_the_error(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver refuses to end a capture that has failed: that is a consequence. Else no graph stays."""
    job = compile_graph(graph_of(2, 4), {"card": 0}).new_job()
    cuda.fail |= {"cuLaunchKernel": 701, "cuLaunchKernelEx": 701}
    with pytest.raises(CardError, match=r"cuLaunchKernel.* failed") as caught:
        run(job, np.ones((2, 4), np.float32))
    assert caught.value.code == 701 and not cuda.graphs and not cuda.capturing
    cuda.fail.clear()
    monkeypatch.setattr(device_job, "starts_early", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(job, np.ones((2, 4), np.float32))
    assert not cuda.graphs and not cuda.capturing
