"""Built-in functions of Python that call the runner, for what every inference calls.

`ctypes` takes 0.25 us for a call with three ints, a built-in function 0.05. Here its C function is native
code too (`python_steps.py`). It converts the ints by Python's own functions, and lets go of the GIL where
that is asked for. Only CPython has this interface, so `caller` may refuse.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

#: Bytes of a `bytes` object before its content.
HEADER = 32
#: The words of a function: addresses of the functions of Python, 0 instead of those that let go of the GIL if
#: it is kept, the address of the native function, and the number of its arguments.
AS_INT, FROM_INT, FAILED, SAVE, RESTORE, TARGET, ARITY = range(7)
_PYTHON = ("PyLong_AsLongLong", "PyLong_FromLongLong", "PyErr_Occurred", "PyEval_SaveThread",
           "PyEval_RestoreThread")  # fmt: skip
_FASTCALL = 0x80


class _Definition(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p))  # fmt: skip


#: Definitions of functions are never freed: Python reads them as long as there are functions.
_definitions: list[_Definition] = []


def caller(name: str, address: int, arity: int, releases_gil: bool, entry: int) -> Callable[..., int] | None:
    """A built-in function for a native function of 1 to 4 int64s that returns an int64. `entry`: the address
    of `from_python`. None where Python's interface is another one."""
    if sys.implementation.name != "cpython" or bytes.__basicsize__ != HEADER + 1:
        return None
    addresses = [ctypes.cast(getattr(ctypes.pythonapi, one), ctypes.c_void_p).value or 0 for one in _PYTHON]
    if not releases_gil:
        addresses[SAVE] = addresses[RESTORE] = 0
    words = b"".join(word.to_bytes(8, sys.byteorder) for word in (*addresses, address, arity))
    _definitions.append(_Definition(name.encode(), entry, _FASTCALL, None))
    make: Any = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    return make(ctypes.byref(_definitions[-1]), ctypes.py_object(words), None)
