"""Loops, conditions, and operators that are subgraphs. A subgraph takes every value that it needs as an
input."""

from __future__ import annotations

from ovjit.build import make_model
from ovjit.build.bodies import if_of, kinds_of, loop_of, parameters, read_until_stable
from ovjit.graph.op import TensorType
from ovjit.readers.tflite.node import fields_of
from ovjit.readers.tflite.rule_language import *


@tflite_op("WHILE")
def while_(n: LiteNode) -> Any:
    """WHILE -> Loop: the condition's subgraph runs before each iteration.

    A value that comes with another shape has the dimensions that change open.
    """
    cond, body = n.option("CondSubgraphIndex"), n.option("BodySubgraphIndex")
    inputs = n.inputs
    go_on = _one(n.subgraph(cond, inputs))

    def read(kinds: list[TensorType]) -> tuple[list[Output], Any]:
        nodes, values = parameters(kinds)
        outputs = n.subgraph(body, values)
        if len(outputs) != len(inputs):
            raise ModelError(
                f"[TensorFlow Lite Frontend] Internal error or inconsistent model: body graphs must have the "
                "same number of Result nodes as a number of inputs to While: "
                f"{len(outputs)} and {len(inputs)}"
            )
        return outputs, (nodes, outputs, _one(n.subgraph(cond, outputs)))

    nodes, outputs, more = read_until_stable(kinds_of(inputs), read)
    model = make_model([*outputs, more], nodes, n.base)
    return loop_of(model, n.const(-1, "i32"), go_on, inputs, (), n.base, leading=0)


def _one(values: Sequence[Output]) -> Output:
    if len(values) != 1:
        raise ModelError(
            "[TensorFlow Lite Frontend] Internal error or inconsistent model: condition body must contain "
            f"one Result node, not {len(values)}"
        )
    return values[0]


@tflite_op("IF")
def if_(n: LiteNode) -> Any:
    """IF. A constant condition selects its subgraph while the model is read."""
    graph_indices = [n.option("ThenSubgraphIndex"), n.option("ElseSubgraphIndex")]
    condition, inputs = n[0], n.inputs[1:]
    constant = n.value(condition)
    if constant is not None and constant.size == 1:
        return n.subgraph(graph_indices[not bool(constant.reshape(()))], inputs)
    models = []
    for graph_index in graph_indices:
        nodes, values = parameters(kinds_of(inputs))
        models.append(make_model(n.subgraph(graph_index, values), nodes, n.base))
    counts = [len(model.get_results()) for model in models]
    if counts[0] != counts[1]:
        raise ModelError(f"the subgraphs of a condition have {counts[0]} and {counts[1]} outputs")
    return if_of(condition, [inputs] * 2, models, n.base)


@tflite_op("CALL")
def call(n: LiteNode) -> Any:
    return n.subgraph(n.option("Subgraph"), n.inputs)


@tflite_op("STABLEHLO_COMPOSITE")
def composite(n: LiteNode) -> Any:
    """A composite operator: its own rule by name, else the subgraph that defines it."""
    name = n.option("Name")
    if not name:
        raise ModelError("composite_name is missing in STABLEHLO_COMPOSITE op")
    if n.option("CompositeAttributesFormat", 0):
        raise UnsupportedError("Unsupported composite_attributes_format for STABLEHLO_COMPOSITE op")
    label = bytes(name).decode("utf-8", "replace")
    if label == "odml.rms_norm":
        return _rms_norm(n)
    graph_index = n.option("DecompositionSubgraphIndex")
    if not 0 < graph_index < len(n.reader.file.graphs):
        raise UnsupportedError(
            f"STABLEHLO_COMPOSITE '{label[:80]}' has no decomposition_subgraph_index and no hand-written "
            "translator"
        )
    return n.subgraph(graph_index, n.inputs)


def _rms_norm(n: LiteNode) -> Output:
    """gamma * x / sqrt(mean(x ** 2) + epsilon) along the last axis"""
    if len(n) != 2:
        raise ModelError(f"STABLEHLO_COMPOSITE odml.rms_norm expects 2 inputs (data, gamma), got {len(n)}")
    x, gamma = n[0], n[1]
    epsilon = fields_of(bytes(n.options("CompositeAttributes") or ())).get("epsilon", 1e-6)
    mean = n("ReduceMean", n("Power", x, n.like(x, 2)), n.const([-1]), keep_dims=True)
    root = n("Sqrt", n("Add", mean, n.like(x, epsilon)))
    return n("Multiply", gamma, n("Multiply", x, n("Power", root, n.like(x, -1))))
