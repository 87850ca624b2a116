"""Fixtures of the tests of cards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ovjit.gpu import driver
from tests.support.fake_cuda import FakeCuda, install


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A library of CUDA without a card: it runs kernels as their meanings."""
    yield install(monkeypatch, FakeCuda())
    driver.forget()
