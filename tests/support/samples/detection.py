"""Samples of `ovjit_ops/detection`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.detection import sampling
from ovjit_ops.detection.cpu_nms import ROTATED
from ovjit_ops.detection.kept_boxes import RANKING
from ovjit_ops.detection.proposal_parts import PLAIN
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


def _boxes(rng: np.random.Generator, images: int, box_count: int, encoding: str) -> np.ndarray:
    middle, size = rng.uniform(0, 10, (images, box_count, 2)), rng.uniform(0.5, 5, (images, box_count, 2))
    if encoding == "center":
        return np.concatenate([middle, size], 2).astype(np.float32)
    return np.concatenate([middle - size / 2, middle + size / 2], 2).astype(np.float32)


def rotated_samples(rng: np.random.Generator, dtype: str = "f32"):
    for i, (images, classes, box_count, most, iou) in enumerate(
        ((1, 1, 9, 5, 0.3), (2, 3, 17, 4, 0.5), (1, 2, 30, 100, 0.1), (1, 1, 1, 1, 0.5))
    ):
        middle, size = rng.uniform(0, 10, (images, box_count, 2)), rng.uniform(1, 8, (images, box_count, 2))
        boxes = np.concatenate([middle, size, rng.uniform(-4, 4, (images, box_count, 1))], 2).astype(
            np.float32
        )
        yield (
            [
                boxes,
                rng.random((images, classes, box_count)).astype(np.float32),
                np.array(most, np.int64),
                np.array(iou, np.float32),
                np.array(0.05 * i, np.float32),
            ],
            {"sort_result_descending": i % 2 == 0, "output_type": ("i64", "i32")[i % 2], "clockwise": i < 2},
        )


def nms_samples(version: int, rng: np.random.Generator, dtype: str = "f32"):
    rows = [
        (1, 1, 7, 3, 0.5, 0.0, "corner", True), (2, 3, 17, 5, 0.3, 0.2, "corner", False),
        (1, 2, 40, 100, 0.6, 0.1, "center", True), (2, 1, 33, 0, 0.5, 0.0, "corner", True),
        (1, 1, 1, 1, 0.0, 0.0, "center", False), (2, 2, 16, 4, 0.45, 0.95, "corner", True),
        (1, 4, 100, 20, 1.0, 0.5, "corner", True), (1, 1, 64, 64, 0.2, -1.0, "center", False),
        (1, 1, 40, 40, 0.0, 0.0, "corner", True), (1, 2, 120, 120, 0.5, 0.0, "corner", True),
    ]  # fmt: skip
    for i, (images, classes, box_count, most, iou, threshold, encoding, sort) in enumerate(rows):
        scores = rng.random((images, classes, box_count)).astype(np.float32)
        if i == 2:
            scores = np.round(scores, 1)  # many are equal
        inputs = [
            _boxes(rng, images, box_count, encoding), scores, np.array(most, np.int64),
            np.array(iou, np.float32), np.array(threshold, np.float32),
        ]  # fmt: skip
        if i == 9:
            low = rng.integers(0, 9, (images, box_count, 2)) * 2  # overlaps are 0, the limit or 1
            size = np.stack([rng.integers(1, 3, (images, box_count)), np.full((images, box_count), 2)], 2)
            inputs[0] = np.concatenate([low, low + size], 2).astype(np.float32)
        attrs: dict[str, Any] = {"box_encoding": encoding, "sort_result_descending": sort}
        if version >= 3:
            attrs["output_type"] = ("i64", "i32")[i % 2]
        if version >= 5:
            inputs.append(np.array(0.0 if i % 4 else 0.4, np.float32))
        yield inputs, attrs


def random_boxes(
    rng: np.random.Generator, shape: tuple[int, ...], span: float, least: float, most: float
) -> np.ndarray:
    """Random boxes [*shape, 4] of x1, y1, x2, y2 for samples. They begin within `span` of the origin, with
    sides from `least` to `most`."""
    first = rng.uniform(0, span, (*shape, 2))
    return np.concatenate([first, first + rng.uniform(least, most, first.shape)], -1)


_SETS: list[dict[str, Any]] = [
    {},
    {"code_type": "caffe.PriorBoxParameter.CENTER_SIZE", "clip_before_nms": True, "top_k": 6},
    {"share_location": False, "keep_top_k": (-1,), "top_k": 5, "clip_after_nms": True},
    {"normalized": False, "input_height": 30, "input_width": 40, "keep_top_k": (40,)},
    {"variance_encoded_in_target": True, "decrease_label_id": True, "keep_top_k": (5,)},
    {"objectness_score": 0.5, "aux": True, "code_type": "caffe.PriorBoxParameter.CENTER_SIZE"},
]


def _detection_output_samples(version: int, rng: np.random.Generator, dtype: str = "f32"):
    images, count, class_count = 2, 11, 3
    for chosen in _SETS:
        attrs = {"nms_threshold": 0.4, "confidence_threshold": 0.1, "keep_top_k": (7,), "normalized": True}
        attrs |= {**chosen, **({"num_classes": class_count} if version == 1 else {})}
        aux = attrs.pop("aux", False)
        sets = 1 if attrs.get("share_location", True) else class_count
        priors = random_boxes(rng, (count,), 0.6, 0.1, 0.4)
        if not attrs["normalized"]:
            priors = np.concatenate([np.zeros((count, 1)), priors * [40, 30, 40, 30]], 1)
        rows = [priors.reshape(-1)]
        if not attrs.get("variance_encoded_in_target"):
            rows.append(np.full(priors.size, 0.1))
        inputs = [
            rng.uniform(-0.5, 0.5, (images, count * 4 * sets)),
            rng.random((images, count * class_count)),
            np.stack(rows)[None],
        ]
        if aux:
            inputs += [rng.random((images, count * 2)), rng.uniform(-0.5, 0.5, (images, count * 4))]
        yield [x.astype(np.float32) for x in inputs], attrs


samples("DetectionOutput")(partial(_detection_output_samples, 1))
samples("DetectionOutput", 8)(partial(_detection_output_samples, 8))


@samples("ExperimentalDetectronGenerateProposalsSingleImage", 6)
def experimental_detectron_generate_proposals_single_image(rng, dtype="f32"):
    for anchors, height, width, before, after, least in ((3, 4, 5, 40, 10, 1.0), (2, 3, 3, 6, 20, 0.0)):
        boxes = random_boxes(rng, (height * width * anchors,), 60, 5, 40).astype(np.float32)
        yield (
            [
                np.array([80.0, 100.0, 1.0], np.float32),
                boxes,
                rng.uniform(-0.5, 0.5, (anchors * 4, height, width)).astype(np.float32),
                rng.random((anchors, height, width)).astype(np.float32),
            ],
            {"min_size": least, "nms_threshold": 0.6, "pre_nms_count": before, "post_nms_count": after},
        )


@samples("ExperimentalDetectronPriorGridGenerator", 6)
def experimental_detectron_prior_grid_generator(rng, dtype="f32"):
    priors = random_array(rng, (3, 4), dtype)
    maps = [np.zeros((1, 2, 4, 5), priors.dtype), np.zeros((1, 3, 64, 90), priors.dtype)]
    for attrs in (
        {"flatten": True, "h": 0, "w": 0, "stride_x": 0.0, "stride_y": 0.0},
        {"flatten": False, "h": 4, "w": 5, "stride_x": 4.0, "stride_y": 8.0},
    ):
        yield [priors, *maps], attrs


@samples("ExperimentalDetectronTopKROIs", 6)
def experimental_detectron_top_k_rois(rng, dtype="f32"):
    for count, most in ((9, 4), (7, 7), (20, 1)):
        inputs = [random_array(rng, (count, 4), dtype), rng.random(count).astype(np.float32)]
        yield inputs, {"max_rois": most}


def _feature_samples(rng: np.random.Generator, dtype: str = "f32"):
    for count, size, ratio, aligned in ((6, 3, 2, False), (4, 2, 0, False), (5, 3, 2, True)):
        rois = random_boxes(rng, (count,), 60, 20, 500).astype(np.float32)
        maps = [random_array(rng, (1, 3, 64 >> i, 64 >> i), dtype) for i in range(3)]
        yield (
            [rois, *maps],
            {
                "output_size": size,
                "sampling_ratio": ratio,
                "pyramid_scales": (4, 8, 16),
                "aligned": aligned,
            },
        )


samples("PyramidAlign")(_feature_samples)
samples("ExperimentalDetectronROIFeatureExtractor", 6)(_feature_samples)


@samples("ExperimentalDetectronDetectionOutput", 6)
def experimental_detectron_detection_output(rng, dtype="f32"):
    for count, classes, most, agnostic, threshold in ((12, 3, 5, False, 0.05), (8, 2, 20, False, 0.3)):
        rois = random_boxes(rng, (count,), 60, 5, 40).astype(np.float32)
        yield (
            [
                rois,
                rng.uniform(-2, 2, (count, 4 * classes)).astype(np.float32),
                rng.random((count, classes)).astype(np.float32),
                np.array([[90.0, 110.0, 1.0]], np.float32),
            ],
            {
                "score_threshold": threshold,
                "nms_threshold": 0.5,
                "num_classes": classes,
                "post_nms_count": 10,
                "max_detections_per_image": most,
                "class_agnostic_box_regression": agnostic,
                "max_delta_log_wh": 4.135,
                "deltas_weights": (10.0, 10.0, 5.0, 5.0),
            },
        )


def _proposal_samples(rng: np.random.Generator, dtype: str = "f32"):
    for images, anchors, height, width in ((2, 3, 4, 5), (1, 2, 3, 3), (2, 2, 5, 4)):
        normalized = images > 1
        boxes = random_boxes(rng, (height, width, anchors), 60, 5, 40).astype(np.float32)
        info = np.array([[80.0, 100.0, 1.0, 1.5]] * images, np.float32)[:, : 4 if normalized else 3]
        yield (
            [
                info,
                boxes,
                rng.uniform(-0.5, 0.5, (images, anchors * 4, height, width)).astype(np.float32),
                rng.random((images, anchors, height, width)).astype(np.float32),
            ],
            {
                "min_size": 2.0 if normalized else 25.0,
                "nms_threshold": 0.6,
                "pre_nms_count": 30,
                "post_nms_count": 8,
                "normalized": normalized,
                "nms_eta": 1.0,
                "roi_num_type": "i32" if normalized else "i64",
            },
        )


samples("GenerateProposals", 9)(_proposal_samples)


def _kept_boxes_samples(matrix: bool, rng: np.random.Generator, dtype: str = "f32"):
    for i, (images, classes, box_count) in enumerate(((1, 1, 7), (2, 3, 17), (1, 2, 40), (2, 1, 64))):
        boxes = random_boxes(rng, (images, box_count), 10, 1, 6).astype(np.float32)
        if i == 1 and not matrix:
            boxes = np.stack([boxes, boxes + 1, boxes * 2], 1)
        scores = np.round(rng.random((images, classes, box_count)), i % 2 + 1).astype(np.float32)
        attrs: dict[str, Any] = {"top": (-1, 5, 100, 30)[i], "skip": (-1, 1, -1, -1)[i], "border": i == 2}
        if matrix:
            yield [boxes, scores, np.array(0.2, np.float32)], {**attrs, "gaussian": i % 2 == 1}
            continue
        if i == 2:
            boxes[:, ::3, 1] = np.nan
        limit = [0.6, 0.9] if i == 3 else [0.3]
        attrs.update(
            corners="plain", suppress_equal=i == 2, inclusive=i == 1, adaptive=i == 3, drop_nan=i == 2
        )
        limits = [np.array(50), np.array(limit, np.float32), np.array(0.2, np.float32)]
        yield [boxes, scores, *limits], attrs


samples("KeptBoxes")(partial(_kept_boxes_samples, False))
samples("MatrixDecay")(partial(_kept_boxes_samples, True))


@samples("RankedRows")
def ranked_rows(rng, dtype="f32"):
    """As many rows as the buffer holds: rows behind them are undefined."""
    for i, (images, classes, box_count) in enumerate(
        ((2, 3, 9), (1, 1, 17), (2, 4, 5), (3, 2, 8), (1, 5, 3))
    ):
        sets = classes if i % 2 else 1
        boxes = random_boxes(rng, (images, sets, box_count), 1, 0.1, 0.6).astype(np.float32)
        scores = np.round(-np.sort(-rng.random((images, classes, box_count))), 1).astype(np.float32) + 0.1
        if i == 3:  # values of MatrixNms are not sorted
            scores = rng.permuted(scores, axis=2)
        numbers = np.argsort(scores, 2).astype(np.int32)[..., ::-1] if i == 3 else np.tile(
            np.arange(box_count, dtype=np.int32), (images, classes, 1)
        )  # fmt: skip
        order = ("score", "kept", "class", "class", "kept")[i]
        ways = {"order": order, "across_batch": i in (0, 2), "decayed": i == 3}
        attrs = RANKING | {
            "prefix": (2, 0, 3, 2, 3)[i], "keep": (-1, -1, 6, 3, 4)[i], "clipped": i == 2,
            "padded": ("", "zeros", "mark")[i % 3], "labels": i == 1, "capacity": box_count,
            "output_type": ("i64", "i32")[i % 2], **ways,
        }  # fmt: skip
        yield [boxes, numbers, scores, np.full((images, classes), box_count)], attrs


def _inputs(rng: np.random.Generator, images: int, classes: int, box_count: int) -> list[np.ndarray]:
    boxes = random_boxes(rng, (images, box_count), 10, 1, 6).astype(np.float32)
    return [boxes, rng.random((images, classes, box_count)).astype(np.float32)]


_COMMON: list[dict[str, Any]] = [
    {},
    {"sort_result_type": "score", "keep_top_k": 7},
    {"sort_result_type": "classid", "background_class": 0},
    {"sort_result_type": "score", "sort_result_across_batch": True, "nms_top_k": 5, "output_type": "i32"},
    {"sort_result_type": "classid", "sort_result_across_batch": True, "normalized": False},
    {"nms_top_k": 4, "keep_top_k": 3, "score_threshold": 0.6},
]


def _multiclass_nms_samples(version: int, rng: np.random.Generator, dtype: str = "f32"):
    for i, attrs in enumerate(_COMMON):
        all_attrs = {"score_threshold": 0.1, "iou_threshold": 0.3, "nms_eta": 0.9 if i == 2 else 1.0, **attrs}
        yield _inputs(rng, 2, 3, 17), all_attrs
        if version == 9 and attrs.get("sort_result_type", "none") != "none":
            boxes, _ = _inputs(rng, 3, 1, 12)
            yield [boxes, rng.random((3, 12)).astype(np.float32), np.array([5, 0, 7], np.int32)], all_attrs


samples("MulticlassNms", 8)(partial(_multiclass_nms_samples, 8))
samples("MulticlassNms", 9)(partial(_multiclass_nms_samples, 9))


def _matrix_samples(rng: np.random.Generator, dtype: str = "f32"):
    for i, attrs in enumerate(_COMMON):
        decay = {"decay_function": ("linear", "gaussian")[i % 2], "post_threshold": 0.05 * i}
        yield _inputs(rng, 2, 3, 17), {"score_threshold": 0.1, **decay, **attrs}


samples("MatrixNms", 8)(_matrix_samples)
samples("NonMaxSuppression")(partial(nms_samples, 1))


samples("NonMaxSuppression", 3)(partial(nms_samples, 3))
samples("NonMaxSuppression", 5)(partial(nms_samples, 5))


samples("NMSRotated", 13)(rotated_samples)


@samples("PaddedNMS")
def padded_nms(rng, dtype="f32"):
    for version in (3, 5):
        for i, (inputs, attrs) in enumerate(nms_samples(version, rng, dtype)):
            arguments = inputs if inputs[-1] > 0 or version == 3 else inputs[:5]
            yield arguments, {**attrs, "limit": -1 if i % 3 == 2 else int(inputs[2])}
    for inputs, attrs in rotated_samples(rng, dtype):
        encoding = ROTATED[not attrs.pop("clockwise")]
        yield inputs, {**attrs, "box_encoding": encoding, "limit": int(inputs[2])}


_BOXES: list[dict[str, Any]] = [
    {"min_size": (16.0,), "max_size": (38.0,), "aspect_ratio": (2.0, 3.0), "flip": True, "step": 16.0},
    {"min_size": (2.0, 4.0), "aspect_ratio": (1.5,), "clip": True, "variance": (0.1, 0.1, 0.2, 0.2)},
    {"fixed_size": (8.0, 16.0), "fixed_ratio": (1.5,), "density": (1.0, 2.0), "variance": (0.3,)},
    {"fixed_size": (8.0,), "aspect_ratio": (2.0,), "density": (2.0,), "step": 4.0},
    {"min_size": (0.2, 0.3), "aspect_ratio": (2.0, 0.5), "scale_all_sizes": False, "step": 0.125},
]


def _prior_box_samples(version: int, rng: np.random.Generator, dtype: str = "i64"):
    kind = numpy_dtype(dtype)
    for i, attrs in enumerate(_BOXES):
        more = {"min_max_aspect_ratios_order": i != 0} if version == 8 else {}
        yield [np.array([4, 5], kind), np.array([64, 80 + i], kind)], {"offset": 0.5, **attrs, **more}


samples("PriorBox")(partial(_prior_box_samples, 1))
samples("PriorBox", 8)(partial(_prior_box_samples, 8))


@samples("Proposal", 4)
def proposal(rng, dtype="f32"):
    base: dict[str, Any] = {
        "base_size": 16,
        "pre_nms_topn": 50,
        "post_nms_topn": 12,
        "nms_thresh": 0.7,
        "feat_stride": 16,
        "min_size": 4,
        "ratio": (0.5, 1.0, 2.0),
        "scale": (1.0, 2.0),
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


def _grid_samples(rng: np.random.Generator, dtype: str = "f32"):
    priors, image = rng.uniform(-9, 9, (3, 4)).astype(np.float32), np.zeros((1, 3, 64, 90), np.float32)
    for shape, h, stride, middle, swapped in (
        ((1, 2, 4, 5), 0, 0.0, 0.5, False),
        ((1, 1, 2, 9), 3, 4.0, 0.0, True),
    ):
        ways = {"h": h, "w": 0, "middle": middle, "swapped": swapped}
        yield [priors, np.zeros(shape, np.float32), image], {"stride_x": stride, "stride_y": stride, **ways}


def _sample_choice(rng: np.random.Generator, images: int, classes: int) -> list[np.ndarray]:
    """Boxes of 9 regions, and up to 5 selected indices."""
    boxes = rng.uniform(0, 90, (images, classes, 9, 4)).astype(np.float32)
    counts = rng.integers(0, 6, (images, classes))
    numbers = rng.integers(0, 9, (images, classes, 5)).astype(np.int32)
    return [boxes, numbers, rng.random((images, classes, 5)).astype(np.float32), counts]


samples("AnchorGrid")(_grid_samples)


@samples("MovedAnchors")
def moved_anchors(rng, dtype="f32"):
    for i, (images, anchors_per_cell, h, w) in enumerate(((2, 3, 4, 5), (1, 2, 3, 17), (3, 1, 1, 8))):
        anchors = random_boxes(rng, (h, w, anchors_per_cell), 60, 5, 40).astype(np.float32)
        inputs = [
            np.array([[80.0, 100.0, 1.0, 1.5]], np.float32)[:, : 3 + i % 2], anchors,
            rng.uniform(-0.5, 0.5, (images, 4 * anchors_per_cell, h, w)).astype(np.float32),
            rng.random((images, (1 + i % 2) * anchors_per_cell, h, w)).astype(np.float32),
        ]  # fmt: skip
        more = {"min_size": 9.0, "second": i % 2 == 1, "swapped": i == 1, "checked": i == 1}
        more["marked"] = i == 0
        yield inputs[: 4 - i // 2], {**PLAIN, **more, "weights": (1.0, 2.0, 3.0, 4.0), "clipped": i < 2}


@samples("ProposalTable")
def proposal_table(rng, dtype="f32"):
    info = np.array([[70.0, 60.0, 1.0]], np.float32)
    for i, rows in enumerate((3, 8, 5, 0)):
        ways = {"numbered": i != 1, "swapped": i == 2, "clipped": i > 0, "normalized": i == 2}
        yield [*_sample_choice(rng, 2, 1), info], {"rows": rows, **ways}


def _regions(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> np.ndarray:
    first = rng.uniform(-2, shape[3], (count, 2))
    rois = np.concatenate([first, first + rng.uniform(0.1, shape[3], (count, 2))], 1)
    return rois.astype(np.float32)


def _roi_align_samples(aligned: tuple[str, ...], rng: np.random.Generator, dtype: str = "f32"):
    shapes = [(2, 3, 7, 9), (1, 17, 5, 6), (3, 33, 8, 8), (1, 1, 1, 1), (2, 5, 4, 4)]
    for i, (mode, ratio) in enumerate([("avg", 2), ("max", 0), ("avg", 0), ("max", 1), ("avg", 3)] * 2):
        shape = shapes[i % 5]
        rois = _regions(rng, shape, 0 if i == 9 else 4 + i)
        attrs = {
            "pooled_h": 1 + i % 3, "pooled_w": 2 + i % 4, "sampling_ratio": ratio, "mode": mode,
            "spatial_scale": 0.25 + i / 9,
        }  # fmt: skip
        if aligned:
            attrs["aligned_mode"] = aligned[i % len(aligned)]
        batches = rng.integers(0, shape[0], len(rois)).astype(np.int32)
        yield [random_array(rng, shape, dtype), rois.astype(rois.dtype), batches], attrs


samples("ROIAlign", 3)(partial(_roi_align_samples, ()))
samples("ROIAlign", 9)(partial(_roi_align_samples, tuple(sampling.OFFSETS)))


@samples("ROIAlignRotated", 15)
def roi_align_rotated(rng, dtype="f32"):
    shapes = [(2, 3, 7, 9), (1, 17, 5, 6), (3, 33, 8, 8)]
    for i in range(8):
        shape = shapes[i % 3]
        count = 0 if i == 7 else 5
        middle, size = rng.uniform(0, shape[3], (count, 2)), rng.uniform(0.5, shape[3], (count, 2))
        rois = np.concatenate([middle, size, rng.uniform(-4, 4, (count, 1))], 1).astype(np.float32)
        attrs = {
            "pooled_h": 1 + i % 3, "pooled_w": 2 + i % 2, "sampling_ratio": (2, 0, 1)[i % 3],
            "spatial_scale": 0.5 + i / 8, "clockwise_mode": i % 2 == 0,
        }  # fmt: skip
        batches = rng.integers(0, shape[0], count).astype(np.int64)
        yield [random_array(rng, shape, dtype), rois, batches], attrs


def _rois(rng: np.random.Generator, images: int, count: int, side: float) -> np.ndarray:
    corners = random_boxes(rng, (count,), side * 0.6, side * 0.1, side * 0.5)
    return np.concatenate([rng.integers(0, images, (count, 1)), corners], 1).astype(np.float32)


@samples("ROIPooling", 2)
def roi_pooling(rng, dtype="f32"):
    for shape, pooled, method, scale in (
        ((2, 3, 9, 11), (2, 3), "max", 0.5),
        ((1, 17, 6, 6), (6, 6), "max", 0.0625),
        ((1, 1, 5, 5), (1, 1), "max", 1.0),
        ((2, 4, 7, 8), (3, 2), "bilinear", 1.0),
        ((1, 2, 5, 5), (1, 1), "bilinear", 1.0),
    ):
        rois = _rois(rng, shape[0], 6, 1.0 if method == "bilinear" else shape[3] / scale)
        attrs = {"output_roi": pooled, "spatial_scale": scale, "method": method}
        yield [random_array(rng, shape, dtype), rois], attrs


@samples("PSROIPooling")
def psroi_pooling(rng, dtype="f32"):
    for shape, dim, group, scale, bins, mode in (
        ((2, 8, 7, 9), 2, 2, 0.5, (1, 1), "average"),
        ((1, 27, 6, 5), 3, 3, 1.0, (1, 1), "average"),
        ((1, 12, 8, 8), 2, 3, 1.0, (3, 2), "bilinear"),
        ((2, 8, 5, 6), 2, 1, 1.0, (2, 2), "bilinear"),
    ):
        rois = _rois(rng, shape[0], 5, 1.0 if mode == "bilinear" else shape[3] / scale)
        attrs = {
            "output_dim": dim,
            "group_size": group,
            "spatial_scale": scale,
            "mode": mode,
            "spatial_bins_x": bins[0],
            "spatial_bins_y": bins[1],
        }
        yield [random_array(rng, shape, dtype), rois], attrs


@samples("DeformablePSROIPooling")
def deformable_psroi_pooling(rng, dtype="f32"):
    for shape, dim, group, part, classes, bins, offsets in (
        ((2, 8, 7, 9), 2, 2, 2, 1, 4, True),
        ((1, 18, 6, 8), 2, 3, 3, 1, 2, False),
        ((1, 4, 9, 9), 4, 1, 1, 2, 3, True),
    ):
        rois = _rois(rng, shape[0], 4, shape[3] * 2.0)
        inputs = [random_array(rng, shape, dtype), rois]
        if offsets:
            inputs.append(rng.uniform(-1, 1, (4, 2 * classes, part, part)).astype(inputs[0].dtype))
        attrs = {
            "output_dim": dim,
            "spatial_scale": 0.5,
            "group_size": group,
            "spatial_bins_x": bins,
            "spatial_bins_y": bins,
            "trans_std": 0.1,
            "part_size": part,
        }
        yield inputs, attrs
