"""Weights as integers: sums of channels, and scales that differ within one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ovjit.graph.op import find_op
from ovjit.rewrite.integer_weights import Weights

NODE = SimpleNamespace(op=find_op("Convolution"))


@pytest.mark.parametrize("shape", [(3, 4, 2, 2), (1, 1, 1, 1), (2, 33_000, 2, 1)])
@pytest.mark.parametrize("most", [0, 100])
def test_sums_of_channels(shape: tuple[int, ...], most: int) -> None:
    rng = np.random.default_rng(0)
    integers = rng.integers(-128, 128, shape).astype(np.int8)
    offset = rng.integers(-most, most, (shape[0], 1, 1, 1)) if most else None
    whole = integers.astype(np.int64) + (0 if offset is None else offset)
    made = Weights(integers, np.ones(shape[0]), offset).sums(NODE)
    assert made is not None and made.tolist() == whole.sum(axis=(1, 2, 3)).tolist()


@pytest.mark.parametrize("count, fits", [(65_793, True), (65_794, False)])
def test_sums_that_do_not_fit(count: int, fits: bool) -> None:
    """255 * 128 * 65,793 is below 2^31; smaller weights may be more."""
    rows = np.full((2, count), -128, np.int8)
    rows[0] = 1
    assert (Weights(rows, np.ones(2)).sums(NODE) is not None) == fits
    assert Weights(rows[:1], np.ones(1)).sums(NODE) is not None
