"""Reader of OpenVINO IR, versions 10 and 11: an xml file with the graph, a bin file with the constants."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from ovjit import build
from ovjit.build import Model, Node, Output, Parameter, Result
from ovjit.build.files import HEADS_NOTE, LAYOUT_NOTE, heads_of, surface_of
from ovjit.build.tensors import TYPES, Layout, dims_of
from ovjit.errors import ModelError, UnsupportedError, unreadable
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.op import PLUGIN_OPSET, Op, find_op
from ovjit.graph.shapes import Dim
from ovjit.readers.files import list_missing
from ovjit.readers.files.weights import await_file, constant_values, load_weights, read_regular
from ovjit.readers.ir.xml import Layer, Net, looks_like_xml, nested_nets, ordered_layers, parse_net, read_int
from ovjit.readers.registry import conversion_note, formats_note

#: The newest opset there is.
NEWEST_OPSET = 17
#: The xml's name of an operation, where it is not the operation's own.
TYPE_NAMES = {"Const": "Constant", "PReLU": "PRelu", "ReLU": "Relu", "SoftMax": "Softmax"}
#: The xml's name of an element type in `precision`, where it is not the type's own in capitals.
PRECISIONS = {
    "fp16": "f16",
    "fp32": "f32",
    "fp64": "f64",
    "bool": "boolean",
    "bin": "u1",
    "undefined": "dynamic",
    "unspecified": "dynamic",
}
_NONE: Mapping[tuple[str, str], type] = {}
#: Reads of files that are replaced meanwhile.
_ATTEMPTS = 100
_DIM = re.compile(r"\s*(\?|-1|[0-9]{1,19}|[0-9]{0,19}\.\.[0-9]{0,19})\s*")


def read_ir(
    xml: Any, weights: Any = None, use_mmap: bool = True, extensions: Mapping[tuple[str, str], type] = _NONE
) -> Model:
    """The Model of an IR. `extensions`: classes derived from Op, by their operations' names and versions.

    `xml` is a path (str or PathLike), or the file's content (bytes-like). `weights` is a path, bytes-like or
    a Tensor. None takes the .bin file beside the xml, if it exists. Raises RuntimeError with the file and the
    layer for an invalid file. UnsupportedError (a RuntimeError too) lists all operations that ovjit does not
    have. TypeError for another kind of object.

    Files that `save_model` replaces meanwhile are read again, so both are of one save.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(_Replaced):
            return _read(xml, weights, use_mmap, extensions)
        await_file(os.fsdecode(xml))
    raise ModelError(f"{os.fsdecode(xml)}: other programs replace the model's files all the time")


class _Replaced(Exception):
    """The xml file was replaced while it was read."""


def _read(xml: Any, weights: Any, use_mmap: bool, extensions: Mapping[tuple[str, str], type]) -> Model:
    """As `read_ir`. Raises _Replaced if the weights may not be those of the xml that was read."""
    where, origin = "the given xml", None
    if isinstance(xml, (str, os.PathLike)):
        where = os.fsdecode(xml)
        if os.path.isdir(where) and (why := conversion_note(where)):
            raise ModelError(unreadable(where, why))
        if os.path.isdir(where):
            raise ModelError(f'Could not open the file: "{where}": it is a folder without a saved_model.pb')
        try:
            content, origin = read_regular(where, "file")
        except ModelError as error:
            if isinstance(error.__cause__, FileNotFoundError) and await_file(where):
                raise _Replaced from None
            raise
        beside = os.path.splitext(where)[0] + ".bin"
        if weights is None and os.path.isfile(beside):
            weights = beside
    elif hasattr(xml, "getvalue"):
        content = xml.getvalue()
    else:
        try:
            content = bytes(memoryview(xml))
        except TypeError:
            raise TypeError(f"a model is read from a path or bytes, not from {type(xml).__name__}") from None
    try:
        net = parse_net(content)
    except ModelError as error:
        path = where if isinstance(xml, (str, os.PathLike)) else None
        why = _unknown_format(path, content) or f"{where}: {error}"
        raise type(error)(unreadable(path, why)) from error
    try:
        values = load_weights(weights, use_mmap)
        if origin and isinstance(weights, (str, os.PathLike)) and not origin.is_unchanged():
            raise _Replaced
        model = _build_model(net, values, _find_ops(net, extensions))
        return _with_ports_of_version_10(model) if net.version == 10 else model
    except ModelError as error:
        raise type(error)(f"{where}: {error}") from error
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from error


