"""Missing memory as a MemoryError, wherever it is noticed, and shortages in general.

LLVM ends the process when it gets no memory. So what compiles kernels asks for its memory before it begins
(`check_headroom`). Python and C libraries report missing memory by other exceptions too (`as_memory_errors`).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import sys
from collections.abc import Iterator

from ovjit.errors import E, OvjitError

#: Bytes of address space that Numba and llvmlite take when they are imported, and that a kernel's compilation
#: takes at most.
IMPORTED, COMPILED = 256 << 20, 64 << 20
#: Parts of messages about missing memory, of the loader of libraries and of Python itself.
_SAID = ("failed to map segment", "cannot allocate memory", "can't start new thread", "without exception set",
         "without setting an exception")  # fmt: skip
#: Of open files, in this process and in the system.
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


def check_headroom(size: int, what: str) -> None:
    """Raise MemoryError unless the process can get `size` more bytes of address space. `what` needs them."""
    try:
        mmap.mmap(-1, size, access=mmap.ACCESS_COPY).close()
    except (OSError, ValueError, MemoryError) as error:
        raise MemoryError(
            f"{what} needs up to {size >> 20} MiB more than the process may have: free memory, or raise its "
            "limit (ulimit -v)"
        ) from error


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, reports that there was not enough memory."""
    while error is not None:
        is_known = isinstance(error, (ImportError, OSError, RuntimeError, SystemError))
        is_said = is_known and any(text in str(error).lower() for text in _SAID)
        if is_said or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def is_shortage(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, reports too little memory or too many open files. It says
    nothing about a file or a library, so nothing is remembered of it: the next attempt may succeed."""
    if lacks_memory(error):
        return True
    while error is not None:
        if getattr(error, "errno", None) in _TOO_MANY or "too many open files" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def unless_short(*classes: type[E]) -> tuple[type[E], ...]:
    """For an `except` clause that concludes something: `classes`, but none of them for a shortage."""
    return () if is_shortage(sys.exc_info()[1]) else classes


@contextlib.contextmanager
def as_memory_errors(what: str) -> Iterator[None]:
    """Raise MemoryError for exceptions of other classes that report missing memory, and for one that says
    nothing, as Python's own. `what` was being done."""
    try:
        yield
    except (ImportError, MemoryError, OSError, RuntimeError, SystemError) as error:
        says_it = isinstance(error, OvjitError) or (isinstance(error, MemoryError) and error.args)
        if says_it or not lacks_memory(error):
            raise
        raise MemoryError(
            f"not enough memory to {what}: free memory, or raise the process's limit"
        ) from error
