"""ContinuousBatchingPipeline of decoders with recurrent layers, beside LLMPipeline, which keeps the state of
one sequence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from tests.support import ROOT
from tests.support.paged_hybrids import HYBRIDS
from tests.support.sweeps import in_turn

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from bench.hybrids import WORDS
from ovjit import genai

SEED = 20261130
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
PROMPTS = [ov.Tensor(np.random.default_rng([SEED, n]).integers(0, WORDS, (1, n))) for n in (5, 33, 50, 21)]
CONFIGS = [
    genai.GenerationConfig(max_new_tokens=12, ignore_eos=True, **options)
    for options in (
        {}, {"do_sample": True, "num_return_sequences": 3, "rng_seed": 4},
        {"num_beams": 3, "num_return_sequences": 3}, {},
    )
]  # fmt: skip


@pytest.fixture(scope="module", params=in_turn([*HYBRIDS], 2, 1))
def hybrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recurrent") / request.param
    shutil.copytree(ROOT / "tests" / "genai" / "data", path)
    ov.save_model(HYBRIDS[request.param](ov), path / "openvino_model.xml", compress_to_fp16=False)
    return path


def load(folder: Path, properties: Any, **options: Any) -> Any:
    config = genai.SchedulerConfig()
    for name, value in options.items():
        setattr(config, name, value)
    return genai.ContinuousBatchingPipeline(folder, config, "CPU", {**properties, **EXACT})


def check_pool(pool: Any) -> None:
    """All blocks are free."""
    assert pool.count == 0 and not pool._states._owners
    assert sorted(pool._states._free) == [*range(1, pool.decoder.state_blocks)]


def test_batches(hybrid: Path) -> None:
    """Forks and beams share states, parts of prompts go on with them, and requests without blocks begin
    anew."""
    plain = genai.LLMPipeline(hybrid, "CPU", **EXACT)
    expected = [sorted(plain.generate(*pair).tokens) for pair in zip(PROMPTS, CONFIGS, strict=True)]
    for options in (
        {}, {"max_num_batched_tokens": 16, "num_kv_blocks": 7},
        {"dynamic_split_fuse": False, "enable_prefix_caching": True},
    ):  # fmt: skip
        pipeline = load(hybrid, {}, **options)
        for _ in range(2):
            results = pipeline.generate(PROMPTS, CONFIGS)
            assert [sorted(r.m_generation_ids) for r in results] == expected, f"seed {SEED} {options}"
        check_pool(pipeline._batches._pool)


@pytest.mark.parametrize("kind", ["draft", "lookup"])
def test_drafts(hybrid: Path, kind: str) -> None:
    """The states behind the last accepted token are those that the next step begins with."""
    plain = genai.LLMPipeline(hybrid, "CPU", **EXACT)
    repeated = ov.Tensor(np.tile(PROMPTS[0].data, 6))
    prompts = [repeated, *PROMPTS[1:]]
    config = genai.GenerationConfig(max_new_tokens=20, ignore_eos=True, num_assistant_tokens=3)
    expected = [plain.generate(prompt, max_new_tokens=20, ignore_eos=True).tokens for prompt in prompts]
    properties: dict[str, Any] = {"prompt_lookup": True}
    if kind == "lookup":
        config.max_ngram_size = 2
    else:
        properties = {"draft_model": genai.draft_model(hybrid, "CPU", **EXACT)}
    pipeline = load(hybrid, properties, max_num_batched_tokens=40, num_kv_blocks=40)
    results = pipeline.generate(prompts, [config] * 4)
    assert [r.m_generation_ids for r in results] == expected, f"seed {SEED}"
    pools = [pipeline._batches._pool]
    if kind == "draft":
        assert results[0].extended_perf_metrics.get_num_accepted_tokens() > 30
        pools.append(pipeline._proposals._pool)
    for pool in pools:
        check_pool(pool)


def test_a_draft_reads_no_token_again_after_a_rejection(
    hybrid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = {"draft_model": genai.draft_model(hybrid, "CPU", **EXACT)}
    pipeline = load(hybrid, properties)
    decoder, counts = pipeline._proposals._decoder, list[int]()
    hidden = decoder.hidden

    def count(tokens: np.ndarray, *others: Any) -> np.ndarray:
        counts.append(len(tokens))
        return hidden(tokens, *others)

    monkeypatch.setattr(decoder, "hidden", count)
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": True, "temperature": 9.0, "rng_seed": 3}
    config = genai.GenerationConfig(ignore_eos=True, num_assistant_tokens=4, **options)
    result = pipeline.generate([PROMPTS[2]], [config])[0]
    assert result.extended_perf_metrics.get_num_accepted_tokens() < 15, f"seed {SEED}"
    assert counts[0] == PROMPTS[2].size + 1 and max(counts[1:]) <= 2
    check_pool(pipeline._proposals._pool)
