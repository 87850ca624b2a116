"""Depthwise convolution: one filter per channel, vectors of channels, a few pixels of a row in registers.

    y[n, i, j, c] = epilogue(bias[c] + sum over (a, b) of x[n, i*sh + a*dh, j*sw + b*dw, c] * w[a, b, c])

The kernel is specialised to a window (kd, kh, kw, sw, dw), so an input column that several pixels of a row
read is loaded once. The slices of a volume are images, whose windows have `kd` times as many rows. The input
has a zero halo. An item has several output rows of one cache line of channels, if the first-level cache then
keeps the input rows until the next output row reads them. Otherwise it has all channels.

Groups of 2, 4 or 8 inputs and as many outputs use the same kernel. A vector of inputs is multiplied by the
filters of each lane's own input. Then its lanes are permuted within groups, and multiplied by the filters of
the group's other inputs. A tile would have one group per vector. Phases of transposed convolutions are equal.
If groups have several times as many outputs, the lanes of a vector of inputs are spread to the vectors of
outputs in the same way. With several times as many inputs, lanes of several vectors of inputs become one.

For bytes, a column of up to four rows becomes a word for each channel. One instruction multiplies it by the
filter's column of four i8: a quarter of the multiplications, or a third for 3x3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import F32, find_format
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import flush_subnormals, numpy_dtype
from ovjit.graph.graph import Node
from ovjit.graph.shapes import is_static
from ovjit.graph.symbolic import sym_max, sym_min
from ovjit.planning.copies import CACHE_LINE
from ovjit.planning.launch import launch
from ovjit.planning.plan import Constants, Planner, aligned_bytes, ceil_div, split
from ovjit.planning.views import View
from ovjit.records import NamedTuple
from ovjit.tiles.epilogues import OPERANDS
from ovjit.tiles.lowering import Tiled
from ovjit_ops.convolution.cpu_convolution import TiledConvolution, as_images

#: Maximum bytes in the first-level cache of the input rows of a cache line of channels.
KEPT_BYTES = 28 * 1024


#: Maximum taps of an unrolled filter.
MOST_TAPS = 49

#: Inputs per group for which a vector has several groups, and the maximum of taps times inputs, unrolled.
GROUPED, MOST_GROUPED = (2, 4, 8), 100


def word_rows(kh: int, acc: str) -> list[range]:
    """The rows of a filter that form each word: one row, or up to four for bytes."""
    each = 1 if acc == "f32" else 4
    return [range(a, min(a + each, kh)) for a in range(0, kh, each)]


def passes(isa: Target, channels: int, part: int, *types: str) -> tuple[tuple[bool, tuple[int, ...]], ...]:
    """(masked, pixels computed at once) of each pass over the channels. All vectors are masked, or none if
    the channels fill whole vectors. Where masks are slow (Arm; bytes without AVX-512), only the last vector
    is."""
    counts = isa.shapes.parted if part else (isa.shapes.pixels, 1)
    if isa.is_arm and all(SIZE[one] >= 2 for one in types):
        full = False, counts if part else isa.shapes.whole_pixels
        return (full, (True, (1,))) if channels % isa.lanes else (full,)
    if isa.name == "avx512":
        return ((True, counts),)
    if all(SIZE[one] >= 4 for one in types):
        full_counts = counts if part else isa.shapes.whole_pixels
        return ((True, counts),) if channels % isa.lanes else ((False, full_counts),)
    return ((False, counts), (True, (1,)))


@inline
def lanes_at(address, valid, masked, T):
    return loadm[T](address, valid) if masked else load[T](address)


@inline
def add_product(v, weight, total, acc):
    return fma(v, weight, total) if acc == "f32" else dot_bytes(total, v, weight)


class Taps(NamedTuple):
    """The unrolled taps: rows of a window and of one of its slices, taps of a row, stride and dilation along
    a row."""

    rows: int
    kh: int
    kw: int
    sw: int
    dw: int

    def columns(self, pixels: int) -> list[tuple[int, list[tuple[int, int]]]]:
        """The input columns that adjacent pixels read, each with its (pixel, tap) pairs."""
        reads = [(m * self.sw + t * self.dw, (m, t)) for m in range(pixels) for t in range(self.kw)]
        distinct = sorted({at for at, _ in reads})
        return [(column, [by for at, by in reads if at == column]) for column in distinct]

    def new_columns(self, pixels: int) -> list[int]:
        """The columns that these pixels read and that no earlier window has read."""
        steps = sorted({t * self.dw % self.sw for t in range(self.kw)})
        return [m * self.sw + step for m in range(pixels) for step in steps]

    def together(self, free: bool, acc: str, pixels: int) -> list[list[Any]]:
        """Groups of columns that are read row by row. LLVM then increments one address. For bytes read column
        by column, whose rows form a word, it would keep an address in memory for each. The words must fit
        AVX-512's registers together with filter and sums, with 8 registers left."""
        read = self.columns(pixels)
        words = len(word_rows(self.rows, acc)) * self.kw
        if free and acc == "i32" and len(read) + words + pixels <= 24:
            return [read]
        return [[column] for column in read]


