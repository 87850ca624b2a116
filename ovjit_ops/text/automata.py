r"""Regular expressions as tables: an automaton over classes of characters.

It finds the match that a backtracking engine finds. A state is the list of places in the pattern that are
still possible, by priority. Places after one where the pattern has ended are dropped. Look-ahead at one
character, `^` and `$` are conditions on the next character, or on the place. Other patterns are `Unfit`:
groups that are referred to, look-behind, atomic groups that matter.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.records import NamedTuple
from ovjit_ops.text import patterns

#: Ranges of code points, ascending, both ends included.
Ranges = tuple[tuple[int, int], ...]
LAST_POINT = 0x10FFFF
#: Maximum places in a pattern, states, classes of characters, and places that are looked at for all states.
MOST_PLACES, MOST_STATES, MOST_CLASSES, MOST_STEPS = 100_000, 8000, 200, 3_000_000
_NEWLINE = 10


#: Characters that are not assigned in Unicode 17, PCRE2's version, but in later versions, of which `regex`
#: may be. First and last ones in hexadecimal.
_LATER = """
    558 58b-58c 5c8-5c9 b53-b54 1ade-1adf 1aec-1af0 208f 209d-209f 20c2-20c4 2e60-2e63 a7dd a7e2
    ab6c-ab6d 107bb-107bf 10ec9-10ecf 10ed9-10eee 10ef0-10ef9 11b0a 11df0-11df1 1246f 12475-1247f
    12550-12686 18cd6-18cda 18d1f-18d20 18e00-19191 191a0-191d2 1b123-1b128 1b168 1ced2-1ced4
    1cedd-1cedf 1cef1-1cefd 1d127-1d128 1d1eb-1d1ff 1d250-1d281 1d6a6 1db00-1db1c 1df1f-1df24
    1df2b-1df81 1df90-1df96 1dfcd-1dfff 1f1ae 1f6d9 1f7da-1f7db 1f7f1-1f7ff 1fa8b-1fa8d 1facc 1fadd
    1faeb 1faf9-1fafa 2b81e 3d000-3fc3f
"""


#: Planes whose characters are not assigned, or for private use, but for the last two of each.
_EMPTY_PLANES = (*range(4, 14), 15, 16)
#: Escapes that may name a character of a further plane.
_FAR = re.compile(r"\\[UN]")


class Unfit(OvjitError):
    """A pattern that has no table here."""


# -- sets of characters


def union(*sets: Ranges) -> Ranges:
    """The characters of any of the sets, as sorted ranges that do not touch."""
    out: list[list[int]] = []
    for first, last in sorted(r for s in sets for r in s):
        if out and first <= out[-1][1] + 1:
            out[-1][1] = max(out[-1][1], last)
        else:
            out.append([first, last])
    return tuple((a, b) for a, b in out)


def complement(ranges: Ranges) -> Ranges:
    out, at = [], 0
    for first, last in ranges:
        if first > at:
            out.append((at, first - 1))
        at = last + 1
    return tuple([*out, (at, LAST_POINT)] if at <= LAST_POINT else out)


def overlap(ranges: Ranges, others: Ranges) -> bool:
    return any(a <= d and c <= b for a, b in ranges for c, d in others)


@functools.lru_cache(2)
def _everything(is_short: bool) -> tuple[str, Any]:
    """(representative characters, their code points and the end). A representative stands for all code points
    up to the next one. The short form has three for a plane without assigned characters."""
    plane, ends = np.arange(1 << 16, dtype="<u4"), np.array([0, 0xFFFE, 0xFFFF], "<u4")
    parts = [(ends if is_short and i in _EMPTY_PLANES else plane) + (i << 16) for i in range(17)]
    firsts = np.concatenate(parts, dtype="<u4")
    text = firsts.tobytes().decode("utf-32-le", "surrogatepass")
    return text, np.append(firsts, LAST_POINT + 1)


@functools.lru_cache(1)
def _later() -> Ranges:
    pairs = (word.partition("-") for word in _LATER.split())
    return tuple((int(first, 16), int(last or first, 16)) for first, _, last in pairs)


@functools.lru_cache(256)
def members_of(text: str, ignore_case: bool = False) -> Ranges:
    """The characters of a class in the syntax of `regex`, without its brackets, that are assigned in
    Unicode 17."""
    regex = patterns.package()
    pattern = regex.compile(f"[{text}]+", regex.V0 | (regex.I if ignore_case else 0))
    everything, firsts = _everything(max(text) < "\U00040000" and not _FAR.search(text))
    matches = np.array([m.span() for m in pattern.finditer(everything)], np.int64).reshape(-1, 2)
    ranges = tuple((int(a), int(b) - 1) for a, b in firsts[matches])
    return without(ranges, _later())


def without(ranges: Ranges, removed: Ranges) -> Ranges:
    return complement(union(complement(ranges), removed))


@functools.lru_cache(256)
def property_of(name: str) -> Ranges:
    """The characters of a property, by its name in PCRE2."""
    translated, nested = patterns.translate(f"[\\p{{{name}}}]")
    if nested:
        raise Unfit(name)
    ranges = members_of(translated[1:-1])
    if name in ("C", "Cn"):
        return union(ranges, _later())
    return ranges


# -- the pattern as a tree


class Set(NamedTuple):
    ranges: Ranges


class Join(NamedTuple):
    parts: tuple[Any, ...]


class Choice(NamedTuple):
    parts: tuple[Any, ...]


class Repeat(NamedTuple):
    part: Any
    low: int
    high: int | None
    lazy: bool = False
    possessive: bool = False


class Group(NamedTuple):
    part: Any
    number: int


class Look(NamedTuple):
    """A condition on the next character; `end`: whether the text's end fulfils it."""

    ranges: Ranges
    end: bool
    final_newline: bool = False


