"""SavedModels, frozen graphs, Keras files and objects of TensorFlow -> ModelProto, by the package tf2onnx."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ovjit.errors import ModelError, UnsupportedError

#: The newest opset that tf2onnx writes.
OPSET = 18


def file_to_onnx(path: str, weights: Any = None) -> Any:
    """The ModelProto of a file or folder."""
    ending = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        return _saved_model(path)
    if ending in (".keras", ".h5", ".hdf5"):
        import tensorflow as tf

        return object_to_onnx(tf.keras.models.load_model(path, compile=False))
    return _frozen(path, text=ending == ".pbtxt")


def object_to_onnx(model: Any, example: Any = None) -> Any:
    """The ModelProto of a Keras model, a `tf.function` with an example, or a concrete function."""
    import tensorflow as tf
    from tf2onnx import convert

    with _quiet():
        if isinstance(model, tf.keras.Model) and model.inputs:
            names = [tensor.name.partition(":")[0] for tensor in model.inputs]
            specs = [tf.TensorSpec(t.shape, t.dtype, n) for t, n in zip(model.inputs, names, strict=True)]
            return convert.from_keras(model, input_signature=specs, opset=OPSET)[0]
        if not hasattr(model, "graph"):
            if example is None:
                raise UnsupportedError(
                    "a function of TensorFlow's whose inputs are not known is converted with an example_input"
                )
            given = example if isinstance(example, (list, tuple)) else [example]
            function = model if hasattr(model, "get_concrete_function") else tf.function(model)
            model = function.get_concrete_function(*(tf.convert_to_tensor(value) for value in given))
        return _concrete(model)


def _concrete(function: Any) -> Any:
    """Of a concrete function; inputs and outputs have the names of its graph."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function)
    inputs = [tensor.name for tensor in frozen.inputs if tensor.dtype.name != "resource"]
    outputs = [tensor.name for tensor in frozen.outputs]
    renames = {name: name.partition(":")[0] for name in inputs}
    return _converted(frozen.graph.as_graph_def(), inputs, outputs, renames)


def _saved_model(path: str) -> Any:
    """By the signature "serving_default", else the only one, under the names of its inputs and outputs."""
    from tf2onnx import tf_loader

    tags, signatures = _tags_and_signatures(path)
    with _quiet():
        graph, inputs, outputs, renames = tf_loader.from_saved_model(
            path, None, None, tag=tags, signatures=signatures, return_tensors_to_rename=True
        )
        return _converted(graph, inputs, outputs, renames)


def _tags_and_signatures(path: str) -> tuple[list[str] | None, list[str] | None]:
    """What a SavedModel is loaded by; None where the loader finds it itself."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = os.path.join(path, "saved_model.pb")
    if not os.path.isfile(file):
        return None, None
    found = saved_model_pb2.SavedModel()
    with open(file, "rb") as stream:
        found.ParseFromString(stream.read())
    if not found.meta_graphs:
        raise ModelError(f"{path}: the SavedModel has no graph")
    graph = found.meta_graphs[0]
    named = "serving_default" in graph.signature_def
    return list(graph.meta_info_def.tags) or None, ["serving_default"] if named else None


def _frozen(path: str, text: bool) -> Any:
    """A GraphDef: placeholders are the inputs, what no node reads are the outputs."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        content = file.read()
    if text:
        from google.protobuf import text_format  # type: ignore[import-untyped]

        text_format.Parse(content.decode("utf-8", "replace"), graph)
    else:
        graph.ParseFromString(content)
    if not graph.node:
        raise ModelError(f"{path}: the graph of TensorFlow has no nodes")
    read = {name.partition(":")[0].lstrip("^") for node in graph.node for name in node.input}
    inputs = [f"{node.name}:0" for node in graph.node if node.op.startswith("Placeholder")]
    left = [node for node in graph.node if node.name not in read]
    ends = [n for n in left if not n.op.startswith("Placeholder") and n.op not in ("NoOp", "Const")]
    outputs = [f"{node.name}:0" for node in ends]
    if any(node.op in ("Variable", "VariableV2", "VarHandleOp") for node in graph.node):
        raise UnsupportedError(f"{path}: the graph has variables: freeze it, or give a SavedModel")
    with _quiet():
        return _converted(graph, inputs, outputs, None)


def _converted(graph: Any, inputs: Sequence[str], outputs: Sequence[str], renames: Any) -> Any:
    from tf2onnx import convert

    return convert.from_graph_def(
        graph, input_names=list(inputs), output_names=list(outputs), opset=OPSET, tensors_to_rename=renames
    )[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """tf2onnx's notes of what it does are left out; its warnings are not."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
