"""Functions that compute a row, with an elementwise prologue and epilogue (see `ovjit.codegen.template`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.parts import Source
from ovjit.codegen.source import parameters
from ovjit.forks import made_once
from ovjit.records import NamedTuple


class Finish(NamedTuple):
    """The epilogue, and how a row reads each of its operands: "v" (an element each), "s" (one element) or "c"
    (one for each `part` elements)."""

    body: Body | None
    modes: str

    @property
    def types(self) -> tuple[str, ...]:
        return self.body.inputs[1:] if self.body is not None else ()


class Start(NamedTuple):
    """The prologue that computes the first tensor, or None, and "v", "s" or "c" for each of its operands.
    `is_stored`: the first loop stores the elements to the second tensor, where later loops read them.
    Otherwise each loop computes them again."""

    body: Body | None = None
    modes: str = ""
    is_stored: bool = False


NOTHING = Start()


def part_operands(finish: Finish, start: Start) -> list[str]:
    """The names of the operands with mode "c"."""
    read = ("f", start.modes), ("e", finish.modes)
    return [f"{name}{k}" for name, modes in read for k, mode in enumerate(modes) if mode == "c"]


class RowFunction:
    """A function of one row. `tensors`, `integers`, `numbers`: names of its parameters."""

    def __init__(self, function: Callable, integers: Sequence[str], numbers: Sequence[str] = ()):
        self.name = function.__name__
        self.integers = tuple(integers)
        self.numbers = tuple(numbers)
        self.function = function
        declared = parameters(function)
        scalars = {*integers, *numbers}
        self.tensors = tuple(p.name for p in declared if not p.keyword_only and p.name not in scalars)
        self.constants = tuple(p.name for p in declared if p.keyword_only)

    @made_once
    def source(self) -> Source:
        return Source(self.function)

    def names(self, finish: Finish, start: Start) -> list[str]:
        """The names of a kernel's tensors: the prologue's operands instead of the first tensor, the other
        tensors, then the epilogue's operands."""
        first = [f"f{k}" for k in range(len(start.modes))] or [self.tensors[0]]
        return [*first, *self.tensors[1:], *(f"e{k}" for k in range(len(finish.modes)))]
