"""Moves variables of bodies to the model. In the body, the value becomes a parameter and a result.

Loop(x; body: ReadValue(v), Assign(v))  ->  Loop(x, ReadValue(v); body: parameter, result), Assign(v)

A branch of an If that does not use the variable returns it unchanged. An initial value that the body computes
is computed by the first body that reads the variable while it is unset, which a variable of its own tells:

ReadValue(v, start)  ->  If(unset, then: start, else: v), and unset is false from then on

The pass is not a rule: it changes bodies, and adds outputs to the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph.bodies import INVARIANT, LAST, MERGED, Port, bodies_of, ports
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, copy_into, copy_node, makers, rebuild
from ovjit.graph.op import TensorType
from ovjit.records import NamedTuple

#: The end of the name of the variable that is true while another one, whose name is before, is unset.
UNSET = "\0unset"


class _HoistedVariable(NamedTuple):
    """A variable of a body: its first ReadValue's type, its initial value, and whether it is assigned.
    `computed`: the body computes the initial value."""

    type: Any
    initial: np.ndarray | None
    assigned: bool
    computed: bool = False


def hoist(graph: Graph) -> Graph:
    """The graph, with the variables of bodies moved to it. Raises ModelError if a body and a body inside of
    it compute the initial value of one."""
    if not any(body.has_state for node in graph.nodes for body in bodies_of(node.attrs)):
        return graph
    assigned: list[Value] = []

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        if not any(body.has_state for body in bodies_of(node.attrs)):
            return None
        outputs, more = _hoist_states(b, node, inputs)
        assigned.extend(more)
        return outputs

    return rebuild(graph, visit, lambda b, outputs: [*outputs, *assigned])


def _hoist_states(b: Builder, node: Node, inputs: Sequence[Value]) -> tuple[Sequence[Value], list[Value]]:
    """The node's outputs, and the Assigns that follow it."""
    names = ("then_body", "else_body") if node.op.name == "If" else ("body",)
    variables: dict[str, _HoistedVariable] = {}
    for name in names:
        for key, info in _variables(node.attrs[name]).items():
            before = variables.get(key, info)
            variables[key] = info._replace(
                initial=before.initial if before.initial is not None else info.initial,
                assigned=before.assigned or info.assigned,
                computed=before.computed or info.computed,
            )
    _add_flags(node, variables)
    attrs = dict(node.attrs)
    first_input, first_output = len(inputs), len(node.outputs)
    written = [key for key, info in variables.items() if info.assigned]
    for name in names:
        body = node.attrs[name]
        plain = [v for v in body.outputs if v.node.op.role != "assign"]
        attrs[name] = _without(body, variables, plain)
        ins, outs = (
            ("input_ports", "output_ports")
            if name == "body"
            else (f"{name[:4]}_inputs", f"{name[:4]}_outputs")
        )
        more_in = []
        for k, key in enumerate(variables):
            inner = len(body.inputs) + k
            if key in written and name == "body":
                back = len(plain) + written.index(key)
                more_in.append(Port(MERGED, first_input + k, inner, back))
            else:
                more_in.append(Port(INVARIANT, first_input + k, inner))
        more_out = [Port(LAST, first_output + j, len(plain) + j) for j in range(len(written))]
        attrs[ins] = (*ports(attrs[ins]), *more_in)
        attrs[outs] = (*ports(attrs[outs]), *more_out)
    reads = []
    for key, info in variables.items():
        initial = [] if info.initial is None else [b.constant(info.initial, info.type.dtype)]
        about = {"variable_id": key, "variable_type": info.type.dtype, "variable_shape": info.type.shape}
        reads.append(b.add("ReadValue", initial, about, name=f"{node.name}/{key}").output)
    result = b.add(node.op, [*inputs, *reads], attrs, name=node.name, origins=node.origins)
    assigns = [
        b.add("Assign", [value], {"variable_id": key}, name=f"{node.name}/{key}/assign").output
        for key, value in zip(written, result.outputs[first_output:], strict=True)
    ]
    return result.outputs[:first_output], assigns


