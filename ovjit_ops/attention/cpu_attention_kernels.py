"""The kernels of attention by tiles of rows of a head, and steps of softmax for all kernels of attention.

They take q, k and v of one element type, f32 or bf16. Scores, softmax and sums are f32. Kernels do not depend
on shapes.

In f32, q is copied and scaled once, and tiles add the mask. In bf16, q is read in place, and tiles scale sums
and add the mask. So only exp(s - m') is rounded; it overwrites its scores in bf16.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen import approx
from ovjit.codegen.cpu.formats import F32, Format, tile_heights
from ovjit.codegen.cpu.ir import Epilogue, body_of
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.records import NamedTuple
from ovjit.tiles.pack import tile_width
from ovjit.tiles.sizes import TABLE
from ovjit_ops.attention.cpu_hidden_columns import count_shown

#: Bytes of a tile's table: addresses of inputs, outputs and addends.
TABLE_BYTES = 3 * TABLE * 8

#: Number types of rows of bytes.
PACKED = ("u8", "u4")

#: Lanes of the largest vectors whose lanes are summed together.
MOST_FOLDED = 16

#: Independent chains of a row's maximum.
CHAINS = 4

tile = Word("tile")


#: exp(x) for x <= 0, for results stored in f32 and in bf16; tanh(x).
EXP, EXP_BF16 = body_of(approx.exp_below_zero), body_of(approx.exp_below_zero_bf16)
TANH = body_of(approx.tanh_f32)


def adding() -> Epilogue:
    """The epilogue acc + x, with x at the pixel's address."""
    return Epilogue(body_of(lambda acc, there: acc + there, 2), ["pixel"])


def _scaling() -> Epilogue:
    """The epilogue acc * number + x, with x at the pixel's address."""
    return Epilogue(body_of(lambda acc, number, there: acc * number + there, 3), ["number", "pixel"])


@inline
def fill_tables(inputs, input_r, outputs, output_r, added, added_r, count, height):
    """Write the address tables of all tiles of a chunk's rows. An incomplete tile repeats the last row."""
    for r in range(0, count, height):
        table = scratch + r // height * TABLE_BYTES
        for i in range(height):
            m = min(r + i, count - 1)
            st[i64](table + i * 8, inputs + m * input_r)
            st[i64](table + TABLE * 8 + i * 8, outputs + m * output_r)
            st[i64](table + 2 * TABLE * 8 + i * 8, added + m * added_r)


@inline
def call_tile(size, table, weights, words, channel, valid, zeros, factor, scaled):
    """Call the tile of `size`, rows_vectors. `scaled`: it has the address of a factor of sums, too."""
    if scaled:
        tile[size](table, weights, zeros, 1, 0, 1, 0, words, channel, valid, weights, 0, factor)
    else:
        tile[size](table, weights, zeros, 1, 0, 1, 0, words, channel, valid, weights, 0)


@inline
def tile_of_rows(vectors, table, rows, weights, words, channel, valid, zeros, factor, scaled, heights):
    """Multiply one tile of rows by `vectors` vectors of a panel's columns. `table`: addresses of the tile's
    rows. `rows`: the number of rows from the tile's first row to the last row of all tiles."""
    for k, height in enumerate(heights):
        if height == heights[-1] or rows > heights[k + 1]:
            call_tile(f"{height}_{vectors}", table, weights, words, channel, valid, zeros, factor, scaled)
            break


@inline
def multiply(weights, words, channel, valid, stored, full, zeros, factor, scaled, count, *, heights, lanes):
    """Multiply the chunk's tiles by one panel. `stored`: columns of the panel in memory, which are all if
    `full`. `factor`: address of the factor of sums, if `scaled`."""
    for r in range(0, count, heights[0]):
        table = scratch + r // heights[0] * TABLE_BYTES
        rows = count - r
        for vectors in (2, 1):
            if vectors == 1 or full or stored > lanes:
                tile_of_rows(
                    vectors, table, rows, weights, words, channel, valid, zeros, factor, scaled, heights
                )
                break


@inline
def bend(t, p, count, cap):
    """Replace the scores at t by cap tanh(score) + the mask at p."""
    most = splat[f32](cap)
    j = 0
    while j + VL <= count:
        score = load[f32](t + j * 4)
        bent = applied(TANH, score)
        store[f32](t + j * 4, fma(bent, most, load[f32](p + j * 4)))
        j += VL
    if j < count:
        score = loadm[f32](t + j * 4, count - j)
        bent = applied(TANH, score)
        storem[f32](t + j * 4, fma(bent, most, loadm[f32](p + j * 4, count - j)), count - j)


