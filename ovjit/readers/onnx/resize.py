"""Resizing: Upsample and Resize.

Most of it is Interpolate. What Interpolate cannot express (anti-aliasing, `exclude_outside`, crops, other
coordinates) is a weighted sum along each axis. Weights are operations of the Model, in f32, as sizes,
scales and regions may be known only when the model runs. Where they follow from constants, they are
computed here, in f64, and are constants.
"""

from __future__ import annotations

from ovjit.readers.numerics.interpolation import elements_around, inside, nearness, weighted_sums
from ovjit.readers.onnx.rule_language import *

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
    """Whether the resize needs explicit weights, because Interpolate cannot express it."""
    if how.coordinates not in _COORDINATES or n.attr("antialias", 0) or n.attr("exclude_outside", 0):
        return True
    if how.by_scales:
        return how.coordinates == "align_corners" and _is_uneven(n, x, how.axes, value)
    if how.mode == "nearest" and (how.coordinates, how.nearest) == ("asymmetric", "round_prefer_ceil"):
        return True  # Interpolate divides by a rounded scale, so that a half may become less
    return how.policy != "stretch"


def _resized_axes(n: OnnxNode, x: Output, how: Sampling, value: np.ndarray) -> list[int]:
    """The indices into `how.axes` of the axes whose extent changes."""
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
    """Whether a scaled extent is no integer: the standard aligns corners of the unrounded extents."""
    shape = n.shape(x)
    if scales is None:
        return True
    if shape is None:
        return False
    sizes = [(shape[a], s) for a, s in zip(axes, scales.tolist(), strict=True)]
    return any(isinstance(d, int) and not float(d * s).is_integer() for d, s in sizes)


#: The longest axis, before or after, for which weights are made.
MAX_LENGTH = 1 << 22


class _Reals:
    """Makes operations of real numbers of one type."""

    def __init__(self, n: OnnxNode, kind: str):
        self.n, self.kind = n, kind

    def __call__(self, op: str, *inputs: Any, **attrs: Any) -> Output:
        """Floats among the inputs are constants of the type."""
        operands = [self.n.const(v, self.kind) if isinstance(v, float) else v for v in inputs]
        return self.n(op, *operands, **attrs)

    def count(self, first: Any, end: Output) -> Output:
        """first, first + 1, ..., up to `end` - 1"""
        return self("Range", first, end, 1.0, output_type=self.kind, opset=4)

    def element(self, values: Output, i: int) -> Output:
        return self.n.convert(self.n("Gather", values, i, 0, opset=8), self.kind)


