"""Nodes with bodies, from the Models of their bodies: the ports follow from the order of what goes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port, join
from ovjit.graph.op import TensorType, find_op

Made = TypeVar("Made")


def slices(axis: int = 0, backwards: bool = False) -> dict[str, int]:
    """The attributes of a port that takes one element along an axis in each iteration, or appends one."""
    start, stride, end = (-1, -1, 0) if backwards else (0, 1, -1)
    return {"start": start, "stride": stride, "end": end, "axis": axis}


def settled(
    kinds: list[TensorType], read: Callable[[list[TensorType]], tuple[Sequence[Output], Made]]
) -> Made:
    """What `read` makes of a loop's body when its state has types that hold in each iteration.

    `read(types)` returns (the next state, what it made). Where that state has other shapes, the body is read
    again with the dimensions that change open."""
    while True:
        state, made = read(kinds)
        joined = [
            join(TensorType(kind.dtype, kind.shape), value._tensor._type)
            for kind, value in zip(kinds, state, strict=True)
        ]
        if joined == kinds:
            return made
        kinds = joined


def iterated(
    body: Model,
    state: Sequence[Output],
    pieces: Sequence[Output],
    fixed: Sequence[Output],
    name: str,
    taken: Sequence[Mapping[str, int]],
    joined: Sequence[Mapping[str, int]],
) -> list[Output]:
    """The TensorIterator of a body with the parameters (state, pieces, fixed) and the results (state, rows).

    `taken` and `joined` are the `slices` of pieces and rows. Returns the last state and the joined rows."""
    from ovjit.api.model.subgraphs import tensor_iterator

    count = len(state)
    behind = range(count + len(pieces), count + len(pieces) + len(fixed))
    inputs = [Port(MERGED, i, i, i) for i in range(count)]
    inputs += [Port(SLICED, i, i, **how) for i, how in enumerate(taken, count)]
    inputs += [Port(INVARIANT, i, i) for i in behind]
    outputs = [Port(LAST, i, i) for i in range(count)]
    outputs += [Port(CONCAT, i, i, **how) for i, how in enumerate(joined, count)]
    sources = [*state, *pieces, *fixed]
    record = find_op("TensorIterator")
    return tensor_iterator._of_parts(record, sources, [body], [inputs], [outputs], name).outputs()


def repeated_while(
    body: Model, go_on: Output, endless: Output, state: Sequence[Output], fixed: Sequence[Output], name: str
) -> list[Output]:
    """The Loop of a body with the parameters (state, fixed) and the results (whether to go on, state).

    `endless` is the number of iterations -1. Returns the last state."""
    from ovjit.api.model.subgraphs import loop

    count = len(state)
    inputs = [Port(MERGED, 2 + i, i, 1 + i) for i in range(count)]
    inputs += [Port(INVARIANT, 2 + i, i) for i in range(count, count + len(fixed))]
    outputs = [Port(LAST, i, 1 + i) for i in range(count)]
    sources = [endless, go_on, *state, *fixed]
    return loop._of_parts(find_op("Loop"), sources, [body], [inputs], [outputs], name, (-1, 0)).outputs()


def chosen(condition: Output, given: Sequence[Output], branches: Sequence[Model], name: str) -> list[Output]:
    """The If whose two branches both have all values that are given as parameters."""
    from ovjit.api.model.subgraphs import if_op

    inputs = [[Port(INVARIANT, 1 + i, i) for i in range(len(given))] for _ in branches]
    outputs = [[Port(LAST, i, i) for i in range(len(branch._results))] for branch in branches]
    return if_op._of_parts(find_op("If"), [condition, *given], branches, inputs, outputs, name).outputs()
