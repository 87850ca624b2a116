"""Operations of detection networks against the real OpenVINO, with attributes drawn at random."""

from __future__ import annotations

import inspect
import itertools
from importlib import import_module

import numpy as np
import openvino
import openvino.opset9 as real9
import openvino.opset15 as real15
import pytest

import ovjit as ov
from ovjit.graph.op import find_op
from tests.support.oracle import assert_same, our_answers

SEED = 202


def model_of(node, parameters):
    return openvino.Model(node.outputs(), parameters)


def boxes_of(rng, images, many, side=10.0):
    middle, size = rng.uniform(0, side, (images, many, 2)), rng.uniform(0.3, side / 2, (images, many, 2))
    return np.concatenate([middle - size / 2, middle + size / 2], 2).astype(np.float32)


@pytest.mark.parametrize("sort", [True, False])
def test_non_max_suppression_of_random_boxes(sort):
    rng = np.random.default_rng(SEED)
    for round in range(12):
        images, classes, many = int(rng.integers(1, 3)), int(rng.integers(1, 5)), int(rng.integers(1, 150))
        boxes = boxes_of(rng, images, many)
        scores = rng.random((images, classes, many)).astype(np.float32)
        if round % 3 == 0:
            scores = np.round(scores, 1)
        sigma = 0.5 if round % 4 == 3 else 0.0
        limits = [
            np.int64(rng.integers(1, 60)),
            *(np.float32(v) for v in (rng.random(), rng.random() / 2, sigma)),
        ]
        parameters = [real9.parameter(list(a.shape), np.float32) for a in (boxes, scores)]
        kind = str(rng.choice(["i32", "i64"]))
        node = real9.non_max_suppression(
            *parameters, *limits, sort_result_descending=sort, output_type=kind, box_encoding="corner"
        )
        where = f"seed {SEED} round {round}: {boxes.shape} {scores.shape} {limits}"
        assert_same(model_of(node, parameters), [boxes, scores], where)


def test_non_max_suppression_runs_natively():
    """All but the cutting off; with limits that are known only when it runs, and open shapes."""
    boxes = ov.opset9.parameter(ov.PartialShape([1, -1, 4]), np.float32)
    scores = ov.opset9.parameter(ov.PartialShape([1, -1, -1]), np.float32)
    most = ov.opset9.parameter([], np.int64)
    node = ov.opset9.non_max_suppression(boxes, scores, most, np.float32(0.5), np.float32(0.1))
    compiled = ov.Core().compile_model(
        ov.Model(node.outputs(), [boxes, scores, most]), "CPU", {"PERF_COUNT": True}
    )
    request = compiled.create_infer_request()
    rng = np.random.default_rng(SEED)
    real = real9.non_max_suppression
    for many, classes, limit in ((100, 2, 5), (17, 1, 100), (3, 4, 0), (0, 2, 4), (1000, 1, 200)):
        b, s = boxes_of(rng, 1, many, 40.0), rng.random((1, classes, many)).astype(np.float32)
        results = request.infer([b, s, np.array(limit)])
        if not limit or not many:
            assert [r.shape for r in results.to_tuple()] == [(0, 3), (0, 3), (1,)]
            continue
        parameters = [real9.parameter(list(a.shape), np.float32) for a in (b, s)]
        made = real(*parameters, np.int64(limit), np.float32(0.5), np.float32(0.1), np.float32(0))
        want = openvino.Core().compile_model(model_of(made, parameters), "CPU")([b, s])
        for i in range(3):
            np.testing.assert_allclose(results[i], want[i], rtol=1e-6)
    kinds = {row.node_type: row.exec_type for row in request.get_profiling_info()}
    assert kinds["PaddedNMS"] != "ref_numpy", kinds


def test_non_max_suppression_of_hostile_values():
    """NaN, infinities and boxes without area give rows that name boxes there are, and never crash."""
    rng = np.random.default_rng(SEED)
    hostile = np.array([np.nan, np.inf, -np.inf, 0, -1, 1e38, -1e38, 1], np.float32)
    for encoding in ("corner", "center"):
        boxes = ov.opset9.parameter([2, 50, 4], np.float32)
        scores = ov.opset9.parameter([2, 3, 50], np.float32)
        limits = [ov.opset9.parameter([], t) for t in (np.int64, np.float32, np.float32)]
        node = ov.opset9.non_max_suppression(boxes, scores, *limits, box_encoding=encoding)
        compiled = ov.Core().compile_model(ov.Model(node.outputs(), [boxes, scores, *limits]), "CPU")
        for round in range(30):
            b, s = rng.choice(hostile, (2, 50, 4)), rng.choice(hostile, (2, 3, 50))
            most = np.array(rng.choice([-5, 0, 3, 2**62]))
            thresholds = [rng.choice(hostile), rng.choice(hostile)]
            rows = compiled([b, s, most, *map(np.array, thresholds)])[0]
            assert ((rows >= 0) & (rows < [2, 3, 50])).all(), f"{encoding} seed {SEED} round {round}"


