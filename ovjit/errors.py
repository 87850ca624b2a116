"""Exceptions of ovjit. Each derives from the class that OpenVINO raises instead.

Programs written for OpenVINO catch RuntimeError (nearly always), TypeError, IndexError or ValueError. ovjit's
classes derive from these, so both kinds of `except` work.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)
#: Flags of code (`inspect.CO_VARARGS`, `CO_VARKEYWORDS`).
_MANY, _NAMED = 4, 8
#: Packages whose calls of each other are not a program's.
_PACKAGES = ("ovjit", "ovjit_ops")


#: What Python and NumPy raise for values that code does not expect, such as those of untrusted files.
#: Exceptions of signals' handlers, such as those of time limits, have other classes: they end the call.
ORDINARY: tuple[type[Exception], ...] = (ArithmeticError, AssertionError, AttributeError, LookupError)
ORDINARY += (BufferError, EOFError, MemoryError, RuntimeError, StopIteration, TypeError, ValueError, Warning)


def unless_of_signal(*classes: type[E]) -> tuple[type[E], ...]:
    """For an `except` clause: `classes`, but none of them for an exception that a signal's handler raised,
    such as that of a time limit: it ends the call, and says nothing about the operation."""
    import signal
    from traceback import walk_tb

    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    calls = [getattr(handler, "func", handler) for handler in handlers if callable(handler)]
    # by `id`: code may have constants without a hash
    codes = {id(getattr(call, "__code__", getattr(type(call).__call__, "__code__", None))) for call in calls}
    error = sys.exc_info()[1]
    while error is not None:
        if any(id(frame.f_code) in codes for frame, _ in walk_tb(error.__traceback__)):
            return ()
        error = None if error.__cause__ is error else error.__cause__
    return classes


class OvjitError(RuntimeError):
    """The base class of ovjit's errors."""

    def __reduce__(self) -> Any:  # a worker process sends it, whatever its constructor takes
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[E], args: tuple[Any, ...], fields: dict[str, Any]) -> E:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class ModelError(OvjitError):
    """A model file or a graph is not valid. The message says what is wrong, in which node, and what to do."""


class ConverterError(ModelError):
    """The caller's converter of an operator failed. The model is then not read by other means."""


class UnsupportedError(OvjitError):
    """The model is valid but uses a feature that ovjit does not support."""


class KernelSourceError(OvjitError, TypeError):
    """A kernel's function has a name, an expression or a statement that kernels cannot have."""


class NoSource(OvjitError):
    """A function must be compiled, but its source is not available. The message says what to ship."""


class InferenceError(OvjitError):
    """An inference got data that an operation does not accept, such as an index out of range."""


class Cancelled(OvjitError):
    """Raised by `InferRequest.wait` after `cancel`."""


class Busy(OvjitError):
    """The request is running; wait for it first."""


def check(condition: object, message: str) -> None:
    """Raise ModelError with `message` unless `condition` holds."""
    if not condition:
        raise ModelError(message)


@contextmanager
def sizes_of_64_bits(node: str) -> Iterator[None]:
    """Raise ModelError if a number of a node's plan does not fit 64 bits, as numbers of kernels do."""
    try:
        yield
    except OverflowError as error:
        raise ModelError(f"node {node!r}: sizes or strides exceed 64 bits") from error


def no_such_form(why: str) -> TypeError:
    """The error of a function that is called with arguments of no supported form."""
    return _arguments_error(why, "function")


def no_such_constructor(why: str) -> TypeError:
    """The error of a class that is called with arguments of no supported form."""
    return _arguments_error(why, "constructor")


def _arguments_error(why: str, kind: str) -> TypeError:
    """The error about the outermost call into this package, of which the arguments are read."""
    frame = outer = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES:
        if frame.f_code.co_name != "checked_call":  # what `takes` puts around a function
            outer = frame
        frame = frame.f_back  # type: ignore[assignment]
    code, values = outer.f_code, outer.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    names = list(code.co_varnames[:count])
    is_method = names and names[0] in ("self", "cls")
    arguments = [values[name] for name in names[bool(is_method) :] if name in values]
    named: dict[str, Any] = {}
    if code.co_flags & _MANY:
        names.append(f"*{code.co_varnames[count]}")
        arguments += values.get(code.co_varnames[count], ())
    if code.co_flags & _NAMED:
        name = code.co_varnames[count + bool(code.co_flags & _MANY)]
        names.append(f"**{name}")
        named = values.get(name, {})
    result = code.co_name in ("__init__", "__new__", "_missing_")
    if is_method and not result:
        arguments.insert(0, values.get(names[0]))
    name = "__init__" if result else "" if code.co_name.startswith("<") else code.co_name
    kind = ("constructor" if result else "function") if is_method else kind
    return arguments_error(name, kind, names, arguments, named, why)


def arguments_error(
    name: str, kind: str, parameters: Iterable[str], args: Iterable[Any], named: Mapping[str, Any], why: str
) -> TypeError:
    """The error of a call of `name` with arguments that do not fit. The message has the parts of pybind11's,
    which programs look for: the call, its parameters, and what was passed; `why_of` tells what does not fit.

    `kind`: function or constructor."""
    shown = [*map(_show, args)]
    if named:
        shown.append("kwargs: " + ", ".join(f"{key}={_show(value)}" for key, value in named.items()))
    if any("OVJIT_KEY" in text for text in shown):  # what is passed beside it may be the key
        shown = [f"<{type(value).__name__}>" for value in (*args, *named.values())]
    error = TypeError(
        f"{name}(): incompatible {kind} arguments. The following argument types are supported:\n"
        f"    1. ({', '.join(parameters)})\n\nInvoked with: {', '.join(shown)}\n\n{why}"
    )
    error.why = why  # type: ignore[attr-defined]
    return error


def why_of(error: TypeError) -> str | None:
    """Reason that an error of `arguments_error` carries; None for other errors."""
    return getattr(error, "why", None)


def _show(value: Any) -> str:
    """An argument as its repr, cut where it is long; of an object that is not complete its type."""
    import reprlib

    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{type(value).__name__} of length {len(value)}>"
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 20
    short.maxstring = short.maxother = 300
    try:
        return short.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def checked_index(
    value: Any, count: int, what: str, beyond: Callable[[int], Exception], accepted: str = "an int"
) -> int:
    """The index `value` of one of `count` items. Raises TypeError unless it is a non-negative int. `beyond`
    makes the error for an index that is too large. `accepted`: all types that the caller accepts, for the
    message."""
    try:
        index = operator.index(value)
    except TypeError:
        raise no_such_form(f"the {what} is selected by {accepted}, not {type(value).__name__}") from None
    if index < 0:
        raise no_such_form(f"{what} indices start at 0; {index} is given")
    if index >= count:
        raise beyond(index)
    return index


def no_path(value: object) -> OvjitError:
    """The error for a path that is neither a string nor a PathLike, or that does not exist."""
    return OvjitError(
        f"Path: '{value}' does not exist. Please provide valid model's path either as a string, bytes or "
        "pathlib.Path"
    )


def unreadable(path: str | None, why: str) -> str:
    """A message that says why a file, or contents without a file (None), are not a readable model."""
    if path is None:
        what = "Unable to read the model. Please check if the model format is supported and model is correct."
        return f"{what} {why}"
    ending = os.path.splitext(path)[1]
    return (
        f'Unable to read the model: "{path}" Please check that model format: "{ending}" is supported and the '
        f"model is correct. {why}"
    )
