"""MulticlassNms and MatrixNms: non-maximum suppression of all classes of an image together.

    boxes [B, N, 4]  scores [B, C, N]  ->  selected [n, 6] of (class, score, x1, y1, x2, y2), their indices
    [n, 1] among all B * N boxes, and the number of each image [B]

Version 9 of MulticlassNms also takes regions that are split among images: boxes [C, R, 4], scores [C, R], and
the number of regions of each image. Those run by the reference. Otherwise boxes are selected and rows joined
natively (`kept_boxes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.graph import Value
from ovjit.graph.op import Bool, Index, Int, Single, TensorType, Word, op
from ovjit.graph.shapes import up_to
from ovjit.graph.symbolic import sym_min
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INTEGERS
from ovjit_ops.detection.kept_boxes import (
    RANKING,
    decay_scores,
    kept_boxes,
    ranked_rows,
    rows_of,
    select_boxes,
)
from ovjit_ops.elementwise.arithmetic import REALS


def _infer(boxes, scores, attrs: dict[str, Any], regions: TensorType | None = None):
    for name in ("nms_top_k", "keep_top_k", "background_class"):
        check(attrs[name] >= -1, f"{name} should be at least -1, not {attrs[name]}")
    ends = ("NB4", "NCB") if regions is None else ("CB4", "CB")
    dims = unify(REALS, boxes=(boxes, ends[0]), scores=(scores, ends[1]))
    check_type(regions, INTEGERS, "roisnum")
    dims.fit("roisnum", regions, "N")
    images, each, classes = dims.shape("NBC")
    if attrs["nms_top_k"] > -1:
        each = sym_min(each, attrs["nms_top_k"])
    most = each * classes
    if attrs["keep_top_k"] > -1:
        most = sym_min(most, attrs["keep_top_k"])
    rows = up_to(images * most)
    kind = attrs["output_type"]
    return TensorType(boxes.dtype, (rows, 6)), TensorType(kind, (rows, 1)), TensorType(kind, (images,))


def _order(attrs: Mapping[str, Any]) -> tuple[str, bool]:
    """(sort key of rows, whether they are sorted across images)."""
    key = "class" if attrs["sort_result_type"] == "classid" else "score"
    return key, attrs["sort_result_across_batch"] and attrs["sort_result_type"] != "none"


def _ranking(attrs: Mapping[str, Any], key: str, across_batch: bool, **ways: Any) -> dict[str, Any]:
    """The attributes of RankedRows in a MulticlassNms or MatrixNms."""
    sizes = {"keep": attrs["keep_top_k"], "capacity": attrs["nms_top_k"], "output_type": attrs["output_type"]}
    return RANKING | {"prefix": 2, "order": key, "across_batch": across_batch, **sizes, **ways}


def _native_rows(w: Writer, boxes: Value, choice: Sequence[Value], ways: dict[str, Any]) -> list[Value]:
    """The outputs of a MulticlassNms or MatrixNms from selected boxes."""
    rows, indices, _, row_counts, count = ranked_rows(w, boxes, choice, **ways)
    return [*(w("ValidPrefix", x, count, axis=0) for x in (rows, indices)), row_counts]


def _rows(boxes: np.ndarray, choice: Sequence[np.ndarray], ways: dict[str, Any], dtype: np.dtype):
    """`_native_rows` in NumPy."""
    rows, indices, _, row_counts, count = rows_of(boxes, *choice, **ways)
    return rows[: int(count[0])].astype(dtype), indices[: int(count[0])], row_counts


def _split(boxes: np.ndarray, scores: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, ...]:
    """(boxes [N, C, M, 4], scores [N, C, M], index of each among all boxes) of regions that are split among
    images. Images with fewer regions than M have scores of NaN, which are no candidates."""
    region_count, counts = scores.shape[1], regions.astype(np.int64)
    firsts = np.cumsum(counts) - counts
    if (counts < 0).any() or counts.sum() > region_count:
        raise InferenceError(f"roisnum {regions.tolist()} exceeds the {region_count} regions")
    there = np.arange(counts.max(initial=0)) < counts[:, None]
    at = np.where(there, firsts[:, None] + np.arange(there.shape[1]), 0)
    classes = np.arange(len(scores))[:, None]
    values = np.where(there[:, None], scores[:, at].swapaxes(0, 1), np.float32(np.nan))
    return boxes[:, at].swapaxes(0, 1), values, at[:, None] * len(scores) + classes


def _multiclass_nms(boxes, scores, regions=None, **attrs):
    """MulticlassNms in NumPy."""
    boxes_f32, values = boxes.astype(np.float32), scores.astype(np.float32)
    if regions is not None:
        boxes_f32, values, numbers = _split(boxes_f32, values, regions)
    choice = select_boxes(
        boxes_f32, values, 2**31 - 1, np.array([attrs["iou_threshold"], attrs["nms_eta"]]),
        attrs["score_threshold"], top=attrs["nms_top_k"], skip=attrs["background_class"], inclusive=True,
        border=not attrs["normalized"], adaptive=True,
    )  # fmt: skip
    rows, indices, row_counts = _rows(
        boxes_f32, choice, _ranking(attrs, *_order(attrs)), np.dtype(np.float32)
    )
    if regions is not None:
        image, box = np.divmod(indices, boxes_f32.shape[2])
        indices = numbers[image, rows[:, :1].astype(np.int64), box].astype(indices.dtype)
    return rows.astype(boxes.dtype), indices, row_counts


def _matrix_nms(boxes, scores, **attrs):
    """MatrixNms in NumPy: scores decay by the overlap with better boxes of the class, relative to their
    own."""
    boxes_f32, values = boxes.astype(np.float32), scores.astype(np.float32)
    numbers, decays, counts = decay_scores(
        boxes_f32, values, np.float32(attrs["score_threshold"]), **_decay_attributes(attrs)
    )
    if attrs["decay_function"] == "gaussian":
        decays = np.exp(decays * np.float32(attrs["gaussian_sigma"]))
    choice = numbers, decays * np.take_along_axis(values, numbers, 2), counts
    return _rows(boxes_f32, choice, _matrix_ranking(attrs), boxes.dtype)


def _matrix_ranking(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of RankedRows in a MatrixNms. OpenVINO sorts by class only across images."""
    order = _order(attrs) if attrs["sort_result_across_batch"] else ("score", False)
    return _ranking(attrs, *order, decayed=True, threshold=attrs["post_threshold"])


