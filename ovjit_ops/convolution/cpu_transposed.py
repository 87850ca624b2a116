"""Transposed convolutions by the tile kernel, with one step per phase of the stride. Small groups use the
depthwise kernel.

Output pixel o = i*stride - pad + k*dilation reads input pixel i for the taps k for which i is an integer. A
stride s has s phases of o per dimension. The taps of a phase, and the pixels they read, are evenly spaced. So
a phase is an ordinary convolution of stride 1 that writes every s-th pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from ovjit.codegen.cpu.formats import F32, Format, find_format
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import Interval, is_static
from ovjit.graph.windows import transposed_pads
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Constants, Layout, Lowering, NotNative, Planner, Shapes, View, channels_last
from ovjit.records import NamedTuple
from ovjit.tiles.lowering import Tiled, tile_format
from ovjit.tiles.pack import pack_panels
from ovjit.tiles.sharing import Weights
from ovjit_ops.convolution.cpu_depthwise import ByChannels, Window, goes_by_channels

#: Maximum number of phases, the product of the strides. Each phase is a step of the plan.
MOST_PHASES = 1 << 16


class Phase(NamedTuple):
    """The outputs first, first + stride, ... of a dimension, `size` of them. Output j reads the input pixels
    start + j*step - t*back for t = 0, 1, ..., with the filter's tap taps[t]."""

    first: int
    size: int
    start: int
    step: int
    back: int
    taps: tuple[int, ...]


