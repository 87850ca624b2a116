"""DetectionOutput: the boxes of an SSD from its predictions.

    box_logits [N, P * 4 * L]  class_preds [N, P * C]  proposals [1 or N, 1 or 2, P * S]
    [aux_class_preds [N, P * 2]  aux_box_preds [N, P * 4 * L]]
    ->  [1, 1, rows, 7] of (image, class, score, x1, y1, x2, y2)

for P priors, C classes, L = 1 (`share_location`) or C, priors of S = 4 numbers (`normalized`) or 5. The row
after the last has image -1; further rows are 0. Native (`kept_boxes.py`), except for auxiliary inputs and
`decrease_label_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, Int, Ints, Single, Str, TensorType, op
from ovjit.graph.shapes import ANY, Dim, Interval, compatible, is_static
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import check_rank
from ovjit_ops.common.dims import unify
from ovjit_ops.detection.boxes import best_first
from ovjit_ops.detection.kept_boxes import RANKING, kept_boxes, ranked_rows, rows_of, select_boxes
from ovjit_ops.elementwise.arithmetic import REALS

CODES = ("caffe.priorboxparameter.corner", "caffe.priorboxparameter.center_size")


def _infer(boxes, classes, priors, aux: tuple, attrs: dict[str, Any], class_count: int | None) -> TensorType:
    rows_of = 1 if attrs["variance_encoded_in_target"] else 2
    dims = unify(
        REALS, box_logits=(boxes, "NL"), class_preds=(classes, "NW"), proposals=(priors, f".{rows_of}S")
    )
    for x, what in zip(aux, ("aux_class_preds", "aux_box_preds"), strict=True):
        check_rank(x, 2, what)
    check(len(attrs["keep_top_k"]) > 0, "keep_top_k should not be empty")
    images, length, width = dims.shape("NSW")
    size = 4 if attrs["normalized"] else 5
    check(
        isinstance(length, Interval) or length % size == 0,
        f"the priors {priors} should have a multiple of {size} elements",
    )
    count: Dim = length // size
    if not isinstance(count, Interval) and not isinstance(width, Interval):
        check(count > 0 and width % count == 0, f"{width} scores are not a multiple of {count} priors")
        check(
            class_count in (None, width // count),
            f"{width} scores of {count} priors do not match {class_count} classes",
        )
        class_count = width // count
        logits = count * 4 * (1 if attrs["share_location"] else class_count)
        check(compatible(dims["L"], logits), f"{count} priors need {logits} box logits, not {boxes}")
    each: Dim
    if attrs["keep_top_k"][0] > 0:
        each = attrs["keep_top_k"][0]
    elif class_count is None:
        each = ANY
    else:
        each = (attrs["top_k"] if attrs["top_k"] > 0 else count) * class_count
    return TensorType(boxes.dtype, (1, 1, images * each, 7))


def _decode_boxes(
    priors: np.ndarray, variances: np.ndarray, logits: np.ndarray, attrs: dict[str, Any]
) -> np.ndarray:
    """Boxes [P, 4] as fractions of the picture, of priors [P, 4], their variances and logits of the same
    shape."""
    if not attrs["normalized"]:
        priors = priors / np.array((attrs["input_width"], attrs["input_height"]) * 2, np.float32)
    moved = logits * variances
    if attrs["code_type"].lower() == CODES[0]:
        boxes = priors + moved
    else:
        half = np.float32(0.5)
        size = priors[:, 2:] - priors[:, :2]
        middle = (priors[:, :2] + priors[:, 2:]) * half + moved[:, :2] * size
        size = np.exp(moved[:, 2:]) * size
        boxes = np.concatenate([middle - size * half, middle + size * half], 1)
    return np.clip(boxes, 0, 1) if attrs["clip_before_nms"] else boxes


def _priors(proposals: np.ndarray, attrs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(boxes [P, 4], variances [P, 4])"""
    size = 4 if attrs["normalized"] else 5
    boxes = proposals[0].reshape(-1, size)[:, size - 4 :]
    if attrs["variance_encoded_in_target"]:
        return boxes, np.ones((len(boxes), 4), np.float32)
    return boxes, proposals[1].reshape(-1)[: 4 * len(boxes)].reshape(-1, 4)


