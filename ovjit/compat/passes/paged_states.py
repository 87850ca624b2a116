"""Recurrent layers of a stateful decoder whose states can go to blocks of a table.

    Slice(GroupConvolution(Concat(ReadValue, x)))  -> PagedCausalConv1D
    Loop over tokens: a gated delta rule           -> PagedGatedDeltaNet
    Loop over tokens: Mamba 2's state space        -> PagedSelectiveSSM

A layer is found by its variable. What it computes is found as masks are: it is evaluated for a few tokens of
random numbers, beside the operation that is to take its place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, is_a, users_of
from ovjit.graph.bodies import MERGED, SLICED
from ovjit.graph.op import find_op
from ovjit.records import NamedTuple

#: Tokens that layers are evaluated for, and how far results may be apart, of the largest.
TOKENS, NEAR = 3, 1e-4
#: What repeats heads.
REPEATS = ("Reshape", "Tile", "Broadcast")


class Layer(NamedTuple):
    """A layer that `operation` computes. `inputs`: those before and after the table, which has the place
    `table`; `made`: what takes the result, whose tokens lie along `axis`; `state`: the variable's shape
    after the batch."""

    operation: str
    node: Node
    variable: str
    state: tuple[int, ...]
    inputs: list[Input | Output]
    table: int
    attrs: dict[str, Any]
    outputs: list[Output]
    axis: int


class Input(NamedTuple):
    """Values of all tokens: an output whose tokens lie along `axis`, and the shape of a token's values."""

    source: Output
    axis: int
    shape: tuple[int, ...]

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """Random values for a sequence of tokens."""
        shape = [1, *self.shape]
        shape.insert(self.axis, TOKENS)
        return rng.standard_normal(shape).astype(np.float32)

    def by_token(self, array: np.ndarray) -> np.ndarray:
        """Move the axis of tokens: [1, tokens, ...]."""
        return np.moveaxis(array, self.axis, 1)


def recurrent_layers(model: Model, variables: set[str]) -> list[Layer]:
    """The layers whose states are among these variables: state spaces, convolutions, then delta rules."""
    sinks = {str(n._attrs["variable_id"]): n.input_value(0) for n in model.get_sinks()}
    layers: list[Layer] = []
    probe = Probe(0, TOKENS)
    for node in model.get_ordered_ops():
        for read in {_read(x) for x in _states_of(node)} - {None}:
            name = str(read._attrs["variable_id"])  # type: ignore[union-attr]
            if name in variables and name in sinks:
                layers += _Finder(probe, node, read, sinks[name]).layers()  # type: ignore[arg-type]
    order = ["PagedSelectiveSSM", "PagedCausalConv1D", "PagedGatedDeltaNet"]
    return sorted(layers, key=lambda layer: order.index(layer.operation))


def _states_of(node: Node) -> list[Output]:
    """The inputs of a node that may be the state of a layer."""
    # the first input of what is joined, or what a loop carries
    if is_a(node, "GroupConvolution") and is_a(node.input_value(0)._node, "Concat"):
        return node.input_value(0)._node.input_values()[:1]
    if is_a(node, "Loop"):
        return [node.input_value(p.outer) for p in node._graph_attrs()["input_ports"] if p.kind == MERGED]
    return []


def _read(source: Output) -> Node | None:
    """The variable that the source reads, possibly with its rows reordered by beams."""
    while is_a(source._node, "Gather", "Convert"):
        source = source._node.input_value(0)
    return source._node if source._node._op.role == "read" else None


