"""Prompts by tiles: queries against blocks of keys and values.

An item is several queries of one sequence, for all heads that share a key. Several blocks at a time are
packed into panels in scratch memory, as f32: keys transposed, values in order. Both products use the same
tile, with the softmax between them, as in `cpu_attention_kernels`.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.formats import F32, tile_heights
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.codegen.transpose import transpose, transpose_words
from ovjit.tiles.pack import tile_width
from ovjit_ops.attention.cpu_attention_kernels import (
    TABLE_BYTES,
    adding,
    fill_tables,
    tile_of_rows,
    tile_words,
)
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
    scaled_rows,
    values_of,
    weigh_row,
)
from ovjit_ops.attention.cpu_paged_numbers import fill, widen

#: Keys whose scores are in scratch memory at a time.
TILE_COLUMNS = 256


@inline
def pack_keys(p, row, panels, at, count, size, width):
    """Pack f32 tokens [count, size] at p into the columns from `at` on of panels [size, width]."""
    for t in range(0, count, VL):
        column = at + t
        to = panels + column // width * size * width * 4 + column % width * 4
        for j in range(0, size, VL):
            transpose(p + t * row + j * 4, row, count - t, to + j * width * 4, width * 4, size - j)


@inline
def pack_values(p, row, panels, panel, at, count, size, *, width, ragged):
    """Pack f32 tokens [count, size] at p into the rows from `at` on of panels [tokens, width], one by one.
    `ragged`: a panel has less than whole vectors."""
    to = panels + at * width * 4
    for t in range(count):
        for c in range(0, size, width):
            target = to + c // width * panel + t * width * 4
            value = p + t * row + c * 4
            if ragged:
                for j in range(0, min(width, size - c), VL):
                    storem[f32](target + j * 4, loadm[f32](value + j * 4, size - c - j), size - c - j)
            else:
                for j in range(0, width, VL):
                    store[f32](target + j * 4, load[f32](value + j * 4))


@inline
def pack_block(k, v, at, live, *, shape, caches, memory, mode, width, ragged):
    """Pack the first `live` tokens of a block into the panels in scratch memory, from token `at` on."""
    x = k
    x_row = caches.k_row
    if mode.kind != "f32":
        x = scratch + memory.u_at
        x_row = memory.u_step
        widen(k, caches.k_row, x, x_row, live, shape.key_size, 0, mode.kind, True)
    pack_keys(x, x_row, scratch + memory.kp_at, at, live, shape.key_size, width)
    x = v
    x_row = caches.v_row
    if mode.vkind != "f32":
        x = scratch + memory.u_at
        x_row = memory.u_step
        widen(v, caches.v_row, x, x_row, live, shape.value_size, caches.v_group, mode.vkind, False)
    pack_values(x, x_row, scratch + memory.vp_at, memory.vp_step, at, live, shape.value_size)


@inline
def pack_blocks(b, blocks, columns, head, *, it, tensors, shape, caches, memory, mode, width, ragged):
    """Pack `blocks` blocks from block b on into panels in scratch memory. Values of absent blocks are
    zeros."""
    for i in range(blocks):
        index = block_of(b + i)
        live = min(shape.block, columns - i * shape.block)
        if index >= 0:
            k = keys_of(index, head)
            v = values_of(index, head)
            pack_block(k, v, i * shape.block, live)
        else:
            for c in range(0, shape.value_size, width):
                panel = scratch + memory.vp_at + c // width * memory.vp_step
                fill(panel + i * shape.block * width * 4, 0, live * width, 0.0)


@inline
def count_visible_keys(r, b, columns, tall, *, it, shape, mode):
    """Returns the number of keys, of `columns` from block b on, that the `tall` rows from r on may attend to;
    0 or less: none. A row attends to no key after its own, unless tokens are of images."""
    visible = columns
    if not mode.typed:
        last = min(r + tall, it["count"]) - 1
        visible = min(columns, it["past"] + it["first"] + last // shape.group + 1 - b * shape.block)
    return visible


@inline
def multiply_keys(b, columns, zeros, *, it, shape, memory, mode, heights, width):
    """Compute the scores of `columns` keys from block b on. Scores of a panel are not written if all its keys
    come after all rows of the tile (causal mask)."""
    for c in range(0, columns, width):
        first = 0
        if not mode.typed:
            first = max(b * shape.block + c - it["past"] - it["first"], 0) * shape.group
        panel = scratch + memory.kp_at + c * shape.key_size * 4
        for r in range(first // heights[0] * heights[0], it["count"], heights[0]):
            tile_of_rows(
                2, scratch + r // heights[0] * TABLE_BYTES, it["count"] - r, panel, shape.key_size, c,
                columns - c, zeros, zeros, False, heights,
            )  # fmt: skip


@inline
def multiply_values(b, columns, zeros, *, it, shape, memory, mode, heights, width):
    """Add the weighted values of the keys from block b on that the rows of a tile attend to."""
    for c in range(0, shape.value_size, width):
        panel = scratch + memory.vp_at + c // width * memory.vp_step
        for r in range(0, it["count"], heights[0]):
            visible = count_visible_keys(r, b, columns, heights[0])
            if visible > 0:
                tile_of_rows(
                    2, scratch + r // heights[0] * TABLE_BYTES, it["count"] - r, panel, visible, c,
                    shape.value_size - c, zeros, zeros, False, heights,
                )  # fmt: skip


#: Offsets and row strides in scratch memory of queries, scores, sums, unpacked blocks, and panels of keys and
#: values.
TILE_MEMORY = Raw("q_at q_step s_step o_step u_step s_at o_at m_at l_at u_at kp_at vp_at vp_step")
#: Queries, results, both caches, the table of the plan, block indices, sums of queries, and zeros that tiles
#: add.
TILE_TENSORS = Raw("*q *y *keys *values *table *entries *sums *zeros")
#: Blocks that are processed at a time, and bytes of a row of q and of y.
TILE_STEPS = Raw("some q_row y_row")


@kernel(
    tensors=TILE_TENSORS, scoring=SCORING, hidden=HIDDEN, items=ITEMS,
    shape=HEAD_SHAPE, caches=CACHE_STEPS, memory=TILE_MEMORY, steps=TILE_STEPS,
)  # fmt: skip
def paged_tiles(
    tensors, scoring, hidden, items, shape, caches, memory, steps, *, mode, ragged, heights, width,
):  # fmt: skip
    """Attention of an item's queries to its blocks, several blocks at a time. Stores y."""
    it = registers()
    item = chunk // shape.heads
    head = chunk % shape.heads
    if item >= ld[i64](tensors.table + items.number_at * 8):
        return 0
    find_item(item)
    factor = splat[f32](scoring.scale)
    scaled_rows(
        tensors.q + it["token"] * steps.q_row + head * shape.group * shape.key_size * SIZE[mode.T],
        scratch + memory.q_at, memory.q_step, it["rows"], shape.group, shape.key_size, steps.q_row, factor,
        mode.T, 4,
    )  # fmt: skip
    for m in range(it["count"]):
        fill(scratch + memory.o_at + m * memory.o_step, 0, shape.value_size, 0.0)
        begin_row(m, scoring.sinks + (head * shape.group + m % shape.group) * 4)
    for b in range(it["start"], it["stop"], steps.some):
        blocks = min(steps.some, it["stop"] - b)
        columns = min(blocks * shape.block, it["behind"] - b * shape.block)
        pack_blocks(b, blocks, columns, head)
        fill_tables(
            scratch + memory.q_at, memory.q_step, scratch + memory.s_at, memory.s_step, tensors.zeros, 0,
            it["count"], heights[0],
        )  # fmt: skip
        multiply_keys(b, columns, tensors.zeros)
        for m in range(it["count"]):
            line = scratch + memory.s_at + m * memory.s_step
            visible = count_visible_keys(m // heights[0] * heights[0], b, columns, heights[0])
            if visible > 0:
                hide_absent(line, b, blocks, visible)
                weigh_row(line, m, b, visible, head, "f32")
        fill_tables(
            scratch + memory.s_at, memory.s_step, scratch + memory.o_at, memory.o_step,
            scratch + memory.o_at, memory.o_step, it["count"], heights[0],
        )  # fmt: skip
        multiply_values(b, columns, tensors.zeros)
    for m in range(it["count"]):
        finish_row(head, m)


@functools.cache
def tiles_kernel(isa: Target, mode: PagedMode, ragged: bool) -> Kernel:
    """The kernel of `paged_tiles` for an instruction set."""
    epilogue = adding()

    def intrinsics(target: Target) -> dict[str, Any]:
        return {**tile_words(target, epilogue, F32), **transpose_words(target)}

    name = name_of(f"paged_tiles_{isa.name}", {"ragged": ragged, "": mode})
    return paged_tiles.kernel(
        name, intrinsics, f"paged {epilogue.text()}",
        mode=mode, ragged=ragged, heights=tile_heights(isa, F32), width=tile_width(isa),
    )  # fmt: skip