def _unknown_format(path: str | None, content: bytes) -> str:
    """Advice for a file whose ending and contents are of no format that is read, else ""."""
    if path is not None and (why := conversion_note(path)):
        return why
    if path is None or path.lower().endswith(".xml") or looks_like_xml(content[:64]):
        return ""
    return formats_note()


def _with_ports_of_version_10(model: Model) -> Model:
    """The model with OpenVINO's element types of inputs and outputs for a file of version 10: inputs of f16
    are f32, and results are f32 or i32, for any computation inside."""
    inputs = [i for i, port in enumerate(model.inputs) if build.tensor_type(port).dtype == "f16"]
    outputs = {
        i: "i32" if build.tensor_type(port).dtype in ("i64", "u32", "u64") else "f32"
        for i, port in enumerate(model.outputs)
        if build.tensor_type(port).dtype not in ("f32", "i32", "string", "dynamic")
    }
    if not inputs and not outputs:
        return model
    from ovjit.compat.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    for i in inputs:
        steps.input(i).tensor().set_element_type(TYPES["f32"])
    for i, name in outputs.items():
        steps.output(i).tensor().set_element_type(TYPES[name])
    return steps.build()


def _build_model(net: Net, weights: np.ndarray, records: Mapping[tuple[str, str], Op | type]) -> Model:
    """A Model of the layers, in topological order."""
    result: dict[Layer, Node] = {}
    for layer in ordered_layers(net):
        inputs = [result[source].output(index) for source, index in layer.sources]
        try:
            node = _make_node(layer, records, inputs, weights)
        except ModelError as error:
            raise ModelError(f"{layer!r}: {error}") from error
        count, tensors = len(layer.outputs), build.tensors_of(node)
        if len(tensors) < count:
            raise ModelError(f"{layer!r} declares {count} outputs, but the operation has {len(tensors)}")
        for tensor, port in zip(tensors, layer.outputs, strict=False):
            if port.names:
                build.set_names(tensor, _split_names(port.names))
            if port.rt_info:
                build.set_notes(tensor, _notes(port.rt_info))
        if layer.rt_info:
            build.set_notes(node, _notes(layer.rt_info))
        result[layer] = node
    # a Result's names are its producer's too, so they come last
    parameters: list[Parameter] = []
    results: list[Result] = []
    sinks: list[Node] = []
    readers = [node for node in result.values() if build.record_of(node).role == "read"]
    reads = {build.attributes_of(node)["variable_id"]: node for node in readers}
    for layer in net.layers:
        node = result[layer]
        if isinstance(node, Parameter):
            parameters.append(node)
            if net.version == 10:
                build.add_names(node.output(0), {layer.name})
        elif isinstance(node, Result):
            results.append(node)
            if layer.output_names:
                node.output(0).set_names(set(_split_names(layer.output_names)))
            if net.version == 10:
                source = node.input_value(0)
                several = f".{source.index}" if source.node.get_output_size() > 1 else ""
                build.add_names(source, {source.node.get_friendly_name() + several})
        elif build.record_of(node).role == "assign":
            sinks.append(node)
            build.set_predecessor(node, reads.get(build.attributes_of(node)["variable_id"]))
    return build.make_model(results, parameters, net.name, sinks, {"version": net.version, **net.rt_info})


