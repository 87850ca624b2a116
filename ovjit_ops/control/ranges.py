"""Fuses loops whose iterations reduce rows of a table that a slice of an index list selects.

    Loop(n; body i: ReduceSum(Gather(table, Slice(indices, starts[i], ends[i])) [* Slice(weights, ...)]))
    (ReduceMean, ReduceMax without weights)
    -> EmbeddingBagRanges(table, indices, starts[0..n], ends[0..n], [weights])

Exporters to ONNX write embedding bags in this form. Iterations are independent. The number of rows depends on
data, so each iteration would need its own plan, which takes a hundred times as long as its arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.graph.bodies import CONCAT, INVARIANT
from ovjit.graph.graph import Builder, Node, Value, copy_node
from ovjit.records import NamedTuple
from ovjit.rewrite.pattern import op
from ovjit.rewrite.rules import rule
from ovjit.rewrite.writer import Writer
from ovjit_ops.control.ends import ports_of

REDUCTIONS = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max"}


class _Part(NamedTuple):
    """Slice(source, starts[i], ends[i]) of a 1-D value. Values are the body's."""

    source: Value
    starts: Value
    ends: Value


@rule(op.Loop(...))
def sum_ranges(w: Writer, b: Builder, node: Node) -> Value | None:
    """Loop that reduces slices of rows -> EmbeddingBagRanges"""
    if len(node.outputs) != 1:
        return None
    loop = _Loop(node, node.inputs)
    match = loop.match() if loop.is_plain() else None
    if match is None:
        return None
    reduction, table, part, weights = match
    count = node.inputs[0]
    if count.dtype != "i64" or count.shape not in ((), (1,)):
        return None
    operands = [table, part.source, part.starts, part.ends, *weights]
    if not all(map(loop.is_shared, operands)):
        return None
    values = [loop.outside(b, v) for v in operands]
    one = w("Reshape", count, [], special_zero=False) if count.shape else count
    iterations = w("Range", 0, one, 1, output_type="i64")
    for i in (2, 3):  # as in the iterations: indices beyond the end give 0
        values[i] = w("Gather", values[i], iterations, np.array(0), batch_dims=0)
    return w("EmbeddingBagRanges", *values, reduction=reduction)


class _Loop:
    """The parts of a Loop that the rule matches. Values are the body's."""

    def __init__(self, node: Node, inputs: Sequence[Value]):
        self.inputs = inputs
        self.ends = ports_of(node.attrs, len(node.inputs))
        parameters = self.ends.body.inputs
        self.counter = None if self.ends.iteration == -1 else parameters[self.ends.iteration]
        #: Invariant parameters -> the node's input.
        self.shared = {parameters[p.inner]: p.outer for p in self.ends.of(INVARIANT)}

    def is_plain(self) -> bool:
        """Whether all iterations run, and the output is the concatenation of their results."""
        port = self.ends.outputs[0]
        go_on = self.inputs[1].constant
        if port.kind != CONCAT or port.stride != 1 or port.axis != 0 or self.counter is None:
            return False
        if go_on is None or not go_on.all():
            return False
        return self.ends.condition == -1 or self.ends.always_again(*(v.type for v in self.inputs))

    def match(self) -> tuple[str, Value, _Part, list[Value]] | None:
        """(reduction, table, slice of the indices, [slice of the weights] or []); None if the body is
        different."""
        node = self.ends.body.outputs[self.ends.outputs[0].inner].node
        single = node.op.name != "Unsqueeze"
        if not single:
            if not _is_zero(node.inputs[1]):
                return None
            node = node.inputs[0].node
        reduction = REDUCTIONS.get(node.op.name)
        if reduction is None or node.attrs["keep_dims"] != single or not _is_zero(node.inputs[1]):
            return None
        rows, factor = node.inputs[0], None
        if rows.node.op.name == "Multiply":
            rows, factor = rows.node.inputs
            if rows.node.op.name != "Gather":
                rows, factor = factor, rows
        node = rows.node
        if rows.dtype != "f32" or not _takes_rows(node):
            return None
        table = node.inputs[0]
        part = self._part(node.inputs[1])
        if part is None or part.source.dtype != "i64":
            return None
        if factor is None:
            return reduction, table, part, []
        if reduction != "sum" or len(table.shape or ()) != 2 or factor.node.op.name != "Unsqueeze":
            return None
        weights = self._part(factor.node.inputs[0])
        if weights is None or weights[1:] != part[1:] or not _is(factor.node.inputs[1], 1, -1):
            return None
        return reduction, table, part, [weights.source]

    def _part(self, value: Value) -> _Part | None:
        node = value.node
        if node.op.name != "Slice" or len(value.shape or ()) != 1 or not _is(node.inputs[3], 1):
            return None
        starts, ends = map(self._of_trip, node.inputs[1:3])
        return None if starts is None or ends is None else _Part(node.inputs[0], starts, ends)

    def _of_trip(self, value: Value) -> Value | None:
        """The list of which iteration i reads element i, else None."""
        while value.node.op.name in ("Unsqueeze", "Reshape", "Squeeze") and value.shape in ((), (1,)):
            value = value.node.inputs[0]
        node = value.node
        if not _takes_rows(node):
            return None
        numbers, index = node.inputs[:2]
        while index is not self.counter and index.node.op.name in ("Unsqueeze", "Reshape", "Squeeze"):
            index = index.node.inputs[0]
        good = index is self.counter and numbers.dtype == "i64" and len(numbers.shape or ()) == 1
        return numbers if good else None

    def is_shared(self, value: Value) -> bool:
        """Whether the value is loop-invariant and computable outside the body."""
        if value.node.op.name == "Convert":
            value = value.node.inputs[0]
        return value in self.shared or value.node.op.role == "constant"

    def outside(self, b: Builder, value: Value) -> Value:
        """A loop-invariant value in the outer graph."""
        if value in self.shared:
            return self.inputs[self.shared[value]]
        return copy_node(b, value.node, [self.outside(b, v) for v in value.node.inputs]).output


def _takes_rows(node: Node) -> bool:
    """Whether the node is a Gather along the first axis."""
    return node.op.name == "Gather" and not node.attrs["batch_dims"] and _is_zero(node.inputs[2])


def _is(value: Value, *numbers: int) -> bool:
    """Whether the value is a constant with a single element, one of `numbers`."""
    array = value.constant
    return array is not None and array.size == 1 and int(array.reshape(-1)[0]) in numbers


def _is_zero(value: Value) -> bool:
    return _is(value, 0)
