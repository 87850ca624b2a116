"""Paged attention with caches beside inaccessible pages. Run as a program by `test_guard_pages`: results have
the bits of those with caches elsewhere.

    python -m tests.fuzz.guarded_caches SIDE STEP
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np

import ovjit as ov
from tests.support.guard_pages import guarded
from tests.support.paged_op import Run, Sizes, model, rows_of

#: Elements of a key and of a value, of which whole vectors, or tiles of vectors, leave a remainder or none.
SIZES = ((64, 64), (16, 8), (24, 40), (20, 36))
BLOCKS = 3


def results(kind: str, sizes: Sizes, side: str | None) -> Iterator[np.ndarray]:
    """A prompt that leaves room for two tokens in its last block, and these tokens."""
    rng = np.random.default_rng(20261126)
    run = Run(ov, model(ov, sizes=sizes), kind, BLOCKS)
    if side is not None:
        for name, cache in run.caches.items():
            kept = ov.Tensor(guarded(cache.data, side), shared_memory=True)
            assert kept.element_type == cache.element_type
            run.caches[name] = kept
            run.request.set_tensor(name, kept)
    whole = BLOCKS * sizes.block
    yield run([(0, whole - 2, [0, 1, 2])], rows_of(rng, whole - 2, sizes))[0]
    for past in (whole - 2, whole - 1):
        yield run([(past, 1, [0, 1, 2])], rows_of(rng, 1, sizes))[0]


def main(side: str, step: int) -> None:
    """Every `step`-th case; 5 leaves out no type, size or group."""
    cases = list(itertools.product(("f32", "u8"), SIZES, (1, 2, 4)))[::step]
    for kind, (size, wide), group in cases:
        print("case", kind, size, wide, group, flush=True)
        sizes = Sizes(2 * group, 2, size, wide)
        pairs = zip(results(kind, sizes, side), results(kind, sizes, None), strict=True)
        for there, expected in pairs:
            if not np.array_equal(there, expected) or not there.any():
                print("WRONG", kind, size, wide, group, flush=True)
    print("ran", len(cases))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
