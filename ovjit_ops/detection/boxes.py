"""Boxes: overlaps, and greedy suppression of boxes that overlap a better one.

All is computed in f32, as in OpenVINO: the last bit may decide whether two boxes overlap enough.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: overlaps(box, others) -> intersection over union of one box [4] with others [n, 4]
Overlaps = Callable[[np.ndarray, np.ndarray], np.ndarray]


def corners(boxes: np.ndarray, encoding: str) -> np.ndarray:
    """Boxes [..., 4] as sorted y1, x1, y2, x2. Encodings: "corner" (any two opposite corners), "center" (x,
    y, w, h)."""
    if encoding == "center":
        x, y, w, h = np.moveaxis(boxes, -1, 0)
        half = boxes.dtype.type(0.5)
        return np.stack([y - h * half, x - w * half, y + h * half, x + w * half], -1)
    a, b = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], -1)


def overlaps(box: np.ndarray, others: np.ndarray, border: float = 0.0) -> np.ndarray:
    """Intersection over union; 0 for boxes without an area. `border`: 1 if corners are pixels that belong to
    the box, else 0."""
    one = box.dtype.type(border)
    area = (box[2] - box[0] + one) * (box[3] - box[1] + one)
    areas = (others[:, 2] - others[:, 0] + one) * (others[:, 3] - others[:, 1] + one)
    height = np.maximum(np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0]) + one, 0)
    width = np.maximum(np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1]) + one, 0)
    common = height * width
    with np.errstate(all="ignore"):
        out = common / (area + areas - common)
    return np.where((area > 0) & (areas > 0), out, box.dtype.type(0))


def descending(scores: np.ndarray) -> np.ndarray:
    """The order of descending scores. The sort is stable."""
    return np.argsort(-scores, kind="stable")


def best_first(scores: np.ndarray, threshold: float, top: int, inclusive: bool) -> np.ndarray:
    """The boxes above the threshold, best first, at most `top` (-1: all)."""
    limit = np.float32(threshold)
    indices = np.flatnonzero(scores >= limit if inclusive else scores > limit)
    order = indices[descending(scores[indices])]
    return order if top < 0 else order[:top]


def suppress(
    boxes: np.ndarray,
    order: np.ndarray,
    most: int,
    threshold: float,
    suppress_equal: bool = True,
    measure: Overlaps = overlaps,
    eta: float = 1.0,
) -> list[int]:
    """The kept boxes in `order`, at most `most`: each overlaps all boxes kept before it by less than
    `threshold`.

    `suppress_equal`: an overlap equal to the threshold suppresses. With eta < 1, each kept box multiplies the
    threshold by eta while it is above 0.5.
    """
    selected: list[int] = []
    limit = np.float32(threshold)
    if eta < 1:  # the threshold of a candidate depends on the number of boxes kept before it
        for candidate in order:
            if len(selected) == most:
                break
            share = measure(boxes[candidate], boxes[selected]) if selected else np.zeros(0, np.float32)
            if not ((share >= limit) if suppress_equal else (share > limit)).any():
                selected.append(int(candidate))
                if limit > 0.5:
                    limit = np.float32(limit * np.float32(eta))
        return selected
    remaining = np.asarray(order)
    while len(remaining) and len(selected) < most:
        best, remaining = remaining[0], remaining[1:]
        selected.append(int(best))
        share = measure(boxes[best], boxes[remaining])
        remaining = remaining[~((share >= limit) if suppress_equal else (share > limit))]
    return selected