@pytest.mark.parametrize("last", [False, True])
def test_roi_align_of_random_regions(last):
    rng = np.random.default_rng(SEED)
    for round in range(16):
        n, c = int(rng.integers(1, 4)), int(rng.choice([1, 3, 16, 33]))
        h, w, many = (int(v) for v in rng.integers(2, 15, 3))
        x = rng.standard_normal((n, h, w, c) if last else (n, c, h, w)).astype(np.float32)
        rois = boxes_of(rng, 1, many, 20.0)[0]
        batches = rng.integers(0, n, many).astype(np.int32)
        parameters = [real9.parameter(list(a.shape), a.dtype) for a in (x, rois, batches)]
        source = real9.transpose(parameters[0], np.array([0, 3, 1, 2])) if last else parameters[0]
        attrs = [int(rng.integers(1, 6)), int(rng.integers(1, 6)), int(rng.integers(0, 4)), 0.7]
        mode, aligned = (
            ("avg", "max")[round % 2],
            ("asymmetric", "half_pixel_for_nn", "half_pixel")[round % 3],
        )
        node = real9.roi_align(source, *parameters[1:], *attrs, mode, aligned)
        where = f"seed {SEED} round {round}: {x.shape} {rois.tolist()} {attrs} {mode} {aligned}"
        kinds = assert_same(model_of(node, parameters), [x, rois, batches], where, atol=2e-4, rtol=2e-4)
        assert "ref_numpy" not in kinds


def test_rotated_regions():
    rng = np.random.default_rng(SEED)
    for round in range(8):
        x = rng.standard_normal((2, 5, 9, 11)).astype(np.float32)
        rois = np.concatenate(
            [rng.uniform(0, 10, (6, 2)), rng.uniform(0.5, 8, (6, 2)), rng.uniform(-7, 7, (6, 1))], 1
        ).astype(np.float32)
        batches = rng.integers(0, 2, 6).astype(np.int64)
        parameters = [real15.parameter(list(a.shape), a.dtype) for a in (x, rois, batches)]
        node = real15.roi_align_rotated(*parameters, 3, 2, round % 3, 0.8, bool(round % 2))
        kinds = assert_same(
            model_of(node, parameters), [x, rois, batches], f"round {round}", atol=3e-4, rtol=3e-4
        )
        assert "ref_numpy" not in kinds


@pytest.mark.parametrize(("batch", "size", "message"), [(2, 1, "out of range"), (-1, 1, "out of range"),
                                                        (0, 1e30, "too large")])  # fmt: skip
def test_regions_out_of_range_are_refused(batch, size, message):
    x, rois = ov.opset9.parameter([2, 3, 4, 4], np.float32), ov.opset9.parameter([1, 4], np.float32)
    batches = ov.opset9.parameter([1], np.int32)
    node = ov.opset9.roi_align(x, rois, batches, 2, 2, 0, 1.0, "avg")
    compiled = ov.Core().compile_model(ov.Model([node], [x, rois, batches]), "CPU")
    box = np.array([[0, 0, size, size]], np.float32)
    with pytest.raises(RuntimeError, match=message):
        compiled([np.ones((2, 3, 4, 4), np.float32), box, np.array([batch], np.int32)])
    box = np.array([[np.nan, 0, np.inf, -np.inf]], np.float32)
    answer = compiled([np.ones((2, 3, 4, 4), np.float32), box, np.array([1], np.int32)])[0]
    assert np.isfinite(answer).all()


