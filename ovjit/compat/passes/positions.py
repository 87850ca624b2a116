"""The places of new tokens, and the length with them, where a decoder counts from what its variables hold.

They are found by their values: a row of whole numbers that goes on where the past ends, or one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, is_a
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.graph.op import REFUSED
from ovjit.records import NamedTuple

#: A past and a count of new tokens for which places are computed.
TRIED = ((7, 3), (0, 2))
#: A state in the order of beams, and with what is new behind it.
_STATES = ("Gather", "Convert", "Concat")


class Counted(NamedTuple):
    """Outputs of whole numbers that are counted from a variable, before anything is made of them.

    `places`: [1, tokens], those of the new tokens. `lengths`: one number, the past and the new tokens.
    """

    places: list[Output]
    lengths: list[Output]


def counted(model: Model) -> Counted:
    """What the model counts."""
    probes = [Probe(*tried) for tried in TRIED]
    counting: set[int] = set()
    found = Counted([], [])
    for node in model.get_ordered_ops():
        if not any(x._node._op.role == "read" or id(x._node) in counting for x in node._inputs):
            continue
        whole = all(x._tensor._type.dtype in ("i32", "i64") for x in node.outputs())
        if not whole and not is_a(node, *_STATES):
            continue
        output = node.output(0)
        shape = output._tensor._type.shape
        if shape is not None and len(shape) == 2 and all(_goes_on(probe, output) for probe in probes):
            found.places.append(output)
        elif whole and shape in ((), (1,)) and all(_is_length(probe, output) for probe in probes):
            found.lengths.append(output)
        else:
            counting.add(id(node))
    return found


def _is_length(probe: Probe, output: Output) -> bool:
    """Whether this is the number of all tokens."""
    try:
        return bool(probe.value(output) == probe.past + probe.new)
    except (OvjitError, *REFUSED):
        return False


def _goes_on(probe: Probe, output: Output) -> bool:
    """Whether this is the row of the new tokens' places."""
    try:
        row = probe.value(output)
    except (OvjitError, *REFUSED):
        return False
    return np.array_equal(row, [np.arange(probe.past, probe.past + probe.new)])


def names_of(places: Iterable[Output]) -> set[str]:
    """The names of places, as one dimension where they have been that."""
    names: set[str] = set()
    for output in places:
        node = output._node
        source = node.input_value(0) if is_a(node, "Unsqueeze") else output
        names |= source._tensor._names
    return names


def check_stateless(model: Model, replaced: Mapping[Output, list[Output]]) -> set[Output]:
    """What results are computed from when these outputs are computed from others alone. UnsupportedError
    where a result would still read a variable."""
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
                f"{name!r} reads the variable {node._attrs['variable_id']!r}, otherwise than attention and "
                "recurrent layers do: paged attention cannot do without it"
            )
        for source in replaced.get(output, node._inputs):
            reader.setdefault(source, node)
            pending.append(source)
    return done
