"""Proposal: the regions that the first stage of a Faster R-CNN proposes.

    scores [N, 2 * A, H, W]  deltas [N, 4 * A, H, W]  image_shape [3 or 4] of (height, width, scales)
    ->  regions [N * post_nms_topn, 5] of (image, x1, y1, x2, y2), and in version 4 their scores

The first missing row of an image has image -1; further ones are zeros. With the framework "tensorflow", y
precedes x, and corners are not pixels that belong to the box.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Bool, Floats, Int, Single, Str, TensorType, op
from ovjit.graph.shapes import Interval, is_static
from ovjit_ops.common.dims import unify
from ovjit_ops.detection.kept_boxes import kept_boxes, select_boxes
from ovjit_ops.detection.proposal_parts import PLAIN, anchor_grid, moved_anchors, proposal_table
from ovjit_ops.elementwise.arithmetic import REALS


def anchors(attrs: dict[str, Any]) -> np.ndarray:
    """One box [4] for every ratio and scale, around the middle of the base box."""
    base = np.float32(attrs["base_size"])
    tensorflow = _is_tensorflow(attrs)
    half, one = np.float32(0.5), np.float32(0 if tensorflow else 1)
    middle = half * (base - one)
    round_size = np.float32 if tensorflow else _round
    rows = []
    for ratio in attrs["ratio"]:
        w0 = round_size(np.sqrt(base * base / np.float32(ratio)))
        h0 = round_size(w0 * np.float32(ratio))
        for scale in attrs["scale"]:
            w, h = half * (w0 * np.float32(scale) - one), half * (h0 * np.float32(scale) - one)
            rows.append((middle - w, middle - h, middle + w, middle + h))
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    return boxes - middle if tensorflow else boxes


#: Whose order and rounding of corners is meant; the first is Caffe's.
FRAMEWORKS = ("", "tensorflow")


def _is_tensorflow(attrs: dict[str, Any]) -> bool:
    """Whether y precedes x in corners, as in TensorFlow."""
    return attrs["framework"].lower() == "tensorflow"


def _round(x: np.float32) -> np.float32:
    return np.float32(np.trunc(x + np.float32(0.5)))


def _infer(scores: TensorType, deltas: TensorType, image: TensorType, attrs: dict[str, Any]) -> tuple:
    dims = unify(REALS, class_probs=(scores, "N.HW"), bbox_deltas=(deltas, "N.HW"), image_shape=(image, "S"))
    # not declared as words: OpenVINO's nodes may be given any text by `set_framework`
    framework = attrs["framework"]
    supported = framework.lower() in FRAMEWORKS
    check(supported, f"framework {framework!r} should be one of {', '.join(map(repr, FRAMEWORKS))}")
    anchor_count = len(attrs["ratio"]) * len(attrs["scale"])
    check(anchor_count > 0, "ratio and scale should not be empty")
    check(all(r > 0 for r in attrs["ratio"]), f"ratio {list(attrs['ratio'])} should be positive")
    check(
        min(attrs["post_nms_topn"], attrs["pre_nms_topn"]) > 0,
        "pre_nms_topn and post_nms_topn should be positive",
    )
    fits = isinstance(dims["S"], Interval) or dims["S"] in (3, 4)
    check(fits, f"image_shape should have 3 or 4 elements, not {image}")
    rows = dims["N"] * attrs["post_nms_topn"]
    return TensorType(scores.dtype, (rows, 5)), TensorType(scores.dtype, (rows,))


def _anchor_options(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of MovedAnchors in a Proposal."""
    border = 0.0 if _is_tensorflow(attrs) else 1.0
    return {
        **PLAIN, "border": border, "outer": 0.0, "inset": border, "most": np.inf,
        "size": float(np.float32(attrs["box_coordinate_scale"]) / np.float32(attrs["box_size_scale"])),
        "weights": (attrs["box_coordinate_scale"],) * 4, "min_size": float(attrs["min_size"]),
        "swapped": not border, "clipped": attrs["clip_before_nms"], "checked": True, "second": True,
    }  # fmt: skip


