"""Sequences and optionals, which are gone when the model is read: a sequence is a list of known tensors, or
the rows of one (see `rows`)."""

from __future__ import annotations

from ovjit.readers.onnx.control import loop_while
from ovjit.readers.onnx.rule_language import *
from ovjit.readers.onnx.tensor import identity

if TYPE_CHECKING:
    from ovjit.readers.onnx.scope import Scope

_MOST = (1 << 63) - 1


def _list(n: OnnxNode) -> TensorList:
    value = n.inputs[0] if n.inputs else None
    value = value.value if isinstance(value, OpenOptional) else value
    if isinstance(value, LoopSequence):
        raise UnsupportedError("a sequence whose length is a loop's number of iterations is not supported")
    if not isinstance(value, TensorList):
        raise ModelError("input 0 should be a sequence")
    return value


def _sequence_of(n: OnnxNode) -> Any:
    """The sequence that is the first input; of an optional, the sequence in it."""
    value = n.inputs[0] if n.inputs else None
    return value.value if isinstance(value, OpenOptional) else value


def _cut(n: OnnxNode, rows: Output, index: int, count: int) -> tuple[Output, Output]:
    """(the rows before a computed index, the rows from `count` after it on)."""
    position = n.convert(n.scalar(n[index]), "i64")
    length = n("Add", n.squeeze(n.dim_of(rows, 0), [0]), 0)
    position = n.unsqueeze(n("Select", n("Less", position, 0), n("Add", position, length), position), [0])
    end = np.array([_MOST], np.int64)
    before = n("Slice", rows, [0], position, [1], [0], opset=8)
    return before, n("Slice", rows, n("Add", position, count), end, [1], [0], opset=8)


def _position(n: OnnxNode, index: int, count: int) -> int:
    position = n.known_ints(index, "the position in a sequence")[0]
    if not -count <= position < count:
        raise ModelError(f"the position {position} is out of range for a sequence of length {count}")
    return position % count


@onnx_op("SequenceConstruct")
def construct(n: OnnxNode) -> Any:
    return [TensorList(n.tensors(), n.dtype(n[0]))]


@onnx_op("SequenceEmpty")
def empty(n: OnnxNode) -> Any:
    return [TensorList([], n.data_type("dtype", 1))]


@onnx_op("SequenceInsert")
def insert(n: OnnxNode) -> Any:
    items = _sequence_of(n)
    if isinstance(items, LoopSequence) and not n.has(2):
        rows = fit_rows(n, stack_rows(n, items), n[1])
        return [of_rows(n.concat([rows, n.unsqueeze(n[1], [0])], 0))]
    if isinstance(items, LoopSequence) or (n.has(2) and n.value(n[2]) is None and items):
        before, after = _cut(n, fit_rows(n, stack_rows(n, items), n[1]), 2, 0)
        return [of_rows(n.concat([before, n.unsqueeze(n[1], [0]), after], 0))]
    values = _list(n)
    if not values and n.has(2) and n.value(n[2]) is None:
        return [TensorList([n[1]], n.dtype(n[1]))]  # 0 is the only place
    position = len(values) if not n.has(2) else _position(n, 2, len(values) + 1)
    if n.has(2) and n.known_ints(2, "the position")[0] < 0:
        position = n.known_ints(2, "the position")[0] + len(values)
    return [TensorList([*values[:position], n[1], *values[position:]], n.dtype(n[1]))]


@onnx_op("SequenceErase")
def erase(n: OnnxNode) -> Any:
    items = _sequence_of(n)
    if isinstance(items, LoopSequence) and not n.has(1):
        return [of_rows(n.slice(stack_rows(n, items), 0, 0, -1))]
    if isinstance(items, LoopSequence) or (n.has(1) and n.value(n[1]) is None and items):
        return [of_rows(n.concat(_cut(n, stack_rows(n, items), 1, 1), 0))]
    values = _list(n)
    position = _position(n, 1, len(values)) if n.has(1) else len(values) - 1
    if not values:
        raise ModelError("an element of an empty sequence cannot be erased")
    return [TensorList([v for i, v in enumerate(values) if i != position], values.element_type)]


