"""What a request may be at most, and the errors of one that is more, or that makes no sense.

A server's clients are strangers. What they send is bounded before it costs anything: first lengths, then
structure, then values. Each bound is a field of `Limits`, and so a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.errors import OvjitError
from ovjit.records import NamedTuple


class InvalidRequest(OvjitError, ValueError):
    """A request that does not fit the model: what is wrong, and what the model takes."""

    status = 400


class TooLarge(InvalidRequest):
    """A request of more bytes than the server takes."""

    status = 413


class Overloaded(OvjitError):
    """No room for the request now; the same request may be answered later."""

    status = 503


class Limits(NamedTuple):
    """The bounds of requests. `from_settings` makes them of a configuration's dict."""

    #: Bytes of a body, and of its JSON: Python's objects take up to sixteen times as much.
    body_bytes: int = 256 << 20
    json_bytes: int = 64 << 20
    #: Bytes of a string in JSON that is too long for one piece. Raw tensors may have longer ones.
    string_bytes: int = 256 << 10
    #: Elements of a tensor of strings.
    strings: int = 1 << 18
    #: Dimensions of a tensor; NumPy has no more than 64.
    rank: int = 64
    #: Characters of a number in JSON. The longest numbers of 64 bits that mean something have 309 digits.
    digits: int = 400
    #: Inputs of a request, and outputs.
    tensors: int = 1024
    #: Lists, objects and members of objects in JSON, in a body above `inline_bytes`.
    nodes: int = 1 << 18
    #: Longer bodies are read in a thread, in pieces, so that the event loop goes on.
    inline_bytes: int = 64 << 10
    #: Requests of one model that are read, in line or running.
    requests: int = 4096

    @classmethod
    def from_settings(cls, given: Mapping[str, Any] | None) -> Limits:
        """The default limits with those in `given` in their place. InvalidRequest for other names, and for
        values that are no whole numbers from 1 on."""
        for name, value in (given or {}).items():
            if name not in cls._fields:
                raise InvalidRequest(f"unknown limit {name!r}; the limits are {', '.join(cls._fields)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidRequest(f"the limit {name} should be a positive integer, not {shown(value)}")
        return cls(**(given or {}))


DEFAULT = Limits()
_SHOWN = 100  # characters of what a client wrote, in an error


def shown(value: Any) -> str:
    """A client's value in an error: short, whatever it is."""
    if isinstance(value, (list, tuple)):
        parts = ["[...]" if isinstance(x, (list, tuple)) else shown(x) for x in value[:8]]
        return f"[{', '.join(parts)}{', ...' if len(value) > 8 else ''}]"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to print very long ones
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... (length {len(value)})"
    return repr(value)[:_SHOWN]
