"""Operators of the domain org.openvinotoolkit, beside the real OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

import ovjit as ov
from ovjit.errors import OvjitError

DOMAIN = "org.openvinotoolkit"
DETECTRON = "ExperimentalDetectron"
ORDER = [0.1, 0.1, 0.2, 0.2]
_random = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return _random.standard_normal(shape).astype(np.float32)


def floats(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def boxes(count: int) -> np.ndarray:
    corners = _random.random((count, 2)) * 50
    return np.concatenate([corners, corners + 5 + _random.random((count, 2)) * 40], 1).astype(np.float32)


def uniform(*shape: int) -> np.ndarray:
    return _random.random(shape).astype(np.float32)


PRIORS = np.stack([np.sort(_random.random((5, 4)), 1).reshape(-1), np.full(20, 0.1)])[None].astype(np.float32)
#: Operator, inputs, number of outputs, positions of inputs that are initializers, attributes.
CASES: list[tuple[str, list[np.ndarray], int, tuple[int, ...], dict[str, Any]]] = [
    ("FakeQuantize", [normal(1, 3, 4, 4), *(floats(v) for v in (-1, 1, -2, 2))], 1, (1, 2, 3, 4),
     {"levels": 16}),
    ("Swish", [normal(2, 3)], 1, (), {}),
    ("Swish", [normal(2, 3), floats(2)], 1, (), {}),
    ("Normalize", [normal(2, 3, 4, 4), normal(3)], 1, (1,), {"eps": 1e-3}),
    ("Normalize", [normal(2, 3, 4, 4), normal(1)], 1, (1,),
     {"across_spatial": 1, "channel_shared": 1, "eps": 1e-3}),
    ("GroupNorm", [normal(2, 4, 3, 3), normal(4), normal(4)], 1, (), {"num_groups": 2}),
    (DETECTRON + "GroupNorm", [normal(2, 4, 3, 3), normal(1, 4, 1, 1), normal(1, 4, 1, 1)], 1, (1, 2),
     {"num_groups": 2, "eps": 1e-3}),
    ("DeformableConv2D", [normal(1, 4, 6, 6), normal(1, 18, 6, 6), normal(2, 4, 3, 3)], 1, (),
     {"pads": [1, 1, 1, 1]}),
    ("DeformableConv2D", [normal(1, 4, 6, 6), normal(1, 36, 3, 3), normal(2, 2, 3, 3), normal(1, 18, 3, 3)],
     1, (), {"pads": [1, 1, 1, 1], "strides": [2, 2], "group": 2, "deformable_groups": 2}),
    ("DetectionOutput", [normal(1, 20), uniform(1, 15), PRIORS], 1, (),
     {"nms_threshold": 0.5, "keep_top_k": 10, "top_k": 20, "code_type": "CENTER_SIZE"}),
    ("PriorBox", [normal(1, 3, 4, 4), normal(1, 3, 32, 32)], 1, (),
     {"min_size": [8.0], "max_size": [16.0], "aspect_ratio": [2.0], "flip": 1, "clip": 1, "offset": 0.5,
      "variance": ORDER}),
    ("PriorBox", [normal(1, 3, 4, 4), normal(1, 3, 32, 32)], 1, (),
     {"min_size": [8.0], "max_size": [16.0], "aspect_ratio": [2.0], "step": 8.0, "variance": ORDER,
      "min_max_aspect_ratios_order": 0}),
    ("PriorBoxClustered", [normal(1, 3, 4, 4), normal(1, 3, 32, 32)], 1, (),
     {"width": [8.0, 4.0], "height": [16.0, 2.0], "step_h": 8.0, "step_w": 8.0, "offset": 0.5}),
    (DETECTRON + "PriorGridGenerator", [boxes(3), normal(1, 4, 5, 6), normal(1, 3, 40, 48)], 1, (), {}),
    (DETECTRON + "TopKROIs", [boxes(6), uniform(6)], 1, (), {"max_rois": 4}),
    (DETECTRON + "ROIFeatureExtractor", [boxes(4), normal(1, 2, 16, 16), normal(1, 2, 8, 8)], 2, (),
     {"pyramid_scales": [4, 8]}),
    (DETECTRON + "DetectionOutput", [boxes(8), normal(8, 12), uniform(8, 3), floats([100, 100, 1])], 3, (),
     {"num_classes": 3, "post_nms_count": 20, "max_detections_per_image": 5}),
    (DETECTRON + "GenerateProposalsSingleImage",
     [floats(100, 100, 1), boxes(36), normal(12, 3, 4), normal(3, 3, 4)], 2, (), {"post_nms_count": 5}),
    ("GenerateProposals", [uniform(1, 3, 4, 4), normal(1, 12, 4, 4), floats([100, 100, 1]), boxes(3)], 3, (),
     {"post_nms_topN": 5}),
    ("GenerateProposals",
     [uniform(2, 3, 4, 4), normal(2, 12, 4, 4), floats(*[[100, 100, 1, 1]] * 2), boxes(3)], 3, (),
     {"post_nms_topN": 5, "legacy_plus_one": 0}),
]  # fmt: skip


def model_of(
    op: str, inputs: list[np.ndarray], outputs: int, constants: tuple[int, ...], attrs: Any
) -> bytes:
    names = [f"i{i}" for i in range(len(inputs))]
    node = helper.make_node(op, names, [f"o{i}" for i in range(outputs)], domain=DOMAIN, **attrs)
    parameters = [
        helper.make_tensor_value_info(names[i], TensorProto.FLOAT, x.shape)
        for i, x in enumerate(inputs)
        if i not in constants
    ]
    results = [helper.make_tensor_value_info(f"o{i}", TensorProto.FLOAT, None) for i in range(outputs)]
    initializers = [numpy_helper.from_array(inputs[i], names[i]) for i in constants]
    graph = helper.make_graph([node], "g", parameters, results, initializers)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


def infer(package: Any, content: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    core = package.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(inputs)
    return [results[i] for i in range(len(compiled.outputs))]


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "constants", "attrs"),
    CASES,
    ids=[f"{i} {case[0]}" for i, case in enumerate(CASES)],
)
def test_operators_of_openvinos_domain_are_as_there(op, inputs, outputs, constants, attrs):
    content = model_of(op, inputs, outputs, constants, attrs)
    given = [x for i, x in enumerate(inputs) if i not in constants]
    expected = infer(openvino, content, given)
    results = infer(ov, content, given)
    for value, right in zip(results, expected, strict=True):
        assert value.shape == right.shape and value.dtype == right.dtype
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-5)


def test_a_missing_attribute_and_an_unknown_choice_are_named():
    without = model_of("FakeQuantize", CASES[0][1], 1, (), {})
    with pytest.raises(OvjitError, match="levels"):
        ov.Core().read_model(without)
    wrong = model_of("DetectionOutput", CASES[9][1], 1, (), {"nms_threshold": 0.5, "code_type": "MIDDLE"})
    with pytest.raises(OvjitError, match="code_type"):
        ov.Core().read_model(wrong)
