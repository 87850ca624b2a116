"""Prepares paged attention: caches get concrete types, and layers share lists of work.

    PagedAttentionExtension(q, k, v, caches, tables ...)
        -> PagedAttention(q, k, v, caches, tables ..., PagedPlan(tables, all caches))

A cache is an input of the model, usually of dynamic type and shape. As in OpenVINO, properties such as
`KV_CACHE_PRECISION` decide its layout, and the ports of the compiled model have the resulting types.

The pass is not a rule: it changes inputs of the graph, and makes one plan for several layers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.compiler.options import Cache, caches_of, precision_of
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph, Node, Value, copy_into
from ovjit.graph.op import TensorType
from ovjit.graph.paged_caches import BLOCK, TOP, CacheKind
from ovjit.graph.shapes import ANY, is_static
from ovjit.rewrite.paged_chunks import chunk_tables
from ovjit.rewrite.paged_states import States

#: COLUMNS: keys of a chunk. ROWS: queries of a tile, counting all heads that share a key. FEW: maximum new
#: tokens of a sequence that is not tiled; with f32 caches it is one more for each head that a group of heads
#: with a common key has less than GROUPS.
COLUMNS, ROWS, FEW, GROUPS = 512, 144, 4, 3
#: ROWS for bf16 products. A matrix unit computes an item faster than the item's blocks are packed, so items
#: are larger.
LOW_ROWS = 192

#: Element types of caches that the kernels read and write.
KINDS = ("f32", "bf16", "f16", "u8", "u4")


def settle_pages(
    graph: Graph, config: Mapping[str, Any], recorded: Mapping[str, Mapping[str, int]]
) -> tuple[Graph, dict[int, TensorType]]:
    """(the graph with `PagedAttention` nodes, input index -> type of a cache's port). `recorded`: node
    name -> the model's numbers and sizes of heads. Raises ModelError if the heads are unknown, or do not fit
    the caches."""
    layers = [node for node in graph.nodes if node.op.name == "PagedAttentionExtension"]
    kinds: dict[Value, CacheKind] = {}
    for node in layers:
        for value, kind in zip(
            node.inputs[3:5], _kinds(node, config, recorded.get(node.name, {})), strict=True
        ):
            previous = kinds.setdefault(value, kind)
            if previous != kind:
                raise ModelError(
                    f"node {node.name!r} reads the cache {value!r} with other parameters than another layer"
                )
    moves = [node for node in graph.nodes if node.op.name == "PaKVReorder"]
    for node in moves:
        if not all(v in kinds for v in node.inputs[:2]):
            kinds.update(zip(node.inputs[:2], _kinds_of_moves(node, config), strict=True))
    builder = Builder()
    new: dict[Value, Value] = {}
    ports: dict[int, TensorType] = {}
    for value, kind in kinds.items():
        if value not in graph.inputs:
            raise UnsupportedError(f"the cache {value!r} of paged attention should be an input of the model")
        blocks = value.shape[0] if value.shape else ANY
        ports[graph.inputs.index(value)] = TensorType(kind.kind, (blocks, kind.heads, *kind.port))
    read = {v for n in graph.nodes for v in n.inputs}.union(graph.outputs)
    precision = precision_of(config)
    chunks = {node: recorded.get(node.name, {}).get("chunk", 0) for node in layers}
    work = _Work(builder, layers, kinds, new, read, precision, chunks)
    states = States(builder, graph, new, precision)
    ports |= states.ports(graph)
    # inputs and constants first, so that the first layer finds the tables of all
    for node in sorted(graph.nodes, key=lambda n: n.op.role not in ("parameter", "constant")):
        if node.op.role == "parameter" and node.output in kinds:
            kind = kinds[node.output]
            dtype, last = kind.array_layout
            blocks = node.output.shape[0] if node.output.shape else ANY
            attrs = {**node.attrs, "element_type": dtype, "shape": (blocks, kind.heads, *last)}
            new[node.output] = builder.add(
                "Parameter", (), attrs, name=node.name, origins=node.origins
            ).output
        elif node.op.role == "parameter" and node.output in states.tables:
            states.make_input(node)
        elif node in work.layers:
            work.replace(node)
        elif node in states.layers:
            states.replace(node)
        elif node in moves:
            attrs = _attributes(*(kinds[v] for v in node.inputs[:2]))
            inputs, name = [new[v] for v in node.inputs], node.name
            moved = builder.add("PagedMoves", inputs, attrs, name=name, origins=node.origins)
            new[node.output] = moved.output
        else:
            copy_into(new, builder, node)
    return builder.finish([new[v] for v in graph.outputs], [new[v] for v in graph.inputs]), ports


def _kinds(node: Node, config: Mapping[str, Any], numbers: Mapping[str, int]) -> tuple[CacheKind, CacheKind]:
    """The layouts of a layer's caches of keys and of values."""
    caches = node.inputs[3:5]
    requested = _find_caches(config)
    all_heads, sizes = _heads_of(node, caches, numbers)
    kinds = []
    for i, cache in enumerate(caches):
        is_key = i == 0
        heads, size = _heads(node, is_key, all_heads[i], sizes[i])
        kind, group = _stored_as(node, cache, requested[i], size, is_key)
        by_token = config.get("given", config).get("KEY_CACHE_QUANT_MODE") == "BY_TOKEN"
        if is_key and kind in TOP and by_token:
            raise UnsupportedError(
                f"node {node.name!r}: KEY_CACHE_QUANT_MODE BY_TOKEN is not supported with scales of "
                "keys by channel"
            )
        tokens = BLOCK
        if cache.shape and isinstance(cache.shape[2], int) and kind not in ("u8", "u4"):
            tokens = cache.shape[2]
        kinds.append(CacheKind(kind, heads, tokens, size, 0 if group == size else group, is_key))
    if kinds[0].tokens != kinds[1].tokens or kinds[0].heads != kinds[1].heads:
        raise ModelError(
            f"node {node.name!r}: the caches of keys and of values have different block "
            "sizes or numbers of heads"
        )
    return kinds[0], kinds[1]


def _heads(node: Node, is_key: bool, heads: Any, size: Any) -> tuple[int, int]:
    """(number of heads, head size) of keys or values. Raises ModelError if unknown or inconsistent."""
    what = "key" if is_key else "value"
    states, cache = node.inputs[1:4:2] if is_key else node.inputs[2:5:2]
    if not isinstance(heads, int) or not isinstance(size, int):
        raise ModelError(
            f"node {node.name!r}: the number of heads of its {what}s is unknown: give the parameter "
            f"{cache.node.name!r} the shape [?, heads, {BLOCK}, size], or the node the rt_info "
            f"num_{what[0]}_heads and {what[0]}_head_size"
        )
    width = states.shape[1] if states.shape else None
    if isinstance(width, int) and heads * size != width:
        raise ModelError(
            f"node {node.name!r} has {what}s of {width} elements, which is not {heads} heads of {size}"
        )
    return heads, size


def _kind_of(cache: Value, want: Cache) -> str:
    """The element type of a cache: the port's, else the one that properties request."""
    return cache.dtype if cache.dtype in KINDS else want.names("f32")[0].partition(":")[0]


def _stored_as(node: Node, cache: Value, want: Cache, size: int, is_key: bool) -> tuple[str, int]:
    """(element type of a cache, elements of a head that share a scale; 0: all)."""
    kind = _kind_of(cache, want)
    if kind not in KINDS:
        raise ModelError(f"node {node.name!r} supports caches of {', '.join(KINDS)}, not {kind}")
    group = want.group if kind in ("u8", "u4") and not is_key else 0
    if group and size % group:
        raise ModelError(f"cache head_size {size} cannot be divided by group_size {group}")
    if kind == "u4" and (group or size) % 2:
        raise ModelError(f"node {node.name!r}: heads of {size} elements cannot be stored in 4 bits")
    return kind, group


def _find_caches(config: Mapping[str, Any]) -> tuple[Cache, Cache]:
    """The requested storage of keys and values. As in OpenVINO the default is u8, whatever the precision of
    the model. It is f32 with EXECUTION_MODE_HINT=ACCURACY."""
    properties = dict(config.get("given", config))
    properties.pop("INFERENCE_PRECISION_HINT", None)
    return caches_of({"given": properties})


def _attributes(keys: CacheKind, values: CacheKind) -> dict[str, Any]:
    """Attributes of nodes that describe both caches."""
    return {
        "keys": keys.kind, "values": values.kind, "heads": keys.heads, "size": keys.size,
        "value_size": values.size, "block": keys.tokens, "group": values.group,
    }  # fmt: skip


def _kinds_of_moves(node: Node, config: Mapping[str, Any]) -> list[CacheKind]:
    """The layouts of a PaKVReorder's caches, from their ports alone."""
    kinds = []
    for cache, want, is_key in zip(node.inputs[:2], _find_caches(config), (True, False), strict=True):
        shape: Any = cache.shape or ()
        if len(shape) != 4 or not all(isinstance(d, int) for d in shape[1:]):
            raise ModelError(
                f"node {node.name!r}: give the cache {cache.node.name!r} the shape [?, heads, {BLOCK}, size]"
            )
        kind = _kind_of(cache, want)
        heads, tokens, size = shape[1:]
        more = {"u8": 8, "u4": 16}.get(kind, 0)
        group = want.group if more and not is_key else 0
        if more and cache.dtype in KINDS:  # the port's own shape, with its scales
            if is_key:
                tokens -= more
            else:
                size = size // (group + more) * group if group else size - more
        kinds.append(CacheKind(kind, heads, tokens, size, group, is_key))
    return kinds


def _heads_of(node: Node, caches: Sequence[Value], numbers: Mapping[str, int]) -> tuple[list[Any], list[Any]]:
    """(numbers of heads, head sizes) of keys and values: from `numbers`, else the shapes of caches, else the
    shapes of keys and values."""
    heads: list[Any] = []
    sizes: list[Any] = []
    for what, cache, value in zip("kv", caches, node.inputs[1:3], strict=True):
        shape = cache.shape if cache.shape is not None and len(cache.shape) == 4 else (ANY,) * 4
        count, size = numbers.get(f"num_{what}_heads") or shape[1], numbers.get(f"{what}_head_size")
        joined = value.node.inputs[0].shape if value.node.op.name == "Reshape" else None
        if not isinstance(count, int) and joined is not None and len(joined) > 2:
            count = joined[-2]
        width = value.shape[1] if value.shape else None
        if size is None and isinstance(count, int) and isinstance(width, int) and count > 0:
            size = width // count if width % count == 0 else None
        heads.append(count)
        sizes.append(shape[3] if size is None else size)
    return heads, sizes


def _may_have(value: Value) -> bool:
    """Whether the value may have elements: it is not statically empty."""
    return value.shape is None or 0 not in value.shape


#: Optional inputs with one element per head, token or sequence -> (the input that has that dimension, its
#: axis, the neutral element): slopes and sinks of heads, kinds of tokens, begins of pairs.
_COUNTED = {11: (0, 1, 0.0), 20: (0, 1, -math.inf), 25: (0, 0, 0), 27: (6, 0, 0)}
#: The input with pairs of queries. The next input has the begin of each sequence's pairs.
_PAIRS = 26
#: The floating-point inputs after the caches.
_REAL = (9, 11, 16, 17, 20)
#: The inputs of a layer that `PagedGuard` takes.
_GUARDED = (6, 14, 15, 27, 16, 26, 3)
#: The inputs of a layer that `PagedEvictable` takes.
_EVICTED = (3, 5, 6, 7, 8, 21, 22, 23, 24)


def _guarded_inputs(layer: Node) -> tuple[Value, ...]:
    return tuple(layer.inputs[i] for i in (*_GUARDED, *_EVICTED))


def _as(b: Builder, value: Value, dtype: str) -> Value:
    """A value as another element type."""
    if value.dtype == dtype:
        return value
    return b.add("Convert", [value], {"destination_type": dtype}, name=f"{value.node.name}/{dtype}").output


class _Work:
    """The lists of work of a graph. Layers with the same tables and block sizes share one."""

    def __init__(
        self,
        builder: Builder,
        layers: Sequence[Node],
        kinds: Mapping[Value, CacheKind],
        new: dict[Value, Value],
        read: Collection[Value],
        precision: str,
        chunks: Mapping[Node, int],
    ):
        self.precision = precision
        self.builder, self.layers, self.kinds, self.new = builder, frozenset(layers), kinds, new
        #: layer -> tokens of a chunk of attention; 0: no chunks.
        self.chunks = chunks
        self._cut: dict[tuple[Any, ...], list[Value]] = {}
        self._ordered = list(layers)
        #: Values with readers.
        self.read = read
        self._lists: dict[tuple[Any, ...], Value] = {}
        #: Results of nodes that check tables before any cache is written.
        self._guards: list[Value] = []
        self._guarded: set[tuple[Value, ...]] = set()
        #: Optional inputs, extended by neutral elements.
        self._longer_ones: dict[tuple[Any, ...], Value] = {}

    def _key(self, node: Node, by_chunk: bool = True) -> tuple[Any, ...]:
        """The key of a layer's list of work: its tables and the sizes of items."""
        keys, values = (self.kinds[v] for v in node.inputs[3:5])
        width = node.inputs[0].shape[1] if node.inputs[0].shape else None
        group = max(1, width // (keys.heads * keys.size)) if isinstance(width, int) else 1
        rows = max(1, (LOW_ROWS if self.precision == "bf16" else ROWS) // group)
        part = max(1, COLUMNS // keys.tokens)
        few_rows = FEW + (max(0, GROUPS - group) if keys.kind == values.kind == "f32" else 0)
        attrs = {
            "block": keys.tokens, "part": part, "rows": rows, "short_rows": min(few_rows, rows),
            "writing": bool(node.attrs["write_kv_cache"]), "typed": _may_have(node.inputs[25]),
        }  # fmt: skip
        window = node.inputs[10]
        window_size: Any = window if window.constant is None else int(window.constant.reshape(-1)[0])
        return (*node.inputs[5:9], window_size, by_chunk and self.chunks[node], tuple(attrs.items()))

    def _tables(self, node: Node, first: Node) -> list[Value]:
        """The tables of a layer: past_lens, subsequence_begins, block_indices, block_indices_begins. With
        attention by chunks, the tables of chunks, for the rows of `first`'s queries."""
        tables, chunk = [self.new[v] for v in node.inputs[5:9]], self.chunks[node]
        if not chunk:
            return tables
        block = self.kinds[node.inputs[3]].tokens
        key = (*tables, chunk, block)
        if key not in self._cut:
            query = self.new[first.inputs[0]]
            self._cut[key] = chunk_tables(self.builder, tables, query, chunk, block, node.name)
        return self._cut[key]

    def replace(self, node: Node) -> None:
        """Replace a layer. The first layer also makes all lists of work whose tables exist."""
        for layer in self._ordered[self._ordered.index(node) :]:
            if layer is node or all(v in self.new for v in (*layer.inputs[5:9], layer.inputs[10])):
                self._list(layer, node)
            if layer is node or all(v in self.new for v in _guarded_inputs(layer)):
                self._guard(layer)
                self._guard_diversity(layer)
        key = self._key(node)
        keys, values = (self.kinds[v] for v in node.inputs[3:5])
        attrs = dict(key[-1]) | _attributes(keys, values)
        attrs |= {"scores": node.outputs[1] in self.read, "precision": self.precision}
        b, name, origins = self.builder, node.name, node.origins
        inputs = [self._prepare_input(node, i) for i in range(len(node.inputs))]
        inputs[5:9] = self._tables(node, node)
        inputs += [self._lists[key], *self._guards]
        result = b.add("PagedAttention", inputs, attrs, name=name, origins=origins)
        self.new[node.outputs[0]] = result.output
        if attrs["scores"]:
            used = b.add("ValidPrefix", result.outputs[1:], {"axis": 0}, name=name, origins=origins)
            self.new[node.outputs[1]] = _as(b, used.output, node.outputs[1].dtype)
        if node.outputs[2] in self.read:
            kind = {n: attrs[n] for n in ("keys", "heads", "size", "block")}
            arguments = [result.output, *(inputs[i] for i in _EVICTED)]
            different = b.add("PagedDiversity", arguments, kind, name=name, origins=origins)
            self.new[node.outputs[2]] = _as(b, different.output, node.outputs[2].dtype)

    def _prepare_input(self, layer: Node, number: int) -> Value:
        """Input `number` in the form that kernels read: reals as f32. An optional input that may have too few
        elements is extended by neutral ones, since kernels read one for each head, token or sequence."""
        value = self.new[layer.inputs[number]]
        if number == _PAIRS and not _may_have(layer.inputs[_PAIRS + 1]):
            return self.new[layer.inputs[_PAIRS + 1]]  # without begins there are no pairs
        if number in _REAL:
            value = _as(self.builder, value, "f32")
        if number not in _COUNTED or not _may_have(value):
            return value
        of, axis, neutral = _COUNTED[number]
        source, each = self.new[layer.inputs[of]], self.kinds[layer.inputs[3]].size if axis else 1
        count = source.shape[axis] if source.shape is not None else ANY
        if isinstance(count, int) and value.shape is not None and is_static(value.shape):
            if math.prod(value.shape) >= count // each:
                return value
        key = value, source, axis, each
        if key not in self._longer_ones:
            self._longer_ones[key] = self._longer(value, neutral, source, axis, each)
        return self._longer_ones[key]

    def _longer(self, value: Value, neutral: float, source: Value, axis: int, each: int) -> Value:
        """`value`, followed by n neutral elements, where n is dimension `axis` of `source` divided by
        `each`."""
        name = value.node.name

        def add(op: str, *inputs: Value, **attrs: Any) -> Value:
            return self.builder.add(op, inputs, attrs, name=f"{name}/neutral").output

        def number(x: Any, dtype: str = "i64") -> Value:
            return self.builder.constant(np.array(x, dtypes.numpy_dtype(dtype)), dtype)

        shape = add("ShapeOf", source)
        count = add("Gather", shape, number([axis]), number(0))
        count = add("Divide", count, number(each))
        more = add("Broadcast", number(neutral, value.dtype), count)
        return add("Concat", add("Reshape", value, number([-1]), special_zero=False), more, axis=0)

    def _guard(self, layer: Node) -> None:
        """Add the check of a layer's rotated blocks and pairs of queries, if it has any."""
        guarded = tuple(layer.inputs[i] for i in _GUARDED)
        rotating, paired = _may_have(layer.inputs[14]), _may_have(self._prepare_input(layer, _PAIRS))
        if (not rotating and not paired) or guarded in self._guarded:
            return
        self._guarded.add(guarded)
        kind = self.kinds[layer.inputs[3]]
        attrs = {"rotating": rotating, "paired": paired, "block": kind.tokens, "size": kind.size}
        name = f"{layer.name}/guard"
        inputs = [self._prepare_input(layer, i) for i in _GUARDED]
        self._guards.append(self.builder.add("PagedGuard", inputs, attrs, name=name).output)

    def _guard_diversity(self, layer: Node) -> None:
        """Add the check of the blocks whose diversity is computed, if that output has a reader."""
        evictable = tuple(layer.inputs[i] for i in _EVICTED)
        if layer.outputs[2] not in self.read or evictable in self._guarded:
            return
        self._guarded.add(evictable)
        name, attrs = f"{layer.name}/evictable", {"block": self.kinds[layer.inputs[3]].tokens}
        result = self.builder.add("PagedEvictable", [self.new[v] for v in evictable], attrs, name=name)
        self._guards.append(result.output)

    def _list(self, layer: Node, first: Node) -> None:
        """Add the list of work of `layer` unless it exists, for the rows of `first`'s queries."""
        if self.chunks[layer]:
            self._check_chunked(layer)
            unchunked = self._key(layer, by_chunk=False)
            if unchunked not in self._lists:  # this list checks the original tables
                self._add_list(unchunked, [self.new[v] for v in layer.inputs[5:9]], layer, first)
                self._guards.append(self._lists[unchunked])
        key = self._key(layer)
        if key not in self._lists:
            self._add_list(key, self._tables(layer, first), layer, first)

    def _add_list(self, key: tuple[Any, ...], tables: Sequence[Value], layer: Node, first: Node) -> None:
        alike = [n for n in self._ordered if self._key(n) == self._key(layer)]
        caches = dict.fromkeys(self.new[v] for n in alike for v in n.inputs[3:5])
        inputs = [*tables, self.new[layer.inputs[10]], self.new[first.inputs[0]]]
        name = f"{layer.name}/work"
        result = self.builder.add(
            "PagedPlan", [*inputs, *caches], dict(key[-1]), name=name, origins=layer.origins
        )
        self._lists[key] = result.output

    def _check_chunked(self, layer: Node) -> None:
        """Raise UnsupportedError if a layer by chunks has inputs or outputs per sequence."""
        window = layer.inputs[10]
        other = window.constant is None or window.constant.any()
        if (
            other
            or any(v in self.read for v in layer.outputs[1:])
            or any(_may_have(layer.inputs[i]) for i in (13, 17, 26))
        ):
            raise UnsupportedError(
                f"node {layer.name!r}: chunked attention cannot be combined with scores, diversity, "
                "xattention, pairs of queries or a window"
            )
