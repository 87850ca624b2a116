"""Exports TensorFlow graphs to ModelProto: the options and inputs of tf2onnx, and the filter of its log."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ovjit.errors import UnsupportedError, unless_of_signal
from ovjit.readers.frameworks.names import source_of, with_own_names
from ovjit.readers.frameworks.unconverted import NARROW_TYPES, handlers, mark
from ovjit.readers.logs import drop_records
from ovjit.readers.rows import import_contributed
from ovjit.records import NamedTuple

#: The folder that makes graphs anew.
REWRITING = "tensorflow_graphs"
#: The newest opset that tf2onnx writes.
OPSET = 18

#: Attributes of functions that TensorFlow does not inline: those for XLA, as in Keras's convolutions.
_KEPT_WHOLE = ("_XlaMustCompile", "_noinline")


def _with_calls_inlined(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The graph with calls of functions replaced by the functions' nodes."""
    import tensorflow as tf
    from tf2onnx.tf_loader import tf_optimize

    if not any(node.op in ("PartitionedCall", "StatefulPartitionedCall") for node in graph.node):
        return graph
    for owner in (*_nodes(graph), *graph.library.function):
        for name in _KEPT_WHOLE:
            owner.attr.pop(name, None)
    with tf.Graph().as_default():
        return tf_optimize([*inputs], [*outputs], graph)


def _nodes(graph: Any) -> list[Any]:
    """The nodes of a graph and of its functions."""
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def to_model_proto(
    graph: Any, inputs: Sequence[str], outputs: Sequence[str], renames: Any, more: Collection[str]
) -> Any:
    """The ModelProto of a graph, of a rebuilt one if it has complex numbers, lists of tensors or switches,
    which the exporter does not convert. `more`: operators that are exported unchanged."""
    _check(graph)
    graph = _with_calls_inlined(graph, inputs, outputs)
    complex_numbers, forms = _find_rewritten(graph)
    if not (complex_numbers or forms):
        return _export(graph, inputs, outputs, renames, more)
    result, refused = None, None
    if not complex_numbers and not _writes_anywhere(graph):
        try:
            with _level(logging.CRITICAL):
                result = _export(graph, inputs, outputs, renames, more)
            if not _has_rewritten(result.graph):
                return result
        except unless_of_signal(Exception) as error:
            refused = error
    try:
        again, names = _rebuild(graph, inputs, outputs)
    except UnsupportedError:
        if refused is not None:
            raise
        return result or _export(graph, inputs, outputs, renames, more)
    new_renames = dict(renames or {})
    new_renames.update({new: new_renames.pop(old, old) for old, new in zip(outputs, names, strict=True)})
    return _export(again, inputs, names, new_renames, more)


