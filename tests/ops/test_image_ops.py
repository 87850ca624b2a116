"""Operations on pictures against the real OpenVINO's CPU device, with attributes drawn at random."""

from __future__ import annotations

import numpy as np
import openvino
import openvino.opset1 as real1
import openvino.opset10 as real10
import openvino.opset11 as real11
import pytest

import ovjit as ov
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from tests.support import guard_pages
from tests.support.graph_nets import add, parameter
from tests.support.oracle import assert_same
from tests.support.sweeps import some

SEED = 101


def data(rng, shape, dtype=np.float32):
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("scales", [[2.5, 0.7], [0.7, 2.5], [3.0, 0.4], [0.5, 0.6]])
def test_one_side_larger_with_antialias(scales, opened):
    """Rows of the larger side that nothing counts for are 0, as `Model.evaluate` has it; OpenVINO's device
    ignores `antialias`."""
    x = data(np.random.default_rng(SEED), (1, 3, 7, 5))
    answers = []
    for package in (openvino, ov):
        o = package.opset11
        p = o.parameter([-1] * 4 if opened and package is ov else list(x.shape), np.float32)
        factors = np.array(scales, np.float32)
        node = o.interpolate(p, factors, "linear", "scales", axes=np.array([2, 3]), antialias=True)
        model = package.Model([node], [p], "antialias")
        if package is ov:
            answers.append(ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0])
            continue
        out = openvino.Tensor(openvino.Type.f32, node.get_output_shape(0))
        assert model.evaluate([out], [openvino.Tensor(x)])
        answers.append(out.data.copy())
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


@pytest.mark.parametrize("axes", [[3, 2], [2, 3]])
def test_axes_of_the_first_interpolate_are_a_set(axes):
    """Sizes are those of the axes in ascending order."""
    x = data(np.random.default_rng(SEED), (1, 2, 5, 6))
    answers = []
    for package in (openvino, ov):
        o = package.opset1
        p = o.parameter(list(x.shape), np.float32)
        attributes = {"axes": axes, "mode": "linear", "align_corners": False}
        node = o.interpolate(p, o.constant(np.array([8, 3])), attributes)
        model = package.Model([node], [p], "axes")
        answers.append(package.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0])
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


@pytest.mark.parametrize("part", some(range(4), 1))
def test_interpolate_of_random_attributes(part):
    rng = np.random.default_rng(SEED + part)
    modes = ("nearest", "linear", "linear_onnx", "cubic", "bilinear_pillow", "bicubic_pillow")
    for round in range(30):
        mode = modes[round % len(modes)]
        nhwc = rng.random() < 0.25 and mode != "linear_onnx"
        size = [int(v) for v in rng.integers(1, 40, 2)]
        channels = int(rng.choice([1, 3, 4, 17, 32]))
        shape = [int(rng.integers(1, 3)), *([*size, channels] if nhwc else [channels, *size])]
        axes = [1, 2] if nhwc else [2, 3]
        dtype = np.float32 if round % 5 else np.uint8
        by = ("sizes", "scales")[int(rng.integers(2))]
        factor = rng.choice([2.0, 3.0, 0.5, 1.0, rng.uniform(0.2, 3)], 2)
        wanted = [max(1, int(n * f)) for n, f in zip(size, factor, strict=True)]
        if by == "scales":
            factor = np.maximum(factor, [1.01 / n for n in size])
        value = np.array(wanted) if by == "sizes" else factor.astype(np.float32)
        pads = [[0, 0, 0, 0], [0, 0, 0, 0]]
        if rng.random() < 0.2 and not mode.endswith("pillow") and dtype == np.float32:
            pads = [[0, 0, *rng.integers(0, 3, 2).tolist()], [0, 0, *rng.integers(0, 3, 2).tolist()]]
            if nhwc:
                pads = [[0, *p[2:], 0] for p in pads]
        attrs = {
            "coordinate_transformation_mode": str(
                rng.choice(
                    [
                        "half_pixel",
                        "pytorch_half_pixel",
                        "asymmetric",
                        "tf_half_pixel_for_nn",
                        "align_corners",
                    ]
                )
            ),
            "nearest_mode": str(
                rng.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"])
            ),
            "antialias": False,  # which its device ignores in two dimensions
            "cube_coeff": float(rng.choice([-0.75, -0.5])) if mode == "cubic" else -0.5,
            "pads_begin": pads[0],
            "pads_end": pads[1],
        }
        x = data(rng, shape, dtype)
        parameter = real11.parameter(shape, dtype)
        where = f"seed {SEED + part} round {round}: {shape} {mode} {by} {value} {dtype.__name__} {attrs}"
        node = real11.interpolate(parameter, value, mode, by, axes=np.array(axes), **attrs)
        # sums of integers differ by what is cut off in the last place
        kinds = assert_same(
            openvino.Model([node], [parameter]), [x], where, atol=1 if dtype == np.uint8 else 5e-5
        )
        assert "ref_numpy" not in kinds, where


