"""Passes that are ready to be registered."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovjit.api.arguments import explain_calls, takes
from ovjit.api.model.folding import fold
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node
from ovjit.api.run.property_values import _Choice
from ovjit.compat.passes.base import ModelPass
from ovjit.compat.passes.precision import to_f16
from ovjit.compat.passes.stateful import Pairs, check_pairs, low_latency, make_stateful
from ovjit.errors import ModelError
from ovjit.readers.ir import writer


class Version(_Choice):
    """Versions of IR files."""

    UNSPECIFIED, IR_V10, IR_V11 = 0, 10, 11


class ConstantFolding(ModelPass):
    """Replaces nodes whose inputs are constants by constants."""

    def run_on_model(self, model: Model) -> bool:
        return fold(model)


class ConvertFP32ToFP16(ModelPass):
    """Converts f32 to f16, inputs and outputs included."""

    def run_on_model(self, model: Model) -> bool:
        return to_f16(model)


@explain_calls
class MakeStateful(ModelPass):
    """Converts pairs of parameters and results, or of their tensor names, to variables."""

    def __init__(self, pairs_to_replace: Pairs):
        check_pairs(pairs_to_replace)
        self._pairs = pairs_to_replace

    def run_on_model(self, model: Model) -> bool:
        make_stateful(model, self._pairs)
        return True


@explain_calls
class LowLatency2(ModelPass):
    """Converts values that loops carry between iterations to variables of the model."""

    def __init__(self, use_const_initializer: bool = True):
        self._constants = use_const_initializer

    def run_on_model(self, model: Model) -> bool:
        return low_latency(model, self._constants)


class Serialize(ModelPass):
    """Writes the model to files, as `ovjit.serialize` does."""

    @takes
    def __init__(self, path_to_xml: Any, path_to_bin: Any, version: Any = None):
        self._paths = os.fspath(path_to_xml), os.fspath(path_to_bin)
        if not os.fsdecode(self._paths[0]).endswith(".xml"):
            raise ModelError(f"the path of an xml file must end with .xml: {self._paths[0]!r}")
        self._version = version.name if isinstance(version, Version) else version or "UNSPECIFIED"
        writer.check_version(self._version)

    def run_on_model(self, model: Model) -> bool:
        writer.serialize(model, *self._paths, version=self._version)
        return False


class VisualizeTree(ModelPass):
    """Draws the graph as a .dot file for Graphviz.

    `file_name` gets the ending .dot if it has another; `nm(node, lines)` may change the lines that describe a
    node; `dot_only` is of no consequence, as no picture is drawn.
    """

    def __init__(
        self, file_name: Any, nm: Callable[[Node, list[str]], None] | None = None, dot_only: bool = False
    ):
        path = Path(os.fspath(file_name))
        self._path = path if path.suffix == ".dot" else path.with_name(path.name + ".dot")
        self._describe = nm

    def run_on_model(self, model: Model) -> bool:
        lines = ["digraph {"]
        for node in model.get_ordered_ops():
            name = node.get_name()
            texts = [node.get_friendly_name(), node.get_type_name()]
            texts += [f"{p.get_element_type().to_string()}{p.get_partial_shape()}" for p in node.outputs()]
            if self._describe is not None:
                self._describe(node, texts)
            label = "\\n".join(text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
            lines.append(f'\t"{name}" [shape=box label="{label}"]')
            lines += [f'\t"{source._node.get_name()}" -> "{name}" [label="{source._index} -> {i}"]'
                      for i, source in enumerate(node._inputs)]  # fmt: skip
        self._path.write_text("\n".join([*lines, "}", ""]))
        return False
