"""What threads should not do to each other, at random; run by `test_misuse.py`, and by hand:

python -m tests.fuzz.misuse_threads SECONDS [SEED [CASE]]

A case is one thing that programs do by mistake while inferences run: one request used by several threads,
requests, queues and models dropped in the middle, callbacks that raise, that use their own request or wait
for themselves, tensors changed meanwhile, Ctrl-C anywhere. Who gets a result gets that of inputs which were
set; all others an error of OpenVINO's kinds; and afterwards everything works. A case that hangs dumps its
stacks.
"""

from __future__ import annotations

import collections
import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import ovjit as ov
from ovjit import opset8 as o
from tests.support.threads import start_and_join

ALLOWED = (RuntimeError, TypeError, ValueError)
#: Seconds that a case may take on a busy machine.
PATIENCE = 120
outcomes: collections.Counter[str] = collections.Counter()


def chain(size: int, layers: int, **config: Any) -> Any:
    """x times itself so many times: the identity stays itself, times k it is k^(layers + 1)."""
    x = o.parameter([size, size], np.float32, name="x")
    y = x
    for _ in range(layers):
        y = o.matmul(y, x, False, False)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 2, **config}
    return ov.Core().compile_model(ov.Model([y], [x], "chain"), "CPU", exact)


class Case:
    def __init__(self, rng: random.Random, long: Any, short: Any):
        self.rng = rng
        self.long, self.short = long, short
        self.size = 192
        self.wrong: list[BaseException] = []

    def sign(self, k: int, size: int = 192) -> np.ndarray:
        return np.eye(size, dtype=np.float32) * (1 if k % 2 else -1)

    def right(self, result: np.ndarray, *signs: int) -> None:
        """The long model has an odd number of factors, so that the result is the input."""
        assert any(np.array_equal(result, self.sign(k)) for k in signs), result[:2, :2]
        outcomes["right"] += 1

    def together(self, *work: Callable[[], None]) -> None:
        """All at once, each in a thread of its own."""
        start = threading.Barrier(len(work))

        def guarded(one: Callable[[], None]) -> None:
            start.wait()
            try:
                one()
            except ALLOWED as error:
                outcomes[type(error).__name__] += 1
            except BaseException as error:
                self.wrong.append(error)

        threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
        start_and_join(threads)
        if self.wrong:
            raise self.wrong[0]

    # --- cases

    def one_request_for_two(self) -> None:
        request = self.long.create_infer_request()
        share = self.rng.random() < 0.5

        def infer(k: int) -> Callable[[], None]:
            def work() -> None:
                for _ in range(3):
                    try:
                        result = request.infer([self.sign(k)], share_inputs=share)[0]
                    except RuntimeError as error:
                        outcomes[type(error).__name__] += 1
                        continue
                    self.right(result, k)

            return work

        self.together(infer(0), infer(1), infer(0))
        self.right(request.infer([self.sign(1)])[0], 1)

    def started_by_one_and_awaited_by_all(self) -> None:
        request = self.long.create_infer_request()
        request.start_async([self.sign(1)])
        pause = self.rng.uniform(0, 0.002)

        def cancel() -> None:
            time.sleep(pause)
            request.cancel()

        again: list[Callable[[], None]] = [request.wait, request.wait]
        if self.rng.random() < 0.5:
            again.append(lambda: request.start_async([self.sign(0)]))
        if self.rng.random() < 0.5:
            again.append(cancel)
        self.together(*again)
        try:
            request.wait()
        except RuntimeError as error:
            outcomes[type(error).__name__] += 1
        self.right(request.infer([self.sign(0)])[0], 0)

    def dropped_while_it_runs(self) -> None:
        called: list[bool] = []
        request = self.long.create_infer_request()
        if self.rng.random() < 0.5:
            request.set_callback(lambda data: called.append(True), None)
        request.start_async([self.sign(1)], share_inputs=self.rng.random() < 0.5)
        del request
        if self.rng.random() < 0.5:
            gc.collect()
        queue = ov.AsyncInferQueue(self.long, 2)
        for k in range(self.rng.randint(1, 4)):
            queue.start_async([self.sign(k)])
        del queue

    def model_dropped_while_it_runs(self) -> None:
        compiled = chain(64, 8)
        request = compiled.create_infer_request()
        request.start_async([np.eye(64, dtype=np.float32)])
        queue = ov.AsyncInferQueue(compiled, 2)
        queue.start_async([np.eye(64, dtype=np.float32)])
        del compiled
        gc.collect()
        request.wait()
        assert np.array_equal(request.results[0], np.eye(64))
        queue.wait_all()

    def callbacks_that_raise(self) -> None:
        queue = ov.AsyncInferQueue(self.short, self.rng.randint(1, 3))
        many = self.rng.randint(1, 6)
        seen: list[int] = []

        def callback(request: Any, number: int) -> None:
            seen.append(number)
            if number % 2:
                raise LookupError(number)

        queue.set_callback(callback)
        raised = started = 0
        for i in range(many):
            try:
                queue.start_async([self.sign(1, 8)], i)
                started += 1
            except LookupError:
                raised += 1
        for _ in range(many):
            try:
                queue.wait_all()
            except LookupError:
                raised += 1
        assert len(seen) == started, (seen, started)
        assert (raised > 0) == any(n % 2 for n in seen), (raised, seen)

    def callbacks_that_use_their_own_request(self) -> None:
        request = self.short.create_infer_request()
        what = self.rng.randrange(5)
        done = threading.Event()

        def callback(data: Any) -> None:
            try:
                if what == 0:
                    request.wait()
                elif what == 1:
                    request.infer([self.sign(0, 8)])
                elif what == 2:
                    request.set_callback(lambda data: None, None)
                elif what == 3:
                    request.cancel()
                else:
                    request.get_output_tensor(0).data[...] = 3
            except ALLOWED as error:
                outcomes[type(error).__name__] += 1
            finally:
                done.set()

        request.set_callback(callback, None)
        request.start_async([self.sign(1, 8)])
        assert done.wait(60), "the callback did not come"
        try:
            request.wait()
        except RuntimeError as error:
            outcomes[type(error).__name__] += 1
        fresh = self.short.create_infer_request().infer([self.sign(1, 8)])[0]
        assert np.array_equal(fresh, self.sign(1, 8))

    def tensors_changed_meanwhile(self) -> None:
        request = self.long.create_infer_request()
        request.start_async([self.sign(1)])

        def change() -> None:
            what = self.rng.randrange(5)
            if what == 0:
                request.set_tensor("x", ov.Tensor(self.sign(0)))
            elif what == 1:
                request.set_output_tensor(0, ov.Tensor(self.sign(0)))
            elif what == 2:
                request.get_input_tensor(0).shape = (3, 3)
            elif what == 3:
                request.input_tensors[0].data[...] = self.sign(0)
            else:
                request.get_output_tensor(0).shape = (1, 1)

        for _ in range(2):
            try:
                change()
            except ALLOWED as error:
                outcomes[type(error).__name__] += 1
        try:
            request.wait()
        except RuntimeError as error:
            outcomes[type(error).__name__] += 1
        fresh = self.long.create_infer_request()
        self.right(fresh.infer([self.sign(0)])[0], 0)

    def one_queue_for_many(self) -> None:
        queue = ov.AsyncInferQueue(self.short, 2)
        seen: list[Any] = []
        queue.set_callback(lambda request, data: seen.append((data, request.results[0][0, 0])))

        def start(first: int) -> Callable[[], None]:
            def work() -> None:
                for k in range(first, first + 4):
                    queue.start_async([self.sign(k, 8)], k)

            return work

        self.together(start(0), start(10), start(20))
        queue.wait_all()
        assert sorted(k for k, _ in seen) == [*range(4), *range(10, 14), *range(20, 24)], seen
        assert all(value == (1 if k % 2 else -1) for k, value in seen), seen

    def interrupted(self) -> None:
        request = self.long.create_infer_request()
        queue = ov.AsyncInferQueue(self.short, 2)
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(1e-4, 4e-3))
            end = time.monotonic() + 20
            while time.monotonic() < end and not ignored:
                what = self.rng.randrange(3)
                if what == 0:
                    request.infer([self.sign(1)], share_inputs=True)
                elif what == 1:
                    request.start_async([self.sign(1)])
                    request.wait()
                else:
                    for k in range(4):
                        queue.start_async([self.sign(k, 8)])
                    queue.wait_all()
            assert ignored, "Ctrl-C was swallowed"
        except KeyboardInterrupt:
            outcomes["KeyboardInterrupt"] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            ignored.clear()
        try:
            request.wait()
        except RuntimeError as error:
            outcomes[type(error).__name__] += 1
        self.right(request.infer([self.sign(0)])[0], 0)
        queue.wait_all()
        queue.start_async([self.sign(0, 8)])
        queue.wait_all()


