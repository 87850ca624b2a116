"""Chat templates beside openvino_genai, whose texts are in templates.json."""

from __future__ import annotations

import json
from pathlib import Path

import ovjit.genai as genai
from tests.support.genai_templates import collect


def test_texts_of_chats() -> None:
    expected = json.loads((Path(__file__).parent / "templates.json").read_text())
    texts = collect(genai)
    wrong = {name: (texts[name], expected[name]) for name in expected if texts[name] != expected[name]}
    assert len(texts) == len(expected) > 130
    assert not wrong
