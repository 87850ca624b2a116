"""MulticlassNms and MatrixNms: non-maximum suppression of all classes of an image together.

    boxes [B, N, 4]  scores [B, C, N]  ->  selected [n, 6] of (class, score, x1, y1, x2, y2), their places
    [n, 1] among all B * N boxes, and how many each image has [B]

Version 9 of MulticlassNms also takes regions that are split among images: boxes [C, R, 4], scores [C, R], and
how many regions each image has. They run by the reference.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Bool, DType, Float, Int, Str, TensorType, op
from ovjit.graph.shapes import ANY, bounds, dim, merge
from ovjit_ops.common.values import INDEX_TYPES, INTEGERS
from ovjit_ops.detection.boxes import descending, overlaps, suppress
from ovjit_ops.elementwise.arithmetic import REALS

SORTS = ("none", "classid", "score")
_NUMPY = {"i32": np.int32, "i64": np.int64}


class Found(NamedTuple):
    """A selected box: its image, class, number among the image's, score, corners and place in the output."""

    image: int
    label: int
    box: int
    score: float
    corners: np.ndarray
    place: int


def _infer(boxes, scores, attrs: dict[str, Any], regions: TensorType | None = None):
    for name, allowed in (("sort_result_type", SORTS), ("output_type", tuple(INDEX_TYPES))):
        check(attrs[name] in allowed, f"{name} should be one of {', '.join(allowed)}, not {attrs[name]!r}")
    for name in ("nms_top_k", "keep_top_k", "background_class"):
        check(attrs[name] >= -1, f"{name} should not be below -1: {attrs[name]}")
    for x, rank, what in ((boxes, 3, "boxes"), (scores, 3 if regions is None else 2, "scores")):
        check(x.dtype in (*REALS, "dynamic"), f"{what} should be floats, not {x.dtype}")
        check(x.rank in (None, rank), f"{what} should have {rank} dimensions, not {x}")
    images, each, classes = ANY, ANY, ANY
    if boxes.shape is not None:
        check(merge(boxes.shape[2], 4) is not None, f"boxes {boxes} should have 4 numbers each")
        images, each = boxes.shape[:2]
    if scores.shape is not None:
        classes = scores.shape[-2]
    if boxes.shape is not None and scores.shape is not None:
        pairs = [(each, scores.shape[-1]), (images, scores.shape[0])]
        check(all(merge(a, b) is not None for a, b in pairs), f"boxes {boxes} and scores {scores} do not fit")
    if regions is not None:
        check(regions.dtype in (*INTEGERS, "dynamic"), f"roisnum should be integers, not {regions.dtype}")
        check(regions.rank in (None, 1), f"roisnum should be a list, not {regions}")
        images = ANY if regions.shape is None else regions.shape[0]
    most = bounds(each)[1]
    if most is not None and attrs["nms_top_k"] > -1:
        most = min(most, attrs["nms_top_k"])
    high = bounds(classes)[1]
    if most is not None and high is not None:
        most *= high
        if attrs["keep_top_k"] > -1:
            most = min(most, attrs["keep_top_k"])
    else:
        most = attrs["keep_top_k"] if attrs["keep_top_k"] > -1 else None
    many = bounds(images)[1]
    rows = dim(0, None if most is None or many is None else most * many)
    kind = attrs["output_type"]
    return TensorType(boxes.dtype, (rows, 6)), TensorType(kind, (rows, 1)), TensorType(kind, (images,))


def _outputs(found: list[list[Found]], dtype: np.dtype, attrs: dict[str, Any]):
    """Sort what was found in each image and make the outputs."""
    if attrs["sort_result_across_batch"]:
        rows = [f for image in found for f in image]
        if attrs["sort_result_type"] == "score":
            rows.sort(key=lambda f: (-f.score, f.image, f.label, f.box))
        elif attrs["sort_result_type"] == "classid":
            rows.sort(key=lambda f: (f.label, f.image, -f.score, f.box))
    else:
        rows = []
        for image in found:
            if attrs["sort_result_type"] == "score":
                image = sorted(image, key=lambda f: (-f.score, f.label, f.box))
            elif attrs["sort_result_type"] == "classid":
                image = sorted(image, key=lambda f: (f.label, -f.score, f.box))
            rows += image
    selected = np.array([(f.label, f.score, *f.corners) for f in rows], np.float32).reshape(-1, 6)
    kind = _NUMPY[attrs["output_type"]]
    places = np.array([f.place for f in rows], kind).reshape(-1, 1)
    return selected.astype(dtype), places, np.array([len(f) for f in found], kind)


