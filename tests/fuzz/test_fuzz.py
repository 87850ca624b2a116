"""Fuzzers, a second each: OVJIT_FUZZ_SECONDS says how long, and the tests marked `long` take minutes.

A finding's message has the seed and a program that shows it.
"""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from types import ModuleType

import pytest

from tests.fuzz import (
    fuzz_attributes,
    fuzz_blobs,
    fuzz_decoders,
    fuzz_gguf,
    fuzz_graphs,
    fuzz_indices,
    fuzz_ir,
    fuzz_keras,
    fuzz_misfits,
    fuzz_onnx,
    fuzz_onnx_programs,
    fuzz_quantized,
    fuzz_requests,
    fuzz_sealed,
    fuzz_tflite,
    fuzz_types,
    fuzzing,
    planted,
)

FUZZERS = [
    fuzz_graphs, fuzz_indices, fuzz_misfits, fuzz_ir, fuzz_blobs, fuzz_onnx, fuzz_quantized, fuzz_sealed,
    fuzz_tflite, fuzz_gguf, fuzz_types, fuzz_attributes, fuzz_keras, fuzz_requests,
    fuzz_onnx_programs, fuzz_decoders,
]  # fmt: skip
#: Packages that fuzzers need besides ovjit's own.
NEEDS = {
    fuzz_decoders: ("openvino",),
    fuzz_onnx_programs: ("onnxruntime",),
    fuzz_tflite: ("tflite",),
    fuzz_gguf: ("gguf",),
    fuzz_keras: ("tensorflow", "tf2onnx", "tflite"),
}
#: Where the default runs begin; those marked `long` go on from another place every day.
SEED = 20261210


def name_of(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def skip_without(module: ModuleType) -> None:
    if missing := [name for name in NEEDS.get(module, ()) if find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.mark.parametrize("module", FUZZERS, ids=name_of)
@pytest.mark.timeout(0)
def test_fuzz(module: ModuleType) -> None:
    skip_without(module)
    report = fuzzing.fuzz(module, fuzzing.seconds(), SEED)
    assert not report.findings, report.text()


@pytest.mark.long
@pytest.mark.parametrize("module", FUZZERS, ids=name_of)
@pytest.mark.timeout(0)
def test_fuzz_for_long(module: ModuleType) -> None:
    skip_without(module)
    seconds = float(os.environ.get("OVJIT_FUZZ_SECONDS", 600))
    report = fuzzing.fuzz(module, seconds, int(time.time()) // 86400 * 10_000_000)
    print(report.text())
    assert not report.findings, report.text()


def test_planted_faults_are_found_and_made_small() -> None:
    """What ends the process is known, restarts go on behind it, and a finding is as small as it can be."""
    report = fuzzing.fuzz(planted, 100, 0, most=100, count=40)
    assert report.cases == 40
    seeds = [seed for seed in range(40) if 13 in planted.make(seed)["numbers"]]
    died = [f for f in report.findings if "died of signal 11" in f.what]
    assert [f.seed for f in died] == seeds and len(seeds) > 5
    assert all('{"numbers": [13]}' in f.script for f in died)
    wrong = [f for f in report.findings if f.what == "7 and 8"]
    assert wrong and all(f.script.count(",") == 1 for f in wrong)
