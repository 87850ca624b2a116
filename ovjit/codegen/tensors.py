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

This module derives the argument block from the declaration. `ovjit.codegen.expressions` prints addresses,
`ovjit.codegen.item_loops` the loops over items. `ovjit.planning.launch` derives its values, the
checks of shapes and strides, and the bytes that an item touches. Arguments that a kernel does not read are
not in its block.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ovjit.codegen.memory import WALKED
from ovjit.records import NamedTuple

REST, LANES = "...", "lanes"
#: Arguments that the launch adds: number of items, items per chunk, number of parts of a split axis.
ITEMS, PER_CHUNK, BLOCKS = "item_count", "per_chunk", "blocks"
#: Prefix of the variables that count an item's indices along `...` and the following axes.
COUNTER = "along"

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
        #: Parameters that have items, such as tables.
        self.tables: Collection[str] = ()
        self.axes: dict[str, tuple[str, ...]] = {}
        self.adjacent: dict[str, str] = {}
        #: parameter -> field -> (argument, whether it is an address)
        self.structures: dict[str, dict[str, tuple[str, bool]]] = {}
        self.splits: dict[str, Split] = {}
        self.over = tuple(self._over(name, over))
        #: The names that a launch may give values for: parameters, sizes of splits, constants, items.
        self.argument_names = {
            *parameters,
            *(s.size for s in self.splits.values() if isinstance(s.size, str)),
        }
        for parameter, what in declared.items():
            if parameter not in parameters:
                raise TypeError(f"{name}: {parameter!r} is declared but is not a parameter")
            if isinstance(what, str):
                self._tensor(name, parameter, what)
            else:
                self.structures[parameter] = dict(_arguments(parameter, what))
        all_axes = {axis for axes in self.axes.values() for axis in axes}
        #: Names in `over` that are arguments and not axes of a tensor.
        self.extent_arguments = {name for name in self.over if name not in all_axes}
        if (
            REST in self.over[1:]
            or (REST in all_axes) != (REST in self.over)
            or not self.extent_arguments.issubset(set(parameters) - {*declared})
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
        return axis if axis in self.extent_arguments else extent_of(axis)

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
        loop |= {f"{COUNTER}{d}" for d in range(WALKED)} | {f"{COUNTER}_{axis}" for axis in self.named}
        loop |= {f"{tensor}_item" for tensor in self.axes}
        reserved = {*self.fields(), *fields, *loop} & set(stored)
        if reserved:
            raise TypeError(f"{name}: {', '.join(sorted(reserved))} is already the name of an argument")


class Ptr(int):
    """Marks a parameter, or a field of a structure, that is an address."""


class Tensor(int):
    """Marks a parameter that is a tensor; the module's docstring lists its attributes."""

    stride: Any
    size: Any

    def at(self, address: Any = None, **indices: Any) -> Any:
        raise TypeError("a tensor is part of kernels: they are printed and cannot be called")
