"""`ovjit.compare`: a model run once, step by step beside the NumPy references, as a table."""

from __future__ import annotations

import math
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
