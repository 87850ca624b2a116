"""Printer of loops over a kernel's items (`ovjit.codegen.tensors`)."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.codegen.expressions import Expressions, elements
from ovjit.codegen.memory import WALKED
from ovjit.codegen.tensors import COUNTER, ITEMS, PER_CHUNK, REST, Signature


class ItemLoops(Expressions):
    """Prints lines, and among them `for ... in items(...)`."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.lines: list[str] = []
        self.indent = "    "

    def block(self, statements: Sequence[ast.stmt]) -> None:
        """Print statements."""
        raise NotImplementedError

    def say(self, line: str) -> None:
        self.lines.append(self.indent + line)

    def say_share(self, i: str, count: str, per_chunk: str) -> str:
        """Print the chunk's first item, and the end of its items. Returns the name of the latter."""
        self.say(f"{i} = chunk * {per_chunk}")
        self.say(f"stop_{i} = imin({i} + {per_chunk}, {count})")
        return f"stop_{i}"

    def say_place(self, item: str, name: str, dims: int) -> None:
        """Print the index of an item along each dimension: `name`0, `name`1 ..."""
        self.say(f"{name}0 = {item}")
        for d in reversed(range(1, dims)):
            self.say(f"{name}{d} = urem({name}0, d{d})")
            self.say(f"{name}0 = udiv({name}0, d{d})")

    def say_items(self, loop: ast.For, tensors: Sequence[ast.expr]) -> None:
        """Print `for ... in items(...)`: the loop, and the assignments of its targets in each iteration."""
        signature = self.signature
        if signature is None or not signature.over:
            raise self.make_error(loop.iter, "the kernel is not declared to be over any axes")
        names = [self.text(t) for t in elements(loop.target)]
        sources = [self.text(t) for t in tensors]
        count = len(signature.named)
        if len(names) != count + len(sources):
            raise self.make_error(loop.target, f"an item has {count} indices and {len(sources)} addresses")
        where = dict(zip(signature.named, names, strict=False))
        stop = self.say_share("item", ITEMS, PER_CHUNK)
        if REST in signature.over:
            self._say_walk(signature, where, dict(zip(names[count:], sources, strict=True)), loop, stop)
            return
        if names[:count].count("_") > 1:  # addresses need all indices, also those named _
            where = {axis: f"{COUNTER}_{axis}" if name == "_" else name for axis, name in where.items()}
        self.say(f"while item < {stop}:")
        outer, self.indent = self.indent, self.indent + "    "
        self._say_indices(signature, where)
        for name, tensor in zip(names[count:], sources, strict=True):
            self.say(f"{name} = {_item_address(signature, tensor, where)}")
        self.block(loop.body)
        self.say("item += 1")
        self.indent = outer

    def _say_walk(
        self, signature: Signature, where: Mapping[str, str], tensor_by_name: Mapping[str, str],
        loop: ast.For, stop: str,
    ) -> None:  # fmt: skip
        """Print the loop over items with `...`. Items may be small, so that a division or product per item
        would show: counters and addresses are incremented instead. `tensor_by_name`: name -> tensor."""
        position = "item"
        counters = []  # (counter, extent, elements per step, axis), the fastest first
        for axis in reversed(signature.named):
            counter, bound = f"{COUNTER}_{axis}", signature.bound_of(axis)
            self.say(f"{counter} = urem({position}, {bound})")
            self.say(f"outer_item = udiv({position}, {bound})")
            position = "outer_item"
            counters.append((counter, bound, self._step(axis), axis))
        self.say_place(position, COUNTER, WALKED)
        counters += [(f"{COUNTER}{d}", f"d{d}", "", str(d)) for d in reversed(range(WALKED))]
        first = {axis: f"{COUNTER}_{axis}{self._step(axis)}" for axis in where}
        tensors = dict.fromkeys(tensor_by_name.values())
        for tensor in tensors:
            self.say(f"{tensor}_item = {_item_address(signature, tensor, first)}")
        self.say(f"while item < {stop}:")
        outer, self.indent = self.indent, self.indent + "    "
        for axis, name in where.items():
            self.say(f"{name} = {first[axis]}")
        for name, tensor in tensor_by_name.items():
            self.say(f"{name} = {tensor}_item")
        self.block(loop.body)
        inner = self.indent
        for i, (counter, bound, step, axis) in enumerate(counters):
            of_axis = REST if axis.isdecimal() else axis
            moved = [tensor for tensor in tensors if of_axis in signature.axes[tensor]]
            self.say(f"{counter} += 1")
            for tensor in moved:
                self.say(f"{tensor}_item += {tensor}_{axis}{step}")
            if i + 1 < len(counters):
                self.say(f"if {counter} == {bound}:")
                self.indent += "    "
                self.say(f"{counter} = 0")
                for tensor in moved:
                    self.say(f"{tensor}_item -= {bound} * {tensor}_{axis}{step}")
        self.indent = inner
        self.say("item += 1")
        self.indent = outer

    def _step(self, axis: str) -> str:
        """The source of the factor from an item's index along an axis to an element's index."""
        assert self.signature is not None
        split = self.signature.splits.get(axis)
        return "" if split is None else f" * {split.text(self.constants)}"

    def _say_indices(self, signature: Signature, where: Mapping[str, str]) -> None:
        """Print the assignments of the index of `item` along each axis of `over`."""
        position = "item"
        for axis in reversed(signature.named):
            step = self._step(axis)
            if axis == signature.over[0]:
                self.say(f"{where[axis]} = {position}{step}")
                break
            bound = signature.bound_of(axis)
            self.say(f"{where[axis]} = urem({position}, {bound}){step}")
            self.say(f"outer_item = udiv({position}, {bound})")
            position = "outer_item"


def _item_address(signature: Signature, tensor: str, where: Mapping[str, str]) -> str:
    axes = signature.axes[tensor]
    text = tensor
    if REST in signature.over and REST in axes:
        text += "".join(f" + {COUNTER}{d} * {tensor}_{d}" for d in range(WALKED))
    return text + "".join(f" + {index} * {tensor}_{axis}" for axis, index in where.items() if axis in axes)
