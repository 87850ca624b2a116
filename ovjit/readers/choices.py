"""The declaration of an attribute that is a choice: the words or numbers that it may be.

Readers have tables of these. What a file says is compared before a rule reads it, so that an unknown word is
an error and never the default.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ovjit.errors import ModelError
from ovjit.records import NamedTuple


def unknown_choice(attribute: str, value: Any, words: Iterable[Any]) -> ModelError:
    """The error for an attribute that is none of its choices."""
    text = repr(value[:40] if isinstance(value, str) else value)[:80]
    allowed = ", ".join(str(word) or "''" for word in words)
    return ModelError(f"the attribute {attribute!r} is {text}, which is none of its choices: {allowed}")


class Choice(NamedTuple):
    """Allowed values of an attribute, texts or numbers. In a list, each element must be one of them."""

    words: tuple[Any, ...]
    any_case: bool = False

    def fits(self, value: Any) -> bool:
        """True if the value is one of the words."""
        candidate = value.lower() if self.any_case and isinstance(value, str) else value
        return any(type(word) is type(candidate) and word == candidate for word in self.words)

    def check(self, attribute: str, value: Any) -> None:
        """Raise ModelError, with the choices, if the value is none of them."""
        if self is TEXT:
            return
        for each in dict.fromkeys(value) if isinstance(value, (list, tuple)) else (value,):
            if not self.fits(each):
                raise unknown_choice(attribute, each, self.words)


#: Any text: a name, a pattern, a label.
TEXT = Choice(())
#: False or true, as formats without booleans write it.
FLAG = Choice((0, 1))


def one_of(words: str | Iterable[Any], any_case: bool = False) -> Choice:
    """A choice of words, which are separated by spaces in a text. In `any_case`, they are in lower case."""
    return Choice(tuple(words.split() if isinstance(words, str) else words), any_case)
