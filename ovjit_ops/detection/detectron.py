"""The layers of Detectron's networks (ExperimentalDetectron*).

Boxes are x1, y1, x2, y2. Detectron's corners are pixels that belong to the box, so that its sides are one
longer than the difference of corners (`border`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Bool, Count, Floats, Int, Ints, Positive, Single, TensorType, op
from ovjit.graph.shapes import compatible, is_static
from ovjit_ops.common.dims import unify
from ovjit_ops.detection.boxes import best_first
from ovjit_ops.detection.kept_boxes import RANKING, kept_boxes, ranked_rows, rows_of, select_boxes
from ovjit_ops.detection.proposal_parts import (
    PLAIN,
    anchor_grid,
    moved_anchors,
    proposal_table,
)
from ovjit_ops.detection.roi_align import roi_align
from ovjit_ops.detection.sampling import check_ratio
from ovjit_ops.elementwise.arithmetic import REALS

#: Attributes of a ProposalTable of plain regions.
_TABLE = {"numbered": False, "swapped": False, "clipped": False, "normalized": False}


@op("ExperimentalDetectronGenerateProposalsSingleImage", opset=6, native=FULL)
class ExperimentalDetectronGenerateProposalsSingleImage:
    """The best regions of one picture and their scores. Missing rows are zeros."""

    def infer(
        im_info,
        anchors,
        deltas,
        scores,
        *,
        min_size: Single,
        nms_threshold: Single,
        post_nms_count: Count,
        pre_nms_count: Count,
    ):
        unify(
            REALS, im_info=(im_info, "."), anchors=(anchors, ".4"), deltas=(deltas, ".HW"),
            scores=(scores, ".HW"),
        )  # fmt: skip
        return TensorType(im_info.dtype, (post_nms_count, 4)), TensorType(im_info.dtype, (post_nms_count,))

    def ref(im_info, anchors, deltas, scores, **attrs):
        anchors_per_cell, height, width = scores.shape
        if len(anchors) != anchors_per_cell * height * width:
            raise InferenceError(
                f"{len(anchors)} anchors are given; expected {anchors_per_cell} for each of "
                f"{height} x {width} positions"
            )
        grid = anchors.reshape(height, width, anchors_per_cell, 4)
        info = np.reshape(im_info, (1, -1))
        ways = {**PLAIN, "min_size": attrs["min_size"]}
        boxes, values = moved_anchors(info, grid, deltas[None], scores[None], ways)
        choice = select_boxes(
            boxes, values, attrs["post_nms_count"], np.array([attrs["nms_threshold"]]), -np.inf,
            top=attrs["pre_nms_count"], skip=-1, inclusive=True,
        )  # fmt: skip
        rows = {"rows": attrs["post_nms_count"], **_TABLE}
        outputs = proposal_table(boxes, choice, info, rows)
        return tuple(x.astype(im_info.dtype) for x in outputs)

    def expand(w, node, inputs):
        """The operation -> ProposalTable(KeptBoxes(MovedAnchors(...)))"""
        attrs = node.attrs
        info, anchors, deltas, scores = inputs
        if any(v.dtype != "f32" or v.shape is None for v in inputs) or not is_static(scores.shape):
            return None
        anchors_per_cell, height, width = scores.shape
        if (
            not is_static(anchors.shape)
            or anchors.shape[0] != anchors_per_cell * height * width
            or 0 in scores.shape
        ):
            return None
        info = w("Reshape", info, (1, -1), special_zero=False)
        grid = w("Reshape", anchors, (height, width, anchors_per_cell, 4), special_zero=False)
        maps = [w("Unsqueeze", v, (0,)) for v in (deltas, scores)]
        ways = {**PLAIN, "min_size": attrs["min_size"]}
        boxes, values = w.outputs("MovedAnchors", info, grid, *maps, **ways)
        choice = kept_boxes(
            w, boxes, values, attrs["nms_threshold"], -np.inf, inclusive=True,
            top=attrs["pre_nms_count"], most=attrs["post_nms_count"],
        )  # fmt: skip
        rows = {"rows": attrs["post_nms_count"], **_TABLE}
        return w.outputs("ProposalTable", boxes, *choice, info, **rows)


@op("ExperimentalDetectronPriorGridGenerator", opset=6, types=["f32"], native=FULL)
class ExperimentalDetectronPriorGridGenerator:
    """Priors shifted to every position of a map."""

    def infer(
        priors,
        feature_map,
        im_data,
        *,
        flatten: Bool = True,
        h: Count = 0,
        w: Count = 0,
        stride_x: Single = 0.0,
        stride_y: Single = 0.0,
    ):
        dims = unify(
            REALS, priors=(priors, "P4"), feature_map=(feature_map, "..HW"), im_data=(im_data, "....")
        )
        check(min(stride_x, stride_y) >= 0, "strides should not be negative")
        prior_count, rows, columns = dims["P"], h or dims["H"], w or dims["W"]
        shape = (rows * columns * prior_count, 4) if flatten else (rows, columns, prior_count, 4)
        return TensorType(priors.dtype, shape)

    def ref(priors, feature_map, im_data, *, flatten, h, w, stride_x, stride_y):
        attrs = {"h": h, "w": w, "stride_x": stride_x, "stride_y": stride_y}
        out = anchor_grid(priors, feature_map.shape, im_data.shape, middle=0.5, swapped=False, **attrs)
        return out.reshape(-1, 4) if flatten else out

    def expand(w, node, inputs):
        """ExperimentalDetectronPriorGridGenerator(...) -> AnchorGrid(...), flat or not"""
        if any(v.dtype != "f32" or v.shape is None for v in inputs) or inputs[0].shape[1:] != (4,):
            return None
        attrs = {k: v for k, v in node.attrs.items() if k != "flatten"}
        grid = w("AnchorGrid", *inputs, **attrs, middle=0.5, swapped=False)
        return [w("Reshape", grid, (-1, 4), special_zero=False) if node.attrs["flatten"] else grid]


@op(
    "ExperimentalDetectronTopKROIs", opset=6, native=FULL,
    lower=".cpu_proposals:BestRegions.of"
)  # fmt: skip
class ExperimentalDetectronTopKROIs:
    """The regions of the highest probabilities. Missing rows are zeros."""

    def infer(input_rois, rois_probs, *, max_rois: Count):
        unify(REALS, input_rois=(input_rois, "N4"), rois_probs=(rois_probs, "N"))
        return TensorType(input_rois.dtype, (max_rois, 4))

    def ref(input_rois, rois_probs, *, max_rois):
        best = input_rois[best_first(rois_probs, -np.inf, max_rois, True)]
        return np.pad(best, ((0, max_rois - len(best)), (0, 0)))


def levels(rois: np.ndarray, level_count: int) -> np.ndarray:
    """The pyramid level of each region by its size; 224 x 224 pixels are level 2."""
    area = (rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])
    with np.errstate(all="ignore"):
        level = np.floor(2 + np.log2(np.sqrt(np.maximum(area, 0)) / np.float32(224) + np.float32(1e-6)))
    level = np.where((area > 0) & np.isfinite(level), level, 0)
    return np.clip(level, 0, level_count - 1).astype(np.int64)


def _regions(rois: TensorType, features: Sequence[TensorType], size: int) -> tuple[TensorType, TensorType]:
    """Types of the pooled maps and of the regions. All maps have the same channels."""
    dims = unify(REALS, rois=(rois, "R4"), **{f"map {i}": (x, ".C..") for i, x in enumerate(features)})
    return TensorType(rois.dtype, (*dims.shape("RC"), size, size)), TensorType(rois.dtype, dims.shape("R4"))


@op("PyramidAlign", internal=True, lower=".cpu_pyramid:PyramidAlign.of", ulp=64)
class PyramidAlign:
    """The pooled maps of an ExperimentalDetectronROIFeatureExtractor."""

    def infer(rois, *features, output_size: Int, sampling_ratio: Int, pyramid_scales: Ints, aligned: Bool):
        return _regions(rois, features, output_size)[0]

    def ref(rois, *features, **attrs):
        return ExperimentalDetectronROIFeatureExtractor.ref(rois, *features, **attrs)[0]


@op(
    "ExperimentalDetectronROIFeatureExtractor",
    opset=6,
    native=FULL,
    ulp=64,
)
class ExperimentalDetectronROIFeatureExtractor:
    """ROIAlign of every region on the pyramid level that fits its size; and the regions."""

    def infer(
        rois, *features, output_size: Positive, sampling_ratio: Int, pyramid_scales: Ints,
        aligned: Bool = False,
    ):  # fmt: skip
        check(features, "at least one feature map is needed")
        check(len(features) == len(pyramid_scales), "each feature map needs a scale in pyramid_scales")
        check_ratio(sampling_ratio)
        check(all(s > 0 for s in pyramid_scales), f"pyramid_scales {list(pyramid_scales)} should be positive")
        return _regions(rois, features, output_size)

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

    def expand(w, node, inputs):
        """ExperimentalDetectronROIFeatureExtractor(rois, ...) -> PyramidAlign(rois, ...), rois"""
        if any(v.dtype != "f32" or v.shape is None for v in inputs):
            return None
        return [*w.b.instead(node, inputs, op="PyramidAlign"), inputs[0]]


def _decoding(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of MovedAnchors in an ExperimentalDetectronDetectionOutput."""
    weights = tuple(attrs["deltas_weights"])
    # boxes are clamped at 0, but not at the end of the picture, as in OpenVINO
    return {**PLAIN, "inset": -np.inf, "most": attrs["max_delta_log_wh"], "weights": weights}


