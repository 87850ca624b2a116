"""Moves variables of bodies to the model. In the body, the value becomes a parameter and a result.

Loop(x; body: ReadValue(v), Assign(v))  ->  Loop(x, ReadValue(v); body: parameter, result), Assign(v)

A branch of an If that does not use the variable returns it unchanged.

The pass is not a rule: it changes bodies, and adds outputs to the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph.bodies import INVARIANT, LAST, MERGED, Port, bodies_of, ports
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Value, copy_into, copy_node, rebuild
from ovjit.records import NamedTuple


class _Kept(NamedTuple):
    """A variable of a body: its first ReadValue's type, its initial value, and whether it is assigned."""

    type: Any
    initial: np.ndarray | None
    assigned: bool


def hoist(graph: Graph) -> Graph:
    """The graph, with the variables of bodies moved to it. Raises ModelError if the initial value of one is
    computed inside its body."""
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
    variables: dict[str, _Kept] = {}
    for name in names:
        for key, info in _variables(node, node.attrs[name]).items():
            before = variables.get(key, info)
            variables[key] = info._replace(
                initial=before.initial if before.initial is not None else info.initial,
                assigned=before.assigned or info.assigned,
            )
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
        more_in, more_out = [], []
        for k, key in enumerate(variables):
            inner = len(body.inputs) + k
            if key in written and name == "body":
                back = len(plain) + written.index(key)
                more_in.append(Port(MERGED, first_input + k, inner, back))
            else:
                more_in.append(Port(INVARIANT, first_input + k, inner))
        for j in range(len(written)):
            more_out.append(Port(LAST, first_output + j, len(plain) + j))
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


def _variables(node: Node, body: Graph) -> dict[str, _Kept]:
    out: dict[str, _Kept] = {}
    for inner in body.nodes:
        if inner.op.role == "read":
            key = inner.attrs["variable_id"]
            initial = inner.inputs[0].constant if inner.inputs else None
            if inner.inputs and initial is None:
                raise ModelError(
                    f"node {inner.name!r} in a body of {node.name!r} computes the initial value of the "
                    f"variable {key!r}, which is not supported; use a constant, or read the variable "
                    "outside of the body"
                )
            out.setdefault(key, _Kept(inner.output.type, initial, False))
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


def _without(body: Graph, variables: Mapping[str, _Kept], results: Sequence[Value]) -> Graph:
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
    for node in body.nodes:
        if node.op.role == "parameter":
            continue
        if node.op.role == "read":
            new[node.output] = hidden[node.attrs["variable_id"]]
        elif node.op.role == "assign":
            new[node.output] = last[node.attrs["variable_id"]] = new[node.inputs[0]]
        else:
            copy_into(new, builder, node)
    written = [last[key] for key, info in variables.items() if info.assigned]
    return builder.finish([*(new[v] for v in results), *written])
