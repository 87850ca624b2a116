"""Factors and offsets that map sums of integers to steps of a quantization.

Sums are integers. So only the sums next to a border between two steps may be rounded to the wrong step. There
are few such sums. Usually some f32 factor and offset near the exact ones round all of them as exact
arithmetic does.
"""

from __future__ import annotations

import numpy as np

#: Maximum distance from a border, relative to the magnitude of the addends, of sums that are checked.
NEAR = 2.0**-22
#: Minimum factor for the search. With smaller ones a step has more sums, and no f32 is right for all of them.
FINEST = 0.0014
#: Maximum factors for the search. More of them, as if a table is added to sums, would take too long.
MOST_NUMBERS = 1 << 14
#: Numbers that are processed at once, so that they stay in the second-level cache.
BLOCK = 1 << 14
#: Factors and offsets beyond this saturate all sums.
MOST = 2.0**20
#: Candidates in order: (units in the last place of the factor, small steps of the offset).
TRIED = [(0, o) for o in (0, 2, -2, 8, -8, 20, -20)]
TRIED += [(1, 0), (-1, 0), (1, -20), (-1, 20), (1, 8), (-1, -8)]


def fit_steps(factor: np.ndarray, offset: np.ndarray, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The f32 factor and offset (as f64, of the same shapes) for round(sum * factor + offset), clamped to
    `low` and `high`. They are the candidates with the fewest sums whose step differs from that of the given
    f64 numbers. Offsets of 0 are not changed."""
    flat = [a.reshape(-1) for a in np.broadcast_arrays(factor, offset)]
    moves = [a.size == flat[0].size for a in (factor, offset)]
    moves[1] &= bool(offset.any())
    looked_at = (flat[0] > FINEST) & (np.abs(flat[0]) + np.abs(flat[1]) < MOST)
    channels = np.flatnonzero(looked_at & (flat[0].size <= MOST_NUMBERS))
    f, o = (a[channels, None] for a in flat)
    at, sums, steps = _near_borders(f, o, np.arange(low, high) + 0.5)
    best = [a.astype(np.float32) for a in flat]
    for several in (TRIED[:1], TRIED):  # most channels need the first only
        start = [a[channels, None].astype(np.float32) for a in flat]
        units = [np.spacing(start[0]), np.maximum(np.spacing(np.abs(start[1])), np.float32(NEAR))]
        tried = np.array(several, np.float32).T[:, None] * np.array(moves, np.float32)[:, None, None]
        numbers = [a + n * u for a, u, n in zip(start, units, tried, strict=True)]
        wrong = _count_wrong(numbers, at, sums, steps)
        chosen = wrong.argmin(1)
        for best_numbers, new in zip(best, numbers, strict=True):
            best_numbers[channels] = new[np.arange(len(chosen)), chosen]
        unsolved = wrong[:, 0] > 0
        remaining = unsolved[at]
        at, sums, steps = (np.cumsum(unsolved) - 1)[at[remaining]], sums[remaining], steps[remaining]
        channels = channels[unsolved]
    result = zip((factor, offset), best, moves, strict=True)
    scale, shift = (a.astype(np.float64).reshape(g.shape) if k else g for g, a, k in result)
    return scale, shift


def _count_wrong(
    numbers: list[np.ndarray], at: np.ndarray, sums: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """The number of sums that are rounded to a wrong step, [channels, tries], by `numbers`: factors and
    offsets [channels, tries]. `at`: the channel of each sum, ascending."""
    factor, offset = (a.astype(np.float64)[at] for a in numbers)
    wrong = np.rint((sums[:, None] * factor + offset).astype(np.float32)) != steps[:, None]
    until = np.concatenate([np.zeros((1, wrong.shape[1]), np.int64), wrong.cumsum(0)])
    ends = np.searchsorted(at, np.arange(len(numbers[0]) + 1))
    return np.asarray(until[ends[1:]] - until[ends[:-1]])


def _near_borders(f: np.ndarray, o: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, ...]:
    """The sums near a border between two steps: (their channels, the sums, their steps)"""
    # a cheap test first, with the largest tolerance of all borders: few sums pass it
    nearest = NEAR * (np.abs(borders).max() + np.abs(o)) / f * (1 + NEAR)
    some = max(1, BLOCK // len(borders))
    near_sums = [np.zeros((3, 0))]
    for first in range(0, len(f), some):
        block = slice(first, first + some)
        positions = borders - o[block]
        positions /= f[block]
        sums = np.rint(positions)
        beyond = np.subtract(sums, positions, out=positions)
        near = np.flatnonzero(np.abs(beyond) < nearest[block])
        near_sums.append(np.stack([near + first * len(borders), sums.take(near), beyond.take(near)]))
    index, sums, beyond = np.concatenate(near_sums, 1)
    channel, border = np.divmod(index.astype(np.int64), len(borders))
    share = beyond * f[channel, 0]
    # a share of 0 is a tie, which any factor rounds to even
    near = np.flatnonzero((np.abs(share) < NEAR * (borders[border] + np.abs(o[channel, 0]))) & (share != 0))
    return channel[near], sums[near], borders[border[near]] + np.copysign(0.5, share[near])
