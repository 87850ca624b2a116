"""Runtime information: `RTMap`, the notes of nodes, ports and models, and `OVAny`, a value of any kind."""

from __future__ import annotations

import enum
import re
import warnings
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

import numpy as np

from ovjit.api.arguments import expect, explain_calls

#: How a bool is spelled in a text.
_BOOLS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}
#: How far a word is a number, without regard to case; no word at all is 0.
_NUMBERS = {int: r"$|[+-]?\d+", float: r"$|[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|nan)"}


def _first_word(text: str) -> str:
    return next(iter(text.split()), "")


@explain_calls
class OVAny:
    """A value of any kind, as runtime information and properties hand it out."""

    __slots__ = ("_value",)

    def __init__(self, value: Any):
        self._value: Any = plain_value(value)

    def __hash__(self) -> int:
        return hash(self._value)

    @property
    def value(self) -> Any:
        return self._value

    def get(self) -> Any:
        return self._value

    def set(self, value: Any) -> None:
        self._value = plain_value(value)

    def astype(self, kind: type) -> Any:
        """The value as `kind` (bool, int, float, str, dict); texts are read, every value can be a text.
        Raises RuntimeError if it cannot be that."""
        value = self._value
        if kind is str:
            return as_text(value)
        if kind is dict:
            if not isinstance(value, dict):
                raise RuntimeError(f"{value!r} is not a dict")
            return _out(value)
        if kind not in (bool, int, float):
            raise RuntimeError(f"Unsupported data type : '{kind}' is passed as an argument.")
        if kind is bool:
            truth = value if isinstance(value, bool) else None
            if isinstance(value, str):
                truth = _BOOLS.get(_first_word(value).lower())
            if truth is None:
                raise RuntimeError(f"Bad cast: {value!r} is not a bool")
            return truth
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return kind(value)
        word = _first_word(value) if isinstance(value, str) else None
        number = None if word is None else re.match(_NUMBERS[kind], word, re.IGNORECASE)
        if number is None:
            raise RuntimeError(f"Bad cast: {value!r} cannot be read as {kind.__name__}")
        return kind(number[0] or 0)

    def aslist(self, dtype: type | None = None) -> list[Any]:
        """The value's items; those of a text are its words, read as `dtype`, and none without one.
        Raises RuntimeError for a value that has no items."""
        value = self._value
        if isinstance(value, str):
            value = value.split() if dtype is not None else []
            return [item if dtype is str else OVAny(item).astype(dtype) for item in value if dtype]
        if isinstance(value, (list, tuple, set, frozenset)):
            return list(value)
        if dtype is None:
            return []
        raise RuntimeError(f"Bad cast: {value!r} is not a list")

    def __eq__(self, other: object) -> bool:
        return _equal(self._value, plain_value(other))

    # a value without items has no such method, and that is what OpenVINO says: AttributeError, not TypeError
    def __getitem__(self, key: Any) -> Any:
        return self._value.__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._value[key] = value

    def __len__(self) -> int:
        return self._value.__len__()

    def __repr__(self) -> str:
        return "<OVAny class>"


def plain_value(value: Any) -> Any:
    """The value that is kept: NumPy's numbers and counts of streams as Python's, bytes as text.
    RuntimeError for a list of several kinds."""
    if isinstance(value, OVAny):
        return value._value
    if isinstance(value, (int, float, str, bool)) or value is None:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {key: plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        if len({type(item) for item in value}) > 1:
            raise RuntimeError("Incorrect attribute. Mixed types in the container are not allowed.")
        return value
    count = getattr(value, "to_integer", None)
    return value if count is None else count()


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays, which are compared item by item
        return False


def as_text(value: Any) -> str:
    """A value as OpenVINO's files spell it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        inner = ",".join(f"{key}:{as_text(item)}" for key, item in value.items())
        return f"{{{inner}}}" if inner else ""
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(map(as_text, value))
    if isinstance(value, enum.Enum):
        return value.name
    name = getattr(value, "get_type_name", None)
    return name() if name is not None and type(value).__name__ == "Type" else str(value)


class RTMap:
    """A mapping of names to values. Values come out as OVAny, nested mappings as dicts of them.

    As in OpenVINO, a key that is not there is made, with the value None.
    """

    __slots__ = ("_items",)

    def __init__(self, _items: dict[str, Any] | None = None):
        self._items = {} if _items is None else _items

    def __getitem__(self, key: str) -> Any:
        return _out(self._items.setdefault(_name(key), None))

    def __setitem__(self, key: str, value: str | int | OVAny) -> None:
        """TypeError for another kind of value, which an OVAny may have."""
        if isinstance(value, (int, np.integer, np.bool_)):
            value = int(value)
        what = "runtime information is a str, an int or an OVAny"
        self._set(key, expect(value, (int, str, OVAny), what))

    def _set(self, key: str, value: Any) -> None:
        """Note a value of any kind."""
        self._items[_name(key)] = value._value if isinstance(value, OVAny) else value

    def __delitem__(self, key: str) -> None:
        del self._items[_name(key)]

    def __contains__(self, key: object) -> bool:
        return _name(key) in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return bool(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def keys(self) -> KeysView[str]:
        return self._values_by_key().keys()

    def values(self) -> ValuesView[Any]:
        return self._values_by_key().values()

    def items(self) -> ItemsView[str, Any]:
        return self._values_by_key().items()

    def _values_by_key(self) -> dict[str, Any]:
        return {key: _out(self._items[key]) for key in sorted(self._items)}

    def __repr__(self) -> str:
        return "<RTMap>"


def _name(key: Any) -> str:
    return expect(key, str, "a key is a str")


class FixedRTMap(RTMap):
    """The notes of a compiled model's port: a key that is not there is a KeyError, and writing gives a
    DeprecationWarning, as in OpenVINO."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        return _out(self._items[_name(key)])

    def _set(self, key: str, value: Any) -> None:
        _warn_of_writing(4)
        super()._set(key, value)

    def __delitem__(self, key: str) -> None:
        _warn_of_writing(3)
        super().__delitem__(key)


def _warn_of_writing(level: int) -> None:
    text = "Setting rt_info via ConstOutput is deprecated and will be removed in version 2027.0. "
    text += "Use a non-const output to modify runtime info."
    warnings.warn(text, DeprecationWarning, stacklevel=level)


def _out(value: Any) -> Any:
    return (
        {key: _out(inner) for key, inner in sorted(value.items())}
        if isinstance(value, dict)
        else OVAny(value)
    )


def lookup(items: dict[str, Any], path: list[str]) -> tuple[bool, Any]:
    """(whether it is there, the value) at a path of keys."""
    item: Any = items
    for key in path:
        if not isinstance(item, dict) or key not in item:
            return False, None
        item = item[key]
    return True, item
