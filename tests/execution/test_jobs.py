"""What jobs, arenas and workers do when memory, threads or patience run out."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as op
from ovjit.errors import Busy
from ovjit.execution import blocks, job_memory, runner, streams
from tests.support import api_cases as cases
from tests.support.threads import start_and_join

X = np.linspace(-1, 1, 8, dtype=np.float32)


# --- memory


def test_an_arena_that_cannot_grow_is_none() -> None:
    arena = blocks.Arena(4096)
    with pytest.raises(MemoryError):
        arena.reserve(1 << 60)
    assert (arena.address, arena.size, arena.memory) == (0, 0, None)
    arena.reserve(100)
    assert arena.size == 100 and arena.address


def outputs_of_rows(state: bool) -> tuple[ovjit.InferRequest, Callable[[int, bool], np.ndarray]]:
    """A request that doubles rows of 4 KB, with or without a state, and what gives it so many."""
    x = op.parameter(ovjit.PartialShape([-1, 1024]), np.float32, name="x")
    sinks = []
    if state:
        zeros = op.constant(np.zeros((1, 1024), np.float32))
        before = op.read_value(zeros, "count", np.float32, ovjit.PartialShape([1, 1024]))
        sinks = [op.assign(op.add(before, op.constant(np.float32(1))), "count")]
    model = ovjit.Model([op.result(op.multiply(x, op.constant(np.float32(2))))], sinks, [x], "rows")
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    request = ovjit.Core().compile_model(model, "CPU", config).create_infer_request()

    def infer(rows: int, share: bool) -> np.ndarray:
        given = np.arange(rows * 1024, dtype=np.float32).reshape(rows, 1024)
        result = request.infer([given], share_outputs=share)[0]
        assert result.shape == given.shape and np.array_equal(result, given * 2), rows
        return result

    return request, infer


@pytest.mark.parametrize("state", [False, True])
def test_large_outputs_lie_where_those_of_other_shapes_did(state: bool) -> None:
    """Memory that a user holds is not reused for another shape."""
    request, infer = outputs_of_rows(state)

    def place() -> int:
        return int(request._job.outputs[0].ctypes.data)

    infer(300, False)
    infer(500, False)  # more than there is
    first = place()
    for rows in (400, 350, 500):
        infer(rows, False)
        assert place() == first, rows
    infer(600, False)  # it grows
    first = place()
    infer(500, False)
    assert place() == first
    held: list[Callable[[], np.ndarray]] = [infer(450, True).__array__]
    assert place() == first
    for rows in (460, 470, 480, 490):
        kept = [hold().copy() for hold in held]
        before = place()
        infer(rows, False)
        assert place() != before, rows
        assert all(np.array_equal(hold(), was) for hold, was in zip(held, kept, strict=True)), rows
        if rows == 490:
            break
        data: np.ndarray = request._job.outputs[0] if rows == 480 else request.get_output_tensor(0).data
        view = {460: data[5:], 470: memoryview(data)[3:], 480: data}[rows]
        held.append(lambda view=view: np.asarray(view))  # type: ignore[misc]
        del data, view
    infer(280, False)
    infer(2000, False)
    there = place()
    infer(260, False)
    assert place() != there, "so much is not kept for so little"


@pytest.mark.skipif(not blocks.REMAPS, reason="mappings of memory do not grow here")
def test_a_large_arena_grows_with_its_pages() -> None:
    """Pages that have been touched are not cleared again: what is in them is there."""
    arena = blocks.Arena(3 << 20)
    ctypes.memset(arena.address, 77, 3 << 20)
    for size in (5 << 20, 40 << 20):
        arena.reserve(size)
        assert arena.size >= size and arena.address % 64 == 0
        assert ctypes.string_at(arena.address, 3 << 20) == b"M" * (3 << 20)
        ctypes.memset(arena.address + size - 1, 1, 1)
    with pytest.raises(MemoryError):
        arena.reserve(1 << 60)
    arena.reserve(100)
    assert arena.size == 100 and arena.address


@pytest.mark.skipif(not blocks.REMAPS, reason="mappings of memory do not grow here")
@pytest.mark.parametrize("dear_from", [0, 3])
def test_arenas_grow_by_small_pages_once_large_ones_are_dear(
    dear_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failing page may be any; existing memory stays, and the mapping can still grow."""
    clock = {"calls": 0, "ns": 0}

    def thread_time_ns() -> int:
        clock["calls"] += 1
        clock["ns"] += 1 if clock["calls"] <= 2 * dear_from else blocks.DEAR_PAGE + 1
        return clock["ns"]

    monkeypatch.setattr(blocks.time, "thread_time_ns", thread_time_ns)
    monkeypatch.setattr(blocks.Arena, "large_are_dear", False)
    arena = blocks.Arena(3 << 20)
    ctypes.memset(arena.address, 77, 3 << 20)
    for size in (12 << 20, 60 << 20, 100 << 20):
        arena.reserve(size)
        assert ctypes.string_at(arena.address, 3 << 20) == b"M" * (3 << 20)
        ctypes.memset(arena.address + size - 1, 1, 1)
    assert blocks.Arena.large_are_dear
    asked = clock["calls"]
    assert asked == 2 * (dear_from + 1)
    blocks.Arena(20 << 20)
    assert clock["calls"] == asked, "no large page is tried any more"


