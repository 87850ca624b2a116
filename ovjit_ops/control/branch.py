"""If: one of two bodies, by a condition."""

from __future__ import annotations

from collections.abc import Sequence

from ovjit.errors import ModelError, check
from ovjit.graph import interp
from ovjit.graph.bodies import body_types
from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.op import Any_, op
from ovjit.rewrite.pattern import constant, operation
from ovjit.rewrite.rules import rule
from ovjit_ops.common.values import check_one
from ovjit_ops.control import conditions


@rule(operation("If")(constant("chosen"), ...))
def inline_branch(b: Builder, node: Node, chosen: Value) -> Sequence[Value]:
    """If(constant, x; then, else) -> the nodes of the selected branch, applied to x"""
    truth = chosen.constant.reshape(-1)[0]  # type: ignore[union-attr]
    body, rows, results = conditions.branch_of(node.attrs, truth)
    new = dict(zip(body.inputs, conditions.branch_inputs(body, rows, node.inputs[1:]), strict=True))
    for inner in body.nodes:
        if inner.op.role != "parameter":
            copied = b.add(
                inner.op, [new[v] for v in inner.inputs], inner.attrs, name=f"{node.name}/{inner.name}"
            )
            new.update(zip(inner.outputs, copied.outputs, strict=True))
    return [new[body.outputs[i]] for i in results]


@op("If", opset=8, runs_body=True, lower=".cpu_branch:LoweredIf.of", rules=[inline_branch], rules_for=["If"])
class If:
    """The outputs of `then_body` if the condition, one element, is true, else those of `else_body`."""

    def infer(
        condition,
        *inputs,
        then_body: Any_,
        else_body: Any_,
        then_inputs: Any_ = (),
        else_inputs: Any_ = (),
        then_outputs: Any_ = (),
        else_outputs: Any_ = (),
    ):
        attrs = locals()
        conditions.check_if(1 + len(inputs), attrs)
        check(condition.dtype == "boolean", f"the condition should be boolean, not {condition.dtype}")
        check_one(condition, "the condition")
        # A branch may reject the shapes of this call, for example if the branches are networks for different
        # input sizes. This is an error only if that branch runs.
        sides = {}
        truth = conditions.known_condition(condition)
        refused: ModelError | None = None
        for branch in (True, False):
            if truth in (None, branch):
                body, rows, results = conditions.branch_of(attrs, branch)
                try:
                    types = body_types(body, conditions.branch_inputs(body, rows, inputs))
                except ModelError as error:
                    refused = error
                    continue
                sides[branch] = [types[i] for i in results]
        if not sides:
            assert refused is not None
            raise refused
        if len(sides) == 1:
            return tuple(next(iter(sides.values())))
        return tuple(conditions.join_branches(a, b) for a, b in zip(sides[True], sides[False], strict=True))

    def ref(condition, *inputs, **attrs):
        check(
            condition.size == 1,
            f"the condition of an If should have one element; its shape is {list(condition.shape)}",
        )
        body, rows, results = conditions.branch_of(attrs, condition.reshape(()))
        outputs = interp.evaluate(body, conditions.branch_inputs(body, rows, inputs))
        return tuple(outputs[i] for i in results)
