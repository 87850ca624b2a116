"""Numbers that a decoder chooses by the greatest place of a call, as Phi 3 does between two tables.

Its batch has sequences of one length. Sequences of paged attention have their own, so that each of them gets
what it would get alone: rows are computed by both, and one of them is taken.
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
    the lengths that were given. `shared`: what all tokens of a call share, and what not, as far as known."""

    node: Node
    length: Output
    shared: dict[Output, bool]


def choices(model: Model, lengths: Iterable[Output], computed: Container[Output]) -> list[Choice]:
    """The comparisons of a call's length with constants that results depend on. UnsupportedError if a choice
    affects values without a batch dimension together with tokens."""
    lengths, probe = frozenset(lengths), Probe(7, 3)
    comparisons = [pair for pair in find_comparisons(model, lengths) if pair[0].output(0) in computed]
    shared = dict.fromkeys([*lengths, *(length for _, length in comparisons)], True)
    for node, _ in comparisons:
        _, readers = _find_dependents(node.output(0), shared)
        readers = [r for r in readers if any(x in computed for x in r.outputs())]
        ends = [x for reader in readers for x in reader.outputs()]
        if not is_static(node._tensors[0]._type.shape) or not all(_is_by_sequence(x, probe) for x in ends):
            raise UnsupportedError(
                f"{node.get_friendly_name()!r} depends on the length of the longest sequence in the "
                "batch: paged attention cannot evaluate that per sequence"
            )
    return [Choice(node, length, shared) for node, length in comparisons]


def find_comparisons(model: Model, lengths: Container[Output] = ()) -> list[tuple[Node, Output]]:
    """The comparisons of constants with the greatest position of a call or one of the lengths, and the length
    that each compares."""
    nodes = [node for node in model.get_ordered_ops() if is_a(node, *_COMPARE)]
    pairs = [(node, _longest(node, lengths)) for node in nodes]
    return [(node, length) for node, length in pairs if length is not None]


def _longest(node: Node, lengths: Container[Output]) -> Output | None:
    sources: set[Output] = set()
    pending = node.input_values()
    while pending:
        source = pending.pop()
        maker = source._node
        if source in lengths or is_a(maker, "ReduceMax") and _are_positions(maker.input_value(0)):
            sources.add(source)
        elif is_a(maker, *_EACH, *_SHAPES):
            pending += maker._inputs
        elif maker._op.role != "constant":
            return None
    return sources.pop() if len(sources) == 1 else None


def _are_positions(source: Output) -> bool:
    return source._node._op.role == "parameter" and "position_ids" in source._tensor._names


def choose_by_token(model: Model, choice: Choice, length: Output) -> None:
    """Make the choice per token instead of per call, by `length`, [tokens]: tokens are the model's first
    dimension."""
    live = {id(node) for node in model.get_ordered_ops() if not node._op.role}
    length = _op("Convert", length, destination_type=choice.length._tensor._type.dtype)
    chosen = choice.node.output(0)
    condition = _compute_per_token(chosen, {choice.length: length})
    shape = chosen._tensor._type.shape or ()
    inside, readers = _find_dependents(chosen, choice.shared)
    both = [{chosen: constant_node(np.full(shape, answer)).output(0)} for answer in (True, False)]
    for reader in (r for r in readers if id(r) in live):
        one, other = (_rebuild_node(reader, inside, replacements) for replacements in both)
        for old, true, false in zip(reader.outputs(), one.outputs(), other.outputs(), strict=True):
            rank = len(old._tensor._type.shape or ())
            column = _op("Unsqueeze", condition, np.arange(1, rank)) if rank > 1 else condition
            old.replace(_op("Select", column, true, false))


def copy_subgraph(output: Output, inside: set[Output], replacements: dict[Output, Output]) -> Output:
    """Copy an output and the outputs of `inside` that it depends on; `replacements` stand for others."""
    return _rebuild_node(output._node, inside, replacements).output(output._index)


def _rebuild_node(node: Node, inside: set[Output], replacements: dict[Output, Output]) -> Node:
    """Copy a node and the outputs of `inside` that it depends on; `replacements` stand for others."""

    def replacement_of(source: Output) -> Output:
        if source in inside and source not in replacements:
            copy = _rebuild_node(source._node, inside, replacements)
            replacements.update(zip(source._node.outputs(), copy.outputs(), strict=True))
        return replacements.get(source, source)

    return Node._new(node._op, [replacement_of(x) for x in node._inputs], node._attrs)


def _compute_per_token(source: Output, vectors: Mapping[Output, Output]) -> Output:
    """Rebuild an output elementwise from `vectors`, outputs [n] by the output that they replace. Changes of
    shape before it are skipped."""
    node = source._node
    if source in vectors:
        return vectors[source]
    if node._op.role == "constant":
        return _op("Reshape", source, np.zeros(0, np.int64), special_zero=False)
    if is_a(node, *_SHAPES):
        return _compute_per_token(node.input_value(0), vectors)
    return Node._new(node._op, [_compute_per_token(x, vectors) for x in node._inputs], node._attrs).output(0)


def _find_dependents(condition: Output, shared: dict[Output, bool]) -> tuple[set[Output], list[Node]]:
    """(outputs that depend on the condition and that all tokens share, nodes that compute rows of sequences
    from these)."""
    pending, inside, readers = [condition], {condition}, dict[int, Node]()
    for output in pending:
        for target in output.get_target_inputs():
            user = target.get_node()
            if all(x in inside or _is_shared(x, shared) for x in user._inputs) and not user._op.role:
                new = [x for x in user.outputs() if x not in inside]
                inside.update(new)
                pending += new
            elif user._op.role != "shape":
                readers[id(user)] = user
    return inside, list(readers.values())


def _is_shared(source: Output, shared: dict[Output, bool]) -> bool:
    """Whether an output is the same for all tokens of a call."""
    if source not in shared:
        node = source._node
        computed = not node._op.role and bool(node._inputs)
        shared[source] = node._op.role == "constant" or (
            computed and all(_is_shared(x, shared) for x in node._inputs)
        )
    return shared[source]


def _is_by_sequence(output: Output, probe: Probe) -> bool:
    """Whether the first dimension is the batch: open, and 1 for the one sequence of a probe."""
    dims, shape = output._tensor._type.shape, probe.shape(output)
    return bool(dims and shape) and not isinstance(dims[0], int) and shape[0] == 1  # type: ignore[index]
