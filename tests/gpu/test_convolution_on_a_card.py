"""Convolutions on tensor cores: the meaning of the kernel beside float64, its LLVM code on threads beside the
meaning, and what the CUDA toolkit's assembler takes."""

from __future__ import annotations

import subprocess
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from ovjit.planning.plan import NotNative
from ovjit_ops.convolution.gpu_convolution import grouped_convolution, merge_groups, tensor_convolution
from ovjit_ops.matmul.gpu_products import TILES
from tests.support.assembler import find_ptxas
from tests.support.gpu_words import Words
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some

SEED = 20261128
op = ov.opset13
DTYPES: dict[str, Any] = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
#: Shapes of data and weights, strides, padding before and behind, dilations.
CASES: list[Any] = [
    ((1, 16, 6, 7), (33, 16, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((2, 3, 9, 8), (8, 3, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    ((3, 24, 5, 5), (70, 24, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1)),
    ((1, 8, 9, 9), (5, 8, 3, 2), (2, 1), (2, 0), (1, 3), (2, 3)),
    ((1, 40, 4, 4), (16, 40, 5, 5), (1, 1), (2, 2), (2, 2), (1, 1)),
    ((2, 20, 11), (9, 20, 4), (2,), (3,), (1,), (1,)),
    ((2, 9, 1, 1), (64, 9, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1)),
]  # fmt: skip


def attrs_of(case: Any) -> dict[str, Any]:
    names = ("strides", "pads_begin", "pads_end", "dilations")
    return dict(zip(names, case[2:], strict=True))


def arrays_of(case: Any, kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng([SEED, *case[0]])
    return [rng.standard_normal(shape).astype(DTYPES[kind]) for shape in case[:2]]


def program_of(case: Any, kind: str, fused: bool) -> Any:
    """relu(convolution + bias) + a tensor * each channel's number, or the convolution alone. The data have
    passed a node, so that they are not the caller's."""
    b, (x, w) = Builder(), arrays_of(case, kind)
    data = b.add("Parameter", (), {"shape": x.shape, "element_type": kind}).output
    y = b.add("Convolution", [b.add("Abs", [data]).output, b.constant(w, kind)], attrs_of(case)).output
    if fused:
        bias, scale = (b.constant(array) for array in numbers_of(case))
        y = b.add("Convert", [y], {"destination_type": "f32"}).output
        y = b.add("Relu", [b.add("Add", [y, bias]).output]).output
        y = b.add("Multiply", [y, scale]).output
    return compile_graph(b.finish([y]), TARGETS["cuda"], Options(precision=kind))


def numbers_of(case: Any) -> list[np.ndarray]:
    """The bias of channels, and factors of images and channels."""
    rng, (n, outs) = np.random.default_rng(SEED), (case[0][0], case[1][0])
    ones = (1,) * (len(case[0]) - 2)
    return [rng.standard_normal((lead, outs, *ones)).astype(np.float32) for lead in (1, n)]


def run(plan: Any, x: np.ndarray, dtype: str) -> np.ndarray:
    memory = PlanMemory(plan, [x], [dtype])
    return memory.run_words(Words)[0].astype(np.float64)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", [(kind, case) for kind in DTYPES for case in CASES], ids=str)
def test_convolutions_beside_float64(case: Any, fused: bool) -> None:
    kind, sizes = case
    program_ = program_of(sizes, kind, fused)
    plan = program_.plan([v.shape for v in program_.graph.inputs])
    names = [step.kernel.name for step in plan.steps]
    assert sum(name.startswith("tensor_convolution") for name in names) == 1, names
    x, w = arrays_of(sizes, kind)
    result = run(plan, x, "f32" if fused else kind)
    record = find_op("Convolution")
    wide = [np.abs(x.astype(np.float64)), w.astype(np.float64)]
    attrs = record.check_attributes(attrs_of(sizes))
    want, size = record.evaluate(wide, attrs)[0], record.evaluate([wide[0], np.abs(wide[1])], attrs)[0]
    unit = 2.0**-11 if kind == "f16" else 2.0**-8
    room = np.abs(want) * unit + size * 1e-6
    if fused:
        bias, scale = numbers_of(sizes)
        want, room = np.maximum(want + bias, 0) * scale, (room + np.abs(want) * unit) * np.abs(scale) + 1e-6
    assert np.all(np.abs(result - want) <= room), f"seed {SEED}"


#: As CASES, for groups: some are merged to have 8 channels of the data and 16 of the output.
GROUPED: list[Any] = [
    ((1, 48, 6, 7), (3, 20, 16, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((2, 32, 5, 5), (8, 4, 4, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    ((1, 16, 9, 4), (8, 5, 2, 2, 1), (1, 1), (0, 0), (1, 0), (2, 1)),
    ((2, 64, 11), (2, 33, 32, 3), (1,), (1,), (1,), (1,)),
    ((1, 9, 5, 5), (1, 8, 9, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", GROUPED, ids=str)
@pytest.mark.parametrize("kind", some(DTYPES, 1))
def test_grouped_convolutions_beside_float64(kind: str, case: Any, fused: bool) -> None:
    b, (x, w) = Builder(), arrays_of(case, kind)
    data = b.add("Parameter", (), {"shape": x.shape, "element_type": kind}).output
    y = b.add("GroupConvolution", [b.add("Abs", [data]).output, b.constant(w, kind)], attrs_of(case)).output
    outs = case[1][0] * case[1][1]
    numbers = numbers_of((case[0], (outs,)))
    if fused:
        y = b.add("Convert", [y], {"destination_type": "f32"}).output
        y = b.add("Relu", [b.add("Add", [y, b.constant(numbers[0])]).output]).output
        y = b.add("Multiply", [y, b.constant(numbers[1])]).output
    plan = compile_graph(b.finish([y]), TARGETS["cuda"], Options(precision=kind)).plan([x.shape])
    kernel = "grouped_convolution" if case[1][0] > 1 else "tensor_convolution"
    assert sum(step.kernel.name.startswith(kernel) for step in plan.steps) == 1
    result = run(plan, x, "f32" if fused else kind)
    record = find_op("GroupConvolution")
    attrs = record.check_attributes(attrs_of(case))
    wide = [np.abs(x.astype(np.float64)), w.astype(np.float64)]
    want, size = record.evaluate(wide, attrs)[0], record.evaluate([wide[0], np.abs(wide[1])], attrs)[0]
    unit = 2.0**-11 if kind == "f16" else 2.0**-8
    room = np.abs(want) * unit + size * 1e-6
    if fused:
        want = np.maximum(want + numbers[0], 0) * numbers[1]
        room = (room + np.abs(want) * unit) * np.abs(numbers[1]) + 1e-6
    assert np.all(np.abs(result - want) <= room), f"seed {SEED}"


def test_groups_are_merged_to_whole_units() -> None:
    weights = np.arange(1, 4 * 3 * 2 + 1, dtype=np.float32).reshape(4, 3, 2, 1)
    merged = merge_groups(weights)
    assert merge_groups(np.zeros((64, 3, 4, 1))).shape == (8, 24, 32, 1)
    assert merge_groups(np.zeros((6, 3, 8, 1))).shape == (3, 6, 16, 1)
    assert merged.shape == (1, 12, 8, 1) and np.count_nonzero(merged) == weights.size
    for i in range(4):
        np.testing.assert_array_equal(merged[0, 3 * i : 3 * i + 3, 2 * i : 2 * i + 2], weights[i])
    for shape in ((12, 1, 1, 3), (3, 4, 4, 1), (12, 4, 3, 1)):  # depthwise; no multiples
        with pytest.raises(NotNative):
            merge_groups(np.zeros(shape, np.float32))


def test_code_on_threads_has_the_bits_of_the_meaning() -> None:
    program_ = program_of(CASES[1], "f16", False)
    plan = program_.plan([v.shape for v in program_.graph.inputs])
    x = arrays_of(CASES[1], "f16")[0]
    want, memory = run(plan, x, "f16"), PlanMemory(plan, [x], ["f16"])
    np.testing.assert_array_equal(memory.run_threads()[0].astype(np.float64), want)


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("tile", some(TILES, 2), ids=lambda tile: f"{tile.rows}x{tile.columns}")
def test_convolutions_are_assembled_without_spills(tile: Any, arch: str) -> None:
    for source in (tensor_convolution, grouped_convolution)[: 1 + (tile != TILES[0])]:
        kernel = source(
            T="f16", sums="f32", out="f16", body=None, first="", second="", third="", **tile._asdict()
        )
        command = [str(find_ptxas()), f"-arch={arch}", "-v", "-o", "/dev/null", "/dev/stdin"]
        ptx = compile_ptx(kernel.source, "entry")
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 bytes spill stores" in done.stderr, done.stderr


#: As CASES, for one channel per group.
DEPTHWISE: list[Any] = [
    ((1, 40, 6, 7), (40, 1, 1, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((2, 3, 9, 8), (3, 1, 1, 3, 2), (2, 1), (2, 0), (1, 3), (1, 2)),
    ((2, 33, 11), (33, 1, 1, 4), (2,), (3,), (1,), (1,)),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise_convolutions_beside_float64(case: Any, kind: str) -> None:
    rng, dtype = np.random.default_rng([SEED, *case[0]]), DTYPES.get(kind, np.float32)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in case[:2])
    bias = rng.standard_normal((1, case[0][1], *(1,) * (len(case[0]) - 2))).astype(dtype)
    b = Builder()
    data = b.add("Parameter", (), {"shape": x.shape, "element_type": kind}).output
    y = b.add("GroupConvolution", [data, b.constant(w, kind)], attrs_of(case)).output
    y = b.add("Relu", [b.add("Add", [y, b.constant(bias, kind)]).output]).output
    program_ = compile_graph(b.finish([y]), TARGETS["cuda"], Options(precision=kind))
    plan = program_.plan([x.shape])
    assert any(step.kernel.name.startswith("depthwise") for step in plan.steps)
    record = find_op("GroupConvolution")
    attrs, wide = record.check_attributes(attrs_of(case)), [a.astype(np.float64) for a in (x, w)]
    want = np.maximum(record.evaluate(wide, attrs)[0] + bias.astype(np.float64), 0)
    size = record.evaluate([np.abs(a) for a in wide], attrs)[0] + np.abs(bias.astype(np.float64))
    unit = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}[kind]
    # the result may be rounded before and behind the addition
    assert np.all(np.abs(run(plan, x, kind) - want) <= size * (2 * unit + 1e-6)), f"seed {SEED}"
    for step in plan.steps:
        compile_ptx(step.kernel.source, "entry")


def network(shape: list[int]) -> ov.Model:
    """Convolutions with residuals, a concatenation, pooling, and factors of channels."""
    rng = np.random.default_rng(SEED)

    def weights(*sizes: int) -> np.ndarray:
        return (rng.standard_normal(sizes) / np.sqrt(np.prod(sizes[1:]))).astype(np.float32)

    def convolve(x: Any, outs: int, ins: int, taps: int, stride: int = 1) -> Any:
        pads = [taps // 2] * 2
        y = op.convolution(x, weights(outs, ins, taps, taps), [stride] * 2, pads, pads, [1, 1])
        return op.add(y, weights(1, outs, 1, 1))

    x = op.parameter(shape, np.float32, name="x")
    y = op.relu(convolve(x, 32, 3, 3, 2))
    y = op.relu(op.add(y, convolve(op.relu(convolve(y, 32, 32, 3)), 32, 32, 1)))
    y = op.concat([op.swish(convolve(y, 24, 32, 3)), y], 1)
    y = op.max_pool(convolve(y, 16, 56, 3), [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    y = op.multiply(y, op.sigmoid(convolve(op.reduce_mean(y, [2, 3], True), 16, 16, 1)))
    y = op.group_convolution(y, weights(16, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    return ov.Model([op.reduce_mean(y, [2, 3], False)], [x])


@pytest.mark.parametrize("shape", [[2, 3, 16, 16], [-1, 3, -1, -1]], ids=["static", "dynamic"])
def test_a_network_whose_plan_is_free_of_races(monkeypatch: pytest.MonkeyPatch, shape: list[int]) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    model, x = network(shape), np.random.default_rng(SEED).standard_normal((2, 3, 16, 16)).astype(np.float32)
    program_ = compile_graph(model._graph(), TARGETS["cuda"], Options(precision="f16"))
    plan = program_.plan([x.shape])
    names = [step.kernel.name.split("_")[0] for step in plan.steps]
    assert names.count("tensor") == 6 and names.count("depthwise") == 1 and names.count("copy") <= 2, names
    want = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    np.testing.assert_allclose(run(plan, x, "f32"), want, rtol=0, atol=4e-3 * np.abs(want).max())
