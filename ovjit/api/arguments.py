"""Checks of arguments, with error messages that contain the phrases programs look for in OpenVINO's."""

from __future__ import annotations

import functools
import inspect
import opcode
import re
import sys
from collections.abc import Callable
from types import FunctionType, TracebackType
from typing import Any, TypeVar

from ovjit.errors import arguments_error, no_such_form, why_of

#: The key of a port where none is given. None is no key.
ONLY: Any = object()
Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


def public_name(kind: type) -> str:
    """A type's name with the module where OpenVINO has it: in its native part what ovjit exports."""
    name = kind.__name__
    for inner, outer in (("ovjit.op", "_pyopenvino.op."), ("ovjit", "_pyopenvino.")):
        if getattr(sys.modules.get(inner), name, None) is kind:
            return f"openvino.{outer}{name}"
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def expect(
    value: Any, kinds: Any, what: str = "", error: Callable[[str], TypeError] = no_such_form
) -> Any:  # fmt: skip
    """`value`. TypeError unless it is of one of these kinds: `what` is wanted, such as "a name is a str"."""
    if not isinstance(value, kinds):
        name = getattr(kinds, "__name__", "")
        what = what or f"expected {'an' if name[0] in 'AEIO' else 'a'} {name}"
        raise error(f"{what}, not {type(value).__name__}")
    return value


def mismatch(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], why: Any) -> TypeError:
    """The TypeError for a call of `name`; `why`: a text, or the error of what it called."""
    text = why_of(why) if isinstance(why, TypeError) else None
    return arguments_error(name, "function", ["*args", "**kwargs"], args, kwargs, text or str(why))


def flag(value: Any, name: str) -> bool:
    """The truth of a flag: None, or an object with a truth of its own, such as a number.
    TypeError for text and containers."""
    try:
        if value is None or hasattr(type(value), "__bool__"):
            return bool(value)
    except ValueError:  # an array of several values
        pass
    raise no_such_form(f"{name} is a bool, not {type(value).__name__}")


def takes(function: Function) -> Function:
    """Decorator for functions and constructors whose TypeError shows the call, as pybind11's does: both for
    arguments that do not fit the signature, and for a TypeError of the body."""
    result = function.__name__ == "__init__"

    @functools.wraps(function)
    def checked_call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            inner = trace.tb_next if trace is not None else None
            if why_of(error) is not None or inner is not None and not _is_of_python(inner):
                raise
            names = inspect.signature(function).parameters
            why = re.sub(r"^[\w.]+\(\) ", "", str(error))
            kind = "constructor" if result else "function"
            raise arguments_error(function.__name__, kind, names, args[result:], kwargs, why) from None

    return checked_call  # type: ignore[return-value]


def _is_of_python(trace: TracebackType) -> bool:
    """True if the innermost line itself failed, and not in a call or by `raise`."""
    code = trace.tb_frame.f_code.co_code
    return trace.tb_next is None and opcode.opname[code[trace.tb_lasti]] != "RAISE_VARARGS"


def explain_calls(kind: Class) -> Class:
    """A class whose public methods and constructor are `takes`, those with parameters."""
    for name, function in list(vars(kind).items()):
        public = not name.startswith("_") or name in ("__init__", "__getitem__", "__setitem__")
        if public and isinstance(function, FunctionType) and function.__code__.co_argcount > 1:
            setattr(kind, name, takes(function))
    return kind
