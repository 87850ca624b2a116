"""Resizing, sampling and regions of images.

Resizing that Interpolate does not say (anti-aliasing, `exclude_outside`, crops, other coordinates) is a
matrix for
each axis: every row has the weights of one output place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.shapes import is_static
from ovjit.readers.onnx.node import MOST_NODES, OnnxNode
from ovjit.readers.onnx.registry import onnx_op
from ovjit.readers.onnx.resize_matrices import Sampling, by_computed_matrices, to_integers

_MODES = {"nearest": "nearest", "linear": "linear_onnx", "bilinear": "linear_onnx", "cubic": "cubic"}
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners")
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
_END = (1 << 63) - 1
#: The largest matrix that is made for resizing along an axis, in elements.
MAX_MATRIX = 1 << 24


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
        raise ModelError(f"the border {border[:8]} or the scale {(size or [])[:8]} of a crop")
    left, top, right, bottom = border
    ends = [top + size[0], left + size[1]] if size else [-bottom or _END, -right or _END]
    return n("Slice", x, [top, left], ends, [1, 1], [2, 3])


@onnx_op("Upsample")
def upsample(n: OnnxNode) -> Any:
    scales = n[1] if n.has(1) else n.const(np.array(n.required("scales"), np.float32))
    return interpolate(n, n.attr("mode", "nearest"), "asymmetric", "floor", scales=scales)


@onnx_op("Resize", 10)
def resize_10(n: OnnxNode) -> Any:
    """What is made smaller takes the next place, as ONNX Runtime and OpenVINO do: OpenVINO's "simple"."""
    return interpolate(n, n.attr("mode"), "asymmetric", "simple", scales=n[1])


@onnx_op("Resize", 11)
def resize(n: OnnxNode) -> Any:
    def given(index: int) -> Output | None:
        value = n.optional(index)
        return None if value is None or 0 in (n.shape(value) or ()) else value

    scales, sizes = given(2), given(3)
    if scales is not None and sizes is not None and not is_static(n.shape(scales)):
        scales = None  # empty, when the model runs
    if (scales is None) == (sizes is None):
        raise ModelError("either scales or sizes should be given")
    return interpolate(
        n, n.attr("mode"), n.attr("coordinate_transformation_mode"), n.attr("nearest_mode"), scales, sizes
    )


def interpolate(
    n: OnnxNode,
    mode: str,
    coordinates: str,
    nearest: str,
    scales: Output | None = None,
    sizes: Output | None = None,
) -> Output:
    x = n[0]
    if mode not in _MODES or nearest not in _NEAREST:
        raise ModelError(f"the mode {mode[:20]!r} or {nearest[:20]!r} is not known")
    rank = n.rank(x)
    axes = n.axes(n.attr("axes") or range(rank), rank)
    targets = scales if scales is not None else sizes
    assert targets is not None
    value = n.value(targets)
    if value is not None and value.size != len(axes):
        raise ModelError(f"{value.size} scales or sizes for {len(axes)} axes")
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    special = (
        coordinates not in _COORDINATES
        or (coordinates == "align_corners" and scales is not None and _uneven(n, x, axes, value))
        or bool(n.attr("antialias", 0))
        or bool(n.attr("exclude_outside", 0))
        or (policy != "stretch" and sizes is not None)
    )
    if special:
        shape, rounding = n.shape(x) or (), "floor" if nearest == "simple" else nearest
        roi = n.optional(1) if n.version >= 11 else None
        how = Sampling(axes, mode, coordinates, rounding, targets, scales is not None, policy, roi)
        crop = coordinates == "tf_crop_and_resize"
        if value is None or not is_static(tuple(shape[a] for a in axes)) or (crop and n.value(roi) is None):
            return by_computed_matrices(n, x, how)
        return _by_matrices(n, x, how, value)
    if value is not None:
        shape = n.shape(x) or ()
        same = [
            v == 1 if scales is not None else v == shape[a] for a, v in zip(axes, value.tolist(), strict=True)
        ]
        kept = [i for i, s in enumerate(same) if not s]
        if not kept:
            return n("Identity", x)
        axes = [axes[i] for i in kept]
        targets = n.const(value[kept])
    kind = n.dtype(x)
    exact = mode == "nearest" or ELEMENT_TYPES[kind].is_real
    out = n(
        "Interpolate",
        x if exact else n.convert(x, "f32"),
        n.convert(targets, "f32" if scales is not None else "i64"),
        axes,
        mode=_MODES[mode],
        shape_calculation_mode="scales" if scales is not None else "sizes",
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
        cube_coeff=float(n.attr("cubic_coeff_a", -0.75)),
        opset=11,
    )
    return out if exact else to_integers(n, out, kind)


