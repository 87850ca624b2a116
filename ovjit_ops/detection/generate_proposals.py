"""GenerateProposals: regions that the first part of a network holds for objects.

    im_info [N, 3 or 4]  anchors [H, W, A, 4]  deltas [N, 4 * A, H, W]  scores [N, A, H, W]
    ->  regions [n, 4], their scores [n], and how many each picture has [N]

The best `pre_nms_count` are taken, then those that are too small are dropped, as OpenVINO's CPU device does.
The host decodes boxes and puts rows together; which are kept is found natively (`kept_boxes.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import Bool, DType, Float, Int, TensorType, op
from ovjit.graph.shapes import Dim, bounds, dim
from ovjit_ops.common.checks import dims
from ovjit_ops.common.dims import fitted
from ovjit_ops.common.values import INDEX_TYPES
from ovjit_ops.detection.boxes import descending, random_boxes
from ovjit_ops.detection.kept_boxes import gathered, kept, kept_boxes
from ovjit_ops.detection.proposal_parts import clipped, refined
from ovjit_ops.elementwise.arithmetic import REALS


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
                "min_size": 2.0,
                "nms_threshold": 0.6,
                "pre_nms_count": 30,
                "post_nms_count": 8,
                "normalized": normalized,
                "nms_eta": 1.0,
                "roi_num_type": "i32" if normalized else "i64",
            },
        )


def _rows(kind: str, images: Dim, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    """Regions, their scores and how many each picture has."""
    high = bounds(images)[1]
    rows = dim(0, None if high is None else high * attrs["post_nms_count"])
    many = TensorType(attrs["roi_num_type"], (images,))
    return TensorType(kind, (rows, 4)), TensorType(kind, (rows,)), many


@op("GenerateProposals", opset=9, samples=_proposal_samples)
class GenerateProposals:
    """The best regions of every picture, their scores, and how many each picture has."""

    shown_first = ("min_size", "nms_threshold", "post_nms_count")

    def infer(
        im_info,
        anchors,
        deltas,
        scores,
        *,
        min_size: Float,
        nms_threshold: Float,
        pre_nms_count: Int,
        post_nms_count: Int,
        normalized: Bool = True,
        nms_eta: Float = 1.0,
        roi_num_type: DType = "i64",
    ):
        attrs = locals()
        check(roi_num_type in INDEX_TYPES, f"roi_num_type is i32 or i64, not {roi_num_type}")
        check(nms_eta == 1, f"nms_eta should be 1, as in OpenVINO, not {nms_eta}")
        check(min(post_nms_count, pre_nms_count) >= 0, "counts should not be negative")
        images = fitted(
            REALS, im_info=(im_info, "N."), anchors=(anchors, "...."), deltas=(deltas, "N.HW"),
            scores=(scores, "N.HW"),
        )["N"]  # fmt: skip
        return _rows(im_info.dtype, images, attrs)

    def ref(im_info, anchors, deltas, scores, **attrs):
        boxes, best = proposal_boxes(im_info, anchors, deltas, scores, attrs)
        most, border = max(attrs["post_nms_count"], 0), not attrs["normalized"]
        limit = np.array([attrs["nms_threshold"]])
        choice = kept(boxes, best, most, limit, -np.inf, top=-1, skip=-1, inclusive=True, border=border)
        rois, values, counts = proposal_rows(boxes, choice, attrs)
        return rois.astype(im_info.dtype), values.astype(im_info.dtype), counts

    def expand(w, node, inputs):
        """GenerateProposals(...) -> ProposalRows(boxes, KeptBoxes(boxes, scores)) of ProposalBoxes(...)"""
        attrs = node.attrs
        if any(v.dtype != "f32" for v in inputs):
            return None
        boxes, scores = w.outputs("ProposalBoxes", *inputs, **attrs)
        choice = kept_boxes(
            w, boxes, scores, attrs["nms_threshold"], -np.inf, inclusive=True,
            border=not attrs["normalized"], most=max(attrs["post_nms_count"], 0),
        )  # fmt: skip
        return w.outputs("ProposalRows", boxes, *choice, **attrs)


def proposal_boxes(
    im_info: np.ndarray, anchors: np.ndarray, deltas: np.ndarray, scores: np.ndarray, attrs: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """The best boxes [N, 1, K, 4] of every picture and their scores [N, 1, K]: NaN for those too small."""
    images, many, height, width = scores.shape
    if (
        deltas.shape != (images, 4 * many, height, width)
        or im_info.shape[0] != images
        or im_info.shape[1] < 3
        or anchors.shape != (height, width, many, 4)
    ):
        raise InferenceError(f"scores {scores.shape}, deltas {deltas.shape} and anchors do not fit together")
    border = 0.0 if attrs["normalized"] else 1.0
    moved = deltas.astype(np.float32).reshape(images, many, 4, height, width).transpose(0, 3, 4, 1, 2)
    flat = scores.astype(np.float32).transpose(0, 2, 3, 1).reshape(images, -1)
    count = min(max(attrs["pre_nms_count"], 0), flat.shape[1])
    boxes, best = np.empty((images, 1, count, 4), np.float32), np.empty((images, 1, count), np.float32)
    for i, info in enumerate(im_info):
        order = descending(flat[i])[:count]
        base = anchors.astype(np.float32).reshape(-1, 4)[order]
        mine = refined(base, moved[i].reshape(-1, 4)[order], border)
        mine = clipped(mine, float(info[0]), float(info[1]), border)
        sides = mine[:, 2:] - mine[:, :2] + np.float32(border)
        least = (attrs["min_size"] * float(info[min(3, len(info) - 1)]), attrs["min_size"] * float(info[2]))
        large = (sides[:, 0] >= least[0]) & (sides[:, 1] >= least[1])
        boxes[i, 0], best[i, 0] = mine, np.where(large, flat[i, order], np.float32(np.nan))
    return boxes, best


def proposal_rows(
    boxes: np.ndarray, choice: Sequence[np.ndarray], attrs: dict[str, Any]
) -> tuple[np.ndarray, ...]:
    """(regions [n, 4], scores [n], how many each picture has) from what is kept."""
    image, _, number, score = gathered(*choice)
    kind = numpy_dtype(attrs["roi_num_type"])
    return boxes[image, 0, number], score, choice[2][:, 0].astype(kind)


@op("ProposalBoxes", like=GenerateProposals, internal=True, expand=None)
class ProposalBoxes:
    """What a GenerateProposals chooses from: boxes [N, 1, K, 4] and scores [N, 1, K]."""

    def infer(im_info, anchors, deltas, scores, **attrs):
        most = attrs["pre_nms_count"]
        images, many, height, width = dims(scores, 4)
        low, high = bounds(many * height * width)
        count = dim(min(low, most), most if high is None else min(high, most))
        return TensorType("f32", (images, 1, count, 4)), TensorType("f32", (images, 1, count))

    def ref(im_info, anchors, deltas, scores, **attrs):
        return proposal_boxes(im_info, anchors, deltas, scores, attrs)


@op("ProposalRows", like=GenerateProposals, internal=True, expand=None)
class ProposalRows:
    """The outputs of a GenerateProposals from what KeptBoxes chose."""

    def infer(boxes, numbers, values, counts, **attrs):
        return _rows("f32", dims(boxes, 4)[0], attrs)

    def ref(boxes, numbers, values, counts, **attrs):
        return proposal_rows(boxes, (numbers, values, counts), attrs)

    def samples(rng, dtype="f32"):
        for inputs, attrs in _proposal_samples(rng, "f32"):
            info, anchors, deltas, scores = inputs
            boxes, best = proposal_boxes(info, anchors, deltas, scores, attrs)
            limit = np.array([attrs["nms_threshold"]])
            yield [boxes, *kept(boxes, best, 5, limit, -np.inf, top=-1, skip=-1, inclusive=True)], attrs