@inline
def largest(t, count):
    """The maximum of the scores in each lane. Several chains hide the latency of maxima."""
    tops = registers()
    for i in static_range(CHAINS):
        tops[i] = const[f32](-inf)
    j = 0
    while j + CHAINS * VL <= count:
        for i in static_range(CHAINS):
            score = load[f32](t + (j + i * VL) * 4)
            tops[i] = select(score > tops[i], score, tops[i])
        j += CHAINS * VL
    top = maximum(maximum(tops[0], tops[1]), maximum(tops[2], tops[3]))
    while j + VL <= count:
        score = load[f32](t + j * 4)
        top = select(score > top, score, top)
        j += VL
    if j < count:
        top = blend[f32](count - j, maximum(top, loadm[f32](t + j * 4, count - j)), top)
    return top


@inline
def weigh(t, top, count, T):
    """Replace the scores at t by exp(score - top), in type T. Returns the sum in each lane."""
    total = const[f32](0.0)
    j = 0
    while j + VL <= count:
        score = load[f32](t + j * 4) - top
        weight = applied(EXP_BF16 if T == "bf16" else EXP, score)
        store[T](t + j * SIZE[T], weight)
        total = total + weight
        j += VL
    if j < count:
        score = loadm[f32](t + j * 4, count - j) - top
        weight = applied(EXP_BF16 if T == "bf16" else EXP, score)
        storem[T](t + j * SIZE[T], weight, count - j)
        total = blend[f32](count - j, total + weight, total)
    return total


@inline
def sum_lanes(sums, *, lanes):
    """Set lane i of sums[0] to the sum of the lanes of sums[i], in the order of `hadd`."""
    if lanes >= 16:
        for i in static_range(8):
            sums[i] = fold_8(sums[i], sums[i + 8])
    if lanes >= 8:
        for i in static_range(4):
            sums[i] = fold_4(sums[i], sums[i + 4])
    if lanes >= 4:
        for i in static_range(2):
            sums[i] = fold_2(sums[i], sums[i + 2])
    sums[0] = fold_1(sums[0], sums[1])


@inline
def finite(top):
    """The maximum of scores; 0 if all of them are masked, so that exp(score - maximum) is 0."""
    return select(top == const[f32](-inf), const[f32](0.0), top)


@inline
def begin_softmax(peak, weights, sink, sinks):
    """Initialise a row's maximum and sum of weights: those of the score at `sink`, or of no score."""
    if sinks:
        storem[f32](peak, splat[f32](sink), 1)
        storem[f32](weights, const[f32](1.0), 1)
    else:
        storem[f32](peak, const[f32](-inf), 1)
        storem[f32](weights, const[f32](0.0), 1)


@inline
def multiply_panels(
    panels, panel, words, at, n, columns, last_full, zeros, scale, scaled, count, *, width, heights, lanes
):
    """Compute n of `columns` columns, from column `at` on, by panels of `words` words. `last_full`: the last
    panel has all its columns in memory."""
    c = at // width
    while c * width < at + n:
        multiply(
            panels + c * panel, words, c * width - at, at + n - c * width, columns - c * width, last_full,
            zeros, scale, scaled, count,
        )  # fmt: skip
        c += 1


@inline
def raise_peak(t, peak, count):
    """Update the maximum at `peak` by the scores at t. Returns the factor for the row's previous sums."""
    top = largest(t, count)
    shrink = shrink_by(top, peak)
    return shrink


@inline
def shrink_by(tops, peak):
    """`raise_peak` for the maxima of each lane."""
    old = splat[f32](peak)
    top = maximum(old, spread[f32](hmax[f32](tops)))
    storem[f32](peak, top, 1)
    score = old - finite(top)
    shrink = applied(EXP, score)
    return shrink


@inline
def add_weights(t, peak, shrink, weights, count, T):
    """Replace the scores at t by weights of type T, and update the sum of weights at `weights`."""
    top = splat[f32](peak)
    top = finite(top)
    total = weigh(t, top, count, T)
    storem[f32](weights, fma(splat[f32](weights), shrink, spread[f32](hadd[f32](total))), 1)


@inline
def soften(t, peak, weights, count, T):
    """`raise_peak` and `add_weights` for one row. Returns the factor for the row's previous sums."""
    shrink = raise_peak(t, peak, count)
    add_weights(t, peak, shrink, weights, count, T)
    return shrink


@inline
def clear(t, first, stop, T):
    """Store zeros to elements `first` to `stop` - 1 at t."""
    for j in range(max(first, 0), stop, VL):
        storem[T](t + j * SIZE[T], const[f32](0.0), stop - j)