@onnx_op("SequenceAt")
def at(n: OnnxNode) -> Any:
    items = _sequence_of(n)
    if isinstance(items, LoopSequence) or (isinstance(items, TensorList) and items and n.value(n[1]) is None):
        position = n.scalar(n[1])
        return n("Gather", stack_rows(n, items), position, 0, opset=8)
    values = _list(n)
    return n.same(values[_position(n, 1, len(values))])


@onnx_op("SequenceLength")
def length(n: OnnxNode) -> Any:
    items = _sequence_of(n)
    if isinstance(items, LoopSequence):
        return n("Add", n.squeeze(n.dim_of(items.rows, 0), [0]), len(items.first))
    return n.const(len(_list(n)))


@onnx_op("ConcatFromSequence")
def concat(n: OnnxNode) -> Any:
    axis = n.require("axis")
    items = _sequence_of(n)
    if isinstance(items, LoopSequence):
        return _join(n, items, axis)
    values = list(_list(n))
    if not values:
        raise ModelError("an empty sequence cannot be concatenated")
    if n.attr("new_axis", 0):
        values = [n.unsqueeze(v, [axis]) for v in values]
    return n("Concat", *values, axis=axis)


def _join(n: OnnxNode, sequence: LoopSequence, axis: int) -> Output:
    """Concatenate (or stack) the tensors of a sequence, stored as rows of one tensor, along `axis`."""
    rows, first, rank = sequence.rows, list(sequence.first), n.rank(sequence.rows) - 1
    if n.attr("new_axis", 0):
        axis = n.axis(axis, rank + 1)
        rows = n.transpose(rows, [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)])
        return n.concat([*(n.unsqueeze(v, [axis]) for v in first), rows], axis)
    axis = n.axis(axis, rank)
    if axis in sequence.joined:
        return n.concat([*first, sequence.joined[axis]], axis)
    rows = n.transpose(rows, [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)])
    sizes = [n.dim_of(rows, i) for i in range(rank + 1)]
    sizes[axis : axis + 2] = [n("Multiply", sizes[axis], sizes[axis + 1])]
    return n.concat([*first, n.reshape(rows, n.concat(sizes, 0))], axis)


