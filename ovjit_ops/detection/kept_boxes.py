"""The boxes that suppression keeps of each class of each image, in buffers of the maximum size.

    boxes [B, N, 4] or [B, 1 or C, N, 4]  scores [B, C, N]
    ->  numbers [B, C, capacity] of i32, values [B, C, capacity] of f32, counts [B, C] of i64

Numbers are indices of boxes, best first. Values are their scores, or the decay of scores in MatrixNms. The
first `counts` of a class are valid. RankedRows sorts them and joins the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.op import Bool, DType, Float, Int, Str, TensorType, op
from ovjit.graph.shapes import ANY, Dim, compatible
from ovjit.graph.symbolic import sym_min
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.checks import dims
from ovjit_ops.detection.boxes import best_first, overlaps, suppress


def _types(boxes: TensorType, scores: TensorType, top: int) -> tuple[TensorType, ...]:
    if scores.shape is None or boxes.shape is None:
        return TensorType("i32", (ANY,) * 3), TensorType("f32", (ANY,) * 3), TensorType("i64", (ANY,) * 2)
    images, classes, each = scores.shape
    check(len(boxes.shape) in (3, 4), f"boxes should have 3 or 4 dimensions, not {boxes}")
    sets = boxes.shape[1] if len(boxes.shape) == 4 else 1
    fits = compatible(sets, classes) or compatible(sets, 1)
    check(fits and compatible(boxes.shape[0], images), f"boxes {boxes} do not match scores {scores}")
    check(
        compatible(boxes.shape[-2], each), f"each box needs a score: boxes are {boxes}, scores are {scores}"
    )
    shape = (images, classes, each if top < 0 else sym_min(each, top))
    return TensorType("i32", shape), TensorType("f32", shape), TensorType("i64", (images, classes))


def by_class(boxes: np.ndarray, scores: np.ndarray, top: int, skip: int, one: Any) -> tuple[np.ndarray, ...]:
    """Apply one(boxes [N, 4], scores [N]) -> (numbers, values) to each class but `skip`. Returns (numbers,
    values, counts), padded with zeros."""
    images, classes, box_count = scores.shape
    capacity = box_count if top < 0 else min(box_count, top)
    chosen, decays = (np.zeros((images, classes, capacity), kind) for kind in (np.int32, np.float32))
    counts = np.zeros((images, classes), np.int64)
    sets = boxes if boxes.ndim == 4 else boxes[:, None]
    for image, label in np.ndindex(images, classes):
        if label != skip:
            numbers, values = one(sets[image, label % sets.shape[1]], scores[image, label])
            counts[image, label] = len(numbers)
            chosen[image, label, : len(numbers)] = numbers
            decays[image, label, : len(numbers)] = values
    return chosen, decays, counts


def select_boxes(
    boxes: np.ndarray, scores: np.ndarray, most: Any, iou: np.ndarray, threshold: Any, *, top: int, skip: int,
    suppress_equal: bool = False, inclusive: bool = False, border: bool = False, adaptive: bool = False,
    drop_nan: bool = False, corners: str = "plain",
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """KeptBoxes in NumPy."""
    limits = [float(v) for v in np.reshape(iou, -1)]

    def one(mine: np.ndarray, s: np.ndarray) -> tuple[Any, Any]:
        order = best_first(s, float(threshold), top, inclusive)
        if drop_nan:
            order = order[~np.isnan(mine[order]).any(1)]
        selected = suppress(
            mine, order, int(most), limits[0], suppress_equal,
            lambda a, others: overlaps(a, others, float(border)), limits[1] if adaptive else 1.0,
        )  # fmt: skip
        return selected, s[selected]

    return by_class(boxes, scores, top, skip, one)


def decay_scores(
    boxes: np.ndarray, scores: np.ndarray, threshold: Any, *, top: int, skip: int, border: bool,
    gaussian: bool,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """MatrixDecay in NumPy."""

    def one(mine: np.ndarray, s: np.ndarray) -> tuple[Any, Any]:
        order = best_first(s, float(threshold), top, False)
        worst, decays = (np.zeros(len(order), np.float32) for _ in range(2))
        for i, box in enumerate(order):
            share = _share(mine[box], mine[order[:i]], float(border))
            worst[i] = share.max(initial=0)
            with np.errstate(all="ignore"):
                if gaussian:
                    decays[i] = (worst[:i] * worst[:i] - share * share).min(initial=0)
                else:
                    decays[i] = ((1 - share) / (1 - worst[:i])).min(initial=1)
        return order, decays

    return by_class(boxes, scores, top, skip, one)


def gather_candidates(chosen: np.ndarray, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """(image, class, number, value) of all valid rows, class by class."""
    image, label, row = np.nonzero(np.arange(chosen.shape[2]) < counts[..., None])
    return image, label, chosen[image, label, row], values[image, label, row]


#: Default attributes of RankedRows.
RANKING: dict[str, Any] = {
    "prefix": 0, "keep": -1, "order": "score", "across_batch": False, "decayed": False, "threshold": 0.0,
    "clipped": False, "padded": "", "labels": False, "capacity": -1, "output_type": "i64",
}  # fmt: skip


def rank_candidates(columns: Sequence[np.ndarray], keep: int, key: str, across_batch: bool) -> np.ndarray:
    """The order of rows with these images, classes, boxes and scores: the best `keep` (-1: all) of each
    image.

    Rows are sorted by `key` within each image, or `across_batch` all. Keys are "class", "score", and "kept":
    by score if rows were dropped, else by class.
    """
    image, label, box, score = columns
    order = np.lexsort((box, label, -score, image))
    if keep >= 0:
        firsts = np.searchsorted(image[order], np.arange(image.max(initial=0) + 1))
        order = order[np.arange(len(order)) - firsts[image[order]] < keep]
    image, label, box, score = (x[order] for x in (image, label, box, score))
    if key == "class" or (key == "kept" and len(order) == len(columns[0])):
        outer = (image, label) if across_batch else (label, image)
        return order[np.lexsort((box, -score, *outer))]
    return order[np.lexsort((box, label, image, -score))] if across_batch else order


def ranked_rows(w: Writer, boxes: Value, choice: Sequence[Value], **attrs: Any) -> tuple[Value, ...]:
    """Add a RankedRows. Returns rows, places, scores, the number of rows of each image, and the total."""
    return w.outputs("RankedRows", boxes, *choice, **(RANKING | attrs))


def kept_boxes(
    w: Writer, boxes: Value, scores: Value, iou: float, threshold: float, *, eta: float = 1.0,
    most: int = 2**31 - 1, **attrs: Any,
) -> tuple[Value, ...]:  # fmt: skip
    """Add a KeptBoxes with these limits. Returns its outputs. `eta`: the factor of the limit per kept box; 1:
    constant."""
    limit = np.array([iou, eta] if eta < 1 else [iou], np.float32)
    limits = (np.array(most, np.int64), limit, np.array(threshold, np.float32))
    attrs = {"corners": "plain", "suppress_equal": False, "inclusive": False, "border": False, "top": -1,
             "skip": -1, "drop_nan": False, **attrs, "adaptive": eta < 1}  # fmt: skip
    return w.outputs("KeptBoxes", boxes, scores, *limits, **attrs)


@op("KeptBoxes", internal=True, lower=".cpu_kept_boxes:KeptBoxes.of")
class KeptBoxes:
    """Greedy suppression. Attributes as in `cpu_nms.Way`. `top`: maximum candidates of a class; `skip`: a
    class that is ignored."""

    def infer(
        boxes, scores, most, iou, threshold, *, top: Int, skip: Int, corners: Str, suppress_equal: Bool,
        inclusive: Bool, border: Bool, adaptive: Bool, drop_nan: Bool,
    ):  # fmt: skip
        return _types(boxes, scores, top)

    ref = select_boxes


@op("MatrixDecay", internal=True, lower=".cpu_kept_boxes:MatrixDecay.of")
class MatrixDecay:
    """The decay of scores in MatrixNms: min over better boxes j of (1 - o[i, j]) / (1 - w[j]), at most 1.

    o[i, j] is the overlap of box i and a better box j, and w[j] the maximum of o[j, .]. With `gaussian`, the
    exponent: the minimum of w[j]^2 - o[i, j]^2, at most 0.
    """

    def infer(boxes, scores, threshold, *, top: Int, skip: Int, border: Bool, gaussian: Bool):
        return _types(boxes, scores, top)

    ref = decay_scores


def rows_of(
    boxes: np.ndarray, numbers: np.ndarray, values: np.ndarray, counts: np.ndarray, *, prefix: int, keep: int,
    order: str, decayed: bool, across_batch: bool, capacity: int, output_type: str, **attrs: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """RankedRows in NumPy."""
    columns = gather_candidates(numbers, values, counts)
    if decayed:
        above = np.flatnonzero(columns[3] > np.float32(attrs["threshold"]))
        columns = tuple(x[above] for x in columns)
    at = rank_candidates(columns, keep, order, across_batch)
    image, label, box, score = (x[at] for x in columns)
    sets = boxes if boxes.ndim == 4 else boxes[:, None]
    selected = sets[image, label % sets.shape[1], box]
    selected = np.clip(selected, 0, 1) if attrs["clipped"] else selected
    first = np.stack([image, label, score], 1).astype(np.float32)[:, 3 - prefix :]
    rows_per_image = keep if keep > 0 else (capacity if capacity > 0 else boxes.shape[-2]) * counts.shape[1]
    rows = np.zeros((len(boxes) * rows_per_image, 4 + prefix), np.float32)
    labels_or_indices, scores = (
        np.zeros((len(rows), 1), numpy_dtype(output_type)),
        np.zeros(len(rows), np.float32),
    )
    rows[: len(selected)] = np.concatenate([first, selected], 1)
    if len(selected) < len(rows):
        rows[len(selected), 0] = -(attrs["padded"] == "mark")
    labels_or_indices[: len(selected), 0] = label if attrs["labels"] else image * boxes.shape[-2] + box
    scores[: len(selected)] = score
    per_image = np.bincount(image, minlength=len(boxes)).astype(labels_or_indices.dtype)
    return rows, labels_or_indices, scores, per_image, np.array([len(selected)])


@op("RankedRows", internal=True, lower=".cpu_ranked_rows:RankedRows.of")
class RankedRows:
    """Rows of the boxes of KeptBoxes, or of MatrixDecay (`decayed`: rows with scores, in `values`, above the
    threshold), sorted by `ranked`.

    Outputs are the index of each row's box among all boxes, or its class (`labels`); its score; the number of
    rows of each image; the total. The buffer has the maximum size, `capacity` (-1: all) per class.

    A row is the last `prefix` of image, class and score, and a box, `clipped` to 0 ... 1. `padded`: rows
    after the last one are "zeros", or zeros with a "mark", a -1 as the first of them.
    """

    def infer(
        boxes, numbers, values, counts, *, prefix: Int, keep: Int, order: Str, across_batch: Bool,
        decayed: Bool, threshold: Float, clipped: Bool, padded: Str, labels: Bool, capacity: Int,
        output_type: DType,
    ):  # fmt: skip
        fits = boxes.shape is None or compatible(boxes.shape[-1], 4)
        check(fits, f"boxes {boxes} should have 4 as the last dimension")
        images, classes = dims(counts, 2)
        each: Dim = keep
        if keep <= 0:
            each = (capacity if capacity > 0 else ANY if boxes.shape is None else boxes.shape[-2]) * classes
        rows = images * each
        return (
            TensorType("f32", (rows, 4 + prefix)), TensorType(output_type, (rows, 1)),
            TensorType("f32", (rows,)), TensorType(output_type, (images,)), TensorType("i64", (1,)),
        )  # fmt: skip

    ref = rows_of


def _share(box: np.ndarray, others: np.ndarray, border: float) -> np.ndarray:
    """`overlaps`, but 0 for boxes that share only their borders."""
    disjoint = (others[:, :2] > box[2:]).any(1) | (others[:, 2:] < box[:2]).any(1)
    return np.where(disjoint, np.float32(0), overlaps(box, others, border))
