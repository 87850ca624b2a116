"""The stored form of a graph: flat tables in JSON, and separate arrays. Nothing in it is code.

    {"nodes": [[op, opset, name, origins or null, [[node, output], ...], {attribute: value}], ...],
     "inputs": [node, ...], "outputs": [[node, output], ...]}

Attribute values are null, booleans, numbers, strings and lists as they are, and objects with one key:

    {"t": [...]}                               a tuple
    {"d": [low, high or null]}                 a dynamic dimension
    {"a": [element type, shape, place, offset]}  an array: bytes of the section `place` from `offset` on; with
                                               a fifth item panels of weights, see panels.py;
                                               with a sixth [rows, offset of factors, of differences]
                                               in `weights`, see scaled.py
    {"s": [shape, [strings]]}                  an array of strings, as UTF-8 bytes in graphs
    {"m": [[key, value], ...]}                 a dict
    {"g": {...}}                               a subgraph

Tables are untrusted: every number is checked before use, and all types of the graph are inferred again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ORDINARY
from ovjit.graph import dtypes
from ovjit.graph.converted import Codes, InBlocks, Unpacked
from ovjit.graph.graph import Builder, Graph, Node, Value
from ovjit.graph.op import find_op, is_registered
from ovjit.graph.shapes import Interval
from ovjit.hashes import sha256_for
from ovjit.storage.container import ALIGNMENT, BlobError, Pieces, refuse_invalid
from ovjit.storage.panels import panel_bytes, unpack
from ovjit.storage.scaled import difference_bytes, restore

#: Maximum nesting of subgraphs, and of tuples.
DEEPEST = 64
LARGEST_DIM = 2**63 - 1


def dump(tables: Any) -> bytes:
    """JSON, the same bytes for the same tables. They are trees: to look for cycles took a quarter of the
    time."""
    import json

    return json.dumps(tables, check_circular=False, sort_keys=True, separators=(",", ":")).encode()


def parse(content: bytes | memoryview, what: str) -> Any:
    """The tables in `content`. Raises BlobError unless it is JSON."""
    import json

    try:
        return json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise BlobError(f"the blob is not valid: its {what} is not JSON: {error}") from None


class Arrays:
    """Collects arrays for a section: each object once, at multiples of 64."""

    def __init__(
        self, section: str = "weights", elsewhere: Callable[[np.ndarray], Sequence[Any] | None] | None = None
    ):
        """`elsewhere(array)` returns the existing place of its bytes, (place, offset[, panels]), or None."""
        self.section = section
        self.parts: list[np.ndarray] = []
        self.size = 0
        self._elsewhere = elsewhere
        self._locations: dict[int, list[Any]] = {}
        self._alive: list[np.ndarray] = []  # an id is only good while its object lives

    def add(self, array: np.ndarray) -> list[Any]:
        """Add `array`, and return the place of its bytes: [place, offset], or the result of `elsewhere`."""
        location = self._locations.get(id(array))
        if location is None:
            existing = self._elsewhere(array) if self._elsewhere is not None and array.nbytes else None
            location = self._locations[id(array)] = self.store(array) if existing is None else list(existing)
            self._alive.append(array)
        return location

    def store(self, array: np.ndarray) -> list[Any]:
        """Add `array` to the section itself, and return the place of its bytes."""
        self.parts.append(array)
        offset, self.size = self.size, self.size + array.nbytes + -array.nbytes % ALIGNMENT
        return [self.section, offset]

    def pieces(self) -> Pieces:
        """The content of the section, without a copy of the arrays."""
        return Pieces(self._aligned_parts())

    def content(self) -> bytes:
        """The content of the section in one piece."""
        return b"".join(self._aligned_parts())

    def _aligned_parts(self) -> Iterator[Any]:
        for array in self.parts:
            yield raw_bytes(array).data
            if array.nbytes % ALIGNMENT:
                yield bytes(-array.nbytes % ALIGNMENT)


def raw_bytes(array: np.ndarray) -> np.ndarray:
    """The array's bytes, row-major and little-endian."""
    if array.flags.c_contiguous and array.dtype.isnative and sys.byteorder == "little":
        return array.reshape(-1).view(np.uint8)
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<") if array.dtype.kind in "iuf" else None)
    return plain.reshape(-1).view(np.uint8)


def digest_of(tables: bytes, arrays: Arrays) -> str:
    """SHA-256, in hexadecimal digits, of tables and the arrays that they name."""
    digest = sha256_for(sum(array.nbytes for array in arrays.parts))(tables)
    for array in arrays.parts:
        digest.update(raw_bytes(array).data)
    return digest.hexdigest()


# --- to tables


