r"""Regular expressions of PCRE2 (with UTF and UCP) by the package `regex`.

Both know nearly the same syntax. These differ and are rewritten: `\s` has U+180E, `\w` and `\b` know letters,
numbers, nonspacing marks and connectors, a script stands for its extensions, and `\x{...}`, `\z`, `\Z`,
`\h`, `\R`, `\N` and POSIX classes are written otherwise.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ovjit.errors import UnsupportedError

_SPACE = r"\s\u180e"
_WORD = r"\p{L}\p{N}\p{Mn}\p{Pc}"
_HORIZONTAL = r"\t \xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000"
_VERTICAL = r"\n\x0b\f\r\x85\u2028\u2029"
#: Escape -> the members of its class. A capital letter is the complement.
CLASSES = {"s": _SPACE, "w": _WORD, "d": r"\p{Nd}", "h": _HORIZONTAL, "v": _VERTICAL}
_ESCAPES = {
    "b": f"(?:(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}]))",
    "B": f"(?:(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}]))",
    "z": r"\Z",
    "Z": r"(?=\n?\Z)",
    "R": r"(?>\r\n|[\n\x0b\f\r\x85\u2028\u2029])",
    "N": r"[^\n]",
    "e": r"\x1b",
}
_POSIX = {
    "alpha": r"\p{L}", "lower": r"\p{Ll}", "upper": r"\p{Lu}", "alnum": r"\p{L}\p{N}", "digit": r"\p{Nd}",
    "space": _SPACE, "blank": _HORIZONTAL, "cntrl": r"\p{Cc}", "word": _WORD, "ascii": r"\x00-\x7f",
    "punct": r"\p{P}$+<=>\^`|~", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
#: Patterns of early tokenizers that the package replaces.
_REPLACED = {
    r" ([\\.\\?\\!,])| ('[ms])| (') | ('[rv]e)| (n't)":
        r"(?| ([\\.\\?\\!,])| ('[ms])| (') | ('[rv]e)| (n't))",
    r"(^)(.)": r"(^)([\s\S])",
    r"(^)(.+)": r"(^)([\s\S])",
}  # fmt: skip
_GENERAL = re.compile(r"(?:[LMNPSZC][a-z&]?|L&|Any|Xan|Xsp|Xps|Xwd)$")
_XAN = {"Xan": r"\p{L}\p{N}", "Xwd": r"\p{L}\p{N}\p{Mn}\p{Pc}", "Xsp": _SPACE, "Xps": _SPACE,
        "L&": r"\p{Lu}\p{Ll}\p{Lt}"}  # fmt: skip


def package() -> Any:
    """The package `regex`. Raises UnsupportedError if it is not installed."""
    try:
        import regex
    except ImportError as error:
        raise UnsupportedError(
            "tokenizers with regular expressions need the package regex: pip install regex"
        ) from error
    return regex


def earlier(pattern: str) -> str:
    """The pattern that stands for one of early tokenizers."""
    return _REPLACED.get(pattern, pattern)


class _Reader:
    """Rewrites one pattern."""

    def __init__(self, pattern: str):
        self.text = pattern
        self.at = 0
        #: Whether a class has a class inside, which version 1 of the syntax allows. Its other differences,
        #: such as full case folding, are not PCRE2's.
        self.nested = False

    def __iter__(self) -> Iterator[str]:
        while self.at < len(self.text):
            letter = self.take()
            if letter == "\\":
                yield self.escape(inside=False)
            elif letter == "[":
                yield self.members()
            else:
                yield letter

    def take(self) -> str:
        self.at += 1
        return self.text[self.at - 1]

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def until(self, end: str) -> str:
        last = self.text.find(end, self.at)
        if last < 0:
            raise UnsupportedError(
                f"the pattern {self.text!r} has no {end!r} after {self.text[self.at - 1]!r}"
            )
        text = self.text[self.at : last]
        self.at = last + len(end)
        return text

    def escape(self, inside: bool) -> str:
        if self.at >= len(self.text):
            raise UnsupportedError(f"the pattern {self.text!r} ends in a backslash")
        letter = self.take()
        if letter.lower() in CLASSES and not (letter == "N" or inside and letter == "b"):
            members = CLASSES[letter.lower()]
            if letter.islower():
                return members if inside else f"[{members}]"
            return self.complement(letter) if inside else f"[^{members}]"
        if letter == "x":
            return self.number()
        if letter in "pP":
            return self.property(letter, inside)
        if letter == "Q":
            last = self.text.find(r"\E", self.at)
            last = len(self.text) if last < 0 else last
            quoted, self.at = self.text[self.at : last], min(last + 2, len(self.text))
            return package().escape(quoted, special_only=True)
        if letter == "E":
            return ""
        if inside:
            return r"\x08" if letter == "b" else f"\\{letter}"
        if letter in "KXCG":
            raise UnsupportedError(f"the pattern {self.text!r} has \\{letter}, which ovjit does not support")
        return _ESCAPES.get(letter, f"\\{letter}")

    def complement(self, letter: str) -> str:
        self.nested = True
        return f"[^{CLASSES[letter.lower()]}]"

    def number(self) -> str:
        if self.peek() == "{":
            self.take()
            digits = self.until("}")
        else:
            match = re.match("[0-9A-Fa-f]{0,2}", self.text[self.at :])
            assert match is not None
            digits = match.group() or "0"
            self.at += len(match.group())
        code = int(digits, 16)
        return f"\\U{code:08x}" if code > 0xFF else f"\\x{code:02x}"

    def property(self, letter: str, inside: bool) -> str:
        name = self.until("}") if self.peek() == "{" and self.take() else self.take()
        negative = letter == "P"
        if name.startswith("^"):
            name, negative = name[1:], not negative
        name = name.replace(" ", "")
        letter = "P" if negative else "p"
        if name == "Any":
            return r"\x00-\U0010ffff" if inside else r"[\x00-\U0010ffff]"
        if name in _XAN:
            members = _XAN[name]
            if negative:
                self.nested = self.nested or inside
                return f"[^{members}]"
            return members if inside else f"[{members}]"
        if _GENERAL.fullmatch(name) or "=" in name or ":" in name:
            return f"\\{letter}{{{name}}}"
        if _is_script(name):
            return f"\\{letter}{{scx={name}}}"
        return f"\\{letter}{{{name}}}"

    def members(self) -> str:
        """Read a class in brackets after its opening bracket. Returns it in the syntax of `regex`."""
        out = ["["]
        if self.peek() == "^":
            out.append(self.take())
        first = True
        while True:
            if self.at >= len(self.text):
                raise UnsupportedError(f"the pattern {self.text!r} has a class without an end")
            letter = self.take()
            if letter == "]" and not first:
                return "".join([*out, "]"])
            first = False
            if letter == "[" and self.peek() == ":" and ":]" in self.text[self.at :]:
                self.take()
                name = self.until(":]")
                negative = name.startswith("^")
                name = name.lstrip("^")
                if name not in _POSIX:
                    raise UnsupportedError(f"the pattern {self.text!r} has the class [:{name}:]")
                self.nested = self.nested or negative
                out.append(f"[^{_POSIX[name]}]" if negative else _POSIX[name])
            elif letter == "\\":
                out.append(self.escape(inside=True))
            elif letter in "[]&~|" or letter == "-" and self.peek() == "-":
                out.append(f"\\{letter}")  # characters with a meaning in version 1
            else:
                out.append(letter)


@functools.cache
def _is_script(name: str) -> bool:
    regex = package()
    try:
        regex.compile(rf"\p{{scx={name}}}")
    except regex.error:
        return False
    return True


def translate(pattern: str) -> tuple[str, bool]:
    """(the pattern for `regex`, whether it is one of version 1). Raises UnsupportedError."""
    reader = _Reader(pattern)
    return "".join(reader), reader.nested


@functools.lru_cache(256)
def compile_pattern(pattern: bytes) -> Any:
    """The pattern, compiled; None for one that PCRE2 refuses, which matches nothing."""
    regex = package()
    try:
        text = pattern.decode()
    except UnicodeDecodeError:
        return None
    try:
        translated, nested = translate(text)
        return regex.compile(translated, regex.V1 if nested else regex.V0)
    except regex.error:
        return None


class Offsets:
    """Indices of characters as indices of bytes."""

    def __init__(self, text: bytes):
        self._starts: list[int] | None = None
        if not text.isascii():
            array = np.frombuffer(text, np.uint8)
            self._starts = [*np.flatnonzero((array & 0xC0) != 0x80).tolist(), len(text)]

    def __getitem__(self, index: int) -> int:
        return index if self._starts is None else self._starts[index]


def decode_text(text: bytes) -> str | None:
    """The text; None if it is not UTF-8, in which PCRE2 finds nothing."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def matches(pattern: Any, text: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of each match in bytes. The first empty match is the last."""
    string = decode_text(text) if pattern is not None else None
    if string is None:
        return
    at = Offsets(text)
    for match in pattern.finditer(string):
        begin, end = match.span()
        if begin == end:
            return
        yield at[begin], at[end]


