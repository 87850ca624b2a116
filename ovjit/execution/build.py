"""From a graph to an executable: which program, which kind of job, and what runs a graph that has to be cut.

Programs of segments and of initial values are graphs too, so what makes an executable is handed on to them:
`segments`, `variables` and `watch` know jobs, and jobs know none of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ovjit import debug
from ovjit.compiler.options import Options, compiling
from ovjit.errors import ModelError, UnsupportedError
from ovjit.execution.job import Executable, Job
from ovjit.graph.dtypes import WITHOUT_DTYPE
from ovjit.graph.graph import Graph
from ovjit.graph.shapes import guessed_input


def compile_graph(graph: Graph, config: Mapping[str, Any]) -> Executable:
    """Compile `graph` for this machine. `config`: streams, threads (per stream), PERF_COUNT ...

    ModelError for an input of unknown rank.
    """
    _check_types(graph)
    for value in graph.inputs:
        if value.dtype == "dynamic":
            raise ModelError(f"input {value.node.name!r} has no element type; set one first")
        if value.shape is None:
            raise ModelError(f"input {value.node.name!r} has an unknown rank; reshape the model first")
    executable = build(graph, config)
    trace = executable.program.foresee()
    plan = None if trace is None else trace.at([guessed_input(v.shape) for v in graph.inputs])
    if plan is not None:
        executable.prepare(plan, {}, len(plan.output_shapes))
    return executable


def _check_types(graph: Graph) -> None:
    """UnsupportedError for values of an element type that no array has, or that no run will tell."""
    from ovjit.graph.bodies import bodies_of

    for node in graph.nodes:
        if node.attrs.get("destination_type") == "dynamic":
            what = f"node {node.name!r} ({node.op.name})"
            raise UnsupportedError(f"{what} converts to no element type (dynamic)")
        for value in node.outputs:
            if node.op.name != "Constant" and value.dtype in WITHOUT_DTYPE:
                what = f"node {node.name!r} ({node.op.name}) gives {value.dtype}"
                raise UnsupportedError(f"{what}, of which there are only constants")
        for body in bodies_of(node.attrs):
            _check_types(body)


def build(graph: Graph, config: Mapping[str, Any]) -> Executable:
    """Compile a graph whose inputs all have a rank."""
    began = time.perf_counter()
    watch = config.get("watch")
    if watch is None and debug.is_on("OVJIT_COMPARE"):
        from ovjit.execution.watch import stop_at_difference

        watch = stop_at_difference
    return _executable(make_program(graph, config, watch is not None), config, graph, watch, began)


def executable_of(program: Any, config: Mapping[str, Any]) -> Executable:
    """An executable of a program that was not made here, see `ovjit.storage.program`."""
    return _executable(program, config, None, config.get("watch"), time.perf_counter())


def _executable(
    program: Any, config: Mapping[str, Any], graph: Graph | None, watch: Any, began: float
) -> Executable:
    job: type[Job] = Job
    if watch is not None:
        from ovjit.execution.watch import WatchedJob

        job = WatchedJob
    elif debug.flag("OVJIT_INTERP") == "kernels":
        from ovjit.execution.in_python import PythonJob

        job = PythonJob
    return Executable(
        program,
        config,
        graph,
        watch=watch,
        job=job,
        segments=_segments,
        bodies=lambda: _bodies(config),
        began=began,
    )


def make_program(graph: Graph, config: Mapping[str, Any], watched: bool = False) -> Any:
    """The compiler's program of `graph`; what `config` says of algorithms is heeded."""
    from ovjit.compiler.program import Program

    if graph.has_state:
        from ovjit.execution.variables import StatefulProgram

        return StatefulProgram.of(graph, config, build)
    with compiling(Options.of(config)):
        return Program(graph, watched=watched)


def _bodies(config: Mapping[str, Any]) -> Any:
    """What evaluates nodes on the host, and makes executables of their bodies."""
    from ovjit.execution.control import Bodies

    return Bodies(config, build)


def _segments(cut: Any, config: Mapping[str, Any]) -> Any:
    """What runs a graph that has to be cut in this way."""
    from ovjit.execution.segments import Chain

    return Chain(cut, config, build)
