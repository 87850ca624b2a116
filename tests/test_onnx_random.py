"""Random nodes of ai.onnx and com.microsoft beside ONNX Runtime; `tests/beside_onnxruntime.py` runs more."""

from __future__ import annotations

import numpy as np
import pytest
from beside_onnxruntime import FAMILIES, describe, judge

#: What is refused, with the words that say so: ranks, sizes or the like are not known when the model is read.
REFUSED = ("not known when the model is read", "an open sequence length", "of open dimensions")


@pytest.mark.parametrize("family", FAMILIES)
def test_by_the_references(family: str) -> None:
    for seed in range(40):
        rng = np.random.default_rng((seed, *family.encode()))
        sample = FAMILIES[family](rng)
        verdict = judge(sample, rng)
        excused = verdict.status == "refused" and any(words in verdict.said for words in REFUSED)
        assert verdict.status in ("same", "skipped") or excused, (
            f"seed {seed} of {family}: {describe(sample)}: {verdict.said}"
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_natively(family: str) -> None:
    for seed in range(1000, 1002):
        rng = np.random.default_rng((seed, *family.encode()))
        sample = FAMILIES[family](rng)
        verdict = judge(sample, rng, native=True)
        excused = verdict.status == "refused" and any(words in verdict.said for words in REFUSED)
        assert verdict.status in ("same", "skipped") or excused, (
            f"seed {seed} of {family}: {describe(sample)}: {verdict.said}"
        )
