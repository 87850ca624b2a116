"""Functions that replace nodes and outputs by others."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.api.arguments import expect
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.node import GRAPH_LOCK, Node, Output
from ovjit.api.model.node_ports import target_inputs
from ovjit.errors import ModelError, no_such_form


def replace_node(
    target: Node, replacement: Node | Sequence[Output], outputs_order: Sequence[int] | None = None
) -> None:
    """Let all consumers of an output of `target` read one of `replacement` instead; tensor names go over.

    `replacement`: a node with as many outputs (`outputs_order`: their indices), or a sequence of outputs.
    RuntimeError when the counts differ or `target` is a Result.
    """
    expect(target, Node, "replace_node takes a Node")
    if isinstance(replacement, Node):
        outputs = replacement.outputs()
        if outputs_order is not None:
            if len(outputs_order) != len(outputs) or len(outputs) != target.get_output_size():
                raise ModelError(
                    f"cannot replace {target!r} by {replacement!r}: {len(outputs_order)} indices are "
                    f"given for {target.get_output_size()} and {len(outputs)} outputs"
                )
            outputs = [replacement.output(i) for i in outputs_order]
    else:
        outputs = list(replacement)
        if not all(isinstance(output, Output) for output in outputs):
            raise no_such_form("replace_node takes a Node or a sequence of Outputs as replacement")
    if isinstance(target, Result):
        raise ModelError("Result nodes cannot be replaced: set their input instead")
    if isinstance(target, Parameter):
        raise ModelError("Parameter nodes cannot be replaced by replace_node: use Model.replace_parameter")
    if len(outputs) != target.get_output_size():
        raise ModelError(
            f"cannot replace {target!r}, of {target.get_output_size()} outputs, by {len(outputs)} outputs"
        )
    with GRAPH_LOCK:
        for old, new in zip(target.outputs(), outputs, strict=True):
            old.replace(new)


def replace_output_update_name(output: Output, target_output: Output) -> bool:
    """Let all consumers of `output` read `target_output`, which precedes it in the graph, and keep the names
    that a user sees. The friendly name of `output`'s node goes to `target_output`'s node if a Result read it.

    False without a change if that would lose a name: both are outputs of the model, or the node for the name
    is a Parameter or has other outputs.
    """
    for port in (output, target_output):
        expect(port, Output, "an Output is expected")
    with GRAPH_LOCK:
        takers = target_inputs(output._node, output._index)
        is_result = any(isinstance(taker._node, Result) for taker in takers)
        before = target_output._node
        if is_result:
            others = target_inputs(before, target_output._index)
            if isinstance(before, Parameter) or any(isinstance(taker._node, Result) for taker in others):
                return False
            if before.get_output_size() > 1:
                return False
            before.set_friendly_name(output._node.get_friendly_name())
        output.replace(target_output)
    return True


def numpy_to_c(array: np.ndarray) -> Any:
    """A capsule with the address of an array's memory, which the array must outlive."""
    expect(array, np.ndarray, "numpy_to_c takes an array")
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(array.ctypes.data, None, None)
