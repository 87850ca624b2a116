"""Resize in all its modes, beside ONNX Runtime and ONNX's evaluator; NaN and infinities in images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import ovjit
from tests.support.onnx.beside_onnxruntime import by_onnxruntime, by_ovjit
from tests.support.sweeps import some

NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
#: opset -> its coordinate transformations without a region. ONNX's evaluator lacks tf_half_pixel_for_nn.
COORDINATES = {
    11: ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"),
    13: ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"),
    19: ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"),
}
EXTENTS = (5, 7)
SCALES = (0.5, 0.25, 0.75, 0.6, 0.3, 1 / 3, 1.5, 2.0, 2.3, 3.0, 0.9, 0.8)


def resize_nodes(opset: int, by: str) -> Iterator[tuple[str, int, Any, dict[str, str]]]:
    """(what it is, extent, scale or size, attributes)"""
    for coordinate, nearest, extent in itertools.product(COORDINATES[opset], NEAREST, EXTENTS):
        if by == "scales" and coordinate == "align_corners":
            continue  # the standard aligns unrounded lengths, ONNX Runtime rounded ones
        for goal in SCALES if by == "scales" else (1, 2, 3, 4, 6, 8, 9, 11, 12, 14):
            length = int(np.floor(np.float32(extent) * np.float32(goal))) if by == "scales" else goal
            if length:
                how = {"coordinate_transformation_mode": coordinate, "nearest_mode": nearest}
                yield f"{coordinate} {nearest} {extent} by {goal:.3g}", extent, goal, how


def model_of_all(opset: int, by: str) -> tuple[bytes, list[str], dict[str, np.ndarray]]:
    """One model with all nodes, each with an output."""
    nodes, inits, names = [], {}, []
    for name, extent, goal, how in resize_nodes(opset, by):
        key = f"{by} {goal:.3g}"
        inits[key] = np.array([goal], np.float32 if by == "scales" else np.int64)
        inits["none"] = np.zeros(0, np.float32)
        inputs = [f"x{extent}", "none", key] if by == "scales" else [f"x{extent}", "none", "none", key]
        nodes.append(helper.make_node("Resize", inputs, [name], mode="nearest", **how))
        names.append(name)
    given = {f"x{n}": np.arange(n, dtype=np.float32) for n in EXTENTS}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(k, 1, v.shape) for k, v in given.items()],
        [helper.make_tensor_value_info(name, 1, None) for name in names],
        [numpy_helper.from_array(v, k) for k, v in inits.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString(), names, given


@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("opset", some((19, 11, 13), 1))
def test_nearest_elements_where_the_standard_and_onnxruntime_agree(opset: int, by: str) -> None:
    model, names, given = model_of_all(opset, by)
    theirs = by_onnxruntime(model, given)
    standard = ReferenceEvaluator(model).run(None, given)
    ours = by_ovjit(model, given, native=False)
    compared = 0
    for name, a, b, c in zip(names, theirs, standard, ours, strict=True):
        if a.shape == b.shape and np.array_equal(a, b):
            compared += 1
            np.testing.assert_array_equal(c, a, err_msg=name)
    assert compared > 0.8 * len(names) > 100


def test_a_half_symmetric_pixel() -> None:
    """[1, 3]: the standard's formula in f64 gave 0.9999999999999998 for the first place"""
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="half_pixel_symmetric",
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, [None])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.array([0.5], np.float32), "s")],
    )  # fmt: skip
    for shape in ([5], [None]):
        graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, shape))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
        made = ovjit.compile_model(ovjit.Core().read_model(model.SerializeToString()), "CPU")
        np.testing.assert_array_equal(made([np.arange(5, dtype=np.float32)])[0], [1, 3])


#: Attributes, and whether ONNX Runtime takes them.
FILTERS: tuple[tuple[dict[str, Any], bool], ...] = (
    ({"mode": "linear"}, True),
    ({"mode": "linear", "antialias": 1}, True),
    ({"mode": "linear", "exclude_outside": 1}, False),
    ({"mode": "cubic"}, True),
    ({"mode": "cubic", "antialias": 1}, True),
    ({"mode": "cubic", "exclude_outside": 1}, True),
    ({"mode": "cubic", "antialias": 1, "exclude_outside": 1}, True),
)


def resized(attributes: dict[str, Any], scale: float, is_open: bool) -> bytes:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], **attributes)
    shape = [1, 1, None, None] if is_open else [1, 1, 8, 8]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "s")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("attributes, runs", FILTERS)
