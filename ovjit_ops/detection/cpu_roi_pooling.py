"""Native ROIPooling and PSROIPooling in f32: channels last, vectors of channels.

A chunk is a range of (region, row of bins). Bounds of bins are computed in f64 and clamped to the map.
Coordinates of bilinear samples are computed in f64; samples outside of the map are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.graph import Value
from ovjit.planning.lower import ChannelsLast, NotNative, Planner, View, ceil_div, launch
from ovjit.planning.views import Ptr as Place
from ovjit.records import NamedTuple

#: Bound of rounded corners, which may be infinite.
FAR = 1 << 30


@inline
def image_of(roi, images):
    """The image of a region: -1 for an ignored one, `images` if it is out of range."""
    number = ld[f32](roi) * 1.0
    image = -1
    if number >= 0.0:
        image = images
        if number < images:
            image = to_int(number)
    return image


@inline
def interpolate(v00, v01, v10, v11, dx, dy):
    """Bilinear interpolation: dy from the row v00, v01 to the row v10, v11, and dx along rows."""
    one = const[f32](1.0)
    upper = fma(v01, dx, v00 * (one - dx))
    lower = fma(v11, dx, v10 * (one - dx))
    return fma(lower, dy, upper * (one - dy))


@inline
def round_coordinate(x):
    """x rounded, ties away from zero, and clamped to +-FAR."""
    if x >= 0.0:
        near = min(to_int(x + 0.5), FAR)
    else:
        near = max(to_int(x - 0.5), -FAR)
    return near


@inline
def at_least(x, least):
    """x, but at least `least`."""
    value = x
    if value < least:
        value = least
    return value


@inline
def bound(coordinate, extent):
    """The first element of a bin along an axis."""
    return min(max(to_int(coordinate // 1.0), 0), extent)


@inline
def take_channels(acc, p, step, channels, mean, vectors):
    """Add `channels` channels of an element, `step` bytes apart, to the sums (`mean`), or update the maxima
    by them."""
    for v in static_range(vectors):
        if mean:
            acc[v] = acc[v] + gather[f32](p + v * VL * step, step, channels - v * VL)
        else:
            acc[v] = maximum(acc[v], loadm[f32](p + v * VL * 4, channels - v * VL))


@kernel(over="r ph", x="n maps:1 h w", rois="r k", y="r c ph pw")
def roi_pooling(x: Tensor, rois: Tensor, settings: Ptr, y: Tensor, step, *, mean, vectors):
    """The mean or the maximum of each bin, `vectors` vectors of channels at a time. `step`: byte stride in x
    between the channels of a bin."""
    acc = registers()
    scale = ld[f64](settings)
    before = ld[f64](settings + 8)
    h = x.size.h
    w = x.size.w
    c = y.size.c
    ph = y.size.ph
    pw = y.size.pw
    for _, i, roi, row_of_bins in items(rois, y):
        image = image_of(roi, x.size.n)
        if image >= x.size.n:
            return 1
        x1 = round_coordinate(ld[f32](rois.at(roi, k=1)) * before)
        y1 = round_coordinate(ld[f32](rois.at(roi, k=2)) * before)
        x2 = round_coordinate(ld[f32](rois.at(roi, k=3)) * before)
        y2 = round_coordinate(ld[f32](rois.at(roi, k=4)) * before)
        if mean:
            left = x1 * scale
            top = y1 * scale
            w_roi = at_least((x2 + 1) * scale - left, 0.1)
            h_roi = at_least((y2 + 1) * scale - top, 0.1)
        else:  # in whole elements
            left = x1 * 1.0
            top = y1 * 1.0
            w_roi = max(x2 - x1 + 1, 1) * 1.0
            h_roi = max(y2 - y1 + 1, 1) * 1.0
        y0 = bound(i * h_roi / ph + top, h)
        y9 = min(max(to_int(0.0 - (0.0 - ((i + 1) * h_roi / ph + top)) // 1.0), 0), h)
        for j in range(pw):
            x0 = bound(j * w_roi / pw + left, w)
            x9 = min(max(to_int(0.0 - (0.0 - ((j + 1) * w_roi / pw + left)) // 1.0), 0), w)
            elements = 0
            if image >= 0:
                elements = max(x9 - x0, 0) * max(y9 - y0, 0)
            source = x.at(n=max(image, 0))
            if mean:
                source += (i * pw + j) * 4
            target = y.at(row_of_bins, pw=j)
            for k in range(0, c, VL * vectors):
                for v in static_range(vectors):
                    acc[v] = const[f32](0.0 if mean else -inf)
                if elements > 0:
                    for a in range(y0, y9):
                        p = x.at(source, h=a, w=x0) + k * step
                        for _ in range(x0, x9):
                            take_channels(acc, p, step, c - k, mean, vectors)
                            p += x.stride.w
                for v in static_range(vectors):
                    best = acc[v]
                    if elements == 0:
                        best = const[f32](0.0)
                    elif mean:
                        best = best / cast[f32](spread[i64](elements))
                    remaining = c - k - v * VL
                    if remaining > 0:
                        store_spaced(y.at(target, c=k + v * VL), y.stride.c, best, remaining, f32)


@inline
def sample_at(first, last, i, count, extent):
    """The i-th of `count` coordinates from `first` to `last`, given as fractions of the extent. A single one
    is in the middle."""
    at = 0.5 * (first + last) * (extent - 1)
    if count > 1:
        at = i * ((last - first) * (extent - 1) / (count - 1)) + first * (extent - 1)
    if count > 1 and i == count - 1:  # rounding must not place it outside
        at = last * (extent - 1)
    return at


class Bins(NamedTuple):
    """The number of parts of a region along y and x."""

    y: int
    x: int


@kernel(over="r ph", x="n maps:1 h w", rois="r k", y="r c ph pw", bins=Bins)
def roi_samples(x: Tensor, rois: Tensor, settings: Ptr, y: Tensor, bins, *, parts):
    """Bilinear samples, 0 outside of the map. `parts`: means over bins.y x bins.x parts of the region, each
    of which has its own channels."""
    scale = ld[f64](settings)
    h = x.size.h
    w = x.size.w
    c = y.size.c
    ph = y.size.ph
    pw = y.size.pw
    for _, i, roi, row_of_bins in items(rois, y):
        image = image_of(roi, x.size.n)
        if image >= x.size.n:
            return 1
        x1 = ld[f32](rois.at(roi, k=1)) * scale
        y1 = ld[f32](rois.at(roi, k=2)) * scale
        x2 = ld[f32](rois.at(roi, k=3)) * scale
        y2 = ld[f32](rois.at(roi, k=4)) * scale
        source = x.at(n=max(image, 0))
        for j in range(pw):
            for k in range(0, c, VL):
                store[f32](scratch + k * 4, const[f32](0.0))
            for v in range(bins.y):
                if parts:
                    py = sample_at(y1 + v * (y2 - y1) / bins.y, y1 + (v + 1) * (y2 - y1) / bins.y, i, ph, h)
                else:  # without the rounding of differences
                    py = sample_at(y1, y2, i, ph, h)
                for u in range(bins.x):
                    if parts:
                        px = sample_at(
                            x1 + u * (x2 - x1) / bins.x, x1 + (u + 1) * (x2 - x1) / bins.x, j, pw, w
                        )
                    else:
                        px = sample_at(x1, x2, j, pw, w)
                    if image >= 0 and py >= 0.0 and py <= h - 1.0 and px >= 0.0 and px <= w - 1.0:
                        i0 = to_int(py)
                        j0 = to_int(px)
                        dy = cast[f32](spread[f64](py - i0))
                        dx = cast[f32](spread[f64](px - j0))
                        p = x.at(source, h=i0, w=j0) + (v * bins.x + u) * c * 4
                        right = (min(j0 + 1, w - 1) - j0) * x.stride.w
                        below = (min(i0 + 1, h - 1) - i0) * x.stride.h
                        for k in range(0, c, VL):
                            q = p + k * 4
                            v00 = loadm[f32](q, c - k)
                            v01 = loadm[f32](q + right, c - k)
                            v10 = loadm[f32](q + below, c - k)
                            v11 = loadm[f32](q + below + right, c - k)
                            sample = interpolate(v00, v01, v10, v11, dx, dy)
                            store[f32](scratch + k * 4, load[f32](scratch + k * 4) + sample)
            target = y.at(row_of_bins, pw=j)
            for k in range(0, c, VL):
                acc = load[f32](scratch + k * 4)
                if parts:
                    acc = acc / cast[f32](spread[i64](bins.y * bins.x))
                store_spaced(y.at(target, c=k), y.stride.c, acc, c - k, f32)


def numbers(planner: Planner, *settings: Any) -> Place:
    """The address of these numbers as f64."""
    return planner.data.view(np.array(settings, np.float64), "f64").ptr


class Regions(ChannelsLast):
    """A lowering that makes small maps of regions."""

    takes: Any = (("f32",),)
    ranks = ((4,),)
    rois: Value

    def views(self, planner: Planner) -> tuple[View, View, View]:
        """The map, the regions and the output. Raises NotNative for an empty map."""
        x = planner.with_halo(self.data, [(0, 0)] * 4)
        if not x.count:
            raise NotNative
        return x, planner.view(self.rois), planner.output(self.out)


class RoiPooling(Regions):
    def set_up(self) -> None:
        self.data, self.rois = self.node.inputs
        self.sensitive = self.node.op.name == "PSROIPooling"
        self.way = self.node.attrs["mode" if self.sensitive else "method"]
        if self.way == "bilinear":
            self.kernel = roi_samples(parts=self.sensitive)
        else:
            self.kernel = roi_pooling(mean=self.sensitive, vectors=1 if self.sensitive else 4)

    def plan(self, planner: Planner) -> None:
        x, rois, y = self.views(planner)
        if not y.count:
            return
        attrs = self.node.attrs
        more: dict[str, Any] = {}
        ph, pw = y.shape[2:]
        scale = float(np.float32(attrs["spatial_scale"]))
        work: Any  # per element
        if self.way == "bilinear":
            bins = (attrs["spatial_bins_y"], attrs["spatial_bins_x"]) if self.sensitive else (1, 1)
            settings = [scale if self.sensitive else 1.0]  # corners of ROIPooling are fractions of the map
            more = {"bins": Bins(*bins)}
            work = 8 * bins[0] * bins[1]
            planner.need_scratch((y.shape[1] + 64) * 4)
        else:
            settings = [scale, 1.0 if self.sensitive else scale]
            more = {"step": ph * pw * 4 if self.sensitive else 4}
            work = ceil_div(x.shape[2] * x.shape[3], ph * pw)  # per bin, for a region of the size of the map
        launch(
            planner, self.kernel, {"x": x, "rois": rois, "y": y}, ("y",), work=pw * y.shape[1] * work,
            flops=y.count * work, settings=numbers(planner, *settings), **more,
        )  # fmt: skip
