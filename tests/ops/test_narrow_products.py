"""Products of bytes that are first added in 16 bits, for CPUs without VNNI: exact, whatever the weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.formats import U8I8, find_format
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.readers.files import weights as weights_files
from ovjit.tiles import narrow
from ovjit.tiles.lowering import Tiled
from ovjit.tiles.sizes import WAYS
from ovjit.tiles.winograd import WHOLE, fill_planes
from ovjit_ops.convolution.cpu_winograd import MOST_SUMS, Winograd, divide_exactly
from tests.support.run import printed
from tests.support.sweeps import in_turn

SEED = 20261121
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
without_vnni = pytest.mark.skipif(
    (find_format("u8", "i8", host_target()) or U8I8).products == 1,
    reason="bytes are multiplied by VNNI, or not",
)


def weights_of(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "largest":
        return rng.choice(np.array([-128, 127], np.int8), shape)
    width = {"wide": 90, "usual": 33, "small": 12}[kind]
    return np.clip(np.rint(rng.normal(0, width, shape)), -128, 127).astype(np.int8)


KINDS = ["largest", "wide", "usual", "small"]


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("kind", in_turn(list(KINDS), 2))
@pytest.mark.parametrize("shape", [(1, 9, 16, 40), (2, 3, 11, 24), (1, 1, 64, 5), (3, 1, 7, 16)])
def test_lists_are_the_weights_and_fit(shape, kind, isa):
    rng, isa = np.random.default_rng([SEED, *shape]), TARGETS[isa]
    weights = weights_of(rng, kind, shape)
    weights.flat[:4] = (-128, -128, 127, -128)
    groups, runs, depth, outs = shape
    words, lanes = runs * U8I8.words(depth), isa.lanes
    listed = narrow.list_panels(weights, isa, U8I8)
    panels = -(-outs // listed.sizes.width)
    assert listed.sizes.group == panels * listed.sizes.panel
    padded = np.zeros((groups, runs, -(-depth // 4) * 4, panels * listed.sizes.width), np.int64)
    padded[:, :, :depth, :outs] = weights
    data = np.arange(256)
    for number, (places, steps) in enumerate(zip(listed.word_offsets, listed.steps, strict=True)):
        run, byte = places >> narrow.RUN_BITS, places & ((1 << narrow.RUN_BITS) - 1)
        places = run * U8I8.words(depth) + byte // 4
        assert sorted(places) == list(range(words))
        panel, v = divmod(number, isa.tile_vectors)
        if v == 0:
            left = listed.memory[panel * listed.sizes.panel : (panel + 1) * listed.sizes.panel]
        group, first = panel // panels, panel % panels * listed.sizes.width + v * lanes
        mine = padded[group, :, :, first : first + lanes].reshape(words, 4, lanes).swapaxes(1, 2)
        less, at = np.zeros(lanes, np.int64), 0
        for way, count in zip(WAYS, steps, strict=True):
            for _ in range(count):
                size = way.parts * lanes * 4
                stored, left = left[:size].reshape(-1, way.span, lanes, 4), left[size:]
                if way.moves_signs:  # the products of all data: [span, lanes, 4, 256]
                    flipped = (data ^ (stored[1, ..., None].astype(np.int64) & 255)).astype(np.int8)
                    products = (stored[0, ..., None].astype(np.int64) & 255) * flipped
                else:
                    products = stored[0, ..., None].astype(np.int64) * data
                ends = [end.reshape(way.span, lanes, 2, 2).sum((0, -1)) for end in
                        (products.min(-1), products.max(-1))]  # fmt: skip
                assert ends[0].min() >= -(2**15) and ends[1].max() < 2**15, (way, kind, SEED)
                constant = products[..., :1]
                want = mine[places[at : at + way.span]][..., None] * data
                np.testing.assert_array_equal(products - constant, want, err_msg=str((way, kind, SEED)))
                less -= constant.sum((0, 2, 3))
                at += way.span
        assert at == words
        np.testing.assert_array_equal(less, listed.bias[number], err_msg=str((kind, SEED)))


def test_words_go_by_all_ways():
    """Lists say nothing if words never go by one of them."""
    rng, isa = np.random.default_rng(SEED), TARGETS["avx2"]
    weights = {kind: weights_of(rng, kind, (1, 1, 256, 64)) for kind in KINDS}
    found = {kind: narrow.list_panels(some, isa, U8I8).steps.sum(0) for kind, some in weights.items()}
    assert (found["largest"] > 0).tolist() == [False, False, False, True]
    assert found["wide"][3] and found["usual"][1] and found["usual"][2] and found["small"][0]
    times = [narrow.word_time(some, isa, U8I8) for some in weights.values()]
    assert times == sorted(times, reverse=True)
    assert math.isclose(times[0], WAYS[3].time) and times[-1] < 1.05 * WAYS[0].time


#: name -> input, weights, (strides, pads, dilations); weights of five dimensions have groups.
CONVOLUTIONS = {
    "1x1, a panel and a half": ((2, 24, 5, 7), (24, 24, 1, 1), (1, 0, 1)),
    "3x3, stride 2": ((1, 16, 9, 8), (40, 16, 3, 3), (2, 1, 1)),
    "3x3, dilated": ((1, 8, 9, 8), (9, 8, 3, 3), (1, 2, 2)),
    "odd channels": ((1, 13, 6, 6), (17, 13, 3, 3), (1, 1, 1)),
    "planes": ((1, 3, 12, 14), (24, 3, 7, 7), (2, 3, 1)),
    "groups": ((1, 32, 6, 7), (2, 20, 16, 3, 3), (1, 1, 1)),
}


@without_vnni
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_exact(name, kind):
    check_convolution(name, kind)


@without_vnni
@pytest.mark.parametrize("kind", ["wide", "usual"])
def test_kernels_in_python(monkeypatch, kind):
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    check_convolution("groups", kind)


#: input, weights: what goes through planes of 16 bits.
PLANES = {
    "odd extents": ((2, 16, 7, 5), (40, 16, 3, 3)),
    "a part of a vector": ((1, 22, 8, 9), (17, 22, 3, 3)),
    "a panel": ((1, 64, 6, 6), (16, 64, 3, 3)),
}


@without_vnni
@pytest.mark.parametrize("kind", ["largest", "wide", "usual"])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("name", in_turn(list(PLANES), 2))
@pytest.mark.parametrize("m", MOST_SUMS)
def test_planes_are_exact(monkeypatch, m, name, pad, kind):
    monkeypatch.setenv("OVJIT_WINOGRAD", str(m))
    compiled = check_products(name, *PLANES[name], (1, pad, 1), kind)
    assert any(isinstance(low, Winograd) for low in compiled._executable.program.lowerings)


@without_vnni
@pytest.mark.parametrize("m", MOST_SUMS)
def test_planes_in_python(monkeypatch, m):
    monkeypatch.setenv("OVJIT_WINOGRAD", str(m))
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    compiled = check_products("planes", *PLANES["odd extents"], (1, 1, 1), "largest")
    assert any(isinstance(low, Winograd) for low in compiled._executable.program.lowerings)


@without_vnni
@pytest.mark.parametrize("m", MOST_SUMS)
def test_planes_are_made_again_of_the_model_s_file(monkeypatch, tmp_path, m):
    monkeypatch.setenv("OVJIT_WINOGRAD", str(m))
    monkeypatch.setattr(weights_files, "MAP_FROM", 0)
    rng, ops = np.random.default_rng(SEED), ov.opset8
    x = ops.parameter([1, 32, 8, 8], np.float32)
    ends = [ops.constant(np.float32(v)) for v in (0, 255)]
    integers = ops.convert(ops.constant(weights_of(rng, "usual", (64, 32, 3, 3))), "f32")
    y = ops.convolution(ops.fake_quantize(x, *ends, *ends, 256), integers, [1, 1], [1, 1], [1, 1], [1, 1])
    ov.save_model(ov.Model([y], [x], "m"), str(tmp_path / "m.xml"), compress_to_fp16=False)
    core = ov.Core()
    compiled = core.compile_model(core.read_model(str(tmp_path / "m.xml")), "CPU", F32)
    functions = [recipe.function for *_, recipe in compiled._executable.program.constants.of_files]
    assert fill_planes in functions


@without_vnni
@pytest.mark.parametrize("fit", [True, False])
@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("m", MOST_SUMS)
def test_the_largest_sums_fit(monkeypatch, m, value, fit):
    """All data are 255. All weights are `value`, but those of the last filter, which are 0."""
    monkeypatch.setenv("OVJIT_WINOGRAD", str(m))
    most = MOST_SUMS[m] // (255 * 9 * abs(value))
    channels, ops = most - most % 2 + (0 if fit else 2), ov.opset8
    x = ops.parameter([1, channels, 6, 6], np.float32)
    ends = [ops.constant(np.float32(v)) for v in (0, 255)]
    weights = np.full((9, channels, 3, 3), value, np.int8)
    weights[8] = 0
    integers = ops.convert(ops.constant(weights), "f32")
    y = ops.convolution(ops.fake_quantize(x, *ends, *ends, 256), integers, [1, 1], [0, 0], [0, 0], [1, 1])
    compiled = ov.compile_model(ov.Model([y], [x], "m"), "CPU", F32)
    ways = [isinstance(low, Winograd) for low in compiled._executable.program.lowerings]
    assert any(ways) == fit
    got = compiled([np.full((1, channels, 6, 6), 255, np.float32)])[0]
    want = 255.0 * 9 * channels * weights[None, :, :1, 0, 0, None]
    np.testing.assert_array_equal(got, np.broadcast_to(want, got.shape).astype(np.float32))


@pytest.mark.parametrize("m", MOST_SUMS)
def test_divisions_of_residues_are_exact(m):
    """Of the smallest and largest sums and of random ones, multiplied by the divisor modulo 2**32."""
    divisor, most = WHOLE[m].divisor, MOST_SUMS[m]
    rng = np.random.default_rng([SEED, m])
    sums = np.append(rng.integers(-most, most, 1000), (-most, -1, 0, 1, most))
    residues = (sums * divisor).astype(np.uint32).view(np.int32)
    np.testing.assert_array_equal(divide_exactly(residues, divisor), sums, err_msg=f"seed {SEED}")


def check_convolution(name: str, kind: str) -> None:
    assert any(in_order(check_products(name, *CONVOLUTIONS[name], kind)))


def check_products(
    name: str, size: tuple[int, ...], shape: tuple[int, ...], window: tuple[int, int, int], kind: str
) -> ov.CompiledModel:
    """A convolution of bytes, compared with its sums in f64."""
    stride, pad, dilation = window
    rng = np.random.default_rng([SEED, *shape])
    integers, ops = weights_of(rng, kind, shape), ov.opset8
    data = rng.choice(np.array([0, 1, 128, 254, 255], np.float32), size, p=[0.2, 0.1, 0.1, 0.2, 0.4])

    def convolution(quantized: bool) -> ov.Model:
        x = ops.parameter(list(size), np.float32 if quantized else np.float64)
        ends = [ops.constant(np.float32(v)) for v in (0, 255)]
        y = ops.fake_quantize(x, *ends, *ends, 256) if quantized else x
        make = ops.group_convolution if len(shape) == 5 else ops.convolution
        w = ops.convert(ops.constant(integers), "f32" if quantized else "f64")
        return ov.Model([make(y, w, [stride] * 2, [pad] * 2, [pad] * 2, [dilation] * 2)], [x], "m")

    want = ov.compile_model(convolution(False), "CPU")([data.astype(np.float64)])[0]
    compiled = ov.compile_model(convolution(True), "CPU", F32)
    np.testing.assert_array_equal(
        compiled([data])[0], want.astype(np.float32), err_msg=f"{name}, {kind}, {SEED}"
    )
    return compiled


def in_order(compiled: ov.CompiledModel) -> list[bool]:
    return [low.form.listed for low in compiled._executable.program.lowerings if isinstance(low, Tiled)]


@without_vnni
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_matrix_products_are_exact(rows):
    rng, ops = np.random.default_rng([SEED, rows]), ov.opset8
    integers = weights_of(rng, "wide", (72, 312))
    x = ops.parameter([-1, 312], np.float32)
    ends = [ops.constant(np.float32(v)) for v in (0, 255)]
    bias = ops.constant(rng.integers(-9, 9, 72).astype(np.float32))
    y = ops.matmul(
        ops.fake_quantize(x, *ends, *ends, 256), ops.convert(ops.constant(integers), "f32"), False, True
    )
    data = rng.integers(0, 256, (rows, 312)).astype(np.float32)
    compiled = ov.compile_model(ov.Model([ops.add(y, bias)], [x], "m"), "CPU", F32)
    assert in_order(compiled) == [True]
    got = compiled([data])[0]
    want = (data.astype(np.int64) @ integers.astype(np.int64).T + bias.data).astype(np.float32)
    np.testing.assert_array_equal(got, want, err_msg=str((rows, SEED)))


@without_vnni
def test_small_layers_are_shared_by_threads():
    """Chunks of bytes take as long as those of f32, which are a half of the work, not a quarter."""
    ops = ov.opset8
    x = ops.parameter([1, 64, 13, 13], np.float32)
    ends = [ops.constant(np.float32(v)) for v in (0, 255)]
    weights = weights_of(np.random.default_rng(SEED), "small", (256, 64, 1, 1))
    integers = ops.convert(ops.constant(weights), "f32")
    y = ops.convolution(ops.fake_quantize(x, *ends, *ends, 256), integers, [1, 1], [0, 0], [0, 0], [1, 1])
    request = ov.compile_model(ov.Model([y], [x], "m"), "CPU", F32).create_infer_request()
    request.infer([np.ones((1, 64, 13, 13), np.float32)])
    chunks = [s.chunks for s in request._job._table.plan.steps if s.kernel and s.kernel.form == U8I8.name]
    assert len(chunks) == 1 and chunks[0] >= 2, chunks


WITHOUT_VNNI = """
import os
from ovjit.codegen.cpu import host
host.assume("avx512", [])
from tests.ops import test_narrow_products as tests
for m in tests.MOST_SUMS:
    os.environ["OVJIT_WINOGRAD"] = str(m)
    tests.check_products("planes", *tests.PLANES["odd extents"], (1, 1, 1), "largest")
