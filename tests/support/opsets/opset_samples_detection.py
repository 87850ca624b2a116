"""Random detection layers, recurrent layers, decoders and transforms of OpenVINO's opsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino.opset6 as o6
import openvino.opset8 as o8
import openvino.opset13 as o13
import openvino.opset15 as o15
import openvino.opset16 as o16

from tests.support.onnx.samples import F, Rng, flip, pick, values
from tests.support.opsets.opset_samples import Inputs


def detection(rng: Rng, i: Inputs) -> Any:
    op = pick(
        rng,
        "multiclass",
        "matrix",
        "output",
        "roialign",
        "roipool",
        "psroi",
        "prior",
        "clustered",
        "region",
        "nms",
        "rotated",
        "generate",
        "proposal",
        "grid",
        "roirotated",
    )
    n, c = int(rng.integers(2, 30)), int(rng.integers(1, 4))
    corner = rng.uniform(0, 10, (2, n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 6, (2, n, 2))], 2).astype(F)
    scores = rng.random((2, c, n)).astype(F)
    top, keep = pick(rng, -1, 3, 10), pick(rng, -1, 4, 20)
    common = {
        "sort_result_type": pick(rng, "none", "classid", "score"),
        "sort_result_across_batch": flip(rng),
        "output_type": pick(rng, "i32", "i64"),
        "score_threshold": pick(rng, 0.0, 0.4),
        "nms_top_k": top,
        "keep_top_k": keep,
        "background_class": pick(rng, -1, 0) if c > 1 else -1,
        "normalized": flip(rng),
    }
    if op == "multiclass":
        return openvino.opset9.multiclass_nms(
            i(boxes, False),
            i(scores, False),
            None,
            iou_threshold=pick(rng, 0.3, 0.6),
            nms_eta=pick(rng, 1.0, 0.9),
            **common,
        )
    if op == "matrix":
        return o8.matrix_nms(
            i(boxes, False),
            i(scores, False),
            decay_function=pick(rng, "linear", "gaussian"),
            gaussian_sigma=pick(rng, 2.0, 0.7),
            post_threshold=pick(rng, 0.0, 0.2),
            **common,
        )
    if op == "output":
        p, many = int(rng.integers(1, 12)), int(rng.integers(2, 5))
        share, norm, var = flip(rng), flip(rng), flip(rng)
        attrs = {
            "background_label_id": pick(rng, 0, -1),
            "top_k": pick(rng, -1, 3, 20),
            "variance_encoded_in_target": var,
            "keep_top_k": [pick(rng, 3, 30)],
            "code_type": pick(rng, "caffe.PriorBoxParameter.CORNER", "caffe.PriorBoxParameter.CENTER_SIZE"),
            "share_location": share,
            "nms_threshold": 0.45,
            "confidence_threshold": pick(rng, 0.1, 0.5),
            "clip_after_nms": flip(rng),
            "clip_before_nms": flip(rng),
            "decrease_label_id": flip(rng, 0.2),
            "normalized": norm,
            "input_height": 1 if norm else 30,
            "input_width": 1 if norm else 40,
            "objectness_score": 0.3,
        }
        first = rng.uniform(0, 0.6, (p, 2))
        prior = np.concatenate([first, first + rng.uniform(0.1, 0.4, (p, 2))], 1)
        if not norm:
            prior = np.concatenate([np.zeros((p, 1)), prior * [40, 30, 40, 30]], 1)
        rows = [prior.reshape(-1)] + ([] if var else [np.full(prior.size, 0.1)])
        sets = 1 if share else many
        return o8.detection_output(
            i(rng.uniform(-0.5, 0.5, (2, p * 4 * sets)).astype(F), False),
            i(rng.random((2, p * many)).astype(F), False),
            i(np.stack(rows)[None].astype(F), False),
            attrs,
        )
    rois = np.concatenate([rng.uniform(0, 5, (4, 2)), rng.uniform(5, 11, (4, 2))], 1).astype(F)
    ids = rng.integers(0, 2, 4)
    if op == "roialign":
        return openvino.opset9.roi_align(
            i.real(2, 3, 9, 10),
            i(rois, False),
            i(ids.astype(np.int32), False),
            3,
            2,
            pick(rng, 1, 2, 0),
            pick(rng, 1.0, 0.5),
            pick(rng, "avg", "max"),
            pick(rng, "asymmetric", "half_pixel", "half_pixel_for_nn"),
        )
    five = np.concatenate([ids[:, None], rois], 1).astype(F)
    if op == "roipool":
        return o13.roi_pooling(
            i.real(2, 3, 9, 10), i(five, False), [2, 3], pick(rng, 1.0, 0.5), pick(rng, "max", "bilinear")
        )
    if op == "psroi":
        return o13.psroi_pooling(
            i.real(2, 8, 9, 10), i(five, False), 2, 2, pick(rng, 1.0, 0.5), 1, 1, "average"
        )
    if op == "prior":
        whole = flip(rng)
        attrs = {
            "min_size": [3.0, 5.0][: pick(rng, 1, 2)],
            "max_size": [7.0, 9.0][: pick(rng, 0, 1) if whole else 0],
            "aspect_ratio": [2.0] if flip(rng) else [],
            "flip": flip(rng),
            "clip": flip(rng),
            "step": pick(rng, 0.0, 4.0),
            "offset": pick(rng, 0.0, 0.5),
            "variance": [0.1, 0.1, 0.2, 0.2],
            "scale_all_sizes": whole,
            "min_max_aspect_ratios_order": flip(rng),
        }
        return o8.prior_box(i.const([3, 4], np.int64), i.const([24, 32], np.int64), attrs)
    if op == "clustered":
        attrs = {
            "width": [4.0, 6.0],
            "height": [3.0, 8.0],
            "clip": flip(rng),
            "step_widths": pick(rng, 0.0, 4.0),
            "step_heights": pick(rng, 0.0, 5.0),
            "step": pick(rng, 0.0, 4.0),
            "offset": pick(rng, 0.0, 0.5),
            "variance": [0.1, 0.1, 0.2, 0.2],
        }
        return o8.prior_box_clustered(i.const([3, 4], np.int64), i.const([24, 32], np.int64), attrs)
    if op == "region":
        soft = flip(rng)
        return o13.region_yolo(
            i.real(1, 3 * 7, 3, 4), 4, 2, 3, soft, [0, 1, 2], 1, 3, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        )
    if op == "nms":
        return openvino.opset9.non_max_suppression(
            i(boxes, False),
            i(scores, False),
            i.const(pick(rng, 1, 2, 10), np.int64),
            i.const(pick(rng, 0.3, 0.6), F),
            i.const(pick(rng, 0.0, 0.4), F),
            i.const(pick(rng, 0.0, 0.0, 0.5), F),
            pick(rng, "corner", "center"),
            flip(rng),
            pick(rng, "i32", "i64"),
        )
    if op == "rotated":
        five_ = np.concatenate(
            [corner, rng.uniform(1, 6, (2, n, 2)), rng.uniform(-1.5, 1.5, (2, n, 1))], 2
        ).astype(F)
        return o13.nms_rotated(
            i(five_, False),
            i(scores, False),
            i.const(5, np.int64),
            i.const(0.4, F),
            i.const(0.1, F),
            flip(rng),
            pick(rng, "i32", "i64"),
            flip(rng),
        )
    if op == "generate":
        first = rng.uniform(0, 60, (3, 4, 2, 2))
        anchors = np.concatenate([first, first + rng.uniform(5, 40, first.shape)], 3).astype(F)
        info = np.array([[80.0, 100.0, 1.0, 1.5]] * 2, F)
        return openvino.opset9.generate_proposals(
            i(info, False),
            i(anchors, False),
            i(rng.uniform(-0.5, 0.5, (2, 8, 3, 4)).astype(F), False),
            i(rng.random((2, 2, 3, 4)).astype(F), False),
            pick(rng, 1.0, 10.0),
            0.6,
            pick(rng, 10, 100),
            pick(rng, 3, 30),
            flip(rng),
        )
    if op == "proposal":
        attrs = {
            "base_size": np.uint32(16),
            "pre_nms_topn": np.uint32(pick(rng, 10, 100)),
            "post_nms_topn": np.uint32(8),
            "nms_thresh": 0.6,
            "feat_stride": np.uint32(16),
            "min_size": np.uint32(pick(rng, 1, 20)),
            "ratio": np.array([0.5, 1.0]),
            "scale": np.array([1.0, 2.0]),
            "clip_before_nms": flip(rng),
            "clip_after_nms": flip(rng),
            "normalize": flip(rng),
            "framework": pick(rng, "", "tensorflow"),
        }
        return openvino.opset4.proposal(
            i(rng.random((1, 8, 4, 5)).astype(F), False),
            i(rng.uniform(-0.4, 0.4, (1, 16, 4, 5)).astype(F), False),
            i(np.array([70.0, 90.0, 1.0], F), False),
            attrs,
        )
    if op == "grid":
        return openvino.opset9.grid_sample(
            i.real(2, 2, 4, 5),
            i(rng.uniform(-1.4, 1.4, (2, 3, 4, 2)).astype(F), False),
            {
                "align_corners": flip(rng),
                "mode": pick(rng, "bilinear", "nearest", "bicubic"),
                "padding_mode": pick(rng, "zeros", "border", "reflection"),
            },
        )
    turned = np.concatenate(
        [rng.uniform(2, 8, (4, 2)), rng.uniform(1, 6, (4, 2)), rng.uniform(-2, 2, (4, 1))], 1
    ).astype(F)
    return o15.roi_align_rotated(
        i.real(2, 3, 9, 10),
        i(turned, False),
        i(ids.astype(np.int32), False),
        3,
        2,
        pick(rng, 1, 2),
        pick(rng, 1.0, 0.5),
        flip(rng),
    )


def sequences(rng: Rng, i: Inputs) -> Any:
    op = pick(
        rng,
        "lstm",
        "gru",
        "rnn",
        "lstmcell",
        "grucell",
        "rnncell",
        "greedy",
        "seqlen",
        "loss",
        "tree",
        "dft",
        "rdft",
        "irdft",
        "stft",
        "istft",
        "unique",
    )
    b, t, n, h = 2, int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    gates = {"l": 4, "g": 3, "r": 1}.get(op[0], 1)
    functions = {"l": 3, "g": 2, "r": 1}.get(op[0], 1)
    chosen = [pick(rng, "sigmoid", "tanh", "relu") for _ in range(functions)]
    if op in ("lstm", "gru", "rnn"):
        way = pick(rng, "forward", "reverse", "bidirectional")
        d = 2 if way == "bidirectional" else 1
        x, lengths = i.real(b, t, n, scale=1), i(rng.integers(1, t + 1, b).astype(np.int32), False)
        w, r = i(values(rng, (d, gates * h, n)), True), i(values(rng, (d, gates * h, h)), True)
        clip = pick(rng, 0.0, 1.0)
        before = op == "gru" and flip(rng)
        bias = i(values(rng, (d, (gates + before) * h)), True)
        state = i.real(b, d, h)
        more: dict[str, Any] = {"activations": chosen, "clip": clip}
        if op == "lstm":
            return o13.lstm_sequence(x, state, i.real(b, d, h), lengths, w, r, bias, h, way, **more)
        if op == "gru":
            return o13.gru_sequence(x, state, lengths, w, r, bias, h, way, linear_before_reset=before, **more)
        return o13.rnn_sequence(x, state, lengths, w, r, bias, h, way, **more)
    if op.endswith("cell"):
        w, r = i(values(rng, (gates * h, n)), True), i(values(rng, (gates * h, h)), True)
        bias = i(values(rng, (gates * h,)), True)
        if op == "lstmcell":
            return openvino.opset4.lstm_cell(
                i.real(b, n), i.real(b, h), i.real(b, h), w, r, bias, h, chosen, [], [], pick(rng, 0.0, 1.0)
            )
        if op == "grucell":
            return openvino.opset3.gru_cell(
                i.real(b, n), i.real(b, h), w, r, bias, h, chosen, [], [], pick(rng, 0.0, 1.0), False
            )
        return openvino.opset3.rnn_cell(
            i.real(b, n), i.real(b, h), w, r, bias, h, chosen, [], [], pick(rng, 0.0, 1.0)
        )
    classes = int(rng.integers(3, 6))
    if op == "greedy":
        mask = (np.arange(t)[:, None] < rng.integers(1, t + 1, b)).astype(F)
        return o13.ctc_greedy_decoder(i.real(t, b, classes), i(mask, False), flip(rng))
    if op == "seqlen":
        return o6.ctc_greedy_decoder_seq_len(
            i.real(b, t, classes),
            i(rng.integers(1, t + 1, b).astype(np.int32), False),
            i.const(int(rng.integers(0, classes)), np.int32),
            flip(rng),
            pick(rng, "i32", "i64"),
            pick(rng, "i32", "i64"),
        )
    if op == "loss":
        labels = rng.integers(0, classes - 1, (b, t)).astype(np.int32)
        return openvino.opset4.ctc_loss(
            i.real(b, t, classes),
            i(np.full(b, t, np.int32), False),
            i(labels, False),
            i(rng.integers(0, t // 2 + 1, b).astype(np.int32), False),
            i.const(classes - 1, np.int32),
            flip(rng),
            flip(rng),
            flip(rng),
        )
    if op == "tree":
        beam = 3
        return o13.gather_tree(
            i(rng.integers(0, 9, (t, b, beam)).astype(np.int32), False),
            i(rng.integers(0, beam, (t, b, beam)).astype(np.int32), False),
            i(rng.integers(1, t + 1, b).astype(np.int32), False),
            i(np.array(1, np.int32)),
        )
    if op == "dft":
        axes = rng.permutation(2)[: int(rng.integers(1, 3))]
        size = i.const([int(v) for v in rng.integers(1, 9, len(axes))], np.int64) if flip(rng) else None
        return pick(rng, o13.dft, o13.idft)(i.real(3, 6, 2), i.const(axes, np.int64), size)
    if op == "rdft":
        axes = rng.permutation(2)[: int(rng.integers(1, 3))]
        return o13.rdft(
            i.real(4, 6),
            i.const(axes, np.int64),
            i.const([int(v) for v in rng.integers(2, 9, len(axes))], np.int64) if flip(rng) else None,
        )
    if op == "irdft":
        return o13.irdft(
            i.real(4, 5, 2), i.const([1], np.int64), i.const([8], np.int64) if flip(rng) else None
        )
    if op == "stft":
        return o15.stft(
            i.real(2, 40), i(np.hanning(8).astype(F)), i.const(8, np.int64), i.const(3, np.int64), flip(rng)
        )
    if op == "istft":
        size = pick(rng, None, 24)
        return o16.istft(
            i.real(2, 5, 9, 2),
            i(np.hamming(8).astype(F)),
            i.const(8, np.int64),
            i.const(4, np.int64),
            flip(rng),
            flip(rng),
            None if size is None else i.const(size, np.int64),
        )
    data = np.round(values(rng, (4, 3))) % 3
    return openvino.opset10.unique(
        i(data.astype(F), False),
        pick(rng, None, i.const(0, np.int64)),
        flip(rng),
        pick(rng, "i32", "i64"),
        pick(rng, "i32", "i64"),
    )


FAMILIES = {f.__name__: f for f in (detection, sequences)}
