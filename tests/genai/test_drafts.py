"""Drafts of DFlash and MTP beside openvino_genai, whose texts and counts are in drafts.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
import ovjit.genai as genai
from ovjit.errors import OvjitError
from ovjit.genai.speculation import draft_of
from tests.support.genai_drafts import EXACT, collect, collect_gemma, write_folders, write_gemma


def test_texts_and_accepted_tokens(tmp_path: Path) -> None:
    expected = json.loads((Path(__file__).parent / "drafts.json").read_text())
    found = json.loads(json.dumps(collect(ov, genai, tmp_path)))
    assert len(expected) > 140 and found == expected
    for name in ("dflash", "mtp "):
        values = [value for key, value in found.items() if key.startswith(name) and value != "error"]
        assert sum(value[-1][0] for value in values) > 50


def test_dflash_in_batches(tmp_path: Path) -> None:
    """Several prompts together, which openvino_genai refuses, read in parts and again from the cache."""
    expected = json.loads((Path(__file__).parent / "drafts.json").read_text())
    model, path = write_folders(ov, tmp_path)
    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching, scheduler.max_num_batched_tokens = True, 7
    properties = {"draft_model": genai.draft_model(path, "CPU", **EXACT), **EXACT}
    pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
    config = genai.GenerationConfig(max_new_tokens=40, ignore_eos=True, apply_chat_template=False)
    prompts = ["hello world", "the weather is not there", "is it so"]
    for _ in range(2):
        results = pipeline.generate(prompts, [config] * 3)
        assert [r.m_generation_ids[0] for r in results] == [
            expected[f"dflash True {p} default"][0] for p in prompts
        ]
    accepted = results[0].extended_perf_metrics.get_num_accepted_tokens()
    assert accepted == sum(expected[f"dflash True {p} default"][2][0] for p in prompts)


@pytest.mark.parametrize(
    "settings, message",
    [({"layers": {}}, "hidden_states_decoder_layers"), ([], "hidden_states_decoder_layers")],
)
def test_layers_that_the_model_does_not_name(tmp_path: Path, settings: object, message: str) -> None:
    model, path = write_folders(ov, tmp_path)
    read = ov.Core().read_model(model / "openvino_model.xml")
    read.set_rt_info(json.dumps(settings), "hidden_states_decoder_layers")
    ov.save_model(read, tmp_path / "openvino_model.xml")
    with pytest.raises(OvjitError, match=message):
        genai.LLMPipeline(
            tmp_path / "openvino_model.xml",
            genai.Tokenizer(model),
            "CPU",
            draft_model=genai.draft_model(path, "CPU"),
        )


def test_drafts_that_read_the_caches_of_the_model(tmp_path: Path) -> None:
    """The first proposal of a step does not depend on the number of proposals, nor on the tokens that were
    refused before."""
    counts: list[list[Any]] = []
    collect_gemma(ov, genai, tmp_path, counts)
    for five, two, one, *_ in (counts[i : i + 5] for i in range(0, len(counts), 5)):
        for accepted, generated, _, sizes, drafted, *_ in (five, two, one):
            assert generated == sum(sizes) == 40 and accepted == 40 - len(sizes)
            assert set(drafted) <= {1} and len(drafted) >= len(sizes) - 2
        assert max(one[3]) <= 2 and max(two[3]) <= 3 and max(five[3]) <= 6
        assert one[0] <= two[0] <= five[0]
    assert sum(each[0] for each in counts) > 60
    model, draft = write_gemma(ov, tmp_path / "refused")
    with pytest.raises(OvjitError, match="lacks"):
        genai.LLMPipeline(
            write_folders(ov, tmp_path / "plain")[0], "CPU", draft_model=genai.draft_model(draft)
        )


def test_a_draft_without_properties_has_those_of_the_pipeline(folder: Path) -> None:
    """A model's own proposals are all accepted then, as in openvino_genai."""
    prompts = np.random.default_rng(5).integers(3, 290, (20, 1, 20))

    def count_steps(**properties: Any) -> int:
        draft = genai.draft_model(folder, "CPU", **properties)
        pipe = genai.LLMPipeline(folder, "CPU", draft_model=draft, **EXACT)
        options = {"max_new_tokens": 25, "num_assistant_tokens": 3, "ignore_eos": True}
        results = [pipe.generate(ov.Tensor(prompt), **options) for prompt in prompts]
        return sum(len(each.perf_metrics.raw_metrics.m_batch_sizes) for each in results)

    assert count_steps() == count_steps(**EXACT) == 7 * len(prompts)
    own = genai.draft_model(folder, "CPU", NUM_STREAMS=1)
    assert draft_of({"draft_model": own, **EXACT}) is own
    flagged = draft_of({"draft_model": genai.draft_model(folder, eagle3_mode=True), **EXACT})
    assert flagged is not None and flagged.settings == EXACT and flagged.mode == "eagle3_mode"
