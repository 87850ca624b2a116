"""The tables of a GGUF file's tokenizer, `tokenizer.ggml.*`, checked where they are read."""

from __future__ import annotations

import json
from typing import Any

from ovjit.errors import OvjitError

#: Files may write a missing token as -1 of any width.
_NONE = frozenset((-1, (1 << 32) - 1, (1 << 64) - 1))


class Tables:
    """Metadata by name, from a mapping or a Model's `rt_info["gguf"]`, where lists are JSON. An entry of
    another kind than expected raises OvjitError with its name."""

    def __init__(self, info: Any):
        self._info = info
        self.tokens = self.texts("tokens")

    def text(self, name: str) -> str:
        """An entry as text; "" without one. A name without a dot has the prefix `tokenizer.ggml`."""
        try:
            entry = self._info[_key(name)]
        except (KeyError, RuntimeError, TypeError):
            return ""
        entry = getattr(entry, "value", entry)
        return "" if entry is None else str(entry)

    def number(self, name: str) -> int | None:
        """An integer; None without one."""
        text = self.text(name)
        try:
            return int(text) if text else None
        except ValueError:
            raise _wrong(name, "a whole number", text) from None

    def token(self, name: str) -> int | None:
        """The number of a token; None without one."""
        token = self.number(name)
        if token is None or token in _NONE:
            return None
        if not 0 <= token < len(self.tokens):
            raise _wrong(name, f"one of {len(self.tokens)} token indices", str(token))
        return token

    def flag(self, name: str, default: bool = False) -> bool:
        """The value of a boolean entry."""
        text = self.text(name).lower()
        return text in ("true", "1") if not default else text not in ("false", "0")

    def texts(self, name: str) -> list[str]:
        """A list of texts in valid Unicode; [] without one."""
        texts = self._list(name)
        for value in texts:
            if not isinstance(value, str):
                raise _wrong(name, "a list of texts", repr(value))
        return [text.encode("utf-8", "replace").decode() for text in texts]

    def reals(self, name: str) -> list[float]:
        """A list of numbers."""
        numbers = self._list(name)
        for value in numbers:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise _wrong(name, "a list of numbers", repr(value))
        return numbers

    def types(self) -> list[int]:
        """The type of each token; [] if the file does not have them."""
        types = self._integers("token_type")
        if types and len(types) != len(self.tokens):
            raise OvjitError(
                f"tokenizer.ggml.token_type has {len(types)} entries, but {len(self.tokens)} tokens exist"
            )
        return types

    def bytes(self, name: str) -> bytes:
        """A list of bytes, which some writers store as signed ones."""
        numbers = self._integers(name)
        if not all(-128 <= x < 256 for x in numbers):
            raise _wrong(name, "a list of bytes", str(numbers))
        return bytes(x & 255 for x in numbers)

    def _integers(self, name: str) -> list[int]:
        integers = self._list(name)
        for value in integers:
            if type(value) is not int:
                raise _wrong(name, "a list of whole numbers", repr(value))
        return integers

    def _list(self, name: str) -> list[Any]:
        text = self.text(name)
        try:
            entries = json.loads(text) if text else []
        except (ValueError, RecursionError):
            raise _wrong(name, "a list", text) from None
        if not isinstance(entries, list):
            raise _wrong(name, "a list", text)
        return entries


def _key(name: str) -> str:
    return name if "." in name else f"tokenizer.ggml.{name}"


def _wrong(name: str, expected: str, actual: str) -> OvjitError:
    return OvjitError(f"{_key(name)} should be {expected}, not {actual:.80}")
