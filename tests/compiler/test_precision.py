"""bf16: stored as such, multiplied as such, added in f32; and f32 where f32 is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.codegen.cpu.host import best_target
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.graph.op import all_ops, find_op
from ovjit.rewrite.low_precision import lower_precision, part_of
from tests.support.compiled import float_types, here, run_passes
from tests.support.networks import NAMES, build, error, expected, network_input, real_core
from tests.support.run import run_job
from tests.support.samples import has_samples, samples_of
from tests.support.sweeps import in_turn

SEED = 20261120
BF16 = {"INFERENCE_PRECISION_HINT": "bf16"}
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
needs_avx512 = pytest.mark.skipif(best_target() != "avx512", reason="bf16 is emulated with AVX-512 alone")
needs_bf16 = pytest.mark.skipif("bf16" not in float_types(), reason="this CPU has no bf16 instructions")
PADDED = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1), "dilations": (1, 1)}
POINT = {"strides": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0), "dilations": (1, 1)}
STEM = {"strides": (2, 2), "pads_begin": (3, 3), "pads_end": (3, 3), "dilations": (1, 1)}
DILATED = {"strides": (2, 1), "pads_begin": (2, 2), "pads_end": (1, 3), "dilations": (2, 2)}
ROW = {"strides": (2,), "pads_begin": (1,), "pads_end": (0,), "dilations": (1,)}

CASES = [
    *(("Convolution", ((2, c, 9, 10), (33, c, 3, 3)), True, PADDED) for c in (1, 3, 5, 16, 33)),
    *(("Convolution", ((1, c, 15, 10), (17, c, 7, 7)), True, STEM) for c in (2, 3, 4, 7)),
    *(("Convolution", ((1, c, 9, 10), (7, c, 3, 2)), True, DILATED) for c in (3, 6)),
    ("Convolution", ((2, 5, 17), (8, 5, 3)), True, ROW),
    ("GroupConvolution", ((1, 32, 9, 10), (32, 1, 1, 3, 3)), True, PADDED),
    ("GroupConvolution", ((1, 17, 9, 10), (17, 1, 1, 3, 3)), True, PADDED),
    ("GroupConvolution", ((1, 6, 9, 10), (2, 5, 3, 3, 3)), True, PADDED),
    ("ConvolutionBackpropData", ((1, 5, 9, 10), (5, 7, 3, 3)), True, {"strides": (2, 2)}),
    *(
        (
            "MatMul", ((2, k, 7) if ta else (2, 7, k), (50, k) if tb else (k, 50)), constant,
            {"transpose_a": ta, "transpose_b": tb},
        )
        for ta in (False, True)
        for tb in (False, True)
        for k in (1, 16, 17, 33)
        for constant in (False, True)
    ),
    ("MatMul", ((3, 7, 17), (3, 17, 40)), False, {}),
    ("MatMul", ((17,), (17, 40)), False, {}),
    ("MatMul", ((4, 17), (17,)), False, {}),
    ("MatMul", ((5,), (5,)), False, {}),
]  # fmt: skip


@needs_bf16
@pytest.mark.parametrize("name, shapes, constant, attrs", CASES)
def test_products_of_bf16_are_exact_to_a_rounding(name, shapes, constant, attrs):
    """Products of bf16 are exact in f32: what is lost is the sum's rounding and that of the result."""
    rng = np.random.default_rng(SEED)
    arrays = [rng.standard_normal(s).astype(ml_dtypes.bfloat16) for s in shapes]
    b = Builder()
    x = b.add("Parameter", (), {"shape": shapes[0], "element_type": "bf16"}).output
    w = (
        b.constant(arrays[1])
        if constant
        else b.add("Parameter", (), {"shape": shapes[1], "element_type": "bf16"}).output
    )
    executable = compile_graph(b.finish([b.add(name, [x, w], attrs).output]), {})
    assert executable.program.host_nodes() == []
    job = executable.new_job()
    run_job(job, arrays[: 1 if constant else 2])
    record = find_op(name)
    wide = [a.astype(np.float64) for a in arrays]
    want = record.evaluate(wide, record.check_attributes(attrs))[0]
    size = record.evaluate([np.abs(a) for a in wide], record.check_attributes(attrs))[0]
    got = np.asarray(job.outputs[0]).astype(np.float64)
    assert np.all(np.abs(got - want) <= np.abs(want) * 2**-8 + size * 1e-6), f"seed {SEED}"


