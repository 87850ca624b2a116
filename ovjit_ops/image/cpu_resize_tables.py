"""Tables of a resize: computed when planning if sizes are known, by a step if they are dynamic.

    starts    i32: [0] the number of taps (nearest: 0), [1] whether the inputs of every vector of outputs
              fit into a vector; from HEAD on, the first element that each output reads
    weights   f32

The kernels compute the same tables as `ovjit_ops.image.resampling`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.symbolic import sym_max
from ovjit.planning.launch import launch
from ovjit.planning.plan import Planner, ceil_div
from ovjit.planning.views import View
from ovjit.records import NamedTuple
from ovjit_ops.image.resampling import COORDINATES, NEAREST, Resized, axis_table
from ovjit_ops.image.resampling import Table as Taps

#: Elements before the starts.
HEAD = 16
HALF_PIXEL, PYTORCH_HALF_PIXEL, ASYMMETRIC, TF_HALF_PIXEL_FOR_NN, ALIGN_CORNERS, PILLOW = range(6)
ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, FLOOR, CEIL, SIMPLE = range(5)
#: The largest f32 below 0.5. Adding it before truncation rounds to the nearest integer.
BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))


@inline
def note_coordinates(numbers, outputs, extent, coordinate):
    """scratch[o] = the input coordinate of output o, in f32. `numbers[0]`: the scale, 0 for outputs /
    extent."""
    scale = splat[f32](numbers)
    if lane[f32](scale, 0) == 0.0:
        scale = cast[f32](spread[f64](outputs * 1.0)) / cast[f32](spread[f64](extent * 1.0))
    unscaled = lane[f32](scale, 0) == 1.0
    last_in = cast[f32](spread[f64](extent - 1.0))
    last_out = cast[f32](spread[f64](outputs - 1.0))
    for o in range(0, outputs, VL):
        at = load[f32](numbers + 64) + cast[f32](spread[f64](o * 1.0))
        if not unscaled:
            if coordinate == HALF_PIXEL or (coordinate == PYTORCH_HALF_PIXEL and outputs > 1):
                at = (at + const[f32](0.5)) / scale - const[f32](0.5)
            elif coordinate == ASYMMETRIC:
                at = at / scale
            elif coordinate == TF_HALF_PIXEL_FOR_NN:
                at = (at + const[f32](0.5)) / scale
            elif coordinate == ALIGN_CORNERS and outputs > 1:
                at = at * last_in / last_out
            else:
                at = const[f32](0.0)
        store[f32](scratch + o * 4, at)


class NearestSizes(NamedTuple):
    """Outputs, the extent of the input, and the modes of coordinates and of rounding."""

    outputs: int
    extent: int
    coordinate: int
    rounding: int


@kernel(starts="", numbers="", sizes=NearestSizes)
def nearest_table(starts: Tensor, numbers: Tensor, sizes):
    """Store the input element of each output."""
    note_coordinates(numbers, sizes.outputs, sizes.extent, sizes.coordinate)
    st[i32](starts, 0)
    scale = splat[f32](numbers)
    downscales = lane[f32](scale, 0) < 1.0
    if lane[f32](scale, 0) == 0.0:
        downscales = sizes.outputs < sizes.extent
    last = cast[f32](spread[f64](sizes.extent - 1.0))
    for o in range(0, sizes.outputs, VL):
        at = load[f32](scratch + o * 4)
        before = const[f32](BELOW_HALF)
        nearest = trunc(at + select(at < const[f32](0.0), const[f32](0.0) - before, before))
        if sizes.rounding == ROUND_PREFER_FLOOR:
            nearest = select(at == trunc(at) + const[f32](0.5), floor(at), nearest)
        elif sizes.rounding == FLOOR:
            nearest = floor(at)
        elif sizes.rounding == CEIL or (sizes.rounding == SIMPLE and downscales):
            nearest = ceil(at)
        elif sizes.rounding == SIMPLE:
            nearest = trunc(at)
        nearest = minimum(maximum(nearest, const[f32](0.0)), last)
        storem[i32](starts + (HEAD + o) * 4, trunc_int[i32](nearest), sizes.outputs - o)


class FilterSizes(NamedTuple):
    """Outputs, the extent of the input, and the modes of coordinates and weights (see `filter_table`)."""

    outputs: int
    extent: int
    coordinate: int
    cubic: int
    clamp_taps: int
    clamp_coordinates: int
    antialias: int


@inline
def filter_weights(sums, first, taps, at, low, stop, inverse_width, support, cubic_coeff, cubic, extent):
    """Compute the weights of positions from `low` to `stop` around `at`, and add them up for `taps` elements
    from `first` on: positions outside count for the edge. Returns the sum of weights.

    `support`: the radius of the filter in elements. `inverse_width`: 1 / the factor by which it is stretched.
    """
    for t in range(taps):
        st[f64](sums + t * 8, 0.0)
    total = 0.0
    for position in range(low, stop):
        d = (at - position) * inverse_width
        if d < 0.0:
            d = 0.0 - d
        w = 1.0 - d
        if cubic != 0:
            w = ((cubic_coeff + 2.0) * d - (cubic_coeff + 3.0)) * d * d + 1.0
            if d >= 1.0:
                w = ((cubic_coeff * d - 5.0 * cubic_coeff) * d + 8.0 * cubic_coeff) * d - 4.0 * cubic_coeff
        if d >= support * inverse_width:
            w = 0.0
        total += w
        q = sums + (min(max(position, 0), extent - 1) - first) * 8
        st[f64](q, ld[f64](q) + w)
    return total


@kernel(starts="", weights="", numbers="", sizes=FilterSizes)
def filter_table(starts: Tensor, weights: Tensor, numbers: Tensor, sizes):
    """weights[o, t] of the elements around the coordinate of o. With `clamp_taps`, positions outside count
    for the element at the edge. Otherwise they are ignored, and the weights are normalized.
    `clamp_coordinates`: coordinates are clamped first."""
    cubic_coeff = ld[f64](numbers + 8)
    step = sizes.extent * 1.0 / sizes.outputs
    support = 1.0 + sizes.cubic
    inverse_width = 1.0
    if sizes.coordinate == PILLOW:
        if step > 1.0:
            inverse_width = 1.0 / step
    else:
        note_coordinates(numbers, sizes.outputs, sizes.extent, sizes.coordinate)
        if sizes.antialias != 0:
            inverse_width = ld[f32](numbers) * 1.0
            if inverse_width == 0.0:
                scale = cast[f32](spread[f64](sizes.outputs * 1.0)) / cast[f32](
                    spread[f64](sizes.extent * 1.0)
                )
                inverse_width = lane[f32](scale, 0) * 1.0
    support = support / inverse_width
    sums = scratch + (sizes.outputs + VL) // 2 * 2 * 4 + 64
    taps = 1
    for turn in range(2):
        for o in range(sizes.outputs):
            at = (o + 0.5) * step - 0.5
            if sizes.coordinate != PILLOW:
                at = ld[f32](scratch + o * 4) * 1.0
            if sizes.clamp_coordinates != 0:
                if at < 0.0:
                    at = 0.0
                if at > sizes.extent - 1.0:
                    at = sizes.extent - 1.0
            low = to_int((at - support) // 1.0) + 1
            stop = 0 - to_int((0.0 - at - support) // 1.0)
            if sizes.clamp_taps == 0:
                low = max(low, 0)
                stop = min(stop, sizes.extent)
            first = min(max(low, 0), sizes.extent - 1)
            last = min(max(stop - 1, 0), sizes.extent - 1)
            if turn == 0:
                taps = max(taps, last - first + 1)
            else:
                first = min(first, sizes.extent - taps)
                total = filter_weights(
                    sums, first, taps, at, low, stop, inverse_width, support, cubic_coeff, sizes.cubic,
                    sizes.extent,
                )  # fmt: skip
                if sizes.clamp_taps != 0 or total == 0.0:
                    total = 1.0
                st[i32](starts + (HEAD + o) * 4, first)
                for t in range(taps):
                    weight = cast[f32](spread[f64](ld[f64](sums + t * 8) / total))
                    st[f32](weights + (o * taps + t) * 4, lane[f32](weight, 0))
    st[i32](starts, taps)


@kernel(starts="", weights="", across="", spread_weights="", within="n")
def spread_table(
    starts: Tensor, weights: Tensor, across: Tensor, spread_weights: Tensor, within: Tensor, outputs, c,
    permutes,
):  # fmt: skip
    """The table for c adjacent channels as lanes: one row of n elements, weights [taps, n]. If the inputs of
    every vector fit into a vector, `across` has the start of that vector, and `within` the offsets in it.
    `permutes`: vectors can be permuted."""
    taps = ld[i32](starts) + 0
    n = within.size.n
    fits_vector = permutes
    for t in range(taps):
        store[f32](spread_weights + (t * n + n - VL) * 4, const[f32](0.0))
    for o in range(outputs):
        first = (ld[i32](starts + (HEAD + o) * 4) + 0) * c
        for i in range(c):
            st[i32](across + (HEAD + o * c + i) * 4, first + i)
            for t in range(taps):
                w = ld[f32](weights + (o * taps + t) * 4)
                st[f32](spread_weights + (t * n + o * c + i) * 4, w)
    for k in range(outputs * c, n):
        st[i32](across + (HEAD + k) * 4, ld[i32](across + (HEAD + outputs * c - 1) * 4))
    for k in range(0, n, VL):
        v = load[i32](across + (HEAD + k) * 4)
        if hmax[i32](v) - hmin[i32](v) >= VL:
            fits_vector = 0
    st[i32](across, taps)
    st[i32](across + 4, fits_vector)
    if fits_vector != 0:
        for k in range(0, n, VL):
            v = load[i32](across + (HEAD + k) * 4)
            low = spread[i32](hmin[i32](v))
            store[i32](within + k * 4, v - low)
            store[i32](across + (HEAD + k) * 4, low)


class AxisTable(NamedTuple):
    """The table of one axis: views of starts and weights, and the maximum number of taps."""

    starts: View
    weights: View
    taps: int


class Tables:
    """The tables of one resize, each made once. `attrs`: the operation's; `open_axes`: which axes have
    dynamic sizes. `nearest`: elements are moved without weights."""

    def __init__(self, planner: Planner, attrs: dict[str, Any], open_axes: Sequence[bool]):
        self.planner = planner
        self.attrs = attrs
        self.open = open_axes
        self.nearest = attrs["mode"] == "nearest"
        self.lanes = planner.target.lanes
        self._tables: dict[int, Any] = {}

    def find_table(self, one: Resized) -> Taps:
        """The starts and weights of an axis of static sizes."""
        return axis_table(one, self.attrs)

    def of(self, axis: int, one: Resized) -> AxisTable:
        """The table of an axis whose outputs are processed one by one."""
        if axis not in self._tables:
            if self.open[axis]:
                self._tables[axis] = self._table_step(one)
            else:
                table = self.find_table(one)
                self._tables[axis] = self._constant_table(table.start, table.weight, table.taps, False)
        return self._tables[axis]

    def none(self) -> AxisTable:
        """The table of one output that equals the first input."""
        return self._constant_table(np.zeros(1, np.int64), np.ones((1, 1)), 1, False)

    def across(self, axis: int, one: Resized, c: int, size: int) -> tuple[AxisTable, View, int]:
        """(table, offsets within vectors, length of a row of weights) of an axis whose elements, c channels
        of `size` bytes each, are in lanes."""
        if axis not in self._tables:
            self._tables[axis] = self._across(axis, one, c, size)
        return self._tables[axis]

    def _across(self, axis: int, one: Resized, c: int, size: int) -> tuple[AxisTable, View, int]:
        n = ceil_div(one.outputs * c, self.lanes) * self.lanes
        permutes = not self.nearest or size == 4
        if not self.open[axis]:
            c, n = int(c), int(n)  # the constants below are for this number of channels
            table = self.find_table(one)
            every = (table.start[:, None] * c + np.arange(c)).reshape(-1)
            start = np.pad(every, (0, n - len(every)), mode="edge").reshape(-1, self.lanes)
            low = start.min(1, keepdims=True)
            within = start - low
            fits_vector = permutes and bool((within < self.lanes).all())
            weight = np.zeros((table.taps, n))
            weight[:, : one.outputs * c] = np.repeat(table.weight, c, 0).T
            start = start - within if fits_vector else start
            placed = self._constant_table(start, weight, table.taps, fits_vector)
            return placed, self.planner.data.view(within.reshape(-1).astype(np.int32), "i32"), n
        planner, small = self.planner, self._table_step(one)
        taps = 1 if self.nearest else small.taps
        starts, weights = planner.allocate((HEAD + n,), 4), planner.allocate((taps * n,), 4)
        within = planner.allocate((n,), 4)
        tensors = {"starts": small.starts, "weights": small.weights, "across": starts}
        tensors |= {"spread_weights": weights, "within": within}
        launch(
            planner, spread_table(), tensors, ("across", "spread_weights", "within"), flops=n * taps,
            outputs=one.outputs, c=c, permutes=int(permutes),
        )  # fmt: skip
        return AxisTable(starts, weights, small.taps), within, n

    def _constant_table(
        self, start: np.ndarray, weight: np.ndarray, taps: int, fits_vector: bool
    ) -> AxisTable:
        table = np.zeros(HEAD + start.size, np.int32)
        table[:2] = 0 if self.nearest else taps, fits_vector
        table[HEAD:] = start.reshape(-1)
        data = self.planner.data
        return AxisTable(data.view(table, "i32"), data.view(weight.astype(np.float32), "f32"), taps)

    def _table_step(self, one: Resized) -> AxisTable:
        planner, attrs, outputs, extent = self.planner, self.attrs, one.outputs, one.extent
        pillow, pillow_cubic = attrs["mode"].endswith("pillow"), attrs["mode"].endswith("cubic_pillow")
        cubic = pillow_cubic or attrs["mode"] == "cubic"
        taps: Any = 4 if cubic else 2
        if pillow:
            taps = taps * sym_max(extent, outputs) // outputs + 2
        elif attrs["mode"] == "linear" and one.antialias:
            taps = 2 * extent // outputs + 3 if one.requested is None else math.ceil(2 / one.requested) + 2
        numbers = np.zeros(16 + self.lanes, np.float32)
        numbers[0] = one.requested or 0
        numbers[2:4] = np.array([-0.5 if pillow else attrs["cube_coeff"]]).view(np.float32)
        numbers[16:] = np.arange(self.lanes)
        tensors = {"starts": planner.allocate((HEAD + outputs,), 4)}
        tensors["numbers"] = planner.data.view(numbers, "f32")
        coordinate = COORDINATES.index(attrs["coordinate_transformation_mode"])
        planner.need_scratch((outputs + 2 * self.lanes) * 4 + taps * 8 + 64)
        if self.nearest:
            sizes = NearestSizes(outputs, extent, coordinate, NEAREST.index(attrs["nearest_mode"]))
            launch(planner, nearest_table(), tensors, ("starts",), flops=10 * outputs, sizes=sizes)
            return AxisTable(tensors["starts"], tensors["starts"], 1)
        tensors["weights"] = planner.allocate((outputs * taps,), 4)
        filtered = FilterSizes(
            outputs, extent, PILLOW if pillow else coordinate, int(cubic), int(attrs["mode"] == "cubic"),
            int(attrs["mode"] == "linear_onnx"), int(attrs["mode"] == "linear" and one.antialias),
        )  # fmt: skip
        flops = 20 * outputs * taps
        launch(planner, filter_table(), tensors, ("starts", "weights"), flops=flops, sizes=filtered)
        return AxisTable(tensors["starts"], tensors["weights"], taps)
