"""Native RandomUniform by Philox: every block of numbers follows from the seeds and where it is."""

from __future__ import annotations

import numpy as np

from ovjit.codegen.function import kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import NotNative, Planner, ceil_div

#: Numbers that are drawn together, four by four.
BLOCK = 256


@kernel
def seeds_of_now(seeds: Ptr, number):
    """Two seeds that no other inference, and no other node, has."""
    st[i64](seeds, now() ^ number << 40)
    st[i64](seeds + 8, seeds ^ number)


@kernel
def uniform(seeds: Ptr, low: Ptr, high: Ptr, y: Ptr, n, blocks, per_chunk, *, T):
    """n numbers from low to high, see `philox` and `uniform` beside this module."""
    m = const[i64](4294967295)
    for k in range(VL):
        st[i64](scratch + k * 8, k)
    lanes = load[i64](scratch)
    drawn = scratch + 256
    seed = ld[i64](seeds) + 0
    counter = ld[i64](seeds + 8) + 0
    if T == "f32":
        first = splat[f32](low)
        span = splat[f32](high) - first
    else:
        span = ld[i32](high) - ld[i32](low)
        if span <= 0:
            return 1
    for block in share(blocks, per_chunk):
        for k in range(0, BLOCK // 4, VL):
            at = lanes + spread[i64](block * (BLOCK // 4) + k)
            n_low = at & m
            n_high = (at >> const[i64](32)) & m
            c_low = spread[i64](counter & 4294967295)
            c_high = spread[i64]((counter >> 32) & 4294967295)
            for r in static_range(10):
                a = n_low * const[i64](0xD2511F53)
                b = c_low * const[i64](0xCD9E8D57)
                k_low = (seed + r * 0x9E3779B9) & 4294967295
                n_low = ((b >> const[i64](32)) & m) ^ n_high ^ spread[i64](k_low)
                n_high = b & m
                k_high = ((seed >> 32) + r * 0xBB67AE85) & 4294967295
                c_low = ((a >> const[i64](32)) & m) ^ c_high ^ spread[i64](k_high)
                c_high = a & m
            p = drawn + k * 16
            strided_store[i32](p, 16, cast[i32](n_low), VL)
            strided_store[i32](p + 4, 16, cast[i32](n_high), VL)
            strided_store[i32](p + 8, 16, cast[i32](c_low), VL)
            strided_store[i32](p + 12, 16, cast[i32](c_high), VL)
        many = min(n - block * BLOCK, BLOCK)
        q = y + block * BLOCK * SIZE[T]
        for k in range(0, many, VL if T == "f32" else 1):
            if T == "f32":
                unit = cast[f32](load[i32](drawn + k * 4) & const[i32](8388607)) * const[f32](2.0**-23)
                storem[f32](q + k * 4, unit * span + first, many - k)
            else:
                st[i32](q + k * 4, ld[i32](low) + ld[u32](drawn + k * 4) % span)
    return 0


class Uniform(Lowering):
    """Seeds, where none are given, and the numbers."""

    def set_up(self) -> None:
        attrs, dtype = self.node.attrs, self.node.output.dtype
        if dtype not in ("f32", "i32") or attrs["alignment"] != "tensorflow":
            raise NotNative
        seeds = np.array([attrs["global_seed"], attrs["op_seed"]], np.uint64)
        self.seeds = seeds.view(np.int64) if seeds.any() else None
        self.kernel = uniform(T=dtype)
        self.kernels = (self.kernel, *([] if seeds.any() else [seeds_of_now()]))

    def plan(self, planner: Planner) -> None:
        low, high = (planner.contiguous(v) for v in self.node.inputs[1:])
        out = planner.row_major_output(self.node.output)
        if self.seeds is None:
            seeds = planner.allocate((2,), 8)
            number = len(planner.steps)
            planner.step(self.kernels[1], {"seeds": seeds.ptr, "number": number}, 1, [], [seeds])
        else:
            seeds = planner.data.view(self.seeds, "i64")
        values = {"seeds": seeds.ptr, "low": low.ptr, "high": high.ptr, "y": out.ptr, "n": out.count}
        planner.need_scratch(256 + BLOCK * 4)
        blocks = ceil_div(out.count, BLOCK)
        values["blocks"] = blocks
        planner.share_step(self.kernel, values, blocks, 20 * BLOCK, [seeds, low, high], [out], 20 * out.count)