@needs_bf16
@pytest.mark.parametrize("way", ["2", "4"])
@pytest.mark.parametrize("channels", [16, 17, 64])
@pytest.mark.parametrize("size", [(14, 14), (9, 11)])
def test_winograd_of_bf16_is_near_the_direct_way(monkeypatch, way, channels, size):
    """F(4x4) has planes of f32; F(2x2) rounds the sums of its transforms to bf16, where channels are even."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((2, channels, *size)).astype(ml_dtypes.bfloat16)
    w = rng.standard_normal((40, channels, 3, 3)).astype(ml_dtypes.bfloat16)
    bias = rng.standard_normal((1, 40, 1, 1)).astype(ml_dtypes.bfloat16)
    more = rng.standard_normal((2, 40, *size)).astype(ml_dtypes.bfloat16)
    monkeypatch.setenv("OVJIT_WINOGRAD", way)
    b = Builder()
    data, other = (
        b.add("Parameter", (), {"shape": a.shape, "element_type": "bf16"}).output for a in (x, more)
    )
    y = b.add("Convolution", [data, b.constant(w)], PADDED).output
    y = b.add("Add", [b.add("Add", [y, b.constant(bias)]).output, other]).output
    # where a matrix unit multiplies, Winograd is not chosen
    executable = compile_graph(b.finish([b.add("Relu", [y]).output]), {"OVJIT_MATRIX_UNIT": False})
    used = [kernel.name for kernel in executable.program.kernels]
    assert any(name.startswith("winograd_input_bf16") for name in used)
    assert any(name.startswith("conv_bf16") for name in used) == (way == "2" and channels % 2 == 0)
    job = executable.new_job()
    run_job(job, (x, more))
    record = find_op("Convolution")
    wide = [a.astype(np.float64) for a in (x, w)]
    want = np.maximum(record.evaluate(wide, record.check_attributes(PADDED))[0] + bias + more, 0)
    got = np.asarray(job.outputs[0]).astype(np.float64)
    lost = np.abs(got - want) - np.abs(want) * 2**-8
    deviation = np.sqrt(9 * channels)  # of the sums
    rounded = way == "2" and channels % 2 == 0
    assert lost.max() <= (2**-5 if rounded else 1e-5) * deviation, f"seed {SEED}"


@pytest.mark.parametrize("name", ["Sigmoid", "Swish"])
def test_activations_of_bf16_are_exact_to_their_rounding(name):
    """They are computed with less than f32 has, and with more than shows: all bf16, infinities, NaN."""
    x = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    b = Builder()
    data = b.add("Parameter", (), {"shape": x.shape, "element_type": "bf16"}).output
    executable = compile_graph(b.finish([b.add(name, [data]).output]), {})
    job = executable.new_job()
    run_job(job, [x])
    got = np.asarray(job.outputs[0]).astype(np.float64)
    record = find_op(name)
    with np.errstate(all="ignore"):
        want = record.evaluate([x.astype(np.float64)], {})[0]
        near = np.abs(got - want) <= np.abs(want) * 2**-8 * 1.02 + 2.0**-120
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    wrong = ~(near | same)
    assert not wrong.any(), list(zip(x[wrong][:5], got[wrong][:5], want[wrong][:5], strict=True))


def lowered(output, inputs):
    b = Builder()
    values = [
        b.add("Parameter", (), {"shape": s, "element_type": "f32"}, name=f"p{i}").output
        for i, s in enumerate(inputs)
    ]
    return run_passes(b.finish([output(b, *values)]), precision="bf16")


def types_of(graph):
    return {n.op.name: n.outputs[0].dtype for n in graph.nodes}


def weights(b, *shape):
    return b.constant(np.random.default_rng(SEED).standard_normal(shape).astype(np.float32))


@needs_bf16
def test_what_feeds_a_softmax_stays_f32_and_what_a_product_reads_does_not():
    def build(b, x):
        y = b.add("MatMul", [x, weights(b, 16, 16)]).output
        y = b.add(
            "Softmax", [b.add("Multiply", [y, b.constant(np.float32(0.25))]).output], {"axis": 1}
        ).output
        return b.add("MatMul", [y, weights(b, 16, 8)], name="last").output

    graph = lowered(build, [(4, 16)])
    found = [
        (n.op.name, n.outputs[0].dtype) for n in graph.nodes if n.op.name not in ("Constant", "Parameter")
    ]
    assert found == [
        ("Convert", "bf16"), ("MatMul", "f32"), ("Multiply", "f32"), ("Softmax", "f32"), ("Convert", "bf16"),
        ("MatMul", "f32"),
    ]  # fmt: skip


@needs_bf16
@pytest.mark.parametrize("last", ["Cos", "Sin"])
def test_products_that_are_angles_stay_f32(last):
    """Of positions and frequencies: where bf16 has steps of 4, an angle is any other one."""
    places = np.arange(0, 1200, 37, dtype=np.float32).reshape(1, 1, -1)
    turns = (10000.0 ** (-np.arange(0, 16, 2) / 16)).astype(np.float32).reshape(1, -1, 1)

    def build(b, x):
        angles = b.add("MatMul", [b.constant(turns), x]).output
        angles = b.add("Transpose", [angles, b.constant(np.array([0, 2, 1], np.int64))]).output
        angles = b.add("Concat", [angles, angles], {"axis": 2}).output
        return b.add("MatMul", [b.add(last, [angles]).output, weights(b, 16, 8)], name="last").output

    graph = lowered(build, [places.shape])
    products = [n for n in graph.nodes if n.op.name == "MatMul"]
    assert [n.inputs[0].dtype for n in products] == ["f32", "bf16"]
    executable = compile_graph(graph, {})
    job = executable.new_job()
    run_job(job, [places])
    rng = np.random.default_rng(SEED)
    angles = np.matmul(turns.astype(np.float64), places).transpose(0, 2, 1)
    angles = np.concatenate([angles, angles], 2)
    want = (np.cos if last == "Cos" else np.sin)(angles) @ rng.standard_normal((16, 8)).astype(np.float32)
    np.testing.assert_allclose(job.outputs[0], want, atol=0.06, err_msg=f"seed {SEED}")


@needs_bf16
def test_products_that_are_more_than_angles_do_not():
    def build(b, x):
        y = b.add("MatMul", [x, weights(b, 16, 16)]).output
        return b.add("Add", [b.add("Sin", [y]).output, y], name="last").output

    graph = lowered(build, [(4, 16)])
    assert next(n for n in graph.nodes if n.op.name == "MatMul").inputs[0].dtype == "bf16"


@needs_bf16
def test_a_chain_of_convolutions_is_stored_in_bf16_up_to_the_models_output():
    def build(b, x):
        y = b.add("Convolution", [x, weights(b, 8, 3, 3, 3)], PADDED).output
        y = b.add("MaxPool", [b.add("Relu", [y]).output], {"kernel": (2, 2), "strides": (2, 2)}).output
        return b.add("Relu", [b.add("Convolution", [y, weights(b, 4, 8, 1, 1)], name="z").output]).output

    graph = lowered(build, [(1, 3, 8, 8)])
    assert types_of(graph)["MaxPool"] == "bf16"
    assert graph.outputs[0].dtype == "f32" and graph.outputs[0].node.op.name == "Relu"


@needs_bf16
@pytest.mark.parametrize("axes", [(2, 3), (1,), (0, 2), (3,), (1, 2, 3)])
@pytest.mark.parametrize("name", ["ReduceMean", "ReduceMax", "ReduceL2"])
def test_reductions_read_what_is_stored_in_bf16(name, axes):
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((2, 16, 6, 5)).astype(np.float32)

    def build(b, x):
        y = b.add("Relu", [b.add("Convolution", [x, weights(b, 40, 16, 3, 3)], PADDED).output]).output
        axis = b.constant(np.array(axes, np.int64))
        gate = b.add(name, [y, axis], {"keep_dims": True}).output
        scaled = b.add("Multiply", [y, gate]).output
        return b.add("Convolution", [scaled, weights(b, 8, 40, 1, 1)], POINT).output

    graph = lowered(build, [x.shape])
    node = next(n for n in graph.nodes if n.op.name == name)
    assert node.output.dtype == "f32"
    assert node.inputs[0].dtype == "bf16" and node.inputs[0].node.op.name == "Relu"
    b = Builder()
    value = b.add("Parameter", (), {"shape": x.shape, "element_type": "f32"}).output
    plain = b.finish([build(b, value)])
    answers = []
    for precision in ("f32", "bf16"):
        executable = compile_graph(plain, {"INFERENCE_PRECISION_HINT": precision})
        assert executable.program.host_nodes() == []
        job = executable.new_job()
        run_job(job, [x])
        answers.append(np.array(job.outputs[0]))
    assert not np.array_equal(*answers)
    assert np.abs(answers[0] - answers[1]).max() <= 0.02 * np.abs(answers[0]).max(), f"seed {SEED}"


@needs_bf16
@pytest.mark.parametrize("mode", ["nearest", "linear_onnx"])
def test_nearest_elements_are_carried(mode):
    """As they are stored; sizes as scales stay f32, and so does what is interpolated."""
    scales = np.array([1.3, 2.6], np.float32)  # no numbers of bf16

    def build(b, x):
        y = b.add("Convolution", [x, weights(b, 8, 5, 3, 3)], PADDED).output
        attrs = {"mode": mode, "shape_calculation_mode": "scales"}
        places = b.constant(scales), b.constant(np.array([2, 3]))
        resized = b.add(find_op("Interpolate", 11), [y, *places], attrs).output
        return b.add("Convolution", [resized, weights(b, 4, 8, 1, 1)], POINT).output

    graph = lowered(build, [(1, 5, 9, 10)])
    node = next(n for n in graph.nodes if n.op.name == "Interpolate")
    carried = "bf16" if mode == "nearest" else "f32"
    assert [v.dtype for v in (*node.inputs[:2], node.output)] == [carried, "f32", carried]
    np.testing.assert_array_equal(node.inputs[1].constant, scales)


@needs_bf16
def test_graphs_without_products_are_left_alone():
    b = Builder()
    x = b.add("Parameter", (), {"shape": (3,), "element_type": "f32"}).output
    graph = b.finish([b.add("Exp", [b.add("Relu", [x]).output]).output])
    assert lower_precision(graph, here(precision="bf16")) is graph


def test_every_operation_has_a_part():
    records = [record for record in all_ops() if not callable(record.part)]
    parts = {part_of(SimpleNamespace(op=record, attrs={})) for record in records}
    assert parts == {"compute", "fuse", "carry", "read", "keep"}


@needs_bf16
@pytest.mark.parametrize("name", [n for n in NAMES if n in ("squeezenet", "shufflenet")])
def test_networks_lose_about_what_openvino_loses(name):
    x = network_input(name)
    mine = ov.Core().compile_model(str(build(name)), "CPU", BF16)([x])[0]
    theirs = real_core().compile_model(build(name), "CPU", BF16)([x])[0]
    assert error(mine, expected(name)) <= 2 * error(theirs, expected(name)) + 1e-3


@pytest.mark.parametrize(
    "config",
    [
        {"INFERENCE_PRECISION_HINT": "f32"}, {"INFERENCE_PRECISION_HINT": "bf16"},
        {"INFERENCE_PRECISION_HINT": "f16"}, {"INFERENCE_PRECISION_HINT": "dynamic"},
        {"EXECUTION_MODE_HINT": "ACCURACY"},
        {"EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_PRECISION_HINT": "bf16"},
        {"EXECUTION_MODE_HINT": "PERFORMANCE", "INFERENCE_PRECISION_HINT": "f32"},
    ],
)  # fmt: skip
@needs_bf16
def test_compiled_models_tell_the_precision_that_openvino_tells(config):
    def told(package):
        ops = package.opset8
        x = ops.parameter([1, 16], np.float32)
        w = ops.constant(np.ones((16, 16), np.float32))
        model = package.Model([ops.matmul(x, w, False, False)], [x], "m")
        return package.Core().compile_model(model, "CPU", config).get_property("INFERENCE_PRECISION_HINT")

    ours, real = told(ov).get_type_name(), told(openvino).get_type_name()
    # a CPU with instructions of f16 computes in it there, in f32 here
    assert ours == real or (config.get("INFERENCE_PRECISION_HINT"), ours, real) == ("f16", "f32", "f16")


@needs_avx512
def test_bf16_is_emulated_where_the_instruction_is_missing(monkeypatch):
    monkeypatch.setenv("OVJIT_ISA", "avx512")
    monkeypatch.setenv("OVJIT_HIDE", "avx512bf16")
    rng = np.random.default_rng(SEED)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((5, 33), (33, 9)))
    ops = ov.opset8
    p = ops.parameter(list(x.shape), np.float32)
    model = ov.Model([ops.matmul(p, ops.constant(w), False, False)], [p], "m")
    got = ov.Core().compile_model(model, "CPU", BF16)([x])[0]
    rounded = [a.astype(ml_dtypes.bfloat16).astype(np.float64) for a in (x, w)]
    want = rounded[0] @ rounded[1]
    np.testing.assert_allclose(got, want, rtol=2**-8, atol=1e-5)


@needs_avx512
@pytest.mark.parametrize("residual", [False, True])
def test_emulated_sums_are_rounded_where_they_are_stored(monkeypatch, residual):
    """Not before a bias that leaves little of them: kernels of bf16 have both in registers."""
    monkeypatch.setenv("OVJIT_ISA", "avx512")
    monkeypatch.setenv("OVJIT_HIDE", "avx512bf16")
    rng = np.random.default_rng(SEED)
    x = (rng.uniform(0.5, 1, (1, 16, 5, 5))).astype(ml_dtypes.bfloat16).astype(np.float32)
    w = (rng.uniform(0.5, 1, (16, 16, 1, 1))).astype(ml_dtypes.bfloat16).astype(np.float32)
    sums = np.einsum("nchw,oc->nohw", x.astype(np.float64), w[:, :, 0, 0])
    bias = -sums.mean((0, 2, 3)).reshape(1, 16, 1, 1).astype(np.float32)
    ops = ov.opset8
    p = ops.parameter(list(x.shape), np.float32)
    none = [1, 1], [0, 0], [0, 0], [1, 1]
    y = ops.add(ops.convolution(p, ops.constant(w), *none), ops.constant(bias))
    y = ops.relu(ops.add(y, p) if residual else y)
    same = ops.constant(np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1))
    got = ov.Core().compile_model(ov.Model([ops.convolution(y, same, *none)], [p], "m"), "CPU", BF16)([x])[0]
    want = np.maximum(sums + bias + (x if residual else 0), 0)
    np.testing.assert_allclose(got, want, rtol=2**-8, atol=2e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("isa", ["avx2", "generic"])
def test_bf16_is_f32_where_openvino_says_so(monkeypatch, isa):
    """Without AVX-512: OpenVINO answers with f32 when bf16 is asked for, and computes in it."""
    if list(TARGETS).index(isa) < list(TARGETS).index(best_target()):
        pytest.skip(f"this CPU has no {isa}")
    monkeypatch.setenv("OVJIT_ISA", isa)
    rng = np.random.default_rng(SEED)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((5, 33), (33, 9)))
    ops = ov.opset8
    p = ops.parameter(list(x.shape), np.float32)
    model = ov.Model([ops.matmul(p, ops.constant(w), False, False)], [p], "m")
    for asked in ("bf16", "f16", "f32"):
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": asked})
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32
        want = x.astype(np.float64) @ w
        np.testing.assert_allclose(compiled([x])[0], want, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


@needs_bf16
def test_open_shapes_are_planned_in_bf16():
    ops = ov.opset8
    rng = np.random.default_rng(SEED)
    w, v = (
        rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        rng.standard_normal((8, 8, 3, 3)).astype(np.float32),
    )
    x = ops.parameter(ov.PartialShape([-1, 3, -1, -1]), np.float32)
    one = ops.relu(ops.convolution(x, ops.constant(w), [1, 1], [1, 1], [1, 1], [1, 1]))
    two = ops.add(ops.convolution(one, ops.constant(v), [1, 1], [1, 1], [1, 1], [1, 1]), one)
    model = ov.Model([two], [x], "m")
    low, full = (ov.Core().compile_model(model, "CPU", c) for c in (BF16, F32))
    for shape in ((1, 3, 8, 8), (3, 3, 5, 9), (2, 3, 1, 1), (0, 3, 4, 4)):
        data = rng.standard_normal(shape).astype(np.float32)
        got, want = low([data])[0], full([data])[0]
        assert got.dtype == np.float32 and got.shape == want.shape
        assert not want.size or error(got, want) < 0.01, f"{shape}, seed {SEED}"


#: What multiplies, with attention's caches, chosen matrices and volumes, and recurrent layers.
RECURRENT = ("LSTM", "GRU", "AUGRU", "RNN")
MULTIPLY = [
    o
    for o in all_ops()
    if has_samples(o) and "f32" in o.types and (o.multiplied or o.name.startswith(RECURRENT))
]


@pytest.mark.parametrize("record", in_turn(MULTIPLY, 2), ids=lambda r: f"{r.name}-{r.opset}")
def test_samples_of_what_multiplies_are_right_in_bf16(record):
    """Of every second operation by default. The first and the last sample, read from tensors of bf16 and
    rounded to one again."""
    samples = list(samples_of(record, np.random.default_rng(SEED), "f32"))
    for at in {0, len(samples) - 1}:
        inputs, attrs = samples[at]
        b = Builder()
        values, data, rounded = [], [], []
        for i, array in enumerate(inputs):
            given = array
            if array.dtype == np.float32 and (i == 0 or i < record.multiplied and not record.epilogue):
                data.append(array.astype(ml_dtypes.bfloat16))
                kind = {"shape": array.shape, "element_type": "bf16"}
                low = b.add("Parameter", (), kind).output
                values.append(b.add("Convert", [low], {"destination_type": "f32"}).output)
                given = data[-1].astype(np.float32)
            else:
                values.append(b.constant(array))
            rounded.append(given.astype(np.float64) if given.dtype == np.float32 else given)
        outputs = b.add(record, values, attrs).outputs
        low = {"destination_type": "bf16"}
        graph = b.finish([b.add("Convert", [v], low).output if v.dtype == "f32" else v for v in outputs])
        job = compile_graph(graph, BF16).new_job()
        run_job(job, data)
        wanted = record.evaluate(rounded, record.check_attributes(attrs))
        for i, (got, want) in enumerate(zip(job.outputs, wanted, strict=True)):
            # states are rounded and multiplied again at each step: test_recurrent compares with OpenVINO
            grown = 2 if record.name.startswith(RECURRENT) else 1
            room = grown * 2**-6 * max(np.abs(want).max(initial=0), 2**-6)
            off = np.abs(got.astype(np.float64) - want).max(initial=0)
            assert off <= room, f"output {i} of sample {at} is {off} off (room {room}), seed {SEED}"