@inline
def scale_row(p, t, count, factor):
    """Store the row at p times `factor` to t."""
    for j in range(0, count, VL):
        storem[f32](t + j * 4, loadm[f32](p + j * 4, count - j) * factor, count - j)


@inline
def without_weights(total, unseen):
    """The result of a row whose sum of weights is not positive. `unseen`: address of the results for 0 and
    for NaN."""
    return select(total == const[f32](0.0), splat[f32](unseen), splat[f32](unseen + 4))


@inline
def divide_by_weights(o, o_row, weights, y, y_r, count, value_size, unseen, out):
    """y = o / the sum of weights; rows without weights, or with NaN, get the numbers at `unseen`."""
    for r in range(count):
        total = splat[f32](weights + r * 4)
        otherwise = without_weights(total, unseen)
        valid = total > const[f32](0.0)
        scaled = const[f32](1.0) / total
        for j in range(0, value_size, VL):
            result = select(valid, loadm[f32](o + r * o_row + j * 4, value_size - j) * scaled, otherwise)
            storem[out](y + r * y_r + j * SIZE[out], result, value_size - j)


class AttentionMode(NamedTuple):
    """Constants of the kernels: element types of q and y, and of k and v as they are stored; whether row m
    attends to the first m + 1 keys; whether there are sinks, a cap of scores, a mask, and parts of keys."""

    T: str
    keys: str
    values: str
    out: str
    causal: bool
    sinks: bool
    capped: bool
    masked: bool = False
    split: bool = False

    def of_tiles(self, form: Format) -> AttentionMode:
        """The constants of tiles of a format, to which keys and values are converted."""
        return self._replace(T=form.a, keys="", values="")

    def name_tiles(self, form: Format, isa: Target) -> str:
        named = self.of_tiles(form)._replace(T="", out="" if self.out == form.a else self.out)
        return name_of(f"attention_{form.name}_{isa.name}", named._asdict())


class Numbers(NamedTuple):
    """Addresses of numbers: the scale of scores, the results of rows without weights, zeros, ones, the
    cap."""

    scale: Ptr
    unseen: Ptr
    zeros: Ptr
    ones: Ptr
    cap: Ptr


class Memory(NamedTuple):
    """Columns of a block; offsets and row strides of its parts in scratch memory."""

    columns_per: int
    q_at: int
    q_row: int
    o_at: int
    o_row: int
    s_at: int
    s_row: int
    m_at: int
    f_at: int
    l_at: int


@inline
def begin_rows(sink, ps, count, value_size, *, memory, mode):
    """Initialise the sums, maxima and weights of all rows."""
    for r in range(count):
        clear(scratch + memory.o_at + r * memory.o_row, 0, value_size, "f32")
        begin_softmax(
            scratch + memory.m_at + r * 4, scratch + memory.l_at + r * 4, ps + r * sink.stride.r, mode.sinks
        )  # fmt: skip


@inline
def count_visible(r, at, n, first, causal):
    """Returns the number of columns, of n from `at` on, that row r attends to."""
    live = n
    if causal:
        live = min(n, first + r + 1 - at)
    return live


