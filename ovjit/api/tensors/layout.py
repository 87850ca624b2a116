"""`Layout`: names for the axes of a tensor, such as NCHW."""

from __future__ import annotations

import re

from ovjit.api.arguments import expect
from ovjit.errors import no_such_constructor

#: Full names of common axes and the letters that they are kept as.
_SHORT = {"B": "N", "BATCH": "N", "CHANNELS": "C", "CHANNEL": "C", "DEPTH": "D", "HEIGHT": "H", "WIDTH": "W"}
_SCALAR = "**SCALAR**"


class Layout:
    """Axis names in order: "NCHW", "N...C" (any axes between), "?" (unnamed), "[batch,height,dim_1]".

    Names are kept in capitals. RuntimeError for a string that can't be read.
    """

    __slots__ = ("_leading", "_open", "_trailing", "_scalar")
    __hash__ = None  # type: ignore[assignment]
    _leading: tuple[str, ...]  # axes counted from the front
    _open: bool  # any number of axes follow them
    _trailing: tuple[str, ...]  # axes counted from the back, after the open part
    _scalar: bool

    def __init__(self, layout_str: str = "") -> None:
        expect(layout_str, str, "a layout is read from a str", no_such_constructor)
        text = layout_str.strip()
        self._scalar = text == _SCALAR
        if self._scalar:
            self._leading, self._open, self._trailing = (), False, ()
            return
        if not layout_str:
            self._leading, self._open, self._trailing = (), True, ()
            return
        axes = _split(text)
        self._open = "..." in axes
        cut = axes.index("...") if self._open else len(axes)
        self._leading, self._trailing = tuple(axes[:cut]), tuple(axes[cut + 1 :])
        named = [axis for axis in self._leading + self._trailing if axis != "?"]
        if len(named) != len(set(named)):
            twice = next(axis for axis in named if named.count(axis) > 1)
            raise RuntimeError(f"Dimension ({twice}) is defined multiple times in layout: {layout_str!r}")

    @staticmethod
    def scalar() -> Layout:
        return Layout(_SCALAR)

    @property
    def empty(self) -> bool:
        """True when the layout says nothing at all."""
        return self._open and not self._leading and not self._trailing

    def has_name(self, dimension_name: str) -> bool:
        return _normalize_name(dimension_name) in self._names()

    def get_index_by_name(self, dimension_name: str) -> int:
        """The axis of that name, counted from the back (-1 the last) after "...". RuntimeError if absent."""
        names = self._names()
        name = _normalize_name(dimension_name)
        if name not in names:
            raise RuntimeError(f"{dimension_name} dimension index is not defined in the layout {self}")
        return names[name]

    def _names(self) -> dict[str, int]:
        names = {axis: index for index, axis in enumerate(self._leading)}
        names.update({axis: index - len(self._trailing) for index, axis in enumerate(self._trailing)})
        names.pop("?", None)
        return names

    def to_string(self) -> str:
        if self._scalar:
            return _SCALAR
        return "[" + ",".join([*self._leading, *(["..."] if self._open else []), *self._trailing]) + "]"

    __str__ = to_string

    def __repr__(self) -> str:
        return f"<Layout: {self.to_string()}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Layout(other)
        if isinstance(other, Layout):
            return self.to_string() == other.to_string()
        return NotImplemented


def _normalize_name(name: str) -> str:
    expect(name, str, "the name of a dimension is a str")
    capitals = name.strip().upper()
    return _SHORT.get(capitals, capitals)


def _split(text: str) -> list[str]:
    """The axes in order, "..." among them at most once; RuntimeError for anything that is no layout."""
    if text.startswith("[") and text.endswith("]"):
        fields = [field.strip() for field in text[1:-1].removesuffix(",").split(",")]
    elif not text:
        raise RuntimeError("a layout of spaces is not valid: pass '' for an empty layout")
    else:
        fields = re.findall(r"\.\.\.|.", text)
    if fields.count("...") > 1:
        raise RuntimeError(f"Multiple ... are not allowed: {text!r}")
    for field in fields:
        if field in ("?", "..."):
            continue
        if not re.fullmatch(r"[A-Za-z0-9_]*[A-Za-z0-9][A-Za-z0-9_]*", field):
            raise RuntimeError(
                f"Layout name is invalid ({field}). Only english letters, digits and _ is allowed: {text!r}"
            )
    return [field if field in ("?", "...") else _normalize_name(field) for field in fields]
