"""Kernels as functions: the text of a kernel is the source of a Python function, wrapped in its loop nest.

    @rows("n")
    def softmax(x, y, n):
        top = splat(-inf)
        for i in vectors(n):
            top = maximum(top, load(x, i))
        ...

A function says what happens to one row of `n` adjacent elements of its tensors. Its words:

    load(t, i)  store(t, i, v)  finish(t, i, v)     a vector of tensor t from element i on; `finish`
                                                    stores what the elementwise body behind the operation
                                                    makes of v (i may be i + n, n an integer argument)
    for i in vectors(n):                            whole vectors, then the rest under a mask: lanes past the
                                                    end leave variables that are older than the loop alone
    splat(number)  count_of(n)                      a number, an integer in all lanes
    hadd(v) hmul(v) hmax(v) hmin(v)                 the lanes combined to a number
    turned_pairs(v)                                 -v1, v0, -v3, v2, ...
    + - * /  maximum minimum fma sqrt               on vectors, numbers are spread
    exp log tanh not_below ...                      what `ovjit.codegen.trace` has, printed in place
    if constant:                                    on a keyword-only argument, decided when the kernel
                                                    is made

Whatever is positional and no integer is a tensor, or one of `numbers`, which are read once, before the rows:
`@rows("n", numbers=("eps",))`. What models choose freely is one, so that they share a kernel. Keyword-only
arguments are constants of the kernel: numbers, or truth values that choose between statements.
`Template.kernel` has the text, which is the kernel's identity. `ovjit.codegen.row_printing` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ovjit.codegen import printed, texts
from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.memory import DIMS as DIMS
from ovjit.codegen.parts import Source
from ovjit.codegen.source import parameters
from ovjit.forks import made_once
from ovjit.records import NamedTuple


class Finish(NamedTuple):
    """The elementwise body behind an operation, and for each of its operands "v" (elements of a row), "s"
    (one) or "c" (one for each `part` elements of a row)."""

    body: Body | None
    modes: str

    @property
    def types(self) -> tuple[str, ...]:
        return self.body.inputs[1:] if self.body is not None else ()


class Start(NamedTuple):
    """The elementwise body that makes the first tensor's elements, where there is one, and for each of its
    operands "v", "s" or "c". `kept`: the first loop stores what it makes in the second tensor, which later
    ones read; else each makes it anew."""

    body: Body | None = None
    modes: str = ""
    kept: bool = False


NOTHING = Start()


def parted(finish: Finish, start: Start) -> list[str]:
    """The names of the operands of which each part of a row has one element."""
    read = ("f", start.modes), ("e", finish.modes)
    return [f"{name}{k}" for name, modes in read for k, mode in enumerate(modes) if mode == "c"]


class Template:
    """A kernel's function. `tensors` are its tensors in order, `integers` the integers of its arguments,
    `numbers` the addresses of numbers among them."""

    def __init__(self, function: Callable, integers: Sequence[str], numbers: Sequence[str] = ()):
        self.name = function.__name__
        self.integers = tuple(integers)
        self.numbers = tuple(numbers)
        self.function = function
        known = parameters(function)
        scalars = {*integers, *numbers}
        self.tensors = tuple(p.name for p in known if not p.keyword_only and p.name not in scalars)
        self.constants = tuple(p.name for p in known if p.keyword_only)

    @made_once
    def source(self) -> Source:
        return Source(self.function)

    def names(self, finish: Finish, start: Start) -> list[str]:
        """The names of the tensors that a kernel reads and writes: of the first one, what its prologue reads;
        then the operands of the epilogue."""
        first = [f"f{k}" for k in range(len(start.modes))] or [self.tensors[0]]
        return [*first, *self.tensors[1:], *(f"e{k}" for k in range(len(finish.modes)))]

    def frame(self, names: Sequence[str], parted: Sequence[str]) -> KernelArgs:
        frame = KernelArgs().pointers(*names, *self.numbers).integers(*self.integers, "rows", "per_chunk")
        frame = frame.integers(
            *(f"d{d}" for d in range(DIMS)), *(f"{t}_{d}" for t in names for d in range(DIMS))
        )
        return frame.integers("part", *(f"{t}_part" for t in parted)) if parted else frame

    def kernel(
        self,
        types: Sequence[str],
        finish: Finish,
        names: str = "",
        start: Start = NOTHING,
        before: str = "",
        **constants: Any,
    ) -> Kernel:
        """The kernel for these element types of the tensors; `before` and `names`: what it is called after
        what `start` and `finish` do. KeyError for a constant that is missing."""
        given = {name: constants[name] for name in self.constants}
        frame = self.frame(self.names(finish, start), parted(finish, start))
        place = printed.place(self.function, given, tuple(types), *finish, *start)

        def make() -> texts.Printed:
            from ovjit.codegen.row_printing import RowPrinter  # where the text is not kept

            return RowPrinter(self, types, finish, start, given).kernel(frame), frame.fields, frame.tables

        text, *_ = texts.kept(place, self.name, make)
        label = "_".join(filter(None, (before, self.name, types[0], names)))
        return Kernel(label, text, frame)


def rows(*integers: str, numbers: Sequence[str] = ()) -> Callable[[Callable], Template]:
    """Decorator: a function of one row becomes a template."""
    return lambda function: Template(function, integers, numbers)