class _Axis:
    """One axis that is resized: its extent, length and scale as scalars."""

    def __init__(self, r: _Reals, extent: Output, length: Output, scale: Output, by_sizes: bool):
        self.r, self.extent, self.length, self.scale, self.by_sizes = r, extent, length, scale, by_sizes
        self.last = r("Subtract", extent, 1.0)

    def check(self) -> bool:
        """True if the axis provably stays as it is. UnsupportedError if a static length is too large."""
        extent, length, scale = (self.r.n.value(v) for v in (self.extent, self.length, self.scale))
        if extent is None or length is None:
            return False
        if not 0 <= length <= MAX_LENGTH or extent > MAX_LENGTH or length and not extent:
            raise UnsupportedError(
                f"resizing {extent:.0f} to {length:.0f} elements by weights is not supported: lengths should "
                f"be from 1 to {MAX_LENGTH}"
            )
        return bool(extent == length and scale == 1)

    def input_coordinates(self, coordinates: str, region: tuple[Output, Output] | None) -> Output:
        """Input coordinate of each output element, as the standard defines it."""
        r, extent, length, scale, last = self.r, self.extent, self.length, self.scale, self.last
        x = r.count(0.0, length)
        width = r("Multiply", scale, extent)
        centre = r("Divide", r("Add", x, 0.5), scale)
        middle = r("Subtract", centre, 0.5)
        if coordinates == "asymmetric":
            # by sizes, one division: that by a quotient would move places between two elements
            return r("Divide", r("Multiply", x, extent), length) if self.by_sizes else r("Divide", x, scale)
        if coordinates == "half_pixel":
            return middle
        if coordinates == "tf_half_pixel_for_nn":
            return centre
        if coordinates == "pytorch_half_pixel":
            return r("Select", r("Equal", length, 1.0), 0.0, middle)
        one = r("Equal", width, 1.0)
        steps = r("Select", one, 1.0, r("Subtract", width, 1.0))
        if coordinates == "align_corners":
            return r("Select", one, 0.0, r("Divide", r("Multiply", x, last), steps))
        if coordinates == "half_pixel_symmetric":
            # the standard's extent / 2 * (1 - length / width) + middle, without its cancellation
            inner = r("Multiply", r("Subtract", extent, 1.0), 0.5)
            outer = r("Subtract", r("Add", x, 0.5), r("Multiply", length, 0.5))
            return r("Add", inner, r("Divide", outer, scale))
        if coordinates == "tf_crop_and_resize" and region is not None:
            begin, end = region
            single = r("Multiply", r("Multiply", r("Add", begin, end), last), 0.5)
            step = r("Divide", r("Multiply", r("Subtract", end, begin), last), steps)
            along = r("Add", r("Multiply", begin, last), r("Multiply", x, step))
            return r("Select", r("Equal", length, 1.0), r("Add", x, single), along)
        raise ModelError(f"coordinate_transformation_mode {coordinates[:40]!r} is unknown or has no region")

    def nearest(self, x: Output, positions: Output, how: str, axis: int) -> Output:
        r = self.r
        rounded = {
            "round_prefer_floor": lambda: r("Ceiling", r("Subtract", positions, 0.5)),
            "round_prefer_ceil": lambda: r("Floor", r("Add", positions, 0.5)),
            "floor": lambda: r("Floor", positions),
            "ceil": lambda: r("Ceiling", positions),
        }[how]()
        return r("Gather", x, r.n.fold(inside(r.n, rounded, self.extent)[0]), axis, opset=8)

    def weight_neighbours(self, x: Output, positions: Output, mode: str, axis: int) -> Output:
        """Sum the weighted elements around each position. The input repeats its values at the edges."""
        r, n = self.r, self.r.n
        antialias, exclude = bool(n.attr("antialias", 0)), bool(n.attr("exclude_outside", 0))
        stretch = r("Minimum", self.scale, 1.0) if antialias else n.const(1.0, r.kind)
        reach = r("Divide", 2.0 if mode == "cubic" else 1.0, stretch)
        reach = r("Minimum", r("Ceiling", reach), r("Add", r("Multiply", self.extent, 4.0), 4.0))
        if n.attr("coordinate_transformation_mode") == "tf_crop_and_resize":  # places may be far outside
            positions = r(
                "Minimum", r("Maximum", positions, r("Negative", reach)), r("Add", self.last, reach)
            )
        columns = elements_around(n, positions, reach)
        gap = r("Abs", r("Subtract", columns, n.unsqueeze(positions, [1])))
        cubic = float(n.attr("cubic_coeff_a", -0.75)) if mode == "cubic" else None
        weights = nearness(n, r("Multiply", gap, stretch), cubic)
        index, is_inside = inside(n, columns, self.extent)
        if exclude:
            weights = r("Select", is_inside, weights, 0.0)
        if antialias or exclude:
            weights = r("Divide", weights, r("ReduceSum", weights, [1], keep_dims=True))
        return weighted_sums(n, x, axis, index, weights)


class Sampling(NamedTuple):
    """Parameters of a resize along `axes`; `targets` and `roi` are tensors."""

    axes: Sequence[int]
    mode: str
    coordinates: str
    nearest: str
    targets: Output
    by_scales: bool
    policy: str
    roi: Output | None