@inline
def add_columns(
    total, tap, p, row, count, valid, x_z, x_a, x_w, acc, taps, part, swap, *, masked, T, free, each, spread,
    folds,
):  # fmt: skip
    """Add the products of taps and input columns to the totals of `count` pixels, whose windows begin at p.
    `part`: taps are loaded from `row` when the first pixel needs them. `swap`: lane permutations for each of
    a group's `each` inputs. `folds`: vectors of inputs for one of outputs."""
    v = registers()
    for a, lines in enumerate(word_rows(taps.rows, acc)):
        for some in taps.together(free, acc, count):
            for byte, line in enumerate(lines):
                for column, _ in some:
                    begin = (
                        p + line * x_a if line < taps.kh
                        else p + line // taps.kh * x_z + line % taps.kh * x_a
                    )  # fmt: skip
                    address = begin + column * x_w
                    for n in static_range(folds):
                        u = lanes_at(
                            address + n * (VL * SIZE[T]), valid * folds // spread - n * VL,
                            masked or spread > 1 or folds > 1, T,
                        )  # fmt: skip
                        if acc == "f32":
                            v[column, n] = u
                        elif byte == 0:
                            v[column, n] = cast[acc](u)
                        else:
                            v[column, n] = v[column, n] | (cast[acc](u) << const[acc](8 * byte))
            for column, readers in some:
                for i in static_range(each):
                    u = permute[acc](v[column, 0], swap[i]) if i or spread > 1 or folds > 1 else v[column, 0]
                    for n in static_range(1, folds):
                        u = blend[acc](n * VL // folds, u, permute[acc](v[column, n], swap[i]))
                    for m, t in readers:
                        if part and m == 0:
                            tap[a, t, i] = load[acc](row + t * (VL * 4))
                        total[m] = add_product(u, tap[a, t, i], total[m], acc)


@inline
def prefetch_next(p, count, x_a, x_w, taps):
    """Prefetch the next cache line of channels of the pixels at p, for rows that are new or may have left the
    first-level cache. The lines of a row are a pixel apart, which hardware prefetchers do not predict. After
    a convolution whose weights fill the second-level cache, they come from the third."""
    for a in static_range(taps.kh // 2, taps.kh):
        for m in taps.new_columns(count):
            prefetch(p + a * x_a + m * x_w + CACHE_LINE)


@inline
def load_operands(o, at, e, m, valid, *, masked, operands):
    """Load the epilogue's operands of pixel m from the addresses `at`."""
    for n, operand in enumerate(operands, 1):
        if operand.kind == "pixel":
            address = at[n - 1, "j"] + m * e[n - 1, "w"]
            o[n] = lanes_at(address, valid, masked, operand.dtype)
        elif operand.kind == "scalar":
            o[n] = splat[operand.dtype](at[n - 1, "j"] + m * e[n - 1, "w"])


@inline
def store_pixels(q, result, count, y_w, valid, *, masked, out):
    """Store `count` pixels: full vectors without a mask, else the first `valid` lanes."""
    if not masked or valid >= VL:
        for m in static_range(count):
            store[out](q + m * y_w, result[m])
    else:
        for m in static_range(count):
            storem[out](q + m * y_w, result[m], valid)


@inline
def find_row(at, e, img, i, operands):
    """Set at[n] to the address of row i of an image in the epilogue's operand n."""
    for n, operand in enumerate(operands):
        if not operand.shared:
            at[n] = e[n] + img * e[n, "n"] + i * e[n, "h"]


@inline
def find_pixel(at, e, j, k, operands):
    """Set at[n, "j"] to the address of pixel j of the row, and for pixel operands of its channel k."""
    for n, operand in enumerate(operands):
        if operand.kind == "pixel":
            at[n, "j"] = at[n] + j * e[n, "w"] + k * SIZE[operand.dtype]
        elif operand.kind == "scalar":
            at[n, "j"] = at[n] + j * e[n, "w"]


@inline
def load_taps(tap, filters, lines, kw, each, acc):
    for a, t, i in np.ndindex(lines, kw, each):
        tap[a, t, i] = load[acc](filters + ((a * kw + t) * each + i) * VL * 4)


@inline
def finish_pixels(q, total, result, o, at, e, count, y_w, valid, masked, *, free, operands, body, out):
    """Apply the epilogue to the totals of `count` pixels, and store them."""
    for m in static_range(count):
        load_operands(o, at, e, m, valid)
        result[m] = applied(body, total[m], *o)
        if free:
            storem[out](q + m * y_w, result[m], valid)
    if not free:  # once all are there
        store_pixels(q, result, count, y_w, valid)


class Slices(NamedTuple):
    """A filter: slices, rows and columns of taps, stride and dilation along a row, and the unrolled taps of a
    row (0: all taps of all rows)."""

    kd: int
    kh: int
    kw: int
    sw: int
    dw: int
    part: int

    def taps(self) -> Taps:
        """The unrolled taps."""
        rows = 1 if self.part else self.kd * self.kh
        return Taps(rows, self.kh, self.part or self.kw, self.sw, self.dw)


@inline
def add_window(
    total, tap, p, filters, count, valid, masked, x, x_z, x_a, acc, of, swap, *, T, free, each, spread, folds
):  # fmt: skip
    """Add the products of all taps `of` a filter to the totals of `count` pixels."""
    for z in range(of.kd) if of.part and of.kd > 1 else static_range(1):
        for a in range(of.kh) if of.part else static_range(1):
            for t in range(0, of.kw, of.part) if of.part < of.kw and of.part else static_range(1):
                add_columns(
                    total, tap, p + z * x_z + a * x_a + t * (of.dw * x.stride.iw),
                    filters + ((z * of.kh + a) * of.kw + t) * (VL * 4), count, valid, x_z, x_a, x.stride.iw,
                    acc, of.taps(), of.part, swap,
                )  # fmt: skip


@inline
def load_channels(o, e, k, valid, masked, operands):
    """Load the epilogue's operands of channel k."""
    for n, operand in enumerate(operands, 1):
        if operand.kind == "channel":
            address = e[n - 1] + k * SIZE[operand.dtype]
            o[n] = lanes_at(address, valid, masked, operand.dtype)


class Moves(NamedTuple):
    """Bytes from x to the first tap; dilation and stride along slices, and along rows."""

    origin: int
    deep: int
    high: int
    slice: int
    row: int


@kernel(over="n h/rows c/channels", x="id ic:1 ih iw", y="n c:1 h w", moves=Moves)
def depthwise(
    x: Tensor, w: Ptr, b: Ptr, swaps: Ptr, y: Tensor, moves, rows, channels, e=OPERANDS, *, T, acc, out,
    operands, body, kd, kh, kw, sw, dw, passes, free, part, each, spread, folds,
):  # fmt: skip
    """T, acc, out: element types of x, of sums and of y. An item has `channels` channels of `rows` rows.
    `passes`: see `passes`. `free`: masks are free, as on AVX-512; a masked store of AVX2 takes a dozen
    cycles. `part`: the number of unrolled taps of a row, a divisor of the row; 0: all taps of all rows.
    `each`: inputs of a group. `spread`: outputs for each of them. `folds`: inputs for each of the
    outputs."""
    o, at, tap, total, result, swap = registers()
    for i in static_range(0 if spread > 1 or folds > 1 else 1, each):
        swap[i] = load[i32](swaps + i * (VL * 4))
    for n, operand in enumerate(operands, 1):
        if operand.kind == "number":
            o[n] = splat[operand.dtype](e[n - 1])
    x_z = moves.deep * x.stride.id
    x_a = moves.high * x.stride.ih
    for img, top, first in items():
        stop = min(first + channels, y.size.c)
        for i in range(top, min(top + rows, y.size.h)):
            source = x.at(x + moves.origin, id=img * moves.slice, ih=i * moves.row)
            target = y.at(n=img, h=i)
            find_row(at, e, img, i, operands)
            begin = first
            for masked, counts in passes:
                end = stop if masked else min(stop, y.size.c // VL * VL)
                for k in range(begin, end, VL):
                    valid = y.size.c - k
                    filters = w + k * (len(word_rows(kd * kh, acc)) * kw * each * 4)
                    if not part:
                        load_taps(tap, filters, len(word_rows(kd * kh, acc)), kw, each, acc)
                    bias = load[acc](b + k * 4)
                    load_channels(o, e, k, valid, masked, operands)
                    j = 0
                    for count in counts:
                        while j + count <= y.size.w:
                            p = source + j * (sw * x.stride.iw) + k * folds // spread * SIZE[T]
                            # pixels are stepped to from one address: of separate products LLVM makes more
                            # sums than registers
                            q = target + j * y.stride.w + k * SIZE[out]
                            find_pixel(at, e, j, k, operands)
                            if free and T == "f32" and count > 1 and not part and kd == 1:
                                prefetch_next(p, count, x_a, x.stride.iw, Taps(kd * kh, kh, kw, sw, dw))
                            for m in static_range(count):
                                total[m] = bias
                            add_window(
                                total, tap, p, filters, count, valid, masked, x, x_z, x_a, acc,
                                Slices(kd, kh, kw, sw, dw, part), swap,
                            )  # fmt: skip
                            finish_pixels(q, total, result, o, at, e, count, y.stride.w, valid, masked)
                            j += count
                begin = end


class Window(NamedTuple):
    """A window of `taps` (kd, kh, kw): strides along depth and height, dilations, bytes from the input's
    first element, elements of a row."""

    taps: tuple[int, ...]
    steps: tuple[int, ...]
    spread: tuple[int, ...]
    origin: int
    across: int


class ByChannels(Tiled):
    """The common base of depthwise convolutions and of the phases of transposed ones: groups have one input
    and one output channel, or few of both."""

    channel_axis = 1
    joins = False
    leaves_out = False
    gap = True
    channels: int

    def takes_lists(self) -> bool:
        return False

    def window_kernel(self, names: str, kernel_size: Sequence[int], sw: int, dw: int) -> Kernel:
        kd, kh, kw = ([1, 1, *kernel_size])[-3:]
        by_parts = kd * kh * kw > MOST_TAPS and self.outs == 1
        spread, folds = max(1, self.outs // self.channels), max(1, self.channels // self.outs)
        part = next(n for n in range(min(kw, MOST_TAPS), 0, -1) if kw % n == 0) if by_parts else 0
        types = [v.dtype for v in (self.data, self.out, *self.operands)]
        window = "x".join(map(str, ([1, *kernel_size])[-max(2, len(kernel_size)) :]))
        kind = "spread" if spread > 1 else "folded" if folds > 1 else "grouped"
        kind = kind if self.outs > 1 else "depthwise"
        name = f"{kind}_{self.data.dtype}_{window}_{self.target.name}{'_' + names if names else ''}"
        return depthwise.kernel(
            name, T=self.data.dtype, acc=self.form.acc, kd=kd, kh=kh, kw=kw, sw=sw, dw=dw,
            passes=passes(self.target, self.groups * self.outs, part, *types),
            free=self.target.name == "avx512", part=part, each=self.channels, spread=spread, folds=folds,
            **self.epilogue.constants(self.form.acc),
        )  # fmt: skip

    def place_filters(self, constants: Constants, array: np.ndarray, key: object) -> int:
        """Pack the filters [G, O, C, taps] as vectors of channels. Returns their offset."""
        lanes, ins, channels = self.target.lanes, self.channels, self.groups * self.outs
        kw = array.shape[-1]
        rows = math.prod(array.shape[3:-1])
        blocks, words = ceil_div(channels, lanes), len(word_rows(rows, self.form.acc))
        each, dtype = (4, np.int8) if self.form.acc == "i32" else (1, np.float32)
        memory = aligned_bytes(blocks * words * kw * ins * lanes * 4).view(dtype)
        packed = memory.reshape(blocks, words, kw, ins, lanes, each)
        by_channel = np.zeros((blocks * lanes, ins, words * each, kw), dtype)
        channel, mine = np.arange(channels)[:, None], np.arange(ins)
        filters = array.reshape(channels, ins, rows, kw)
        by_channel[:channels, :, :rows] = filters[channel, self._input_of(channel, mine) % ins]
        split_up = by_channel.reshape(blocks, lanes, ins, words, each, kw)
        # block, row of words, column, input, channel, tap in a word
        packed[...] = split_up.transpose(0, 3, 5, 2, 1, 4)
        flush_subnormals(packed)
        return constants.add(packed, key).offset

    def place_bias(self, constants: Constants) -> None:
        lanes, ins, channels = self.target.lanes, self.channels, self.groups * self.outs
        swaps = self._input_of(np.arange(lanes, dtype=np.int32), np.arange(ins, dtype=np.int32)[:, None])
        swaps %= lanes
        self.swaps_at = constants.add(swaps, f"lanes of groups of {ins} and {self.outs}").offset
        bias = np.zeros(ceil_div(channels, lanes) * lanes, numpy_dtype(self.form.acc))
        bias[:channels] = 0 if self.bias is None else self.bias
        self.bias_at = constants.add(bias, (self, "bias")).offset

    def _input_of(self, lane: np.ndarray, number: np.ndarray) -> np.ndarray:
        """The input lane that is multiplied at this number for a lane of outputs."""
        if self.outs == self.channels:
            return lane ^ number
        return lane // self.outs * self.channels + number

    def emit_window(
        self, planner: Planner, kernel: Kernel, weights_at: int, x: View, y: View, window: Window,
        part: Callable[[View], View] = lambda view: view,
    ) -> None:  # fmt: skip
        """Add the steps that compute y. `part` selects the corresponding part of an operand."""
        if not y.count:
            return
        missing = 5 - len(x.shape)  # dimensions, of three
        od, oh, ow = (1,) * missing + y.shape[2:]
        kd, kh, kw = (1,) * missing + tuple(window.taps)
        (sd, sh), (dd, dh) = (((1,) * missing + tuple(row))[:2] for row in (window.steps, window.spread))
        taps, channels = kd * kh * kw * self.channels, self.groups * self.outs
        line = min(channels, max(self.target.lanes, CACHE_LINE // x.itemsize))
        read = kd * kh * window.across * CACHE_LINE
        # 1 if most input rows are read again while they are still in the cache, else 0
        by_lines = sym_min(1, KEPT_BYTES // sym_max(1, read)) if kh > 2 * sh else 0
        item_channels = channels - by_lines * (channels - line)
        rows = sym_min(split(oh, ow * item_channels * taps), sym_max(2, ceil_div(oh, 4)))
        rows = ceil_div(oh, ceil_div(oh, rows))  # blocks of nearly equal height
        at = planner.constants.at
        addresses = {"w": at(weights_at), "b": at(self.bias_at), "swaps": at(self.swaps_at)}
        moves = Moves(window.origin, dd, dh, sd, sh)
        # one step per volume, whose slices are images
        volumes: Sequence[int | None] = (None,) if missing else range(y.shape[0])
        for volume in volumes:

            def images(view: View, volume: int | None = volume) -> View:
                return _with_rows(as_images(view, volume))

            operands, more = self.operand_values(planner, (0, 2, 3), lambda v: images(part(v)))
            target = images(y)
            launch(
                planner, kernel, {"x": images(x), "y": target}, ("y",), work=rows * ow * item_channels * taps,
                flops=2.0 * target.count * taps, reads=more, moves=moves, rows=rows, channels=item_channels,
                **addresses, **operands,
            )  # fmt: skip


def _with_rows(view: View) -> View:
    """An image; a 1D tensor of pixels becomes an image of one row."""
    if len(view.shape) == 4:
        return view
    (n, c, w), (along, each, step), (*before, last) = view.shape, view.strides, view.halo
    halo = (*before, (0, 0), last)
    return View(view.buffer, (n, c, 1, w), (along, each, 0, step), view.itemsize, view.offset, halo)


class Depthwise(ByChannels, TiledConvolution):
    """GroupConvolution whose groups have one input and one output channel, or few of both."""

    odd = 0  # words go along rows

    def make_kernel(self, names: str) -> Kernel:
        strides, dilations = self.attrs["strides"] or (1,), self.attrs["dilations"] or (1,)
        return self.window_kernel(names, self.kernel_size, strides[-1], dilations[-1])

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        self.weights_at = self.place_filters(constants, self.filters, self.of_node(self.form.acc))
        self.place_bias(constants)

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        strides, dilations, begin, _ = self.window(shape[2:])
        x = planner.with_halo(self.data, self.halo(shape[2:], out[2:]), self.gap)
        y = planner.channels_last_output(self.out, over=self.over(planner, x))
        origin = sum(-pad * stride for pad, stride in zip(begin, x.strides[2:], strict=True))
        across = x.shape[-1] + 2 * begin[-1]
        window = Window(tuple(self.kernel_size), tuple(strides), tuple(dilations), origin, across)
        self.emit_window(planner, self.kernel, self.weights_at, x, y, window)


def is_depthwise(node: Node, target: Target) -> bool:
    """True for constant [G, 1, 1, ...] filters: in bytes with few taps on images only. Also for real groups
    of a few channels, if the target permutes lanes."""
    filters = node.inputs[1]
    if node.op.name != "GroupConvolution" or filters.stored_array is None or not is_static(filters.shape):
        return False
    return goes_by_channels(node, filters.shape[3:], target)


def goes_by_channels(node: Node, kernel: Sequence[int], target: Target) -> bool:
    """Whether `ByChannels` supports the channels of grouped filters with this window `kernel`."""
    data, filters = node.inputs[:2]
    shape = filters.shape
    taps, real = math.prod(kernel), find_format(data.dtype, filters.dtype, target) is F32
    outs, ins = shape[1:3]
    uneven = node.op.name == "GroupConvolution" and ins in (1, *GROUPED)
    if outs in GROUPED and (outs == ins or uneven):
        several = target.name != "generic" and outs < target.lanes and shape[0] > 1
        return real and several and 1 < taps and taps * ins <= MOST_GROUPED
    if tuple(shape[1:3]) != (1, 1):
        return False
    # the alternative for volumes are tiles of one channel each
    return real if len(shape) == 6 else (real or taps <= MOST_TAPS) and shape[0] > 1
