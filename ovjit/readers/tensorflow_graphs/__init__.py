"""Graphs of TensorFlow made anew where its exporter leaves loops of TensorFlow 1, lists of tensors,
TensorArrays or complex numbers.

Nothing imports this folder: `ovjit.readers.rows.import_contributed` finds it by its name. Without it, the
reader refuses what the exporter refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def rebuild(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[Any, list[str]]:
    """The graph with operators that the exporter knows, and the new names of its outputs.

    Raises UnsupportedError for graphs without such a form.
    """
    from ovjit.readers.tensorflow_graphs import complex_pairs, graph_rewriter, lists

    assert lists and complex_pairs  # which add their rules
    return graph_rewriter.rebuilt(graph, inputs, outputs)
