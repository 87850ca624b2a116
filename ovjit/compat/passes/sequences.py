"""Recurrent layers made into loops over their cells.

    Y, Ho[, Co] = LSTMSequence(X, H, C, lengths, W, R, B)     of one direction
    ->  TensorIterator: X sliced along time, H (and C) carried, the cells' states concatenated

Layers of two directions stay, as in OpenVINO. Where lengths are not surely those of X, a counter goes round
the loop: what comes after a sequence's end keeps the state and makes zeros.
"""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter, Result, constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.model import Model
from ovjit.api.model.model_rules import ModelNode, ModelValue, apply_rules
from ovjit.api.model.node import Node, Output, make_node
from ovjit.api.model.subgraphs import tensor_iterator
from ovjit.graph.op import find_op
from ovjit.rewrite.pattern import op
from ovjit.rewrite.rules import rule

#: Sequence -> (cell, how many states it carries).
CELLS = {"GRUSequence": ("GRUCell", 1), "LSTMSequence": ("LSTMCell", 2), "RNNSequence": ("RNNCell", 1)}


def sequences_to_loops(model: Model) -> bool:
    """Replace the sequences of one direction. True if there were any."""
    return apply_rules([sequence_to_loop], model)


@rule(op[" ".join(CELLS)](..., direction=lambda way: str(way).lower() != "bidirectional"))
def sequence_to_loop(node: ModelNode) -> list[ModelValue]:
    """LSTMSequence(x, ...) -> TensorIterator(x, ...; LSTMCell)"""
    return [ModelValue(output) for output in _loop_over_cells(node.of)]


def _loop_over_cells(node: Node) -> list[Output]:
    cell, states = CELLS[node._op.name]
    reverse = str(node._attrs["direction"]).lower() == "reverse"
    data, lengths = node.input_value(0), node.input_value(1 + states)
    full = _are_full(lengths, data)
    turn = reverse and not full  # each sequence is turned round as far as it goes
    if turn:
        data = _reverse(data, lengths)
    body = _Body(node, cell, states, None if full else lengths)
    loop = tensor_iterator()
    loop.set_friendly_name(node.get_friendly_name())
    loop.set_body(body.model)
    slices = (-1, -1, 1, 0, 1) if reverse and full else (0, 1, 1, -1, 1)
    loop.set_sliced_input(body.data, data, *slices)
    directions = constant_node([1]).output(0)  # the axis that states have and cells have not
    for i in range(states):
        first = _op("Squeeze", node.input_value(1 + i), directions)
        loop.set_merged_input(body.states[i], first, body.results[i].output(0))
    for parameter, value in body.outside:
        loop.set_invariant_input(parameter, value)
    if body.count is not None:
        start = constant_node(np.zeros(1), lengths._tensor._type.dtype).output(0)
        loop.set_merged_input(body.count, start, body.results[-1].output(0))
    steps = loop.get_concatenated_slices(body.steps.output(0), *slices)
    outputs = [_reverse(steps, lengths) if turn else steps]
    outputs += [loop.get_iter_value(body.results[i].output(0), -1) for i in range(states)]
    name = node.get_friendly_name()
    return [_op("Unsqueeze", new, directions, name=f"{name}.{i}") for i, new in enumerate(outputs)]


def _are_full(lengths: Output, data: Output) -> bool:
    """Whether every sequence is certainly as long as the data."""
    shape, source = data._tensor._type.shape, lengths._node
    return isinstance(source, Constant) and shape is not None and bool(np.all(source.value == shape[1]))


def _reverse(data: Output, lengths: Output) -> Output:
    return _op("ReverseSequence", data, lengths, batch_axis=0, seq_axis=1)


class _Body:
    """The loop's body, which computes one step.

    Inputs are `data` [batch, 1, size], `states` [batch, hidden], and `count`, if any: the number of the step.
    Outputs are `steps` [batch, 1, hidden] and `results`, first the next states. `outside` are the invariant
    parameters, each with its value."""

    def __init__(self, node: Node, cell: str, states: int, lengths: Output | None):
        self.outside: list[tuple[Parameter, Output]] = []
        data = node.input_value(0)._tensor._type
        shape = data.shape if data.shape is None else (data.shape[0], 1, data.shape[2])
        self.data = Parameter._of(data.dtype, shape)
        self.states = [self._state(node.input_value(1 + i)) for i in range(states)]
        weights = [self._weight(node.input_value(2 + states + i)) for i in range(3)]
        step = _op("Squeeze", self.data.output(0), [1])
        arguments = [step, *(state.output(0) for state in self.states), *weights]
        record = find_op(cell)
        attrs = {key: value for key, value in node._attrs.items() if key in record.attributes}
        news = make_node(cell, arguments, attrs).outputs()
        shown, self.count = news[0], None
        carried = list(news)
        if lengths is not None:
            kind = lengths._tensor._type
            count = self.count = Parameter._of(kind.dtype, (1,))
            ends = Parameter._of(kind.dtype, kind.shape)
            self.outside.append((ends, lengths))
            inside = _op("Unsqueeze", _op("Greater", ends.output(0), count.output(0)), [1])
            shown = _op("Select", inside, news[0], constant_node(np.zeros(()), data.dtype).output(0))
            carried = [
                _op("Select", inside, new, old.output(0)) for new, old in zip(news, self.states, strict=True)
            ]
            carried.append(_op("Add", count.output(0), constant_node(np.ones(1), kind.dtype).output(0)))
        self.steps = Result._of(_op("Unsqueeze", shown, [1]))
        self.results = [Result._of(value) for value in carried]
        parameters = [self.data, *self.states, *(p for p, _ in self.outside)]
        if self.count is not None:
            parameters.append(self.count)
        self.model = Model([self.steps, *self.results], parameters, f"{node.get_friendly_name()}/body")

    def _state(self, source: Output) -> Parameter:
        kind = source._tensor._type
        return Parameter._of(kind.dtype, None if kind.shape is None else (kind.shape[0], kind.shape[2]))

    def _weight(self, source: Output) -> Output:
        """The weights of the only direction; constant ones are put into the body."""
        if isinstance(source._node, Constant):
            return Constant._of(source._node.value[0], source._tensor._type.dtype).output(0)
        value = _op("Squeeze", source, [0])
        kind = value._tensor._type
        parameter = Parameter._of(kind.dtype, kind.shape)
        self.outside.append((parameter, value))
        return parameter.output(0)
