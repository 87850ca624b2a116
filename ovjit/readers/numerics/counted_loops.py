"""Loops that a reader makes itself: a step that is repeated a number of times."""

from __future__ import annotations

from ovjit.build import make_model
from ovjit.build.bodies import loop_of, parameters
from ovjit.graph.op import TensorType
from ovjit.readers.rule_language import *

#: A step of a known number is written out up to this number.
MOST_WRITTEN_OUT = 4
#: step(number, state, others) -> state, or the state and whether to go on as its last value
Step = Callable[[Output, list[Output], list[Output]], list[Output]]


def repeat_steps(
    n: Builder, number: int | Output, state: Sequence[Output], step: Step, others: Sequence[Output] = (),
    ends: bool = False,
) -> list[Output]:  # fmt: skip
    """The state after `number` steps: a Loop, or the steps one after another where they are few.

    A step makes its nodes from what it is given alone. Where it `ends` the loop, its last value is a boolean
    without dimensions: whether there is another step.
    """
    if isinstance(number, int) and number <= MOST_WRITTEN_OUT and not ends:
        result = list(state)
        for k in range(number):
            result = step(n.const(k), result, list(others))
        return result
    sources = [*state, *others]
    inner, values = parameters([TensorType("i64", ()), *map(n.type, sources)])
    count = len(state)
    result = step(values[0], values[1 : count + 1], values[count + 1 :])
    results = result if ends else [*result, n.const(True, "boolean")]
    body = make_model(results, inner)
    most = n.const(number) if isinstance(number, int) else number
    name = n.reader.name(n.base, "Loop")
    return loop_of(body, most, n.const(True, "boolean"), state, others, name)
