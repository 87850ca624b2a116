"""Tensors as parameters of kernels: named axes, and the items that a kernel is launched over.

    @kernel(over="r h", x="n c:1 h w", y="r c:1 h w")
    def example(x: Tensor, y: Tensor, factor, *, T):
        for r, i, target in items(y):
            source = x.at(h=i)
            for k in range(0, y.size.c, VL):
                ...

A declaration lists the axes of a tensor, as einops does. Axes of the same name have the same extent. `c:1`
marks an axis whose elements are adjacent. `...` stands for all other axes, which the launch merges into at
most DIMS. Tensors that have it share these axes.

`over` lists the axes that items count through, the last one fastest. `VL` as its last word splits the fastest
of the other axes into vectors: its name is `lanes`, and every tensor that has `...` has it. `4VL` are four
vectors, `256` as many elements. `VL:1` wants the elements of all tensors to be adjacent along `lanes`.

    x                    the address of the first element
    x.stride.h           the bytes from one element to the next along h
    x.size.h             the extent of h
    x.at(h=i), x.at(p, h=i)
                         the address of an element, from the first one or from p
    for r, p, q in items(x, y)
                         the items of a chunk: the index along each named axis of `over`, the first lane where
                         lanes are split, and the address of the item in each of the given tensors

From the declaration follow the argument block (here) and its values, the checks of shapes and strides, and
the bytes that an item touches (`ovjit.compiler.launch`). Strides and extents that a kernel does not read are
not in its argument block.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ovjit.codegen.memory import DIMS

if TYPE_CHECKING:
    from ovjit.codegen.function import _Printer

REST, LANES = "...", "lanes"
#: The last word of `over` that splits lanes: a number, `VL`, or both; whether they are adjacent.
_SPLIT = re.compile(r"(\d*)(VL)?(:1)?")


class Lanes(NamedTuple):
    """How many of the elements along `lanes` an item takes: `count`, or so many vectors."""

    count: int
    vectors: bool
    adjacent: bool

    def elements(self, vector: int) -> int:
        """The elements of an item, for vectors of so many."""
        return self.count * vector if self.vectors else self.count

    @property
    def text(self) -> str:
        if not self.vectors:
            return str(self.count)
        return f"({self.count} * VL)" if self.count > 1 else "VL"


#: Arguments that the launch makes: how many items there are, how many a chunk takes, vectors of a row.
ITEMS, PER_CHUNK, BLOCKS = "item_count", "per_chunk", "blocks"


def extent_of(axis: str) -> str:
    """The argument that is the extent of an axis."""
    return f"size_{axis}"


class Signature:
    """The declared tensors of a kernel, and what its items count through.

    Raises TypeError for a declaration that has no meaning.
    """

    def __init__(self, name: str, over: str, declared: Mapping[str, str], parameters: Sequence[str]):
        words = over.split()
        split = _SPLIT.fullmatch(words[-1]) if words else None
        #: How the fastest of the other axes is split into items; None where it is not.
        self.lanes: Lanes | None = None
        if split is not None and words[-1][0] != ":":
            self.lanes = Lanes(int(split[1] or 1), bool(split[2]), bool(split[3]))
            del words[-1]
        self.over = tuple(words)
        self.adjacent: dict[str, str] = {}
        self.axes: dict[str, tuple[str, ...]] = {}
        for tensor, text in declared.items():
            if tensor not in parameters:
                raise TypeError(f"{name}: {tensor!r} is declared as a tensor and is no parameter")
            words = []
            for word in text.split():
                axis, _, unit = word.partition(":")
                if unit:
                    self.adjacent[tensor] = axis
                words.append(axis)
            if REST in words and self.lanes is not None:
                words.insert(words.index(REST) + 1, LANES)
            if len(set(words)) != len(words):
                raise TypeError(f"{name}: {tensor!r} has an axis twice: {text!r}")
            self.axes[tensor] = tuple(words)
        known = {axis for axes in self.axes.values() for axis in axes}
        unknown = [axis for axis in self.over if axis not in known]
        if unknown or REST in self.over[1:] or (self.lanes is not None and REST not in self.over):
            raise TypeError(f"{name}: items cannot count through {over!r}")

    @property
    def named(self) -> tuple[str, ...]:
        """The named axes of `over`."""
        return tuple(axis for axis in self.over if axis != REST)

    def fields(self) -> Iterator[str]:
        """The integers of the argument block, all that a kernel may read: extents, strides, items."""
        extents = (extent_of(axis) for axes in self.axes.values() for axis in axes if axis != REST)
        yield from dict.fromkeys(extents)
        for tensor, axes in self.axes.items():
            yield from (f"{tensor}_{axis}" for axis in axes if axis != REST)
        yield from (ITEMS, PER_CHUNK, BLOCKS)
        if REST in self.over:
            for d in range(DIMS):
                yield f"d{d}"
                yield from (f"{tensor}_{d}" for tensor, axes in self.axes.items() if REST in axes)

    def check(self, name: str, stored: Collection[str]) -> None:
        """Raises TypeError where a variable of the kernel has the name of an argument that is derived."""
        taken = {*self.fields(), "item", "row"} & set(stored)
        if taken:
            raise TypeError(f"{name}: {', '.join(sorted(taken))} name(s) an extent, a stride or an item")


def is_attribute(e: ast.expr) -> bool:
    """Whether it is `x.stride.h` or `x.size.h`."""
    return (
        isinstance(e, ast.Attribute)
        and isinstance(e.value, ast.Attribute)
        and e.value.attr in ("stride", "size")
        and isinstance(e.value.value, ast.Name)
    )


def attribute(printer: _Printer, e: ast.Attribute) -> str:
    """The argument that `x.stride.h` or `x.size.h` is."""
    assert isinstance(e.value, ast.Attribute)
    tensor = printer.text(e.value.value)
    _known(printer, tensor, e.attr, e)
    return extent_of(e.attr) if e.value.attr == "size" else f"{tensor}_{e.attr}"


def address(printer: _Printer, call: ast.Call) -> str | None:
    """What `x.at(...)` is, None for another call."""
    at = call.func
    if not (isinstance(at, ast.Attribute) and at.attr == "at" and isinstance(at.value, ast.Name)):
        return None
    tensor = printer.text(at.value)
    text = printer.bound(call.args[0], 9) if call.args else tensor
    for keyword in call.keywords:
        assert keyword.arg is not None
        _known(printer, tensor, keyword.arg, call)
        text += f" + {printer.bound(keyword.value, 11)} * {tensor}_{keyword.arg}"
    return text


def _known(printer: _Printer, tensor: str, axis: str, where: ast.AST) -> None:
    signature = printer.signature
    if signature is None or axis not in signature.axes.get(tensor, ()):
        raise printer.unknown(where, f"{tensor!r} is not declared to have an axis {axis!r}")


def say_items(printer: _Printer, loop: ast.For, tensors: Sequence[ast.expr]) -> None:
    """Print `for ... in items(...)`: the loop, and what its targets are in each round."""
    signature = printer.signature
    if signature is None or not signature.over:
        raise printer.unknown(loop.iter, "the kernel is not declared to be over any axes")
    targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
    names = [printer.text(t) for t in targets]
    indices = [*signature.named, *([LANES] if signature.lanes is not None else [])]
    given = [printer.text(t) for t in tensors]
    if len(names) != len(indices) + len(given):
        raise printer.unknown(loop.target, f"an item has {len(indices)} indices and {len(given)} addresses")
    where = dict(zip(indices, names, strict=False))
    stop = printer.say_share("item", ITEMS, PER_CHUNK)
    printer.say(f"while item < {stop}:")
    outer, printer.indent = printer.indent, printer.indent + "    "
    _say_indices(printer, signature, where)
    for name, tensor in zip(names[len(indices) :], given, strict=True):
        printer.say(f"{name} = {_item_address(signature, tensor, where)}")
    printer.block(loop.body)
    printer.say("item += 1")
    printer.indent = outer


def _say_indices(printer: _Printer, signature: Signature, where: Mapping[str, str]) -> None:
    """The place of `item` along each axis of `over`."""
    left = "item"

    def split(target: str, extent: str, step: str = "") -> None:
        nonlocal left
        printer.say(f"{target} = urem({left}, {extent}){step}")
        printer.say(f"row = udiv({left}, {extent})")
        left = "row"

    if signature.lanes is not None:
        split(where[LANES], BLOCKS, f" * {signature.lanes.text}")
    rest = REST in signature.over
    for axis in reversed(signature.named[0 if rest else 1 :]):
        split(where[axis], extent_of(axis))
    if rest:
        printer.say_place(left, "a", DIMS)
    elif signature.named:
        printer.say(f"{where[signature.named[0]]} = {left}")


def _item_address(signature: Signature, tensor: str, where: Mapping[str, str]) -> str:
    axes = signature.axes[tensor]
    text = tensor
    if REST in signature.over and REST in axes:
        text += "".join(f" + a{d} * {tensor}_{d}" for d in range(DIMS))
    text += "".join(f" + {index} * {tensor}_{axis}" for axis, index in where.items() if axis in axes)
    return text


class Tensor(int):
    """Marks a parameter that is a tensor; see the module for what a kernel can say of it."""

    stride: Any
    size: Any

    def at(self, address: Any = None, **indices: Any) -> Any:
        raise TypeError("a tensor is a part of kernels: they are printed, not called")
