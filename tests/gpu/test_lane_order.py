"""A lane reads what another lane has stored only behind a barrier of the warp: every kernel, in the
interpreter that fails on other orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.barriers import BARRIER, with_barriers
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.errors import OvjitError
from ovjit.execution.numpy_words import Memory
from ovjit.graph.interp import evaluate
from tests.support.gpu_words import program
from tests.support.lane_order import Ordered, Unordered
from tests.support.op_samples import graph_of, native_ops, samples, tolerance
from tests.support.plan_memory import PlanMemory

OPERATIONS = native_ops()
#: Every so many operations run by default, and those whose kernels have needed barriers.
STRIDE = 12
NEED_BARRIERS = "AvgPool MaxPool MVN AdaptiveAvgPool Col2Im CTCLoss RandomUniform".split()


def kernel_of(*lines: str) -> str:
    head = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    pointers = ["x = ld(bases, ld(args, 0)) + ld(args, 1)", "y = ld(bases, ld(args, 2)) + ld(args, 3)"]
    return "\n".join([*head, *("    " + line for line in (*pointers, *lines, "return 0")), ""])


def run(source: str, guarded: bool = True) -> np.ndarray:
    """y after a kernel of x (float32, 0 to 95) and y (zeros)."""
    x, y, scratch = (np.arange(96, dtype=np.float32) * scale for scale in (1, 0, 0))
    bases, args = np.array([x.ctypes.data, y.ctypes.data]), np.array([0, 0, 1, 0])
    memory = Memory([(a.ctypes.data, a.nbytes, "memory") for a in (x, y, scratch, bases, args)])
    text = with_barriers(source) if guarded else source
    kernel = program(text, Ordered(32, memory))
    assert kernel(bases.ctypes.data, args.ctypes.data, 0, scratch.ctypes.data) == 0
    return y


#: What is wrong -> the kernel's lines, and the words of the error.
UNORDERED = {
    "another lane's element": (
        ["store_f32(scratch, load_f32(x))", "store_f32(y, load_f32(scratch + 4))"],
        "loads what lane",
    ),
    "a scalar of all lanes": (
        ["store_f32(scratch, load_f32(x))", "store_f32(y, splat_f32(scratch + 8))"],
        "loads what lane",
    ),
    "stored too early": (
        ["v = load_f32(x + 4)", "store_f32(x, v)", "store_f32(y, v)"],
        "stores what lane",
    ),
    "in one statement": (
        ["storem_f32(y, splat_f32(y) + load_f32(x), 1)"],
        "stores what lane",
    ),
    "in a loop's condition": (
        ["storem_i32(scratch, const_i32(1), 1)", "k = 0", "while k < ld_i32(scratch):", "    k += 1",
         "    storem_i32(scratch, const_i32(0), 1)"],
        "loads what lane",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNORDERED)
def test_what_is_not_ordered_is_found_and_mended(name: str) -> None:
    lines, words = UNORDERED[name]
    source = kernel_of(*lines)
    with pytest.raises(Unordered, match=words):
        run(source, guarded=False)
    run(source)
    assert BARRIER in with_barriers(source)


def test_kernels_that_share_no_memory_have_no_barriers() -> None:
    for source in (
        kernel_of("store_f32(y, load_f32(x))"),
        kernel_of("st_f32(scratch, ld_f32(x))", "store_f32(y, splat_f32(scratch))"),
    ):
        assert with_barriers(source) == source
        run(source)


def test_the_lane_itself_needs_no_barrier() -> None:
    assert (
        run(kernel_of("store_f32(y, load_f32(x))", "store_f32(y, load_f32(y) + load_f32(x))"), False)[3] == 6
    )


def parameters() -> list[Any]:
    return [
        record
        if i % STRIDE == 0 or record.name in NEED_BARRIERS
        else pytest.param(record, marks=pytest.mark.long)
        for i, record in enumerate(OPERATIONS)
    ]


@pytest.mark.parametrize("record", parameters(), ids=lambda record: f"{record.name}-{record.opset}")
def test_operations(record: Any) -> None:
    for _, arrays, attrs in samples(record, "f32", 1):
        try:
            graph, data = graph_of(record, arrays, attrs, "f32")
            if graph.has_state:
                continue
            program_ = compile_graph(graph, TARGETS["cuda"], Options(exact=True))
            plan = program_.plan([tuple(v.shape) for v in graph.inputs])
        except OvjitError:
            continue  # the operation takes no f32
        if plan.cut is not None or any(step.kernel is None for step in plan.steps):
            continue
        memory = PlanMemory(plan, data, [v.dtype for v in graph.outputs])
        results = memory.run_words(Ordered, change=with_barriers)
        if record.name == "RandomUniform" or any(v.dtype != "f32" for v in graph.outputs):
            continue
        for result, want in zip(results, evaluate(graph, data), strict=True):
            allowed = 16 * tolerance(record, np.asarray(want, np.float64), "f32")
            same = (np.abs(result - want) <= allowed) | (result == want) | (np.isnan(result) & np.isnan(want))
            assert same.all(), record.name
