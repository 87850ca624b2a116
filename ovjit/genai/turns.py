"""Calls of a pipeline: one at a time."""

from __future__ import annotations

from ovjit.errors import OvjitError
from ovjit.locks import rlock


class Turn:
    """A context that one thread enters at a time. RuntimeError if the same thread enters it again, which a
    streamer or callback does that calls `generate`."""

    def __init__(self) -> None:
        self._lock = rlock("pipeline")
        self._is_running = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._is_running:
            self._lock.release()
            raise OvjitError("a streamer or callback cannot call generate of the pipeline that calls it")
        self._is_running = True

    def __exit__(self, *error: object) -> None:
        self._is_running = False
        self._lock.release()
