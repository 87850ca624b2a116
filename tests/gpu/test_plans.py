"""Models are compiled for NVIDIA GPUs, and their plans run without a card.

A warp is a NumPy vector of 32 lanes here, or 32 threads of this CPU that run the code of the card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench import gpu_networks
from ovjit.codegen.cpu.targets import CARD_FEATURES, TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.data import DIGITS_XML, digits
from tests.support.plan_memory import PlanMemory

CUDA = TARGETS["cuda"]
op = ov.opset13


def plan_of(model: ov.Model) -> Any:
    graph = model._graph()
    return compile_graph(graph, CUDA, Options()).plan([tuple(v.shape) for v in graph.inputs])


def parameters(*shapes: Sequence[int]) -> list[Any]:
    return [op.parameter(list(shape), np.float32, name=f"x{i}") for i, shape in enumerate(shapes)]


def small_models() -> Iterator[tuple[str, ov.Model]]:
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    (x,) = parameters((3, 70))
    yield "softmax", ov.Model([op.softmax(x, 1)], [x])
    (x,) = parameters((5, 33))
    yield (
        "product",
        ov.Model([op.relu(op.add(op.matmul(x, weights(33, 40), False, False), weights(40)))], [x]),
    )
    a, b = parameters((2, 3, 17), (2, 17, 9))
    yield "product of two inputs", ov.Model([op.matmul(a, b, False, False)], [a, b])
    (x,) = parameters((1, 4, 9, 9))
    convolution = op.convolution(x, weights(6, 4, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    yield "convolution", ov.Model([op.sigmoid(convolution)], [x])
    grouped = op.group_convolution(x, weights(4, 1, 1, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
    yield "depthwise convolution", ov.Model([grouped], [x])
    yield "max pool", ov.Model([op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3]).output(0)], [x])
    (x,) = parameters((4, 6, 31))
    yield "reductions", ov.Model([op.reduce_sum(x, [1], False), op.reduce_max(x, [0, 2], True)], [x])
    yield "layer norm", ov.Model([op.mvn(x, [2], True, 1e-5, "inside_sqrt")], [x])
    yield "transpose", ov.Model([op.transpose(x, [2, 0, 1])], [x])
    yield "gather", ov.Model([op.gather(x, np.array([3, 0, 5]), 1)], [x])
    yield "concat", ov.Model([op.concat([x, op.exp(x)], 2)], [x])
    yield "gelu", ov.Model([op.gelu(x, "erf")], [x])


MODELS = dict(small_models())


@pytest.mark.parametrize("name", MODELS)
def test_models_in_vectors_of_32_lanes(name: str) -> None:
    model = MODELS[name]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(tuple(p.shape)).astype(np.float32) for p in model.inputs]
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    expected = [np.array(v) for v in ov.compile_model(model, "CPU", exact)(inputs).values()]
    for result, want in zip(PlanMemory(plan_of(model), inputs).run_words(), expected, strict=True):
        np.testing.assert_allclose(result, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_kernels_of_models_become_ptx(name: str) -> None:
    for i, kernel in enumerate({step.kernel.source for step in plan_of(MODELS[name]).steps}):
        assert f".entry kernel{i}(" in compile_ptx(kernel, f"kernel{i}")


def test_digits_on_threads_has_the_bits_of_vectors() -> None:
    _, images, _ = digits()
    model = ov.Core().read_model(str(DIGITS_XML))
    model.reshape([1, 1, 8, 8])
    plan, image = plan_of(model), np.ascontiguousarray(images[:1], np.float32)
    vectors = PlanMemory(plan, [image]).run_words()[0]
    exact = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    expected = ov.compile_model(model, "CPU", exact)(image)[0]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    memory = PlanMemory(plan, [image])
    np.testing.assert_array_equal(memory.run_threads()[0], vectors)


def dimensions_of_one() -> Iterator[tuple[str, ov.Model]]:
    """Models whose strides of dimensions of 1 are no multiples of 16 bytes."""
    rng = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) / 8

    ones, pads = [1, 1], [1, 1]
    (x,) = parameters((1, 64, 6, 5))
    y = op.relu(op.convolution(x, weights(64, 64, 3, 3), ones, pads, pads, ones))
    y = op.add(op.convolution(y, weights(64, 64, 1, 1), ones, [0, 0], [0, 0], ones), weights(1, 64, 1, 1))
    yield "bias of pixels that are one line", ov.Model([op.relu(y)], [x])
    (x,) = parameters((1, 1, 64))
    y = op.add(op.matmul(x, weights(64, 64), False, False), weights(64))
    yield "bias of one row", ov.Model([op.matmul(op.relu(y), weights(64, 64), False, False)], [x])
    x, k, v = parameters((1, 1, 64), (1, 2, 1, 40, 16), (1, 2, 1, 40, 16))
    q = op.reshape(op.matmul(x, weights(64, 64), False, False), [1, 1, 4, 16], False)
    q = op.reshape(op.transpose(q, [0, 2, 1, 3]), [1, 2, 2, 1, 16], False)
    y = op.scaled_dot_product_attention(q, op.relu(k), op.relu(v), causal=False)
    y = op.reshape(op.transpose(op.reshape(y, [1, 4, 1, 16], False), [0, 2, 1, 3]), [1, 1, 64], False)
    yield "attention of one row", ov.Model([op.matmul(y, weights(64, 64), False, False)], [x, k, v])


ONES = dict(dimensions_of_one())


@pytest.mark.parametrize("name", ONES)
def test_tensors_with_dimensions_of_one_are_read_where_they_are(name: str) -> None:
    """One element of a dimension has no step, whatever its stride."""
    graph = ONES[name]._graph()
    card = CUDA._replace(extras=CARD_FEATURES)
    plan = compile_graph(graph, card, Options(precision="f16")).plan([tuple(v.shape) for v in graph.inputs])
    kinds = [step.type for step in plan.steps]
    first, *_, last = (i for i, kind in enumerate(kinds) if kind in ("Convolution", "MatMul"))
    assert "Reorder" not in kinds[first:last], [(step.type, step.why) for step in plan.steps]
    assert sum("block" in step.kernel.name for step in plan.steps) >= 2


def steps_of(model: ov.Model) -> list[str]:
    """The types of the steps on a card of compute capability 9.0, in f16."""
    graph = model._graph()
    card = CUDA._replace(extras=CARD_FEATURES)
    plan = compile_graph(graph, card, Options(precision="f16")).plan([tuple(v.shape) for v in graph.inputs])
    return [step.type for step in plan.steps]


@pytest.mark.parametrize("shares", [False, True], ids=["heads", "shared heads"])
def test_results_of_attention_need_no_copy(shares: bool) -> None:
    """Heads are joined where attention stores them, also those that share keys."""
    net, (x,) = gpu_networks.Builder(), parameters((2, 40, 64))
    q, k, v = (
        net.split_heads(net.multiply_weights(x, 64, n * 16, False), 2, 40, n, 16)
        for n in ((4, 2, 2) if shares else (4, 4, 4))
    )
    y = net.join_heads(net.attend(q, k, v, shares), 2, 40, 64)
    steps = steps_of(ov.Model([net.multiply_weights(y, 64, 64, False)], [x]))
    assert steps[-2:] == ["ScaledDotProductAttention", "MatMul"], steps


def test_angles_of_half_precision_are_one_step() -> None:
    """Rows are read again where the rotated halves are added, before they are converted."""
    net, (x,) = gpu_networks.Builder(), parameters((1, 40, 64))
    angles = np.random.default_rng(1).random((40, 16), np.float32)
    cosine, sine = net.constant(np.cos(angles)), net.constant(np.sin(angles))
    q = net.split_heads(net.multiply_weights(x, 64, 64, False), 1, 40, 4, 16)
    y = net.attend(net.rotate(q, cosine, sine), q, q)
    steps = steps_of(ov.Model([y], [x]))
    assert [s for s in steps if s not in ("Reorder", "Convert")] == [
        "MatMul", "RotateHalf", "ScaledDotProductAttention",
    ], steps  # fmt: skip
