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
#: The types of layers whose shape may be said by the dimensions of their output alone.
_CONSTANTS = frozenset(("Const", "Constant"))
_INT = re.compile(r"[0-9]{1,19}")


def looks_like_xml(head: bytes) -> bool:
    """True if contents begin as XML does."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


class Port(NamedTuple):
    """A port of a layer. `names`, `precision` and `dims` are as written; None where not. `rt_info` are
    notes."""

    id: int
    names: str | None
    precision: str | None
    dims: list[str]
    rt_info: dict[str, Any]


class Layer:
    """A `<layer>`: its attributes, and the (layer, output index) of each input's source."""

    __slots__ = (
        "attrs", "bodies", "id", "inputs", "name", "output_names", "outputs", "port_maps", "rt_info",
        "sources", "type", "version",
    )  # fmt: skip

    def __init__(self, attrib: dict[str, str]):
        self.name = attrib.get("name", "")
        self.type = attrib.get("type", "")
        self.version = attrib.get("version", "")
        self.output_names = attrib.get("output_names")
        self.id = _number(attrib.get("id"), "the id of layer {!r}", self.name)
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
        """The nets that are directly inside of this one."""
        return (body for layer in self.layers for body in layer.bodies.values())


def nested_nets(net: Net) -> Iterator[Net]:
    """`net` and all nets inside it, outer ones first, without recursion."""
    waiting = [net]
    while waiting:
        yield (here := waiting.pop())
        waiting.extend(here.bodies())


def read_int(text: str | None, what: str) -> int:
    """A non-negative decimal int below 10**19. Raises ModelError naming `what`."""
    return _number(text, "{}", what)


def _number(text: str | None, what: str, of: object) -> int:
    """As `read_int`. The error names the number by `what.format(of)`, which is built only for an error."""
    if text is None or not _INT.fullmatch(text):
        problem = "is missing" if text is None else f"is {text[:40]!r}"
        raise ModelError(f"{what.format(of)} should be a non-negative number; it {problem}")
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
    finally:  # parser and target would keep each other
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
    "CharacterDataHandler",
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
    """A net whose end has not been read: its offset, and its open elements."""

    __slots__ = ("base", "deepest", "layer", "map", "net", "ports")

    def __init__(self, net: Net, base: int):
        self.net = net
        self.base = base  # open tags around it
        self.deepest = base + MAX_DEPTH
        self.layer: Layer | None = None
        self.ports: list[Port] | None = None
        self.map: list[tuple[str, dict[str, str]]] | None = None


class _Target:
    """Takes the parser's events. `path` holds the open tags, `frames` the open nets, of which `frame` is the
    innermost.

    It listens to text inside of dimensions only, and of those that say something which no attribute says.
    A layer has some ten tags: the most frequent ones are compared first.
    """

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.net: Net | None = None
        self.path: list[str] = []
        self.frames: list[_Frame] = []
        self.frame: _Frame | None = None
        self.text: list[str] | None = None
        self.info: list[dict[str, Any]] = []  # the open maps of an rt_info
        self.numbers = _Numbers()

    def start(self, tag: str, attrib: dict[str, str]) -> None:
        path = self.path
        path.append(tag)
        for value in attrib.values():
            if len(value) > MAX_ATTRIBUTE:
                raise ModelError(f"an attribute of <{tag}> has {len(value)} characters")
        frame = self.frame
        if frame is None:
            if self.net is None:
                self._net(tag, attrib)
            return
        if len(path) > frame.deepest:
            raise ModelError(f"the xml is nested more than {MAX_DEPTH} levels deep")
        layer = frame.layer
        if self.info:
            self._info(tag, attrib)
        elif layer is not None:
            if tag == "dim":
                if layer.type in _CONSTANTS and "shape" not in layer.attrs:
                    self.text = []
                    self.parser.CharacterDataHandler = self.text.append
            elif tag == "port":
                if frame.ports is not None:
                    number = self.numbers[attrib.get("id")]
                    if number < 0:
                        _number(attrib.get("id"), "a port id of {!r}", layer)  # raises the error
                    frame.ports.append(Port(number, attrib.get("names"), attrib.get("precision"), [], {}))
            elif tag == "rt_info":
                self.info = [self._notes(frame)]
            else:
                self._inside_layer(frame, layer, tag, attrib)
        elif tag == "edge" and path[-2] == "edges":
            frame.net.edges.append(attrib)
        elif tag == "layer" and path[-2] == "layers":
            frame.layer = Layer(attrib)
            frame.net.layers.append(frame.layer)
        elif tag == "rt_info":
            self.info = [self._notes(frame)]

    def end(self, tag: str) -> None:
        path = self.path
        path.pop()
        frame = self.frame
        if frame is None:
            return
        if self.info:
            self.info.pop()
            return
        around = len(path) - frame.base
        if self.text is not None and tag == "dim":
            if frame.ports:
                frame.ports[-1].dims.append("".join(self.text))
            self.text = self.parser.CharacterDataHandler = None
        elif around == 3:
            frame.ports = frame.map = None
        elif around == 2 and tag == "layer":
            frame.layer = None
        elif around == 0:
            self.frames.pop()
            self.frame = self.frames[-1] if self.frames else None

    def _open(self, net: Net, base: int) -> None:
        self.frame = _Frame(net, base)
        self.frames.append(self.frame)

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
        self._open(self.net, 0)

    def _inside_layer(self, frame: _Frame, layer: Layer, tag: str, attrib: dict[str, str]) -> None:
        if frame.map is not None:
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
            self._open(body, len(self.path) - 1)

    def _notes(self, frame: _Frame) -> dict[str, Any]:
        """The dict that an `rt_info` element belongs to: of a port, a layer or the net."""
        if frame.layer is None:
            return frame.net.rt_info
        return frame.ports[-1].rt_info if frame.ports else frame.layer.rt_info

    def _info(self, tag: str, attrib: dict[str, str]) -> None:
        key = attrib.get("name", tag)
        values = {name: value for name, value in attrib.items() if name != "name"}
        inner: dict[str, Any] = {}
        if set(values) == {"value"}:
            self.info[-1][key] = values["value"]
        else:
            inner.update(values)
            self.info[-1][key] = inner
        self.info.append(inner)


