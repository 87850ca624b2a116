"""PriorBox and PriorBoxClustered: the reference boxes of a detector's predictions, at every position of a
map.

They depend only on the shapes of map and picture, so they are constant-folded or computed when planning.
Several fixed_ratio, or max_size without scale_all_sizes, make more boxes than OpenVINO's shape inference
counts: it writes out of bounds and crashes. Here these boxes are counted.

    layer_shape [2], image_shape [2]  ->  [2, 4 * H * W * boxes]: corners, and their variances
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.op import Bool, Floats, Single, TensorType, op
from ovjit.graph.shapes import ANY
from ovjit_ops.common.values import extents_of, length, shape_value
from ovjit_ops.elementwise.arithmetic import cases

_SAME = 1e-6


def aspect_ratios(attrs: dict[str, Any]) -> list[float]:
    """1 and the distinct aspect ratios, each followed by its inverse if `flip`."""
    out = [1.0]
    for ratio in attrs["aspect_ratio"]:
        if all(abs(ratio - other) >= _SAME for other in out):
            out.append(ratio)
            if attrs["flip"]:
                out.append(1 / ratio)
    return out


def number_of_priors(attrs: dict[str, Any]) -> int:
    """The number of boxes at a position."""
    return sum(1 for _ in _fixed_boxes(attrs, 0, 0)) + sum(
        1 for _ in _sized_boxes(attrs, list(attrs["min_size"]), 0, 0)
    )


def _centres(attrs: dict[str, Any], step: float, i: int, j: int, step_y: float, step_x: float):
    if step == 0:
        return (j + 0.5) * step_x, (i + 0.5) * step_y
    return (attrs["offset"] + j) * step, (attrs["offset"] + i) * step


def _fixed_boxes(attrs: dict[str, Any], x: float, y: float):
    """(x, y, half width, half height) of the boxes of fixed sizes."""
    densities = attrs["density"]
    for s, size in enumerate(attrs["fixed_size"]):
        density = int(densities[s]) if s < len(densities) else 1
        shift = size / density
        start = -size / 2 + shift / 2

        def spread(half_w: float, half_h: float, start=start, density=density, shift=shift):
            for r in range(density):
                for c in range(density):
                    yield x + start + c * shift, y + start + r * shift, half_w, half_h

        if attrs["fixed_ratio"]:
            for ratio in attrs["fixed_ratio"]:
                yield from spread(size * 0.5 * math.sqrt(ratio), size * 0.5 / math.sqrt(ratio))
            continue
        if densities:
            yield from spread(size * 0.5, size * 0.5)
        for ratio in aspect_ratios(attrs):
            if abs(ratio - 1) >= _SAME:
                yield from spread(size * 0.5 * math.sqrt(ratio), size * 0.5 / math.sqrt(ratio))


def _sized_boxes(attrs: dict[str, Any], sizes: list[float], x: float, y: float):
    """(x, y, half width, half height) of the boxes of min_size and max_size."""
    ratios = [math.sqrt(r) for r in aspect_ratios(attrs) if abs(r - 1) >= _SAME]
    for s, size in enumerate(sizes):
        yield x, y, size * 0.5, size * 0.5
        largest = []
        if s < len(attrs["max_size"]):
            half = math.sqrt(size * attrs["max_size"][s]) * 0.5
            largest = [(x, y, half, half)]
        stretched = []
        if attrs["scale_all_sizes"] or s == len(sizes) - 1:
            base = size if attrs["scale_all_sizes"] else sizes[0]
            stretched = [(x, y, base * 0.5 * r, base * 0.5 / r) for r in ratios]
        if attrs.get("min_max_aspect_ratios_order", True):
            yield from (*largest, *stretched)
        else:
            yield from (*stretched, *largest)


def _variances(variance: tuple[float, ...], element_count: int) -> np.ndarray:
    if len(variance) == 4:
        return np.tile(np.array(variance, np.float32), element_count // 4)
    return np.full(element_count, variance[0] if variance else 0.1, np.float32)


def _prior_box(layer: np.ndarray, image: np.ndarray, **attrs: Any) -> np.ndarray:
    height, width, (image_h, image_w) = int(layer[0]), int(layer[1]), (float(v) for v in image)
    step, sizes = attrs["step"], list(attrs["min_size"])
    if not attrs["scale_all_sizes"]:  # as in MXNet: relative to the height of the picture
        step = image_h / height if step == -1 else step * image_h
        sizes = [s * image_h for s in sizes]
    step_x, step_y = (image_w / max(width, 1), image_h / max(height, 1)) if step == 0 else (step, step)
    rows = []
    for i in range(height):
        for j in range(width):
            x, y = _centres(attrs, step, i, j, step_y, step_x)
            for cx, cy, w, h in _fixed_boxes(attrs, x, y):
                box = ((cx - w) / image_w, (cy - h) / image_h, (cx + w) / image_w, (cy + h) / image_h)
                rows.append((max(box[0], 0), max(box[1], 0), min(box[2], 1), min(box[3], 1)))
            for cx, cy, w, h in _sized_boxes(attrs, sizes, x, y):
                rows.append(((cx - w) / image_w, (cy - h) / image_h, (cx + w) / image_w, (cy + h) / image_h))
    boxes = np.array(rows, np.float32).reshape(-1)
    if attrs["clip"]:
        boxes = np.clip(boxes, 0, 1)
    return np.stack([boxes, _variances(attrs["variance"], boxes.size)])


def _shape(layer: TensorType, image: TensorType, priors_per_cell: int) -> TensorType:
    sizes = extents_of(layer, "layer_shape")
    shape_value(image, "image_shape")
    for x, what in ((layer, "layer_shape"), (image, "image_shape")):
        check(length(x) in (None, 2), f"{what} should have 2 entries, not {x}")
    boxes = ANY if sizes is None else sizes[0] * sizes[1] * priors_per_cell
    return TensorType("f32", (2, boxes * 4))


def _boxes(layer: TensorType, image: TensorType, attrs: dict[str, Any]) -> TensorType:
    check(len(attrs["variance"]) in (0, 1, 4), "variance should have 0, 1 or 4 entries")
    check(all(v > 0 for v in attrs["variance"]), "variance should be positive")
    check(all(0 < int(d) <= 256 for d in attrs["density"]), "density should be positive, and at most 256")
    check(
        len(attrs["density"]) <= len(attrs["fixed_size"]) or not attrs["density"],
        "each density needs a fixed_size",
    )
    return _shape(layer, image, number_of_priors(attrs))


@op(
    "PriorBox", opset=1, types=["i64"],
)  # fmt: skip
class PriorBox1:
    """Boxes by sizes, aspect ratios and densities, as in SSD."""

    def infer(
        layer, image, *, min_size: Floats = (), max_size: Floats = (), aspect_ratio: Floats = (),
        flip: Bool = False, clip: Bool = False, step: Single = 0.0, offset: Single, variance: Floats = (),
        scale_all_sizes: Bool = True, fixed_ratio: Floats = (), fixed_size: Floats = (), density: Floats = (),
    ):  # fmt: skip
        return _boxes(layer, image, locals())

    ref = _prior_box


@op("PriorBox", opset=8, like=PriorBox1)
class PriorBox8:
    """PriorBox-1 with a choice of order."""

    def infer(layer, image, *, density: Floats = (), min_max_aspect_ratios_order: Bool = True, **attrs):
        return _boxes(layer, image, {**attrs, "density": density})


@op(
    "PriorBoxClustered", opset=1, types=["i64"],
)  # fmt: skip
class PriorBoxClustered:
    """Boxes of given widths and heights."""

    def infer(
        layer, image, *, width: Floats = (1.0,), height: Floats = (1.0,), clip: Bool = True,
        step_w: Single = 0.0, step_h: Single = 0.0, step: Single = 0.0, offset: Single, variance: Floats = (),
    ):  # fmt: skip
        check(len(width) == len(height), "width and height should have the same length")
        check(len(variance) in (0, 1, 4), "variance should have 0, 1 or 4 entries")
        return _shape(layer, image, len(width))

    def ref(layer, image, **attrs):
        height, width, (image_h, image_w) = int(layer[0]), int(layer[1]), (float(v) for v in image)
        step_w, step_h = attrs["step_w"] or attrs["step"], attrs["step_h"] or attrs["step"]
        if step_w == 0 and step_h == 0:
            step_w, step_h = image_w / max(width, 1), image_h / max(height, 1)
        y = (np.arange(height) + attrs["offset"])[:, None, None] * step_h
        x = (np.arange(width) + attrs["offset"])[None, :, None] * step_w
        w, h = np.array(attrs["width"]) / 2, np.array(attrs["height"]) / 2
        corners = [(x - w) / image_w, (y - h) / image_h, (x + w) / image_w, (y + h) / image_h]
        full = (height, width, len(w))
        boxes = np.stack([np.broadcast_to(c, full) for c in corners], -1).astype(np.float32).reshape(-1)
        if attrs["clip"]:
            boxes = np.clip(boxes, 0, 1)
        return np.stack([boxes, _variances(attrs["variance"], boxes.size)])

    samples = cases(
        ([3, 4], [32, 30], {"clip": False}),
        ([3, 4], [32, 30], {"clip": True, "step_w": 8.0, "step_h": 4.0}),
        ([3, 4], [32, 30], {"clip": False, "variance": (0.1, 0.2, 0.3, 0.4), "step": 3.0}),
        ([3, 4], [32, 30], {"clip": False, "variance": (0.5,)}),
        each=[{"width": (3.0, 5.0, 8.0), "height": (4.0, 2.0, 8.0), "offset": 0.5}],
    )
