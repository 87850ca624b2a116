"""The inputs, outputs and condition of If."""

from __future__ import annotations

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


def check_if(count: int, then_body, else_body, then_inputs, else_inputs, then_outputs, else_outputs) -> None:
    """Raise ModelError if ports and bodies do not fit a node with `count` inputs."""
    rows = ((then_body, then_inputs, then_outputs), (else_body, else_inputs, else_outputs))
    for branch, (body, inputs, outputs) in zip(BRANCHES, rows, strict=True):
        what = f"the {branch} branch"
        check_body(body, what)
        check_inputs(body, ports(inputs), count, (), what)
        check(all(port.outer > 0 for port in ports(inputs)), f"{what} takes the condition as an input")
        made = ports(outputs)
        check_outputs(made)
        check(all(port.kind == LAST for port in made), f"{what} has an output that is not a plain result")
        for port in made:
            check_result(body, port.inner, what)
    check(
        len(then_outputs) == len(else_outputs),
        f"the branches have {len(then_outputs)} and {len(else_outputs)} outputs; expected equal numbers",
    )