def _decay_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of MatrixDecay in a MatrixNms."""
    return {
        "top": attrs["nms_top_k"], "skip": attrs["background_class"], "border": not attrs["normalized"],
        "gaussian": attrs["decay_function"] == "gaussian",
    }  # fmt: skip


def _simple(inputs: tuple[Value, ...]) -> bool:
    return len(inputs) == 2 and all(v.dtype == "f32" and v.shape is not None for v in inputs)


@op("MulticlassNms", opset=8)
class MulticlassNms8:
    """Suppression within classes, then the best of each image."""

    words = {"sort_result_type": "none classid score"}

    def infer(
        boxes,
        scores,
        *,
        sort_result_type: Word = "none",
        sort_result_across_batch: Bool = False,
        output_type: Index = "i64",
        iou_threshold: Single = 0.0,
        score_threshold: Single = 0.0,
        nms_top_k: Int = -1,
        keep_top_k: Int = -1,
        background_class: Int = -1,
        nms_eta: Single = 1.0,
        normalized: Bool = True,
    ):
        return _infer(boxes, scores, locals())

    ref = _multiclass_nms

    def expand(w, node, inputs):
        """MulticlassNms(boxes, scores) -> ValidPrefix(RankedRows(boxes, KeptBoxes(boxes, scores)))"""
        attrs = node.attrs
        if not _simple(inputs):
            return None
        boxes, scores = inputs
        choice = kept_boxes(
            w, boxes, scores, attrs["iou_threshold"], attrs["score_threshold"], eta=attrs["nms_eta"],
            inclusive=True, border=not attrs["normalized"], top=attrs["nms_top_k"],
            skip=attrs["background_class"],
        )  # fmt: skip
        return _native_rows(w, boxes, choice, _ranking(attrs, *_order(attrs)))


@op("MulticlassNms", opset=9, like=MulticlassNms8)
class MulticlassNms9:
    """MulticlassNms-8, also for regions that are split among images."""

    def infer(boxes, scores, roisnum=None, **attrs):
        return _infer(boxes, scores, attrs, roisnum)


@op("MatrixNms", opset=8, like=MulticlassNms8, without=("iou_threshold", "nms_eta"))
class MatrixNms:
    """Suppression by decay of scores, of all boxes at once."""

    words = {**MulticlassNms8.words, "decay_function": "linear gaussian"}

    def infer(
        boxes, scores, *, background_class: Int = -1, decay_function: Word = "linear",
        gaussian_sigma: Single = 2.0, post_threshold: Single = 0.0, **attrs,
    ):  # fmt: skip
        return _infer(boxes, scores, {**attrs, "background_class": background_class})

    ref = _matrix_nms

    def expand(w, node, inputs):
        """MatrixNms(boxes, scores) -> ValidPrefix(RankedRows(boxes, numbers, scores * decays, counts)), with
        numbers, decays and counts of MatrixDecay(boxes, scores)"""
        if not _simple(inputs):
            return None
        attrs = node.attrs
        limit = np.array(attrs["score_threshold"], np.float32)
        numbers, decays, counts = w.outputs("MatrixDecay", *inputs, limit, **_decay_attributes(attrs))
        if attrs["decay_function"] == "gaussian":
            decays = w("Exp", w("Multiply", decays, np.float32(attrs["gaussian_sigma"])))
        values = w("Multiply", decays, w("GatherElements", inputs[1], numbers, axis=2))
        return _native_rows(w, inputs[0], (numbers, values, counts), _matrix_ranking(attrs))
