"""Everything at once, for as long as asked; run by `test_soak.py`, and by hand:

python -m tests.fuzz.soak SECONDS [SEED]

Rounds of calls, requests, queues, cancellations, changing shapes, models compiled and dropped, exports and
imports, exceptions in callbacks, forks and Ctrl-C, in several threads. Every result is checked, every
callback counted. After a warm-up of 30 rounds, medians of five rounds' memory must stay within 10 percent of
what the first tenth of them says, and the last third of a long run within 5 percent of the one before; in the
end threads and files are as many as before. Prints how often each was done.
"""

from __future__ import annotations

import collections
import faulthandler
import gc
import os
import random
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.testing  # at once: a fork in the midst of an import leaves that for ever unfinished

import ovjit as ov
from ovjit import opset8 as o

os.environ.setdefault("OVJIT_PRECISION", "f32")  # answers are compared closely

WARM_UP = 30
GROWTH = 1.10
#: Medians beyond the growth that are allowed, and never more than half: pages of other parts of the process.
OUTLIERS = 5
#: From one third of a long run to the next, of so many medians, memory grows by less than this.
LONG, TREND = 50, 1.05
#: A round that takes longer hangs.
PATIENCE = 90

done: collections.Counter[str] = collections.Counter()
#: Ctrl-C that came in a finalizer or a weak reference's callback: CPython prints it and goes on.
ignored: list[Any] = []


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def counted() -> dict[str, int]:
    return {"threads": threading.active_count(), "files": len(os.listdir("/proc/self/fd"))}


def network(rng: random.Random, open_rows: bool = True) -> ov.Model:
    weights = np.random.default_rng(7).standard_normal((24, 24)).astype(np.float32)
    x = o.parameter([-1 if open_rows else rng.randint(1, 9), 24], np.float32, name="x")
    y = o.relu(o.matmul(x, o.constant(weights), False, False))
    return ov.Model([o.add(o.softmax(y, 1), o.relu(x))], [x], "soak")


def want(x: np.ndarray) -> np.ndarray:
    weights = np.random.default_rng(7).standard_normal((24, 24)).astype(np.float32)
    y = np.maximum(x @ weights, 0)
    e = np.exp(y - y.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True) + np.maximum(x, 0)


class Soak:
    """What the threads share: compiled models, and for each size an input with its answer."""

    def __init__(self, seed: int):
        rng = random.Random(seed)
        self.core = ov.Core()
        self.model = network(rng)
        config = {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2, "CPU_RUNTIME_CACHE_CAPACITY": 16}
        self.compiled = self.core.compile_model(self.model, "CPU", config)
        data = np.random.default_rng(seed)
        self.inputs = [data.standard_normal((n, 24)).astype(np.float32) for n in range(1, 41)]
        self.answers = [want(x) for x in self.inputs]
        big = o.parameter([256, 256], np.float32, name="x")
        y = big
        for _ in range(12):
            y = o.matmul(y, big, False, False)
        self.long = self.core.compile_model(ov.Model([y], [big], "long"), "CPU")
        self.eye = np.eye(256, dtype=np.float32)
        cut = o.parameter([-1, 4], np.float32, name="x")
        found = o.convert(o.non_zero(o.relu(cut)), "f32")
        self.cut = self.core.compile_model(ov.Model([found], [cut], "cut"), "CPU")

    def right(self, result: Any, n: int) -> None:
        np.testing.assert_allclose(result, self.answers[n], rtol=1e-4, atol=1e-5)

    # --- what is done

    def calls(self, rng: random.Random) -> None:
        for _ in range(4):
            n = rng.randrange(40)
            self.right(self.compiled([self.inputs[n]])[0], n)

    def requests(self, rng: random.Random) -> None:
        request = self.compiled.create_infer_request()
        for _ in range(3):
            n = rng.randrange(40)
            if rng.random() < 0.5:
                self.right(request.infer([self.inputs[n]], share_inputs=rng.random() < 0.5)[0], n)
            else:
                request.start_async([self.inputs[n].copy()], share_inputs=True)
                request.wait()
                self.right(request.results[0], n)

    def queues(self, rng: random.Random) -> None:
        """Every callback comes once, with its own result; those that raise are told of once."""
        queue = ov.AsyncInferQueue(self.compiled, rng.randint(1, 4))
        seen: list[tuple[int, int]] = []
        raising = rng.random() < 0.3

        def callback(request: Any, userdata: tuple[int, int]) -> None:
            self.right(request.results[0], userdata[1])
            seen.append(userdata)
            if raising:
                raise LookupError(userdata)

        if rng.random() < 0.8:
            queue.set_callback(callback)
        else:
            raising = False
        started, told = [], 0
        for i in range(rng.randint(1, 12)):
            n = rng.randrange(40)
            try:
                queue.start_async([self.inputs[n]], (i, n))
                started.append((i, n))
            except LookupError:
                told += 1
        try:
            queue.wait_all()
        except LookupError:
            told += 1
        assert not raising or told, "an exception was lost"
        if queue._pool.callback is not None:
            assert sorted(seen) == started, (seen, started)
        if rng.random() < 0.2:  # dropped with jobs running
            queue.set_callback(lambda request, userdata: None)
            queue.start_async([self.inputs[0]])

    def cancels(self, rng: random.Random) -> None:
        request = self.long.create_infer_request()
        for _ in range(2):
            request.start_async([self.eye])
            time.sleep(rng.uniform(0, 0.004))
            request.cancel()
            try:
                request.wait()
                np.testing.assert_array_equal(request.results[0], self.eye)
            except RuntimeError as error:
                assert "cancelled" in str(error), error

    def segments(self, rng: random.Random) -> None:
        n = rng.randint(1, 20)
        x = np.ones((n, 4), np.float32)
        assert self.cut([x])[0].shape == (2, 4 * n)

    def compiles(self, rng: random.Random) -> None:
        compiled = self.core.compile_model(network(rng), "CPU", {"NUM_STREAMS": rng.randint(1, 2)})
        n = rng.randrange(40)
        self.right(compiled([self.inputs[n]])[0], n)
        if rng.random() < 0.3:
            compiled.release_memory()

    def blobs(self, rng: random.Random) -> None:
        again = self.core.import_model(self.compiled.export_model().getvalue(), "CPU")
        n = rng.randrange(40)
        self.right(again([self.inputs[n]])[0], n)

    def refusals(self, rng: random.Random) -> None:
        request = self.compiled.create_infer_request()
        for wrong in (np.ones((2, 23), np.float32), np.ones(24, np.float32), {"y": self.inputs[0]}, "text"):
            try:
                request.infer([wrong] if isinstance(wrong, np.ndarray) else wrong)
                raise AssertionError(f"{wrong!r} was taken")
            except (RuntimeError, TypeError, ValueError):
                pass
        self.right(request.infer([self.inputs[3]])[0], 3)

    # --- what only the main thread can do

    def forks(self, rng: random.Random) -> None:
        n = rng.randrange(40)
        faulthandler.cancel_dump_traceback_later()  # its thread would not exist in the child
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                faulthandler.dump_traceback_later(30, exit=True)
                self.right(self.compiled.create_infer_request().infer([self.inputs[n]])[0], n)
                queue = ov.AsyncInferQueue(self.compiled, 2)
                queue.start_async([self.inputs[n]])
                queue.wait_all()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"the child ended with {status}"

    def interrupts(self, rng: random.Random) -> None:
        """Ctrl-C somewhere in a loop, and everything goes on."""
        queue = ov.AsyncInferQueue(self.compiled, 2)
        if rng.random() < 0.5:
            queue.set_callback(lambda request, userdata: None)
        request = self.compiled.create_infer_request()
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 5e-3))
            end = time.monotonic() + 20
            ignored.clear()
            while time.monotonic() < end and not ignored:
                queue.start_async([self.inputs[5]])
                request.start_async([self.inputs[6]])
                request.wait()
                queue.wait_all()
            assert ignored, "Ctrl-C was swallowed"
        except KeyboardInterrupt:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        request.wait()
        self.right(request.infer([self.inputs[7]])[0], 7)
        queue.wait_all()
        for _ in range(5):
            queue.start_async([self.inputs[8]])
        queue.wait_all()
        for job in queue:
            self.right(job.results[0], 8)