class _Finder:
    """Finds the layer of one node that reads a state."""

    def __init__(self, probe: Probe, node: Node, read: Node, next_state: Output):
        self.probe, self.node, self.read, self.next_state = probe, node, read, next_state
        self.rng = np.random.default_rng(0)
        shape = read._tensors[0]._type.shape or ()
        self.state = tuple(d for d in shape[1:] if isinstance(d, int))
        #: Whether only the batch is open.
        self.settled = len(self.state) == len(shape) - 1
        self.source = next(x for x in _states_of(node) if _read(x) is read)

    def layers(self) -> list[Layer]:
        """A list with the layer, or an empty one."""
        if not self.settled:
            return []
        if is_a(self.node, "GroupConvolution"):
            layers = self._windows() if len(self.state) == 2 else iter(())
        else:
            layers = self._loops() if len(self.state) == 3 else iter(())
        return list(itertools.islice(layers, 1))

    def _find_outputs(
        self,
        ends: Sequence[Output],
        values: Mapping[Output, np.ndarray],
        axis: int,
        expected: Sequence[np.ndarray],
    ) -> list[Output]:
        """Those of the outputs that equal the expected result, [1, tokens, ...], for these inputs; none if
        the state is another one."""
        computed = self.probe.try_values([self.next_state, *ends], values)
        if computed is None or not _near(computed[0], expected[1]):
            return []
        pairs = zip(ends, computed[1:], strict=True)
        return [end for end, y in pairs if _near(np.moveaxis(y, axis, 1), expected[0])]

    def _layer(
        self, operation: str, inputs: Sequence[Any], table: int, ends: list[Output], axis: int, **attrs: Any
    ) -> Layer:
        name = str(self.read._attrs["variable_id"])
        return Layer(operation, self.node, name, self.state, list(inputs), table, attrs, ends, axis)

    # -- convolutions --------------------------------------------------------------------------------------

    def _windows(self) -> Iterator[Layer]:
        """Yield depthwise convolutions over time whose kernel is as long as the state they store."""
        channels, taps = self.state
        joined, weights = self.node.input_value(0)._node, self.node.input_value(1)
        if len(joined._inputs) != 2 or weights._tensor._type.shape != (channels, 1, 1, taps):
            return
        x = Input(joined.input_value(1), 2, (channels,))
        tokens, state = x.random(self.rng), self.rng.standard_normal((1, *self.state)).astype(np.float32)
        history = np.concatenate([state, tokens], 2)
        windows = np.lib.stride_tricks.sliding_window_view(history[:, :, 1:], taps, 2)
        values = {x.source: tokens, self.source: state}
        for end, bias in self._slices(channels):
            parameters = [self.probe.value(v) for v in (weights, *bias)]
            y = (windows * parameters[0][:, 0]).sum(-1) + (parameters[1].reshape(-1, 1) if bias else 0)
            outputs = self._find_outputs([end], values, 2, [np.moveaxis(y, 2, 1), history[:, :, -taps:]])
            if outputs:
                yield self._layer("PagedCausalConv1D", [x, weights, *bias], 1, outputs, 2)

    def _slices(self, channels: int) -> Iterator[tuple[Output, list[Output]]]:
        """Yield (output, biases): a Slice of the new tokens' results, and biases of channels added before."""
        for user, _ in users_of(self.node.output(0)):
            if is_a(user, "Slice"):
                yield user.output(0), []
            elif is_a(user, "Add"):
                added = next(x for x in user._inputs if x._node is not self.node)
                shape = added._tensor._type.shape or ()
                if math.prod(d if isinstance(d, int) else 0 for d in shape) == channels:
                    sliced = [u for u, _ in users_of(user.output(0)) if is_a(u, "Slice")]
                    yield from ((u.output(0), [added]) for u in sliced)

    # -- loops ---------------------------------------------------------------------------------------------

    def _loops(self) -> Iterator[Layer]:
        ports = [p for p in self.node._graph_attrs()["input_ports"] if p.kind == SLICED]
        rows = [self.node.input_value(p.outer) for p in ports]
        ranks = [len(x._tensor._type.shape or ()) for x in rows]
        axes = {p.axis for p in ports}
        if len(axes) != 1:
            return
        axis = axes.pop()
        if ranks == [4, 4, 4, 3, 3] and axis in (1, 2):
            yield from self._deltas(rows, axis)
        elif ranks == [5, 5, 5] and axis == 1:
            yield from self._spaces(rows)

    def _ends(self) -> list[Output]:
        """Outputs that may be results of all tokens. Exporters pack them with the state and unpack both."""
        pending = self.node.outputs()
        for output in pending:
            users = [u for u, _ in users_of(output) if is_a(u, "Reshape", "Concat", "Slice")]
            pending += [u.output(0) for u in users if u.output(0) not in pending]
        return [x for x in pending if len(x._tensor._type.shape or ()) == 4 and x != self.next_state]

    def _deltas(self, rows: Sequence[Output], axis: int) -> Iterator[Layer]:
        heads, size, value_size = self.state
        q, k, v, gate, beta = rows
        gates = [Input(x, axis, (heads,)) for x in (gate, beta)]
        state = self.rng.standard_normal((1, *self.state)).astype(np.float32)
        queries, keys = (_find_vectors(x, axis, heads, size) for x in (q, k))
        pairs = itertools.product(queries, keys, (True, False))
        for (query, query_eps), (key, key_eps), unit in pairs:
            attrs = {"fuse_qk_l2norm": unit, "q_l2_norm_eps": query_eps, "k_l2_norm_eps": key_eps}
            inputs = [query, key, Input(v, axis, (heads, value_size)), *gates]
            arrays = [x.random(self.rng) for x in inputs]
            arrays[0] *= np.float32(2e-3 if unit else 1)  # so that what is added to squares counts
            arrays[1] *= np.float32(2e-3 if unit else 1 / math.sqrt(size))
            arrays[3], arrays[4] = -np.abs(arrays[3]), np.abs(np.tanh(arrays[4]))
            by_token = [x.by_token(a) for x, a in zip(inputs, arrays, strict=True)]
            expected = find_op("GatedDeltaNet", 1).evaluate([*by_token[:3], state, *by_token[3:]], attrs)
            values = {x.source: a for x, a in zip(inputs, arrays, strict=True)} | {self.source: state}
            outputs = self._find_outputs(self._ends(), values, axis, expected) if len(values) == 6 else []
            if outputs:
                attrs["use_qk_l2norm"] = attrs.pop("fuse_qk_l2norm")
                yield self._layer("PagedGatedDeltaNet", inputs, 3, outputs, axis, **attrs)

    def _spaces(self, rows: Sequence[Output]) -> Iterator[Layer]:
        """Yield state-space layers: loops with exp(dt A), dt B x and C as inputs."""
        heads, size, states = self.state
        decay = _skip_nodes(rows[0], ("Reshape", "Unsqueeze", "Convert"))
        if not is_a(decay._node, "Exp"):
            return
        product = decay._node.input_value(0)._node
        if not is_a(product, "Multiply"):
            return
        rate, dt = sorted(product._inputs, key=lambda x: len(x._tensor._type.shape or ()))
        rate = _skip_nodes(rate, ("Unsqueeze", "Reshape"))
        if rate._tensor._type.shape != (heads,):
            return
        state = self.rng.standard_normal((1, *self.state)).astype(np.float32)
        factors = [x for x in _factors(rows[1]) if x != dt]
        candidates = itertools.product(
            *(itertools.chain(*(_shared(x, states) for x in ends)) for ends in (factors, [rows[2]])),
            [Input(x, 1, (heads, size)) for x in factors if _last_sizes(x) == (heads, size)],
        )
        for b, c, x in candidates:
            inputs = [Input(dt, 1, (heads,)), b, x, c]
            arrays = [v.random(self.rng) for v in inputs]
            arrays[0] = np.abs(arrays[0])
            values = {v.source: a for v, a in zip(inputs, arrays, strict=True)} | {self.source: state}
            expected = find_op("SelectiveSSM", 1).evaluate([self.probe.value(rate), *arrays, state], {})
            outputs = self._find_outputs(self._ends(), values, 1, expected) if len(values) == 5 else []
            if outputs:
                yield self._layer("PagedSelectiveSSM", [rate, *inputs], 5, outputs, 1)


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= NEAR * np.abs(other).max())


