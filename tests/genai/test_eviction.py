"""Cache eviction, sparse attention and echoed prompts, beside results of the real openvino_genai, which
`tests.support.genai_eviction` has written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from tests.support.sweeps import in_turn

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.orders import select_first, sort
from tests.support import genai_eviction as cases
from tests.support.genai_cases import EXACT, is_same

EXPECTED = json.loads((Path(__file__).parent / "eviction.json").read_text(encoding="utf-8"))
#: Keys, and what libstdc++ gives for them: the indices that std::partial_sort puts first, and those of
#: std::sort.
KEYS = [1, 3, 2, 3, 1, 2, 3, 3, 2, 1, 2, 2, 3, 1, 1, 2, 3, 2, 1, 3, 2, 2, 1, 3]
FIRST = [1, 2, 3, 6, 7, 8, 10, 12, 15, 16, 19, 23]
SORTED = [9, 18, 14, 13, 0, 4, 22, 5, 21, 20, 8, 10, 11, 2, 15, 17, 12, 19, 23, 16, 7, 6, 3, 1]


#: Further random sizes, after one eviction of each kind: plain, with rotation, sparse attention, KVCrush.
LONG = [name for name in EXPECTED if re.fullmatch(r"eviction ([4-9]|1\d)|xattention \d+ .*", name)]
SHORT = [name for name in EXPECTED if name not in LONG]


@pytest.mark.parametrize(
    "names", [SHORT, pytest.param(LONG, marks=pytest.mark.long)], ids=["one of each", "more"]
)
def test_results_are_those_of_the_real_package(folder: Path, names: list[str]) -> None:
    results = cases.collect(genai, ov, folder, names)
    assert list(results) == names
    wrong = {n: (v, EXPECTED[n]) for n, v in results.items() if not is_same(v, EXPECTED[n], 0.02)}
    assert not wrong


def scheduler_of(**fields: Any) -> genai.SchedulerConfig:
    scheduler = genai.SchedulerConfig()
    scheduler.use_cache_eviction = True
    scheduler.cache_eviction_config = genai.CacheEvictionConfig(32, 32, 128)
    for name, value in fields.items():
        setattr(scheduler, name, value)
    return scheduler


def generate(folder: Path, scheduler: genai.SchedulerConfig, *lengths: int, **options: Any) -> Any:
    """(the pipeline, tokens of each request)."""
    pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", dict(EXACT))
    config = genai.GenerationConfig(max_new_tokens=100, ignore_eos=True, **options)
    prompts = [cases.prompt_of(ov, [cases.SEED, n], n) for n in lengths]
    results = pipeline.generate(prompts, [config] * len(prompts))
    assert pipeline._batches._pool.count == 0
    return pipeline, [result.m_generation_ids for result in results]


def test_eviction_limits_the_cache_and_changes_texts(folder: Path) -> None:
    plain, expected = generate(folder, genai.SchedulerConfig(), 300, 200)
    evicting, results = generate(folder, scheduler_of(), 300, 200)
    assert results != expected
    pool = evicting._batches._pool
    assert pool.decoder.blocks == plain._batches._pool.decoder.blocks
    requests = [evicting.add_request(i, cases.prompt_of(ov, i, 300), genai.GenerationConfig(
        max_new_tokens=50, ignore_eos=True)) for i in range(2)]  # fmt: skip
    for _ in range(6):
        evicting.step()
    assert pool.count == 2 * 5
    for request in requests:
        request.cancel()
    evicting.step()


SAMPLES = {"do_sample": True, "num_return_sequences": 3, "rng_seed": 5}
BEAMS = {"num_beams": 3, "num_return_sequences": 3}


@pytest.mark.parametrize(
    "options, rotates", in_turn([(SAMPLES, False), (SAMPLES, True), (BEAMS, True), (BEAMS, False)], 2)
)
def test_sequences_that_share_blocks_evict_their_own(
    folder: Path, options: dict[str, Any], rotates: bool
) -> None:
    """Shared blocks, prefixes that are kept, and few blocks change nothing."""
    scheduler = scheduler_of(enable_prefix_caching=True)
    scheduler.cache_eviction_config.apply_rotation = rotates
    first, results = generate(folder, scheduler, 200, **options)
    config = genai.GenerationConfig(max_new_tokens=100, ignore_eos=True, **options)
    again = first.generate([cases.prompt_of(ov, [cases.SEED, 200], 200)], [config])
    assert [each.m_generation_ids for each in again] == results
    scheduler.enable_prefix_caching, scheduler.num_kv_blocks = False, 20
    assert generate(folder, scheduler, 200, **options)[1] == results


def test_beams_that_take_several_steps_evict_the_same(folder: Path) -> None:
    """A step computes fewer tokens than there are beams: those that wait keep their blocks. Of the prompt
    the last token's weights count, however it is cut."""
    results = []
    for budget in (256, 2):
        scheduler = scheduler_of(max_num_batched_tokens=budget)
        scheduler.cache_eviction_config.snapkv_window_size = 1
        scheduler.cache_eviction_config.apply_rotation = True
        results.append(generate(folder, scheduler, 200, num_beams=3, num_return_sequences=3)[1])
    assert results[0] == results[1]


