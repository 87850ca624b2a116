"""Rows of a head on the matrix unit: the products of `attention_tiles` in blocks of 16 x 16 sums.

The unit has no epilogue. So scores are scaled and masked in the pass that computes the maximum of a row. Rows
of q are first copied to scratch memory and padded with zeros, because the unit reads 16 rows of whole lines
of 64 bytes.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.amx import ROW_BYTES, ROWS, intrinsics
from ovjit.codegen.cpu.formats import Format
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.tiles.pack import tile_width
from ovjit_ops.attention.cpu_attention_kernels import (
    CHAINS,
    IN_PANELS,
    TANH,
    AttentionMode,
    begin_rows,
    count_visible,
    divide_by_weights,
    shrink_by,
    weigh_rows,
)

#: Elements of a line. Columns of scores between two passes over the sums: scores of 32 rows take 48 KB.
ELEMENTS, COLUMNS = ROW_BYTES // 2, 384


@inline
def lines_of(n):
    """The number of lines of n 2-byte elements."""
    return (n + ELEMENTS - 1) // ELEMENTS


@inline
def multiply_blocks(p, p_row, panel, lines, sums, sums_row, zeros, add, tall, across):
    """Compute `tall` x `across` blocks of sums: rows at p times `lines` lines of a panel.
    `add`: add to the previous sums."""
    for r in static_range(tall):
        for v in static_range(across):
            if add:
                tile_load[2 * r + v](sums + r * ROWS * sums_row + v * ROW_BYTES, sums_row)
            else:
                tile_load[2 * r + v](zeros, 0)
    at = p
    right = panel
    while at < p + lines * ROW_BYTES:
        for v in static_range(across):
            tile_load[6 + v](right + v * ROW_BYTES, across * ROW_BYTES)
        for r in static_range(tall):
            tile_load[4 + r](at + r * ROWS * p_row, p_row)
            for v in static_range(across):
                tile_multiply[2 * r + v, 4 + r, 6 + v]()
        at += ROW_BYTES
        right += across * ROWS * ROW_BYTES
    for r in static_range(tall):
        for v in static_range(across):
            tile_store[2 * r + v](sums + r * ROWS * sums_row + v * ROW_BYTES, sums_row)


@inline
def multiply_tile(p, p_row, panel, lines, sums, sums_row, zeros, add, rows, columns, last_full, lanes):
    """Multiply `rows` rows at `p`, `p_row` bytes apart, by a panel of `lines` lines, into `sums`. `columns`:
    the remaining columns. `add`: add to the sums. `last_full`: see `multiply_panels`."""
    for across in (2, 1):
        if across == 1 or last_full or columns > lanes:
            for tall in (2, 1):
                if tall == 1 or rows > ROWS:
                    multiply_blocks(p, p_row, panel, lines, sums, sums_row, zeros, add, tall, across)
                    break
            break


@inline
def multiply_panels_by_unit(
    p, p_row, panels, panel, lines, sums, sums_row, zeros, add, rows, at, n, columns, last_full, *, width,
    lanes,
):  # fmt: skip
    """Compute n of `columns` columns, from column `at` on, by panels of `lines` lines. `last_full`: see
    `multiply_panels`."""
    c = at // width
    while c * width < at + n:
        multiply_tile(
            p, p_row, panels + c * panel, lines, sums + (c * width - at) * 4, sums_row, zeros, add,
            rows, columns - c * width, last_full, lanes,
        )  # fmt: skip
        c += 1


@inline
def copy_rows(q, pq, to, to_row, count, tall):
    """Copy rows of q, padded with zeros to whole lines. Missing rows are zeros."""
    depth = q.size.d
    for r in range(tall):
        target = to + r * to_row
        have = depth
        if r >= count:
            have = 0
        for j in range(0, lines_of(depth) * ELEMENTS, VL):
            store[u16](target + j * 2, loadm[u16](pq + r * q.stride.r + j * 2, max(have - j, 0)))


@inline
def finish_score(total, added, factor, most, capped):
    """The score: a sum that is scaled, capped, and masked by addition."""
    if capped:
        scaled = total * factor
        bent = applied(TANH, scaled)
        score = fma(bent, most, added)
    else:
        score = fma(total, factor, added)
    return score


@inline
def finish_scores(t, p, count, factor, most, capped):
    """Replace the sums at t by scores, with the mask at p. Returns the maximum in each lane."""
    tops = registers()
    for i in static_range(CHAINS):
        tops[i] = const[f32](-inf)
    j = 0
    while j + CHAINS * VL <= count:
        for i in static_range(CHAINS):
            at = (j + i * VL) * 4
            score = finish_score(load[f32](t + at), load[f32](p + at), factor, most, capped)
            store[f32](t + at, score)
            tops[i] = select(score > tops[i], score, tops[i])
        j += CHAINS * VL
    top = maximum(maximum(tops[0], tops[1]), maximum(tops[2], tops[3]))
    while j < count:
        tail = count - j
        last = finish_score(loadm[f32](t + j * 4, tail), loadm[f32](p + j * 4, tail), factor, most, capped)
        storem[f32](t + j * 4, last, tail)
        top = blend[f32](tail, maximum(top, last), top)
        j += VL
    return top


@inline
def soften_sums(pm, at, n, first, count, value_size, *, mask, numbers, memory, mode):
    """Replace the sums of n columns from `at` on by weights, and rescale the sums of earlier columns. See
    `soften_rows`."""
    factor = splat[f32](numbers.scale)
    most = factor
    if mode.capped:
        most = splat[f32](numbers.cap)
    for r in range(count):
        live = count_visible(r, at, n, first, mode.causal)
        top = finish_scores(
            scratch + memory.s_at + r * memory.s_row, pm + r * mask.stride.r + at * mask.stride.c, live,
            factor, most, mode.capped,
        )  # fmt: skip
        shrink = shrink_by(top, scratch + memory.m_at + r * 4)
        storem[f32](scratch + memory.f_at + r * 4, shrink, 1)
    weigh_rows(at, n, lines_of(n) * ELEMENTS, first, count, value_size)


@kernel(**IN_PANELS)
def attention_blocks(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, mask: Tensor, sink: Tensor, k_panel, v_panel, block, numbers,
    memory, *, mode, width, lanes,
):  # fmt: skip
    """Attention of a head's rows, `block` at a time: 32, or 16 if there are fewer. See `attention_tiles`.
    Panels have whole lines of words."""
    tile_begin(ROWS)
    for first, pq, pk, pv, py, pm, ps in items(q, k, v, y, mask, sink if mode.sinks else mask):
        count = min(block, y.size.r - first)
        copy_rows(q, pq, scratch + memory.q_at, memory.q_row, count, block)
        begin_rows(sink, ps, count, y.size.w)
        end = mask.size.c
        if mode.causal:
            end = min(mask.size.c, first + count)
        for at in range(0, end, memory.columns_per):
            n = min(memory.columns_per, end - at)
            multiply_panels_by_unit(
                scratch + memory.q_at, memory.q_row, pk, k_panel, lines_of(q.size.d), scratch + memory.s_at,
                memory.s_row, numbers.zeros, False, count, at, n, mask.size.c, False,
            )  # fmt: skip
            soften_sums(pm, at, n, first, count, y.size.w)
            c = 0
            while c * width < y.size.w:
                step = width * 4
                if y.size.w - c * width <= lanes:
                    step = lanes * 4
                multiply_tile(
                    scratch + memory.s_at, memory.s_row, pv + c * v_panel + at // 2 * step, lines_of(n),
                    scratch + memory.o_at + c * width * 4, memory.o_row, numbers.zeros, True, count,
                    y.size.w - c * width, False, lanes,
                )  # fmt: skip
                c += 1
        divide_by_weights(
            scratch + memory.o_at, memory.o_row, scratch + memory.l_at, py, y.stride.r, count, y.size.w,
            numbers.unseen, mode.out,
        )  # fmt: skip
    tile_end()


@functools.cache
def unit_attention_kernel(isa: Target, form: Format, mode: AttentionMode) -> Kernel:
    """The kernel of `attention_blocks` for the format of a matrix unit."""

    def words(target: Target) -> dict[str, Any]:
        return intrinsics(form.name.removeprefix("amx_"))

    return attention_blocks.kernel(
        mode.name_tiles(form, isa), words, form.name, form.name, mode=mode.of_tiles(form),
        width=tile_width(isa), lanes=isa.lanes,
    )  # fmt: skip
