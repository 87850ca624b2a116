"""Prepares paged states of recurrent layers: a guard checks all indices before any state is written.

    PagedGatedDeltaNet(q, k, v, table, ...)  ->  PagedStates(q, k, v, table, ..., PagedStatesGuard(...))

As for caches of attention, a table must be an input of the model: the caller's memory is written in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.graph.graph import Builder, Graph, Node, Value
from ovjit.graph.op import TensorType
from ovjit.records import NamedTuple


class _Kind(NamedTuple):
    """`what` of PagedStates for an operation, and the indices of its table, its first list, and its
    tokens."""

    what: str
    table: int
    lists: int
    tokens: int


KINDS = {
    "PagedGatedDeltaNet": _Kind("delta", 3, 6, 0), "PagedSelectiveSSM": _Kind("space", 5, 6, 1),
    "PagedCausalConv1D": _Kind("window", 1, 4, 0),
}  # fmt: skip


class States:
    """The layers of a graph with paged states."""

    def __init__(self, builder: Builder, graph: Graph, new: dict[Value, Value], precision: str):
        self.builder, self.new = builder, new
        self.layers = [node for node in graph.nodes if node.op.role == "states"]
        self._guards: dict[tuple[Value, ...], Value] = {}
        #: Table -> type. A dynamic element type becomes the model's precision.
        self.tables: dict[Value, TensorType] = {}
        for node in self.layers:
            table = node.inputs[KINDS[node.op.name].table]
            if table not in graph.inputs:
                raise UnsupportedError(
                    f"the states {table!r} of {node.name!r} should be an input of the model"
                )
            dtype = precision if table.dtype == "dynamic" else table.dtype
            self.tables[table] = TensorType(dtype, table.shape)

    def ports(self, graph: Graph) -> dict[int, TensorType]:
        """Input index -> type of a table."""
        return {graph.inputs.index(table): kind for table, kind in self.tables.items()}

    def make_input(self, node: Node) -> None:
        """Add the Parameter of a table with its type."""
        attrs = {**node.attrs, "element_type": self.tables[node.output].dtype}
        result = self.builder.add("Parameter", (), attrs, name=node.name, origins=node.origins)
        self.new[node.output] = result.output

    def replace(self, node: Node) -> None:
        """Replace a layer. The first layer also makes the guards of all lists that exist by then."""
        for layer in self.layers[self.layers.index(node) :]:
            lists = self._lists(layer)
            if lists not in self._guards and (layer is node or all(v in self.new for v in lists)):
                self._guards[lists] = self._guard(lists, node)
        kind = KINDS[node.op.name]
        inputs = [
            self.new[v] if i >= kind.lists or i == kind.table else self._as(self.new[v], "f32")
            for i, v in enumerate(node.inputs)
        ]
        inputs.append(self._guards[self._lists(node)])
        attrs: dict[str, Any] = {"what": kind.what, "stored": inputs[kind.table].dtype}
        if kind.what == "delta":
            attrs["unit"] = node.attrs["use_qk_l2norm"]
            attrs |= {f"{x}_eps": node.attrs[f"{x}_l2_norm_eps"] for x in "qk"}
        result = self.builder.add("PagedStates", inputs, attrs, name=node.name, origins=node.origins)
        self.new[node.output] = self._as(result.output, node.output.dtype)

    def _as(self, value: Value, dtype: str) -> Value:
        """A value converted to another element type."""
        if value.dtype == dtype:
            return value
        name = f"{value.node.name}/{dtype}"
        return self.builder.add("Convert", [value], {"destination_type": dtype}, name=name).output

    @staticmethod
    def _lists(layer: Node) -> tuple[Value, ...]:
        at = KINDS[layer.op.name].lists
        return tuple(layer.inputs[at : at + 5])

    def _guard(self, lists: Sequence[Value], first: Node) -> Value:
        """A PagedStatesGuard, which checks the indices in `lists` against the state tables of all layers that
        read these lists."""
        alike = [n for n in self.layers if self._lists(n) == tuple(lists)]
        tables = dict.fromkeys(self.new[n.inputs[KINDS[n.op.name].table]] for n in alike)
        tokens = self.new[first.inputs[KINDS[first.op.name].tokens]]
        inputs = [*(self.new[v] for v in lists), tokens, *tables]
        attrs = {"all_kept": any(KINDS[n.op.name].what == "space" for n in alike)}
        return self.builder.add("PagedStatesGuard", inputs, attrs, name=f"{first.name}/guard").output