def encode_graph(graph: Graph, arrays: Arrays) -> dict[str, Any]:
    """The tables of `graph`. Raises TypeError for an attribute or an operation that cannot be stored."""
    unregistered = {op for op in {node.op for node in graph.nodes} if not is_registered(op)}
    for node in graph.nodes if unregistered else ():
        if node.op in unregistered:
            raise TypeError(
                f"node {node.name!r} cannot be stored in a blob: {node.op.name} is written in Python"
            )
    index = {node: i for i, node in enumerate(graph.nodes)}

    def reference(value: Value) -> list[int]:
        return [index[value.node], value.index]

    nodes = [
        [
            node.op.name, node.op.opset, node.name,
            None if node.origins == (node.name,) else list(node.origins), [reference(v) for v in node.inputs],
            {k: v if type(v) in _PLAIN else encode(v, arrays) for k, v in node.attrs.items()},
        ]
        for node in graph.nodes
    ]  # fmt: skip
    return {
        "nodes": nodes,
        "inputs": [index[v.node] for v in graph.inputs],
        "outputs": [reference(v) for v in graph.outputs],
    }


#: Types of values that JSON has.
_PLAIN = frozenset((type(None), bool, int, float, str))


def encode(value: Any, arrays: Arrays) -> Any:
    """An attribute's value as JSON. Raises TypeError for a value that cannot be stored."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        return _encode_array(value, arrays)
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, (list, tuple)):
        items = [v if type(v) in _PLAIN else encode(v, arrays) for v in value]
        return items if isinstance(value, list) else {"t": items}
    if isinstance(value, Interval):
        return {"d": [value.lo, value.hi]}
    if isinstance(value, Unpacked) and dtypes.ELEMENT_TYPES[value.element_type].is_packed:
        return {"p": [value.element_type, list(value.shape), *arrays.add(value.source)]}
    if isinstance(value, (InBlocks, Codes)):
        return _encode_array(value.array(), arrays)
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {"m": [[encode(k, arrays), encode(v, arrays)] for k, v in value.items()]}
    if isinstance(value, Graph):
        return {"g": encode_graph(value, arrays)}
    raise TypeError(f"{type(value).__name__} cannot be stored in a blob")


def _encode_array(array: np.ndarray, arrays: Arrays) -> Any:
    if array.dtype.kind in "OUS":
        return {"s": [list(array.shape), [_text(item) for item in array.reshape(-1).tolist()]]}
    return {"a": [dtypes.from_numpy(array.dtype), list(array.shape), *arrays.add(array)]}


def _text(item: Any) -> str:
    # surrogates hold what is not UTF-8
    return item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item)


# --- from tables


class Reader:
    """Reads values and graphs from tables. `sections`: name of a section -> its bytes."""

    def __init__(self, sections: Mapping[str, Any]):
        self.sections = {name: np.frombuffer(content, np.uint8) for name, content in sections.items()}

    def graph(self, tables: Any) -> Graph:
        """The graph, with all types inferred again. Raises BlobError or ModelError; both are
        RuntimeErrors."""
        with refuse_invalid("the blob's graph is", ORDINARY):
            return self._graph(tables, 0)

    def _graph(self, tables: Any, depth: int) -> Graph:
        builder = Builder()
        result: list[Node] = []
        for op, opset, name, origins, inputs, attrs in tables["nodes"]:
            if not (
                isinstance(op, str)
                and isinstance(name, str)
                and type(opset) is int
                and isinstance(attrs, dict)
            ):
                raise BlobError("the blob's graph is not valid: a row of its nodes is of the wrong types")
            values = [_output(result, pair) for pair in inputs]
            decoded = {key: self._value(value, depth) for key, value in attrs.items()}
            names = None if origins is None else [_string(o) for o in origins]
            node = builder.add(find_op(op, opset), values, decoded, name=name, origins=names)
            if node.name != name:
                raise BlobError(f"the blob's graph is not valid: two nodes have the name {name!r}")
            result.append(node)
        parameters = [result[index(i, len(result), "node")].output for i in tables["inputs"]]
        if set(parameters) != set(builder.inputs) or len(parameters) != len(builder.inputs):
            raise BlobError("the blob's graph is not valid: its inputs are not its parameters")
        return builder.finish([_output(result, pair) for pair in tables["outputs"]], parameters)

    def value(self, value: Any) -> Any:
        """An attribute's value. Raises BlobError for a form that `encode` does not write."""
        with refuse_invalid("an attribute in the blob is", ORDINARY):
            return self._value(value, 0)

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if depth > DEEPEST:
            raise BlobError(f"the blob's graph is nested more than {DEEPEST} levels deep")
        if isinstance(value, list):
            return [self._value(v, depth + 1) for v in value]
        ((kind, content),) = value.items()
        if kind == "t":
            return tuple(self._value(v, depth + 1) for v in content)
        if kind == "d":
            return _interval(content)
        if kind in ("a", "p", "s"):
            read: Any = {"a": self._array, "p": self._packed, "s": _strings}[kind]
            return read(*content)
        if kind == "m":
            return {self._value(k, depth + 1): self._value(v, depth + 1) for k, v in content}
        if kind == "g":
            return self._graph(content, depth + 1)
        raise BlobError(f"the blob has a value of the unknown kind {kind!r}")

    def _array(
        self, element_type: Any, shape: Any, name: Any, offset: Any, panels: Any = None, scaled: Any = None
    ) -> np.ndarray:
        if not isinstance(element_type, str) or element_type not in dtypes.ELEMENT_TYPES:
            raise BlobError(f"the blob has an array of the unknown type {element_type!r}")
        dtype = dtypes.numpy_dtype(element_type)
        if dtype.hasobject or not isinstance(name, str) or name not in self.sections:
            raise BlobError(f"the blob has an array of {element_type} in {name!r}, where it is not allowed")
        dims = [index(d, LARGEST_DIM, "dimension") for d in shape]
        count = math.prod(dims)
        size = count * dtype.itemsize if panels is None else panel_bytes(panels, dtype.itemsize, count)
        section = self.sections[name]
        odd = offset % ALIGNMENT and name != "file"  # a model's file, which others have written
        if odd or index(offset, section.size + 1, "offset") + size > section.size:
            raise BlobError(
                f"the blob has an array of {size} bytes at {offset} of a section of {section.size}"
            )
        raw = section[offset : offset + size]
        if element_type == "boolean" and size and int(raw.max()) > 1:
            raise BlobError("the blob has an array of booleans with values other than 0 and 1")
        values = raw.view(dtype)
        flat = values if panels is None else unpack(values, panels)
        array = (flat if scaled is None else self._divide(flat, *scaled)).reshape(dims)
        array.flags.writeable = False
        return array

    def _divide(self, products: np.ndarray, rows: Any, factors: Any, differences: Any) -> np.ndarray:
        """The weights of which these are products, see scaled.py."""
        if products.dtype != np.float32:
            raise BlobError("the blob is not valid: only f32 weights have factors")
        nibbles = self._array("u8", [difference_bytes(products.size)], "weights", differences)
        return restore(products, self._array("f32", [rows], "weights", factors), nibbles)

    def _packed(self, element_type: Any, shape: Any, name: Any, offset: Any, panels: Any = None) -> Unpacked:
        row = dtypes.ELEMENT_TYPES.get(element_type) if isinstance(element_type, str) else None
        if row is None or not row.is_packed or row.numpy is None:
            raise BlobError(f"the blob has packed numbers of the unknown type {element_type!r}")
        dims = [index(d, LARGEST_DIM, "dimension") for d in shape]
        size = -(-math.prod(dims) * row.bits // 8)
        return Unpacked(self._array("u8", [size], name, offset, panels), dims, element_type)


def index(value: Any, limit: int, what: str) -> int:
    """`value` if it is an int from 0 up to below `limit`, else a BlobError."""
    if type(value) is not int or not 0 <= value < limit:
        raise BlobError(f"the blob is not valid: {what} {value!r} is out of range")
    return value


def encode_dims(shape: Sequence[Any]) -> list[Any]:
    """Dimensions as JSON: ints, and [low, high or null] for dynamic ones. Raises TypeError for anything
    else."""
    out: list[Any] = []
    for d in shape:
        if not isinstance(d, (int, np.integer, Interval)) or isinstance(d, bool):
            raise TypeError(f"{d!r} is not a dimension")
        out.append([d.lo, d.hi] if isinstance(d, Interval) else int(d))
    return out


def read_dims(dims: Any) -> tuple[Any, ...]:
    if not isinstance(dims, list):
        raise BlobError(f"the blob is not valid: {dims!r} is not a shape")
    return tuple(_interval(d) if isinstance(d, list) else index(d, LARGEST_DIM, "dimension") for d in dims)


def _interval(pair: Any) -> Interval:
    low, high = pair
    index(low, LARGEST_DIM, "dimension")
    if high is not None and index(high, LARGEST_DIM, "dimension") <= low:
        raise BlobError(f"the blob is not valid: {pair!r} is not a dynamic dimension")
    return Interval(low, high)


def _strings(shape: Any, items: Any) -> np.ndarray:
    dims = [index(d, LARGEST_DIM, "dimension") for d in shape]
    count = math.prod(dims)
    if count != len(items):
        raise BlobError(f"the blob has {len(items)} strings for the shape {dims}")
    array: np.ndarray = np.empty(count, np.object_)
    array[:] = [_string(item).encode("utf-8", "surrogateescape") for item in items]
    array = array.reshape(dims)
    array.flags.writeable = False
    return array


def _string(item: Any) -> str:
    if not isinstance(item, str):
        raise BlobError(f"the blob is not valid: {item!r} is not a string")
    return item


def _output(nodes: list[Any], pair: Any) -> Value:
    node, output = pair
    outputs = nodes[index(node, len(nodes), "node")].outputs
    return outputs[index(output, len(outputs), "output")]
