"""TFLite_Detection_PostProcess, which OpenVINO does not read, beside NumPy. Twelve forms were compared with
ai-edge-litert 2.3.0: eleven were equal, several classes for a box are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("tflite")

from ovjit.errors import ModelError, OvjitError, UnsupportedError
from tests.support.tflite.files import G, Op, T, const, quantized, write

SEED = 20261127
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
ANCHORS, CLASSES = 40, 3
PLAIN = {
    "max_detections": 8, "max_classes_per_detection": 1, "detections_per_class": 5, "use_regular_nms": False,
    "nms_score_threshold": 0.3, "nms_iou_threshold": 0.4, "num_classes": CLASSES, "y_scale": 10.0,
    "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0,
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "fast": {}, "regular": {"use_regular_nms": True}, "few": {"nms_score_threshold": 0.95},
    "regular, few": {"nms_score_threshold": 0.95, "use_regular_nms": True, "max_detections": 20},
    "regular, many": {"use_regular_nms": True, "max_detections": 20, "detections_per_class": 3},
    "none": {"nms_score_threshold": 2.0}, "overlapping": {"nms_iou_threshold": 0.9, "max_detections": 30},
}  # fmt: skip


def packed(fields: dict[str, Any]) -> bytes:
    from flatbuffers import flexbuffers

    builder = flexbuffers.Builder()
    with builder.Map():
        for name, value in fields.items():
            builder.Key(name)
            {bool: builder.Bool, int: builder.Int, float: builder.Float}[type(value)](value)
    return bytes(builder.Finish())


def detector(fields: dict[str, Any], background: int, integers: bool = False) -> tuple[bytes, np.ndarray]:
    """A file, and its anchors."""
    rng = np.random.default_rng(SEED)
    anchors = np.concatenate([rng.uniform(0.1, 0.9, (ANCHORS, 2)), rng.uniform(0.1, 0.4, (ANCHORS, 2))], 1)
    kind, shape = "UINT8" if integers else "FLOAT32", (1, ANCHORS, CLASSES + background)
    scales = [quantized(0.05, 120), quantized(1 / 255)] if integers else [None, None]
    most = fields["max_detections"]
    tensors = [T("boxes", (1, ANCHORS, 4), kind, quant=scales[0]), T("scores", shape, kind, quant=scales[1]),
               const("anchors", anchors.astype(np.float32)), T("o0", (1, most, 4)), T("o1", (1, most)),
               T("o2", (1, most)), T("o3", (1,))]  # fmt: skip
    op = Op("CUSTOM", ["boxes", "scores", "anchors"], ["o0", "o1", "o2", "o3"],
            custom="TFLite_Detection_PostProcess", custom_options=packed(fields))  # fmt: skip
    return write(G(tensors, [op], ["boxes", "scores"], ["o0", "o1", "o2", "o3"])), anchors.astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, top = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(top - low, 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def suppressed(boxes: np.ndarray, scores: np.ndarray, most: int, fields: dict[str, Any]) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] < fields["nms_score_threshold"] or len(kept) == most:
            break
        if all(overlap(boxes[i], boxes[k]) <= fields["nms_iou_threshold"] for k in kept):
            kept.append(int(i))
    return kept


def expected(
    boxes: np.ndarray, scores: np.ndarray, anchors: np.ndarray, fields: dict[str, Any]
) -> list[np.ndarray]:
    boxes, anchors = boxes[0].astype(np.float64), anchors.astype(np.float64)
    scores = scores[0, :, scores.shape[2] - CLASSES :]
    centre = boxes[:, :2] / fields["y_scale"] * anchors[:, 2:] + anchors[:, :2]
    half = np.exp(boxes[:, 2:] / fields["h_scale"]) * anchors[:, 2:] / 2
    corners = np.concatenate([centre - half, centre + half], 1)
    if fields["use_regular_nms"]:
        each = fields["detections_per_class"]
        found = [(scores[i, c], i, c) for c in range(CLASSES)
                 for i in suppressed(corners, scores[:, c], each, fields)]  # fmt: skip
        found.sort(key=lambda row: -row[0])
    else:
        best = scores.max(1)
        found = [(best[i], i, int(scores[i].argmax()))
                 for i in suppressed(corners, best, fields["max_detections"], fields)]  # fmt: skip
    found = found[: fields["max_detections"]]
    made = [np.zeros((1, fields["max_detections"], *rest)) for rest in ((4,), (), ())]
    for row, (score, i, c) in enumerate(found):
        made[0][0, row], made[1][0, row], made[2][0, row] = corners[i], c, score
    return [*made, np.array([len(found)])]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("background", [0, 1])
def test_detections(form: str, background: int) -> None:
    fields = PLAIN | FORMS[form]
    data, anchors = detector(fields, background)
    compiled = ov.compile_model(data, "CPU", F32)
    for seed in range(3):
        rng = np.random.default_rng([SEED, seed])
        boxes = rng.normal(size=(1, ANCHORS, 4)).astype(np.float32)
        scores = rng.uniform(0, 1, (1, ANCHORS, CLASSES + background)).astype(np.float32)
        results = compiled([boxes, scores])
        for i, want in enumerate(expected(boxes, scores, anchors, fields)):
            assert results[i].shape == want.shape and results[i].dtype == np.float32
            np.testing.assert_allclose(results[i], want, rtol=1e-5, atol=1e-5, err_msg=f"{i} {seed} {SEED}")


def test_detections_of_bytes() -> None:
    data, anchors = detector(PLAIN, 1, integers=True)
    rng = np.random.default_rng(SEED)
    boxes = rng.integers(60, 180, (1, ANCHORS, 4)).astype(np.uint8)
    scores = rng.permutation(ANCHORS * (CLASSES + 1)).astype(np.uint8).reshape(1, ANCHORS, CLASSES + 1)
    results = ov.compile_model(data, "CPU", F32)([boxes, scores])
    real = (boxes.astype(np.float64) - 120) * 0.05, scores / 255
    for i, want in enumerate(expected(*real, anchors, PLAIN)):
        np.testing.assert_allclose(results[i], want, rtol=1e-5, atol=1e-5, err_msg=f"{i}, seed {SEED}")


def test_options_that_do_not_fit() -> None:
    with pytest.raises(UnsupportedError, match="several classes for a box"):
        ov.Core().read_model(detector(PLAIN | {"max_classes_per_detection": 2}, 1)[0])
    with pytest.raises(ModelError, match="9 of 4 classes"):
        ov.Core().read_model(detector(PLAIN | {"num_classes": 9}, 1)[0])
    with pytest.raises(ModelError, match="num_classes"):
        ov.Core().read_model(detector({name: PLAIN[name] for name in ("max_detections",)}, 1)[0])
    good, data = packed(PLAIN), detector(PLAIN, 1)[0]
    assert data.count(good) == 1
    for place in range(len(good)):  # damaged options
        for value in (0, 1, 127, 255):
            damaged = good[:place] + bytes([value]) + good[place + 1 :]
            try:
                ov.Core().read_model(data.replace(good, damaged))
            except OvjitError:
                pass
