"""Samples of `ovjit_ops/movement`."""

from __future__ import annotations

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.elementwise.arithmetic import cases, random_array
from ovjit_ops.movement.shape import ints
from ovjit_ops.movement.slicing import _CUTS, _slice
from tests.support.samples import samples


@samples("Reverse")
def reverse(rng, dtype="f32"):
    for shape, axes in (((7,), (0,)), ((3, 17), (1,)), ((2, 3, 5), (0, 2)), ((4, 4), ())):
        yield [random_array(rng, shape, dtype), ints(*axes)], {"mode": "index"}
        mask = np.array([a in axes for a in range(len(shape))])
        yield [random_array(rng, shape, dtype), mask], {"mode": "mask"}


def _pad_samples(*more: tuple):
    padded = [
        ((7,), [1], [2]),
        ((1, 3, 7, 8), [0, 0, 1, 1], [0, 0, 1, 1]),
        ((3, 5), [0, 2], [2, 1]),
        ((2, 17), [1, 0], [0, 15]),
        *more,
    ]

    def samples(rng: np.random.Generator, dtype: str = "f32"):
        modes = [{"pad_mode": mode} for mode in ("constant", "edge", "reflect", "symmetric")]
        yield from cases(*padded, each=modes)(rng, dtype)
        yield from cases(*((*row, ()) for row in padded), each=modes[:1])(rng, dtype)

    return samples


samples("Pad")(_pad_samples())
samples("Pad", 12)(_pad_samples(((3, 8), [-1, 2], [0, -3])))


@samples("Range")
def range1(rng, dtype="f32"):
    for limits in ((0, 5, 1), (2, 19, 3), (5, 5, 1), (5, 0, 1)):
        yield [np.array(v).astype(numpy_dtype(dtype)) for v in limits], {}


@samples("Range", 4)
def range4(rng, dtype="f32"):
    for to in ("f32", "i64"):
        for limits in ((0, 5, 1), (2, 19, 3), (5, 5, 1)):
            yield [np.array(v).astype(numpy_dtype(dtype)) for v in limits], {"output_type": to}


@samples("SliceScatter", 15)
def slice_scatter(rng, dtype="f32"):
    for (data, *limits), attrs in cases(*_CUTS)(rng, dtype):
        yield [data, random_array(rng, _slice(data, *limits).shape, dtype), *limits], attrs
