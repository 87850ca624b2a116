"""Pictures that lose tokens beside results of the real package in pruning.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError
from tests.support import genai_pruning as cases
from tests.support.genai_cases import value_of

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.genai.vision.pruning import choose_tokens

EXPECTED = json.loads((Path(__file__).parent / "pruning.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", cases.KINDS)
def test_results_are_those_of_the_real_package(kind: str, tmp_path: Path) -> None:
    folder = cases.write_folder(ov, tmp_path / kind, kind)
    results = {name: value_of(run) for name, run in cases.programs(genai, ov, folder, kind)}
    assert results == {name: value for name, value in EXPECTED.items() if name.startswith(f"{kind} ")}


@pytest.mark.parametrize("seed", range(6))
def test_chosen_tokens_maximize_the_determinant_greedily(seed: int) -> None:
    """Each token of a half is the one whose determinant with those before it is largest, in f64."""
    rng = np.random.default_rng(seed)
    features, text = rng.standard_normal((12, 24)).astype(np.float32), rng.standard_normal(24)
    expected: list[int] = []
    for half in (range(6), range(6, 12)):
        rows = features[half].astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        fit = rows @ text / np.linalg.norm(text)
        fit = (fit - fit.min()) / (fit.max() - fit.min())
        kernel = rows @ rows.T * (0.3 + 0.7 * np.outer(fit, fit))
        chosen: list[int] = []
        for _ in range(3):
            gains = [
                -1 if i in chosen else np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])])
                for i in range(6)
            ]
            chosen.append(int(np.argmax(gains)))
        expected += [half[i] for i in sorted(chosen)]
    assert choose_tokens(features, text.astype(np.float32), 50, 0.7).tolist() == expected


def test_a_single_token_remains_or_is_an_error() -> None:
    features, text = np.ones((1, 4), np.float32), np.ones(4, np.float32)
    assert choose_tokens(features, text, 40, 0.5).tolist() == [0]
    with pytest.raises(OvjitError, match="leaves none of a picture's 1 tokens"):
        choose_tokens(features, text, 60, 0.5)
