"""Effects of a module on the world: what it prints, logs or writes, and the end of the program.

A module runs for its example, and there it may do all of that. It also runs for other sizes, or on a side of
a branch that the example does not take. What is tried there may compute and nothing else: before code has an
effect that it does not have for the example, the attempt ends. A profile function of this thread tells of
calls before they are made.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any

#: Functions of Python's modules, by name.
_FUNCTIONS = {
    "print": "builtins", "input": "builtins", "open": "io _io posix", "exit": "sys",
    "start_new_thread": "_thread", "start_joinable_thread": "_thread", "fork_exec": "_posixsubprocess",
    **dict.fromkeys(("_exit", "abort", "system", "fork", "forkpty", "kill", "killpg", "remove", "unlink",
                     "rename", "replace", "mkdir", "rmdir", "link", "symlink", "truncate", "ftruncate",
                     "chmod", "chdir", "putenv", "unsetenv", "write", "writev", "sendfile", "posix_spawn",
                     "execv", "execve"), "posix nt"),
}  # fmt: skip
#: Methods of files and sockets.
_METHODS = {"write", "writelines", "truncate", "send", "sendall", "sendto", "sendmsg", "connect", "bind"}
_IN_MEMORY = io.StringIO, io.BytesIO
#: Methods that change lists, dicts and sets. They have an effect where these are variables of a module.
_MUTATING = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "clear", "remove",
             "discard", "sort", "reverse"}  # fmt: skip
_THREADS = {"start_new_thread", "start_joinable_thread"}
_SUSPECT = _FUNCTIONS.keys() | _METHODS | _MUTATING
_LOGGED = logging.Logger.handle.__code__


class Effect(BaseException):
    """Raised when code that runs speculatively is about to have a side effect."""


class Effects:
    """The lines of a module that have side effects when it runs with its example."""

    def __init__(self) -> None:
        self._lines: set[tuple[str, int]] = set()

    @contextlib.contextmanager
    def note_lines(self) -> Iterator[None]:
        """Context manager that records the lines with side effects."""

        def note(frame: FrameType, event: str, argument: Any) -> None:
            line = _line_of_effect(frame, event, argument)
            if line is not None:
                self._lines.add(line)

        with _profile(note):
            yield

    @contextlib.contextmanager
    def no_others(self) -> Iterator[None]:
        """Context manager that stops code before a line with a new side effect, or a line that starts a
        thread. Raises Effect."""

        def check(frame: FrameType, event: str, argument: Any) -> None:
            line = _line_of_effect(frame, event, argument)
            starts = event == "c_call" and argument.__name__ in _THREADS
            if line is not None and (starts or line not in self._lines):
                raise Effect(f"{line[0]}:{line[1]} does more than to compute")

        with _profile(check):
            yield


@contextlib.contextmanager
def _profile(function: Any) -> Iterator[None]:
    """Context manager that profiles this thread by `function`. An existing profiler is kept instead."""
    if sys.getprofile() is not None:
        yield
        return
    sys.setprofile(function)
    try:
        yield
    finally:
        sys.setprofile(None)


def _line_of_effect(frame: FrameType, event: str, function: Any) -> tuple[str, int] | None:
    """The line of a call with a side effect, None for other calls."""
    if event == "c_call":
        if function.__name__ not in _SUSPECT or not _has_effect(frame, function):
            return None
    elif event != "call" or frame.f_code is not _LOGGED:
        return None
    at: FrameType | None = frame
    while at is not None and at.f_globals.get("__name__", "").startswith(_BETWEEN):
        at = at.f_back
    at = at or frame
    return at.f_code.co_filename, at.f_lineno


#: Modules whose code stands between an effect and the line that is its cause.
_BETWEEN = "logging", "warnings", "_py_warnings", "ovjit.", "threading", "subprocess"


def _has_effect(frame: FrameType, function: Any) -> bool:
    name, owner = function.__name__, function.__self__
    if isinstance(owner, ModuleType) or owner is None:
        if name == "open" and _reads_sources(frame):
            return False
        return (function.__module__ or "") in _FUNCTIONS.get(name, "").split()
    if name in _METHODS and type(owner).__mro__[-2].__module__ in ("_io", "_socket"):
        return not isinstance(owner, _IN_MEMORY)
    if name in _MUTATING and type(owner) in (list, dict, set):
        return _is_variable(frame, owner)
    return False


def _reads_sources(frame: FrameType) -> bool:
    """Whether a frame is code of Python or PyTorch, which open source files."""
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in sys.stdlib_module_names or package in ("torch", "ovjit")


def _is_variable(frame: FrameType, value: Any) -> bool:
    """Whether the object is a global of the frame's module or a variable of an enclosing function. Those of
    ovjit and PyTorch do not count."""
    if frame.f_globals.get("__name__", "").startswith(_OWNERS):
        return False
    table = getattr(frame.f_globals, "plain", frame.f_globals)
    if any(each is value for each in list(table.values())):
        return True
    names = frame.f_code.co_freevars
    return bool(names) and any(frame.f_locals.get(name) is value for name in names)


_OWNERS = "ovjit.", "torch.", "numpy.", "sympy."
