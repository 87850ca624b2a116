"""From a graph to an executable. This module connects the compiler and the execution of programs.

It calls the compiler for programs of graphs, segments, bodies and initial values. Executables get the
function `build`, and do not know the compiler. Programs are compiled for this process's CPU.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovjit import collector, debug
from ovjit.codegen.compiling import counts
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import TARGETS, without_matrix_unit
from ovjit.compiler import compile as compile_program
from ovjit.compiler import pack_in_background
from ovjit.compiler.options import Context, Memory, Options
from ovjit.execution.executable import Executable
from ovjit.execution.job import Job
from ovjit.graph.graph import Graph
from ovjit.graph.shapes import guess_input_shape

if TYPE_CHECKING:
    from ovjit.execution.variables import StatefulProgram
    from ovjit.rewrite.model_variables import Lifted

#: Gets each graph that is compiled, also of segments, bodies and initial values, while it is a list.
compiled_graphs: list[Graph] | None = None


def context_of(config: Mapping[str, Any]) -> Context:
    """The context of a compilation with these properties in this process. "card": the index of the GPU."""
    target = host_target()
    if config.get("card") is not None:
        from ovjit.gpu.driver import features_of

        target = TARGETS["cuda"]._replace(extras=features_of(int(config["card"])))
    elif config.get("OVJIT_MATRIX_UNIT") is False:
        target = without_matrix_unit(target)
    return Context(target, Options.of(config, target))


def compile_graph(graph: Graph, config: Mapping[str, Any], memory: Memory | None = None) -> Executable:
    """Compile `graph` for this machine. `config`: streams, threads (per stream), PERF_COUNT ...

    `memory` provides the bytes for its constants.

    Raises ModelError and UnsupportedError as `ovjit.compiler.compile` does.
    """
    with collector.seldom(), pack_in_background():
        executable = build(graph, config, memory)
        trace = executable.program.trace_ahead()
        plan = None if trace is None else trace.at([guess_input_shape(v.shape) for v in graph.inputs])
        if plan is not None:
            executable.prepare(plan, {}, len(plan.output_shapes))
    return executable


def build(graph: Graph, config: Mapping[str, Any], memory: Memory | None = None) -> Executable:
    """An executable of `graph`, without traces or prepared plans."""
    if compiled_graphs is not None:
        compiled_graphs.append(graph)
    start = time.perf_counter()
    watch = config.get("watch")
    if watch is None and debug.is_on("OVJIT_COMPARE"):
        from ovjit.execution.watch import stop_at_difference

        watch = stop_at_difference
    with collector.seldom():  # parts of graphs are compiled at run time
        program = make_program(graph, config, watch is not None, memory)
        return _executable(program, config, graph, watch, start)


def executable_of(program: Any, config: Mapping[str, Any]) -> Executable:
    """An executable of a loaded program, see `ovjit.storage.stored_program`."""
    return _executable(program, config, None, config.get("watch"), time.perf_counter())


def _executable(
    program: Any, config: Mapping[str, Any], graph: Graph | None, watch: Any, start: float
) -> Executable:
    job: type[Job] = Job
    if watch is not None:
        from ovjit.execution.watch import WatchedJob

        job = WatchedJob
    elif config.get("card") is not None:
        from ovjit.gpu.device_job import DeviceJob

        job = DeviceJob
    elif debug.flag("OVJIT_INTERP") == "kernels":
        from ovjit.execution.checked_python import PythonJob

        job = PythonJob
    before = dict(counts)
    program.load()
    bodies = functools.partial(_bodies, config)
    result = Executable(program, config, graph, watch=watch, job=job, segments=_segments, bodies=bodies)
    if debug.level() >= debug.MODELS:
        new = {key: count - before[key] for key, count in counts.items()}
        result.show(time.perf_counter() - start, new)
    return result


def make_program(
    graph: Graph, config: Mapping[str, Any], watched: bool = False, memory: Memory | None = None
) -> Any:
    """The compiler's program of `graph`; for a graph with state, its `StatefulProgram`. Properties in
    `config` that select algorithms are applied."""
    context = context_of(config)
    if graph.has_state:
        return _stateful(graph, context, config, memory)
    return compile_program(graph, *context, watched=watched, memory=memory)


def _stateful(graph: Graph, context: Context, config: Mapping[str, Any], memory: Memory | None) -> Any:
    """The program of a graph with state operations: programs of the graph without them, and of the graphs
    that compute initial values of variables."""
    from ovjit.compiler.checks import check_graph
    from ovjit.execution.states_ahead import Init
    from ovjit.execution.variables import inner_config
    from ovjit.rewrite.model_variables import Start

    check_graph(graph)
    inner = inner_config(config)
    lifted = lifted_for(graph, context)
    main = build(lifted.main, inner, memory)
    graphs = {id(start.graph): start.graph for start in lifted.inits if isinstance(start, Start)}
    built = {key: build(one, inner) for key, one in graphs.items()}
    inits = [
        Init(built[id(start.graph)], start.inputs, start.output) if isinstance(start, Start) else start
        for start in lifted.inits
    ]
    return stateful_type(config)(main, lifted.variables, lambda: graph, lambda: inits)


def stateful_type(config: Mapping[str, Any]) -> type[StatefulProgram]:
    """The class of programs with variables: on a card, values stay in its memory."""
    if config.get("card") is None:
        from ovjit.execution.variables import StatefulProgram

        return StatefulProgram
    from ovjit.gpu.variables import CardProgram

    return CardProgram


def lifted_for(graph: Graph, context: Context) -> Lifted:
    """`graph` without state operations. Its caches are stored as the options say."""
    from ovjit.compiler.pass_pipeline import run_stage

    lifted: Lifted = run_stage("state", graph, context)
    return lifted


def _bodies(config: Mapping[str, Any]) -> Any:
    """The evaluator of nodes on the host, which also makes executables of their bodies."""
    from ovjit.execution.control import Bodies

    return Bodies(config, build)


def _segments(cut: Any, config: Mapping[str, Any]) -> Any:
    """The executable of a graph that is split into segments."""
    from ovjit.execution.segments import Chain

    return Chain(cut, config, build)