def _ranking(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of its RankedRows."""
    most = attrs["max_detections_per_image"]
    return RANKING | {"keep": most, "order": "kept", "padded": "zeros", "labels": True, "output_type": "i32"}


@op("ExperimentalDetectronDetectionOutput", opset=6, native=FULL)
class ExperimentalDetectronDetectionOutput:
    """Boxes, classes and scores of detected objects. Missing rows are zeros. Class 0 is the background."""

    def infer(
        rois,
        deltas,
        scores,
        im_info,
        *,
        score_threshold: Single,
        nms_threshold: Single,
        num_classes: Positive,
        post_nms_count: Int,
        max_detections_per_image: Count,
        class_agnostic_box_regression: Bool = False,
        max_delta_log_wh: Single,
        deltas_weights: Floats,
    ):
        dims = unify(
            REALS, rois=(rois, "R."), deltas=(deltas, "RD"), scores=(scores, "RC"), im_info=(im_info, "..")
        )
        check(
            len(deltas_weights) == 4 and all(w != 0 for w in deltas_weights),
            "deltas_weights should be 4 nonzero numbers",
        )
        sets = 1 if class_agnostic_box_regression else num_classes
        check(compatible(dims["C"], num_classes), f"scores {scores} do not match {num_classes} classes")
        check(
            any(compatible(dims["D"], 4 * n) for n in {sets, num_classes}),
            f"deltas {deltas} do not match the scores",
        )
        most = max_detections_per_image
        kind = rois.dtype
        return TensorType(kind, (most, 4)), TensorType("i32", (most,)), TensorType(kind, (most,))

    def ref(rois, deltas, scores, im_info, **attrs):
        dtype = rois.dtype
        info = np.ravel(im_info)
        if not len(rois) == len(deltas) == len(scores) or len(info) < 2:
            raise InferenceError("each region needs deltas and scores, and each image a size")
        parts = deltas.reshape(len(rois), deltas.shape[1] // 4, 4).transpose(1, 2, 0)[:, :, None]
        boxes, _ = moved_anchors(info[None], rois[None, :, None], parts, None, _decoding(attrs))
        boxes = boxes.reshape(1, len(boxes), -1, 4)
        choice = select_boxes(
            boxes, scores.T[None].astype(np.float32), max(attrs["post_nms_count"], 0),
            np.array([attrs["nms_threshold"]]), attrs["score_threshold"], top=-1, skip=0, border=True,
        )  # fmt: skip
        rows, labels, best, *_ = rows_of(boxes, *choice, **_ranking(attrs))
        most = attrs["max_detections_per_image"]  # may be 0
        return rows.astype(dtype)[:most], labels.reshape(-1)[:most], best.astype(dtype)[:most]

    def expand(w, node, inputs):
        """The operation -> RankedRows(KeptBoxes(MovedAnchors(...)))"""
        rois, deltas, scores, info = inputs
        if any(v.dtype != "f32" or v.shape is None for v in inputs) or not isinstance(deltas.shape[1], int):
            return None
        attrs = node.attrs
        if not attrs["max_detections_per_image"]:
            return None
        sets = deltas.shape[1] // 4
        info = w("Reshape", info, (1, -1), special_zero=False)
        parts = w("Transpose", w("Reshape", deltas, (0, sets, 4), special_zero=True), (1, 2, 0))
        inside = [info, w("Unsqueeze", rois, (0, 2)), w("Unsqueeze", parts, (2,))]
        moved = w("MovedAnchors", *inside, **_decoding(attrs))
        by_class = w("Unsqueeze", w("Transpose", scores, (1, 0)), (0,))
        choice = kept_boxes(
            w, moved, by_class, attrs["nms_threshold"], attrs["score_threshold"], border=True,
            skip=0, most=max(attrs["post_nms_count"], 0),
        )  # fmt: skip
        rows, labels, best, *_ = ranked_rows(w, moved, choice, **_ranking(attrs))
        return [rows, w("Squeeze", labels, (1,)), best]
