"""Views in scripts: a part of a tensor's new value, and a new part put into the tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovjit.build import Output, wrap_port
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.graph import TorchReader
from ovjit.readers.torch.values import Complex
from ovjit.records import NamedTuple

#: Puts a view's new value into the tensor that it is a part of: put(call, base, made, the view's arguments).
Put = Callable[[Call, Any, Any, Mapping[str, Any]], Any]


def _scatter_back(name: str, *keys: str) -> Put:
    """Return a write-back that calls the scatter operator `name` with the view's arguments."""
    return lambda call, base, part, how: call.also(name, base, part, *(how[key] for key in keys))


def _reshape_back(call: Call, base: Output, part: Output, how: Mapping[str, Any]) -> Output:
    return call.reshape(part, call.shape_of(base))


def _undo_by_itself(name: str, *keys: str) -> Put:
    """Return a write-back that calls the operator `name`, which is its own inverse."""
    return lambda call, base, part, how: call.also(name, part, *(how[key] for key in keys))


def _in_old_order(call: Call, base: Output, part: Output, how: Mapping[str, Any]) -> Output:
    axes = call.axes(how["dims"], call.rank(part))
    return call.transpose(part, [axes.index(i) for i in range(len(axes))])


def _narrow_back(call: Call, base: Output, part: Output, how: Mapping[str, Any]) -> Any:
    start = how["start"]
    constant = call.known_number(start)
    if constant is not None and constant < 0:
        start = call.compute("Add", call.size(base, how["dim"]), constant)
    return call.also(
        "slice_scatter", base, part, how["dim"], start, call.compute("Add", start, how["length"])
    )


#: Operators that give a view, some with their overload.
_BACK: dict[str, Put] = {
    "slice.Tensor": _scatter_back("slice_scatter", "dim", "start", "end", "step"),
    "select.int": _scatter_back("select_scatter", "dim", "index"),
    "narrow": _narrow_back,
    "view": _reshape_back, "view_as": _reshape_back, "unsqueeze": _reshape_back, "squeeze": _reshape_back,
    "squeeze.dim": _reshape_back, "squeeze.dims": _reshape_back,
    "reshape": _reshape_back, "reshape_as": _reshape_back,
    "flatten": _reshape_back, "ravel": _reshape_back, "contiguous": _reshape_back,
    "unflatten.int": _reshape_back,
    "transpose.int": _undo_by_itself("transpose", "dim0", "dim1"), "t": _undo_by_itself("t"),
    "swapaxes": _undo_by_itself("swapaxes", "axis0", "axis1"),
    "swapdims": _undo_by_itself("swapdims", "dim0", "dim1"),
    "numpy_T": _undo_by_itself("numpy_T"),
    "mT": _undo_by_itself("mT"), "permute": _in_old_order,
    "expand": _reshape_back, "expand_as": _reshape_back,  # writes to what is repeated are errors
    "as_strided": _scatter_back("as_strided_scatter", "size", "stride", "storage_offset"),
    "real": lambda call, base, part, how: (
        call.complex_of(part, call.part(base, 1)) if isinstance(base, Complex) else part
    ),
    "imag": lambda call, base, part, how: call.complex_of(call.part(base, 0), part),
    "view_as_real": lambda call, base, part, how: Complex(part),
    "view_as_complex": lambda call, base, part, how: part.pair,
}  # fmt: skip
#: Operators that give views whose elements are found in the tensor by numbering these.
_NUMBERED = ("diagonal", "unfold", "movedim.int", "movedim.intlist")


def _by_numbers(reader: TorchReader, call: Call, base: Output, part: Output, view: View) -> Output:
    """Write a view back by scattering at the positions that the view of all indices has."""
    numbers = call.reshape(call.arange(call.index(call.count(base))), call.shape_of(base))
    positions = view.apply(reader, call, numbers)
    flat = call("ScatterUpdate", call.flat(base), call.flat(positions), call.flat(part), 0)
    return call.reshape(flat, call.shape_of(base))


class View(NamedTuple):
    """A tensor as a view of another one: the operator that returns it, and its arguments."""

    #: The operator that gives the part, with its overload, and its arguments. Two may be added: `parts`, the
    #: list of parts that it is an item of, and `condition`, by which it is a part, and else a copy.
    operator: str
    arguments: Mapping[str, Any]

    @classmethod
    def of_shape(cls, operator: str, arguments: Mapping[str, Any]) -> View:
        """A view of all elements in another shape."""
        return cls(operator.removeprefix("aten::"), arguments)

    def is_other_item(self, other: View) -> bool:
        """Whether another view is a different item of the same list of slices."""
        mine, its = self.arguments.get("parts"), other.arguments.get("parts")
        return mine is not None and mine is its and self.arguments["index"] != other.arguments["index"]

    def back(self, reader: TorchReader, call: Call, base: Any, part: Any) -> Any:
        """The base tensor after a write of `part` to the view; None if it cannot be computed."""
        parts = self.arguments.get("parts")
        if parts is not None:
            return parts.replace_part(call, base, part, self.arguments)
        if isinstance(base, Complex) and isinstance(part, Complex) and "condition" not in self.arguments:
            components = [self.back(reader, call, call.part(base, i), call.part(part, i)) for i in (0, 1)]
            return None if None in components else call.complex_of(*components)
        write_back = _BACK.get(self.operator) or _BACK.get(self.operator.partition(".")[0])
        if isinstance(base, Complex) and self.operator not in _OF_COMPLEX:
            return None
        if write_back is None and self.operator not in _NUMBERED:
            return None
        if write_back is None:
            new = _by_numbers(reader, call, base, part, self)
        else:
            new = write_back(call, base, part, self.arguments)
        return self._either(call, new, base)

    def again(self, reader: TorchReader, call: Call, base: Any, old: Any) -> Any:
        """The view of the new value `base` of a tensor that was `old`; None if it cannot be computed."""
        parts = self.arguments.get("parts")
        if parts is not None:
            return _part(call, base, parts, self.arguments["index"])
        return self._either(call, self.apply(reader, call, base), old)

    def apply(self, reader: TorchReader, call: Call, base: Any) -> Any:
        """Apply the view's operator to a tensor."""
        arguments = {k: v for k, v in self.arguments.items() if k != "condition"}
        arguments[next(iter(arguments))] = base
        name, _, overload = self.operator.partition(".")
        return as_own_tensor(reader.call(f"aten::{name}", overload, arguments, call.base))

    def _either(self, call: Call, new: Any, old: Any) -> Any:
        """Select the new value if the tensor is a view, and the old one if it is a copy."""
        condition = self.arguments.get("condition")
        if condition is None:
            return new
        truth = call.tensor(condition.decide(call), "boolean")
        return call("Select", truth, new, old)


