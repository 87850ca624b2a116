"""Samples of `ovjit_ops/convolution`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ovjit.graph.shapes import is_static
from ovjit.graph.windows import output_extents, window_attributes
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


@samples("BinaryConvolution")
def binary_convolution(rng, dtype="f32"):
    for shape, filters, pad in (((1, 3, 5, 6), (4, 3, 3, 3), 0.0), ((2, 17, 4, 4), (8, 17, 1, 1), 1.0)):
        attrs = {
            "strides": (1, 1),
            "pads_begin": (1, 0),
            "pads_end": (1, 1),
            "dilations": (1, 1),
            "mode": "xnor-popcount",
            "pad_value": pad,
        }
        data = rng.integers(0, 2, shape).astype(np.float32)
        yield [data, rng.integers(0, 2, filters).astype(np.uint8)], attrs


_CASES: list[tuple[tuple[int, ...], tuple[int, ...], int, int, dict[str, Any]]] = [
    ((1, 4, 6, 7), (3, 4, 3, 3), 1, 1, {}),
    ((2, 16, 5, 5), (17, 16, 3, 2), 1, 2, {"pads_begin": (1, 1), "pads_end": (1, 0), "strides": (2, 1)}),
    ((1, 34, 6, 6), (4, 17, 2, 2), 2, 1, {"dilations": (2, 1)}),
    ((1, 8, 7, 7), (8, 2, 3, 3), 4, 2, {"auto_pad": "same_upper"}),
]


def _samples(version: int, rng: np.random.Generator, dtype: str = "f32"):
    for i, (shape, filters, group, deformable, more) in enumerate(_CASES * (2 if version == 8 else 1)):
        attrs: dict[str, Any] = {
            "strides": (1, 1),
            "pads_begin": (0, 0),
            "pads_end": (0, 0),
            "dilations": (1, 1),
            "auto_pad": "explicit",
            "group": group,
            "deformable_group": deformable,
            **more,
        }
        if version == 8:
            attrs["bilinear_interpolation_pad"] = i % 2 == 0
        out = output_extents(extents=shape[2:], kernel=filters[2:], **window_attributes(2, attrs))
        assert is_static(out)
        taps = math.prod(filters[2:]) * deformable
        inputs = [
            random_array(rng, shape, dtype, (-2, 2)),
            random_array(rng, (shape[0], 2 * taps, *out), dtype, (-2, 2)),
            random_array(rng, filters, dtype, (-2, 2)),
        ]
        if version == 8 and i >= len(_CASES):
            inputs.append(random_array(rng, (shape[0], taps, *out), dtype, (0, 1)))
        yield inputs, attrs


samples("DeformableConvolution")(partial(_samples, 1))
samples("DeformableConvolution", 8)(partial(_samples, 8))


@samples("DeformedColumns")
def deformed_columns(rng, dtype="f32"):
    for (data, offsets, filters, *mask), attrs in _samples(8, rng, dtype):
        yield [data, offsets, *mask], {**attrs, "kernel": filters.shape[2:]}
