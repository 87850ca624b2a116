"""A program that traces its plans beside one that plans every shape anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.execution.executable import Executable
from ovjit.graph.graph import Graph
from tests.support.run import run


def pair(graph: Graph) -> tuple[Executable, Executable]:
    """An executable that traces and one that plans every shape anew."""
    tracing, anew = compile_graph(graph, {}), compile_graph(graph, {})
    if anew.program.traces is not None:  # scalars have no open dimensions
        anew.program.traces.refused = "the test plans anew"
    return tracing, anew


def check(graph: Graph, sets: Sequence[Sequence[np.ndarray]], message: str) -> Executable:
    """Both agree on every set of inputs, errors included."""
    tracing, anew = pair(graph)
    for arrays in sets:
        tracing._tables.clear()
        try:
            want = run(anew, arrays)
        except OvjitError as error:
            with pytest.raises(type(error)):
                run(tracing, arrays)
            continue
        got = run(tracing, arrays)
        shapes = [a.shape for a in arrays]
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert a.shape == b.shape, f"{message}, shapes {shapes}, output {i}"
            assert a.tobytes() == b.tobytes(), f"{message}, shapes {shapes}, output {i}"
    return tracing
