"""The places of new tokens, where a decoder counts them from the length of what its variables hold.

They are found by their values: a row of whole numbers that goes on where the past ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, is_a
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.graph.op import REFUSED

#: A past and a count of new tokens for which places are computed.
TRIED = ((7, 3), (0, 2))


def counted_places(model: Model) -> list[Output]:
    """The outputs [1, tokens] that are places counted from a variable, before anything is made of them."""
    probes = [Probe(*tried) for tried in TRIED]
    counting: set[int] = set()
    found: list[Output] = []
    for node in model.get_ordered_ops():
        if not any(x._node._op.role == "read" or id(x._node) in counting for x in node._inputs):
            continue
        whole = all(x._tensor._type.dtype in ("i32", "i64") for x in node.outputs())
        if not whole and not is_a(node, "Gather", "Convert"):  # a state in the order of beams
            continue
        output = node.output(0)
        if len(output._tensor._type.shape or ()) == 2 and all(_goes_on(probe, output) for probe in probes):
            found.append(output)
        else:
            counting.add(id(node))
    return found


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
