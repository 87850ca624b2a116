"""Random nodes of ai.onnx and com.microsoft beside ONNX Runtime.

`tests/support/onnx/beside_onnxruntime.py` runs more.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.onnx.beside_onnxruntime import FAMILIES, describe, judge
from tests.support.onnx.retyped import retyped
from tests.support.sweeps import parts

#: What is refused, with the words that say so: ranks, sizes or the like are not known when the model is read.
REFUSED = ("not known when the model is read", "of open dimensions")
#: ... in other types: text as numbers, and what only ONNX's evaluator computes.
REFUSED_TYPES = (*REFUSED, "from or to strings", "need fmod=1", "has 2 inputs; expected 3",
                 "no operation of OpenVINO", "OpenVINO has no such operation",
                 "'cats_strings' is missing")  # fmt: skip
#: Where the evaluator is wrong of types that ONNX Runtime does not take: it rounds interpolated integers, and
#: sorts slices by their positions.
EVALUATOR_ERRS = ("Resize", "GridSample", "Unique")


@pytest.mark.parametrize("seeds", parts(range(40), 8), ids=len)
@pytest.mark.parametrize("family", FAMILIES)
def test_by_the_references(family: str, seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng((seed, *family.encode()))
        sample = FAMILIES[family](rng)
        verdict = judge(sample, rng)
        excused = verdict.status == "refused" and any(words in verdict.said for words in REFUSED)
        assert verdict.status in ("same", "skipped") or excused, (
            f"seed {seed} of {family}: {describe(sample)}: {verdict.said}"
        )


@pytest.mark.parametrize("seeds", parts(range(8), 2), ids=len)
@pytest.mark.parametrize("family", FAMILIES)
def test_in_other_types_and_versions(family: str, seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng((seed, *family.encode()))
        sample = retyped(FAMILIES[family](rng), rng)
        verdict = judge(sample, rng)
        said = verdict.said
        excused = verdict.status == "refused" and any(words in said for words in REFUSED_TYPES)
        excused |= verdict.status == "wrong" and said.startswith("evaluator") and sample.op in EVALUATOR_ERRS
        assert verdict.status in ("same", "skipped") or excused, (
            f"seed {seed} of {family}: {describe(sample)}: {said}"
        )


@pytest.mark.parametrize("seeds", parts(range(1002, 999, -1), 1), ids=len)
@pytest.mark.parametrize("family", FAMILIES)
def test_natively(family: str, seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng((seed, *family.encode()))
        sample = FAMILIES[family](rng)
        sample = retyped(sample, rng) if seed == 1002 else sample
        verdict = judge(sample, rng, native=True)
        excused = verdict.status == "refused" and any(words in verdict.said for words in REFUSED_TYPES)
        assert verdict.status in ("same", "skipped") or excused, (
            f"seed {seed} of {family}: {describe(sample)}: {verdict.said}"
        )
