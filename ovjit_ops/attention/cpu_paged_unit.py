"""Prompts on a matrix unit: queries against blocks of keys and values, as in `cpu_paged_tiles`.

Queries, keys and values of any stored type are rounded to bf16. Panels consist of whole lines, and all
columns of a panel are multiplied.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.amx import ROW_BYTES, ROWS, intrinsics
from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.codegen.transpose import transpose_words
from ovjit.graph.paged_caches import TOP
from ovjit.tiles.pack import tile_width
from ovjit_ops.attention.cpu_attention_kernels import clear, scale_row
from ovjit_ops.attention.cpu_attention_unit import ELEMENTS, lines_of, multiply_panels_by_unit
from ovjit_ops.attention.cpu_paged_kernels import (
    CACHE_STEPS,
    HEAD_SHAPE,
    HIDDEN,
    ITEMS,
    SCORING,
    PagedMode,
    begin_row,
    block_of,
    find_item,
    finish_row,
    hide_absent,
    keys_of,
    values_of,
    weigh_row,
)
from ovjit_ops.attention.cpu_paged_numbers import fill, unpack_block
from ovjit_ops.attention.cpu_paged_tiles import TILE_STEPS, TILE_TENSORS, pack_keys
from ovjit_ops.matmul.cpu_products import pair

#: Rows per multiplication, and 32-bit words of a line.
TALL, LINE = 2 * ROWS, ROW_BYTES // WORD


@inline
def narrow(p, row, to, to_row, count, size, T):
    """Store rows as bf16, padded with zeros to whole lines."""
    for t in range(count):
        for j in range(0, lines_of(size) * ELEMENTS, VL):
            store["bf16"](to + t * to_row + j * 2, loadm[T](p + t * row + j * SIZE[T], max(size - j, 0)))


@inline
def narrow_block(p, row, count, size, group, memory, kind, by_channel):
    """Store the tokens of a block as bf16 in scratch memory."""
    to = scratch + memory.n_at
    if kind in TOP:
        room = scratch + memory.u_at
        unpack_block(p, row, room, memory.u_step, 0, count, size, group, kind, by_channel)
        narrow(room, memory.u_step, to, memory.n_step, count, size, "f32")
    else:
        narrow(p, row, to, memory.n_step, count, size, kind)


@inline
def pair_values(p, row, panels, panel, at, count, size, width):
    """Pack bf16 tokens [count, size] at p into the rows from `at` on of panels [tokens / 2, width, 2]."""
    for c in range(0, size, width):
        for t in range(0, count, 2):
            to = panels + c // width * panel + (at + t) // 2 * width * 4
            for j in range(0, min(width, size - c), VL):
                source = p + t * row + (c + j) * 2
                remaining = size - c - j
                there = remaining
                if t + 1 >= count:
                    there = 0
                store[u32](to + j * 4, pair(loadm[u16](source, remaining), loadm[u16](source + row, there)))


@inline
def clear_values(panels, panel, first, stop, size, width):
    """Clear the pairs of tokens from `first` to `stop` in all panels."""
    for c in range(0, size, width):
        p = panels + c // width * panel
        fill(p, first * width, stop * width, 0.0)


@inline
def pair_blocks(b, blocks, columns, head, *, it, tensors, shape, caches, memory, mode, width):
    """Pack `blocks` blocks from block b on into panels in scratch memory. Values of absent blocks, and
    values after the last token, are zeros."""
    for i in range(blocks):
        index = block_of(b + i)
        live = min(shape.block, columns - i * shape.block)
        at = i * shape.block
        if index >= 0:
            k = keys_of(index, head)
            v = values_of(index, head)
            narrow_block(k, caches.k_row, live, shape.key_size, 0, memory, mode.kind, True)
            pack_keys(
                scratch + memory.n_at, memory.n_step, scratch + memory.kp_at, at, live,
                lines_of(shape.key_size) * LINE, width,
            )  # fmt: skip
            narrow_block(v, caches.v_row, live, shape.value_size, caches.v_group, memory, mode.vkind, False)
            pair_values(
                scratch + memory.n_at, memory.n_step, scratch + memory.vp_at, memory.vp_step, at, live,
                shape.value_size, width,
            )  # fmt: skip
        else:
            clear_values(
                scratch + memory.vp_at, memory.vp_step, at // 2, (at + live + 1) // 2, shape.value_size, width
            )  # fmt: skip
    clear_values(
        scratch + memory.vp_at, memory.vp_step, (columns + 1) // 2, lines_of(columns) * LINE,
        shape.value_size, width,
    )  # fmt: skip


#: Offsets and row strides in scratch memory of queries, scores, sums, blocks as f32 and as bf16, and panels
#: of keys and values.
UNIT_MEMORY = Raw("q_at q_step s_step o_step u_step n_step s_at o_at m_at l_at u_at n_at kp_at vp_at vp_step")


@kernel(
    tensors=TILE_TENSORS, scoring=SCORING, hidden=HIDDEN, items=ITEMS,
    shape=HEAD_SHAPE, caches=CACHE_STEPS, memory=UNIT_MEMORY, steps=TILE_STEPS,
)  # fmt: skip
def paged_blocks(
    tensors, scoring, hidden, items, shape, caches, memory, steps, *, mode, width, lanes,
):  # fmt: skip
    """Attention of an item's queries to its blocks, several blocks at a time. Stores y."""
    it = registers()
    item = chunk // shape.heads
    head = chunk % shape.heads
    if item >= ld[i64](tensors.table + items.number_at * 8):
        return 0
    find_item(item)
    factor = splat[f32](scoring.scale)
    first = tensors.q + it["token"] * steps.q_row + head * shape.group * shape.key_size * SIZE[mode.T]
    for m in range(it["count"]):
        p = first + m // shape.group * steps.q_row + m % shape.group * shape.key_size * SIZE[mode.T]
        narrow(p, 0, scratch + memory.q_at + m * memory.q_step, 0, 1, shape.key_size, mode.T)
        fill(scratch + memory.o_at + m * memory.o_step, 0, shape.value_size, 0.0)
        begin_row(m, scoring.sinks + (head * shape.group + m % shape.group) * 4)
    tile_begin(ROWS)
    for b in range(it["start"], it["stop"], steps.some):
        blocks = min(steps.some, it["stop"] - b)
        columns = min(blocks * shape.block, it["behind"] - b * shape.block)
        pair_blocks(b, blocks, columns, head)
        for r in range(0, it["count"], TALL):
            multiply_panels_by_unit(
                scratch + memory.q_at + r * memory.q_step, memory.q_step, scratch + memory.kp_at,
                lines_of(shape.key_size) * LINE * width * 4, lines_of(shape.key_size),
                scratch + memory.s_at + r * memory.s_step, memory.s_step, tensors.zeros, False,
                it["count"] - r, 0, columns, columns, True,
            )  # fmt: skip
        for m in range(it["count"]):
            line = scratch + memory.s_at + m * memory.s_step
            scale_row(line, line, columns, factor)
            hide_absent(line, b, blocks, columns)
            weigh_row(line, m, b, columns, head, "bf16")
            clear(line, columns, lines_of(columns) * ELEMENTS, "bf16")
        for r in range(0, it["count"], TALL):
            multiply_panels_by_unit(
                scratch + memory.s_at + r * memory.s_step, memory.s_step, scratch + memory.vp_at,
                memory.vp_step, lines_of(columns), scratch + memory.o_at + r * memory.o_step, memory.o_step,
                tensors.zeros, True, it["count"] - r, 0, shape.value_size, shape.value_size, True,
            )  # fmt: skip
    tile_end()
    for m in range(it["count"]):
        finish_row(head, m)


@functools.cache
def unit_kernel(isa: Target, unit: Format, mode: PagedMode) -> Kernel:
    """The kernel of `paged_blocks` for the format of a matrix unit."""

    def words(target: Target) -> dict[str, Any]:
        return {**intrinsics(unit.name.removeprefix("amx_")), **transpose_words(target)}

    return paged_blocks.kernel(
        name_of(f"paged_{unit.name}_{isa.name}", mode._asdict()), words, unit.name, unit.name, mode=mode,
        width=tile_width(isa), lanes=isa.lanes,
    )  # fmt: skip
