"""The inputs, outputs and condition of If."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.errors import check
from ovjit.graph.bodies import LAST, check_body, check_inputs, check_outputs, check_result, ports
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Dim, bounds, dim

#: Prefixes of the branches' attributes.
BRANCHES = ("then", "else")


def branch_inputs(body: Any, rows: Any, inputs: Any) -> list[Any]:
    """The values of a branch's parameters. `inputs`: the node's inputs without the condition."""
    source = {port.inner: port.outer for port in ports(rows)}
    return [inputs[source[i] - 1] for i in range(len(body.inputs))]


def branch_results(rows: Any) -> list[int]:
    """For each output of the node, the index of the body's result."""
    return [port.inner for port in sorted(ports(rows), key=lambda port: port.outer)]


def branch_of(attrs: Mapping[str, Any], chosen: Any) -> tuple[Any, Any, list[int]]:
    """(body, ports of its parameters, `branch_results`) of the branch that a condition selects."""
    name = BRANCHES[0 if chosen else 1]
    body, inputs, outputs = (attrs.get(f"{name}_{part}", ()) for part in ("body", "inputs", "outputs"))
    return body, inputs, branch_results(outputs)


def known_condition(condition: TensorType) -> bool | None:
    """The condition's value if it is constant, else None."""
    value = condition.value
    return None if value is None or value.size != 1 else bool(value.reshape(()))


def join_branches(a: TensorType, b: TensorType) -> TensorType:
    """The type that covers an output of both branches. Different static dimensions become bounds."""
    says = f"type of then_body output {a.dtype} is not equal type of else_body output {b.dtype}"
    check(a.dtype == b.dtype, says)
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return TensorType(a.dtype, None)

    def join(x: Dim, y: Dim) -> Dim:
        if x == y:
            return x
        if isinstance(x, int) and isinstance(y, int):
            return dim(min(x, y), max(x, y))
        (low, high), (other, top) = bounds(x), bounds(y)
        return ANY if high is None or top is None else dim(min(low, other), max(high, top))

    return TensorType(a.dtype, [join(x, y) for x, y in zip(a.shape, b.shape, strict=True)])


def check_if(count: int, attrs: Mapping[str, Any]) -> None:
    """Raise ModelError if ports and bodies do not fit a node with `count` inputs."""
    for branch in BRANCHES:
        what = f"the {branch} branch"
        body, inputs, outputs = (attrs[f"{branch}_{part}"] for part in ("body", "inputs", "outputs"))
        check_body(body, what)
        check_inputs(body, ports(inputs), count, (), what)
        check(all(port.outer > 0 for port in ports(inputs)), f"{what} takes the condition as an input")
        outs = ports(outputs)
        check_outputs(outs)
        check(
            all(port.kind == LAST for port in outs),
            f"{what} has an output that is not a plain result",
        )
        for port in outs:
            check_result(body, port.inner, what)
    one, other = (len(attrs[f"{branch}_outputs"]) for branch in BRANCHES)
    check(one == other, f"the branches have {one} and {other} outputs; expected equal numbers")
