"""Products of rows that are quantised in groups with blocks of llama.cpp's files: beside the same in f64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.api.model.boundary import Constant
from ovjit.api.model.node import Output
from ovjit.codegen.cpu.formats import quantizes_blocks, quantizes_levels, quantizes_rows
from ovjit.codegen.cpu.host import host_target, target_of
from ovjit.compiler.options import Context, Options
from ovjit.compiler.pass_pipeline import run_passes
from ovjit.graph.stored_floats import codebook, integer_levels
from ovjit.readers.gguf.blocks import FORMS, Form, groups_of
from ovjit.readers.gguf.codebooks import levels_of_type
from ovjit.tiles.compressed import Unpack
from ovjit.tiles.dynamic import groups_of_part, stored_with_levels, table_of_levels
from tests.ops.test_dynamic_quantization import F32, SIZE, check, rounded, steps
from tests.readers.gguf_decoders import dequantised, quantised
from tests.support.sweeps import in_turn

SEED = 20261120


def of_blocks(kind: str, outs: int, depth: int, rng: np.random.Generator) -> tuple[ov.Model, np.ndarray]:
    """x times a random matrix of a file's blocks, and what these stand for."""
    return of_data(kind, quantised(rng, kind, (outs, depth), 0.1), outs, depth)


def of_data(kind: str, data: np.ndarray, outs: int, depth: int) -> tuple[ov.Model, np.ndarray]:
    """The same for given blocks."""
    groups = groups_of(kind, data, (outs, depth), None)

    def stored(values: Any, dtype: str) -> Any:
        return Output._of(Constant._of(values, dtype, None, kind), 0)

    ops = ov.opset13
    codes = stored(groups.codes, groups.dtype)
    if groups.levels is None:
        real = ops.convert(codes, "f32")
    else:
        real = ops.gather(ops.constant(groups.levels), ops.convert(codes, "i32"), ops.constant(np.int64(0)))
    if groups.zero is not None:
        one = isinstance(groups.zero, np.ndarray)
        real = ops.subtract(real, ops.constant(groups.zero) if one else stored(groups.zero, "f32"))
    scale = groups.scale
    if isinstance(scale, np.ndarray):
        real = ops.multiply(real, ops.convert(ops.constant(scale), "f32"))
    else:
        real = ops.multiply(real, stored(scale, "f32"))
    x = ops.parameter(ov.PartialShape([-1, depth]), np.float32)
    product = ops.matmul(x, ops.reshape(real, np.array([outs, depth]), False), False, True)
    return ov.Model([product], [x], kind), dequantised(data, kind)


def kinds() -> list[str]:
    """The types whose rows this CPU quantises."""
    target = host_target()

    def rounds(form: Form) -> bool:
        return quantizes_levels(target) if form.has_levels else quantizes_blocks(target, form.bits)

    return [k for k, form in FORMS.items() if rounds(form)]


def rows_of(kind: str) -> int:
    """Elements of a group of rows by default."""
    nested = (kind.endswith("K") or kind == "IQ1_S") and not quantizes_rows(host_target())
    return 256 if nested else min(32, FORMS[kind].group)


