"""Pooling over windows of [N, C, *spatial]: MaxPool, AvgPool, AdaptiveAvgPool and AdaptiveMaxPool."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FLOATS, FULL, from_numpy, numpy_dtype
from ovjit.graph.op import Bool, Index, Int, Ints, TensorType, Word, op
from ovjit.graph.shapes import ANY, is_static, normalize_axis, text
from ovjit.graph.windows import (
    POOLING_AUTO_PADS,
    ROUNDINGS,
    output_extents,
    pad_spatial,
    pool_window,
    resolve_pads,
    shown_pads,
    taps,
)
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.images import images_of, window_images
from ovjit_ops.common.values import given_rank, length, shape_value, widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS, cases
from ovjit_ops.pooling.cpu_windows import lowest


def _infer(data: TensorType, attrs: dict[str, Any]) -> TensorType:
    check_type(data, NUMBERS)
    rank = len(attrs["kernel"])
    check(
        data.rank is None or 3 <= data.rank <= 5,
        f"Expected a 3D, 4D or 5D tensor for the input. Got: {text(data.shape)}",
    )
    check(1 <= rank <= 3, f"a window should have 1 to 3 spatial dimensions, not {rank}")
    window = pool_window(rank, attrs)
    check(
        data.rank in (None, rank + 2),
        f"a kernel of {rank} dimensions needs data of rank {rank + 2}, not {data}",
    )
    n, c, *extents = data.shape or (ANY,) * (rank + 2)
    return TensorType(data.dtype, (n, c, *output_extents(extents=extents, **window)))


def _show_attrs(attrs: dict[str, Any], inputs: Sequence[TensorType]) -> dict[str, Any]:
    """The padding that results from `auto_pad`, and the axis as a non-negative number."""
    shape = inputs[0].shape
    if shape is None:
        return {}
    pads = shown_pads(attrs, shape[2:], attrs["kernel"])
    return pads | ({"axis": normalize_axis(attrs["axis"], len(shape))} if "axis" in attrs else {})


class _Windows:
    """The geometry of pooling windows over the spatial dimensions of an array."""

    def __init__(self, x: np.ndarray, attrs: dict[str, Any]):
        window = pool_window(x.ndim - 2, attrs)
        outputs = output_extents(extents=x.shape[2:], **window)
        del window["rounding"]
        self.begin, self.end = resolve_pads(extents=x.shape[2:], **window)
        self.grid: Any = (window["kernel"], outputs, window["strides"], window["dilations"])
        self.shape = (*x.shape[:2], *outputs)

    def taps(self, x: np.ndarray, outside: Any) -> Iterator[np.ndarray]:
        """Yield for each tap the elements of `x` that all outputs read; `outside` where they are in the
        padding."""
        kernel, outputs, *moves = self.grid
        padded = pad_spatial(x, outside, self.begin, outputs, kernel, *moves)
        return (padded[(...,) + slices] for _, slices in taps(*self.grid))


def max_pool(x: np.ndarray, **attrs: Any) -> np.ndarray:
    """The maximum of each window. NaN propagates, as in np.max; padding is minus infinity."""
    windows = _Windows(x, attrs)
    out = np.full(windows.shape, lowest(from_numpy(x.dtype)), dtype=x.dtype)
    for part in windows.taps(x, lowest(from_numpy(x.dtype))):
        np.maximum(out, part, out=out)
    return out


def max_pool_indices(x: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """The index of each maximum (the first of equal ones), over the dimensions from `axis` on."""
    windows = _Windows(x, attrs)
    position = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    best = np.full(windows.shape, lowest(from_numpy(x.dtype)), dtype=x.dtype)
    where = np.full(best.shape, -1, dtype=np.int64)
    values = windows.taps(x, lowest(from_numpy(x.dtype)))
    for value, index in zip(values, windows.taps(position, -1), strict=True):
        better = value > best
        if x.dtype.kind not in "iub":  # bf16 is of another kind than f
            better |= np.isnan(value) & ~np.isnan(best)
        better |= (where < 0) & (index >= 0)
        best, where = np.where(better, value, best), np.where(better, index, where)
    axis = normalize_axis(attrs["axis"], x.ndim)
    return np.maximum(where, 0) % max(1, math.prod(x.shape[axis:]))


def avg_pool(x: np.ndarray, **attrs: Any) -> np.ndarray:
    """The mean of each window. Padding counts as zeros, unless `exclude_pad`. Positions beyond the padding,
    which rounding up may add, never count. A window without counted elements gives 0."""
    dtype = x.dtype
    x = widen_floats(x)
    windows = _Windows(x, attrs)
    counts = np.ones((1,) * x.ndim, dtype=np.int64)
    axes = zip(x.shape[2:], windows.begin, windows.end, *windows.grid, strict=True)
    for axis, (extent, b, e, kernel, outputs, stride, dilation) in enumerate(axes, 2):
        first, last = (0, extent) if attrs["exclude_pad"] else (-b, extent + e)
        positions = np.arange(outputs)[:, None] * stride - b + np.arange(kernel) * dilation
        inside = ((positions >= first) & (positions < last)).sum(1)
        counts = counts * inside.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    total = np.zeros(windows.shape, dtype=x.dtype)
    for part in windows.taps(x, 0):
        total += part
    counts = np.maximum(counts, 1)
    return (total / counts.astype(x.dtype)).astype(dtype)


def _words(rounding: int) -> dict[str, str]:
    return {"auto_pad": POOLING_AUTO_PADS, "rounding_type": ROUNDINGS[rounding]}


@op(
    "MaxPool",
    opset=1,
    types=NUMBERS,
    lower=".cpu_pooling:lower_pooling",
    native=FLOATS,
    part="carry",
    images=window_images,
    words=_words(0),
)
class MaxPool1:
    """The maximum of each window."""

    def infer(
        data,
        *,
        strides: Ints = (),
        pads_begin: Ints = (),
        pads_end: Ints = (),
        kernel: Ints,
        rounding_type: Word = "floor",
        auto_pad: Word = "explicit",
    ):
        return _infer(data, locals())

    show = _show_attrs
    ref = max_pool


def _infer_max(data: TensorType, attrs: dict[str, Any]) -> tuple[TensorType, TensorType]:
    normalize_axis(attrs["axis"], len(attrs["kernel"]) + 2)
    out = _infer(data, attrs)
    return out, TensorType(attrs["index_element_type"], out.shape)


@op("MaxPool", opset=8, like=MaxPool1)
class MaxPool8:
    """The maximum of each window, and its index over the dimensions from `axis` on."""

    def infer(
        data, *, strides: Ints = (), dilations: Ints = (), auto_pad: Word = "explicit",
        index_element_type: Index = "i64", axis: Int = 0, **attrs,
    ):  # fmt: skip
        return _infer_max(data, {**attrs, **locals()})

    def ref(data, **attrs):
        index = max_pool_indices(data, attrs)
        return max_pool(data, **attrs), index.astype(numpy_dtype(attrs["index_element_type"]))


@op("MaxPool", opset=14, like=MaxPool8, words=_words(1))
class MaxPool14:
    """MaxPool-8 with the rounding type ceil_torch."""

    def infer(data, **attrs):
        return _infer_max(data, attrs)


@op("AvgPool", opset=1, like=MaxPool1, in_real=1)
class AvgPool1:
    """The mean of each window (`avg_pool` defines how padding counts)."""

    def infer(data, *, kernel: Ints, exclude_pad: Bool, **attrs):
        return _infer(data, {**attrs, "kernel": kernel, "exclude_pad": exclude_pad})

    ref = avg_pool


@op("AvgPool", opset=14, like=AvgPool1, words=_words(1))
class AvgPool14:
    """AvgPool-1 with the rounding type ceil_torch."""

    def infer(data, **attrs):
        return _infer(data, attrs)


@op("AvgPool", opset=16, like=AvgPool14)
class AvgPool16:
    """AvgPool-14 with dilations."""

    def infer(data, *, strides: Ints = (), dilations: Ints = (), **attrs):
        return _infer(data, {**attrs, "strides": strides, "dilations": dilations})


def adaptive_bounds(extent: Any, outputs: int) -> list[tuple[Any, Any]]:
    """(begin, end) of each of `outputs` windows that cover `extent`, an int or an Extent. Neighbours may
    overlap by one element."""
    ends = [((i + 1) * extent + (outputs - 1)) // outputs for i in range(outputs)]
    return [(i * extent // outputs, end) for i, end in enumerate(ends)]


def _infer_adaptive(data: TensorType, output_shape: TensorType) -> TensorType:
    check_type(data, NUMBERS)
    sizes = shape_value(output_shape, "output_shape")
    rank = data.rank - 2 if data.rank is not None else given_rank(output_shape)
    if rank is None:
        return TensorType(data.dtype, None)
    check(1 <= rank <= 3, f"Expected a 3D, 4D or 5D tensor for the input. Got: {text(data.shape)}")
    check(
        length(output_shape) in (None, rank),
        f"Output shape for spatial dimension not compatible with data shape. Expected {rank} entries",
    )
    check(sizes is None or min(sizes) >= 0, f"output_shape {sizes} should not be negative")
    lead = data.shape[:2] if data.shape is not None else (ANY, ANY)
    return TensorType(data.dtype, (*lead, *([ANY] * rank if sizes is None else map(int, sizes))))


def _adaptive(x: np.ndarray, sizes: np.ndarray):
    """Yield (output position, slices of the input) of each window."""
    ranges = [adaptive_bounds(e, int(o)) for e, o in zip(x.shape[2:], sizes.reshape(-1), strict=True)]
    for position in np.ndindex(*map(len, ranges)):
        yield position, tuple(slice(*r[p]) for r, p in zip(ranges, position, strict=True))


_ADAPTIVE: list[tuple[Any, ...]] = [
    ((2, 3, 7), [3]),
    ((1, 17, 9, 8), [1, 1]),
    ((2, 3, 13, 16), [5, 7]),
    ((1, 3, 4, 5), [6, 5]),
    ((1, 2, 5, 6, 7), [2, 3, 4]),
]


MOST_WINDOWS = 64  # of one dimension that are expanded to slices


@op("AdaptiveAvgPool", opset=8, types=NUMBERS, native=FULL, in_real=1, images=images_of(0))
class AdaptiveAvgPool:
    """The mean over windows that split each spatial dimension into `output_shape` parts."""

    infer = _infer_adaptive

    def expand(w, node, inputs):
        """AdaptiveAvgPool(x) -> ReduceMean(x), AvgPool(x), or means of slices, one dimension after the other

        A window along one dimension has the same length for all positions of the others, so a mean of means
        is the mean.
        """
        x, sizes = inputs
        if x.shape is None or sizes.type.value is None or x.dtype not in REALS:
            return None
        targets, extents = sizes.type.value.reshape(-1).tolist(), x.shape[2:]
        if all(s == 1 for s in targets):
            return [w("ReduceMean", x, range(2, len(x.shape)), keep_dims=True)]
        if 0 in targets or 0 in extents:
            return None
        divides = is_static(extents) and all(e % s == 0 for e, s in zip(extents, targets, strict=True))
        if divides and len(extents) < 3:
            window = tuple(e // s for e, s in zip(extents, targets, strict=True))
            none = (0,) * len(window)
            pool = {"strides": window, "kernel": window, "pads_begin": none, "pads_end": none}
            return [w("AvgPool", x, exclude_pad=False, **pool)]
        if max(targets) > MOST_WINDOWS:
            return None
        for axis, (extent, size) in enumerate(zip(w.shape(x)[2:], targets, strict=True), 2):
            parts = [
                w("ReduceMean", w.part(x, first, stop, axis), (axis,), keep_dims=True)
                for first, stop in adaptive_bounds(extent, size)
            ]
            x = w("Concat", *parts, axis=axis)
        return [x]

    def ref(data, output_shape):
        x = widen_floats(data)
        out = np.zeros((*x.shape[:2], *map(int, output_shape.reshape(-1))), dtype=x.dtype)
        for position, window in _adaptive(x, output_shape):
            part = x[(...,) + window]
            part = part.reshape(*x.shape[:2], math.prod(part.shape[2:]))
            total = part.sum(-1, dtype=x.dtype)
            out[(...,) + position] = total / x.dtype.type(part.shape[-1])
        return out.astype(data.dtype)

    samples = cases(*_ADAPTIVE)


@op("AdaptiveMaxPool", opset=8, types=NUMBERS, native=FLOATS, lower=".cpu_pool_indices:PoolIndices.of")
class AdaptiveMaxPool:
    """The maximum over windows that split each spatial dimension, and its index within the channel."""

    def infer(data, output_shape, *, index_element_type: Index = "i64"):
        out = _infer_adaptive(data, output_shape)
        return out, TensorType(index_element_type, out.shape)

    def expand(w, node, inputs):
        """AdaptiveMaxPool(x) -> TopK(x, 1) over all spatial dimensions, if each has one output"""
        x, sizes = inputs
        if x.shape is None or sizes.type.value is None or np.any(sizes.type.value != 1):
            return None
        extents = x.shape[2:]
        if not is_static(extents):
            return None
        if not 0 < math.prod(extents) < 1 << 31:
            return None
        flat = w("Reshape", x, (0, 0, math.prod(extents)), special_zero=True)
        best = w.outputs("TopK", flat, np.array(1), axis=2, mode="max", sort="value", **node.attrs)
        return [w("Reshape", v, (0, 0, *(1 for _ in extents)), special_zero=True) for v in best]

    def ref(data, output_shape, *, index_element_type="i64"):
        out = np.zeros((*data.shape[:2], *map(int, output_shape.reshape(-1))), dtype=data.dtype)
        index = np.zeros(out.shape, dtype=numpy_dtype(index_element_type))
        numbers = np.arange(math.prod(data.shape[2:])).reshape(data.shape[2:])
        for position, window in _adaptive(data, output_shape):
            part = data[(...,) + window]
            part = part.reshape(*data.shape[:2], math.prod(part.shape[2:]))
            best = np.argmax(part, -1)
            out[(...,) + position] = np.take_along_axis(part, best[..., None], -1)[..., 0]
            index[(...,) + position] = numbers[window].reshape(-1)[best]
        return out, index

    samples = cases(*_ADAPTIVE, each=[{"index_element_type": "i32"}])
