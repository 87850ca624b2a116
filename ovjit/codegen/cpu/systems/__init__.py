"""What the runner asks of an operating system: a module for each, with the same functions.

    now(b) -> nanoseconds of a clock that only goes on
    give_way(b)                     to other threads
    sleep_on(b, p, value, ns)       until the low 32 bits at p differ from value, or about ns have passed; it
                                    may return early
    wake(b, p, count)               so many of those that sleep on p, or more
    SYMBOLS                         functions whose addresses the loader has to be told, and their libraries

| module  | systems | sleeps by |
|---------|---------|-----------|
| linux   | Linux   | futex |
| darwin  | macOS   | __ulock_wait: not in a header, and what libc++ and libpthread wait by |
| windows | Windows | WaitOnAddress, since Windows 8 |
| posix   | others  | slices of 50 microseconds |

`linux` and `posix` have run. Of the others the text is what has been tried: `docs/platforms.md`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

#: The module in use; a test may set another one.
name = {"linux": "linux", "darwin": "darwin", "win32": "windows"}.get(sys.platform, "posix")


def system() -> Any:
    """The module of this system."""
    return importlib.import_module(f"ovjit.codegen.cpu.systems.{name}")