@pytest.mark.parametrize("kind", in_turn(kinds(), 2))
def test_blocks_of_files_with_quantized_rows(kind: str) -> None:
    """Of every second type by default. Rows have groups of 32, or as small ones as the blocks, or of 256
    where scales are integers times a factor; what a row gives does not depend on others."""
    outs, depth = 137, 512
    seed = [SEED, 400, *kind.encode()]
    rng = np.random.default_rng(seed)
    model, real = of_blocks(kind, outs, depth, rng)
    size = rows_of(kind)
    compiled = ov.Core().compile_model(model, "CPU", {**F32, "PERF_COUNT": True})
    x = (rng.standard_normal((70, depth)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    want = rounded(x, size) @ real.astype(np.float64).T
    whole = None
    for rows in (70, 17, 6, 5, 4, 3, 2, 1):
        request = compiled.create_infer_request()
        got = request.infer([x[:rows]])[0]
        assert [s.split("_")[0] for s in steps(request)] == ["quantize", "matmul"]
        check(got, want[:rows], f"{kind}: {rows} rows, seed {seed}")
        whole = got if whole is None else whole
        np.testing.assert_array_equal(got, whole[:rows], f"{kind}: {rows} rows, seed {seed}")


def test_blocks_of_files_are_exact_without_quantized_rows() -> None:
    rng = np.random.default_rng([SEED, 401])
    for config in ({SIZE: 0}, {SIZE: 24}, {"EXECUTION_MODE_HINT": "ACCURACY"}):
        model, real = of_blocks("Q4_K", 137, 512, rng)
        x = rng.standard_normal((9, 512)).astype(np.float32)
        got = ov.compile_model(model, "CPU", {**F32, **config})([x])[0]
        check(got, x.astype(np.float64) @ real.astype(np.float64).T, str(config))


@pytest.mark.parametrize("kind, sizes", [("Q8_0", (32, 0)), ("Q4_0", (32, 32)), ("Q6_K", (256, 256))])
def test_which_rows_are_quantized_without_dots_of_bytes(kind: str, sizes: tuple[int, int]) -> None:
    """AVX2 takes signed bytes by their signs, which AVX-512 has no instruction for."""
    graph = of_blocks(kind, 256, 512, np.random.default_rng([SEED, 402]))[0]._graph()
    for isa, size in zip(("avx2", "avx512"), sizes, strict=True):
        context = Context(target_of(isa, ()), Options(dynamic=32))
        (product,) = (n for n in run_passes(graph, context).nodes if n.op.name == "CompressedMatMul")
        assert product.attrs["dynamic"] == size, isa


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_other_integers_stay_as_exact_as_openvino_has_them(kind: str) -> None:
    """The same integers from elsewhere are multiplied in f32 where OpenVINO does so."""
    model, _ = of_blocks(kind, 256, 512, np.random.default_rng([SEED, 403]))
    constant = next(n for n in model.get_ordered_ops() if n.friendly_name == kind)
    codes = constant.output(0).get_element_type()
    plain = ov.op.Constant(ov.Tensor(constant.get_data(), ov.Shape(list(constant.shape)), codes), True)
    for target in constant.output(0).get_target_inputs():
        target.replace_source_output(plain.output(0))
    context = Context(target_of("avx2", ()), Options(dynamic=32))
    (product,) = (n for n in run_passes(model._graph(), context).nodes if n.op.name == "CompressedMatMul")
    assert product.attrs["dynamic"] == 0


def test_signed_bytes_of_any_value() -> None:
    """-128 as well, whose size is no signed byte, beside values of all signs."""
    outs, depth = 32, 64
    codes = np.tile(np.array([-128, -128, 127, 0, -128, -1, 1, -127], np.int8), outs * depth // 8)
    blocks = np.zeros((outs, depth // 32, 34), np.uint8)
    blocks[..., :2] = np.array([0.5], np.float16).view(np.uint8)
    blocks[..., 2:] = codes.view(np.uint8).reshape(outs, depth // 32, 32)
    model, real = of_data("Q8_0", np.tile(blocks, (8, 8, 1)).reshape(8 * outs, -1), 8 * outs, 8 * depth)
    x = np.where(np.arange(7 * 8 * depth).reshape(7, -1) % 3, 127, -127).astype(np.float32)
    got = ov.compile_model(model, "CPU", F32)([x])[0]
    np.testing.assert_allclose(got, x.astype(np.float64) @ real.astype(np.float64).T, rtol=1e-6)


DEEP = ("Q8_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "TQ2_0", "IQ4_XS")


@pytest.mark.parametrize("kind", [k for k in kinds() if k in DEEP])
def test_parts_of_the_depth(kind: str) -> None:
    """Rows that several chunks share, times panels in several parts, the last one shorter. The same rows
    alone are multiplied by whole panels."""
    outs, depth = 40, 5376
    seed = [SEED, 408, *kind.encode()]
    rng = np.random.default_rng(seed)
    model, real = of_blocks(kind, outs, depth, rng)
    x = rng.standard_normal((131, depth)).astype(np.float32)
    compiled = ov.compile_model(model, "CPU", F32)
    got = compiled([x])[0]
    check(got, rounded(x, rows_of(kind)) @ real.astype(np.float64).T, f"{kind}, seed {seed}")
    for first in (0, 94, 125):
        few = compiled([x[first : first + 5]])[0]
        np.testing.assert_array_equal(few, got[first : first + 5], f"{kind}, seed {seed}")


def test_groups_of_a_part() -> None:
    """A part has whole groups of weights and super-blocks, or lies in one group of weights."""
    target = target_of("avx512", ("avx512vnni",))
    cases = {
        (32, 1, 64, False): 16, (16, 1, 128, True): 32, (32, 64, 64, False): 16, (32, 12, 24, False): 12,
        (32, 24, 48, False): 24, (256, 1, 8, True): 2, (32, 1, 5, False): 5, (32, 2, 24, False): 12,
    }  # fmt: skip
    for given, groups in cases.items():
        assert groups_of_part(*given, target) == groups, given


#: K types: bytes of a block, where f16 factors begin, and where scales of a byte lie.
FULL = {
    "Q2_K": (84, (80, 82), None), "Q3_K": (110, (108,), None), "Q4_K": (144, (0, 2), None),
    "Q5_K": (176, (0, 2), None), "Q6_K": (210, (208,), slice(192, 208)),
}  # fmt: skip


@pytest.mark.parametrize("kind, codes", [*((kind, 0xFF) for kind in FULL), ("Q3_K", 0), ("Q6_K", 0)])
@pytest.mark.parametrize("rows", [3, 20])
def test_the_greatest_sums_fit(kind: str, codes: int, rows: int) -> None:
    """Codes, inner scales and rows as large as they can be, and codes furthest below a zero point."""
    outs, depth = 72, 1024
    size, factors, scales = FULL[kind]
    blocks = np.full((outs, depth // 256, size), codes, np.uint8)
    for at in factors:
        blocks[..., at : at + 2] = np.array([2.0**-10], np.float16).view(np.uint8)
    if scales is not None:
        blocks[::2, :, scales], blocks[1::2, :, scales] = 0x80, 0x7F
    model, real = of_data(kind, blocks.reshape(outs, -1), outs, depth)
    x = np.ones((rows, depth), np.float32)
    x[1::2] = -1
    x[2, ::2] = -1
    request = ov.compile_model(model, "CPU", {**F32, "PERF_COUNT": True}).create_infer_request()
    got = request.infer([x])[0]
    if quantizes_blocks(host_target(), FORMS[kind].bits):
        assert [s.split("_")[0] for s in steps(request)] == ["quantize", "matmul"]
    check(got, x.astype(np.float64) @ real.astype(np.float64).T, kind)


@pytest.mark.parametrize("kind", ["IQ4_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_M", "MXFP4", "NVFP4"])
@pytest.mark.parametrize("rows", [3, 20])
def test_the_greatest_sums_of_levels_fit(kind: str, rows: int) -> None:
    """Rows of the greatest bytes, with the largest levels of both signs."""
    outs, depth = 160, 512
    seed = [SEED, 407, *kind.encode()]
    data = quantised(np.random.default_rng(seed), kind, (outs, depth), 0.1)
    model, real = of_data(kind, data, outs, depth)
    levels = np.sign(real) * (abs(real) > 0.4 * abs(real).max(1, keepdims=True))
    x = np.concatenate([np.ones((1, depth)), -np.ones((1, depth)), levels[: rows - 2]]).astype(np.float32)
    request = ov.compile_model(model, "CPU", {**F32, "PERF_COUNT": True}).create_infer_request()
    got = request.infer([x])[0]
    if quantizes_levels(host_target()):
        assert [s.split("_")[0] for s in steps(request)] == ["quantize", "matmul"]
    check(got, x.astype(np.float64) @ real.astype(np.float64).T, f"{kind} seed {seed}")


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_bytes_of_levels(isa: str) -> None:
    """Types whose levels span 6 bits, 7 and 8: the zero point, and how sums are formed."""
    target = target_of(isa, ("avx512vnni",) if isa == "avx512" else ())
    forms = {
        "MXFP4": (12, 4, False), "IQ3_S": (15, 4, False), "IQ2_S": (43, 1, False), "IQ4_NL": (0, 1, True),
    }  # fmt: skip
    for kind, (zero, sums, signed) in forms.items():
        levels = integer_levels(codebook(levels_of_type(kind), 4))
        assert levels is not None
        stored = stored_with_levels(Unpack(4, False, "", "f16"), *levels, target, 32)
        expected = (zero, sums, signed) if isa == "avx2" else (128, 0, False)
        assert (stored.zero, stored.sums, stored.signed) == expected, kind
        table = table_of_levels(levels[0], stored, target).astype(np.uint8)
        assert table.size == 4 * target.lanes
        real = table[:16].astype(np.int16) - zero if not signed else table[:16].view(np.int8)
        if isa == "avx2":
            np.testing.assert_array_equal(real * levels[1], levels_of_type(kind))


def test_a_small_group_size_is_taken() -> None:
    """Smaller groups of rows than those of integer scales, which are multiplied as f32 then."""
    graph = of_blocks("Q4_K", 256, 512, np.random.default_rng([SEED, 404]))[0]._graph()
    for given, size in ((16, 16), (32, 256), (128, 256)):
        context = Context(target_of("avx2", ()), Options(dynamic=given))
        (product,) = (n for n in run_passes(graph, context).nodes if n.op.name == "CompressedMatMul")
        assert product.attrs["dynamic"] == size, given
    model, real = of_blocks("Q4_K", 137, 512, np.random.default_rng([SEED, 405]))
    x = np.random.default_rng([SEED, 406]).standard_normal((11, 512)).astype(np.float32)
    got = ov.compile_model(model, "CPU", {**F32, SIZE: 16})([x])[0]
    rows = rounded(x, 16) if quantizes_blocks(host_target(), 4) else x
    check(got, rows @ real.astype(np.float64).T)
