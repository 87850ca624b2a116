"""Sweeps over seeds: a few by default, the whole behind the marker `long`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def some(values: Iterable[Any], count: int) -> list[Any]:
    """Parameters: the first `count` of these values by default, the others marked `long`."""
    return [v if i < count else pytest.param(v, marks=pytest.mark.long) for i, v in enumerate(values)]


def parts(seeds: range, count: int) -> list[Any]:
    """Two parameters: the first `count` of these seeds, and the others, marked `long`."""
    return [seeds[:count], pytest.param(seeds[count:], marks=pytest.mark.long)]
