"""`ovjit.compare`: a model run once, step by step beside the NumPy references, as a table."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.run.core import Core, _compile
from ovjit.execution.job import Executable
from ovjit.execution.watch import Difference, WatchedJob, largest_error
from ovjit.graph import interp
from ovjit.graph.graph import Graph, Node, Value


def compare(
    model: Any,
    inputs: Any,
    config: Mapping[str, Any] | None = None,
    show: Callable[[str], None] | None = print,
) -> list[Difference]:
    """Run `model` (a Model or a file) once on `inputs`, as `InferRequest.infer` takes them, step by step
    beside the NumPy references; print a table by `show` (None: nothing) and return its rows.

    A row's `error` is what its own step adds, `total` what has come together up to there. The last rows are
    the model's outputs against the references of the model as it was given, before any rewriting.
    """
    core = Core()
    if not isinstance(model, Model):
        model = core.read_model(model)
    found: list[tuple[Value, Difference]] = []
    watch = {"watch": lambda value, difference: found.append((value, difference))}
    compiled = _compile(model, "CPU", {**core._config_for("CPU", config), **watch})
    request = compiled.create_infer_request()
    request.infer(inputs)
    executable: Executable = compiled._executable
    job = request._job
    assert isinstance(job, WatchedJob)
    arrays = [a for a in job.inputs if a is not None]

    reference: dict[Value, np.ndarray] = {}

    def keep(node: Node, outputs: Sequence[np.ndarray]) -> None:
        reference.update(zip(node.outputs, outputs, strict=True))

    interp.evaluate(executable.program.graph, arrays, keep)
    rows = [row._replace(total=largest_error(job.values[value], reference[value])[0]) for value, row in found]
    given = Graph(executable.graph.inputs, executable.graph.nodes, executable.outputs)
    for value, got, want in zip(given.outputs, job.outputs, interp.evaluate(given, arrays), strict=True):
        error, at = largest_error(got, want)
        rows.append(Difference(value.node.name, "output", "", value.dtype, got.shape, error, at, total=error))
    if show is not None:
        show(table(rows))
    return rows


def table(rows: Sequence[Difference]) -> str:
    """The rows as text; `!` marks those beyond their limit."""
    head = f"  {'step':>8s} {'total':>8s}  {'type':18s} {'kernel':34s} {'element type and shape':24s} name"
    lines = ["error against the NumPy reference, in parts of the output's largest value", head]
    for row in rows:
        total = "" if math.isnan(row.total) else f"{row.total:.1e}"
        shape = f"{row.dtype}[{','.join(map(str, row.shape))}]"
        mark = "!" if row.error > row.limit else " "
        what = f"{row.type:18s} {row.kernel:34s} {shape:24s} {row.name}"
        lines.append(f"{mark} {row.error:8.1e} {total:>8s}  {what}")
    return "\n".join(lines)


def beside(model: str, engine: str, arrays: Sequence[np.ndarray]) -> list[tuple[str, str, float, float]]:
    """The outputs of a model file beside those of another installed engine, openvino or onnxruntime, in f32:
    (name, shape, largest difference, the same as a part of the largest value)."""
    exact = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    compiled = Core().compile_model(model, "CPU", exact)
    mine = [np.array(a) for a in compiled(list(arrays)).values()]
    if engine == "openvino":
        import openvino

        theirs = [
            np.array(a) for a in openvino.Core().compile_model(model, "CPU", exact)(list(arrays)).values()
        ]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        theirs = session.run(None, dict(zip(names, arrays, strict=True)))
    rows = []
    for port, got, want in zip(compiled.outputs, mine, theirs, strict=True):
        error = float(np.abs(got.astype(np.float64) - want).max()) if got.size else 0.0
        size = float(np.abs(want.astype(np.float64)).max()) if got.size else 0.0
        names_of = port.get_names()
        rows.append(
            (min(names_of) if names_of else "", str(list(got.shape)), error, error / size if size else error)
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit compare` with what follows these words. Returns the exit code: 1 where a limit is passed."""
    from ovjit.tools import terminal
    from ovjit.tools.profile import random_inputs

    parser = argparse.ArgumentParser(
        prog="ovjit compare", description="A model beside the references, step by step."
    )
    parser.add_argument("model", help="an IR or ONNX file")
    parser.add_argument("--engine", choices=("references", "openvino", "onnxruntime"), default="references")
    parser.add_argument("--seed", type=int, default=1, help="of random inputs")
    parser.add_argument(
        "--limit", type=float, default=1e-4, help="of the outputs, as a part of the largest value"
    )
    options = parser.parse_args(argv)
    try:
        ports = Core().read_model(options.model).inputs
        arrays = random_inputs(ports, None, options.seed)
        if options.engine == "references":
            rows = compare(options.model, arrays, {"INFERENCE_PRECISION_HINT": "f32"})
            return int(any(row.error > options.limit for row in rows if row.type == "output"))
        found = beside(options.model, options.engine, arrays)
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        print(f"ovjit: {error}", file=sys.stderr)
        return 2
    terminal.show_table(("output", "shape", "difference", "of the largest"), found)
    return int(any(row[3] > options.limit for row in found))
