"""ONNX files made of nodes in few words, and what a program sees of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT


def make(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, Any]],
    outputs: Sequence[str],
    constants: dict[str, Any] | None = None,
    opset: int = 17,
    kind: int = FLOAT,
    **more: Any,
) -> onnx.ModelProto:
    """A model of f32 inputs (name, shape), outputs by name, and constants by name."""
    graph = helper.make_graph(
        list(nodes),
        "a graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *more.pop("imports", [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **more)


def node(op: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> Any:
    """`node("Add", "x w", "y")`; "-" is an input or output that is left out."""
    lists = [[n.replace("-", "") if n == "-" else n for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *lists, name=name, **attributes)


def boundary(model: Any) -> list[Any]:
    """What a program sees of a model: inputs and outputs with names, types and shapes."""
    return [
        [
            (sorted(p.get_names()), str(p.get_partial_shape()), p.get_element_type().get_type_name())
            for p in ports
        ]
        for ports in (model.inputs, model.outputs)
    ]