tests.check_convolution("groups", "usual")
"""


@pytest.mark.skipif(not machine.is_x86(), reason="the runner is native")
def test_avx512_without_vnni():
    """Its kernels are run by Python's interpreter."""
    printed("-c", WITHOUT_VNNI, seconds=300, OVJIT_INTERP="kernels")


INSTRUCTIONS = """
from ovjit.codegen.cpu.targets import target_of
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.tiles.driver import tile_kernel
from ovjit.codegen.cpu.formats import I16, find_format

for name in ("avx512", "avx2"):
    target = target_of(name)
    form = find_format("u8", "i8", target)._replace(listed=True)
    text = tile_kernel("tile", Epilogue(None, [], "i32"), target, form).text(target)
    words = ("pmaddubs.w.512", "pmadd.ub.sw")
    print(*(word for word in words if word in text))
    text = tile_kernel("tile", Epilogue(None, [], "i32"), target, I16).text(target)
    print(*(word for word in ("pmaddw.d.512", "avx2.pmadd.wd") if word in text))
"""


def test_both_instruction_sets_have_their_instructions():
    words = ["pmaddubs.w.512", "pmaddw.d.512", "pmadd.ub.sw", "avx2.pmadd.wd"]
    assert printed("-c", INSTRUCTIONS).split() == words
