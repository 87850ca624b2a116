"""DeformableConvolution: a convolution whose taps are moved by offsets and weighted by a mask.

    data [N, C, H, W]  offsets [N, 2 * D * kh * kw, OH, OW] of (y, x)  filters [O, C / G, kh, kw]
    [mask [N, D * kh * kw, OH, OW]]  ->  [N, O, OH, OW]

The data's channels form D deformable groups, each with its own offsets, and G groups of filters. It expands
to the internal operation DeformedColumns, which interpolates the data at the moved taps, and a 1x1
convolution of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Bool, Int, Ints, TensorType, Word, op
from ovjit.graph.shapes import Dim, Interval, compatible, compatible_shapes, is_static
from ovjit.graph.windows import AUTO_PADS, output_extents, resolve_pads, window_attributes
from ovjit_ops.common.checks import check_type, dims
from ovjit_ops.common.values import widen_floats
from ovjit_ops.convolution.convolution import shown_window
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS


def check_inputs(data, offsets, mask, kernel: Sequence[Dim], attrs: dict[str, Any]) -> tuple[Dim, ...]:
    """The spatial extents of the output. Raises ModelError for ranks, types or shapes that do not fit."""
    groups = attrs["deformable_group"]
    check(groups > 0 and attrs["group"] > 0, "group and deformable_group should be positive")
    for x, what in ((data, "data"), (offsets, "offsets"), (mask, "the mask")):
        check(x is None or x.rank in (None, 4), f"Input must be of rank 4. Got: {x and x.rank}: {what}")
        check_type(x, NUMBERS, what)
    window = window_attributes(2, attrs)
    n, c, *extents = dims(data, 4)
    for by in (groups, attrs["group"]):
        check(
            isinstance(c, Interval) or c % by == 0,
            f"Input channels dimension ({c}) must be evenly divisible by the 'group': {by}",
        )
    out = output_extents(extents=extents, kernel=kernel, **window)
    for x, each in ((offsets, 2 * groups), (mask, groups)):
        if x is not None and x.shape is not None:
            shape: tuple[Dim, ...] = (n, kernel[0] * kernel[1] * each, *out)
            check(compatible_shapes(x.shape, shape), f"{x} should have the shape {list(map(str, shape))}")
    return out


def _columns(
    data: np.ndarray, offsets: np.ndarray, mask: np.ndarray | None = None, **attrs: Any
) -> np.ndarray:
    """The data at the moved taps, times the mask: [N, G * kh * kw * C / G, OH, OW]."""
    real = widen_floats(data)
    kernel = attrs["kernel"]
    window = window_attributes(2, attrs)
    n, c, height, width = data.shape
    begin, _ = resolve_pads(extents=(height, width), kernel=kernel, **window)
    out = output_extents(extents=(height, width), kernel=kernel, **window)
    assert is_static(out)
    groups, taps = attrs["deformable_group"], math.prod(kernel)
    moved = offsets.astype(real.dtype).reshape(n, groups, taps, 2, *out)
    weight = None if mask is None else mask.astype(real.dtype).reshape(n, groups, taps, *out)
    result = np.zeros((n, taps, c, *out), real.dtype)
    each = c // groups
    image = np.arange(n)[:, None, None]
    for k, (i, j) in enumerate(np.ndindex(*kernel)):
        y0 = np.arange(out[0]) * window["strides"][0] - begin[0] + i * window["dilations"][0]
        x0 = np.arange(out[1]) * window["strides"][1] - begin[1] + j * window["dilations"][1]
        for g in range(groups):
            y = y0[:, None].astype(real.dtype) + moved[:, g, k, 0]
            x = x0.astype(real.dtype) + moved[:, g, k, 1]
            part = _read(real[:, g * each : (g + 1) * each], image, y, x, attrs["bilinear_interpolation_pad"])
            if weight is not None:
                part = part * weight[:, g, k][..., None]
            result[:, k, g * each : (g + 1) * each] = np.moveaxis(part, 3, 1)
    filters = attrs["group"]
    split = result.reshape(n, taps, filters, c // filters, *out).transpose(0, 2, 1, 3, 4, 5)
    return np.ascontiguousarray(split).reshape(n, taps * c, *out).astype(data.dtype)


def _read(maps: np.ndarray, image: np.ndarray, y: np.ndarray, x: np.ndarray, pad: bool) -> np.ndarray:
    """Bilinear interpolation of maps [N, C, H, W] at positions [N, OH, OW] -> [N, OH, OW, C]; 0 outside.
    `pad`: elements outside are zeros for interpolation, else the border elements are repeated."""
    height, width = maps.shape[2:]
    if pad:
        inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    else:
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = np.where(inside, y, 0), np.where(inside, x, 0)
    i, j = np.floor(y), np.floor(x)
    dy, dx = y - i, x - j
    out = np.zeros((*y.shape, maps.shape[1]), maps.dtype)
    for di, wy in ((0, 1 - dy), (1, dy)):
        for dj, wx in ((0, 1 - dx), (1, dx)):
            row, column = (i + di).astype(np.int64), (j + dj).astype(np.int64)
            weight = wy * wx
            if pad:
                weight = np.where((row >= 0) & (row < height) & (column >= 0) & (column < width), weight, 0)
            sampled = maps[image, :, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            out += sampled * weight[..., None].astype(maps.dtype)
    return np.where(inside[..., None], out, maps.dtype.type(0))


def _convolve(data, offsets, filters, mask, attrs: dict[str, Any]) -> np.ndarray:
    columns = _columns(widen_floats(data), widen_floats(offsets), mask, **attrs, kernel=filters.shape[2:])
    read, groups = widen_floats(columns), attrs["group"]
    n, _, height, width = read.shape
    outs = filters.shape[0] // groups
    each, taps = filters.shape[1], math.prod(filters.shape[2:])
    weights = widen_floats(filters).reshape(groups, outs, each, taps).transpose(0, 1, 3, 2)
    matrix = weights.reshape(groups, outs, taps * each)
    out = matrix @ read.reshape(n, groups, matrix.shape[2], height * width)
    return out.reshape(n, filters.shape[0], height, width).astype(data.dtype)


def _infer(data, offsets, filters, mask, attrs: dict[str, Any]) -> TensorType:
    check(filters.rank in (None, 4), f"Input must be of rank 4. Got: {filters.rank}: filters")
    weights = dims(filters, 4)
    out = check_inputs(data, offsets, mask, weights[2:], attrs)
    n, c, *_ = dims(data, 4)
    fits = compatible(c, weights[1] * attrs["group"])
    check(fits, f"Data batch channel count ({c}) does not match filter input channel count ({weights[1]})")
    outs = weights[0]
    divisible = isinstance(outs, Interval) or outs % attrs["group"] == 0
    check(divisible, f"{outs} output channels are not divisible by {attrs['group']} groups")
    return TensorType(data.dtype, (n, outs, *out))


@op(
    "DeformableConvolution",
    opset=1,
    types=REALS,
    native=FULL,
    ulp=512,
    words={"auto_pad": AUTO_PADS},
)
class DeformableConvolution1:
    """A convolution whose taps are moved by offsets."""

    def infer(
        data,
        offsets,
        filters,
        *,
        strides: Ints,
        pads_begin: Ints,
        pads_end: Ints,
        dilations: Ints,
        auto_pad: Word = "explicit",
        group: Int = 1,
        deformable_group: Int = 1,
    ):
        return _infer(data, offsets, filters, None, locals())

    def show(attrs, inputs):
        return shown_window(attrs, (inputs[0], inputs[2]))

    def ref(data, offsets, filters, **attrs):
        return _convolve(data, offsets, filters, None, {**attrs, "bilinear_interpolation_pad": False})

    def expand(w, node, inputs):
        """DeformableConvolution(x, offsets, filters[, mask]) -> Convolution 1x1 of DeformedColumns(x, ...)"""
        data, offsets, filters = inputs[:3]
        mask = inputs[3:]
        same = {v.dtype for v in inputs}
        if same != {"f32"} or not is_static(filters.shape) or data.shape is None or offsets.shape is None:
            return None
        outs, each, *kernel = filters.shape
        group = node.attrs["group"]
        attrs = {"bilinear_interpolation_pad": False, **node.attrs, "kernel": tuple(kernel)}
        (read,) = w.b.instead(node, [data, offsets, *mask], attrs, "DeformedColumns")
        taps = math.prod(kernel)
        groups = () if group == 1 else (group,)
        by_tap = w("Transpose", filters, (0, 2, 3, 1))
        weights = w("Reshape", by_tap, (*groups, outs // group, taps * each, 1, 1), special_zero=False)
        plain = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
        return [w("GroupConvolution" if groups else "Convolution", read, weights, **plain)]


@op("DeformableConvolution", opset=8, like=DeformableConvolution1)
class DeformableConvolution8:
    """With a mask that weights each tap, and optional zero padding of the interpolation."""

    def infer(data, offsets, filters, mask=None, *, bilinear_interpolation_pad: Bool = False, **attrs):
        return _infer(data, offsets, filters, mask, attrs)

    def ref(data, offsets, filters, mask=None, **attrs):
        return _convolve(data, offsets, filters, mask, attrs)


@op(
    "DeformedColumns", like=DeformableConvolution8, types=["f32"], native=None, expand=None,
    lower=".cpu_deformable:DeformedColumns.of", internal=True,
)  # fmt: skip
class DeformedColumns:
    """The data at the moved taps of a DeformableConvolution, as channels [group, tap, channel of the
    group]."""

    def infer(data, offsets, mask=None, *, kernel: Ints, **attrs):
        out = check_inputs(data, offsets, mask, kernel, attrs)
        n, c, *_ = dims(data, 4)
        return TensorType(data.dtype, (n, c * math.prod(kernel), *out))

    ref = _columns
