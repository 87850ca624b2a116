"""From a graph to a program: rewrites, fusion, layouts, and the kernels of a target. `compile` is the entry
point; in `pack_in_background` it returns before its constants are packed. The result does not depend on this
machine, and nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovjit.planning.constants import pack_in_background as pack_in_background

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.compiler.options import Memory, Options
    from ovjit.compiler.program import Program
    from ovjit.graph.graph import Graph


def compile(
    graph: Graph, target: Target, options: Options, *, watched: bool = False, memory: Memory | None = None
) -> Program:
    """Compile a graph without state for any target.

    The program has the sources of its kernels and the packed constants, and plans steps for given shapes.
    `Program.load` compiles the sources, which requires a target that this machine runs.

    `watched`: plans list the step after which each value is complete. `memory`: allocates the bytes of
    constants.

    Raises ModelError for an input of unknown rank or element type, UnsupportedError for values of an element
    type without arrays.
    """
    from ovjit.compiler.checks import check_graph
    from ovjit.compiler.options import Context
    from ovjit.compiler.program import Program  # the first import of operations' kernels

    check_graph(graph)
    return Program(graph, Context(target, options), watched, memory)
