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

    def __init__(self, given: Any):
        import torch

        self.given = given
        self.rows = given.whole if isinstance(given, Stack) else given
        is_rows = isinstance(self.rows, torch.Tensor) and self.rows.dim() > 0
        self.is_open = is_rows and is_open(self.rows.shape[0])

    def plain(self) -> Any:
        return self.given

    def count(self) -> Any:
        return self.rows.shape[0]

    def item(self, at: Any) -> Any:
        return self.rows[at]


class Unbound(Items):
    """`tensor.unbind(dim)`, or `torch.unbind(tensor, dim)`."""

    def __init__(self, owner: Any, *given: Any, **named: Any):
        import torch

        values = list(given) if owner is torch else [owner, *given]
        tensor = named["input"] if "input" in named else values.pop(0)
        dim = named.get("dim", values[0] if values else 0)
        if isinstance(tensor, torch.Tensor) and tensor.dim():
            super().__init__(tensor.movedim(dim, 0) if dim else tensor)
        else:  # something of the same name
            super().__init__(owner.unbind(*given, **named))


def listed(given: Any) -> Any:
    """`given.tolist()`, of a tensor whose length may be another one for others, with tensors as items."""
    import torch

    is_row = isinstance(given, torch.Tensor) and given.dim() == 1 and is_open(given.shape[0])
    return Stack(given) if is_row else given.tolist()


def length(given: Any) -> Any:
    """`len(given)`, of a tensor or a list that a loop fills as it may be for others."""
    if isinstance(given, Items):
        return given.count() if given.is_open else len(given.plain())
    given = given.whole if isinstance(given, Stack) else given
    return given.shape[0] if isinstance(given, sys.modules["torch"].Tensor) and given.dim() else len(given)


def total(given: Any, *start: Any) -> Any:
    """`sum(given)`, of a list that a loop fills as it may be for others."""
    if isinstance(given, Items):
        return sum(start, given.rows.sum(0)) if given.is_open else sum(given.plain(), *start)
    return sum(start, given.whole.sum(0)) if isinstance(given, Stack) else sum(given, *start)


def largest(given: Any, *more: Any, **named: Any) -> Any:
    """`max(given)`, of a list of numbers that a loop fills as it may be for others."""
    return _extreme(max, given, more, named)


def smallest(given: Any, *more: Any, **named: Any) -> Any:
    """`min(given)`, of a list of numbers that a loop fills as it may be for others."""
    return _extreme(min, given, more, named)


def _extreme(theirs: Any, given: Any, more: Sequence[Any], named: Mapping[str, Any]) -> Any:
    if isinstance(given, Stack) and given.whole.dim() == 1 and not more and not named:
        return getattr(given.whole, f"a{theirs.__name__}")(0)
    return theirs(given, *more, **named)


def product(given: Any) -> Any:
    """`given.numel()`, of a shape as it may be for others."""
    if not isinstance(given, sys.modules["torch"].Size):
        return given.numel()
    return functools.reduce(operator.mul, given, 1)


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
        self.first = getattr(start, "given", start) or 0
        super().__init__(inner)

    def plain(self) -> Any:
        return enumerate(self.inner[0].plain(), self.first)

    def item(self, at: Any) -> Any:
        return at + self.first if self.first else at, self.inner[0].item(at)
