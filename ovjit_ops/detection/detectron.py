"""The layers of Detectron's networks (ExperimentalDetectron*).

Boxes are x1, y1, x2, y2. Detectron's corners are whole pixels that belong to the box, so that its sides are
one longer than the difference (`border`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import FULL
from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.op import Bool, Float, Floats, Int, Ints, TensorType, find_op, op
from ovjit.graph.shapes import ANY, Dim, merge
from ovjit_ops.detection.boxes import descending, overlaps, suppress
from ovjit_ops.detection.cpu_pyramid import lower_pyramid
from ovjit_ops.detection.roi_align import roi_align
from ovjit_ops.elementwise.arithmetic import REALS, random_array

#: The largest growth of a side that a network may predict, as a logarithm.
MOST_LOG = float(np.log(1000.0 / 16.0))


def check_ranks(**ranks: tuple[TensorType, int]) -> None:
    """Raise ModelError for an input that has another rank, or is no float."""
    for name, (x, rank) in ranks.items():
        check(x.dtype in (*REALS, "dynamic"), f"{name} should be floats, not {x.dtype}")
        check(x.rank in (None, rank), f"{name} should have {rank} dimensions, not {x}")


def dims(x: TensorType, rank: int) -> tuple[Dim, ...]:
    return (ANY,) * rank if x.shape is None else x.shape


def refined(boxes: np.ndarray, deltas: np.ndarray, border: float, most: float = MOST_LOG) -> np.ndarray:
    """Boxes [..., 4] moved and stretched by deltas [..., 4] of (x, y, log w, log h)."""
    one = np.float32(border)
    w = boxes[..., 2] - boxes[..., 0] + one
    h = boxes[..., 3] - boxes[..., 1] + one
    half = np.float32(0.5)
    x = boxes[..., 0] + half * w + deltas[..., 0] * w
    y = boxes[..., 1] + half * h + deltas[..., 1] * h
    w = np.exp(np.minimum(deltas[..., 2], np.float32(most))) * w
    h = np.exp(np.minimum(deltas[..., 3], np.float32(most))) * h
    return np.stack([x - half * w, y - half * h, x + half * w - one, y + half * h - one], -1)


def clipped(boxes: np.ndarray, height: float, width: float, border: float) -> np.ndarray:
    """Boxes held inside of a picture."""
    limits = np.array([width, height, width, height], np.float32) - np.float32(border)
    return np.maximum(np.minimum(boxes, limits), 0)


def proposals(
    anchors: np.ndarray,
    deltas: np.ndarray,
    scores: np.ndarray,
    info: np.ndarray,
    attrs: dict[str, Any],
    border: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The best boxes [n, 4] and their scores [n] of one picture; anchors, deltas [m, 4], scores [m].
    Boxes that are too small have the score 0."""
    height, width = float(info[0]), float(info[1])
    scale_h, scale_w = float(info[2]), float(info[min(3, len(info) - 1)])
    boxes = clipped(refined(anchors, deltas, border), height, width, border)
    sides = boxes[:, 2:] - boxes[:, :2] + np.float32(border)
    large = (sides[:, 0] >= attrs["min_size"] * scale_w) & (sides[:, 1] >= attrs["min_size"] * scale_h)
    scores = np.where(large, scores, np.float32(0))
    order = descending(scores)[: max(attrs["pre_nms_count"], 0)]
    kept = suppress(
        boxes,
        order,
        max(attrs["post_nms_count"], 0),
        attrs["nms_threshold"],
        False,
        lambda a, b: overlaps(a, b, border),
    )
    return boxes[kept], scores[kept]


def _single_samples(rng: np.random.Generator, dtype: str = "f32"):
    for anchors, height, width, before, after, least in ((3, 4, 5, 40, 10, 1.0), (2, 3, 3, 6, 20, 0.0)):
        first = rng.uniform(0, 60, (height * width * anchors, 2))
        boxes = np.concatenate([first, first + rng.uniform(5, 40, first.shape)], 1).astype(np.float32)
        yield (
            [
                np.array([80.0, 100.0, 1.0], np.float32),
                boxes,
                rng.uniform(-0.5, 0.5, (anchors * 4, height, width)).astype(np.float32),
                rng.random((anchors, height, width)).astype(np.float32),
            ],
            {"min_size": least, "nms_threshold": 0.6, "pre_nms_count": before, "post_nms_count": after},
        )


