"""SavedModels, frozen graphs, Keras files and objects of TensorFlow -> ModelProto, by the package tf2onnx."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.frameworks.files import MARKED

#: The newest opset that tf2onnx writes.
OPSET = 18
#: Operators that are variables.
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")


def file_to_onnx(path: str, weights: Any = None, more: Collection[str] = ()) -> Any:
    """The ModelProto of a file or folder. `more` operators stay as they are: the caller has their rules."""
    ending = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        return _saved_model(path, more)
    if ending in (".keras", ".h5", ".hdf5"):
        import tensorflow as tf

        return object_to_onnx(tf.keras.models.load_model(path, compile=False), more=more)
    return _frozen(path, ending == ".pbtxt", more)


def object_to_onnx(
    model: Any, example: Any = None, described: Sequence[Any] = (), more: Collection[str] = ()
) -> Any:
    """The ModelProto of a Keras model or layer, a module, a function, a concrete function, a graph, a
    session, a checkpoint of a model, or a SavedModel that was loaded.

    `example`: what it is called with, a tuple or list of several operands. `described`: shape and type of
    each input, instead of an example. `more` operators stay as they are: the caller has rules for them.
    """
    with _quiet():
        if hasattr(model, "run") and hasattr(model, "graph"):
            model = _frozen_session(model)
        elif type(model).__name__ == "Checkpoint" and hasattr(model, "root"):
            model = model.root
        if hasattr(model, "as_graph_def"):
            model = model.as_graph_def()
        if hasattr(model, "node") and hasattr(model, "versions"):
            return _of_graph("the given graph", model, more)
        return _concrete(*_traced(model, example, described), more)


def _frozen_session(session: Any) -> Any:
    """The graph of a session, with the values of its variables."""
    import tensorflow as tf

    graph = session.graph.as_graph_def()
    read = {name.partition(":")[0].lstrip("^") for node in graph.node for name in node.input}
    ends = [n.name for n in graph.node if n.name not in read and n.op not in ("NoOp", "Const", "Placeholder")]
    if not any(node.op in _VARIABLES for node in graph.node):
        return graph
    return tf.compat.v1.graph_util.convert_variables_to_constants(session, graph, ends)


def _traced(model: Any, example: Any, described: Sequence[Any] = ()) -> tuple[Any, list[str] | None]:
    """A concrete function of an object that can be called, and what its outputs are called, if it does not
    say so itself."""
    import tensorflow as tf

    signatures = getattr(model, "signatures", None)
    if signatures:
        return _signature_of(signatures), None
    if hasattr(model, "structured_outputs"):
        return model, None
    if not hasattr(model, "get_concrete_function"):
        call = inspect.getattr_static(type(model), "__call__", None)
        model = model.__call__ if hasattr(call, "get_concrete_function") else model
    if isinstance(model, tf.keras.Model) and getattr(model, "inputs", None) and model.outputs:
        return _of_keras(model)
    function = model if hasattr(model, "get_concrete_function") else tf.function(lambda *args: model(*args))
    if example is not None:
        given = example if isinstance(example, (list, tuple)) else [example]
        return function.get_concrete_function(*tf.nest.map_structure(tf.convert_to_tensor, [*given])), None
    if getattr(function, "input_signature", None) is None:
        if described and all(shape is not None for shape, _ in described):
            specs = [tf.TensorSpec(shape, kind or tf.float32) for shape, kind in described]
            return function.get_concrete_function(*specs), None
        raise UnsupportedError(
            "Could not trace the TF model: the inputs of its function are unknown. Please provide "
            "'example_input'."
        )
    return function.get_concrete_function(), None


def _signature_of(signatures: Any) -> Any:
    """The signature "serving_default", else the only one."""
    names = list(signatures)
    if "serving_default" not in names and len(names) != 1:
        raise UnsupportedError(f"the SavedModel has the signatures {', '.join(names)}: select one of them")
    return signatures["serving_default" if "serving_default" in names else names[0]]


def _of_keras(model: Any) -> tuple[Any, list[str] | None]:
    """Of a model whose inputs and outputs are known. Inputs have the names of their layers, outputs those of
    their tensors, and both the keys of a dict."""
    import tensorflow as tf

    functional = getattr(model, "_functional", None) or model
    given, made = (getattr(functional, f"_{end}_struct", None) for end in ("inputs", "outputs"))
    keys = list(given) if isinstance(given, dict) else None
    tensors = [given[key] for key in keys] if keys and given else model.inputs
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, re.sub(r"[^\w.\\/>-]", "_", name))
        for tensor, name in zip(tensors, keys or map(_layer_name, tensors), strict=True)
    ]

    def call(*values: Any) -> Any:
        operands = dict(zip(keys, values, strict=True)) if keys else list(values)
        found = model(operands if keys or len(values) > 1 else values[0], training=False)
        return found if isinstance(made, dict) else tf.nest.flatten(found)

    function = tf.function(call, input_signature=specs).get_concrete_function()
    return function, None if isinstance(made, dict) else [tensor.name for tensor in model.outputs]


def _layer_name(tensor: Any) -> str:
    """The name of the layer that an input of a Keras model is of."""
    history = getattr(tensor, "_keras_history", None)
    return str(history.operation.name if history else tensor.name.partition(":")[0])


def _concrete(function: Any, names: Sequence[str] | None, more: Collection[str]) -> Any:
    """Of a concrete function. Inputs have the names of its graph; outputs too, unless it returns a dict, or
    names are given."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # loops stay operators, of which the exporter knows those with lists of tensors
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    inputs = [tensor.name for tensor in frozen.inputs if tensor.dtype.name != "resource"]
    outputs = [tensor.name for tensor in frozen.outputs]
    renames = {name: name.partition(":")[0] for name in inputs}
    made = function.structured_outputs
    if names is None and isinstance(made, dict):
        names = sorted(made)
    if names is not None and len({*names, *renames.values()}) == len(outputs) + len(inputs):
        renames.update(zip(outputs, names, strict=True))
    return _converted(frozen.graph.as_graph_def(), inputs, outputs, renames, more)


