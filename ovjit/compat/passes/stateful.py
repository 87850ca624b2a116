"""Makes variables of the model: of inputs and outputs that belong together, and back; of values that loops
and recurrent layers carry.

For each merged input, and each state of an LSTM, GRU or RNN sequence, the first value comes from a ReadValue,
and the value after the last step goes to an Assign. A loop of one iteration is then replaced by its body, a
sequence of one step by its cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter, Result, constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output, make_node
from ovjit.api.model.subgraphs import _Repeated, inside_body
from ovjit.api.model.variables import variable_of
from ovjit.compat.passes.probe import inputs_named
from ovjit.compat.passes.sequences import CELLS
from ovjit.errors import ModelError, no_such_form
from ovjit.graph.bodies import CONCAT, LAST, MERGED, SLICED, Port
from ovjit.graph.op import TensorType, find_op

#: Parameter and Result, or the tensor names of both.
Pairs = Mapping[str, str] | Sequence[tuple[Parameter, Result]]


def check_pairs(pairs: Any) -> None:
    """TypeError unless they are pairs of names, or of Parameter and Result."""
    rows = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    kinds = (str, str) if isinstance(pairs, Mapping) else (Parameter, Result)
    for row in rows:
        if not isinstance(row, tuple) or len(row) != 2 or not all(map(isinstance, row, kinds)):
            raise no_such_form(
                f"pairs of {kinds[0].__name__} and {kinds[1].__name__} are expected, not {row!r}"
            )


def make_stateful(model: Model, pairs: Pairs) -> None:
    """Convert each (parameter, result) to a variable, with a ReadValue and an Assign, named after both.

    RuntimeError for tensor names that the model does not have.
    """
    for parameter, result in _find_pairs(model, pairs):
        name = parameter.get_friendly_name() + result.get_friendly_name()
        if isinstance(pairs, Mapping):
            name = next(f"{p}{r}" for p, r in pairs.items() if p in parameter._tensors[0]._names)
        read = read_variable(name, TensorType(parameter._attrs["element_type"], parameter._attrs["shape"]))
        parameter.output(0).replace(read.output(0))
        keep(model, read, result.input_value(0))
        model.remove_result(result)
        result.input_value(0)._node._forget_user(result)
        model.remove_parameter(parameter)


def read_variable(name: str, kind: TensorType, *first: Output) -> Node:
    """A node that reads a variable; `first` is its initial value."""
    attrs = {"variable_id": name, "variable_type": kind.dtype, "variable_shape": kind.shape}
    return make_node("ReadValue", first, attrs, opset=6)


def keep(model: Model, read: Node, value: Output) -> None:
    """Assign `value` to the variable that the ReadValue `read` reads."""
    assign = make_node("Assign", [value], {"variable_id": read._attrs["variable_id"]}, opset=6)
    assign._after = (read,)
    model.add_sinks([assign])
    model.add_variables([variable_of(read)])


def _find_pairs(model: Model, pairs: Pairs) -> list[tuple[Parameter, Result]]:
    if not isinstance(pairs, Mapping):
        return list(pairs)
    named = []
    for first, second in sorted(pairs.items()):
        parameter = next((p for p in model.get_parameters() if first in p._tensors[0]._names), None)
        result = next((r for r in model.get_results() if second in r._tensors[0]._names), None)
        for name, node, what in ((first, parameter, "Parameters"), (second, result, "Results")):
            if node is None:
                raise ModelError(
                    f"The tensor name {name} is not associated with any of {what} in the network."
                )
        named.append((parameter, result))
    return named  # type: ignore[return-value]


def make_stateless(model: Model) -> None:
    """Replace each ReadValue by a parameter `<variable>.input`, and each Assign by a result
    `<variable>.output`.

    What a variable began with is the caller's to pass from then on. RuntimeError for a model that has no
    input `beam_idx`, which tells a language model's states from others, or whose variable is read but not
    assigned.
    """
    if not inputs_named(model, "beam_idx"):
        raise ModelError(
            "Stateful models without `beam_idx` input are not supported in StatefulToStateless transformation"
        )
    nodes = model.get_ordered_ops()
    reads = {n._attrs["variable_id"]: n for n in nodes if n._op.role == "read"}
    assigns = {n._attrs["variable_id"]: n for n in nodes if n._op.role == "assign"}
    for name, read in reads.items():
        if name not in assigns:
            raise ModelError(f"the variable {name!r} is read but never assigned")
        tensor = read._tensors[0]._type
        parameter = Parameter._of(tensor.dtype, tensor.shape, f"{name}.input")
        parameter._tensors[0]._names = {f"{name}.input"}
        read.output(0).replace(parameter.output(0))
        result = Result._of(assigns[name].input_value(0), f"{name}.output")
        result._tensors[0]._names = result._tensors[0]._names | {f"{name}.output"}
        model.add_parameters([parameter])
        model.add_results([result])
        model.remove_sink(assigns[name])
        assigns[name].input_value(0)._node._forget_user(assigns[name])
    for variable in model.get_variables():
        if variable.info.variable_id in reads:
            model.remove_variable(variable)


def low_latency(model: Model, use_const_initializer: bool) -> bool:
    """Convert carried values to variables `<loop>/<parameter of the body>/variable_<index of the input>`, or
    `<sequence>/variable_<index of the state>`. Their initial values are zeros if `use_const_initializer`,
    else the values of the inputs. True if anything changed."""
    changed = False
    for loop in model.get_ordered_ops():
        if isinstance(loop, _Repeated) and _carry(model, loop, use_const_initializer):
            changed = True
            if loop.get_num_iterations() == 1 and _takes_whole_inputs(loop):
                _put_body_in_place(loop)
        elif loop._op.name in CELLS and _carry_states(model, loop, use_const_initializer):
            changed = True
            if _is_one_step(loop):
                _put_cell_in_place(loop)
    if changed:
        model.validate_nodes_and_infer_types()
    return changed


def _carry(model: Model, loop: _Repeated, use_const_initializer: bool) -> bool:
    """Convert the carried values of a loop to variables. False if it carries nothing, or they are variables
    already."""
    ports = loop._input_ports[0]
    merged = [(i, port) for i, port in enumerate(ports) if port.kind == MERGED]
    if any(loop.input_value(port.outer)._node._op.role == "read" for _, port in merged):
        return False
    body = loop.get_function()
    for i, port in merged:
        parameter = body._parameters[port.inner]
        name = f"{loop.get_friendly_name()}/{parameter.get_friendly_name()}/variable_{i}"
        _remember(model, loop, port.outer, name, use_const_initializer, _last_value(loop, port.back))
    return bool(merged)


def _remember(model: Model, node: Node, at: int, name: str, zeros: bool, last: Output) -> None:
    """Insert a variable before a node's input; `last` is the value that it stores."""
    first = node.input_value(at)
    read = read_variable(name, first._tensor._type, _zeros_like(first) if zeros else first)
    node.set_argument(at, read.output(0))
    keep(model, read, last)


