"""The part of a job that its pool and its client see: its state, and the calls at the end of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ovjit.errors import InferenceError
from ovjit.execution import runner
from ovjit.execution.blocks import Arena
from ovjit.execution.runner import ABORT, ERROR, FAILED, IDLE, QUEUED, RUNNING


class QueuedJob(ABC):
    """A job that a `streams.Pool` runs, or a thread that waits for it."""

    __slots__ = ("__weakref__", "_called", "_callback_running", "address", "client", "error", "words")

    def __init__(self, address: int, words: memoryview) -> None:
        """`address`, `words`: the job's block, see `streams.take_block`."""
        self.address, self.words = address, words
        #: The object whose `_done(job)` is called at the end of a run that was started with `notify`. If that
        #: call raises an exception, `_cut_short(job)` is called, and `_end(job)` when the job can be started
        #: again. `_called`: the client during these calls.
        self.client: Any = None
        self._called: Any = None
        self._callback_running = False
        self.error: BaseException | None = None

    @abstractmethod
    def run_queued(self, even_long: bool = False) -> bool:
        """Run a queued job on this thread, with its callback. False if it was not run."""

    @abstractmethod
    def lead_taken(self) -> None:
        """Run a job that this thread has taken out of the queue. Exceptions become the job's error."""

    @abstractmethod
    def run_on_worker(self, arena: Arena) -> None:
        """Run a job with host steps: a worker executes this in Python."""

    @abstractmethod
    def _failure(self) -> BaseException:
        """The exception for the runner's error code."""

    @property
    def is_started(self) -> bool:
        """True from when `start` has queued the job until `wait` has seen its end."""
        return self.words[runner.STATE] != IDLE

    @property
    def is_queued(self) -> bool:
        """True until a thread begins the job."""
        return self.words[runner.STATE] == QUEUED

    @property
    def is_posted(self) -> bool:
        """True for a job that was started with a completion queue."""
        return self.words[runner.NOTIFY] == runner.POST

    @property
    def busy(self) -> bool:
        """True from `start` until the inference is complete. A callback may still be running after that."""
        return self.words[runner.STATE] in (QUEUED, RUNNING) and not self._callback_running

    def take_error(self) -> BaseException | None:
        """The error of the last inference, once."""
        error, self.error = self.error, None
        return error

    @property
    def latency_ns(self) -> int:
        """Nanoseconds of the last inference."""
        return max(self.words[runner.ENDED] - self.words[runner.STARTED], 0)

    def _note_failure(self) -> None:
        """Convert the runner's error code to `self.error`, unless that is set."""
        if self.error is None:
            self.error = self._failure()
        self.words[ABORT] = self.words[ERROR] = 0

    def call_back(self) -> None:
        """Call the client's `_done`. All that it raises comes from elsewhere, such as a signal's handler: it
        is not the job's error, and `cut_short` follows."""
        words = self.words
        if words[ERROR] or words[ABORT]:
            self._note_failure()
        client = self.client
        if client is not None and words[runner.NOTIFY]:
            self._callback_running = True  # a job without a client is busy until its end is published
            self._called = client
            self.client = None  # it is not called again; and this breaks the reference cycle
            client._done(self)

    def cut_short(self) -> None:
        """Called after an exception has ended `call_back`."""
        if self._called is None:
            self._called = self.client
        self.client = None
        if self._called is not None:
            self._called._cut_short(self)

    def lose(self) -> None:
        """In a forked child: end a job whose thread exists only in the parent."""
        if not self._callback_running:
            self.words[ABORT] = 1
            self.error = InferenceError(
                "the process was forked during this inference; the inference completes in the parent "
                "process only"
            )
            self.call_back()
            self._called = None
        self.words[runner.OWNER] = self.words[runner.LEADS] = 0
        self.words[runner.STATE] = FAILED