class Start(NamedTuple):
    """The beginning of the text."""


_ESCAPED = {"n": 10, "r": 13, "t": 9, "f": 12, "a": 7, "e": 27}


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.groups = 0
        self.ignore_case = False

    def parse(self) -> Any:
        node = self.choice()
        if self.at < len(self.text):
            raise Unfit(f"{self.text[self.at]!r} at {self.at}")
        return node

    def peek(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def skip(self, text: str) -> bool:
        if self.peek(text):
            self.at += len(text)
            return True
        return False

    def take(self) -> str:
        if self.at >= len(self.text):
            raise Unfit("the pattern ends early")
        self.at += 1
        return self.text[self.at - 1]

    def choice(self) -> Any:
        parts = [self.join()]
        while self.skip("|"):
            parts.append(self.join())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def join(self) -> Any:
        parts = []
        while self.at < len(self.text) and not self.peek("|") and not self.peek(")"):
            parts.append(self.repeat(self.atom()))
        _check_possessive(parts)
        return parts[0] if len(parts) == 1 else Join(tuple(parts))

    def repeat(self, node: Any) -> Any:
        bounds: tuple[int, int | None]
        if self.skip("*"):
            bounds = 0, None
        elif self.skip("+"):
            bounds = 1, None
        elif self.skip("?"):
            bounds = 0, 1
        elif self.peek("{"):
            end = self.text.find("}", self.at)
            inner = self.text[self.at + 1 : end] if end > 0 else ""
            low_text, comma, high_text = inner.partition(",")
            if not (low_text.isdecimal() and (high_text.isdecimal() or not high_text)):
                raise Unfit("a brace that is no repetition")
            self.at = end + 1
            least = int(low_text)
            bounds = least, int(high_text) if high_text else None if comma else least
        else:
            return node
        if isinstance(node, (Look, Start)):
            raise Unfit("a condition is repeated")
        lazy, possessive = self.skip("?"), self.skip("+")
        if self.at < len(self.text) and self.text[self.at] in "*+?{":
            raise Unfit("two repetitions")
        return Repeat(node, *bounds, lazy, possessive)

    def atom(self) -> Any:
        letter = self.take()
        if letter == "(":
            return self.group()
        if letter == "[":
            return Set(self.members())
        if letter == ".":
            return Set(complement(((_NEWLINE, _NEWLINE),)))
        if letter == "^":
            return Start()
        if letter == "$":
            return Look((), True, True)
        if letter == "\\":
            return self.escape()
        if letter in "*+?{":
            raise Unfit("a repetition of nothing")
        return Set(self.literal(ord(letter)))

    def literal(self, point: int) -> Ranges:
        if self.ignore_case:
            return members_of(patterns.package().escape(chr(point)), True)
        return ((point, point),)

    def group(self) -> Any:
        before = self.ignore_case
        number = 0
        if self.skip("?:"):
            pass
        elif self.skip("?i:"):
            self.ignore_case = True
        elif self.peek("?=") or self.peek("?!"):
            negative = self.text[self.at + 1] == "!"
            self.at += 2
            node = self.choice()
            if not self.skip(")"):
                raise Unfit("a group without an end")
            ranges = _one_character(node)
            return Look(complement(ranges), True) if negative else Look(ranges, False)
        elif self.peek("?"):
            raise Unfit("a group of another kind")
        else:
            self.groups += 1
            number = self.groups
        node = self.choice()
        if not self.skip(")"):
            raise Unfit("a group without an end")
        self.ignore_case = before
        return Group(node, number) if number else node

    def escape(self) -> Any:
        letter = self.take()
        if letter == "z":
            return Look((), True)
        if letter == "Z":
            return Look((), True, True)
        if letter == "A":
            return Start()
        ranges, single = self.parse_escape(letter)
        return Set(self.literal(single)) if single is not None else Set(ranges)

    def parse_escape(self, letter: str) -> tuple[Ranges, int | None]:
        """(characters of an escape, or the one character that it is)."""
        if letter in patterns.CLASSES or letter.lower() in patterns.CLASSES and letter != "N":
            ranges = members_of(patterns.CLASSES[letter.lower()])
            return (ranges if letter.islower() else complement(ranges)), None
        if letter in "pP":
            name = self.take()
            if name == "{":
                end = self.text.find("}", self.at)
                name, self.at = self.text[self.at : end], end + 1
            if self.ignore_case:
                raise Unfit(name)
            negative = (letter == "P") != name.startswith("^")
            property_ranges = property_of(name.lstrip("^"))
            return (complement(property_ranges) if negative else property_ranges), None
        if letter == "x":
            if self.skip("{"):
                end = self.text.find("}", self.at)
                digits, self.at = self.text[self.at : end], end + 1
            else:
                digits = self.text[self.at : self.at + 2]
                self.at += 2
            try:
                return (), int(digits, 16)
            except ValueError as error:
                raise Unfit("a number that is none") from error
        if letter in _ESCAPED:
            return (), _ESCAPED[letter]
        if letter.isalnum():
            raise Unfit(f"\\{letter}")
        return (), ord(letter)

    def members(self) -> Ranges:
        negative = self.skip("^")
        sets: list[Ranges] = []
        first = True
        while first or not self.peek("]"):
            first = False
            ranges, low = self.member()
            ahead = self.text[self.at + 1 : self.at + 2]
            if low is not None and self.peek("-") and ahead not in ("]", ""):
                self.at += 1
                _, high = self.member()
                if high is None or high < low:
                    raise Unfit("a range of characters")
                ranges = ((low, high),)
                if self.ignore_case:
                    raise Unfit("a range without regard to case")
            elif low is not None:
                ranges = self.literal(low)
            sets.append(ranges)
        self.at += 1
        members = union(*sets)
        return complement(members) if negative else members

    def member(self) -> tuple[Ranges, int | None]:
        letter = self.take()
        if letter == "[" and self.text[self.at : self.at + 1] in (":", ".", "="):
            raise Unfit("a POSIX class")
        if letter != "\\":
            return (), ord(letter)
        letter = self.take()
        if letter == "b":
            return (), 8
        if letter in "BNRX":
            raise Unfit(f"\\{letter} in a class")
        return self.parse_escape(letter)


def _one_character(node: Any) -> Ranges:
    if isinstance(node, Set):
        return node.ranges
    if isinstance(node, Choice):
        return union(*map(_one_character, node.parts))
    raise Unfit("look-ahead at more than one character")


def _check_possessive(parts: Sequence[Any]) -> None:
    """Raise Unfit where a possessive repetition differs from a greedy one: what follows may begin with what
    is repeated."""
    for i, part in enumerate(parts):
        if not isinstance(part, Repeat) or not part.possessive:
            continue
        if not isinstance(part.part, Set):
            raise Unfit("a possessive repetition of more than a class")
        for later in parts[i + 1 :]:
            one = later.part if isinstance(later, Repeat) else later
            if isinstance(one, Look) and one.end:  # the longest repetition comes first
                one = Set(one.ranges)
            if not isinstance(one, Set) or overlap(one.ranges, part.part.ranges):
                raise Unfit("a possessive repetition that matters")
            if not isinstance(later, Repeat) or later.low > 0:
                break


# -- places


class _Places:
    """The pattern as steps: ("set", index), ("split", first, second), ("jump", step), ("start",), ("end",),
    and ("look", index, whether the end of the text fulfils it, whether a last newline does)."""

    def __init__(self, node: Any):
        self.steps: list[tuple[Any, ...]] = []
        self.sets: list[Ranges] = []
        self.add(node)
        self.steps.append(("end",))

    def say(self, *step: Any) -> int:
        if len(self.steps) >= MOST_PLACES:
            raise Unfit("a long pattern")
        self.steps.append(step)
        return len(self.steps) - 1

    def set_of(self, ranges: Ranges) -> int:
        if ranges not in self.sets:
            self.sets.append(ranges)
        return self.sets.index(ranges)

    def add(self, node: Any) -> None:
        if isinstance(node, Set):
            self.say("set", self.set_of(node.ranges))
        elif isinstance(node, Join):
            for part in node.parts:
                self.add(part)
        elif isinstance(node, Choice):
            ends = []
            for part in node.parts[:-1]:
                split = self.say("split", 0, 0)
                self.add(part)
                ends.append(self.say("jump", 0))
                self.steps[split] = ("split", split + 1, len(self.steps))
            self.add(node.parts[-1])
            for end in ends:
                self.steps[end] = ("jump", len(self.steps))
        elif isinstance(node, Repeat):
            self.repeat(node)
        elif isinstance(node, Group):
            self.add(node.part)
        elif isinstance(node, Look):
            self.say("look", self.set_of(node.ranges), node.end, node.final_newline)
        else:
            self.say("start")

    def repeat(self, node: Repeat) -> None:
        if can_be_empty(node.part):
            raise Unfit("a repetition of what may be empty")
        for _ in range(node.low):
            self.add(node.part)
        if node.high is None:
            split = self.say("split", 0, 0)
            self.add(node.part)
            self.say("jump", split)
            self._branch(split, node.lazy)
            return
        splits = []
        for _ in range(node.high - node.low):
            splits.append(self.say("split", 0, 0))
            self.add(node.part)
        for split in splits:
            self._branch(split, node.lazy)

    def _branch(self, split: int, lazy: bool) -> None:
        body, exit = split + 1, len(self.steps)
        self.steps[split] = ("split", exit, body) if lazy else ("split", body, exit)


def can_be_empty(node: Any) -> bool:
    if isinstance(node, Set):
        return False
    if isinstance(node, Join):
        return all(map(can_be_empty, node.parts))
    if isinstance(node, Choice):
        return any(map(can_be_empty, node.parts))
    if isinstance(node, Repeat):
        return node.low == 0 or can_be_empty(node.part)
    if isinstance(node, Group):
        return can_be_empty(node.part)
    return True


# -- the table


class Automaton:
    """`classes`: the class of each code point (u8). `with_heads`: in front of them, which bytes may begin a
    match. `table`: i32 [states, classes + 2], whose last columns are a newline that is the last character and
    the end of the text. An entry is the next state * 2, plus 1 if the pattern has ended before this
    character. State 0 has nothing left. `starts`: the state at the beginning of a text, and elsewhere.
    `empty`: whether the pattern can match nothing. `whole_groups`: groups that are the whole match."""

    def __init__(self, pattern: str):
        parser = _Parser(pattern)
        tree = parser.parse()
        self.groups = parser.groups
        self.whole_groups = _whole_groups(tree)
        self.empty = can_be_empty(tree)
        positions = _Places(tree)
        self.classes, signatures, newline = _classes_of(positions.sets)
        self._steps = positions.steps
        self._looked = 0
        columns = len(signatures)
        numbers: dict[tuple[bool, tuple[int, ...]], int] = {(False, ()): 0}
        waiting: list[tuple[bool, tuple[int, ...]]] = [(True, (0,)), (False, (0,))]
        self.starts = []
        for state in waiting:
            numbers[state] = len(numbers)
            self.starts.append(numbers[state])
        rows: dict[int, list[int]] = {0: [0] * (columns + 2)}
        while waiting:
            state = waiting.pop()
            row = []
            for column in range(columns + 2):
                end, final = column == columns + 1, column == columns
                signature = frozenset[int]() if end else signatures[newline if final else column]
                targets, ended = self._step(state, signature, end, final)
                following = False, targets
                if following not in numbers:
                    if len(numbers) >= MOST_STATES:
                        raise Unfit("many states")
                    numbers[following] = len(numbers)
                    waiting.append(following)
                row.append(numbers[following] * 2 + ended)
            rows[numbers[state]] = row
        self.table = np.array([rows[i] for i in range(len(rows))], np.int32)
        self.with_heads = np.concatenate([self._heads(), self.classes])

    def _heads(self) -> np.ndarray:
        """1 for each byte of UTF-8 that may begin a match after the start, or may be all of one."""
        alive = self.table[self.starts[1], :-2] != 0
        points = alive[self.classes]
        heads = np.zeros(256, np.uint8)
        heads[:128] = points[:128]
        heads[_NEWLINE] |= self.table[self.starts[1], -2] != 0
        for head, first, step in (*((0xC0 + i, i << 6, 1 << 6) for i in range(32)),
                                  *((0xE0 + i, i << 12, 1 << 12) for i in range(16)),
                                  *((0xF0 + i, i << 18, 1 << 18) for i in range(5))):  # fmt: skip
            heads[head] = points[first : first + step].any()
        return np.ones(256, np.uint8) if self.empty else heads

    def _step(
        self, state: tuple[bool, tuple[int, ...]], signature: frozenset[int], end: bool, final: bool
    ) -> tuple[tuple[int, ...], bool]:
        """(places after the next character, whether the pattern has ended before it)."""
        at_start, positions = state
        self._looked += len(positions)
        if self._looked > MOST_STEPS:
            raise Unfit("many places for many states")
        visited: set[int] = set()
        targets: dict[int, None] = {}
        stack = list(reversed(positions))
        while stack:
            position = stack.pop()
            if position in visited:
                continue
            visited.add(position)
            kind, *arguments = self._steps[position]
            if kind == "end":
                return tuple(targets), True
            if kind == "set":
                if not end and arguments[0] in signature:
                    targets[position + 1] = None
            elif kind == "split":
                stack += [arguments[1], arguments[0]]
            elif kind == "jump":
                stack.append(arguments[0])
            elif kind == "start":
                if at_start:
                    stack.append(position + 1)
            elif end and arguments[1] or final and arguments[2] or not end and arguments[0] in signature:
                stack.append(position + 1)
        return tuple(targets), False


def _whole_groups(tree: Any) -> set[int]:
    """0 and the groups that are the whole match: all beside them have no characters."""
    numbers = {0}
    node = tree
    while True:
        if isinstance(node, Group):
            numbers.add(node.number)
            node = node.part
        elif isinstance(node, Join):
            solid = [part for part in node.parts if not _is_condition(part)]
            if len(solid) != 1:
                return numbers
            node = solid[0]
        else:
            return numbers


def _is_condition(node: Any) -> bool:
    if isinstance(node, Group):
        return _is_condition(node.part)
    return isinstance(node, (Look, Start))


def _classes_of(sets: Iterable[Ranges]) -> tuple[np.ndarray, list[frozenset[int]], int]:
    """(the class of each code point, the sets that each class is in, the class of a newline)."""
    all_ranges = list(sets)
    borders = {0, _NEWLINE, _NEWLINE + 1, LAST_POINT + 1}
    for ranges in all_ranges:
        for first, last in ranges:
            borders |= {first, last + 1}
    cuts = np.array(sorted(borders), np.int64)
    within = np.zeros((len(all_ranges), len(cuts) - 1), bool)
    for i, ranges in enumerate(all_ranges):
        if ranges:
            firsts, lasts = np.array(ranges, np.int64).T
            index = np.searchsorted(firsts, cuts[:-1], "right") - 1
            within[i] = (index >= 0) & (cuts[:-1] <= lasts[index.clip(0)])
    names: dict[bytes, int] = {}
    signatures: list[frozenset[int]] = []
    kinds = []
    for column in np.ascontiguousarray(within.T):
        key = column.tobytes()
        if key not in names:
            names[key] = len(names)
            signatures.append(frozenset(np.flatnonzero(column).tolist()))
        kinds.append(names[key])
    if len(names) > MOST_CLASSES:
        raise Unfit("many classes of characters")
    classes = np.repeat(np.array(kinds, np.uint8), np.diff(cuts))
    return classes, signatures, int(classes[_NEWLINE])


@functools.lru_cache(64)
def automaton(pattern: bytes) -> Automaton | None:
    """The table of a pattern; None if it has none."""
    try:
        return Automaton(pattern.decode())
    except (Unfit, UnicodeDecodeError):
        return None
    except OvjitError:
        return None
