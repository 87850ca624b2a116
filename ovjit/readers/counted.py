"""Loops that a reader makes itself: a step that is repeated a number of times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.graph.bodies import INVARIANT, LAST, MERGED, Port
from ovjit.graph.op import find_op
from ovjit.readers.build import Builder

#: A step of a known number is written out up to this number.
MOST_WRITTEN_OUT = 4
#: step(number, state, others) -> state, or the state and whether to go on as its last value
Step = Callable[[Output, list[Output], list[Output]], list[Output]]


def counted(
    n: Builder, number: int | Output, state: Sequence[Output], step: Step, others: Sequence[Output] = (),
    ends: bool = False,
) -> list[Output]:  # fmt: skip
    """The state after `number` steps: a Loop, or the steps one after another where they are few.

    A step makes its nodes from what it is given alone. Where it `ends` the loop, its last value is a boolean
    without dimensions: whether there is another step.
    """
    if isinstance(number, int) and number <= MOST_WRITTEN_OUT and not ends:
        made = list(state)
        for k in range(number):
            made = step(n.const(k), made, list(others))
        return made
    from ovjit.api.model.subgraphs import loop

    given = [*state, *others]
    index = Parameter._of("i64", (), None)
    inner = [Parameter._of(n.dtype(v), n.shape(v), None) for v in given]
    values = [Output._of(p, 0) for p in inner]
    count = len(state)
    made = step(Output._of(index, 0), values[:count], values[count:])
    results = made if ends else [*made, n.const(True, "boolean")]
    body = Model._from_parts([Result._of(v) for v in results], [index, *inner])
    kinds = [MERGED] * count + [INVARIANT] * len(others)
    rows = [
        Port(kind, 2 + i, 1 + i, i) if kind == MERGED else Port(kind, 2 + i, 1 + i)
        for i, kind in enumerate(kinds)
    ]
    most = n.const(number) if isinstance(number, int) else number
    sources = [most, n.const(True, "boolean"), *given]
    last = [Port(LAST, i, i) for i in range(count)]
    name = n.reader.name(n.base, "Loop")
    whole = loop._of_parts(find_op("Loop"), sources, [body], [rows], [last], name, (0, count))
    return [Output._of(whole, i) for i in range(count)]
