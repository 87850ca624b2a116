"""Packs weights of 2, 3, 5 and 6 bits, and scales with two factors, for `ovjit.tiles.compressed`."""

from __future__ import annotations

import numpy as np

from ovjit.graph.converted import Converted, Factored
from ovjit.planning.plan import aligned_bytes, ceil_div

#: Scales or zeros.
Factor = np.ndarray | Converted | Factored


def low_bits(bits: int) -> int:
    """Bits of an integer in the first words of a step."""
    return 4 if bits > 4 else 2


def mixed_steps(codes: np.ndarray, bits: int, lanes: int) -> np.ndarray:
    """codes [panels, steps, m, j, width] -> [panels, steps, bytes]: see `ovjit.tiles.compressed`."""
    panels, steps, _, _, width = codes.shape
    by_lane = codes.transpose(0, 1, 2, 4, 3).astype(np.uint8)  # [..., m, width, j]

    def join_parts(parts: np.ndarray, each: int) -> np.ndarray:
        """Combine the parts along the third axis into one integer, the first in the lowest bits."""
        shifts = (np.arange(parts.shape[2]) * each).astype(np.uint8)[:, None, None]
        return np.bitwise_or.reduce(parts << shifts, axis=2)

    low_width = low_bits(bits)
    low = by_lane & np.uint8((1 << low_width) - 1)
    if low_width == 4:
        words = [join_parts(low[:, :, :2], 4), join_parts(low[:, :, 2:], 4)]
    else:
        words = [join_parts(low, 2)]
    high = by_lane >> np.uint8(low_width)
    if bits == 6:
        words.append(join_parts(high, 2))
    elif bits in (3, 5):
        by_vector = high.reshape(panels, steps, 4, width // lanes, lanes, 4).transpose(0, 1, 3, 2, 4, 5)
        words.append(join_parts(by_vector.reshape(panels, steps, -1, lanes, 4), 1))
    return np.concatenate([w.reshape(panels, steps, -1) for w in words], 2)


def one_factor(factor: Factor) -> np.ndarray | Converted:
    """Scales or minima [groups, N] that have one factor."""
    return factor.factors().outer.T if isinstance(factor, Factored) else factor


def nested_scales(scale: Factored, low: Factor | None, width: int) -> np.ndarray:
    """The stream of scales with two factors, and of minima: [panels, bytes]."""
    both = [scale.factors()] + ([low.factors()] if isinstance(low, Factored) else [])
    outs, runs = both[0].outer.shape
    inners = [f.inner for f in both if f.inner is not None]
    each, panels = inners[0].shape[1] // runs, ceil_div(outs, width)
    raw = aligned_bytes(panels * runs * len(both) * (2 + each) * width).reshape(panels, runs, -1)
    offset = 0
    for factors in both:
        padded = np.zeros((panels * width, runs), np.float16)
        padded[:outs] = factors.outer
        by_panel = padded.reshape(panels, width, runs).transpose(0, 2, 1)
        raw[..., offset : offset + 2 * width] = np.ascontiguousarray(by_panel).view(np.uint8)
        offset += 2 * width
    groups = raw[..., offset:].reshape(panels, runs, each, len(both), width)
    for n, inner in enumerate(inners):
        part = np.zeros((panels * width, runs, each), np.uint8)
        part[:outs] = inner.view(np.uint8).reshape(outs, runs, each)
        groups[:, :, :, n] = part.reshape(panels, width, runs, each).transpose(0, 2, 3, 1)
    return raw.reshape(panels, -1)
