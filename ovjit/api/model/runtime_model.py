"""`get_runtime_model`: the graph as it is executed, as a Model with notes on every node.

The notes have OpenVINO's keys: `layerType`, `originalLayersNames` (what the node stands for), `execOrder`,
`outputPrecisions`, `runtimePrecision`, `primitiveType` (the kernel; "" for what needs none) and
`execTimeMcs`, microseconds of the last run of the request that calls use, "not_executed" without PERF_COUNT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ovjit.api.model.boundary import Constant, Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.graph.graph import Value

if TYPE_CHECKING:
    from ovjit.api.run.compiled import CompiledModel


def runtime_model(compiled: CompiledModel) -> Model:
    """The Model of what a compiled model runs. Nothing of it is shared with the model that was compiled."""
    graph = compiled._executable.program.graph
    steps = {name: row for row in compiled._kept_request()._job.profile() for name in row.names}
    made: dict[Value, Output] = {}
    parameters: dict[Value, Parameter] = {}
    for order, node in enumerate(graph.nodes):
        kind = node.op.name
        if kind == "Parameter":
            new: Any = Parameter._of(node.output.dtype, node.output.shape, node.name)
            parameters[node.output] = new
        elif kind == "Constant":
            attrs = node.attrs
            new = Constant._of(attrs["value"], attrs["element_type"], attrs["shape"], node.name)
        else:
            types = [value.type for value in node.outputs]
            attrs = {} if node.op.runs_body else dict(node.attrs)  # what is executed has no bodies to show
            new = Node._new(node.op, [made[v] for v in node.inputs], attrs, node.name, types)
        row = next((steps[name] for name in (node.name, *node.origins) if name in steps), None)
        _note(new, order, {"Parameter": "Input", "Constant": "Const"}.get(kind, kind), node.origins, row)
        made.update(zip(node.outputs, new.outputs(), strict=True))
    results = []
    for i, value in enumerate(graph.outputs):
        result = Result._of(made[value], compiled._output_infos[i].node)
        _note(result, len(graph.nodes) + i, "Output", (result.get_friendly_name(),), None)
        results.append(result)
    return Model._from_parts(results, [parameters[v] for v in graph.inputs], (), compiled._name)


def _note(node: Node, order: int, kind: str, origins: tuple[str, ...], row: Any) -> None:
    executed = row is not None and row.status == "EXECUTED"
    types = [port.get_element_type().to_string() for port in node.outputs()]
    notes = {
        "layerType": kind,
        "originalLayersNames": ",".join(origins),
        "execOrder": str(order),
        "execTimeMcs": str(row.real_ns // 1000) if executed else "not_executed",
        "outputPrecisions": ",".join(types),
        "runtimePrecision": types[0] if types else "",
        "primitiveType": "" if row is None else row.exec_type,
    }
    for key, value in notes.items():
        node.set_rt_info(value, key)
