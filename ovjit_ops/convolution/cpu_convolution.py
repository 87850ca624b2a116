"""Convolutions by the tile kernel: pixels are read in place, in NHWC with a halo as wide as the padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ovjit.codegen.cpu.formats import Format, find_format, matrix_format
from ovjit.forks import made_once
from ovjit.graph.dtypes import all_finite
from ovjit.graph.graph import Value
from ovjit.graph.shapes import Interval, is_static
from ovjit.graph.symbolic import sym_int, sym_max
from ovjit.graph.windows import Slab, resolve_window, slabs_of_taps, taps_that_meet
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Constants, Layout, NotNative, Planner, Shapes, View, ceil_div, channels_last
from ovjit.tiles.lowering import Tiled
from ovjit.tiles.pack import panel_sizes
from ovjit.tiles.sharing import Weights
from ovjit_ops.convolution.cpu_direct import filter_matrix
from ovjit_ops.matmul.cpu_products import WAYS, pack_kernels, plan_panels
from ovjit_ops.movement.sink_shuffle import channel_shuffle

#: Maximum channels of inputs that are read in NCHW, plane by plane, without a transpose.
PLANAR_CHANNELS = 4
#: Maximum taps of such windows on a matrix unit, which multiplies each line of each plane separately. Inputs
#: of larger windows are transposed to NHWC: 7x7 on three colours, 224 x 224, takes 0.61 of the time, and 0.82
#: including the transpose.
PLANAR_TAPS = 16
#: Operations that convert a model's input to bytes.
QUANTIZING = frozenset(("Convert", "MultiplyAdd", "Round", "Quantize"))
#: The percentage of taps that must be saved for an image to be computed in slabs.
SAVED = 20
#: Minimum of saved words times vectors of channels, per line of a window, for gathering windows.
LINE_WORDS = 4


class TiledConvolution(Tiled):
    """Convolution of one to three spatial dimensions, GroupConvolution of one or two."""

    channel_axis = 1
    #: Whether windows are read line by line, so that rows of pixels should not share cache sets: see
    #: `Layout`.
    gap = False

    def __init__(self, group: Group):
        self.group, anchor = group, group.node
        self.data = anchor.inputs[0]
        filters = anchor.inputs[1]
        self.weight_type = filters.dtype
        self.grouped = anchor.op.name == "GroupConvolution"
        self.dims = tuple(filters.shape) if self.grouped else (1, *filters.shape)
        self.constant = filters.constant
        self.groups, self.outs, self.channels, *kernel = self.dims
        self.kernel_size = kernel
        self.attrs = anchor.attrs
        groups = 0 if self.constant is None else channel_shuffle(self.data)
        #: 1x1 convolutions read shuffled channels in place, as `shuffle` runs of equal length; 0: not
        #: shuffled
        self.shuffle = 0
        if groups and set(kernel) == {1} and self.channels % groups == 0:
            self.shuffle = groups
            self.data = self.data.node.inputs[0]
        self.gathered = self._line()
        if self.planar:
            self.runs = self.channels * kernel[0]
        elif self.gathered:
            self.runs = 1
        else:
            self.runs = self.shuffle or math.prod(kernel)
        super().__init__(group, "conv")
        if not is_static(self.data.shape):  # the end of the last window depends on the extents
            self.pads = (self.data,)

    def _line(self) -> int:
        """Bytes of a line of the window if windows are gathered for a tile, else 0.

        Gathering pays if padding of few channels to words would give many more words: 7x7 windows of three
        colours are 37 words instead of 49, which takes 0.87 of the time. Lines of planes are too many and too
        short."""
        form = self._format
        if self.constant is None or form is None or form.group != 4 or form.products > 1 or self.groups > 1:
            return 0
        if len(self.kernel_size) != 2 or self.planar or self.shuffle:
            return 0
        if self._may_use_unit:
            return 0  # a matrix unit reads lines of any length in place
        lines, taps = self.kernel_size
        line = taps * self.channels
        lanes = self.target.lanes
        saved = lines * taps * form.words(self.channels) - form.words(lines * line)
        pays = saved * ceil_div(self.outs, lanes) > LINE_WORDS * lines
        narrow = line <= 2 * lanes and (self.attrs["dilations"] or (1, 1))[-1] == 1
        return line if pays and narrow else 0

    @property
    def _format(self) -> Format | None:
        """The format of vectors for these types."""
        return find_format(self.data.dtype, self.weight_type, self.target)

    @property
    def _may_use_unit(self) -> bool:
        """Whether there is a matrix unit for these types."""
        form = self._format
        return form is not None and matrix_format(form, self.target) is not form

    @property
    def filters(self) -> np.ndarray:
        """The constant filters as [G, O, C, *k]."""
        assert self.constant is not None
        return self.constant.reshape(self.dims)

    @property
    def planar(self) -> bool:
        """True if the input is read in NCHW: it has few channels, and no other operation has transposed
        it."""
        return (
            self.constant is not None
            and self._is_given(self.data)
            and self.groups == 1
            and 1 < self.channels <= PLANAR_CHANNELS
            and len(self.kernel_size) == 2
            and self.kernel_size[1] > 1
            and set(self.attrs["dilations"]) <= {1}
            and not (self._may_use_unit and math.prod(self.kernel_size) > PLANAR_TAPS)
        )

    @staticmethod
    def _is_given(value: Value) -> bool:
        """True for a model's input, possibly converted. For bytes also if it is quantized, and padded with
        its zero point."""
        node = value.node
        if value.dtype == "u8" and node.op.name == "Pad":
            node = node.inputs[0].node
        steps = QUANTIZING if value.dtype == "u8" else ("Convert",)
        while node.op.name in steps:
            node = node.inputs[0].node
        return node.op.role == "parameter"

    def arrange_weights(self) -> tuple[np.ndarray, Sequence[int], Sequence[int]] | None:
        rank = len(self.kernel_size)
        assert self.constant is not None
        if self.planar:
            return self.constant, self.dims, (0, 2, 3, 4, 1)  # C, taps, O
        if self.shuffle:
            runs = (self.groups, self.outs, self.channels // self.shuffle, self.shuffle)
            return self.constant, runs, (0, 3, 2, 1)
        return self.constant, self.dims, (0, *range(3, 3 + rank), 2, 1)  # G, taps, C, O

    def window(self, extents: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
        """(strides, dilations, pads before, pads after) for these spatial extents."""
        strides, dilations, begin, end = map(list, resolve_window(self.attrs, extents, self.kernel_size))
        return strides, dilations, begin, end

    @property
    def odd(self) -> int:
        """The number of zero channels that pad the channels to whole words."""
        return 0 if self.planar or self.shuffle or self.gathered else -self.channels % self.form.group

    @made_once
    def leaves_out(self) -> bool:
        """Whether plans may skip taps that only read padding. Weights must be finite, as infinities and NaN
        count in padding too, and panels must have one width. Pixels that are multiplied less 128 have 128
        times the weights of all taps in their initial sums, so all taps must be multiplied."""
        if self.constant is None or self.planar or self.shuffle or self.gathered:
            return False
        if self.form.listed or self.form.flips:
            return False
        if self.form.words(self.channels) % self.form.step:
            return False  # a matrix unit reads whole lines of words
        sizes = panel_sizes(1, self.outs, self.target)
        return sizes.last in (0, sizes.width) and all_finite(self.constant)

    def taps_of(self, extents: Sequence[int], outs: Sequence[int]) -> list[tuple[int, int]]:
        """(first, last) tap along each dimension that reads data, for images of these extents; others are
        skipped. For static shapes `of_taps_that_meet_data` has removed them already. Tiles read weights
        sequentially, so taps of a line can only be skipped if it is the only line."""
        taps = [(0, k - 1) for k in self.kernel_size]
        if not self.leaves_out:
            return taps
        strides, dilations, begin, _ = self.window(extents)
        for i, k in enumerate(self.kernel_size):
            if k == 1:
                continue
            if i > 0 and len(taps) == 3:
                break  # a step of a volume goes over whole lines and planes
            first, last = taps_that_meet(extents[i], outs[i], k, strides[i], dilations[i], begin[i])
            if first == 0 and last == k - 1:
                break
            taps[i] = first, last
            if first != last:
                break
        return taps

    def halo(self, extents: Sequence[int], outs: Sequence[int]) -> list[tuple[int, int]]:
        """The zero halo of the input that the multiplied taps read. The last window may read less than the
        padding."""
        strides, dilations, begin, end = self.window(extents)
        halo = [(sym_int(b), sym_int(e)) for b, e in zip(begin, end, strict=True)]
        if is_static(outs):  # dynamic extents are not planned
            taps = self.taps_of(extents, outs)
            steps = zip(extents, self.kernel_size, strides, dilations, begin, strict=True)
            for i, (extent, kernel, stride, dilation, pad) in enumerate(steps):
                parts = (self._slabs(0, extents, outs) if i == 0 else []) or [(0, outs[i], taps[i])]
                if parts != [(0, outs[i], (0, kernel - 1))]:
                    first = [at * stride + low * dilation - pad for at, _, (low, _) in parts]
                    last = [(at + n - 1) * stride + high * dilation - pad for at, n, (_, high) in parts]
                    halo[i] = sym_max(0, *(-x for x in first)), sym_max(0, *(x + 1 - extent for x in last))
        if self.planar:  # a kernel's row is read in whole words
            halo[-1] = halo[-1][0], halo[-1][1] + -self.kernel_size[-1] % self.form.group
        if self.gathered:  # a line of a window is read as two bytes per lane
            more = ceil_div(2 * self.target.lanes - self.gathered, self.channels)
            halo[-1] = halo[-1][0], halo[-1][1] + more
        return [(0, 0), (0, self.odd), *halo]

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        data, outs = shape(self.data), shape(self.out)[2:]
        extents = [64 if isinstance(d, Interval) else d for d in data[2:]]
        halo = self.halo(extents, outs)
        if self.planar:
            return [(self.data, Layout(range(4), halo))]
        return [(self.data, channels_last(len(data), halo, self.gap))]

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return channels_last(len(self.out.shape))

    def weights_of(self, planner: Planner) -> tuple[Weights, Sequence[View]]:
        """(the weights that this plan reads, the views with the weights if they are not constants)."""
        return self.weights, ()

    def plan(self, planner: Planner) -> None:
        weights, more = self.weights_of(planner)
        shape = planner.shape(self.data)
        out_shape = planner.shape(self.out)
        strides, dilations, begin, _ = self.window(shape[2:])
        words = self.form.words
        halo = self.halo(shape[2:], out_shape[2:])
        if self.planar:
            self._plan_planar(planner, Layout(range(4), halo), weights, begin, strides)
            return
        x = planner.with_halo(self.data, halo)
        if self.gathered and (x.strides[1], x.strides[3]) != (1, self.channels):
            x = planner.copy(self.data, channels_last(4, halo))
        size = x.itemsize
        y = planner.channels_last_output(self.out, over=self.over(planner, x))
        if len(shape) == 5:
            self.plan_volume(planner, x, y, strides, dilations, begin, weights, more)
            return
        if len(shape) == 3:  # one spatial dimension: a row
            x_h, x_w = 0, x.strides[2]
            sh, (sw,), dh, (dw,), ph, (pw,) = 1, strides, 1, dilations, 0, begin
            axes: tuple[int | None, ...] = (0, None, 2)
        else:
            x_h, x_w = x.strides[2:]
            (sh, sw), (dh, dw), (ph, pw) = strides, dilations, begin
            axes = (0, 2, 3)
        channels = self.channels + self.odd
        run = self.channels // (self.shuffle or 1)
        regions = self._regions(shape[2:], out_shape[2:])
        for (first, height, (top, bottom)), (left_most, width, (left, right)) in regions:
            kh, kw = bottom - top + 1, right - left + 1
            if self.shuffle:
                taps = (self.shuffle, x.shape[1] // self.shuffle * size, 1, 0, words(run))
            elif self.gathered:
                taps = (1, 0, 1, 0, words(kh * self.gathered))
            elif dw == 1 and x_w == channels * size and self.groups == 1:
                taps = (kh, dh * x_h, 1, 0, words(kw * channels))
            else:
                taps = (kh, dh * x_h, kw, dw * x_w, words(channels))
            skipped = (top * self.kernel_size[-1] + left) * words(channels)
            spans = ((first, height), (left_most, width))

            def part(view: View, spans: Sequence[tuple[int, int]] = spans) -> View:
                for axis, span in zip(axes[1:], spans, strict=True):
                    view = view if axis is None or len(regions) == 1 else view.slice(axis, *span)
                return view

            self.emit(
                planner, x, part(y), (out_shape[0], height, width), (x.strides[0], sh * x_h, sw * x_w), axes,
                taps, run * size, weights.after(skipped),
                (first * sh + top * dh - ph) * x_h + (left_most * sw + left * dw - pw) * x_w, part, more=more,
                lines=(kh, dh * x_h),
            )  # fmt: skip

    def _plan_planar(
        self, planner: Planner, layout: Layout, weights: Weights, begin: Sequence[int], strides: Sequence[int]
    ) -> None:
        """A step that reads the input plane by plane, with this halo."""
        x = planner.with_layout(self.data, layout)
        y = planner.channels_last_output(self.out)
        kh, kw = self.kernel_size
        x_n, x_c, x_h, x_w = x.strides
        self.emit(
            planner, x, y, (y.shape[0], *y.shape[2:]), (x_n, strides[0] * x_h, strides[1] * x_w), (0, 2, 3),
            (self.channels, x_c, kh, x_h, self.form.words(kw)), 0, weights, -begin[0] * x_h - begin[1] * x_w,
        )  # fmt: skip

    def _regions(self, extents: Sequence[int], outs: Sequence[int]) -> list[tuple[Slab, Slab]]:
        """(rows, columns) of regions of an output of one or two dimensions whose windows read data with the
        same taps. Tiles read weights sequentially, so columns differ only where one line of taps is read."""
        taps = self.taps_of(extents, outs)
        rows: list[Slab] = [(0, 1, (0, 0))]
        if len(outs) == 2:
            rows = self._slabs(0, extents, outs) or [(0, outs[0], taps[0])]
        regions = []
        for slab in rows:
            _, count, (low, high) = slab
            columns = self._slabs(-1, extents, (count, outs[-1])) if low == high else []
            regions += [(slab, each) for each in columns or [(0, outs[-1], taps[-1])]]
        return regions

    def plan_volume(
        self, planner: Planner, x: View, y: View, strides: Sequence[int], dilations: Sequence[int],
        begin: Sequence[int], weights: Weights, more: Sequence[View],
    ) -> None:  # fmt: skip
        """Three spatial dimensions: one step per volume, or per group of slices whose windows read data with
        the same taps along the first dimension. There are often few such groups. The tile loops over two
        dimensions of the window; the third is part of the depth."""
        channels = self.channels + self.odd
        if x.strides[4] != channels * x.itemsize:
            x = planner.copy(self.data, Layout((0, 2, 3, 4, 1), self.halo(x.shape[2:], y.shape[2:])))
        _, kh, kw = self.kernel_size
        x_n, _, x_d, x_h, x_w = x.strides
        depth = self.form.words(kw * channels)
        origin = -begin[0] * x_d - begin[1] * x_h - begin[2] * x_w
        moves = (strides[0] * x_d, strides[1] * x_h, strides[2] * x_w)
        extents, outs = x.shape[2:], y.shape[2:]
        slabs = self._slabs(0, extents, outs) or [(0, outs[0], self.taps_of(extents, outs)[0])]
        for n, (first, count, (low, high)) in itertools.product(range(y.shape[0]), slabs):

            def part(view: View, n: int = n, first: int = first, count: int = count) -> View:
                return view.slice(0, n, 1).slice(2, first, count)

            self.emit(
                planner, x, part(y), (count, *y.shape[3:]), moves, (2, 3, 4),
                (high - low + 1, dilations[0] * x_d, kh, dilations[1] * x_h, depth), 0,
                weights.after(low * kh * depth),
                origin + n * x_n + first * moves[0] + low * dilations[0] * x_d, part, more=more,
            )  # fmt: skip

    def _slabs(self, axis: int, extents: Sequence[int], outs: Sequence[int]) -> list[Slab]:
        """The slabs along a dimension of the output in which windows read data with the same taps. Empty if
        they save too little: partial tiles cost more, and each slab reads its taps' weights."""
        strides, dilations, begin, _ = self.window(extents)
        extent, out, kernel = extents[axis], outs[axis], self.kernel_size[axis]
        stride, dilation, pad = strides[axis], dilations[axis], begin[axis]
        volume = len(self.kernel_size) == 3
        fixed = is_static((*self.data.shape[2:], *self.out.shape[2:]))
        if not self.leaves_out or not (volume or dilation > 1 or fixed):
            return []  # slabs of dynamic images would specialise each plan to its size, and save little
        rows = self.tile_pixels
        others = math.prod(n for i, n in enumerate(outs) if i != axis % len(outs))
        slabs = slabs_of_taps(extent, out, kernel, stride, dilation, pad)
        taps = sum(ceil_div(n * others, rows) * (high - low + 1) for _, n, (low, high) in slabs)
        first, last = taps_that_meet(extent, out, kernel, stride, dilation, pad)
        together = ceil_div(out * others, rows) * (last - first + 1)
        return slabs if taps * 100 < together * (100 - (0 if volume else SAVED)) else []


