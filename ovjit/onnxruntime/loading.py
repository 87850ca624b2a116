"""A model of a path or bytes, with the options of its session applied, and ONNX Runtime's errors."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.onnxruntime.failures import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    ModelLoadCanceled,
    NoSuchFile,
    NotImplemented,
    failure_of,
    refuse,
)
from ovjit.onnxruntime.graph_info import NodeArg, has_shape, innermost, read_node_arg
from ovjit.onnxruntime.options import SessionOptions
from ovjit.readers.onnx.checks import SchemaError
from ovjit.readers.onnx.reader import Opened, open_model, read_opened
from ovjit.readers.onnx.standard import find_schema, messages
from ovjit.records import NamedTuple

#: The bytes of a model in ONNX Runtime's own format begin with these, after an offset.
_ORT_FORMAT = b"ORTM"
_DEFAULT_DOMAINS = ("", "ai.onnx")


class Change(NamedTuple):
    """Initializers that become inputs, shapes of inputs (-1 is a dynamic dimension), and bytes of inputs that
    become initializers; the last two as pairs with names."""

    overrides: frozenset[str] = frozenset()
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    values: tuple[tuple[str, bytes], ...] = ()


class LoadedModel:
    """A ModelProto with the options applied. `read` makes Models of it."""

    def __init__(self, source: str | bytes, options: SessionOptions) -> None:
        self.path = source if isinstance(source, str) else None
        self._begin = "" if self.path is None else f"Load model from {self.path} failed:"
        if options._fields.get("load_cancellation"):
            raise failure_of(ModelLoadCanceled, "Model loading canceled due to user request.")
        self.opened = self._open(source, options)
        self.is_changed = _apply_options(self.opened.proto, options)
        graph = self.opened.proto.graph
        self._check_nodes()
        initializers = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        self.inputs = [read_node_arg(info) for info in graph.input if info.name not in initializers]
        self.overridable = [read_node_arg(info) for info in graph.input if info.name in initializers]
        #: Inputs of unknown rank, of which a call's arrays have the rank.
        self.rankless = [
            i.name for i in graph.input if i.name not in initializers and not has_shape(innermost(i.type))
        ]
        self.outputs = self._read_outputs()

    def _open(self, source: str | bytes, options: SessionOptions) -> Opened:
        if isinstance(source, str):
            if not os.path.exists(source):
                raise failure_of(NoSuchFile, f"{self._begin}Load model {source} failed. File doesn't exist")
            if os.path.isdir(source):
                raise failure_of(InvalidProtobuf, f"{self._begin}Protobuf parsing failed.")
            with open(source, "rb") as file:
                head = file.read(8)
        else:
            head = source[:8]
        in_ort_format = options._entries.get("session.load_model_format", "").upper() == "ORT"
        if in_ort_format or head[4:] == _ORT_FORMAT:
            refuse("ONNX Runtime's own file format", "load the .onnx file that the .ort file was made of")
        try:
            return open_model(source, options._files or None)
        except ModelError as error:
            if not head or "has no graph" in str(error):
                raise failure_of(
                    InvalidArgument, f"{self._begin}No graph was found in the protobuf."
                ) from error
            text = "Protobuf parsing failed." if self.path is not None else (
                "Failed to load model because protobuf parsing failed."
            )  # fmt: skip
            raise failure_of(InvalidProtobuf, f"{self._begin}{text}") from error

    def _check_nodes(self) -> None:
        """Raise InvalidGraph for operators that the standard does not have, and InvalidArgument for names
        that no node computes."""
        proto = self.opened.proto
        opsets = {e.domain if e.domain not in _DEFAULT_DOMAINS else "": e.version for e in proto.opset_import}
        functions = {(f.domain, f.name) for f in proto.functions}
        graph = proto.graph
        names = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
        names |= {t.values.name for t in graph.sparse_initializer} | {n for x in graph.node for n in x.output}
        for node in graph.node:
            domain = "" if node.domain in _DEFAULT_DOMAINS else node.domain
            version = opsets.get(domain, 0)
            if domain == "" and (node.domain, node.op_type) not in functions and version:
                if find_schema("", node.op_type, version) is None and not _is_contributed(node.op_type):
                    raise failure_of(
                        InvalidGraph,
                        f'{self._begin}This is an invalid model. In Node, ("{node.name}", {node.op_type}, '
                        f'"{node.domain}", -1) : , Error No Op registered for {node.op_type} with '
                        f"domain_version of {version}",
                    )
            for name in node.input:
                if name not in names:
                    raise failure_of(
                        InvalidArgument,
                        f"{self._begin}Invalid model. Node input '{name}' is not a graph input, initializer, "
                        "or output of a previous node.",
                    )

    def _read_outputs(self) -> list[NodeArg]:
        infos = list(self.opened.proto.graph.output)
        if all(info.type.WhichOneof("value") != "tensor_type" or has_shape(info.type) for info in infos):
            return [read_node_arg(info) for info in infos]
        inferred = {info.name: info for info in _infer_outputs(self.opened.proto)}
        return [read_node_arg(inferred.get(info.name, info)) for info in infos]

    def read(self, change: Change) -> Model:
        """The Model with a change applied."""
        proto, external, where = self.opened
        if change != Change():
            copy = messages().ModelProto()
            copy.CopyFrom(proto)
            proto = copy
            _apply_change(proto.graph, change)
        try:
            return read_opened(Opened(proto, external, where))
        except OvjitError as error:
            raise self.failure(error) from error

    def failure(self, error: OvjitError) -> Exception:
        """ONNX Runtime's exception for one of reading or compiling."""
        kind = InvalidGraph if isinstance(error, SchemaError) else Fail
        kind = NotImplemented if isinstance(error, UnsupportedError) else kind
        return failure_of(kind, f"{self._begin}{error}")