def _find_ops(net: Net, extensions: Mapping[tuple[str, str], type]) -> dict[tuple[str, str], Op | type]:
    """(type, version) -> record, or class of an added operation. UnsupportedError lists all missing ones."""
    records: dict[tuple[str, str], Op | type] = {}
    missing: dict[str, list[str]] = {}
    layers = [layer for part in nested_nets(net) for layer in part.layers]
    for type_name, version, name in ((layer.type, layer.version, layer.name) for layer in layers):
        key = type_name, version
        if key not in records:
            record = extensions.get(key) or _find_op(type_name, version)
            if record is not None:
                records[key] = record
        if key not in records:
            label = f"{type_name or '(no type)'} of {version or 'no opset'}"
            missing.setdefault(label[:80], []).append(name)
    if missing:
        kind, version = next((x.type, x.version) for x in layers if (x.type, x.version) not in records)
        raise UnsupportedError(
            f"Opset {version or '(none)'} doesn't contain the operation with type: {kind[:80]}. "
            f"The operations of the model that ovjit does not implement are: {list_missing(missing)}"
        )
    return records


#: The names of opsets of operations that packages add.
OTHER_OPSETS = ("extension", "openvino_tokenizers")
#: Operations of an opset that files of early tokenizers have as "extension".
OF_EXTENSION = ("StringTensorPack", "StringTensorUnpack")


def _find_op(type_name: str, version: str) -> Op | None:
    plugin = {PLUGIN_OPSET: True, **{name: name for name in OTHER_OPSETS}}.get(version, False)
    if plugin and type_name in OF_EXTENSION:
        return find_op(type_name)
    if not plugin and (not re.fullmatch(r"opset[1-9][0-9]?", version) or int(version[5:]) > NEWEST_OPSET):
        return None
    try:
        record = find_op(TYPE_NAMES.get(type_name, type_name), 1 if plugin else int(version[5:]))
    except ModelError:
        return None
    return record if record.plugin == plugin and not record.internal else None


def _make_node(
    layer: Layer, records: Mapping[tuple[str, str], Op | type], inputs: list[Output], weights: np.ndarray
) -> Node:
    """The node of a layer. Raises ModelError if attributes or inputs do not fit."""
    name = layer.name or None
    record = records[layer.type, layer.version]
    if isinstance(record, type):
        from ovjit.build.custom import read_node
        from ovjit.build.subgraphs import inside_body

        with inside_body():
            bodies = {tag: _build_model(body, weights, records) for tag, body in layer.bodies.items()}
        return read_node(record, inputs, {**layer.attrs, **bodies}, name)
    if record.runs_body:
        from ovjit.readers.ir.subgraphs import subgraph_node

        return subgraph_node(layer, record, inputs, lambda body: _build_model(body, weights, records))
    if record.name == "Parameter":
        if inputs:
            raise ModelError("a Parameter takes no inputs")
        _known_attributes(layer, record.name, {"shape", "element_type"})
        if "shape" not in layer.attrs:
            raise ModelError("a Parameter needs a shape")
        return build.make_parameter(_element_type(layer), _shape(layer.attrs["shape"]), name)
    if record.name == "Constant":
        return _constant(layer, weights, name)
    if record.name == "Result":
        _known_attributes(layer, record.name, set())
        if len(inputs) != 1:
            raise ModelError(f"a Result takes one input, not {len(inputs)}")
        return build.make_result(inputs[0], name)
    allowed = record.attributes.keys()
    attrs: Mapping[str, Any] = _known_attributes(layer, record.name, allowed, surface_of(record).prefix)
    if "variable_shape" in attrs:
        attrs = {**attrs, "variable_shape": _shape(attrs["variable_shape"])}
    return build.make_node(record, inputs, attrs, name)


#: operation -> attributes that files have and that say nothing which its inputs and other attributes do not.
WITHOUT_EFFECT: dict[str, frozenset[str]] = {
    "MVN": frozenset(("reduction_axes",)),  # what across_channels says, in version 2
    "StringTensorPack": frozenset(("mode",)),  # of early tokenizers, always begins_ends
    "StringTensorUnpack": frozenset(("mode",)),
}