def _add_flags(node: Node, variables: dict[str, _HoistedVariable]) -> None:
    """Add the variables that tell which of those with a computed initial value are unset."""
    for key in [key for key, info in variables.items() if info.computed]:
        if key + UNSET in variables:
            raise ModelError(
                f"node {node.name!r}: a body and another one inside of it compute the initial value of the "
                f"variable {key!r}, which is not supported; read the variable outside of the bodies"
            )
        variables[key] = variables[key]._replace(initial=None, assigned=True)
        variables[key + UNSET] = _HoistedVariable(TensorType("boolean", ()), np.array(True), True)


def _variables(body: Graph) -> dict[str, _HoistedVariable]:
    out: dict[str, _HoistedVariable] = {}
    for inner in body.nodes:
        if inner.op.role == "read":
            key = inner.attrs["variable_id"]
            initial = inner.inputs[0].constant if inner.inputs else None
            computed = bool(inner.inputs) and initial is None
            first = out.setdefault(key, _HoistedVariable(inner.output.type, initial, False))
            out[key] = first._replace(computed=first.computed or computed)
    for inner in body.nodes:
        if inner.op.role == "assign":
            key = inner.attrs["variable_id"]
            if key not in out:
                raise ModelError(
                    f"node {inner.name!r} assigns the variable {key!r}, but its body has no ReadValue "
                    "of that variable"
                )
            out[key] = out[key]._replace(assigned=True)
    return out


def _without(body: Graph, variables: Mapping[str, _HoistedVariable], results: Sequence[Value]) -> Graph:
    """The body with a further parameter for each variable, and a further result for each assigned one."""
    builder = Builder()
    new: dict[Value, Value] = {}
    for value in body.inputs:
        new[value] = copy_node(builder, value.node, ()).output
    hidden = {
        key: builder.add(
            "Parameter", (), {"shape": info.type.shape, "element_type": info.type.dtype}, name=key
        ).output
        for key, info in variables.items()
    }
    last = dict(hidden)
    firsts = dict(hidden)  # what a read gives
    for node in body.nodes:
        if node.op.role == "parameter":
            continue
        if node.op.role == "read":
            key = node.attrs["variable_id"]
            if variables[key].computed and firsts[key] is hidden[key]:
                firsts[key] = last[key] = _start_value(
                    builder, body, node, new, hidden[key], hidden[key + UNSET]
                )
                last[key + UNSET] = builder.constant(np.array(False), "boolean")
            new[node.output] = firsts[key]
        elif node.op.role == "assign":
            new[node.output] = last[node.attrs["variable_id"]] = new[node.inputs[0]]
        else:
            copy_into(new, builder, node)
    written = [last[key] for key, info in variables.items() if info.assigned]
    return builder.finish([*(new[v] for v in results), *written])


def _start_value(
    builder: Builder, body: Graph, read: Node, new: Mapping[Value, Value], hidden: Value, unset: Value
) -> Value:
    """The value of a variable that `hidden` has unless it is `unset`: then the body computes it."""
    start = Builder()
    inner: dict[Value, Value] = {}
    operands: list[Value] = []
    ends = ("read", "parameter")
    needed = makers(read.inputs, body.nodes, lambda node: node.op.role in ends)
    for node in body.nodes:
        if node in needed and node.op.role in ends:
            attrs = {"shape": node.output.shape, "element_type": node.output.dtype}
            inner[node.output] = start.add("Parameter", (), attrs, name=node.name).output
            operands.append(new[node.output])
        elif node in needed:
            copy_into(inner, start, node)
    other = Builder()
    attrs = {"shape": hidden.shape, "element_type": hidden.dtype}
    same = other.add("Parameter", (), attrs, name=read.name).output
    count, port = len(operands), Port(LAST, 0, 0)
    choice = {
        "then_body": start.finish([inner[read.inputs[0]]]), "else_body": other.finish([same]),
        "then_inputs": tuple(Port(INVARIANT, 1 + i, i) for i in range(count)),
        "else_inputs": (Port(INVARIANT, 1 + count, 0),), "then_outputs": (port,), "else_outputs": (port,),
    }  # fmt: skip
    return builder.add("If", [unset, *operands, hidden], choice, name=f"{read.name}/start").output
