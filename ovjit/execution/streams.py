"""Worker threads: a pool of Python threads parked in the runner's native loop.

All compiled models with the same configuration (streams, threads) share a pool. Its workers lead queued jobs,
at most `streams` at a time, and help running jobs that want more threads. They are started at first use, and
sleep when idle.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

import numpy as np

from ovjit import locks, logs, os_threads
from ovjit.execution import runner
from ovjit.execution.blocks import Arena, release_arenas
from ovjit.execution.queued_job import QueuedJob
from ovjit.execution.runner import JOB_WORDS, LEADS, NOTIFY, OWNER, POOL_WORDS, STATE, STOP, STREAMS, WAKE
from ovjit.forks import ForkLock

#: Jobs of a pool that may be finished and not waited for, besides twice the jobs at the last sweep.
_FEW = 8


class Pool:
    """`threads` workers that lead up to `streams` queued jobs at a time."""

    def __init__(self, streams: int, threads: int):
        self.streams = streams
        self.threads = threads
        self._most_workers = max(streams, threads)
        self._native = runner.native()
        self.lock = locks.rlock("pool")
        self.running: dict[
            int, QueuedJob
        ] = {}  # queued and running jobs by address: keeps their memory alive
        self._sweep_at = _FEW
        self._short_of_threads = False
        self.reset()

    def reset(self) -> None:
        """A pool without threads. In a forked child the parent's workers do not exist."""
        self.memory = np.zeros(POOL_WORDS + 8, np.int64)
        skip = -self.memory.ctypes.data % 64 // 8
        self.words = self.memory.data[skip:]
        self.address = self.memory.ctypes.data + skip * 8
        self.words[STREAMS] = self.streams
        self.words[runner.LEAD_AT] = runner.address_of("lead")
        self.words[runner.WALK_AT] = runner.address_of("walk")
        self.workers: list[Any] = []  # those of `os_threads`
        self.running.clear()
        self.lock = locks.rlock("pool")

    def ensure_workers(self, helpers_only: bool = False) -> None:
        """Start the threads at first use: all, or with `helpers_only` one fewer, for jobs that callers lead.

        More threads than cores would slow down the working threads. If the system allows no more threads, the
        pool has fewer. None is started at interpreter exit, or by a handler of a signal that comes meanwhile.
        """
        count = self._most_workers - helpers_only
        if len(self.workers) >= count or self.words[STOP] or self.lock._is_owned():
            return
        with self.lock:
            runner.native("runner_queues")
            for i in range(len(self.workers), count):
                try:
                    os_threads.start(_work, (self,), f"ovjit-{i}", self.workers.append)
                except RuntimeError as error:
                    if not self._short_of_threads:
                        self._short_of_threads = True
                        logs.warning("inferences run on %d of %d requested threads: %s", i, count, error)
                    return

    def submit(self, job: QueuedJob, notify: int, queue: int = 0) -> None:
        """Queue a job for the workers. Without workers, this thread runs it. `notify`: what happens at
        its end, `queue`: the address of its completion queue, for POST."""
        if len(self.workers) < self._most_workers:
            self.ensure_workers()
        if len(self.running) > self._sweep_at:
            self.sweep()
            self._sweep_at = 2 * len(self.running) + _FEW
        try:
            self.running[job.address] = job
            self._native.submit(self.address, job.address, notify, queue)
        except BaseException:
            if job.words[STATE] == runner.IDLE:  # interrupted before it was queued
                self.running.pop(job.address, None)
            raise
        if not self.workers:
            job.run_queued(even_long=True)

    def complete(self, job: QueuedJob, raises: bool = True) -> None:
        """Run the callback of a finished job, and wake its waiters. Raises after that what has interrupted it
        (see `Job.call_back`). Without `raises`, on a worker, that becomes the job's error."""
        native, words, me = self._native, job.words, threading.get_ident()
        try:
            words[OWNER] = ~me  # not to be finished by `complete_taken` of what the callback calls
            if words[LEADS]:
                native.release(self.address, job.address)
            job.call_back()
            words[OWNER] = me  # after an exception below, `complete_taken` repeats the rest
        except BaseException as error:
            job.cut_short()
            words[OWNER] = me
            if raises:
                raise
            job.error = error
        finally:
            if words[LEADS]:  # an exception came before the release above
                native.release(self.address, job.address)
            self.running.pop(job.address, None)
            client, job._called = job._called, None  # before others can start the job again
            native.finish(job.address)
            if client is not None:
                client._end(job)

    def complete_taken(self, last: QueuedJob | None = None) -> None:
        """Finish the jobs that this thread has taken out of a queue and not finished. Called after an
        exception of any origin. `last`: a job that may have been in `complete`."""
        me = threading.get_ident()
        for job in [*self.running.values(), *([] if last is None else [last])]:
            words = job.words
            if words[OWNER] == me and words[STATE] == runner.RUNNING:
                if words[LEADS] and not words[runner.ENDED]:
                    job.lead_taken()
                self.complete(job)

    def sweep(self) -> None:
        """Drop references to finished jobs without a waiter."""
        for address, job in list(self.running.items()):
            if job.words[STATE] >= runner.DONE:
                self.running.pop(address, None)

    def stop(self) -> None:
        """Stop the workers, and wait at most 1 s for each: one may be inside a long inference."""
        with self.lock:
            workers, self.workers = self.workers, []
        if not workers:
            return
        native = runner.native()
        # in this order: before it sleeps, a worker reads WAKE first, then STOP
        native.publish(self.address + STOP * 8, 1)
        native.publish(self.address + WAKE * 8, self.words[WAKE] + 1)
        native.wake(self.address + WAKE * 8, 1 << 30)
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join(timeout=1.0)


