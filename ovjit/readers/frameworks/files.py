"""Files of TensorFlow and Paddle -> Model, by way of ONNX, where frameworks and exporters are installed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from ovjit.build import Model, note_further_files
from ovjit.build.tensors import PartialShape
from ovjit.errors import ModelError, OvjitError, UnsupportedError, unless_of_signal, unreadable
from ovjit.readers.files.protobuf import BYTES, NUMBER, is_message
from ovjit.readers.frameworks.names import MARKED
from ovjit.readers.registry import HEAD, name_missing_room
from ovjit.records import NamedTuple


class Framework(NamedTuple):
    """A framework: title, file endings, packages that read the files, and how to install them."""

    title: str
    endings: tuple[str, ...]
    packages: tuple[str, ...]
    install: str


FRAMEWORKS = {
    "tf": Framework(
        "TensorFlow", (".pb", ".pbtxt", ".meta", ".keras", ".h5", ".hdf5"), ("tensorflow", "tf2onnx"),
        "pip install 'ovjit[tensorflow]'",
    ),
    "paddle": Framework(
        "Paddle", (".pdmodel", ".json"), ("paddle", "paddle2onnx"),
        "pip install paddlepaddle packaging && pip install --no-deps paddle2onnx",
    ),
}  # fmt: skip


#: Fields of TensorFlow's GraphDef, of which 1 is its nodes, and of its MetaGraphDef, of which 2 is its graph.
_GRAPH_DEF, _NODE = {3: NUMBER, **dict.fromkeys((1, 2, 4, 5), BYTES)}, 1
_META_GRAPH, _META_GRAPH_DEF = dict.fromkeys(range(1, 8), BYTES), 2
#: How a GraphDef as text begins, after remarks.
_GRAPH_TEXT = re.compile(rb"(\s|#[^\n]*\n)*(node|versions|version|library|debug_info)\s*[:{<]")


def framework_of(path: str) -> str | None:
    """The framework of a file, or of a folder with a SavedModel, by its name; None for others.

    A .json is Paddle's where its parameters lie beside it, and a .pbtxt is TensorFlow's unless it is ONNX.
    """
    if os.path.isdir(path):
        return "tf" if _saved_model(path) else None
    stem, ending = os.path.splitext(path)
    ending = ending.lower()
    if ending == ".json":
        return "paddle" if os.path.isfile(stem + ".pdiparams") else None
    return next((name for name, row in FRAMEWORKS.items() if ending in row.endings), None)


def is_graph_def(path: str) -> bool:
    """True if a file may be a GraphDef of TensorFlow, by its outermost fields, as text by the first."""
    with open(path, "rb") as file:
        return _GRAPH_TEXT.match(file.read(HEAD)) is not None or is_message(file, _GRAPH_DEF, _NODE)


def is_damaged(path: str) -> bool:
    """True for a file that is empty, or no GraphDef or MetaGraphDef although its ending says so."""
    if not os.path.isfile(path):
        return False
    ending = os.path.splitext(path)[1].lower()
    if ending in (".pb", ".pbtxt") and not is_graph_def(path):
        return True
    if ending == ".meta":
        with open(path, "rb") as file:
            return not is_message(file, _META_GRAPH, _META_GRAPH_DEF)
    return not os.path.getsize(path)


def _saved_model(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, f"saved_model.{kind}")) for kind in ("pb", "pbtxt"))


def read_framework(
    path: str, framework: str, weights: Any = None, converters: Mapping[str, Any] | None = None
) -> Model:
    """The Model of a file. `converters` are the caller's rules for operators. RuntimeError that names the
    packages where they are missing, and what the exporter says where it refuses the model."""
    if os.path.basename(path).lower() == "saved_model.pb" and not is_graph_def(path):
        raise ModelError(
            f'Unable to read the model: "{path}" is a part of a SavedModel. Give its folder, '
            f'"{os.path.dirname(path) or os.curdir}"'
        )
    exporter = _exporter(framework, path)
    if framework == "tf":
        rules = rules_of(converters or {})
        return of_onnx(path, framework, lambda: exporter(path, weights, rules), rules)
    return of_onnx(path, framework, lambda: exporter(path, weights))


def rules_of(converters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The caller's rules for TensorFlow's operators, by their names: not those for domains of ONNX."""
    names = {key: key.removeprefix(f"{MARKED}.") for key in converters}
    return {name: converters[key] for key, name in names.items() if "." not in name}


