"""Axes that a broadcast adds."""

from __future__ import annotations

import logging

from ovjit.api.tensors.vectors import AxisSet
from ovjit.compat.utils.types import TensorShape

log = logging.getLogger(__name__)


def get_broadcast_axes(
    output_shape: TensorShape, input_shape: TensorShape, axis: int | None = None
) -> AxisSet:
    """The axes of `output_shape` that `input_shape` does not have when it is put at `axis` (None: at the
    end)."""
    start = len(output_shape) - len(input_shape) if axis is None else axis
    return AxisSet(set(range(len(output_shape))) - set(range(start, start + len(input_shape))))
