"""Whether a request is in use, and how an asynchronous inference ends.

States. The guard (a lock) is held from the check of the inputs to the end of the inference. A caller that
finds it taken gets `Busy`. After an asynchronous inference without a callback no code runs that could release
it. Then `_pending` is SILENT, and the next caller collects the result (`_collect`). With a callback, `_done`
does that on the worker, before the call. So a request is free again in its own callback. `wait` returns after
the callback.

Ctrl-C, and other exceptions that a signal's handler raises. They come between any two bytecodes of the main
thread. After one of them, a request still works. The current work is ended first (`_cut_short`). A guard
whose owner never used it is found by a search for the owner (`_is_abandoned`). The error of an inference is a
value (`Job.settle`, `Job.take_error`): what a wait raises is never the inference's, so it ends nothing.
"""

from __future__ import annotations

import copy
import functools
import operator
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from ovjit import locks
from ovjit.api.arguments import takes
from ovjit.api.run.slots import OutputSlot
from ovjit.errors import Busy, Cancelled, InferenceError, no_such_form
from ovjit.execution.job import MOMENT
from ovjit.execution.layout import DONE, IDLE, STATE
from ovjit.execution.streams import is_interrupt

#: Current work: nothing asynchronous; an inference whose end is not reported; one with a callback.
NOTHING, SILENT, NOTIFIED = range(3)

#: The code that takes a request's guard, and lets go of it unless an inference goes on: by `id`, since code
#: may have constants without a hash.
GUARDED: set[int] = set()
#: The code of `exclusive` methods and others that do not keep it long.
_BRIEFLY: set[int] = set()

_get_ident = threading.get_ident
_Method = TypeVar("_Method", bound=Callable[..., Any])

#: How often an owner of a guard is looked for, and the seconds in between.
_LOOKS, _BETWEEN_LOOKS = 3, 0.001


def exclusive(method: _Method) -> _Method:
    """Decorator: a method of a request, or of what has one, that holds its guard. No inference begins
    meanwhile, whose tensors would change while it runs: other threads wait. Raises Busy during one."""

    def hold_and_call(self: Any, *args: Any) -> Any:
        request = self._request
        if not request._acquire(False):
            request._claim()
        try:
            return method(self, *args)
        finally:
            request._release()

    return functools.wraps(method)(hold_and_call)  # type: ignore[return-value]


