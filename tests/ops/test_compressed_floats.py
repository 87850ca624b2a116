"""Weights of nf4, of floats of 8 and 4 bits and of f16, and tables of all compressed types: kept as they are
stored, beside the same in float64 and beside the real OpenVINO."""

from __future__ import annotations

import threading
from typing import Any

import ml_dtypes
import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.graph import converted, stored_floats
from ovjit.graph.levels import NF4_LEVELS as LEVELS
from ovjit.tiles import compressed
from tests.support.sweeps import in_turn

SEED = 20261120
F32 = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
FLOATS = {
    "f4e2m1": ml_dtypes.float4_e2m1fn, "f8e4m3": ml_dtypes.float8_e4m3fn, "f8e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip
#: Codebooks: the type of their numbers, how many they are. The first is nncf's CB4_F8E4M3.
BOOKS = {"cb4": ("f8e4m3", 16), "cb3": ("f32", 7), "cb8": ("f32", 200)}
KINDS = ("nf4", *FLOATS, *BOOKS)


class Weights:
    """[outs, depth] of a type in groups with scales of f16, or of f8e8m0 as mxfp4 has them; what they are."""

    def __init__(self, rng: Any, kind: str, depth: int, outs: int, size: int, scale: str = "f16"):
        self.kind, self.shape, self.scale_type = kind, (outs, depth), scale
        self.blocks = (outs, depth // size, size)
        one = (outs, depth // size, 1)
        zero: Any = 0
        self.zeros = None
        if kind in FLOATS:
            whole = rng.standard_normal(self.blocks).astype(np.float32).astype(FLOATS[kind])
            self.codes, real = whole.view(np.uint8), whole.astype(np.float64)
        elif kind in BOOKS:
            dtype, count = BOOKS[kind]
            levels = np.sort(rng.standard_normal(count)).astype(np.float32)
            self.levels = levels.astype(FLOATS[dtype]) if dtype in FLOATS else levels
            self.codes = rng.integers(0, count, self.blocks).astype(np.uint8)
            real = self.levels.astype(np.float64)[self.codes]
        elif kind == "nf4":
            self.codes = rng.integers(0, 16, self.blocks).astype(np.uint8)
            real = LEVELS[self.codes].astype(np.float64)
        else:
            low, high = {"i8": (-128, 127), "u8": (0, 255), "i4": (-8, 7), "u4": (0, 15)}[kind]
            integers = rng.integers(low, high + 1, self.blocks)
            self.codes, real = integers.astype(np.uint8), integers.astype(np.float64)
            if kind[0] == "u":
                zero = rng.integers(low, high + 1, one)
                self.zeros = zero.astype(np.uint8)
        self.bits = 4 if kind in ("nf4", "f4e2m1", "i4", "u4", "cb4", "cb3") else 8
        if scale == "f16":
            self.scale = rng.uniform(0.001, 0.02, one).astype(np.float16)
        else:
            self.scale = (2.0 ** rng.integers(-9, -4, one)).astype(ml_dtypes.float8_e8m0fnu)
        self.real = ((real - zero) * self.scale.astype(np.float64)).reshape(outs, depth)
        self.kept: list[Any] = []

    def rounded(self, wide: str) -> np.ndarray:
        """Their values if levels are converted to f16 or bf16: rows of tables, as in OpenVINO."""
        levels = LEVELS if self.kind == "nf4" else self.levels if self.kind in BOOKS else None
        if levels is None or wide == "f32":
            return self.real
        real = levels.astype(np.float16).astype(np.float64)[self.codes]
        return (real * self.scale.astype(np.float64)).reshape(self.shape)

    def constant(self, package: Any, codes: np.ndarray, kind: str, bits: int) -> Any:
        flat = codes.reshape(-1)
        if bits == 4:
            flat = np.concatenate([flat, np.zeros(flat.size % 2, np.uint8)]) & 15
            flat = (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8)
        self.kept.append(flat)
        tensor = package.Tensor(flat, package.Shape(list(codes.shape)), getattr(package.Type, kind))
        return package.op.Constant(tensor)

    def node(self, package: Any, wide: str = "f16") -> Any:
        ops = package.opset13
        if self.kind in BOOKS:
            dtype, _ = BOOKS[self.kind]
            raw = self.levels.view(np.uint8) if dtype in FLOATS else self.levels
            book = self.constant(package, raw, dtype, 8) if dtype in FLOATS else ops.constant(raw)
            codes = self.constant(package, self.codes, f"u{self.bits}", self.bits)
            codes = ops.convert(codes, "u8") if self.bits == 4 else codes
            made = ops.gather(ops.convert(book, wide), codes, ops.constant(np.array(0)))
        else:
            made = ops.convert(self.constant(package, self.codes, self.kind, self.bits), wide)
        if self.zeros is not None:
            zeros = self.constant(package, self.zeros, self.kind, self.bits)
            made = ops.subtract(made, ops.convert(zeros, wide))
        if self.scale_type == "f16":
            scale = ops.convert(ops.constant(self.scale), wide) if wide == "f32" else ops.constant(self.scale)
        else:
            raw = np.ascontiguousarray(self.scale).view(np.uint8)
            scale = ops.convert(self.constant(package, raw, "f8e8m0", 8), wide)
        made = ops.reshape(ops.multiply(made, scale), ops.constant(np.array(self.shape)), False)
        return ops.convert(made, "f32") if wide == "f16" else made


def kept(request: Any) -> set[str]:
    return {row.exec_type for row in request.get_profiling_info()}


def held(compiled: Any) -> int:
    """Bytes of the constants that a compiled model keeps."""
    return int(compiled._executable.program.memory.nbytes)


@pytest.mark.parametrize(
    "kind, size, scale",
    in_turn([(kind, *form) for kind in KINDS for form in ((64, "f16"), (32, "f8e8m0"), (256, "f16"))], 2),
)
def test_products_with_small_floats(kind, size, scale):
    """By default every second case, which leaves out no type and no form of scales."""
    rng = np.random.default_rng([SEED, size])
    weights = Weights(rng, kind, 256, 300, size, scale)
    ops = ov.opset13
    bias = rng.standard_normal(300).astype(np.float32)
    x = ops.parameter(ov.PartialShape([-1, 256]), np.float32)
    y = ops.relu(ops.add(ops.matmul(x, weights.node(ov), False, True), ops.constant(bias)))
    model = ov.Model([y], [x], "m")
    compiled = ov.Core().compile_model(model, "CPU", {**F32, "PERF_COUNT": True})
    assert held(compiled) < weights.real.size * (1.0 if weights.bits == 4 else 1.5)
    low = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    real = weights.rounded("f16") if kind in BOOKS else weights.real
    for rows in (1, 2, 3, 40):
        data = rng.standard_normal((rows, 256)).astype(np.float32)
        want = np.maximum(data.astype(np.float64) @ real.T + bias, 0)
        request = compiled.create_infer_request()
        got = request.infer([data])[0]
        name = f"l{weights.bits}" if weights.bits == 4 or kind in BOOKS else kind
        assert any(name in k for k in kept(request)), kept(request)
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max(), err_msg=f"{rows} rows")
        np.testing.assert_allclose(low([data])[0], want, rtol=0, atol=0.01 * np.abs(want).max())


def test_scales_that_have_a_scale_are_rounded_to_the_half_that_they_become():
    """nvfp4: f4e2m1 in groups of 16, whose scales are f8e4m3 times one f32."""
    real: Any = pytest.importorskip("openvino")
    rng = np.random.default_rng([SEED, 9])
    weights = Weights(rng, "f4e2m1", 256, 300, 16)
    raw = rng.uniform(20, 400, (300, 16, 1)).astype(ml_dtypes.float8_e4m3fn)
    data = rng.standard_normal((3, 256)).astype(np.float32)
    answers = []
    for package in (ov, real):
        ops = package.opset13
        scales = ops.convert(weights.constant(package, raw.view(np.uint8), "f8e4m3", 8), "f32")
        scale = ops.convert(ops.multiply(scales, ops.constant(np.full((1, 1, 1), 8.5e-5, np.float32))), "f16")
        whole = ops.convert(weights.constant(package, weights.codes, "f4e2m1", 4), "f16")
        made = ops.reshape(ops.multiply(whole, scale), ops.constant(np.array(weights.shape)), False)
        x = ops.parameter([3, 256], np.float32)
        model = package.Model([ops.matmul(x, ops.convert(made, "f32"), False, True)], [x], "m")
        compiled = package.Core().compile_model(model, "CPU", {**F32, "PERF_COUNT": True})
        request = compiled.create_infer_request()
        answers.append(request.infer([data])[0])
        if package is ov:
            assert any("l4" in k for k in kept(request)), kept(request)
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=2e-6 * np.abs(answers[1]).max())


@pytest.mark.parametrize("kind", KINDS)
def test_products_as_the_real_package(kind):
    """Both beside f64. The levels of tables are f16; OpenVINO on Arm rounds those of nf4 to it, too."""
    real: Any = pytest.importorskip("openvino")
    rng = np.random.default_rng([SEED, 1])
    weights = Weights(rng, kind, 512, 200, 32, "f8e8m0" if kind == "f4e2m1" else "f16")
    data = rng.standard_normal((3, 512)).astype(np.float32)
    answers = []
    for package in (ov, real):
        x = package.opset13.parameter([3, 512], np.float32)
        y = package.opset13.matmul(x, weights.node(package), False, True)
        model = package.Model([y], [x], "m")
        compiled = package.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answers.append(compiled([data])[0])
    mine = "f16" if kind in BOOKS else "f32"
    theirs = "f16" if kind == "nf4" and not machine.is_x86() else mine
    for answer, wide in zip(answers, (mine, theirs), strict=True):
        want = data.astype(np.float64) @ weights.rounded(wide).T
        np.testing.assert_allclose(answer, want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("kind", KINDS)
def test_each_code_is_its_level_exactly_wherever_it_stands(kind):
    """Of so many outputs that one row is multiplied with several panels at a time, and some are left."""
    rng = np.random.default_rng([SEED, 4])
    weights = Weights(rng, kind, 256, 700, 32, "f8e8m0")
    every = np.arange(1 << weights.bits, dtype=np.uint8)
    known = weights.levels if kind in BOOKS else stored_floats.levels_of(kind)
    levels = every.view(FLOATS[kind]) if known is None else known
    levels = levels.astype(np.float16 if kind in BOOKS else np.float64).astype(np.float64)
    weights.codes = rng.choice(every[: len(levels)][np.isfinite(levels)], weights.codes.shape)
    scale = weights.scale.astype(np.float64)  # powers of two: nothing is rounded
    want = (levels[weights.codes] * scale).reshape(weights.shape).T.astype(np.float32)
    x = ov.opset13.parameter(ov.PartialShape([-1, 256]), np.float32)
    model = ov.Model([ov.opset13.matmul(x, weights.node(ov), False, True)], [x], "m")
    compiled = ov.compile_model(model, "CPU", F32)
    one = np.eye(256, dtype=np.float32)
    np.testing.assert_array_equal(compiled([one])[0], want, err_msg="unpacked")
    for rows in (1, 2, 4):
        for first in range(0, 64, rows):
            got = compiled([one[first : first + rows]])[0]
            np.testing.assert_array_equal(got, want[first : first + rows], err_msg=f"{first}, {rows} rows")


def test_levels_of_bf16_are_looked_up_by_two_bytes():
    isa = TARGETS["avx2"]
    for kind, planes in ("nf4", 4), ("f4e2m1", 2):
        codes, scale = np.zeros((64, 32), np.uint8), np.ones((1, 32), np.float32)
        unpack = compressed.how_unpacked(codes, scale, None, 4, kind)
        table = unpack.table(isa, stored_floats.levels_of(kind))
        assert table is not None and table.nbytes == 32 * planes, kind
        source = compressed.row_kernel("rows", Epilogue(None, []), isa, "f32", unpack).source
        one_row = source.rsplit("else:", 1)[1]  # of each half of a byte of two vectors
        assert one_row.count("look_up(") == 2 * 2 * planes, source


def test_floats_that_are_infinite_or_nan_stay_so():
    rng = np.random.default_rng([SEED, 2])
    weights = Weights(rng, "f8e5m2", 256, 300, 64)
    weights.codes[7, 0, 3] = 0x7C  # infinite
    x = ov.opset13.parameter([1, 256], np.float32)
    model = ov.Model([ov.opset13.matmul(x, weights.node(ov), False, True)], [x], "m")
    got = ov.compile_model(model, "CPU", F32)([np.ones((1, 256), np.float32)])[0]
    assert np.isinf(got[0, 7]) and np.isfinite(got[0, :7]).all() and np.isfinite(got[0, 8:]).all()


@pytest.mark.parametrize("turned", [True, False])
def test_f16_weights_stay_f16_where_f32_is_asked_for(turned):
    rng = np.random.default_rng([SEED, 3])
    depth, outs = 1500, 720
    half = rng.standard_normal((outs, depth) if turned else (depth, outs)).astype(np.float16)
    ops = ov.opset13
    x = ops.parameter(ov.PartialShape([-1, depth]), np.float32)
    model = ov.Model([ops.matmul(x, ops.convert(ops.constant(half), "f32"), False, turned)], [x], "m")
    compiled = ov.compile_model(model, "CPU", F32)
    assert held(compiled) < half.size * 2.2
    weights = half.astype(np.float64).T if turned else half.astype(np.float64)
    for rows in (1, 2, 5, 33):
        data = rng.standard_normal((rows, depth)).astype(np.float32)
        want = data @ weights
        np.testing.assert_allclose(compiled([data])[0], want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("kind", in_turn(["i8", "u8", "i4", "u4", *KINDS], 2))
@pytest.mark.parametrize("size", [64, 256, 37])
@pytest.mark.parametrize("wide", ["f16", "f32"])
def test_rows_of_compressed_tables(kind, size, wide):
    """The table is not there in f32, and what is taken of it is what it stands for."""
    rng = np.random.default_rng([SEED, 4, size])
    depth = 4 * size if size < 256 else size
    rows = (1 << 16) // depth + 9
    weights = Weights(rng, kind, depth, rows, size)
    ops = ov.opset13
    ids = ops.parameter(ov.PartialShape([-1, -1]), np.int64)
    y = ops.gather(weights.node(ov, wide), ids, ops.constant(np.array(0)))
    compiled = ov.compile_model(ov.Model([y], [ids], "m"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    packed = weights.bits == 4 and size % 2 == 0
    assert held(compiled) < weights.real.size * (1.0 if packed else 1.5) + 8192
    real = weights.rounded(wide)
    for shape in ((1, 1), (2, 5)):
        places = rng.integers(-rows, rows, shape)
        want = real[places]
        got = compiled([places])[0]
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7 * np.abs(weights.real).max())
    outside = compiled([np.array([[rows, -rows - 1, 1]])])[0]
    assert (outside[0, :2] == 0).all()
    near = 1e-7 * np.abs(weights.real).max()
    np.testing.assert_allclose(outside[0, 2], real[1], rtol=1e-6, atol=near)


@pytest.mark.parametrize("kind", ["u8", "nf4", "cb4", "cb8"])
@pytest.mark.parametrize("scale", [None, (), (1, 1), (1, 256), (256,), (300, 1)])
def test_rows_outside_of_a_table_are_zeros_whatever_its_scale_is_of(kind, scale):
    """Where a code of 0 is not zero, too."""
    if scale is None and kind not in BOOKS:
        pytest.skip("only codebooks are compressed tables without a scale")
    rng, ops = np.random.default_rng([SEED, 7]), ov.opset13
    weights = Weights(rng, kind, 256, 300, 256)
    codes = weights.constant(ov, weights.codes.reshape(300, 256), f"u{weights.bits}", weights.bits)
    if kind in BOOKS:
        levels = rng.uniform(1, 2, BOOKS[kind][1]).astype(np.float32)
        made = ops.gather(ops.constant(levels), ops.convert(codes, "u8"), ops.constant(np.array(0)))
    elif kind == "nf4":
        levels = LEVELS.astype(np.float32)
        made = ops.convert(weights.constant(ov, weights.codes.reshape(300, 256), kind, 4), "f32")
    else:
        levels = np.arange(256, dtype=np.float32) - 7
        made = ops.subtract(ops.convert(codes, "f32"), ops.constant(np.float32(7)))
    real = levels[weights.codes].reshape(300, 256)
    if scale is not None:
        factors = rng.uniform(1, 2, scale).astype(np.float32)
        made, real = ops.multiply(made, ops.constant(factors)), real * factors
    ids = ops.parameter(ov.PartialShape([-1]), np.int64)
    y = ops.gather(made, ids, ops.constant(np.array(0)))
    compiled = ov.compile_model(ov.Model([y], [ids], "m"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert held(compiled) < real.size * 1.5
    got = compiled([np.array([300, 5, -301, -300, 1 << 40])])[0]
    np.testing.assert_allclose(got[[1, 3]], real[[5, 0]], rtol=1e-6)
    assert not got[[0, 2, 4]].any(), f"seed {SEED}"


@pytest.mark.parametrize("odd", [np.inf, np.nan])
@pytest.mark.parametrize("count", [5, 40])
def test_a_codebook_of_what_is_not_finite_spoils_those_outputs_alone_that_have_it(odd, count):
    """Of a depth that fills no panel."""
    rng, ops = np.random.default_rng([SEED, 8]), ov.opset13
    levels = rng.standard_normal(count).astype(np.float32)
    codes = rng.integers(1, count, (300, 257)).astype(np.uint8)
    levels[0], codes[7, 3] = odd, 0
    x = ops.parameter(ov.PartialShape([-1, 257]), np.float32)
    named = ops.gather(ops.constant(levels), ops.constant(codes), ops.constant(np.array(0)))
    compiled = ov.compile_model(ov.Model([ops.matmul(x, named, False, True)], [x], "m"), "CPU", F32)
    for rows in (1, 3, 20):
        data = rng.standard_normal((rows, 257)).astype(np.float32)
        want = data @ levels[codes].T.astype(np.float64)
        got = compiled([data])[0]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("kind", ["u4", "i4", "u2"])
@pytest.mark.parametrize("row", [(5,), (3, 7), (8,), (1,), (0,)])
def test_rows_of_small_integers_are_unpacked_without_the_others(kind, row, monkeypatch):
    """Where they begin within a byte, too."""
    bits = int(kind[1])
    source = np.random.default_rng([SEED, 9]).integers(0, 256, 4096).astype(np.uint8)
    table = converted.Unpacked(source, (40, *row), kind)
    whole = np.asarray(table).astype(np.int8)
    sizes, unpack = [], converted.unpack_low_first
    monkeypatch.setattr(
        converted, "unpack_low_first", lambda data, *rest: sizes.append(data.size) or unpack(data, *rest)
    )
    for first, end in ((0, 1), (1, 4), (7, 7), (39, 40), (0, 40)):
        np.testing.assert_array_equal(table.rows(first, end).astype(np.int8), whole[first:end])
        assert sizes.pop() * 8 <= (end - first) * np.prod(row) * bits + 14


@pytest.mark.parametrize("kind", ["nf4", "cb4", "cb8"])
@pytest.mark.parametrize("wide", ["f16", "f32"])
def test_rows_of_tables_as_the_real_package(kind, wide):
    rng = np.random.default_rng([SEED, 6])
    weights = Weights(rng, kind, 128, 600, 32)
    places = rng.integers(0, 600, (2, 9))
    answers = []
    for package in (ov, openvino):
        ops = package.opset13
        ids = ops.parameter(package.PartialShape([-1, -1]), np.int64)
        y = ops.gather(weights.node(package, wide), ids, ops.constant(np.array(0)))
        model = package.Model([y], [ids], "m")
        answers.append(package.Core().compile_model(model, "CPU", F32)([places])[0])
    np.testing.assert_array_equal(answers[0], answers[1])


def test_a_table_of_f16_stays_so_and_is_exact():
    rng = np.random.default_rng([SEED, 5])
    table = rng.standard_normal((700, 128)).astype(np.float16)
    ops = ov.opset13
    ids = ops.parameter(ov.PartialShape([-1]), np.int32)
    y = ops.gather(ops.convert(ops.constant(table), "f32"), ids, ops.constant(np.array(0)))
    for config in ({}, {"INFERENCE_PRECISION_HINT": "f32"}):
        compiled = ov.compile_model(ov.Model([y], [ids], "m"), "CPU", config)
        assert held(compiled) < table.nbytes * 1.2
        places = rng.integers(0, 700, 9).astype(np.int32)
        np.testing.assert_array_equal(compiled([places])[0], table[places].astype(np.float32))


@pytest.mark.skipif(not machine.is_x86(), reason="OpenVINO on Arm keeps denormal numbers")
@pytest.mark.parametrize("kind", ["f8e4m3", "f8e5m2"])
def test_threads_that_take_denormal_numbers_for_zeros_read_all_floats_of_8_bits(kind):
    """Every finite code, by one row and by tiles, in a thread that OpenVINO has set so."""
    codes = np.arange(256, dtype=np.uint8)
    codes = np.where(np.isfinite(codes.view(FLOATS[kind]).astype(np.float32)), codes, 0)
    weights = Weights(np.random.default_rng(SEED), kind, 256, 256, 256)
    weights.codes = np.repeat(codes, 256).reshape(weights.blocks).copy()
    weights.scale[...] = 0.5
    real = codes.view(FLOATS[kind]).astype(np.float64) / 2
    ops = ov.opset13
    x = ops.parameter(ov.PartialShape([-1, 256]), np.float32)
    model = ov.Model([ops.matmul(x, weights.node(ov), False, True)], [x], "m")
    compiled = ov.Core().compile_model(model, "CPU", {**F32, "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True})
    found: dict[int, Any] = {}

    def run() -> None:
        p = openvino.opset13.parameter([1, 4], np.float32)
        flushing = openvino.Model([openvino.opset13.relu(p)], [p], "m")
        openvino.Core().compile_model(flushing, "CPU", {"CPU_DENORMALS_OPTIMIZATION": True})
        with np.errstate(all="ignore"):
            found[0] = np.array([1e-39], np.float32) * np.float32(1)
        for rows in (1, 40):
            request = compiled.create_infer_request()
            found[rows] = request.infer([np.eye(rows, 256, dtype=np.float32)])[0]
            assert any(kind in kernel for kernel in kept(request)), kept(request)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found[0] == 0  # the thread does
    for rows in (1, 40):
        np.testing.assert_array_equal(found[rows], np.tile(real, (rows, 1)).astype(np.float32))
