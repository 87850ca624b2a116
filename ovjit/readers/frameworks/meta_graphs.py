"""Meta graphs of TensorFlow 1: the values of variables are in the checkpoint beside the file.

The graph is not run, as it may have operators that write files: variables become constants here.
"""

from __future__ import annotations

import os
from typing import Any

from ovjit.errors import ModelError, UnsupportedError, unless_of_signal
from ovjit.readers.frameworks.assignments import needed_nodes
from ovjit.readers.frameworks.names import node_before, node_of, read_nodes
from ovjit.records import NamedTuple

#: Operators that are variables; those of the last kind are handles, from which others read.
VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
#: How operators are called whose results nobody reads: those of training, and of checkpoints.
_EFFECTS = ("Assign", "Apply", "ResourceApply", "ResourceScatter", "Save", "Restore", "MergeV2", "VarIsInit")


class Frozen(NamedTuple):
    """A GraphDef without variables, its input and output tensors, and their new names."""

    graph: Any
    inputs: list[str] | None
    outputs: list[str]
    renames: dict[str, str] | None


def read_meta_graph(path: str) -> Frozen:
    """The graph of a file by its signature "serving_default", else with all nodes that no other reads as
    outputs."""
    import tensorflow as tf

    meta = tf.compat.v1.MetaGraphDef()
    with open(path, "rb") as file:
        meta.ParseFromString(file.read())
    if not meta.graph_def.node:
        raise ModelError(f"{path}: the meta graph of TensorFlow has no nodes")
    inputs, renames = None, None
    if "serving_default" in meta.signature_def:
        signature = meta.signature_def["serving_default"]
        inputs, outputs = (
            [info.name for _, info in sorted(ends.items())] for ends in (signature.inputs, signature.outputs)
        )
        renames = {info.name: name for ends in (signature.inputs, signature.outputs)
                   for name, info in sorted(ends.items())}  # fmt: skip
    else:
        saver = {node_of(meta.saver_def.save_tensor_name), node_of(meta.saver_def.restore_op_name)}
        outputs = [f"{name}:0" for name in ends_of(meta.graph_def) if name not in saver]
    return Frozen(_with_values(meta.graph_def, path, outputs, inputs or []), inputs, outputs, renames)


def ends_of(graph: Any) -> list[str]:
    """The nodes that no other reads, in the order of their names, as OpenVINO has outputs of a graph."""
    read = read_nodes(graph)
    unread = [node for node in graph.node if node.name not in read]
    return sorted(
        node.name
        for node in unread
        if not node.op.startswith(("Placeholder", *_EFFECTS)) and node.op not in ("NoOp", "Const")
    )


def _with_values(graph: Any, path: str, outputs: list[str], inputs: list[str]) -> Any:
    """Copies needed nodes and placeholders into a graph, with variables as constants from the checkpoint."""
    nodes = {node.name: node for node in graph.node}
    needed = set(needed_nodes(nodes, outputs)) | {node_of(name) for name in inputs}
    needed |= {node.name for node in graph.node if node.op in ("Placeholder", "PlaceholderV2")}
    result = type(graph)()
    result.CopyFrom(graph)
    result.ClearField("node")
    values = _Values(path)
    for node in graph.node:
        if node.name not in needed:
            continue
        if node.op in VARIABLES:
            result.node.add().CopyFrom(values.constant(node))
            continue
        copy = result.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [name for name in node.input if node_before(name) in needed]
        if node.op == "ReadVariableOp":
            _becomes(copy, "Identity", T=node.attr["dtype"])
        elif node.op == "ResourceGather":
            axis = result.node.add(op="Const", name=f"{node.name}/ovjit_axis")
            _set_value(axis, int(node.attr["batch_dims"].i))
            copy.input.insert(2, axis.name)
            _becomes(copy, "GatherV2", Taxis=axis.attr["dtype"], Tparams=node.attr["dtype"],
                     Tindices=node.attr["Tindices"], batch_dims=node.attr["batch_dims"])  # fmt: skip
        elif node.op.startswith(_EFFECTS):
            raise UnsupportedError(
                f"{path}: an output depends on {node.name!r} ({node.op}), which changes a variable: these "
                "are constants in a model"
            )
    return result


def _becomes(node: Any, op: str, **attributes: Any) -> None:
    copies = {name: type(value)() for name, value in attributes.items()}
    for name, value in attributes.items():
        copies[name].CopyFrom(value)
    node.op = op
    node.attr.clear()
    for name, value in copies.items():
        node.attr[name].CopyFrom(value)


def _set_value(node: Any, value: Any) -> None:
    import tensorflow as tf

    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype


class _Values:
    """The variables' values in the checkpoint of a meta graph."""

    def __init__(self, path: str) -> None:
        self._prefix = os.path.splitext(path)[0]
        self._reader: Any = None

    def constant(self, node: Any) -> Any:
        """The node of a variable as a constant. ModelError where the checkpoint has no such variable."""
        import tensorflow as tf

        if self._reader is None:
            try:
                self._reader = tf.train.load_checkpoint(self._prefix)
            except unless_of_signal(Exception) as error:
                raise ModelError(
                    f"{self._prefix}: the checkpoint of the variables cannot be read ({str(error)[:300]})"
                ) from error
        names = (node.name, node.attr["shared_name"].s.decode("utf-8", "replace"))
        key = next((name for name in names if name and self._reader.has_tensor(name)), None)
        if key is None:
            raise ModelError(f"{self._prefix}: the checkpoint has no value of the variable {node.name!r}")
        result = type(node)(op="Const", name=node.name)
        _set_value(result, self._reader.get_tensor(key))
        if result.attr["dtype"].type != node.attr["dtype"].type:
            raise ModelError(f"{self._prefix}: {key!r} has another type than the variable {node.name!r}")
        return result