@pytest.mark.parametrize("last", [False, True])
def test_pooling_of_random_regions(last):
    """ROIPooling by maxima and PSROIPooling by means, natively, in both layouts."""
    rng = np.random.default_rng(SEED)
    for round in range(12):
        group = int(rng.integers(1, 4))
        n, dim = int(rng.integers(1, 4)), int(rng.choice([1, 3, 17]))
        mean = round % 2 == 1
        c = dim * group**2 if mean else dim
        h, w, many = (int(v) for v in rng.integers(2, 15, 3))
        x = rng.standard_normal((n, h, w, c) if last else (n, c, h, w)).astype(np.float32)
        corner = rng.uniform(-5, 40, (many, 2))
        rois = np.concatenate(
            [rng.integers(0, n, (many, 1)), corner, corner + rng.uniform(-3, 30, (many, 2))], 1
        ).astype(np.float32)
        parameters = [real9.parameter(list(a.shape), a.dtype) for a in (x, rois)]
        source = real9.transpose(parameters[0], np.array([0, 3, 1, 2])) if last else parameters[0]
        if mean:
            node = real9.psroi_pooling(source, parameters[1], dim, group, 0.37, 1, 1, "average")
        else:
            node = real9.roi_pooling(source, parameters[1], [group, 2], 0.37, "max")
        where = f"seed {SEED} round {round}: {x.shape} {rois.tolist()} {group}"
        kinds = assert_same(model_of(node, parameters), [x, rois], where, atol=1e-4, rtol=1e-4)
        assert "ref_numpy" not in kinds


@pytest.mark.parametrize("last", [False, True])
def test_bilinear_pooling_of_random_regions(last):
    """Bilinear samples of ROIPooling and PSROIPooling, natively, in both layouts; beside OpenVINO and f64."""
    rng = np.random.default_rng(SEED)
    for round in range(12):
        n, dim = int(rng.integers(1, 4)), int(rng.choice([1, 3, 17]))
        bins = tuple(int(v) for v in rng.integers(1, 4, 2)) if round % 2 else (1, 1)
        pooled = [int(v) for v in rng.integers(1, 5, 2)]
        c = dim * bins[0] * bins[1]
        h, w, many = (int(v) for v in rng.integers(1, 15, 3))
        if round == 2:  # 25 times a 25th of 7 is more than 7
            h, w, pooled = 8, 8, [26, 26]
        x = rng.standard_normal((n, h, w, c) if last else (n, c, h, w)).astype(np.float32)
        corner = rng.uniform(-0.1, 0.8, (many, 2))
        other = corner + rng.uniform(-0.3, 0.6, (many, 2))
        rois = np.concatenate([rng.integers(0, n, (many, 1)), corner, other], 1).astype(np.float32)
        rois[0, 1:] = 0, 0, 1, 1
        rois[many // 2 + 1 :, 0] = -1  # absent
        parameters = [real9.parameter(list(a.shape), a.dtype) for a in (x, rois)]
        source = real9.transpose(parameters[0], np.array([0, 3, 1, 2])) if last else parameters[0]
        if round % 2:
            name, attrs = "PSROIPooling", {
                "output_dim": dim, "group_size": pooled[0], "spatial_scale": 0.75, "spatial_bins_x": bins[1],
                "spatial_bins_y": bins[0], "mode": "bilinear",
            }  # fmt: skip
            node = real9.psroi_pooling(source, parameters[1], dim, pooled[0], 0.75, *bins[::-1], "bilinear")
        else:
            name = "ROIPooling"
            attrs = {"output_roi": tuple(pooled), "spatial_scale": 0.75, "method": "bilinear"}
            node = real9.roi_pooling(source, parameters[1], pooled, 0.75, "bilinear")
        where = f"{name}, seed {SEED} round {round}: {x.shape} {rois.tolist()} {pooled} {bins}"
        model = model_of(node, parameters)
        assert "ref_numpy" not in assert_same(model, [x, rois], where, atol=1e-4, rtol=1e-4)
        record = find_op(name)
        planes = (x.transpose(0, 3, 1, 2) if last else x).astype(np.float64)
        (wanted,) = record.evaluate([planes, rois], record.check_attributes(attrs))
        got = our_answers(model, [x, rois])[0][0]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=where)


