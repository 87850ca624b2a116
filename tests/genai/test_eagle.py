"""EAGLE-3 drafts beside openvino_genai, whose texts and counts are in eagle.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ovjit as ov
import ovjit.genai as genai
from ovjit.errors import OvjitError, UnsupportedError
from tests.support.genai_eagle import EXACT, OPTIONS, collect, write_folders


def test_texts_and_accepted_tokens(tmp_path: Path) -> None:
    expected = json.loads((Path(__file__).parent / "eagle.json").read_text())
    found = json.loads(json.dumps(collect(ov, genai, tmp_path)))
    assert len(expected) > 30 and found == expected
    counts = [value[2][0] for key, value in found.items() if "eagle" in key and value != "error"]
    assert sum(counts) > 20


@pytest.mark.parametrize("shares_prefixes", [False, True])
def test_batches(tmp_path: Path, shares_prefixes: bool) -> None:
    """The texts, scores and counts of openvino_genai, whose LLMPipeline runs drafts in batches; together,
    the texts of each prompt alone. Prompts are read in parts, and again from the cache."""
    expected = json.loads((Path(__file__).parent / "eagle.json").read_text())
    model, path = write_folders(ov, tmp_path)
    scheduler = genai.SchedulerConfig()
    if shares_prefixes:
        scheduler.enable_prefix_caching, scheduler.max_num_batched_tokens = True, 7
    properties = {"draft_model": genai.draft_model(path, "CPU", **EXACT), **EXACT}
    pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
    common = {"max_new_tokens": 40, "ignore_eos": True, "apply_chat_template": False}
    prompts = ["hello world", "the weather is not there", "is it so"]
    for title, options in OPTIONS.items():
        config = genai.GenerationConfig(**{**common, **options})
        if title == "threshold":
            with pytest.raises(OvjitError, match="EAGLE-3"):
                pipeline.generate(prompts[:1], [config])
            continue
        for prompt in prompts:
            (result,) = pipeline.generate([prompt], [config])
            figures = result.extended_perf_metrics
            steps = len(figures.main_model_metrics.raw_metrics.m_durations)
            score, counts = round(result.m_scores[0], 2), [figures.get_num_accepted_tokens(), steps]
            assert [result.m_generation_ids[0], score, counts] == expected[f"eagle {prompt} {title}"], title
    together = pipeline.generate(prompts, [genai.GenerationConfig(**common)] * 3)
    assert [r.m_generation_ids[0] for r in together] == [expected[f"eagle {p} default"][0] for p in prompts]
    assert together[0].extended_perf_metrics.get_num_accepted_tokens() == 14


def test_trees_chats_and_other_pipelines(tmp_path: Path) -> None:
    model, path = write_folders(ov, tmp_path)
    plain = genai.LLMPipeline(model, "CPU", **EXACT)
    pipeline = genai.LLMPipeline(model, "CPU", draft_model=genai.draft_model(path, "CPU", **EXACT), **EXACT)
    config = {"max_new_tokens": 12, "ignore_eos": True}
    texts = [plain.generate(prompt, **config) for prompt in ("hello world", "hello other", "hello world")]
    tree = {"tree_depth": 2, "branching_factor": 2, "num_assistant_tokens": 4}
    assert pipeline.generate("hello world", **config, **tree) == texts[0]
    # the draft keeps what it has read of a common prefix
    assert [pipeline.generate(p, **config) for p in ("hello world", "hello other", "hello world")] == texts
    with pytest.raises(OvjitError, match="EAGLE-3"):
        plain.generate("hello world", **config, **tree)
    (model / "config.json").write_text(json.dumps({"num_hidden_layers": 9}))
    with pytest.raises(OvjitError, match="at least 10 layers"):
        genai.LLMPipeline(model, "CPU", draft_model=genai.draft_model(path, "CPU"))
    with pytest.raises(UnsupportedError, match="EAGLE-3"):
        (model / "config.json").write_text(json.dumps({"num_hidden_layers": 10}))
        genai.LLMPipeline(model, "GPU", draft_model=genai.draft_model(path))
