"""PTX of kernels in a machine that knows the PTX ISA alone: results beside the CPU's, and what it finds.

The meaning of words in NumPy cannot tell whether their code has the right instructions, operands and layouts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench import gpu, gpu_layers
from ovjit.engine import compile_graph
from ovjit.gpu import driver
from tests.gpu.test_block_products import DTYPES, graph_of, rounded
from tests.support import ptx_machine
from tests.support.fake_cuda import install
from tests.support.ptx_cuda import PtxCuda
from tests.support.ptx_machine import Fault
from tests.support.sweeps import some

SEED = 20261130


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[PtxCuda]:
    yield install(monkeypatch, PtxCuda())  # type: ignore[misc]
    driver.forget()


def run(graph: Any, arrays: list[np.ndarray], **properties: Any) -> np.ndarray:
    job = compile_graph(graph, {"card": 0, **properties}).new_job()
    return gpu.run_job(job, arrays)[0]


#: (rows, depth, columns): tails of tiles and of steps; single rows, and few.
SIZES = [(21, 80, 40), (1, 128, 32), (3, 64, 64)]


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("capability", [(9, 0), (8, 0)])
def test_products(kind: str, capability: tuple[int, int], cuda: PtxCuda) -> None:
    """By `wgmma` and TMA on cards of 9.0, by `mma.sync` on others."""
    cuda.capability = capability
    driver.forget()
    for number, (m, k, n) in enumerate(SIZES[: 3 if kind == "f16" else 1]):
        rng = np.random.default_rng([SEED, number])
        if kind == "u8":
            data, codes = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((m, k), (k, n)))
            result = run(graph_of(data.shape, codes, None, False, kind), [data])
            sums = rounded(data, kind) @ rounded(codes, kind)
            np.testing.assert_array_equal(result, sums.astype(result.dtype))
            continue
        x, w, bias, more = (
            rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (n,), (m, n))
        )
        hints = {"INFERENCE_PRECISION_HINT": kind, "EXECUTION_MODE_HINT": "PERFORMANCE"}
        result = run(graph_of(x.shape, w, bias, True, kind), [x, more], **hints)
        want = np.maximum(rounded(x, kind) @ rounded(w, kind) + bias, 0) + more
        size = np.abs(rounded(x, kind)) @ np.abs(rounded(w, kind))
        assert np.all(np.abs(result - want) <= size * 2e-6 + 1e-5), f"seed {SEED}"
    text = "".join(cuda.texts.values())
    assert ("wgmma" in text) == (capability == (9, 0)) and ("wgmma" in text or "mma.sync" in text)


#: The layer of angles is left out: its words run on threads, and it takes minutes here.
LAYERS = [layer for layer in gpu_layers.small_layers() if not layer.name.startswith("angles")]
#: Layers by default: attention of few rows, a convolution in groups, one by blocks, and weights of 4 bits.
FIRST = (2, 5, 8, 11, 12)


@pytest.mark.parametrize(
    "layer", some([LAYERS[i] for i in (*FIRST, *sorted({*range(len(LAYERS))} - {*FIRST}))], len(FIRST)),
    ids=lambda layer: layer.name,
)  # fmt: skip
def test_layers(layer: gpu_layers.Layer, cuda: PtxCuda) -> None:
    want = ov.compile_model(layer.model, "CPU", gpu.EXACT)(list(layer.inputs))[0]
    result = run(layer.model._graph(), list(layer.inputs), INFERENCE_PRECISION_HINT="f16")
    assert gpu_layers.is_right(result, want) and cuda.instructions


#: Text of an instruction of a product by blocks -> another one that the machine tells from it.
WRONG = {
    "wgmma.wait_group.sync.aligned 0": "wgmma.wait_group.sync.aligned 1",
    "bar.sync 0;": "",
    "mbarrier.try_wait.parity.shared::cta.b64 p, ": "setp.eq.u64 p, 0, 0; // ",
    "@p mbarrier.arrive.shared::cta.b64 _, ": "// ",
}


def test_what_a_card_would_do_wrong_is_found(cuda: PtxCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((20, 1200), (1200, 40)))
    want = rounded(x, "f16") @ rounded(w, "f16")
    graph = graph_of(x.shape, w, None, False, "f16")
    read = ptx_machine.Kernel
    for right, wrong in (("", ""), *WRONG.items()):
        monkeypatch.setattr(ptx_machine, "_kernels", {})

        def changed(text: str, right: str = right, wrong: str = wrong) -> Any:
            if right and "wgmma" in text:
                assert right in text
                text = re.sub(re.escape(right) + (r"[^;]*" if wrong.endswith("// ") else ""), wrong, text)
            return read(text)

        monkeypatch.setattr(ptx_machine, "Kernel", changed)
        try:
            error = np.abs(run(graph, [x], INFERENCE_PRECISION_HINT="f16") - want).max()
        except Fault:
            assert right
        else:
            assert (error < 1e-3) == (not right), right
