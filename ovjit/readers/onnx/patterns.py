"""Regular expressions in RE2's syntax, as tables that read texts byte by byte.

An expression becomes a graph of byte ranges (Thompson's construction), and that becomes a table of the next
state for each state and byte. RE2's expressions need no more: they have no back references and no lookaround,
except anchors and word borders. A state decides these when it reads the following byte.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ovjit.errors import ModelError, UnsupportedError
from ovjit.records import NamedTuple

#: What an expression may come to: steps of its graph, states of its table; RE2's most repetitions.
MOST_STEPS, MOST_STATES, MOST_TIMES = 100_000, 10_000, 1000
_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
#: What is before a place, or after it: nothing, a letter of a word, the end of a line, anything else.
EDGE, _WORD, _LINE, _OTHER = range(4)

_Ranges = tuple[tuple[int, int], ...]
_DIGITS: _Ranges = ((48, 57),)
_LETTERS: _Ranges = ((65, 90), (97, 122))
_WORDS: _Ranges = (*_DIGITS, (65, 90), (95, 95), (97, 122))
_SPACES: _Ranges = ((9, 10), (12, 13), (32, 32))
_PERL = {"d": _DIGITS, "w": _WORDS, "s": _SPACES}
_POSIX: dict[str, _Ranges] = {
    "alnum": (*_DIGITS, *_LETTERS), "alpha": _LETTERS, "ascii": ((0, 127),), "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)), "digit": _DIGITS, "graph": ((33, 126),), "lower": ((97, 122),),
    "print": ((32, 126),), "punct": ((33, 47), (58, 64), (91, 96), (123, 126)), "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),), "word": _WORDS, "xdigit": (*_DIGITS, (65, 70), (97, 102)),
}  # fmt: skip
_CONTROLS = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


class Table(NamedTuple):
    """`following[state, kind of byte]` is the next state, `kind[byte]` its kind.

    It begins in the state `starts[kind before]`, 0 at the begin of a text. A match may end where
    `accepts[state, kind behind]` is true. In state 1 no match is possible. `sides[kind of byte]` is the side
    that such a byte forms before and after others, EDGE the one without a byte."""

    following: np.ndarray
    kind: np.ndarray
    accepts: np.ndarray
    sides: np.ndarray
    starts: list[int]


def table_of(pattern: str, anywhere: bool = False) -> Table:
    """The automaton of a regular expression on UTF-8, for full matches or matches `anywhere`.

    Raises ModelError for an invalid expression, UnsupportedError for one whose table is too large.
    """
    steps = _Steps()
    end = steps.add()
    return _determinize(steps, _Parser(pattern, steps).parse(end), end, anywhere)


class _Steps:
    """The NFA: each step has byte ranges with the next step of each, or is followed without a byte, maybe
    under a condition."""

    def __init__(self) -> None:
        self.ranges: list[list[tuple[int, int, int]]] = []
        self.free: list[list[tuple[str, int]]] = []
        self._bytes: dict[tuple[int, int, int], int] = {}

    def add(self, *to: int, only: str = "") -> int:
        if len(self.free) >= MOST_STEPS:
            raise UnsupportedError(f"a regular expression of more than {MOST_STEPS} steps is not supported")
        self.ranges.append([])
        self.free.append([(only, step) for step in to])
        return len(self.free) - 1

    def byte(self, low: int, high: int, to: int) -> int:
        """A step that matches one byte; letters with equal last bytes share it."""
        step = self._bytes.get((low, high, to))
        if step is None:
            step = self._bytes[low, high, to] = self.add()
            self.ranges[step].append((low, high, to))
        return step

    def letters(self, ranges: _Ranges, to: int) -> int:
        """A step that matches one letter of `ranges`, encoded in UTF-8, and continues at `to`."""
        step = self.add()
        for low, high in ranges:
            for bytes_ in _in_bytes(low, high):
                at = to
                for first, last in reversed(bytes_[1:]):
                    at = self.byte(first, last, at)
                self.ranges[step].append((*bytes_[0], at))
        return step


def _in_bytes(low: int, high: int) -> Iterable[list[tuple[int, int]]]:
    """Sequences of byte ranges that are the UTF-8 of the letters `low` to `high`."""
    for first, last in ((low, min(high, _SURROGATES[0] - 1)), (max(low, _SURROGATES[1] + 1), high)):
        begin = first
        while begin <= last:
            size = len(chr(begin).encode())
            end = min(last, (0x7F, 0x7FF, 0xFFFF, _LAST)[size - 1])
            for i in range(1, size):  # whole blocks of continuing bytes, or one at a time
                block = (1 << 6 * i) - 1
                if begin & ~block != end & ~block:
                    if begin & block:
                        end = begin | block
                    elif end & block != block:
                        end = (end & ~block) - 1
            yield list(zip(chr(begin).encode(), chr(end).encode(), strict=True))
            begin = end + 1


def _unite_ranges(ranges: Iterable[tuple[int, int]]) -> _Ranges:
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = out[-1][0], max(out[-1][1], high)
        else:
            out.append((low, high))
    return tuple(out)


def _complement(ranges: _Ranges) -> _Ranges:
    out, begin = [], 0
    for low, high in _unite_ranges(ranges):
        if low > begin:
            out.append((begin, low - 1))
        begin = high + 1
    return (*out, (begin, _LAST)) if begin <= _LAST else tuple(out)


def _of_category(name: str) -> _Ranges:
    """The letters of a general category of Unicode, as L or Lu."""
    inside = [code for code in range(_LAST + 1) if unicodedata.category(chr(code)).startswith(name)]
    if not inside or not 1 <= len(name) <= 2:
        raise UnsupportedError(f"characters of the class {name[:20]!r} are not supported")
    return _unite_ranges((code, code) for code in inside)


def _either_case(ranges: _Ranges) -> _Ranges:
    """The ranges, with the other case of each letter added."""
    more = []
    for low, high in ranges:
        if high - low > 0x1000:  # all but a few letters: those come to themselves
            low, high = low, min(high, 0x1E943)
        for code in range(low, high + 1):
            for other in (chr(code).lower(), chr(code).upper(), chr(code).upper().lower()):
                if len(other) == 1 and ord(other) != code:
                    more.append((ord(other), ord(other)))
            more += [(c, c) for c in {ord("k"): (0x212A,), ord("s"): (0x17F,), 0x212A: (75,), 0x17F: (83,),
                                      ord("K"): (0x212A,), ord("S"): (0x17F,)}.get(code, ())]  # fmt: skip
    return _unite_ranges((*ranges, *more))


class _Node(NamedTuple):
    """Node of a parsed expression: "letters" (ranges), "byte", "only" (a condition), "either" and "then"
    (parts), or "times" (a part, least, most or None)."""

    kind: str
    what: tuple


class _Flags(NamedTuple):
    either_case: bool = False  # i
    lines: bool = False  # m
    any: bool = False  # s: . takes the end of a line too

    def letters_in_case(self, ranges: _Ranges, negative: bool = False) -> _Ranges:
        """These letters in both cases if case is ignored, or the complement if `negative`."""
        ranges = _either_case(ranges) if self.either_case else ranges
        return _complement(ranges) if negative else ranges


class _Parser:
    def __init__(self, text: str, steps: _Steps):
        self.text, self.at, self.steps = text, 0, steps
        self.depth = self.built = 0

    def parse(self, end: int) -> int:
        """Parse the whole expression. Returns its first step; `end` is the step after it."""
        node, _ = self._parse_alternatives(_Flags())
        if self.at < len(self.text):
            raise self._wrong("a ) without a (")
        return self._add_steps(node, end)

    def _wrong(self, what: str) -> ModelError:
        return ModelError(f"the regular expression {self.text[:60]!r} is not valid at {self.at}: {what}")

    def _take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def _next(self) -> str:
        if self.at >= len(self.text):
            raise self._wrong("it ends too early")
        self.at += 1
        return self.text[self.at - 1]

    # --- expressions

    def _parse_alternatives(self, flags: _Flags) -> tuple[_Node, _Flags]:
        """Parse up to a closing bracket or the end. Flags set inside are valid up to there."""
        ways: list[_Node] = []
        parts: list[_Node] = []
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self._take("|"):
                ways.append(_Node("then", tuple(parts)))
                parts = []
                continue
            node, flags = self._parse_item(flags)
            parts.append(self._parse_repetition(node))
        return _Node("either", (*ways, _Node("then", tuple(parts)))), flags

    def _parse_repetition(self, node: _Node) -> _Node:
        plain = True
        while self.at < len(self.text):
            start = self.at
            mark = self._next()
            if mark in "*+?":
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[mark]
            elif mark == "{" and (counts := self._counts()) is not None:
                least, most = counts
            else:
                self.at = start
                break
            if not plain:
                raise self._wrong("a repetition of a repetition")
            self._take("?")  # which of two ways is tried first is no matter
            node, plain = _Node("times", (node, least, most)), False
        return node

    def _counts(self) -> tuple[int, int | None] | None:
        """Parse {n}, {n,} or {n,m}; None for anything else, in which { is a letter."""
        end = self.text.find("}", self.at)
        least, comma, most = self.text[self.at : end].partition(",")
        if end < 0 or not _is_number(least) or (most and not _is_number(most)):
            return None
        bounds = int(least), int(most) if most else None if comma else int(least)
        if bounds[0] > MOST_TIMES or (bounds[1] is not None and not bounds[0] <= bounds[1] <= MOST_TIMES):
            raise self._wrong("numbers of repetitions")
        self.at = end + 1
        return bounds

    def _parse_item(self, flags: _Flags) -> tuple[_Node, _Flags]:
        mark = self._next()
        if mark == "(":
            return self._group(flags)
        if mark == "[":
            return _Node("letters", (self._class(flags),)), flags
        if mark == ".":
            return _Node("letters", (((0, _LAST),) if flags.any else _complement(((10, 10),)),)), flags
        if mark in "^$":
            name = {"^": "begin", "$": "end"}[mark]
            return _Node("only", (f"line {name}" if flags.lines else name,)), flags
        if mark in "*+?":
            raise self._wrong("nothing to repeat")
        if mark != "\\":
            return _Node("letters", (flags.letters_in_case(((ord(mark), ord(mark)),)),)), flags
        what = self._next()
        if what in "AzbB":
            name = {"A": "begin", "z": "end", "b": "border", "B": "no border"}[what]
            return _Node("only", (name,)), flags
        if what == "C":
            return _Node("byte", ()), flags
        if what == "Q":
            quoted, _, following_text = self.text[self.at :].partition("\\E")
            quoted = "".join(f"\\{c}" if c.isascii() and not c.isalnum() else c for c in quoted)
            self.text = self.text[: self.at] + quoted + following_text
            return self._parse_item(flags) if quoted else (_Node("then", ()), flags)
        return _Node("letters", (self._parse_escape(what, flags),)), flags

    def _group(self, flags: _Flags) -> tuple[_Node, _Flags]:
        inner = flags
        if self._take("?"):
            if self._take("P<") or self._take("<"):
                name, closed, _ = self.text[self.at :].partition(">")
                if not closed or not name.isidentifier():
                    raise self._wrong("the name of a group")
                self.at += len(name) + 1
            else:
                inner = self._flags(flags)
                if self._take(")"):
                    return _Node("then", ()), inner
                if not self._take(":"):
                    raise self._wrong("an unknown kind of group")
        self.depth += 1
        if self.depth > 200:
            raise UnsupportedError(
                "groups of a regular expression that nest more than 200 deep are not supported"
            )
        node, _ = self._parse_alternatives(inner)
        self.depth -= 1
        if not self._take(")"):
            raise self._wrong("a ( without a )")
        return node, flags

    def _flags(self, flags: _Flags) -> _Flags:
        on = True
        while self.at < len(self.text) and self.text[self.at] not in ":)":
            mark = self._next()
            if mark == "-" and on:
                on = False
            elif mark in "imsU":
                name = {"i": "either_case", "m": "lines", "s": "any", "U": ""}[mark]
                flags = flags._replace(**{name: on}) if name else flags
            else:
                raise self._wrong("an unknown flag")
        return flags

    # --- letters

    def _parse_escape(self, what: str, flags: _Flags) -> _Ranges:
        """Parses the escape sequence that `what` begins, after a backslash, as ranges of letters."""
        if what.lower() in _PERL:
            return flags.letters_in_case(_PERL[what.lower()], what.isupper())
        if what in "pP":
            name = self._next()
            if name == "{":
                name = self._read_braces()
            negative = (what == "P") != name.startswith("^")
            return flags.letters_in_case(_of_category(name.removeprefix("^")), negative)
        code = self._code(what)
        return flags.letters_in_case(((code, code),))

    def _read_braces(self) -> str:
        """Reads the text between a { that has just been read and its }."""
        inside, closed, _ = self.text[self.at :].partition("}")
        if not closed:
            raise self._wrong("a { without a }")
        self.at += len(inside) + 1
        return inside

    def _code(self, what: str) -> int:
        """Parse the letter of an escape by code, such as \\x41."""
        if what in _CONTROLS:
            return _CONTROLS[what]
        if what == "x":
            digits = self._next()
            if digits == "{":
                digits = self._read_braces()
            else:
                digits += self._next()
            try:
                code = int(digits, 16) if digits.isalnum() else _LAST + 1
            except ValueError:
                code = _LAST + 1
            if code > _LAST:
                raise self._wrong("a number of a letter")
            return code
        if what in "01234567":
            digits = what
            while len(digits) < 3 and self.at < len(self.text) and self.text[self.at] in "01234567":
                digits += self._next()
            if what != "0" and len(digits) == 1:
                raise self._wrong("a reference back")
            return int(digits, 8)
        if what.isascii() and not what.isalnum():
            return ord(what)
        raise self._wrong(f"the escape \\{what}")

    def _class(self, flags: _Flags) -> _Ranges:
        """Parses a character class between [ and ]."""
        negative = self._take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self._take("]"):
            first = False
            if self.text.startswith("[:", self.at) and ":]" in self.text[self.at :]:
                self.at += 2
                name = self.text[self.at : self.text.index(":]", self.at)]
                self.at += len(name) + 2
                if name.removeprefix("^") not in _POSIX:
                    raise self._wrong(f"the class {name[:20]!r}")
                ranges += flags.letters_in_case(_POSIX[name.removeprefix("^")], name.startswith("^"))
                continue
            mark = self._next()
            if mark == "\\":
                what = self._next()
                if what in "dDwWsSpP":
                    ranges += self._parse_escape(what, flags)
                    continue
                low = self._code(what)
            else:
                low = ord(mark)
            high = low
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                mark = self._next()
                high = self._code(self._next()) if mark == "\\" else ord(mark)
                if high < low:
                    raise self._wrong("a range that ends before it begins")
            ranges += flags.letters_in_case(((low, high),))
        out = _unite_ranges(ranges)
        return _complement(out) if negative else out

    # --- steps

    def _add_steps(self, node: _Node, end: int) -> int:
        """Add the steps of a syntax node that continue at `end`. Returns the first one."""
        steps = self.steps
        self.built += 1
        if self.built > MOST_STEPS:
            raise UnsupportedError(f"a regular expression of more than {MOST_STEPS} parts is not supported")
        if node.kind == "letters":
            return steps.letters(node.what[0], end)
        if node.kind == "byte":
            return steps.byte(0, 255, end)
        if node.kind == "only":
            return steps.add(end, only=node.what[0])
        if node.kind == "then":
            for part in reversed(node.what):
                end = self._add_steps(part, end)
            return end
        if node.kind == "either":
            return steps.add(*(self._add_steps(part, end) for part in node.what))
        part, least, most = node.what
        if most is None:
            again = steps.add(end)
            steps.free[again].append(("", self._add_steps(part, again)))
            end = again
        else:
            out = end
            for _ in range(most - least):
                end = steps.add(self._add_steps(part, end), out)
        for _ in range(least):
            end = self._add_steps(part, end)
        return end


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6


def _holds(condition: str, before: int, after: int) -> bool:
    if condition in ("border", "no border"):
        return ((before == _WORD) != (after == _WORD)) == (condition == "border")
    side = before if condition.endswith("begin") else after
    return not condition or side == EDGE or (condition.startswith("line") and side == _LINE)


def _kind_of(byte: int) -> int:
    if byte == 10:
        return _LINE
    return _WORD if any(low <= byte <= high for low, high in _WORDS) else _OTHER


def _moves_by_side(
    steps: _Steps, kind: np.ndarray, sides: Sequence[int]
) -> Iterator[tuple[list[tuple[int, int]], ...]]:
    """Yields for each step, by the side of a byte: (kind of the byte, the step that it leads to)."""
    for ranges in steps.ranges:
        moves: tuple[list[tuple[int, int]], ...] = ([], [], [], [])
        for low, high, to in ranges:
            for i in range(kind[low], kind[high] + 1):
                moves[sides[i]].append((i, to))
        yield moves


def _reach(steps: _Steps, steps_of_state: Iterable[int], before: int, after: int) -> set[int]:
    """The steps that are reachable without a byte, between characters of these sides."""
    reachable_steps, pending = set(steps_of_state), list(steps_of_state)
    while pending:
        for condition, to in steps.free[pending.pop()]:
            if to not in reachable_steps and _holds(condition, before, after):
                reachable_steps.add(to)
                pending.append(to)
    return reachable_steps


def _determinize(steps: _Steps, start: int, end: int, anywhere: bool) -> Table:
    """The DFA of an NFA from `start` to `end`."""
    borders = {0, 10, 11, *(b for low, high in _WORDS for b in (low, high + 1))}
    borders.update(b for ranges in steps.ranges for low, high, _ in ranges for b in (low, high + 1))
    firsts = sorted(borders - {256})
    kind = np.searchsorted(firsts, np.arange(256), side="right") - 1
    sides = [_kind_of(byte) for byte in firsts]

    moves = [*_moves_by_side(steps, kind, sides)]
    looks_round = any(condition for row in steps.free for condition, _ in row)
    nothing = (frozenset[int](), _OTHER)
    states = {(frozenset([start]), EDGE): 0, nothing: 1}
    starts = [0, 0, 0, 0]
    if anywhere and looks_round:
        starts = [states.setdefault((frozenset([start]), before), len(states)) for before in range(4)]
    pending = list(states)
    rows: list[Sequence[int]] = []
    accepts = []
    for state in pending:  # which grows meanwhile
        steps_of_state, before = state
        if looks_round:
            now = {side: _reach(steps, steps_of_state, before, side) for side in range(4)}
        else:
            now = dict.fromkeys(range(4), _reach(steps, steps_of_state, EDGE, EDGE))
        accepts.append([end in now[side] for side in range(4)])
        result: list[list[int]] = [[] for _ in firsts]
        for side, reachable in now.items():
            for step in reachable:
                for i, to in moves[step][side]:
                    result[i].append(to)
        row = []
        for to_all, side in zip(result, sides, strict=True):
            key = (frozenset(to_all), side if looks_round else EDGE) if to_all else nothing
            if key not in states:
                if len(states) >= MOST_STATES:
                    raise UnsupportedError(
                        "a regular expression whose table has more than "
                        f"{MOST_STATES} states is not supported"
                    )
                states[key] = len(states)
                pending.append(key)
            row.append(states[key])
        rows.append(row)
    following, sides_of = np.array(rows, np.int32), np.array(sides, np.int32)
    return Table(following, kind.astype(np.int32), np.array(accepts), sides_of, starts)
