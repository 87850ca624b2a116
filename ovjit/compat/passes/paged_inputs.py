"""The inputs that all layers of a paged decoder share, and values for each new token computed from them.

Positions of new tokens, and the length with them, may be counted from what variables hold. They are
recognized by their values: a row of integers that continues the past, or one number. Sequences of paged
attention have no padding: a product with a mask of padding, as recurrent layers have them, is its other
factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Parameter, constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, inputs_named, is_a, is_single, users_of
from ovjit.errors import UnsupportedError
from ovjit.graph.shapes import ANY
from ovjit.records import NamedTuple


class Inputs:
    """The new inputs of one model, created at first use."""

    def __init__(self, model: Model):
        self.model = model
        self.new_parameters: list[Parameter] = []
        self.shared: dict[str, Parameter] = {}

    def input(self, name: str, dtype: str, shape: tuple[Any, ...]) -> Output:
        """An input of the model, created at first use."""
        parameter = self.shared.get(name)
        if parameter is None:
            parameter = self.shared[name] = Parameter._of(dtype, shape, name)
            parameter._tensors[0]._names = {name}
            self.new_parameters.append(parameter)
        return parameter.output(0)

    def longest(self, length: Output) -> Output:
        """The length of the longest sequence, which replaces a length that the model counts."""
        kind = length._tensor._type
        longest = _op("Convert", self.input("max_context_len", "i32", ()), destination_type=kind.dtype)
        return _op("Unsqueeze", longest, _i64(0)) if kind.shape else longest

    def own_lengths(self) -> Output:
        """The length of each token's sequence: [tokens]."""
        ends = self.input("subsequence_begins", "i32", (ANY,))
        last, one = _i64(np.iinfo(np.int64).max), _i64(1)
        starts, ends = _op("Slice", ends, _i64(0), _i64(-1), one), _op("Slice", ends, one, last, one)
        new = _op("Subtract", ends, starts)
        lengths = _op(
            "Convert", _op("Add", self.input("past_lens", "i32", (ANY,)), new), destination_type="i64"
        )
        return _op("Gather", lengths, self._sequences()[1], np.array(0))

    def own_places(self) -> Output:
        """The position of each token in its sequence: [tokens]."""
        row, sequence = self._sequences()
        starts = _op("Slice", self.input("subsequence_begins", "i32", (ANY,)), _i64(0), _i64(-1), _i64(1))
        moved = _op("Subtract", self.input("past_lens", "i32", (ANY,)), starts)
        moved = _op("Convert", moved, destination_type="i64")
        return _op("Add", row, _op("Gather", moved, sequence, np.array(0)))

    def _sequences(self) -> tuple[Output, Output]:
        """The numbers of all tokens, and of the sequence of each: [tokens]."""
        last, one = _i64(np.iinfo(np.int64).max), _i64(1)
        ends = _op("Slice", self.input("subsequence_begins", "i32", (ANY,)), one, last, one)
        tokens = _op("Gather", _op("ShapeOf", self.tokens(), output_type="i64"), np.array(0), np.array(0))
        row = _op("Range", np.array(0, np.int64), tokens, np.array(1, np.int64), output_type="i64")
        return row, _op("Bucketize", row, ends, output_type="i64", with_right_bound=False)

    def tokens(self) -> Output:
        """The input of new tokens."""
        return inputs_named(self.model, "input_ids", "inputs_embeds")[0].output(0)

    def ones(self, mask: Parameter, count: Any) -> Output:
        """A mask of ones [count, max_context_len]."""
        longest = _op("Convert", self.input("max_context_len", "i32", ()), destination_type="i64")
        shape = _op("Concat", count, _op("Unsqueeze", longest, _i64(0)), axis=0)
        return _op("Broadcast", constant_node(np.array(1), mask._attrs["element_type"]).output(0), shape)


def _i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


#: What a mask of ones goes through on the way to a product, as the first input; and with any other.
_SHAPES = (
    "Slice", "StridedSlice", "Gather", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Broadcast", "Tile",
    "Convert", "ConvertLike", "Identity",
)  # fmt: skip
_EACH = ("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum")
#: A past and a count of new tokens for which factors are computed.
_TRIED = ((7, 3), (7, 1), (0, 2))


def padding_products(model: Model) -> list[tuple[Node, int]]:
    """Multiply nodes with a factor that is 1 if no token is padding, and the input index of the other
    factor."""
    pending = [p.output(0) for p in inputs_named(model, "attention_mask")]
    products: dict[int, tuple[Node, int]] = {}
    factors, probes = set(pending), [Probe(*lengths) for lengths in _TRIED]
    for factor in pending:
        for node, index in users_of(factor):
            other = node.input_value(1 - index) if is_a(node, "Multiply") else None
            if other is not None and _spreads(factor, other) and all(_is_one(p, factor) for p in probes):
                products[id(node)] = node, 1 - index
            elif (index == 0 and is_a(node, *_SHAPES)) or is_a(node, *_EACH):
                pending += {node.output(0)} - factors
                factors.add(node.output(0))
    return list(products.values())


def _is_one(probe: Probe, factor: Output) -> bool:
    """Whether all elements are 1 in the probe."""
    value = probe.try_values([factor])
    return value is not None and bool((value[0] == 1).all())