def _skip_nodes(source: Output, names: Sequence[str]) -> Output:
    """The source of an output, through nodes of these types."""
    while is_a(source._node, *names):
        source = source._node.input_value(0)
    return source


def _last_sizes(source: Output) -> tuple[Any, ...]:
    """The dimensions after the first two."""
    return tuple((source._tensor._type.shape or ())[2:])


def _factors(source: Output) -> list[Output]:
    """The factors of a product; Unsqueeze and Convert after them are skipped."""
    source = _skip_nodes(source, ("Unsqueeze", "Convert"))
    if not is_a(source._node, "Multiply"):
        return [source]
    return [x for factor in source._node._inputs for x in _factors(factor)]


def _shared(source: Output, size: int) -> list[Input]:
    """[batch, tokens, heads, size], and before it what several heads share."""
    inputs: list[Input] = []
    source = _skip_nodes(source, ("Unsqueeze",))
    for _ in range(2):
        tail = _last_sizes(source)
        if len(tail) == 2 and tail[1] == size and isinstance(tail[0], int):
            inputs.insert(0, Input(source, 1, tail))
        source = _skip_nodes(source, REPEATS)
        source = _skip_nodes(source, ("Unsqueeze",))
    return inputs


def _find_vectors(source: Output, axis: int, groups: int, size: int) -> list[tuple[Input, float]]:
    """Queries or keys, and before them those that are not scaled, nor of length 1, nor repeated: the first
    ones first. With each comes what is added to sums of squares on the way."""
    candidates: list[tuple[Input, float]] = []
    eps = 1e-6
    while True:
        shape = source._tensor._type.shape or ()
        heads = shape[3 - axis] if len(shape) == 4 and _last_sizes(source)[1] == size else None
        if isinstance(heads, int) and groups % heads == 0:
            candidates.insert(0, (Input(source, axis, (heads, size)), eps))
        node = source._node
        if is_a(node, "Convert"):
            source = node.input_value(0)
        elif is_a(node, "Transpose") and _order(node) == [0, 2, 1, 3]:
            source, axis = node.input_value(0), 3 - axis
        elif is_a(node, "Gather", "Unsqueeze", *REPEATS):
            source = node.input_value(0)
        elif is_a(node, "Multiply", "Divide"):
            vectors = [x for x in node._inputs if len(tail := _last_sizes(x)) == 2 and tail[1] == size]
            if len(vectors) != 1:
                return candidates
            source = vectors[0]
            eps = _find_epsilon(next(x for x in node._inputs if x != source), eps)
        else:
            return candidates


def _order(node: Node) -> list[int]:
    order = node.input_value(1)._node
    return order.get_data().tolist() if order._op.role == "constant" else []


def _find_epsilon(source: Output, eps: float) -> float:
    """The constant that is added in the computation of a factor."""
    pending = [source]
    for output in pending:
        node = output._node
        if is_a(node, "Add"):
            for x in node._inputs:
                x = _skip_nodes(x, ("Convert",))
                if x._node._op.role == "constant" and math.prod(x._tensor._type.shape) == 1:
                    return float(x._node.get_data().reshape(-1)[0])
        if is_a(node, "Divide", "Sqrt", "Power", "Convert"):
            pending += node._inputs
    return eps