@pytest.mark.parametrize("opset", [1, 4, 9, 10, 11, 15])
def test_interpolate_is_built_as_openvino_builds_it(opset):
    """Opsets 1 to 9 make version 1 from a dict of attributes, 10 makes version 4, later ones version 11."""
    x = data(np.random.default_rng(SEED), (1, 2, 5, 6))
    ours = getattr(ov, f"opset{opset}")
    parameter = ours.parameter([1, 2, 5, 6], np.float32)
    real = {1: real1, 4: real1, 9: real1, 10: real10}.get(opset, real11)
    other = real11.parameter([1, 2, 5, 6], np.float32)
    answers = []
    for module, source, constant in ((ours, parameter, ours.constant), (real, other, real11.constant)):
        sizes = constant(np.array([10, 9]))
        if opset < 10:
            node = module.interpolate(
                source, sizes, {"axes": [2, 3], "mode": "linear", "align_corners": False}
            )
        elif opset == 10:
            scales = constant(np.array([2, 1.5], np.float32))
            node = module.interpolate(
                source, sizes, scales, "cubic", "sizes", axes=constant(np.array([2, 3]))
            )
        else:
            node = module.interpolate(source, sizes, "linear_onnx", "sizes", axes=constant(np.array([2, 3])))
        kind = node.get_type_info()
        package = ov if module is ours else openvino
        compiled = package.Core().compile_model(package.Model([node], [source]), "CPU")
        answers.append((kind.name, kind.version_id, node.get_attributes()["mode"], compiled(x)[0]))
    assert answers[0][:3] == answers[1][:3]
    np.testing.assert_allclose(answers[0][3], answers[1][3], rtol=1e-2, atol=1e-2)


def test_interpolate_of_open_shapes_and_many_dimensions():
    """The sizes follow from the shapes, plans from the data; six dimensions are more than the kernel has."""
    rng = np.random.default_rng(SEED)
    x = ov.opset11.parameter(ov.PartialShape([-1, -1, -1, -1]), np.float32)
    doubled = ov.opset11.interpolate(
        x, np.array([2, 2], np.float32), "linear_onnx", "scales", axes=np.array([2, 3])
    )
    request = (
        ov.Core().compile_model(ov.Model([doubled], [x]), "CPU", {"PERF_COUNT": True}).create_infer_request()
    )
    record = doubled.get_type_info()
    assert record.name == "Interpolate"
    for shape in ((1, 3, 4, 5), (2, 1, 7, 33), (1, 2, 1, 1), (0, 3, 4, 4)):
        value = data(rng, shape)
        got = request.infer([value])[0]
        up = np.stack([np.clip((np.arange(2 * n) + 0.5) / 2 - 0.5, 0, n - 1) for n in (shape[2],)])[0]
        assert got.shape == (*shape[:2], 2 * shape[2], 2 * shape[3]), shape
        if value.size:
            rows = np.array([np.interp(up, np.arange(shape[2]), c) for c in value[0, 0].T]).T
            across = np.clip((np.arange(2 * shape[3]) + 0.5) / 2 - 0.5, 0, shape[3] - 1)
            want = np.array([np.interp(across, np.arange(shape[3]), r) for r in rows])
            np.testing.assert_allclose(got[0, 0], want, rtol=1e-5, atol=1e-5)
    assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}
    value = data(rng, (2, 3, 2, 3, 4, 5))
    many = ov.opset11.parameter([2, 3, 2, 3, 4, 5], np.float32)
    turned = ov.opset11.transpose(many, np.array([1, 0, 3, 2, 4, 5]))
    node = ov.opset11.interpolate(turned, np.array([5, 7]), "cubic", "sizes", axes=np.array([1, 4]))
    ov.compare(ov.Model([node], [many]), [value])
    got = ov.Core().compile_model(ov.Model([node], [many]), "CPU")(value)[0]
    from ovjit.graph.op import find_op

    attrs = find_op("Interpolate").check_attributes({"mode": "cubic", "shape_calculation_mode": "sizes"})
    (want,) = find_op("Interpolate").evaluate(
        [value.transpose(1, 0, 3, 2, 4, 5), np.array([5, 7]), np.array([1, 4])], attrs
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "bad", [{"mode": "area"}, {"nearest_mode": "up"}, {"coordinate_transformation_mode": "x"}, {"axes": [7]}]
)
def test_interpolate_refuses_nonsense(bad):
    x = ov.opset11.parameter([1, 2, 5, 6], np.float32)
    attrs = {"mode": "nearest", "axes": [2, 3], **bad}
    axes = np.array(attrs.pop("axes"))
    with pytest.raises(RuntimeError):
        ov.opset11.interpolate(
            x,
            np.array([4, 4]),
            attrs.pop("mode"),
            "sizes",
            axes=axes if len(axes) > 1 else np.array([7, 1]),
            **attrs,
        )


