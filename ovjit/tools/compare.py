"""`ovjit.compare`: runs a model once and compares each step with its NumPy reference, in a table."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.run.compiled import CompiledModel
from ovjit.api.run.core import Core, _compile
from ovjit.execution.executable import Executable
from ovjit.execution.watch import Difference, WatchedJob, largest_error
from ovjit.graph import interp
from ovjit.graph.graph import Graph, Node, Value
from ovjit.records import NamedTuple
from ovjit.tools import terminal
from ovjit.tools.files import graph_file


def compare(
    model: Any,
    inputs: Any,
    config: Mapping[str, Any] | None = None,
    show: Callable[[str], None] | None = print,
) -> list[Difference]:
    """Run `model` (a Model or a file) once on `inputs`, and compare each step with its NumPy reference.
    Inputs are as for `InferRequest.infer`. Prints a table with `show` (None: nothing) and returns its rows.

    A row's `error` is that of its own step, `total` the accumulated one. The last rows compare the model's
    outputs with the references of the original model, before any rewriting.
    """
    core = Core()
    if not isinstance(model, Model):
        model = core.read_model(model)
    compiled, job, steps = _run_watched(model, core._config_for("CPU", config), inputs)
    executable: Executable = compiled._executable
    arrays = [a for a in job.inputs if a is not None]

    reference: dict[Value, np.ndarray] = {}

    def keep(node: Node, outputs: Sequence[np.ndarray]) -> None:
        reference.update(zip(node.outputs, outputs, strict=True))

    interp.evaluate(executable.program.graph, arrays, keep)
    rows = [row._replace(total=largest_error(job.values[value], reference[value])[0]) for value, row in steps]
    final = Graph(executable.graph.inputs, executable.graph.nodes, executable.outputs)
    for value, got, want in zip(final.outputs, job.outputs, interp.evaluate(final, arrays), strict=True):
        error, at = largest_error(got, want)
        rows.append(Difference(value.node.name, "output", "", value.dtype, got.shape, error, at, total=error))
    if show is not None:
        show(table(rows))
    return rows


def _run_watched(
    model: Model, config: Mapping[str, Any], inputs: Any
) -> tuple[CompiledModel, WatchedJob, list[tuple[Value, Difference]]]:
    """Compile and run a model. Returns its job with all values, and pairs of each value and its step's
    reference."""
    differences: list[tuple[Value, Difference]] = []
    watch = {"watch": lambda value, difference: differences.append((value, difference))}
    compiled = _compile(model, "CPU", {**config, **watch})
    request = compiled.create_infer_request()
    request.infer(inputs)
    job = request._job
    assert isinstance(job, WatchedJob)
    return compiled, job, differences


def table(rows: Sequence[Difference]) -> str:
    """The rows as text; `!` marks errors above the limit."""
    head = f"  {'step':>8s} {'total':>8s}  {'type':18s} {'kernel':34s} {'element type and shape':24s} name"
    lines = ["error against the NumPy reference, in parts of the output's largest value", head]
    for row in rows:
        total = "" if math.isnan(row.total) else f"{row.total:.1e}"
        shape = f"{row.dtype}[{','.join(map(str, row.shape))}]"
        mark = "!" if row.error > row.limit else " "
        what = f"{row.type:18s} {row.kernel:34s} {shape:24s} {row.name}"
        lines.append(f"{mark} {row.error:8.1e} {total:>8s}  {what}")
    return "\n".join(lines)


class Beside(NamedTuple):
    """The comparison of a value with another engine's value of the same name: the largest difference,
    absolute and relative to the largest value of the other engine. `type` is "output" for the model's
    outputs."""

    name: str
    type: str
    kernel: str
    shape: str
    difference: float
    error: float


#: Both engines compute in f32.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}


def beside(path: str, engine: str, arrays: Sequence[np.ndarray]) -> list[Beside]:
    """Compare each step of a model file, and its outputs, with another installed engine: openvino or
    onnxruntime. Values are matched by name. Steps without a value of the same name and shape are left out."""
    core = Core()
    model = core.read_model(path)
    compiled, job, steps = _run_watched(model, core._config_for("CPU", EXACT), list(arrays))
    take = _openvino_values if engine == "openvino" else _onnxruntime_values
    values, outputs = take(path, model, arrays)
    rows = []
    for value, row in steps:
        want = values.get(row.name)
        got = job.values[value]
        if value is value.node.outputs[0] and want is not None and want.shape == got.shape:
            rows.append(_beside(row.name, row.type, row.kernel, got, want))
    for port, got, want in zip(compiled.outputs, job.outputs, outputs, strict=True):
        names = port.get_names()
        rows.append(_beside(min(names) if names else "", "output", "", np.asarray(got), want))
    return rows


def _beside(name: str, kind: str, kernel: str, got: np.ndarray, want: np.ndarray) -> Beside:
    difference = size = 0.0
    if got.size:
        exact = want.astype(np.float64)
        difference = float(np.abs(got.astype(np.float64) - exact).max())
        size = float(np.abs(exact).max())
    shape = str(list(got.shape))
    return Beside(name, kind, kernel, shape, difference, difference / size if size else difference)


def _openvino_values(
    path: str, model: Model, arrays: Sequence[np.ndarray]
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """OpenVINO's value of each node, by name, and of the outputs."""
    import openvino

    read = openvino.Core().read_model(path)
    count = len(read.outputs)
    kinds = {"Parameter", "Constant", "Result"}
    nodes = [
        node for node in read.get_ordered_ops()
        if node.get_type_name() not in kinds and node.get_output_size()
    ]  # fmt: skip
    for node in nodes:
        read.add_outputs([node.output(0)])
    compiled = openvino.Core().compile_model(read, "CPU", EXACT)
    values = [np.array(a) for a in compiled(list(arrays)).to_tuple()]
    # a node that is an output already gets no second one
    sources = [port.get_node().input_value(0) for port in read.outputs]
    by_node = {
        source.get_node().get_friendly_name(): value
        for source, value in zip(sources, values, strict=True) if source.get_index() == 0
    }  # fmt: skip
    return by_node, values[:count]