def _carry_states(model: Model, layer: Node, use_const_initializer: bool) -> bool:
    """Make the states of a recurrent `layer` variables. False without a change if they are variables
    already."""
    state_ports = range(1, 1 + CELLS[layer._op.name][1])
    if any(layer.input_value(at)._node._op.role == "read" for at in state_ports):
        return False
    for at in state_ports:
        name = f"{layer.get_friendly_name()}/variable_{at - 1}"
        _remember(model, layer, at, name, use_const_initializer, layer.output(at))
    return True


def _is_one_step(layer: Node) -> bool:
    shape = layer.input_value(0)._tensor._type.shape
    return shape is not None and shape[1] == 1 and str(layer._attrs["direction"]).lower() != "bidirectional"


def _put_cell_in_place(layer: Node) -> None:
    """Replace a sequence of one step by its cell: Sequence(X, states, lengths, W, R, B) -> Cell(X, states, W,
    R, B)."""
    step, direction = (constant_node([axis]) for axis in (1, 0))
    cell, states = CELLS[layer._op.name]
    values = [_op("Squeeze", layer.input_value(i), step) for i in range(1 + states)]
    values += [_op("Squeeze", layer.input_value(i), direction) for i in range(2 + states, 5 + states)]
    attrs = {key: value for key, value in layer._attrs.items() if key in find_op(cell).attributes}
    news = make_node(cell, values, attrs)
    both, one = constant_node([1, 2]), constant_node([1])
    for i, old in enumerate(layer.outputs()):
        name = f"{layer.get_friendly_name()}:{i}"
        old.replace(_op("Unsqueeze", news.output(max(i - 1, 0)), one if i else both, name=name))


def _zeros_like(value: Output) -> Output:
    zero = Constant(np.zeros(1, value.get_element_type().to_dtype()))
    return _op("Broadcast", zero, _op("ShapeOf", value, output_type="i64"), mode="numpy")


def _last_value(loop: _Repeated, result: int) -> Output:
    """The body's result after the last iteration: an output of the loop, a new one if there is none."""
    for port in loop._output_ports[0]:
        if port.kind == LAST and port.iteration == -1 and port.inner == result:
            return loop.output(port.outer)
    return loop.get_iter_value(loop.get_function()._results[result].input_value(0), -1)


def _takes_whole_inputs(loop: _Repeated) -> bool:
    """Whether in the only iteration each sliced input is the whole input, and each concatenated output the
    result."""

    def spans(value: Output, port: Port) -> bool:
        shape = value._tensor._type.shape
        return shape is not None and shape[port.axis] == abs(port.part_size)

    return all(
        spans(loop.input_value(port.outer), port) for port in loop._input_ports[0] if port.kind == SLICED
    ) and all(spans(loop.output(port.outer), port) for port in loop._output_ports[0] if port.kind == CONCAT)


def _put_body_in_place(loop: _Repeated) -> None:
    with inside_body():
        body = loop.get_function().clone()
    for port in loop._input_ports[0]:
        body._parameters[port.inner].output(0).replace(loop.input_value(port.outer))
    for index in loop._own_parameters():
        counter = body._parameters[index]
        first = Constant(np.zeros(counter.output(0).get_shape(), counter.get_element_type().to_dtype()))
        counter.output(0).replace(first.output(0))
    for port in loop._output_ports[0]:
        loop.output(port.outer).replace(body._results[port.inner].input_value(0))