@inline
def soften_rows(pm, at, n, first, count, value_size, cap, *, mask, memory, mode, group):
    """Replace the scores of n columns from `at` on by weights, and rescale the sums of earlier columns. All
    rows' maxima come first, to hide the latency of reductions over lanes."""
    for r in range(count):
        t = scratch + memory.s_at + r * memory.s_row
        live = count_visible(r, at, n, first, mode.causal)
        if mode.capped:
            bend(t, pm + r * mask.stride.r + at * mask.stride.c, live, cap)
        shrink = raise_peak(t, scratch + memory.m_at + r * 4, live)
        storem[f32](scratch + memory.f_at + r * 4, shrink, 1)
    weigh_rows(at, n, (n + group - 1) // group * group, first, count, value_size)


@inline
def weigh_rows(at, n, padded, first, count, value_size, *, memory, mode):
    """Replace the scores of n columns from `at` on by weights, with zeros up to `padded` columns, and rescale
    the sums of earlier columns."""
    for r in range(count):
        t = scratch + memory.s_at + r * memory.s_row
        live = count_visible(r, at, n, first, mode.causal)
        shrink = splat[f32](scratch + memory.f_at + r * 4)
        add_weights(t, scratch + memory.m_at + r * 4, shrink, scratch + memory.l_at + r * 4, live, mode.T)
        if mode.causal or mode.T != "f32":  # what is masked, and what fills the last word
            clear(t, live, padded, mode.T)
        if at > 0:
            o = scratch + memory.o_at + r * memory.o_row
            scale_row(o, o, value_size, shrink)


@inline
def add_values(pv, at, n, count, value_size, *, v_panel, numbers, memory, mode, group, heights, width, lanes):
    """Add the weighted values of n columns from `at` on to the sums."""
    o = scratch + memory.o_at
    fill_tables(scratch + memory.s_at, memory.s_row, o, memory.o_row, o, memory.o_row, count, heights[0])
    c = 0
    while c * width < value_size:
        step = width * 4
        if value_size - c * width <= lanes:
            step = lanes * 4
        multiply(
            pv + c * v_panel + at // group * step, (n + group - 1) // group, c * width,
            value_size - c * width, value_size - c * width, False, numbers.zeros, numbers.ones,
            mode.T != "f32", count,
        )  # fmt: skip
        c += 1


#: The tensors of kernels for many rows, with keys and values in panels.
IN_PANELS: Any = {
    "over": "... r/block", "q": "... r d", "k": "... words", "v": "... words_v", "y": "... r w",
    "mask": "... r c", "sink": "... r one", "numbers": Numbers, "memory": Memory,
}  # fmt: skip


@kernel(**IN_PANELS)
def attention_tiles(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, mask: Tensor, sink: Tensor, k_panel, v_panel, block, numbers,
    memory, *, mode, group, heights, width, lanes,
):  # fmt: skip
    """Rows of a head by tiles, `block` at a time. k and v are panels of words of `group` elements, with
    `k_panel` and `v_panel` bytes. `out`: the element type of y. `sinks`: each row has one more score, without
    a value. `capped`: scores are cap tanh(...), computed in place.

    In scratch memory: tables, scaled rows of q, scores, sums o; and for each row the maximum m, the factor f
    of earlier sums, and the sum l of weights.
    """
    for first, pq, pk, pv, py, pm, ps in items(q, k, v, y, mask, sink if mode.sinks else mask):
        count = min(block, y.size.r - first)
        queries = pq
        query_r = q.stride.r
        if mode.T == "f32":
            factor = splat[f32](numbers.scale)
            queries = scratch + memory.q_at
            query_r = memory.q_row
            for r in range(count):
                scale_row(pq + r * q.stride.r, queries + r * query_r, q.size.d, factor)
        begin_rows(sink, ps, count, y.size.w)
        if mode.causal:
            end = min(mask.size.c, first + count)
        else:
            end = count_shown(pm, count, mask.size.c)
        for at in range(0, end, memory.columns_per):
            n = min(memory.columns_per, end - at)
            scores = scratch + memory.s_at
            if mode.capped:
                fill_tables(queries, query_r, scores, memory.s_row, numbers.zeros, 0, count, heights[0])
            else:
                added = pm + at * mask.stride.c
                fill_tables(queries, query_r, scores, memory.s_row, added, mask.stride.r, count, heights[0])
            multiply_panels(
                pk, k_panel, (q.size.d + group - 1) // group, at, n, mask.size.c, False, numbers.zeros,
                numbers.scale, mode.T != "f32", count,
            )  # fmt: skip
            soften_rows(pm, at, n, first, count, y.size.w, numbers.cap)
            add_values(pv, at, n, count, y.size.w)
        divide_by_weights(
            scratch + memory.o_at, memory.o_row, scratch + memory.l_at, py, y.stride.r, count, y.size.w,
            numbers.unseen, mode.out,
        )  # fmt: skip


def tile_words(target: Target, epilogue: Epilogue, form: Format) -> dict[str, Any]:
    """The tiles that `multiply` calls."""
    from ovjit.tiles.tile import make_tile  # where the kernel is compiled

    return {
        f"tile_{r}_{v}": make_tile(target, r, v, epilogue, form)
        for r in tile_heights(target, form)
        for v in (target.tile_vectors, 1)
    }


@functools.cache
def attention_kernel(isa: Target, form: Format, mode: AttentionMode) -> Kernel:
    """The kernel of `attention_tiles` for a format and an instruction set."""
    epilogue = adding() if form is F32 else _scaling()

    def intrinsics(target: Target) -> dict[str, Any]:
        return tile_words(target, epilogue, form)

    return attention_tiles.kernel(
        mode.name_tiles(form, isa), intrinsics, f"{form.name} {epilogue.text()}", form.name,
        mode=mode.of_tiles(form), group=form.group, heights=tile_heights(isa, form), width=tile_width(isa),
        lanes=isa.lanes,
    )  # fmt: skip
