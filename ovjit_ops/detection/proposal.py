"""Proposal: regions that a Faster R-CNN's first part holds for objects. It runs by the reference.

    scores [N, 2 * A, H, W]  deltas [N, 4 * A, H, W]  image_shape [3 or 4] of (height, width, scales)
    ->  regions [N * post_nms_topn, 5] of (image, x1, y1, x2, y2), and in version 4 their scores

An image that has fewer regions ends with one of image -1, and zeros. With the framework "tensorflow" corners
are y before x, and not whole pixels.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Bool, Float, Floats, Int, Str, TensorType, op
from ovjit.graph.shapes import ANY, Interval, merge
from ovjit_ops.detection.boxes import descending, overlaps, suppress
from ovjit_ops.detection.detectron import check_ranks, dims


def anchors(attrs: dict[str, Any]) -> np.ndarray:
    """One box [4] for every ratio and scale, around the middle of the base box."""
    base = np.float32(attrs["base_size"])
    tensorflow = attrs["framework"].lower() == "tensorflow"
    half, one = np.float32(0.5), np.float32(0 if tensorflow else 1)
    middle = half * (base - one)
    rows = []
    for ratio in attrs["ratio"]:
        if tensorflow:
            w0 = np.sqrt(base * base / np.float32(ratio))
            h0 = w0 * np.float32(ratio)
        else:
            w0 = _round(np.sqrt(base * base / np.float32(ratio)))
            h0 = _round(w0 * np.float32(ratio))
        for scale in attrs["scale"]:
            w, h = half * (w0 * np.float32(scale) - one), half * (h0 * np.float32(scale) - one)
            rows.append((middle - w, middle - h, middle + w, middle + h))
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    return boxes - middle if tensorflow else boxes


def _round(x: np.float32) -> np.float32:
    return np.float32(np.trunc(x + np.float32(0.5)))


def _infer(scores: TensorType, deltas: TensorType, image: TensorType, attrs: dict[str, Any]) -> tuple:
    check_ranks(class_probs=(scores, 4), bbox_deltas=(deltas, 4), image_shape=(image, 1))
    many = len(attrs["ratio"]) * len(attrs["scale"])
    check(many > 0, "ratio and scale should not be empty")
    check(all(r > 0 for r in attrs["ratio"]), f"ratio {list(attrs['ratio'])} should be positive")
    check(min(attrs["post_nms_topn"], attrs["pre_nms_topn"]) > 0, "counts should be positive")
    a, b = dims(scores, 4), dims(deltas, 4)
    for i in (0, 2, 3):
        check(merge(a[i], b[i]) is not None, f"{scores} and {deltas} differ in dimension {i}")
    numbers = ANY if image.shape is None else image.shape[0]
    check(isinstance(numbers, Interval) or numbers in (3, 4), f"image_shape has 3 or 4 numbers, not {image}")
    rows = a[0] * attrs["post_nms_topn"]
    return TensorType(scores.dtype, (rows, 5)), TensorType(scores.dtype, (rows,))


def _boxes(deltas: np.ndarray, attrs: dict[str, Any], limits: np.ndarray) -> np.ndarray:
    """The moved anchors [H, W, A, 4]; deltas [A, 4, H, W]."""
    tensorflow = attrs["framework"].lower() == "tensorflow"
    one, half = np.float32(0 if tensorflow else 1), np.float32(0.5)
    rows, columns = deltas.shape[2:]
    base, stride = anchors(attrs), np.float32(attrs["feat_stride"])
    x0, y0, x1, y1 = (v[None, None] for v in base.T)
    y = (np.arange(rows, dtype=np.float32) * stride)[:, None, None]
    x = (np.arange(columns, dtype=np.float32) * stride)[None, :, None]
    if tensorflow:
        x, y = y, x
    d = deltas.transpose(1, 2, 3, 0) / np.float32(attrs["box_coordinate_scale"])
    x0, x1, y0, y1 = x0 + x, x1 + x, y0 + y, y1 + y
    if tensorflow:  # anchors end where the picture does
        x0, x1 = (np.clip(v, 0, np.float32(limits[0])) for v in (x0, x1))
        y0, y1 = (np.clip(v, 0, np.float32(limits[1])) for v in (y0, y1))
    w, h = x1 - x0 + one, y1 - y0 + one
    cx, cy = x0 + half * w + d[0] * w, y0 + half * h + d[1] * h
    size = np.float32(attrs["box_coordinate_scale"]) / np.float32(attrs["box_size_scale"])
    pw, ph = np.exp(d[2] * size) * w, np.exp(d[3] * size) * h
    return np.stack([cx - half * pw, cy - half * ph, cx + half * pw, cy + half * ph], -1)


def proposal(scores: np.ndarray, deltas: np.ndarray, image: np.ndarray, attrs: dict[str, Any]) -> tuple:
    dtype, most = scores.dtype, attrs["post_nms_topn"]
    many = len(attrs["ratio"]) * len(attrs["scale"])
    if scores.shape[1] != 2 * many or deltas.shape[1] != 4 * many:
        raise InferenceError(
            f"{many} anchors have {2 * many} scores and {4 * many} deltas, not {scores.shape[1]} and "
            f"{deltas.shape[1]}"
        )
    info = [float(v) for v in np.ravel(image)]
    height, width, scale_h = info[:3]
    scale_w = info[3] if len(info) > 3 else scale_h
    if not (height >= 1 and width >= 1 and scale_h > 0 and scale_w > 0):
        raise InferenceError(
            f"the picture should be at least one pixel large and its scales positive: {info}"
        )
    border = 0.0 if attrs["framework"].lower() == "tensorflow" else 1.0
    sides_of = [width, height, width, height] if border else [height, width, height, width]
    whole = np.array(sides_of, np.float32)
    regions, best = np.zeros((len(scores) * most, 5), np.float32), np.zeros(len(scores) * most, np.float32)
    for n in range(len(scores)):
        boxes = _boxes(deltas[n].astype(np.float32).reshape(many, 4, *deltas.shape[2:]), attrs, whole)
        boxes = boxes.reshape(-1, 4)
        probability = scores[n, many:].astype(np.float32).transpose(1, 2, 0).reshape(-1)
        if attrs["clip_before_nms"]:
            boxes = np.maximum(np.minimum(boxes, whole - np.float32(border)), 0)
        sides = boxes[:, 2:] - boxes[:, :2] + np.float32(border)
        least = (attrs["min_size"] * scale_w, attrs["min_size"] * scale_h)
        probability = np.where(
            (sides[:, 0] >= least[0]) & (sides[:, 1] >= least[1]), probability, np.float32(0)
        )
        order = descending(probability)[: attrs["pre_nms_topn"]]
        kept = suppress(boxes, order, most, attrs["nms_thresh"], False, lambda a, b: overlaps(a, b, border))
        rows = boxes[kept]
        if attrs["clip_after_nms"]:
            rows = np.maximum(np.minimum(rows, whole), 0)
        if attrs["normalize"]:
            rows = rows / whole
        first = n * most
        regions[first : first + len(kept), 0] = n
        regions[first : first + len(kept), 1:] = rows
        best[first : first + len(kept)] = probability[kept]
        if len(kept) < most:
            regions[first + len(kept), 0] = -1
    return regions.astype(dtype), best.astype(dtype)


def _samples(rng: np.random.Generator, dtype: str = "f32"):
    base: dict[str, Any] = {
        "base_size": 16,
        "pre_nms_topn": 50,
        "post_nms_topn": 12,
        "nms_thresh": 0.7,
        "feat_stride": 16,
        "min_size": 4,
        "ratio": (0.5, 1.0, 2.0),
        "scale": (1.0, 2.0),
        "clip_before_nms": True,
        "clip_after_nms": False,
        "normalize": False,
        "box_size_scale": 1.0,
        "box_coordinate_scale": 1.0,
        "framework": "",
    }
    variants: tuple[dict[str, Any], ...] = (
        {},
        {
            "framework": "tensorflow",
            "box_size_scale": 5.0,
            "box_coordinate_scale": 10.0,
            "normalize": True,
        },
        {"clip_before_nms": False, "clip_after_nms": True, "post_nms_topn": 200},
        {"clip_before_nms": False, "clip_after_nms": True, "normalize": True},
    )
    for i, more in enumerate(variants):
        images = 1 + (i == 0)
        yield (
            [
                rng.random((images, 12, 4, 5)).astype(np.float32),
                rng.uniform(-0.4, 0.4, (images, 24, 4, 5)).astype(np.float32),
                np.array([70.0, 90.0, 1.0], np.float32),
            ],
            {**base, **more},
        )


@op("Proposal", opset=4, samples=_samples, builder_dict="attrs")
class Proposal4:
    """The best regions of every image, and their scores."""

    def infer(
        class_probs,
        bbox_deltas,
        image_shape,
        *,
        base_size: Int,
        pre_nms_topn: Int,
        post_nms_topn: Int,
        nms_thresh: Float,
        feat_stride: Int,
        min_size: Int,
        ratio: Floats,
        scale: Floats,
        clip_before_nms: Bool = True,
        clip_after_nms: Bool = False,
        normalize: Bool = False,
        box_size_scale: Float = 1.0,
        box_coordinate_scale: Float = 1.0,
        framework: Str = "",
    ):
        return _infer(class_probs, bbox_deltas, image_shape, locals())

    def ref(class_probs, bbox_deltas, image_shape, **attrs):
        return proposal(class_probs, bbox_deltas, image_shape, attrs)


@op("Proposal", opset=1, samples=_samples, builder_dict="attrs")
class Proposal1:
    """Proposal-4 without the scores."""

    @functools.wraps(Proposal4.infer)
    def infer(*inputs, **attrs):
        return Proposal4.infer(*inputs, **attrs)[0]

    def ref(class_probs, bbox_deltas, image_shape, **attrs):
        return proposal(class_probs, bbox_deltas, image_shape, attrs)[0]
