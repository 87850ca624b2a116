"""The work of paged attention, listed once for all layers that read the same tables.

The numbers of sequences, tokens and blocks follow from shapes; their assignment is data. One chunk validates
the tables and writes an int64 table of the blocks that get new tokens, and of the pairs of queries and
blocks. The following steps have the maximum number of chunks for these shapes. Chunks after the end of a
list return at once. So a plan serves any mixture of prompts and tokens. Caches are written only after all
checks.

    words 0 ... 7            numbers of writes, tokens, prompts and slots; tokens of all sequences
    8 words per sequence     cached tokens, new tokens, first row, first block, slot or -1, parts, start of
                             its scores, blocks
    2 words per write        sequence, index of its block
    6 words per token item   sequence, its first row, rows, first block, blocks, slot of the result or -1
    6 words per prompt item  the same. It has all blocks, so it needs no slot.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.kernel_language import *
from ovjit.graph.symbolic import sym_min
from ovjit.planning.lower import Lowering, Planner

#: Counters at the start of the table: items of the three lists, and slots.
LISTED = ("writes", "tokens", "prompts", "slots")
#: Words of a sequence, of a write, of an item, and before all lists.
SEQUENCE, WRITE, ITEM, FIRST = 8, 2, 6, 8


def sizes(sequences: Any, tokens: Any, entries: Any, block: int, part: int, rows: int) -> dict[str, Any]:
    """The maximum number of items of each list, and where lists begin, in words."""
    writes = tokens // block + sequences * 2
    short = entries // part + sequences
    long = tokens // rows + sequences
    writes_at = sequences * SEQUENCE + FIRST
    few_at = writes_at + writes * WRITE
    many_at = few_at + short * ITEM
    return {
        "writes": writes, "few": short, "many": long, "writes_at": writes_at, "few_at": few_at,
        "many_at": many_at, "words": many_at + long * ITEM,
    }  # fmt: skip


#: Sequences, new tokens, block indices, and blocks of the smallest cache.
PLAN_COUNTS = Raw("sequences tokens listed cache_blocks")
#: Tokens of a block, blocks of a part, rows of a prompt's item, and the maximum new tokens of a sequence that
#: is listed among the tokens.
PLAN_PARTS = Raw("block part rows short_rows")
#: Where the lists begin, and the size of the table, in words.
PLAN_LISTS = Raw("writes_at few_at many_at words")


@inline
def list_writes(tally, s, before, table, *, blocks, cut, lists):
    """List the blocks of a sequence that get new tokens."""
    for i in range(before // cut.block, blocks):
        to = table + (lists.writes_at + tally["writes"] * 2) * 8
        st[i64](to, s)
        st[i64](to + 8, i)
        tally["writes"] += 1


@inline
def list_tokens(tally, s, at, new, start, table, *, blocks, cut, lists):
    """List a sequence with few new tokens, in parts of its blocks. `at`: address of its row of the table."""
    parts = (blocks - start + cut.part - 1) // cut.part
    if parts > 1:
        st[i64](at + 32, tally["slots"])
        st[i64](at + 40, parts)
    for i in range(parts):
        to = table + (lists.few_at + tally["tokens"] * 6) * 8
        slot = -1
        if parts > 1:
            slot = tally["slots"]
            tally["slots"] += 1
        st[i64](to, s)
        st[i64](to + 8, 0)
        st[i64](to + 16, new)
        st[i64](to + 24, start + i * cut.part)
        st[i64](to + 32, min(cut.part, blocks - start - i * cut.part))
        st[i64](to + 40, slot)
        tally["tokens"] += 1


@inline
def list_prompt(tally, s, before, new, window_size, table, *, blocks, cut, lists, typed):
    """List a sequence with many new tokens, in items of `cut.rows` rows."""
    for r in range(0, new, cut.rows):
        to = table + (lists.many_at + tally["prompts"] * 6) * 8
        count = min(cut.rows, new - r)
        first = 0
        if window_size > 0 and not typed:
            first = max(before + r + 1 - window_size, 0) // cut.block
        st[i64](to, s)
        st[i64](to + 8, r)
        st[i64](to + 16, count)
        st[i64](to + 24, first)
        if typed:
            st[i64](to + 32, blocks - first)
        else:
            st[i64](to + 32, (before + r + count + cut.block - 1) // cut.block - first)
        st[i64](to + 40, -1)
        tally["prompts"] += 1


@inline
def list_sequence(tally, s, at, before, new, window_size, blocks, table, *, cut, lists, typed):
    """List the writes and items of a sequence with new tokens."""
    list_writes(tally, s, before, table)
    start = 0
    if window_size > 0 and not typed:
        start = max(before + 1 - window_size, 0) // cut.block
    if new <= cut.short_rows:
        list_tokens(tally, s, at, new, start, table)
    else:
        list_prompt(tally, s, before, new, window_size, table)


@inline
def fault_of(entries, entry, stop, before, new, blocks, *, counts, cut, writing):
    """Validate the block indices of a sequence. Returns 9 if one is out of range, or if a block that gets new
    tokens is absent (-1). Else 0."""
    code = 0
    for i in range(entry, stop):
        index = ld[i32](entries + i * 4) + 0
        if index < -1 or index >= counts.cache_blocks:
            code = 9
        if writing and index < 0 and new > 0 and i - entry >= before // cut.block and i - entry < blocks:
            code = 9
    return code


@kernel(counts=PLAN_COUNTS, cut=PLAN_PARTS, lists=PLAN_LISTS)
def paged_plan(
    past: Ptr, begins: Ptr, entries: Ptr, ends: Ptr, window: Ptr, table: Ptr, counts, cut, lists, *,
    writing, typed,
):  # fmt: skip
    """Write the table. Returns an error code for invalid tables (`paged_reference.FAULTS`)."""
    window_size = ld[i32](window) + 0
    for i in range(0, lists.words, VL):  # list entries without an item are 0
        storem[i64](table + i * 8, spread[i64](0), lists.words - i)
    tally = registers()
    for name in LISTED:
        tally[name] = 0
    lengths = 0
    if ld[i32](begins) != 0 or ld[i32](ends) != 0:
        return 5
    for s in range(counts.sequences):
        before = ld[i32](past + s * 4) + 0
        first = ld[i32](begins + s * 4) + 0
        end = ld[i32](begins + s * 4 + 4) + 0
        entry = ld[i32](ends + s * 4) + 0
        stop = ld[i32](ends + s * 4 + 4) + 0
        if end < first or end > counts.tokens:
            return 5
        if stop < entry or stop > counts.listed:
            return 7
        if before < 0:
            return 6
        new = end - first
        length = before + new
        blocks = (length + cut.block - 1) // cut.block
        if blocks > stop - entry:
            return 8
        fault = fault_of(entries, entry, stop, before, new, blocks)
        if fault != 0:
            return fault
        at = table + (8 + s * 8) * 8
        st[i64](at, before)
        st[i64](at + 8, new)
        st[i64](at + 16, first)
        st[i64](at + 24, entry)
        st[i64](at + 32, -1)
        st[i64](at + 40, 0)
        st[i64](at + 48, lengths)
        st[i64](at + 56, blocks)
        lengths += length
        if new > 0:
            list_sequence(tally, s, at, before, new, window_size, blocks, table)
    if ld[i32](begins + counts.sequences * 4) != counts.tokens:
        return 5
    for i, name in enumerate(LISTED):
        st[i64](table + i * 8, tally[name])
    st[i64](table + 32, lengths)


class PagedPlan(Lowering):
    """One step of one chunk."""

    takes = (("i32",), ("i32",), ("i32",), ("i32",), ("i32",), None)

    def set_up(self) -> None:
        self.kernel = paged_plan(
            writing=bool(self.node.attrs["writing"]), typed=bool(self.node.attrs["typed"])
        )

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        past, begins, entries, ends, window, query = (planner.contiguous(v) for v in self.node.inputs[:6])
        caches = [planner.shape(v)[0] for v in self.node.inputs[6:]]
        table = planner.row_major_output(self.node.output)
        sequences, tokens, listed = past.shape[0], query.shape[0], entries.shape[0]
        layout = sizes(sequences, tokens, listed, attrs["block"], attrs["part"], attrs["rows"])
        values: dict[str, Any] = {
            "past": past.ptr, "begins": begins.ptr, "entries": entries.ptr, "ends": ends.ptr,
            "window": window.ptr, "table": table.ptr, "sequences": sequences, "tokens": tokens,
            "listed": listed, "cache_blocks": sym_min(*caches) if len(caches) > 1 else caches[0],
        }  # fmt: skip
        values |= {name: attrs[name] for name in ("block", "part", "rows", "short_rows")}
        values |= {name: layout[name] for name in ("writes_at", "few_at", "many_at", "words")}
        reads = [past, begins, entries, ends, window]
        planner.step(self.kernel, values, 1, reads, [table])
