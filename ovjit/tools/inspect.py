"""`ovjit inspect`: the contents of a model, and how ovjit would run it.

In: a model file. Out: inputs and outputs, operations by type with the number of native ones, sizes,
arithmetic.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovjit.records import NamedTuple
from ovjit.tools import terminal
from ovjit.tools.files import graph_file


class Inspection(NamedTuple):
    """`operations`: (type, number, number of native ones, elements of constants). `flops`: those of one
    inference. `arena`: bytes of working memory. Both are None for dynamic shapes."""

    name: str
    inputs: list[tuple[str, str, str]]
    outputs: list[tuple[str, str, str]]
    operations: list[tuple[str, int, int]]
    host: list[str]
    weights: int
    flops: float | None
    arena: int | None
    steps: int | None
    #: bytes of constants
    bytes: int
    #: (name, type, element type and shape of the first output, elements of its constants, flops of the step
    #: that
    #: begins with it or None, natively run)
    nodes: list[tuple[str, str, str, int, float | None, bool]]


def inspect(path: str, precision: str | None = None) -> Inspection:
    """Inspect a model file (IR or ONNX). Raises RuntimeError if it cannot be read or compiled."""
    import ovjit as ov

    model = ov.Core().read_model(path)
    config = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = ov.Core().compile_model(model, "CPU", config)
    executable = compiled._executable
    host = executable.program.host_nodes() if hasattr(executable.program, "host_nodes") else []
    by_numpy = Counter(text.rpartition("(")[2].rstrip(")") for text in host)
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    constants = [node.output(0) for node in model.get_ops() if node.get_type_name() == "Constant"]
    sizes = [port.get_tensor().size for port in constants]
    bits = [port.get_element_type().bitwidth for port in constants]
    stored = sum((size * width + 7) // 8 for size, width in zip(sizes, bits, strict=True))
    flops, arena, steps, by_step = _plan_sizes(executable)
    return Inspection(
        model.get_friendly_name(), [_port(p) for p in model.inputs], [_port(p) for p in model.outputs],
        [(kind, count, count - by_numpy[kind]) for kind, count in kinds.most_common()],
        host, sum(sizes), flops, arena, steps, stored,
        _nodes(model, by_step, {text.rpartition(" (")[0] for text in host}),
    )  # fmt: skip


def _nodes(model: Any, flops: dict[str, float], host: set[str]) -> list[Any]:
    rows = []
    for node in model.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        if kind in ("Parameter", "Constant", "Result"):
            continue
        sources = [value.get_node() for value in node.input_values()]
        count = sum(s.get_output_tensor(0).size for s in sources if s.get_type_name() == "Constant")
        out = ""
        if node.get_output_size():
            out = f"{node.get_output_element_type(0).get_type_name()}{node.get_output_partial_shape(0)}"
        rows.append((name, kind, out, count, flops.get(name), name not in host))
    return rows


def _port(port: Any) -> tuple[str, str, str]:
    names = port.get_names()
    return (
        min(names) if names else "",
        port.get_element_type().get_type_name(),
        str(port.get_partial_shape()),
    )


def _plan_sizes(executable: Any) -> tuple[float | None, int | None, int | None, dict[str, float]]:
    """Arithmetic, working memory and steps of the plan, if shapes are static and there is a single plan. The
    arithmetic of a step is listed under the first node that it computes."""
    shapes = [v.shape for v in executable.graph.inputs]
    if any(s is None or not all(isinstance(d, int) for d in s) for s in shapes):
        return None, None, None, {}
    try:
        plan = executable.program.loaded_plan([tuple(s) for s in shapes])
    except (AttributeError, RuntimeError):
        return None, None, None, {}
    by_node: dict[str, float] = {}
    for i, step in enumerate(plan.steps):
        name = step.origins[0] if step.origins else step.name
        by_node[name] = by_node.get(name, 0.0) + plan.work_of(i)[0]
    return sum(plan.work_of(i)[0] for i in range(len(plan.steps))), plan.arena_size, len(plan.steps), by_node


@terminal.reporting(*terminal.FAULTS)
def main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit inspect` with these arguments. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="ovjit inspect", description="What is in a model, and how it would run."
    )
    parser.add_argument("model", help="an IR or ONNX file")
    parser.add_argument("--precision", help="INFERENCE_PRECISION_HINT to look at it with")
    parser.add_argument("--nodes", action="store_true", help="a row for each node")
    parser.add_argument("--json", type=Path, help="write what is found there")
    options = parser.parse_args(argv)
    report = inspect(graph_file(options.model), options.precision)
    if options.json:
        options.json.write_text(json.dumps(report._asdict(), indent=1))
    for title, ports in (("inputs", report.inputs), ("outputs", report.outputs)):
        terminal.show_table(("name", "type", "shape"), ports, title)
    terminal.show_table(("operation", "nodes", "native"), report.operations, "operations")
    if options.nodes:
        columns = ("node", "operation", "output", "elements of constants", "Mflop", "native")
        rows = [
            (*row[:4], None if row[4] is None else row[4] / 1e6, "yes" if row[5] else "by NumPy")
            for row in report.nodes
        ]
        terminal.show_table(columns, rows, "nodes")
    numbers = [("constants", f"{report.weights:,} elements, {report.bytes / 1e6:,.2f} MB")]
    if report.flops is not None and report.arena is not None:
        numbers += [("arithmetic of an inference", f"{report.flops / 1e6:,.2f} Mflop")]
        numbers += [("working memory", f"{report.arena / 1e6:,.2f} MB"), ("steps", str(report.steps))]
    numbers += [("by NumPy", ", ".join(report.host) or "nothing: all is native")]
    terminal.show_table(("", ""), numbers)
    return 0
