"""`get_runtime_model`: the graph as it is executed, as a Model with notes on every node.

The notes have OpenVINO's keys: `layerType`, `originalLayersNames` (what the node stands for), `execOrder`,
`outputLayouts` (dimensions from the slowest to the fastest, as letters), `outputPrecisions`,
`runtimePrecision` (of a product what is multiplied), `primitiveType` (the kernel; "" for what needs none) and
`execTimeMcs`, microseconds of the last run of the request that calls use, "not_executed" without PERF_COUNT.
What is no input or output of the model is an ExecutionNode: `layerType` says what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovjit.api.accessors import accessor
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.api.model.type_info import DiscreteTypeInfo
from ovjit.graph.graph import Value
from ovjit.graph.op import Op, TensorType

#: What a product of them is said to be computed in, whatever its sums are.
MULTIPLIED = frozenset(("u8", "i8", "bf16", "f16"))

if TYPE_CHECKING:
    from ovjit.api.run.compiled_record import CompiledRecord


def _any_inputs(*inputs: TensorType) -> tuple[TensorType, ...]:
    return inputs


class ExecutionNode(Node):
    """A step of a compiled model as a node. Its output types are not inferred."""

    _RECORD = Op("ExecutionNode", 1, _any_inputs, internal=True)

    def get_type_info(self) -> DiscreteTypeInfo:
        return DiscreteTypeInfo("ExecutionNode", "extension", DiscreteTypeInfo("Op", "util"))

    type_info = accessor(get_type_info)

    def _infer(self, inputs: Sequence[TensorType] | None = None) -> tuple[TensorType, ...]:
        return tuple(tensor._type for tensor in self._tensors)


def runtime_model(compiled: CompiledRecord, profile: Sequence[Any]) -> Model:
    """The Model of what a compiled model runs, with the times of the rows `profile`. Nothing of it is shared
    with the model that was compiled."""
    program = compiled._executable.program
    program = getattr(program, "main", compiled._executable).program  # of a model with states what runs
    graph, layouts = program.graph, program.layouts
    inputs, count = graph.inputs[: len(compiled.inputs)], len(compiled.outputs)  # after them are variables
    steps = {name: row for row in profile for name in row.names}
    out: dict[Value, Output] = {}
    parameters: dict[Value, Parameter] = {}
    for order, node in enumerate(graph.nodes):
        kind = node.op.name
        if kind == "Parameter":
            kind = "Input" if node.output in inputs else "MemoryInput"
        if kind == "Input":
            new: Any = Parameter._of(node.output.dtype, node.output.shape, node.name)
            parameters[node.output] = new
        else:
            types = [value.type for value in node.outputs]
            new = ExecutionNode._new(
                ExecutionNode._RECORD, [out[v] for v in node.inputs], {}, node.name, types
            )
        row = next((steps[name] for name in (node.name, *node.origins) if name in steps), None)
        orders = ",".join(_letters(layouts.get(value), value.type) for value in node.outputs)
        origins = node.origins or (node.name,)
        _note(new, order, "Const" if kind == "Constant" else kind, origins, orders, row)
        dtype = node.inputs[0].dtype if node.op.multiplied else ""
        if dtype in MULTIPLIED:
            new.set_rt_info(dtype, "runtimePrecision")
        out.update(zip(node.outputs, new.outputs(), strict=True))
    results = []
    for i, value in enumerate(graph.outputs[:count]):
        result = Result._of(out[value], compiled._output_infos[i].node)
        _note(result, len(graph.nodes) + i, "Output", (result.get_friendly_name(),), "undef", None)
        results.append(result)
    sinks = []
    for i, value in enumerate(graph.outputs[count:], count):
        sink = ExecutionNode._new(ExecutionNode._RECORD, [out[value]], {}, f"{value.node.name}/next", [])
        _note(sink, len(graph.nodes) + i, "MemoryOutput", (value.node.name,), "undef", None)
        sinks.append(sink)
    return Model._from_parts(results, [parameters[v] for v in inputs], sinks, compiled._name)


def _letters(layout: Any, type: TensorType) -> str:
    """A layout as letters, "acdb" for channels last; what no kernel wished otherwise is in its own order."""
    if type.rank is None:
        return "undef"
    order = range(type.rank) if layout is None else layout.order
    return "".join(chr(ord("a") + axis) for axis in order) or "a"


def _note(node: Node, order: int, kind: str, origins: Sequence[str], orders: str, row: Any) -> None:
    executed = row is not None and row.status == "EXECUTED"
    types = [port.get_element_type().to_string() for port in node.outputs()]
    notes = {
        "layerType": kind,
        "originalLayersNames": ",".join(origins),
        "execOrder": str(order),
        "execTimeMcs": str(row.real_ns // 1000) if executed else "not_executed",
        "outputLayouts": orders,
        "outputPrecisions": ",".join(types),
        "runtimePrecision": types[0] if types else "",
        "primitiveType": "" if row is None else row.exec_type,
    }
    for key, value in notes.items():
        node.set_rt_info(value, key)
