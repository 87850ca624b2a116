"""Layers with bodies: their port maps read into nodes and written again.

    <port_map>   <input external_port_id internal_layer_id [axis start end stride part_size] [purpose] />
                 <output ... />
    <back_edges> <edge from-layer to-layer />

An external id is that of a port of the layer, an internal one that of a Parameter or Result of the body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit.build import Model, Output, make_subgraph, port_maps_of, special_ports_of
from ovjit.build.subgraphs import CLASSES, SubGraphNode, if_op, inside_body, loop
from ovjit.errors import ModelError
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port
from ovjit.graph.op import Op
from ovjit.readers.ir.xml import Layer, Net
from ovjit.readers.ir.xml import Port as XmlPort

_SIGNED = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
#: The attributes of a slice, in the order in which OpenVINO writes them.
_SLICE = ("axis", "start", "end", "stride", "part_size")


def subgraph_node(
    layer: Layer, record: Op, inputs: Sequence[Output], build: Callable[[Net], Model]
) -> SubGraphNode:
    """The node of a layer with bodies; `build` makes a body's Model. Raises ModelError."""
    kind: Any = CLASSES[record.name]
    tags = ("then_body", "else_body") if kind is if_op else ("body",)
    models, sources, results, special = [], [], [], (-1, -1)
    for tag in tags:
        net = layer.bodies.get(tag)
        if net is None:
            raise ModelError(f"the element <{tag}> is missing")
        with inside_body():
            models.append(build(net))
        ends = _Ends(layer, net, tag.replace("body", "port_map"))
        sources.append(ends.inputs())
        results.append(ends.outputs())
        special = ends.special
    for extra in set(layer.bodies) - set(tags):
        raise ModelError(f"the element <{extra}> is not valid for {record.name}")
    return make_subgraph(kind, record, inputs, models, sources, results, layer.name or None, special)


class _Ends:
    """The port map of one body: which ports of the layer belong to which Parameters and Results."""

    def __init__(self, layer: Layer, net: Net, tag: str):
        self.rows = layer.port_maps.get(tag, [])
        self.outer = {"input": _index_by_id(layer.inputs), "output": _index_by_id(layer.outputs)}
        self.parameters = _index_by_id([inner for inner in net.layers if inner.type == "Parameter"])
        self.results = _index_by_id([inner for inner in net.layers if inner.type == "Result"])
        self.back: dict[int, int] = {}
        for _, row in layer.port_maps.get("back_edges", []):
            target = self._inner(row, "to-layer", self.parameters, "Parameter")
            if target in self.back:
                raise ModelError("two back edges lead to the same Parameter of the body")
            self.back[target] = self._inner(row, "from-layer", self.results, "Result")
        self.special = -1, -1
        self.tag = tag

    def inputs(self) -> list[Port]:
        result = []
        for row in self._rows("input"):
            purpose = row.get("purpose")
            if purpose == "current_iteration":
                counter = self._inner(row, "internal_layer_id", self.parameters, "Parameter")
                self.special = counter, self.special[1]
            elif not purpose:
                outer = self._outer(row, "input")
                inner = self._inner(row, "internal_layer_id", self.parameters, "Parameter")
                if "axis" in row:
                    result.append(Port(SLICED, outer, inner, **_slice(row)))
                elif inner in self.back:
                    result.append(Port(MERGED, outer, inner, self.back[inner]))
                else:
                    result.append(Port(INVARIANT, outer, inner))
        merged = {port.inner for port in result if port.kind == MERGED}
        if set(self.back) - merged:
            raise ModelError("a back edge leads to a Parameter of the body that has no initial value")
        return result

    def outputs(self) -> list[Port]:
        result = []
        for row in self._rows("output"):
            inner = self._inner(row, "internal_layer_id", self.results, "Result")
            if row.get("purpose") == "execution_condition":
                self.special = self.special[0], inner
            if read_signed(row, "external_port_id", -1) == -1:
                continue
            outer = self._outer(row, "output")
            if "axis" in row:
                result.append(Port(CONCAT, outer, inner, **_slice(row)))
            else:
                result.append(Port(LAST, outer, inner, iteration=read_signed(row, "iteration", -1)))
        return result

    def _rows(self, kind: str) -> list[Mapping[str, str]]:
        return [row for tag, row in self.rows if tag == kind]

    def _outer(self, row: Mapping[str, str], kind: str) -> int:
        number = read_signed(row, "external_port_id", -1)
        if number not in self.outer[kind]:
            raise ModelError(f"<{self.tag}> refers to the {kind} port {number}, which does not exist")
        return self.outer[kind][number]

    def _inner(self, row: Mapping[str, str], key: str, indices: Mapping[int, int], kind: str) -> int:
        number = read_signed(row, key, -1)
        if number not in indices:
            raise ModelError(
                f"the port map or the back edges refer to layer {number} of the body, which is not a {kind}"
            )
        return indices[number]


