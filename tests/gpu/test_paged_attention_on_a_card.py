"""Paged attention on the stand-in for a card, beside the CPU: results, and caches of the host."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov
from tests.support import paged_op
from tests.support.fake_cuda import FakeCuda

SEED = 20261128
#: (cached tokens, new tokens, blocks) of each sequence, call by call.
CALLS = [
    [(0, 5, [0]), (0, 40, [1, 2])],
    [(5, 1, [0]), (40, 1, [1, 2])],
    [(6, 30, [0, 5]), (41, 1, [1, 2]), (0, 3, [6])],
]


def run_on(device: str, cache: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs of all calls, and the caches after them."""
    rng = np.random.default_rng(SEED)
    config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": cache}
    compiled = ov.Core().compile_model(paged_op.model(ov), device, config)
    request = paged_op.Run.of(ov, compiled)
    results = []
    for rows in CALLS:
        results += request(rows, paged_op.rows_of(rng, sum(row[1] for row in rows)))
    return results, [np.array(tensor.data) for tensor in request.caches.values()]


@pytest.mark.parametrize("cache", ["f32", "f16", "u8"])
def test_results_and_caches_are_those_of_the_cpu(cuda: FakeCuda, cache: str) -> None:
    (results, caches), (want, want_caches) = (run_on(device, cache) for device in ("GPU", "CPU"))
    assert cuda.replays >= len(CALLS)
    for result, right in zip(results, want, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-4 if cache != "u8" else 2e-3)
    for filled, right in zip(caches, want_caches, strict=True):
        if cache != "u8":  # bytes have scales of other bits
            np.testing.assert_allclose(filled.astype(np.float32), right.astype(np.float32), rtol=1e-3)


def test_indices_that_only_a_guard_validates_stay_on_the_host(cuda: FakeCuda) -> None:
    """A CUDA graph goes on behind a step that reports an error."""
    model = paged_op.model(ov, ("qq_bias", "qq_bias_begins"))
    compiled = ov.Core().compile_model(model, "GPU")
    assert any("(PagedAttention)" in node for node in compiled._executable.program.host_nodes())


def test_all_steps_run_on_the_card(cuda: FakeCuda) -> None:
    compiled = ov.Core().compile_model(paged_op.model(ov), "GPU", {"PERF_COUNT": True})
    request = paged_op.Run.of(ov, compiled)
    request(CALLS[0], paged_op.rows_of(np.random.default_rng(SEED), 45))
    steps = [step for step in request.request.get_profiling_info() if step.exec_type]
    assert steps and not [step.node_name for step in steps if step.exec_type == "ref_numpy"]
