"""Resizing: Upsample and Resize.

Most of it is Interpolate. What Interpolate cannot express (anti-aliasing, `exclude_outside`, crops, other
coordinates) is a weighted sum along each axis: see `resize_weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.errors import ModelError
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.shapes import is_static
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.onnx.registry import onnx_op
from ovjit.readers.onnx.resize_weights import Sampling, by_weights, to_integers

_MODES = {"nearest": "nearest", "linear": "linear_onnx", "bilinear": "linear_onnx", "cubic": "cubic"}
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners")


@onnx_op("Upsample")
def upsample(n: OnnxNode) -> Any:
    scales = n[1] if n.has(1) else n.const(np.array(n.require("scales"), np.float32))
    return interpolate(n, n.attr("mode", "nearest"), "asymmetric", "floor", scales=scales)


@onnx_op("Resize", 10)
def resize_10(n: OnnxNode) -> Any:
    """Resizes; nearest rounds up when downsampling ("simple"), as in ONNX Runtime and OpenVINO."""
    return interpolate(n, n.attr("mode"), "asymmetric", "simple", scales=n[1])


@onnx_op("Resize", 11)
def resize(n: OnnxNode) -> Any:
    def input_unless_empty(index: int) -> Output | None:
        value = n.optional(index)
        return None if value is None or 0 in (n.shape(value) or ()) else value

    scales, sizes = input_unless_empty(2), input_unless_empty(3)
    if scales is not None and sizes is not None and not is_static(n.shape(scales)):
        scales = None  # empty, when the model runs
    if (scales is None) == (sizes is None):
        raise ModelError("either scales or sizes should be given")
    return interpolate(
        n, n.attr("mode"), n.attr("coordinate_transformation_mode"), n.attr("nearest_mode"), scales, sizes
    )


def interpolate(
    n: OnnxNode, mode: str, coordinates: str, nearest: str, scales: Output | None = None,
    sizes: Output | None = None,
) -> Output:  # fmt: skip
    """The first input resized by `scales` or to `sizes`, along the attribute `axes`."""
    x = n[0]
    axes = n.axes(n.attr("axes") or range(n.rank(x)), n.rank(x))
    targets = scales if scales is not None else sizes
    assert targets is not None
    value = n.value(targets)
    if value is not None and value.size != len(axes):
        raise ModelError(f"{value.size} scales or sizes are given for {len(axes)} axes")
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    roi = n.optional(1) if n.version >= 11 else None
    how = Sampling(axes, mode, coordinates, nearest, targets, scales is not None, policy, roi)
    if _needs_weights(n, x, how, value):
        return by_weights(n, x, how._replace(nearest="floor" if nearest == "simple" else nearest))
    if value is not None:
        resized_axes = _resized_axes(n, x, how, value)
        if not resized_axes:
            return n("Identity", x)
        how = how._replace(axes=[axes[i] for i in resized_axes], targets=n.const(value[resized_axes]))
    return _by_interpolate(n, x, how)


def _needs_weights(n: OnnxNode, x: Output, how: Sampling, value: np.ndarray | None) -> bool:
    """Whether Interpolate cannot express this."""
    if how.coordinates not in _COORDINATES or n.attr("antialias", 0) or n.attr("exclude_outside", 0):
        return True
    if how.by_scales:
        return how.coordinates == "align_corners" and _is_uneven(n, x, how.axes, value)
    if how.mode == "nearest" and (how.coordinates, how.nearest) == ("asymmetric", "round_prefer_ceil"):
        return True  # Interpolate divides by a rounded scale, so that a half may become less
    return how.policy != "stretch"


def _resized_axes(n: OnnxNode, x: Output, how: Sampling, value: np.ndarray) -> list[int]:
    """Positions in `how.axes` of those whose extent changes."""
    shape = n.shape(x) or ()
    unchanged = [1] * len(how.axes) if how.by_scales else [shape[a] for a in how.axes]
    return [i for i, (v, old) in enumerate(zip(value.tolist(), unchanged, strict=True)) if v != old]


def _by_interpolate(n: OnnxNode, x: Output, how: Sampling) -> Output:
    kind = n.dtype(x)
    exact = how.mode == "nearest" or ELEMENT_TYPES[kind].is_real
    calculation_mode = "scales" if how.by_scales else "sizes"
    targets = n.convert(how.targets, "f32" if how.by_scales else "i64")
    out = n(
        "Interpolate", x if exact else n.convert(x, "f32"), targets, how.axes, mode=_MODES[how.mode],
        shape_calculation_mode=calculation_mode, coordinate_transformation_mode=how.coordinates,
        nearest_mode=how.nearest, cube_coeff=float(n.attr("cubic_coeff_a", -0.75)), opset=11,
    )  # fmt: skip
    return out if exact else to_integers(n, out, kind)


def _is_uneven(n: OnnxNode, x: Output, axes: Sequence[int], scales: np.ndarray | None) -> bool:
    """Whether scaled dimensions are no whole numbers: the standard aligns corners of the unrounded ones."""
    shape = n.shape(x)
    if scales is None:
        return True
    if shape is None:
        return False
    sizes = [(shape[a], s) for a, s in zip(axes, scales.tolist(), strict=True)]
    return any(isinstance(d, int) and not float(d * s).is_integer() for d, s in sizes)