def _uneven(n: OnnxNode, x: Output, axes: Sequence[int], scales: np.ndarray | None) -> bool:
    """Whether scaled dimensions are no whole numbers: the standard aligns corners of the unrounded ones."""
    shape = n.shape(x)
    if scales is None:
        return True
    if shape is None:
        return False
    sizes = [(shape[a], s) for a, s in zip(axes, scales.tolist(), strict=True)]
    return any(isinstance(d, int) and not float(d * s).is_integer() for d, s in sizes)


def _by_matrices(n: OnnxNode, x: Output, how: Sampling, value: np.ndarray) -> Output:
    axes, mode, coordinates, nearest, _, by_scales, policy, _ = how
    shape = n.shape(x) or ()
    extents = [int(shape[a]) for a in axes]  # type: ignore[arg-type]
    targets = [float(v) for v in value.tolist()]
    if by_scales:
        scales = targets
        lengths = [int(math.floor(e * s)) for e, s in zip(extents, scales, strict=True)]
    else:
        scales = [t / e if e else 1.0 for t, e in zip(targets, extents, strict=True)]
        lengths = [int(t) for t in targets]
        if policy in ("not_larger", "not_smaller"):
            factor = min(scales) if policy == "not_larger" else max(scales)
            scales = [factor] * len(scales)
            lengths = [int(math.floor(e * factor + 0.5)) for e in extents]
    roi = n.value(how.roi)
    if coordinates == "tf_crop_and_resize" and (roi is None or roi.size != 2 * len(axes)):
        raise ModelError(f"the region of interest should have {2 * len(axes)} numbers")
    outside: list[tuple[int, np.ndarray]] = []
    kind = n.dtype(x)
    wide = x if ELEMENT_TYPES[kind].is_real or mode == "nearest" else n.convert(x, "f32")
    for i, axis in enumerate(axes):
        if not 0 <= lengths[i] * extents[i] <= MAX_MATRIX:
            raise UnsupportedError(f"resizing {extents[i]} to {lengths[i]} by a matrix")
        region = None if roi is None or not roi.size else (float(roi[i]), float(roi[len(axes) + i]))
        places = source_places(coordinates, extents[i], lengths[i], scales[i], region)
        if coordinates == "tf_crop_and_resize":
            outside.append((axis, (places < 0) | (places > extents[i] - 1)))
        elif scales[i] == 1 and lengths[i] == extents[i]:
            continue
        if mode == "nearest":
            wide = n("Gather", wide, nearest_places(places, nearest, extents[i]), axis, opset=8)
            continue
        weights = weight_matrix(
            places,
            extents[i],
            scales[i],
            mode,
            antialias=bool(n.attr("antialias", 0)),
            exclude_outside=bool(n.attr("exclude_outside", 0)),
            a=float(n.attr("cubic_coeff_a", -0.75)),
        )
        order = [d for d in range(n.rank(x)) if d != axis] + [axis]
        back = [order.index(d) for d in range(n.rank(x))]
        moved = n("MatMul", n.transpose(wide, order), n.like(wide, weights.T))
        wide = n.transpose(moved, back)
    if any(mask.any() for _, mask in outside):
        inside = np.zeros((1,) * n.rank(x), bool)
        for axis, mask in outside:
            inside = inside | mask.reshape([-1 if d == axis else 1 for d in range(n.rank(x))])
        wide = n("Select", inside, n.like(wide, n.attr("extrapolation_value", 0.0)), wide)
    if n.dtype(wide) != kind:
        wide = to_integers(n, n("Round", wide, mode="half_to_even"), kind)
    return n("Identity", wide) if wide is x else wide


