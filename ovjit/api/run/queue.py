"""`AsyncInferQueue`: a pool of requests that share one callback.

A job is in exactly one of two places: its number is in `idle`, or it runs. Without a callback, the end of an
inference is not reported. Started jobs are in `silent`, oldest first, and the next caller moves those that
have ended to `idle`. Their requests are collected by whoever uses them next. With a callback, the worker that
ran the inference calls it and always puts the number back. Quick callbacks need not wait until a worker gets
the GIL. Their finished jobs go to the completion queue, and a thread that waits for a job pops them and runs
their callbacks itself.

The first exception is kept, and raised by the next `start_async` or `wait_all`.

Ctrl-C and other exceptions of a signal's handler may come anywhere, see `request_guard.py`. A job that is
moving between those places at that moment is in neither. `search` puts it back. A handler may itself wait for
the queue. It does not wait for jobs that its own thread is moving below it, or is about to finish.
"""

from __future__ import annotations

import atexit
import functools
import operator
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

from ovjit.api.arguments import expect, takes
from ovjit.api.run.compiled import CompiledModel
from ovjit.api.run.request import InferRequest
from ovjit.api.run.request_guard import GUARDED, NOTHING, NOTIFIED, SILENT, copy_error, wait_quietly
from ovjit.errors import Busy, checked_index, no_such_constructor, no_such_form
from ovjit.execution.job import LOADS_IN_ORDER
from ovjit.execution.layout import COUNT, DONE, DONE_HEAD, IDLE, OWNER, QUEUED, RUNNING, STATE
from ovjit.execution.queued_job import QueuedJob
from ovjit.execution.streams import CompletionQueue, Pool, is_interrupt
from ovjit.forks import members

_get_ident = threading.get_ident
_call = operator.methodcaller("__call__")
_clock = time.perf_counter_ns

_UNFINISHED = (QUEUED, RUNNING)
#: ms after which a wait for the oldest job looks at the others too
_LOOK_AROUND = 1
#: A thread that waits at a queue runs callbacks when so many in a row took less than so many ns each.
_QUICK_CALLS, _QUICK_NS = 3, 200_000
#: ns after which a thread that waits for callbacks lets signals through; and asks first whether it waits in
#: vain
_SLICE, _FIRST_SLICE = 100_000_000, 10_000_000
#: The same where there are no workers who would wake it.
_MOMENT = 1_000_000


