"""Recurrent layers on a card: all samples beside their references, in vectors of 32 lanes and in the
interpreter that fails on reading what another lane stores without a barrier."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.barriers import with_barriers
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.execution.numpy_words import Memory
from ovjit.gpu.blocks import block_launch, starts_early
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from ovjit.graph.op import find_op
from ovjit_ops.recurrent import gpu_recurrent
from tests.support.assembler import find_ptxas
from tests.support.lane_order import Ordered, Unordered
from tests.support.op_samples import samples
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some
from tests.support.warp_meanings import NotArrived

RECORD = find_op("RecurrentSteps")
SAMPLES = [(i, *rest) for i, rest in enumerate(samples(RECORD, "f32", 100))]


def plan_of(
    arrays: list[np.ndarray], attrs: dict[str, Any], target: Any = TARGETS["cuda"]
) -> tuple[Any, Any, list[np.ndarray]]:
    b, values, data = Builder(), [], []
    for role, array in zip(attrs["roles"], arrays, strict=True):
        if role == "r":
            values.append(b.constant(array))
        else:
            element = "i64" if role == "l" else "f32"
            values.append(b.add("Parameter", (), {"shape": array.shape, "element_type": element}).output)
            data.append(array)
    graph = b.finish(b.add(RECORD, values, attrs).outputs)
    program_ = compile_graph(graph, target, Options(exact=True))
    assert program_.host_nodes() == []
    return graph, program_.plan([tuple(v.shape) for v in graph.inputs]), data


def run(plan: Any, data: list[np.ndarray], warps: int = 8, change: Any = str) -> list[np.ndarray]:
    """The results of a plan, whose launches of all warps have so many. `change`: of kernels' sources."""

    def make_words(lanes: int, checked: Memory) -> Ordered:
        words = Ordered(lanes, checked)
        words.grid = warps
        return words

    return PlanMemory(plan, data).run_words(make_words, lambda source: with_barriers(change(source)))


def layer(kind: str, hidden: int, batch: int, steps: int, roles: str, **attrs: Any) -> tuple[list, dict]:
    """Random arrays of a layer in both directions, and its attributes."""
    rng, gates = np.random.default_rng(hidden), {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    shapes = {
        "x": (batch, steps, 2 * gates * hidden), "h": (batch, 2, hidden), "c": (batch, 2, hidden),
        "r": (2, gates * hidden, hidden), "b": (2, hidden),
    }  # fmt: skip
    arrays = [
        rng.integers(0, steps + 1, batch)
        if role == "l"
        else (rng.standard_normal(shapes[role]) / (hidden**0.5 if role == "r" else 1)).astype(np.float32)
        for role in roles
    ]
    usual = next(attrs for *_, attrs in SAMPLES if attrs["kind"] == kind)
    return arrays, {**usual, "roles": roles, "direction": "bidirectional", "hidden_size": hidden, **attrs}


#: Layers, and the name of the kernel of all steps: of a block for each sequence, or of all warps.
LAYERS = {
    "a block": ("LSTM", 9, 2, 3, "xhclr", {}), "a block of two phases": ("GRU", 6, 1, 2, "xhr", {}),
    "all blocks": ("LSTM", 7, 2, 3, "xhclr", {}),
    "all blocks, two phases": ("GRU", 5, 1, 2, "xhr", {"linear_before_reset": False}),
    "all blocks with a bias": ("GRU", 35, 1, 2, "xhrb", {"linear_before_reset": True}),
    "a block of long rows": ("RNN", 70, 1, 2, "xhr", {}),
}  # fmt: skip


def plan_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, list[np.ndarray]]:
    if "all" in name:
        monkeypatch.setattr(gpu_recurrent, "BLOCK_WEIGHTS", 0)
    *sizes, attrs = LAYERS[name]
    graph, plan, data = plan_of(*layer(*sizes, **attrs))
    kernels = [step.kernel.name for step in plan.steps if "_layer_" in step.kernel.name]
    assert sum(("_of_all_blocks" if "all" in name else "_of_a_block") in kernel for kernel in kernels) == 1
    return graph, plan, data


