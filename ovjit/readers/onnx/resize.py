"""Resizing: Upsample and Resize.

Most of it is Interpolate. What Interpolate cannot express (anti-aliasing, `exclude_outside`, crops, other
coordinates) is a matrix for each axis: a row has the weights of one output place. Matrices that depend on
inputs are in `resize_matrices`.
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
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.onnx.registry import onnx_op
from ovjit.readers.onnx.resize_matrices import Sampling, by_computed_matrices, to_integers

_MODES = {"nearest": "nearest", "linear": "linear_onnx", "bilinear": "linear_onnx", "cubic": "cubic"}
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners")
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
#: The largest matrix that is made for resizing along an axis, in elements.
MAX_MATRIX = 1 << 24


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
    """The first input resized by `scales` or to `sizes`, along the attribute `axes`."""
    x = n[0]
    if mode not in _MODES or nearest not in _NEAREST:
        raise ModelError(f"the mode {mode[:20]!r} or {nearest[:20]!r} is not known")
    axes = n.axes(n.attr("axes") or range(n.rank(x)), n.rank(x))
    targets = scales if scales is not None else sizes
    assert targets is not None
    value = n.value(targets)
    if value is not None and value.size != len(axes):
        raise ModelError(f"{value.size} scales or sizes for {len(axes)} axes")
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    roi = n.optional(1) if n.version >= 11 else None
    how = Sampling(axes, mode, coordinates, nearest, targets, scales is not None, policy, roi)
    if _needs_matrices(n, x, how, value):
        how = how._replace(nearest="floor" if nearest == "simple" else nearest)
        if value is None or not _is_known(n, x, how):
            return by_computed_matrices(n, x, how)
        return _by_matrices(n, x, how, value)
    if value is not None:
        kept = _resized_axes(n, x, how, value)
        if not kept:
            return n("Identity", x)
        how = how._replace(axes=[axes[i] for i in kept], targets=n.const(value[kept]))
    return _by_interpolate(n, x, how)


def _needs_matrices(n: OnnxNode, x: Output, how: Sampling, value: np.ndarray | None) -> bool:
    """Whether Interpolate cannot express this."""
    if how.coordinates not in _COORDINATES or n.attr("antialias", 0) or n.attr("exclude_outside", 0):
        return True
    if how.by_scales:
        return how.coordinates == "align_corners" and _uneven(n, x, how.axes, value)
    return how.policy != "stretch"


def _is_known(n: OnnxNode, x: Output, how: Sampling) -> bool:
    """Whether the extents of the resized axes, and the region that is cropped, are known."""
    shape = n.shape(x) or ()
    crop = how.coordinates == "tf_crop_and_resize"
    return is_static(tuple(shape[a] for a in how.axes)) and not (crop and n.value(how.roi) is None)


def _resized_axes(n: OnnxNode, x: Output, how: Sampling, value: np.ndarray) -> list[int]:
    """Positions in `how.axes` of those whose extent changes."""
    shape = n.shape(x) or ()
    unchanged = [1] * len(how.axes) if how.by_scales else [shape[a] for a in how.axes]
    return [i for i, (v, old) in enumerate(zip(value.tolist(), unchanged, strict=True)) if v != old]


def _by_interpolate(n: OnnxNode, x: Output, how: Sampling) -> Output:
    kind = n.dtype(x)
    exact = how.mode == "nearest" or ELEMENT_TYPES[kind].is_real
    out = n(
        "Interpolate",
        x if exact else n.convert(x, "f32"),
        n.convert(how.targets, "f32" if how.by_scales else "i64"),
        how.axes,
        mode=_MODES[how.mode],
        shape_calculation_mode="scales" if how.by_scales else "sizes",
        coordinate_transformation_mode=how.coordinates,
        nearest_mode=how.nearest,
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
    """`x` resized to known extents, one axis after the other."""
    kind = n.dtype(x)
    shape = n.shape(x) or ()
    extents = [int(shape[a]) for a in how.axes]  # type: ignore[arg-type]
    scales, lengths = _scales_and_lengths(how, extents, value)
    crop = how.coordinates == "tf_crop_and_resize"
    roi = n.value(how.roi)
    if crop and (roi is None or roi.size != 2 * len(how.axes)):
        raise ModelError(f"the region of interest should have {2 * len(how.axes)} numbers")
    outside: dict[int, np.ndarray] = {}
    wide = x if ELEMENT_TYPES[kind].is_real or how.mode == "nearest" else n.convert(x, "f32")
    for i, axis in enumerate(how.axes):
        extent, length, scale = extents[i], lengths[i], scales[i]
        if not 0 <= length * extent <= MAX_MATRIX:
            raise UnsupportedError(f"resizing {extent} to {length} by a matrix")
        region = None if roi is None or not roi.size else (float(roi[i]), float(roi[len(how.axes) + i]))
        places = source_places(how.coordinates, extent, length, scale, region)
        if crop:
            outside[axis] = (places < 0) | (places > extent - 1)
        if crop or scale != 1 or length != extent:
            wide = _resized_along(n, wide, axis, places, extent, scale, how)
    wide = _filled(n, wide, outside)
    if n.dtype(wide) != kind:
        wide = to_integers(n, n("Round", wide, mode="half_to_even"), kind)
    return n("Identity", wide) if wide is x else wide


def _scales_and_lengths(
    how: Sampling, extents: Sequence[int], value: np.ndarray
) -> tuple[list[float], list[int]]:
    """What each axis is scaled by, and its length in the output."""
    targets = [float(v) for v in value.tolist()]
    if how.by_scales:
        return targets, [int(math.floor(e * s)) for e, s in zip(extents, targets, strict=True)]
    scales = [t / e if e else 1.0 for t, e in zip(targets, extents, strict=True)]
    if how.policy not in ("not_larger", "not_smaller"):
        return scales, [int(t) for t in targets]
    factor = min(scales) if how.policy == "not_larger" else max(scales)
    return [factor] * len(scales), [int(math.floor(e * factor + 0.5)) for e in extents]


def _resized_along(
    n: OnnxNode, x: Output, axis: int, places: np.ndarray, extent: int, scale: float, how: Sampling
) -> Output:
    """`x` at these places along an axis: gathered, or multiplied by the matrix of the places' weights."""
    if how.mode == "nearest":
        return n("Gather", x, nearest_places(places, how.nearest, extent), axis, opset=8)
    antialias, exclude = bool(n.attr("antialias", 0)), bool(n.attr("exclude_outside", 0))
    a = float(n.attr("cubic_coeff_a", -0.75))
    weights = weight_matrix(places, extent, scale, how.mode, antialias, exclude, a)
    order = [d for d in range(n.rank(x)) if d != axis] + [axis]
    moved = n("MatMul", n.transpose(x, order), n.like(x, weights.T))
    return n.transpose(moved, [order.index(d) for d in range(n.rank(x))])


def _filled(n: OnnxNode, x: Output, outside: dict[int, np.ndarray]) -> Output:
    """`x` with `extrapolation_value` at places outside of the input: axis -> which places along it are."""
    if not any(mask.any() for mask in outside.values()):
        return x
    anywhere = np.zeros((1,) * n.rank(x), bool)
    for axis, mask in outside.items():
        anywhere = anywhere | mask.reshape([-1 if d == axis else 1 for d in range(n.rank(x))])
    return n("Select", anywhere, n.like(x, n.attr("extrapolation_value", 0.0)), x)


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
