"""Operators of OpenVINO's own domain, which exporters of detectors and of quantised networks write for it.

Most are operations of OpenVINO by the same name. Names, defaults: those of the frontend of 2026.4.
"""

from __future__ import annotations

from ovjit.errors import check
from ovjit.readers.choices import one_of
from ovjit.readers.onnx.choices import AUTO_PAD, declare_choices
from ovjit.readers.onnx.nn import Window
from ovjit.readers.onnx_contrib.rule_language import *

_DOMAIN = "org.openvinotoolkit"
_CODES = "caffe.PriorBoxParameter."
#: Attributes and their defaults; a type instead of a default for a required attribute.
_DETECTION_OUTPUT = {
    "background_label_id": 0, "top_k": -1, "variance_encoded_in_target": False, "keep_top_k": 1,
    "code_type": _CODES + "CORNER", "share_location": True, "nms_threshold": float,
    "confidence_threshold": 0.0, "clip_after_nms": False, "clip_before_nms": False,
    "decrease_label_id": False, "normalized": True, "input_width": 1, "input_height": 1,
    "objectness_score": 0.0,
}  # fmt: skip
_PRIOR_BOX = {
    "min_size": (), "max_size": (), "aspect_ratio": (), "flip": False, "clip": False, "step": 0.0,
    "offset": 0.0, "variance": (), "scale_all_sizes": True, "fixed_ratio": (), "fixed_size": (),
    "density": (), "min_max_aspect_ratios_order": True,
}  # fmt: skip
_CLUSTERED = {
    "width": tuple, "height": tuple, "clip": False, "variance": (0.1,), "step_h": 0.0, "step_w": 0.0,
    "offset": 0.0,
}  # fmt: skip
_DETECTRON: dict[str, dict[str, Any]] = {
    "DetectionOutput": {
        "score_threshold": 0.05, "nms_threshold": 0.5, "max_delta_log_wh": math.log(1000 / 16),
        "num_classes": 81, "post_nms_count": 2000, "max_detections_per_image": 100,
        "class_agnostic_box_regression": False, "deltas_weights": (10.0, 10.0, 5.0, 5.0),
    },
    "GenerateProposalsSingleImage": {
        "min_size": 0.0, "nms_threshold": 0.7, "post_nms_count": 1000, "pre_nms_count": 1000,
    },
    "PriorGridGenerator": {"flatten": True, "h": 0, "w": 0, "stride_x": 0.0, "stride_y": 0.0},
    "ROIFeatureExtractor": {
        "output_size": 7, "sampling_ratio": 2, "aligned": False, "pyramid_scales": (4, 8, 16, 32, 64),
    },
    "TopKROIs": {"max_rois": 1000},
}  # fmt: skip

declare_choices(_DOMAIN, {
    "DeformableConv2D": {"auto_pad": AUTO_PAD},
    "DetectionOutput": {
        "code_type": one_of(("CORNER", "CENTER_SIZE", _CODES + "CORNER", _CODES + "CENTER_SIZE")),
    },
})  # fmt: skip


def _operator(name: str) -> Any:
    return onnx_op(name, domain=_DOMAIN)


def _attributes(n: OnnxNode, defaults: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a node of the Model. Flags are ints in ONNX."""
    values = {k: n.require(k) if isinstance(v, type) else n.attr(k, v) for k, v in defaults.items()}
    return {k: bool(v) if isinstance(defaults[k], bool) else v for k, v in values.items()}


def _read_detectron(n: OnnxNode) -> list[Output]:
    name = n.op_type.removeprefix("Experimental").removeprefix("Detectron")
    return n.all("ExperimentalDetectron" + name, *n.tensors(), **_attributes(n, _DETECTRON[name]))


for _name in _DETECTRON:
    _operator("ExperimentalDetectron" + _name)(_read_detectron)


@_operator("Normalize")
def normalize(n: OnnxNode) -> Output:
    """(x [N, C, ...], weights [C], or [1] if `channel_shared`) -> x over its length along C or C, ..."""
    rank = n.rank(n[0])
    axes = list(range(1, rank)) if n.attr("across_spatial", 0) else [1]
    y = n("NormalizeL2", n[0], axes, eps=n.attr("eps", 0.0), eps_mode="add")
    weights = n[1] if n.attr("channel_shared", 0) else n.reshape(n[1], [1, -1] + [1] * (rank - 2))
    return n("Multiply", y, weights)


@_operator("GroupNorm")
@_operator("ExperimentalDetectronGroupNorm")
def group_norm(n: OnnxNode) -> Output:
    scale, bias = (n.reshape(n[i], [-1]) for i in (1, 2))
    how = {"num_groups": n.require("num_groups"), "epsilon": n.attr("eps", 1e-6)}
    return n("GroupNormalization", n[0], scale, bias, **how)


@_operator("DeformableConv2D")
def deformable_convolution(n: OnnxNode) -> Output:
    """(x, offsets, filters, mask)"""
    window = Window(n, n.static_shape(n[2], "the shape of the filters")[2:], 2)
    how = {"group": n.attr("group", 1), "deformable_group": n.attr("deformable_groups", 1)}
    return n("DeformableConvolution", *n.tensors(), **window.attributes("dilations"), **how, opset=8)


@_operator("DetectionOutput")
def detection_output(n: OnnxNode) -> Output:
    how = _attributes(n, _DETECTION_OUTPUT)
    how["code_type"] = _CODES + how["code_type"].removeprefix(_CODES)
    return n("DetectionOutput", *n.tensors(), **how | {"keep_top_k": [how["keep_top_k"]]}, opset=8)


def _boxes(n: OnnxNode, op: str, defaults: dict[str, Any], opset: int) -> Output:
    """(layer [N, C, H, W], image [N, C, H, W]) -> [1, 2, boxes]"""
    sizes = [n.slice(n.shape_of(n[i]), 0, 2, 4) for i in (0, 1)]
    return n.unsqueeze(n(op, *sizes, **_attributes(n, defaults), opset=opset), [0])


@_operator("GenerateProposals")
def generate_proposals(n: OnnxNode) -> list[Output]:
    """(scores [N, A, H, W], deltas [N, 4A, H, W], sizes of images [N, 3 or 4], anchors [A, 4])"""
    check(len(n) == 4, f"GenerateProposals operator expects 4 inputs, got {len(n)}")
    scores, deltas, sizes, anchors = n.tensors()
    shape = n("Concat", n.slice(n.shape_of(scores), 0, 2, 4), n.shape_of(anchors), axis=0)
    how = {
        "min_size": n.attr("min_size", 1.0), "nms_threshold": n.attr("nms_thresh", 0.7),
        "pre_nms_count": n.attr("pre_nms_topN", 6000), "post_nms_count": n.attr("post_nms_topN", 300),
        "normalized": not n.attr("legacy_plus_one", 1),
    }  # fmt: skip
    spread = n("Broadcast", anchors, shape, mode="numpy")
    return n.all("GenerateProposals", sizes, spread, deltas, scores, **how, opset=9)


#: Operators that are one expression.
onnx_ops({
    "FakeQuantize": lambda n: n("FakeQuantize", *n.tensors(), levels=n.require("levels")),
    "Swish": lambda n: n("Swish", n[0], n.reshape(n[1], []) if n.has(1) else n.like(n[0], 1)),
    "PriorBox": lambda n: _boxes(n, "PriorBox", _PRIOR_BOX, 8),
    "PriorBoxClustered": lambda n: _boxes(n, "PriorBoxClustered", _CLUSTERED, 1),
}, _DOMAIN)  # fmt: skip
