"""Qwen3-ASR and Fun-ASR beside openvino_genai, whose results are in asr.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
import ovjit.genai as genai
from ovjit.errors import OvjitError
from ovjit.genai.whisper import qwen
from tests.support.genai_asr import collect, write_folder


def test_texts_languages_pieces_and_figures(tmp_path: Path) -> None:
    expected = json.loads((Path(__file__).parent / "asr.json").read_text())
    found = json.loads(json.dumps(collect(ov, genai, tmp_path)))
    assert len(expected) > 100 and found.keys() == expected.keys()
    for name, values in expected.items():
        if isinstance(values, list) and len(values) == 9:
            assert found[name][2] == pytest.approx(values[2], rel=1e-5), name
            values[2] = found[name][2]
        assert found[name] == values, name


def test_stop_strings_and_kinds_of_models(tmp_path: Path) -> None:
    folder = write_folder(ov, tmp_path / "asr")
    pipeline = genai.ASRPipeline(folder, "CPU")
    text = pipeline.generate(np.ones(16000), max_new_tokens=12).texts[0]
    stopped = pipeline.generate(np.ones(16000), max_new_tokens=12, stop_strings={text[3:5]}).texts[0]
    assert text.startswith(stopped) and len(stopped) < len(text)
    with pytest.raises(OvjitError, match="beam search"):
        pipeline.generate(np.ones(16000), num_beams=2, max_new_tokens=3)
    with pytest.raises(OvjitError, match="too short"):
        qwen.FeatureExtractor(folder).extract(np.ones(100, np.float32), pads=False)
    (folder / "config.json").write_text(json.dumps({"model_type": "other"}))
    with pytest.raises(OvjitError, match="other"):
        genai.ASRPipeline(folder, "CPU")


def test_long_sounds_are_cut_at_quiet_samples() -> None:
    rate = 10
    sound = np.ones(2 * qwen._LONGEST * rate + 30, np.float32)
    quiet = qwen._LONGEST * rate - 20
    sound[quiet : quiet + 4] = [0.5, 0.25, 0, 0.5]
    parts = list(qwen.split_sound(sound, rate))
    assert [len(part) for part in parts] == [quiet + 2, qwen._LONGEST * rate - 50, 30 + 50 + 20 - 2]
    assert np.array_equal(np.concatenate(parts), sound)
    assert [len(part) for part in qwen.split_sound(sound[:1], rate)] == [5]


def test_answers_are_split_into_language_and_text() -> None:
    answers = {
        "language English<asr_text>hello": ("English", "hello"),
        "language None<asr_text>": ("", ""),
        "hello": ("", "hello"),
        "is<asr_text>a<asr_text>b": ("", "a<asr_text>b"),
    }
    assert {text: qwen.split_answer(text) for text in answers} == answers