_TEMPLATE = re.compile(rb"\$(?:\$|(\d+)|\{(\d+)\}|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")


class _Refused(Exception):
    """A replacement names a group that is missing or took no part in the match."""


def substitute(pattern: bytes, replacement: bytes, everywhere: bool) -> Callable[[bytes], bytes]:
    r"""The function that replaces the matches of `pattern` (all, or the first). In the replacement, \1 to \9
    and $1 are groups. A text in which a named group is not set stays as it is."""
    expression = compile_pattern(
        earlier(pattern.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    )
    template = template_of(replacement)
    parts = parts_of(template)
    groups = 1 + (expression.groups if expression is not None else 0)

    def replace(text: bytes) -> bytes:
        if expression is None or parts is None:
            return text
        string = text.decode("utf-8", "surrogateescape")  # bytes that are not UTF-8 are characters
        try:
            replaced = expression.sub(expand, string, 0 if everywhere else 1).encode(
                "utf-8", "surrogateescape"
            )
        except _Refused:
            return text
        # the size of the buffer that the package provides
        return replaced if len(replaced) <= 4 * (len(text) + groups * len(template)) else text

    def expand(match: Any) -> str:
        out = []
        for part in parts or ():
            if isinstance(part, str):
                out.append(part)
                continue
            try:
                group = match.group(part[0])
            except (IndexError, KeyError) as error:
                raise _Refused from error
            if group is None:
                raise _Refused
            out.append(group)
        return "".join(out)

    return replace


def template_of(replacement: bytes) -> bytes:
    r"""The replacement with $1 to $9 for \1 to \9."""
    return re.sub(rb"\\([1-9])", rb"$\1", replacement)


def parts_of(template: bytes) -> list[Any] | None:
    """Texts, and groups as tuples; None for a template that PCRE2 refuses."""
    parts: list[Any] = []
    at = 0
    try:
        for match in _TEMPLATE.finditer(template):
            parts.append(template[at : match.start()].decode())
            number = match.group(1) or match.group(2)
            name = match.group(3) or match.group(4)
            if number:
                parts.append((int(number),))
            else:
                parts.append((name.decode(),) if name else "$")
            at = match.end()
        parts.append(template[at:].decode())
    except UnicodeDecodeError:
        return None
    literals = [part for part in parts if isinstance(part, str)]
    return None if any("$" in part and part != "$" for part in literals) else [p for p in parts if p != ""]