class _Pool:
    """The state of a queue. It outlives the queue while jobs run; nothing in it refers back to the queue."""

    __slots__ = (
        "__weakref__", "blocked", "callback", "completions", "error", "idle", "numbers",
        "quick", "requests", "running", "silent", "sleeping", "suspect", "userdata", "workers",
    )  # fmt: skip

    def __init__(self, requests: list[InferRequest]):
        self.requests = requests
        self.numbers = {request._job: i for i, request in enumerate(requests)}
        self.idle = deque(range(len(requests)))
        self.silent: deque[int] = deque()
        self.running: dict[int, int] = {}  # i -> i: jobs whose callback has not ended, oldest first
        self.userdata: list[Any] = [None] * len(requests)
        self.callback: Callable[[InferRequest, Any], Any] | None = None
        self.error: BaseException | None = None
        self.workers = requests[0]._compiled._executable.pool
        self.completions = CompletionQueue()
        #: thread that waits for a job -> the jobs that nobody goes on with meanwhile
        self.blocked: dict[int, set[int]] = {}
        self.suspect = False  # an interrupt may have lost a job
        self.sleeping = 0  # threads that wait at the completion queue
        self.quick = 0  # callbacks in a row that took no time to speak of

    def start(self, i: int, inputs: Any, userdata: Any, share: bool) -> None:
        """Start job `i`, which was taken out of `idle`; it goes back if the inputs are refused."""
        request = self.requests[i]
        starting = False
        try:
            if not (request._pending == SILENT and request._take_over()) and not request._acquire(False):
                request._claim()
            try:
                if inputs is not None:
                    request._assign(inputs, share)
                if request._bound or request._user_outputs or not request._ready:
                    request._prepare()
                request._error = None
                request._started = True
                self.userdata[i] = userdata
                job = request._job
                if self.callback is None:
                    request._starting = starting = True
                    request._owes = None
                    request._pending = SILENT
                    job.start(False, self.completions.address)
                    request._starting = False
                    self.silent.append(i)
                    if self.sleeping:
                        self.completions.wake()
                else:
                    # the worker may not yet have returned from the callback that put this job back
                    if job.words[STATE] != IDLE:
                        job.settle()
                    request._pending = NOTIFIED
                    job.client = self
                    self.running[i] = i
                    starting = True
                    # a callback that may block belongs on a worker, where it blocks no other job
                    job.start(True, self.completions.address if self.quick >= _QUICK_CALLS else 0)
            except BaseException:
                request._starting = False
                if starting and request._job.is_started:  # interrupted too late: it runs
                    if request._pending == SILENT and i not in self.silent:
                        self.silent.append(i)
                    raise
                starting = False
                self.running.pop(i, None)
                if not request._job.is_started:  # `_take_over` leaves it among the pool's jobs
                    self.workers.running.pop(request._job.address, None)
                request._pending = NOTHING
                request._release()
                raise
        except BaseException:
            if not starting:
                self.put_back(i)
            raise

    def put_back(self, i: int) -> None:
        self.idle.append(i)
        if self.sleeping:
            self.completions.wake()

    def serve(self, ns: int, mine: Set[int] | None = None) -> bool:
        """Run the callback of a job that finishes within `ns`, or a job that no thread has begun. Does not
        wait if no jobs but `mine` run; without `mine`, if a job is free."""
        done = None
        try:
            alone = not self.workers.workers
            if ns and not self.completions.words[DONE_HEAD]:
                for i in list(self.running):
                    job = self.requests[i]._job
                    if job.is_queued and (alone or job.is_posted) and job.run_queued(even_long=alone):
                        return True
            try:
                self.sleeping += 1
                count = self.completions.words[COUNT]  # first: what comes after the look changes it
                if self.idle if mine is None else self.running.keys() <= mine:
                    ns = 0
                address = self.completions.pop(min(ns, _MOMENT) if alone else ns, count, self.workers)
            finally:
                self.sleeping -= 1
            done = self.workers.running.get(address)  # there is none at 0
            if done is not None:
                self.workers.complete(done)
            return bool(address)
        except BaseException:
            self.workers.complete_taken(done)
            raise

    def serve_the_rest(self) -> None:
        """Run jobs that came while this thread waited at the completion queue, before it leaves: no other
        thread will."""
        while (self.completions.words[DONE_HEAD] or not LOADS_IN_ORDER) and self.serve(0):
            pass

    def _done(self, job: Any) -> None:
        """Called after an inference, by a worker or a waiting thread: run the callback."""
        i = self.numbers[job]
        request = self.requests[i]
        request._settle(job.error)
        callback = self.callback
        if request._error is None and callback is not None:
            request._calling = _get_ident()
            start = _clock()
            try:
                callback(request, self.userdata[i])
            except BaseException as raised:
                if is_interrupt(raised):
                    raise
                if self.error is None:
                    self.error = raised
            self.quick = self.quick + 1 if _clock() - start < _QUICK_NS else 0
            request._calling = 0
            if request._again:
                request._settle(request._run_again())
        if request._error is not None:
            self.take_error(request)

    def _cut_short(self, job: Any) -> None:
        """An exception came on the way through `_done`: the callback is not called again."""
        self.requests[self.numbers[job]]._cut_short(job)

    def _end(self, job: Any) -> None:
        """Free the job, now that its run is over."""
        i = self.numbers[job]
        if i in self.running:  # moved by one call of C: it is idle for those who see that it does not run
            self.idle.extend(map(self.running.pop, (i,)))
            if self.sleeping:
                self.completions.wake()

    def reap(self, i: int) -> None:
        """Collect a silent job whose inference is over, unless another thread just did."""
        request = self.requests[i]
        try:
            self.silent.remove(i)
        except ValueError:
            return
        if request._job.busy:
            self.silent.append(i)  # it was even started again
            return
        try:
            if request._collect():
                self.take_error(request)
        finally:
            self.put_back(i)

    def wait_silent(self, i: int, timeout: int | None) -> None:
        """Wait for a silent job, without the GIL, and collect it if it is over."""
        if self.requests[i]._job.settle(timeout):
            self.reap(i)

    def free_finished(self) -> None:
        """Free silent jobs that are over, as far as they stand at the front. Failed ones are collected: their
        error is raised next. So are those whose output tensors the user has: collecting fills these."""
        silent = self.silent
        while silent:
            try:
                i = silent[0]
            except IndexError:
                return
            request = self.requests[i]
            job = request._job
            if job.words[STATE] == DONE and job.error is None and not request._shown:
                try:
                    silent.remove(i)
                except ValueError:
                    continue  # another thread has freed it
                if job.words[STATE] != DONE and job.busy:
                    silent.append(i)  # and even started it again
                else:
                    self.put_back(i)
            elif job.busy:
                return
            else:
                self.reap(i)

    def take(self) -> int:
        """The number of a free job, taken out of `idle`; waits for one."""
        while True:
            try:
                return self.idle.popleft()
            except IndexError:
                self.wait_for_one()

    def wait_for_one(self) -> None:
        """Wait until a job may be free."""
        if self.suspect:
            self.search()
        if self.completions.words[DONE_HEAD]:
            self.serve_the_rest()
        if self.idle:
            return
        silent = list(self.silent)
        for i in silent:
            job = self.requests[i]._job
            if job.words[STATE] not in _UNFINISHED:
                self.reap(i)
            elif job.run_silent():  # rather than wait for a worker to wake up
                self.free_finished()  # usually this one: the oldest
            if self.idle:
                return
        if silent:
            self.wait_silent(silent[0], None if len(silent) == 1 else _LOOK_AROUND)
            return
        try:
            if not self.serve(_FIRST_SLICE) and not self.idle:
                self.block(self.numbers.values(), self.own_jobs())
                if not self.serve(_SLICE):
                    self.block(self.numbers.values(), self.own_jobs() | self.search())
        finally:
            self.blocked.pop(_get_ident(), None)
            self.serve_the_rest()

    def own_jobs(self) -> set[int]:
        """The jobs that this thread must finish: it is in their callbacks, or not far from them."""
        owners = (_get_ident(), ~_get_ident())
        blocks = enumerate([request._job.words for request in self.requests])
        return {i for i, words in blocks if words[STATE] == RUNNING and words[OWNER] in owners}

    def block(self, jobs: Iterable[int], mine: set[int]) -> None:
        """Called before a thread waits for one of `jobs`, while nothing goes on with `mine`. Raises Busy if
        all are those of threads that wait so."""
        if not mine:
            return
        self.blocked[_get_ident()] = mine
        blocked = self.blocked.copy()
        if mine.union(*blocked.values()).issuperset(jobs) and _get_ident() == max(blocked):  # one is told
            raise Busy(
                f"all {len(self.requests)} requests of the queue are in callbacks that wait for an idle "
                "request, or below handlers of signals that do: use a queue with more jobs"
            )

    def wait_all(self) -> None:
        """Wait for all jobs but those that this thread itself must go on with."""
        mine = self.own_jobs()
        for i in list(self.silent):
            if i not in mine:
                self.wait_silent(i, None)
        try:
            while others := self.running.keys() - mine:
                self.block(others, mine)
                if not self.serve(_SLICE, mine):
                    mine |= self.search()
        finally:
            self.blocked.pop(_get_ident(), None)
            self.serve_the_rest()
        for i, request in enumerate(self.requests):
            if i not in mine and request._job.words[STATE] in _UNFINISHED:  # started by its own methods
                wait_quietly(request._job)
        if self.suspect:  # now that nothing runs: no later wait need come that would look for them
            self.search()

    def search(self) -> set[int]:
        """The jobs in no list that this thread has below its current call of the queue: a handler of a signal
        waits. Those that no thread has were dropped by an interrupt, and are put back. Neither can be told
        while another thread may have them."""
        jobs, threads = _look(self)
        if threads or not self.suspect:
            return jobs if threads == {_get_ident()} else set()
        self.suspect = False
        for i in jobs:  # no other thread does this: each of two would see the other one here
            self.running.pop(i, None)
            if self.requests[i]._pending == SILENT:
                self.silent.append(i)
            else:
                self.put_back(i)
        return set()

    def lose_running(self) -> None:
        """Called in a forked child: free the jobs whose threads exist only in the parent. Collecting `silent`
        ones reports it."""
        self.running.clear()
        self.blocked.clear()
        self.sleeping = 0
        self.idle = deque(i for i in range(len(self.requests)) if i not in self.silent)
        for i in self.idle:
            request = self.requests[i]
            request._calling, request._again, request._pending = 0, False, NOTHING
            if request._guard.locked():
                request._release()

    def take_error(self, request: InferRequest) -> None:
        """Make the queue raise the request's error, unless it already has one to raise."""
        error = request._error
        if error is not None:
            request._error = copy_error(error)
            if self.error is None:
                self.error = error

    def raise_error(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback has this frame


#: Pools that may have jobs running at interpreter exit; their callbacks are waited for.
_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in members(_pools):
        pool.lose_running()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _watch() -> None:
    """Have all jobs waited for at exit. Registered only when there is a compiled model, so that it runs
    before the workers are stopped."""
    atexit.register(_wait_for_pools)


#: Seconds after which the end of the interpreter says what it waits for.
_PATIENCE = 5.0


def _wait_for_pools() -> None:
    over = threading.Event()
    try:  # this thread may itself run a callback that does not return
        threading.Thread(target=_tell_later, args=(over,), name="ovjit-exit", daemon=True).start()
    except RuntimeError:
        pass  # no more threads: it waits without a word
    try:
        for pool in members(_pools):
            pool.wait_all()
    finally:
        over.set()


def _tell_later(over: threading.Event) -> None:
    if not over.wait(_PATIENCE):
        for pool in members(_pools):
            for line in _held_up_by(pool):
                print(f"ovjit: at exit, the process waits for {line}", file=sys.stderr, flush=True)


def _held_up_by(pool: _Pool) -> list[str]:
    """Describes what blocks a wait for all jobs: a line per running callback, else one for inferences."""
    model = pool.requests[0]._compiled._executable.config.get("name", "")
    queue = f"the AsyncInferQueue of {len(pool.requests)} jobs on the model {model!r}"
    frames = sys._current_frames()
    lines = []
    for i in list(pool.running):
        thread = ~pool.requests[i]._job.words[OWNER]
        step = frames.get(thread)
        if thread >= 0:
            at = f"{step.f_code.co_filename}:{step.f_lineno}" if step is not None else "an unknown place"
            lines.append(
                f"{queue}: the callback {_name_of(pool.callback)} of job {i} has not returned: "
                f"it is at {at}, and the process ends when it returns"
            )
    if not lines and (pool.running or pool.silent):
        lines.append(f"{queue}: {len(pool.running) + len(pool.silent)} inferences are running")
    return lines


def _name_of(function: Any) -> str:
    """A callable's name, and the line where it is defined."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name


class AsyncInferQueue:
    """A pool of `jobs` requests on a compiled model; `jobs=0` takes OPTIMAL_NUMBER_OF_INFER_REQUESTS.

    `start_async` takes the next free job and waits for one if there is none. Callbacks come in the order of
    completion; `userdata` tells them apart. An exception of an inference or a callback is raised by the next
    `start_async` or `wait_all`, once, as it was raised; the queue goes on working. When the queue is dropped
    while jobs run, they end as usual, callbacks included.
    """

    __slots__ = ("__dict__", "__weakref__", "_model", "_pool")

    @takes
    def __init__(self, model: CompiledModel, jobs: int = 0):
        expect(model, CompiledModel, "AsyncInferQueue takes a CompiledModel", no_such_constructor)
        try:
            jobs = operator.index(jobs)
        except TypeError:
            raise no_such_constructor(f"jobs is an int, not {type(jobs).__name__}") from None
        if jobs < 0:
            raise no_such_constructor(f"jobs should not be negative, but is {jobs}")
        self._model = model
        jobs = jobs or model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._pool = _Pool([model.create_infer_request() for _ in range(jobs)])
        _pools.add(self._pool)
        _watch()

    def start_async(self, inputs: Any = None, userdata: Any = None, share_inputs: bool = False) -> None:
        """Start an inference on the next free job; inputs as for `InferRequest.infer`.

        Raises what an earlier inference or callback raised (and starts nothing then), RuntimeError or
        TypeError for inputs that do not fit.
        """
        pool = self._pool
        try:
            if pool.silent:
                pool.free_finished()
            if not pool.idle and pool.error is None:
                pool.wait_for_one()
            if pool.error is not None:
                pool.raise_error()
            try:
                i = pool.idle.popleft()
            except IndexError:
                i = pool.take()
                if pool.error is not None:
                    pool.idle.appendleft(i)
                    pool.raise_error()
            pool.start(i, inputs, userdata, share_inputs)
        except BaseException:
            pool.suspect = True
            raise

    def wait_all(self) -> None:
        """Wait until all inferences and callbacks have ended. Raises the first exception of one of them."""
        try:
            self._pool.wait_all()
        except BaseException:
            self._pool.suspect = True
            raise
        self._pool.raise_error()

    def is_ready(self) -> bool:
        """True if a job is free."""
        pool = self._pool
        return bool(pool.idle) or any(not pool.requests[i]._job.busy for i in list(pool.silent))

    def get_idle_request_id(self) -> int:
        """The number of the job that `start_async` would take; waits until one is free."""
        pool = self._pool
        try:
            while True:
                try:
                    return pool.idle[0]
                except IndexError:
                    pool.wait_for_one()
        except BaseException:
            pool.suspect = True
            raise

    @takes
    def set_callback(self, callback: Callable[[InferRequest, Any], Any]) -> None:
        """Set the function `callback(request, userdata)`, which workers call after every successful
        inference."""
        if not callable(callback):
            raise no_such_form(f"a callback is callable, {type(callback).__name__} is not")
        self._pool.callback = callback

    @property
    def userdata(self) -> list[Any]:
        """The user data that each job got at its last `start_async`."""
        return list(self._pool.userdata)

    def __len__(self) -> int:
        return len(self._pool.requests)

    def __getitem__(self, i: int) -> InferRequest:
        """Job `i`. IndexError beyond the last, TypeError for a negative number."""

        def beyond(number: int) -> Exception:
            return IndexError(f"job index {number} is out of range: the queue has {len(self)} jobs")

        return self._pool.requests[checked_index(i, len(self._pool.requests), "job", beyond)]

    def __iter__(self) -> Iterator[InferRequest]:
        return iter(list(self._pool.requests))

    def __copy__(self, memory: Any = None) -> AsyncInferQueue:
        raise TypeError("cannot pickle 'AsyncInferQueue' object")

    __deepcopy__ = __reduce__ = __copy__  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<AsyncInferQueue: {len(self)} jobs>"


def _look(pool: _Pool) -> tuple[set[int], set[int]]:
    """The jobs that are neither idle nor started, and the threads that may have one of them. It is one
    moment's picture: no other thread runs during a call of C."""
    blocks = [request._job.words.tolist for request in pool.requests]
    lists = (pool.idle.copy, pool.silent.copy, pool.running.copy)
    frames, idle, silent, running, *words = tuple(map(_call, (sys._current_frames, *lists, *blocks)))
    started = {i for i in running if words[i][STATE] in _UNFINISHED}
    me, threads = _get_ident(), set()
    while frames:  # without a cycle of this frame and its variables
        thread, frame = frames.popitem()
        if thread == me:  # this call has none, what lies below it may have
            while frame is not None and id(frame.f_code) not in _WAITS:
                frame = frame.f_back
            frame = frame and frame.f_back
        if _may_have_one(pool, frame):
            threads.add(thread)
        frame = None
    return {*range(len(words))} - {*idle, *silent, *started}, threads


def _may_have_one(pool: _Pool, frame: Any) -> bool:
    """Whether a thread with these frames may have a job in its hands alone."""
    called = 0
    while frame is not None:
        code = id(frame.f_code)
        if code in _ON_THE_WAY and called not in _AWAY:
            names = frame.f_locals
            if pool in (names.get("self"), names.get("pool")) or names.get("job") in pool.numbers:
                return True
        called, frame = code, frame.f_back
    return False


def _codes(*functions: Any) -> set[int]:
    return {id(function.__code__) for function in functions}


GUARDED.add(id(_Pool.start.__code__))
#: Where a thread may have a job's number in its hands alone, unless it is in one of _AWAY from there.
_ON_THE_WAY = _codes(
    AsyncInferQueue.start_async, Pool.complete, _Pool.take, _Pool.start, _Pool.reap, _Pool.free_finished,
    _Pool.search, _Pool.put_back,
)  # fmt: skip
_AWAY = _codes(_Pool.take, _Pool.wait_for_one, QueuedJob.call_back)
#: The calls in which a thread waits.
_WAITS = _codes(AsyncInferQueue.start_async, AsyncInferQueue.get_idle_request_id, _Pool.wait_all)