@op(
    "ExperimentalDetectronGenerateProposalsSingleImage",
    opset=6,
    builder_since=99,
    samples=_single_samples,
)
class ExperimentalDetectronGenerateProposalsSingleImage:
    """The best regions of one picture and their scores; zeros where there are fewer."""

    def infer(
        im_info,
        anchors,
        deltas,
        scores,
        *,
        min_size: Float,
        nms_threshold: Float,
        post_nms_count: Int,
        pre_nms_count: Int,
    ):
        check(min(post_nms_count, pre_nms_count) >= 0, "counts should not be negative")
        check_ranks(im_info=(im_info, 1), anchors=(anchors, 2), deltas=(deltas, 3), scores=(scores, 3))
        check(merge(dims(anchors, 2)[1], 4) is not None, f"anchors {anchors} should have 4 numbers each")
        for i in (1, 2):
            fits = merge(dims(deltas, 3)[i], dims(scores, 3)[i]) is not None
            check(fits, f"the maps of {deltas} and {scores} differ")
        return TensorType(im_info.dtype, (post_nms_count, 4)), TensorType(im_info.dtype, (post_nms_count,))

    def ref(im_info, anchors, deltas, scores, **attrs):
        dtype = im_info.dtype
        many, height, width = scores.shape
        if deltas.shape[0] != 4 * many or len(anchors) != many * height * width or len(im_info) < 3:
            raise InferenceError(f"{many} scores need {4 * many} deltas at each place, and an anchor each")
        moved = deltas.astype(np.float32).reshape(many, 4, height, width).transpose(2, 3, 0, 1).reshape(-1, 4)
        flat = scores.astype(np.float32).transpose(1, 2, 0).reshape(-1)
        boxes, best = proposals(anchors.astype(np.float32), moved, flat, im_info, attrs, 1.0)
        rest = attrs["post_nms_count"] - len(boxes)
        return np.pad(boxes, ((0, rest), (0, 0))).astype(dtype), np.pad(best, (0, rest)).astype(dtype)


def _grid_samples(rng: np.random.Generator, dtype: str = "f32"):
    priors = random_array(rng, (3, 4), dtype)
    maps = [np.zeros((1, 2, 4, 5), priors.dtype), np.zeros((1, 3, 64, 90), priors.dtype)]
    for attrs in (
        {"flatten": True, "h": 0, "w": 0, "stride_x": 0.0, "stride_y": 0.0},
        {"flatten": False, "h": 4, "w": 5, "stride_x": 4.0, "stride_y": 8.0},
    ):
        yield [priors, *maps], attrs


@op(
    "ExperimentalDetectronPriorGridGenerator",
    opset=6,
    types=["f32"],
    samples=_grid_samples,
    builder_since=99,
)
class ExperimentalDetectronPriorGridGenerator:
    """Priors moved to every place of a map."""

    def infer(
        priors,
        feature_map,
        im_data,
        *,
        flatten: Bool = True,
        h: Int = 0,
        w: Int = 0,
        stride_x: Float = 0.0,
        stride_y: Float = 0.0,
    ):
        check_ranks(priors=(priors, 2), feature_map=(feature_map, 4), im_data=(im_data, 4))
        check(merge(dims(priors, 2)[1], 4) is not None, f"priors {priors} should have 4 numbers each")
        check(min(h, w) >= 0 and min(stride_x, stride_y) >= 0, "sizes and strides should not be negative")
        many, (rows, columns) = dims(priors, 2)[0], dims(feature_map, 4)[2:]
        rows, columns = h or rows, w or columns
        shape = (rows * columns * many, 4) if flatten else (rows, columns, many, 4)
        return TensorType(priors.dtype, shape)

    def ref(priors, feature_map, im_data, *, flatten, h, w, stride_x, stride_y):
        rows, columns = h or feature_map.shape[2], w or feature_map.shape[3]
        step_x = stride_x or im_data.shape[3] / max(columns, 1)
        step_y = stride_y or im_data.shape[2] / max(rows, 1)
        x = np.broadcast_to((np.arange(columns) + 0.5) * step_x, (rows, columns))
        y = np.broadcast_to(((np.arange(rows) + 0.5) * step_y)[:, None], (rows, columns))
        out = priors + np.stack([x, y, x, y], -1)[:, :, None].astype(priors.dtype)
        return out.reshape(-1, 4) if flatten else out


def _topk_samples(rng: np.random.Generator, dtype: str = "f32"):
    for many, most in ((9, 4), (7, 7), (20, 1)):
        yield [random_array(rng, (many, 4), dtype), rng.random(many).astype(np.float32)], {"max_rois": most}


