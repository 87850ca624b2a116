"""The xml half of OpenVINO IR as plain records, its references checked; no operation is known here.

Safe on hostile input: document types and entities are refused, nesting is bounded, nothing recurses, and all
work is linear in the size of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ovjit.errors import ModelError
from ovjit.graph.bodies import DEEPEST
from ovjit.graph.graph import walk
from ovjit.records import NamedTuple

#: Limits on what is read; real models stay far below them. MAX_DEPTH is that of tags in one net.
MAX_BYTES = 1 << 30
MAX_DEPTH = 64
MAX_ATTRIBUTE = 1 << 20
#: Where bodies stand, and what says how they are connected.
BODIES = ("body", "then_body", "else_body")
PORT_MAPS = ("port_map", "then_port_map", "else_port_map", "back_edges")
_INT = re.compile(r"[0-9]{1,19}")


class Port(NamedTuple):
    """A port of a layer. `names`, `precision` and `dims` are as written; None where not. `rt_info` are
    notes."""

    id: int
    names: str | None
    precision: str | None
    dims: list[str]
    rt_info: dict[str, Any]


class Layer:
    """A `<layer>`: what it says of itself, and the (layer, output index) that feeds each of its inputs."""

    __slots__ = (
        "attrs", "bodies", "id", "inputs", "name", "output_names", "outputs", "port_maps", "rt_info",
        "sources", "type", "version",
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
        #: tag (body, then_body, else_body) -> the net inside
        self.bodies: dict[str, Net] = {}
        #: tag (port_map, then_port_map, else_port_map, back_edges) -> its elements' tags and attributes
        self.port_maps: dict[str, list[tuple[str, dict[str, str]]]] = {}
        self.sources: list[tuple[Layer, int]] = []

    def __repr__(self) -> str:
        return f"layer {self.id} {self.name!r} ({self.type})"


class Net:
    """A `<net>`, or a body inside a layer: layers in the file's order."""

    def __init__(self, name: str, version: int):
        self.name = name
        self.version = version
        self.layers: list[Layer] = []
        self.edges: list[dict[str, str]] = []
        self.rt_info: dict[str, Any] = {}

    def bodies(self) -> Iterator[Net]:
        """The nets right inside this one."""
        return (body for layer in self.layers for body in layer.bodies.values())


def nested_nets(net: Net) -> Iterator[Net]:
    """`net` and all nets inside it, outer ones first, without recursion."""
    waiting = [net]
    while waiting:
        yield (here := waiting.pop())
        waiting.extend(here.bodies())


def read_int(text: str | None, what: str) -> int:
    """A non-negative decimal int below 10**19. Raises ModelError naming `what`."""
    if text is None or not _INT.fullmatch(text):
        found = "is missing" if text is None else f"is {text[:40]!r}"
        raise ModelError(f"{what} should be a non-negative number; it {found}")
    return int(text)


def parse_net(xml: bytes) -> Net:
    """The records of an IR file, edges resolved into `Layer.sources`.

    Raises ModelError for xml that is malformed, not IR v10 or v11, or refers to what is not there.
    """
    from xml.parsers import expat

    from defusedxml.common import DefusedXmlException

    if len(xml) > MAX_BYTES:
        raise ModelError(f"the xml has {len(xml)} bytes; the maximum is {MAX_BYTES}")
    parser = _defused_parser()
    target = _Target(parser)
    parser.StartElementHandler = target.start
    parser.EndElementHandler = target.end
    try:
        # in one piece: expat rescans a long token with every further piece
        parser.Parse(xml, True)
    except DefusedXmlException as error:
        raise ModelError(
            f"the xml has a document type or entities, which are not accepted: {error}"
        ) from error
    except expat.ExpatError as error:
        raise ModelError(f"the xml is malformed: {error}") from error
    except (ValueError, LookupError) as error:
        raise ModelError(f"the xml cannot be decoded: {error}") from error
    finally:  # parser and target would keep one another
        parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
    if target.net is None:
        raise ModelError("the xml has no <net> element; it is not an OpenVINO IR")
    for net in nested_nets(target.net):
        _connect(net)
    return target.net


#: What a builder of documents listens to besides, and nothing does here.
_UNHEARD = (
    "ProcessingInstructionHandler", "CommentHandler", "XmlDeclHandler", "NotationDeclHandler",
    "ElementDeclHandler", "AttlistDeclHandler", "StartCdataSectionHandler", "EndCdataSectionHandler",
)  # fmt: skip


def _defused_parser() -> Any:
    """A parser without trees that refuses document types and entities by defusedxml's handlers. Importing its
    parser of trees takes longer than a small model takes to compile."""
    from xml.parsers import expat

    from defusedxml.expatbuilder import DefusedExpatBuilder

    parser = expat.ParserCreate(namespace_separator="}")
    DefusedExpatBuilder(forbid_dtd=True, forbid_entities=True, forbid_external=True).install(parser)
    for name in _UNHEARD:
        setattr(parser, name, None)
    parser.buffer_text = True
    return parser