def test_a_worker_goes_on_after_a_memory_error() -> None:
    """The inference after one that was too large gets memory of its own."""
    a, b = op.parameter([-1, 1], np.float32), op.parameter([1, -1], np.float32)
    total = op.add(a, b)
    product = op.matmul(total, total, False, True)
    model = ovjit.Model([op.reduce_sum(product, op.constant(np.array([0, 1])))], [a, b], "m")
    compiled = ovjit.compile_model(model, "CPU", {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1})

    def infer(n: int) -> float:
        request = compiled.create_infer_request()
        request.start_async([np.ones((n, 1), np.float32), np.ones((1, n), np.float32)])
        request.wait()
        return float(request.get_output_tensor().data[0] if request.results[0].ndim else request.results[0])

    for n in (300, 200):
        assert infer(n) == pytest.approx(4.0 * n**3, rel=1e-2)
        with pytest.raises(MemoryError):
            infer(8_000_000)
        assert infer(n) == pytest.approx(4.0 * n**3, rel=1e-2)


def test_no_memory_for_a_binding_leaves_no_half_of_it(monkeypatch) -> None:
    """When memory runs out between a plan and its tables, the next run binds all of it."""
    compiled = cases.unary(ovjit, (-1,))
    request = compiled.create_infer_request()
    np.testing.assert_array_equal(request.infer([X])[0], np.maximum(X, 0))
    job, longer = request._job, np.linspace(-2, 2, 4000, dtype=np.float32)

    def no_counters(steps, threads):
        raise MemoryError

    compiled._executable.table(((4000,),))
    monkeypatch.setattr("ovjit.execution.job_memory.counters_for", no_counters)
    with pytest.raises(MemoryError):
        request.infer([longer])
    monkeypatch.undo()
    np.testing.assert_array_equal(request.infer([longer])[0], np.maximum(longer, 0))
    assert job.words[runner.TABLE] == job._table.address
    assert job.words[runner.COUNTERS] == job._counters.ctypes.data


def test_a_job_that_is_not_complete_gives_its_block_back(monkeypatch) -> None:
    compiled = cases.unary(ovjit)

    def fail(*_: int) -> None:
        raise KeyboardInterrupt

    ignored: list[object] = []
    gc.collect()  # jobs of other tests
    monkeypatch.setattr("sys.unraisablehook", ignored.append)
    free = len(streams._free_blocks) or streams._BLOCKS
    for name in ("counters_for", "np"):
        with monkeypatch.context() as patch:
            patch.setattr(job_memory, name, fail)
            with pytest.raises((KeyboardInterrupt, AttributeError)):
                compiled.create_infer_request()
    gc.collect()
    assert not ignored
    assert len(streams._free_blocks) >= free  # more if other jobs end meanwhile


def test_requests_that_nobody_waits_for_do_not_pile_up() -> None:
    """A pool holds jobs while they run; those that are over without a `wait` it lets go of now and then."""
    x = op.parameter([-1, 1024], np.float32)
    compiled = ovjit.compile_model(ovjit.Model([op.relu(x)], [x]), "CPU", {"NUM_STREAMS": 1})
    jobs: weakref.WeakSet = weakref.WeakSet()
    for _ in range(60):
        request = compiled.create_infer_request()
        request.start_async([np.ones((4, 1024), np.float32)])
        jobs.add(request._job)
        deadline = time.monotonic() + 20
        while request._job.busy:
            assert time.monotonic() < deadline
            time.sleep(1e-4)
    assert len(jobs) < 20


