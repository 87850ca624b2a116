"""The thread that records a module. One does at a time, and others see nothing of it.

PyTorch's functions, and those of a user's modules, stand for others while a module is recorded (`patches.py`,
`redirected.py`). They do in the recording thread alone: in others they call what they replace. Warnings are
heard and not shown in that thread alone, too. Streams, loggers, builtins and the generators of random numbers
stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ovjit.locks import rlock
from ovjit.readers.torch.pytorch import torch

_lock = rlock("recorder")
#: The thread that records, and how often it has entered `alone`.
_recording: tuple[int, int] | None = None
_ident = threading.get_ident

#: Where code is that stands between a module's and PyTorch's.
_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Context manager: this thread records, and others that want to record wait."""
    global _recording
    with _lock:
        before = _recording
        _recording = (_ident(), 1 if before is None else before[1] + 1)
        try:
            yield
        finally:
            _recording = before


def is_recording() -> bool:
    """Whether this thread records."""
    return _recording is not None and _recording[0] == _ident()


class _WarningPattern(threading.local):
    """The pattern of a filter of warnings. It matches no text, in C and without taking turns, but in a thread
    that has set `match`."""

    match: Any = {}.get


_warning_pattern = _WarningPattern()
_FILTER: Any = ("ignore", _warning_pattern, Warning, None, 0)
#: Lists that get what is heard, the innermost last.
_listeners: list[list[Any]] = []
#: The text of a warning of PyTorch's that has been heard when it was made.
_last_text: list[str] = []


@contextlib.contextmanager
def collect_warnings(records: list[Any] | None = None) -> Iterator[None]:
    """Context manager that hides warnings of this thread. Those of incorrect traces are added to
    `records`."""
    with alone():
        _listeners.append([] if records is None else records)
        is_first = len(_listeners) == 1
        if is_first:
            _warning_pattern.match = _record_warning
        if _FILTER not in warnings.filters:  # or another thread has put older filters back
            warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            _listeners.pop()
            if is_first:
                del _warning_pattern.match
                with contextlib.suppress(ValueError):
                    warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]


def _record_warning(text: str) -> bool:
    if _last_text and _last_text.pop() == text:
        return True
    keep(text, UserWarning)
    return True


def keep(text: str, category: type[Warning], file: str = "", line: int = 0) -> None:
    """Store a warning that a trace may be incorrect, with the line of the user's code that causes it. ovjit's
    code, which replaces functions of PyTorch, and methods of tensors are never that line."""
    if "incorrect" not in text or not _listeners:
        return
    if not file:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _stands_between(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None:
            file, line = frame.f_code.co_filename, frame.f_lineno
    category = getattr(category, "stands_for", category)
    _listeners[-1].append(warnings.WarningMessage(category(text), category, file, line))


def _stands_between(file: str) -> bool:
    # PyTorch's methods of tensors warn of the lines that call them
    methods = getattr(sys.modules.get("torch._tensor"), "__file__", None)
    return file.startswith((_OWN, "<frozen")) or file == methods


def tell(text: str, category: type[Warning], file: str, line: int) -> None:
    """Emit a warning for a line: PyTorch's while a module is recorded, else an ordinary one."""
    if is_recording() and _listeners:
        keep(text, category, file, line)
    else:
        warnings.warn_explicit(text, category, file, line)


@functools.cache
def recording_category() -> Any:
    """PyTorch's category of trace warnings, which stores those of the recording thread when created: Python
    skips filters for a warning that it has shown before."""
    plain = torch.jit.TracerWarning

    class TracerWarning(plain):  # type: ignore[valid-type,misc]
        stands_for = plain

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            if is_recording() and _listeners and args:
                _last_text[:] = [str(args[0])]
                keep(str(args[0]), plain)

    TracerWarning.__module__, TracerWarning.__qualname__ = plain.__module__, plain.__qualname__
    return TracerWarning
