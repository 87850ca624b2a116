"""GenerateProposals: the regions that the first stage of a network proposes.

    im_info [N, 3 or 4]  anchors [H, W, A, 4]  deltas [N, 4 * A, H, W]  scores [N, A, H, W]
    ->  regions [n, 4], their scores [n], and the number of each picture [N]

The best `pre_nms_count` boxes are taken before small ones are dropped, as in OpenVINO's CPU device. Boxes are
decoded, selected and put into rows natively (`proposal_parts.py`, `kept_boxes.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import Bool, Count, Index, Single, TensorType, op
from ovjit.graph.shapes import Dim, up_to
from ovjit_ops.common.dims import unify
from ovjit_ops.detection.kept_boxes import gather_candidates, kept_boxes, ranked_rows, select_boxes
from ovjit_ops.detection.proposal_parts import PLAIN, fit_anchors, moved_anchors
from ovjit_ops.elementwise.arithmetic import REALS


def _rows(kind: str, images: Dim, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    """Types of the regions, their scores, and the number of each picture."""
    rows = up_to(images * attrs["post_nms_count"])
    counts = TensorType(attrs["roi_num_type"], (images,))
    return TensorType(kind, (rows, 4)), TensorType(kind, (rows,)), counts


@op("GenerateProposals", opset=9)
class GenerateProposals:
    """The best regions of every picture, their scores, and the number of each picture."""

    def infer(
        im_info,
        anchors,
        deltas,
        scores,
        *,
        min_size: Single,
        nms_threshold: Single,
        pre_nms_count: Count,
        post_nms_count: Count,
        normalized: Bool = True,
        nms_eta: Single = 1.0,
        roi_num_type: Index = "i64",
    ):
        attrs = locals()
        check(nms_eta == 1, f"nms_eta {nms_eta} is not supported; it should be 1")
        images = unify(
            REALS, im_info=(im_info, "N."), anchors=(anchors, "...."), deltas=(deltas, "N.HW"),
            scores=(scores, "N.HW"),
        )["N"]  # fmt: skip
        fit_anchors(im_info, anchors, deltas, scores)
        return _rows(im_info.dtype, images, attrs)

    def ref(im_info, anchors, deltas, scores, **attrs):
        boxes, best = moved_anchors(im_info, anchors, deltas, scores, _anchor_options(attrs))
        choice = select_boxes(
            boxes, best, max(attrs["post_nms_count"], 0), np.array([attrs["nms_threshold"]]), -np.inf,
            **_selection_attributes(attrs), skip=-1,
        )  # fmt: skip
        image, _, number, score = gather_candidates(*choice)
        counts = choice[2][:, 0].astype(numpy_dtype(attrs["roi_num_type"]))
        return boxes[image, 0, number].astype(im_info.dtype), score.astype(im_info.dtype), counts

    def expand(w, node, inputs):
        """GenerateProposals(...) -> ValidPrefix(RankedRows(boxes, KeptBoxes(boxes, scores))), with boxes and
        scores of MovedAnchors(...)"""
        attrs = node.attrs
        if any(v.dtype != "f32" or v.shape is None for v in inputs):
            return None
        most = attrs["post_nms_count"]
        boxes, scores = w.outputs("MovedAnchors", *inputs, **_anchor_options(attrs))
        share = attrs["nms_threshold"]
        choice = kept_boxes(w, boxes, scores, share, -np.inf, most=most, **_selection_attributes(attrs))
        ways = {"keep": most, "output_type": attrs["roi_num_type"], "capacity": attrs["pre_nms_count"]}
        rows, _, best, counts, count = ranked_rows(w, boxes, choice, **ways)
        return [*(w("ValidPrefix", x, count, axis=0) for x in (rows, best)), counts]


def _anchor_options(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of MovedAnchors. Small boxes count among the best ones, and are marked."""
    border = 0.0 if attrs["normalized"] else 1.0
    ends = dict.fromkeys(("border", "outer", "inset"), border)
    return {**PLAIN, **ends, "min_size": attrs["min_size"], "marked": True}


def _selection_attributes(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of KeptBoxes."""
    return {
        "top": attrs["pre_nms_count"], "inclusive": True, "border": not attrs["normalized"], "drop_nan": True
    }  # fmt: skip
