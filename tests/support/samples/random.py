"""Samples of `ovjit_ops/random`."""

from __future__ import annotations

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


@samples("RandomUniform", 8)
def random_uniform(rng, dtype="i64"):
    for shape, kind, seeds in (
        ((9,), "f32", (0, 10)),
        ((2, 3), "f32", (150, 10)),
        ((17,), "i32", (80, 100)),
        ((7,), "i64", (80, 100)),
        ((7,), "f64", (80, 100)),
        ((9,), "f16", (80, 100)),
        ((600,), "i64", (5, 9)),
        ((3, 5), "f32", (1 << 40, 1 << 35)),
    ):
        for alignment in ("tensorflow", "pytorch"):
            low, high = np.array(2, numpy_dtype(kind)), np.array(1000, numpy_dtype(kind))
            attrs = {
                "output_type": kind,
                "global_seed": seeds[0],
                "op_seed": seeds[1],
                "alignment": alignment,
            }
            yield [np.array(shape), low, high], attrs


@samples("Multinomial", 13)
def multinomial(rng, dtype="f32"):
    for b, c, n in ((1, 3, 5), (2, 17, 4), (3, 8, 8)):
        for replace in (True, False) if n <= c else (True,):
            for logs in (False, True):
                probs = random_array(rng, (b, c), dtype, (0.1, 2))
                if replace:  # one class has all the probability
                    probs[:] = -200 if logs else 0
                    probs[np.arange(b), rng.integers(0, c, b)] = 1
                attrs = {
                    "convert_type": "i64" if logs else "i32",
                    "with_replacement": replace,
                    "log_probs": logs,
                    "global_seed": 7,
                    "op_seed": 3,
                }
                yield [probs, np.array(n)], attrs
