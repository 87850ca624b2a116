"""The limits of requests, and the errors of requests that are too large or invalid.

Clients are not trusted. Requests are checked before they use memory or time: first lengths, then structure,
then values. Each limit is a field of `Limits`, and a setting of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.errors import OvjitError
from ovjit.records import NamedTuple


class InvalidRequest(OvjitError, ValueError):
    """A request that does not fit the model. The message says what is wrong and what the model takes."""

    status = 400


class TooLarge(InvalidRequest):
    """A request with more bytes than the server accepts."""

    status = 413


class Overloaded(OvjitError):
    """The server has no capacity for the request now. The client may retry."""

    status = 503


class Limits(NamedTuple):
    """The limits of requests. `from_settings` reads them from a configuration."""

    #: Bytes of a body, and of its JSON. Python objects take up to sixteen times the bytes of JSON.
    body_bytes: int = 256 << 20
    json_bytes: int = 64 << 20
    #: Bytes of a string in JSON that is too long for one piece. Raw tensors may have longer ones.
    string_bytes: int = 256 << 10
    #: Elements of a tensor of strings.
    strings: int = 1 << 18
    #: Dimensions of a tensor; NumPy has no more than 64.
    rank: int = 64
    #: Characters of a number in JSON. The longest f64 has 309 digits before the point.
    digits: int = 400
    #: Inputs of a request, and outputs.
    tensors: int = 1024
    #: Lists, objects and members of objects in JSON, in a body above `inline_bytes`.
    nodes: int = 1 << 18
    #: Longer bodies are read in a thread, in pieces, so that the event loop goes on.
    inline_bytes: int = 64 << 10
    #: Requests of one model that are being read, waiting or running.
    requests: int = 4096

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> Limits:
        """The default limits, replaced by those in `settings`. Raises InvalidRequest for unknown names,
        and for values other than positive integers."""
        for name, value in (settings or {}).items():
            if name not in cls._fields:
                raise InvalidRequest(f"unknown limit {name!r}; the limits are {', '.join(cls._fields)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidRequest(f"the limit {name} should be a positive integer, not {show(value)}")
        return cls(**(settings or {}))


DEFAULT = Limits()
_SHOWN = 100  # maximum characters of a client's value in an error message


def show(value: Any) -> str:
    """A client's value for an error message, shortened."""
    if isinstance(value, (list, tuple)):
        parts = ["[...]" if isinstance(x, (list, tuple)) else show(x) for x in value[:8]]
        return f"[{', '.join(parts)}{', ...' if len(value) > 8 else ''}]"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to print very long ones
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... (length {len(value)})"
    return repr(value)[:_SHOWN]
