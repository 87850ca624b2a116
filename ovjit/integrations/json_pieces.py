"""JSON in pieces. `json` holds the GIL for a whole call; here, each call is short.

In: the bytes of a request. Out: the result of `json.loads`, except that nested lists may be tuples, and very
long ones `Long`. Errors are `InvalidRequest`. A thread that reads 20 MB with `json.loads` stops all others
for half a second. Here no C call takes more than a few milliseconds.

Stricter than `json`: UTF-8 only, no NaN, no Infinity, no duplicate names in an object.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from ovjit.integrations.limits import InvalidRequest, Limits, TooLarge, show

#: Bytes that are read at once, and elements that are converted, copied or written at once.
_WINDOW = 64 << 10
PIECE = 8192
_BLANK = rb"[ \t\n\r]*"
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_find_blank = re.compile(_BLANK).match
#: A string up to its closing quote or the end of the window. It always matches, so it never backtracks.
_find_in_string = re.compile(rb'(?:[^"\\]+|\\.)*', re.DOTALL).match
#: Levels of nesting that are allowed beyond a tensor's rank. A request has four around the data of a tensor.
_AROUND = 8
#: Maximum elements of a part of a `Long` list.
_PART = 64 << 10


class Long(list[Any]):
    """A list of many elements, in parts: the parts are lists whose elements follow each other. A single list
    of millions would be copied each time that it grows."""


@functools.lru_cache(8)
def _patterns(digits: int) -> tuple[Any, Any, Any]:
    """Regular expressions, for numbers of at most `digits` characters: a number; a run of list elements, each
    with its comma; more than half of the characters of a longer number."""
    number = rb"[-+.0-9A-Za-z]{1,%d}" % digits
    run = rb"(?:%b(?:%b|%b)%b,)+" % (_BLANK, number, _STRING, _BLANK)
    half = rb"[-+.0-9A-Za-z]{%d}" % (digits // 2 + 1)
    return re.compile(number).match, re.compile(run, re.DOTALL).match, re.compile(half).match


def _no_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"the request is not valid JSON: {name} is not part of JSON; use null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InvalidRequest(f"the request is not valid JSON: an object has {show(twice)} twice")
    return result


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant).decode


def loads(content: bytes, limits: Limits) -> Any:
    """The value of `content`. Raises InvalidRequest if it is not JSON or exceeds the limits."""
    if len(content) > limits.json_bytes:
        raise TooLarge(
            f"the request's JSON has {len(content)} bytes, this server accepts at most "
            f"{limits.json_bytes}: send tensors as raw bytes, or fewer at a time"
        )
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    try:
        if len(content) <= limits.inline_bytes and not _may_have_longer(content, limits.digits):
            return _decode(content.decode())
        return _Reader(content, limits).document()
    except InvalidRequest:
        raise
    except RecursionError:
        raise InvalidRequest(
            "the request is not valid JSON: its lists and objects are nested too deep"
        ) from None
    except ValueError as error:
        raise InvalidRequest(f"the request is not valid JSON: {str(error)[:200]}") from None


def _may_have_longer(content: bytes, digits: int) -> bool:
    """Whether there may be a longer number, or text that looks like one. More than half of its characters
    would follow one of the positions that are tried."""
    half = _patterns(digits)[2]
    return any(half(content, at) for at in range(0, len(content), max(1, digits // 2)))


class _Reader:
    """A JSON parser that passes long runs of plain elements to `json`, one window at a time."""

    def __init__(self, content: bytes, limits: Limits):
        self.content, self.limits, self.at, self.nodes = content, limits, 0, 0
        self.number, self.run, _ = _patterns(limits.digits)

    def document(self) -> Any:
        value = self.value(0)
        if self.peek():
            self.fail("data follow its end")
        return value

    def fail(self, why: str) -> NoReturn:
        raise InvalidRequest(f"the request is not valid JSON: {why}, at byte {self.at}")

    def peek(self) -> bytes:
        """Skip blanks. Returns the next byte, empty at the end."""
        while True:
            self.at = _find_blank(self.content, self.at, self.at + _WINDOW).end()  # type: ignore[union-attr]
            byte = self.content[self.at : self.at + 1]
            if byte not in (b" ", b"\t", b"\n", b"\r"):
                return byte

    def value(self, depth: int) -> Any:
        first = self.peek()
        if first == b"[":
            return self.array(depth + 1)
        if first == b"{":
            return self.object(depth + 1)
        if first == b'"':
            return self.string()
        match = self.number(self.content, self.at)
        if not match:
            self.fail("a value is expected" if first else "it ends in the middle")
        if self.number(self.content, match.end()):
            self.fail(f"a number has more than {self.limits.digits} characters")
        return self.decode_text(match.end())

    def decode_text(self, end: int, text: str = "%s") -> Any:
        """The value of the text from here to `end`, inserted into `text`. Advances to `end`."""
        try:
            value = _decode(text % self.content[self.at : end].rstrip(b",").decode())
        except json.JSONDecodeError as error:
            self.at += error.pos
            self.fail(error.msg)
        except UnicodeDecodeError:
            self.fail("it is not UTF-8")
        self.at = end
        return value

    def node(self) -> None:
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise InvalidRequest(
                f"the request has more than {self.limits.nodes} lists and members of objects: send data as "
                "one flat list, or as raw bytes"
            )

    def enter(self, depth: int) -> None:
        if depth > self.limits.rank + _AROUND:
            self.fail("its lists and objects are nested too deep")
        self.node()
        self.at += 1

    def array(self, depth: int) -> list[Any]:
        self.enter(depth)
        out: list[Any] = []
        parts = Long()
        if self.peek() == b"]":
            self.at += 1
            return out
        while True:
            if len(out) >= _PART:
                parts.append(out)
                out = []
            match = self.run(self.content, self.at, self.at + _WINDOW)
            if match:
                out += self.decode_text(match.end(), "[%s]")
            else:
                value = self.value(depth)
                if type(value) is list and value and not isinstance(value[0], (list, tuple, dict)):
                    value = tuple(value)  # a tuple of numbers is not traversed by the garbage collector
                out.append(value)
                if self.ends(b"]"):
                    return Long([*parts, out]) if parts else out

    def object(self, depth: int) -> dict[str, Any]:
        self.enter(depth)
        out: dict[str, Any] = {}
        if self.peek() == b"}":
            self.at += 1
            return out
        while True:
            if self.peek() != b'"':
                self.fail("a member's name is expected")
            self.node()
            name = self.string()
            if name in out:
                self.fail(f"an object has {show(name)} twice")
            if self.peek() != b":":
                self.fail("a colon is expected")
            self.at += 1
            out[name] = self.value(depth)
            if self.ends(b"}"):
                return out

    def ends(self, close: bytes) -> bool:
        """Skip a comma, or the end of a list or an object. Returns True at the end."""
        byte = self.peek()
        if byte not in (b",", close):
            self.fail(f"a comma or {close.decode()} is expected" if byte else "it ends in the middle")
        self.at += 1
        return byte == close

    def string(self) -> str:
        end = self.at + 1
        while True:
            last, end = end, _find_in_string(self.content, end, end + _WINDOW).end()  # type: ignore[union-attr]
            if end - self.at > self.limits.string_bytes + 1 or end == last != self.at + 1:
                self.fail(f"a string does not end within {self.limits.string_bytes} bytes")
            if self.content[end : end + 1] == b'"':
                return self.decode_text(end + 1)
            if end == last:
                self.fail("it ends in the middle")


def dumps_list(values: Sequence[Any]) -> str:
    """The JSON of a flat list."""
    parts = [json.dumps(values[i : i + PIECE])[1:-1] for i in range(0, len(values), PIECE)]
    return f"[{', '.join(parts)}]"


def let_go(values: list[Any]) -> None:
    """Empty a list in pieces. Freeing millions of elements at once would stop other threads."""
    while values:
        del values[-(1 if isinstance(values, Long) else PIECE) :]
