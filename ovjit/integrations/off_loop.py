"""Work that would block an event loop runs in two threads, shared by all models of this process.

There are only two since reading requests is computation in Python: more threads would take the GIL from the
event loop more often.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ovjit import locks
from ovjit.integrations.limits import Overloaded

_T = TypeVar("_T")
_THREADS = 2

_lock = locks.lock("parsers")
_pool: ThreadPoolExecutor | None = None


async def off_loop(function: Callable[..., _T], *arguments: Any) -> _T:
    """Run `function` in one of the threads, and return its result or raise its exception. Raises Overloaded
    if no thread can be started."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_THREADS, "ovjit-requests")
        pool = _pool
    try:
        future = asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
    except RuntimeError as error:
        with _lock:
            if _pool is pool:  # its queue would still be run if a later submission could start a thread
                _pool = None
        raise Overloaded(f"no thread can be started to read this request: {error}") from None
    return await future


def _after_fork() -> None:
    global _lock, _pool
    _lock, _pool = locks.lock("parsers"), None  # the child has none of the parent's threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
