"""Stores of less than a vector write their bytes and no others, for every element type."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest

from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.loading import addresses
from ovjit.codegen.memory import SIZE
from ovjit.engine import compile_graph
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder
from ovjit.graph.shapes import ANY
from tests.support.run import run_job
from tests.support.sweeps import in_turn

SEED = 20261129
#: Bytes from one target to the next: more than a vector, so that what is written too much is seen.
APART = 256
SOURCES = ("f32", "i64", "i32", "f64")


def _kernel(dtype: str) -> Kernel:
    """A row of targets for every source type: first counts that the compiler knows, then others."""
    lanes = host_target().lanes
    frame = KernelArgs().pointers("y", *(f"x_{s}" for s in (*SOURCES, "own")))
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += [f"    v_own = load_{dtype}(x_own)"]
    cast = f"cast_{dtype}(load_%s(x_%s))" if dtype != "boolean" else "ne(load_%s(x_%s), const_%s(0))"
    src += [f"    v_{s} = {cast.replace('%s', s)}" for s in SOURCES]
    at = 0
    for s in ("own", *SOURCES):
        for count in range(lanes + 1):
            src += [f"    storem_{dtype}(y + {at * APART}, v_{s}, {count})"]
            at += 1
        src += ["    n = 0", f"    while n <= {lanes}:"]
        src += [f"        storem_{dtype}(y + ({at} + n) * {APART}, v_{s}, n)", "        n += 1"]
        at += lanes + 1
    return Kernel(f"stores_{dtype}", "\n".join([*src, "    return 0", ""]), frame)


@pytest.mark.parametrize("dtype", in_turn(sorted(SIZE), 2))
def test_masked_stores_write_their_bytes_only(dtype: str) -> None:
    lanes, size = host_target().lanes, SIZE[dtype]
    sources = [np.arange(1, lanes + 1).astype(dtypes.numpy_dtype(s)) for s in (*SOURCES, dtype)]
    out = np.full((5, 2, lanes + 1, APART), 0xAB, np.uint8)
    kernel = _kernel(dtype)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(addresses([kernel])[kernel])
    bases = np.array([out.ctypes.data, *(x.ctypes.data for x in sources)], np.int64)
    words = np.array([w for i in range(len(bases)) for w in (i, 0)], np.int64)
    call(bases.ctypes.data, words.ctypes.data, 0, 0)
    want = np.arange(1, lanes + 1).astype(dtypes.numpy_dtype(dtype)).view(np.uint8)
    for s, source in enumerate(("own", *SOURCES)):
        for known, row in enumerate(out[s]):
            for count, target in enumerate(row):
                what = f"{count} lanes of {dtype} from {source}, {'run-time' if known else 'constant'} count"
                np.testing.assert_array_equal(target[: count * size], want[: count * size], err_msg=what)
                assert (target[count * size :] == 0xAB).all(), f"bytes besides: {what}"


@pytest.mark.parametrize("dtype", ["bf16", "f16", "u8", "boolean", "i16"])
def test_neighbouring_rows_of_two_chunks(dtype: str) -> None:
    """One element a row: a chunk's last and the next one's first lie in one word; threads write both."""
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY, ANY), "element_type": dtype}).output
    ops = ("ReduceLogicalAnd", "ReduceLogicalOr") if dtype == "boolean" else ("ReduceMin", "ReduceMax")
    axes = b.constant(np.array([1]))
    outs = [b.add(name, [x, axes], {"keep_dims": True}).output for name in ops]
    job = compile_graph(b.finish(outs), {"threads": 2}).new_job()
    small = rng.integers(0, 2 if dtype == "boolean" else 100, (9999, 33))
    array = small.astype(dtypes.numpy_dtype(dtype))
    for _ in range(8):
        for out in job.outputs:
            out[...] = np.zeros((), out.dtype)
        run_job(job, [array])
        np.testing.assert_array_equal(job.outputs[0].astype(np.int64)[:, 0], small.min(1), f"seed {SEED}")
        np.testing.assert_array_equal(job.outputs[1].astype(np.int64)[:, 0], small.max(1), f"seed {SEED}")


def test_a_result_of_one_element_ends_where_its_memory_ends() -> None:
    """bf16 is rounded from 4 bytes: its neighbour behind the output is not the kernel's."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (32,), "element_type": "bf16"}).output
    y = b.add("ReduceMax", [x, b.constant(np.array([0]))], {"keep_dims": True}).output
    job = compile_graph(b.finish([y]), {}).new_job()
    memory = np.full(2, 7, ml_dtypes.bfloat16)
    job.set_output(0, memory[:1])
    run_job(job, [np.arange(32).astype(ml_dtypes.bfloat16)])
    assert memory.tolist() == [31, 7]


@pytest.mark.long
def test_rows_of_more_elements_than_32_bits_count() -> None:
    """A reversed row is read lane by lane under a mask that counts what is left of it."""
    n = (1 << 31) + 4096
    try:
        x = np.zeros(n, np.uint8)
    except MemoryError:
        pytest.skip("needs 5 GB")
    x[::4097] = 1
    b = Builder()
    p = b.add("Parameter", (), {"shape": (ANY,), "element_type": "u8"}).output
    limits = [b.constant(np.array([v])) for v in (-1, -(1 << 40), -1)]
    job = compile_graph(b.finish([b.add("Slice", [p, *limits]).output]), {}).new_job()
    out = np.full(n, 9, np.uint8)
    job.set_output(0, out)
    run_job(job, [x])
    assert np.array_equal(out, x[::-1])
