"""Prompts whose pictures lose tokens (`pruning_ratio`), whose results are compared.

    python -m tests.support.genai_pruning tests/genai/pruning.json

runs them on the real packages.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_families import EXACT, scheduler, write_folder
from tests.support.genai_images import Program, picture

#: The family -> what its pipeline runs on. The real package's paged attention does not run the small net of
#: Qwen3-VL, and its other engine gives up after an error.
KINDS: dict[str, dict[str, str]] = {
    "qwen2_vl": {}, "qwen2_5_vl": {}, "qwen3_vl": {"ATTENTION_BACKEND": "SDPA"}, "internvl_chat": {},
}  # fmt: skip
CASES: tuple[dict[str, Any], ...] = (
    {}, {"pruning_ratio": 1}, {"pruning_ratio": 25}, {"pruning_ratio": 50}, {"pruning_ratio": 90},
    {"pruning_ratio": 100}, {"pruning_ratio": 40, "relevance_weight": 0.9},
)  # fmt: skip
BAD: tuple[dict[str, Any], ...] = (
    {"pruning_ratio": 99}, {"pruning_ratio": 101}, {"pruning_ratio": 50, "relevance_weight": 1.5},
    {"pruning_ratio": 50, "relevance_weight": -0.5},
)  # fmt: skip


def programs(genai: Any, ov: Any, folder: Path, kind: str) -> Iterator[Program]:
    pipe = genai.VLMPipeline(folder, "CPU", **EXACT, **KINDS[kind])
    one, two = picture(ov, 70, 66, seed=3), picture(ov, 90, 60, seed=4)
    frames = [picture(ov, 64, 64, seed=seed).data.reshape(1, 64, 64, 3) for seed in range(4)]
    video, short = ov.Tensor(np.concatenate(frames)), {"max_new_tokens": 8, "ignore_eos": True}

    def run(prompt: Any, **options: Any) -> Any:
        results = pipe.generate(prompt, **short, **options)
        return [results.texts, results.perf_metrics.get_num_input_tokens()]

    for case in CASES:
        yield f"{kind} {case}", lambda c=case: run("is it so hello", images=[one], **c)
        yield f"{kind} two {case}", lambda c=case: run("is it so hello", images=[one, two], **c)
    yield f"{kind} text", lambda: run("hello", pruning_ratio=50)
    if kind == "qwen3_vl":
        yield f"{kind} video", lambda: run("hello", videos=[video], pruning_ratio=50)
        return

    for case in BAD:
        yield f"{kind} {case}", lambda c=case: run("hello", images=[one], **c)

    def chat(first: int, second: int) -> Any:
        history = genai.ChatHistory([{"role": "user", "content": "is it so hello"}])
        answers = [run(history, images=[one], pruning_ratio=first)]
        history.append({"role": "assistant", "content": answers[0][0][0]})
        history.append({"role": "user", "content": "and now"})
        return [*answers, run(history, pruning_ratio=second)]

    for ratios in ((50, 50), (50, 0), (0, 50)):
        yield f"{kind} chat {ratios}", lambda r=ratios: chat(*r)
    yield f"{kind} a picture and a video", lambda: run("a", images=[one], videos=[video], pruning_ratio=9)
    batch = genai.ContinuousBatchingPipeline(folder, scheduler(genai), "CPU", EXACT)
    # the real package takes the ratio of the first for all
    configs = [genai.GenerationConfig(pruning_ratio=50, **short)] * 2
    yield (
        f"{kind} batch",
        lambda: [r.texts for r in batch.generate(["is it so hello", "hello"], [[one], [two]], configs)],
    )


if __name__ == "__main__":
    import openvino
    import openvino_genai

    from tests.support.genai_cases import value_of

    with tempfile.TemporaryDirectory() as name:
        expected = {}
        for kind in KINDS:
            path = write_folder(openvino, Path(name) / kind, kind)
            expected |= {
                title: value_of(run) for title, run in programs(openvino_genai, openvino, path, kind)
            }
    Path(sys.argv[1]).write_text(json.dumps(expected, indent=0) + "\n")
