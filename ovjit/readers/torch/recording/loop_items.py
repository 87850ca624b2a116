"""Iterables of recorded loops, and replacements for Python functions on them."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.recording.loop_lists import Stack
from ovjit.readers.torch.recording.traced_nodes import is_open


class Range:
    """`range(...)` as an iterable of a recorded loop: a number of items, and the item at a traced index."""

    def __init__(self, *bounds: Any):
        self.bounds = bounds
        self.start, self.stop, self.step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
        self.is_open = any(map(is_open, bounds))

    def plain(self) -> Any:
        """The same for a loop of Python's."""
        return range(*self.bounds)

    def count(self) -> Any:
        import torch

        if not isinstance(self.step, int) or not self.step:
            raise UnsupportedError("a loop over a range needs a constant step")
        if isinstance(self.start, int) and (self.start, self.step) == (0, 1):
            return self.stop
        ends = (self.start, self.stop) if self.step > 0 else (self.stop, self.start)
        return torch.div(ends[1] - ends[0] + abs(self.step) - 1, abs(self.step), rounding_mode="floor")

    def item(self, at: Any) -> Any:
        at = at if self.step == 1 else at * self.step
        return at if isinstance(self.start, int) and self.start == 0 else self.start + at


class Items:
    """The parts of a tensor along its first dimension, or any other Python iterable."""

    def __init__(self, source: Any):
        import torch

        self.source = source
        self.rows = source.tensor if isinstance(source, Stack) else source
        is_rows = isinstance(self.rows, torch.Tensor) and self.rows.dim() > 0
        self.is_open = is_rows and is_open(self.rows.shape[0])

    def plain(self) -> Any:
        return self.source

    def count(self) -> Any:
        return self.rows.shape[0]

    def item(self, at: Any) -> Any:
        return self.rows[at]


class Unbound(Items):
    """`tensor.unbind(dim)`, or `torch.unbind(tensor, dim)`."""

    def __init__(self, owner: Any, *arguments: Any, **named: Any):
        import torch

        values = list(arguments) if owner is torch else [owner, *arguments]
        tensor = named["input"] if "input" in named else values.pop(0)
        dim = named.get("dim", values[0] if values else 0)
        if isinstance(tensor, torch.Tensor) and tensor.dim():
            super().__init__(tensor.movedim(dim, 0) if dim else tensor)
        else:  # something of the same name
            super().__init__(owner.unbind(*arguments, **named))


def listed(tensor: Any) -> Any:
    """`given.tolist()`, of a tensor whose length may be another one for others, with tensors as items."""
    import torch

    is_row = isinstance(tensor, torch.Tensor) and tensor.dim() == 1 and is_open(tensor.shape[0])
    return Stack(tensor) if is_row else tensor.tolist()


def length(items: Any) -> Any:
    """`len(given)`, of a tensor or a list that a loop fills as it may be for others."""
    if isinstance(items, Items):
        return items.count() if items.is_open else len(items.plain())
    items = items.tensor if isinstance(items, Stack) else items
    return items.shape[0] if isinstance(items, sys.modules["torch"].Tensor) and items.dim() else len(items)


def total(items: Any, *start: Any) -> Any:
    """`sum(given)`, of a list that a loop fills as it may be for others."""
    if isinstance(items, Items):
        return sum(start, items.rows.sum(0)) if items.is_open else sum(items.plain(), *start)
    return sum(start, items.tensor.sum(0)) if isinstance(items, Stack) else sum(items, *start)


def largest(items: Any, *more: Any, **named: Any) -> Any:
    """`max(given)`, of a list of numbers that a loop fills as it may be for others."""
    return _extreme(max, items, more, named)


def smallest(items: Any, *more: Any, **named: Any) -> Any:
    """`min(given)`, of a list of numbers that a loop fills as it may be for others."""
    return _extreme(min, items, more, named)


def _extreme(function: Any, items: Any, more: Sequence[Any], named: Mapping[str, Any]) -> Any:
    if isinstance(items, Stack) and items.tensor.dim() == 1 and not more and not named:
        return getattr(items.tensor, f"a{function.__name__}")(0)
    return function(items, *more, **named)


def product(shape: Any) -> Any:
    """`given.numel()`, of a shape as it may be for others."""
    if not isinstance(shape, sys.modules["torch"].Size):
        return shape.numel()
    return functools.reduce(operator.mul, shape, 1)


class Reversed:
    """`reversed(...)`"""

    def __init__(self, inner: Any):
        self.inner = inner
        self.is_open = inner.is_open

    def plain(self) -> Any:
        return reversed(self.inner.plain())

    def count(self) -> Any:
        return self.inner.count()

    def item(self, at: Any) -> Any:
        return self.inner.item(self.inner.count() - 1 - at)


class Zipped:
    """`zip(...)` of what has equal numbers of items."""

    def __init__(self, *inner: Any, strict: bool = False):
        self.inner, self.strict = inner, strict
        self.is_open = bool(inner) and all(v.is_open for v in inner)

    def plain(self) -> Any:
        return zip(*(v.plain() for v in self.inner), strict=self.strict)

    def count(self) -> Any:
        import torch

        return functools.reduce(torch.minimum, [v.count() for v in self.inner])

    def item(self, at: Any) -> Any:
        return tuple(v.item(at) for v in self.inner)


class Enumerated(Zipped):
    """`enumerate(...)`"""

    def __init__(self, inner: Any, start: Any = None):
        self.first = getattr(start, "source", start) or 0
        super().__init__(inner)

    def plain(self) -> Any:
        return enumerate(self.inner[0].plain(), self.first)

    def item(self, at: Any) -> Any:
        return at + self.first if self.first else at, self.inner[0].item(at)