def _apply_change(graph: Any, change: Change) -> None:
    """Change a graph in place."""
    shapes, values = dict(change.shapes), dict(change.values)
    tensors = [t for t in graph.initializer if t.name not in change.overrides]
    infos = [info for info in graph.input if info.name not in values]
    for info in graph.input:
        if info.name in values:
            kind = info.type.tensor_type.elem_type
            tensors.append(messages().TensorProto(name=info.name, data_type=kind, raw_data=values[info.name]))
        if info.name in shapes:
            shape = innermost(info.type).tensor_type.shape
            shape.SetInParent()
            del shape.dim[:]
            for size in shapes[info.name][info.type.HasField("sequence_type") :]:
                dim = shape.dim.add()
                if size >= 0:
                    dim.dim_value = size
    for repeated, entries in ((graph.initializer, tensors), (graph.input, infos)):
        if len(repeated) != len(entries) or repeated is graph.initializer:
            copies = [type(one).FromString(one.SerializeToString()) for one in entries]
            del repeated[:]
            repeated.extend(copies)


def _is_contributed(name: str) -> bool:
    """True for operators that exporters and ONNX Runtime's optimizer write in the default domain, at versions
    where ONNX Runtime alone has them."""
    return name in ("Affine", "Crop", "GivenTensorFill", "ImageScaler", "LayerNormalization",
                    "ParametricSoftplus", "Scale", "ScaledTanh", "SimplifiedLayerNormalization",
                    "ThresholdedRelu", "Upsample", "ATen")  # fmt: skip


def _infer_outputs(proto: Any) -> list[Any]:
    """The outputs of a model with the shapes that ONNX's inference finds, [] if it fails."""
    from onnx import shape_inference

    graph = messages().ModelProto()
    graph.CopyFrom(proto)
    try:
        return list(shape_inference.infer_shapes(graph, data_prop=True).graph.output)
    except (RuntimeError, ValueError, TypeError):
        return []


def _apply_options(proto: Any, options: SessionOptions) -> bool:
    """Set dimensions and initializers that the options have. Returns True if that changes the model."""
    graph = proto.graph
    is_changed = bool(options._files)
    if options._dimensions:
        for info in (*graph.input, *graph.output, *graph.value_info):
            for dim in info.type.tensor_type.shape.dim if has_shape(info.type) else ():
                size = options._dimensions.get(("name", dim.dim_param)) if dim.dim_param else None
                if size is None and dim.denotation and not dim.HasField("dim_value"):
                    size = options._dimensions.get(("denotation", dim.denotation))
                if size is not None and size > 0:
                    dim.dim_value = size
                    is_changed = True
    for tensor in graph.initializer:
        value = options._initializers.get(tensor.name)
        if value is not None:
            tensor.CopyFrom(_tensor_proto(tensor.name, value))
            is_changed = True
    return is_changed


def _tensor_proto(name: str, value: Any) -> Any:
    array = np.ascontiguousarray(value._tensor())
    return messages().TensorProto(
        name=name, dims=value.shape(), data_type=value.element_type(), raw_data=array.tobytes()
    )