def _work(pool: Pool) -> None:
    native = runner.native()
    arena = Arena()
    resume = 0
    while True:
        address = native.work(pool.address, arena.address, arena.size, resume)
        resume = 0
        if address == runner.STOPPED:
            return
        job = pool.running[address]
        if job.words[STATE] == runner.QUEUED and job.words[NOTIFY] != runner.IN_PYTHON:
            try:
                arena.reserve(job.words[runner.ARENA_SIZE])
            except MemoryError as error:
                job.error = error
            else:
                resume = address
                del job
                continue
        elif job.words[NOTIFY] == runner.IN_PYTHON:
            job.run_on_worker(arena)
        pool.complete(job, raises=False)
        del job


def is_interrupt(error: BaseException) -> bool:
    """True for Ctrl-C, or an end of the program, on Python's main thread. It is not an error of the job: it
    is raised again when the current work is complete."""
    return not isinstance(error, Exception) and threading.current_thread() is threading.main_thread()


class CompletionQueue:
    """Finished jobs whose callbacks are due. The thread that waits in `pop` runs the callbacks itself.

    The memory is recycled and never unmapped: a worker may read it after the queue is destroyed.
    """

    __slots__ = ("_memory", "address", "words")

    def __init__(self) -> None:
        with _blocks_lock.lock:
            self.address, self._memory = _free_completions.pop() if _free_completions else _new_completions()
        self.words = self._memory.data[(self.address - self._memory.ctypes.data) // 8 :]

    def __del__(self) -> None:
        memory = getattr(self, "_memory", None)
        if _blocks_lock and memory is not None:  # else the interpreter ends, or `__init__` was interrupted
            with _blocks_lock.lock:
                _free_completions.append((self.address, memory))

    def pop(self, ns: int, count: int, pool: Pool) -> int:
        """The address of a finished job of the pool, for `Pool.complete`; 0 after `ns`, or once COUNT is not
        `count`: what its caller waits for may have happened since it read that."""
        wait = (count & 0x7FFFFFFF) << 32 | ns
        return pool._native.pop(self.address, wait, threading.get_ident(), pool.address)

    def wake(self) -> None:
        """Make all waiting `pop` calls return."""
        runner.native().wake_all(self.address)


_pools: dict[tuple[int, int], Pool] = {}
_pools_lock = ForkLock("pools")


def pool_for(streams: int, threads: int) -> Pool:
    """The pool of this configuration, shared by all compiled models with it."""
    with _pools_lock.lock:
        pool = _pools.get((streams, threads))
        if pool is None:
            pool = _pools[streams, threads] = Pool(streams, threads)
        return pool


# --- blocks of integers for jobs: never unmapped, since a late worker may read a finished job's block

_BLOCKS = 64
_slabs: list[tuple[np.ndarray, int]] = []  # memory, and the index of its first block's first word
_free_blocks: list[tuple[int, memoryview]] = []
_blocks_lock = ForkLock("blocks")  # reentrant: a job may be collected while its own thread holds it


def take_block() -> tuple[int, memoryview]:
    """(address, words) of a zeroed block for a job. `give_block` recycles it."""
    with _blocks_lock.lock:
        if _graveyard:
            _sweep_graveyard()
        if not _free_blocks:
            slab = np.zeros(_BLOCKS * JOB_WORDS + 8, np.int64)
            skip = -slab.ctypes.data % 64 // 8
            _slabs.append((slab, skip))
            words = slab.data
            for i in range(_BLOCKS):
                start = skip + i * JOB_WORDS
                _free_blocks.append((slab.ctypes.data + start * 8, words[start : start + JOB_WORDS]))
        return _free_blocks.pop()


_free_completions: list[tuple[int, np.ndarray]] = []
_completion_memories: list[np.ndarray] = []


def _new_completions() -> tuple[int, np.ndarray]:
    memory = np.zeros(runner.DONE_WORDS + 8, np.int64)
    _completion_memories.append(memory)
    return (memory.ctypes.data + 63) // 64 * 64, memory


#: Address -> (words, memory) of blocks of dead jobs that a late worker may still read.
_graveyard: dict[int, tuple[memoryview, object]] = {}


def give_block(address: int, words: memoryview, memory: object) -> None:
    """Recycle a block. `memory`: all memory that the block points to. Both are kept unchanged while a late
    worker reads the block: it may have claimed a slot before it reads the tables' addresses."""
    with _blocks_lock.lock:
        _graveyard[address] = words, memory
        _sweep_graveyard()


def _sweep_graveyard() -> None:
    for address, (words, _) in list(_graveyard.items()):
        # taken out first: after an exception below, the block is lost, and never given out twice
        if words[runner.ACTIVE] or _graveyard.pop(address, None) is None:
            continue
        for i in range(JOB_WORDS):
            if i not in (runner.GENERATION, runner.ACTIVE, runner.SLOTS):
                words[i] = 0
        _free_blocks.append((address, words))


def _after_fork() -> None:
    """In a forked child: reset pools, and end jobs and locks that only the parent's threads held."""
    for slab, words in _slabs:
        slab[words + runner.ACTIVE : words + _BLOCKS * JOB_WORDS : JOB_WORDS] = 0
    for memory in _completion_memories:
        memory[:] = 0
    _sweep_graveyard()  # no thread reads a block here
    release_arenas()
    for pool in _pools.values():
        lost = list(pool.running.values())
        pool.reset()
        for job in lost:
            job.lose()


def _at_exit() -> None:
    for pool in list(_pools.values()):
        pool.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