def _of_best_class(scores: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """Scores [N, C, P] as MXNet reads them: a prior counts only for its best class, and only the best priors
    of an image count. All other scores are NaN."""
    best_scores = np.full(scores.shape, np.nan, np.float32)
    for mine, s in zip(best_scores, scores, strict=True):
        label, best = s[1:].argmax(0) + 1, s[1:].max(0, initial=-np.inf)
        order = best_first(best, attrs["confidence_threshold"], max(attrs["top_k"], -1), True)
        mine[label[order], order] = best[order]
    return best_scores


def _ranking(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of RankedRows in a DetectionOutput."""
    return RANKING | {
        "prefix": 3, "keep": attrs["keep_top_k"][0], "order": "class", "clipped": attrs["clip_after_nms"],
        "padded": "mark", "capacity": attrs["top_k"],
    }  # fmt: skip


def ssd_boxes(
    boxes: np.ndarray, classes: np.ndarray, proposals: np.ndarray, aux_classes: np.ndarray | None,
    aux_boxes: np.ndarray | None, attrs: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(boxes [N, L, P, 4], scores [N, C, P]), decoded, in f32. Raises InferenceError if the inputs do not
    fit.

    Auxiliary boxes are decoded by `_decode_boxes` too, and take the place of priors. So they are clipped, and
    divided by the size of the picture once more, as in OpenVINO."""
    size = 4 if attrs["normalized"] else 5
    count = proposals.shape[2] // size
    class_count = classes.shape[1] // max(count, 1)
    sets = 1 if attrs["share_location"] else class_count
    images = len(boxes)
    if not count or boxes.shape[1] != count * 4 * sets or len(proposals) not in (1, images):
        raise InferenceError(
            f"box_logits {boxes.shape} do not match {count} priors and {class_count} classes"
        )
    decoded = np.empty((images, sets, count, 4), np.float32)
    for n in range(images):
        priors, variances = _priors(proposals[n % len(proposals)].astype(np.float32), attrs)
        logits = boxes[n].astype(np.float32).reshape(count, sets, 4)
        for i in range(sets):
            base = priors
            if aux_boxes is not None:
                first = aux_boxes[n].astype(np.float32).reshape(count, -1, 4)
                base = _decode_boxes(priors, variances, first[:, i % first.shape[1]], attrs)
            decoded[n, i] = _decode_boxes(base, variances, logits[:, i], attrs)
    scores = np.ascontiguousarray(
        classes.astype(np.float32).reshape(images, count, class_count).swapaxes(1, 2)
    )
    if aux_classes is not None:
        weak = aux_classes.astype(np.float32).reshape(images, count, 2)[..., 1] < attrs["objectness_score"]
        nothing = np.zeros((1, class_count, 1), np.float32)
        if 0 <= attrs["background_label_id"] < class_count:
            nothing[0, attrs["background_label_id"]] = 1
        scores = np.where(weak[:, None], nothing, scores)
    return decoded, scores


def _detection_output(boxes, classes, proposals, aux_classes=None, aux_boxes=None, **attrs) -> np.ndarray:
    decoded, scores = ssd_boxes(boxes, classes, proposals, aux_classes, aux_boxes, attrs)
    decreased = bool(attrs["decrease_label_id"])
    ways = {"top": max(attrs["top_k"], -1), "skip": attrs["background_label_id"]}
    if decreased:
        scores, ways = _of_best_class(scores, attrs), {"top": -1, "skip": -1, "inclusive": True}
    limit = np.array([attrs["nms_threshold"]])
    choice = select_boxes(decoded, scores, 2**31 - 1, limit, attrs["confidence_threshold"], **ways)
    rows, *_, total = rows_of(decoded, *choice, **_ranking(attrs))
    rows[: int(total[0]), 1] -= decreased
    return rows.astype(boxes.dtype)[None, None]


def _native_boxes(w: Writer, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, Value] | None:
    """Boxes [N, L, P, 4], decoded by simpler operations, and scores [N, C, P]. None with auxiliary inputs, or
    if the number of priors or classes is unknown. Priors per image require a known number of images."""
    attrs = node.attrs
    if len(inputs) != 3 or any(v.shape is None for v in inputs) or not is_static(inputs[2].shape):
        return None
    logits, classes, proposals = inputs
    (images, width), (sources, rows, length) = classes.shape, proposals.shape
    size = 4 if attrs["normalized"] else 5
    count = length // size
    expected = width // max(count, 1) if isinstance(width, int) else None
    class_count: Any = attrs.get("num_classes", expected)
    alone = bool(attrs["variance_encoded_in_target"])
    fits = class_count and count and length == count * size and rows >= 2 - alone
    if not fits or class_count != (expected or class_count):
        return None
    if images == 0 or sources not in (1, images):
        return None
    sets = 1 if attrs["share_location"] else class_count

    def reshape(x: Value, *shape: int) -> Value:
        return w("Reshape", x, shape, special_zero=True)

    def transpose(x: Value, *order: int) -> Value:
        return w("Transpose", x, order)

    priors = reshape(w.part(proposals, 0, 1, 1), sources, 1, count, size)
    if not attrs["normalized"]:
        image_size = np.array((attrs["input_width"], attrs["input_height"]) * 2, np.float32)
        priors = w("Divide", w.part(priors, 1, 5, 3), image_size)
    moved = transpose(reshape(logits, 0, count, sets, 4), 0, 2, 1, 3)
    if not alone:
        variances = w.part(w.part(proposals, 1, 2, 1), 0, 4 * count, 2)
        moved = w("Multiply", moved, reshape(variances, sources, 1, count, 4))
    if attrs["code_type"].lower() == CODES[0]:
        boxes = w("Add", priors, moved)
    else:
        first, last = w.part(priors, 0, 2, 3), w.part(priors, 2, 4, 3)
        extent = w("Subtract", last, first)
        shift = w("Multiply", w.part(moved, 0, 2, 3), extent)
        middle = w("Add", w("Multiply", w("Add", first, last), np.float32(0.5)), shift)
        half = w("Multiply", w("Multiply", w("Exp", w.part(moved, 2, 4, 3)), extent), np.float32(0.5))
        boxes = w("Concat", w("Subtract", middle, half), w("Add", middle, half), axis=3)
    if attrs["clip_before_nms"]:
        boxes = w("Clamp", boxes, min=0.0, max=1.0)
    return boxes, transpose(reshape(classes, 0, count, class_count), 0, 2, 1)


def _expand(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """DetectionOutput(...) -> RankedRows(boxes, KeptBoxes(boxes, scores))"""
    attrs = node.attrs
    if any(v.dtype != "f32" for v in inputs) or attrs["decrease_label_id"]:
        return None
    decoded = _native_boxes(w, node, inputs)
    if decoded is None:
        return None
    boxes, scores = decoded
    choice = kept_boxes(
        w, boxes, scores, attrs["nms_threshold"], attrs["confidence_threshold"], top=max(attrs["top_k"], -1),
        skip=attrs["background_label_id"],
    )  # fmt: skip
    rows = ranked_rows(w, boxes, choice, **_ranking(attrs))[0]
    return [w("Unsqueeze", rows, (0, 1))]


@op(
    "DetectionOutput", opset=1, expand=_expand,
    words={"code_type": CODES},
)  # fmt: skip
class DetectionOutput1:
    """The best boxes of every image."""

    def infer(
        box_logits,
        class_preds,
        proposals,
        aux_class_preds=None,
        aux_box_preds=None,
        *,
        num_classes: Int,
        background_label_id: Int = 0,
        top_k: Int = -1,
        variance_encoded_in_target: Bool = False,
        keep_top_k: Ints,
        code_type: Str = "caffe.PriorBoxParameter.CORNER",
        share_location: Bool = True,
        nms_threshold: Single,
        confidence_threshold: Single = 0.0,
        clip_after_nms: Bool = False,
        clip_before_nms: Bool = False,
        decrease_label_id: Bool = False,
        normalized: Bool = False,
        input_height: Int = 1,
        input_width: Int = 1,
        objectness_score: Single = 0.0,
    ):
        aux = (aux_class_preds, aux_box_preds)
        return _infer(box_logits, class_preds, proposals, aux, locals(), num_classes)

    ref = _detection_output


@op("DetectionOutput", opset=8, like=DetectionOutput1, without=("num_classes",))
class DetectionOutput8:
    """DetectionOutput-1 with the number of classes from the shapes."""

    def infer(box_logits, class_preds, proposals, aux_class_preds=None, aux_box_preds=None, **attrs):
        return _infer(box_logits, class_preds, proposals, (aux_class_preds, aux_box_preds), attrs, None)
