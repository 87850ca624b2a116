"""Memory that runs out while a model is read, compiled and run: MemoryError, and the next call works."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ovjit.codegen.cpu import machine
from ovjit.errors import ModelError, UnsupportedError
from ovjit.out_of_memory import as_memory_errors, check_headroom, lacks_memory
from tests.support.run import printed

pytest.importorskip("resource")

#: Forks a process for each limit. It reads, compiles and runs a model with so many more bytes of address
#: space than it has, then once more without a limit. LLVM is loaded before, unless `fresh`.
PROGRAM = """
import os, resource, sys
import numpy as np, ovjit
from ovjit import opset13 as op
from ovjit.errors import OvjitError
fresh, path = sys.argv[1] == "fresh", sys.argv[2]
rng = np.random.default_rng(20261128)
p = op.parameter([-1, 8, 12, 12], np.float32)
x = op.convolution(p, rng.standard_normal((16, 8, 3, 3)).astype("f4"), [1, 1], [1, 1], [1, 1], [1, 1])
x = op.reshape(op.relu(x), [0, 16, -1], True)
x = op.softmax(op.matmul(x, rng.standard_normal((144, 33)).astype("f4"), False, False), 2)
ovjit.save_model(ovjit.Model([op.reduce_sum(op.multiply(x, x), [1], False), op.tanh(x)], [p]), path)
if not fresh:
    q = op.parameter([3], np.float32)
    ovjit.compile_model(ovjit.Model([op.erf(op.cosh(q))], [q]), "CPU")([np.ones(3, "f4")])
data = rng.standard_normal((2, 8, 12, 12)).astype("f4")

def use():
    model = ovjit.Core().read_model(path)
    return [np.array(r) for r in ovjit.compile_model(model, "CPU")([data]).values()]

def limited(more):
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, resource.RLIM_INFINITY))
    try:
        use()
        said = "ok"
    except (MemoryError, OvjitError, SystemError) as error:  # the last: no memory for a frame of Python
        said = type(error).__name__
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    first, second = use(), use()
    assert all(np.array_equal(a, b) for a, b in zip(first, second)) and abs(first[1]).max() < 1
    return said

for more in map(int, sys.argv[3:]):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.environ["OVJIT_CACHE"] = os.path.join(os.environ["OVJIT_CACHE"], str(more))
        os.write(write, limited(more).encode())
        os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    print(more, status, os.read(read, 100).decode(), flush=True)
"""


def _answers(folder: Path, kind: str, limits: list[int]) -> dict[int, str]:
    text = printed(
        "-c", PROGRAM, kind, folder / "model.xml", *limits, OVJIT_CACHE=str(folder / "cache"),
        OVJIT_SHIPPED="0", OVJIT_PRECISION="f32",
    )  # fmt: skip
    found = {}
    for line in text.splitlines():
        more, status, *said = line.split()
        assert status == "0", f"with {more} more bytes: {text}"
        found[int(more)] = said[0]
    return found


@pytest.mark.parametrize(
    "kind, limits",
    [
        ("fresh", [16 << 20]), ("loaded", [520 << 10]),
        pytest.param("fresh", [186 << 20], marks=pytest.mark.long),
        pytest.param("loaded", [1 << 20], marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_memory_runs_out(tmp_path: Path, kind: str, limits: list[int]) -> None:
    """While libraries are loaded, kernels compiled, and objects linked, where LLVM would end the process."""
    assert set(_answers(tmp_path, kind, limits).values()) <= {"MemoryError", "SystemError", "ok"}


@pytest.mark.long
def test_memory_runs_out_anywhere(tmp_path: Path) -> None:
    steps = [*range(500 << 10, 1500 << 10, 40 << 10), *range(2 << 20, 80 << 20, 8 << 20)]
    assert "MemoryError" in _answers(tmp_path, "loaded", steps).values()


def test_headroom_is_asked_for() -> None:
    check_headroom(1 << 20, "the test")
    with pytest.raises(MemoryError, match="the test needs up to"):
        check_headroom(1 << 60, "the test")


def test_what_reports_missing_memory() -> None:
    reports = [OSError(errno.ENOMEM, "x"), ImportError("a.so: failed to map segment from shared object")]
    reports += [SystemError("error return without exception set"), RuntimeError("can't start new thread")]
    reports.append(MemoryError())  # Python's own
    for error in reports:
        assert lacks_memory(error)
        with pytest.raises(MemoryError, match="not enough memory to read it"), as_memory_errors("read it"):
            raise error
    with pytest.raises(MemoryError, match="^an arena$"), as_memory_errors("read it"):
        raise MemoryError("an arena")
    for other in (OSError(errno.ENOENT, "x"), ImportError("no module"), ModelError("shape")):
        assert not lacks_memory(other)
        with pytest.raises(type(other)), as_memory_errors("read it"):
            raise other


def test_a_library_without_memory_is_no_other_machine() -> None:
    with pytest.raises(MemoryError), machine.needing("numba"):
        try:
            raise OSError("libLLVM.so: cannot allocate memory")
        except OSError as error:
            raise OSError("could not load libllvmlite.so") from error
    with pytest.raises(UnsupportedError), machine.needing("numba"):
        raise ImportError("no module named numba")