class _Frame:
    """A net that is open: where its tag stands, and what is open inside it."""

    __slots__ = ("base", "layer", "map", "net", "ports")

    def __init__(self, net: Net, base: int):
        self.net = net
        self.base = base  # open tags around it
        self.layer: Layer | None = None
        self.ports: list[Port] | None = None
        self.map: list[tuple[str, dict[str, str]]] | None = None


class _Target:
    """Takes the parser's events. `path` holds the open tags, `frames` the open nets.

    It listens to text inside of dimensions only: there is some between all tags.
    """

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.net: Net | None = None
        self.path: list[str] = []
        self.frames: list[_Frame] = []
        self.text: list[str] | None = None
        self.info: list[dict[str, Any]] = []  # the open maps of an rt_info

    def start(self, tag: str, attrib: dict[str, str]) -> None:
        path = self.path
        path.append(tag)
        for value in attrib.values():
            if len(value) > MAX_ATTRIBUTE:
                raise ModelError(f"an attribute of <{tag}> has {len(value)} characters")
        if not self.frames:
            if self.net is None:
                self._net(tag, attrib)
            return
        frame = self.frames[-1]
        if len(path) - frame.base > MAX_DEPTH:
            raise ModelError(f"the xml is nested more than {MAX_DEPTH} levels deep")
        if self.info:
            self._info(tag, attrib)
        elif tag == "rt_info":
            self.info = [self._notes(frame)]
        elif frame.layer is not None:
            self._inside_layer(frame, frame.layer, tag, attrib)
        elif tag == "layer" and path[-2] == "layers":
            frame.layer = Layer(attrib)
            frame.net.layers.append(frame.layer)
        elif tag == "edge" and path[-2] == "edges":
            frame.net.edges.append(attrib)

    def end(self, tag: str) -> None:
        path = self.path
        frame = self.frames[-1] if self.frames else None
        depth = len(path) - (frame.base if frame else 0)
        path.pop()
        if frame is None:
            return
        if self.info:
            self.info.pop()
        elif tag == "dim" and self.text is not None:
            if frame.ports:
                frame.ports[-1].dims.append("".join(self.text))
            self.text = self.parser.CharacterDataHandler = None
        elif depth == 1:
            self.frames.pop()
        elif depth == 3 and tag == "layer":
            frame.layer = None
        elif depth == 4:
            frame.ports = frame.map = None

    def _net(self, tag: str, attrib: dict[str, str]) -> None:
        if tag != "net":
            raise ModelError(
                f"the xml has the root element <{tag[:40]}>, not <net>; it is not an OpenVINO IR"
            )
        version = read_int(attrib.get("version"), "the version of <net>")
        if version not in (10, 11):
            raise ModelError(
                f"IR version {version} is not supported; supported versions are 10 and 11: "
                "convert the model again"
            )
        self.net = Net(attrib.get("name", ""), version)
        self.frames.append(_Frame(self.net, 0))

    def _inside_layer(self, frame: _Frame, layer: Layer, tag: str, attrib: dict[str, str]) -> None:
        if tag == "dim":
            self.text = []
            self.parser.CharacterDataHandler = self.text.append
        elif tag == "port":
            if frame.ports is not None:
                port = read_int(attrib.get("id"), f"a port id of {layer!r}")
                frame.ports.append(Port(port, attrib.get("names"), attrib.get("precision"), [], {}))
        elif frame.map is not None:
            frame.map.append((tag, attrib))
        elif tag == "input":
            frame.ports = layer.inputs
        elif tag == "output":
            frame.ports = layer.outputs
        elif tag == "data":
            for name, value in attrib.items():
                layer.attrs[name.replace("-", "_")] = value
        elif tag in PORT_MAPS:
            frame.map = layer.port_maps.setdefault(tag, [])
        elif tag in BODIES:
            if tag in layer.bodies:
                raise ModelError(f"{layer!r} has two <{tag}> elements")
            if len(self.frames) > DEEPEST:
                raise ModelError(f"{layer!r}: bodies are nested more than {DEEPEST} levels deep")
            body = layer.bodies[tag] = Net("", frame.net.version)
            self.frames.append(_Frame(body, len(self.path) - 1))

    def _notes(self, frame: _Frame) -> dict[str, Any]:
        """Of what the notes are that begin here: a port, a layer or the net."""
        if frame.layer is None:
            return frame.net.rt_info
        return frame.ports[-1].rt_info if frame.ports else frame.layer.rt_info

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
            raise ModelError(f"an edge leaves output port {from_port} of {source!r}, which does not exist")
        if to_port not in inputs[target]:
            raise ModelError(f"an edge leads to input port {to_port} of {target!r}, which does not exist")
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
        raise ModelError(f"an edge's {which} is {number}, but no layer has that id")
    return layer


def _short(text: str | None) -> str:
    return "missing" if text is None else repr(text[:40])
