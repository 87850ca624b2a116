"""Runtime information: `RTMap`, the notes of nodes, ports and models, and `OVAny`, a value of any kind."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any


class OVAny:
    """A value of any kind, as runtime information and properties hand it out."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any):
        self._value: Any = value._value if isinstance(value, OVAny) else value

    @property
    def value(self) -> Any:
        return self._value

    def get(self) -> Any:
        return self._value

    def set(self, value: Any) -> None:
        self._value = value._value if isinstance(value, OVAny) else value

    def astype(self, kind: type) -> Any:
        """The value as `kind` (bool, int, float, str, dict). Raises RuntimeError if it cannot be that."""
        value = self._value
        if kind is bool and isinstance(value, str):
            if value.strip().lower() in ("yes", "true", "1"):
                return True
            if value.strip().lower() in ("no", "false", "0"):
                return False
            raise RuntimeError(f"{value!r} is no bool")
        if kind not in (bool, int, float, str, dict):
            raise RuntimeError(f"a value cannot be read as {kind!r}")
        try:
            return kind(value)
        except (TypeError, ValueError) as error:
            raise RuntimeError(f"{value!r} cannot be read as {kind.__name__}") from error

    def aslist(self, dtype: type | None = None) -> list[Any]:
        """The value's items. Raises RuntimeError if it has none."""
        if not isinstance(self._value, (list, tuple)):
            raise RuntimeError(f"{self._value!r} is no list")
        return [v if dtype is None else dtype(v) for v in self._value]

    def __eq__(self, other: object) -> bool:
        return bool(self._value == (other._value if isinstance(other, OVAny) else other))

    def __getitem__(self, key: Any) -> Any:
        return self._value[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._value[key] = value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return "<OVAny class>"


class RTMap:
    """A mapping of names to values. Values come out as OVAny, nested mappings as dicts of them.

    As in OpenVINO, a key that is not there is made, with the value None.
    """

    __slots__ = ("_items",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, _items: dict[str, Any] | None = None):
        self._items = {} if _items is None else _items

    def __getitem__(self, key: str) -> Any:
        return _out(self._items.setdefault(key, None))

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a key is a str, not {type(key).__name__}")
        self._items[key] = value._value if isinstance(value, OVAny) else value

    def __delitem__(self, key: str) -> None:
        del self._items[key]

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return bool(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def keys(self) -> KeysView[str]:
        return self._shown().keys()

    def values(self) -> ValuesView[Any]:
        return self._shown().values()

    def items(self) -> ItemsView[str, Any]:
        return self._shown().items()

    def _shown(self) -> dict[str, Any]:
        return {key: _out(self._items[key]) for key in sorted(self._items)}

    def __repr__(self) -> str:
        return "<RTMap>"


def _out(value: Any) -> Any:
    return (
        {key: _out(inner) for key, inner in sorted(value.items())}
        if isinstance(value, dict)
        else OVAny(value)
    )


def lookup(items: dict[str, Any], path: list[str]) -> tuple[bool, Any]:
    """(whether it is there, the value) at a path of keys."""
    found: Any = items
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return False, None
        found = found[key]
    return True, found
