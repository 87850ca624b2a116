"""Samples of `ovjit_ops/fourier`."""

from __future__ import annotations

import numpy as np

from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


@samples("STFT", 15)
def stft(rng, dtype="f32"):
    for shape, window, size, step, transposed in (
        ((48,), 11, 11, 3, False), ((2, 48), 16, 16, 16, True), ((3, 33), 7, 12, 5, False),
        ((1, 400), 400, 400, 160, True), ((2, 64), 8, 8, 1, False),
    ):  # fmt: skip
        data, wave = random_array(rng, shape, dtype, (-1, 1)), random_array(rng, (window,), dtype, (0, 1))
        yield [data, wave, np.array(size), np.array(step)], {"transpose_frames": transposed}


@samples("ISTFT", 16)
def istft(rng, dtype="f32"):
    for lead, frames, window, size, step, n, center, normalized in (
        ((), 5, 8, 8, 4, None, False, False), ((2,), 7, 16, 16, 4, None, True, False),
        ((3,), 4, 7, 12, 3, None, False, True), ((1,), 6, 11, 11, 3, 20, True, True),
        ((2,), 5, 10, 10, 5, 40, False, False),
    ):  # fmt: skip
        data = random_array(rng, (*lead, size // 2 + 1, frames, 2), dtype, (-1, 1))
        wave = random_array(rng, (window,), dtype, (0.2, 1))
        more = [] if n is None else [np.array(n)]
        attrs = {"center": center, "normalized": normalized}
        yield [data, wave, np.array(size), np.array(step), *more], attrs
