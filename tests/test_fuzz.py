"""Fuzzers, a few seconds each: OVJIT_FUZZ_SECONDS says how long, and the tests marked `long` take minutes.

A finding's message has the seed and a program that shows it.
"""

from __future__ import annotations

import os
import time
from types import ModuleType

import fuzz_blobs
import fuzz_graphs
import fuzz_indices
import fuzz_ir
import fuzz_misfits
import fuzz_onnx
import fuzz_quantized
import fuzzing
import planted
import pytest

FUZZERS = [fuzz_graphs, fuzz_indices, fuzz_misfits, fuzz_ir, fuzz_blobs, fuzz_onnx, fuzz_quantized]
#: Where the default runs begin; those marked `long` go on from another place every day.
SEED = 20261210


@pytest.mark.parametrize("module", FUZZERS, ids=lambda m: m.__name__)
@pytest.mark.timeout(0)
def test_fuzz(module: ModuleType) -> None:
    report = fuzzing.fuzz(module, fuzzing.seconds(), SEED)
    assert not report.findings, report.text()


@pytest.mark.long
@pytest.mark.parametrize("module", FUZZERS, ids=lambda m: m.__name__)
@pytest.mark.timeout(0)
def test_fuzz_for_long(module: ModuleType) -> None:
    seconds = float(os.environ.get("OVJIT_FUZZ_SECONDS", 600))
    report = fuzzing.fuzz(module, seconds, int(time.time()) // 86400 * 10_000_000)
    print(report.text())
    assert not report.findings, report.text()


def test_planted_faults_are_found_and_made_small() -> None:
    """What ends the process is known, restarts go on behind it, and a finding is as small as it can be."""
    report = fuzzing.fuzz(planted, 100, 0, most=100, count=80)
    assert report.cases == 80
    seeds = [seed for seed in range(80) if 13 in planted.make(seed)["numbers"]]
    died = [f for f in report.findings if "died of signal 11" in f.what]
    assert [f.seed for f in died] == seeds and len(seeds) > 5
    assert all('{"numbers": [13]}' in f.script for f in died)
    wrong = [f for f in report.findings if f.what == "7 and 8"]
    assert wrong and all(f.script.count(",") == 1 for f in wrong)
