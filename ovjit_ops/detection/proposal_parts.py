"""Parts of the operations that propose regions. Expansions and references consist of them.

    AnchorGrid       priors at all positions of a map
    MovedAnchors     boxes of anchors that deltas move, and their scores
    (KeptBoxes)      suppression
    ProposalTable    kept boxes of each image in a fixed number of rows
    (RankedRows)     the best boxes of all classes

Boxes are x1, y1, x2, y2 in f32, in OpenVINO's order: positions row by row, all anchors at each. `swapped`:
boxes are y1, x1, y2, x2, and anchors are clamped to the picture before they are moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Bool, Float, Floats, Int, TensorType, op
from ovjit.graph.shapes import Dim, bounds, compatible, compatible_shapes
from ovjit_ops.common.checks import dims

#: Maximum logarithm of the predicted growth of a side.
MOST_LOG = float(np.log(1000.0 / 16.0))
#: Default attributes of MovedAnchors.
PLAIN: dict[str, Any] = {
    "border": 1.0, "outer": 1.0, "inset": 1.0, "most": MOST_LOG, "size": 1.0, "weights": (1.0,) * 4,
    "min_size": 0.0, "swapped": False, "clipped": True, "checked": False, "second": False,
    "marked": False,
}  # fmt: skip


def refine_boxes(
    boxes: np.ndarray, deltas: np.ndarray, border: float, most: float = MOST_LOG, outer: float | None = None,
    size: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """Boxes [..., 4] moved and stretched by deltas [..., 4] of (x, y, log w, log h). `border`: a
    side minus the difference of its corners (1 if corners are pixels of the box); `outer`: the same for the
    results, None: `border`."""
    one = np.float32(border)
    last = one if outer is None else np.float32(outer)
    w = boxes[..., 2] - boxes[..., 0] + one
    h = boxes[..., 3] - boxes[..., 1] + one
    half = np.float32(0.5)
    x = boxes[..., 0] + half * w + deltas[..., 0] * w
    y = boxes[..., 1] + half * h + deltas[..., 1] * h
    w = np.exp(np.minimum(deltas[..., 2] * np.float32(size), np.float32(most))) * w
    h = np.exp(np.minimum(deltas[..., 3] * np.float32(size), np.float32(most))) * h
    return np.stack([x - half * w, y - half * h, x + half * w - last, y + half * h - last], -1)


def clip_boxes(boxes: np.ndarray, height: float, width: float, border: float) -> np.ndarray:
    """Boxes [..., 4] with coordinates clamped to 0 ... size of the picture - `border`."""
    limits = np.array([width, height, width, height], np.float32) - np.float32(border)
    return np.maximum(np.minimum(boxes, limits), 0)


def anchor_grid(
    priors: np.ndarray, maps: tuple[int, ...], image: tuple[int, ...], *, middle: float, stride_x: float,
    stride_y: float, swapped: bool, h: int = 0, w: int = 0,
) -> np.ndarray:  # fmt: skip
    """AnchorGrid in NumPy, for the shapes of a map and a picture."""
    rows, columns = h or maps[2], w or maps[3]
    x = (np.arange(columns) + middle) * (stride_x or image[3] / max(columns, 1))
    y = (np.arange(rows) + middle) * (stride_y or image[2] / max(rows, 1))
    right, down = np.broadcast_arrays(x, y[:, None])
    one, other = (down, right) if swapped else (right, down)
    return priors + np.stack([one, other, one, other], -1)[:, :, None].astype(priors.dtype)


def fit_anchors(
    info: TensorType, anchors: TensorType, deltas: TensorType, scores: TensorType | None, second: bool = False
) -> tuple[Dim, Dim]:
    """(images, boxes of each). Raises ModelError if the inputs of MovedAnchors do not fit together."""
    images, (height, width, anchors_per_cell, numbers) = dims(deltas, 4)[0], dims(anchors, 4)
    rows, (_, most) = dims(info, 2)[0], bounds(dims(info, 2)[1])
    fits = compatible(numbers, 4) and (compatible(rows, 1) or compatible(rows, images))
    fits = fits and (most is None or most >= (2 if scores is None else 3))
    for x, channels in ((deltas, 4 * anchors_per_cell), (scores, anchors_per_cell * (2 if second else 1))):
        fits = fits and (x is None or compatible_shapes(x.shape, (images, channels, height, width)))
    scores_text = "" if scores is None else f", scores {scores}"
    check(fits, f"deltas {deltas}{scores_text}, anchors {anchors} and sizes {info} do not match")
    return images, height * width * anchors_per_cell


def moved_anchors(
    info: np.ndarray, anchors: np.ndarray, deltas: np.ndarray, scores: np.ndarray | None,
    attrs: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """MovedAnchors in NumPy: boxes [N, 1, M, 4] and scores [N, 1, M], which are zeros if not given."""
    i, a, d = (TensorType("f32", x.shape) for x in (info, anchors, deltas))
    fit_anchors(i, a, d, None if scores is None else TensorType("f32", scores.shape), attrs["second"])
    images, channels, height, width = deltas.shape
    anchors_per_cell = channels // 4
    boxes = np.empty((images, 1, height * width * anchors_per_cell, 4), np.float32)
    values = np.zeros(boxes.shape[:3], np.float32)
    for n in range(images):
        image_height, image_width, *scales = (float(v) for v in info[n % len(info)].astype(np.float32))
        if attrs["checked"] and not (
            image_height >= 1 and image_width >= 1 and scales[0] > 0 and scales[-1] > 0
        ):
            raise InferenceError(
                f"the image should have at least one pixel and positive scales, not {info[n % len(info)]}"
            )
        base = anchors.astype(np.float32)
        if attrs["swapped"]:
            image_height, image_width = image_width, image_height
            base = clip_boxes(base, image_height, image_width, 0.0)
        moved = deltas[n].astype(np.float32).reshape(anchors_per_cell, 4, height, width).transpose(2, 3, 0, 1)
        moved = moved / np.array(attrs["weights"], np.float32)
        mine = refine_boxes(base, moved, attrs["border"], attrs["most"], attrs["outer"], attrs["size"])
        if attrs["clipped"]:
            mine = clip_boxes(mine, image_height, image_width, attrs["inset"])
        mine = boxes[n, 0] = mine.reshape(-1, 4)
        if scores is not None:
            first = anchors_per_cell if attrs["second"] else 0
            mine_of = scores[n, first:].astype(np.float32).transpose(1, 2, 0).reshape(-1)
            sides = mine[:, 2:] - mine[:, :2] + np.float32(attrs["border"])
            least = [attrs["min_size"] * scales[i] for i in (min(1, len(scales) - 1), 0)]
            large = (sides[:, 0] >= least[0]) & (sides[:, 1] >= least[1])
            values[n, 0] = np.where(large | attrs["marked"], mine_of, np.float32(0))
            if attrs["marked"]:
                boxes[n, 0, ~large, 1] = np.nan
    return boxes, values


def proposal_table(
    boxes: np.ndarray, choice: Sequence[np.ndarray], info: np.ndarray, attrs: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """ProposalTable in NumPy. `choice`: numbers, values and counts of KeptBoxes."""
    numbers, values, counts = choice
    rows, lead = attrs["rows"], int(attrs["numbered"])
    image_height, image_width = (np.float32(v) for v in np.ravel(info)[:2])
    extents = np.array(
        [image_height, image_width] * 2 if attrs["swapped"] else [image_width, image_height] * 2, np.float32
    )
    regions = np.zeros((len(boxes), rows, 4 + lead), np.float32)
    best = np.zeros((len(boxes), rows), np.float32)
    for n in range(len(boxes)):
        count = min(int(counts[n, 0]), rows)
        mine = boxes[n, 0, numbers[n, 0, :count]]
        if attrs["clipped"]:
            mine = np.maximum(np.minimum(mine, extents), 0)
        if attrs["normalized"]:
            mine = mine / extents
        regions[n, :count, lead:], best[n, :count] = mine, values[n, 0, :count]
        if lead:
            regions[n, :count, 0] = n
            regions[n, count : count + 1, 0] = -1
    return regions.reshape(-1, 4 + lead), best.reshape(-1)


@op("AnchorGrid", internal=True, lower=".cpu_proposals:AnchorGrid.of")
class AnchorGrid:
    """priors [A, 4] shifted to all positions of a map: [H, W, A, 4]. The map has the last two dimensions of
    `maps`, or h and w. Positions are (i + middle) * stride; a stride of 0 means image size / map size."""

    def infer(
        priors, maps, image, *, h: Int, w: Int, stride_x: Float, stride_y: Float, middle: Float, swapped: Bool
    ):
        check(compatible(dims(priors, 2)[1], 4), f"priors should have 4 elements each, not {priors}")
        rows, columns = (extent or d for extent, d in zip((h, w), dims(maps, 4)[2:], strict=True))
        return TensorType(priors.dtype, (rows, columns, dims(priors, 2)[0], 4))

    def ref(priors, maps, image, **attrs):
        return anchor_grid(priors, maps.shape, image.shape, **attrs)


@op("MovedAnchors", internal=True, lower=".cpu_proposals:MovedAnchors.of")
class MovedAnchors:
    """Boxes of anchors [H, W, A, 4] moved by deltas [N, 4 A, H, W], and their scores.

    With scores [N, A, H, W] (or the `second` half of their channels), outputs are boxes [N, 1, M, 4] and
    scores [N, 1, M]; without, boxes [1, N, M, 4]. M is H * W * A.

    Sides are `border` longer than differences of corners; those of results `outer`. Deltas are divided by
    `weights`. Logarithms are multiplied by `size` and are at most `most`. `clipped`: coordinates are
    clamped to 0 ... size of the picture - `inset`. A box smaller than `min_size` times the picture's scale
    has the score 0, or with `marked` a NaN corner. `info` [N or 1, 2, 3 or 4] has height, width and scales.
    `checked`: pictures have at least one pixel and positive scales, else InferenceError.
    """

    def infer(
        info, anchors, deltas, scores=None, *, border: Float, outer: Float, inset: Float, most: Float,
        size: Float, weights: Floats, min_size: Float, swapped: Bool, clipped: Bool, checked: Bool,
        second: Bool, marked: Bool,
    ):  # fmt: skip
        images, each = fit_anchors(info, anchors, deltas, scores, second)
        if scores is None:
            return TensorType("f32", (1, images, each, 4))
        return TensorType("f32", (images, 1, each, 4)), TensorType("f32", (images, 1, each))

    def ref(info, anchors, deltas, scores=None, **attrs):
        boxes, values = moved_anchors(info, anchors, deltas, scores, attrs)
        return boxes.reshape(1, len(boxes), -1, 4) if scores is None else (boxes, values)


@op("ProposalTable", internal=True, lower=".cpu_proposals:ProposalTable.of")
class ProposalTable:
    """`rows` regions [N * rows, 4] and scores [N * rows] of the boxes that KeptBoxes selected of each image.
    Missing rows are zeros.

    `numbered`: the image's index comes first, and -1 in the first missing row. `clipped` regions are clamped
    to the picture, `normalized` ones are fractions of it.
    """

    def infer(
        boxes, numbers, values, counts, info, *, rows: Int, numbered: Bool, swapped: Bool, clipped: Bool,
        normalized: Bool,
    ):  # fmt: skip
        high = dims(boxes, 4)[0] * rows
        return TensorType("f32", (high, 4 + numbered)), TensorType("f32", (high,))

    def ref(boxes, numbers, values, counts, info, **attrs):
        return proposal_table(boxes, (numbers, values, counts), info, attrs)