def of_onnx(
    where: str, framework: str, exported: Callable[[], Any], converters: Mapping[str, Any] | None = None
) -> Model:
    """The Model of an exporter's result, whose errors become RuntimeErrors that name it. `converters` are
    the caller's rules for operators that the exporter leaves as they are."""
    row = FRAMEWORKS[framework]
    with name_missing_room(f"Models of {row.title}"):
        from ovjit.readers.frameworks.operators import check_pairs, known_operators
        from ovjit.readers.onnx.reader import open_model, read_opened
    try:
        proto = exported()
    except OvjitError:
        raise
    except unless_of_signal(Exception) as error:
        what = f"{type(error).__name__}: {error}"[:600]
        raise ModelError(unreadable(where, f"{row.packages[1]} cannot convert the model ({what})")) from error
    try:
        if framework == "tf":
            check_pairs(proto.graph)
        caller_rules = {f"{MARKED}.{name}": rule for name, rule in (converters or {}).items()}
        rules = {**known_operators(framework), **caller_rules}
        parsed_file = open_model(proto)
        model = read_opened(parsed_file, rules, all_inputs=framework == "tf")
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}, as {row.packages[1]} converts it: {error}") from error
    except OvjitError as error:
        raise ModelError(f"{where}, as {row.packages[1]} converts it: {error}") from error
    note_further_files(model)
    if framework == "tf":
        _remove_inner_names(model)
    else:
        _check_declared(where, parsed_file.proto, model)
    return model


def _check_declared(where: str, proto: Any, model: Model) -> None:
    """Raise UnsupportedError where an output has not the shape that the exported model declares: its exporter
    wrote an operator wrongly."""
    for declared, port in zip(proto.graph.output, model.outputs, strict=True):
        shape, actual = declared.type.tensor_type, port.get_partial_shape()
        if not shape.HasField("shape"):
            continue
        expected = PartialShape([d.dim_value or -1 for d in shape.shape.dim])
        if not actual.compatible(expected):
            raise UnsupportedError(
                f"{where}, as paddle2onnx converts it: the output {declared.name[:200]!r} has the shape "
                f"{actual}, but Paddle declares {expected}. The package writes an operator of the model "
                "wrongly"
            )


def _remove_inner_names(model: Model) -> None:
    """Take the names of inner tensors away: the exporter has images in another layout there."""
    ends = {id(port.get_tensor()) for port in (*model.inputs, *model.outputs)}
    ends |= {id(result.input_value(0).get_tensor()) for result in model.get_results()}
    for node in model.get_ops():
        for port in node.outputs():
            if id(port.get_tensor()) not in ends:
                port.get_tensor().set_names(set())


def missing_packages(framework: str) -> str:
    """Error message for missing packages of a framework's reader; empty if all are installed."""
    from importlib.util import find_spec

    row = FRAMEWORKS[framework]
    missing = [name for name in row.packages if find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"Models of {row.title} need the packages {' and '.join(row.packages)}. Not installed: "
        f"{', '.join(missing)} ({row.install}). Or export the model to ONNX."
    )


def _exporter(framework: str, path: str) -> Callable[..., Any]:
    if why := missing_packages(framework):
        raise UnsupportedError(f'Unable to read the model: "{path}". {why}')
    if framework == "tf":
        from ovjit.readers.frameworks import tensorflow

        return tensorflow.file_to_onnx
    from ovjit.readers.frameworks import paddle

    return paddle.file_to_onnx


#: Classes of the objects that models are, by their packages.
_TENSORFLOW = ("keras.Model", "keras.Layer", "tensorflow.Function", "tensorflow.ConcreteFunction",
               "tensorflow.Module", "tensorflow.Graph", "tensorflow.GraphDef",
               "tensorflow.AutoTrackable", "tensorflow.BaseSession", "tensorflow.Checkpoint")  # fmt: skip
_PADDLE = ("paddle.Layer", "paddle.Model", "paddle.Executor", "paddle.Program")


def is_tensorflow(value: Any) -> bool:
    """Whether an object is a Keras model, or a module, function or graph of TensorFlow's."""
    return _is_one_of(value, _TENSORFLOW)


def is_paddle(value: Any) -> bool:
    """Whether an object is a model of Paddle's."""
    return _is_one_of(value, _PADDLE)


def _is_one_of(value: Any, classes: tuple[str, ...]) -> bool:
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    return not names.isdisjoint(classes)
