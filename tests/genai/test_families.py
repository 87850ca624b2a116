"""The families of VLMPipeline beside results of the real one in families.json."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import ovjit as ov
from tests.support import genai_families as cases
from tests.support.genai_cases import is_same, value_of

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai

EXPECTED = json.loads((Path(__file__).parent / "families.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", cases.FAMILIES)
def test_results_are_those_of_the_real_package(kind: str, tmp_path: Path) -> None:
    folder = cases.write_folder(ov, tmp_path / kind, kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a video without VideoMetadata.fps", RuntimeWarning)
        results = {name: value_of(run) for name, run in cases.programs(genai, folder, kind)}
    assert list(results) == list(EXPECTED[kind])
    pairs = {name: (value, EXPECTED[kind][name]) for name, value in results.items()}
    assert not {name: pair for name, pair in pairs.items() if not is_same(*pair, 1e-3)}
