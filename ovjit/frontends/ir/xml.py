"""The xml half of OpenVINO IR as plain records, its references checked; no operation is known here.

Safe on hostile input: document types and entities are refused, nesting is bounded, nothing recurses, and all
work is linear in the size of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree.ElementTree import ParseError

from ovjit.errors import ModelError
from ovjit.graph.graph import walk

#: Limits on what is read; real models stay far below them.
MAX_BYTES = 1 << 30
MAX_DEPTH = 64
MAX_ATTRIBUTE = 1 << 20
_INT = re.compile(r"[0-9]{1,19}")


class Port(NamedTuple):
    """A port of a layer. `names`, `precision` and `dims` are as written; None where not."""

    id: int
    names: str | None
    precision: str | None
    dims: list[str]


class Layer:
    """A `<layer>`: what it says of itself, and the (layer, output index) that feeds each of its inputs."""

    __slots__ = (
        "attrs", "has_body", "id", "inputs", "name", "output_names", "outputs", "rt_info", "sources",
        "type", "version",
    )  # fmt: skip

    def __init__(self, attrib: dict[str, str]):
        self.name = attrib.get("name", "")
        self.type = attrib.get("type", "")
        self.version = attrib.get("version", "")
        self.output_names = attrib.get("output_names")
        self.id = read_int(attrib.get("id"), f"the id of layer {self.name!r}")
        self.attrs: dict[str, str] = {}
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.rt_info: dict[str, Any] = {}
        self.has_body = False
        self.sources: list[tuple[Layer, int]] = []

    def __repr__(self) -> str:
        return f"layer {self.id} {self.name!r} ({self.type})"


class Net:
    """A `<net>`: layers in the file's order. `nested`: (type, version, name) of the layers inside bodies."""

    def __init__(self, name: str, version: int):
        self.name = name
        self.version = version
        self.layers: list[Layer] = []
        self.edges: list[dict[str, str]] = []
        self.rt_info: dict[str, Any] = {}
        self.nested: list[tuple[str, str, str]] = []


def read_int(text: str | None, what: str) -> int:
    """A non-negative decimal int below 10**19. Raises ModelError naming `what`."""
    if text is None or not _INT.fullmatch(text):
        raise ModelError(f"{what} should be a number from 0, not {_short(text)}")
    return int(text)


