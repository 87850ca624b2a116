"""Samples of `ovjit_ops/matmul`."""

from __future__ import annotations

import numpy as np

from ovjit.graph.stored_floats import FLOAT_BITS, bits_of, codebook, levels_of
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


@samples("CompressedMatMul")
def compressed_mat_mul(rng, dtype="f32"):
    if dtype != "f32":
        return
    for rows, depth, outs, size, bits, dynamic in (
        (1, 64, 40, 32, 8, 0), (5, 33, 17, 33, 8, 0), (17, 96, 16, 32, 4, 0), (3, 70, 33, 35, 8, 0),
        (2, 64, 5, 64, 4, 0), (30, 6, 100, 2, 4, 0), (7, 50, 20, 7, 4, 0), (11, 50, 20, 7, 4, 0),
        (13, 70, 33, 35, 8, 0), (1, 64, 40, 64, 8, 32), (8, 96, 33, 32, 4, 32),
        (10, 50, 16, 50, 8, 16), (7, 128, 70, 64, 4, 16), (3, 100, 20, 100, 4, 48),
    ):  # fmt: skip
        for kind, zero in (("i8", False), ("u8", True)):
            if bits == 4 and kind == "i8":
                continue
            low, high = (0, 15) if bits == 4 else (-127, 127) if kind == "i8" else (0, 255)
            weights = rng.integers(low, high + 1, (depth, outs)).astype(f"{'u' * zero}int8")
            shape = (-(-depth // size), outs)
            inputs = [random_array(rng, (rows, depth), dtype, (-2, 2)), weights]
            inputs.append(rng.uniform(0.001, 0.02, shape).astype(np.float32))
            if zero:
                inputs.append(rng.integers(0, high + 1, shape).astype(np.float32))
            attrs = {"bits": bits, "group": size, "dynamic": dynamic}
            yield inputs, attrs if dynamic else {"bits": bits, "group": size}
    for rows, depth, outs, size, bits, kinds in (
        (5, 64, 64, 32, 8, 3), (1, 70, 128, 35, 8, 1), (7, 64, 64, 16, 4, 4), (4, 50, 64, 50, 4, 2),
    ):  # fmt: skip
        weights = rng.integers(0, 1 << bits, (depth, kinds * outs)).astype(np.uint8)
        shape = (-(-depth // size), kinds * outs)
        scale = rng.uniform(0.001, 0.02, shape).astype(np.float32)
        zero = rng.integers(0, 1 << bits, shape).astype(np.float32)
        inputs = [random_array(rng, (rows, depth), dtype, (-2, 2)), weights, scale, zero]
        names = rng.integers(-kinds - 1, kinds + 1, rows)
        yield [*inputs, names], {"bits": bits, "group": size, "kinds": kinds}
    random = (rng.standard_normal(n).astype(np.float32) for n in (16, 5, 200))
    for kind in (*FLOAT_BITS, *(codebook(levels, 4 if len(levels) <= 16 else 8) for levels in random)):
        bits = bits_of(kind)
        sizes = ((1, 64, 40, 32), (2, 33, 17, 33), (19, 70, 33, 70), (3, 64, 5, 16))
        for rows, depth, outs, size in sizes:
            codes = rng.integers(0, 1 << min(bits, 8), (depth, outs)).astype(np.uint8)
            if bits == 8 and levels_of(kind) is None:
                codes &= 0xFB if kind == "f8e5m2" else 0xF7  # neither infinite nor NaN
            if bits == 16:
                codes = random_array(rng, (depth, outs), "f16", (-2, 2)).view(np.uint16)
            shape = (-(-depth // size), outs)
            scale = rng.uniform(1e-4, 1e-3, shape).astype(np.float32)
            inputs = [random_array(rng, (rows, depth), dtype, (-2, 2)), codes, scale]
            yield inputs, {"bits": bits, "group": size, "kind": kind}


@samples("Inverse", 14)
def inverse(rng, dtype="f32"):
    for shape in ((1, 1), (2, 2), (3, 5, 5), (2, 2, 8, 8), (0, 3, 3)):
        data = (
            random_array(rng, shape, dtype, (-1, 1))
            + np.eye(shape[-1]).astype(random_array(rng, (1,), dtype).dtype) * 3
        )
        for adjoint in (False, True):
            yield [data.astype(random_array(rng, (1,), dtype).dtype)], {"adjoint": adjoint}


@samples("GatheredMatMul")
def gathered_mat_mul(rng, dtype="f32"):
    if dtype != "f32":
        return
    for x, table, chosen in (
        ((6, 1, 9), (4, 9, 40), (6,)), ((5, 17, 33), (3, 33, 7), (5,)), ((2, 3, 8), (1, 8, 17), (1,)),
        ((2, 1, 4, 16), (5, 16, 33), (2, 3)), ((1, 2, 70), (2, 70, 65), (4,)),
        ((0, 1, 9), (4, 9, 40), (0,)),
    ):  # fmt: skip
        for transposed in (False, True):
            arrays = [random_array(rng, shape, dtype, (-2, 2)) for shape in (x, table)]
            data, rows = [a.swapaxes(-1, -2).copy() if transposed else a for a in arrays]
            names = rng.integers(-table[0] - 1, table[0] + 1, chosen)
            yield [data, rows, names], {"transpose_a": transposed, "transpose_b": transposed}
