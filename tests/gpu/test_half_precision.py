"""f16 and bf16 on a card: values are stored and multiplied in 16 bits, and summed in f32. The stand-in for a
card, beside NumPy in float64 and the CPU in f32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ovjit as ov
from bench.gpu import networks
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.compiler.options import Context, Options
from ovjit.compiler.pass_pipeline import run_passes
from ovjit.engine import compile_graph
from ovjit.graph.converted import Converted
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import all_ops, find_op
from tests.support.fake_cuda import FakeCuda
from tests.support.run import run_job
from tests.support.samples import has_samples, samples_of
from tests.support.sweeps import in_turn, some

SEED = 20261128
TYPES = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
#: Half the distance of 1 and the next value.
ROUNDING = {"f16": 2.0**-11, "bf16": 2.0**-8}
ONES = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1), "dilations": (1, 1)}
CASES = [
    ("Convolution", ((2, 5, 9, 10), (33, 5, 3, 3)), True, ONES),
    ("GroupConvolution", ((1, 6, 9, 10), (2, 5, 3, 3, 3)), True, ONES),
    ("ConvolutionBackpropData", ((1, 5, 9, 10), (5, 7, 3, 3)), True, {"strides": (2, 2)}),
    *(
        (
            "MatMul", ((2, k, 7) if ta else (2, 7, k), (50, k) if tb else (k, 50)), constant,
            {"transpose_a": ta, "transpose_b": tb},
        )
        for ta, tb, k, constant in (
            (False, False, 16, True), (False, True, 17, True), (True, False, 33, False),
            (True, True, 1, False), (False, False, 8, False), (False, True, 40, False),
            (True, True, 24, True),
        )
    ),
    ("MatMul", ((3, 7, 17), (3, 17, 40)), False, {}),
    ("MatMul", ((3, 1, 7, 16), (2, 16, 40)), False, {}),
    ("MatMul", ((17,), (17, 40)), False, {}),
    ("MatMul", ((4, 17), (17,)), False, {}),
    ("MatMul", ((5,), (5,)), False, {}),
]  # fmt: skip


def run(executable: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    job = executable.new_job()
    return run_job(job, arrays)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name, shapes, constant, attrs", in_turn(CASES, 2))
def test_products_are_exact_to_a_rounding(
    cuda: FakeCuda, name: str, shapes: Any, constant: bool, attrs: dict[str, Any], kind: str
) -> None:
    """Products of 16 bits are exact in f32: a sum is rounded in f32, and the result in 16 bits."""
    rng = np.random.default_rng(SEED)
    arrays = [rng.standard_normal(shape).astype(TYPES[kind]) for shape in shapes]
    b = Builder()
    x = b.add("Parameter", (), {"shape": shapes[0], "element_type": kind}).output
    if constant:
        w = b.constant(arrays[1])
    else:
        w = b.add("Parameter", (), {"shape": shapes[1], "element_type": kind}).output
    executable = compile_graph(b.finish([b.add(name, [x, w], attrs).output]), {"card": 0})
    assert executable.program.host_nodes() == []
    result = run(executable, arrays[: 1 if constant else 2])[0].astype(np.float64)
    record, wide = find_op(name), [a.astype(np.float64) for a in arrays]
    checked = record.check_attributes(attrs)
    want, size = record.evaluate(wide, checked)[0], record.evaluate([np.abs(a) for a in wide], checked)[0]
    stored = np.abs(want) + (name == "ConvolutionBackpropData") * size  # each of its terms is stored, too
    allowed = stored * ROUNDING[kind] + size * 1e-6 + 2.0**-24  # f16 has subnormal numbers
    assert np.all(np.abs(result - want) <= allowed), f"seed {SEED}"


MULTIPLY = [o for o in all_ops() if has_samples(o) and "f32" in o.types and o.multiplied]


@pytest.mark.parametrize("record", some(MULTIPLY, 3), ids=lambda record: f"{record.name}-{record.opset}")
def test_samples_of_what_multiplies(cuda: FakeCuda, record: Any) -> None:
    """The tolerance is that of bf16 on CPUs (tests/compiler/test_precision.py), and 8 times less for f16."""
    inputs, attrs = next(iter(samples_of(record, np.random.default_rng(SEED), "f32")))
    for kind, dtype in TYPES.items():
        b, values, rounded, data = Builder(), [], [], []
        for i, array in enumerate(inputs):
            if array.dtype == np.float32 and i == 0:
                data.append(array.astype(dtype).astype(np.float32))
                shape = {"shape": array.shape, "element_type": "f32"}
                values.append(b.add("Parameter", (), shape).output)
                rounded.append(data[-1].astype(np.float64))
            else:
                values.append(b.constant(array))
                rounded.append(array.astype(np.float64) if array.dtype == np.float32 else array)
        graph = b.finish(b.add(record, values, attrs).outputs)
        results = run(compile_graph(graph, {"card": 0, "INFERENCE_PRECISION_HINT": kind}), data)
        for result, want in zip(
            results, record.evaluate(rounded, record.check_attributes(attrs)), strict=True
        ):
            room = 4 * ROUNDING[kind] * max(np.abs(want).max(initial=0), 2.0**-6)
            off = np.abs(result.astype(np.float64) - want).max(initial=0)
            assert off <= room, f"{kind}: {off} off (room {room}), seed {SEED}"


NETWORKS = dict(networks())


#: Emulated in three precisions: takes longer than all others.
SLOW = "2 convolutions of 16"
OTHERS = [name for name in NETWORKS if name[0] not in "46" and "2 layers" not in name and name != SLOW]


@pytest.mark.parametrize("name", [*OTHERS, pytest.param(SLOW, marks=pytest.mark.long)])
def test_networks_are_near_those_in_f32(cuda: FakeCuda, name: str) -> None:
    model, core = NETWORKS[name], ov.Core()
    x = np.random.default_rng(SEED).random(tuple(model.inputs[0].shape)).astype(np.float32)
    want = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    results = {}
    for kind in ("f32", "f16", "bf16"):
        config = {} if kind == "f16" else {"INFERENCE_PRECISION_HINT": kind}
        compiled = core.compile_model(model, "GPU", config)
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == getattr(ov.Type, kind)
        results[kind] = compiled(x)[0]
        allowed = {"f32": 2e-5, "f16": 2e-3, "bf16": 1e-2}[kind] * np.abs(want).max()
        np.testing.assert_allclose(results[kind], want, rtol=0, atol=allowed, err_msg=f"{kind}, seed {SEED}")
    if name != "moves":
        assert not np.array_equal(results["f16"], results["f32"])


def test_accuracy_is_f32(cuda: FakeCuda) -> None:
    model = NETWORKS[SLOW]
    for mode, kind in (("ACCURACY", ov.Type.f32), ("PERFORMANCE", ov.Type.f16)):
        compiled = ov.Core().compile_model(model, "GPU", {"EXECUTION_MODE_HINT": mode})
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == kind
        rows = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        shown = [row["runtimePrecision"] for row in rows if row["layerType"] == "Convolution"]
        assert set(shown) == {kind.get_type_name()}


def element_types(graph: Graph) -> list[tuple[str, str]]:
    skipped = ("Constant", "Parameter")
    return [(n.op.name, n.outputs[0].dtype) for n in graph.nodes if n.op.name not in skipped]


@pytest.mark.parametrize("kind", TYPES)
def test_products_are_stored_in_16_bits_and_softmax_and_norms_in_32(kind: str) -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (4, 16), "element_type": "f32"}).output
    w = b.constant(np.random.default_rng(SEED).standard_normal((16, 16)).astype(np.float32))
    y = b.add("Relu", [b.add("MatMul", [x, w]).output]).output
    y = b.add("Softmax", [b.add("MatMul", [y, w]).output], {"axis": 1}).output
    graph = b.finish([b.add("MatMul", [y, w]).output])
    lowered = run_passes(graph, Context(TARGETS["cuda"], Options(precision=kind)))
    assert element_types(lowered) == [
        ("Convert", kind), ("MatMul", kind), ("Relu", kind), ("MatMul", "f32"), ("Softmax", "f32"),
        ("Convert", kind), ("MatMul", "f32"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "number, kinds", [(1e-15, "f32"), (1e6, "f32"), (0, "f16"), (-np.inf, "f16"), (1, "f16")]
)
def test_sums_with_what_f16_does_not_have_are_f32(number: float, kinds: str) -> None:
    b, rng = Builder(), np.random.default_rng(SEED)
    x = b.add("Parameter", (), {"shape": (4, 16), "element_type": "f32"}).output
    w, one = (b.constant(rng.standard_normal((16, n)).astype(np.float32)) for n in (16, 1))
    offset = b.constant(np.float32(number))
    total = b.add("Maximum", [b.add("MatMul", [x, one]).output, offset]).output
    y = b.add("Divide", [b.add("MatMul", [x, w]).output, total]).output
    lowered = run_passes(
        b.finish([b.add("MatMul", [y, w]).output]), Context(TARGETS["cuda"], Options(precision="f16"))
    )
    assert dict(element_types(lowered))["Maximum"] == kinds


@pytest.mark.parametrize("largest, kind, low", [
    (65519.0, "f16", "f16"), (65520.0, "f32", "f16"), (-1e30, "f32", "f16"), (np.inf, "f16", "f16"),
    (1e30, "bf16", "bf16"),
])  # fmt: skip
@pytest.mark.parametrize("through", [None, "bf16"])
def test_weights_beyond_f16_are_f32(largest: float, kind: str, low: str, through: str | None) -> None:
    rng = np.random.default_rng(SEED)
    weights = rng.standard_normal((256, 256)).astype(np.float32)
    weights[3, 5], weights[4, 4] = largest, -np.inf
    b = Builder()
    x = b.add("Parameter", (), {"shape": (4, 256), "element_type": "f32"}).output
    if through and largest != 65519.0:  # which bf16 rounds to 65536
        w = b.constant(Converted(weights.astype(TYPES["bf16"]), [np.dtype(np.float32)]), "f32")
    else:
        w = b.constant(weights)
    eye = b.constant(np.eye(256, dtype=np.float32))
    y = b.add("Relu", [b.add("MatMul", [x, w]).output]).output
    graph = b.finish([b.add("MatMul", [y, eye]).output])
    lowered = run_passes(graph, Context(TARGETS["cuda"], Options(precision=low)))
    factors = [n.inputs[1].dtype for n in lowered.nodes if n.op.name == "MatMul"]
    assert factors == [kind, low]


@pytest.mark.parametrize("largest, kind", [(1e4, "f16"), (1e6, "f32")])
def test_sums_with_arrays_beyond_f16_are_f32(largest: float, kind: str) -> None:
    b, rng = Builder(), np.random.default_rng(SEED)
    x = b.add("Parameter", (), {"shape": (4, 16), "element_type": "f32"}).output
    w, bias = (b.constant(rng.standard_normal(n).astype(np.float32)) for n in ((16, 16), (16,)))
    far = np.zeros(16, np.float32)
    far[3] = largest
    y = b.add(
        "Maximum", [b.add("Add", [b.add("MatMul", [x, w]).output, bias]).output, b.constant(far)]
    ).output
    graph = b.finish([b.add("MatMul", [y, w]).output])
    lowered = run_passes(graph, Context(TARGETS["cuda"], Options(precision="f16")))
    assert dict(element_types(lowered))["Maximum"] == kind


def test_a_quotient_of_zeros_and_an_epsilon(cuda: FakeCuda) -> None:
    """ReLU linear attention divides by the last column plus 1e-15; all keys of a query may be zero."""
    op, rng = ov.opset13, np.random.default_rng(SEED)
    w, x = rng.standard_normal((16, 17)).astype(np.float32), rng.random((8, 16), np.float32)
    x[2] = 0
    parameter = op.parameter([8, 16], ov.Type.f32)
    y, total = op.variadic_split(
        op.matmul(parameter, op.abs(op.constant(w)), False, False), 1, [16, 1]
    ).outputs()
    quotient = op.divide(y, op.add(total, np.float32(1e-15)))
    model = ov.Model([op.matmul(quotient, np.eye(16, dtype=np.float32), False, False)], [parameter])
    result = ov.Core().compile_model(model, "GPU")(x)[0]
    product = x.astype(np.float64) @ np.abs(w)
    want = product[:, :16] / (product[:, 16:] + 1e-15)
    np.testing.assert_allclose(result, want, rtol=0, atol=2e-3 * want.max(), err_msg=f"seed {SEED}")


def test_products_that_are_scaled_to_angles_are_f32() -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (4, 16), "element_type": "f32"}).output
    w = b.constant(np.random.default_rng(SEED).standard_normal((16, 8)).astype(np.float32))
    scale = b.add("Parameter", (), {"shape": (1,), "element_type": "f32"}).output
    angles = b.add("Multiply", [b.add("MatMul", [x, w]).output, scale]).output
    graph = b.finish([b.add("Sin", [angles]).output])
    lowered = run_passes(graph, Context(TARGETS["cuda"], Options(precision="f16")))
    assert {kind for _, kind in element_types(lowered)} == {"f32"}


def test_tf32_is_asked_for_by_two_hints() -> None:
    both = {"EXECUTION_MODE_HINT": "PERFORMANCE", "INFERENCE_PRECISION_HINT": "f32"}
    assert Options.of(both, TARGETS["cuda"]).tf32 and not Options.of(both, TARGETS["avx512"]).tf32
    for config in (
        {**both, "EXECUTION_MODE_HINT": "ACCURACY"}, {**both, "INFERENCE_PRECISION_HINT": "f16"},
        {**both, "given": {"INFERENCE_PRECISION_HINT": "f32"}},
    ):  # fmt: skip
        assert not Options.of(config, TARGETS["cuda"]).tf32
