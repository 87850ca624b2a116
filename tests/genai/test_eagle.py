"""EAGLE-3 drafts beside openvino_genai, whose texts and counts are in eagle.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ovjit as ov
import ovjit.genai as genai
from ovjit.errors import OvjitError, UnsupportedError
from tests.support.genai_eagle import EXACT, collect, write_folders


def test_texts_and_accepted_tokens(tmp_path: Path) -> None:
    expected = json.loads((Path(__file__).parent / "eagle.json").read_text())
    found = json.loads(json.dumps(collect(ov, genai, tmp_path)))
    assert len(expected) > 30 and found == expected
    counts = [value[2][0] for key, value in found.items() if "eagle" in key and value != "error"]
    assert sum(counts) > 20


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
    with pytest.raises(UnsupportedError, match="EAGLE-3"):
        genai.ContinuousBatchingPipeline(
            model, genai.SchedulerConfig(), "CPU", {"draft_model": genai.draft_model(path, "CPU")}
        )
    (model / "config.json").write_text(json.dumps({"num_hidden_layers": 9}))
    with pytest.raises(OvjitError, match="at least 10 layers"):
        genai.LLMPipeline(model, "CPU", draft_model=genai.draft_model(path, "CPU"))
