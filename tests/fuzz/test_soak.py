"""`soak.py` in a process of its own: seconds by default, half an hour with `-m long`."""

from __future__ import annotations

import random

import pytest

from tests.support.run import printed


@pytest.mark.parametrize(
    "seconds",
    [
        5,
        pytest.param(180, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
        pytest.param(1800, marks=[pytest.mark.long, pytest.mark.timeout(3000)]),
    ],
)
def test_soak(seconds: int) -> None:
    """The seed is in the output; `python -m tests.fuzz.soak SECONDS SEED` does it again."""
    seed = random.SystemRandom().randrange(1 << 30)
    assert printed("-m", "tests.fuzz.soak", seconds, seed, seconds=4000).endswith("done\n"), seed
