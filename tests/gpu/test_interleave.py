"""Loops that load several vectors before they store one: the same results, and loops that must stay as they
are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.barriers import with_barriers
from ovjit.codegen.gpu.interleave import interleave_loops
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.errors import OvjitError
from ovjit.execution.numpy_words import Memory
from tests.support.card_words import CardWords
from tests.support.gpu_words import program
from tests.support.op_samples import graph_of, native_ops, samples
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some

HEAD = [
    "@njit(nogil=True)",
    "def kernel(bases, args, chunk, scratch):",
    "    x = ld(bases, ld(args, 0)) + ld(args, 1)",
    "    y = ld(bases, ld(args, 2)) + ld(args, 3)",
    "    n = ld(args, 4)",
    "    i = 0",
]


def source_of(*lines: str, step: str = "VL") -> str:
    loop = [f"    while i + {step} <= n:", *("        " + line for line in lines), f"        i += {step}"]
    return "\n".join([*HEAD, *loop, "    return 0", ""])


def run(source: str) -> np.ndarray:
    """y after a kernel of x, 300 elements."""
    x, y = np.arange(300, dtype=np.float32) / 7, np.zeros(300, np.float32)
    bases, args = np.array([x.ctypes.data, y.ctypes.data]), np.array([0, 0, 1, 0, 300])
    memory = Memory([(a.ctypes.data, a.nbytes, "memory") for a in (x, y, bases, args)])
    kernel = program(source, CardWords(32, memory))
    assert kernel(bases.ctypes.data, args.ctypes.data, 0, 0) == 0
    return y


def test_loads_come_before_stores() -> None:
    source = source_of("v = load_f32(x + i * 4)", "w = mul(v, v)", "store_f32(y + i * 4, w)")
    text = interleave_loops(source)
    loop = text[text.index("while i + 8 * VL <= n") : text.index("while i + 2 * VL <= n")]
    assert loop.count("load_f32") == loop.count("store_f32") == 8
    assert loop.rindex("load_f32") < loop.index("store_f32")
    assert np.array_equal(run(text), run(source)) and run(text).any()


def test_values_that_a_store_loads_and_larger_steps() -> None:
    for lines, step in (
        (["store_f32(y + i * 4, mul(load_f32(x + i * 4), load_f32(x)))"], "VL"),
        (["a = load_f32(x + i * 4)", "b = load_f32(x + (i + VL) * 4)", "store_f32(y + i * 4, b)",
          "store_f32(y + (i + VL) * 4, a)"], "2 * VL"),
    ):  # fmt: skip
        source = source_of(*lines, step=step)
        text = interleave_loops(source)
        assert text != source and np.array_equal(run(text), run(source)) and run(text).any()


def test_sums_that_are_carried_stay_in_order() -> None:
    lines = ["v = load_f32(x + i * 4)", "total = add(mul(v, total), v)", "store_f32(y + i * 4, v)"]
    source = source_of(*lines).replace("    i = 0", "    i = 0\n    total = const_f32(0.0)")
    source = source.replace("    return 0", "    store_f32(y, total)\n    return 0")
    text = interleave_loops(source)
    assert text != source and np.array_equal(run(text), run(source))


@pytest.mark.parametrize(
    "lines",
    [
        ["total = add(load_f32(x + i * 4), total)", "store_f32(y + i * 4, total)"],  # each sum is stored
        ["v = load_f32(x + i * 4)", "warp_barrier()", "store_f32(y + i * 4, v)"],
        ["v = load_f32(x + i * 4)", "st_f32(y, lane_f32(v, 0))"],  # it has barriers
        ["v = load_f32(x + i * 4)", "if n > 7:", "    store_f32(y + i * 4, v)"],
        ["i = i + 0", "store_f32(y + i * 4, load_f32(x + i * 4))"],
        ["v = mma_f16(f, f, 0, c)", "commit_copies()"],
    ],
    ids=lambda lines: lines[-1],
)
def test_other_loops_stay_as_they_are(lines: list[str]) -> None:
    source = source_of(*lines)
    assert interleave_loops(source) == source


def cases() -> list[Any]:
    return [record for record in native_ops() if "f32" in record.types]


@pytest.mark.parametrize("record", some(cases(), 30), ids=lambda record: f"{record.name}-{record.opset}")
def test_results_of_operations_have_the_same_bits(record: Any) -> None:
    for _, arrays, attrs in samples(record, "f32", 1):
        try:
            graph, data = graph_of(record, arrays, attrs, "f32")
            plan = compile_graph(graph, TARGETS["cuda"], Options()).plan(
                [tuple(v.shape) for v in graph.inputs]
            )
        except OvjitError:
            pytest.skip("the operation takes no f32")
        if plan.cut is not None or any(step.kernel is None for step in plan.steps):
            pytest.skip("a step runs on the host")
        results = []
        for change in (with_barriers, lambda source: interleave_loops(with_barriers(source))):
            memory = PlanMemory(plan, data, [v.dtype for v in graph.outputs])
            results.append(memory.run_words(change=change))
        for plain, interleaved in zip(*results, strict=True):
            assert plain.tobytes() == interleaved.tobytes()
