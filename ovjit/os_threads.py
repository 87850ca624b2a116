"""Starts operating-system threads for the pools' workers, even if a program has patched `threading`.

gevent and eventlet replace `threading`'s threads by green threads, which run only while the others wait
cooperatively. A worker sleeps in native code, so a green one would stop the whole program. A worker is
started by the original function instead; if that is not found, it is not started.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

#: A timeout of `join` that does not end: about what the system's clock can count.
FOREVER = 1e8


def start(
    function: Callable[..., object], arguments: tuple[Any, ...], name: str,
    record: Callable[[Any], object] = lambda thread: None,
) -> None:  # fmt: skip
    """Start a daemon thread that runs `function`. RuntimeError where the process may have no more threads.

    `record` is called with the thread, which has a method `join(timeout)`. An exception of a signal's handler
    may interrupt the caller: then the thread has been started and recorded, or will be, or neither.
    """
    if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
        record(_Beside(function, arguments))
        return
    from queue import SimpleQueue

    thread = threading.Thread(target=function, args=arguments, name=name, daemon=True)
    outcome: SimpleQueue[BaseException | None] = SimpleQueue()

    def start_and_record() -> None:
        try:
            thread.start()
            record(thread)
            outcome.put(None)
        except BaseException as error:  # such as MemoryError: the caller waits for an outcome
            outcome.put(error)

    # On another thread, since handlers of signals run on the main one: an exception inside of `Thread.start`
    # leaves a thread that runs and that nobody knows, or one that ends before it has begun.
    _thread.start_new_thread(start_and_record, ())
    error = outcome.get()
    if error is not None:
        raise error if isinstance(error, RuntimeError) else RuntimeError("can't start new thread") from error


class _Beside:
    """A thread that is not registered in `threading`."""

    def __init__(self, function: Callable[..., object], arguments: tuple[Any, ...]):
        self._running = _original("allocate_lock")()
        self._running.acquire()
        self._identity = _original("start_new_thread")(self._run, (function, arguments))

    def _run(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        finally:
            self._running.release()

    def join(self, timeout: float) -> None:
        """Wait until it is over, for so many seconds at most."""
        if self._identity != _original("get_ident")() and self._running.acquire(timeout=timeout):
            self._running.release()


def _original(name: str) -> Any:
    """The function of `_thread` as it was. RuntimeError where who has replaced it does not tell."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    function: Any = getattr(_thread, name)
    if gevent is not None:
        function = gevent.get_original("_thread", name)
    elif eventlet is not None:
        function = getattr(eventlet.original("_thread"), name)
    if isinstance(function, (BuiltinFunctionType, type)):
        return function
    raise RuntimeError(
        "threads of the operating system have been replaced by green threads (gevent, eventlet)"
    )
