"""Broadcasts constant states of LSTM cells to the batch, before a model is reshaped.

Exporters write the initial states of `LSTMCell(x, H, C, ...)` as constants [1, hidden_size], which fit no
other batch. OpenVINO's `Model.reshape` broadcasts them to the first size of x, and so does this module:

| the cell is                                      | the batch is                                     |
|--------------------------------------------------|--------------------------------------------------|
| LSTMCell-4 of a model                            | axis 0 of its input x                            |
| LSTMCell-4 of a TensorIterator's body, whose x is | the first axis of the body's input that Squeeze |
| an input of the body, or Squeeze of one          | leaves, unless the input is sliced along it      |

In a body the constants are merged inputs of the TensorIterator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ovjit.api.model.boundary import Constant, Parameter
from ovjit.api.model.node import Node, Output
from ovjit.api.model.relax_patterns import Change, make_node, make_sizes
from ovjit.graph.bodies import MERGED, SLICED
from ovjit.graph.op import find_op
from ovjit.rewrite.pattern import op

_CELL, _BODY, _SQUEEZE = op.LSTMCell(...), op.TensorIterator(...), op.Squeeze(...)
#: The inputs of a cell that are states.
_STATES = (1, 2)


def broadcast_states(nodes: Iterable[Node]) -> list[Change]:
    """Broadcasts the constant states of cells among `nodes`, and in the bodies of TensorIterators; results
    for a batch of one stay. Returns the changes."""
    changes = []
    for node in nodes:
        for index, source, axis in _find_states(node):
            state = node._inputs[index]
            sizes = make_sizes(source, [axis], list(state.get_shape()[1:]))
            node._connect(index, make_node("Broadcast", state, sizes, mode="numpy"))
            changes.append((node, index, state))
    return changes


def _find_states(node: Node) -> Iterator[tuple[int, Output, int]]:
    """Yields (input of `node` that is a state of one row, the value that has the batch, its axis)."""
    if _is_cell(node):
        for index in _STATES:
            if _is_row(node._inputs[index]):
                yield index, node._inputs[0], 0
    elif _BODY.fits(node._op):
        yield from _find_states_of_body(node)


def _find_states_of_body(node: Any) -> Iterator[tuple[int, Output, int]]:
    """The states of the cells in the body of a TensorIterator, as `_find_states` yields them."""
    (model,), (rows,) = node._models, node._input_ports
    ports = {model._parameters[port.inner]: port for port in rows} if model is not None else {}
    for cell in model._walk() if ports else ():
        if not _is_cell(cell):
            continue
        source, axis = _find_batch(cell._inputs[0]._node)
        fed = ports.get(source)
        if fed is None or (fed.kind == SLICED and fed.axis % len(source._tensors[0]._type.shape) == axis):
            continue
        for index in _STATES:
            state = ports.get(cell._inputs[index]._node)
            if state is not None and state.kind == MERGED and _is_row(node._inputs[state.outer]):
                yield state.outer, node._inputs[fed.outer], axis


def _find_batch(x: Node) -> tuple[Any, int]:
    """The Parameter that x is, or is a Squeeze of, and the first axis that is left; (None, 0) for others."""
    if isinstance(x, Parameter):
        return x, 0
    if not _SQUEEZE.fits(x._op) or len(x._inputs) < 2:
        return None, 0
    source, axes = x._inputs[0]._node, x._inputs[1]._node
    shape = source._tensors[0]._type.shape
    if not isinstance(source, Parameter) or not isinstance(axes, Constant) or not shape:
        return None, 0
    squeezed = {int(axis) % len(shape) for axis in axes.value.ravel()}
    return source, next((axis for axis in range(len(shape)) if axis not in squeezed), 0)


def _is_cell(node: Node) -> bool:
    """True for LSTMCell-4."""
    return _CELL.fits(node._op) and node._op is find_op("LSTMCell", 4)


def _is_row(state: Output) -> bool:
    """True for a constant of one row."""
    return isinstance(state._node, Constant) and state._node.value.shape[:1] == (1,)
