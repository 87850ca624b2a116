"""Attention on tensor cores: the meaning of the kernel beside float64, its LLVM code on threads beside the
meaning, what a card would read too early, and what the CUDA toolkit's assembler takes."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from tests.support.assembler import find_ptxas
from tests.support.gpu_words import Words
from tests.support.plan_memory import PlanMemory
from tests.support.sweeps import some
from tests.support.warp_meanings import NotArrived

SEED = 20261128
DTYPES: dict[str, Any] = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32}
#: Half the distance of 1 and the next value.
UNITS = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-22}


def program_of(name: str, arrays: list[np.ndarray], kind: str, **attrs: Any) -> Any:
    """The program of an attention whose inputs are parameters; the masks and numbers behind q, k and v are
    f32 or boolean."""
    b, values = Builder(), []
    for i, array in enumerate(arrays):
        element = "boolean" if array.dtype == bool else kind if i < 3 else "f32"
        value = b.add("Parameter", (), {"shape": array.shape, "element_type": element}).output
        if i >= 3 and element == "f32" and kind != "f32":
            value = b.add("Convert", [value], {"destination_type": kind}).output
        values.append(value)
    y = b.add(name, values, {"causal": False, **attrs}).output
    return compile_graph(b.finish([y]), TARGETS["cuda"], Options(precision=kind))


def run(plan: Any, inputs: list[np.ndarray], kind: str) -> np.ndarray:
    memory = PlanMemory(plan, inputs, [kind])
    return memory.run_words(Words)[0].astype(np.float64)


def arrays_of(
    kind: str, batch: tuple[Any, Any], rows: int, columns: int, sizes: tuple[int, int], *more: str
) -> list[np.ndarray]:
    rng = np.random.default_rng([SEED, rows, columns, *sizes])

    def data(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    q, k = data(*batch[0], rows, sizes[0]), data(*batch[1], columns, sizes[0])
    arrays = [x.astype(DTYPES[kind]) for x in (q, k, data(*batch[1], columns, sizes[1]))]
    lead = (1,) * len(batch[0])
    if "mask" in more:
        arrays.append(data(*lead, rows, columns) if "each" in more else data(*lead, 1, columns))
    if "hidden" in more:
        mask = np.where(rng.random((*lead, rows, columns)) < 0.5, -np.inf, 0).astype(np.float32)
        mask[..., 1, :] = -np.inf  # a row that sees nothing
        arrays.append(mask)
    if "sink" in more:
        zero = [] if len(arrays) > 3 else [np.zeros((), np.float32)]
        arrays += [*zero, np.full((), 0.3, np.float32), data(1, batch[0][-1], 1, 1)]
    return arrays


#: (batch of q and of k, rows, columns, sizes of a key and a value, further inputs, attributes)
CASES: list[Any] = [
    (((2, 3), (2, 3)), 17, 40, (16, 24), (), {}), (((1, 2), (1, 2)), 33, 70, (64, 64), (), {"causal": True}),
    (((2,), (2,)), 5, 1, (8, 8), ("mask",), {}), (((1, 2), (1, 2)), 20, 33, (80, 80), ("mask", "each"), {}),
    (((1, 2), (1, 2)), 16, 64, (128, 160), ("hidden",), {}),
    (((2, 4), (2, 4)), 3, 19, (40, 40), ("sink",), {}),
    (((1, 2, 4), (1, 2, 1)), 1, 50, (32, 32), (), {}),
    (((1, 2, 4), (1, 2, 1)), 1, 50, (32, 32), ("mask",), {}),
    (((1, 3, 2), (1, 3, 1)), 18, 36, (24, 16), ("mask", "each"), {}),
    (((2, 2), (1, 1)), 40, 17, (160, 8), (), {"causal": True}), (((1, 1), (1, 1)), 1, 1, (16, 16), (), {}),
    (((1, 2), (1, 2)), 9, 20, (16, 16), (), {"cap": 1.5}),
    (((1, 2), (1, 2)), 9, 20, (16, 16), ("mask", "each"), {"cap": 1.5}),
    # many keys, in parts
    (((1, 2, 4), (1, 2, 1)), 1, 523, (32, 32), (), {}), (((1, 2), (1, 2)), 19, 300, (64, 80), ("hidden",),
    {}),
    (((1, 2, 4), (1, 2, 1)), 1, 700, (128, 128), ("mask",), {}),
    (((1, 1), (1, 1)), 3, 257, (16, 24), ("mask", "each"), {"cap": 1.5}),
]  # fmt: skip


@pytest.mark.parametrize("case", [(kind, *case) for kind in ("f16", "bf16") for case in CASES], ids=str)
def test_attention_beside_float64(case: Any) -> None:
    kind, batch, rows, columns, sizes, more, attrs = case
    name = "CappedAttention" if "cap" in attrs else "ScaledDotProductAttention"
    arrays = arrays_of(kind, batch, rows, columns, sizes, *more)
    program_ = program_of(name, arrays, kind, **attrs)
    plan = program_.plan([v.shape for v in program_.graph.inputs])
    names = [step.kernel.name for step in plan.steps]
    assert any(n.startswith("tensor_attention") for n in names), names
    assert any(n.startswith("combine_parts") for n in names) == (columns > 256)
    result = run(plan, arrays, kind)
    record = find_op(name)
    rounded = [*arrays[:3], *(a.astype(DTYPES[kind]) if a.dtype == np.float32 else a for a in arrays[3:])]
    with np.errstate(all="ignore"):
        want = record.evaluate(
            [a.astype(np.float64) if a.dtype != bool else a for a in rounded],
            record.check_attributes({"causal": False, **attrs}),
        )[0]
    size = np.abs(arrays[2].astype(np.float64)).max()
    room = UNITS[kind] * (2 * size + np.abs(want)) + 1e-5
    assert result.shape == want.shape
    assert np.all((np.abs(result - want) <= room) | (np.isnan(result) & np.isnan(want))), f"seed {SEED}"


def small_case(kind: str, **attrs: Any) -> tuple[Any, list[np.ndarray]]:
    arrays = arrays_of(kind, ((2,), (2,)), 18, 40, (24, 40), "mask", "each")
    if attrs.get("causal"):
        arrays = arrays[:3]
    program_ = program_of("ScaledDotProductAttention", arrays, kind, **attrs)
    return program_.plan([v.shape for v in program_.graph.inputs]), arrays


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_code_on_threads_has_the_results_of_the_meaning(kind: str) -> None:
    """The LLVM code of the kernel, but for the instructions of tensor cores: the same bits."""
    plan, arrays = small_case(kind)
    want = run(plan, arrays, kind)
    memory = PlanMemory(plan, arrays, [kind])
    np.testing.assert_array_equal(memory.run_threads()[0].astype(np.float64), want)


def is_too_early(plan: Any, arrays: list[np.ndarray]) -> bool:
    try:
        run(plan, arrays, "f16")
    except NotArrived:
        return True
    return False


def test_what_a_card_would_read_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait and each barrier of the kernel is needed: without it the interpreter fails."""
    plan, arrays = small_case("f16", causal=True)
    (kernel,) = [step.kernel for step in plan.steps if step.kernel.name.startswith("tensor_attention")]
    lines = kernel.source.splitlines()
    guards = [i for i, line in enumerate(lines) if line.strip().startswith(("warp_barrier", "await_copies"))]
    assert len(guards) == 13 and not is_too_early(plan, arrays)
    # the last one is between the items of a chunk, and these have a single item
    for i in guards[:-1]:
        without = "\n".join([*lines[:i], re.sub(r"\S.*", "pass", lines[i]), *lines[i + 1 :]])
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "source", without)
            assert is_too_early(plan, arrays), (i, lines[i])


@pytest.mark.skipif(find_ptxas() is None, reason="the CUDA toolkit's assembler is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("size", some([64, 160, 128, 80], 1))
def test_attention_is_assembled_without_spills(size: int, arch: str) -> None:
    for kind in ("f16", "bf16"):
        arrays = arrays_of(kind, ((1,), (1,)), 17, 40, (size, size), "mask", "each")
        kernels = program_of("ScaledDotProductAttention", arrays, kind).kernels
        names = ("tensor_attention", "combine_parts")
        found = [kernel for kernel in kernels if kernel.name.startswith(names)]
        assert len(found) == 3  # of all keys, of a part of them, and the sum
        for kernel in found:
            command = [str(find_ptxas()), f"-arch={arch}", "-v", "-o", "/dev/null", "/dev/stdin"]
            ptx = compile_ptx(kernel.source, "entry")
            done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert " 0 bytes spill stores" in done.stderr, done.stderr
