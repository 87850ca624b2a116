"""Writer of OpenVINO IR v11: an xml file with the graph, a bin file with the constants.

Files appear whole or not at all: they are written beside their place and moved there at the end. So a model
may be saved over the files it was read from, and `read_ir` never takes the files of two saves for one model.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import quoteattr

import numpy as np

from ovjit import build
from ovjit.build import GRAPH_LOCK, Constant, Model, Node, Output, Parameter, Result, check_model
from ovjit.build.custom import Op
from ovjit.build.files import (
    HEADS_NOTE,
    PagedAttentionExtension,
    as_text,
    flag,
    noted_heads,
    surface_of,
    takes,
)
from ovjit.build.rules import ModelNode
from ovjit.build.subgraphs import SubGraphNode, inside_body
from ovjit.build.tensors import Layout, partial_shape_of, to_storage
from ovjit.disk.folders import replacing_together
from ovjit.errors import ModelError, UnsupportedError, no_path, no_such_form
from ovjit.graph.attributes import FILE_NAMES
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Interval
from ovjit.readers.ir.reader import PRECISIONS, TYPE_NAMES
from ovjit.readers.ir.subgraphs import port_map_lines
from ovjit.readers.ir.xml import BODIES
from ovjit.rewrite.pattern import anything, constant, op
from ovjit.version import get_version

F16_MAX = 65504.0
_XML_TYPES = {name: xml for xml, name in TYPE_NAMES.items()}
_XML_PRECISIONS = {name: xml.upper() for xml, name in PRECISIONS.items() if xml != "undefined"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@takes
def save_model(model: Model, output_model: Any, compress_to_fp16: bool = True) -> None:
    """Write an IR to the path `output_model` (.xml) and the .bin beside it; missing folders are made.

    `compress_to_fp16` stores f32 and f64 constants as f16, each followed by a Convert. Constants with finite
    values beyond f16 are not changed, nor are those of a model that `is_quantized`. Raises RuntimeError for a
    model that xml cannot hold or files that cannot be written.
    """
    compress = flag(compress_to_fp16, "compress_to_fp16")
    _write(model, output_model, "", compress, made_by={"OpenVINO Runtime": get_version()})


#: Versions that are written, by name.
VERSIONS = {"UNSPECIFIED": 11, "IR_V10": 10, "IR_V11": 11}


@takes
def serialize(model: Model, xml_path: Any, bin_path: Any = "", version: str = "UNSPECIFIED") -> None:
    """Write an IR as it is, uncompressed. Without `bin_path`, the .bin is beside the xml.

    `version` is IR_V11, UNSPECIFIED, which is the same, or IR_V10, which keeps no names of results. Raises
    RuntimeError as `save_model`.
    """
    check_version(version)
    _write(model, xml_path, bin_path, False, VERSIONS[version])


def check_version(version: Any) -> None:
    """Raise UnsupportedError unless `version` is the name of a version of IR that can be written, TypeError
    unless it is a str."""
    if not isinstance(version, str):
        raise no_such_form(f"version is a str, not {type(version).__name__}")
    if version not in VERSIONS:
        raise UnsupportedError(
            f"Invoked with wrong version argument: {version!r}! The supported versions are: 'UNSPECIFIED'"
            "(default), 'IR_V10', 'IR_V11'."
        )


def to_bytes(model: Model) -> tuple[bytes, bytes]:
    """The contents of the xml and bin files of `model`, uncompressed. Raises RuntimeError as `save_model`."""
    data = io.BytesIO()
    with GRAPH_LOCK:
        text = _Writer(data, False).net(model)
    return text.encode(), data.getvalue()


_model_bytes = to_bytes  # how a Model pickles


def _write(
    model: Model, xml_path: Any, bin_path: Any, compress: bool, version: int = 11, made_by: dict | None = None
) -> None:
    check_model(model)
    for path in (xml_path, bin_path):
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise no_path(path)
    xml = Path(os.fsdecode(xml_path))
    if xml.suffix != ".xml":
        raise ModelError(f"Path for xml file doesn't contains file name with 'xml' extension: \"{xml}\"")
    weights = xml.with_suffix(".bin") if not os.fspath(bin_path) else Path(os.fsdecode(bin_path))
    for folder in (xml.parent, weights.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"Couldn't create directory [{str(folder)!r}], err={error.strerror}") from error
    try:
        with GRAPH_LOCK, replacing_together(weights, xml) as (data, text):
            writer = _Writer(data, compress and not is_quantized(model), version)
            text.write(writer.net(model, made_by).encode())
    except OSError as error:
        raise ModelError(f"the model cannot be written to {str(xml)!r}: {error}") from error


class _Writer:
    """Collects layers and edges while the constants go to the bin file."""

    def __init__(self, data: IO[bytes], compress: bool, version: int = 11):
        self.version = version
        self.data = data
        self.compress = compress
        self.executed = False  # a model of what is executed: layers are of the type that their notes say
        self.size = 0
        #: (digest, size) -> offset: equal constants are stored once.
        self.offsets: dict[tuple[bytes, int], int] = {}
        self._begin()

    def _begin(self) -> None:
        self.layers: list[str] = []
        self.edges: list[tuple[int, int, int, int]] = []  # layer and port from, layer and port to
        self.ports: dict[tuple[Node, int], tuple[int, int]] = {}  # output -> (layer, port)
        self.numbers: dict[Node, int] = {}

    def net(self, model: Model, made_by: dict | None = None) -> str:
        build.read_whole(model)
        self.executed = all("layerType" in build.notes_of(n) for n in build.walk_model(model))
        inside = self.inside(model, made_by)
        head = f'<net name={_quote(model.get_friendly_name())} version="{self.version}">'
        return f'<?xml version="1.0"?>\n{head}\n{inside}</net>\n'

    def inside(self, model: Model, made_by: dict | None = None) -> str:
        """The lines of a net or a body."""
        for node in _in_file_order(model):
            self.node(node)
        edges = "".join(_edge(*edge) for edge in sorted(self.edges, key=lambda e: (e[0], e[2], e[3])))
        return (
            f"\t<layers>\n{''.join(self.layers)}\t</layers>\n\t<edges>\n{edges}\t</edges>\n"
            f"{_write_rt_info({**build.model_notes(model), **(made_by or {})})}"
        )

    def bodies(self, node: SubGraphNode) -> tuple[str, str]:
        """(XML of the port maps, XML of the bodies) of a layer. All bodies share the file of constants."""
        models = build.bodies_of(node)
        tags = ("then_body", "else_body") if len(models) == 2 else ("body",)
        texts, ids = [], []
        for tag, model in zip(tags, models, strict=True):
            if model is None:
                name, kind = node.get_friendly_name(), node.get_type_name()
                raise ModelError(f"node {name!r} ({kind}) has no body yet")
            text, ends = self.body(tag, model)
            texts.append(text)
            ids.append(ends)
        return "".join(f"\t\t\t{line}\n" for line in port_map_lines(node, ids)), "".join(texts)

    def body(self, tag: str, model: Model) -> tuple[str, tuple[list[int], list[int]]]:
        """A body's lines, and the layers of its Parameters and of its Results."""
        around = self.layers, self.edges, self.ports, self.numbers
        self._begin()
        with inside_body():
            inside = self.inside(model)
        lines = "".join(f"\t\t\t{line}\n" for line in inside.split("\n") if line)
        ends: tuple[Sequence[Node], ...] = (model.get_parameters(), model.get_results())
        numbers = [[self.numbers[end] for end in nodes] for nodes in ends]
        self.layers, self.edges, self.ports, self.numbers = around
        return f"\t\t\t<{tag}>\n{lines}\t\t\t</{tag}>\n", (numbers[0], numbers[1])

    def own_bodies(self, node: Op) -> str:
        """The Models among the attributes of an operation that is written in Python."""
        texts = []
        for tag, model in build.own_bodies_of(node).items():
            if tag not in BODIES:
                raise ModelError(
                    f"Unsupported Model name: attribute {tag!r} of {node.get_friendly_name()!r}; a Model is "
                    f"one of {', '.join(BODIES)}"
                )
            texts.append(self.body(tag, model)[0])
        return "".join(texts)

    def node(self, node: Node) -> None:
        name = node.get_friendly_name()
        real = build.node_in_files(node)
        if isinstance(real, Constant):
            self.constant(real, name, build.notes_of(node))
            self.ports[node, 0] = self.ports[real, 0]
            return
        inputs = [(self.ports[s.node, s.index], build.tensor_type(s)) for s in node.input_values()]
        outputs = [] if isinstance(node, Result) else [_describe_tensor(value) for value in node.outputs()]
        more = ""
        if isinstance(node, Result) and self.version >= 11:
            more = f" output_names={_quote(_names(build.names_of(node.output(0))))}"
        prefix = surface_of(build.record_of(node)).prefix
        attrs = {prefix + key: value for key, value in _attributes(node).items()}
        notes = build.notes_of(node)
        if isinstance(node, PagedAttentionExtension) and (heads := noted_heads(notes)):
            notes = {**notes, HEADS_NOTE: heads}
        info = _notes(notes, 3)
        maps, inside = self.bodies(node) if isinstance(node, SubGraphNode) else ("", "")
        if isinstance(node, Op):
            inside = self.own_bodies(node)
        kind = node.get_type_info()
        op, version = kind.name, kind.version_id
        if self.executed:
            fields = {key: str(note.value) for key, note in node.get_rt_info().items()}
            op, version, more = fields.pop("layerType"), "", ""
            attrs = {**attrs, **dict(sorted(fields.items()))}
        layer, first = self.layer(op, version, name, attrs, inputs, outputs, more, maps + info, inside)
        self.numbers[node] = layer
        for i in range(len(outputs)):
            self.ports[node, i] = layer, first + i

    def constant(self, node: Constant, name: str, notes: dict[str, Any]) -> None:
        element_type = build.attributes_of(node)["element_type"]
        tensor = node.output(0)
        value = node.value
        if self.compress and compressible(node):
            half = TensorType("f16", build.tensor_type(tensor).shape)
            layer, port = self.blob(f"{name}_compressed", half, as_f16(value), set(), _notes(notes, 3))
            note = _notes({**notes, "decompression_0": {}}, 3)
            attrs = {"destination_type": element_type}
            outputs = [_describe_tensor(tensor)]
            self.ports[node, 0] = self.layer(
                "Convert", "opset1", name, attrs, [((layer, port), half)], outputs, "", note
            )
        else:
            self.ports[node, 0] = self.blob(
                name, build.tensor_type(tensor), value, build.names_of(tensor), _notes(notes, 3)
            )

    def blob(
        self, name: str, type: TensorType, value: np.ndarray, names: set[str], info: str = ""
    ) -> tuple[int, int]:
        content = _string_bytes(value) if type.dtype == "string" else to_storage(value, type.dtype).tobytes()
        if not ELEMENT_TYPES[type.dtype].is_packed:
            content = content or b"\0"  # as OpenVINO has it
        key = hashlib.sha256(content).digest(), len(content)
        if key not in self.offsets:  # consecutive, as in OpenVINO's files
            self.offsets[key] = self.size
            self.size += len(content)
            self.data.write(content)
        slice_of_file = {"offset": self.offsets[key], "size": len(content)}
        attrs = {"element_type": type.dtype, "shape": tuple(type.shape), **slice_of_file}
        return self.layer("Constant", "opset1", name, attrs, [], [(type, names, "")], "", info)

    def layer(
        self, op: str, opset: str, name: str, attrs: dict[str, Any],
        inputs: list[tuple[tuple[int, int], TensorType]], outputs: list[tuple[TensorType, set[str], str]],
        more: str = "", info: str = "", inside: str = "",
    ) -> tuple[int, int]:  # fmt: skip
        """Append a layer and its edges; (its id, the port id of its first output)."""
        number = len(self.layers)
        lines = [
            f'\t\t<layer id="{number}" name={_quote(name)} type="{_XML_TYPES.get(op, op)}"'
            f"{f' version={_quote(opset)}' if opset else ''}{more}>\n"
        ]
        if attrs:
            texts = {FILE_NAMES.get(key, key): _text(value, key, name) for key, value in attrs.items()}
            written = " ".join(f"{key}={_quote(text)}" for key, text in texts.items())
            lines.append(f"\t\t\t<data {written} />\n")
        lines.append(info)
        for kind, first, types in (
            ("input", 0, [(t, set(), "") for _, t in inputs]),
            ("output", len(inputs), outputs),
        ):
            if types:
                ports = "".join(_port(first + i, *row) for i, row in enumerate(types))
                lines.append(f"\t\t\t<{kind}>\n{ports}\t\t\t</{kind}>\n")
        lines += [inside, "\t\t</layer>\n"]
        self.layers.append("".join(lines))
        for i, ((source, port), _) in enumerate(inputs):
            self.edges.append((source, port, number, i))
        return number, len(inputs)


