"""PaKVReorder in place: moves tokens of a paged cache within their sequence.

The first step validates all indices. The second has a chunk per head, which moves its tokens in the given
order. A token is copied with its scales. Keys with scales by channel are dequantized, and the scales of their
new block are widened if they do not cover them.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.kernel_language import *
from ovjit.graph.paged_caches import TOP, kinds_of
from ovjit.graph.symbolic import sym_min
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import ALIGNMENT, NotNative, Planner, ceil_div
from ovjit_ops.attention.cpu_paged_kernels import STEPS
from ovjit_ops.attention.cpu_paged_numbers import keep_range, quantize_block, unpack_block, unpack_token

#: Block indices, where those of each sequence begin, the moves [source, target], and where those of each
#: sequence begin.
MOVE_TABLES = Raw("*entries *ends *moves *moves_at")
#: Sequences, ranges of moves, block indices, elements of `moves`, blocks of the smallest cache, tokens of a
#: block.
MOVE_COUNTS = Raw("sequences ranges listed moved cache_blocks block")
#: Sequences, elements of a key, tokens of a block.
MOVED_SHAPE = Raw("sequences size block")


@kernel(tables=MOVE_TABLES, counts=MOVE_COUNTS)
def paged_moves_check(tables, done: Ptr, counts):
    """Validate the moves. Returns 7 or 12 if tables are inconsistent, or if a token is in no block of its
    sequence."""
    if counts.sequences < 0:
        return 7
    if counts.ranges < counts.sequences:
        return 12
    if ld[i32](tables.ends) != 0:
        return 7
    if ld[i32](tables.moves_at) != 0:
        return 12
    for s in range(counts.sequences):
        entry = ld[i32](tables.ends + s * 4) + 0
        stop = ld[i32](tables.ends + s * 4 + 4) + 0
        first = ld[i32](tables.moves_at + s * 4) + 0
        end = ld[i32](tables.moves_at + s * 4 + 4) + 0
        if stop < entry or stop > counts.listed:
            return 7
        if end < first or end * 2 > counts.moved:
            return 12
        for i in range(first * 2, end * 2):
            token = ld[i32](tables.moves + i * 4) + 0
            if token < 0 or token // counts.block >= stop - entry:
                return 12
            index = ld[i32](tables.entries + (entry + token // counts.block) * 4) + 0
            if index < 0 or index >= counts.cache_blocks:
                return 12
    st[u8](done, 0)


@inline
def copy_bytes(p, to, size):
    """Copy `size` bytes from p to `to`."""
    for j in range(0, size, VL):
        storem[u8](to + j, loadm[u8](p + j, size - j), size - j)


@kernel(tables=MOVE_TABLES, shape=MOVED_SHAPE, steps=Raw(STEPS))
def paged_moves(keys: Ptr, values: Ptr, tables, shape, steps, u_step, *, kind):
    """Move cached tokens of one head to other positions of the cache, by the tables."""
    for s in range(shape.sequences):
        entry = ld[i32](tables.ends + s * 4) + 0
        for i in range(ld[i32](tables.moves_at + s * 4) + 0, ld[i32](tables.moves_at + s * 4 + 4) + 0):
            source = ld[i32](tables.moves + i * 8) + 0
            target = ld[i32](tables.moves + i * 8 + 4) + 0
            one = ld[i32](tables.entries + (entry + source // shape.block) * 4) + 0
            other = ld[i32](tables.entries + (entry + target // shape.block) * 4) + 0
            p = values + one * steps.v_block + chunk * steps.v_head + source % shape.block * steps.v_row
            copy_bytes(
                p, values + other * steps.v_block + chunk * steps.v_head + target % shape.block * steps.v_row,
                steps.v_row,
            )  # fmt: skip
            p = keys + one * steps.k_block + chunk * steps.k_head
            to = keys + other * steps.k_block + chunk * steps.k_head
            if kind in TOP:
                room = scratch + shape.block * u_step
                unpack_token(
                    p + shape.size * 8 + source % shape.block * steps.k_row, p, room, shape.size, 0, kind,
                    True,
                )  # fmt: skip
                unpack_block(to, steps.k_row, scratch, u_step, 0, shape.block, shape.size, 0, kind, True)
                keep_range(to, shape.size, kind, shape.block, scratch, u_step, shape.block + 1)
                for j in range(0, shape.size, VL):
                    at = scratch + target % shape.block * u_step + j * 4
                    storem[f32](at, loadm[f32](room + j * 4, shape.size - j), shape.size - j)
                quantize_block(to, steps.k_row, shape.size, kind, scratch, u_step, shape.block)
            else:
                copy_bytes(
                    p + source % shape.block * steps.k_row, to + target % shape.block * steps.k_row,
                    steps.k_row,
                )  # fmt: skip


class PagedMoves(Lowering):
    """Two steps: the check, and the moves."""

    def set_up(self) -> None:
        self.keys, self.values = kinds_of(self.node.attrs)
        self.check = paged_moves_check()
        self.moves = paged_moves(kind=self.keys.kind)
        self.kernels = (self.check, self.moves)

    def plan(self, planner: Planner) -> None:
        keys, values = (planner.view(v) for v in self.node.inputs[:2])
        if not keys.is_contiguous or not values.is_contiguous:
            raise NotNative
        entries, ends, moves, moves_at = (planner.contiguous(v) for v in self.node.inputs[2:6])
        done = planner.row_major_output(self.node.output)
        planner.written_inputs.update((keys.buffer, values.buffer))
        step = ceil_div(self.keys.size * 4, ALIGNMENT) * ALIGNMENT
        shared: dict[str, Any] = {
            "keys": keys.ptr, "values": values.ptr, "entries": entries.ptr, "ends": ends.ptr,
            "moves": moves.ptr, "moves_at": moves_at.ptr, "done": done.ptr, "sequences": ends.shape[0] - 1,
            "ranges": moves_at.shape[0] - 1, "listed": entries.shape[0], "moved": moves.shape[0],
            "cache_blocks": sym_min(keys.shape[0], values.shape[0]),
            "block": self.keys.tokens, "size": self.keys.size, "k_row": self.keys.row,
            "v_row": self.values.row, "k_head": self.keys.bytes, "v_head": self.values.bytes,
            "k_block": self.keys.bytes * self.keys.heads, "v_block": self.values.bytes * self.values.heads,
            "u_step": step,
        }  # fmt: skip
        reads = [entries, ends, moves, moves_at]
        planner.step(self.check, shared, 1, reads, [done])
        planner.need_scratch((self.keys.tokens + 2) * step + ALIGNMENT)
        work = 1.0 * moves.shape[0] * self.keys.tokens * self.keys.size * self.keys.heads
        planner.step(self.moves, shared, self.keys.heads, [*reads, done], [keys, values], work)