#: Attributes of functions that TensorFlow does not inline: those for XLA, as in Keras's convolutions.
_KEPT_WHOLE = ("_XlaMustCompile", "_noinline")


def _with_calls_inlined(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The graph with the functions that it still calls put in their places."""
    import tensorflow as tf
    from tf2onnx.tf_loader import tf_optimize

    if not any(node.op in ("PartitionedCall", "StatefulPartitionedCall") for node in graph.node):
        return graph
    functions = graph.library.function
    for owner in (*graph.node, *functions, *(node for function in functions for node in function.node_def)):
        for name in _KEPT_WHOLE:
            owner.attr.pop(name, None)
    with tf.Graph().as_default():
        return tf_optimize([*inputs], [*outputs], graph)


def _saved_model(path: str, more: Collection[str]) -> Any:
    """By the signature "serving_default", else the only one, under the names of its inputs and outputs."""
    from tf2onnx import tf_loader

    tags, signatures = _tags_and_signatures(path)
    with _quiet():
        graph, inputs, outputs, renames = tf_loader.from_saved_model(
            path, None, None, tag=tags, signatures=signatures, return_tensors_to_rename=True
        )
        return _converted(graph, inputs, outputs, renames, more)


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


def _frozen(path: str, text: bool, more: Collection[str]) -> Any:
    """A file with a GraphDef."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        content = file.read()
    if text:
        from google.protobuf import text_format  # type: ignore[import-untyped]

        text_format.Parse(content.decode("utf-8", "replace"), graph)
    else:
        graph.ParseFromString(content)
    with _quiet():
        return _of_graph(path, graph, more)


def _of_graph(where: str, graph: Any, more: Collection[str]) -> Any:
    """A GraphDef: placeholders are the inputs, what no node reads are the outputs."""
    if not graph.node:
        raise ModelError(f"{where}: the graph of TensorFlow has no nodes")
    read = {name.partition(":")[0].lstrip("^") for node in graph.node for name in node.input}
    inputs = [f"{node.name}:0" for node in graph.node if node.op.startswith("Placeholder")]
    left = [node for node in graph.node if node.name not in read]
    ends = [n for n in left if not n.op.startswith("Placeholder") and n.op not in ("NoOp", "Const")]
    outputs = [f"{node.name}:0" for node in ends]
    if any(node.op in _VARIABLES for node in graph.node):
        raise UnsupportedError(f"{where}: the graph has variables: freeze it, or give a SavedModel")
    return _converted(graph, inputs, outputs, None, more)


#: Operators that the exporter is told to leave as they are, since it refuses some uses or writes wrong ones:
#: ONNX's ScatterND does not add updates of one place, and what it makes of AdjustSaturation mixes channels.
_KEPT = ("AdjustSaturation", "ComplexAbs", "FFT", "RFFT", "RFFT2D", "ScatterNd", "FakeQuantWithMinMaxArgs",
         "FakeQuantWithMinMaxVars")  # fmt: skip


def _converted(
    graph: Any, inputs: Sequence[str], outputs: Sequence[str], renames: Any, more: Collection[str]
) -> Any:
    """The ModelProto of a graph; of one that is made anew, where the exporter leaves complex numbers, lists
    of tensors or switches. `more` are operators that are left as they are."""
    _checked(graph)
    graph = _with_calls_inlined(graph, inputs, outputs)
    complex_numbers, forms = _has_forms(graph)
    if not (complex_numbers or forms):
        return _exported(graph, inputs, outputs, renames, more)
    made, refused = None, None
    if not complex_numbers:
        try:
            with _level(logging.CRITICAL):
                made = _exported(graph, inputs, outputs, renames, more)
            if not _is_left(made.graph):
                return made
        except Exception as error:
            refused = error
    from ovjit.readers.frameworks.rebuilt import rebuilt

    try:
        again, names = rebuilt(graph, inputs, outputs)
    except UnsupportedError:
        if refused is not None:
            raise
        return made or _exported(graph, inputs, outputs, renames, more)
    known = dict(renames or {})
    known.update({new: known.pop(old, old) for old, new in zip(outputs, names, strict=True)})
    return _exported(again, inputs, names, known, more)


def _exported(
    graph: Any, inputs: Sequence[str], outputs: Sequence[str], renames: Any, more: Collection[str]
) -> Any:
    from tf2onnx import convert

    kept: dict[str, Any] = {name: (lambda context, node, name, args: node, []) for name in _KEPT}
    kept |= {name: (_marked, []) for name in more}
    proto = convert.from_graph_def(
        graph, input_names=list(inputs), output_names=list(outputs), opset=OPSET, tensors_to_rename=renames,
        custom_op_handlers=kept,
    )[0]  # fmt: skip
    _check_functions(proto, graph, kept)
    return proto


def _check_functions(proto: Any, graph: Any, kept: Mapping[str, Any]) -> None:
    """UnsupportedError where a branch or a loop calls a function with operators that the exporter does not
    know: it leaves the name of the function then."""
    from tf2onnx.handler import tf_op

    functions = {function.signature.name: function for function in graph.library.function}
    called = [
        attr.s.decode(errors="replace") for node in proto.graph.node for attr in node.attribute if attr.s
    ]
    known = {*tf_op.create_mapping(OPSET, None), *kept, "NoOp", "Placeholder"}
    for function in (functions[name] for name in functions if any(name in text for text in called)):
        if unknown := sorted({node.op for node in function.node_def} - known):
            raise UnsupportedError(f"No conversion rule found for operations: {', '.join(unknown)}")


def _marked(context: Any, node: Any, name: str, args: Any) -> Any:
    """Put an operator into a domain of its own: ONNX may have one of its name."""
    node.domain = MARKED
    return node


def _checked(graph: Any) -> None:
    """Raise what TensorFlow says of a graph, or of a function in it, whose nodes do not agree with their
    operators. Its optimiser, which comes next, ends the process instead."""
    import tensorflow as tf
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    with tf.Graph().as_default():
        tf.import_graph_def(graph, name="")
        for function in graph.library.function:
            function_def_to_graph(function, include_library_functions=True)


#: Loggers of tf2onnx's that write what is left out here.
_NOISY = ("tf2onnx.tfonnx", "tf2onnx.tf_utils", "tf2onnx.utils")


def _has_forms(graph: Any) -> tuple[bool, bool]:
    """Whether a graph has complex numbers, and whether it has other operators of which `rebuilt` makes new
    ones."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    pairs = any(_is_complex(value) for node in nodes for value in node.attr.values())
    return pairs, any(_is_of_form(node.op) for node in nodes)


def _is_of_form(kind: str) -> bool:
    return kind.startswith(("TensorList", "TensorArray")) or kind in _ANEW


def _is_complex(attribute: Any) -> bool:
    return attribute.type in _COMPLEX_TYPES or not _COMPLEX_TYPES.isdisjoint(attribute.list.type)


#: The numbers of complex64 and complex128 in DataType.
_COMPLEX_TYPES = {8, 18}
#: Operators that are made of others, but for lists and TensorArrays.
_ANEW = {"Case", "StatelessCase", "Merge", "_SwitchN", "Switch", "EmptyTensorList", "ConjugateTranspose",
         "CheckNumericsV2"}  # fmt: skip


def _is_left(graph: Any) -> bool:
    """Whether an exported graph still has such operators."""
    graphs = [graph]
    while graphs:
        for node in graphs.pop().node:
            if _is_of_form(node.op_type):
                return True
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return False


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a note of tf2onnx's says more than its exception does, and more than that it leaves an operator
    as it is: that operator's rule is here, or the error names it."""
    known = "is not supported|Unsupported ops|convert failed for|Failed to convert|^rewriter .* exception"
    return not re.search(known, record.getMessage())


@contextmanager
def _level(level: int) -> Iterator[None]:
    """tf2onnx tells what is at least this urgent."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """tf2onnx's notes of what it does are left out; its warnings are not."""
    noisy = [logging.getLogger(name) for name in _NOISY]
    for part in noisy:
        part.addFilter(_is_news)
    try:
        with _level(logging.WARNING):
            yield
    finally:
        for part in noisy:
            part.removeFilter(_is_news)
