"""`misuse.py` and `misuse_threads.py` in processes of their own: seconds by default, minutes with
`-m long`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.run import python


def misuse(program: str, seconds: int, case: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    words = ["-W", "ignore", "-m", f"tests.fuzz.{program}", seconds, seed]
    run = python(*words, seconds=1000, MISUSE_CASE=str(case), MALLOC_CHECK_="3")
    last = case.read_text().split() if case.exists() else []
    again = f"python -m tests.fuzz.{program} 1 {' '.join(last)}"
    assert run.returncode == 0, f"status {run.returncode}: {again}\n{run.stdout[-500:]}\n{run.stderr[-4000:]}"
    assert f"seed {seed}: " in run.stdout


@pytest.mark.parametrize(
    "seconds", [2, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_misuse(seconds: int, tmp_path: Path) -> None:
    misuse("misuse", seconds, tmp_path / "case")


@pytest.mark.parametrize(
    "seconds", [2, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_misuse_by_threads(seconds: int, tmp_path: Path) -> None:
    misuse("misuse_threads", seconds, tmp_path / "case")
