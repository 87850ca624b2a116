"""Products of bytes that are first added in 16 bits, for CPUs without VNNI: exact, whatever the weights."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.isa import host_isa
from ovjit.frontends.ir import weights as weights_files
from ovjit.tiles import narrow
from ovjit.tiles.formats import U8I8, find_format
from ovjit.tiles.lowering import Tiled
from ovjit.tiles.pack import pack_panels
from ovjit.tiles.winograd import fill_planes
from ovjit_ops.convolution.cpu_winograd import MOST_CHANNELS, Winograd

SEED = 20261121
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
#: What a span would have to cost to be chosen.
ONLY = {span: {n: float(n != span) * 1e6 for n in narrow.TIMES} for span in narrow.TIMES}
without_vnni = pytest.mark.skipif(
    (find_format("u8", "i8", host_isa()) or U8I8).products == 1, reason="bytes are multiplied by VNNI, or not"
)


def weights_of(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "largest":
        return rng.choice(np.array([-128, 127], np.int8), shape)
    width = {"wide": 90, "usual": 33, "small": 12}[kind]
    return np.clip(np.rint(rng.normal(0, width, shape)), -128, 127).astype(np.int8)


@pytest.mark.parametrize("kind", ["largest", "wide", "usual", "small"])
@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("shape", [(1, 9, 16, 40), (2, 3, 11, 24), (1, 1, 64, 5), (3, 1, 7, 16)])
def test_parts_add_up_to_the_weights_and_fit(shape, span, kind):
    rng = np.random.default_rng([SEED, span, *shape])
    weights, isa = weights_of(rng, kind, shape), host_isa()
    groups, runs, depth, outs = shape
    if U8I8.words(depth) % span:
        depth += 4
        weights = np.pad(weights, ((0, 0), (0, 0), (0, 4), (0, 0)))
    kept, rest = narrow.split_panels(weights, isa, U8I8, span)
    filling, sizes = pack_panels(weights, isa, U8I8)
    packed = np.zeros(filling.nbytes, np.int8)
    filling.fill(packed)
    most = narrow.MOST
    each, words = -(-outs // sizes.width), runs * U8I8.words(depth)
    total = kept.astype(np.int64).reshape(groups, -1)
    run = U8I8.words(depth)
    window = narrow.window_words(run)
    at = 0
    for g in range(groups):
        for p in range(each):
            width = sizes.width if (p + 1) * sizes.width <= outs else sizes.last
            at = p * sizes.panel
            panel = total[g, at : at + words * width * 4].reshape(words, width // isa.lanes, isa.lanes, 4)
            pairs = panel.reshape(words // span, span, *panel.shape[1:3], 2, 2)
            for sign in (1, -1):
                assert np.maximum(sign * pairs, 0).sum((1, -1)).max() <= most, (kind, g, p)
            for v in range(width // isa.lanes):
                section = (g * each + p) * isa.tile_vectors + v
                for number in range(rest.firsts[section], rest.firsts[section + 1]):
                    taken = rest.words[number].astype(np.int64)
                    lanes = taken[:, -1].reshape(narrow.BIN, isa.lanes, 2, 2)
                    for sign in (1, -1):
                        assert np.maximum(sign * lanes, 0).sum((0, -1)).max() <= most, (kind, number)
                    for places, (*sources, amounts) in zip(rest.places[number], taken, strict=True):
                        taken_by = sum((choices != narrow.NONE).astype(int) for choices in sources)
                        assert np.all(taken_by[amounts != 0] == 1), "a byte is of one window"
                        for place, choices in zip(places, sources, strict=True):
                            assert place % run + window <= run, "a window lies in its run"
                            mine = choices != narrow.NONE
                            assert choices[mine].min(initial=0) >= 0
                            assert choices[mine].max(initial=0) < 4 * window
                            lane = np.broadcast_to(np.arange(isa.lanes)[:, None], choices.shape)[mine]
                            byte = choices[mine]
                            np.add.at(panel, (place + byte // 4, v, lane, byte % 4), amounts[mine])
    np.testing.assert_array_equal(total.reshape(-1), packed, err_msg=str((shape, kind, span, SEED)))
    assert rest.firsts[-1] == len(rest.words)
    assert kind != "small" or not len(rest.words), "small weights leave nothing"


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
@pytest.mark.parametrize("kind", ["largest", "wide", "usual"])
@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_exact(monkeypatch, name, span, kind):
    monkeypatch.setattr(narrow, "TIMES", ONLY[span])
    check_convolution(name, kind, span)


@without_vnni
@pytest.mark.parametrize("span", [1, 2])
def test_kernels_in_python(monkeypatch, span):
    monkeypatch.setattr(narrow, "TIMES", ONLY[span])
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    check_convolution("groups", "wide", span)


#: input, weights: what goes through planes of 16 bits.
PLANES = {
    "odd extents": ((2, 16, 7, 5), (40, 16, 3, 3)),
    "a part of a vector": ((1, 22, 8, 9), (17, 22, 3, 3)),
    "a panel": ((1, 64, 6, 6), (16, 64, 3, 3)),
}


@without_vnni
@pytest.mark.parametrize("kind", ["largest", "wide", "usual"])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("name", PLANES)
def test_planes_are_exact(monkeypatch, name, pad, kind):
    monkeypatch.setenv("OVJIT_WINOGRAD", "2")
    compiled = check_products(name, *PLANES[name], (1, pad, 1), kind)
    assert any(isinstance(low, Winograd) for low in compiled._executable.program.lowerings)


@without_vnni
def test_planes_in_python(monkeypatch):
    monkeypatch.setenv("OVJIT_WINOGRAD", "2")
    monkeypatch.setenv("OVJIT_INTERP", "kernels")
    compiled = check_products("planes", *PLANES["odd extents"], (1, 1, 1), "largest")
    assert any(isinstance(low, Winograd) for low in compiled._executable.program.lowerings)


@without_vnni
def test_planes_are_made_again_of_the_model_s_file(monkeypatch, tmp_path):
    monkeypatch.setenv("OVJIT_WINOGRAD", "2")
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
@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("channels", [MOST_CHANNELS - 1, MOST_CHANNELS + 1])
def test_the_largest_sums_fit(monkeypatch, channels, value):
    """All data are 255 and all weights alike; MOST_CHANNELS is odd."""
    monkeypatch.setenv("OVJIT_WINOGRAD", "2")
    ops = ov.opset8
    x = ops.parameter([1, channels, 4, 4], np.float32)
    ends = [ops.constant(np.float32(v)) for v in (0, 255)]
    integers = ops.convert(ops.constant(np.full((8, channels, 3, 3), value, np.int8)), "f32")
    y = ops.convolution(ops.fake_quantize(x, *ends, *ends, 256), integers, [1, 1], [0, 0], [0, 0], [1, 1])
    compiled = ov.compile_model(ov.Model([y], [x], "m"), "CPU", F32)
    ways = [isinstance(low, Winograd) for low in compiled._executable.program.lowerings]
    assert any(ways) == (channels < MOST_CHANNELS)
    got = compiled([np.full((1, channels, 4, 4), 255, np.float32)])[0]
    np.testing.assert_array_equal(got, np.full((1, 8, 2, 2), 255 * 9 * channels * value, np.float32))


def check_convolution(name: str, kind: str, span: int) -> None:
    assert span in spans(check_products(name, *CONVOLUTIONS[name], kind))


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


def spans(compiled: ov.CompiledModel) -> list[int]:
    return [low.form.span for low in compiled._executable.program.lowerings if isinstance(low, Tiled)]


@without_vnni
@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("span", [1, 2])
def test_matrix_products_are_exact(monkeypatch, span, rows):
    monkeypatch.setattr(narrow, "TIMES", ONLY[span])
    rng, ops = np.random.default_rng([SEED, rows]), ov.opset8
    integers = weights_of(rng, "wide", (72, 312))
    x = ops.parameter([-1, 312], np.float32)
    ends = [ops.constant(np.float32(v)) for v in (0, 255)]
    y = ops.matmul(
        ops.fake_quantize(x, *ends, *ends, 256), ops.convert(ops.constant(integers), "f32"), False, True
    )
    data = rng.integers(0, 256, (rows, 312)).astype(np.float32)
    compiled = ov.compile_model(ov.Model([y], [x], "m"), "CPU", F32)
    assert spans(compiled) == [span]
    got = compiled([data])[0]
    want = (data.astype(np.int64) @ integers.astype(np.int64).T).astype(np.float32)
    np.testing.assert_array_equal(got, want, err_msg=str((rows, span, SEED)))


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


def test_the_choice_follows_the_weights():
    form, isa = U8I8, host_isa()
    rng = np.random.default_rng(SEED)

    def best(kind: str, depth: int = 512) -> int:
        return narrow.best_span(weights_of(rng, kind, (1, 1, depth, 64)), isa, form)

    assert (best("small"), best("largest")) == (2, 0)
    assert best("small", 12) == 1, "three words are not two and two"


WITHOUT_VNNI = """
from ovjit.codegen.cpu import isa
isa.assume("avx512", [])
import test_narrow_products as tests
from ovjit.tiles import narrow
tests.check_products("planes", *tests.PLANES["odd extents"], (1, 1, 1), "largest")
narrow.TIMES = tests.ONLY[2]
tests.check_convolution("groups", "wide", 2)
"""


def test_avx512_without_vnni():
    """Its kernels are run by Python's interpreter."""
    here = os.path.dirname(__file__)
    paths = os.pathsep.join([here, os.path.dirname(here)])
    environment = {**os.environ, "OVJIT_INTERP": "kernels", "OVJIT_WINOGRAD": "2", "PYTHONPATH": paths}
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_VNNI], capture_output=True, text=True, timeout=300, env=environment
    )
    assert ran.returncode == 0, ran.stderr


INSTRUCTIONS = """
from ovjit.codegen.cpu import isa
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.tiles.driver import tile_kernel
from ovjit.tiles.formats import I16, product_format

for name in ("avx512", "avx2"):
    isa.assume(name, [])
    form = product_format("u8", "i8")._replace(span=2, window=4)
    text = tile_kernel("tile", Epilogue(None, [], "i32"), isa.host_isa(), form).text(isa.host_isa())
    words = ("pmaddubs.w.512", "pshuf.b.512", "pmadd.ub.sw", "avx2.pshuf.b")
    print(*(word for word in words if word in text))
    text = tile_kernel("tile", Epilogue(None, [], "i32"), isa.host_isa(), I16).text(isa.host_isa())
    print(*(word for word in ("pmaddw.d.512", "avx2.pmadd.wd") if word in text))
"""


def test_both_instruction_sets_have_their_instructions():
    ran = subprocess.run(
        [sys.executable, "-c", INSTRUCTIONS], capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout.split() == [
        "pmaddubs.w.512", "pshuf.b.512", "pmaddw.d.512", "pmadd.ub.sw", "avx2.pshuf.b", "avx2.pmadd.wd"
    ]  # fmt: skip
