"""Programs of openvino_genai at the bounds of a configuration, and figures of batches and grammars.

    python -m tests.support.genai_limits FOLDER tests/genai/limits.json

runs them on the real packages, in the folder of `tests/genai/conftest.py`.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_cases import EXACT, results_of, value_of

LENGTHS: tuple[dict[str, Any], ...] = (
    *({"max_length": n} for n in (0, 1, 4, 5, 6, 8)),
    *({"max_length": n, "max_new_tokens": m} for n, m in itertools.product((1, 5, 6, 8), (1, 2, 6))),
    *({"max_length": n, "min_new_tokens": m} for n, m in itertools.product((5, 7), (0, 4))),
    *({"max_new_tokens": 4, "num_beams": 2, "length_penalty": p} for p in (1000.0, -1000.0)),
    {"max_length": 1, "max_new_tokens": 3, "num_beams": 2},
)


def limits(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    ids = ov.Tensor(np.array([[73, 81, 90, 264, 270]], np.int64))
    for backend in ("PA", "SDPA"):
        pipeline = genai.LLMPipeline(folder, "CPU", ATTENTION_BACKEND=backend, **EXACT)
        for options in LENGTHS:
            yield (
                f"{backend} {options}",
                lambda o=options, p=pipeline: show(results_of(p.generate(ids, ignore_eos=True, **o))),
            )
    batches = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU", EXACT)
    yield "batch figures", lambda: list_figures(genai, batches)
    yield "metrics", lambda: [name for name in dir(batches.get_metrics()) if not name.startswith("_")]


def show(values: Any) -> Any:
    """JSON values; infinities as texts."""
    if isinstance(values, list):
        return [show(value) for value in values]
    return str(values) if values in (float("inf"), float("-inf")) else values


def list_figures(genai: Any, batches: Any) -> Any:
    """Of each result of one call: numbers of tokens, of steps, and of their times."""
    configs = [genai.GenerationConfig(max_new_tokens=most, ignore_eos=True) for most in (3, 5)]
    figures = []
    for result in batches.generate(["hello", "is it"], configs):
        metrics, raw = result.perf_metrics, result.perf_metrics.raw_metrics
        sizes = [len(getattr(raw, name)) for name in dir(raw) if not name.startswith("_")]
        counts = [metrics.get_num_generated_tokens(), metrics.get_num_input_tokens()]
        figures.append([*counts, list(raw.m_batch_sizes), sizes])
    return figures


def collect(genai: Any, ov: Any, folder: Path) -> dict[str, Any]:
    return {name: value_of(run) for name, run in limits(genai, ov, folder)}


if __name__ == "__main__":
    import openvino
    import openvino_genai

    results = collect(openvino_genai, openvino, Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(results, indent=0) + "\n")
