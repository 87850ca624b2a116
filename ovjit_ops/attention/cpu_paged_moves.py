"""Tokens of a paged cache moved within their sequence, in place.

One step checks all numbers, one moves: a chunk takes a head, its moves in the given order. A token is copied
with its scales. Keys with scales by channel are read as f32. Their new block gets wider scales if its own do
not hold them.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.words import *
from ovjit.graph.paged_caches import TOP, kinds_of
from ovjit.graph.symbolic import sym_min
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import ALIGNMENT, NotNative, Planner, ceil_div
from ovjit_ops.attention.cpu_paged_numbers import keep_range, quantize_block, unpack_block, unpack_token


@kernel
def paged_moves_check(
    entries: Ptr, ends: Ptr, moves: Ptr, moves_at: Ptr, done: Ptr, sequences, ranges, listed, told, held,
    block,
):  # fmt: skip
    """Refuses moves of tokens that lie in no block of their sequence. `ranges`: of moves."""
    if sequences < 0:
        return 7
    if ranges < sequences:
        return 12
    if ld[i32](ends) != 0:
        return 7
    if ld[i32](moves_at) != 0:
        return 12
    for s in range(sequences):
        entry = ld[i32](ends + s * 4) + 0
        stop = ld[i32](ends + s * 4 + 4) + 0
        first = ld[i32](moves_at + s * 4) + 0
        behind = ld[i32](moves_at + s * 4 + 4) + 0
        if stop < entry or stop > listed:
            return 7
        if behind < first or behind * 2 > told:
            return 12
        for i in range(first * 2, behind * 2):
            token = ld[i32](moves + i * 4) + 0
            if token < 0 or token // block >= stop - entry:
                return 12
            index = ld[i32](entries + (entry + token // block) * 4) + 0
            if index < 0 or index >= held:
                return 12
    st[u8](done, 0)


@inline
def copy_bytes(p, to, size):
    """`size` bytes."""
    for j in range(0, size, VL):
        storem[u8](to + j, loadm[u8](p + j, size - j), size - j)


@kernel
def paged_moves(
    keys: Ptr, values: Ptr, entries: Ptr, ends: Ptr, moves: Ptr, moves_at: Ptr, sequences, size, block,
    k_block, k_head, k_row, v_block, v_head, v_row, u_step, *, kind,
):  # fmt: skip
    """Tokens of one head to their new places."""
    for s in range(sequences):
        entry = ld[i32](ends + s * 4) + 0
        for i in range(ld[i32](moves_at + s * 4) + 0, ld[i32](moves_at + s * 4 + 4) + 0):
            source = ld[i32](moves + i * 8) + 0
            target = ld[i32](moves + i * 8 + 4) + 0
            one = ld[i32](entries + (entry + source // block) * 4) + 0
            other = ld[i32](entries + (entry + target // block) * 4) + 0
            p = values + one * v_block + chunk * v_head + source % block * v_row
            copy_bytes(p, values + other * v_block + chunk * v_head + target % block * v_row, v_row)
            p = keys + one * k_block + chunk * k_head
            to = keys + other * k_block + chunk * k_head
            if kind in TOP:
                room = scratch + block * u_step
                unpack_token(p + size * 8 + source % block * k_row, p, room, size, 0, kind, True)
                unpack_block(to, k_row, scratch, u_step, 0, block, size, 0, kind, True)
                keep_range(to, 0, size, kind, block, scratch, u_step, block + 1)
                for j in range(0, size, VL):
                    at = scratch + target % block * u_step + j * 4
                    storem[f32](at, loadm[f32](room + j * 4, size - j), size - j)
                quantize_block(to, k_row, size, kind, scratch, u_step, block)
            else:
                copy_bytes(p + source % block * k_row, to + target % block * k_row, k_row)


class PagedMoves(Lowering):
    """The two steps."""

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
            "ranges": moves_at.shape[0] - 1, "listed": entries.shape[0], "told": moves.shape[0],
            "held": sym_min(keys.shape[0], values.shape[0]),
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