def parse_net(xml: bytes) -> Net:
    """The records of an IR file, edges resolved into `Layer.sources`.

    Raises ModelError for xml that is malformed, not IR v10 or v11, or refers to what is not there.
    """
    # pays for defusedxml only when a file is read
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    if len(xml) > MAX_BYTES:
        raise ModelError(f"the xml has {len(xml)} bytes; more than {MAX_BYTES} are not read")
    target = _Target()
    parser = DefusedXMLParser(target=target, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        # in one piece: expat rescans a long token with every further piece
        parser.feed(xml)
        parser.close()
    except DefusedXmlException as error:
        raise ModelError(f"the xml has a document type or entities, which are refused: {error}") from error
    except ParseError as error:
        raise ModelError(f"the xml is malformed: {error}") from error
    except (ValueError, LookupError) as error:
        raise ModelError(f"the xml cannot be decoded: {error}") from error
    if target.net is None:
        raise ModelError("the xml holds no <net>; it is no OpenVINO IR")
    _connect(target.net)
    return target.net


class _Target:
    """Takes the parser's events. `path` holds the open tags; below a <body> only layers are noted."""

    def __init__(self) -> None:
        self.net: Net | None = None
        self.path: list[str] = []
        self.layer: Layer | None = None
        self.body_depth = 0  # depth of the outermost open <body>, 0 for none
        self.ports: list[Port] | None = None
        self.text: list[str] | None = None
        self.info: list[dict[str, Any]] = []  # the open maps of an rt_info

    def start(self, tag: str, attrib: dict[str, str]) -> None:
        path = self.path
        path.append(tag)
        depth = len(path)
        if depth > MAX_DEPTH:
            raise ModelError(f"the xml nests deeper than {MAX_DEPTH} levels")
        for value in attrib.values():
            if len(value) > MAX_ATTRIBUTE:
                raise ModelError(f"an attribute of <{tag}> has {len(value)} characters")
        if depth == 1:
            self._net(tag, attrib)
        elif self.body_depth:
            if tag == "layer":
                self.net.nested.append(  # type: ignore[union-attr]
                    (attrib.get("type", ""), attrib.get("version", ""), attrib.get("name", ""))
                )
        elif self.info:
            self._info(tag, attrib)
        elif tag == "rt_info":
            self.info = [self.layer.rt_info if self.layer else self.net.rt_info]  # type: ignore[union-attr]
        elif self.layer is not None:
            self._inside_layer(tag, attrib)
        elif tag == "layer" and path[-2] == "layers":
            self.layer = Layer(attrib)
            self.net.layers.append(self.layer)  # type: ignore[union-attr]
        elif tag == "edge" and path[-2] == "edges":
            self.net.edges.append(attrib)  # type: ignore[union-attr]

    def end(self, tag: str) -> None:
        depth = len(self.path)
        self.path.pop()
        if self.body_depth:
            if depth == self.body_depth:
                self.body_depth = 0
        elif self.info:
            self.info.pop()
        elif tag == "dim" and self.text is not None:
            if self.ports:
                self.ports[-1].dims.append("".join(self.text))
            self.text = None
        elif depth == 3 and tag == "layer":
            self.layer = None
        elif depth == 4:
            self.ports = None

    def data(self, text: str) -> None:
        if self.text is not None:
            self.text.append(text)

    def close(self) -> None:
        return None

    def _net(self, tag: str, attrib: dict[str, str]) -> None:
        if tag != "net":
            raise ModelError(f"the xml holds <{tag[:40]}>, not <net>; it is no OpenVINO IR")
        version = read_int(attrib.get("version"), "the version of <net>")
        if version not in (10, 11):
            raise ModelError(f"IR version {version} is not read; 10 and 11 are")
        self.net = Net(attrib.get("name", ""), version)

    def _inside_layer(self, tag: str, attrib: dict[str, str]) -> None:
        layer = self.layer
        assert layer is not None
        if tag == "dim":
            self.text = []
        elif tag == "port":
            if self.ports is not None:
                port = read_int(attrib.get("id"), f"a port id of {layer!r}")
                self.ports.append(Port(port, attrib.get("names"), attrib.get("precision"), []))
        elif tag == "input":
            self.ports = layer.inputs
        elif tag == "output":
            self.ports = layer.outputs
        elif tag == "data":
            for name, value in attrib.items():
                layer.attrs[name.replace("-", "_")] = value
        elif tag in ("body", "then_body", "else_body", "back_edges", "port_map"):
            layer.has_body = True
            self.body_depth = len(self.path)

    def _info(self, tag: str, attrib: dict[str, str]) -> None:
        key = attrib.get("name", tag)
        rest = {name: value for name, value in attrib.items() if name != "name"}
        inner: dict[str, Any] = {}
        if set(rest) == {"value"}:
            self.info[-1][key] = rest["value"]
        else:
            inner.update(rest)
            self.info[-1][key] = inner
        self.info.append(inner)


def _connect(net: Net) -> None:
    """Resolve the edges. Raises ModelError naming the layer for every reference that leads nowhere."""
    layers: dict[int, Layer] = {}
    for layer in net.layers:
        if layer.id in layers:
            raise ModelError(
                f"two layers have the id {layer.id}: {layers[layer.id].name!r} and {layer.name!r}"
            )
        layers[layer.id] = layer
    outputs = {layer: _port_index(layer, layer.outputs) for layer in net.layers}
    inputs = {layer: _port_index(layer, layer.inputs) for layer in net.layers}
    found: dict[Layer, dict[int, tuple[Layer, int]]] = {layer: {} for layer in net.layers}
    for edge in net.edges:
        source = _end(layers, edge, "from-layer")
        target = _end(layers, edge, "to-layer")
        from_port = read_int(edge.get("from-port"), f"from-port of an edge of {source!r}")
        to_port = read_int(edge.get("to-port"), f"to-port of an edge of {target!r}")
        if from_port not in outputs[source]:
            raise ModelError(f"an edge leaves output port {from_port} of {source!r}, which it has not")
        if to_port not in inputs[target]:
            raise ModelError(f"an edge leads to input port {to_port} of {target!r}, which it has not")
        if source is target:
            raise ModelError(f"{source!r} feeds itself")
        place = inputs[target][to_port]
        if place in found[target]:
            raise ModelError(f"two edges lead to input port {to_port} of {target!r}")
        found[target][place] = source, outputs[source][from_port]
    for layer in net.layers:
        if len(found[layer]) < len(layer.inputs):
            missing = next(i for i in range(len(layer.inputs)) if i not in found[layer])
            raise ModelError(f"input port {layer.inputs[missing].id} of {layer!r} is not connected")
        layer.sources = [found[layer][i] for i in range(len(layer.inputs))]


def ordered_layers(net: Net) -> Iterator[Layer]:
    """Producers first. Raises ModelError naming a layer on a cycle."""
    return walk(net.layers, lambda layer: [source for source, _ in layer.sources])


def _port_index(layer: Layer, ports: list[Port]) -> dict[int, int]:
    index = {port.id: i for i, port in enumerate(ports)}
    if len(index) != len(ports):
        raise ModelError(f"{layer!r} has two ports with the same id")
    return index


def _end(layers: dict[int, Layer], edge: dict[str, str], which: str) -> Layer:
    number = read_int(edge.get(which), f"{which} of an edge")
    layer = layers.get(number)
    if layer is None:
        raise ModelError(f"an edge's {which} is {number}, but there is no layer with that id")
    return layer


def _short(text: str | None) -> str:
    return "missing" if text is None else repr(text[:40])