@onnx_op("SplitToSequence")
def split(n: OnnxNode) -> Any:
    x = n[0]
    axis = n.axis(n.attr("axis", 0), n.rank(x))
    size = (n.shape(x) or ())[axis]
    if n.has(1) and (isinstance(size, Interval) or n.value(n[1]) is None):
        count = n.shape(n[1])
        if count and isinstance(count[0], int):
            n.check_count(count[0], "parts of a sequence", MOST_NODES)
            return [TensorList(n.all("VariadicSplit", x, axis, n[1]) if count[0] else [], n.dtype(x))]
    if isinstance(size, Interval):
        if n.has(1) and not _has_single_elements(n, n[1]):
            raise UnsupportedError(
                "a dynamic dimension is split into parts that may differ in size, which is not supported"
            )
        keep = n.has(1) or n.attr("keepdims", 1)
        rows = n.transpose(x, [axis, *(i for i in range(n.rank(x)) if i != axis)])
        return [LoopSequence(TensorList([], n.dtype(x)), n.unsqueeze(rows, [axis + 1] if keep else []))]
    if not n.has(1):
        lengths = [1] * n.check_count(size, "parts of a sequence", MOST_NODES)
    else:
        value = n.static(1, "the lengths")
        if value.ndim == 0:
            each = int(value)
            if each < 1:
                raise ModelError(f"parts of {each} elements are not valid")
            n.check_count(size // each, "parts of a sequence", MOST_NODES)
            lengths = [min(each, size - start) for start in range(0, size, each)]
        else:
            lengths = [int(v) for v in value]
    if any(v < 0 for v in lengths) or sum(lengths) != size:
        raise ModelError(f"lengths {lengths[:8]} do not sum to {size}")
    parts = n.split(x, axis, lengths) if lengths else []
    if not n.has(1) and not n.attr("keepdims", 1):
        parts = [n.squeeze(v, [axis]) for v in parts]
    return [TensorList(parts, n.dtype(x))]


def _has_single_elements(n: OnnxNode, lengths: Output) -> bool:
    """True if all parts have one element: the lengths are the number 1, or ones of dynamic count."""
    value = n.value(lengths)
    node = lengths.node
    if value is None and node.get_type_name() == "Broadcast":
        value = n.value(node.input_value(0))
        return value is not None and bool((value == 1).all())
    return value is not None and not value.ndim and int(value) == 1


@onnx_op("Optional")
def optional(n: OnnxNode) -> Any:
    if not n.has(0):
        return [EMPTY]
    value = n.inputs[0]
    return [value if isinstance(value, (TensorList, LoopSequence, OpenOptional)) else n.same(n[0])]


@onnx_op("OptionalHasElement")
def has_element(n: OnnxNode) -> Any:
    if n.has(0) and isinstance(n.inputs[0], OpenOptional):
        return n.same(n.inputs[0].is_there)
    return n.const(bool(n.has(0) and n.inputs[0] is not EMPTY))


@onnx_op("OptionalGetElement")
def get_element(n: OnnxNode) -> Any:
    value = n.inputs[0] if n.inputs else None
    if value is None or value is EMPTY:
        raise ModelError("an empty optional has no element")
    n.inputs = [value.value if isinstance(value, OpenOptional) else value]
    return identity(n)


@onnx_op("SequenceMap")
def map_(n: OnnxNode) -> Any:
    """SequenceMap: the body for each item. Further sequences advance with the first; tensors are the same for
    all items."""
    graph = n.require("body")
    names = [info.name for info in graph.input]
    if any(isinstance(value, LoopSequence) for value in n.inputs):
        return _map_rows(n, graph, names)
    values = _list(n)
    rows: list[list[Any]] = [[] for _ in graph.output]
    with n.reader.expansion.count_unrolling(len(values), graph):
        for i in range(len(values)):
            arguments: dict[str, Any] = {}
            for name, value in zip(names, n.inputs, strict=True):
                if isinstance(value, TensorList) and len(value) != len(values):
                    raise ModelError("the sequences have different lengths")
                arguments[name] = value[i] if isinstance(value, TensorList) else value
            result, _ = n.reader.subgraph(graph, n.scope, arguments, captures=False)
            for row, value in zip(rows, result, strict=True):
                row.append(value)
    kinds = [tensors.element_type(info.type.tensor_type.elem_type) for info in graph.output]
    return [TensorList(row, kind) for row, kind in zip(rows, kinds, strict=True)]


def _map_rows(n: OnnxNode, graph: Any, names: list[str]) -> Any:
    """SequenceMap of a sequence of dynamic length: a Loop over its rows, which makes rows."""
    rows = {k: stack_rows(n, v) for k, v in zip(names, n.inputs, strict=True) if is_sequence(v)}
    others = {k: v for k, v in zip(names, n.inputs, strict=True) if k not in rows}
    result = [info.name for info in graph.output]

    def once(state: dict[str, Output], trip: Output, scope: Scope) -> tuple[dict[str, Output], Output]:
        inputs_given = {k: n("Gather", scope.capture(v), trip, 0, opset=8) for k, v in rows.items()}
        inputs_given |= {k: scope.capture(v) for k, v in others.items()}
        values, _ = n.reader.subgraph(graph, scope, inputs_given, captures=False)
        return {f"row {i}": value for i, value in enumerate(values)}, n.const(True)

    count = n.squeeze(n.dim_of(next(iter(rows.values())), 0), [0])
    row_names = [f"row {i}" for i in range(len(result))]
    outputs = loop_while(n, once, count, n.const(True), {}, row_names)
    return [of_rows(outputs[name]) for name in row_names]
