"""Samples of `ovjit_ops/elementwise`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS, random_array
from ovjit_ops.elementwise.conversion import _HELD, CONVERTIBLE
from tests.support.samples import samples


def _with_numbers(*numbers: float, shape: tuple[int, ...] = ()) -> Callable:
    """Samples: data of several sizes, with constant inputs of `shape`."""

    def samples(rng: np.random.Generator, dtype: str = "f32"):
        for n in (1, 7, 8, 15, 16, 17, 33, 1000):
            data = random_array(rng, (n,), dtype)
            yield [data, *(np.full(shape, v).astype(data.dtype) for v in numbers)], {}
        for dims in ((0, 3), (2, 3, 4)):
            data = random_array(rng, dims, dtype)
            yield [data, *(np.full(shape, v).astype(data.dtype) for v in numbers)], {}

    return samples


samples("HardSigmoid")(_with_numbers(0.2, 0.5))
samples("Selu")(_with_numbers(1.6732632, 1.050701, shape=(1,)))


@samples("Swish", 4)
def swish(rng, dtype="f32"):
    yield from ((inputs[:1], {}) for inputs, _ in _with_numbers()(rng, dtype))
    yield from _with_numbers(1.7)(rng, dtype)


@samples("PRelu")
def prelu(rng, dtype="f32"):
    for data, slope in (
        ((17,), ()),
        ((2, 5, 3, 7), (5,)),
        ((2, 5, 3, 7), (1,)),
        ((2, 3, 17), (17,)),
        ((3, 16), (16,)),
        ((2, 5, 33), (5, 1)),
        ((0, 4), (4,)),
        ((2, 3, 4), (2, 3, 4)),
    ):
        yield [random_array(rng, data, dtype), random_array(rng, slope, dtype, (0, 1))], {}


@samples("BitCast")
def bit_cast(rng, dtype="i32"):
    """Of integers: tests compute reals in f64, which has other bits."""
    for to in NUMBERS:
        if ELEMENT_TYPES[to].bits == ELEMENT_TYPES[dtype].bits:
            for shape in ((7,), (3, 17), (), (0, 3)):
                yield [random_array(rng, shape, dtype)], {"destination_type": to}


@samples("Convert")
def convert(rng, dtype="f32"):
    for to in CONVERTIBLE:
        # CPUs differ for negative floats to unsigned integers
        domain = (0.0, 100.0) if to[0] == "u" and dtype in REALS else (-100.0, 100.0)
        for n in (1, 7, 16, 17, 33):
            yield [random_array(rng, (n,), dtype, domain)], {"destination_type": to}
    yield [random_array(rng, (0, 3), dtype)], {"destination_type": "i32"}
    yield [random_array(rng, (), dtype)], {"destination_type": "i64"}


@samples("ConvertLike")
def convert_like(rng, dtype="f32"):
    for to in ("i32", "f32", "u8", "boolean"):
        yield [random_array(rng, (2, 17), dtype, (0, 100)), random_array(rng, (3,), to)], {}


@samples("ConvertPromoteTypes", 14)
def convert_promote_types(rng, dtype="f32"):
    for to, unsafe in (("f32", True), ("i32", True), ("u8", True), ("boolean", False), (dtype, False)):
        for shape in ((7,), ()):
            attrs = {"promote_unsafe": unsafe, "pytorch_scalar_promotion": unsafe and to == "f32",
                     "u64_integer_promotion_target": "f32"}  # fmt: skip
            x, y = random_array(rng, (2, 3), dtype, (0, 9)), random_array(rng, shape, to, (0, 9))
            yield [x, y], attrs


@samples("Saturated")
def saturated(rng, dtype="f32"):
    for kind, (high, _, least) in _HELD.items():
        ends = high * np.array([1, 1.03, 1.05, 1.07, 1.08, 1.2, 1e9, np.inf, np.nan])
        steps = 2.0**least * np.arange(0, 2, 1 / 64)
        spread = rng.standard_normal(3000) * 2.0 ** rng.integers(-20, 18, 3000)
        data = np.concatenate([ends, steps, spread])
        yield [(data * rng.choice([-1, 1], data.size)).astype(np.float32)], {"destination_type": kind}


@samples("FakeConvert", 13)
def fake_convert(rng, dtype="f32"):
    for shape, other in (((7,), ()), ((3, 17), (17,)), ((2, 3, 4), (3, 1)), ((1000,), (1,))):
        for kind in ("f8e4m3", "f8e5m2"):
            data = random_array(rng, shape, dtype, (-400, 400))
            scale = random_array(rng, other, dtype, (0.5, 2))
            yield [data, scale], {"destination_type": kind}
            yield [data, scale, random_array(rng, other, dtype, (-1, 1))], {"destination_type": kind}


@samples("FakeQuantize")
def fake_quantize(rng, dtype="f32"):
    for shape, limit in (((17,), ()), ((2, 5, 7, 8), (1, 5, 1, 1)), ((3, 33), (1,))):
        low, size = random_array(rng, limit, dtype, (-3, -1)), random_array(rng, limit, dtype, (2, 6))
        for levels in (2, 16, 256):
            # avoid ties of the grid, where the two roundings could differ
            yield (
                [random_array(rng, shape, dtype), low, low + size, low * 2, low * 2 + size],
                {"levels": levels},
            )


@samples("Select")
def select(rng, dtype="f32"):
    for shapes in (
        ((17,),) * 3,
        ((3, 1), (1, 5), ()),
        ((33,), (), ()),
        ((2, 3, 8),) * 3,
        ((0, 2), (2,), ()),
    ):
        cond = random_array(rng, shapes[0], "boolean")
        yield [cond, *(random_array(rng, s, dtype) for s in shapes[1:])], {}
