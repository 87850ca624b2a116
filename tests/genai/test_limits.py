"""Bounds of configurations and figures beside openvino_genai, whose results are in limits.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ovjit as ov

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.errors import OvjitError
from ovjit.genai.answers import Answer
from ovjit.genai.sampler import Choice
from ovjit.genai.stops import Stops
from tests.support.genai_cases import EXACT, is_same
from tests.support.genai_limits import collect
from tests.support.run import python


def test_bounds_and_figures(folder: Path) -> None:
    expected = json.loads((Path(__file__).parent / "limits.json").read_text())
    found = collect(genai, ov, folder)
    assert list(found) == list(expected) and len(found) > 50
    assert not {n: (v, expected[n]) for n, v in found.items() if not is_same(v, expected[n])}


def test_times_of_grammars(folder: Path) -> None:
    """Each request has a time to compile its grammar; that to begin the compiler stays."""
    pytest.importorskip("xgrammar")
    pipeline = genai.LLMPipeline(folder, "CPU", **EXACT)
    output = genai.StructuredOutputConfig(regex="[ab]+")
    config = genai.GenerationConfig(max_new_tokens=3, structured_output_config=output)
    metrics = pipeline.generate(["hello", "is it"], config).perf_metrics
    times = metrics.raw_metrics.grammar_compile_times
    assert len(times) == 2 and min(times) > 0
    assert metrics.get_grammar_compile_time().max == max(times) / 1000
    plain = pipeline.generate(["hello"], max_new_tokens=3).perf_metrics
    assert plain.raw_metrics.grammar_compile_times == [] and plain.get_grammar_compile_time().mean == -1
    for each in (metrics, plain, metrics + plain):
        assert each.get_grammar_compiler_init_times()["xgrammar"] > 0
    assert genai.PerfMetrics().get_grammar_compiler_init_times() == {}


def test_answers_without_room_in_the_cache_are_errors(folder: Path) -> None:
    """As in openvino_genai: a streamer gets what there is room for, and the next answer may fit."""
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 2
    pipeline = genai.LLMPipeline(folder, "CPU", scheduler_config=scheduler, **EXACT)
    free = genai.LLMPipeline(folder, "CPU", **EXACT)
    options = {"ignore_eos": True, "apply_chat_template": False}
    texts: list[str] = []
    with pytest.raises(OvjitError, match="raise num_kv_blocks"):
        pipeline.generate("hello", streamer=texts.append, max_new_tokens=100, **options)
    assert texts and free.generate("hello", max_new_tokens=100, **options).startswith("".join(texts))
    for prompt, more in (("hello " * 70, {}), (["hello", "hello " * 70], {}), ("is it", {"num_beams": 3})):
        with pytest.raises(OvjitError, match="raise num_kv_blocks"):
            pipeline.generate(prompt, max_new_tokens=60, **options, **more)
    assert pipeline.generate("hello", max_new_tokens=9, **options) == free.generate(
        "hello", max_new_tokens=9, **options
    )
    properties = {"ATTENTION_BACKEND": "SDPA", "scheduler_config": scheduler, **EXACT}
    with pytest.raises(OvjitError, match="SDPA"):
        genai.LLMPipeline(folder, "CPU", **properties)


@pytest.mark.parametrize("kind", ["draft_model", "prompt_lookup"])
def test_drafts_in_a_cache_with_a_limit(folder: Path, kind: str) -> None:
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 2
    drafts = {"draft_model": genai.draft_model(folder, "CPU", **EXACT), "prompt_lookup": True}
    limited = genai.LLMPipeline(folder, "CPU", scheduler_config=scheduler, **{kind: drafts[kind]}, **EXACT)
    free = genai.LLMPipeline(folder, "CPU", **EXACT)
    options = {"ignore_eos": True, "apply_chat_template": False}
    counts = {"num_assistant_tokens": 3, "max_ngram_size": 2 if kind == "prompt_lookup" else 0}
    with pytest.raises(OvjitError, match="raise num_kv_blocks"):
        limited.generate("hello", max_new_tokens=100, **options, **counts)
    expected = free.generate("hello", max_new_tokens=50, **options)
    assert limited.generate("hello", max_new_tokens=50, **options, **counts) == expected


def test_a_stop_token_is_not_given_to_a_grammar(folder: Path) -> None:
    """xgrammar refuses such a token where the grammar goes on, though its letters are allowed."""

    class Refusing:
        def advance(self, token: int) -> None:
            raise AssertionError(f"the grammar does not allow {token}")

    config = genai.GenerationConfig(max_new_tokens=5, stop_token_ids={30})
    stops = Stops(config, genai.Tokenizer(folder), 1)
    answer = Answer([], matcher=Refusing())  # type: ignore[arg-type]
    answer.take(Choice(30, -1.0), stops)
    assert answer.finish is genai.GenerationFinishReason.STOP and answer.tokens == [30]
    with pytest.raises(AssertionError, match="31"):
        Answer([], matcher=Refusing()).take(Choice(31, -1.0), stops)  # type: ignore[arg-type]


def test_locks_are_taken_in_order(folder: Path) -> None:
    """Routines of a tokenizer are loaded under the lock of a node's memory."""
    text = "import sys, ovjit.genai as g; print(g.Tokenizer(sys.argv[1]).encode('hello').input_ids.shape)"
    result = python("-c", text, folder, OVJIT_CHECK="1")
    assert not result.returncode and result.stdout.startswith("[1,"), result.stderr[-2000:]