@op(
    "ExperimentalDetectronTopKROIs",
    opset=6,
    builder_since=99,
    samples=_topk_samples,
)
class ExperimentalDetectronTopKROIs:
    """The regions of the highest probabilities; zeros where there are fewer."""

    def infer(input_rois, rois_probs, *, max_rois: Int):
        check_ranks(input_rois=(input_rois, 2), rois_probs=(rois_probs, 1))
        check(max_rois >= 0, f"max_rois should not be negative: {max_rois}")
        check(
            merge(dims(input_rois, 2)[1], 4) is not None, f"regions {input_rois} should have 4 numbers each"
        )
        pair = merge(dims(input_rois, 2)[0], dims(rois_probs, 1)[0])
        check(pair is not None, f"{input_rois} and {rois_probs} differ in number")
        return TensorType(input_rois.dtype, (max_rois, 4))

    def ref(input_rois, rois_probs, *, max_rois):
        best = input_rois[descending(rois_probs)[:max_rois]]
        return np.pad(best, ((0, max_rois - len(best)), (0, 0)))


def levels(rois: np.ndarray, many: int) -> np.ndarray:
    """Which map of a pyramid serves each region: by its size, 224 pixels square is level 2."""
    area = (rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])
    with np.errstate(all="ignore"):
        level = np.floor(2 + np.log2(np.sqrt(np.maximum(area, 0)) / np.float32(224) + np.float32(1e-6)))
    level = np.where((area > 0) & np.isfinite(level), level, 0)
    return np.clip(level, 0, many - 1).astype(np.int64)


def _feature_samples(rng: np.random.Generator, dtype: str = "f32"):
    for many, size, ratio, aligned in ((6, 3, 2, False), (4, 2, 0, False), (5, 3, 2, True)):
        first = rng.uniform(0, 60, (many, 2))
        rois = np.concatenate([first, first + rng.uniform(20, 500, (many, 2))], 1).astype(np.float32)
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


