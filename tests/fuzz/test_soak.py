"""`soak.py` in a process of its own: seconds by default, half an hour with `-m long`."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.parametrize(
    "seconds",
    [
        8,
        pytest.param(180, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
        pytest.param(1800, marks=[pytest.mark.long, pytest.mark.timeout(3000)]),
    ],
)
def test_soak(seconds: int) -> None:
    """The seed is in the output; `python -m tests.fuzz.soak SECONDS SEED` does it again."""
    seed = random.SystemRandom().randrange(1 << 30)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.fuzz.soak", str(seconds), str(seed)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, f"seed {seed}\n{run.stdout[-2000:]}\n{run.stderr[-6000:]}"
    assert run.stdout.endswith("done\n")
