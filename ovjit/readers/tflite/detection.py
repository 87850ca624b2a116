"""Operators at the end of detectors, which OpenVINO does not read: suppression of boxes, and the custom
operator TFLite_Detection_PostProcess."""

from __future__ import annotations

from ovjit.readers.tflite.rule_language import *


@tflite_op("custom TFLite_Detection_PostProcess")
def detection_post_process(n: LiteNode) -> Any:
    """Inputs: encodings of boxes, scores of classes, anchors. Outputs: boxes, classes, scores, their number.

    The regular way suppresses boxes of each class among themselves. The fast way suppresses boxes whatever
    their class, each with its highest score. Rows after the last detection are 0.
    """
    options = n.custom_fields()
    if options.get("max_classes_per_detection", 1) != 1 and not options.get("use_regular_nms", False):
        raise UnsupportedError("several classes for a box are not supported")
    most, classes = n.check_count(int(options["max_detections"]), "detections"), int(options["num_classes"])
    boxes = _decode_boxes(n, options)
    every = n.last_dim(n[1])
    if not 0 < classes <= every or most < 1:
        raise ModelError(f"{classes} of {every} classes and {most} detections are not valid")
    scores = n.slice(n[1], 2, every - classes)  # classes before are the background
    if options.get("use_regular_nms", False):
        each, ranked = int(options.get("detections_per_class", 100)), n.transpose(scores, [0, 2, 1])
    else:
        each, ranked = most, n.unsqueeze(n("ReduceMax", scores, n.const([2]), keep_dims=False), [1])
    selection, selected_scores, _ = n.all(
        "NonMaxSuppression", boxes, ranked, n.const(np.int64(each)),
        n.const(_real(options, "nms_iou_threshold")), n.const(_real(options, "nms_score_threshold")),
        box_encoding="corner", sort_result_descending=True, output_type="i64", opset=9,
    )  # fmt: skip
    indices = n("Gather", selection, 2, 1)
    chosen = n("Gather", n.squeeze(boxes, [0]), indices, 0)
    if options.get("use_regular_nms", False):
        labels = n("Gather", selection, 1, 1)
    else:
        best = n.squeeze(n.top_k(scores, 1, 2)[1], [0, 2])
        labels = n("Gather", best, indices, 0)
    count = n("Minimum", n.dim_of(selection, 0), n.const([most]))
    return [
        _fill_rows(n, chosen, most), _fill_rows(n, n.convert(labels, "f32"), most),
        _fill_rows(n, n("Gather", selected_scores, 2, 1), most), n.convert(count, "f32"),
    ]  # fmt: skip


@tflite_op("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")
def non_max_suppression(n: LiteNode) -> Any:
    """Inputs: boxes, scores, the most of them, thresholds of overlap and score, sigma. Outputs: indices,
    scores with a sigma, both with 0 after the last one, and their number."""
    soft = n.op_type == "NON_MAX_SUPPRESSION_V5"
    count = n.scalar(n[2])
    selection, scores, number = n.all(
        "NonMaxSuppression", n.unsqueeze(n[0], [0]), n.unsqueeze(n[1], [0, 1]), count,
        n.scalar(n[3]), n.scalar(n[4]), *([n.scalar(n[5])] if soft else []),
        box_encoding="corner", sort_result_descending=True, output_type="i32", opset=9,
    )  # fmt: skip
    missing = n("Subtract", n.reshape(n.convert(count, "i64"), [1]), n.dim_of(selection, 0))

    def column(value: Output) -> Output:
        value = n("Gather", value, 2, 1)
        return n("Pad", value, n.const([0]), missing, n.like(value, 0), pad_mode="constant", opset=1)

    return [column(selection), *([column(scores)] if soft else []), n.scalar(n.convert(number, "i32"))]


def _real(options: dict[str, Any], name: str) -> np.float32:
    value = float(options[name])
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise ModelError(f"the option {name} is {value}")
    return np.float32(value)


def _decode_boxes(n: LiteNode, options: dict[str, Any]) -> Output:
    """Corners [y, x, y, x] of boxes, from offsets and logarithms of sizes relative to anchors' centres and
    sizes."""
    y, x, height, width = n.split(n.slice(n[0], 2, 0, 4), 2, [1] * 4)
    anchors = n.split(n.unsqueeze(n[2], [0]), 2, [1] * 4)
    low, top = [], []
    for position, size, at, extent in ((y, height, 0, 2), (x, width, 1, 3)):
        scales = [_real(options, f"{letter}_scale") for letter in ("yh", "xw")[at]]
        centre = n("Add", n("Multiply", n("Divide", position, scales[0]), anchors[extent]), anchors[at])
        half = n("Multiply", n("Exp", n("Divide", size, scales[1])), n("Multiply", anchors[extent], 0.5))
        low.append(n("Subtract", centre, half))
        top.append(n("Add", centre, half))
    return n.concat([*low, *top], 2)


def _fill_rows(n: LiteNode, rows: Output, most: int) -> Output:
    """The first rows, and 0 after them: [1, most, ...]"""
    zeros = n.const(np.zeros((most, *(d for d in (n.shape(rows) or ())[1:])), np.float32))
    return n.unsqueeze(n.slice(n.concat([rows, zeros], 0), 0, 0, most), [0])