def _known_attributes(
    layer: Layer, name: str, allowed: Set[str], prefix: str = ""
) -> Mapping[str, str]:  # fmt: skip
    """The layer's attributes. Raises ModelError for one that the operation does not have.

    What it asks for would not be done: wrong numbers without a word. (OpenVINO reads on.)
    """
    attributes = layer.attrs
    if prefix:
        attributes = {key.removeprefix(prefix): value for key, value in attributes.items()}
    if attributes.keys() <= allowed:
        return attributes
    empty = WITHOUT_EFFECT.get(name, frozenset())
    for key in attributes:
        if key not in allowed and key not in empty:
            raise ModelError(
                f"the attribute {key[:60]!r} is unknown for {name} of {layer.version}; remove it from "
                "the file if it has no effect"
            )
    return {key: value for key, value in attributes.items() if key in allowed}


def _constant(layer: Layer, weights: np.ndarray, name: str | None) -> Node:
    _known_attributes(layer, "Constant", {"element_type", "shape", "offset", "size"})
    element_type = _element_type(layer)
    text = layer.attrs.get("shape")
    if text is None:
        text = ",".join(layer.outputs[0].dims) if layer.outputs else ""
    shape = _shape(text)
    if shape is None or not all(isinstance(d, int) for d in shape):
        raise ModelError(f"a constant's shape is dynamic: {text[:80]!r}")
    static = tuple(d for d in shape if isinstance(d, int))
    offset = read_int(layer.attrs.get("offset"), "its offset")
    size = read_int(layer.attrs.get("size"), "its size")
    value = constant_values(weights, offset, size, element_type, static)
    natural = ELEMENT_TYPES[element_type].numpy is not None
    return build.make_constant(value, element_type, None if natural else static, name).node


def _element_type(layer: Layer) -> str:
    text = layer.attrs.get("element_type")
    if text is None:
        text = (layer.outputs[0].precision if layer.outputs else None) or ""
    lowered = text.lower()
    name = PRECISIONS.get(lowered, lowered)
    if name not in ELEMENT_TYPES:
        raise ModelError(f'"{text[:40]}" is not a member of enum element::Type_t')
    return name


def _shape(text: str) -> tuple[Dim, ...] | None:
    """ "?,3,2..8", "" for a scalar, "..." for any rank."""
    if text.strip() == "...":
        return None
    if not text.strip():
        return ()
    parts = text.split(",")
    if text.isascii() and all(part.isdecimal() and len(part) < 19 for part in parts):
        return tuple(map(int, parts))
    for part in parts:
        if not _DIM.fullmatch(part) or not part.isascii():
            raise ModelError(f'Cannot parse dimension: "{part[:40]}"')
        low, dots, high = part.strip().partition("..")
        if dots and low and high and int(low) > int(high):
            raise ModelError(f"{part[:40]!r} is not a dimension: its upper bound is below its lower bound")
        if any(bound.isdecimal() and int(bound) >= 1 << 63 for bound in (low, high)):
            raise ModelError(f"{part[:40]!r} is not a dimension: it does not fit 64 bits")
    return dims_of(text)


def _notes(written: dict[str, Any]) -> dict[str, Any]:
    """Entries of rt_info with their versions in their names, as in OpenVINO; a layout becomes a Layout."""
    notes: dict[str, Any] = {}
    for key, value in written.items():
        if isinstance(value, dict) and "version" in value:
            key, value = f"{key}_{value['version']}", {k: v for k, v in value.items() if k != "version"}
        if key == HEADS_NOTE:
            notes |= heads_of(value)
            continue
        if key == LAYOUT_NOTE:
            try:
                value = Layout(value.get("layout", ""))
            except RuntimeError as error:
                raise ModelError(f"a layout is not valid: {error}") from error
        notes[key] = value
    return notes


def _split_names(text: str) -> list[str]:
    r"""Tensor names: separated by commas; a comma inside a name is written `\,`."""
    return [name.replace("\\,", ",") for name in re.split(r"(?<!\\),", text) if name]


_model_of = read_ir  # the inverse of `writer._model_bytes`