def _in_file_order(model: Model) -> list[Node]:
    """The model's nodes in the order of the file: Parameters, other nodes, sinks, results. Inputs and outputs
    are numbered as the model's."""
    first, last = model.get_parameters(), [*model.get_sinks(), *model.get_results()]
    ends = set(last)
    between = [node for node in model.get_ordered_ops() if node not in ends]
    return build.walk_model(model, [*first, *between, *last])


def _edge(source: int, port: int, target: int, at: int) -> str:
    return f'\t\t<edge from-layer="{source}" from-port="{port}" to-layer="{target}" to-port="{at}" />\n'


def _attributes(node: Node) -> dict[str, Any]:
    if isinstance(node, Op):
        return build.own_attributes_of(node)
    attrs = build.attributes_of(node)
    if isinstance(node, Parameter):
        return {"shape": _shape_text(attrs["shape"]), "element_type": attrs["element_type"]}
    if "variable_shape" in attrs:
        return {**attrs, "variable_shape": _shape_text(attrs["variable_shape"])}
    return {key: value for key, value in build.ordered_attributes_of(node).items() if value is not None}


def _shape_text(shape: Any) -> str:
    return str(partial_shape_of(shape))[1:-1]


def _text(value: Any, key: str, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ", ".join(_text(v, key, name) for v in value)
    if isinstance(value, (int, str)):
        return str(value)
    if isinstance(value, float):
        return f"{value:.17g}"  # as OpenVINO writes it
    raise UnsupportedError(f"attribute {key!r} of {name!r} cannot be written to xml: {type(value).__name__}")


def _describe_tensor(value: Output) -> tuple[TensorType, set[str], str]:
    """(type, names, XML lines of the runtime info) of a port's tensor."""
    return build.tensor_type(value), build.names_of(value), _notes(build.notes_of(value), 5)


def _port(number: int, type: TensorType, names: set[str], notes: str = "") -> str:
    precision = _XML_PRECISIONS.get(type.dtype, type.dtype.upper())
    named = f" names={_quote(_names(names))}" if names else ""
    head = f'\t\t\t\t<port id="{number}" precision="{precision}"{named}'
    if not type.shape and not notes:
        return head + " />\n"
    shape = type.shape or ()
    dims = (-1 if isinstance(d, Interval) else d for d in shape)  # OpenVINO's reader takes no ranges here
    lines = "".join(f"\t\t\t\t\t<dim>{d}</dim>\n" for d in dims) + notes
    return f"{head}>\n{lines}\t\t\t\t</port>\n"


def _names(names: set[str]) -> str:
    return ",".join(name.replace(",", "\\,") for name in sorted(names))


def _quote(text: str) -> str:
    if _CONTROL.search(text):
        raise ModelError(f"the name or attribute {text[:80]!r} has characters that xml cannot represent")
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _write_rt_info(items: dict[str, Any]) -> str:
    """The <rt_info> section of a model, nested as the dicts are."""
    lines: list[str] = ["\t<rt_info>\n"]

    def write(inner: dict[str, Any], depth: int) -> None:
        if depth > 32:
            raise ModelError("the model's runtime information nests deeper than 32 levels")
        for key, value in sorted(inner.items()):
            plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.\-]*", key)
            tag, named = (key, "") if plain else ("info", f" name={_quote(key)}")
            if isinstance(value, dict):
                lines.append("\t" * depth + f"<{tag}{named}>\n")
                write(value, depth + 1)
                lines.append("\t" * depth + f"</{tag}>\n")
            else:
                lines.append("\t" * depth + f"<{tag}{named} value={_quote(as_text(value))} />\n")

    write({key: value for key, value in items.items() if key != "version"}, 2)
    return "".join(lines) + "\t</rt_info>\n" if len(lines) > 1 else "\t<rt_info />\n"


