"""Numbers that a decoder chooses by the greatest place of a call, as Phi 3 does between two tables.

Its batch has sequences of one length. Sequences of paged attention have their own, so that each of them gets
what it would get alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import numpy as np

from ovjit.api.model.boundary import constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, is_a
from ovjit.errors import UnsupportedError
from ovjit.graph.shapes import is_static
from ovjit.records import NamedTuple

_COMPARE = ("Greater", "GreaterEqual", "Less", "LessEqual")
#: What may be between a length and its comparison: what computes each element alone, and changes of shape.
_EACH, _SHAPES = ("Add", "Convert", "Multiply", "Subtract"), ("Reshape", "Squeeze", "Unsqueeze")


class Choice(NamedTuple):
    """A comparison of constants with `length`: the greatest element of the input `position_ids`, or one of
    the lengths that were given. `ends`: what reads numbers that depend on it and on constants alone, at which
    input, the dimensions of its result, and the numbers for a true comparison and for a false one."""

    node: Node
    length: Output
    ends: list[tuple[Node, int, int, list[np.ndarray]]]


def choices(model: Model, lengths: Iterable[Output] = ()) -> list[Choice]:
    """The comparisons of a call's length with constants. UnsupportedError where no dimension of the batch
    meets what is chosen."""
    found = compared(model, frozenset(lengths))
    return [Choice(node, length, _ends(node.output(0))) for node, length in found]


def compared(model: Model, lengths: Container[Output] = ()) -> list[tuple[Node, Output]]:
    """The comparisons of constants with a call's greatest place or one of the lengths, and with which."""
    nodes = [node for node in model.get_ordered_ops() if is_a(node, *_COMPARE)]
    pairs = [(node, _longest(node, lengths)) for node in nodes]
    return [(node, length) for node, length in pairs if length is not None]


def _longest(node: Node, lengths: Container[Output]) -> Output | None:
    found: set[Output] = set()
    pending = node.input_values()
    while pending:
        source = pending.pop()
        maker = source._node
        if source in lengths or is_a(maker, "ReduceMax") and _is_places(maker.input_value(0)):
            found.add(source)
        elif is_a(maker, *_EACH, *_SHAPES):
            pending += maker._inputs
        elif maker._op.role != "constant":
            return None
    return found.pop() if len(found) == 1 else None


def _is_places(source: Output) -> bool:
    return source._node._op.role == "parameter" and "position_ids" in source._tensor._names


def choose_by_token(choice: Choice, length: Output) -> None:
    """Make the choice for each token, by `length`, [tokens]: tokens are the model's first dimension."""
    length = _op("Convert", length, destination_type=choice.length._tensor._type.dtype)
    condition = _each(choice.node.output(0), {choice.length: length})
    for reader, index, rank, both in choice.ends:
        column = _op("Unsqueeze", condition, np.arange(1, rank)) if rank > 1 else condition
        sides = [constant_node(x.reshape((1,) * (rank - x.ndim) + x.shape)).output(0) for x in both]
        reader.input(index).replace_source_output(_op("Select", column, *sides))


def _each(source: Output, known: Mapping[Output, Output]) -> Output:
    """What the output is for other numbers, which lie along one dimension."""
    node = source._node
    if source in known:
        return known[source]
    if node._op.role == "constant":
        return _op("Reshape", source, np.zeros(0, np.int64), special_zero=False)
    if is_a(node, *_SHAPES):
        return _each(node.input_value(0), known)
    return Node._new(node._op, [_each(x, known) for x in node._inputs], node._attrs).output(0)


def _ends(condition: Output) -> list[tuple[Node, int, int, list[np.ndarray]]]:
    """See `Choice`."""
    found: list[tuple[Node, int, int, list[np.ndarray]]] = []
    pending, inside, constant = [condition], {condition}, dict[Output, bool]()
    shape = condition._tensor._type.shape
    if not is_static(shape):
        raise _refused(condition._node)
    for output in pending:
        for target in output.get_target_inputs():
            user, index = target.get_node(), target.get_index()
            if user._op.role == "shape":
                continue
            if all(x in inside or _is_constant(x, constant) for x in user._inputs) and not user._op.role:
                new = [x for x in user.outputs() if x not in inside]
                inside.update(new)
                pending += new
                continue
            known = [{condition: np.full(shape, said)} for said in (True, False)]
            both = [Probe(0).values([output], numbers)[0] for numbers in known]
            found.append((user, index, _rank(user, index), both))
    return found


def _is_constant(source: Output, known: dict[Output, bool]) -> bool:
    if source not in known:
        node = source._node
        computed = not node._op.role and bool(node._inputs)
        known[source] = node._op.role == "constant" or (
            computed and all(_is_constant(x, known) for x in node._inputs)
        )
    return known[source]


def _rank(reader: Node, index: int) -> int:
    """The dimensions of what a node makes of numbers that are chosen. The first one is the batch."""
    shape, own = (x._tensor._type.shape for x in (reader.output(0), reader.input_value(index)))
    if shape and own is not None and not isinstance(shape[0], int):
        if len(own) < len(shape) or (len(own) == len(shape) and own[0] == 1):
            return len(shape)
    raise _refused(reader)


def _refused(node: Node) -> UnsupportedError:
    return UnsupportedError(
        f"{node.get_friendly_name()!r} computes with what is chosen by the longest sequence of a call: paged "
        "attention cannot do that for each sequence"
    )
