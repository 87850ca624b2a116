"""Sampling, cropping and regions of images. Resizing is in `resize`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.onnx.node import MOST_NODES, OnnxNode
from ovjit.readers.onnx.registry import onnx_op

_END = (1 << 63) - 1


@onnx_op("ImageScaler")
def image_scaler(n: OnnxNode) -> Any:
    """An operator of the first versions: x * scale, and a number added to each channel."""
    x = n[0]
    bias = np.asarray(n.required("bias"), np.float32).reshape(1, -1, 1, 1)
    return n("Add", n("Multiply", x, n.like(x, n.attr("scale", 1.0))), n.like(x, bias))


@onnx_op("Crop")
def crop(n: OnnxNode) -> Any:
    """An operator of the first versions: without the borders (left, top, right, bottom), or what of `scale`
    (height, width) lies behind the first two."""
    x, border, size = n[0], n.required("border"), n.attr("scale")
    if len(border) != 4 or min(border) < 0 or (size and len(size) != 2):
        raise ModelError(f"the border {border[:8]} or the scale {(size or [])[:8]} of a crop is not valid")
    left, top, right, bottom = border
    ends = [top + size[0], left + size[1]] if size else [-bottom or _END, -right or _END]
    return n("Slice", x, [top, left], ends, [1, 1], [2, 3])


@onnx_op("GridSample", 16)
def grid_sample(n: OnnxNode) -> Any:
    modes = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic",
             "cubic": "bicubic"}  # fmt: skip
    mode, padding = n.attr("mode"), n.attr("padding_mode")
    if mode not in modes:
        raise ModelError(f"the mode {mode[:20]!r} is unknown")
    if n.rank(n[0]) != 4:
        return _grid_sample_volume(n, modes[mode], padding)
    return n(
        "GridSample",
        n[0],
        n[1],
        align_corners=bool(n.attr("align_corners")),
        mode=modes[mode],
        padding_mode=padding,
    )


def _neighbours(n: OnnxNode, place: Output, mode: str) -> list[tuple[Output, Output | None]]:
    """The elements along an axis that a sample at `place` is made of, and their weights; None: 1."""
    if mode == "nearest":
        return [(n("Round", place, mode="half_to_even"), None)]
    low = n("Floor", place)
    upper = n("Subtract", place, low)
    return [(low, n("Subtract", n.like(place, 1), upper)), (n("Add", low, n.like(place, 1)), upper)]


def _picked(n: OnnxNode, flat: Output, rows: Output, batch: int) -> Output:
    """values [batch, channels, elements], places [batch, places] -> [batch, channels, places]"""
    if batch == 1:
        return n.squeeze(n("Gather", flat, rows, 2, batch_dims=0, opset=8), [2])
    images = [(n.slice(flat, 0, b, b + 1), n.slice(rows, 0, b, b + 1)) for b in range(batch)]
    return n.concat([n("Gather", image, n.squeeze(at, [0]), 2, opset=8) for image, at in images], 0)


def _grid_sample_volume(n: OnnxNode, mode: str, padding: str) -> Output:
    """Images of any number of dimensions: neighbours gathered one by one, weighted and added up."""
    x, grid = n[0], n[1]
    shape = n.static_shape(x)
    dims = len(shape) - 2
    if mode == "bicubic":
        raise UnsupportedError("cubic sampling of volumes is not supported")
    kind = n.dtype(x)
    corners = bool(n.attr("align_corners"))
    batch, channels, extents = shape[0], shape[1], shape[2:]
    n.limited(batch << len(extents), "samples of volumes", MOST_NODES)
    flat = n.reshape(x, [batch, channels, math.prod(extents)])
    # the grid's last coordinate is of the first dimension
    places = [
        _place(n, n("Gather", grid, dims - 1 - i, -1, opset=8), extent, corners, padding)
        for i, extent in enumerate(extents)
    ]
    choices = [_neighbours(n, place, mode) for place in places]
    total: Output | None = None
    for which in np.ndindex(*(len(c) for c in choices)):
        index: Output | None = None
        weight: Output | None = None
        inside: Output | None = None
        for i, (choice, extent) in enumerate(zip(which, extents, strict=True)):
            place, factor = choices[i][choice]
            fits = n(
                "LogicalAnd",
                n("GreaterEqual", place, n.like(place, 0)),
                n("Less", place, n.like(place, extent)),
            )
            inside = fits if inside is None else n("LogicalAnd", inside, fits)
            whole = n.convert(n("Clamp", place, min=0.0, max=float(extent - 1)), "i64")
            index = whole if index is None else n("Add", n("Multiply", index, extent), whole)
            if factor is not None:
                weight = factor if weight is None else n("Multiply", weight, factor)
        assert index is not None and inside is not None
        spread = n.shape_of(index)
        values = _picked(n, flat, n.reshape(index, [batch, -1]), batch)
        keep = n.convert(inside, kind)
        weight = keep if weight is None else n("Multiply", n.convert(weight, kind), keep)
        weighted = n("Multiply", values, n.unsqueeze(n.reshape(weight, [batch, -1]), [1]))
        total = weighted if total is None else n("Add", total, weighted)
    assert total is not None
    ends = n.slice(spread, 0, 1)
    return n("Reshape", total, n.concat([n.const(np.array([batch, channels])), ends], 0), special_zero=False)


def _place(n: OnnxNode, at: Output, extent: int, corners: bool, padding: str) -> Output:
    """Where a grid's coordinates, from -1 to 1, are along a dimension: in elements from the first one."""
    if corners:
        place = n("Multiply", n("Add", at, n.like(at, 1)), n.like(at, (extent - 1) / 2))
    else:
        scaled = n("Multiply", n("Add", at, n.like(at, 1)), n.like(at, extent / 2))
        place = n("Subtract", scaled, n.like(at, 0.5))
    if padding == "border":
        return n("Clamp", place, min=0.0, max=float(extent - 1))
    if padding != "reflection":
        return place
    low, high = (0.0, extent - 1.0) if corners else (-0.5, extent - 0.5)
    span = high - low
    if span == 0:
        return n("Multiply", place, n.like(at, 0))
    beyond = n("FloorMod", n("Subtract", place, n.like(at, low)), n.like(at, 2 * span))
    folded = n("Minimum", beyond, n("Subtract", n.like(at, 2 * span), beyond))
    return n("Clamp", n("Add", folded, n.like(at, low)), min=0.0, max=float(extent - 1))


