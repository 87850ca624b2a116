"""Writes to views in scripts: the tensor that a view is a part of gets a new value, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovjit.api.model.node import Output
from ovjit.readers.torch.call import Call
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.readers.torch.script import ScriptReader

#: Operator that gives a view, with its overload -> the one that puts the view back, and its arguments.
_BACK = {
    ("aten::slice", "Tensor"): ("slice_scatter", ("dim", "start", "end", "step")),
    ("aten::select", "int"): ("select_scatter", ("dim", "index")),
}


class View(NamedTuple):
    """A part of the tensor called `base`; `back` puts a new part in its place."""

    base: str
    back: str
    arguments: list[Any]


def view_of(node: Any, kind: str, overload: str, arguments: Mapping[str, Any]) -> View | None:
    """What an operator's result is a part of, None for results that are no such view."""
    row = _BACK.get((kind, overload))
    return None if row is None else View(node.inputsAt(0).debugName(), row[0], [arguments[k] for k in row[1]])


def written_back(reader: ScriptReader, call: Call, name: str, made: Any) -> list[tuple[Any, Any]]:
    """A view's new value is put into its base, that into its own base, and so on: old and new values."""
    pairs = []
    while isinstance(made, Output) and (view := reader.views.get(name)) is not None:
        base = reader.env[view.base]
        if not isinstance(base, Output):
            break
        made = reader.env[view.base] = call.also(view.back, base, made, *view.arguments)
        pairs.append((base, made))
        name = view.base
    return pairs
