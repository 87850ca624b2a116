"""Moves a slice of rows towards the inputs of a model, so that the other rows are not computed.

Of a prompt, only the last token's logits are needed, and of many encoders only the first token's state. In
the last layer this needs the keys and values of all tokens, but no other product of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.value_bounds import value_bounds
from ovjit.compat.op import Constant
from ovjit.compat.utils.node_factory import NodeFactory

#: For each input of an operation: the axis of the rows, None if the input has no such axis.
_Axes = Sequence[int | None]
_REDUCTIONS = frozenset("ReduceMax ReduceMean ReduceMin ReduceSum".split())


def slice_rows(value: Any, axis: int, begin: int, end: int) -> Any:
    """The rows from `begin` to `end` of a value."""
    # an opset's builders would import all operations
    bounds = (Constant(np.array([n], np.int64)) for n in (begin, end, 1, axis))
    return NodeFactory().create("Slice", [value, *bounds]).output(0)


def take_rows(taker: Any, axis: int, begin: int, end: int) -> None:
    """Make an Input read only the rows from `begin` to `end` of its value. Operations before it that have no
    other readers compute only these rows, if they can."""
    region = find_region(taker, axis)
    for value, each, takers in list_sources(region):
        rows = slice_rows(value, each, begin, end)
        for input_ in takers:
            input_.replace_source_output(rows)
    for node in reversed(region):
        node.validate_and_infer_types()
    if not region:
        taker.replace_source_output(slice_rows(taker.get_source_output(), axis, begin, end))


def list_sources(region: Mapping[Any, _Axes]) -> list[tuple[Any, int, list[Any]]]:
    """(value, its axis of rows, the Inputs that take it) of the values from outside of a region that have
    rows."""
    sources: dict[tuple[int, int, int], tuple[Any, int, list[Any]]] = {}
    for node, axes in region.items():
        for i, axis in enumerate(axes):
            value = node.input_value(i)
            if axis is not None and value.get_node() not in region:
                key = id(value.get_node()), value.get_index(), axis
                sources.setdefault(key, (value, axis, []))[2].append(node.input(i))
    return list(sources.values())


def take_first_tokens(model: Any) -> None:
    """Compute only the first token of states [batch, tokens, size] of which a model takes no other."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Gather" and node.input_value(0).get_partial_shape().rank == 3:
            if [_constant(value) for value in node.input_values()[1:]] == [[0], [1]]:
                take_rows(node.input(0), 1, 0, 1)


def find_region(taker: Any, axis: int, closed: bool = False) -> dict[Any, _Axes]:
    """Node -> the axes of its inputs, for the nodes before an Input that can compute sliced rows: each one
    after all nodes that take its outputs. `closed`: other values do not depend on the model's inputs."""
    region: dict[Any, _Axes] = {}
    axes_by_taker: dict[Any, dict[tuple[int, int], int]] = {}  # node -> (taker, its input) -> axis
    last = taker.get_source_output().get_node()
    waiting = [(last, axis)] if _consumers(last) == {(id(taker.get_node()), taker.get_index())} else []
    while waiting:
        node, axis = waiting.pop()
        axes = _axes_of(node, axis)
        if axes is None or (closed and not _is_closed(node, axes)):
            continue
        region[node] = axes
        for i, each in enumerate(axes):
            source = node.input_value(i).get_node()
            if each is not None:
                axes_of_source = axes_by_taker.setdefault(source, {})
                axes_of_source[id(node), i] = each
                if len(set(axes_of_source.values())) == 1 and _consumers(source) <= axes_of_source.keys():
                    waiting.append((source, each))
    return region


def _is_closed(node: Any, axes: _Axes) -> bool:
    """Whether only the rows that a node takes depend on the model's inputs."""
    values = node.input_values()
    others = [value for value, axis in zip(values, axes, strict=True) if axis is None]
    return all(not depends_on_inputs(value) or constant_of(value) is not None for value in others)


def fix_sizes(region: Mapping[Any, _Axes]) -> None:
    """Replace what nodes of a closed region take beside rows, and compute from inputs, by constants."""
    for node, axes in region.items():
        for input_, axis in zip(node.inputs(), axes, strict=True):
            value = input_.get_source_output()
            if axis is None and depends_on_inputs(value) and (constant := constant_of(value)) is not None:
                input_.replace_source_output(constant.output(0))


def depends_on_inputs(value: Any) -> bool:
    """Whether a value is computed from a model's inputs or states, or from their shapes."""
    waiting, visited = [value.get_node()], set[int]()
    while waiting:
        node = waiting.pop()
        if node.get_type_name() in ("Parameter", "ReadValue"):
            return True
        if id(node) not in visited:
            visited.add(id(node))
            waiting += [each.get_node() for each in node.input_values()]
    return False


def constant_of(value: Any) -> Constant | None:
    """The constant that an integer is for all inputs, since it depends on static dimensions only."""
    bounds = value_bounds(value) if value.get_element_type().is_integral_number() else None
    return None if bounds is None or not np.array_equal(*bounds) else Constant(bounds[0])