class _Numbers(dict[str | None, int]):
    """Text -> number, as `read_int`, but -1 for no number. A file repeats few texts often."""

    def __missing__(self, text: str | None) -> int:
        number = self[text] = -1 if text is None or not _INT.fullmatch(text) else int(text)
        return number


class _Ends:
    """Valid ends of edges at a layer, by the ports' ids, and the sources that edges connect to its inputs."""

    __slots__ = ("inputs", "layer", "outputs", "sources")

    def __init__(self, layer: Layer):
        self.layer = layer
        self.outputs = _port_index(layer, layer.outputs)
        self.inputs = _port_index(layer, layer.inputs)
        self.sources: list[tuple[Layer, int] | None] = [None] * len(layer.inputs)


def _connect(net: Net) -> None:
    """Resolve the edges. Raises ModelError naming the layer for every reference that leads nowhere."""
    ends: dict[int, _Ends] = {}
    for layer in net.layers:
        if layer.id in ends:
            raise ModelError(
                f"two layers have the id {layer.id}: {ends[layer.id].layer.name!r} and {layer.name!r}"
            )
        ends[layer.id] = _Ends(layer)
    numbers = _Numbers()
    for edge in net.edges:
        get = edge.get
        source, target = ends.get(numbers[get("from-layer")]), ends.get(numbers[get("to-layer")])
        begin = None if source is None else source.outputs.get(numbers[get("from-port")])
        end = None if target is None else target.inputs.get(numbers[get("to-port")])
        if source is None or target is None or begin is None or end is None:
            raise _lost_edge(edge, ends)
        if source is target:
            raise ModelError(f"{source.layer!r} feeds itself")
        if target.sources[end] is not None:
            raise ModelError(
                f"two edges lead to input port {target.layer.inputs[end].id} of {target.layer!r}"
            )
        target.sources[end] = source.layer, begin
    for one in ends.values():
        layer = one.layer
        layer.sources = [source for source in one.sources if source is not None]
        if len(layer.sources) < len(layer.inputs):
            missing = layer.inputs[one.sources.index(None)].id
            raise ModelError(f"input port {missing} of {layer!r} is not connected")


def _lost_edge(edge: dict[str, str], ends: dict[int, _Ends]) -> ModelError:
    """ModelError for an edge from or to a port that does not exist."""
    source, target = _end(ends, edge, "from-layer"), _end(ends, edge, "to-layer")
    from_port = _number(edge.get("from-port"), "from-port of an edge of {!r}", source.layer)
    to_port = _number(edge.get("to-port"), "to-port of an edge of {!r}", target.layer)
    if from_port not in source.outputs:
        return ModelError(f"an edge leaves output port {from_port} of {source.layer!r}, which does not exist")
    return ModelError(f"an edge leads to input port {to_port} of {target.layer!r}, which does not exist")


def ordered_layers(net: Net) -> Iterator[Layer]:
    """Producers first. Raises ModelError naming a layer on a cycle."""
    return walk(net.layers, lambda layer: [source for source, _ in layer.sources])


def _port_index(layer: Layer, ports: list[Port]) -> dict[int, int]:
    index = {port.id: i for i, port in enumerate(ports)}
    if len(index) != len(ports):
        raise ModelError(f"{layer!r} has two ports with the same id")
    return index


def _end(ends: dict[int, _Ends], edge: dict[str, str], which: str) -> _Ends:
    number = _number(edge.get(which), "{} of an edge", which)
    end = ends.get(number)
    if end is None:
        raise ModelError(f"an edge's {which} is {number}, but no layer has that id")
    return end
