"""What operations say of inputs and attributes that they refuse holds what OpenVINO says of them: programs
and tests search for it. The calls are in `sentences.txt`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import openvino
import pytest

import ovjit
from tests.support import both_packages

CALLS = [
    line
    for line in (Path(__file__).parent / "sentences.txt").read_text().splitlines()
    if not line.startswith("#")
]
#: Lines that say where in OpenVINO's sources a check stands, and at which node.
PLACE = re.compile(r"\s*(Exception from|Check '|While validating node|Shape inference input shapes)")


def refusal(package: Any, calls: list[str]) -> list[str]:
    """What each call says when it raises a RuntimeError, as it does."""
    names = both_packages.names_of(package)
    for name, shape in (("x", [1, 3, 8, 8]), ("w", [4, 3, 3, 3]), ("g", [2, 2, 3, 3, 3]), ("a", [4, 6])):
        names[name] = names["P"](shape)
    told = []
    for call in calls:
        with pytest.raises(RuntimeError) as error:
            eval(call, names)
        text = str(error.value)
        lines = [x for x in text.splitlines() if package is ovjit or not PLACE.match(x)]
        told.append(re.sub(r"\s+", " ", " ".join(lines)).strip())
    return told


def by_operation() -> list[Any]:
    groups: dict[str, list[str]] = {}
    for call in CALLS:
        groups.setdefault(re.sub(r"^o\d+\.|\(.*", "", call), []).append(call)
    return [pytest.param(calls, id=name) for name, calls in sorted(groups.items())]


@pytest.mark.parametrize("calls", by_operation())
def test_an_operation_refuses_with_openvino_s_words(calls):
    for call, theirs, ours in zip(calls, refusal(openvino, calls), refusal(ovjit, calls), strict=True):
        assert theirs and theirs in ours, f"{call}\nOpenVINO: {theirs}\novjit:    {ours}"