def _consumers(node: Any) -> set[tuple[int, int]]:
    """(node, its input) of all that takes an output of a node."""
    targets = (target for output in node.outputs() for target in output.get_target_inputs())
    return {(id(target.get_node()), target.get_index()) for target in targets}


def _axes_of(node: Any, axis: int) -> _Axes | None:
    """The axis of rows in each input of a node, for that of its output. None if a row of the output needs
    other rows, too."""
    kind = node.get_type_name()
    record = node._op
    is_elementwise = record.scalar is not None and record.align is None  # with NumPy's broadcasting
    rule = _broadcast if is_elementwise else _reduce if kind in _REDUCTIONS else _RULES.get(kind)
    shapes = [value.get_partial_shape() for value in (*node.outputs(), *node.input_values())]
    if rule is None or any(shape.rank.is_dynamic for shape in shapes):
        return None
    return rule(node, axis, len(shapes[0]))


def _at(value: Any, axis: int) -> int | None:
    """The axis of the rows to slice in a value, None if its rows are all equal."""
    dimension = value.get_partial_shape()[axis] if axis >= 0 else None
    return None if dimension is None or (dimension.is_static and dimension.get_length() == 1) else axis


def _constant(value: Any) -> list[int] | None:
    """The integers of a constant, None for other values."""
    node = value.get_node()
    if node.get_type_name() != "Constant":
        return None
    return [int(n) for n in np.asarray(node.get_data()).reshape(-1)]


def _broadcast(node: Any, axis: int, rank: int) -> _Axes | None:
    if str(node.get_attributes().get("auto_broadcast", "numpy")).lower() != "numpy":
        return None
    return [_at(value, axis - rank + len(value.get_partial_shape())) for value in node.input_values()]


def _first(node: Any, axis: int) -> _Axes:
    """The rows of the first input, the others as they are."""
    return [axis] + [None] * (len(node.input_values()) - 1)


def _reduce(node: Any, axis: int, rank: int) -> _Axes | None:
    axes, keeps = _constant(node.input_value(1)), node.get_attributes().get("keep_dims", True)
    return None if axes is None or not keeps or axis in [a % rank for a in axes] else _first(node, axis)


def _multiply_matrices(node: Any, axis: int, rank: int) -> _Axes | None:
    first, second = node.input_values()
    ranks = [len(value.get_partial_shape()) for value in (first, second)]
    if min(ranks) < 2 or axis > rank - 2 or (axis == rank - 2 and node.get_attributes()["transpose_a"]):
        return None
    if axis == rank - 2:
        return [_at(first, ranks[0] - 2), None]
    return [_at(value, axis - rank + size) for value, size in zip((first, second), ranks, strict=True)]


def _normalize_exponentials(node: Any, axis: int, rank: int) -> _Axes | None:
    return None if node.get_attributes()["axis"] % rank == axis else [axis]


def _transpose(node: Any, axis: int, rank: int) -> _Axes | None:
    order = _constant(node.input_value(1))
    return None if not order else [order[axis], None]


def _reshape(node: Any, axis: int, rank: int) -> _Axes | None:
    """The dimensions up to the rows are those of the input."""
    pattern = _constant(node.input_value(1))
    if pattern is None or not node.get_attributes()["special_zero"] or any(pattern[: axis + 1]):
        return None
    return _first(node, axis)


def _unsqueeze(node: Any, axis: int, rank: int) -> _Axes | None:
    axes = _constant(node.input_value(1))
    if axes is None or axis in [a % rank for a in axes]:
        return None
    return [axis - sum(a % rank < axis for a in axes), None]


def _slice(node: Any, axis: int, rank: int) -> _Axes | None:
    if len(node.input_values()) < 5:
        return None
    axes = _constant(node.input_value(4))
    return None if axes is None or axis in [a % rank for a in axes] else _first(node, axis)


def _concat(node: Any, axis: int, rank: int) -> _Axes | None:
    return None if node.get_attributes()["axis"] % rank == axis else [axis] * len(node.input_values())


def _split(node: Any, axis: int, rank: int) -> _Axes | None:
    axes = _constant(node.input_value(1))
    return None if axes is None or axis == axes[0] % rank else _first(node, axis)


def _attend(node: Any, axis: int, rank: int) -> _Axes | None:
    """Rows of queries and of the mask. A causal mask would begin at the first row that is left."""
    if axis != rank - 2 or node.get_attributes()["causal"]:
        return None
    axes: list[int | None] = [None] * len(node.input_values())
    axes[0] = axis
    if len(axes) > 3:
        axes[3] = _at(node.input_value(3), len(node.input_value(3).get_partial_shape()) - 2)
    return axes


_RULES: dict[str, Callable[[Any, int, int], _Axes | None]] = {
    "Concat": _concat,
    "MVN": _reduce,
    "MatMul": _multiply_matrices,
    "Reshape": _reshape,
    "ScaledDotProductAttention": _attend,
    "Slice": _slice,
    "Softmax": _normalize_exponentials,
    "Split": _split,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "VariadicSplit": _split,
}
