"""Kernels over rows: a Python function computes one row, and the printer adds the loop nest over all rows.

    @rows("n")
    def softmax(x, y, n):
        top = splat(-inf)
        for i in vectors(n):
            top = maximum(top, load(x, i))
        ...

A function computes one row of `n` adjacent elements of its tensors. It may use these words:

    load(t, i)  store(t, i, v)  finish(t, i, v)     a vector of tensor t from element i on; `finish`
                                                    applies the elementwise epilogue to v and stores the
                                                    result (i may be i + n, n an integer argument)
    for i in vectors(n):                            whole vectors, then the remainder under a mask: lanes past
                                                    the end do not change variables defined before the loop
    splat(number)  count_of(n)                      a number, or an integer, in all lanes
    hadd(v) hmul(v) hmax(v) hmin(v)                 the lanes combined to a number
    turned_pairs(v)                                 -v1, v0, -v3, v2, ...
    + - * /  maximum minimum fma sqrt               on vectors; numbers are broadcast
    exp log tanh not_below ...                      functions of `ovjit.codegen.trace`, inlined
    if constant:                                    on a keyword-only argument, decided when the kernel
                                                    is made

A positional parameter is an integer, one of `numbers`, or a tensor. Numbers are read once, before the rows:
`@rows("n", numbers=("eps",))`. A value that models choose freely should be one, so that they share a kernel.
Keyword-only parameters are constants of the kernel: numbers, or booleans that select statements.
`Template.kernel` has the text, which identifies the kernel. `ovjit.codegen.row_printing` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ovjit.codegen import printed, texts
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.memory import DIMS
from ovjit.codegen.row_function import NOTHING, Finish, RowFunction, Start, part_operands


class Template(RowFunction):
    """A function decorated with `@rows`."""

    def frame(self, names: Sequence[str], part_operands: Sequence[str]) -> KernelArgs:
        frame = KernelArgs().pointers(*names, *self.numbers).integers(*self.integers, "rows", "per_chunk")
        frame = frame.integers(
            *(f"d{d}" for d in range(DIMS)), *(f"{t}_{d}" for t in names for d in range(DIMS))
        )
        return frame.integers("part", *(f"{t}_part" for t in part_operands)) if part_operands else frame

    def kernel(
        self,
        types: Sequence[str],
        finish: Finish,
        names: str = "",
        start: Start = NOTHING,
        before: str = "",
        **constants: Any,
    ) -> Kernel:
        """The kernel for these element types of the tensors. `before` and `names`: parts of the kernel's name
        for prologue and epilogue. Raises KeyError for a missing constant."""
        values = {name: constants[name] for name in self.constants}
        frame = self.frame(self.names(finish, start), part_operands(finish, start))
        entry = printed.find_entry(self.function, values, tuple(types), *finish, *start)

        def make() -> texts.Printed:
            from ovjit.codegen.row_printing import RowPrinter  # where the text is not kept

            return RowPrinter(self, types, finish, start, values).kernel(frame), frame.fields, frame.tables

        text, *_ = texts.find_or_print(entry, self.name, make)
        label = "_".join(filter(None, (before, self.name, types[0], names)))
        return Kernel(label, text, frame)


def rows(*integers: str, numbers: Sequence[str] = ()) -> Callable[[Callable], Template]:
    """Decorator: a function of one row becomes a template."""
    return lambda function: Template(function, integers, numbers)
