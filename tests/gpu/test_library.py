"""Functions of the C library on a card: their LLVM code on 32 threads, beside NumPy in float64."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.library import two_over_pi
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.codegen.gpu.supported import LIBRARY, has_gpu_words
from ovjit.codegen.gpu.words import WARP
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from tests.support.assembler import find_ptxas
from tests.support.op_samples import graph_of, native_ops, samples
from tests.support.warps import Warp

SEED = 20261128
SPECIAL = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 0.5, -2, 3, -3, 2.5], np.float32)


@pytest.fixture(scope="module")
def warp() -> Iterator[Warp]:
    threads = Warp()
    yield threads
    threads.close()


def source_of(name: str, count: int) -> str:
    """A kernel that stores a function of the vectors at x to y. Functions for rare arguments are called in
    lanes whose first argument is not 12345, the others get it."""
    elem = name.rpartition("_")[2]
    size = 8 if elem == "f64" else 4
    lines = ["x = ld(bases, 0)", "y = ld(bases, 1)"]
    lines += [f"v{i} = load_{elem}(x + {i * WARP * size})" for i in range(count)]
    values = ", ".join(f"v{i}" for i in range(count))
    if name.startswith("seldom"):
        values = f"ne(v0, const_{elem}(12345.0)), {values}, v0"
    body = "\n".join("    " + line for line in [*lines, f"store_{elem}(y, {name}({values}))", "return 0", ""])
    return f"@njit(nogil=True)\ndef kernel(bases, args, chunk, scratch):\n{body}"


def apply(warp: Warp, name: str, *arrays: np.ndarray) -> np.ndarray:
    source, out = source_of(name, len(arrays)), []
    for i in range(0, len(arrays[0]), WARP):
        block = np.concatenate([a[i : i + WARP] for a in arrays])
        result = np.zeros(WARP, block.dtype)
        bases = np.array([block.ctypes.data, result.ctypes.data], np.int64)
        assert warp.run(source, bases.ctypes.data, 0, 0, 0) == 0
        out.append(result)
    return np.concatenate(out)


def far_angles() -> np.ndarray:
    """f32 numbers from 2**26 on, some next to multiples of pi / 2."""
    rng = np.random.default_rng(SEED)
    random = np.exp2(rng.uniform(26, 128, 300)) * rng.choice([-1, 1], 300)
    near = [np.pi / 2 * k for k in rng.integers(1 << 26, 1 << 50, 100)]
    edges = [2.0**26, -(2.0**26), 3.4028235e38, -3.4028235e38, np.inf, -np.inf, np.nan, 12345]
    edges.append(16367173.0 * 2**72)  # the nearest to a multiple of pi / 2
    values = np.concatenate([random, near, edges]).astype(np.float32)
    return np.resize(values, -(-len(values) // WARP) * WARP)


def assert_close(result: np.ndarray, want: np.ndarray, ulp: float) -> None:
    rounded = want.astype(result.dtype)
    allowed = ulp * np.abs(np.spacing(np.where(np.isfinite(rounded), rounded, 1)).astype(np.float64))
    same = (np.abs(result.astype(np.float64) - want) <= allowed) | (result == rounded)
    same |= np.isnan(result) & np.isnan(want)
    signs = np.signbit(result) == np.signbit(rounded)
    assert (same & (signs | np.isnan(want))).all(), f"seed {SEED}: {np.flatnonzero(~same)[:5]}"


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_far_angles(warp: Warp, name: str) -> None:
    x = far_angles()
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x.astype(np.float64))
    want = np.where(x == 12345, 12345, want)  # a lane that is not far keeps its value
    assert_close(apply(warp, f"seldom_{name}_f32", x), want, 0.51)


def test_digits_of_two_over_pi() -> None:
    assert hex(two_over_pi() >> 96).startswith("0xa2f9836e4e441529fc2757d1f534ddc0db62")
    assert two_over_pi().bit_length() == 256


def test_remainders_are_exact(warp: Warp) -> None:
    rng = np.random.default_rng(SEED)
    x = np.exp2(rng.uniform(-140, 128, 512)).astype(np.float32) * rng.choice([-1, 1], 512).astype(np.float32)
    y = np.exp2(rng.uniform(-149, 120, 512)).astype(np.float32) * rng.choice([-1, 1], 512).astype(np.float32)
    x[:14], y[:14] = SPECIAL, 3
    x[14:28], y[14:28] = 7, SPECIAL
    x, y = np.where(np.abs(x) < np.abs(y), y, x), np.where(np.abs(x) < np.abs(y), x, y)
    with np.errstate(all="ignore"):
        want = np.fmod(x, y)
    infinite = np.isinf(y) & ~np.isinf(x)  # never far: |x| < |y|
    assert_close(apply(warp, "seldom_fmod_f32", x, y)[~infinite], want[~infinite], 0)


def test_powers(warp: Warp) -> None:
    rng = np.random.default_rng(SEED)
    x = np.exp2(rng.uniform(-149, 128, 256)).astype(np.float32) * rng.choice([-1, 1], 256).astype(np.float32)
    y = rng.choice([-3, -2, -1, 0, 2, 3, 5, 0.5, 1.5, -0.7, 1e-3, 30], 256).astype(np.float32)
    pairs = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1)
    x, y = (np.concatenate([a, b]) for a, b in zip((x, y), pairs, strict=True))
    x, y = (np.resize(a, -(-len(a) // WARP) * WARP).astype(np.float32) for a in (x, y))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64))
        assert_close(apply(warp, "libm_pow_f32", x, y), want, 0.51)


@pytest.mark.parametrize("name", ["exp", "log"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponentials_and_logarithms(warp: Warp, name: str, dtype: Any) -> None:
    x = np.concatenate([SPECIAL, np.random.default_rng(SEED).uniform(-110, 95, 256 - len(SPECIAL))])
    x = np.abs(x).astype(dtype) if name == "log" else x.astype(dtype)
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x.astype(np.float64))
        result = apply(warp, f"libm_{name}_f{8 * x.itemsize}", x)
        assert_close(result, want, 0.51 if dtype == np.float32 else 2)


def test_all_functions_are_assembled() -> None:
    counts = {"pow": 2, "fmod": 2}
    for name in sorted(LIBRARY):
        source = source_of(name, counts.get(name.split("_")[1], 1))
        assert has_gpu_words(source)
        ptx = compile_ptx(source, "entry")
        if find_ptxas() is not None:
            command = [str(find_ptxas()), "-arch=sm_80", "-o", "/dev/null", "/dev/stdin"]
            done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Sin", "Cos", "Tan", "Mod", "FloorMod", "Power"])
def test_operations_run_on_the_card(name: str) -> None:
    (record,) = [r for r in native_ops() if r.name == name]
    _, arrays, attrs = next(iter(samples(record, "f32", 1)))
    program = compile_graph(graph_of(record, arrays, attrs, "f32")[0], TARGETS["cuda"], Options(exact=True))
    assert program.host_nodes() == []