def _notes(notes: dict[str, Any], depth: int) -> str:
    """XML lines of the entries of rt_info that files store: dicts of texts under a name with a version, and
    layouts."""
    lines = []
    for key, value in sorted(notes.items()):
        if isinstance(value, Layout):
            value = {} if value.empty else {"layout": value.to_string()}
            if not value:
                continue
        match = re.fullmatch(r"(.+)_([0-9]+)", key)
        if match is None or not isinstance(value, dict):
            continue
        if all(isinstance(v, str) and k.isidentifier() for k, v in value.items()):
            attributes = "".join(f" {k}={_quote(v)}" for k, v in value.items())
            name, version = _quote(match[1]), _quote(match[2])
            lines.append(f"<attribute name={name} version={version}{attributes} />")
    if not lines:
        return ""
    tabs = "\t" * depth
    inner = "".join(f"{tabs}\t{line}\n" for line in lines)
    return f"{tabs}<rt_info>\n{inner}{tabs}</rt_info>\n"


#: Element types of weights that are stored with a scale.
_SCALED = frozenset(("i8", "u8", "i4", "u4", "nf4", "f8e4m3", "f8e5m2"))


def is_quantized(model: Model) -> bool:
    """Whether the model itself, its bodies aside, quantizes something or has weights of few bits times a
    constant scale. OpenVINO then makes no constant f16, as those are what accuracy depends on."""
    return any(
        _QUANTIZED.matches(ModelNode(node).output) for node in model.get_ops() if node.get_output_size()
    )


