"""Chunked attention over a paged cache: each chunk of a sequence becomes a sequence of its own.

A query attends to the keys of its own chunk only: tokens n * chunk to (n + 1) * chunk - 1. Chunks begin at
block boundaries. So new tables list, for each chunk with new tokens, the blocks of this chunk. Their shapes
depend on the shapes of the given tables only. Unused entries are empty sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.graph.graph import Builder, Value

#: The `stop` of a Slice up to the end.
_END = np.iinfo(np.int64).max


class _Numbers:
    """Adds operations on i64 values; Python integers become constants."""

    def __init__(self, builder: Builder, name: str):
        self.builder, self.name = builder, name

    def __call__(self, op: str, *inputs: Any, **attrs: Any) -> Value:
        values = [x if isinstance(x, Value) else self.constant(x) for x in inputs]
        return self.builder.add(op, values, attrs, name=self.name).output

    def constant(self, x: Any) -> Value:
        return self.builder.constant(np.array(x, np.int64), "i64")

    def to_i64(self, x: Value) -> Value:
        return x if x.dtype == "i64" else self("Convert", x, destination_type="i64")

    def at(self, x: Value, indices: Any) -> Value:
        return self("Gather", x, indices, 0)

    def part(self, x: Value, first: int, end: int) -> Value:
        return self("Slice", x, [first], [end], [1], [0])

    def count(self, x: Value) -> Value:
        """The first dimension of `x`, a scalar."""
        return self.at(self("ShapeOf", x, output_type="i64"), 0)

    def up_to(self, count: Any) -> Value:
        return self("Range", 0, count, 1, output_type="i64")

    def floor(self, x: Value, by: int) -> Value:
        return self("Divide", x, by, m_pythondiv=True)

    def sums(self, x: Value) -> Value:
        return self("CumSum", x, 0, exclusive=False, reverse=False)

    def group_of(self, indices: Value, ends: Value) -> Value:
        """The index of the group, of groups with these `ends`, that has each of `indices`; at most the
        last."""
        group = self("Bucketize", indices, ends, output_type="i64", with_right_bound=False)
        return self("Minimum", group, self("Subtract", self.count(ends), 1))


def chunk_tables(
    builder: Builder, tables: Sequence[Value], query: Value, chunk: int, block: int, name: str
) -> list[Value]:
    """past_lens, subsequence_begins, block_indices and block_indices_begins of chunks, from those of
    sequences (`tables`). `query` has a row for each new token. Raises UnsupportedError unless chunks are
    whole blocks."""
    if chunk % block:
        raise UnsupportedError(
            f"node {name!r}: chunks of {chunk} tokens do not begin at blocks of {block} tokens"
        )
    n = _Numbers(builder, f"{name}/chunks")
    past, begins, blocks, ends = map(n.to_i64, tables)
    first, stops = n.part(begins, 0, -1), n.part(begins, 1, _END)
    entry, stop = n.part(ends, 0, -1), n.part(ends, 1, _END)
    last = n("Maximum", n("Subtract", n("Add", past, n("Subtract", stops, first)), 1), past)
    begin = n.floor(past, chunk)
    parts = n("Add", n("Subtract", n.floor(last, chunk), begin), 1)
    until = n.sums(parts)
    most = n("Add", n("Multiply", n.count(past), 2), n("Divide", n.count(query), chunk))

    # of each chunk: its sequence, its index in the sequence, and its index among chunks with new tokens
    row = n.up_to(most)
    sequence = n.group_of(row, until)
    among = n("Subtract", row, n("Subtract", n.at(until, sequence), n.at(parts, sequence)))
    used = n("Less", among, n.at(parts, sequence))
    number = n("Add", n.at(begin, sequence), among)
    before = n("Subtract", n.at(past, sequence), n("Multiply", n.at(begin, sequence), chunk))
    starts = n("Equal", among, 0)
    new_past = n("Select", n("LogicalAnd", starts, used), before, 0)
    skipped = n("Maximum", n("Subtract", n("Multiply", number, chunk), n.at(past, sequence)), 0)
    end = n.part(begins, -1, _END)
    new_begins = n("Concat", n("Select", used, n("Add", n.at(first, sequence), skipped), end), end, axis=0)

    # the blocks of each chunk, and where each new entry comes from
    each = chunk // block
    block_counts = n.at(n("Subtract", stop, entry), sequence)
    low = n("Minimum", n("Multiply", number, each), block_counts)
    high = n("Minimum", n("Multiply", n("Add", number, 1), each), block_counts)
    counts = n("Select", used, n("Subtract", high, low), 0)
    new_ends = n.sums(counts)
    item = n.up_to(n.count(blocks))
    of = n.group_of(item, new_ends)
    inside = n("Subtract", item, n("Subtract", n.at(new_ends, of), n.at(counts, of)))
    source = n("Add", n("Add", n.at(n.at(entry, sequence), of), n.at(low, of)), inside)
    source = n("Maximum", n("Minimum", source, n("Subtract", n.count(blocks), 1)), 0)
    listed = n("Less", inside, n.at(counts, of))
    new_blocks = n("Select", listed, n.at(blocks, source), -1)
    new_ends = n("Concat", [0], new_ends, axis=0)
    result = (new_past, new_begins, new_blocks, new_ends)
    return [n("Convert", x, destination_type="i32") for x in result]