def test_one_bad_pixel_stays_where_its_weight_is(
    attributes: dict[str, Any], runs: bool, is_open: bool
) -> None:
    for scale, value in itertools.product((2.0, 0.5), (np.nan, np.inf)):
        model = resized(attributes, scale, is_open)
        image = np.ones((1, 1, 8, 8), np.float32)
        image[0, 0, 3, 4] = value
        ours = [by_ovjit(model, {"x": image}, native)[0] for native in (False, True)]
        np.testing.assert_allclose(*ours, rtol=1e-6)
        stretch = min(scale, 1) if "antialias" in attributes else 1
        support = (2 if attributes["mode"] == "linear" else 4) / stretch
        assert 0 < np.isfinite(ours[0]).size - np.isfinite(ours[0]).sum() <= (scale * support) ** 2
        if runs:
            theirs = by_onnxruntime(model, {"x": image})[0]
            np.testing.assert_array_equal(np.isfinite(ours[0]), np.isfinite(theirs), str((attributes, scale)))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("attributes", [row for row, runs in FILTERS if runs and len(row) > 1], ids=str)
def test_weights_that_are_known_are_tables(attributes: dict[str, Any], dtype: Any) -> None:
    """Neither the elements of all sums nor their products are stored: one kernel an axis."""
    for shape, scales in (
        ((2, 3, 17, 40), (0.4, 0.3)),
        ((1, 2, 9, 6), (2.5, 0.6)),
        ((1, 1, 3, 8), (1.0, 3.0)),
    ):
        graph = helper.make_graph(
            [helper.make_node("Resize", ["x", "", "s"], ["y"], **attributes)], "g",
            [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)],
            [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)],
            [numpy_helper.from_array(np.array([1, 1, *scales], np.float32), "s")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
        data = model.SerializeToString()
        x = np.random.default_rng(7).integers(0, 256, shape).astype(dtype)
        request = ovjit.compile_model(ovjit.Core().read_model(data), "CPU", {"PERF_COUNT": True})
        request = request.create_infer_request()
        made = request.infer([x])[0]
        kernels = [row.exec_type for row in request.get_profiling_info()]
        assert sum("resize" in name for name in kernels) == sum(s != 1 for s in scales), kernels
        assert not any("gather" in name.lower() or "ref" in name for name in kernels), kernels
        if dtype == np.uint8:  # exactly rounded: ONNX Runtime rounds after each axis
            np.testing.assert_array_equal(made, by_ovjit(data, {"x": x}, False)[0])
        else:
            theirs = by_onnxruntime(data, {"x": x})[0]
            np.testing.assert_allclose(made, theirs, rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("mode", ["linear", "linear_onnx", "cubic", "bilinear_pillow", "bicubic_pillow"])
def test_interpolate_reads_no_pixel_of_weight_0(mode: str) -> None:
    """Each in a row of its own: NaN, infinity and 1 have the same support, natively and in the reference."""
    o = ovjit.opset11
    for shape, size in (([1, 1, 8, 8], 16), ([1, 1, 8, 8], 4), ([1, 1, 8, 8], 11), ([1, -1, -1, 8], 11)):
        x = o.parameter(shape, np.float32)
        y = o.interpolate(x, np.array([size, size]), mode, "sizes", axes=np.array([2, 3]))
        model = ovjit.Model([y], [x])
        compiled = ovjit.compile_model(model, "CPU")
        for row, column in ((3, 3), (0, 7), (7, 2)):
            image = np.zeros((1, 1, 8, 8), np.float32)
            made = []
            for value in (1.0, np.nan, np.inf, -np.inf):
                image[0, 0, row, column] = value
                made.append(compiled([image])[0].copy())
            weighted = made[0] != 0
            for value, result in zip((np.nan, np.inf, -np.inf), made[1:], strict=True):
                np.testing.assert_array_equal(~np.isfinite(result), weighted, f"{mode} {size} {value}")
                assert not np.isnan(result[weighted]).any() or np.isnan(value)
            expected = ovjit.Tensor(np.zeros_like(made[0]))
            model.reshape([1, 1, 8, 8])
            model.evaluate([expected], [ovjit.Tensor(image)])
            np.testing.assert_array_equal(np.isfinite(expected.data), np.isfinite(made[-1]))