def _rebuild(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[Any, list[str]]:
    """`rebuild` of a folder that may be missing. Raises UnsupportedError then."""
    room = import_contributed(REWRITING)
    if room is None:
        raise UnsupportedError(
            "loops of TensorFlow 1, lists of tensors and complex numbers need the folder "
            f"ovjit/readers/{REWRITING}, which this installation is without"
        )
    return room.rebuild(graph, inputs, outputs)


def _export(
    graph: Any, inputs: Sequence[str], outputs: Sequence[str], renames: Any, more: Collection[str]
) -> Any:
    from tf2onnx import convert
    from tf2onnx.handler import tf_op

    from ovjit.readers.frameworks.operators import TENSORFLOW

    custom_handlers = handlers(TENSORFLOW, more, tf_op.create_mapping(OPSET, {}))
    graph = with_own_names(graph)
    with _with_changes():
        proto = convert.from_graph_def(
            graph, input_names=list(inputs), output_names=list(outputs), opset=OPSET,
            tensors_to_rename=renames, custom_op_handlers=custom_handlers,
        )[0]  # fmt: skip
    _check_functions(proto, graph, custom_handlers)
    mark(proto.graph)
    return proto


#: Whether the export that runs here is one of ovjit's. Those of others run tf2onnx as it is.
_EXPORTS = ContextVar("whether ovjit exports here", default=False)


class _Eyes(NamedTuple):
    """Stand-in for the function of tf2onnx that turns a diagonal of ones into one identity matrix, which
    loses its batch and offset."""

    rewrite: Any

    def __call__(self, graph: Any, nodes: Any) -> Any:
        return nodes if _EXPORTS.get() else self.rewrite(graph, nodes)


class _ElementTypes(dict[int, int]):
    """Stand-in for tf2onnx's table of element types."""

    def __getitem__(self, kind: int) -> int:
        return (NARROW_TYPES.get(kind) if _EXPORTS.get() else None) or super().__getitem__(kind)


class _NamesOfTypes(dict[int, str]):
    """Stand-in for the table by which tf2onnx removes the first of two casts, although it may round."""

    def __contains__(self, kind: object) -> bool:
        return not _EXPORTS.get() and super().__contains__(kind)


@contextmanager
def _with_changes() -> Iterator[None]:
    """Context manager with a patched tf2onnx, which leaves diagonals of ones, narrow types and casts
    unchanged."""
    import ml_dtypes
    from tf2onnx import tf_utils, tfonnx, utils
    from tf2onnx.optimizer import back_to_back_optimizer

    if not isinstance(tfonnx.rewrite_eye, _Eyes):
        tfonnx.rewrite_eye = _Eyes(tfonnx.rewrite_eye)
        tf_utils.TF_TO_ONNX_DTYPE = _ElementTypes(tf_utils.TF_TO_ONNX_DTYPE)
        back_to_back_optimizer.ONNX_DTYPE_NAMES = _NamesOfTypes(utils.ONNX_DTYPE_NAMES)
        utils.ONNX_TO_NUMPY_DTYPE |= {16: ml_dtypes.bfloat16, 17: ml_dtypes.float8_e4m3fn}
    token = _EXPORTS.set(True)
    try:
        yield
    finally:
        _EXPORTS.reset(token)


def add_unread(proto: Any, every: Sequence[tuple[str, Any, Any]]) -> None:
    """Add inputs that no node reads, which the exporter drops. `every`: element types and shapes of all
    inputs by name, in TensorFlow's order."""
    from onnx import helper
    from tf2onnx.tf_utils import TF_TO_ONNX_DTYPE

    inputs_by_name = {value.name: value for value in proto.graph.input}
    result = []
    for name, dtype, shape in every:
        value = inputs_by_name.pop(name, None)
        kind = NARROW_TYPES.get(dtype) or TF_TO_ONNX_DTYPE.get(dtype)
        if value is None and kind is not None:
            dims = None if shape.unknown_rank else [None if d.size < 0 else d.size for d in shape.dim]
            value = helper.make_tensor_value_info(name, kind, dims)
        result += [value] if value is not None else []
    result += inputs_by_name.values()
    del proto.graph.input[:]
    proto.graph.input.extend(result)


def _check_functions(proto: Any, graph: Any, custom_handlers: Mapping[str, Any]) -> None:
    """Raise UnsupportedError if a branch or a loop calls a function with operators unknown to the exporter,
    which leaves the function's name in that case."""
    from tf2onnx.handler import tf_op

    functions = {function.signature.name: function for function in graph.library.function}
    called = [
        attr.s.decode(errors="replace") for node in proto.graph.node for attr in node.attribute if attr.s
    ]
    operators = {*tf_op.create_mapping(OPSET, None), *custom_handlers, "NoOp", "Placeholder"}
    for function in (functions[name] for name in functions if any(name in text for text in called)):
        if unknown := sorted({node.op for node in function.node_def} - operators):
            raise UnsupportedError(f"No conversion rule found for operations: {', '.join(unknown)}")


def _check(graph: Any) -> None:
    """Raise TensorFlow's error for a graph, or a function in it, whose nodes do not fit their operators. The
    optimiser, which runs next, would crash instead."""
    import tensorflow as tf
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    for node in _nodes(graph):  # TensorFlow does not compare the two
        declared_type, value = (node.attr[key] if key in node.attr else None for key in ("dtype", "value"))
        if node.op == "Const" and declared_type and value and declared_type.type != value.tensor.dtype:
            raise ValueError(f"the constant {node.name!r} has a value of another type than it says")
    with tf.Graph().as_default():
        tf.import_graph_def(graph, name="")
        for function in graph.library.function:
            function_def_to_graph(function, include_library_functions=True)


#: Loggers that tf2onnx and TensorFlow write messages to which are left out here.
_NOISY = (
    "", "tensorflow", "tf2onnx.optimizer", "tf2onnx.shape_inference", "tf2onnx.tf_loader", "tf2onnx.tfonnx",
    "tf2onnx.tf_utils", "tf2onnx.utils",
)  # fmt: skip


def _find_rewritten(graph: Any) -> tuple[bool, bool]:
    """(whether a graph has complex numbers, whether it has other operators that `rebuild` replaces)"""
    nodes = _nodes(graph)
    pairs = any(_is_complex(value) for node in nodes for value in node.attr.values())
    return pairs, any(_is_rewritten(node.op) for node in nodes)


def _writes_anywhere(graph: Any) -> bool:
    """Whether a loop writes a list at indices other than 0, 1 and so on, which the exporter assumes; or a
    branch writes one, which the exporter ignores."""
    bodies = {function.signature.name: function for function in graph.library.function}
    owners = [graph.node, *(function.node_def for function in bodies.values())]
    loops = {node.attr["body"].func.name for nodes in owners for node in nodes if node.op.endswith("While")}
    elsewhere = (function for name, function in bodies.items() if name not in loops)
    if any(node.op == "TensorListSetItem" for function in elsewhere for node in function.node_def):
        return True
    for nodes in owners:
        nodes_by_name = {node.name: node for node in nodes}
        for node in nodes:
            if not node.op.endswith("While"):
                continue
            body = bodies[node.attr["body"].func.name]
            writes = [inner for inner in body.node_def if inner.op == "TensorListSetItem"]
            if not all(_counts_iterations(body, inner.input[1], node, nodes_by_name) for inner in writes):
                return True
    within = [{node.op for node in nodes} for nodes in owners]
    return any({"NextIteration", "TensorListSetItem"} <= kinds for kinds in within)


def _counts_iterations(body: Any, index: str, loop: Any, around: Mapping[str, Any]) -> bool:
    """Whether a value of a loop's body counts its iterations from 0."""
    body_nodes = {node.name: node for node in body.node_def}
    names = [argument.name for argument in body.signature.input_arg]
    name = source_of(body_nodes, index)
    if name not in names:
        return False
    position = names.index(name)
    step = body_nodes.get(source_of(body_nodes, body.ret[body.signature.output_arg[position].name]))
    start = around.get(source_of(around, loop.input[position]))
    if step is None or step.op not in ("Add", "AddV2") or start is None:
        return False
    sources = [source_of(body_nodes, operand) for operand in step.input[:2]]
    others = [body_nodes.get(other) for other in sources if other != name]
    return len(others) == 1 and _number(others[0]) == 1 and _number(start) == 0


def _number(node: Any) -> Any:
    """The value of a constant scalar, None for other nodes."""
    import tensorflow as tf

    if node is None or node.op != "Const":
        return None
    value = tf.make_ndarray(node.attr["value"].tensor)
    return value.item() if value.size == 1 else None


def _is_rewritten(kind: str) -> bool:
    return kind.startswith(("TensorList", "TensorArray")) or kind in _REWRITTEN


def _is_complex(attribute: Any) -> bool:
    return attribute.type in _COMPLEX_TYPES or not _COMPLEX_TYPES.isdisjoint(attribute.list.type)


#: The numbers of complex64 and complex128 in DataType.
_COMPLEX_TYPES = {8, 18}
#: Operators that `rebuild` replaces, beside those of lists and TensorArrays.
_REWRITTEN = {"Case", "StatelessCase", "Merge", "_SwitchN", "Switch", "EmptyTensorList", "ConjugateTranspose",
         "CheckNumericsV2"}  # fmt: skip


def _has_rewritten(graph: Any) -> bool:
    """Whether an exported graph still has operators that `rebuild` replaces."""
    graphs = [graph]
    while graphs:
        for node in graphs.pop().node:
            if _is_rewritten(node.op_type):
                return True
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return False


def _is_redundant(record: logging.LogRecord) -> bool:
    """True for a message of the log that says no more than the exporter's exception does.

    An operator is left as it is: its rule is here, or the error names it. The exporter calls a deprecated
    function. It does not find a table, which `tables` does, or the error names the lookup. It leaves out an
    optimisation.
    """
    redundant = (
        "is not supported|Unsupported ops|convert failed for|Failed to convert|^rewriter .* exception"
        "|^From .* deprecated|^Could not find table resource|^Issue encountered when serializing"
        r"|^Failed to apply|^For now, onnxruntime only|^Cannot infer shape for \S+/LookupTableFindV2/"
    )
    return re.search(redundant, record.getMessage()) is not None


@contextmanager
def _level(level: int) -> Iterator[None]:
    """Context in which tf2onnx logs only messages of this level and above."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress messages in the logs of tf2onnx, and of TensorFlow about tf2onnx's calls, except warnings."""
    with drop_records(_NOISY, _is_redundant), _level(logging.WARNING):
        yield
