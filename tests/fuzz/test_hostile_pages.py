"""Paged attention with wrong inputs: an error before anything is written, or an answer, and never a touch of
memory beside the inputs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.guard_pages import BEFORE, BEHIND

SEED = 20261124


def _attacked(side: str, cases: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.hostile_pages", side, str(SEED), str(cases)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-2000:])
    taken, refused = map(int, lines[-1].split()[1:])
    assert min(taken, refused) > cases * 4


@pytest.mark.parametrize("side", [BEHIND, BEFORE])
def test_some_wrong_inputs(side: str) -> None:
    _attacked(side, 4)


@pytest.mark.long
@pytest.mark.parametrize("side", [BEHIND, BEFORE])
@pytest.mark.timeout(1800)
def test_wrong_inputs(side: str) -> None:
    _attacked(side, 80)
