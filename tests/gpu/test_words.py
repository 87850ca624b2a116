"""The words' code for NVIDIA GPUs, run by 32 threads of this CPU, has the bits of their meanings in NumPy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from ovjit.codegen.gpu.library import namespace
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.codegen.gpu.words import BODIES, WARP
from ovjit.codegen.words import WORDS
from ovjit.errors import UnsupportedError
from tests.support.sweeps import in_turn
from tests.support.warps import Warp
from tests.support.word_kernels import OUTPUT, WordKernel, word_kernels

KERNELS = list(word_kernels())
#: Words that only kernels of CPUs use.
CPU_WORDS = {
    "halves_low_T", "halves_high_T", "look_up", "zip_bytes_low", "zip_bytes_high", "zip_halves_low",
    "zip_halves_high", "const_T", "fold_1", "fold_2", "fold_4", "fold_8",
}  # fmt: skip


@pytest.fixture(scope="module")
def warp() -> Iterator[Warp]:
    threads = Warp()
    yield threads
    threads.close()


@pytest.mark.parametrize("kernel", in_turn(list(KERNELS), 2), ids=lambda kernel: kernel.name)
def test_words_have_the_bits_of_numpy(warp: Warp, kernel: WordKernel) -> None:
    expected, out = kernel.expected(WARP), np.zeros(OUTPUT, np.uint8)
    bases = np.array([0, 0, 0, kernel.data.ctypes.data, out.ctypes.data], np.int64)
    assert warp.run(kernel.source, bases.ctypes.data, 0, 0, 0) == 0
    np.testing.assert_array_equal(out, expected)


def test_every_word_has_code_or_is_of_cpus() -> None:
    used = {name for name in WORDS if not name.startswith(("tile_",))}
    assert used - BODIES.keys() - CPU_WORDS == set()


def test_a_word_without_code_is_named() -> None:
    with pytest.raises(UnsupportedError, match="the word look_up has no code for GPUs"):
        namespace()["look_up"]


def test_kernels_become_ptx() -> None:
    for kernel in KERNELS[::9]:
        ptx = compile_ptx(kernel.source, "entry_of_a_word")
        assert ".version 8.0" in ptx and ".target sm_80" in ptx and ".visible .entry entry_of_a_word(" in ptx


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="the CUDA toolkit's assembler is not installed")
def test_ptx_is_assembled_without_spills() -> None:
    for kernel in KERNELS[::9]:
        command = ["ptxas", "-arch=sm_90", "-v", "-o", "/dev/null", "/dev/stdin"]
        ptx = compile_ptx(kernel.source, "entry_of_a_word")
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 bytes spill stores" in done.stderr