def as_images(view: View, volume: int | None) -> View:
    """The slices of a volume as images. `volume` None: `view` has images or sequences already."""
    return view if volume is None else view.slice(0, volume, 1).permute((2, 1, 3, 4))


class ComputedConvolution(TiledConvolution):
    """A convolution with non-constant filters: they are packed at run time, like the right-hand side of a
    matrix product."""

    def __init__(self, group: Group):
        filters = group.node.inputs[1].shape
        if not is_static(filters) or 0 in filters:
            raise NotNative
        super().__init__(group)
        if self.form.a not in WAYS or self.channels % self.form.group:
            raise NotNative
        self.kernels = (*self.kernels, *pack_kernels(self.target, self.form))

    def takes_lists(self) -> bool:
        return False

    def suits_matrices(self, form: Format) -> bool:
        return False

    def _take_bias(self) -> int:
        self.bias = None  # stays an operand of the epilogue: only constant weights are packed with a bias
        return 0

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        self.zeros, _ = self.pack_bias(constants, self.bias)

    def weights_of(self, planner: Planner) -> tuple[Weights, Sequence[View]]:
        matrix = filter_matrix(planner, self.node.inputs[1], self.grouped)
        packed, sizes = plan_panels(planner, matrix, self.form)
        return Weights(self.groups, self.outs, sizes, packed.ptr, self.zeros, 0), [packed]
