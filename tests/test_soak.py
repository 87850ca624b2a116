"""`soak.py` in a process of its own: seconds by default, half an hour with `-m long`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    "seconds",
    [
        20,
        pytest.param(180, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
        pytest.param(1800, marks=[pytest.mark.long, pytest.mark.timeout(3000)]),
    ],
)
def test_soak(seconds: int) -> None:
    """The seed is in the output; `python tests/soak.py SECONDS SEED` does it again."""
    seed = random.SystemRandom().randrange(1 << 30)
    path = f"{TESTS.parent}{os.pathsep}{TESTS}"
    command = [sys.executable, str(TESTS / "soak.py"), str(seconds), str(seed)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert run.returncode == 0, f"seed {seed}\n{run.stdout[-2000:]}\n{run.stderr[-6000:]}"
    assert run.stdout.endswith("done\n")
