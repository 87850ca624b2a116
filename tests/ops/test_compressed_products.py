"""Weights that stay integers in memory, beside the same products in float64."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.formats import quantizes_rows
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import EXTRA, target_of
from ovjit.compiler import compile as compile_program
from ovjit.compiler.options import Options
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from ovjit.rewrite.compression import stored_weights
from ovjit.tiles import pack
from ovjit_ops.matmul.cpu_compressed import FEW_ROWS
from tests.support.compiled import float_types
from tests.support.run import run
from tests.support.samples import samples_of
from tests.support.sweeps import in_turn, some

SEED = 20261120
F32 = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
RECORD = find_op("CompressedMatMul")
CASES = list(samples_of(RECORD, np.random.default_rng(SEED)))


def product(arrays, attrs, dtype="f32"):
    b = Builder()
    x = b.add("Parameter", (), {"shape": arrays[0].shape, "element_type": dtype}).output
    node = b.add(RECORD, [x, *map(b.constant, arrays[1:])], attrs)
    executable = compile_graph(b.finish([b.add("Relu", [node.output]).output]), {})
    assert executable.program.host_nodes() == []
    return run(executable, arrays[:1])[0].astype(np.float64)


@pytest.mark.parametrize("case", in_turn(range(len(CASES)), 2))
def test_products_equal_the_reference(case):
    """Of every second case by default; bf16 takes the others."""
    arrays, attrs = CASES[case]
    got = product(arrays, attrs)
    want = np.maximum(
        RECORD.evaluate([arrays[0].astype(np.float64), *arrays[1:]], RECORD.check_attributes(attrs))[0], 0
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(1, np.abs(want).max()))


def is_upcast(arrays, attrs):
    """Whether products of bf16 are computed in f32."""
    return attrs["group"] % 2 and attrs["group"] < arrays[1].shape[0]


@pytest.mark.skipif("bf16" not in float_types(), reason="this CPU has no bf16 instructions")
@pytest.mark.parametrize("case", in_turn(range(len(CASES)), 2, 1))
def test_products_of_bf16_equal_the_reference_to_its_rounding(case):
    import ml_dtypes

    arrays, attrs = CASES[case]
    if is_upcast(arrays, attrs):
        pytest.skip("groups of an odd number of elements are upcast")
    arrays = [arrays[0].astype(ml_dtypes.bfloat16), *arrays[1:]]
    got = product(arrays, attrs, "bf16")
    want = np.maximum(
        RECORD.evaluate([arrays[0].astype(np.float64), *arrays[1:]], RECORD.check_attributes(attrs))[0], 0
    )
    np.testing.assert_allclose(got, want, rtol=0.02, atol=0.01 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("cases", ["some", pytest.param("all", marks=pytest.mark.long)])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", ["avx512", "avx2", "generic", "neon"])
def test_products_have_kernels_for_cpus_with_all_features(name: str, dtype: str, cases: str) -> None:
    """On whatever machine this is: nothing is compiled. By default the types take every second case in
    turn."""
    target = target_of(name, [feature for feature, of in EXTRA.items() if of == name])
    for arrays, attrs in CASES[("f32", "bf16", "f16").index(dtype) :: 6] if cases == "some" else CASES:
        if dtype == "bf16" and is_upcast(arrays, attrs):
            continue
        b = Builder()
        x = b.add("Parameter", (), {"shape": arrays[0].shape, "element_type": dtype}).output
        node = b.add(RECORD, [x, *map(b.constant, arrays[1:])], attrs)
        made = compile_program(b.finish([node.output]), target, Options())
        assert made.host_nodes() == []


RANGES = {"i8": (-127, 127), "u8": (0, 255), "i4": (-8, 7), "u4": (0, 15), "u3": (0, 7), "u2": (0, 3)}
#: What products are named by: 2 and 3 bits are stored as 4.
STORED = {"i8": "i8h", "u8": "u8zh", "i4": "u4oh", "u4": "u4zh", "u3": "u4zh", "u2": "u4zh"}
KINDS = [("i8", False), ("u8", True), ("i4", False), ("u4", True), ("u3", True), ("u2", True)]


def stored(ops, rng, kind, depth, outs, groups, turned, zero, wide="f32"):
    """A right-hand side as `nncf.compress_weights` writes it, and what it stands for in float64."""
    low, high = RANGES[kind]
    size = depth // groups
    whole = rng.integers(low, high + 1, (outs, groups, size) if turned else (groups, size, outs))
    axis = 2 if turned else 1
    each = [1 if a == axis else d for a, d in enumerate(whole.shape)]
    scale = rng.uniform(0.001, 0.02, each).astype(np.float16).astype(np.float32)
    zeros = rng.integers(max(low, 0), high + 1, each).astype(np.float32)
    shape = (outs, depth) if turned else (depth, outs)
    if groups == 1:
        whole, scale, zeros = (
            a.reshape([d for i, d in enumerate(a.shape) if i != (1 if turned else 0)])
            for a in (whole, scale, zeros)
        )
    if kind[1] != "8":
        constant = ops.constant(
            whole.astype(np.int8 if kind == "i4" else np.uint8), dtype=getattr(ov.Type, kind)
        )
    else:
        constant = ops.constant(
            whole.astype(kind.replace("i", "int").replace("u", "uint").replace("uintint", "uint"))
        )
    real = ops.convert(constant, wide)
    value = whole.astype(np.float64)
    if zero:
        real = ops.subtract(real, ops.convert(ops.constant(zeros.astype(np.uint8)), wide))
        value = value - zeros
    real = ops.multiply(real, ops.constant(scale.astype(np.float16 if wide == "f16" else np.float32)))
    if groups > 1:
        real = ops.reshape(real, ops.constant(np.array(shape, np.int64)), False)
    value = (value * scale).reshape(shape)
    return (ops.convert(real, "f32") if wide == "f16" else real), value.T if turned else value


@pytest.mark.parametrize("kind, zero", in_turn(list(KINDS), 2))
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("wide", ["f32", "f16", "turned by a Transpose"])
def test_models_as_they_are_written(kind, zero, groups, turned, wide):
    transposed, wide = wide[0] == "t", wide[:3] if wide[0] == "f" else "f16"
    rng = np.random.default_rng([SEED, groups, turned])
    ops = ov.opset13
    depth, outs = 256, 264
    w, value = stored(ops, rng, kind, depth, outs, groups, turned, zero, wide)
    x = ops.parameter(ov.PartialShape([-1, depth]), np.float32)
    w = ops.transpose(w, np.array([1, 0])) if transposed else w
    model = ov.Model([ops.matmul(x, w, False, turned != transposed)], [x], "m")
    compiled = ov.Core().compile_model(model, "CPU", {**F32, "PERF_COUNT": True})
    for rows in (1, 3, 8, 44):
        data = rng.standard_normal((rows, depth)).astype(np.float32)
        request = compiled.create_infer_request()
        got = request.infer([data])[0]
        kernels = [row.exec_type for row in request.get_profiling_info()]
        target = host_target()
        by_digits = rows == 1 and kind[1] != "8" and target.name == "avx2"
        way = "row" if by_digits else "rows" if rows <= FEW_ROWS else "matmul"
        name = f"{way}_{STORED[kind]}_"
        assert [k for k in kernels if k.startswith(name)], kernels
        want = data.astype(np.float64) @ value
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("kind, zero", KINDS)
@pytest.mark.parametrize("groups, turned", [(4, True), (1, True), (4, False)])
@pytest.mark.parametrize("dynamic", [0, 32])
def test_panels_are_the_same_however_many_are_packed_at_a_time(
    kind, zero, groups, turned, dynamic, monkeypatch
):
    rng = np.random.default_rng([SEED, groups, turned])
    w, _ = stored(ov.opset13, rng, kind, 256, 330, groups, turned, zero)
    x = ov.opset13.parameter([2, 256], np.float32)
    model = ov.Model([ov.opset13.matmul(x, w, False, turned)], [x], "m")
    packed = []
    for at_once in (1 << 19, 1):
        monkeypatch.setattr(pack, "_PACKED", at_once)
        made = ov.Core().compile_model(model, "CPU", {**F32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": dynamic})
        packed.append(made._executable.program.memory.tobytes())
    assert packed[0] == packed[1], f"seed {[SEED, groups, turned]}"


@pytest.mark.parametrize("kind, most", [("i4", 1.8), ("u8", 0.9)])
def test_compiling_makes_no_copy_of_all_weights_in_another_type(kind, most):
    """Per weight so many bytes, beside the packed ones: a byte where a user's array has one, and no reals."""
    depth, outs, rng = 512, 8192, np.random.default_rng(SEED)
    w, _ = stored(ov.opset13, rng, kind, depth, outs, 8, True, kind == "u8", "f16")
    x = ov.opset13.parameter([1, depth], np.float32)
    graph = ov.Model([ov.opset13.matmul(x, w, False, True)], [x], "m")._graph()
    small, _ = stored(ov.opset13, rng, kind, 256, 256, 4, True, kind == "u8", "f16")
    other = ov.opset13.parameter([1, 256], np.float32)
    compile_graph(ov.Model([ov.opset13.matmul(other, small, False, True)], [other], "m")._graph(), {})
    tracemalloc.start()
    try:
        made = compile_graph(graph, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    beside = (peak - made.program.memory.nbytes) / (depth * outs)
    assert beside < most, f"{beside:.2f} bytes a weight, seed {SEED}"


@pytest.mark.parametrize("kind, bits", [("u3", 3), ("u2", 2), ("u4", 4)])
def test_rows_are_quantized_before_what_openvino_quantizes_them_for(kind, bits):
    """Not for integers of 2 and 3 bits."""
    rng = np.random.default_rng([SEED, bits])
    w, value = stored(ov.opset13, rng, kind, 256, 264, 4, True, True, "f16")
    x = ov.opset13.parameter(ov.PartialShape([-1, 256]), np.float32)
    model = ov.Model([ov.opset13.matmul(x, w, False, True)], [x], "m")
    data = rng.standard_normal((3, 256)).astype(np.float32)
    got = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(data)[0]
    want = data.astype(np.float64) @ value
    near = np.abs(got - want).max() < 1e-5 * np.abs(want).max()
    assert near == (bits < 4 or not quantizes_rows(host_target())), f"seed {SEED}"


@pytest.mark.parametrize("kind, zero", KINDS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups, turned, given", [(4, True, 3), (1, True, 1), (1, False, 3)])
def test_stacks_of_matrices_stay_as_they_are_stored(kind, zero, groups, turned, given, transposed):
    """Experts: a product with each matrix of a constant."""
    rng = np.random.default_rng([SEED, groups, turned])
    ops, (low, high), experts, depth, outs = ov.opset13, RANGES[kind], 3, 128, 256
    blocks = (experts, outs, groups, depth // groups) if turned else (experts, depth, outs)
    if turned and groups == 1:
        blocks = (experts, outs, depth)
    each = [1 if i == (len(blocks) - 1 if turned else 1) else d for i, d in enumerate(blocks)]
    whole = rng.integers(low, high + 1, blocks)
    scale = rng.uniform(0.001, 0.02, each).astype(np.float16)
    value = whole.astype(np.float64)
    constant = ops.constant(
        whole.astype(np.int8 if kind[0] == "i" else np.uint8), dtype=getattr(ov.Type, kind)
    )
    real = ops.convert(constant, "f16")
    if zero:
        zeros = rng.integers(max(low, 0), high + 1, each)
        real = ops.subtract(real, ops.convert(ops.constant(zeros.astype(np.uint8)), "f16"))
        value = value - zeros
    value = value * scale
    real = ops.multiply(real, ops.constant(scale))
    if groups > 1:
        real = ops.reshape(real, ops.constant(np.array((experts, outs, depth))), False)
        value = value.reshape(experts, outs, depth)
    x = ops.parameter(ov.PartialShape([given, -1, depth]), np.float32)
    real = ops.convert(real, "f32")
    real = ops.transpose(real, np.array([0, 2, 1])) if transposed else real
    y = ops.matmul(x, real, False, turned != transposed)
    compiled = ov.Core().compile_model(ov.Model([y], [x], "m"), "CPU", {**F32, "PERF_COUNT": True})
    for rows in (1, 11):
        data = rng.standard_normal((given, rows, depth)).astype(np.float32)
        request = compiled.create_infer_request()
        got = request.infer([data])[0]
        kernels = [row.exec_type for row in request.get_profiling_info()]
        assert sum(f"_{STORED[kind]}_" in k for k in kernels) == experts, kernels
        want = data.astype(np.float64) @ (value.swapaxes(1, 2) if turned else value)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("rows", [1, 7, 9])
@pytest.mark.parametrize("lead", [(), (1,), (1, 1)])
def test_bias_residual_and_activation_behind_compressed_weights(rows, lead):
    rng = np.random.default_rng([SEED, rows])
    ops = ov.opset13
    w, value = stored(ops, rng, "u4", 256, 264, 4, True, True)
    shape = (*lead, rows)
    x, r = ops.parameter([*shape, 256], np.float32), ops.parameter([*shape, 264], np.float32)
    bias, scale = rng.standard_normal(264).astype(np.float32), np.float32(0.3)
    y = ops.add(ops.matmul(x, w, False, True), ops.constant(bias))
    model = ov.Model([ops.relu(ops.add(ops.multiply(y, ops.constant(scale)), r))], [x, r], "m")
    a, c = (rng.standard_normal((*shape, n)).astype(np.float32) for n in (256, 264))
    got = ov.Core().compile_model(model, "CPU", F32)([a, c])[0]
    want = np.maximum((a.astype(np.float64) @ value + bias) * 0.3 + c, 0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("axis", [1, 2, 0])
@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_a_concatenation_of_few_rows(rows, axis):
    """Rows that lie further apart in the result than they are long."""
    rng = np.random.default_rng([SEED, rows, axis])
    ops = ov.opset13
    w, value = stored(ops, rng, "u8", 256, 264, 1, True, True)
    shape = (1, rows, 256) if axis else (rows, 1, 256)
    x = ops.parameter([*shape], np.float32)
    beside = rng.standard_normal((*shape[:2], 264)).astype(np.float32)
    y = ops.concat([ops.matmul(x, w, False, True), ops.constant(beside)], axis)
    data = rng.standard_normal(shape).astype(np.float32)
    got = ov.Core().compile_model(ov.Model([y], [x], "m"), "CPU", F32)([data])[0]
    want = np.concatenate([data.astype(np.float64) @ value, beside], axis)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * np.abs(want).max(), err_msg=f"seed {SEED}")


@pytest.mark.parametrize(
    "depth, group", in_turn([(4096, 128), (4096, 4096), (333, 37), (77, 32), (40000, 40000)], 2)
)
@pytest.mark.parametrize("data", ["normal", "outliers", "the greatest"])
def test_one_row_times_integers_of_4_bits_is_as_near_as_f32(depth, group, data):
    """In groups that end within words, and such as make one sum of a whole row."""
    rng = np.random.default_rng([SEED, depth, group])
    outs, groups = 21, -(-depth // group)
    whole = rng.integers(0, 16, (depth, outs)).astype(np.uint8)
    x = rng.standard_normal((1, depth)).astype(np.float32)
    if data == "outliers":
        x[0, ::97] *= 1000
    elif data == "the greatest":  # sums of 16 and 32 bits are as great as they can be
        x, whole[:, ::2] = np.copysign(np.float32(3), x), 15
        x[0, : depth // 2] = 3
    scale = rng.uniform(0.5, 1, (groups, outs)).astype(np.float32)
    zero = rng.integers(0, 16, (groups, outs)).astype(np.float32)
    each = np.minimum(np.arange(depth) // group, groups - 1)
    for zeros in ([], [zero], [np.full_like(zero, 8)]):
        w = whole - zeros[0].astype(np.float64)[each] if zeros else whole.astype(np.float64)
        parts = x.astype(np.float64).T * w * scale[each]
        got = product([x, whole, scale, *zeros], {"bits": 4, "group": group})
        want = np.maximum(parts.sum(0), 0)
        # an element is wrong by a step of 2^-24 of its group's greatest, to either side unless all are alike
        errors = depth if data == "the greatest" else np.sqrt(depth)
        near = (np.abs(x).max() * 15 * errors + 4 * np.abs(parts.sum(0)).max()) * 2.0**-24
        assert np.abs(got[0] - want).max() <= near, f"zeros {len(zeros)}, seed {SEED}"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_makes_no_numbers(wrong):
    rng = np.random.default_rng(SEED)
    whole, scale = rng.integers(0, 16, (64, 16)).astype(np.uint8), np.ones((2, 16), np.float32)
    x = rng.standard_normal((1, 64)).astype(np.float32)
    x[0, 40] = wrong
    b = Builder()
    data = b.add("Parameter", (), {"shape": (1, 64), "element_type": "f32"}).output
    node = b.add(RECORD, [data, *map(b.constant, (whole, scale))], {"bits": 4, "group": 32})
    job = compile_graph(b.finish([node.output]), {}).new_job()
    job.set_input(0, x)
    job.run()
    assert not np.isfinite(np.asarray(job.outputs[0])[:, whole[40] > 0]).any()


@pytest.mark.parametrize("rows", [1, 9])
def test_a_great_depth_is_summed_in_blocks(rows):
    rng = np.random.default_rng(SEED)
    depth, outs = 12000, 20
    whole = rng.integers(0, 256, (depth, outs)).astype(np.uint8)
    scale, zero = (rng.uniform(0.5, 1.5, (depth // 100, outs)).astype(np.float32) for _ in range(2))
    arrays = [rng.uniform(0.5, 1, (rows, depth)).astype(np.float32), whole, scale, zero]
    attrs = {"bits": 8, "group": 100}
    want = RECORD.evaluate([arrays[0].astype(np.float64), *arrays[1:]], RECORD.check_attributes(attrs))[0]
    np.testing.assert_allclose(product(arrays, attrs), want, rtol=1e-5)


def test_small_weights_and_near_misses_are_left_alone():
    b = Builder()
    whole = np.ones((256, 300), np.int8)

    def made(*shape):
        real = b.add("Convert", [b.constant(whole)], {"destination_type": "f32"}).output
        return b.add("Multiply", [real, b.constant(np.full(shape, 0.5, np.float32))]).output

    assert stored_weights(made(1, 300), False, "f32") is not None
    assert stored_weights(made(256, 1), True, "f32") is not None
    assert stored_weights(made(256, 1), False, "f32") is None  # a scale for each element of depth
    assert stored_weights(made(256, 300), False, "f32") is None
    assert stored_weights(b.constant(np.ones((256, 300), np.float32)), False, "f32") is None
    order = b.constant(np.array([0, 1]))  # this one turns nothing
    same = b.add("Transpose", [made(256, 1), order]).output
    assert stored_weights(same, False, "f32") is None


RESHAPED = [
    ((64, 2048), (128, 1024), False),
    ((256, 512), (128, 1024), False),
    ((384, 256), (256, 384), True),
    ((1024, 128), (256, 512), True),
    ((128, 1024), (256, 512), True),
]


@pytest.mark.parametrize("shape, final, turned", RESHAPED)
def test_scales_go_with_their_numbers_where_weights_are_reshaped(shape, final, turned):
    ops, rng = ov.opset13, np.random.default_rng([SEED, *shape])
    whole = rng.integers(0, 256, shape)
    scale = rng.uniform(0.5, 1.5, (shape[0], 1) if turned else (1, shape[1])).astype(np.float32)
    real = ops.multiply(ops.convert(ops.constant(whole.astype(np.uint8)), "f32"), ops.constant(scale))
    matrix = (whole * scale.astype(np.float64)).reshape(final)
    matrix = matrix.T if turned else matrix
    data = rng.standard_normal((3, len(matrix))).astype(np.float32)
    x = ops.parameter([-1, len(matrix)])
    y = ops.matmul(x, ops.reshape(real, ops.constant(np.array(final)), False), False, turned)
    want = data.astype(np.float64) @ matrix
    got = ov.compile_model(ov.Model([y], [x]), "CPU", F32)([data])[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("rows", [1, 6, 20])
def test_products_are_parts_of_a_concatenation(rows, axis):
    """Rows lie apart where what they are joined to stands between them."""
    rng = np.random.default_rng([SEED, rows, axis])
    ops = ov.opset13
    weights, real = stored(ops, rng, "u8", 256, 256, 1, True, True)
    x = ops.parameter([1, rows, 256], np.float32)
    y = ops.concat([x, ops.matmul(x, weights, False, True), x], axis)
    data = rng.standard_normal((1, rows, 256)).astype(np.float32)
    got = ov.compile_model(ov.Model([y], [x], "m"), "CPU", F32)(data)[0]
    want = np.concatenate([data, data.astype(np.float64) @ real, data], axis)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def table_of(ops, rng, kind, kinds, outs, depth, groups, zero):
    """Matrices [kinds, outs, depth] as `nncf.compress_weights` writes them, and in float64."""
    wide, size = {"u8": 256, "u4": 16}[kind], depth // groups
    shape = (kinds, outs, groups, size) if groups > 1 else (kinds, outs, depth)
    whole = rng.integers(0, wide, shape).astype(np.uint8)
    scale = rng.uniform(0.001, 0.02, (*shape[:-1], 1)).astype(np.float16)
    zeros = rng.integers(0, wide, (*shape[:-1], 1)).astype(np.uint8)

    def constant(values):
        if kind == "u8":
            return ops.constant(values)
        flat = values.reshape(-1)
        flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
        packed = ov.Tensor(flat[::2] | flat[1::2] << 4, list(values.shape), ov.Type.u4)
        return ops.constant(packed)

    value = ops.convert(constant(whole), "f16")
    if zero:
        value = ops.subtract(value, ops.convert(constant(zeros), "f16"))
    value = ops.multiply(value, ops.constant(scale))
    if groups > 1:
        value = ops.reshape(value, ops.constant(np.array([kinds, outs, depth])), False)
    real = (whole.astype(np.float64) - zero * zeros.astype(np.float64)) * scale.astype(np.float64)
    return ops.convert(value, "f32"), real.reshape(kinds, outs, depth)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("outs", some([288, 280], 1))
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind, groups, zero", [("u8", 1, True), ("u8", 1, False), ("u4", 2, True)])
def test_rows_with_matrices_that_indices_name(kind, groups, zero, left, outs, precision):
    """They stay as they are stored, of whole panels; others are taken first, with the same numbers."""
    if precision not in float_types():
        pytest.skip("this CPU has no bf16 instructions")
    ops, rng = ov.opset13, np.random.default_rng([SEED, outs, groups, zero])
    table, real = table_of(ops, rng, kind, 3, outs, 96, groups, zero)
    x = ops.parameter([-1, 96, 1] if left else [-1, 1, 96], np.float32)
    indices = ops.parameter([-1], np.int32)
    taken = ops.gather(table, indices, ops.constant(np.array(0)))
    y = ops.matmul(taken, x, False, False) if left else ops.matmul(x, taken, False, True)
    config = F32 | {"INFERENCE_PRECISION_HINT": precision}
    compiled = ov.compile_model(ov.Model([ops.relu(y)], [x, indices]), "CPU", config)
    found = {type(low).__name__ for low in compiled._executable.program.lowerings}
    assert ("ChosenProduct" in found) == (outs % 32 == 0)
    for rows in (1, 6, 0, 3):
        names = rng.integers(-5, 5, rows).astype(np.int32)
        data = rng.standard_normal((rows, 1, 96)).astype(np.float32)
        inside = (names >= -3) & (names < 3)
        weights = real[np.where(inside, names, 0)] * inside[:, None, None]
        want = np.maximum(data.astype(np.float64) @ weights.swapaxes(1, 2), 0)
        given, want = (a.swapaxes(1, 2) if left else a for a in (data, want))
        (got,) = compiled([np.ascontiguousarray(given), names]).values()
        limit = (1e-5 if precision == "f32" else 0.02) * max(1, np.abs(want).max(initial=0))
        np.testing.assert_allclose(got, want, atol=limit, err_msg=f"seed {SEED}")


def test_a_table_whose_scales_differ_along_the_depth_is_left_alone():
    ops, rng = ov.opset13, np.random.default_rng(SEED)
    whole = rng.integers(0, 256, (3, 288, 96)).astype(np.uint8)
    scale = rng.uniform(0.001, 0.02, (3, 1, 96)).astype(np.float32)
    table = ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(scale))
    x, indices = ops.parameter([-1, 1, 96], np.float32), ops.parameter([-1], np.int32)
    y = ops.matmul(x, ops.gather(table, indices, ops.constant(np.array(0))), False, True)
    data, names = rng.standard_normal((4, 1, 96)).astype(np.float32), np.array([2, 0, 1, 2], np.int32)
    (got,) = ov.compile_model(ov.Model([y], [x, indices]), "CPU", F32)([data, names]).values()
    want = data.astype(np.float64) @ (whole * scale.astype(np.float64))[names].swapaxes(1, 2)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), err_msg=f"seed {SEED}")
