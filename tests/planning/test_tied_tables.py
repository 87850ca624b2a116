"""A table of words whose rows a Gather takes, and that a product multiplies, too, is in memory once."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.targets import target_of
from ovjit.compiler import compile as compile_program
from ovjit.compiler.options import Options

SEED = 20261122
F32 = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}


def made(ops, stored, shape, rng):
    """The table as a value of the model, and its numbers."""
    if stored in ("f32", "f16"):
        table = rng.standard_normal(shape).astype(stored.replace("f", "float"))
        value = ops.constant(table)
        return value if stored == "f32" else ops.convert(value, "f32"), table.astype(np.float32)
    low, kind = (-128, np.int8) if stored == "i8" else (0, np.uint8)
    whole = rng.integers(low, low + 256, shape).astype(kind)
    scale = rng.uniform(0.5, 1.5, (shape[0], 1)).astype(np.float32) / 64
    zero = np.float32(0 if stored == "i8" else rng.integers(100, 150))
    real = ops.subtract(ops.convert(ops.constant(whole), "f32"), ops.constant(zero))
    return ops.multiply(real, ops.constant(scale)), (whole.astype(np.float32) - zero) * scale


def decoder(table, **how):
    """ids -> (rows, rows times the table's transpose)"""
    ops = ov.opset13
    ids = ops.parameter([-1, -1], np.int64, name="ids")
    words = ops.gather(table, ids, ops.constant(np.int64(0)))
    logits = ops.matmul(words, table, False, True)
    if how.get("placed"):  # a concatenation asks the rows to be written side by side with others
        words = ops.concat([words, words], -1)
    return ov.Model([words, logits], [ids], "decoder")


def packed(compiled) -> int:
    return int(compiled._executable.program.constants.size)


SHAPES = {"f32": (1009, 70), "f16": (2065, 512), "u8": (1009, 72), "i8": (1009, 72)}


@pytest.mark.parametrize("placed", (False, True))
@pytest.mark.parametrize("group", (0, 32))
@pytest.mark.parametrize("stored", SHAPES)
def test_a_tied_table_is_packed_once(stored, group, placed):
    if group and stored in ("f32", "f16", "i8"):
        pytest.skip("rows are quantized before they are multiplied by unsigned bytes alone")
    rng = np.random.default_rng(SEED)
    shape = SHAPES[stored]
    value, table = made(ov.opset13, stored, shape, rng)
    settings = F32 | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
    compiled = ov.compile_model(decoder(value, placed=placed), "CPU", settings)
    size = {"f32": 4, "f16": 2}.get(stored, 1) * table.size
    assert size <= packed(compiled) < 1.5 * size
    rows = shape[0]
    for ids in ([[0, 1, 31, 32], [rows - 1, -1, -rows, rows // 2]], [[rows - 2]], [[rows, -rows - 1]]):
        ids = np.array(ids)
        words, logits = compiled(ids, share_outputs=False).to_tuple()
        inside = ((ids >= -rows) & (ids < rows))[..., None]
        want = np.where(inside, table[np.clip(ids, -rows, rows - 1)], 0)
        np.testing.assert_array_equal(words, np.concatenate([want, want], -1) if placed else want)
        wide = want.astype(np.float64) @ table.T.astype(np.float64)
        room = 2e-2 if group else 1e-5
        np.testing.assert_allclose(logits, wide, atol=room * max(1.0, np.abs(wide).max()))


def test_gathers_invert_the_signs_of_panels():
    """On AArch64, whose instructions multiply data by bytes with a sign."""
    target = target_of("neon", ("lse", "dotprod", "i8mm"))
    value, table = made(ov.opset13, "u8", SHAPES["u8"], np.random.default_rng(SEED))
    program = compile_program(decoder(value)._graph(), target, Options(dynamic=32))
    names = {kernel.name for kernel in program.kernels}
    assert any(name.startswith("matmul_i8_") for name in names), names
    assert "gather_panels_flipped_i64_i32" in names, names
    assert table.size <= program.constants.size < 1.5 * table.size


def test_a_table_of_subnormal_numbers_is_taken_as_it_is():
    """Panels have zeros in their place."""
    table = np.random.default_rng(SEED).standard_normal((1009, 64)).astype(np.float32)
    table[500, 3] = 1e-40
    compiled = ov.compile_model(decoder(ov.opset13.constant(table)), "CPU", F32)
    assert packed(compiled) > 2 * table.nbytes
    np.testing.assert_array_equal(compiled([[500]])[0][0], table[500:501])


def test_a_table_that_a_product_reads_otherwise_is_taken_as_it_is():
    ops = ov.opset13
    table = np.random.default_rng(SEED).standard_normal((256, 256)).astype(np.float32)
    ids, value = ops.parameter([-1], np.int64), ops.constant(table)
    words = ops.gather(value, ids, ops.constant(np.int64(0)))
    compiled = ov.compile_model(ov.Model([words, ops.matmul(words, value, False, False)], [ids]), "CPU", F32)
    got = compiled([3, -1])
    np.testing.assert_array_equal(got[0], table[[3, -1]])
    np.testing.assert_allclose(got[1], table[[3, -1]].astype(np.float64) @ table, rtol=0, atol=1e-3)


@pytest.mark.parametrize("group", (0, 32))
def test_rows_of_a_table_are_not_the_rows_of_the_product_that_packs_it(group):
    """Four of them are one: the product's weights are the reshaped table."""
    rng, ops = np.random.default_rng(SEED), ov.opset13
    table, scale = rng.integers(0, 256, (1024, 128)), rng.uniform(0.5, 1.5, (1024, 1)).astype(np.float32)
    value = ops.constant(table.astype(np.uint8))
    real = ops.multiply(ops.convert(value, "f32"), ops.constant(scale))
    ids, x = ops.parameter([-1], np.int64), ops.parameter([-1, 512])
    words = ops.gather(value, ids, ops.constant(np.int64(0)))
    logits = ops.matmul(x, ops.reshape(real, ops.constant(np.array([256, 512])), False), False, True)
    settings = F32 | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
    compiled = ov.compile_model(ov.Model([words, logits], [ids, x]), "CPU", settings)
    asked, data = np.array([0, 255, 256, -1, 700]), rng.standard_normal((3, 512)).astype(np.float32)
    got = compiled([asked, data])
    np.testing.assert_array_equal(got[0], table[asked])
    wide = data.astype(np.float64) @ (table * scale.astype(np.float64)).reshape(256, 512).T
    np.testing.assert_allclose(got[1], wide, rtol=0, atol=(1e-2 if group else 1e-6) * np.abs(wide).max())


def test_what_is_exported_has_the_table_once():
    rng = np.random.default_rng(SEED)
    value, table = made(ov.opset13, "f32", SHAPES["f32"], rng)
    compiled = ov.compile_model(decoder(value), "CPU", F32)
    again = ov.Core().import_model(compiled.export_model(), "CPU", F32)
    for ids in ([[1, 2, 1008]], [[4], [-1]]):
        np.testing.assert_array_equal(again(np.array(ids))[0], table[np.array(ids)])


def beside(y, z):
    """A sum that is fused with what makes `y` where an inference's shapes are equal, else a step."""
    return ov.opset13.relu(ov.opset13.add(y, z))


@pytest.mark.parametrize("group", (0, 32))
@pytest.mark.parametrize("stored", ("f32", "u8", "winograd", "depthwise"))
def test_weights_are_packed_once_for_both_variants_of_a_sum(stored, group):
    ops, rng = ov.opset13, np.random.default_rng([SEED, group])
    if stored in ("f32", "u8"):
        x, z = (ops.parameter([-1, -1, 1024], np.float32, name=name) for name in "xz")
        value, weights = made(ops, stored, (1024, 1024), rng)
        y, shape = ops.matmul(x, value, False, True), (1, 3, 1024)
        size = weights.size * (4 if stored == "f32" else 1)
    else:
        x, z = (ops.parameter([-1, 256, -1, -1], np.float32, name=name) for name in "xz")
        each = (256, 256) if stored == "winograd" else (256, 1, 1)
        weights = rng.standard_normal((*each, 3, 3)).astype(np.float32) / 16
        make = ops.convolution if stored == "winograd" else ops.group_convolution
        y, shape = make(x, ops.constant(weights), [1, 1], [1, 1], [1, 1], [1, 1]), (1, 256, 14, 14)
        size = weights.nbytes * (4 if stored == "winograd" else 1)  # 36 planes for 9 taps at most
    model = ov.Model([beside(y, z)], [x, z], "sum")
    settings = F32 | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
    compiled = ov.compile_model(model, "CPU", settings)
    assert packed(compiled) < 1.3 * size + 8192
    data = rng.standard_normal(shape, np.float32)
    equal = rng.standard_normal(shape, np.float32)
    repeated = np.ones((1, 1, 1024) if len(shape) == 3 else (1, 256, 1, 1), np.float32)
    with_sum, apart = compiled([data, equal])[0], compiled([data, repeated])[0]
    plain = ov.compile_model(ov.Model([y], [x, z], "alone"), "CPU", settings)([data, equal])[0]
    np.testing.assert_allclose(with_sum, np.maximum(plain + equal, 0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(apart, np.maximum(plain + 1, 0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows, depth", [(1, 4), (9, 4), (5, 16), (31, 3), (33, 4), (70, 8)])
def test_tables_of_less_than_a_panel(rows, depth):
    """All rows are in the last panel, which is narrower."""
    op, rng = ov.opset13, np.random.default_rng(rows)
    table = rng.integers(-8, 9, (rows, depth)).astype(np.float32)
    ids, shared = op.parameter([2, 3], np.int64), op.constant(table)
    found = op.gather(shared, ids, op.constant(np.int64(0)))
    model = ov.Model([op.matmul(found, shared, False, True)], [ids], "tied")
    at = rng.integers(0, rows, (2, 3))
    got = ov.compile_model(model, "CPU", F32)([at])[0]
    np.testing.assert_array_equal(got, table[at] @ table.T, err_msg=f"seed {rows}")