def begins_first(view: View) -> bool:
    """Whether the first element of a view is that of its base."""
    name = view.operator.partition(".")[0]
    return _BACK.get(view.operator, _BACK.get(name)) in (_reshape_back, _in_old_order) or name in _FIRST


#: Operators that give views of another order, beside `permute`.
_FIRST = ("transpose", "t", "swapaxes", "swapdims", "numpy_T", "mT", "unfold", "movedim")
#: Views of complex tensors that are real.
_OF_COMPLEX = ("real", "imag", "view_as_real")


def as_own_tensor(value: Any) -> Any:
    """A tensor as a new object."""
    if type(value) is Output:
        return wrap_port(Output, value)
    return Complex(value.pair) if type(value) is Complex else value


class Parts(NamedTuple):
    """A list of consecutive slices of a tensor along an axis; `replace_part` writes one back."""

    replace_part: Put
    axis: int
    lengths: list[Any]

    def item(self, index: int) -> View:
        return View("", {"parts": self, "index": index})


def _row_back(call: Call, base: Output, part: Output, how: Mapping[str, Any]) -> Any:
    return call.also("select_scatter", base, part, how["parts"].axis, how["index"])


def _part_back(call: Call, base: Output, part: Output, how: Mapping[str, Any]) -> Any:
    parts = how["parts"]
    return call.also("slice_scatter", base, part, parts.axis, *_ends(call, parts, how["index"]))


def _ends(call: Call, parts: Parts, index: int) -> tuple[Any, Any]:
    """Return the start and the end index of a part."""
    start: Any = 0
    for length in parts.lengths[:index]:
        start = call.compute("Add", start, length)
    return start, call.compute("Add", start, parts.lengths[index])


def _part(call: Call, base: Output, parts: Parts, index: int) -> Output:
    if parts.replace_part is _row_back:
        result = call.also("select.int", base, parts.axis, index)
    else:
        result = call.also("slice.Tensor", base, parts.axis, *_ends(call, parts, index))
    return wrap_port(Output, result)


#: Operators that give a list of parts.
_LISTS: dict[str, Put] = {
    "unbind": _row_back, "split": _part_back, "split_with_sizes": _part_back, "chunk": _part_back,
    "tensor_split": _part_back,
}  # fmt: skip


def parts_of_list(call: Call, kind: str, arguments: Mapping[str, Any], items: Any) -> Parts | None:
    """The tensor of which the items of an operator's list result are slices; None for other results."""
    write_item = _LISTS.get(kind.removeprefix("aten::"))
    if write_item is None or not isinstance(items, list) or not all(isinstance(v, Output) for v in items):
        return None
    base, axis = next(iter(arguments.values())), arguments["dim"]
    if not isinstance(base, Output) or call.rank(base) == 0:
        return None
    axis = call.axis(axis, call.rank(base))
    lengths = [1] * len(items) if write_item is _row_back else [call.size(v, axis) for v in items]
    return Parts(write_item, axis, lengths)


def view_of(kind: str, overload: str, arguments: Mapping[str, Any]) -> View | None:
    """Return an operator's result as a view of its first argument, or None if it is not a supported view."""
    name = kind.removeprefix("aten::")
    full = f"{name}.{overload}" if overload else name
    return View(full, arguments) if full in _BACK or full in _NUMBERED else None


def picked_view(call: Call, kind: str, base: Output, arguments: Mapping[str, Any], index: int) -> View:
    """Return the view of one item of a list of unknown length. Negative indices count from the end."""
    axis = call.axis(arguments["dim"], call.rank(base))
    if kind == "aten::unbind":
        return View("select.int", {"self": base, "dim": axis, "index": index})
    length: Any = arguments["split_size"]
    at: Any = index
    if index < 0:
        more = call.compute("Add", call.size(base, axis), call.compute("Subtract", length, 1))
        at = call.compute("Add", call.compute("Divide", more, length), index)
    start = call.compute("Multiply", at, length)
    ends = {"start": start, "end": call.compute("Add", start, length), "step": 1}
    return View("slice.Tensor", {"self": base, "dim": axis, **ends})
