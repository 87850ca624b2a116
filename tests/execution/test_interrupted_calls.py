"""Exceptions at every bytecode between a request's call and the native runner, and back: the next calls give
right answers. By default some bytecodes, with `-m long` all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as ops
from ovjit.execution import runner
from tests.support import control_models, decoders
from tests.support.interrupted import SignalError, bytecodes, check_interrupted, distinct_of, sample_of
from tests.support.sweeps import in_turn

pytestmark = pytest.mark.thread_unsafe(reason="a trace function belongs to its thread")

F32 = np.float32
#: Bytecodes of each case in the default suite.
SOME = 40
SEED = 69

Case = tuple[Callable[[], None], Callable[[], None]]


def _compile(model: Any, **config: Any) -> Any:
    return ovjit.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **config})


def _data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((SEED, seed, *shape)).standard_normal(shape, F32)


def _close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def _scramble() -> None:
    """Overwrite free memory of sizes that the cases use, so that a freed array is not read unnoticed."""
    for size in (16, 64, 256, 1024, 4096):
        junk = [np.full(size, np.nan, F32) for _ in range(8)]
        del junk


def _products(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = rows.astype(np.float64)
    y = np.maximum(x @ weights, 0)
    return y, np.exp(y - y.max(1, keepdims=True)) / np.exp(y - y.max(1, keepdims=True)).sum(1, keepdims=True)


def _two_outputs(open_rows: bool) -> tuple[Any, np.ndarray]:
    weights = _data(6, 16, seed=1)
    x = ops.parameter(ovjit.PartialShape([-1 if open_rows else 5, 6]), F32, name="x")
    y = ops.relu(ops.matmul(x, ops.constant(weights), False, False))
    return ovjit.Model([y, ops.softmax(y, 1)], [x], "two"), weights


def static() -> Case:
    """Copied inputs, shared ones, tensors that are set, and results that are shared."""
    model, weights = _two_outputs(False)
    request = _compile(model).create_infer_request()
    out = np.zeros((5, 16), F32)
    data = [_data(5, 6, seed=k) for k in range(4)]
    wants = [_products(x, weights) for x in data]

    def compare(found: Any, k: int) -> None:
        for got, want in zip(found, wants[k], strict=True):
            _close(got, want)

    def scenario() -> None:
        request.infer([data[0]])
        request.infer([data[1].copy()], share_inputs=True)
        request.infer({"x": data[0].copy()}, share_inputs=True, share_outputs=True)
        request.set_input_tensor(ovjit.Tensor(data[2].copy()))
        request.set_output_tensor(0, ovjit.Tensor(out))
        request.infer()
        request.infer(data[3].astype(np.float64))
        request.set_output_tensor(0, ovjit.Tensor(np.zeros((5, 16), F32)))

    def check() -> None:
        _scramble()
        try:
            request.infer()  # on what is set, whatever that is now
        except RuntimeError as error:
            assert "no data" in str(error)
        _scramble()
        for k in (1, 2):
            compare(request.infer([data[k].copy()], share_inputs=True).to_tuple(), k)
            compare([request.get_output_tensor(i).data for i in range(2)], k)
        compare(request.infer([data[0]], share_outputs=True).to_tuple(), 0)
        request.set_input_tensor(ovjit.Tensor(data[3].copy()))
        request.infer()
        compare([request.get_output_tensor(i).data for i in range(2)], 3)

    return scenario, check


def open_shapes() -> Case:
    """Shapes that change from call to call."""
    model, weights = _two_outputs(True)
    compiled = _compile(model)
    request = compiled.create_infer_request()
    data = {n: _data(n, 6, seed=n) for n in (1, 5, 9, 12)}
    wants = {n: _products(x, weights) for n, x in data.items()}

    def run(n: int, **how: bool) -> None:
        for got, want in zip(request.infer([data[n]], **how).to_tuple(), wants[n], strict=True):
            _close(got, want)

    def scenario() -> None:
        for n in (9, 5, 9, 12):
            run(n)
        run(5, share_inputs=True)
        compiled.release_memory()
        run(9, share_inputs=True, share_outputs=True)

    def check() -> None:
        _scramble()
        for n in (9, 12, 5, 1, 9):
            run(n, share_inputs=n == 5)

    return scenario, check


def _decoder(beams: bool) -> Case:
    compiled = _compile(decoders.decoder(2, beams=beams))
    fresh = compiled.create_infer_request()
    request = compiled.create_infer_request()
    tokens = _data(2, 64, 16)

    def step(which: Any, at: int, count: int, order: tuple[int, ...] = (0, 1)) -> np.ndarray:
        given = {"x": tokens[:, at : at + count]}
        if beams:
            given["beam_idx"] = np.array(order, np.int32)
        return np.array(which.infer(given)[0])

    def scenario() -> None:
        request.reset_state()
        step(request, 0, 3)
        for at in range(3, 7):
            step(request, at, 1)
        step(request, 7, 1, (1, 0))
        step(request, 8, 2)
        step(request, 10, 1)

    def check() -> None:
        _scramble()
        # the states are those of before or of after the interrupted call: all of one length
        states = [np.array(state.state.data) for state in request.query_state()]
        lengths = {state.shape[2] for state in states}
        assert len(lengths) == 1, lengths
        length = lengths.pop()
        fresh.reset_state()
        for mine, its in zip(request.query_state(), fresh.query_state(), strict=True):
            if length:
                its.state = ovjit.Tensor(np.array(mine.state.data))
        if length:
            for at in (length, length + 1):
                want = step(fresh, at, 1)
                _close(step(request, at, 1), want)
        for which in (fresh, request):
            which.reset_state()
        for at, count in ((0, 4), (4, 1), (5, 1), (6, 1), (7, 40), (47, 1)):
            order = (1, 0) if at == 6 else (0, 1)
            want = step(fresh, at, count, order)
            _close(step(request, at, count, order), want)

    return scenario, check


def decoder() -> Case:
    """Variables that grow in place, reordered by beams."""
    return _decoder(True)


def greedy() -> Case:
    """Variables that grow in place, without beams."""
    return _decoder(False)


def counters() -> Case:
    """Two variables of a fixed size: each run adds its input to both. They never differ."""
    x = ops.parameter([1, 64], F32, name="x")
    sinks, outs = [], []
    for name in ("a", "b"):
        before = ops.read_value(ops.constant(np.zeros((1, 64), F32)), name)
        after = ops.add(before, x)
        sinks.append(ops.assign(after, name))
        outs.append(after)
    model = ovjit.Model([ops.result(ops.concat(outs, 0))], sinks, [x], "counters")
    request = _compile(model).create_infer_request()
    one = np.ones((1, 64), F32)

    def scenario() -> None:
        request.reset_state()
        for _ in range(4):
            request.infer([one])
        request.query_state()[0].state = ovjit.Tensor(one * 4)
        request.infer([one])

    def check() -> None:
        _scramble()
        a, b = (np.array(state.state.data) for state in request.query_state())
        assert (a == a[0, 0]).all() and (b == b[0, 0]).all(), (a, b)
        for k in range(1, 4):
            np.testing.assert_array_equal(request.infer([one])[0], np.concatenate([a + k, b + k]))
        request.reset_state()
        for k in range(1, 4):
            assert (request.infer([one])[0] == k).all()

    return scenario, check


def _loop(build: Callable[..., Any], inputs: Callable[[int], list[Any]], sizes: tuple[int, ...]) -> Case:
    compiled = _compile(build(ovjit, ops))
    wants = {}
    for n in sizes:
        wants[n] = [np.array(a) for a in _compile(build(ovjit, ops))(inputs(n)).to_tuple()]
    request = compiled.create_infer_request()

    def run(n: int) -> None:
        for got, want in zip(request.infer(inputs(n)).to_tuple(), wants[n], strict=True):
            np.testing.assert_array_equal(got, want)

    def scenario() -> None:
        for n in sizes:
            run(n)

    def check() -> None:
        _scramble()
        for n in (*sizes[::-1], sizes[0], sizes[0]):
            run(n)

    return scenario, check


def growing_loop() -> Case:
    """A carried value whose shape changes: Python leads the iterations, or native ones with new plans."""
    return _loop(
        lambda ov, ops: control_models.growing(ov, ops),
        lambda n: [_data(n, 2), np.array(5, np.int64)],
        (1, 2, 3),
    )


def counted_loop() -> Case:
    """A loop with a count that is an input, and concatenated results."""
    return _loop(
        lambda ov, ops: control_models.counting_loop(ov, ops, trips=None, open_dim=True),
        lambda n: [_data(n, 3), np.array(n, np.int64)],
        (4, 2, 7),
    )


def early_exit() -> Case:
    """A loop that its body ends."""
    return _loop(control_models.early_exit, lambda n: [_data(1, 5), np.array(10.0 * n, F32)], (3, 40))


def branches() -> Case:
    """An If whose branches have different shapes."""
    return _loop(
        lambda ov, ops: control_models.branches(ov, ops, same=False),
        lambda n: [np.array(n > 1), _data(2, 3)],
        (1, 2),
    )


def data_dependent() -> Case:
    """A graph with breaks: the number of results is known when they are."""
    x = ops.parameter(ovjit.PartialShape([-1]), F32, name="x")
    where = ops.non_zero(ops.greater(x, ops.constant(F32(0))))
    found = ops.gather(x, ops.reshape(where, ops.constant(np.array([-1], np.int64)), False), ops.constant(0))
    request = _compile(ovjit.Model([ops.exp(found), ops.tanh(x)], [x], "some")).create_infer_request()
    data = {n: _data(n, seed=n) for n in (3, 8, 20)}

    def run(n: int) -> None:
        some, all_ = request.infer([data[n]]).to_tuple()
        _close(some, np.exp(data[n][data[n] > 0]))
        _close(all_, np.tanh(data[n]))

    def scenario() -> None:
        for n in (8, 3, 20):
            run(n)

    def check() -> None:
        _scramble()
        for n in (20, 8, 3):
            run(n)

    return scenario, check


def large() -> Case:
    """Results in recycled blocks, on several threads."""
    x = ops.parameter(ovjit.PartialShape([-1]), F32, name="x")
    compiled = _compile(ovjit.Model([ops.relu(x), ops.negative(x)], [x], "large"), INFERENCE_NUM_THREADS=2)
    request = compiled.create_infer_request()
    data = {n: _data(n, seed=n) for n in (300_000, 400_000)}

    def run(n: int) -> None:
        positive, negative = request.infer([data[n]], share_inputs=True).to_tuple()
        assert (positive == np.maximum(data[n], 0)).all() and (negative == -data[n]).all()

    def scenario() -> None:
        for n in (300_000, 400_000, 300_000):
            run(n)
        compiled.release_memory()

    def check() -> None:
        for n in (400_000, 300_000, 300_000):
            run(n)

    return scenario, check


def _ends(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.001)


def _request_case(callback: bool) -> Case:
    model, weights = _two_outputs(True)
    request = _compile(model, NUM_STREAMS=2, INFERENCE_NUM_THREADS=2).create_infer_request()
    data = {n: _data(n, 6, seed=n) for n in (5, 9)}
    wants = {n: _products(x, weights) for n, x in data.items()}
    if callback:
        request.set_callback(lambda userdata: None, None)

    def run(n: int) -> None:
        request.start_async([data[n]])
        assert request.wait_for(20_000)
        for got, want in zip(request.results.to_tuple(), wants[n], strict=True):
            _close(got, want)

    def scenario() -> None:
        for n in (9, 5):
            request.start_async([data[n]])
            request.wait()

    def check() -> None:
        assert request.wait_for(20_000) or request._job.latency_ns == 0
        for n in (9, 5, 9):
            run(n)
        for got, want in zip(request.infer([data[5]]).to_tuple(), wants[5], strict=True):
            _close(got, want)
        _ends(lambda: request._job._pool.words[runner.LEADERS] == 0)  # no stream is lost

    return scenario, check


def asynchronous() -> Case:
    """`start_async` and `wait`."""
    return _request_case(False)


def with_callback() -> Case:
    """The same with a callback."""
    return _request_case(True)


def _queue_case(callback: bool, quick: int = 0) -> Case:
    model, weights = _two_outputs(True)
    compiled = _compile(model, NUM_STREAMS=2, INFERENCE_NUM_THREADS=2)
    queue = ovjit.AsyncInferQueue(compiled, 2)
    data = {n: _data(n, 6, seed=n) for n in (5, 9)}
    wants = {n: _products(x, weights) for n, x in data.items()}
    found: dict[int, list[np.ndarray]] = {}

    def keep(request: Any, n: int) -> None:
        found[n] = list(request.results.to_tuple())

    if callback:
        queue.set_callback(keep)

    def scenario() -> None:
        queue._pool.quick = quick
        for n in (9, 5, 9, 5):
            queue.start_async([data[n]], n)
        queue.wait_all()

    def check() -> None:
        failed: list[BaseException] = []

        def elsewhere() -> None:
            try:
                queue.wait_all()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=elsewhere, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "wait_all hangs"
        assert not [e for e in failed if not isinstance(e, (SignalError, KeyboardInterrupt))], failed
        found.clear()
        for n in (9, 5, 9):
            queue.start_async([data[n]], n)
        queue.wait_all()
        if callback:
            assert sorted(found) == [5, 9]
        for n, arrays in found.items():
            for got, want in zip(arrays, wants[n], strict=True):
                _close(got, want)
        pool = queue._pool
        _ends(lambda: not pool.running)
        if pool.suspect:
            pool.search()
        assert sorted([*pool.idle, *pool.silent]) == [0, 1], (pool.idle, pool.silent)
        workers = compiled._executable.pool
        _ends(lambda: workers.words[runner.LEADERS] == 0)  # no stream is lost

    return scenario, check


def queue() -> Case:
    """A queue without a callback."""
    return _queue_case(False)


def queue_with_callback() -> Case:
    """A queue whose callbacks run on workers."""
    return _queue_case(True)


def queue_with_quick_callback() -> Case:
    """A queue whose callbacks run on the thread that waits."""
    return _queue_case(True, 1000)


CASES: dict[str, Callable[[], Case]] = {
    f.__name__: f
    for f in (
        static, open_shapes, decoder, greedy, counters, growing_loop, counted_loop, early_exit, branches,
        data_dependent, large, asynchronous, with_callback, queue, queue_with_callback,
        queue_with_quick_callback,
    )
}  # fmt: skip


def _try(name: str, choose: Callable[[list[Any]], list[int]]) -> int:
    """Interrupt a case at the chosen bytecodes: by Ctrl-C and by another exception in turn. Returns how many
    interrupts came."""
    scenario, check = CASES[name]()
    for _ in range(2):
        scenario()
        check()
    places = bytecodes(scenario)
    check()
    numbers = choose(places)
    count = 0
    for error, some in ((KeyboardInterrupt, numbers[::2]), (SignalError, numbers[1::2])):
        count += check_interrupted(scenario, check, some, error)
    return count


@pytest.mark.parametrize("name", in_turn(list(CASES), 2))
def test_some_bytecodes(name: str) -> None:
    assert _try(name, lambda places: sample_of(places, SOME, SEED)) > SOME // 2


#: Every run of each bytecode is tried in so many parts. None takes more than some minutes of CPU time.
PARTS = {"greedy": 4, "decoder": 4}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_the_ends_of_every_bytecode(name: str) -> None:
    """The first and the last run of each bytecode, by both errors."""
    assert _try(name, lambda places: [n for n in distinct_of(places) for _ in range(2)]) > 100


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name in CASES for part in range(PARTS.get(name, 1))]
)
def test_every_bytecode(name: str, part: int) -> None:
    """Every run of each bytecode, by one of the errors."""

    def choose(places: list[Any]) -> list[int]:
        parts = PARTS.get(name, 1)
        return list(range(len(places) * part // parts, len(places) * (part + 1) // parts))

    assert _try(name, choose) > 1000
