"""Nodes with bodies, from the Models of their bodies: the ports follow from the order of what goes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from ovjit.api.model.boundary import Parameter
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.build import make_model, make_parameter, tensor_type
from ovjit.build.builder import Builder
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port, join
from ovjit.graph.op import TensorType, find_op

Made = TypeVar("Made")


def parameters(kinds: Sequence[TensorType]) -> tuple[list[Parameter], list[Output]]:
    """(Parameters of these types, their outputs)."""
    nodes = [make_parameter(kind.dtype, kind.shape) for kind in kinds]
    return nodes, [node.output(0) for node in nodes]


def kinds_of(values: Iterable[Output], axis: int | None = None) -> list[TensorType]:
    """The types of values, without known elements; with `axis`, of one slice of each along it."""
    kinds = []
    for value in values:
        dtype, shape = tensor_type(value).dtype, tensor_type(value).shape
        if axis is not None and shape is not None:
            shape = (*shape[:axis], 1, *shape[axis + 1 :])
        kinds.append(TensorType(dtype, shape))
    return kinds


def body_of(n: Builder, values: Sequence[Output], inputs: Sequence[Parameter], name: str = "") -> Model:
    """The Model of a body. A result that is directly a parameter gets a node in between."""
    results = [n.same(v) if isinstance(v.node, Parameter) else v for v in values]
    return make_model(results, inputs, name)


def slices(axis: int = 0, backwards: bool = False) -> dict[str, int]:
    """Attributes of a port that slices its input along an axis, one element per iteration, or concatenates
    its output."""
    start, stride, end = (-1, -1, 0) if backwards else (0, 1, -1)
    return {"start": start, "stride": stride, "end": end, "axis": axis}


def read_until_stable(
    kinds: list[TensorType], read: Callable[[list[TensorType]], tuple[Sequence[Output], Made]]
) -> Made:
    """Reads a loop's body until the types of its state are stable, and returns what `read` made last.

    `read(types)` returns (the next state, what it made). If the shapes of that state differ, the body is read
    again with the changing dimensions dynamic.
    """
    while True:
        state, result = read(kinds)
        joined = [
            join(TensorType(kind.dtype, kind.shape), tensor_type(value))
            for kind, value in zip(kinds, state, strict=True)
        ]
        if joined == kinds:
            return result
        kinds = joined


def iterator_of(
    body: Model,
    state: Sequence[Output],
    pieces: Sequence[Output],
    fixed: Sequence[Output],
    name: str,
    piece_slices: Sequence[Mapping[str, int]],
    joined: Sequence[Mapping[str, int]],
) -> list[Output]:
    """The TensorIterator of a body with the parameters (state, pieces, fixed) and the results (state, rows).

    `piece_slices` and `joined` are the `slices` of pieces and rows. Returns the last state and the rows."""
    from ovjit.api.model.subgraphs import tensor_iterator

    count = len(state)
    fixed_indices = range(count + len(pieces), count + len(pieces) + len(fixed))
    inputs = [Port(MERGED, i, i, i) for i in range(count)]
    inputs += [Port(SLICED, i, i, **how) for i, how in enumerate(piece_slices, count)]
    inputs += [Port(INVARIANT, i, i) for i in fixed_indices]
    outputs = [Port(LAST, i, i) for i in range(count)]
    outputs += [Port(CONCAT, i, i, **how) for i, how in enumerate(joined, count)]
    sources = [*state, *pieces, *fixed]
    record = find_op("TensorIterator")
    return tensor_iterator._of_parts(record, sources, [body], [inputs], [outputs], name).outputs()


def over_slices(
    n: Builder,
    once: Callable[[list[Output], list[Output], list[Output]], Sequence[Output]],
    state: Sequence[Output],
    pieces: Sequence[Output],
    fixed: Sequence[Output],
    name: str,
    axis: int = 0,
    backwards: bool = False,
) -> list[Output]:
    """Loops `once` over slices of `pieces` along `axis`, in a TensorIterator with a carried state.

    `once(state, slices, fixed)` returns the next state and the outputs to concatenate along the axis. Slices
    and outputs lack that axis. Returns the last state and the concatenated outputs.
    """
    nodes, values = parameters([*kinds_of(state), *kinds_of(pieces, axis), *kinds_of(fixed)])
    count, end = len(state), len(state) + len(pieces)
    parts = [n.squeeze(value, [axis]) for value in values[count:end]]
    result = once(values[:count], parts, values[end:])
    results = [*result[:count], *(n.unsqueeze(value, [axis]) for value in result[count:])]
    order = [slices(axis, backwards)]
    piece_slices, joined = order * len(pieces), order * (len(result) - count)
    return iterator_of(body_of(n, results, nodes, n.base), state, pieces, fixed, name, piece_slices, joined)


def loop_of(
    body: Model,
    times: Output,
    go_on: Output,
    state: Sequence[Output],
    fixed: Sequence[Output],
    name: str,
    leading: int = 1,
) -> list[Output]:
    """Build the Loop of a body with the results (state, condition, rows).

    The body's parameters are (state, fixed) after `leading` others: the iteration and the condition.
    `times` is -1 without a limit. Returns the last state and the joined rows."""
    from ovjit.api.model.subgraphs import loop

    count = len(state)
    inputs = [Port(MERGED, 1, 1, count)] if leading == 2 else []
    inputs += [Port(MERGED, 2 + i, leading + i, i) for i in range(count)]
    inputs += [Port(INVARIANT, 2 + i, leading + i) for i in range(count, count + len(fixed))]
    outputs = [Port(LAST, i, i) for i in range(count)]
    outputs += [Port(CONCAT, i - 1, i) for i in range(count + 1, len(body.get_results()))]
    special = (0 if leading else -1, count)
    sources = [times, go_on, *state, *fixed]
    return loop._of_parts(find_op("Loop"), sources, [body], [inputs], [outputs], name, special).outputs()


def if_of(
    condition: Output, arguments: Sequence[Sequence[Output]], branches: Sequence[Model], name: str
) -> list[Output]:
    """The If of two branches. `arguments`: the values of each one's parameters; equal ones are one input."""
    from ovjit.api.model.subgraphs import if_op

    sources = dict.fromkeys(v for values in arguments for v in values)
    ports = {value: 1 + i for i, value in enumerate(sources)}
    inputs = [[Port(INVARIANT, ports[v], i) for i, v in enumerate(values)] for values in arguments]
    outputs = [[Port(LAST, i, i) for i in range(len(branch.get_results()))] for branch in branches]
    every = [condition, *sources]
    return if_op._of_parts(find_op("If"), every, branches, inputs, outputs, name).outputs()