def _top(scores: np.ndarray, threshold: float, most: int, inclusive: bool) -> np.ndarray:
    """The boxes above the threshold, best first, at most `most` (-1: all)."""
    limit = np.float32(threshold)
    candidates = np.flatnonzero(scores >= limit if inclusive else scores > limit)
    order = candidates[descending(scores[candidates])]
    return order if most < 0 else order[:most]


def _images(boxes: np.ndarray, scores: np.ndarray, regions: np.ndarray | None):
    """Yields for every image its boxes [C or 1, n, 4], scores [C, n] and places of boxes [C or 1, n]."""
    if regions is None:
        many = boxes.shape[1]
        for i in range(len(boxes)):
            yield boxes[i : i + 1], scores[i], (i * many + np.arange(many))[None]
        return
    many, classes = scores.shape[1], scores.shape[0]
    first = 0
    for count in regions.astype(np.int64):
        if count < 0 or first + count > many:
            raise InferenceError(f"roisnum {regions.tolist()} names more regions than the {many} there are")
        part = slice(first, first + int(count))
        places = np.arange(part.start, part.stop) * classes + np.arange(classes)[:, None]
        yield boxes[:, part], scores[:, part], places
        first += int(count)


def multiclass_nms(boxes, scores, regions, attrs: dict[str, Any]):
    dtype = boxes.dtype
    boxes, scores = boxes.astype(np.float32), scores.astype(np.float32)
    border = 0.0 if attrs["normalized"] else 1.0
    found: list[list[Found]] = []
    for image, (all_boxes, all_scores, places) in enumerate(_images(boxes, scores, regions)):
        rows: list[Found] = []
        for label, s in enumerate(all_scores):
            if label == attrs["background_class"]:
                continue
            mine = all_boxes[label % len(all_boxes)]
            order = _top(s, attrs["score_threshold"], attrs["nms_top_k"], True)
            kept = suppress(
                mine,
                order,
                len(order),
                attrs["iou_threshold"],
                False,
                lambda a, b: overlaps(a, b, border),
                attrs["nms_eta"],
            )
            at = places[label % len(places)]
            rows += [Found(image, label, i, float(s[i]), mine[i], int(at[i])) for i in kept]
        found.append(_best(rows, attrs["keep_top_k"]))
    return _outputs(found, dtype, attrs)


def _best(rows: list[Found], most: int) -> list[Found]:
    """By falling score, at most `most` (-1: all)."""
    rows = sorted(rows, key=lambda f: (-f.score, f.label, f.box))
    return rows if most < 0 else rows[:most]


def _share(box: np.ndarray, others: np.ndarray, border: float) -> np.ndarray:
    """`overlaps`, but 0 for boxes that only their borders join."""
    apart = (others[:, :2] > box[2:]).any(1) | (others[:, 2:] < box[:2]).any(1)
    return np.where(apart, np.float32(0), overlaps(box, others, border))


def matrix_nms(boxes, scores, attrs: dict[str, Any]):
    """Scores fall by how much better boxes of the class overlap, themselves weighed by what overlaps them."""
    dtype = boxes.dtype
    boxes, scores = boxes.astype(np.float32), scores.astype(np.float32)
    border = 0.0 if attrs["normalized"] else 1.0
    sigma = np.float32(attrs["gaussian_sigma"])
    found: list[list[Found]] = []
    for image, (all_boxes, all_scores, places) in enumerate(_images(boxes, scores, None)):
        rows: list[Found] = []
        for label, s in enumerate(all_scores):
            if label == attrs["background_class"]:
                continue
            order = _top(s, attrs["score_threshold"], attrs["nms_top_k"], False)
            worst = np.zeros(len(order), np.float32)  # the largest overlap of each box with a better one
            for i, box in enumerate(order):
                share = _share(all_boxes[0][box], all_boxes[0][order[:i]], border)
                worst[i] = share.max(initial=0)
                if attrs["decay_function"] == "gaussian":
                    falls = np.exp((worst[:i] * worst[:i] - share * share) * sigma)
                else:
                    falls = (1 - share) / (1 - worst[:i])
                score = np.float32(falls.min(initial=1) * s[box])
                if score > np.float32(attrs["post_threshold"]):
                    found_one = Found(
                        image, label, int(box), float(score), all_boxes[0][box], int(places[0][box])
                    )
                    rows.append(found_one)
        found.append(_best(rows, attrs["keep_top_k"]))
    if not attrs["sort_result_across_batch"]:
        attrs = {**attrs, "sort_result_type": "none"}  # OpenVINO sorts by class only across images
    return _outputs(found, dtype, attrs)