class RequestGuard:
    """The guard of a request, its current work, and the end of that."""

    __slots__ = (
        "_acquire", "_again", "_calling", "_callback", "_error", "_guard", "_job", "_owes", "_pending",
        "_release", "_run", "_shown", "_started", "_starting", "_userdata",
    )  # fmt: skip
    _job: Any
    _run: Callable[[], None]
    _shown: list[OutputSlot]  # outputs whose tensor the user knows
    _guard: threading.Lock
    _acquire: Callable[[bool], bool]
    _release: Callable[[], None]
    _pending: int
    _started: bool
    _starting: bool  # the inference that `_pending` tells of is not yet queued
    _owes: None  # set until a call ends a SILENT inference
    _calling: int  # the thread that runs the callback
    _again: bool  # the callback has started the next inference
    _error: BaseException | None
    _callback: Callable[[Any], Any] | None
    _userdata: Any

    @property
    def _request(self) -> RequestGuard:
        return self

    def _set_idle(self) -> None:
        """Set the state of a new request."""
        self._guard = locks.lock("request")
        self._acquire = self._guard.acquire
        self._release = self._guard.release
        self._pending = NOTHING
        self._started = self._starting = False
        self._calling = 0
        self._again = False
        self._error = None
        self._callback = None
        self._userdata = None

    def _done(self, job: Any) -> None:
        """Called on the worker at the end of an asynchronous inference: run the callback, which may start the
        next one."""
        error = job.error
        while True:
            self._settle(error)
            callback = self._callback
            if self._error is not None or callback is None:
                return
            self._calling = _get_ident()
            try:
                callback(self._userdata)
            except BaseException as raised:
                if is_interrupt(raised):
                    raise
                self._error = _callback_error(raised)
            self._calling = 0
            if not self._again:
                return
            error = self._run_again()

    def _run_again(self) -> BaseException | None:
        """Run the inference that the callback has started, on the worker that ran the callback."""
        self._again = False
        try:
            self._run()
        except BaseException as error:
            if is_interrupt(error):
                raise
            return error
        return None

    def _cut_short(self, job: Any) -> None:
        """Ctrl-C came on the way through `_done`: the request is free, its callback is not called again."""
        again, self._again, self._calling = self._again, False, 0
        if self._pending == NOTIFIED:
            self._settle(Cancelled("the inference was interrupted") if again else job.error)

    def _end(self, job: Any) -> None:
        """Called when the end of the run is published. Its guard is free since before the callback."""

    def _settle(self, error: BaseException | None) -> None:
        """Take the outcome of an asynchronous inference and let go of the guard."""
        self._error = error
        if error is None and self._shown:
            try:
                for slot in self._shown:
                    slot.finish(self._job)
            except (RuntimeError, MemoryError, TypeError, ValueError) as raised:  # what tensors raise
                self._error = raised
        # else a signal's handler has come before, and may have started the next inference
        if self._pending == NOTIFIED or (self._pending == SILENT and self._job.words[STATE] == IDLE):
            # without a lock, which the thread of a handler that waits for this may have
            self._pending = NOTHING
            self._release()

    def _collect(self) -> bool | None:
        """Settle an inference that has ended without a callback; False if another thread did. None if a call
        below this handler of a signal is doing it."""
        job = self._job
        with job.lock:
            if self._pending != SILENT or self._starting or not job.note_end():
                return False  # another thread collected it, and may have started the next
            try:
                try:
                    del self._owes  # one bytecode: this call does it, or a handler that came between
                except AttributeError:
                    return None
                if job.words[STATE] == IDLE:
                    error, job.error = job.error, None
                    if error is not None or self._shown:
                        self._settle(error)
                    else:  # as `_settle`, with fewer calls
                        self._error, self._pending = None, NOTHING
                        self._release()
                    return True
                self._owes = None  # such a handler has started the next one
                return False
            except BaseException:
                self._owes = None
                raise

    def _take_over(self) -> bool:
        """Take over the guard of an inference that has ended well and was not waited for. False if there is
        none, or if it must be collected first."""
        job = self._job
        words = job.words
        with job.lock:
            if self._pending != SILENT or words[STATE] not in (IDLE, DONE):
                return False
            if job.error is not None or self._shown:
                return False
            try:
                del self._owes  # see `_collect`
                if words[STATE] in (IDLE, DONE):
                    words[STATE] = IDLE
                    self._pending = NOTHING
                    return True
            except AttributeError:
                return False
            except BaseException:
                self._owes = None
                raise
            self._owes = None
            return False

    def _take_error(self) -> None:
        """Note the error of an inference that is over."""
        self._job.settle(0)
        error = self._job.take_error()
        if error is not None:
            self._error = error

    def _claim(self, asker: FrameType | None = None) -> None:
        """Take the guard though it was taken: raises Busy unless the inference that holds it is over.
        `asker`: the frame that wants it, by default the caller's."""
        asker = asker or sys._getframe(1)
        self._check_idle(asker)
        while not self._acquire(False):  # another thread was quicker
            self._check_idle(asker)

    def _check_idle(self, asker: FrameType | None = None) -> None:
        """Raises Busy while the request is in use. `asker`: the frame that wants the guard for itself."""
        if self._guard.locked():
            job = self._job
            if self._pending == SILENT and not self._starting and not job.busy:
                if self._collect() is not None:
                    return
            elif self._pending == NOTHING and self._is_abandoned(asker or sys._getframe()):
                return
            if self._guard.locked():
                raise Busy("Infer Request is busy: call wait() first")

    def _is_abandoned(self, asker: FrameType) -> bool:
        """Let go of the guard if no thread has it: Ctrl-C came just after it was taken. False if one has. It
        is looked for several times, since the guard may pass between threads during a look. An `exclusive`
        method of another thread is waited for."""
        looks = 0
        while True:
            with self._job.lock:
                if self._pending != NOTHING or not self._guard.locked():
                    return True
                is_brief = self._is_held_briefly(asker)
                if is_brief is False:
                    return False
                looks = looks + 1 if is_brief is None else 0
                if looks == _LOOKS:
                    self._release()
                    return True
            time.sleep(_BETWEEN_LOOKS)

    def _is_held_briefly(self, asker: FrameType) -> bool | None:
        """Whether an `exclusive` method of another thread holds the guard. False if another call does, None
        without one. `asker`: the frame that wants it."""
        me = _get_ident()
        for thread, top in sys._current_frames().items():
            frame = asker.f_back if thread == me else top
            called, waits = None, False
            while frame is not None:
                code = frame.f_code
                briefly = id(code) in _BRIEFLY
                if briefly or id(code) in GUARDED:
                    mine = self in (frame.f_locals.get("self"), frame.f_locals.get("request"))
                    if mine and not waits:
                        return briefly and thread != me
                    waits = False
                elif code is RequestGuard._claim.__code__:
                    # elsewhere in it, the thread may just have taken the guard
                    waits = called is RequestGuard._check_idle.__code__
                called, frame = code, frame.f_back
        return None

    def wait(self) -> None:
        """Wait until the inference and its callback have ended; return at once if none was started.

        Raises what the inference raised (RuntimeErrors, `Cancelled` among them), and a RuntimeError for an
        exception in the callback.
        """
        self._wait(None)

    @takes
    def wait_for(self, timeout: int) -> bool:
        """Wait at most `timeout` ms; whether inference and callback have ended. False before the first one.

        RuntimeError for a negative timeout, and as `wait`."""
        try:
            timeout = operator.index(timeout)
        except TypeError:
            raise no_such_form(f"timeout is an int in milliseconds, not {type(timeout).__name__}") from None
        if timeout < 0:
            raise InferenceError(f"Timeout can't be less than 0 for InferRequest::wait(). It is {timeout} ms")
        if not self._started and self._job.latency_ns == 0:
            return False
        return self._wait(timeout)

    def _wait(self, timeout: int | None) -> bool:
        if self._started and not (self._calling and self._calling == _get_ident()):
            job = self._job
            quick = timeout is None and self._pending == SILENT and job.run_silent(MOMENT)
            if not quick and not job.settle(timeout):
                return False
            if self._pending == SILENT:
                self._collect()
            else:
                self._take_error()
        error = self._error
        if error is not None:
            self._error = copy_error(error)
            try:
                raise error
            finally:
                del error  # whose traceback has this frame
        return True

    def cancel(self) -> None:
        """Ask a running inference to stop; `wait` then raises. Nothing happens if none runs."""
        self._job.cancel()


_BRIEFLY.update(
    id(function.__code__) for function in (exclusive(_get_ident), RequestGuard._settle, RequestGuard._collect)
)


def wait_quietly(job: Any, timeout: int | None = None) -> None:
    """Wait for a job whose outcome is known elsewhere."""
    if job.settle(timeout):
        job.take_error()


def copy_error(error: BaseException, *caused: BaseException) -> BaseException:
    """The error for a repeated wait. It is a copy: the traceback of the raised one has frames with the
    request and the caller's arrays, which would live as long as the request, or in a cycle. `caused`: the
    error whose cause it is, which may be its own cause again."""
    try:
        # packages that pickle errors for other processes (tblib, for one) may have changed how they are
        # copied
        again = copy.copy(error).with_traceback(None)
        again.__context__ = again.__cause__ = None
        cause, caused = error.__cause__, (error, *caused)
        if cause is not None and not any(cause is one for one in caused):
            again.__cause__ = copy_error(cause, *caused)
    except Exception:  # made of other things than it says
        return error
    return again


def _callback_error(error: BaseException) -> BaseException:
    """RuntimeError that `wait` raises for an exception in a callback, which is its cause."""
    raised = InferenceError(f"the callback raised {type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised
