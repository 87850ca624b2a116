"""From a graph to a program. `compile` is the front door: which rewrites in which order, fusion, layouts, and
the kernels of a target. Nothing here asks what machine this is, or runs anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.compiler.options import Memory, Options
    from ovjit.compiler.program import Program
    from ovjit.graph.graph import Graph


def compile(
    graph: Graph, target: Target, options: Options, *, watched: bool = False, memory: Memory | None = None
) -> Program:
    """The program of a graph without state, for any target: its kernels' sources, its packed constants, and
    what plans it for shapes. `Program.load` compiles the sources, where the target is one of this machine.

    `watched`: plans say after which step each value is complete. `memory`: gives the bytes that constants are
    to lie in.

    ModelError for an input of unknown rank or element type. UnsupportedError for values of a type that no
    array has.
    """
    from ovjit.compiler.checks import check_graph
    from ovjit.compiler.options import Context
    from ovjit.compiler.program import Program  # the first import of operations' kernels

    check_graph(graph)
    return Program(graph, Context(target, options), watched, memory)