@onnx_op("RoiAlign", 10)
def roi_align(n: OnnxNode) -> Any:
    if n.attr("mode") == "max":
        raise UnsupportedError("mode='max' (the largest weighted neighbour) is not supported")
    half = n.version >= 16 and n.attr("coordinate_transformation_mode") == "half_pixel"
    return n(
        "ROIAlign",
        n[0],
        n[1],
        n.convert(n[2], "i64"),
        pooled_h=n.attr("output_height"),
        pooled_w=n.attr("output_width"),
        sampling_ratio=n.attr("sampling_ratio"),
        spatial_scale=n.attr("spatial_scale"),
        mode=n.attr("mode"),
        aligned_mode="half_pixel_for_nn" if half else "asymmetric",
        opset=9,
    )


def crop_and_resize_places(
    n: OnnxNode, regions: Output, side: int, extent: Output, length: int, like: Output
) -> Output:
    """Where the rows (side 0) or columns (1) of crops lie: [regions, length]"""
    kind = n.dtype(like)
    begin, end = (n.unsqueeze(n("Gather", regions, i, 1, opset=8), [1]) for i in (side, side + 2))
    reach = n.convert(n("Subtract", extent, 1), kind)
    if length == 1:
        middle = n("Multiply", n("Add", begin, end), n.like(like, 0.5))
        return n("Multiply", middle, reach)
    step = n("Divide", n("Multiply", n("Subtract", end, begin), reach), n.like(like, length - 1))
    places = n.like(like, np.arange(length)[None, :])
    return n("Add", n("Multiply", begin, reach), n("Multiply", step, places))


@onnx_op("MaxRoiPool")
def max_roi_pool(n: OnnxNode) -> Any:
    return n(
        "ROIPooling",
        n[0],
        n[1],
        output_size=list(n.required("pooled_shape")),
        spatial_scale=n.attr("spatial_scale"),
        method="max",
    )


@onnx_op("NonMaxSuppression", 10)
def non_max_suppression(n: OnnxNode) -> Any:
    def scalar(index: int, default: float, kind: str) -> Output:
        if not n.has(index):
            return n.const(default, kind)
        value = n.convert(n[index], kind)
        return value if n.shape(value) == () else n.scalar(value)

    # OpenVINO drops boxes that overlap as much as the threshold, the standard those that overlap more
    threshold = n("Multiply", scalar(3, 0.0, "f32"), n.const(1 + 2.0**-23))
    threshold = n("Add", threshold, n.const(np.float32(2.0**-126)))
    return n(
        "NonMaxSuppression",
        n[0],
        n[1],
        scalar(2, 0, "i64"),
        threshold,
        scalar(4, -math.inf, "f32"),
        box_encoding="center" if n.attr("center_point_box") else "corner",
        sort_result_descending=False,
        output_type="i64",
        opset=9,
    )