def phases(extent: int, kernel: int, stride: int, dilation: int, pad: int) -> list[Phase]:
    """The phases of a dimension with `extent` outputs. A phase may have no taps."""
    out = []
    common = math.gcd(stride, dilation)
    for first in range(min(stride, extent)):
        taps = tuple(k for k in range(kernel) if (first + pad - k * dilation) % stride == 0)
        start = (first + pad - taps[0] * dilation) // stride if taps else 0
        size = -(-(extent - first) // stride)
        out.append(Phase(first, size, start, 1, dilation // common, taps))
    return out


def tap_sets(kernel: int, stride: int, dilation: int) -> list[tuple[int, ...]]:
    """The distinct sets of taps of the phases of a dimension, () included if a phase has none. Computed from
    the taps, since strides are unbounded and most phases of a large stride are empty."""
    by_phase: dict[int, list[int]] = {}
    for k in range(kernel):
        by_phase.setdefault(k * dilation % stride, []).append(k)
    tap_lists = sorted(map(tuple, by_phase.values()))
    return [(), *tap_lists] if len(tap_lists) < stride else tap_lists


def has_tiles(node: Node, target: Target) -> bool:
    """Whether the filters are constant and the target has tiles for the types."""
    data, filters = node.inputs[:2]
    return filters.constant is not None and tile_format(data, filters, target) is not None


class TransposedConvolution(Tiled):
    """ConvolutionBackpropData and GroupConvolutionBackpropData with constant filters, of one to three spatial
    dimensions."""

    ranks = ((3, 4, 5),)
    channel_axis = 1

    def __init__(self, group: Group):
        anchor = group.node
        self.data = anchor.inputs[0]
        weights = anchor.inputs[1].constant
        if weights is None or not weights.size or not has_tiles(anchor, group.context.target):
            raise NotNative
        self.weight_type = anchor.inputs[1].dtype
        self.filters = weights if anchor.op.name.startswith("Group") else weights[None]
        self.groups, self.channels, self.outs, *kernel = self.filters.shape
        self.kernel_size = kernel
        self.attrs = anchor.attrs
        if math.prod(self.window()[0]) > MOST_PHASES:
            raise NotNative
        if any(map(self._has_joined_taps, itertools.product(*self._tap_sets()))):
            stride, dilation = (row[-1] for row in self.window())
            if self.groups > 1 or dilation // math.gcd(stride, dilation) > 1:
                raise NotNative
        super().__init__(group, "conv")
        if not is_static(self.data.shape):  # the reach of the last window depends on the extents
            self.pads = (self.data,)

    def suits_matrices(self, form: Format) -> bool:
        return True

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return channels_last(len(self.out.shape))

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        x, out = shape(self.data), shape(self.out)
        if any(isinstance(d, Interval) for d in (*x[2:], *out[2:])):
            open_halo = [(0, 0), (0, -self.channels % self.form.group), *[(0, 0)] * (len(x) - 2)]
            return [(self.data, channels_last(len(x), open_halo))]
        return [(self.data, channels_last(len(x), self.halo(x, self.grid(out, self._cut(x, out)))))]

    def _cut(self, shape: Sequence[int], out: Sequence[int]) -> tuple[int, ...]:
        """The padding at the beginning of each dimension, for inputs of `shape` and outputs of `out`."""
        requested = list(out[2:]) if len(self.node.inputs) > 2 else None
        return tuple(transposed_pads(shape[2:], self.kernel_size, requested, self.attrs)[0])

    def window(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        ones = (1,) * len(self.kernel_size)
        return tuple(self.attrs["strides"] or ones), tuple(self.attrs["dilations"] or ones)

    def grid(self, out: Sequence[int], begin: Sequence[int]) -> list[list[Phase]]:
        """The phases of each dimension."""
        strides, dilations = self.window()
        return [
            phases(*row) for row in zip(out[2:], self.kernel_size, strides, dilations, begin, strict=True)
        ]

    def halo(self, shape: Sequence[int], grid: list[list[Phase]]) -> list[tuple[int, int]]:
        halo = [(0, 0), (0, -self.channels % self.form.group)]  # whole words of channels
        for extent, row in zip(shape[2:], grid, strict=True):
            used = [p for p in row if p.taps and p.size]
            low = min((p.start - (len(p.taps) - 1) * p.back for p in used), default=0)
            high = max((p.start + (p.size - 1) * p.step for p in used), default=0)
            halo.append((max(0, -low), max(0, high - extent + 1)))
        return halo

    @staticmethod
    def _has_joined_taps(chosen: Sequence[tuple[int, ...]]) -> bool:
        """Whether a phase has several taps in each of three dimensions. The tile loops over two of them. The
        taps of the last one are read as one run of adjacent elements, in memory order."""
        return len(chosen) == 3 and all(len(taps) > 1 for taps in chosen)

    def _taps(self, chosen: Sequence[tuple[int, ...]]) -> np.ndarray:
        """The filters of a phase as [G, taps, C, O]."""
        picked = self.filters
        if self._has_joined_taps(chosen):
            chosen = (*chosen[:2], chosen[2][::-1])
        for axis, taps in enumerate(chosen, 3):
            picked = picked.take(list(taps), axis)
        order = (0, *range(3, picked.ndim), 1, 2)
        ordered = picked.transpose(order)
        return ordered.reshape(self.groups, math.prod(ordered.shape[1:-2]), self.channels, self.outs)

    def _tap_sets(self) -> list[list[tuple[int, ...]]]:
        """The distinct sets of taps per dimension. They do not depend on padding and extents."""
        strides, dilations = self.window()
        return [tap_sets(*row) for row in zip(self.kernel_size, strides, dilations, strict=True)]

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        bias = self.pack_bias(constants, self.bias)
        self.phases: dict[tuple, Weights] = {}
        for chosen in itertools.product(*self._tap_sets()):
            packed, sizes = pack_panels(self._taps(chosen), self.target, self.form)
            key = ("phase", self.form.name, id(self.node.inputs[1].constant), self.groups, chosen)
            at = constants.add(packed, key).offset
            self.phases[chosen] = Weights(self.groups, self.outs, sizes, at, *bias)

    def of_phase(self, row: Sequence[Phase]) -> Callable[[View], View]:
        """A function that returns the view of a phase's pixels, for the output and the operands of the
        epilogue."""
        strides, _ = self.window()

        def part(view: View) -> View:
            first = len(view.shape) - len(row)
            for axis, (phase, stride) in enumerate(zip(row, strides, strict=True), first):
                view = view.slice(axis, phase.first, phase.size, stride)
            return view

        return part

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        grid = self.grid(out, self._cut(shape, out))
        halo = self.halo(shape, grid)
        x = planner.with_halo(self.data, halo)
        y = planner.channels_last_output(self.out)
        rank = len(shape) - 2
        pixel = (self.channels + halo[1][1]) * x.itemsize
        if rank == 3 and self.groups == 1 and x.strides[4] != pixel:
            x = planner.copy(self.data, Layout((0, 2, 3, 4, 1), halo))
        moves = x.strides[2:]
        for row in itertools.product(*grid):
            chosen = tuple(phase.taps for phase in row)
            origin = sum(phase.start * move for phase, move in zip(row, moves, strict=True))
            sizes = tuple(phase.size for phase in row)
            loops = [(len(p.taps), -p.back * m) for p, m in zip(row, moves, strict=True)]
            words = self.form.words(self.channels)
            if self._has_joined_taps(chosen):
                count, back = loops.pop()
                origin += (count - 1) * back
                words = self.form.words(count * (self.channels + halo[1][1]))
            if not all(chosen):
                loops = [(0, 0)]
            loops = [loop for loop in loops if loop[0] != 1]
            (n1, s1), (n2, s2) = ([(1, 0)] * 2 + loops)[-2:]
            taps = (n1, s1, n2, s2, words)

            part = self.of_phase(row)
            depth, weights = self.channels * x.itemsize, self.phases[chosen]
            if rank < 3:
                images, along = [out[0], *sizes], [x.strides[0], *moves]
                axes: list[int | None] = [0, *range(2, len(shape))]
                if rank == 1:
                    images[1:1], along[1:1], axes[1:1] = [1], [0], [None]
                self.emit(planner, x, part(y), images, along, axes, taps, depth, weights, origin, part)
                continue
            for n in range(y.shape[0]):  # a tile has three dimensions of pixels, so each step has one image

                def picture(view: View, n: int = n, part: Callable[[View], View] = part) -> View:
                    return part(view.slice(0, n, 1))

                self.emit(
                    planner, x, picture(y), sizes, moves, (2, 3, 4), taps, depth, weights,
                    origin + n * x.strides[0], picture,
                )  # fmt: skip


class DepthwiseTransposed(ByChannels, TransposedConvolution):
    """GroupConvolutionBackpropData with small groups, such as one input and one output channel each. Each
    phase of the stride is a depthwise convolution with its own taps."""

    def make_kernel(self, names: str) -> Kernel:
        strides, dilations = self.window()
        spread = dilations[-1] // math.gcd(dilations[-1], strides[-1])
        #: Lengths of the rows of taps of a phase -> kernel.
        self.by_taps: dict[tuple[int, ...], Kernel] = {}
        for chosen in itertools.product(*self._tap_sets()):
            size = tuple(map(len, chosen))
            if size not in self.by_taps:
                self.by_taps[size] = self.window_kernel(names, size, 1, spread)
        self.kernels = (*self.by_taps.values(),)
        return self.kernels[0]

    @staticmethod
    def _has_joined_taps(chosen: Sequence[tuple[int, ...]]) -> bool:
        return False

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        self.place_bias(constants)
        self.weights_of: dict[tuple, int] = {}
        for chosen in itertools.product(*self._tap_sets()):
            picked = self.filters.swapaxes(1, 2)
            for axis, taps in enumerate(chosen, 3):  # reversed: the last tap reads the first pixel
                picked = picked.take(taps[::-1], axis)
            key = self.of_node(self.form.acc, chosen)
            self.weights_of[chosen] = self.place_filters(constants, picked, key)

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        grid = self.grid(out, self._cut(shape, out))
        x = planner.with_halo(self.data, self.halo(shape, grid), self.gap)
        y = planner.channels_last_output(self.out)
        for row in itertools.product(*grid):
            chosen = tuple(phase.taps for phase in row)
            size = tuple(map(len, chosen))
            first = [phase.start - (len(phase.taps) - 1) * phase.back for phase in row]
            origin = sum(at * move for at, move in zip(first, x.strides[2:], strict=True))
            back = tuple(phase.back for phase in row)
            window = Window(size, (1,) * len(row), back, origin, shape[-1] + size[-1])
            part = self.of_phase(row)
            self.emit_window(planner, self.by_taps[size], self.weights_of[chosen], x, part(y), window, part)


def is_depthwise(node: Node, target: Target) -> bool:
    """Whether the filters are constant, of f32 and small groups, and each phase of the stride has taps."""
    data, filters = node.inputs[:2]
    if not node.op.name.startswith("Group") or filters.constant is None or not filters.constant.size:
        return False
    kernel = filters.shape[3:]
    ones = (1,) * len(kernel)
    window = (kernel, node.attrs["strides"] or ones, node.attrs["dilations"] or ones)
    sets = [tap_sets(*row) for row in zip(*window, strict=True)]
    real = find_format(data.dtype, filters.dtype, target) is F32
    taps = [max(map(len, row), default=0) for row in sets]
    return real and all(map(all, sets)) and goes_by_channels(node, taps, target)


def lower_transposed(group: Group) -> Lowering | None:
    """The depthwise lowering for small groups, else the tiled one."""
    by_channels = is_depthwise(group.node, group.context.target)
    return (DepthwiseTransposed if by_channels else TransposedConvolution).of(group)