def test_pooling_of_hostile_regions():
    """An image that there is not is an error, a negative one is absent; corners may be anything."""
    hostile = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0, 3, -1e-40], np.float32)
    rng = np.random.default_rng(SEED)
    x, rois = ov.opset9.parameter([2, 8, 4, 4], np.float32), ov.opset9.parameter([20, 5], np.float32)
    for parts, node in (
        (1, ov.opset9.roi_pooling(x, rois, [2, 2], 1.0, "max")),
        (1, ov.opset9.psroi_pooling(x, rois, 2, 2, 1.0, 1, 1, "average")),
        (1, ov.opset9.roi_pooling(x, rois, [2, 2], 1.0, "bilinear")),
        (8, ov.opset9.psroi_pooling(x, rois, 1, 2, 1.0, 2, 4, "bilinear")),
    ):
        compiled = ov.Core().compile_model(ov.Model([node], [x, rois]), "CPU")
        for _ in range(10):
            boxes = rng.choice(hostile, (20, 5))
            boxes[:, 0] = rng.choice([0, 1, -1, np.nan], 20)
            answer = compiled([np.ones((2, 8, 4, 4), np.float32), boxes])[0]
            inside = np.round(answer * parts)
            assert ((inside >= 0) & (inside <= parts) & np.isclose(answer * parts, inside)).all()
        boxes[7, 0] = 2
        with pytest.raises(RuntimeError):
            compiled([np.ones((2, 8, 4, 4), np.float32), boxes])


@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE"])
def test_auxiliary_boxes_take_the_place_of_priors(code):
    """They are decoded as priors are: clipped, and divided by the picture's size once more."""
    rng = np.random.default_rng(SEED)
    for normalized, encoded, share, clipped in itertools.product([True, False], repeat=4):
        count, classes = 7, 3
        size, sets = (4 if normalized else 5), (1 if share else classes)
        first = rng.uniform(0, 0.6, (count, 2))
        priors = np.concatenate([first, first + rng.uniform(0.1, 0.4, (count, 2))], 1)
        if not normalized:
            priors = np.concatenate([np.zeros((count, 1)), priors * [40, 30, 40, 30]], 1)
        rows = np.concatenate([priors.reshape(-1), np.full(0 if encoded else count * size, 0.4)])
        inputs = [
            rng.uniform(-0.5, 0.5, (2, count * 4 * sets)),
            rng.random((2, count * classes)),
            rows.reshape(1, -1, count * size),
            rng.random((2, count * 2)),
            rng.uniform(-0.5, 0.5, (2, count * 4 * sets)),
        ]
        given = [x.astype(np.float32) for x in inputs]
        attrs = {
            "background_label_id": 0,
            "top_k": 20,
            "variance_encoded_in_target": encoded,
            "keep_top_k": [20],
            "code_type": f"caffe.PriorBoxParameter.{code}",
            "share_location": share,
            "nms_threshold": 0.45,
            "confidence_threshold": 0.1,
            "clip_before_nms": clipped,
            "normalized": normalized,
            "input_height": 1 if normalized else 30,
            "input_width": 1 if normalized else 40,
            "objectness_score": 0.3,
        }
        parameters = [real9.parameter(list(x.shape), np.float32) for x in given]
        node = real9.detection_output(*parameters[:3], attrs, *parameters[3:])
        assert_same(model_of(node, parameters), given, f"{code} {normalized} {encoded} {share} {clipped}")


@pytest.mark.parametrize("axis, end", [(-1, 2), (3, 1), (2, 2), (0, 3), (1, 3), (-3, -2)])
def test_region_yolo_merges_what_is_between_its_axes(axis, end):
    data = np.random.default_rng(SEED).uniform(-3, 3, (2, 12, 3, 7)).astype(np.float32)
    parameter = real9.parameter(list(data.shape), np.float32)
    node = real9.region_yolo(parameter, 2, 1, 3, True, [0, 1, 2], axis, end, [1.0, 2.0])
    kinds = assert_same(model_of(node, [parameter]), [data], f"{axis} {end}")
    assert "ref_numpy" not in kinds


def arguments_of(function):
    return [p.name for p in inspect.signature(function).parameters.values()]


NAMES = """grid_sample roi_align roi_pooling psroi_pooling deformable_psroi_pooling non_max_suppression
multiclass_nms matrix_nms detection_output proposal prior_box prior_box_clustered region_yolo reorg_yolo
generate_proposals deformable_convolution binary_convolution extract_image_patches nv12_to_rgb i420_to_bgr
nms_rotated roi_align_rotated col2im interpolate""".split()


@pytest.mark.parametrize("opset", [1, 3, 5, 8, 9, 10, 11, 13, 15])
def test_builders_take_openvinos_arguments(opset):
    """By OpenVINO's names, in its order. Attributes that only files have may follow the node's name."""
    theirs, ours = (import_module(f"{package}.opset{opset}") for package in ("openvino", "ovjit"))
    for name in NAMES:
        if hasattr(theirs, name):
            wanted = arguments_of(getattr(theirs, name))
            assert arguments_of(getattr(ours, name))[: len(wanted)] == wanted, name
