"""Calls of a pipeline: one at a time."""

from __future__ import annotations

from ovjit.errors import OvjitError
from ovjit.locks import rlock


class Turn:
    """A context for calls that run a pipeline: one thread enters it at a time. RuntimeError if the same
    thread enters it again, as a streamer or callback does that calls `generate`. `lock`: for calls that these
    may make."""

    def __init__(self) -> None:
        self.lock = rlock("pipeline")
        self._is_running = False

    def __enter__(self) -> None:
        self.lock.acquire()
        if self._is_running:
            self.lock.release()
            raise OvjitError(
                "a streamer or callback cannot call generate or step of the pipeline that calls it: wait "
                "until its call has returned"
            )
        self._is_running = True

    def __exit__(self, *error: object) -> None:
        self._is_running = False
        self.lock.release()
