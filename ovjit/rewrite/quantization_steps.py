"""Factors and offsets that map sums of integers to steps of a quantization.

A sum is an integer. So only the sum next to each border between two steps may be rounded to the wrong one.
There are few such sums. Some f32 number beside the nearest one mostly rounds all of them as exact
arithmetic does.
"""

from __future__ import annotations

import numpy as np

#: How near to a border, as a share of what is added up, sums are looked at.
NEAR = 2.0**-22
#: Factors above this are looked at: with more sums to a step f32 has too few numbers to be right for all.
FINEST = 0.0014
#: Of more numbers, as where a table is added to sums, that would take too long.
MOST_NUMBERS = 1 << 14
#: Numbers that are looked at together: what stays in the second-level cache.
BLOCK = 1 << 14
#: Factors and offsets beyond this cut all off.
MOST = 2.0**20
#: What is tried one after the other: units in the last place of the factor, small steps of the offset.
TRIED = [(0, o) for o in (0, 2, -2, 8, -8, 20, -20)]
TRIED += [(1, 0), (-1, 0), (1, -20), (-1, 20), (1, 8), (-1, -8)]


def settled(factor: np.ndarray, offset: np.ndarray, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of f32 (as f64, of the same shapes) for round(sum * factor + offset), clamped to `low` and
    `high`. They differ for the fewest sums from the result of the given f64. Offsets of 0 stay."""
    flat = [a.reshape(-1) for a in np.broadcast_arrays(factor, offset)]
    moves = [a.size == flat[0].size for a in (factor, offset)]
    moves[1] &= bool(offset.any())
    looked_at = (flat[0] > FINEST) & (np.abs(flat[0]) + np.abs(flat[1]) < MOST)
    channels = np.flatnonzero(looked_at & (flat[0].size <= MOST_NUMBERS))
    f, o = (a[channels, None] for a in flat)
    at, sums, steps = _near_borders(f, o, np.arange(low, high) + 0.5)
    best = [a.astype(np.float32) for a in flat]
    fewest = np.zeros(flat[0].size, np.int64)
    for i, tried in enumerate(TRIED):
        start = [a[channels].astype(np.float32) for a in flat]
        units = [np.spacing(start[0]), np.maximum(np.spacing(np.abs(start[1])), np.float32(NEAR))]
        numbers = [a + (k * n) * u for a, u, k, n in zip(start, units, moves, tried, strict=True)]
        wide = [a.astype(np.float64)[at] for a in numbers]
        rounded = np.rint((sums * wide[0] + wide[1]).astype(np.float32))
        wrong = np.bincount(at[rounded != steps], minlength=channels.size)
        better = wrong < fewest[channels] if i else np.ones(channels.size, bool)
        fewest[channels[better]] = wrong[better]
        for known, new in zip(best, numbers, strict=True):
            known[channels[better]] = new[better]
        left = fewest[channels] > 0
        if not left.any():
            break
        kept = left[at]
        at, sums, steps = (np.cumsum(left) - 1)[at[kept]], sums[kept], steps[kept]
        channels = channels[left]
    made = zip((factor, offset), best, moves, strict=True)
    scale, shift = (a.astype(np.float64).reshape(g.shape) if k else g for g, a, k in made)
    return scale, shift


def _near_borders(f: np.ndarray, o: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, ...]:
    """The sums that are near to a border between two steps: (their channels, the sums, their steps)"""
    some = max(1, BLOCK // len(borders))
    found = [np.zeros((3, 0))]
    for first in range(0, len(f), some):
        factors, offsets = f[first : first + some], o[first : first + some]
        places = (borders - offsets) / factors
        sums = np.rint(places)
        beyond = np.subtract(sums, places, out=places)
        beyond *= factors
        # halfway: even in any case
        near = np.flatnonzero((np.abs(beyond) < NEAR * (borders + np.abs(offsets))) & (beyond != 0))
        channel, border = np.divmod(near, len(borders))
        steps = borders[border] + np.copysign(0.5, beyond.ravel()[near])
        found.append(np.stack([first + channel, sums.ravel()[near], steps]))
    channels, all_sums, all_steps = np.concatenate(found, 1)
    return channels.astype(np.int64), all_sums, all_steps
