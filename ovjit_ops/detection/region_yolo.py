"""RegionYolo: the raw map of a YOLO network as coordinates, confidences and classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Bool, Floats, Int, Ints, TensorType, op
from ovjit.graph.shapes import ANY, Interval, compatible, normalize_axis
from ovjit_ops.common.checks import check_type, dims
from ovjit_ops.common.values import widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS, cases


def _regions(attrs: dict[str, Any]) -> int:
    return attrs["num"] if attrs["do_softmax"] else len(attrs["mask"])


def _flat_shape(shape: Sequence[Any], attrs: dict[str, Any]) -> list[Any]:
    """The dimensions of the result, given those of the data. With a softmax, those from `axis` to `end_axis`
    are merged; none if `end_axis` precedes `axis`, as in OpenVINO."""
    if not attrs["do_softmax"]:
        return list(shape)
    first, last = (normalize_axis(attrs[end], 4) for end in ("axis", "end_axis"))
    inside = shape[first : last + 1]
    if len(inside) < 2:
        return list(shape)
    flat = ANY if any(isinstance(d, Interval) for d in inside) else math.prod(inside)
    return [*shape[:first], flat, *shape[last + 1 :]]


@op("RegionYolo", opset=1, types=REALS, ulp=16)
class RegionYolo:
    """Sigmoid of the first two coordinates and of the confidence; classes by sigmoid or softmax."""

    def infer(
        data, *, coords: Int, classes: Int, num: Int, do_softmax: Bool = True, mask: Ints = (), axis: Int,
        end_axis: Int, anchors: Floats = (),
    ):  # fmt: skip
        attrs = locals()
        check_type(data, NUMBERS)
        check(
            coords >= 2 and classes >= 0 and num >= 0,
            "coords should be at least 2, classes and num should not be negative",
        )
        check(_regions(attrs) > 0, "the number of regions is 0: num is 0, or mask is empty")
        n, c, h, w = dims(data, 4, "the data")
        channels = (coords + 1 + classes) * _regions(attrs)
        if do_softmax:  # else the number of channels is checked at run time, as in OpenVINO
            check(compatible(c, channels), f"{_regions(attrs)} regions need {channels} channels, not {data}")
        return TensorType(data.dtype, _flat_shape((n, channels, h, w), attrs))

    def ref(data, **attrs):
        n, _, height, width = data.shape
        coords, classes, regions = attrs["coords"], attrs["classes"], _regions(attrs)
        channels = regions * (coords + 1 + classes)
        if data.shape[1] != channels:
            raise InferenceError(f"{regions} regions need {channels} channels, not {data.shape[1]}")
        x = widen_floats(data).reshape(n, regions, coords + 1 + classes, height, width).copy()
        confidences = slice(coords, coords + 1) if attrs["do_softmax"] else slice(coords, None)
        for part in (slice(0, 2), confidences):
            x[:, :, part] = 1 / (1 + np.exp(-x[:, :, part]))
        if attrs["do_softmax"]:
            e = x[:, :, coords + 1 :]
            e = np.exp(e - e.max(2, keepdims=True, initial=-np.inf))
            x[:, :, coords + 1 :] = e / e.sum(2, keepdims=True)
        return x.astype(data.dtype).reshape(_flat_shape((n, channels, height, width), attrs))

    def expand(w, node, inputs):
        """RegionYolo(x) -> Concat of Sigmoid and Softmax of slices"""
        (x,) = inputs
        if x.shape is None or 0 in x.shape:
            return None
        attrs = node.attrs
        coords, classes, regions = attrs["coords"], attrs["classes"], _regions(attrs)
        if x.shape[1] != regions * (coords + 1 + classes):
            return None
        split = w("Reshape", x, (0, regions, coords + 1 + classes, -1), special_zero=True)

        part = partial(w.part, split, axis=2)
        parts = [w("Sigmoid", part(0, 2))]
        if coords > 2:
            parts.append(part(2, coords))
        if attrs["do_softmax"]:
            parts.append(w("Sigmoid", part(coords, coords + 1)))
            parts.append(w("Softmax", part(coords + 1, coords + 1 + classes), axis=2))
        else:
            parts.append(w("Sigmoid", part(coords, coords + 1 + classes)))
        shape = _flat_shape(w.shape(x), attrs)
        return [w("Reshape", w("Concat", *parts, axis=2), shape, special_zero=False)]

    samples = cases(
        ((1, 24, 5, 6), {"classes": 3, "num": 9, "do_softmax": False, "mask": (0, 1, 2)}),
        ((2, 16, 4, 4), {"classes": 3, "num": 2, "do_softmax": True, "mask": ()}),
        ((1, 21, 3, 17), {"classes": 16, "num": 3, "do_softmax": False, "mask": (2,)}),
        each=[{"coords": 4, "axis": 1, "end_axis": 3}],
    )
