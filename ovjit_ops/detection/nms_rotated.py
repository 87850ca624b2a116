"""NMSRotated: non-maximum suppression of rotated boxes.

boxes [B, N, 5] of (centre x, y, width, height, angle in radians)  scores [B, C, N] ->  rows (image, class,
box) [n, 3], their scores, and n
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.graph.op import Bool, Index, op
from ovjit_ops.detection import nms
from ovjit_ops.detection.boxes import best_first, suppress
from ovjit_ops.detection.cpu_nms import ROTATED


def polygon(box: np.ndarray) -> np.ndarray:
    """The corners [4, 2] of a rotated box, counter-clockwise."""
    x, y, w, h, angle = (float(v) for v in box)
    cos, sin = np.cos(angle) / 2, np.sin(angle) / 2
    across, along = np.array([cos * w, sin * w]), np.array([-sin * h, cos * h])
    middle = np.array([x, y])
    return np.stack(
        [middle - across - along, middle + across - along, middle + across + along, middle - across + along]
    )


def intersection_area(a: np.ndarray, b: np.ndarray) -> float:
    """The common area of two convex polygons: one is clipped at every side of the other."""
    points = [tuple(p) for p in a]
    for i in range(len(b)):
        start, end = b[i], b[(i + 1) % len(b)]
        edge = end - start
        inside = [edge[0] * (y - start[1]) - edge[1] * (x - start[0]) for x, y in points]
        clipped: list[tuple[float, float]] = []
        for k, (p, d) in enumerate(zip(points, inside, strict=True)):
            q, e = points[k - 1], inside[k - 1]
            if (d >= 0) != (e >= 0):
                t = e / (e - d)
                clipped.append((q[0] + t * (p[0] - q[0]), q[1] + t * (p[1] - q[1])))
            if d >= 0:
                clipped.append(p)
        points = clipped
        if len(points) < 3:
            return 0.0
    x, y = np.array(points).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def rotated_overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a rotated box [5] with others [n, 5]; 0 if one has no area."""
    out = np.zeros(len(others), np.float32)
    area = float(box[2]) * float(box[3])
    reach = np.hypot(box[2], box[3]) / 2
    good = np.isfinite(box).all() and box[2] > 0 and box[3] > 0
    for i, other in enumerate(others):
        if not good or not np.isfinite(other).all() or other[2] <= 0 or other[3] <= 0:
            continue
        if np.hypot(*(box[:2] - other[:2])) > reach + np.hypot(other[2], other[3]) / 2:
            continue
        common = intersection_area(polygon(box), polygon(other))
        out[i] = common / (area + float(other[2]) * float(other[3]) - common)
    return out


def rotated_nms(
    boxes: np.ndarray, scores: np.ndarray, limits: Sequence[np.ndarray], attrs: dict[str, Any]
) -> tuple[np.ndarray, ...]:
    """(rows, scores, number of rows) in NumPy."""
    turn = np.array([1, 1, 1, 1, 1 if attrs["box_encoding"] == "clockwise" else -1], np.float32)
    keep, iou, threshold = nms.limit_of(limits[0]), float(limits[1].item()), limits[2].item()

    def one(mine: np.ndarray, s: np.ndarray) -> tuple[Any, Any]:
        order = best_first(s, threshold, -1, False)
        selected = suppress(mine.astype(np.float32) * turn, order, keep, iou, True, rotated_overlaps)
        return selected, s[selected]

    return nms.rows_of(boxes, scores, one, attrs)


@op("NMSRotated", opset=13)
class NMSRotated:
    """The boxes that do not overlap a better one too much."""

    def infer(
        boxes,
        scores,
        max_output_boxes_per_class,
        iou_threshold,
        score_threshold,
        *,
        sort_result_descending: Bool = True,
        output_type: Index = "i64",
        clockwise: Bool = True,
    ):
        limits = (max_output_boxes_per_class, iou_threshold, score_threshold)
        return nms.infer_rows(boxes, scores, limits, locals(), 5)

    def ref(boxes, scores, *limits, clockwise, **attrs):
        return rotated_nms(boxes, scores, limits, {**attrs, "box_encoding": ROTATED[not clockwise]})

    def expand(w, node, inputs):
        return nms.lower_padded(w, node, inputs, ROTATED[not node.attrs["clockwise"]])
