"""Which way 3x3 convolutions go: shapes of which one way was clearly the fastest where it was measured, with
everything in the caches and with nothing there. And that large images go through Winograd's steps in bands.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ovjit.codegen.cpu.formats import BF16, F32, FORMATS, Format
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.compiler.options import Context
from ovjit.engine import compile_graph
from ovjit.execution.executable import Executable
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.interp import evaluate
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Versions
from ovjit_ops.convolution import cpu_winograd
from ovjit_ops.convolution.convolution import convolve
from ovjit_ops.convolution.cpu_winograd import WinogradIfLarge, best_way, possible_ways
from tests.support.run import run_job
from tests.support.sweeps import in_turn

SEED = 20261121
LANES = 16
#: (format, channels, height, width, outs), and the ways that were not slower than any other.
CASES = [
    (F32, (64, 56, 56, 64), (4,)), (F32, (128, 28, 28, 128), (4,)), (F32, (256, 14, 14, 256), (2,)),
    (F32, (64, 56, 56, 192), (4,)), (F32, (128, 27, 27, 192), (4,)), (F32, (48, 28, 28, 48), (4,)),
    (F32, (160, 13, 13, 320), (2, 4)), (F32, (512, 7, 7, 512), (0, 2)), (F32, (192, 7, 7, 320), (0, 2)),
    (F32, (32, 112, 112, 32), (4,)), (F32, (32, 224, 224, 32), (4,)),
    # little to multiply: transforms and two more steps are most of it
    (F32, (16, 7, 7, 16), (0,)), (F32, (24, 7, 7, 24), (0,)), (F32, (16, 14, 14, 16), (0,)),
    (F32, (16, 14, 14, 32), (0,)), (F32, (17, 14, 14, 33), (0,)),
    # planes go through memory, and a panel of one vector makes the direct way fast
    (F32, (16, 224, 224, 16), (0,)), (F32, (16, 112, 112, 16), (0,)),
    (BF16, (192, 6, 6, 384), (2,)), (BF16, (160, 14, 14, 192), (2,)), (BF16, (96, 13, 13, 208), (2,)),
    (BF16, (16, 14, 14, 16), (0,)), (BF16, (16, 28, 28, 16), (0,)), (BF16, (16, 56, 56, 16), (0,)),
    (BF16, (24, 56, 56, 24), (0,)), (BF16, (16, 112, 112, 16), (0,)), (BF16, (16, 224, 224, 16), (0,)),
    (BF16, (32, 224, 224, 32), (0,)), (BF16, (16, 55, 55, 64), (0,)),
]  # fmt: skip


@pytest.mark.parametrize(("form", "shape", "ways"), CASES)
def test_the_fastest_way_is_chosen(form: Format, shape: tuple[int, ...], ways: tuple[int, ...]) -> None:
    channels, height, width, outs = shape
    assert best_way(1, height, width, channels, outs, LANES, possible_ways(form, channels, 0), form) in ways


#: Without VNNI.
BYTES = next(form for form in FORMATS if form.products > 1)
#: The same for bytes, on an AVX2 CPU, with usual weights.
USUAL = 1.92
CASES_OF_BYTES = [
    ((48, 13, 13, 192), 4), ((64, 56, 56, 64), 4), ((128, 28, 28, 128), 4), ((160, 14, 14, 320), 4),
    ((512, 7, 7, 512), 2), ((192, 7, 7, 384), 2), ((256, 14, 14, 256), 4),
    ((16, 54, 54, 64), 0), ((16, 112, 112, 16), 0), ((32, 112, 112, 32), 4),
    ((8, 28, 28, 16), 0), ((16, 7, 7, 16), 0), ((33, 56, 56, 64), 0),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "way"), CASES_OF_BYTES)
def test_the_fastest_way_of_bytes_is_chosen(shape: tuple[int, ...], way: int) -> None:
    channels, height, width, outs = shape
    assert (
        best_way(1, height, width, channels, outs, 8, possible_ways(BYTES, channels, 0), BYTES, USUAL) == way
    )


#: (channels, height, width, outs), and whether weights that go by slower loops make Winograd the faster way.
CASES_OF_WEIGHTS = [
    ((16, 56, 56, 64), True), ((16, 40, 40, 128), True), ((8, 28, 28, 16), False), ((16, 14, 14, 48), False),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "helps"), CASES_OF_WEIGHTS)
def test_weights_decide_the_way_of_bytes(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], helps: bool
) -> None:
    """Those that are normally distributed go by slower loops; where one is eight times as large, they are so
    small that they go by faster ones."""
    monkeypatch.setattr(cpu_winograd, "tile_format", lambda *_: BYTES)
    channels, height, width, outs = shape
    rng = np.random.default_rng([SEED, *shape])
    for most, way in ((None, 4 if helps else 0), (8, 0)):
        weights = rng.standard_normal((outs, channels, 3, 3), np.float32)
        if most is not None:
            weights[:, 0, 0, 0] = most
        bytes = np.rint(weights / np.abs(weights).max((1, 2, 3), keepdims=True) * 127).astype(np.int8)
        b = Builder()
        shape_of_x = (1, channels, height, width)
        x = b.add("Parameter", (), {"shape": shape_of_x, "element_type": "u8"}).output
        attrs = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1), "dilations": (1, 1)}
        sums = [TensorType("i32", (1, outs, height, width))]
        node = b.add("Convolution", [x, b.constant(bytes)], attrs, types=sums)
        assert cpu_winograd.winograd_way(Group(Context(TARGETS["avx2"]), node)) == (way, 0), (
            shape,
            most,
            SEED,
        )


@pytest.mark.parametrize("form", [F32, BF16, BYTES])
def test_any_extents_have_a_way(form: Format) -> None:
    for size in (0, 1, 2, 1 << 20, 1 << 40):
        for channels, outs in ((16, 16), (17, 1 << 30), (1 << 30, 31)):
            ways = possible_ways(form, channels, 0)
            assert best_way(size, size, size, channels, outs, LANES, ways, form) in (0, 2, 4)


@pytest.mark.parametrize("way", [2, 4])
@pytest.mark.parametrize("pads", [(1, 1), (0, 2)])
@pytest.mark.parametrize("images", [1, 2])
def test_bands_of_an_image_are_the_image(
    monkeypatch: pytest.MonkeyPatch, way: int, pads: tuple[int, int], images: int
) -> None:
    """Residuals are added to convolutions of what they are, of which later bands still read rows."""
    monkeypatch.setenv("OVJIT_WINOGRAD", str(way))
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, way, *pads, images])
    x = rng.standard_normal((images, 16, 43, 19), np.float32)
    b = Builder()
    data = b.add("Parameter", (), {"shape": x.shape, "element_type": "f32"}).output
    windows = {
        "strides": (1, 1), "dilations": (1, 1), "pads_begin": (pads[0], 1), "pads_end": (pads[1], 1),
    }  # fmt: skip
    y = b.add("Sigmoid", [data]).output
    for _ in range(2):
        filters = b.constant(rng.standard_normal((16, 16, 3, 3), np.float32) / 12)
        more = b.constant(rng.standard_normal((1, 1, 43, 1), np.float32))
        made = b.add("Convolution", [y, filters], windows).output
        y = b.add("Relu", [b.add("Add", [b.add("Multiply", [made, more]).output, y]).output]).output
    graph = b.finish([y])

    def run(band: int) -> tuple[np.ndarray, Executable]:
        monkeypatch.setattr(cpu_winograd, "BAND", band)
        executable = compile_graph(graph, {"threads": 1})
        job = executable.new_job()
        run_job(job, [x])
        return np.array(job.outputs[0]), executable

    whole, one = run(1 << 40)
    banded, several = run(60_000)
    np.testing.assert_array_equal(banded, whole, err_msg=f"seed {SEED}")
    np.testing.assert_allclose(banded, evaluate(graph, [x])[0], rtol=1e-4, atol=1e-4, err_msg=f"seed {SEED}")
    before, after = (e.table((x.shape,)).plan for e in (one, several))
    assert len(after.steps) > len(before.steps) and after.arena_size < before.arena_size


#: (images, height, width) of pictures in which each of the convolutions below goes either way.
SIZES = [
    (1, 1, 1), (1, 4, 90), (1, 90, 4), (1, 5, 5), (1, 12, 12), (1, 7, 40), (3, 13, 12), (1, 33, 57),
    (1, 96, 41), (2, 31, 30), (1, 64, 64), (5, 6, 9),
]  # fmt: skip


def _open_network(rng: np.random.Generator, channels: tuple[int, ...]) -> Graph:
    """Residual convolutions of images of open size."""
    b = Builder()
    shape = (ANY, channels[0], ANY, ANY)
    y = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    windows = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
    for before, after in itertools.pairwise(channels):
        filters = rng.standard_normal((after, before, 3, 3), np.float32) / np.sqrt(9 * before)
        made = b.add("Convolution", [y, b.constant(filters.astype(np.float32))], windows).output
        bias = b.constant(rng.standard_normal((1, after, 1, 1), np.float32))
        y = b.add("Relu", [b.add("Add", [made, y if before == after else bias]).output]).output
    return b.finish([y])


@pytest.mark.parametrize("band", [4_000_000, 30_000])
def test_images_of_open_size_go_either_way(monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(cpu_winograd, "BAND", band)
    rng = np.random.default_rng([SEED, band])
    graph = _open_network(rng, (16, 16, 32, 48))
    executable = compile_graph(graph, {"threads": 2})
    ways = [low for low in executable.program.lowerings if isinstance(low, Versions)]
    assert any(isinstance(v, WinogradIfLarge) for low in ways for v in (low, *low.versions)), ways
    steps = set()
    for size in SIZES:
        x = rng.standard_normal((size[0], 16, *size[1:]), np.float32)
        job = executable.new_job()
        run_job(job, [x])
        names = [step.kernel.name for step in executable.table((x.shape,)).plan.steps]
        steps.add(any(name.startswith("winograd") for name in names))
        np.testing.assert_allclose(
            job.outputs[0], evaluate(graph, [x])[0], rtol=1e-4, atol=1e-4, err_msg=f"{size}, seed {SEED}"
        )
    assert steps == {False, True}


def test_few_traces_serve_images_of_any_size() -> None:
    rng = np.random.default_rng(SEED)
    executable = compile_graph(_open_network(rng, (16, 16, 32)), {"threads": 1})
    for height, width in rng.integers(40, 200, (24, 2)):
        executable.table(((1, 16, int(height), int(width)),))
    traces = executable.program.traces
    assert traces.total <= 8 and traces.hits >= 16, (traces.total, traces.hits, SEED)


@pytest.mark.parametrize(("channels", "m"), [(256, 4), (512, 2), (1536, 0)])
def test_large_filters_have_fewer_planes_or_none(channels: int, m: int) -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (1, channels, ANY, ANY), "element_type": "f32"}).output
    filters = b.constant(np.ones((channels, channels, 3, 3), np.float32))
    windows = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
    node = b.add("Convolution", [x, filters], windows)
    way, least = cpu_winograd.winograd_way(Group(Context(TARGETS["avx2"]), node))
    assert way == m and (least > 0) == (m > 0)


#: (slices of the data, of the filters, stride, dilation and pads along the slices, channels, outs).
VOLUMES = [
    (5, 3, 1, 1, (1, 1), 16, 32), (2, 3, 1, 1, (1, 1), 16, 16), (1, 3, 1, 1, (1, 1), 16, 16),
    (7, 3, 2, 1, (1, 1), 24, 16), (6, 2, 1, 2, (0, 2), 16, 48), (9, 3, 2, 3, (2, 4), 16, 32),
    (4, 1, 1, 1, (1, 2), 16, 16), (5, 3, 1, 1, (1, 1), 16, 24), (6, 3, 2, 2, (3, 1), 17, 21),
]  # fmt: skip


@pytest.mark.parametrize("way, fixed", in_turn([(2, True), (2, False), (4, False), (4, True)], 2))
def test_volumes_are_transformed_slice_by_slice(
    monkeypatch: pytest.MonkeyPatch, way: int, fixed: bool
) -> None:
    """The slices of a filter are added by the product. Slices of padding are skipped or zeros."""
    monkeypatch.setenv("OVJIT_WINOGRAD", str(way))
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(cpu_winograd, "BAND", 200_000)
    for slices, kernel, stride, dilation, pads, channels, outs in VOLUMES if fixed else VOLUMES[::2]:
        planes = channels * outs * kernel * (way + 2) ** 2 * 4
        monkeypatch.setattr(cpu_winograd, "MOST_PLANES", {2: planes, 4: planes if way == 4 else 0})
        rng = np.random.default_rng([SEED, way, slices, kernel, stride, outs])
        b = Builder()
        sizes = (slices, 21, 19)
        shape = (2, channels, *sizes) if fixed else (ANY, channels, ANY, ANY, ANY)
        data = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
        filters = b.constant(rng.standard_normal((outs, channels, kernel, 3, 3), np.float32) / 20)
        windows = {
            "strides": (stride, 1, 1), "dilations": (dilation, 1, 1),
            "pads_begin": (pads[0], 1, 1), "pads_end": (pads[1], 1, 0),
        }  # fmt: skip
        made = b.add("Convolution", [b.add("Relu", [data]).output, filters], windows).output
        bias = b.constant(rng.standard_normal((1, outs, 1, 1, 1), np.float32))
        graph = b.finish([b.add("Relu", [b.add("Add", [made, bias]).output]).output])
        executable = compile_graph(graph, {"threads": 2})
        case = (slices, kernel, stride, dilation, pads, channels, outs, SEED)
        for more in (0,) if fixed else (0, 3, 1, 0):
            x = rng.standard_normal((2, channels, slices + more, 21, 19 + more), np.float32)
            job = executable.new_job()
            run_job(job, [x])
            names = [step.kernel.name for step in executable.table((x.shape,)).plan.steps]
            assert any(f"winograd_input_f32_f32_{way}x{way}" in name for name in names), (names, case)
            expected = evaluate(graph, [x.astype(np.float32)])[0]
            np.testing.assert_allclose(job.outputs[0], expected, rtol=1e-4, atol=1e-4, err_msg=f"{case}")


#: (height, width, filters' pads, dilations) of dilated convolutions.
DILATED = [
    (21, 19, (2, 2), (2, 2)), (30, 17, (4, 4), (4, 4)), (13, 40, (1, 3), (1, 3)), (25, 24, (5, 0), (3, 2)),
    (9, 9, (2, 2), (2, 2)), (33, 8, (0, 7), (2, 4)), (2, 20, (4, 4), (4, 4)),
]  # fmt: skip


@pytest.mark.parametrize("way, fixed", in_turn([(2, True), (2, False), (4, False), (4, True)], 2))
def test_dilated_windows_are_transformed_among_interleaved_pixels(
    monkeypatch: pytest.MonkeyPatch, way: int, fixed: bool
) -> None:
    monkeypatch.setenv("OVJIT_WINOGRAD", str(way))
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(cpu_winograd, "BAND", 100_000)
    monkeypatch.setattr(cpu_winograd, "MOST_PLANES", {2: 10**6, 4: 10**6 if way == 4 else 0})
    monkeypatch.setattr(cpu_winograd, "_STEPS", 0.0)
    monkeypatch.setattr(cpu_winograd, "_PART", 0.0)
    for height, width, pads, dilations in DILATED if fixed else DILATED[::2]:
        rng = np.random.default_rng([SEED, way, height, width])
        b = Builder()
        shape = (2, 16, height, width) if fixed else (ANY, 16, ANY, ANY)
        data = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
        y = b.add("Relu", [data]).output
        filters = b.constant(rng.standard_normal((16, 16, 3, 3), np.float32) / 12)
        windows = {"strides": (1, 1), "dilations": dilations, "pads_begin": pads, "pads_end": dilations}
        made = b.add("Convolution", [y, filters], windows).output
        added = b.constant(rng.standard_normal((1, 16, 1, 1), np.float32))
        more = b.add("Multiply", [made, b.add("Sigmoid", [made]).output]).output
        graph = b.finish([b.add("Relu", [b.add("Add", [more, added]).output]).output])
        executable = compile_graph(graph, {"threads": 2})
        seen = set()
        for extra in (0,) if fixed else (0, 21, 0, 34):
            x = rng.standard_normal((2, 16, height + extra, width + extra), np.float32)
            job = executable.new_job()
            run_job(job, [x])
            names = [step.kernel.name for step in executable.table((x.shape,)).plan.steps]
            seen.add(any(f"winograd_input_f32_f32_{way}x{way}" in name for name in names))
            case = f"{height} x {width}, {pads}, {dilations}, {extra} more, seed {SEED}"
            np.testing.assert_allclose(
                job.outputs[0], evaluate(graph, [x])[0], rtol=1e-4, atol=1e-4, err_msg=case
            )
        assert True in seen or height == 2, (height, width, dilations)


#: (shape of the data, filters' taps, pads before, pads after, dilations) of windows of three taps in a line.
LINES = [
    ((2, 17, 43), (3,), (1,), (1,), (1,)), ((1, 16, 5), (3,), (2,), (0,), (1,)),
    ((1, 24, 61), (3,), (8,), (0,), (4,)), ((3, 16, 50), (3,), (32,), (30,), (32,)),
    ((1, 16, 3), (3,), (0,), (0,), (1,)),
    ((2, 16, 21, 19), (1, 3), (0, 1), (0, 1), (1, 1)), ((1, 33, 21, 19), (3, 1), (1, 0), (1, 0), (1, 1)),
    ((1, 16, 23, 8), (3, 1), (3, 1), (2, 0), (3, 2)), ((2, 16, 9, 40), (1, 3), (1, 0), (1, 10), (2, 5)),
]  # fmt: skip


@pytest.mark.parametrize("way", [2, 4])
def test_lines_of_taps_have_tiles_along_one_axis(monkeypatch: pytest.MonkeyPatch, way: int) -> None:
    """Beside sums in float64: sequences are images of one column, and an axis of one tap has no tiles."""
    monkeypatch.setenv("OVJIT_WINOGRAD", str(way))
    monkeypatch.setenv("OVJIT_CHECK", "1")
    for band in (4_000_000, 12_000):
        monkeypatch.setattr(cpu_winograd, "BAND", band)
        for shape, taps, begin, end, dilations in LINES:
            rng = np.random.default_rng([SEED, way, *shape])
            b = Builder()
            data = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
            y = b.add("Relu", [data]).output
            weights = rng.standard_normal((shape[1], shape[1], *taps)).astype(np.float32) / 7
            windows = {
                "strides": (1,) * len(taps), "dilations": dilations, "pads_begin": begin, "pads_end": end,
            }  # fmt: skip
            products = b.add("Convolution", [y, b.constant(weights)], windows).output
            bias = rng.standard_normal((1, shape[1], *(1,) * len(taps))).astype(np.float32)
            results = [b.add("Add", [products, b.constant(bias)]).output]
            if results[0].shape == tuple(shape):  # a residual, whose memory the result may take
                results = [b.add("Relu", [b.add("Add", [results[0], y]).output]).output]
            executable = compile_graph(b.finish(results), {"threads": 2})
            x = rng.standard_normal(shape).astype(np.float32)
            job = executable.new_job()
            run_job(job, [x])
            names = [step.kernel.name for step in executable.table((shape,)).plan.steps]
            tile = "x".join(str(way if t > 1 else 1) for t in (*taps, 1)[:2])
            case = f"{shape}, {taps}, {dilations}, band {band}, seed {SEED}"
            assert any(f"winograd_input_f32_f32_{tile}" in name for name in names), (names, case)
            rows = np.maximum(x, 0).astype(np.float64)
            expected = (
                convolve(rows, weights[None].astype(np.float64), {**windows, "auto_pad": "explicit"}) + bias
            )
            if expected.shape == tuple(shape):
                expected = np.maximum(expected + rows, 0)
            np.testing.assert_allclose(job.outputs[0], expected, rtol=1e-5, atol=1e-5, err_msg=case)


def test_lines_that_gain_nothing_are_direct() -> None:
    """Those of few channels; and those that planes cannot serve, as strides and dynamic lengths."""
    for shape, channels, stride, way in (
        ((1, 64, 1000), 64, 1, 4), ((1, 512, 100), 512, 1, 4), ((1, 16, 4000), 16, 1, 0),
        ((1, 64, 1000), 64, 2, 0), ((1, 64, ANY), 64, 1, 0), ((1, 8, 1000), 64, 1, 0),
    ):  # fmt: skip
        b = Builder()
        x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
        windows = {"strides": (stride,), "dilations": (1,), "pads_begin": (1,), "pads_end": (1,)}
        node = b.add("Convolution", [x, b.constant(np.ones((channels, shape[1], 3), np.float32))], windows)
        assert cpu_winograd.winograd_way(Group(Context(TARGETS["avx512"]), node)) == (way, 0), (shape, stride)


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("shape", [(1, 32, 20, 20), (1, 32, ANY, ANY)])
def test_infinite_weights_are_multiplied_directly(odd: float, shape: tuple) -> None:
    """Only the outputs that read them become infinite or NaN."""
    rng = np.random.default_rng(SEED)
    weights = rng.standard_normal((32, 32, 3, 3)).astype(np.float32)
    weights[5, 4, 1, 1] = odd
    b = Builder()
    x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    windows = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
    made = b.add("Convolution", [x, b.constant(weights)], windows)
    assert cpu_winograd.winograd_way(Group(Context(TARGETS["avx2"]), made)) == (0, 0)
    given = rng.standard_normal((1, 32, 20, 20)).astype(np.float32)
    job = compile_graph(b.finish([made.output]), {"threads": 1}).new_job()
    run_job(job, [given])
    assert np.isfinite(np.delete(job.outputs[0], 5, 1)).all() and not np.isfinite(job.outputs[0][:, 5]).any()


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(("sizes", "slices"), [((5, 14, 15), (3,)), ((23, 18), ())])
@pytest.mark.parametrize("m", [2, 4])
def test_bytes_of_volumes_and_of_dilated_windows_are_exact(
    monkeypatch: pytest.MonkeyPatch, m: int, fixed: bool, sizes: tuple[int, ...], slices: tuple[int, ...]
) -> None:
    """Where bytes are multiplied as i16, by F(m x m) of integers; directly elsewhere."""
    monkeypatch.setenv("OVJIT_WINOGRAD", str(m))
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, rank = np.random.default_rng([SEED, fixed, len(sizes)]), len(sizes)
    weights = rng.integers(-128, 128, (32, 16, *slices, 3, 3)).astype(np.int8)
    given = rng.integers(0, 256, (2, 16, *sizes)).astype(np.uint8)
    pads = tuple(1 if slices else 2 for _ in sizes)
    b = Builder()
    shape = given.shape if fixed else (ANY, 16, *(ANY,) * rank)
    x = b.add("Parameter", (), {"shape": shape, "element_type": "u8"}).output
    dilations = (1,) * rank if slices else (2,) * rank
    windows = {"strides": (1,) * rank, "dilations": dilations, "pads_begin": pads, "pads_end": pads}
    out = TensorType("i32", (shape[0], 32, *shape[2:]))
    made = b.add("Convolution", [x, b.constant(weights)], windows, types=[out], lowered=True).output
    job = compile_graph(b.finish([made]), {"threads": 2}).new_job()
    run_job(job, [given])
    windows["auto_pad"] = "explicit"
    want = convolve(given.astype(np.float64), weights[None].astype(np.float64), windows)
    np.testing.assert_array_equal(job.outputs[0], want, err_msg=f"seed {SEED}")
