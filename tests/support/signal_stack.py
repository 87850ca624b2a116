"""Signals in processes where the real OpenVINO has run."""

from __future__ import annotations

import ctypes
import sys


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def leave_signal_stack() -> None:
    """Let handlers run on this thread's own stack. The real OpenVINO 2026.4.1, which other tests run in this
    process, leaves an alternate stack behind whose memory it has freed: the next signal ends the process."""
    if sys.platform == "linux":
        disabled = SignalStack(None, 2, 0)  # SS_DISABLE
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(disabled), None) == 0