def test_requests_that_wait_for_blocks_end(folder: Path) -> None:
    scheduler = scheduler_of(num_kv_blocks=12)
    _, results = generate(folder, scheduler, 150, 200, 40)
    assert [[len(tokens) for tokens in each] for each in results] == [[100]] * 3


def test_what_is_not_supported(folder: Path) -> None:
    scheduler = scheduler_of()
    for properties in ({"prompt_lookup": True}, {"draft_model": genai.draft_model(folder, "CPU")}):
        with pytest.raises(UnsupportedError, match="cache eviction with draft_model"):
            genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
    with pytest.raises(UnsupportedError, match="cache eviction with draft_model"):
        genai.LLMPipeline(folder, "CPU", scheduler_config=scheduler, prompt_lookup=True)
    mode = genai.AggregationMode.ADAPTIVE_RKV
    scheduler.cache_eviction_config = genai.CacheEvictionConfig(32, 32, 128, mode)
    with pytest.raises(UnsupportedError, match="use SUM or NORM_SUM"):
        genai.ContinuousBatchingPipeline(folder, scheduler, "CPU")
    few = scheduler_of(num_kv_blocks=3)
    with pytest.raises(OvjitError, match="raise num_kv_blocks"):
        genai.LLMPipeline(folder, "CPU", scheduler_config=few).generate("a" * 300, max_new_tokens=5)


def test_models_in_memory_evict_too(folder: Path) -> None:
    text = (folder / "openvino_model.xml").read_text(encoding="utf-8")
    weights = ov.Tensor(np.fromfile(folder / "openvino_model.bin", np.uint8))
    tokenizer, scheduler = genai.Tokenizer(folder), scheduler_of()
    pipelines = (
        genai.LLMPipeline(folder, "CPU", scheduler_config=scheduler),
        genai.LLMPipeline(text, weights, tokenizer, "CPU", scheduler_config=scheduler),
    )
    prompt, options = cases.prompt_of(ov, cases.SEED, 150), {"max_new_tokens": 20, "ignore_eos": True}
    first, second = (pipeline.generate(prompt, **options).tokens for pipeline in pipelines)
    assert first == second


def test_a_failing_streamer_leaves_a_batched_engine_usable(folder: Path) -> None:
    class Failing(genai.StreamerBase):
        def write(self, token: Any) -> Any:
            raise ValueError("no")

        def end(self) -> None:
            pass

    pipeline = genai.LLMPipeline(folder, "CPU", scheduler_config=scheduler_of())
    expected = pipeline.generate("hello", max_new_tokens=5)
    with pytest.raises(ValueError, match="no"):
        pipeline.generate("hello", max_new_tokens=5, streamer=Failing())
    assert pipeline.generate("hello", max_new_tokens=5) == expected
    assert pipeline._engine._batches._pool.count == 0


def test_orders_of_equal_elements() -> None:
    first = select_first(range(len(KEYS)), 12, lambda a, b: KEYS[a] > KEYS[b])
    assert sorted(first) == FIRST
    assert sort(range(len(KEYS)), lambda a, b: KEYS[a] < KEYS[b]) == SORTED
    rng = np.random.default_rng(cases.SEED)
    for _ in range(20):
        values = rng.integers(0, 9, int(rng.integers(0, 99))).tolist()
        assert sort(values, lambda a, b: a < b) == sorted(values), f"seed {cases.SEED}"
        count = int(rng.integers(0, len(values) + 1))
        assert sorted(select_first(values, count, lambda a, b: a < b)) == sorted(values)[:count]
