"""Fixtures of the tests of servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ovjit.integrations.served import ServedModel


@pytest.fixture
def serve() -> Iterator[Callable[..., ServedModel]]:
    """`ServedModel`, closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: Any, **keywords: Any) -> ServedModel:
            served = ServedModel(*arguments, **keywords)
            stack.callback(served.close)
            return served

        yield make
