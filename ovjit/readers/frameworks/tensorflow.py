"""SavedModels, frozen graphs, Keras files and objects of TensorFlow -> ModelProto, by the package tf2onnx."""

from __future__ import annotations

import inspect
import os
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.files.archives import check_archive
from ovjit.readers.frameworks.assignments import without_assignments
from ovjit.readers.frameworks.exported import add_unread, quiet, to_model_proto
from ovjit.readers.frameworks.meta_graphs import VARIABLES, Frozen, ends_of, read_meta_graph
from ovjit.readers.frameworks.names import read_nodes

#: How placeholders begin that TensorFlow leaves behind where it takes loops apart.
_LEFT_OVER = "unused_control_flow_input"


def file_to_onnx(path: str, weights: Any = None, more: Collection[str] = ()) -> Any:
    """The ModelProto of a file or folder. `more`: operators that are exported unchanged, as the caller has
    rules for them."""
    ending = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        return _saved_model(path, more)
    if ending in (".keras", ".h5", ".hdf5"):
        import tensorflow as tf

        if zipfile.is_zipfile(path):
            check_archive(path)
        return object_to_onnx(tf.keras.models.load_model(path, compile=False), more=more)
    if ending == ".meta":
        with quiet():
            return _of_graph(path, read_meta_graph(path), more)
    return _read_frozen(path, ending == ".pbtxt", more)


def object_to_onnx(
    model: Any, example: Any = None, described: Sequence[Any] = (), more: Collection[str] = ()
) -> Any:
    """The ModelProto of a Keras model or layer, a module, a function, a concrete function, a graph, a
    session, a checkpoint of a model, or a SavedModel that was loaded.

    `example`: what it is called with, a tuple or list of several operands. `described`: shape and type of
    each input, instead of an example. `more` operators stay as they are: the caller has rules for them.
    """
    with quiet():
        if hasattr(model, "run") and hasattr(model, "graph"):
            model = _frozen_session(model)
        elif type(model).__name__ == "Checkpoint" and hasattr(model, "root"):
            model = model.root
        if hasattr(model, "as_graph_def"):
            model = model.as_graph_def()
        if hasattr(model, "node") and hasattr(model, "versions"):
            return _of_graph("the given graph", _freeze("the given graph", model), more)
        return _concrete(*_trace_function(model, example, described), more)


def _frozen_session(session: Any) -> Any:
    """The graph of a session, with the values of its variables."""
    import tensorflow as tf

    graph = session.graph.as_graph_def()
    read = read_nodes(graph)
    ends = [n.name for n in graph.node if n.name not in read and n.op not in ("NoOp", "Const", "Placeholder")]
    if not any(node.op in VARIABLES for node in graph.node):
        return graph
    return tf.compat.v1.graph_util.convert_variables_to_constants(session, graph, ends)


def _trace_function(model: Any, example: Any, described: Sequence[Any] = ()) -> tuple[Any, list[str] | None]:
    """(concrete function of a callable object, names of its outputs, or None if the function has them)."""
    import tensorflow as tf

    signatures = getattr(model, "signatures", None)
    if signatures:
        return signatures[_select_signature(signatures)], None
    if hasattr(model, "structured_outputs"):
        return model, None
    if not hasattr(model, "get_concrete_function"):
        call = inspect.getattr_static(type(model), "__call__", None)
        model = model.__call__ if hasattr(call, "get_concrete_function") else model
    if isinstance(model, tf.keras.Model) and getattr(model, "inputs", None) and model.outputs:
        return _of_keras(model)
    function = model if hasattr(model, "get_concrete_function") else tf.function(lambda *args: model(*args))
    if example is not None:
        values = example if isinstance(example, (list, tuple)) else [example]
        return function.get_concrete_function(*tf.nest.map_structure(tf.convert_to_tensor, [*values])), None
    if getattr(function, "input_signature", None) is None:
        if described and all(shape is not None for shape, _ in described):
            specs = [tf.TensorSpec(shape, kind or tf.float32) for shape, kind in described]
            return function.get_concrete_function(*specs), None
        raise UnsupportedError(
            "Could not trace the TF model: the inputs of its function are unknown. Please provide "
            "'example_input'."
        )
    return function.get_concrete_function(), None


def _select_signature(signatures: Any) -> str:
    """The name of the signature "serving_default", else "default", else of the first one, as in OpenVINO."""
    return next(
        (name for name in ("serving_default", "default") if name in signatures), next(iter(signatures))
    )


def _of_keras(model: Any) -> tuple[Any, list[str] | None]:
    """The frozen graph of a Keras model with known inputs and outputs. Inputs are named after layers, outputs
    after tensors, and both by the keys of a dict."""
    import tensorflow as tf

    functional = getattr(model, "_functional", None) or model
    input_structure, result = (getattr(functional, f"_{end}_struct", None) for end in ("inputs", "outputs"))
    keys = list(input_structure) if isinstance(input_structure, dict) else None
    tensors = [input_structure[key] for key in keys] if keys and input_structure else model.inputs
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, re.sub(r"[^\w.\\/>-]", "_", name))
        for tensor, name in zip(tensors, keys or map(_layer_name, tensors), strict=True)
    ]

    def call(*values: Any) -> Any:
        operands = dict(zip(keys, values, strict=True)) if keys else list(values)
        returned = model(operands if keys or len(values) > 1 else values[0], training=False)
        return returned if isinstance(result, dict) else tf.nest.flatten(returned)

    function = tf.function(call, input_signature=specs).get_concrete_function()
    return function, None if isinstance(result, dict) else [tensor.name for tensor in model.outputs]


def _layer_name(tensor: Any) -> str:
    """The name of the layer that an input of a Keras model is of."""
    history = getattr(tensor, "_keras_history", None)
    return str(history.operation.name if history else tensor.name.partition(":")[0])


