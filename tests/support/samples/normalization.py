"""Samples of `ovjit_ops/normalization`."""

from __future__ import annotations

import numpy as np

from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


def _batch_norm_samples(rng: np.random.Generator, dtype: str):
    for shape in ((2, 3), (1, 16, 7, 8), (2, 17, 5, 5), (1, 5, 33), (1, 2, 3, 4, 5), (0, 3, 4, 4)):
        c = shape[1]
        lists = [random_array(rng, (c,), dtype, d) for d in ((0.5, 2), (-1, 1), (-1, 1), (0.1, 2))]
        yield random_array(rng, shape, dtype), lists


@samples("BatchNormInference")
def batch_norm_inference1(rng, dtype="f32"):
    for data, lists in _batch_norm_samples(rng, dtype):
        yield [*lists[:2], data, *lists[2:]], {"epsilon": 1e-3}


@samples("BatchNormInference", 5)
def batch_norm_inference5(rng, dtype="f32"):
    for data, lists in _batch_norm_samples(rng, dtype):
        yield [data, *lists], {"epsilon": 1e-3}


@samples("RMS")
def rms(rng, dtype="f32"):
    for shape in ((7,), (3, 17), (2, 5, 64), (1, 1000)):
        gamma = random_array(rng, shape[-1:], dtype, (0.5, 2))
        yield [random_array(rng, shape, dtype), gamma], {"epsilon": 1e-5}
