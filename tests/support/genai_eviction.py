"""Programs with cache eviction, sparse attention and echoed prompts: `collect` runs them on the real package
or on ovjit.

    python -m tests.support.genai_eviction FOLDER > tests/genai/eviction.json

runs on the real packages, over a folder that the fixture `folder` of tests/genai/conftest.py writes.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_cases import EXACT, value_of

SEED = 20261128
ANCHORS = ("RANDOM", "ZEROS", "ONES", "MEAN", "ALTERNATING")


def prompt_of(ov: Any, seed: Any, length: int) -> Any:
    return ov.Tensor(np.random.default_rng(seed).integers(3, 300, (1, length)).astype(np.int64))


def random_case(seed: int) -> dict[str, Any]:
    """Sizes of an eviction, and of the requests."""
    rng = np.random.default_rng([SEED, seed])
    start, recent = (int(rng.choice([32, 64])) for _ in range(2))
    case = {
        "sizes": (start, recent, start + recent + 32 * int(rng.integers(1, 5))),
        "mode": str(rng.choice(["SUM", "NORM_SUM"])), "rotates": seed % 4 == 1,
        "window": int(rng.choice([0, 1, 8, 20])), "chunk": int(rng.choice([40, 256])),
        "crush": (0, "RANDOM", 0), "lengths": rng.integers(100, 450, int(rng.integers(1, 3))).tolist(),
        "sparse": seed % 4 == 2, "samples": bool(rng.integers(2)),
    }  # fmt: skip
    if case["rotates"]:
        case["chunk"] = 1000  # the real package refuses to move keys farther than a chunk
    if seed % 4 == 3:
        case["crush"] = int(rng.integers(1, 4)), ANCHORS[seed // 4 % 5], int(rng.integers(1000))
        case["lengths"], case["chunk"] = [int(rng.integers(500, 900))], 1000
    return case


def scheduler_of(genai: Any, case: dict[str, Any]) -> Any:
    budget, anchor, seed = case["crush"]
    crush = genai.KVCrushConfig(budget, getattr(genai.KVCrushAnchorPointMode, anchor), seed)
    mode = getattr(genai.AggregationMode, case["mode"])
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks, scheduler.max_num_batched_tokens = 200, case["chunk"]
    scheduler.use_cache_eviction = True
    scheduler.cache_eviction_config = genai.CacheEvictionConfig(
        *case["sizes"], mode, case["rotates"], case["window"], crush
    )
    scheduler.use_sparse_attention = case["sparse"]
    scheduler.sparse_attention_config = genai.SparseAttentionConfig(
        num_last_dense_tokens_in_prefill=50,
        num_retained_start_tokens_in_cache=32,
        num_retained_recent_tokens_in_cache=64,
    )
    return scheduler


def config_of(genai: Any, seed: int, case: dict[str, Any], count: int = 150) -> Any:
    more = {"do_sample": True, "rng_seed": seed, "temperature": 0.9} if case["samples"] else {}
    return genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, logprobs=1, **more)


def summary(tokens: Any, scores: Any) -> Any:
    """The ends of sequences, and their scores, which depend on all of their tokens."""
    return [[list(row[-8:]) for row in tokens], [round(float(score), 2) for score in scores]]


def evicting(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    def run(seed: int) -> Any:
        case = random_case(seed)
        pipeline = genai.ContinuousBatchingPipeline(folder, scheduler_of(genai, case), "CPU", dict(EXACT))
        prompts = [prompt_of(ov, [SEED, seed, n], n) for n in case["lengths"]]
        results = pipeline.generate(prompts, [config_of(genai, seed, case)] * len(prompts))
        return [summary(result.m_generation_ids, result.m_scores) for result in results]

    for seed in range(12):
        yield f"eviction {seed}", lambda seed=seed: run(seed)

    def run_alone() -> Any:
        case = random_case(4)
        pipeline = genai.LLMPipeline(folder, "CPU", scheduler_config=scheduler_of(genai, case), **EXACT)
        prompts = [prompt_of(ov, [SEED, n], n) for n in (100, 333)]
        results = [pipeline.generate(prompt, config_of(genai, 4, case)) for prompt in prompts]
        return [summary(result.tokens, result.scores) for result in results]

    yield "eviction alone", run_alone

    def refuse(*sizes: int) -> Any:
        case = {**random_case(0), "sizes": sizes}
        pipeline = genai.ContinuousBatchingPipeline(folder, scheduler_of(genai, case), "CPU", dict(EXACT))
        return pipeline.generate([prompt_of(ov, 0, 40)], [config_of(genai, 0, case, 3)])

    for sizes in ((31, 32, 128), (32, 33, 128), (32, 32, 100)):
        yield f"eviction of {sizes}", lambda sizes=sizes: refuse(*sizes)


def sparse(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    def load(kind: str, **sizes: Any) -> Any:
        scheduler = genai.SchedulerConfig()
        scheduler.use_sparse_attention, scheduler.max_num_batched_tokens = True, 1000
        mode = genai.SparseAttentionMode.XATTENTION
        scheduler.sparse_attention_config = genai.SparseAttentionConfig(mode, **sizes)
        if kind == "LLMPipeline":
            return genai.LLMPipeline(folder, "CPU", scheduler_config=scheduler, **EXACT)
        return genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", dict(EXACT))

    config = genai.GenerationConfig(max_new_tokens=12, ignore_eos=True, logprobs=1)

    def run(lengths: tuple[int, ...], **sizes: Any) -> Any:
        prompts = [prompt_of(ov, [SEED, n], n) for n in lengths]
        results = load("batches", **sizes).generate(prompts, [config] * len(prompts))
        return [summary(result.m_generation_ids, result.m_scores) for result in results]

    rng = np.random.default_rng(SEED)
    for _ in range(6):
        sizes = {
            "xattention_threshold": float(rng.choice([0.1, 0.3, 0.5, 0.8])),
            "xattention_block_size": int(rng.choice([32, 64, 128])),
            "xattention_stride": int(rng.choice([4, 8, 16])),
        }
        length = int(rng.integers(200, 800))
        yield f"xattention {length} {sizes}", lambda n=length, sizes=sizes: run((n,), **sizes)
    yield "xattention of two", lambda: run((300, 301), xattention_threshold=0.1)
    yield "xattention of 48", lambda: run((300,), xattention_block_size=48)

    def run_alone() -> Any:
        pipeline = load("LLMPipeline", xattention_threshold=0.1, xattention_block_size=32)
        results = [pipeline.generate(prompt_of(ov, [SEED, n], n), config) for n in (300, 555)]
        return [summary(result.tokens, result.scores) for result in results]

    yield "xattention alone", run_alone


def echoes(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Handles of requests that give the prompt's tokens, too."""

    def run(chunk: int, **options: Any) -> Any:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = chunk
        pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", dict(EXACT))
        config = genai.GenerationConfig(echo=True, ignore_eos=True, **options)
        handle = pipeline.add_request(0, prompt_of(ov, SEED, 12), config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        return [[o.generated_ids, [round(log, 3) for log in o.generated_log_probs], round(o.score, 3),
                 o.finish_reason.name] for o in handle.read_all()]  # fmt: skip

    for options in (
        {"max_new_tokens": 4}, {"max_new_tokens": 4, "logprobs": 1}, {"max_new_tokens": 0},
        {"max_new_tokens": 4, "do_sample": True, "num_return_sequences": 2, "logprobs": 1},
        {"max_new_tokens": 4, "stop_strings": {"qq"}, "logprobs": 1},
        {"max_new_tokens": 4, "num_beams": 2, "num_return_sequences": 2},
    ):  # fmt: skip
        for chunk in (256, 5):
            yield f"echo {chunk} {options}", lambda chunk=chunk, options=options: run(chunk, **options)


def collect(genai: Any, ov: Any, folder: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """The values of the programs with these names, or of all."""
    programs = (*evicting(genai, ov, folder), *sparse(genai, ov, folder), *echoes(genai, ov, folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: value_of(run) for name, run in programs if names is None or name in names}


if __name__ == "__main__":
    import openvino
    import openvino_genai

    results = collect(openvino_genai, openvino, Path(sys.argv[1]))
    print("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in results.items()) + "\n}")