def _index_by_id(items: Sequence[Layer | XmlPort]) -> dict[int, int]:
    return {item.id: i for i, item in enumerate(items)}


def read_signed(row: Mapping[str, str], key: str, default: int) -> int:
    text = row.get(key)
    if text is None:
        return default
    if not _SIGNED.fullmatch(text) or not text.isascii():
        raise ModelError(f"{key} of the port map should be a number, not {text[:40]!r}")
    return int(text)


def _slice(row: Mapping[str, str]) -> dict[str, int]:
    defaults = {"axis": 0, "start": 0, "end": -1, "stride": 1, "part_size": 1}
    return {key: read_signed(row, key, defaults[key]) for key in _SLICE}


# --- writing


def port_map_lines(node: SubGraphNode, ids: Sequence[tuple[list[int], list[int]]]) -> list[str]:
    """The port maps of a layer, line by line. `ids`: of each body the layers of its Parameters and of its
    Results."""
    branches = ("else_", "then_") if isinstance(node, if_op) else ("",)
    first = node.get_input_size()
    ports_by_body, results_by_body = port_maps_of(node)
    lines = []
    for branch in branches:
        index = 1 if branch == "else_" else 0
        parameters, results = ids[index]
        lines.append(f"<{branch}port_map>")
        for port in ports_by_body[index]:
            lines.append(
                "\t" + _element("input", port, port.outer, parameters[port.inner], port.kind == SLICED)
            )
        for port in results_by_body[index]:
            outer = first + port.outer
            lines.append("\t" + _element("output", port, outer, results[port.inner], port.kind == CONCAT))
        if isinstance(node, loop):
            counter, again = special_ports_of(node)
            if counter != -1:
                lines.append(_special("input", parameters[counter], "current_iteration"))
            if again != -1:
                lines.append(_special("output", results[again], "execution_condition"))
        lines.append(f"</{branch}port_map>")
        merged = [port for port in ports_by_body[index] if port.kind == MERGED]
        if merged:
            lines.append("<back_edges>")
            lines += [
                f'\t<edge from-layer="{results[p.back]}" to-layer="{parameters[p.inner]}" />' for p in merged
            ]
            lines.append("</back_edges>")
    return lines


def _element(tag: str, port: Port, outer: int, inner: int, sliced: bool) -> str:
    if not sliced:
        more = f' iteration="{port.iteration}"' if port.iteration != -1 else ""
        return f'<{tag} external_port_id="{outer}" internal_layer_id="{inner}"{more} />'
    return (
        f'<{tag} axis="{port.axis}" external_port_id="{outer}" internal_layer_id="{inner}" '
        f'start="{port.start}" end="{port.end}" stride="{port.stride}" part_size="{port.part_size}" />'
    )


def _special(tag: str, inner: int, purpose: str) -> str:
    return f'\t<{tag} external_port_id="-1" internal_layer_id="{inner}" purpose="{purpose}" />'
