"""Sampling, cropping and regions of images. Resizing is in `resize`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.onnx.node import MOST_NODES, OnnxNode
from ovjit.readers.onnx.registry import onnx_op
from ovjit.readers.volumes import sampled

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
    mode, padding, aligned = n.attr("mode"), n.attr("padding_mode"), bool(n.attr("align_corners"))
    if (rank := n.rank(n[0])) != 4:
        if modes[mode] == "bicubic":
            raise UnsupportedError("cubic sampling of volumes is not supported")
        n.limited(1 << rank - 2, "samples of volumes", MOST_NODES)
        return sampled(n, n[0], n[1], mode == "nearest", padding, aligned)
    return n("GridSample", n[0], n[1], align_corners=aligned, mode=modes[mode], padding_mode=padding)


@onnx_op("RoiAlign", 10)
def roi_align(n: OnnxNode) -> Any:
    if n.attr("mode") == "max":
        raise UnsupportedError("mode='max' (the largest weighted neighbour) is not supported")
    half = n.version >= 16 and n.attr("coordinate_transformation_mode") == "half_pixel"
    attrs = n.attrs(
        "sampling_ratio", "spatial_scale", "mode", pooled_h="output_height", pooled_w="output_width"
    )
    attrs["aligned_mode"] = "half_pixel_for_nn" if half else "asymmetric"
    return n("ROIAlign", n[0], n[1], n.convert(n[2], "i64"), **attrs, opset=9)


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
    size = list(n.required("pooled_shape"))
    return n("ROIPooling", n[0], n[1], output_size=size, method="max", **n.attrs("spatial_scale"))


@onnx_op("NonMaxSuppression", 10)
def non_max_suppression(n: OnnxNode) -> Any:
    def scalar(index: int, default: float, kind: str) -> Output:
        if not n.has(index):
            return n.const(default, kind)
        return n.scalar(n.convert(n[index], kind))

    # OpenVINO drops boxes that overlap as much as the threshold, the standard those that overlap more
    threshold = n("Multiply", scalar(3, 0.0, "f32"), n.const(1 + 2.0**-23))
    threshold = n("Add", threshold, n.const(np.float32(2.0**-126)))
    given = n[0], n[1], scalar(2, 0, "i64"), threshold, scalar(4, -math.inf, "f32")
    corners = "center" if n.attr("center_point_box") else "corner"
    how = {"box_encoding": corners, "sort_result_descending": False, "output_type": "i64"}
    return n("NonMaxSuppression", *given, **how, opset=9)
