"""A process of another user than root, for limits and permissions that root is not subject to.

Only reading stays as it was for root: the interpreter may lie where others may not look.
"""

from __future__ import annotations

import ctypes
import os

#: A user that no machine has.
SOMEBODY, ANOTHER = 54_321, 54_322
_KEEP_CAPABILITIES, _VERSION, _READ_ANY = 8, 0x20080522, 1 << 2


def become(user: int) -> None:
    """From root to this user, for good. OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    head = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(_READ_ANY, _READ_ANY, 0, 0, 0, 0)
    if libc.capset(head, sets):
        raise OSError(ctypes.get_errno(), "capset")
