"""torch.gradient for any sizes: PyTorch's own takes the example's sizes for constants of a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def gradient(x: Any, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Any, ...]:
    """Differences along each dimension by the distances of elements: central ones, and those of order 1 or 2
    at both ends. `spacing`: a distance, one for each dimension, or the places of elements along each."""
    import torch

    dims = [dim] if isinstance(dim, int) else list(range(x.dim())) if dim is None else list(dim)
    each = list(spacing) if isinstance(spacing, (list, tuple)) else [spacing] * len(dims)
    if edge_order not in (1, 2) or len(each) != len(dims) or not x.dim():
        original = torch._C._VariableFunctions.gradient  # it says what is wrong
        return tuple(original(x, spacing=spacing, dim=dim, edge_order=edge_order))
    return tuple(_along(x, axis % x.dim(), step, edge_order) for axis, step in zip(dims, each, strict=True))


def _along(x: Any, axis: int, spacing: Any, edge_order: int) -> Any:
    import torch

    def part(start: int | None, stop: int | None) -> Any:
        return x[(slice(None),) * axis + (slice(start, stop),)]

    if isinstance(spacing, torch.Tensor) and spacing.dim():
        shape = [-1] + [1] * (x.dim() - axis - 1)
        steps = spacing[1:] - spacing[:-1]

        def step(start: int | None, stop: int | None) -> Any:
            return steps[start:stop].reshape(shape)

        middle = _of_three(part(None, -2), part(1, -1), part(2, None), step(None, -1), step(1, None))
        first, last = step(None, 1), step(-1, None)
        ends = [(first, step(1, 2)), (last, step(-2, -1))]
    else:
        middle = (part(2, None) - part(None, -2)) / spacing / 2
        first = last = spacing
        ends = [(spacing, spacing), (spacing, spacing)]
    if edge_order == 1:
        before, after = (part(1, 2) - part(None, 1)) / first, (part(-1, None) - part(-2, -1)) / last
    else:
        before = _slope_at_end(part, (0, 1, 2), *ends[0])
        after = -_slope_at_end(part, (-1, -2, -3), *ends[1])
    return torch.cat([before, middle, after], axis)


def _of_three(before: Any, at: Any, after: Any, back: Any, ahead: Any) -> Any:
    """The slope at the middle one of three elements, by the distances `back` and `ahead` to the others."""
    both = back + ahead
    return (
        -ahead / (back * both) * before + (ahead - back) / (back * ahead) * at + back / (ahead * both) * after
    )


def _slope_at_end(
    part: Callable[[int | None, int | None], Any], starts: Sequence[int], near: Any, far: Any
) -> Any:
    """The one-sided difference of second order at the first of three elements."""
    a, b, c = (part(i, i + 1 or None) for i in starts)
    both = near + far
    return -(near + both) / (near * both) * a + both / (near * far) * b - near / (far * both) * c
