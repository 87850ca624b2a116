"""Classes, attributes and assignments of ovjit.genai beside those of the installed openvino_genai."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

import pytest

from tests.support.run import command

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("openvino_genai") is None, reason="openvino_genai is missing"
)
#: Classes of other pipelines, which docs/genai.md names.
ABSENT = frozenset((
    "OmniDecodedResults", "OmniPipeline", "OmniSpeechStreamerBase", "OmniTalkerSpeechConfig",
    "Talker", "TalkerBase", "TalkerPerfMetrics", "TalkerResults",
))  # fmt: skip
#: Fields of results, which can be assigned here.
RESULTS = ("Result", "Results", "Metrics", "Chunk", "Timing")


@pytest.fixture(scope="module")
def surfaces() -> tuple[dict[str, Any], dict[str, Any]]:
    runs = [command(sys.executable, "-m", "tests.support.genai_surface", name) for name in ("real", "ovjit")]
    assert not any(run.returncode for run in runs), runs[0].stderr[-2000:] + runs[1].stderr[-2000:]
    real, ours = (json.loads(run.stdout) for run in runs)
    return real, ours


@needs_package
def test_classes_and_attributes_are_there(surfaces: tuple[dict[str, Any], dict[str, Any]]) -> None:
    real, ours = surfaces
    assert {name.partition(".")[0] for name in set(real) - set(ours)} == ABSENT
    missing = {}
    for name in set(real) & set(ours):
        known, expected = ({*surface[name], *surface[name].get("methods", ())} for surface in (ours, real))
        missing[name] = sorted(key for key in expected - known - {"methods"} if " = " not in key)
    missing = {name: names for name, names in missing.items() if names}
    assert not missing, missing


@needs_package
def test_enumerations_are_equal(surfaces: tuple[dict[str, Any], dict[str, Any]]) -> None:
    real, ours = surfaces
    kinds = [name for name in real if "members" in real[name] and name in ours]
    assert len(kinds) == 10
    assert {name: ours[name] for name in kinds} == {name: real[name] for name in kinds}


@needs_package
def test_values_and_assignments_are_equal(surfaces: tuple[dict[str, Any], dict[str, Any]]) -> None:
    real, ours = surfaces
    wrong, count = {}, 0
    for name in set(real) & set(ours):
        for key, value in real[name].items():
            if key == "methods" or "members" in real[name] or name.endswith(RESULTS):
                continue
            count += 1
            if ours[name].get(key) != value:
                wrong[f"{name} {key}"] = (value, ours[name].get(key))
    assert count > 1000 and not wrong, wrong