def test_a_block_is_not_recycled_under_a_late_helper() -> None:
    """A helper that was put off between claiming a slot and reading where the tables are finds them still."""
    compiled = cases.unary(ovjit)
    request = compiled.create_infer_request()
    request.infer([X])
    job = request._job
    address, words = job.address, job.words
    words[runner.ACTIVE] = 1  # as a helper does
    bases, counters = words[runner.BASES], words[runner.COUNTERS]
    del job, request
    assert (words[runner.BASES], words[runner.COUNTERS]) == (bases, counters) and bases
    taken = [streams.take_block() for _ in range(200)]
    assert address not in [a for a, _ in taken]
    words[runner.ACTIVE] = 0
    for a, w in taken:
        streams.give_block(a, w, None)
    assert words[runner.BASES] == 0
    assert any(a == address for a, _ in streams._free_blocks)


class Published:
    """The runner's functions, with a note of the words that are published."""

    def __init__(self, native: runner.Native, written: list[int]):
        self.native, self.written = native, written

    def __getattr__(self, name: str) -> Callable[..., int]:
        return getattr(self.native, name)

    def publish(self, address: int, *value: int) -> int:
        self.written.append(address)
        return self.native.publish(address, *value)


def test_a_late_helper_finds_no_claim_in_a_new_table() -> None:
    """The order in which a job gets the tables of other shapes: counters before anything they count."""
    compiled = cases.unary(ovjit, (-1,))
    request = compiled.create_infer_request()
    request.infer([X])
    job = request._job
    written: list[int] = []

    class Words:
        def __init__(self, words):
            self.words = words

        def __getitem__(self, i):
            return self.words[i]

        def __setitem__(self, i, value):
            written.append(i)
            self.words[i] = value

    kept = job._keep[-1]
    job.words[runner.ACTIVE] = 1
    job.words, plain = Words(job.words), job.words
    native, job._native = job._native, Published(job._native, written)
    request.infer([np.ones(5000, np.float32)])
    job.words, job._native = plain, native
    job.words[runner.ACTIVE] = 0
    assert kept in job._keep  # while a late helper looks
    assert written.index(runner.COUNTERS) < written.index(runner.STEPS)
    assert written.index(runner.COUNTERS) < written.index(runner.TABLE)
    # other CPUs than x86-64 show writes in another order, but for such as are published
    assert written[written.index(runner.COUNTERS) + 1] == job.address + runner.COUNTERS * 8


def test_the_notes_of_a_cut_model_do_not_grow() -> None:
    x = op.parameter([-1, 2], np.float32)
    model = ovjit.Model([op.convert(op.non_zero(op.relu(x)), "f32")], [x], "m")
    compiled = ovjit.compile_model(model, "CPU", {"CPU_RUNTIME_CACHE_CAPACITY": 1, "PERF_COUNT": True})
    request = compiled.create_infer_request()
    sizes = set()
    for n in range(1, 30):
        request.infer([np.ones((n, 2), np.float32)])
        sizes.add(len(request._job.notes))
        rows = request.profiling_info
        assert any(row.exec_type.startswith("nonzero_list") and row.status == row.EXECUTED for row in rows)
    assert sizes == {1}