@pytest.mark.parametrize("name", some(LAYERS, 4))
def test_all_steps_in_one_launch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by fewer warps than there are groups of units: as many as a card runs at a time."""
    graph, plan, data = plan_layer(name, monkeypatch)
    want = evaluate(graph, data)
    for warps in (16, 3) if "all" in name else (8,):
        for result, right in zip(run(plan, data, warps), want, strict=True):
            np.testing.assert_allclose(result, right, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["a block", "all blocks"])
def test_steps_without_a_barrier_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan, data = plan_layer(name, monkeypatch)

    def leave_out(source: str) -> str:
        return re.sub(r"^( *)meet_(?:block|grid)\(.*\)$", r"\1pass", source, flags=re.M)

    with pytest.raises(Unordered):
        run(plan, data, change=leave_out)


def test_the_counter_is_cleared_before(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan, data = plan_layer("all blocks", monkeypatch)
    with pytest.raises(NotArrived, match="not zero"):
        run(plan, data, change=lambda source: source.replace("st_i32(counter, 0)", "st_i32(counter, 5)"))


def test_many_sequences_of_a_large_layer_have_a_launch_for_each_phase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_recurrent, "BLOCK_WEIGHTS", 0)
    monkeypatch.setattr(gpu_recurrent, "MOST_SEQUENCES", 2)
    graph, plan, data = plan_of(*layer("GRU", 5, 3, 2, "xhr"))
    assert [step.kernel.name.startswith("gru_phase") for step in plan.steps].count(True) == 4
    for result, right in zip(run(plan, data), evaluate(graph, data), strict=True):
        np.testing.assert_allclose(result, right, rtol=2e-5, atol=1e-5)


#: Sizes of layers as programs have them, and whether a block has all units.
SIZES = {
    ("LSTM", 64): True, ("LSTM", 128): False, ("LSTM", 512): False, ("LSTM", 1024): False, ("GRU", 64): True,
    ("GRU", 96): False, ("GRU", 1024): False, ("RNN", 128): True, ("RNN", 2048): False,
}  # fmt: skip


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("size", some(SIZES, 3))
def test_layers_of_all_sizes_are_assembled_without_spills(size: tuple[str, int]) -> None:
    kind, hidden = size
    for features in ((), ("sm_90",)):
        target = TARGETS["cuda"]._replace(extras=features)
        arrays, attrs = layer(kind, hidden, 1, 2, "xhclr" if kind == "LSTM" else "xhlr")
        for step in plan_of(arrays, attrs, target)[1].steps:
            ptx = compile_ptx(step.kernel.source, "entry", target)
            if "_of_a" in step.kernel.name:
                form = block_launch(ptx)
                is_grid = form.requested != ("#0",)
                assert is_grid != SIZES[size] and starts_early(ptx) == (bool(features) and not is_grid)
            assert_no_spills(ptx, "sm_90" if features else "sm_80")


@pytest.mark.parametrize("case", some(SAMPLES, 3), ids=lambda case: f"{case[0]}-{case[3]['kind']}")
def test_layers_have_the_results_of_their_references(case: Any) -> None:
    _, _, arrays, attrs = case
    graph, plan, data = plan_of(arrays, attrs)
    for result, want in zip(run(plan, data), evaluate(graph, data), strict=True):
        np.testing.assert_allclose(result, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("length", [-1, 6])
def test_lengths_that_do_not_fit(direction: str, length: int) -> None:
    """Read from its end, such a sequence is an error. Forwards it has no step or all, and its last state is
    0."""
    _, _, arrays, attrs = next(case for case in SAMPLES if case[3]["roles"] == "xhclr" and case[0] % 4 == 1)
    gates, hidden = arrays[4].shape[1:]
    arrays = [np.array(a[..., :gates]) if i == 0 else np.array(a[:, :1]) for i, a in enumerate(arrays[:3])]
    rng = np.random.default_rng(1)
    steps, batch = arrays[0].shape[1], len(arrays[0])
    weights = rng.uniform(-1, 1, (1, gates, hidden)).astype(np.float32)
    data = [*arrays, np.full(batch, steps), weights]
    _, plan, data = plan_of(data, {**attrs, "direction": direction})
    data = [np.where(np.arange(batch) == 1, length, a) if a.ndim == 1 else a for a in data]
    if direction == "reverse":
        with pytest.raises(AssertionError):
            run(plan, data)
        return
    y, h, c = run(plan, data)
    assert not h[1].any() and not c[1].any() and h[0].any()
    assert y[1].any() == (length > 0)


def test_code_on_threads_has_the_bits_of_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_recurrent, "BLOCK_WEIGHTS", 0)
    _, plan, data = plan_of(*layer("GRU", 5, 1, 2, "xhr"))
    want, memory = run(plan, data), PlanMemory(plan, data)
    for result, right in zip(memory.run_threads(), want, strict=True):
        np.testing.assert_array_equal(result, right)


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
def test_layers_are_assembled_without_spills() -> None:
    sources = set()
    for _, _, arrays, attrs in SAMPLES[1::4]:
        sources |= {step.kernel.source for step in plan_of(arrays, attrs)[1].steps}
    for source in sources:
        assert_no_spills(compile_ptx(source, "entry"), "sm_80")


def assert_no_spills(ptx: str, card: str) -> None:
    command = [str(find_ptxas()), f"-arch={card}", "-v", "-o", "/dev/null", "/dev/stdin"]
    done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " 0 bytes spill stores" in done.stderr, done.stderr