def soak_for(seconds: float, seed: int) -> None:
    soak = Soak(seed)
    anywhere: list[Callable[[random.Random], None]] = [
        soak.calls, soak.requests, soak.queues, soak.cancels, soak.segments, soak.compiles, soak.blobs,
        soak.refusals,
    ]  # fmt: skip
    failed: list[BaseException] = []

    def round_of(number: int) -> None:
        """Three threads do four things each while this one forks, is interrupted, or does as they do."""

        def work(thread: int) -> None:
            rng = random.Random(seed * 1_000_003 + number * 101 + thread)
            for _ in range(4):
                what = rng.choice(anywhere)
                try:
                    what(rng)
                    done[what.__name__] += 1
                except BaseException as error:
                    failed.append(error)
                    return

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        rng = random.Random(seed * 1_000_003 + number * 101 + 99)
        what = rng.choice([soak.forks, soak.interrupts, soak.interrupts, *anywhere])
        what(rng)
        done[what.__name__] += 1
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    ends = time.monotonic() + seconds
    memory: list[int] = []
    number = 0
    before: dict[str, int] = {}
    while time.monotonic() < ends or number < WARM_UP + 10:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        round_of(number)
        gc.collect()
        number += 1
        if number == WARM_UP:
            before = counted()
        elif number > WARM_UP:
            memory.append(resident())
    faulthandler.cancel_dump_traceback_later()
    medians = [statistics.median(memory[i : i + 5]) for i in range(0, len(memory) - 4, 5)]
    # what is done at random has met all there is only after a while: the first tenth says what is usual
    first = statistics.median(medians[: max(len(medians) // 10, 1)])
    beyond = sum(m > GROWTH * first for m in medians)
    print(f"{number} rounds: {dict(done)}")
    print(f"memory at first, at most, in the end: {first:.3g} {max(medians):.3g} {medians[-1]:.3g} bytes")
    assert beyond <= min(OUTLIERS, len(medians) // 2), f"memory grows: {medians}"
    third = len(medians) // 3
    if third > LONG:  # a small leak shows where everything has long been there
        before_last, last = (statistics.median(medians[i * third : (i + 1) * third]) for i in (1, 2))
        assert last <= TREND * before_last, f"memory grows, from {before_last} to {last}: {medians}"
    now = counted()
    assert now["files"] <= before["files"] and now["threads"] <= before["threads"], (before, now)


def note(unraisable: Any) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        ignored.append(str(unraisable.object))
    else:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.unraisablehook = note
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 30)
    print(f"seed {chosen}", flush=True)
    soak_for(float(sys.argv[1]), chosen)
    print("done")