def _expand_features(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """ExperimentalDetectronROIFeatureExtractor(rois, ...) -> PyramidAlign(rois, ...), rois"""
    if any(v.dtype != "f32" or v.shape is None for v in inputs):
        return None
    made = b.add(find_op("PyramidAlign"), inputs, dict(node.attrs), name=node.name, origins=node.origins)
    return [made.output, inputs[0]]


@op("PyramidAlign", internal=True, samples=_feature_samples, lower=lower_pyramid, ulp=64)
class PyramidAlign:
    """What an ExperimentalDetectronROIFeatureExtractor makes of its maps."""

    def infer(rois, *features, output_size: Int, sampling_ratio: Int, pyramid_scales: Ints, aligned: Bool):
        channels = dims(features[0], 4)[1]
        return TensorType(rois.dtype, (dims(rois, 2)[0], channels, output_size, output_size))

    def ref(rois, *features, **attrs):
        return ExperimentalDetectronROIFeatureExtractor.ref(rois, *features, **attrs)[0]


@op(
    "ExperimentalDetectronROIFeatureExtractor",
    opset=6,
    builder_since=99,
    samples=_feature_samples,
    native=FULL,
    expand=_expand_features,
    ulp=64,
)
class ExperimentalDetectronROIFeatureExtractor:
    """ROIAlign of every region on the map of a pyramid that fits its size; and the regions."""

    def infer(
        rois, *features, output_size: Int, sampling_ratio: Int, pyramid_scales: Ints, aligned: Bool = False
    ):
        check(features, "takes at least one feature map")
        check(len(features) == len(pyramid_scales), "there should be a scale for every feature map")
        check(output_size > 0 and sampling_ratio >= 0, "output_size should be positive")
        check(all(s > 0 for s in pyramid_scales), f"pyramid_scales {list(pyramid_scales)} should be positive")
        check_ranks(rois=(rois, 2), **{f"map {i}": (x, 4) for i, x in enumerate(features)})
        channels: Dim = ANY
        for x in features:
            both = merge(channels, dims(x, 4)[1])
            check(both is not None, f"the maps differ in channels: {x}")
            channels = channels if both is None else both
        many = dims(rois, 2)[0]
        kind = rois.dtype
        return TensorType(kind, (many, channels, output_size, output_size)), TensorType(kind, (many, 4))

    def ref(rois, *features, output_size, sampling_ratio, pyramid_scales, aligned):
        out = np.zeros((len(rois), features[0].shape[1], output_size, output_size), features[0].dtype)
        which = levels(rois.astype(np.float32), len(features))
        for i, (maps, scale) in enumerate(zip(features, pyramid_scales, strict=True)):
            mine = np.flatnonzero(which == i)
            attrs = {
                "pooled_h": output_size,
                "pooled_w": output_size,
                "sampling_ratio": sampling_ratio,
                "spatial_scale": 1 / scale,
                "mode": "avg",
            }
            way = "half_pixel_for_nn" if aligned else "asymmetric"
            out[mine] = roi_align(maps, rois[mine], np.zeros(len(mine), np.int64), attrs, way)
        return out, rois


def _detection_samples(rng: np.random.Generator, dtype: str = "f32"):
    for many, classes, most, agnostic, threshold in ((12, 3, 5, False, 0.05), (8, 2, 20, False, 0.3)):
        first = rng.uniform(0, 60, (many, 2))
        rois = np.concatenate([first, first + rng.uniform(5, 40, (many, 2))], 1).astype(np.float32)
        yield (
            [
                rois,
                rng.uniform(-2, 2, (many, 4 * classes)).astype(np.float32),
                rng.random((many, classes)).astype(np.float32),
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


@op("ExperimentalDetectronDetectionOutput", opset=6, samples=_detection_samples, builder_since=99)
class ExperimentalDetectronDetectionOutput:
    """Boxes, classes and scores of what is seen; zeros where there is less. Class 0 is the background."""

    def infer(
        rois,
        deltas,
        scores,
        im_info,
        *,
        score_threshold: Float,
        nms_threshold: Float,
        num_classes: Int,
        post_nms_count: Int,
        max_detections_per_image: Int,
        class_agnostic_box_regression: Bool = False,
        max_delta_log_wh: Float,
        deltas_weights: Floats,
    ):
        check_ranks(rois=(rois, 2), deltas=(deltas, 2), scores=(scores, 2), im_info=(im_info, 2))
        check(
            len(deltas_weights) == 4 and all(w != 0 for w in deltas_weights), "deltas_weights are 4 numbers"
        )
        check(num_classes > 0 and max_detections_per_image >= 0, "num_classes should be positive")
        sets = 1 if class_agnostic_box_regression else num_classes
        check(
            merge(dims(scores, 2)[1], num_classes) is not None, f"scores {scores} for {num_classes} classes"
        )
        wide = dims(deltas, 2)[1]
        check(any(merge(wide, 4 * n) is not None for n in {sets, num_classes}), f"deltas {deltas} do not fit")
        most = max_detections_per_image
        kind = rois.dtype
        return TensorType(kind, (most, 4)), TensorType("i32", (most,)), TensorType(kind, (most,))

    def ref(rois, deltas, scores, im_info, **attrs):
        dtype, classes, most = rois.dtype, attrs["num_classes"], attrs["max_detections_per_image"]
        info = np.ravel(im_info)
        if not len(rois) == len(deltas) == len(scores) or len(info) < 2:
            raise InferenceError("there should be deltas and scores for every region, and a size")
        moved = deltas.astype(np.float32).reshape(len(rois), deltas.shape[1] // 4, 4)
        moved = moved / np.array(attrs["deltas_weights"], np.float32)
        boxes = refined(rois.astype(np.float32)[:, None], moved, 1.0, attrs["max_delta_log_wh"])
        boxes = clipped(boxes, float(info[0]), float(info[1]), 0.0)
        found = []
        for label in range(1, classes):
            mine, s = boxes[:, label % boxes.shape[1]], scores[:, label].astype(np.float32)
            candidates = np.flatnonzero(s > np.float32(attrs["score_threshold"]))
            order = candidates[descending(s[candidates])]
            kept = suppress(
                mine,
                order,
                max(attrs["post_nms_count"], 0),
                attrs["nms_threshold"],
                False,
                lambda a, b: overlaps(a, b, 1.0),
            )
            found += [(float(s[i]), label, mine[i]) for i in kept]
        if len(found) > most:
            found = sorted(found, key=lambda f: -f[0])[:most]
        out = np.zeros((most, 4), np.float32)
        labels, best = np.zeros(most, np.int32), np.zeros(most, np.float32)
        for i, (score, label, box) in enumerate(found):
            out[i], labels[i], best[i] = box, label, score
        return out.astype(dtype), labels, best.astype(dtype)
