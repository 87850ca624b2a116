"""The places of new tokens, and the length with them, where a decoder counts from what its variables hold.

They are found by their values: a row of whole numbers that goes on where the past ends, or one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, is_a, is_single, users_of
from ovjit.errors import UnsupportedError
from ovjit.records import NamedTuple

#: A past and a count of new tokens for which places are computed.
TRIED = ((7, 3), (0, 2))
#: A state in the order of beams, and with what is new behind it.
_STATES = ("Gather", "Convert", "Concat")


class CountedPositions(NamedTuple):
    """Outputs of whole numbers that are counted from a variable, before anything is made of them.

    `positions`: [1, tokens], those of the new tokens, [..., batch, tokens] with other dimensions known, or
    [tokens] with `row_ends`. `lengths`: one number, the past and the new tokens.
    """

    positions: list[Output]
    lengths: list[Output]


def counted_positions(model: Model) -> CountedPositions:
    """Find the positions and lengths that the model counts from its variables."""
    probes = [Probe(*lengths) for lengths in TRIED]
    counting: set[int] = set()
    positions = CountedPositions([], [])
    for node in model.get_ordered_ops():
        if not any(x._node._op.role == "read" or id(x._node) in counting for x in node._inputs):
            continue
        is_integer = all(x._tensor._type.dtype in ("i32", "i64") for x in node.outputs())
        if not is_integer and not is_a(node, *_STATES):
            continue
        output = node.output(0)
        shape = output._tensor._type.shape
        if shape is not None and _may_be_places(output, shape) and all(_goes_on(p, output) for p in probes):
            positions.positions.append(output)
        elif is_integer and shape in ((), (1,)) and all(_is_length(probe, output) for probe in probes):
            positions.lengths.append(output)
        else:
            counting.add(id(node))
    return positions


def _may_be_places(output: Output, shape: Sequence[object]) -> bool:
    """Whether places of this shape can be replaced."""
    if len(shape) != 1:
        is_static = [isinstance(d, int) for d in shape]
        return len(shape) == 2 or is_static == [True] * (len(shape) - 2) + [False] * 2
    ends = row_ends(output)
    return any(is_a(end._node, "Gather") or len(end._tensor._type.shape or ()) > 2 for end in ends)


def row_ends(output: Output) -> list[Output]:
    """The outputs made of a row of positions [tokens]: rows gathered from tables [tokens, width], and the row
    with further dimensions of 1 [1, tokens, 1, ...]. Empty if something else reads the row."""
    row, ends, waiting = [output], list[Output](), set[Output]()
    for source in row:
        for user, index in users_of(source):
            result = user.output(0)
            shape = list(result._tensor._type.shape or ())
            if is_a(user, "Gather") and index == 1 and user.input_value(2)._node._op.role == "constant":
                ends.append(result)
            elif is_a(user, "Reshape", "Unsqueeze") and len(shape) > 1:
                if index or shape[:1] + shape[2:] != [1] * (len(shape) - 1):
                    return []
                ends.append(result)
            elif user._op.scalar is not None or is_a(user, "Convert"):
                is_row = all(x in row or is_single(x) for x in user._inputs)
                waiting = waiting - {result} if is_row else waiting | {result}
                row += [result] if is_row and result not in row else []
            elif user._op.role != "shape":
                return []
    return [] if waiting else ends


def _is_index(output: Output) -> bool:
    """Whether places are an index of a table's rows, after a constant is added, perhaps."""
    return any(
        (is_a(user, "Gather") and index == 1)
        or (is_a(user, "Add", "Subtract", "Convert") and _is_index(user.output(0)))
        for user, index in users_of(output)
    )


def _is_length(probe: Probe, output: Output) -> bool:
    """Whether this is the number of all tokens."""
    value = probe.try_values([output])
    return value is not None and bool(value[0] == probe.past + probe.new)


def _goes_on(probe: Probe, output: Output) -> bool:
    """Whether this is the row of the new tokens' places."""
    row, expected = probe.try_values([output]), np.arange(probe.past, probe.past + probe.new)
    return row is not None and row[0].shape[-1:] == expected.shape and bool((row[0] == expected).all())


def names_of(positions: Iterable[Output]) -> set[str]:
    """The names of places, as one dimension where they have been that; none of those that are for tables."""
    names: set[str] = set()
    for output in positions:
        if len(output._tensor._type.shape or ()) == 1 or _is_index(output):
            continue
        node = output._node
        source = node.input_value(0) if is_a(node, "Unsqueeze") else output
        names |= source._tensor._names
    return names


def check_stateless(model: Model, replaced: Mapping[Output, list[Output]]) -> set[Output]:
    """The outputs that results depend on when the `replaced` outputs are computed from others alone.
    UnsupportedError if a result would still read a variable."""
    pending = [result.input_value(0) for result in model.get_results()]
    done: set[Output] = set()
    reader: dict[Output, Node] = {}
    while pending:
        output = pending.pop()
        if output in done:
            continue
        done.add(output)
        node = output._node
        if node._op.role == "read":
            name = reader[output].get_friendly_name()
            raise UnsupportedError(
                f"{name!r} reads the variable {node._attrs['variable_id']!r}, which is not supported "
                "outside attention and recurrent layers: paged attention removes the variable"
            )
        for source in replaced.get(output, node._inputs):
            reader.setdefault(source, node)
            pending.append(source)
    return done
