"""Samples of `ovjit_ops/image`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ovjit.graph.windows import window_attributes
from ovjit_ops.elementwise.arithmetic import random_array
from ovjit_ops.image import resampling
from ovjit_ops.image.cpu_columns import window_counts
from ovjit_ops.image.grid_sample import MODES, PADDINGS
from tests.support.samples import samples


def _grid_sample_samples(rng: np.random.Generator, dtype: str = "f32"):
    shapes = [
        ((1, 3, 5, 7), (4, 9)),
        ((2, 17, 6, 5), (3, 33)),
        ((1, 1, 1, 1), (2, 2)),
        ((2, 4, 9, 16), (1, 17)),
        ((1, 2, 4, 4), (0, 3)),
    ]
    variants = [(m, p, a) for m in MODES for p in PADDINGS for a in (True, False)]
    for i, (mode, padding, align) in enumerate(variants + variants[:4]):
        shape, (height, width) = shapes[i % len(shapes)]
        grid = random_array(rng, (shape[0], height, width, 2), "f32", (-1.6, 1.6))
        attrs = {"mode": mode, "padding_mode": padding, "align_corners": align}
        yield [random_array(rng, shape, dtype), grid], attrs


samples("GridSample", 9)(_grid_sample_samples)


@samples("Interpolate")
def interpolate1(rng, dtype="f32"):
    padded = {"pads_begin": (0, 0, 1, 1), "pads_end": (0, 0, 1, 0)}
    rows: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((1, 2, 5, 6), (2, 3), (10, 12), {"mode": "nearest", "align_corners": False}),
        ((1, 2, 5, 6), (2, 3), (3, 4), {"mode": "nearest", "align_corners": False}),
        ((1, 3, 7, 8), (2, 3), (14, 17), {"mode": "linear", "align_corners": True}),
        ((1, 3, 7, 8), (2, 3), (14, 16), {"mode": "linear", "align_corners": False}),
        ((1, 1, 3, 4, 5), (2, 3, 4), (6, 8, 7), {"mode": "linear", "align_corners": False}),
        ((1, 2, 5, 5), (2, 3), (8, 3), {"mode": "cubic", "align_corners": False}),
        ((2, 2, 5, 5), (2, 3), (7, 8), {"mode": "nearest", "align_corners": False, **padded}),
    ]
    for shape, axes, sizes, attrs in rows:
        yield [random_array(rng, shape, dtype), np.array(sizes, np.int64)], {"axes": axes, **attrs}


#: (shape, axes, sizes, scales): up and down, integer and fractional scales, around the vector width.
_CASES: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[float, ...]]] = [
    ((1, 3, 4, 9), (2, 3), (8, 18), (2.0, 2.0)),
    ((2, 17, 5, 7), (2, 3), (3, 5), (0.6, 0.7)),
    ((1, 2, 6, 33), (2, 3), (9, 15), (1.5, 0.47)),
    ((1, 5, 6, 3), (1, 2), (10, 3), (2.0, 0.5)),
    ((3, 16), (1,), (37,), (2.33,)),
    ((1, 2, 3, 4, 5), (2, 3, 4), (5, 4, 9), (1.7, 1.0, 1.9)),
    ((0, 3, 4, 4), (2, 3), (8, 8), (2.0, 2.0)),
]


def _variants(version: int) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for i, coordinate in enumerate(resampling.COORDINATES):
        for nearest in resampling.NEAREST:
            out.append(
                {"mode": "nearest", "coordinate_transformation_mode": coordinate, "nearest_mode": nearest}
            )
        out.append({"mode": "linear_onnx", "coordinate_transformation_mode": coordinate})
        out.append(
            {"mode": "cubic", "coordinate_transformation_mode": coordinate, "cube_coeff": -0.5 - i / 10}
        )
        out.append({"mode": "linear", "coordinate_transformation_mode": coordinate, "antialias": i % 2 == 0})
    if version == 11:
        out += [{"mode": "bilinear_pillow"}, {"mode": "bicubic_pillow", "cube_coeff": -0.5}] * 3
    return out


def _interpolate_samples(version: int, rng: np.random.Generator, dtype: str = "f32"):
    variants = _variants(version)
    for i, variant in enumerate(variants * 2):
        shape, axes, sizes, scales = _CASES[(i + i // len(_CASES)) % len(_CASES)]
        several = variant["mode"].endswith("pillow") or variant["mode"] == "linear_onnx"
        if several and len(axes) != 2:
            shape, axes, sizes, scales = _CASES[i % 3]
        if not shape[0] and i > len(variants):
            shape = (1, *shape[1:])
        by = "sizes" if (i + version) % 2 else "scales"
        data = random_array(rng, shape, dtype)
        target_sizes, factors = np.array(sizes, np.int64), np.array(scales, np.float32)
        both = [target_sizes, factors] if version == 4 else [target_sizes if by == "sizes" else factors]
        attrs = {"shape_calculation_mode": by, **variant}
        if i % 9 == 4:
            attrs |= {
                "pads_begin": (0,) * (len(shape) - 1) + (1,),
                "pads_end": (0,) * (len(shape) - 1) + (2,),
            }
        yield [data, *both, np.array(axes, np.int64)], attrs


samples("Interpolate", 4)(partial(_interpolate_samples, 4))
samples("Interpolate", 11)(partial(_interpolate_samples, 11))


@samples("Col2Im", 15)
def col2im(rng, dtype="f32"):
    for batch, channels, size, kernel, attrs in (
        ((2,), 3, (5, 6), (2, 3), {}),
        ((), 1, (8, 8), (3, 3), {"pads_begin": (1, 1), "pads_end": (1, 1)}),
        ((1,), 17, (9, 7), (2, 2), {"strides": (2, 1), "dilations": (2, 2), "pads_begin": (0, 1)}),
    ):
        full = window_attributes(2, attrs)
        columns = math.prod(window_counts(size, kernel, full))
        shape = (*batch, channels * math.prod(kernel), columns)
        yield [random_array(rng, shape, dtype), np.array(size), np.array(kernel)], full


@samples("WeightedSums")
def weighted_sums(rng, dtype="f32"):
    for shape, axis, outputs, taps in (
        ((2, 3, 9, 17), 2, 5, 3), ((2, 3, 9, 17), 3, 33, 4), ((1, 7, 5, 40), 2, 11, 2),
        ((3, 16, 19), 1, 4, 9), ((33,), 0, 9, 5), ((0, 4, 5), 1, 3, 2), ((2, 9, 8, 3), 1, 4, 3),
    ):  # fmt: skip
        starts = np.sort(rng.integers(0, shape[axis] - taps + 1, outputs)).astype(np.int32)
        weights = rng.standard_normal((outputs, taps)).astype(np.float32)
        weights[rng.random(weights.shape) < 0.2] = 0
        yield [random_array(rng, shape, dtype), starts, weights], {"axis": axis}


def _color_planes_samples(interleaved: bool, rng: np.random.Generator, dtype: str = "u8"):
    for n, height, width in ((1, 2, 2), (2, 4, 6), (1, 16, 34), (1, 6, 16)):
        small = (n, height // 2, width // 2)
        several = [(*small, 2)] if interleaved else [(*small, 1)] * 2
        for shapes in ([(n, height * 3 // 2, width, 1)], [(n, height, width, 1), *several]):
            yield [random_array(rng, s, dtype, (0, 255)) for s in shapes], {}


def _picture_samples(rng, dtype="u8"):
    for shape in ((1, 2, 2, 3), (2, 4, 6, 3), (1, 16, 34, 3), (1, 6, 16, 3)):
        for single_plane in (True, False):
            yield [random_array(rng, shape, dtype, (0, 255))], {"single_plane": single_plane}


for _colours in ("RGB", "BGR"):
    samples(f"NV12to{_colours}", 8)(partial(_color_planes_samples, True))
    samples(f"I420to{_colours}", 8)(partial(_color_planes_samples, False))
    samples(f"{_colours}toNV12", 17)(_picture_samples)
