"""The matrices of Winograd's minimal filtering, and filters transformed by them: what a start needs of it
that has the plan already."""

from __future__ import annotations

import numpy as np

from ovjit.graph.dtypes import flush_subnormals, numpy_dtype

MATRICES: dict[int, dict[str, list[list[float]]]] = {
    2: {
        "B": [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        "G": [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        "A": [[1, 1, 1, 0], [0, 1, -1, -1]],
    },
    4: {
        "B": [
            [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
        ],
        "G": [
            [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
        ],
        "A": [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    },
}  # fmt: skip

#: Planes of integers have two fractional bits: 2G is whole.
WHOLE_BITS = 2
#: Channels of filters that are transformed at once: more do not stay in the second-level cache, and take five
#: times as long.
_FILLED = 32


def fill_planes(
    memory: np.ndarray, source: np.ndarray, m: int, kind: str, group: int, width: int, last: int
) -> None:
    """The transformed filters G w G' as panels of `width` outputs, the last of `last`, a matrix of them for
    each plane.

    Source [O, C, 3, 3]. Elements have the type `kind`, `group` of them in a word, with zeros for subnormal
    ones. Integers are multiplied by four."""
    g = np.array(MATRICES[m]["G"]) * (2 if kind == "i16" else 1)
    out = memory.view(numpy_dtype(kind)).reshape(len(g), len(g), -1)
    n, (outs, channels) = len(g), source.shape[:2]
    for first in range(0, outs, width):
        some = source[first : first + width]
        wide = width if len(some) == width else last
        for c in range(0, channels, _FILLED):
            part = some[:, c : c + _FILLED]
            depth = part.shape[1]
            panel = np.zeros((3, 3, depth, wide))
            panel[..., : len(part)] = part.transpose(2, 3, 1, 0)
            half = (g @ panel.reshape(3, -1)).reshape(n, 3, -1)
            whole = (g @ half).reshape(n, n, depth // group, group, wide)
            at = channels * first + c * wide
            out[..., at : at + depth * wide] = whole.swapaxes(-1, -2).reshape(n, n, -1)
    flush_subnormals(out)
