"""Where memory must not become executable: kernels of the cache run, and what cannot run is an error.

Systems forbid it by a flag of the process (`PR_SET_MDWE`), by SELinux, or by a filter of system calls, as
systemd does. Each is for a process of its own.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from tests.support.run import printed, python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="flags and filters of Linux")

FORBID = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def flag():
    return libc.prctl(65, 1, 0, 0, 0) == 0  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN

def filtered(also_files):
    \"\"\"mprotect to executable memory, and mmap of memory that is both, or executable at all, fail.\"\"\"
    mmap, mprotect, is_exec, both = 9, 10, 4, 6
    load, jeq, jset, ret = 0x20, 0x15, 0x45, 0x06
    both = is_exec if also_files else both
    rows = [
        (load, 0, 0, 0), (jeq, 4, 0, mprotect), (jeq, 0, 6, mmap),
        (load, 0, 0, 32), (0x54, 0, 0, both), (jeq, 2, 3, both),
        (load, 0, 0, 32), (jset, 0, 1, is_exec), (ret, 0, 0, 0x00050000 | 13), (ret, 0, 0, 0x7FFF0000),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
    head = struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(program))
    return not libc.prctl(38, 1, 0, 0, 0) and not libc.prctl(22, 2, ctypes.c_char_p(head), 0, 0)
"""
MODEL = """
import numpy as np
import ovjit as ov
from ovjit import opset13 as op

def run(factor):
    x = op.parameter([2, 3], np.float32)
    added = op.constant(np.full((2, 3), factor, np.float32))
    model = ov.Model([op.tanh(op.relu(x) * np.float32(0.5)) + added], [x])
    got = ov.compile_model(model, "CPU")([np.ones((2, 3), np.float32)])[0]
    np.testing.assert_allclose(got, np.tanh(0.5) + factor, rtol=1e-5)
"""
WAYS = {"flag": "flag()", "filter": "filtered(False)"}


def forbid(way: str) -> str:
    return FORBID + f"\nif not {WAYS[way]}:\n    print('cannot'); sys.exit(0)\n"


def skip_unless_done(out: str) -> None:
    if out.strip() == "cannot":
        pytest.skip("this system has no such flag or filter")


def _ways() -> list[str]:
    return [way for way in WAYS if way != "filter" or platform.machine() == "x86_64"]


@pytest.mark.parametrize("way", _ways())
def test_kernels_of_the_cache_run(way: str, tmp_path: Path) -> None:
    cache = {"OVJIT_CACHE": str(tmp_path / "cache")}
    printed("-c", MODEL + "\nrun(3)", **cache)
    out = printed("-c", forbid(way) + MODEL + "\nrun(3); print('right')", **cache)
    skip_unless_done(out)
    assert out.split() == ["right"]


@pytest.mark.parametrize("way", _ways())
def test_what_has_to_be_compiled_is_an_error_that_says_what_to_allow(way: str, tmp_path: Path) -> None:
    unshipped = "\nfrom ovjit.codegen import kernel\nkernel.Kernel.shipped = lambda *_: None\nrun(4)"
    done = python("-c", forbid(way) + MODEL + unshipped, OVJIT_CACHE="0")
    skip_unless_done(done.stdout)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "UnsupportedError: this process may not make memory executable" in done.stderr
    assert "MemoryDenyWriteExecute=no" in done.stderr and "OVJIT_INTERP=1" in done.stderr
    interpreted = {"OVJIT_CACHE": str(tmp_path / "cache"), "OVJIT_INTERP": "1"}
    printed("-c", MODEL + "\nrun(3)", **interpreted)  # the runner is shipped with a release
    out = printed("-c", forbid(way) + MODEL + "\nrun(4); print('right')", **interpreted)
    assert out.split() == ["right"]


NOTHING = """
run(1)
import ovjit.codegen.cpu.elf as elf
from ovjit.errors import UnsupportedError
from ovjit.codegen.cpu import jit, objects
from ovjit.codegen.cpu.host import host_target
import llvmlite.binding
source = "@njit(nogil=True)\\ndef kernel(a, b, c, p):\\n    return a + 2 * b\\n"
code = jit.object_code(source, "test_forbidden", host_target())
assert filtered(True)
for load in (lambda _, code: elf.load_object(code), objects.load, objects._load_by_llvm):
    try:
        load("test_forbidden", code)
    except UnsupportedError as error:
        print("may not make memory executable" in str(error))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter has numbers of x86-64")
def test_where_files_may_not_be_executed_either_both_loaders_refuse() -> None:
    assert printed("-c", FORBID + MODEL + NOTHING).split() == ["True"] * 3