def _onnxruntime_values(
    path: str, model: Model, arrays: Sequence[np.ndarray]
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """ONNX Runtime's value of each tensor that names a node of `model`, and of the outputs."""
    import onnx
    import onnxruntime

    loaded = onnx.load(path)
    outputs = [o.name for o in loaded.graph.output]
    tensors = {name for node in loaded.graph.node for name in node.output if name} - set(outputs)
    loaded.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(tensors))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        loaded.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = dict(zip((i.name for i in session.get_inputs()), arrays, strict=True))
    value_by_name = dict(zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True))
    by_node = {
        node.get_friendly_name(): value_by_name[name]
        for node in model.get_ops() if node.get_output_size()
        for name in node.output(0).get_names() if name in value_by_name
    }  # fmt: skip
    return by_node, [value_by_name[name] for name in outputs]


@terminal.reporting(*terminal.FAULTS, ImportError)
def main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit compare` with these arguments. Returns the exit code: 1 if an error exceeds its limit."""
    from ovjit.tools.profile import random_inputs

    parser = argparse.ArgumentParser(
        prog="ovjit compare", description="A model beside the references or another engine, step by step."
    )
    parser.add_argument("model", help="an IR or ONNX file")
    parser.add_argument(
        "--engine", choices=("references", "openvino", "onnxruntime"), default="references",
        help="what to compare with; default: the references in NumPy",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of random inputs")
    parser.add_argument(
        "--limit",
        type=float,
        default=1e-4,
        help="the largest difference of outputs, as a part of their largest value; default 1e-4",
    )
    options = parser.parse_args(argv)
    try:
        ports = Core().read_model(graph_file(options.model)).inputs
        arrays = random_inputs(ports, None, options.seed)
        if options.engine == "references":
            rows = compare(options.model, arrays, {"INFERENCE_PRECISION_HINT": "f32"})
            return int(any(row.error > options.limit for row in rows if row.type == "output"))
        rows_beside = beside(options.model, options.engine, arrays)
    except ModuleNotFoundError as error:
        package = {"onnxruntime": "onnxruntime onnx"}.get(options.engine, options.engine)
        print(f"ovjit: {error}; --engine {options.engine} needs: pip install {package}", file=sys.stderr)
        return 2
    columns = ("node", "type", "kernel", "shape", "difference", "of the largest")
    terminal.show_table(columns, rows_beside, f"beside {options.engine}, in f32")
    return int(any(row.error > options.limit for row in rows_beside if row.type == "output"))
