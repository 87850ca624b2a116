"""JSON in pieces: what `json` reads or writes in one call, and then holds the GIL for, is done in many.

In: the bytes of a request. Out: what `json.loads` makes of them, but that lists in lists may be tuples, and
very long ones `Long`; or an `InvalidRequest`. A thread that reads 20 MB by `json.loads` stops all others for
half a second. Here no call of C takes more than some milliseconds.
Stricter than `json`: UTF-8 only, no NaN and no Infinity, no name twice in an object.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from ovjit.integrations.limits import InvalidRequest, Limits, TooLarge, shown

#: Bytes that are read at once, and elements that are converted, copied or written at once.
_WINDOW = 64 << 10
PIECE = 8192
_BLANK = rb"[ \t\n\r]*"
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_find_blank = re.compile(_BLANK).match
#: As much of a string as there is, without its end. It always matches, so that it never goes back.
_find_in_string = re.compile(rb'(?:[^"\\]+|\\.)*', re.DOTALL).match
#: Lists in lists; the request around a tensor's data has four.
_AROUND = 8
#: Elements of a list from which on it goes on in another one.
_PART = 64 << 10


class Long(list[Any]):
    """A list of many elements in parts: lists whose elements follow each other. One list of millions is moved
    each time that it grows."""


@functools.lru_cache(8)
def _patterns(digits: int) -> tuple[Any, Any, Any]:
    """For numbers of at most so many characters: one of them; elements of a list, each with the comma behind
    it; and half of a longer one."""
    number = rb"[-+.0-9A-Za-z]{1,%d}" % digits
    run = rb"(?:%b(?:%b|%b)%b,)+" % (_BLANK, number, _STRING, _BLANK)
    half = rb"[-+.0-9A-Za-z]{%d}" % (digits // 2 + 1)
    return re.compile(number).match, re.compile(run, re.DOTALL).match, re.compile(half).match


def _no_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"the request is not valid JSON: {name} is not part of JSON; use null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InvalidRequest(f"the request is not valid JSON: an object has {shown(twice)} twice")
    return found


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant).decode


def loads(content: bytes, limits: Limits) -> Any:
    """The value that `content` is. InvalidRequest where it is no JSON or beyond the limits."""
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
        return _Reader(content, limits).whole()
    except InvalidRequest:
        raise
    except RecursionError:
        raise InvalidRequest(
            "the request is not valid JSON: its lists and objects are nested too deep"
        ) from None
    except ValueError as error:
        raise InvalidRequest(f"the request is not valid JSON: {str(error)[:200]}") from None


def _may_have_longer(content: bytes, digits: int) -> bool:
    """Whether there may be a longer number, or text that looks like one: half of it begins at one of these
    places."""
    half = _patterns(digits)[2]
    return any(half(content, at) for at in range(0, len(content), max(1, digits // 2)))


class _Reader:
    """A parser of JSON that leaves long runs of plain elements to `json`, a window at a time."""

    def __init__(self, content: bytes, limits: Limits):
        self.content, self.limits, self.at, self.nodes = content, limits, 0, 0
        self.number, self.run, _ = _patterns(limits.digits)

    def whole(self) -> Any:
        value = self.value(0)
        if self.peek():
            self.fail("data follow its end")
        return value

    def fail(self, why: str) -> NoReturn:
        raise InvalidRequest(f"the request is not valid JSON: {why}, at byte {self.at}")

    def peek(self) -> bytes:
        """The next byte that is not blank, empty at the end."""
        while True:
            self.at = _find_blank(self.content, self.at, self.at + _WINDOW).end()  # type: ignore[union-attr]
            found = self.content[self.at : self.at + 1]
            if found not in (b" ", b"\t", b"\n", b"\r"):
                return found

    def value(self, depth: int) -> Any:
        first = self.peek()
        if first == b"[":
            return self.array(depth + 1)
        if first == b"{":
            return self.object(depth + 1)
        if first == b'"':
            return self.string()
        found = self.number(self.content, self.at)
        if not found:
            self.fail("a value is expected" if first else "it ends in the middle")
        if self.number(self.content, found.end()):
            self.fail(f"a number has more than {self.limits.digits} characters")
        return self.decoded(found.end())

    def decoded(self, end: int, text: str = "%s") -> Any:
        """The value of what stands from here to `end`, as a part of `text`; goes there."""
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
            found = self.run(self.content, self.at, self.at + _WINDOW)
            if found:
                out += self.decoded(found.end(), "[%s]")
            else:
                value = self.value(depth)
                if type(value) is list and value and not isinstance(value[0], (list, tuple, dict)):
                    value = tuple(value)  # which the garbage collector forgets: it has nothing to visit
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
                self.fail(f"an object has {shown(name)} twice")
            if self.peek() != b":":
                self.fail("a colon is expected")
            self.at += 1
            out[name] = self.value(depth)
            if self.ends(b"}"):
                return out

    def ends(self, close: bytes) -> bool:
        """Go past a comma or the end of a list or an object: whether it is the end."""
        found = self.peek()
        if found not in (b",", close):
            self.fail(f"a comma or {close.decode()} is expected" if found else "it ends in the middle")
        self.at += 1
        return found == close

    def string(self) -> str:
        end = self.at + 1
        while True:
            last, end = end, _find_in_string(self.content, end, end + _WINDOW).end()  # type: ignore[union-attr]
            if end - self.at > self.limits.string_bytes + 1 or end == last != self.at + 1:
                self.fail(f"a string does not end within {self.limits.string_bytes} bytes")
            if self.content[end : end + 1] == b'"':
                return self.decoded(end + 1)
            if end == last:
                self.fail("it ends in the middle")


def dumps_list(values: Sequence[Any]) -> str:
    """The JSON of a flat list."""
    parts = [json.dumps(values[i : i + PIECE])[1:-1] for i in range(0, len(values), PIECE)]
    return f"[{', '.join(parts)}]"


def let_go(values: list[Any]) -> None:
    """Empty a list. Millions of elements freed at once stop other threads, too."""
    while values:
        del values[-(1 if isinstance(values, Long) else PIECE) :]
