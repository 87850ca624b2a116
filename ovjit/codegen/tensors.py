"""Tensors as parameters of kernels: named axes, and the items that a kernel is launched over.

    @kernel(over="r h", x="n c:1 h w", y="r c:1 h w", window=Window)
    def example(x: Tensor, y: Tensor, window, factor, *, T):
        for r, i, target in items(y):
            source = x.at(h=i * window.stride)
            for k in range(0, y.size.c, VL):
                ...

A declaration lists the axes of a tensor, as einops does. Axes of the same name have the same extent. `c:1`
marks an axis whose elements are adjacent. `...` stands for all other axes, which the launch merges into at
most WALKED. Tensors that have it share these axes. An empty declaration is memory of any shape. A class with
`_fields` declares a structure of integers.

`over` lists the axes of the item space, the last one fastest. An axis may be split. With `c/VL` an item has a
vector of elements along c, with `c/4VL` four vectors, with `c/8` eight elements. With `c/block` it has as
many as the argument or constant `block` says. `... lanes/VL` splits the fastest of the other axes, which is
then called `lanes`. `lanes/VL:1` requires adjacent elements along it. A name that is not an axis is an
argument: the extent of a further axis of the item space.

    x                    the address of the first element
    x.stride.h           the bytes from one element to the next along h
    x.size.h             the extent of h
    x.at(h=i), x.at(p, h=i)
                         the address of an element, from the first one or from p
    window.stride        a field of a structure
    for r, p, q in items(x, y)
                         the items of a chunk: the index along each named axis of `over`, of a split one the
                         first, and the address of the item in each of the given tensors

This module derives the argument block from the declaration. `ovjit.planning.launch` derives its values, the
checks of shapes and strides, and the bytes that an item touches. Arguments that a kernel does not read are
not in its block.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit.codegen.memory import WALKED
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.codegen.expressions import Expressions
    from ovjit.codegen.kernel_printing import Printer

REST, LANES = "...", "lanes"
#: Arguments that the launch adds: number of items, items per chunk, number of parts of a split axis.
ITEMS, PER_CHUNK, BLOCKS = "item_count", "per_chunk", "blocks"
#: Prefix of the variables that count an item's indices along `...` and the following axes.
_COUNTER = "along"

_OVER = re.compile(r"(\.\.\.|\w+)(?:/(?:(\d*)(VL)|([a-z_]\w*|\d+))(:1)?)?")


class Split(NamedTuple):
    """The elements of a split axis in an item: a number, a number of vectors, or the value of an argument or
    constant."""

    size: int | str
    vectors: bool
    adjacent: bool

    def elements(self, vector: int, values: Mapping[str, Any]) -> int:
        """The elements of an item. `vector`: lanes of a vector. `values`: arguments and constants."""
        size: int = values[self.size] if isinstance(self.size, str) else self.size
        return size * vector if self.vectors else size

    def text(self, names: Mapping[str, Any]) -> str:
        if not self.vectors:
            return str(names.get(self.size, self.size) if isinstance(self.size, str) else self.size)
        return f"({self.size} * VL)" if self.size != 1 else "VL"


class Raw:
    """Declares a structure whose fields are arguments with their own names, for kernels that declare strides
    and extents one by one: `Raw("*table part rows")`, where a star marks an address. Instead of the text, a
    class with `_fields` may be given."""

    def __init__(self, structure: Any):
        self.structure = structure


#: The arguments of `share`: number of items, and items per chunk.
SHARE = Raw("items per_chunk")


def _arguments(parameter: str, what: Any) -> Iterator[tuple[str, tuple[str, bool]]]:
    """(field, (argument, whether it is an address)) of a structure."""
    raw = isinstance(what, Raw)
    structure = what.structure if raw else what
    if isinstance(structure, str):
        yield from ((word.lstrip("*"), (word.lstrip("*"), word[0] == "*")) for word in structure.split())
        return
    for field in structure._fields:
        note = structure.__annotations__.get(field)
        is_address = getattr(note, "__forward_arg__", note) in ("Ptr", Ptr)
        yield field, (field if raw else f"{parameter}_{field}", is_address)


def given_fields(signature: Signature | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, with structures replaced by their fields."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        fields = signature.structures.get(name) if signature is not None else None
        if fields is None:
            out[name] = value
        else:
            out |= {argument: getattr(value, field) for field, (argument, _) in fields.items()}
    return out


def extent_of(axis: str) -> str:
    """The name of the argument with the extent of an axis."""
    return f"size_{axis}"


class Signature:
    """The declared tensors and structures of a kernel, and its item space.

    Raises TypeError for an invalid declaration.
    """

    def __init__(self, name: str, over: str, declared: Mapping[str, Any], parameters: Sequence[str]):
        self.axes: dict[str, tuple[str, ...]] = {}
        self.adjacent: dict[str, str] = {}
        #: parameter -> field -> (argument, whether it is an address)
        self.structures: dict[str, dict[str, tuple[str, bool]]] = {}
        self.splits: dict[str, Split] = {}
        self.over = tuple(self._over(name, over))
        for parameter, what in declared.items():
            if parameter not in parameters:
                raise TypeError(f"{name}: {parameter!r} is declared but is not a parameter")
            if isinstance(what, str):
                self._tensor(name, parameter, what)
            else:
                self.structures[parameter] = dict(_arguments(parameter, what))
        all_axes = {axis for axes in self.axes.values() for axis in axes}
        #: Names in `over` that are arguments and not axes of a tensor.
        self.counted = {name for name in self.over if name not in all_axes}
        if (
            REST in self.over[1:]
            or (REST in all_axes) != (REST in self.over)
            or not self.counted.issubset(set(parameters) - {*declared})
        ):
            raise TypeError(f"{name}: items cannot iterate over {over!r}")

    def _over(self, name: str, text: str) -> Iterator[str]:
        for word in text.split():
            match = _OVER.fullmatch(word)
            if match is None:
                raise TypeError(f"{name}: items cannot iterate over {text!r}")
            if "/" in word:
                size = match[4] or match[2] or "1"
                self.splits[match[1]] = Split(
                    int(size) if size.isdecimal() else size, bool(match[3]), bool(match[5])
                )
            yield match[1]

    def _tensor(self, name: str, tensor: str, text: str) -> None:
        axes = []
        for word in text.split():
            axis, _, unit = word.partition(":")
            if unit:
                self.adjacent[tensor] = axis
            axes.append(axis)
            if axis == REST and LANES in self.over:
                axes.append(LANES)
        if len(set(axes)) != len(axes):
            raise TypeError(f"{name}: {tensor!r} has an axis twice: {text!r}")
        self.axes[tensor] = tuple(axes)

    @property
    def named(self) -> tuple[str, ...]:
        """The named axes of `over`, lanes among them."""
        return tuple(axis for axis in self.over if axis != REST)

    def blocks_of(self, axis: str) -> str:
        """The name of the argument with the number of parts of a split axis."""
        return BLOCKS if axis == self.over[-1] else f"{BLOCKS}_{axis}"

    def bound_of(self, axis: str) -> str:
        """The name of the argument with the extent of the item space along a name of `over`."""
        if axis in self.splits:
            return self.blocks_of(axis)
        return axis if axis in self.counted else extent_of(axis)

    def fields(self) -> Iterator[str]:
        """The names of all integer arguments that derive from the tensors."""
        extents = (extent_of(axis) for axes in self.axes.values() for axis in axes if axis != REST)
        yield from dict.fromkeys(extents)
        for tensor, axes in self.axes.items():
            yield from (f"{tensor}_{axis}" for axis in axes if axis != REST)
        if self.over:
            yield from (ITEMS, PER_CHUNK, *dict.fromkeys([BLOCKS, *map(self.blocks_of, self.splits)]))
        if REST in self.over:
            for d in range(WALKED):
                yield f"d{d}"
                yield from (f"{tensor}_{d}" for tensor, axes in self.axes.items() if REST in axes)

    def check(self, name: str, stored: Collection[str]) -> None:
        """Raise TypeError if a variable of the kernel has the name of a derived argument."""
        fields = (argument for fields in self.structures.values() for argument, _ in fields.values())
        loop = {"item", "outer_item"} if self.over else set()
        loop |= {f"{_COUNTER}{d}" for d in range(WALKED)} | {f"{_COUNTER}_{axis}" for axis in self.named}
        loop |= {f"{tensor}_item" for tensor in self.axes}
        reserved = {*self.fields(), *fields, *loop} & set(stored)
        if reserved:
            raise TypeError(f"{name}: {', '.join(sorted(reserved))} is already the name of an argument")


def attribute(printer: Expressions, e: ast.Attribute) -> str:
    """The name of the argument for `x.stride.h`, `x.size.h` or `window.field`."""
    signature, inner = printer.signature, e.value
    if signature is not None and isinstance(inner, ast.Name):
        structure = printer.text(inner)
        field = signature.structures.get(structure, {}).get(e.attr)
        if field is not None:
            return field[0]
        raise printer.unknown(e, f"{structure!r} is not declared to have a field {e.attr!r}")
    if not isinstance(inner, ast.Attribute) or inner.attr not in ("stride", "size"):
        raise printer.unknown(e)
    tensor = printer.text(inner.value)
    _check_axis(printer, tensor, e.attr, e)
    return extent_of(e.attr) if inner.attr == "size" else f"{tensor}_{e.attr}"


def address(printer: Expressions, call: ast.Call) -> str | None:
    """The source of the address `x.at(...)`; None for another call."""
    at = call.func
    if not (isinstance(at, ast.Attribute) and at.attr == "at" and isinstance(at.value, ast.Name)):
        return None
    tensor = printer.text(at.value)
    text = printer.bound(call.args[0], 9) if call.args else tensor
    for keyword in call.keywords:
        assert keyword.arg is not None
        _check_axis(printer, tensor, keyword.arg, call)
        text += f" + {printer.bound(keyword.value, 11)} * {tensor}_{keyword.arg}"
    return text


def _check_axis(printer: Expressions, tensor: str, axis: str, where: ast.AST) -> None:
    signature = printer.signature
    if signature is None or axis not in signature.axes.get(tensor, ()):
        raise printer.unknown(where, f"{tensor!r} is not declared to have an axis {axis!r}")


def say_items(printer: Printer, loop: ast.For, tensors: Sequence[ast.expr]) -> None:
    """Print `for ... in items(...)`: the loop, and the assignments of its targets in each iteration."""
    signature = printer.signature
    if signature is None or not signature.over:
        raise printer.unknown(loop.iter, "the kernel is not declared to be over any axes")
    targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
    names = [printer.text(t) for t in targets]
    sources = [printer.text(t) for t in tensors]
    count = len(signature.named)
    if len(names) != count + len(sources):
        raise printer.unknown(loop.target, f"an item has {count} indices and {len(sources)} addresses")
    where = dict(zip(signature.named, names, strict=False))
    stop = printer.say_share("item", ITEMS, PER_CHUNK)
    if REST in signature.over:
        _say_walk(printer, signature, where, dict(zip(names[count:], sources, strict=True)), loop, stop)
        return
    if names[:count].count("_") > 1:  # addresses need all indices, also those named _
        where = {axis: f"{_COUNTER}_{axis}" if name == "_" else name for axis, name in where.items()}
    printer.say(f"while item < {stop}:")
    outer, printer.indent = printer.indent, printer.indent + "    "
    _say_indices(printer, signature, where)
    for name, tensor in zip(names[count:], sources, strict=True):
        printer.say(f"{name} = {_item_address(signature, tensor, where)}")
    printer.block(loop.body)
    printer.say("item += 1")
    printer.indent = outer


def _say_walk(
    printer: Printer, signature: Signature, where: Mapping[str, str], tensor_by_name: Mapping[str, str],
    loop: ast.For, stop: str,
) -> None:  # fmt: skip
    """Print the loop over items with `...`. Items may be small, so that a division or product per item would
    show: counters and addresses are incremented instead. `tensor_by_name`: name -> tensor."""
    position = "item"
    counters = []  # (counter, extent, elements per step, axis), the fastest first
    for axis in reversed(signature.named):
        counter, bound = f"{_COUNTER}_{axis}", signature.bound_of(axis)
        printer.say(f"{counter} = urem({position}, {bound})")
        printer.say(f"outer_item = udiv({position}, {bound})")
        position = "outer_item"
        counters.append((counter, bound, _step(printer, axis), axis))
    printer.say_place(position, _COUNTER, WALKED)
    counters += [(f"{_COUNTER}{d}", f"d{d}", "", str(d)) for d in reversed(range(WALKED))]
    first = {axis: f"{_COUNTER}_{axis}{_step(printer, axis)}" for axis in where}
    tensors = dict.fromkeys(tensor_by_name.values())
    for tensor in tensors:
        printer.say(f"{tensor}_item = {_item_address(signature, tensor, first)}")
    printer.say(f"while item < {stop}:")
    outer, printer.indent = printer.indent, printer.indent + "    "
    for axis, name in where.items():
        printer.say(f"{name} = {first[axis]}")
    for name, tensor in tensor_by_name.items():
        printer.say(f"{name} = {tensor}_item")
    printer.block(loop.body)
    inner = printer.indent
    for i, (counter, bound, step, axis) in enumerate(counters):
        of_axis = REST if axis.isdecimal() else axis
        moved = [tensor for tensor in tensors if of_axis in signature.axes[tensor]]
        printer.say(f"{counter} += 1")
        for tensor in moved:
            printer.say(f"{tensor}_item += {tensor}_{axis}{step}")
        if i + 1 < len(counters):
            printer.say(f"if {counter} == {bound}:")
            printer.indent += "    "
            printer.say(f"{counter} = 0")
            for tensor in moved:
                printer.say(f"{tensor}_item -= {bound} * {tensor}_{axis}{step}")
    printer.indent = inner
    printer.say("item += 1")
    printer.indent = outer


def _step(printer: Printer, axis: str) -> str:
    """The source of the factor from an item's index along an axis to an element's index."""
    assert printer.signature is not None
    split = printer.signature.splits.get(axis)
    return "" if split is None else f" * {split.text(printer.known)}"


def _say_indices(printer: Printer, signature: Signature, where: Mapping[str, str]) -> None:
    """Print the assignments of the index of `item` along each axis of `over`."""
    position = "item"
    for axis in reversed(signature.named):
        step = _step(printer, axis)
        if axis == signature.over[0]:
            printer.say(f"{where[axis]} = {position}{step}")
            break
        bound = signature.bound_of(axis)
        printer.say(f"{where[axis]} = urem({position}, {bound}){step}")
        printer.say(f"outer_item = udiv({position}, {bound})")
        position = "outer_item"


def _item_address(signature: Signature, tensor: str, where: Mapping[str, str]) -> str:
    axes = signature.axes[tensor]
    text = tensor
    if REST in signature.over and REST in axes:
        text += "".join(f" + {_COUNTER}{d} * {tensor}_{d}" for d in range(WALKED))
    return text + "".join(f" + {index} * {tensor}_{axis}" for axis, index in where.items() if axis in axes)


class Ptr(int):
    """Marks a parameter, or a field of a structure, that is an address."""


class Tensor(int):
    """Marks a parameter that is a tensor; the module's docstring lists its attributes."""

    stride: Any
    size: Any

    def at(self, address: Any = None, **indices: Any) -> Any:
        raise TypeError("a tensor is part of kernels: they are printed and cannot be called")
