"""NonMaxSuppression in its five versions: of boxes that overlap, the one with the best score.

    boxes [B, N, 4]  scores [B, C, N]  ->  selected rows (image, class, box) [n, 3], their scores, and n

The number of rows depends on data. Their first dimension is dynamic in all versions, as in OpenVINO's CPU
device. An internal operation writes the rows natively to a buffer of the maximum size, and another one takes
the valid prefix, on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, Index, TensorType, Word, op
from ovjit.graph.shapes import ANY, Dim, up_to
from ovjit.graph.symbolic import sym_min
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INDEX_TYPES, INTEGERS, check_one, shape_scalar
from ovjit_ops.detection.boxes import best_first, corners, descending, overlaps, suppress
from ovjit_ops.detection.kept_boxes import by_class, gather_candidates
from ovjit_ops.elementwise.arithmetic import REALS


def capacity(boxes: TensorType, scores: TensorType, limit: int) -> Dim:
    """The maximum number of rows, with at most `limit` (-1: any) per class."""
    if boxes.shape is None or scores.shape is None:
        return ANY
    each = boxes.shape[1] if limit < 0 else sym_min(boxes.shape[1], limit)
    images, classes = scores.shape[:2]
    return each * images * classes


def check_inputs(boxes: TensorType, scores: TensorType, numbers: int = 4) -> None:
    unify(REALS, boxes=(boxes, f"NB{numbers}"), scores=(scores, "NCB"))


def check_limits(most: TensorType | None, *thresholds: TensorType | None) -> int | None:
    for x in (most, *thresholds):
        check(x is None or x.rank in (None, 0, 1), f"a limit should be a scalar, not {x}")
        if x is not None:
            check_one(x, "a limit")
    for x in thresholds:
        check_type(x, REALS, "a threshold")
    if most is None:
        return 0
    if most.dtype in INTEGERS:
        return shape_scalar(most, "max_output_boxes_per_class")
    check_type(most, REALS, "max_output_boxes_per_class")
    return None


def number_of(x: np.ndarray | None, default: float) -> Any:
    return default if x is None else np.asarray(x).reshape(-1)[0]


def _soft(
    boxes: np.ndarray, scores: np.ndarray, most: int, threshold: float, sigma: float
) -> tuple[list[int], list[float]]:
    """Soft suppression: scores decay by exp(-overlap^2 / (2 sigma)). Returns kept boxes and their scores."""
    remaining = {int(i): np.float32(scores[i]) for i in np.flatnonzero(scores > threshold)}
    selected: list[int] = []
    values: list[float] = []
    factor = np.float32(-0.5 / sigma)
    while remaining and len(selected) < most:
        best = min(remaining, key=lambda i: (-remaining[i], i))
        values.append(float(remaining.pop(best)))
        selected.append(best)
        others = np.array(list(remaining), np.int64)
        if len(others):
            share = overlaps(boxes[best], boxes[others])
            for i, fall in zip(others, np.exp(factor * share * share), strict=True):
                remaining[int(i)] = np.float32(remaining[int(i)] * fall)
            remaining = {i: s for i, s in remaining.items() if s > threshold}
    return selected, values


def rows_of(
    boxes: np.ndarray, scores: np.ndarray, one: Callable[..., tuple[Any, Any]], attrs: dict[str, Any]
) -> tuple[np.ndarray, ...]:
    """(rows (image, class, box), scores, number of rows) of the boxes that one(boxes, scores) -> (numbers,
    scores) keeps of each class."""
    image, label, box, score = gather_candidates(*by_class(boxes, scores.astype(np.float32), -1, -1, one))
    rows = np.stack([image, label, box], 1)
    scored = np.stack([image, label, score], 1).astype(np.float32)
    if attrs["sort_result_descending"]:
        order = descending(score)
        rows, scored = rows[order], scored[order]
    kind = numpy_dtype(attrs.get("output_type", "i64"))
    return rows.astype(kind), scored.astype(boxes.dtype), np.array([len(rows)], kind)


def limit_of(x: np.ndarray | None) -> int:
    value = float(number_of(x, 0))
    if np.isnan(value):
        raise InferenceError("max_output_boxes_per_class is NaN")
    return int(min(max(value, 0), 2**31 - 1))


def evaluate(boxes, scores, limits: Sequence[np.ndarray | None], attrs: dict[str, Any]):
    """(rows, scores, number of rows) in NumPy. Trailing ones of the four limits may be missing."""
    most, *thresholds = [*limits, None, None, None, None][:4]
    keep, (iou, threshold, sigma) = limit_of(most), (float(number_of(x, 0)) for x in thresholds)

    def one(mine: np.ndarray, s: np.ndarray) -> tuple[Any, Any]:
        mine = corners(mine.astype(np.float32), attrs["box_encoding"])
        if sigma > 0:
            return _soft(mine, s, keep, threshold, sigma)
        selected = suppress(mine, best_first(s, threshold, -1, False), keep, iou)
        return selected, s[selected]

    return rows_of(boxes, scores, one, attrs)


def lower_padded(w: Writer, node: Node, inputs: Sequence[Value], encoding: str) -> Sequence[Value] | None:
    """NonMaxSuppression(boxes, scores, ...) -> ValidPrefix(PaddedNMS(boxes, scores, ...)); None for types
    without a kernel"""
    boxes, scores, *limits = inputs  # and sigma for soft suppression
    if boxes.dtype != "f32" or scores.dtype != "f32" or boxes.shape is None or scores.shape is None:
        return None
    defaults = (np.array(0, np.int64), np.array(0, np.float32), np.array(0, np.float32))
    arguments = [limits[i] if i < len(limits) else w.b.constant(v) for i, v in enumerate(defaults)] + limits[
        3:
    ]
    if arguments[0].dtype not in INDEX_TYPES or any(v.dtype != "f32" for v in arguments[1:]):
        return None
    attrs = {
        "box_encoding": encoding,
        "sort_result_descending": node.attrs["sort_result_descending"],
        "output_type": node.attrs.get("output_type", "i64"),
        "limit": -1 if arguments[0].type.value is None else limit_of(arguments[0].type.value),
    }
    *rows, count = w.b.instead(node, [boxes, scores, *arguments], attrs, "PaddedNMS")
    outputs = [w("ValidPrefix", x, count, axis=0) for x in rows[: len(node.outputs)]]
    return [*outputs, count][: len(node.outputs)]


def infer_rows(
    boxes: TensorType, scores: TensorType, limits: Sequence[TensorType | None], attrs: dict[str, Any],
    numbers: int = 4,
) -> tuple[TensorType, ...]:  # fmt: skip
    """The types of `rows_of`, for boxes of `numbers` values."""
    kind = attrs.get("output_type", "i64")
    check_inputs(boxes, scores, numbers)
    most = check_limits(*limits)
    rows = up_to(capacity(boxes, scores, -1 if most is None else max(most, 0)))
    return TensorType(kind, (rows, 3)), TensorType(boxes.dtype, (rows, 3)), TensorType(kind, (1,))


@op("NonMaxSuppression", opset=1)
class NonMaxSuppression1:
    """The selected boxes, as rows (image, class, box)."""

    words = {"box_encoding": "corner center"}

    def infer(
        boxes, scores, max_output_boxes_per_class=None, iou_threshold=None, score_threshold=None, *,
        box_encoding: Word = "corner", sort_result_descending: Bool = True,
    ):  # fmt: skip
        limits = (max_output_boxes_per_class, iou_threshold, score_threshold)
        return infer_rows(boxes, scores, limits, locals())[0]

    def ref(boxes, scores, *limits, **attrs):
        return evaluate(boxes, scores, limits, attrs)[0]

    def expand(w, node, inputs):
        """As `padded`; None if sigma depends on data"""
        sigma = inputs[5].constant if len(inputs) > 5 else np.zeros(1)
        if sigma is None:
            return None
        soft = float(sigma.reshape(-1)[0]) > 0
        return lower_padded(w, node, inputs[: 6 if soft else 5], node.attrs["box_encoding"])


@op("NonMaxSuppression", opset=3, like=NonMaxSuppression1)
class NonMaxSuppression3:
    """NonMaxSuppression-1 with an attribute for the type of rows."""

    def infer(
        boxes, scores, max_output_boxes_per_class=None, iou_threshold=None, score_threshold=None, *,
        output_type: Index = "i64", **attrs,
    ):  # fmt: skip
        limits = (max_output_boxes_per_class, iou_threshold, score_threshold)
        return infer_rows(boxes, scores, limits, {**attrs, "output_type": output_type})[0]


@op("NonMaxSuppression", opset=4, like=NonMaxSuppression3)
class NonMaxSuppression4:
    """NonMaxSuppression-3."""


@op("NonMaxSuppression", opset=5, like=NonMaxSuppression3)
class NonMaxSuppression5:
    """NonMaxSuppression-4 with soft suppression, and with the scores and number of rows."""

    def infer(
        boxes, scores, max_output_boxes_per_class=None, iou_threshold=None, score_threshold=None,
        soft_nms_sigma=None, **attrs,
    ):  # fmt: skip
        limits = (max_output_boxes_per_class, iou_threshold, score_threshold, soft_nms_sigma)
        return infer_rows(boxes, scores, limits, attrs)

    def ref(boxes, scores, *limits, **attrs):
        return evaluate(boxes, scores, limits, attrs)


@op("NonMaxSuppression", opset=9, like=NonMaxSuppression5)
class NonMaxSuppression9:
    """NonMaxSuppression-5."""