def _grid(attrs: dict[str, Any]) -> dict[str, Any]:
    strides = dict.fromkeys(("stride_x", "stride_y"), float(attrs["feat_stride"]))
    return {"h": 0, "w": 0, **strides, "middle": 0.0, "swapped": _is_tensorflow(attrs)}


def _table(attrs: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": attrs["post_nms_topn"], "numbered": True, "swapped": _is_tensorflow(attrs),
        "clipped": attrs["clip_after_nms"], "normalized": attrs["normalize"],
    }  # fmt: skip


def _proposal(scores: np.ndarray, deltas: np.ndarray, image: np.ndarray, **attrs: Any) -> tuple:
    """(regions, scores) in NumPy."""
    options, info = _anchor_options(attrs), np.reshape(image, (1, -1))
    grid = anchor_grid(anchors(attrs), scores.shape, (0, 0, 0, 0), **_grid(attrs))
    boxes, values = moved_anchors(info, grid, deltas, scores, options)
    choice = select_boxes(
        boxes, values, attrs["post_nms_topn"], np.array([attrs["nms_thresh"]]), -np.inf,
        top=attrs["pre_nms_topn"], skip=-1, inclusive=True, border=options["border"] > 0,
    )  # fmt: skip
    return tuple(x.astype(scores.dtype) for x in proposal_table(boxes, choice, info, _table(attrs)))


@op("Proposal", opset=4, native=FULL)
class Proposal4:
    """The best regions of every image, and their scores."""

    def infer(
        class_probs,
        bbox_deltas,
        image_shape,
        *,
        base_size: Int,
        pre_nms_topn: Int,
        post_nms_topn: Int,
        nms_thresh: Single,
        feat_stride: Int,
        min_size: Int,
        ratio: Floats,
        scale: Floats,
        clip_before_nms: Bool = True,
        clip_after_nms: Bool = False,
        normalize: Bool = False,
        box_size_scale: Single = 1.0,
        box_coordinate_scale: Single = 1.0,
        framework: Str = "",
    ):
        return _infer(class_probs, bbox_deltas, image_shape, locals())

    ref = _proposal

    def expand(w, node, inputs):
        """Proposal(...) -> ProposalTable(KeptBoxes(MovedAnchors(..., AnchorGrid(...))))"""
        scores, deltas, image = inputs
        attrs = node.attrs
        if any(v.dtype != "f32" or v.shape is None for v in inputs) or attrs["feat_stride"] <= 0:
            return None
        base, grid = anchors(attrs), _grid(attrs)
        if is_static(scores.shape):
            anchor_boxes = w.b.constant(anchor_grid(base, scores.shape, scores.shape, **grid))
        else:
            anchor_boxes = w("AnchorGrid", base, scores, scores, **grid)
        info = w("Reshape", image, (1, -1), special_zero=False)
        options = _anchor_options(attrs)
        boxes, values = w.outputs("MovedAnchors", info, anchor_boxes, deltas, scores, **options)
        choice = kept_boxes(
            w, boxes, values, attrs["nms_thresh"], -np.inf, inclusive=True, border=options["border"] > 0,
            top=attrs["pre_nms_topn"], most=attrs["post_nms_topn"],
        )  # fmt: skip
        return w.outputs("ProposalTable", boxes, *choice, info, **_table(attrs))[: len(node.outputs)]


@op("Proposal", opset=1, like=Proposal4)
class Proposal1:
    """Proposal-4 without the scores."""

    def infer(class_probs, bbox_deltas, image_shape, **attrs):
        return _infer(class_probs, bbox_deltas, image_shape, attrs)[0]

    def ref(*inputs, **attrs):
        return _proposal(*inputs, **attrs)[0]
