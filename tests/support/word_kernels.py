"""Small kernels of one word each, with inputs: what every target's words are compared by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ovjit.execution.numpy_words import Memory
from tests.support.gpu_words import Words, program

#: Bytes of the output that kernels write to.
OUTPUT = 256
SIZES = {"f32": 4, "i32": 4, "u32": 4, "i8": 1, "u8": 1, "f16": 2, "bf16": 2, "f64": 8, "i64": 8}


class WordKernel(NamedTuple):
    """The source of a kernel that reads its input at bases[3] and writes at bases[4]."""

    name: str
    source: str
    data: np.ndarray

    def expected(self, lanes: int) -> np.ndarray:
        """The bytes that the meanings in NumPy give."""
        out = np.zeros(OUTPUT, np.uint8)
        bases = np.array([0, 0, 0, self.data.ctypes.data, out.ctypes.data], np.int64)
        memory = Memory([(a.ctypes.data, a.nbytes, "memory") for a in (self.data, out, bases)])
        with np.errstate(all="ignore"):
            assert program(self.source, Words(lanes, memory))(bases.ctypes.data, 0, 0, 0) == 0
        return out


def inputs() -> dict[str, np.ndarray]:
    """Element type -> 128 values: special ones, then random ones."""
    rng = np.random.default_rng(7)
    special = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-40, 3e38, 2.5, -2.5, 0.5], np.float32)
    floats = np.concatenate([special, (rng.standard_normal(116) * 50).astype(np.float32)])
    ints = rng.integers(-(2**31), 2**31, 128).astype(np.int32)
    bytes_ = rng.integers(-128, 128, 128).astype(np.int8)
    return {
        "f32": floats, "i32": ints, "u32": ints.view(np.uint32), "i8": bytes_, "u8": bytes_.view(np.uint8),
        "f16": np.clip(floats, -6e4, 6e4).astype(np.float16).view(np.uint16),
        "bf16": (floats.view(np.uint32) >> 16).astype(np.uint16),
        "f64": floats.astype(np.float64), "i64": ints.astype(np.int64) << 20,
    }  # fmt: skip


def word_kernels() -> Iterator[WordKernel]:
    """One kernel for each word and several element types. Vectors v0, v1 and v2 are 32 elements each."""
    arrays = inputs()

    def kernel(name: str, source: str, out: str, expression: str, scalar: bool = False) -> WordKernel:
        lines = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
        lines += ["    x = ld(bases, 3)", "    y = ld(bases, 4)"]
        lines += [f"    v{i} = load_{source}(x + {32 * i * SIZES[source]})" for i in range(3)]
        lines += [f"    {'st' if scalar else 'store'}_{out}(y, {expression})", "    return 0", ""]
        return WordKernel(name, "\n".join(lines), arrays[source])

    for t in ("f32", "i32", "u32", "i8", "u8", "f64", "i64"):
        for word in ("add", "sub", "mul", "max_", "min_", "div"):
            yield kernel(f"{word} {t}", t, t, f"{word}(v0, v1)")
        for word in ("lt", "le", "gt", "ge", "eq", "ne"):
            yield kernel(f"{word} {t}", t, t, f"select({word}(v0, v1), v1, v2)")
    for t in ("i32", "u32", "u8"):
        for word in ("and_", "or_", "xor"):
            yield kernel(f"{word} {t}", t, t, f"{word}(v0, v1)")
        yield kernel(f"shl shr {t}", t, t, f"shr(shl(v0, const_{t}(3)), const_{t}(2))")
        yield kernel(f"not_ {t}", t, t, "not_(v0)")
    for t in ("f32", "f64"):
        for word in ("sqrt", "floor", "ceil", "trunc", "rint", "abs_", "neg"):
            yield kernel(f"{word} {t}", t, t, f"{word}(v0)")
        yield kernel(f"fma {t}", t, t, "fma(v0, v1, v2)")
        yield kernel(f"exact_fma {t}", t, t, "exact_fma(v0, v1, v2)")
        yield kernel(f"turned_pairs {t}", t, t, "turned_pairs(v1)")
        yield kernel(f"trunc_or_min_i32 {t}", t, "i32", "trunc_or_min_i32(v0)")
    for word in ("dot_bytes", "dot_signed", "dot_halves"):
        yield kernel(word, "i32", "i32", f"{word}(v0, v1, v2)")
    halves = [f"and_({v}, const_i32(1073692671))" for v in ("v0", "v1")]  # sums that fit 16 bits
    yield kernel("add_pairs", "i32", "i32", f"add_pairs({', '.join(halves)})")
    yield kernel("sum_pairs", "i32", "i32", "sum_pairs(v0, v1)")
    yield kernel("shr_halves", "i32", "i32", "shr_halves(v0, and_(v1, const_i32(983055)))")
    small = "and_(v1, const_i32(1061109567))"  # bytes up to 63: sums of two products fit 16 bits
    yield kernel("dot_pairs", "i32", "i32", f"dot_pairs(and_(v0, const_i32(2139062143)), {small})")
    for t in ("u8", "i8"):
        yield kernel(f"saturate_{t}", "i32", t, f"saturate_{t}(shr(v0, const_i32(20)))")
        yield kernel(
            f"round_int_{t}", "f32", t, f"round_int_{t}(min_(max_(v1, const_f32(-128.0)), const_f32(127.0)))"
        )
    for source in ("f32", "i32", "u8", "i8", "f64", "i64"):
        for to in ("f32", "i32", "u8", "i8", "i64", "u32", "f64"):
            yield kernel(f"cast {source} {to}", source, to, f"cast_{to}(v0)")
    for t in ("f16", "bf16"):
        yield kernel(f"load {t}", t, "f32", "v0")
        yield kernel(f"store {t}", "f32", t, "v0")
    for t in ("f32", "i32", "f64", "i64"):
        for word in ("hadd", "hmax", "hmin"):
            yield kernel(f"{word} {t}", t, t, f"{word}_{t}(v1)", scalar=True)
        yield kernel(f"lane {t}", t, t, f"lane_{t}(v1, 13)", scalar=True)
    for word in ("hand", "hor"):
        yield kernel(f"{word} i32", "i32", "i32", f"{word}_i32(v1)", scalar=True)
    for t, size in {"f32": 4, "u8": 1, "f64": 8}.items():
        for count in (0, 1, 7, 31, 32, 40):
            yield kernel(f"loadm {t} {count}", t, t, f"loadm_{t}(x + {size * 40}, {count})")
            yield kernel(f"gather {t} {count}", t, t, f"gather_{t}(x + {size * 3}, {size * 3}, {count})")
            yield kernel(f"blend {t} {count}", t, t, f"blend_{t}({count}, v0, v1)")
    yield kernel("take", "f32", "f32", "take_f32(x, and_(bits_i32(v1), const_i32(127)))")
    yield kernel("permute", "f32", "f32", "permute_f32(v1, and_(bits_i32(v2), const_i32(31)))")
    yield kernel("evens", "f32", "f32", "evens_f32(x)")
    yield kernel("thirds", "f32", "f32", "thirds_f32(x)")
    for word in ("storem", "scatter"):
        stride = "8, " if word == "scatter" else ""
        source = (
            "@njit(nogil=True)\ndef kernel(bases, args, chunk, scratch):\n    x = ld(bases, 3)\n"
            f"    y = ld(bases, 4)\n    {word}_f32(y, {stride}load_f32(x), 21)\n    return 0\n"
        )
        yield WordKernel(word, source, arrays["f32"])
