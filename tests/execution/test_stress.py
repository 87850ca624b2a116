"""Many threads, queues, cancellations and inferences; and that they leave nothing behind.

By default a tenth of each; whole with `-m long`.
"""

from __future__ import annotations

import gc
import os
import statistics
import textwrap
import threading
import time

import numpy as np
import pytest

import ovjit
from ovjit.readers.ir.writer import to_bytes
from tests.support import api_cases as cases
from tests.support.run import printed
from tests.support.threads import start_and_join

X = np.linspace(-1, 1, 8, dtype=np.float32)

#: Parts of the whole.
SHARES = [
    pytest.param(10, id="tenth"),
    pytest.param(1, id="whole", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
]


@pytest.fixture(params=SHARES)
def part(request):
    return request.param


def in_threads(count, work):
    """`work(i)` in so many threads at once. Raises the first exception of any."""
    errors = []

    def run(i):
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    start_and_join(threads)
    if errors:
        raise errors[0]


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


# --- threads


@pytest.mark.parametrize("streams", [1, 2])
def test_sixteen_threads_on_one_compiled_model(part, streams):
    """Calls, own requests, and both ways of sharing; every result right."""
    compiled = cases.adder(ovjit, (33,), NUM_STREAMS=streams)
    base = np.arange(33, dtype=np.float32)

    def work(seed):
        request = compiled.create_infer_request()
        for i in range(1000 // part):
            n = seed * 1000 + i
            a, b = base * seed, np.full(33, i, np.float32)
            way = n % 4
            if way == 0:
                got = compiled([a, b])[0]
            elif way == 1:
                got = compiled({"a": a, "b": b}, share_inputs=False)["sum"]
            elif way == 2:
                got = request.infer([a, b], share_outputs=True)[0]
            else:
                request.start_async([a, b], share_inputs=True)
                request.wait()
                got = request.get_output_tensor().data
            np.testing.assert_array_equal(got, base * seed + i, f"thread {seed}, inference {i}, way {way}")

    in_threads(16, work)


def test_threads_on_a_model_of_many_steps(part):
    """The same with helpers: kernels of several chunks on two threads each."""
    compiled = cases.heavy(ovjit, 96, 4)

    def work(seed):
        for i in range(150 // part):
            scale = 1 + (seed * 31 + i) % 7
            want = np.eye(96, dtype=np.float32) * np.float32(scale) ** 5
            np.testing.assert_array_equal(compiled([np.eye(96, dtype=np.float32) * scale])[0], want)

    in_threads(8, work)


def test_short_lived_threads(part):
    compiled = cases.unary(ovjit, op="tanh")
    compiled(X)
    want, before = np.tanh(X), threading.active_count()

    def work(i):
        np.testing.assert_allclose(compiled(X)[0], want, rtol=1e-5)
        request = compiled.create_infer_request()
        request.start_async(X)
        request.wait()
        np.testing.assert_allclose(request.results[0], want, rtol=1e-5)

    for _ in range(2000 // part // 8):
        in_threads(8, work)
    assert threading.active_count() <= before + 2 * os.cpu_count()
    assert len(compiled._free) <= 8  # as many requests as were ever needed at once


# --- queues


class Boom(Exception):
    """An exception of this file."""


def test_queues_with_raising_callbacks(part):
    compiled = cases.adder(ovjit)
    first = threading.active_count()

    def fail(request, userdata):
        raise Boom(userdata)

    def go_on(step):
        try:
            step()
        except Boom:
            return 1
        return 0

    raised = 0
    for i in range(200 // part):
        queue = ovjit.AsyncInferQueue(compiled, 1 + i % 4)
        queue.set_callback(fail)
        for k in range(6):
            raised += go_on(lambda queue=queue, k=k: queue.start_async([X, X], k))
        if i % 2:
            raised += go_on(queue.wait_all)
            queue.set_callback(lambda request, userdata: None)
            queue.wait_all()
            queue.start_async([X, X])
            queue.wait_all()
            assert sorted(queue._pool.idle) == list(range(len(queue)))
            np.testing.assert_array_equal(queue[queue._pool.idle[-1]].results[0], 2 * X)
        del queue
    assert raised >= 200 // part // 2
    assert threading.active_count() <= first + 2 * os.cpu_count()


# --- cancelling


@pytest.mark.parametrize("callback", [False, True])
def test_cancelling(part, callback):
    """While it runs and while it waits behind another: `wait` raises, and the request works afterwards."""
    compiled = cases.heavy(ovjit, 192, 400)  # it takes longer than another program has the CPU for
    one = compiled.create_infer_request()
    ahead, behind = compiled.create_infer_request(), compiled.create_infer_request()
    eye = np.eye(192, dtype=np.float32)
    called = []
    if callback:
        for request in (one, ahead, behind):
            request.set_callback(called.append, "called")
    cancelled = 0
    for i in range(500 // part):
        for request in [one] if i % 2 else [ahead, behind]:
            request.start_async([eye], share_inputs=True)
        victim = one if i % 2 else behind
        if i % 4 == 1:
            time.sleep(0.0005)  # so that it is running
        victim.cancel()
        try:
            victim.wait()
        except RuntimeError as error:
            assert "cancel" in str(error), error
            cancelled += 1
        if not i % 2:
            ahead.cancel()
            try:
                ahead.wait()
            except RuntimeError as error:
                assert "cancel" in str(error), error
    assert cancelled > 0.9 * (500 // part), f"{cancelled} of {500 // part} were cancelled in time"
    for request in (one, ahead, behind):
        np.testing.assert_array_equal(request.infer([eye])[0], eye)
        called.clear()
        request.start_async([eye])
        request.wait()
        np.testing.assert_array_equal(request.results[0], eye)
        assert called == ["called"] * callback


# --- what is left


def test_an_idle_process_is_idle():
    """After work on all threads, with requests and queues at hand: under 1 % of a core."""
    compiled = cases.heavy(ovjit, 128, 4)
    queue = ovjit.AsyncInferQueue(compiled, 3)
    queue.set_callback(lambda request, userdata: None)
    request = compiled.create_infer_request()
    eye = np.eye(128, dtype=np.float32)
    for _ in range(5):
        queue.start_async([eye])
        request.infer([eye])
    queue.wait_all()
    assert compiled._executable.pool.workers
    time.sleep(0.1)
    best = 1.0
    for _ in range(8):  # other tests' threads may still be ending
        before, began = time.process_time(), time.perf_counter()
        time.sleep(2)
        best = min(best, (time.process_time() - before) / (time.perf_counter() - began))
        if best < 0.01:
            break
    assert best < 0.01, f"{best:.1%} of a core"


def test_inferences_leave_nothing(part):
    """100,000 asynchronous ones, by request and by queue, in a process of its own."""
    program = textwrap.dedent("""
        import faulthandler
        faulthandler.dump_traceback_later(300, exit=True)
        import gc, sys, threading
        from tests.support import api_cases as cases
        from tests.execution.test_stress import X, descriptors, resident
        import ovjit
        compiled = cases.adder(ovjit, NUM_STREAMS=2)
        request, called = compiled.create_infer_request(), compiled.create_infer_request()
        called.set_callback(lambda userdata: None, None)
        silent, loud = ovjit.AsyncInferQueue(compiled, 3), ovjit.AsyncInferQueue(compiled, 3)
        loud.set_callback(lambda request, userdata: request.results)

        def work(count):
            for _ in range(count // 4):
                request.start_async([X, X])
                called.start_async([X, X])
                silent.start_async([X, X])
                loud.start_async([X, X])
                request.wait()
                called.wait()
            silent.wait_all()
            loud.wait_all()
            gc.collect()

        def state():
            return threading.active_count(), descriptors(), len(gc.get_objects())

        work(2000)
        before, memory = state(), resident()
        work(int(sys.argv[1]))
        after = state()
        assert after[:2] == before[:2], (before, after)
        assert after[2] < before[2] + 50, (before, after)
        assert resident() < memory + 2e6, (memory, resident())
    """)
    printed("-c", program, 100_000 // part)


def network():
    """A small model with weights and an open batch."""
    o = ovjit.opset8
    x = o.parameter(ovjit.PartialShape([-1, 64]), name="x")
    weights = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    return ovjit.Model([o.relu(o.matmul(x, weights, False, False))], [x])


def lives():
    """name -> something to do again and again."""
    core = ovjit.Core()
    model = network()
    fixed = network()
    fixed.reshape([4, 64])
    compiled, dynamic = core.compile_model(fixed, "CPU"), core.compile_model(model, "CPU")
    texts = to_bytes(model)
    x = np.ones((4, 64), np.float32)
    request = compiled.create_infer_request()
    sizes = iter(int(n) for n in np.random.default_rng(1).integers(1, 33, 1_000_000))

    def queue():
        jobs = ovjit.AsyncInferQueue(compiled, 3)
        jobs.set_callback(lambda request, userdata: request.results)
        for _ in range(5):
            jobs.start_async([x])
        jobs.wait_all()

    def shapes():
        n = next(sizes)
        assert dynamic([np.ones((n, 64), np.float32)])[0].shape == (n, 64)

    return {
        "read": lambda: core.read_model(*texts),
        "reshape": lambda: (model.reshape([2, 64]), model.reshape([-1, 64])),
        "compile": lambda: core.compile_model(fixed, "CPU"),
        "a new request": lambda: compiled.create_infer_request().infer([x]),
        "infer": lambda: request.infer([x]),
        "queue": queue,
        "dynamic shapes": shapes,
        "export and import": lambda: core.import_model(compiled.export_model(), "CPU")([x]),
        "compile, infer, release": lambda: (c := core.compile_model(fixed))([x]) and c.release_memory(),
    }


@pytest.mark.parametrize(
    "name",
    [
        "read", "reshape", "compile", "a new request", "infer", "queue", "dynamic shapes",
        "export and import", "compile, infer, release",
    ],
)  # fmt: skip
def test_leaks(name, part):
    """Warm up, then medians of five must not grow, nor what can be counted; as OpenVINO tests itself."""
    step = lives()[name]
    rounds = 100 // part

    def measure():
        samples = []
        for _ in range(5):
            for _ in range(max(rounds, 10)):
                step()
            gc.collect()
            samples.append(resident())
        return statistics.median(samples), (threading.active_count(), descriptors()), len(gc.get_objects())

    for _ in range(40):
        step()
    gc.collect()
    gc.freeze()  # what earlier tests have left is not looked at in every round
    measure()
    memory, counted, objects = measure()
    for _ in range(3):  # one of three without growth: what grows does so every time
        later, counts, more = measure()
        if later <= memory + max(0.01 * memory, 1 << 20) and more <= objects + 100:
            break
        memory, objects = later, more
    else:
        pytest.fail(f"{name}: {memory / 1e6:.1f} MB and {objects} objects, still growing")
    assert counts == counted
