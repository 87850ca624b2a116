"""What is said of arguments that do not fit, in the words that programs look for in OpenVINO's errors."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from ovjit.errors import no_such_form

Function = TypeVar("Function", bound=Callable[..., Any])


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


def mismatch(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], why: object) -> str:
    """The message of a TypeError for a call of `name`."""
    given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    why = str(why).removeprefix("incompatible function arguments: ")
    return f"{name}(): incompatible function arguments: {why}\n\nInvoked with: {given}"


def flag(value: Any, name: str) -> bool:
    """The truth of an argument that is a flag: of None and of what has a truth of its own, as numbers have.
    TypeError for text and containers."""
    try:
        if value is None or hasattr(type(value), "__bool__"):
            return bool(value)
    except ValueError:  # an array of several values
        pass
    raise no_such_form(f"{name} is a bool, not {type(value).__name__}")


def takes(function: Function) -> Function:
    """A function or constructor whose TypeError for arguments that do not fit its signature says them all."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(mismatch(function.__name__, args, kwargs, error)) from None
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]