def _concrete(
    function: Any, names: Sequence[str] | None, more: Collection[str], keys: Collection[str] = ()
) -> Any:
    """The frozen graph of a concrete function. Inputs are named by keywords, else as in its graph; outputs by
    the keys of a dict, `names`, or as in the graph.

    `keys` are the inputs of a signature in its file, of which TensorFlow makes keywords.
    """
    from tf2onnx.tf_loader import convert_variables_to_constants_large_model, fix_freezing_errors_part2

    # loops stay operators, of which the exporter knows those with lists of tensors. The graph does not become
    # a function: names of loops' functions would be those of another model that was read before
    graph = fix_freezing_errors_part2(convert_variables_to_constants_large_model(function))
    declared = function.inputs[: len(function.inputs) - len(function.captured_inputs)]
    called = [tensor.name.partition(":")[0] for tensor in declared]
    keywords: dict[str, Any] = (function.structured_input_signature or ((), {}))[1]
    if len(keywords) == len(declared):
        specs = sorted(keywords.items())
        called = [spec.name if getattr(spec, "name", None) in keys else key for key, spec in specs]
    placeholders = {f"{node.name}:0" for node in graph.node if node.op.startswith("Placeholder")}
    renames = {
        tensor.name: name
        for tensor, name in zip(declared, called, strict=True)
        if tensor.name in placeholders and tensor.dtype.name != "resource"
    }
    inputs, outputs = list(renames), [tensor.name for tensor in function.outputs]
    graph = _with_tables(without_assignments(graph, outputs), function)
    result = function.structured_outputs
    if names is None and isinstance(result, dict):
        names = sorted(result)
    if names is not None and len({*names, *renames.values()}) == len(outputs) + len(inputs):
        renames.update(zip(outputs, names, strict=True))
    result = to_model_proto(graph, inputs, outputs, renames, more)
    kinds = ((tensor.dtype.as_datatype_enum, tensor.shape.as_proto()) for tensor in declared)
    add_unread(result, [(name, *kind) for name, kind in zip(called, kinds, strict=True)])
    return result


def _with_tables(graph: Any, function: Any) -> Any:
    """A frozen graph of a function, with the contents of the tables in which it looks up numbers."""
    from ovjit.readers.frameworks.tables import has_lookups, with_keys

    return with_keys(graph, function.graph.captures) if has_lookups(graph) else graph


def _saved_model(path: str, more: Collection[str]) -> Any:
    """The frozen graph of a signature of a SavedModel, with the names of its inputs and outputs."""
    import tensorflow as tf

    tags, signatures = _tags_and_signatures(path)
    with quiet():
        loaded = tf.saved_model.load(path, tags)
        if not loaded.signatures:
            raise UnsupportedError(
                f"{path}: the SavedModel has no signatures. Save it with `signatures=`, or convert a "
                "function of tf.saved_model.load(path) with 'example_input'"
            )
        name = _select_signature(loaded.signatures)
        keys = signatures[name].inputs if name in signatures else ()
        return _concrete(loaded.signatures[name], None, more, keys)


def _tags_and_signatures(path: str) -> tuple[list[str] | None, Mapping[str, Any]]:
    """The tags and the signatures of a SavedModel. Tags are None if the loader finds them itself."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = os.path.join(path, "saved_model.pb")
    if not os.path.isfile(file):
        return None, {}
    saved = saved_model_pb2.SavedModel()
    with open(file, "rb") as stream:
        saved.ParseFromString(stream.read())
    if not saved.meta_graphs:
        raise ModelError(f"{path}: the SavedModel has no graph")
    graph = saved.meta_graphs[0]
    return list(graph.meta_info_def.tags) or None, graph.signature_def


def _read_frozen(path: str, text: bool, more: Collection[str]) -> Any:
    """The graph of a file with a GraphDef, as `text` or binary."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        content = file.read()
    if text:
        from google.protobuf import text_format  # type: ignore[import-untyped]

        text_format.Parse(content.decode("utf-8", "replace"), graph)
    else:
        graph.ParseFromString(content)
    with quiet():
        return _of_graph(path, _freeze(path, graph), more)


def _freeze(where: str, graph: Any) -> Frozen:
    """The frozen graph of a graph with variables. Nodes that no other reads are its outputs."""
    if not graph.node:
        raise ModelError(f"{where}: the graph of TensorFlow has no nodes")
    if any(node.op in VARIABLES for node in graph.node):
        raise UnsupportedError(f"{where}: the graph has variables: freeze it, or give a SavedModel")
    return Frozen(graph, None, [f"{name}:0" for name in ends_of(graph)], None)


def _of_graph(where: str, frozen: Frozen, more: Collection[str]) -> Any:
    """A graph without variables. Placeholders are its inputs unless the graph names others."""
    graph, inputs, outputs, renames = frozen
    if not outputs:
        raise ModelError(f"{where}: the graph of TensorFlow has no outputs")
    read = read_nodes(graph)
    placeholders = [
        node
        for node in graph.node
        if node.op.startswith("Placeholder") and (node.name in read or not node.name.startswith(_LEFT_OVER))
    ]
    if inputs is not None:
        of_name = {f"{node.name}:0": node for node in placeholders}
        placeholders = [of_name[name] for name in inputs if name in of_name]
    names = inputs if inputs is not None else [f"{node.name}:0" for node in placeholders]
    result = to_model_proto(graph, names, outputs, renames, more)
    called = renames or {}
    rows = []
    for n in placeholders:
        name = f"{n.name}:0"
        rows.append((called.get(name, name), n.attr["dtype"].type, n.attr["shape"].shape))
    add_unread(result, rows)
    return result