def source_places(
    coordinates: str, extent: int, length: int, scale: float, region: tuple[float, float] | None
) -> np.ndarray:
    """Where in the input each place of the output lies, as the standard defines it."""
    x = np.arange(length, dtype=np.float64)
    width = scale * extent
    if coordinates == "asymmetric":
        return x / scale
    if coordinates == "align_corners":
        return x * 0 if width == 1 else x * (extent - 1) / (width - 1)
    if coordinates == "pytorch_half_pixel" and width == 1:
        return x * 0 - 0.5
    if coordinates in ("half_pixel", "pytorch_half_pixel"):
        return (x + 0.5) / scale - 0.5
    if coordinates == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if coordinates == "half_pixel_symmetric":
        offset = extent / 2 * (1 - length / width)
        return offset + (x + 0.5) / scale - 0.5
    if coordinates == "tf_crop_and_resize":
        assert region is not None
        begin, end = region
        if length == 1:
            return x + (end + begin) * (extent - 1) / 2
        return begin * (extent - 1) + x * (end - begin) * (extent - 1) / (width - 1)
    raise ModelError(f"coordinate_transformation_mode {coordinates[:40]!r} is not known")


def nearest_places(places: np.ndarray, nearest: str, extent: int) -> np.ndarray:
    rounded = {
        "round_prefer_floor": np.ceil(places - 0.5),
        "round_prefer_ceil": np.floor(places + 0.5),
        "floor": np.floor(places),
        "ceil": np.ceil(places),
        "simple": np.floor(places),
    }[nearest]
    return np.clip(rounded, 0, max(extent - 1, 0)).astype(np.int64)


def weight_matrix(
    places: np.ndarray, extent: int, scale: float, mode: str, antialias: bool, exclude_outside: bool, a: float
) -> np.ndarray:
    """[output, input] weights; the input goes on at its edges with the values there."""
    stretch = min(scale, 1.0) if antialias else 1.0
    # a place of the output stands for at most all of the input
    half = int(min(math.ceil((1 if mode != "cubic" else 2) / stretch), 2 * extent + 2))
    taps = np.arange(-half + 1, half + 1)
    base = np.floor(places).astype(np.int64)
    distance = np.abs(taps[None, :] - (places - base)[:, None]) * stretch
    if mode == "cubic":
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    else:
        weights = np.clip(1 - distance, 0, 1)
    indices = base[:, None] + taps[None, :]
    if exclude_outside:
        weights = np.where((indices < 0) | (indices >= extent), 0, weights)
    if antialias or exclude_outside:
        weights = weights / weights.sum(axis=1, keepdims=True)
    out = np.zeros((len(places), extent))
    rows = np.broadcast_to(np.arange(len(places))[:, None], indices.shape)
    np.add.at(out, (rows, np.clip(indices, 0, extent - 1)), weights)
    return out


@onnx_op("GridSample", 16)
def grid_sample(n: OnnxNode) -> Any:
    modes = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic",
             "cubic": "bicubic"}  # fmt: skip
    mode, padding = n.attr("mode"), n.attr("padding_mode")
    if mode not in modes:
        raise ModelError(f"the mode {mode[:20]!r} is not known")
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
        raise UnsupportedError("cubic sampling of volumes")
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
        raise UnsupportedError("mode='max', the largest weighted neighbour: OpenVINO's interpolates first")
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
