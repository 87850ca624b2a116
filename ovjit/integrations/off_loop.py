"""Work that would block an event loop runs in two threads, shared by all models of this process.

There are only two since reading requests is computation in Python: more threads would take the GIL from the
event loop more often.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ovjit.integrations.limits import Overloaded

_T = TypeVar("_T")
_THREADS = 2


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of a process: a fork has none of its parent's."""
    return ThreadPoolExecutor(_THREADS, "ovjit-requests")


async def off_loop(function: Callable[..., _T], *arguments: Any) -> _T:
    """Run `function` in one of the threads, and return its result or raise its exception. Raises Overloaded
    if no thread can be started."""
    try:
        future = asyncio.get_running_loop().run_in_executor(_pool(os.getpid()), function, *arguments)
    except RuntimeError as error:
        _pool.cache_clear()  # its queue would still be run if a later submission could start a thread
        raise Overloaded(f"no thread can be started to read this request: {error}") from None
    return await future
