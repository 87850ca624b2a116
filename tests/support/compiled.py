"""Graphs compiled by parts, for this CPU: after the passes, in groups, as programs."""

from __future__ import annotations

from typing import Any

from ovjit.codegen.cpu import formats
from ovjit.codegen.cpu.host import host_target
from ovjit.compiler import compile as compile_program
from ovjit.compiler import pass_pipeline
from ovjit.compiler.options import Context, Options
from ovjit.compiler.program import Program
from ovjit.graph.graph import Graph
from ovjit.planning import fuse as fusing
from ovjit.planning.fuse import Group


def here(**options: Any) -> Context:
    """What a graph is compiled for in this process, with these options."""
    return Context(host_target(), Options(**options))


def program_of(graph: Graph, **options: Any) -> Program:
    return compile_program(graph, *here(**options))


def run_passes(graph: Graph, **options: Any) -> Graph:
    return pass_pipeline.run_passes(graph, here(**options))


def fuse(graph: Graph, **options: Any) -> list[Group]:
    return fusing.fuse(graph, here(**options))


def float_types() -> tuple[str, ...]:
    """The floating-point types that products are not upcast from on this CPU."""
    return formats.float_types(host_target())


def product_format(a: str, w: str) -> formats.Format | None:
    """The format in which this CPU multiplies elements of these types."""
    return formats.find_format(a, w, host_target())