def _spreads(ones: Output, other: Output) -> bool:
    """Whether the product has the shape of the other factor."""
    small, large = ones._tensor._type.shape, other._tensor._type.shape
    if small is None or large is None or len(small) > len(large):
        return False
    pairs = zip(small, large[len(large) - len(small) :], strict=True)
    return all(a == 1 or (b != 1 and (a == b or not isinstance(a, int))) for a, b in pairs)


#: A past and a count of new tokens for which places are computed.
TRIED = ((7, 3), (0, 2))
#: A state in the order of beams, and with what is new after it.
_STATES = ("Gather", "Convert", "Concat")


class CountedPositions(NamedTuple):
    """Integer outputs that count from a variable's length, before other computations.

    `positions`: [1, tokens], those of the new tokens, [..., batch, tokens] with other dimensions known, or
    [tokens] with `row_ends`. `lengths`: one number, the past and the new tokens.
    """

    positions: list[Output]
    lengths: list[Output]


def find_counted_positions(model: Model) -> CountedPositions:
    """Find the positions and lengths that the model counts from its variables."""
    probes = [Probe(*lengths) for lengths in TRIED]
    counting: set[int] = set()
    positions = CountedPositions([], [])
    for node in model.get_ordered_ops():
        if not any(x._node._op.role == "read" or id(x._node) in counting for x in node._inputs):
            continue
        is_integer = all(x._tensor._type.dtype in ("i32", "i64") for x in node.outputs())
        if not is_integer and not is_a(node, *_STATES):
            continue
        output = node.output(0)
        shape = output._tensor._type.shape
        if shape is not None and _is_replaceable(output, shape) and all(_is_row(p, output) for p in probes):
            positions.positions.append(output)
        elif is_integer and shape in ((), (1,)) and all(_is_length(probe, output) for probe in probes):
            positions.lengths.append(output)
        else:
            counting.add(id(node))
    return positions


def _is_replaceable(output: Output, shape: Sequence[object]) -> bool:
    """Whether positions of this shape can be replaced."""
    if len(shape) != 1:
        is_static = [isinstance(d, int) for d in shape]
        return len(shape) == 2 or is_static == [True] * (len(shape) - 2) + [False] * 2
    ends = row_ends(output)
    return any(is_a(end._node, "Gather") or len(end._tensor._type.shape or ()) > 2 for end in ends)


def row_ends(output: Output) -> list[Output]:
    """The outputs made of a row of positions [tokens]: rows gathered from tables [tokens, width], and the row
    with further dimensions of 1 [1, tokens, 1, ...]. Empty if something else reads the row."""
    row, ends, waiting = [output], list[Output](), set[Output]()
    for source in row:
        for user, index in users_of(source):
            result = user.output(0)
            shape = list(result._tensor._type.shape or ())
            if is_a(user, "Gather") and index == 1 and user.input_value(2)._node._op.role == "constant":
                ends.append(result)
            elif is_a(user, "Reshape", "Unsqueeze") and len(shape) > 1:
                if index or shape[:1] + shape[2:] != [1] * (len(shape) - 1):
                    return []
                ends.append(result)
            elif user._op.scalar is not None or is_a(user, "Convert"):
                is_row = all(x in row or is_single(x) for x in user._inputs)
                waiting = waiting - {result} if is_row else waiting | {result}
                row += [result] if is_row and result not in row else []
            elif user._op.role != "shape":
                return []
    return [] if waiting else ends


def _is_index(output: Output) -> bool:
    """Whether positions are the index of a Gather from a table, possibly after a constant is added."""
    return any(
        (is_a(user, "Gather") and index == 1)
        or (is_a(user, "Add", "Subtract", "Convert") and _is_index(user.output(0)))
        for user, index in users_of(output)
    )


def _is_length(probe: Probe, output: Output) -> bool:
    """Whether the output is the number of all tokens."""
    value = probe.try_values([output])
    return value is not None and bool(value[0] == probe.past + probe.new)


def _is_row(probe: Probe, output: Output) -> bool:
    """Whether the output is the row of the new tokens' positions."""
    row, expected = probe.try_values([output]), np.arange(probe.past, probe.past + probe.new)
    return row is not None and row[0].shape[-1:] == expected.shape and bool((row[0] == expected).all())


def names_of(positions: Iterable[Output]) -> set[str]:
    """Names of positions as a one-dimensional tensor; none of those that index tables."""
    names: set[str] = set()
    for output in positions:
        if len(output._tensor._type.shape or ()) == 1 or _is_index(output):
            continue
        node = output._node
        source = node.input_value(0) if is_a(node, "Unsqueeze") else output
        names |= source._tensor._names
    return names


def check_stateless(model: Model, replaced: Mapping[Output, list[Output]]) -> set[Output]:
    """The outputs that results depend on when the `replaced` outputs are computed from others alone.
    UnsupportedError if a result would still read a variable."""
    pending = [result.input_value(0) for result in model.get_results()]
    done: set[Output] = set()
    reader: dict[Output, Node] = {}
    while pending:
        output = pending.pop()
        if output in done:
            continue
        done.add(output)
        node = output._node
        if node._op.role == "read":
            name = reader[output].get_friendly_name()
            raise UnsupportedError(
                f"{name!r} reads the variable {node._attrs['variable_id']!r}, which is not supported "
                "outside attention and recurrent layers: paged attention removes the variable"
            )
        for source in replaced.get(output, node._inputs):
            reader.setdefault(source, node)
            pending.append(source)
    return done