_WIDENED = op.Convert(constant("weights").where(lambda weights: weights.dtype in _SCALED))
_QUANTIZED = (
    op["FakeQuantize FakeConvert"](...)
    | op.Multiply(_WIDENED, constant("scale"))
    | op.Multiply(op.Subtract(_WIDENED, anything), constant("scale"))
)


def compressible(node: Constant) -> bool:
    """Whether a constant is stored as f16 on request: a real one that f16 represents well enough. Quantised
    constants and their scales are excluded, as in OpenVINO."""
    if build.attributes_of(node)["element_type"] not in ("f32", "f64") or not _serves_as_f16(node.value):
        return False
    return not any(user.get_type_name() == "FakeQuantize" for user in build.users_of(node))


def as_f16(value: np.ndarray) -> np.ndarray:
    """Numbers as f16, those beyond its range as the outermost it has."""
    return np.clip(value, -F16_MAX, F16_MAX).astype(np.float16)


def _serves_as_f16(value: np.ndarray) -> bool:
    """True if f16 represents the numbers well enough, by OpenVINO's rule: No number within the range may be
    off by more than 1. Fewer than three quarters may be beyond the range or off by more than a thousandth. A
    single number may be off by a ten-thousandth."""
    if value.size == 0:
        return False
    with np.errstate(all="ignore"):
        error = np.abs(as_f16(value).astype(value.dtype) - value)
        within = np.abs(value) <= F16_MAX
        relative = np.where(value == 0, 0, error / np.abs(value))
        bad = np.count_nonzero(~within | (relative > (1e-4 if value.size == 1 else 1e-3)))
        return bool((error[within] <= 1).all() and bad < (1 if value.size == 1 else 0.75 * value.size))


def _string_bytes(value: np.ndarray) -> bytes:
    """i32 count, i32 begin of each string and end of the last, then UTF-8."""
    parts = [v if isinstance(v, bytes) else str(v).encode() for v in value.reshape(-1)]
    ends = np.cumsum([0, *map(len, parts)])
    if ends[-1] >= 1 << 31 or math.prod(value.shape) >= 1 << 31:
        raise ModelError("a constant of strings is too long for xml: the maximum is 2 GiB")
    return np.array([len(parts), *ends], "<i4").tobytes() + b"".join(parts)
