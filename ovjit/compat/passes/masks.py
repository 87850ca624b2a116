"""The visible tokens of a decoder's attention, found by computing its mask.

Exporters write masks in many ways, for few purposes. So a mask is evaluated for one new token after a past
of some length. Its row gives the visible range and the values added to scores: a window, slopes (ALiBi), or
neither.
"""

from __future__ import annotations

import numpy as np

from ovjit.api.model.node import Output
from ovjit.compat.passes.probe import FAILURES, Probe
from ovjit.compat.passes.score_bias import adds_bias, place_bias
from ovjit.errors import UnsupportedError
from ovjit.records import NamedTuple

#: Scores to which less than this is added have no weight.
HIDDEN = -1e4
#: The past that is tried; longer where the mask has a constant that may be a window.
PAST = 61
#: A longer past, for what is added for each step: products of few bits are exact for small places.
FAR = 2045
#: Windows are not looked for beyond.
FARTHEST = 1 << 21


class _Uneven(UnsupportedError):
    """Queries attend to different numbers of keys."""


class Mask(NamedTuple):
    """The effect of a mask on scores.

    `window`: the number of keys that a query sees, its own included; 0: all. `slopes` [heads]: the difference
    of the values added to consecutive keys, or None. `chunk`: the size of chunks of keys, of which a query
    sees its own; 0: there are none. `bias`: values added for each key, see `score_bias`. `placed`: values
    added by a key's position, see `place_bias`; the slopes are their linear part."""

    window: int = 0
    slopes: np.ndarray | None = None
    chunk: int = 0
    bias: Output | None = None
    placed: Output | None = None


def read_mask(source: Output, bias: Output | None = None) -> Mask:
    """Find the effect of a mask, evaluated with `bias` as 0. UnsupportedError for masks that paged attention
    does not support, and where the bias is not added unchanged."""
    rows, probe = _MaskRows(source, bias), Probe(PAST)
    row = rows.of(PAST, probe)
    window, chunk = rows.window(row, PAST)
    slopes, placed = _slopes(rows, row)
    limited = window or chunk
    candidates = [] if limited else sorted({abs(n) for n in probe.numbers if PAST < abs(n) < FARTHEST})
    for number in candidates:
        try:
            window, chunk = rows.window(rows.of(number + 3), number + 3)
            rows.check_bias(number + 3)
        except _Uneven:
            raise
        except (MemoryError, UnsupportedError):
            if bias is not None:
                raise
            continue  # a table that is not as long
        if window or chunk:
            break
    rows.check_bias(PAST)
    return Mask(window, slopes, chunk, bias, placed)


class _MaskRows:
    """Rows of a mask, evaluated with its bias as 0."""

    def __init__(self, source: Output, bias: Output | None):
        self.source, self.bias = source, bias

    def of(self, past: int, probe: Probe | None = None) -> np.ndarray:
        """The values added to scores of a query after `past` tokens: [heads, keys], -inf for hidden keys."""
        return _row(probe or Probe(past), self.source, self.bias)

    def first_visible(self, position: int) -> int:
        """The index of the first key that the query at this position attends to."""
        visible = _count_visible(self.of(position), self.source)
        return position + 1 - visible if visible else 0

    def window(self, row: np.ndarray, past: int) -> tuple[int, int]:
        """(window, 0) for a sliding window, (0, chunk size) for attention by chunks, or (0, 0) if the query
        of this row attends to all keys. UnsupportedError for other masks."""
        visible = _count_visible(row, self.source)
        if not visible:
            return 0, 0
        start = past + 1 - visible
        if self.first_visible(past + 1) == start + 1:
            return visible, 0
        low, step = past, 1  # of this chunk, and then of the next one
        while self.first_visible(low + step) == start:
            low, step = low + step, step * 2
            if low > FARTHEST:
                raise _make_error(self.source, _Uneven)
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.first_visible(middle) == start else (low, middle)
        chunk = high - start
        samples = (0, chunk // 2, chunk - 1, chunk, 2 * chunk - 1, 3 * chunk)
        if start % chunk or any(self.first_visible(p) != p // chunk * chunk for p in samples):
            raise _make_error(self.source, _Uneven)
        return 0, chunk

    def check_bias(self, past: int) -> None:
        """Raise UnsupportedError if the bias is not added unchanged."""
        if self.bias is not None:
            try:
                fits = adds_bias(Probe(past), self.source, self.bias, HIDDEN)
            except FAILURES:
                fits = False
            if not fits:
                raise _make_error(self.source)


def _make_error(source: Output, kind: type[UnsupportedError] = UnsupportedError) -> UnsupportedError:
    return kind(
        f"the mask {source.get_node().get_friendly_name()!r} is neither causal, nor a sliding window, "
        "nor a mask by chunks of keys: paged attention does not support it"
    )


def _row(probe: Probe, source: Output, bias: Output | None = None) -> np.ndarray:
    """The values added to the last query's scores, with `bias` as 0: [heads, keys], -inf for hidden keys."""
    try:
        values = {} if bias is None else {bias: np.zeros_like(probe.value(bias))}
        mask = probe.values([source], values)[0]
    except FAILURES as error:
        raise UnsupportedError(
            f"the mask of attention {source.get_node().get_friendly_name()!r} depends on the model's "
            f"inputs and cannot be evaluated: {error}"
        ) from error
    if mask.dtype == bool:
        mask = np.where(mask, np.float32(0), -np.inf)
    if mask.ndim == 0 or mask.shape[-1] == 1:
        return np.zeros((1, probe.past + 1), np.float32)
    mask = mask.astype(np.float32).reshape((1,) * max(4 - mask.ndim, 0) + mask.shape)
    return np.where(mask[0, :, -1] < HIDDEN, -np.inf, mask[0, :, -1])


def _count_visible(row: np.ndarray, source: Output) -> int:
    """The number of visible keys, 0 if all are. UnsupportedError unless they are the last of each head."""
    visible = np.isfinite(row)
    count = int(visible[0].sum())
    if not count or not visible[:, -count:].all() or visible[:, :-count].any():
        raise _make_error(source)
    return 0 if count == row.shape[1] else count


def _slopes(rows: _MaskRows, row: np.ndarray) -> tuple[np.ndarray | None, Output | None]:
    """The slopes [heads], and the bias by position if it is not linear; None for each that does not exist."""
    steps = np.diff(row[:, np.isfinite(row[0])], axis=1)
    if not steps.size or not steps.any():
        return None, None
    slopes = steps.mean(1, dtype=np.float64).astype(np.float32)
    sees_all, row_by_past = bool(np.isfinite(row).all()), {PAST: row}
    if sees_all:
        try:
            row_by_past[FAR] = rows.of(FAR)
        except (MemoryError, UnsupportedError):
            pass  # a table that is not as long
    if sees_all and not all(_is_linear(bias, slopes) for bias in row_by_past.values()):
        placed = place_bias(rows.source, row_by_past)
        if placed is not None:
            return slopes, placed
    if not _is_linear(row, slopes):
        name = rows.source.get_node().get_friendly_name()
        raise UnsupportedError(
            f"the bias that the mask {name!r} adds to scores is not linear in the distance of query and key"
        )
    return slopes, None


def _is_linear(row: np.ndarray, slopes: np.ndarray) -> bool:
    """True if the values added to visible keys increase by the slope of the head from key to key."""
    steps = np.diff(row[:, np.isfinite(row[0])], axis=1)
    return bool(np.abs(steps - slopes[:, None]).max() <= 1e-3 * np.abs(steps).max() + 1e-6)
