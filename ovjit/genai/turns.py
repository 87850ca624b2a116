"""Calls of a pipeline: one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ovjit.errors import OvjitError
from ovjit.genai.history import ChatHistory
from ovjit.locks import rlock

T = TypeVar("T")


class Turn:
    """The order of the calls that run a pipeline: one thread does at a time. `lock`: for calls that streamers
    and callbacks may make.

    Nothing but the lock notes who runs: whatever is raised in a call, by the handler of a signal too, leaves
    the pipeline free for the next one.
    """

    def __init__(self) -> None:
        self.lock = rlock("pipeline")

    def take(self) -> Any:
        """The lock, for a `with`. RuntimeError if this thread has it, as a streamer or callback does that
        calls `generate`."""
        if self.lock._is_owned():
            raise OvjitError(
                "a streamer or callback cannot call generate or step of the pipeline that calls it: wait "
                "until its call has returned"
            )
        return self.lock

    def run(self, chat: ChatHistory | None, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` alone. If anything is raised up to the return of its result, `chat` has no messages
        of the call."""
        length = -1
        try:
            with self.take():
                length = 0 if chat is None else len(chat)
                return function(*arguments)
        except BaseException:
            if chat is not None and length >= 0:
                with self.lock:
                    chat._end_at(length)
            raise
