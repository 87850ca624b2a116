"""Built-in functions of Python that call the runner, for what every inference calls.

`ctypes` takes 0.25 us for a call with three ints, a built-in function 0.05. Here its C function is native
code too, `from_python`: it converts the ints by Python's own functions, and lets go of the GIL where that is
asked for. Only CPython has this interface, so `caller` may refuse.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from ovjit.codegen.parts import routine
from ovjit.codegen.words import ld
from ovjit.execution.runner_words import call4

#: Bytes of a `bytes` object before its content.
HEADER = 32
#: The words of a function: addresses of the functions of Python, 0 instead of those that let go of the GIL if
#: it is kept, the address of the native function, and the number of its arguments.
AS_INT, FROM_INT, FAILED, SAVE, RESTORE, TARGET, ARITY = range(7)
_PYTHON = ("PyLong_AsLongLong", "PyLong_FromLongLong", "PyErr_Occurred", "PyEval_SaveThread",
           "PyEval_RestoreThread")  # fmt: skip
_FASTCALL = 0x80


@routine
def from_python(me, arguments, count, unused):
    """The C function of a built-in function with `count` ints as arguments. `me`: the `bytes` object of its
    words. Returns a new int; 0 after an exception, and for another number of arguments."""
    words = me + HEADER
    if count != ld(words, ARITY):
        return 0
    as_int = ld(words, AS_INT)
    a = call4(as_int, ld(arguments, 0), 0, 0, 0)
    b = 0
    c = 0
    d = 0
    least = a
    if count > 1:
        b = call4(as_int, ld(arguments, 1), 0, 0, 0)
        least = min(least, b)
    if count > 2:
        c = call4(as_int, ld(arguments, 2), 0, 0, 0)
        least = min(least, c)
    if count > 3:
        d = call4(as_int, ld(arguments, 3), 0, 0, 0)
        least = min(least, d)
    if least < 0:
        if call4(ld(words, FAILED), 0, 0, 0, 0) != 0:
            return 0
    state = 0
    if ld(words, SAVE) != 0:
        state = call4(ld(words, SAVE), 0, 0, 0, 0)
    result = call4(ld(words, TARGET), a, b, c, d)
    if state != 0:
        call4(ld(words, RESTORE), state, 0, 0, 0)
    return call4(ld(words, FROM_INT), result, 0, 0, 0)


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
