"""Resizing by a matrix for each axis whose sizes, scales or regions are known only when the model runs.

The same as `resize.source_places` and `resize.weight_matrix`, said by operations of the Model.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovjit.api.model.node import Output
from ovjit.errors import ModelError
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.readers.onnx.node import OnnxNode
from ovjit.records import NamedTuple


class _Axis:
    """One axis that is resized: its extent, length and scale as scalars in f32."""

    def __init__(self, n: OnnxNode, extent: Output, length: Output, scale: Output):
        self.n, self.extent, self.length, self.scale = n, extent, length, scale

    def places(self, coordinates: str, region: tuple[Output, Output] | None) -> Output:
        """Where in the input each place of the output lies."""
        n, extent, length, scale = self.n, self.extent, self.length, self.scale
        x = n("Range", 0.0, length, 1.0, output_type="f32", opset=4)
        width = n("Multiply", scale, extent)
        last = n("Subtract", extent, 1.0)
        middle = n("Subtract", n("Divide", n("Add", x, 0.5), scale), 0.5)
        if coordinates == "asymmetric":
            return n("Divide", x, scale)
        if coordinates == "half_pixel":
            return middle
        if coordinates == "tf_half_pixel_for_nn":
            return n("Add", middle, 0.5)
        one = n("Equal", width, 1.0)
        if coordinates == "pytorch_half_pixel":
            return n("Select", one, -0.5, middle)
        steps = n("Select", one, 1.0, n("Subtract", width, 1.0))
        if coordinates == "align_corners":
            return n("Select", one, 0.0, n("Divide", n("Multiply", x, last), steps))
        if coordinates == "half_pixel_symmetric":
            share = n("Subtract", 1.0, n("Divide", length, width))
            return n("Add", n("Multiply", n("Multiply", extent, 0.5), share), middle)
        if coordinates == "tf_crop_and_resize" and region is not None:
            begin, end = region
            centre = n("Multiply", n("Multiply", n("Add", begin, end), last), 0.5)
            step = n("Divide", n("Multiply", n("Subtract", end, begin), last), steps)
            along = n("Add", n("Multiply", begin, last), n("Multiply", x, step))
            return n("Select", n("Equal", length, 1.0), n("Add", x, centre), along)
        raise ModelError(f"coordinate_transformation_mode {coordinates[:40]!r} is not known or has no region")

    def nearest(self, x: Output, places: Output, how: str, axis: int) -> Output:
        n = self.n
        rounded = {
            "round_prefer_floor": lambda: n("Ceiling", n("Subtract", places, 0.5)),
            "round_prefer_ceil": lambda: n("Floor", n("Add", places, 0.5)),
            "floor": lambda: n("Floor", places),
            "ceil": lambda: n("Ceiling", places),
        }[how]()
        top = n("Subtract", self.extent, 1.0)
        return n("Gather", x, n.convert(n("Minimum", n("Maximum", rounded, 0.0), top), "i64"), axis, opset=8)

    def weighted(self, x: Output, places: Output, mode: str, axis: int) -> Output:
        """Sums of the elements around each place; the input goes on at its edges with the values there."""
        n = self.n
        antialias, exclude = bool(n.attr("antialias", 0)), bool(n.attr("exclude_outside", 0))
        stretch = n("Minimum", self.scale, 1.0) if antialias else n.const(1.0)
        reach = n("Divide", 2.0 if mode == "cubic" else 1.0, stretch)
        reach = n("Minimum", n("Ceiling", reach), n("Add", n("Multiply", self.extent, 2.0), 2.0))
        if n.attr("coordinate_transformation_mode") == "tf_crop_and_resize":  # places far outside
            reach = n("Add", reach, n("ReduceMax", n("Abs", places), [0], keep_dims=False))
            reach = n("Ceiling", reach)
        end = n("Add", self.extent, reach)
        columns = n("Range", n("Negative", reach), end, 1.0, output_type="f32", opset=4)
        gap = n("Abs", n("Subtract", columns, n.unsqueeze(places, [1])))
        weights = self._kernel(n("Multiply", gap, stretch), mode)
        top = n("Subtract", self.extent, 1.0)
        if exclude:
            inside = n("LogicalAnd", n("GreaterEqual", columns, 0.0), n("LessEqual", columns, top))
            weights = n("Select", inside, weights, 0.0)
        if antialias or exclude:
            weights = n("Divide", weights, n("ReduceSum", weights, [1], keep_dims=True))
        edges = n.convert(n("Minimum", n("Maximum", columns, 0.0), top), "i64")
        rank = n.rank(x)
        order = [d for d in range(rank) if d != axis] + [axis]
        wide = n.transpose(n("Gather", x, edges, axis, opset=8), order)
        out = n("MatMul", wide, n.convert(weights, n.dtype(x)), transpose_b=True)
        return n.transpose(out, [order.index(d) for d in range(rank)])

    def _kernel(self, gap: Output, mode: str) -> Output:
        n = self.n
        if mode != "cubic":
            return n("Maximum", n("Subtract", 1.0, gap), 0.0)
        a = float(n.attr("cubic_coeff_a", -0.75))

        def polynomial(*coefficients: float) -> Output:
            out = n.const(coefficients[0])
            for c in coefficients[1:]:
                out = n("Add", n("Multiply", out, gap), c)
            return out

        near, far = polynomial(a + 2, -(a + 3), 0.0, 1.0), polynomial(a, -5 * a, 8 * a, -4 * a)
        outer = n("Select", n("Less", gap, 2.0), far, 0.0)
        return n("Select", n("LessEqual", gap, 1.0), near, outer)


class Sampling(NamedTuple):
    """How `x` is resized along `axes`; `targets` and `roi` are tensors."""

    axes: Sequence[int]
    mode: str
    coordinates: str
    nearest: str
    targets: Output
    by_scales: bool
    policy: str
    roi: Output | None


def by_computed_matrices(n: OnnxNode, x: Output, how: Sampling) -> Output:
    """`x` resized to what is known when the model runs."""
    axes, mode, coordinates, nearest, targets, by_scales, policy, roi = how
    kind = n.dtype(x)

    def element(values: Output, i: int) -> Output:
        return n.convert(n("Gather", values, i, 0, opset=8), "f32")

    extents = [n.convert(n.scalar(n.dim_of(x, a)), "f32") for a in axes]
    wanted = [element(targets, i) for i in range(len(axes))]
    if by_scales:
        scales = wanted
        lengths = [n("Floor", n("Multiply", e, s)) for e, s in zip(extents, scales, strict=True)]
    else:
        lengths = wanted
        scales = [n("Divide", t, e) for t, e in zip(wanted, extents, strict=True)]
        if policy in ("not_larger", "not_smaller"):
            factor = scales[0]
            for other in scales[1:]:
                factor = n("Minimum" if policy == "not_larger" else "Maximum", factor, other)
            scales = [factor] * len(scales)
            lengths = [n("Floor", n("Add", n("Multiply", e, factor), 0.5)) for e in extents]
    crop = coordinates == "tf_crop_and_resize"
    if crop and roi is None:
        raise ModelError("the region of interest is missing")
    wide = x if ELEMENT_TYPES[kind].is_real or mode == "nearest" else n.convert(x, "f32")
    outside: Output | None = None
    for i, axis in enumerate(axes):
        row = _Axis(n, extents[i], lengths[i], scales[i])
        region = (element(roi, i), element(roi, len(axes) + i)) if crop and roi is not None else None
        places = row.places(coordinates, region)
        if crop:
            beyond = n("Greater", places, n("Subtract", extents[i], 1.0))
            mask = n("LogicalOr", n("Less", places, 0.0), beyond)
            mask = n.reshape(mask, [-1 if d == axis else 1 for d in range(n.rank(x))])
            outside = mask if outside is None else n("LogicalOr", outside, mask)
        if mode == "nearest":
            wide = row.nearest(wide, places, nearest, axis)
        else:
            wide = row.weighted(wide, places, mode, axis)
    if outside is not None:
        wide = n("Select", outside, n.like(wide, n.attr("extrapolation_value", 0.0)), wide)
    return wide if n.dtype(wide) == kind else to_integers(n, n("Round", wide, mode="half_to_even"), kind)


def to_integers(n: OnnxNode, x: Output, kind: str) -> Output:
    """Real numbers as integers of a type, those beyond its ends as the ends: cubic sums overshoot."""
    bits, low = ELEMENT_TYPES[kind].bits, 0.0
    high = 2.0**bits - 1
    if ELEMENT_TYPES[kind].kind == "i":
        low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return n.convert(n("Clamp", x, min=low, max=high) if bits < 32 else x, kind)
