"""Paged attention, states and moves with wrong inputs: an error before anything is written, or an answer, and
never a touch of memory beside the inputs."""

from __future__ import annotations

import pytest

from tests.support.guard_pages import BEFORE, BEHIND
from tests.support.run import python

SEED = 20261124


def _attacked(side: str, cases: int, module: str = "hostile_pages") -> None:
    done = python("-m", f"tests.fuzz.{module}", side, SEED, cases, seconds=1800)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-2000:])
    taken, refused = map(int, lines[-1].split()[1:])
    assert min(taken, refused) > cases * 4


@pytest.mark.parametrize("side", [BEHIND, BEFORE])
def test_some_wrong_inputs(side: str) -> None:
    _attacked(side, 1)


@pytest.mark.long
@pytest.mark.parametrize("side", [BEHIND, BEFORE])
@pytest.mark.timeout(1800)
def test_wrong_inputs(side: str) -> None:
    _attacked(side, 80)


@pytest.mark.parametrize("side", [BEHIND, BEFORE])
@pytest.mark.parametrize("cases", [1, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_wrong_lists_of_states(side: str, cases: int) -> None:
    _attacked(side, cases, "hostile_states")