def test_an_array_moved_by_resize_is_read_where_it_lies() -> None:
    """`ndarray.resize` gives the same object other memory."""
    n = 1 << 18
    compiled = cases.unary(ovjit, (n,))
    a = np.ones(n, np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(compiled([a])[0][:4], 1)
    before = a.ctypes.data
    a.resize(64 * n, refcheck=False)
    blocker = np.ones(1 << 22, np.float32)
    a.resize(n, refcheck=False)
    a[:] = 5
    np.testing.assert_array_equal(compiled([a])[0][:4], 5)
    assert blocker[0] == 1 and before
    # and back and forth with another array in between
    b = np.full(n, 7, np.float32)
    for array, value in ((b, 7), (a, 5), (b, 7)):
        np.testing.assert_array_equal(compiled([array])[0][:4], value)


# --- threads


def test_without_threads_the_caller_does_the_work(monkeypatch, caplog, no_workers) -> None:
    """The process may have no more threads: inferences of every kind go on, on fewer."""
    caplog.set_level("WARNING", "ovjit")
    started: list[int] = []

    def refuse(self):
        started.append(1)
        raise RuntimeError("can't start new thread")

    compiled = cases.unary(ovjit, (1 << 20,), NUM_STREAMS=3, INFERENCE_NUM_THREADS=6)
    x = np.linspace(-1, 1, 1 << 20, dtype=np.float32)
    want = np.maximum(x, 0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        np.testing.assert_array_equal(compiled([x])[0], want)
        request = compiled.create_infer_request()
        request.start_async([x])
        request.wait()
        np.testing.assert_array_equal(request.results[0], want)
        seen: list[int] = []
        request.set_callback(seen.append, 1)
        request.start_async([x])
        request.wait()
        assert seen == [1]
        queue = ovjit.AsyncInferQueue(compiled, 2)
        for callback in (False, True):
            if callback:
                queue.set_callback(lambda request, userdata: seen.append(userdata))
            for i in range(5):
                queue.start_async([x], i)
            queue.wait_all()
        assert seen == [1, 0, 1, 2, 3, 4]
    assert started
    assert sum("can't start new thread" in message for message in caplog.messages) == 1
    request.start_async([x])  # and with them when there are some again
    request.wait()
    assert compiled._executable.pool.workers


@pytest.mark.parametrize("wish", ["start_async", "wait_all", "get_idle_request_id"])
def test_callbacks_that_all_want_another_job(wish) -> None:
    """Both jobs are in callbacks that wait for one: one of them is told, instead of a deadlock."""
    compiled = cases.unary(ovjit, NUM_STREAMS=2, INFERENCE_NUM_THREADS=2)
    queue = ovjit.AsyncInferQueue(compiled, 2)
    barrier, once = threading.Barrier(2), threading.Lock()
    left = [2]

    def callback(request, userdata):
        with once:
            left[0] -= 1
            if left[0] < 0:
                return
        barrier.wait(20)
        if wish == "start_async":
            queue.start_async([X])
        else:
            getattr(queue, wish)()

    queue.set_callback(callback)
    queue.start_async([X])
    queue.start_async([X])
    with pytest.raises(Busy, match="callbacks that wait"):
        queue.wait_all()
    queue.wait_all()
    queue.set_callback(lambda request, userdata: None)
    for _ in range(6):
        queue.start_async([X])
    queue.wait_all()
    assert sorted(queue._pool.idle) == [0, 1] and not queue._pool.blocked


def test_an_array_moved_by_resize_is_read_where_it_lies_by_all_parts() -> None:
    """A graph that is cut hands the caller's array from part to part."""
    x = ovjit.opset13.parameter([-1, 4], np.float32, name="x")
    op = ovjit.opset13
    places = op.transpose(op.non_zero(op.relu(x)), op.constant(np.array([1, 0])))
    found = op.add(op.gather_nd(x, places), op.constant(np.float32(1)))
    model = ovjit.Model([found, op.multiply(x, op.constant(np.float32(3)))], [x], "m")
    request = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    for value in range(2, 8):
        array = np.ones((3000, 4), np.float32)
        request.infer([array], share_inputs=True)
        array.resize((90000, 40), refcheck=False)
        others = [np.full((3000, 4), 7, np.float32) for _ in range(4)]  # where it was
        array.resize((3000, 4), refcheck=False)
        array[...] = value
        got = request.infer([array], share_inputs=True)
        np.testing.assert_array_equal(got[0], np.full(12000, value + 1, np.float32))
        np.testing.assert_array_equal(got[1], array * 3)
        del others


def test_no_worker_spins_on_a_busy_machine(no_workers) -> None:
    """They sleep between jobs until the time in the pool's memory, and all jobs are done."""
    compiled = cases.unary(ovjit, (1 << 16,), NUM_STREAMS=1, INFERENCE_NUM_THREADS=2)
    pool = compiled._executable.pool
    request, queue = compiled.create_infer_request(), ovjit.AsyncInferQueue(compiled, 3)
    x, seen = np.linspace(-1, 1, 1 << 16, dtype=np.float32), list[int]()
    queue.set_callback(lambda request, userdata: seen.append(userdata))
    request.infer([x])
    until = pool.words[runner.CALM_AT] = runner.clock() + 3_600_000_000_000
    try:
        for _ in range(20):
            request.start_async([x])
            request.wait()
            assert pool.words[runner.SPINNERS] == 0
            np.testing.assert_array_equal(request.results[0], np.maximum(x, 0))
        for i in range(30):
            queue.start_async([x], i)
        queue.wait_all()
        assert sorted(seen) == list(range(30)) and pool.words[runner.CALM_AT] == until
    finally:
        pool.words[runner.CALM_AT] = 0


def test_a_late_wake_up_ends_spinning(no_workers) -> None:
    """For a while, and for twice as long if that comes again at once."""
    compiled = cases.unary(ovjit, NUM_STREAMS=1, INFERENCE_NUM_THREADS=1)
    pool, native = compiled._executable.pool, runner.native("runner_queues")
    pool.ensure_workers()
    words = pool.words

    def within_a_minute(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    for last, length in ((0, runner.SHORT_BUSY), (runner.SHORT_BUSY, 2 * runner.SHORT_BUSY)):
        within_a_minute(lambda: words[runner.SLEEPERS] == 1)
        time.sleep(0.1)  # it has been counted before it sleeps
        words[runner.BUSY_FOR] = last  # the machine may be busy
        words[runner.WOKEN_AT] = woken = words[runner.CALM_AT] = runner.clock()
        time.sleep(10 * runner.GAP / 1e9)
        native.publish(pool.address + runner.WAKE * 8, words[runner.WAKE] + 1)
        native.wake(pool.address + runner.WAKE * 8, 1)
        within_a_minute(lambda: words[runner.CALM_AT] > woken)  # noqa: B023
        assert words[runner.BUSY_FOR] == length


def test_a_sleeping_worker_is_woken_once() -> None:
    """Until it is awake: on one core it may take as long as the next hundred calls. What is queued meanwhile
    needs no further wake-up, and a second sleeper is woken for a second call."""
    native = runner.native("runner", "runner_queues")
    memory = np.zeros(runner.POOL_WORDS + 8, np.int64)
    words = memory[-memory.ctypes.data % 64 // 8 :]
    pool = words.ctypes.data
    words[runner.STREAMS], words[runner.SLEEPERS] = 1, 2  # no thread sleeps here
    job = np.zeros(runner.JOB_WORDS, np.int64)
    for woken in (1, 2, 2, 2):
        native.submit(pool, job.ctypes.data, runner.SILENT, 0)
        assert divmod(int(words[runner.SLEEPERS]), 1 << 32) == (woken, 2 - woken)
        assert words[runner.HEAD] == words[runner.TAIL] == job.ctypes.data
        words[runner.HEAD] = words[runner.TAIL] = 0  # a caller takes it back
    assert words[runner.WAKE] == 4


def test_spinning_workers_leave_brief_jobs_to_their_callers() -> None:
    """For a moment, if its caller has no others. Workers that sleep leave those of queues, too."""
    native = runner.native("runner", "runner_queues")
    memory = np.zeros(runner.POOL_WORDS + 8, np.int64)
    words = memory[-memory.ctypes.data % 64 // 8 :]
    job = np.zeros(runner.JOB_WORDS, np.int64)
    for took, how, queue, patient in (
        (500, runner.SILENT, 0, 1), (500, runner.CALL_BACK, 0, 0), (500, runner.POST, 8, 2),
        (500, runner.SILENT, 8, 2), (0, runner.SILENT, 0, 0), (runner.BRIEF_JOB, runner.SILENT, 0, 0),
    ):  # fmt: skip
        job[runner.STARTED], job[runner.ENDED] = 1000, 1000 + took
        native.submit(words.ctypes.data, job.ctypes.data, how, queue)
        assert words[runner.PATIENT] == patient, (took, how, queue)
        assert job[runner.NOTIFY] == how and job[runner.COMPLETIONS] == queue


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_wake_up_is_lost(no_workers, threads: int, busy: bool) -> None:
    """Workers fall asleep and are woken at all times. Only they can run these jobs: nobody waits at them. On
    a `busy` machine they do not spin, and nap before they run what its caller may want to run."""
    compiled = cases.unary(ovjit, (1 << 12,), NUM_STREAMS=threads, INFERENCE_NUM_THREADS=threads)
    x, rng = np.linspace(-1, 1, 1 << 12, dtype=np.float32), np.random.default_rng(threads)
    pool = compiled._executable.pool
    pool.words[runner.CALM_AT] = runner.clock() + 3_600_000_000_000 if busy else 0
    pauses = rng.uniform(0, 4e-4, 600)

    def drive(seed: int) -> None:
        request, over = compiled.create_infer_request(), threading.Semaphore(0)
        request.set_callback(lambda userdata: over.release(), None)
        for pause in np.roll(pauses, seed):
            request.start_async([x])
            assert over.acquire(timeout=60), "no worker came"
            request.wait()
            time.sleep(pause)
        silent = compiled.create_infer_request()
        for i in range(300):  # and jobs without a callback, whose caller only looks at them, or comes back
            silent.start_async([x])
            deadline = time.monotonic() + 60
            while i % 3 and not silent.wait_for(0):
                assert time.monotonic() < deadline, "no worker came"
                time.sleep(pauses[i])
            silent.wait()

    drivers = [threading.Thread(target=drive, args=(100 * i,)) for i in range(3)]
    errors: list[object] = []
    hook, threading.excepthook = threading.excepthook, errors.append
    try:
        start_and_join(drivers)
    finally:
        threading.excepthook = hook
    assert not errors
    deadline = time.monotonic() + 60
    while pool.words[runner.SLEEPERS] != len(pool.workers):  # none is counted as awake that sleeps
        assert time.monotonic() < deadline, hex(pool.words[runner.SLEEPERS])
        time.sleep(0.001)
    pool.words[runner.CALM_AT] = 0