def _inputs(rng: np.random.Generator, images: int, classes: int, many: int) -> list[np.ndarray]:
    middle, size = rng.uniform(0, 10, (images, many, 2)), rng.uniform(1, 6, (images, many, 2))
    boxes = np.concatenate([middle - size / 2, middle + size / 2], 2).astype(np.float32)
    return [boxes, rng.random((images, classes, many)).astype(np.float32)]


_COMMON: list[dict[str, Any]] = [
    {},
    {"sort_result_type": "score", "keep_top_k": 7},
    {"sort_result_type": "classid", "background_class": 0},
    {"sort_result_type": "score", "sort_result_across_batch": True, "nms_top_k": 5, "output_type": "i32"},
    {"sort_result_type": "classid", "sort_result_across_batch": True, "normalized": False},
    {"nms_top_k": 4, "keep_top_k": 3, "score_threshold": 0.6},
]
_DEFAULTS: dict[str, Any] = {
    "sort_result_type": "none",
    "sort_result_across_batch": False,
    "output_type": "i64",
    "score_threshold": 0.1,
    "nms_top_k": -1,
    "keep_top_k": -1,
    "background_class": -1,
    "normalized": True,
}


def _samples(version: int):
    def samples(rng: np.random.Generator, dtype: str = "f32"):
        for i, attrs in enumerate(_COMMON):
            full = {**_DEFAULTS, "iou_threshold": 0.3, "nms_eta": 0.9 if i == 2 else 1.0, **attrs}
            yield _inputs(rng, 2, 3, 17), full
            if version == 9 and attrs.get("sort_result_type", "none") != "none":
                boxes, _ = _inputs(rng, 3, 1, 12)
                yield [boxes, rng.random((3, 12)).astype(np.float32), np.array([5, 0, 7], np.int32)], full

    return samples


@op("MulticlassNms", opset=8, samples=_samples(8))
class MulticlassNms8:
    """Suppression within classes, then the best of each image."""

    def infer(
        boxes,
        scores,
        *,
        sort_result_type: Str = "none",
        sort_result_across_batch: Bool = False,
        output_type: DType = "i64",
        iou_threshold: Float = 0.0,
        score_threshold: Float = 0.0,
        nms_top_k: Int = -1,
        keep_top_k: Int = -1,
        background_class: Int = -1,
        nms_eta: Float = 1.0,
        normalized: Bool = True,
    ):
        return _infer(boxes, scores, locals())

    def ref(boxes, scores, **attrs):
        return multiclass_nms(boxes, scores, None, attrs)


@op("MulticlassNms", opset=9, samples=_samples(9))
class MulticlassNms9:
    """MulticlassNms-8, and regions that are split among images."""

    def infer(
        boxes,
        scores,
        roisnum=None,
        *,
        sort_result_type: Str = "none",
        sort_result_across_batch: Bool = False,
        output_type: DType = "i64",
        iou_threshold: Float = 0.0,
        score_threshold: Float = 0.0,
        nms_top_k: Int = -1,
        keep_top_k: Int = -1,
        background_class: Int = -1,
        nms_eta: Float = 1.0,
        normalized: Bool = True,
    ):
        return _infer(boxes, scores, locals(), roisnum)

    def ref(boxes, scores, roisnum=None, **attrs):
        return multiclass_nms(boxes, scores, roisnum, attrs)


def _matrix_samples(rng: np.random.Generator, dtype: str = "f32"):
    for i, attrs in enumerate(_COMMON):
        full = {
            **_DEFAULTS,
            "decay_function": ("linear", "gaussian")[i % 2],
            "gaussian_sigma": 2.0,
            "post_threshold": 0.05 * i,
            **attrs,
        }
        yield _inputs(rng, 2, 3, 17), full


@op("MatrixNms", opset=8, samples=_matrix_samples)
class MatrixNms:
    """Suppression by falling scores, all boxes at once."""

    def infer(
        boxes,
        scores,
        *,
        sort_result_type: Str = "none",
        sort_result_across_batch: Bool = False,
        output_type: DType = "i64",
        score_threshold: Float = 0.0,
        nms_top_k: Int = -1,
        keep_top_k: Int = -1,
        background_class: Int = -1,
        decay_function: Str = "linear",
        gaussian_sigma: Float = 2.0,
        post_threshold: Float = 0.0,
        normalized: Bool = True,
    ):
        check(
            decay_function in ("linear", "gaussian"),
            f"decay_function is linear or gaussian: {decay_function}",
        )
        return _infer(boxes, scores, locals())

    def ref(boxes, scores, **attrs):
        return matrix_nms(boxes, scores, attrs)
