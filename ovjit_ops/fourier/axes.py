"""Validated axes and lengths of Fourier transforms, and frames of STFT."""

from __future__ import annotations

from collections.abc import Sequence

from ovjit.errors import check
from ovjit.graph.shapes import Dim, normalize_axis


def checked_axes(axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from 0, in the given order. Raises ModelError if one is out of range or repeated."""
    out = [normalize_axis(int(a), rank) for a in axes]
    check(len(set(out)) == len(out), f"axes {list(axes)} contain a dimension twice")
    return out


def checked_sizes(sizes: Sequence[int] | None, axes: Sequence[int], shape: Sequence[Dim]) -> list[Dim]:
    """The length of the signal along each axis. Raises ModelError for sizes that are neither -1 nor
    positive."""
    if sizes is None:
        return [shape[a] for a in axes]
    check(len(sizes) == len(axes), "Sizes of inputs 'axes' and 'signal_size' must be equal.")
    for size in sizes:
        check(size == -1 or size > 0, f"signal_size {size} should be -1 or positive")
    return [shape[a] if size == -1 else int(size) for a, size in zip(axes, sizes, strict=True)]


def transform_axes(
    kind: str, shape: Sequence[Dim], axes: Sequence[int], sizes: Sequence[int] | None
) -> tuple[list[int], list[Dim], list[Dim]]:
    """(axes from 0, length of the signal along each, dimensions of the result).

    `shape` and the result exclude the dimension of complex numbers. All users of this function share its
    checks. Raises ModelError.
    """
    dimensions = checked_axes(axes, len(shape))
    signal = checked_sizes(sizes, dimensions, shape)
    out = list(shape)
    for axis, n in zip(dimensions, signal, strict=True):
        out[axis] = n
    if kind in ("RDFT", "IRDFT"):
        check(dimensions, "at least one axis is needed")
    if kind == "RDFT":
        out[dimensions[-1]] = signal[-1] // 2 + 1
    if kind == "IRDFT" and (sizes is None or sizes[-1] == -1):
        signal[-1] = out[dimensions[-1]] = (shape[dimensions[-1]] - 1) * 2
    return dimensions, signal, out


def checked_frames(size: int | None, step: int | None, window: Dim | None, signal: Dim | None) -> None:
    """Raise ModelError if size or step is not positive, or if the window or the signal does not fit the
    frames."""
    check(size is None or size > 0, f"frame_size {size} should be positive")
    check(step is None or step > 0, f"frame_step {step} should be positive")
    if size is not None and isinstance(window, int):
        check(0 < window <= size, f"a window of {window} elements exceeds a frame of {size}")
    if size is not None and isinstance(signal, int):
        check(size <= signal, f"a frame of {size} elements is longer than the signal of {signal}")
