"""Adapters and prompt lookup of pipelines that take pictures, and their figures: beside results of the real
package in vision_options.json. Positions of texts and of handles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ovjit as ov
from ovjit.errors import OvjitError
from tests.support import genai_vision_options as cases
from tests.support.genai_cases import value_of

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai

EXPECTED = json.loads((Path(__file__).parent / "vision_options.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_named_folder(ov, tmp_path_factory.mktemp("options") / "folder")


def test_results_are_those_of_the_real_package(pictures: Path) -> None:
    results = {name: value_of(run) for name, run in cases.programs(genai, ov, pictures)}
    assert results == EXPECTED


def test_looked_up_tokens_are_checked_together(pictures: Path) -> None:
    pipe = genai.VLMPipeline(pictures, "CPU", prompt_lookup=True, **cases.EXACT)
    config = genai.GenerationConfig(
        max_new_tokens=12, ignore_eos=True, num_assistant_tokens=3, max_ngram_size=1
    )
    plain = genai.VLMPipeline(pictures, "CPU", **cases.EXACT)
    results = pipe.generate("1 2 1 2", generation_config=config)
    assert max(results.perf_metrics.raw_metrics.m_batch_sizes) > 1
    assert results.texts == plain.generate("1 2 1 2", max_new_tokens=12, ignore_eos=True).texts
    draft = genai.draft_model(pictures, "CPU")
    for load in (
        lambda: genai.VLMPipeline(pictures, "CPU", draft_model=draft),
        lambda: genai.ContinuousBatchingPipeline(
            pictures, genai.SchedulerConfig(), "CPU", {"draft_model": draft}
        ),
    ):  # as in the real package
        with pytest.raises(OvjitError, match="is not supported for models with embeddings"):
            load()


def test_answers_without_room_in_the_cache_are_errors(pictures: Path) -> None:
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 2
    limited = genai.VLMPipeline(pictures, "CPU", scheduler_config=scheduler, **cases.EXACT)
    plain = genai.VLMPipeline(pictures, "CPU", **cases.EXACT)
    with pytest.raises(OvjitError, match="raise num_kv_blocks"):
        limited.generate("1 2 1 2", max_new_tokens=90, ignore_eos=True)
    texts = [pipe.generate("1 2", max_new_tokens=9, ignore_eos=True).texts for pipe in (limited, plain)]
    assert texts[0] == texts[1]


def test_figures_of_several_prompts_are_those_of_the_real_package(folder: Path) -> None:
    """The length of the first prompt; an entry for each token of a step; times of one call."""
    pipe = genai.LLMPipeline(folder, "CPU")

    def figures(prompts: list[str], **options: Any) -> tuple[Any, list[int]]:
        results = pipe.generate(prompts, max_new_tokens=4, ignore_eos=True, **options).perf_metrics
        raw = results.raw_metrics
        names = (
            "chat_template_durations", "detokenization_durations", "m_durations", "m_new_token_times",
            "tokenization_durations",
        )  # fmt: skip
        return results, [results.get_num_input_tokens(), *(len(getattr(raw, name)) for name in names)]

    first, lengths = figures(["hello", "the weather is it so"])
    second, one = figures(["hello"])
    assert lengths == [one[0], 1, 2, 6, 4, 2] and one[1:] == [1, 1, 3, 4, 1]
    total = first + second
    assert len(total.raw_metrics.m_new_token_times) == 4 and total.get_num_input_tokens() == 2 * one[0]
    sampled = figures(["hello"], do_sample=True, num_return_sequences=3)[1]
    assert sampled[1:] == [1, 3, 9, 4, 1]


def test_outputs_of_handles_have_the_numbers_of_their_sequences(folder: Path) -> None:
    pipe = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU")
    config = genai.GenerationConfig(
        max_new_tokens=5, num_return_sequences=4, do_sample=True, rng_seed=2, ignore_eos=True
    )
    handles = [pipe.add_request(i, "hello", config) for i in range(2)]
    while pipe.has_non_finished_requests():
        pipe.step()
    outputs, all_outputs = handles[0].read(), handles[1].read_all()
    alone = [
        genai.GenerationConfig(max_new_tokens=1, do_sample=True, rng_seed=2, num_return_sequences=4)
    ]  # the first tokens, in the order in which they are drawn
    drawn = pipe.add_request(2, "hello", alone[0])
    while pipe.has_non_finished_requests():
        pipe.step()
    firsts = {number: output.generated_ids[0] for number, output in drawn.read().items()}
    assert list(outputs) == [3, 2, 1, 0]
    assert {number: output.generated_ids[0] for number, output in outputs.items()} == firsts
    scores = [output.score for output in all_outputs]
    assert scores == sorted(scores, reverse=True) and scores != [output.score for output in outputs.values()]


def test_prompts_may_be_bytes_and_iterators(folder: Path) -> None:
    pipe = genai.LLMPipeline(folder, "CPU")
    expected = pipe.generate("hello", max_new_tokens=3)
    assert pipe.generate(b"hello", max_new_tokens=3) == expected
    assert pipe.generate((text for text in ["hello"]), max_new_tokens=3).texts == [expected]
    with pytest.raises(TypeError, match="UTF-8"):
        pipe.generate(b"\xff", max_new_tokens=3)
