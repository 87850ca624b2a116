"""Resampling along one axis by tables of input elements and weights.

Every mode of Interpolate processes its axes separately, so a table for each axis is enough:

    y[..., o, ...] = sum over t of weight[o, t] * x[..., index[o, t], ...]

Coordinates are computed in f32, as in OpenVINO: the last bit may decide which element is the nearest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.shapes import Dim, bounds, dim, normalize_axis
from ovjit.graph.symbolic import sym_int
from ovjit.graph.traced import LARGEST, as_found_number, is_traced_number
from ovjit.records import NamedTuple

MODES = ("nearest", "linear", "linear_onnx", "cubic", "bilinear_pillow", "bicubic_pillow")
COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
_F32 = np.float32


class Resized(NamedTuple):
    """The resize of one axis."""

    outputs: int
    extent: int
    requested: float | None  # the requested scale; None: resized to a size
    antialias: bool

    @property
    def scale(self) -> np.float32:
        """outputs / extent, or the requested scale, in f32."""
        return _F32(self.outputs) / _F32(self.extent) if self.requested is None else _F32(self.requested)

    @property
    def downscales(self) -> bool:
        return self.outputs < self.extent if self.requested is None else self.requested < 1


class Table(NamedTuple):
    """Contiguous taps: output o reads elements start[o] ... start[o] + taps - 1."""

    start: np.ndarray  # [outputs] i64
    weight: np.ndarray  # [outputs, taps] f64

    @property
    def taps(self) -> int:
        return self.weight.shape[1]


def coordinates(mode: str, outputs: int, extent: int, scale: np.float32) -> np.ndarray:
    """The input coordinate of each output element, f32 [outputs]. `scale` is outputs / inputs."""
    o = np.arange(outputs, dtype=_F32)
    if scale == 1 or outputs == extent:
        return o
    half = _F32(0.5)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and outputs > 1):
        return (o + half) / scale - half
    if mode == "asymmetric":
        return o / scale
    if mode == "tf_half_pixel_for_nn":
        return (o + half) / scale
    if mode == "align_corners" and outputs > 1:
        return o * _F32(extent - 1) / _F32(outputs - 1)
    return np.zeros(outputs, _F32)


def _nearest(at: np.ndarray, mode: str, scale: np.float32) -> np.ndarray:
    if mode == "round_prefer_floor":
        truncated = np.trunc(at)
        return np.where(at == truncated + _F32(0.5), np.floor(at), _round(at))
    if mode == "round_prefer_ceil":
        return _round(at)
    if mode == "simple":
        return np.ceil(at) if scale < 1 else np.trunc(at)
    return np.floor(at) if mode == "floor" else np.ceil(at)


def _round(x: np.ndarray) -> np.ndarray:
    """Round to the nearest integer, ties away from zero."""
    return np.trunc(x + np.copysign(np.nextafter(_F32(0.5), _F32(0)), x))


def cubic_weights(t: np.ndarray, a: float) -> list[np.ndarray]:
    """The weights of the four elements around a coordinate, which is `t` beyond the second one."""
    r = 1 - t
    return [
        ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        ((a + 2) * r - (a + 3)) * r * r + 1,
        ((a * (r + 1) - 5 * a) * (r + 1) + 8 * a) * (r + 1) - 4 * a,
    ]


def _pillow(outputs: int, extent: int, cubic: bool) -> Table:
    """Pillow's filters, as wide as an output element when downscaling. Bicubic has a = -0.5. A requested
    scale determines only the output size."""
    step = extent / max(outputs, 1)
    width = max(step, 1.0)
    support = (2.0 if cubic else 1.0) * width
    centre = (np.arange(outputs) + 0.5) * step
    low = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    high = np.minimum((centre + support + 0.5).astype(np.int64), extent)
    taps = int(max(1, (high - low).max(initial=1)))
    index = low[:, None] + np.arange(taps)
    d = np.abs((index - centre[:, None] + 0.5) / width)
    if cubic:
        a = -0.5
        weight = np.where(
            d < 1, ((a + 2) * d - (a + 3)) * d * d + 1, np.where(d < 2, a * (((d - 5) * d + 8) * d - 4), 0)
        )
    else:
        weight = np.maximum(1 - d, 0)
    weight = np.where(index < high[:, None], weight, 0)
    total = weight.sum(1, keepdims=True)
    return adjacent(index, np.divide(weight, total, out=np.zeros_like(weight), where=total != 0), extent)


def _linear(at: np.ndarray, scale: np.float32, extent: int, antialias: bool) -> Table:
    """A triangle filter, with `antialias` 2 / scale elements wide, else 2. The weights of elements inside sum
    up to 1."""
    inverse_width = float(scale) if antialias else 1.0
    support = 2 if scale > 1 else int(np.ceil(_F32(2) / _F32(inverse_width)))
    index = _round(at).astype(np.int64)[:, None] + np.arange(-support, support + 1)
    distance = np.abs(inverse_width * (at[:, None].astype(np.float64) - index))
    weight = np.where((index >= 0) & (index < extent), np.maximum(1 - distance, 0), 0)
    total = weight.sum(1, keepdims=True)
    return adjacent(index, np.divide(weight, total, out=np.zeros_like(weight), where=total != 0), extent)


def adjacent(index: np.ndarray, weight: np.ndarray, extent: int) -> Table:
    """The table of any `index` [outputs, taps]. Indices out of range are clamped, and weights of equal
    elements are added. The number of taps is minimal."""
    if not index.size:
        return Table(np.zeros(len(index), np.int64), np.zeros((len(index), 1)))
    index = np.clip(index, 0, extent - 1)
    used = weight != 0
    first = np.where(used, index, extent).min(1)
    last = np.where(used, index, -1).max(1)
    first, last = np.where(last < 0, 0, first), np.maximum(last, 0)
    taps = int((last - first).max()) + 1
    start = np.minimum(first, extent - taps)
    out = np.zeros((len(index), taps))
    rows = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
    np.add.at(out, (rows[used], (index - start[:, None])[used]), weight[used])
    return Table(start, out)


def axis_table(axis: Resized, attrs: dict[str, Any]) -> Table:
    """The table of one axis of an Interpolate with these attributes."""
    mode, outputs, extent, scale = attrs["mode"], int(axis.outputs), int(axis.extent), axis.scale
    if mode.endswith("pillow"):
        return _pillow(outputs, extent, mode == "bicubic_pillow")
    at = coordinates(attrs["coordinate_transformation_mode"], outputs, extent, scale)
    if mode == "nearest":
        index = np.clip(_nearest(at, attrs["nearest_mode"], scale), 0, extent - 1).astype(np.int64)
        return Table(index, np.ones((outputs, 1)))
    if mode == "linear":
        return _linear(at, scale, extent, axis.antialias)
    if mode == "linear_onnx":
        at = np.clip(at, 0, extent - 1)
        low = np.minimum(at.astype(np.int64), extent - 1)
        high = np.minimum(low + 1, extent - 1)
        fraction = (at - low).astype(np.float64)
        same = low == high
        weight = np.stack([np.where(same, 0.5, 1 - fraction), np.where(same, 0.5, fraction)], 1)
        return adjacent(np.stack([low, high], 1), weight, extent)
    floor = np.floor(at)
    index = floor.astype(np.int64)[:, None] + np.arange(-1, 3)
    weights = cubic_weights((at - floor).astype(np.float64), attrs["cube_coeff"])
    return adjacent(index, np.stack(weights, 1), extent)


def resample(x: np.ndarray, axis: int, table: Table) -> np.ndarray:
    """Apply a table along one axis of an array of floats. Elements of weight 0 do not count."""
    shape = [1] * x.ndim
    shape[axis] = len(table.start)
    out = np.zeros((*x.shape[:axis], len(table.start), *x.shape[axis + 1 :]), x.dtype)
    for t in range(table.taps):
        weight = table.weight[:, t].reshape(shape).astype(x.dtype)
        part = np.take(x, table.start + t, axis)
        out += np.where(weight == 0, 0, part) * weight
    return out


#: Added to a scale before a size is computed, so that 0.3 * 10 gives 3.
_EPSILON = np.float32(1e-6)


def sizes_or_scales(attrs: dict[str, Any], sizes: Any, scales: Any) -> tuple[Any, Any]:
    """(sizes, None) or (None, scales), as `shape_calculation_mode` selects."""
    return (sizes, None) if attrs["shape_calculation_mode"] == "sizes" else (None, scales)


#: Dimensions below this are multiplied by integer scales exactly.
EXACT = 10_000


def repeats(
    shape: Sequence[int],
    sizes: Any,
    scales: Any,
    axes: np.ndarray | Sequence[int] | None,
    attrs: dict[str, Any],
) -> dict[int, int] | None:
    """axis -> repetitions of each element, for a nearest resize by powers of two, whose quotients are exact
    in f32. Axes without repetition are omitted. None for any other resize."""
    rank = len(shape)
    dims = range(rank) if axes is None else [normalize_axis(int(a), rank, "axes") for a in np.ravel(axes)]
    values = np.ravel(sizes if scales is None else scales).tolist()
    if attrs["mode"] != "nearest" or len(values) != len(dims):
        return None
    extents = [shape[axis] for axis in dims]
    if not all(0 < extent < EXACT for extent in extents):
        return None
    if scales is None:
        for value, extent in zip(values, extents, strict=True):
            if as_found_number(value) % as_found_number(extent) and value % extent:  # guard on one axis only
                return None
        values = [as_found_number(v) // as_found_number(e) for v, e in zip(values, extents, strict=True)]
        triples = zip(np.ravel(sizes).tolist(), extents, values, strict=True)
        if any(sym_int(v) != e * t for v, e, t in triples):
            return None
    result = {}
    for axis, value in zip(dims, values, strict=True):
        times = int(value) if 1 <= value <= 64 else 0
        if value != times or times not in (1, 2, 4, 8, 16, 32, 64):
            return None
        if times > 1:
            start = axis_table(Resized(8 * times, 8, times, False), attrs).start
            if start.tolist() != [i // times for i in range(8 * times)]:
                return None
            result[axis] = times
    return result


def scale_extent(extent: Dim, scale: float) -> Dim:
    """The size of a dimension times `scale`, rounded down."""
    if is_traced_number(extent) and 0 < extent < EXACT:  # type: ignore[operator]
        if float(scale).is_integer():
            return extent * int(scale)
        factor = _as_fraction(scale)
        if factor is not None:
            return extent * factor[0] // factor[1]

    def of(n: int) -> int:
        return int(np.floor(np.float32(n) * (np.float32(scale) + _EPSILON)))

    low, high = bounds(extent)
    return dim(of(low), None if high is None else of(high))


@functools.lru_cache(64)
def _as_fraction(scale: float) -> tuple[int, int] | None:
    """(factor, divisor) of the integer formula for `scale_extent` of dimensions below EXACT. None if it does
    not equal the f32 result for all of them."""
    factor = np.float32(scale) + _EPSILON
    over, under = float(factor).as_integer_ratio()
    if max(over * EXACT, under) >= LARGEST:
        return None
    n = np.arange(EXACT)
    same = np.array_equal(np.floor(n.astype(np.float32) * factor), n * over // under)
    return (over, under) if same else None


#: Results with more elements are allocated as a test before their tables are made.
LARGE = 2**30


def find_resizes(
    extents: Sequence[int],
    sizes: np.ndarray | None,
    scales: np.ndarray | None,
    axes: np.ndarray | Sequence[int] | None,
    attrs: dict[str, Any],
) -> dict[int, Resized]:
    """axis -> resize of each axis that changes. `extents` are those of the padded data. Raises InferenceError
    for invalid sizes and scales."""
    rank = len(extents)
    dims = range(rank) if axes is None else [normalize_axis(int(a), rank, "axes") for a in np.ravel(axes)]
    values = np.ravel(sizes if scales is None else scales)  # type: ignore[arg-type]
    if len(values) != len(dims):
        raise InferenceError(f"{len(dims)} axes need as many sizes or scales, not {len(values)}")
    plans: dict[int, Resized] = {}
    for axis, value in zip(dims, values, strict=True):
        extent = extents[axis]
        if scales is not None:
            if not 0 < value < np.inf:
                raise InferenceError(f"scales {values.tolist()} should be positive")
            plans[axis] = Resized(sym_int(scale_extent(extent, float(value))), extent, float(value), False)
        else:
            if value < 0:
                raise InferenceError(f"sizes {values.tolist()} should not be negative")
            plans[axis] = Resized(sym_int(value), extent, None, False)
    count = math.prod(as_found_number(plans[i].outputs if i in plans else extent)
                     for i, extent in enumerate(extents))  # fmt: skip
    if count > LARGE:
        try:  # before the tables fill the memory
            np.empty(count, np.uint8)
        except (MemoryError, ValueError) as error:
            raise InferenceError(f"Interpolate produces {count} elements, which exceeds memory") from error
    antialias = bool(attrs["antialias"]) and any(one.downscales for one in plans.values())
    changed = {a: one._replace(antialias=antialias) for a, one in plans.items() if one.outputs != one.extent}
    there = all(one.extent > 0 for one in changed.values())
    check(there, "an input with a dimension of 0 cannot be interpolated")
    return changed
