"""The operating system's functions that the runner calls: a module per system, with the same functions.

    now(b) -> nanoseconds of a monotonic clock
    give_way(b)                     yields to other threads
    sleep_on(b, p, value, ns)       waits until the low 32 bits at p differ from value, or about ns have
                                    passed; it may return early
    wake(b, p, count)               wakes at least `count` of the threads that sleep on p
    SYMBOLS                         function that the loader cannot find itself -> its library

| module  | systems | sleeps by |
|---------|---------|-----------|
| linux   | Linux   | futex |
| darwin  | macOS   | __ulock_wait, which libc++ and libpthread use; no header declares it |
| windows | Windows | WaitOnAddress, since Windows 8 |
| posix   | others  | slices of 50 microseconds |

`linux` and `posix` have run. The others have run on Linux alone, with stand-ins for the functions that they
call: `docs/platforms.md`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

#: The module in use. Tests may set another one.
name = {"linux": "linux", "darwin": "darwin", "win32": "windows"}.get(sys.platform, "posix")


def system() -> Any:
    """The module of the current system."""
    return importlib.import_module(f"ovjit.codegen.cpu.systems.{name}")
