"""Results of a trace or a program beside those of its module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.readers.torch.pytorch import torch

#: How far a recorded graph may be from its module on the example, of the largest number.
CLOSE = 1e-4


def agrees(expected: Sequence[Any], actual: Sequence[Any]) -> bool:
    """Whether two lists of tensors are close."""
    if len(expected) != len(actual):
        return False
    for a, b in zip(expected, actual, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        limit = 0.0
        if a.is_floating_point() or a.is_complex():
            finite = a[a.isfinite()]
            limit = CLOSE * max(1.0, float(finite.abs().max()) if finite.numel() else 0.0)
        if not torch.allclose(a, b, rtol=0, atol=limit, equal_nan=True):
            return False
    return True