def _axes(n: OnnxNode, x: Output, how: Sampling) -> list[_Axis]:
    """The axes that are resized; in f64 where everything that they depend on is known."""
    shape = n.shape(x) or ()
    crop = how.coordinates == "tf_crop_and_resize"
    axes_known = n.value(how.targets) is not None and is_static(tuple(shape[a] for a in how.axes))
    r = _Reals(n, "f64" if axes_known and not (crop and n.value(how.roi) is None) else "f32")
    extents = [n.convert(n.scalar(n.dim_of(x, a)), r.kind) for a in how.axes]
    expected = [r.element(how.targets, i) for i in range(len(how.axes))]
    if how.by_scales:
        lengths = [r("Floor", r("Multiply", e, s)) for e, s in zip(extents, expected, strict=True)]
        return [_Axis(r, *row, False) for row in zip(extents, lengths, expected, strict=True)]
    lengths, scales = expected, [r("Divide", t, e) for t, e in zip(expected, extents, strict=True)]
    if how.policy in ("not_larger", "not_smaller"):
        factor = scales[0]
        for other in scales[1:]:
            factor = r("Minimum" if how.policy == "not_larger" else "Maximum", factor, other)
        scales = [factor] * len(scales)
        lengths = [r("Floor", r("Add", r("Multiply", e, factor), 0.5)) for e in extents]
    by_sizes = how.policy == "stretch"
    return [_Axis(r, *row, by_sizes) for row in zip(extents, lengths, scales, strict=True)]


def by_weights(n: OnnxNode, x: Output, how: Sampling) -> Output:
    """Resize `x` by explicit weights, one axis after the other."""
    kind, axis_count = n.dtype(x), len(how.axes)
    crop, roi = how.coordinates == "tf_crop_and_resize", how.roi
    shape = None if roi is None else n.shape(roi)
    if crop and (roi is None or is_static(shape) and shape != (2 * axis_count,)):
        raise ModelError(f"the region of interest should have {2 * axis_count} numbers")
    is_real = ELEMENT_TYPES[kind].is_real
    data = x if how.mode == "nearest" else n.upcast(x) if is_real else n.convert(x, "f32")
    outside: list[Output] = []
    for i, (axis, row) in enumerate(zip(how.axes, _axes(n, x, how), strict=True)):
        if row.check() and not crop:
            continue
        r = row.r
        region = (r.element(roi, i), r.element(roi, axis_count + i)) if crop and roi is not None else None
        coordinates = row.input_coordinates(how.coordinates, region)
        if crop:
            mask = r("LogicalOr", r("Less", coordinates, 0.0), r("Greater", coordinates, row.last))
            outside.append(n.reshape(mask, [-1 if d == axis else 1 for d in range(n.rank(x))]))
        if how.mode == "nearest":
            data = row.nearest(data, coordinates, how.nearest, axis)
        else:
            data = row.weight_neighbours(data, coordinates, how.mode, axis)
    data = _fill_outside(n, data, outside)
    if n.dtype(data) != kind and is_real:
        data = n.convert(data, kind)
    elif n.dtype(data) != kind:
        data = to_integers(n, n("Round", data, mode="half_to_even"), kind)
    return n("Identity", data) if data is x else data


def _fill_outside(n: OnnxNode, x: Output, outside: Sequence[Output]) -> Output:
    """`x` with `extrapolation_value` where the sampled position is outside of the input."""
    for mask in outside:
        defaults = n.value(mask)
        if defaults is None or defaults.any():
            filling = n.like(x, n.attr("extrapolation_value", 0.0))
            x = n("Select", mask if defaults is None else n.const(defaults), filling, x)
    return x


def to_integers(n: OnnxNode, x: Output, kind: str) -> Output:
    """Floats rounded to integers of a type with saturation, since cubic sums overshoot."""
    if ELEMENT_TYPES[kind].bits < 32:
        low, high = value_range(kind)
        x = n("Clamp", x, min=float(low), max=float(high))
    return n.convert(x, kind)
