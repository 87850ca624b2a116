"""Sweeps over seeds, operations, types and sizes: a part by default, the rest behind the marker `long`.

`python -m pytest -m "not pypi and not aarch64" FILE` runs the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def some(values: Iterable[Any], count: int) -> list[Any]:
    """Parameters: the first `count` of these values by default, the others marked `long`."""
    return [v if i < count else pytest.param(v, marks=pytest.mark.long) for i, v in enumerate(values)]


def in_turn(values: Sequence[Any], step: int, first: int = 0) -> list[Any]:
    """Parameters: every `step`-th of these values from `first` on by default, the others marked `long`.

    Tests of the same values that begin at other places have all of them between them. Tuples are values of
    several parameters.
    """
    rows = [v if type(v) is tuple else (v,) for v in values]
    return [
        pytest.param(*row, marks=() if i % step == first else pytest.mark.long) for i, row in enumerate(rows)
    ]


def parts(seeds: range, count: int) -> list[Any]:
    """Two parameters: the first `count` of these seeds, and the others, marked `long`."""
    return [seeds[:count], pytest.param(seeds[count:], marks=pytest.mark.long)]
