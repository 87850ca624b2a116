"""Writes to views in scripts: the tensor that a view is a part of gets a new value, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ovjit.api.model.node import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.values import Number
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.readers.torch.written import WritingReader

#: Puts a view's new value into the tensor that it is a part of: put(call, base, made, the view's arguments).
Put = Callable[[Call, Output, Output, Mapping[str, Any]], Any]


def _scattered(name: str, *given: str) -> Put:
    """By an operator that takes the arguments of the view."""
    return lambda call, base, made, how: call.also(name, base, made, *(how[key] for key in given))


def _reshaped(call: Call, base: Output, made: Output, how: Mapping[str, Any]) -> Output:
    return call.reshape(made, call.shape_of(base))


def _turned(name: str, *given: str) -> Put:
    """By the operator itself, which undoes what it did."""
    return lambda call, base, made, how: call.also(name, made, *(how[key] for key in given))


def _in_old_order(call: Call, base: Output, made: Output, how: Mapping[str, Any]) -> Output:
    axes = call.axes(how["dims"], call.rank(made))
    return call.transpose(made, [axes.index(i) for i in range(len(axes))])


def _narrowed(call: Call, base: Output, made: Output, how: Mapping[str, Any]) -> Any:
    start = how["start"]
    known = call.known_number(start)
    if known is not None and known < 0:
        start = call.compute("Add", call.size(base, how["dim"]), known)
    return call.also(
        "slice_scatter", base, made, how["dim"], start, call.compute("Add", start, how["length"])
    )


#: Operators that give a view, some with their overload. `reshape` may give a copy, and is none.
_BACK: dict[str, Put] = {
    "slice.Tensor": _scattered("slice_scatter", "dim", "start", "end", "step"),
    "select.int": _scattered("select_scatter", "dim", "index"),
    "diagonal": _scattered("diagonal_scatter", "offset", "dim1", "dim2"),
    "narrow": _narrowed,
    "view": _reshaped, "view_as": _reshaped, "unsqueeze": _reshaped, "squeeze": _reshaped,
    "squeeze.dim": _reshaped, "squeeze.dims": _reshaped,
    "transpose.int": _turned("transpose", "dim0", "dim1"), "t": _turned("t"),
    "swapaxes": _turned("swapaxes", "axis0", "axis1"), "swapdims": _turned("swapdims", "dim0", "dim1"),
    "numpy_T": _turned("numpy_T"),
    "mT": _turned("mT"), "permute": _in_old_order,
}  # fmt: skip


#: Operators that give views to which nothing is put back: only new values of the base are seen.
_AGAIN = ("expand", "expand_as", "unfold", "movedim", "unflatten")


class View(NamedTuple):
    """A part of the tensor called `base`; `put` puts a new part in its place, None where nothing can."""

    base: str
    put: Put | None
    arguments: Mapping[str, Any]
    #: The list of parts that it is an item of, by name, and its place there.
    listed: tuple[str, int] | None = None
    #: The operator that gives it, and the body that it is in.
    operator: str = ""
    body: Any = None

    def is_apart(self, other: View | None) -> bool:
        """Whether another view is another item of the same list of parts."""
        mine, its = self.listed, None if other is None else other.listed
        return mine is not None and its is not None and mine[0] == its[0] and mine[1] != its[1]

    def again(self, reader: WritingReader, call: Call, base: Output) -> Output | None:
        """The part of a new value of the base; None where another body's numbers would be needed."""
        listed = self.arguments.get("parts")
        needed = [listed.lengths] if listed is not None else list(self.arguments.values())[1:]
        if reader.around is not self.body and any(map(_is_computed, needed)):
            return None
        if listed is not None:
            return _part(call, base, listed, self.arguments["index"])
        given = {**self.arguments, next(iter(self.arguments)): base}
        name, _, overload = self.operator.partition(".")
        made: Output = reader.call(f"aten::{name}", overload, given, call.base)
        return Output._of(made._node, made._index)


def _is_computed(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_computed, value))
    return isinstance(value, (Output, Number))


class Parts(NamedTuple):
    """A list of parts of the tensor called `base`, one after another along an axis; `put` puts one back."""

    base: str
    put: Put
    axis: int
    lengths: list[Any]

    def item(self, name: str, index: int) -> View:
        index %= len(self.lengths)
        return View(self.base, self.put, {"parts": self, "index": index}, (name, index))


def _row_back(call: Call, base: Output, made: Output, how: Mapping[str, Any]) -> Any:
    return call.also("select_scatter", base, made, how["parts"].axis, how["index"])


def _part_back(call: Call, base: Output, made: Output, how: Mapping[str, Any]) -> Any:
    parts = how["parts"]
    return call.also("slice_scatter", base, made, parts.axis, *_ends(call, parts, how["index"]))


def _ends(call: Call, parts: Parts, index: int) -> tuple[Any, Any]:
    """Where a part begins and ends."""
    start: Any = 0
    for length in parts.lengths[:index]:
        start = call.compute("Add", start, length)
    return start, call.compute("Add", start, parts.lengths[index])


def _part(call: Call, base: Output, parts: Parts, index: int) -> Output:
    if parts.put is _row_back:
        made = call.also("select.int", base, parts.axis, index)
    else:
        made = call.also("slice.Tensor", base, parts.axis, *_ends(call, parts, index))
    return Output._of(made._node, made._index)


#: Operators that give a list of parts.
_LISTS: dict[str, Put] = {
    "unbind": _row_back, "split": _part_back, "split_with_sizes": _part_back, "chunk": _part_back,
    "tensor_split": _part_back,
}  # fmt: skip


def parts_of_list(call: Call, node: Any, kind: str, arguments: Mapping[str, Any], made: Any) -> Parts | None:
    """What the items of an operator's list are parts of, None for other results."""
    put = _LISTS.get(kind.removeprefix("aten::"))
    if put is None or not isinstance(made, list) or not all(isinstance(v, Output) for v in made):
        return None
    base, axis = next(iter(arguments.values())), arguments["dim"]
    if not isinstance(base, Output) or call.rank(base) == 0:
        return None
    axis = call.axis(axis, call.rank(base))
    lengths = [1] * len(made) if put is _row_back else [call.size(v, axis) for v in made]
    return Parts(node.inputsAt(0).debugName(), put, axis, lengths)


def view_of(node: Any, kind: str, overload: str, arguments: Mapping[str, Any]) -> View | None:
    """What an operator's result is a part of, None for results that are no such view."""
    name = kind.removeprefix("aten::")
    full = f"{name}.{overload}" if overload else name
    put = _BACK.get(full)
    if put is None and name not in _AGAIN:
        return None
    return View(node.inputsAt(0).debugName(), put, arguments, operator=full)


def written_back(reader: WritingReader, call: Call, name: str, made: Any) -> list[tuple[Any, Any]]:
    """A view's new value is put into its base, that into its own base, and so on: old and new values."""
    pairs = []
    while isinstance(made, Output) and (view := reader.views.get(name)) is not None:
        base = reader.env[view.base]
        if not isinstance(base, Output) or view.put is None:
            break
        made = reader.env[view.base] = view.put(call, base, made, view.arguments)
        pairs.append((base, made))
        name = view.base
    return pairs