@pytest.mark.parametrize("part", some(range(2), 1))
def test_grid_sample_of_random_attributes(part):
    rng = np.random.default_rng(SEED + part)
    for round in range(24):
        n, c = int(rng.integers(1, 3)), int(rng.choice([1, 3, 8, 17]))
        h, w, oh, ow = (int(v) for v in rng.integers(1, 20, 4))
        attrs = {
            "mode": ("bilinear", "nearest", "bicubic")[round % 3],
            "padding_mode": str(rng.choice(["zeros", "border", "reflection"])),
            "align_corners": bool(rng.integers(2)),
        }
        x, grid = data(rng, (n, c, h, w)), rng.uniform(-2, 2, (n, oh, ow, 2)).astype(np.float32)
        parameters = [real11.parameter(list(a.shape), np.float32) for a in (x, grid)]
        source = parameters[0]
        if round % 2:  # channels are adjacent
            parameters[0] = real11.parameter([n, h, w, c], np.float32)
            source, x = real11.transpose(parameters[0], np.array([0, 3, 1, 2])), data(rng, (n, h, w, c))
        node = real11.grid_sample(source, parameters[1], attrs)
        where = f"seed {SEED + part} round {round}: {x.shape} {grid.shape} {attrs}"
        kinds = assert_same(openvino.Model([node], parameters), [x, grid], where, rtol=1e-3, atol=1e-3)
        assert "ref_numpy" not in kinds, where


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_grid_sample_of_hostile_places(mode, padding):
    """NaN, infinities and places far away read nothing but the data."""
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": False}
    for channels in (2, 32):
        x = ov.opset9.parameter([1, 3, 4, channels], np.float32)
        grid = ov.opset9.parameter([1, 3, 17, 2], np.float32)
        node = ov.opset9.grid_sample(ov.opset9.transpose(x, np.array([0, 3, 1, 2])), grid, attrs)
        value = np.ones((1, 3, 4, channels), np.float32)
        places = np.resize(
            np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 0.5], np.float32), (1, 3, 17, 2)
        )
        places[0, 1] = places[0, 1, ::-1]
        got = ov.Core().compile_model(ov.Model([node], [x, grid]), "CPU")([value, places])[0]
        finite = got[np.isfinite(got)]
        assert mode == "bicubic" or ((finite == 0) | np.isclose(finite, 1)).all()


def test_grid_sample_reads_no_point_behind_the_last():
    """Positions are read by whole vectors. The grid ends at an inaccessible page."""
    rng = np.random.default_rng(SEED)
    for width in (15, 16, 17, 32, 33, 40):
        image = rng.standard_normal((1, 2, 5, 7), np.float32)
        grid = rng.uniform(-1.2, 1.2, (1, 1, width, 2)).astype(np.float32)
        b = Builder()
        sampled = add(b, "GridSample", parameter(b, image), parameter(b, grid), mode="nearest")
        graph = b.finish([sampled])
        ((got,),) = guard_pages.run_guarded(graph, [[image, grid]], guard_pages.BEHIND)
        np.testing.assert_array_equal(got, evaluate(graph, [image, grid])[0], err_msg=f"{width}")


@pytest.mark.parametrize("name", ["RGB", "BGR"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("single_plane", [True, False])
def test_to_nv12_and_back(name: str, dtype: type, single_plane: bool) -> None:
    """Colours that four pixels share come back as they were, up to the rounding of integers."""
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 256, (2, 4, 5, 3))
    picture = colours.repeat(2, 1).repeat(2, 2).astype(dtype)
    x = ov.opset13.parameter(picture.shape, dtype, name="x")
    planes = getattr(ov.opset17, f"{name.lower()}_to_nv12")(x, single_plane)
    back = getattr(ov.opset8, f"nv12_to_{name.lower()}")(*planes.outputs())
    compiled = ov.Core().compile_model(ov.Model([back], [x], "there and back"), "CPU")
    error = np.abs(compiled(picture)[0].astype(float) - picture)
    assert error.max() <= (4 if dtype == np.uint8 else 0.6)
