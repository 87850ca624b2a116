"""Detection layers that OpenVINO has no builders for, natively, beside the real OpenVINO at sizes that
networks have: whether a box is kept may turn on one more pixel."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.api.model.builders import as_output
from ovjit.api.model.node import Node
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from ovjit_ops.detection.cpu_candidates import INSERTED
from tests.support.run import run_job
from tests.support.samples import samples_of

SEED = 20261120
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def regions(rng: np.random.Generator, many: int, largest: float = 300.0) -> np.ndarray:
    corner = rng.uniform(0, 500, (many, 2))
    return np.concatenate([corner, corner + rng.uniform(10, largest, (many, 2))], 1).astype(np.float32)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * 0.3).astype(np.float32)


def proposal(rng: np.random.Generator, framework: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    attrs = {
        "base_size": 16, "pre_nms_topn": 1000, "post_nms_topn": 150, "nms_thresh": 0.7, "feat_stride": 16,
        "min_size": 16, "ratio": (0.5, 1.0, 2.0), "scale": (4.0, 8.0), "framework": framework,
        "normalize": framework == "", "clip_after_nms": framework == "",
    }  # fmt: skip
    info = np.array([400.0, 560.0, 1.0], np.float32)
    return [rng.random((2, 12, 25, 35)).astype(np.float32), normal(rng, 2, 24, 25, 35), info], attrs


def single(rng: np.random.Generator, least: float) -> tuple[list[np.ndarray], dict[str, Any]]:
    attrs = {"min_size": least, "nms_threshold": 0.7, "pre_nms_count": 1000, "post_nms_count": 800}
    info = np.array([500.0, 600.0, 1.0], np.float32)
    anchors = regions(rng, 3 * 25 * 35)
    return [info, anchors, normal(rng, 12, 25, 35), rng.random((3, 25, 35)).astype(np.float32)], attrs


def detections(rng: np.random.Generator, agnostic: bool) -> tuple[list[np.ndarray], dict[str, Any]]:
    attrs = {
        "score_threshold": 0.05, "nms_threshold": 0.5, "num_classes": 7, "post_nms_count": 200,
        "max_detections_per_image": 100, "class_agnostic_box_regression": agnostic,
        "max_delta_log_wh": 4.135, "deltas_weights": (10.0, 9.0, 5.0, 4.0),
    }  # fmt: skip
    chances = rng.dirichlet(np.full(7, 0.3), 300).astype(np.float32)
    info = np.array([[400.0, 300.0, 1.0]], np.float32)
    return [regions(rng, 300), normal(rng, 300, 28), chances, info], attrs


def grid(rng: np.random.Generator, flatten: bool) -> tuple[list[np.ndarray], dict[str, Any]]:
    maps = [np.zeros((1, 2, 25, 34), np.float32), np.zeros((1, 3, 400, 545), np.float32)]
    return [normal(rng, 3, 4), *maps], {"flatten": flatten}


def best(rng: np.random.Generator, most: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    return [regions(rng, 500), rng.random(500).astype(np.float32)], {"max_rois": most}


def pyramid(rng: np.random.Generator, ratio: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    attrs = {"output_size": 5, "sampling_ratio": ratio, "pyramid_scales": (4, 8, 16), "aligned": ratio == 2}
    return [regions(rng, 60, 700.0), *(normal(rng, 1, 19, 160 >> i, 200 >> i) for i in range(3))], attrs


PREFIX = "ExperimentalDetectron"
CASES: dict[str, tuple[str, Any]] = {
    "proposal": ("Proposal", lambda rng: proposal(rng, "")),
    "proposal of TensorFlow": ("Proposal", lambda rng: proposal(rng, "tensorflow")),
    "single image": (f"{PREFIX}GenerateProposalsSingleImage", lambda rng: single(rng, 0.0)),
    "single image of large boxes": (f"{PREFIX}GenerateProposalsSingleImage", lambda rng: single(rng, 80.0)),
    "detections": (f"{PREFIX}DetectionOutput", lambda rng: detections(rng, False)),
    "detections, whatever the class": (f"{PREFIX}DetectionOutput", lambda rng: detections(rng, True)),
    "grid": (f"{PREFIX}PriorGridGenerator", lambda rng: grid(rng, True)),
    "grid of places": (f"{PREFIX}PriorGridGenerator", lambda rng: grid(rng, False)),
    "best": (f"{PREFIX}TopKROIs", lambda rng: best(rng, 100)),
    "pyramid": (f"{PREFIX}ROIFeatureExtractor", lambda rng: pyramid(rng, 2)),
    "pyramid, as many samples as needed": (f"{PREFIX}ROIFeatureExtractor", lambda rng: pyramid(rng, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_like_openvino_and_native(case: str, tmp_path: Path) -> None:
    name, make = CASES[case]
    inputs, attrs = make(np.random.default_rng(SEED))
    record = find_op(name)
    parameters = [ov.opset8.parameter(list(a.shape), a.dtype) for a in inputs]
    node = Node._new(record, [as_output(p) for p in parameters], record.check_attributes(attrs), None)
    model = ov.Model(node.outputs(), parameters, "one")
    ov.save_model(model, tmp_path / "one.xml", compress_to_fp16=False)
    request = ov.compile_model(model, "CPU", {**EXACT, "PERF_COUNT": True}).create_infer_request()
    results = request.infer(inputs)
    wanted = openvino.Core().compile_model(str(tmp_path / "one.xml"), "CPU", EXACT)(inputs)
    for i in range(len(wanted)):
        if name == "Proposal" and i == 1:  # OpenVINO leaves the scores of missing regions as they are
            there = wanted[0][:, 0] >= 0
            np.testing.assert_allclose(results[1][there], wanted[1][there], rtol=1e-5)
            continue
        np.testing.assert_allclose(
            results[i], wanted[i], rtol=1e-4, atol=2e-3, err_msg=f"output {i}, seed {SEED}"
        )
    assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}


@pytest.mark.parametrize("many", (1, INSERTED - 1, INSERTED, INSERTED + 1, 4 * INSERTED))
def test_equal_scores_of_few_and_more_boxes(many: int) -> None:
    """Few candidates are inserted, more are sorted by bytes: of equal scores, negative ones too, the first
    boxes are chosen."""
    rng = np.random.default_rng(SEED)
    boxes, scores = regions(rng, many)[None], rng.integers(-3, 4, (1, 3, many)).astype(np.float32)
    b = Builder()
    ends = [b.add("Parameter", (), {"shape": a.shape, "element_type": "f32"}).output for a in (boxes, scores)]
    limits = [b.constant(np.array(v, t)) for v, t in ((many, "i8"), (0.4, "f4"), (-5, "f4"))]
    attrs = {"box_encoding": "corner", "sort_result_descending": False, "output_type": "i64"}
    graph = b.finish(b.add("NonMaxSuppression", (*ends, *limits), attrs).outputs)
    job = compile_graph(graph, {"threads": 1, "profiling": True}).new_job()
    run_job(job, [boxes, scores])
    assert "ref_numpy" not in {row.exec_type for row in job.profile()}
    for got, want in zip(job.outputs, evaluate(graph, [boxes, scores]), strict=True):
        np.testing.assert_array_equal(got, want, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("name", ("MulticlassNms", "MatrixNms", "GenerateProposals", "DetectionOutput"))
def test_rows_of_any_number_of_images_are_native(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN among scores, boxes that are equal, no images at all: as the references, by few traces."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    record, rng = find_op(name), np.random.default_rng(SEED)
    for case, (inputs, attrs) in enumerate(itertools.islice(samples_of(record, rng, "f32"), 5)):
        attrs = record.check_attributes(attrs)
        if len(inputs) > 2 and (attrs.get("decrease_label_id") or inputs[2].dtype != np.float32):
            continue  # those are the reference's
        fixed = {"GenerateProposals": (1,), "DetectionOutput": (2,)}.get(name, ())
        b = Builder()
        values = [
            b.constant(x) if i in fixed else
            b.add("Parameter", (), {"shape": (ANY, *x.shape[1:]), "element_type": "f32"}).output
            for i, x in enumerate(inputs)
        ]  # fmt: skip
        executable = compile_graph(b.finish(b.add(record, values, attrs).outputs), {"threads": 1})
        job = executable.new_job()
        for images in (2, 1, 5, 3, 0, 7):
            given = [x if i in fixed else np.resize(x, (images, *x.shape[1:])) for i, x in enumerate(inputs)]
            for x in given[-1:] if name == "GenerateProposals" else given[1:2]:
                x.reshape(-1)[::7] = np.nan
                x.reshape(-1)[1::5] = 0.5
            for i, x in enumerate(x for i, x in enumerate(given) if i not in fixed):
                job.set_input(i, np.ascontiguousarray(x))
            job.run()
            where = f"{name} sample {case} of {images} images"
            for got, want in zip(job.outputs, record.evaluate(given, attrs), strict=True):
                np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5, err_msg=where)
            assert not [row for row in job.profile() if row[2] == "ref_numpy"], where


@pytest.mark.parametrize("encoding", ["corner", "center"])
def test_soft_suppression(encoding: str) -> None:
    """Scores fall instead of boxes: with numbers that are none, infinite ones, boxes without an area, equal
    scores, limits that let all or none through, and no boxes at all. To the row as the reference."""
    rng = np.random.default_rng(SEED)
    for images, classes, many, most, threshold, sigma in (
        (2, 3, 70, 30, 0.01, 0.5), (1, 1, 1, 5, 0.0, 0.1), (1, 2, 33, 100, -np.inf, 2.0),
        (2, 1, 0, 4, 0.1, 0.5), (1, 2, 16, 16, 0.99, 0.5), (1, 1, 47, 0, 0.0, 0.5),
        (1, 1, 65, 65, np.nan, 0.5), (1, 2, 40, 40, 0.0, 1e-6),
    ):  # fmt: skip
        centre, size = rng.uniform(0, 10, (images, many, 2)), rng.uniform(0, 5, (images, many, 2))
        ends = (centre, size) if encoding == "center" else (centre + size, centre)
        boxes = np.concatenate(ends, 2).astype(np.float32)
        scores = rng.random((images, classes, many)).astype(np.float32)
        if many > 30:
            boxes[0, :4] = np.nan, np.inf, 0, -np.inf
            boxes[0, 4:8] = boxes[0, 8:12]
            scores[0, 0, 12:18] = np.nan, np.inf, -np.inf, -0.0, 0.7, 0.7
        limits = [np.array(most), *(np.float32(x) for x in (0.3, threshold, sigma))]
        b = Builder()
        opened = {"shape": (ANY,) * 3, "element_type": "f32"}
        ports = [b.add("Parameter", (), opened).output for _ in range(2)]
        attrs = {"box_encoding": encoding, "sort_result_descending": True, "output_type": "i64"}
        node = b.add("NonMaxSuppression", [*ports, *(b.constant(x) for x in limits)], attrs)
        graph = b.finish(node.outputs)
        job = compile_graph(graph, {"threads": 2}).new_job()
        run_job(job, (boxes, scores))
        assert any(row.exec_type.startswith("nms_select_soft") for row in job.profile()) or not many
        with np.errstate(all="ignore"):
            rows, values, count = evaluate(graph, [boxes, scores])
        where = f"{many} boxes, {most} {threshold} {sigma}, seed {SEED}"
        np.testing.assert_array_equal(job.outputs[0], rows, err_msg=where)
        np.testing.assert_allclose(job.outputs[1], values, rtol=2e-5, err_msg=where)
        np.testing.assert_array_equal(job.outputs[2], count, err_msg=where)