#: Ctrl-C that came in a finalizer: CPython prints it and goes on.
ignored: list[str] = []


def note(unraisable: Any) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        ignored.append(str(unraisable.object))
    else:
        sys.__unraisablehook__(unraisable)


CASES = [name for name, value in vars(Case).items() if callable(value) and not name.startswith("_")]
CASES = [name for name in CASES if name not in ("sign", "right", "together")]


def misuse_for(seconds: float, seed: int, only: int | None) -> int:
    """Cases until the time is over, or one; how many there were."""
    sys.unraisablehook = note
    long, short = chain(192, 10), chain(8, 2)
    path = os.environ.get("MISUSE_CASE")
    ends = time.monotonic() + seconds
    number = 0 if only is None else only
    while time.monotonic() < ends:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        if path:
            with open(path, "w") as file:
                file.write(f"{seed} {number}\n")
        rng = random.Random(seed * 1_000_003 + number)
        name = rng.choice(CASES)
        try:
            getattr(Case(rng, long, short), name)()
        except BaseException:
            print(f"python -m tests.fuzz.misuse_threads 1 {seed} {number} ({name})", file=sys.stderr)
            raise
        outcomes[name] += 1
        number += 1
        if only is not None:
            break
    faulthandler.cancel_dump_traceback_later()
    return number


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 30)
    count = misuse_for(float(sys.argv[1]), chosen, int(sys.argv[3]) if len(sys.argv) > 3 else None)
    print(f"seed {chosen}: {count} cases, {dict(outcomes)}")
