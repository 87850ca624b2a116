"""Work that would hold an event loop, in two threads of this process for all models.

Two, since reading requests computes: more of them would only take the GIL from the loop more often.
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
    """What `function` returns, or raises, in one of the threads. Overloaded where there can be none."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_THREADS, "ovjit-requests")
        pool = _pool
    try:
        future = asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
    except RuntimeError as error:
        with _lock:
            if _pool is pool:  # what it holds would be run by the next thread that it gets
                _pool = None
        raise Overloaded(f"no thread can be started to read this request: {error}") from None
    return await future


def _after_fork() -> None:
    global _lock, _pool
    _lock, _pool = locks.lock("parsers"), None  # the parent's threads are not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
