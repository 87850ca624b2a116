"""Checks for systems that are not available here: imports, functions that only Linux has, hand-over without
futex."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

import pytest

from ovjit.codegen.cpu import systems
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.execution.runner import native_kernels
from tests.support import ROOT
from tests.support.run import printed

FILES = sorted(p for package in ("ovjit", "ovjit_ops") for p in (ROOT / package).rglob("*.py"))
#: Modules of POSIX or Linux alone.
ELSEWHERE_MISSING = {
    "crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty",
}  # fmt: skip
#: Names of `os` that macOS or Windows lacks; who calls them asks before.
OF_LINUX = {
    "register_at_fork", "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "getgid", "fork",
    "posix_fadvise", "memfd_create", "copy_file_range", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY",
    "O_NOFOLLOW", "fchmod", "fchown", "getrandom", "pipe2", "eventfd", "sched_yield", "statvfs", "pread",
    "posix_fallocate", "sysconf", "getloadavg", "mkfifo", "major", "minor", "makedev",
}  # fmt: skip
#: The same of `time`.
OF_TIME = {"clock_gettime", "clock_gettime_ns", "CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_BOOTTIME"}


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported: not the bodies of functions."""
    for field in ("body", "orelse", "handlers", "cases", "finalbody"):
        for child in getattr(node, field, ()):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield child
                yield from at_import(child)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [(node.module or "").partition(".")[0]]
    return []


def test_no_module_is_imported_that_others_lack() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
        for path in FILES
        for node in at_import(ast.parse(path.read_text()))
        for name in imported(node)
        if name in ELSEWHERE_MISSING
    ]
    assert not wrong, "\n".join(wrong)


#: In a process without these modules and functions: all modules are imported, and a model runs.
WITHOUT = """
import importlib, mmap, os, pathlib, sys, threading, time, types

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ImportError(f"no module {name} here", name=name)

import numpy, numba, llvmlite, onnx, multiprocessing, subprocess, tempfile, uuid, asyncio, json
import concurrent.futures, logging.handlers, ctypes.util, platform, runpy, email.message, urllib.request
import importlib.metadata
sys.meta_path.insert(0, Missing())
for name in MODULES:
    sys.modules.pop(name, None)
for name in [name for name in vars(mmap) if name.startswith(("PROT_", "MAP_", "MADV_"))]:
    delattr(mmap, name)
for module, names in ((os, NAMES), (time, OF_TIME)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
left_out = {"ovjit.as_openvino", "ovjit.integrations.mlserver", "ovjit.integrations.mlserver_metrics",
            "ovjit.integrations.ray", "ovjit.__main__", "ovjit.compat.torch",
            "ovjit.compat.frontend.pytorch.torchdynamo.backend"}
root = pathlib.Path(ROOT)
for package in ("ovjit", "ovjit_ops"):
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        others = name in left_out or name.startswith("ovjit.integrations.vllm.")  # want packages of others
        if not others and "-" not in name:  # a hook of PyInstaller's is none of a program's
            importlib.import_module(name)

import ovjit as ov
from ovjit.codegen.cpu import elf
from ovjit.data import digits
elf.sys = types.SimpleNamespace(platform="another")  # llvmlite loads the code
path, images, labels = digits()
compiled = ov.Core().compile_model(path, "CPU", {"CACHE_DIR": "models"})
assert (compiled(images)[0].argmax(1) == labels).mean() > 0.97
again = ov.Core().import_model(compiled.export_model().getvalue(), "CPU")
assert (again(images)[0] == compiled(images)[0]).all()
from ovjit.execution import runner
request = compiled.create_infer_request()
began = runner.clock()
request.infer(images)
words = request._job.words
assert began <= words[runner.STARTED] <= words[runner.ENDED] <= runner.clock()
from ovjit.storage import mapped, origins
pathlib.Path("large").write_bytes(bytes(range(256)) * (mapped.SMALLEST_MAPPED // 256))
memory = mapped.aligned(mapped.read_file("large", True))
own = mapped.pin(memory, [(0, 64)])
assert isinstance(own.base, numpy.ndarray) and own.ctypes.data != memory.ctypes.data and own[255] == 255
assert not origins.Origin("large", origins.file_state(os.stat("large"))).is_settled()
print("ran")
"""


def test_nothing_of_linux_alone_is_called(tmp_path) -> None:
    program = f"MODULES, NAMES, ROOT = {ELSEWHERE_MISSING!r}, {OF_LINUX!r}, {str(ROOT)!r}\n"
    program += f"OF_TIME = {OF_TIME!r}\n" + WITHOUT
    said = printed("-c", program, folder=tmp_path, OVJIT_CACHE=str(tmp_path / "cache"))
    assert said.strip() == "ran"


#: Everything that hands work over, compiled without the futex.
PORTABLE = """
from ovjit.codegen.cpu import systems
systems.name = "posix"  # what is made from here on sleeps in slices
import threading
import numpy as np
import ovjit as ov
from ovjit.codegen.cpu.host import host_target
from ovjit.data import digits
from ovjit.execution import runner
path, images, labels = digits()
found = ov.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 2})
expected = found(images)[0]
for streams in (1, 2):
    compiled = ov.compile_model(path, "CPU", {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": 2})
    request = compiled.create_infer_request()
    for _ in range(20):
        request.start_async(images)
        request.wait()
        assert np.array_equal(request.get_output_tensor(0).data, expected)
        assert np.array_equal(compiled(images)[0], expected)
    for callback in (True, False):
        queue, seen = ov.AsyncInferQueue(compiled, 3), {}
        if callback:
            queue.set_callback(lambda r, i: seen.__setitem__(i, r.get_output_tensor(0).data.copy()))
        for i in range(200):
            queue.start_async(images[i : i + 1], i)
        queue.wait_all()
        if callback:
            assert all((seen[i][0].argmax() == expected[i].argmax()) for i in range(200))
    def work():
        mine = compiled.create_infer_request()
        for i in range(50):
            mine.start_async(images[i : i + 5])
            assert mine.wait_for(60_000)
            assert (mine.get_output_tensor(0).data.argmax(1) == expected[i : i + 5].argmax(1)).all()
            done.append(1)
    done = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert len(done) == 150
text = runner.native_kernel("runner_queues").assembly(host_target())
print("usleep" in text, "syscall" in text)
"""


def test_work_is_handed_over_without_a_futex(tmp_path) -> None:
    said = printed("-c", PORTABLE, folder=tmp_path, OVJIT_CACHE="0", OVJIT_SHIPPED="0")
    assert said.split() == ["True", "False"]


def test_the_wheel_is_pure_python(tmp_path) -> None:
    """No file of it is for one machine, and what the package reads at run time is in it."""
    hatchling = pytest.importorskip("hatchling.build", reason="the wheel is built by hatchling")
    made = tmp_path / "wheels"
    made.mkdir()
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        name = hatchling.build_wheel(str(made))
    finally:
        os.chdir(before)
    assert name.endswith("-py3-none-any.whl")
    import zipfile

    names = zipfile.ZipFile(made / name).namelist()
    assert not [n for n in names if n.endswith((".so", ".pyd", ".dylib", ".dll", ".o"))]
    for wanted in ("ovjit/data/digits.xml", "ovjit/py.typed", "ovjit/integrations/served.py"):
        assert wanted in names


#: System -> what hands work over there, and what it asks for the time.
CALLS = {
    "linux": {"syscall", "clock_gettime", "sched_yield"},
    "darwin": {"__ulock_wait", "__ulock_wake", "clock_gettime", "sched_yield"},
    "windows": {
        "WaitOnAddress", "WakeByAddressSingle", "WakeByAddressAll", "QueryPerformanceCounter",
        "QueryPerformanceFrequency", "SwitchToThread",
    },
    "posix": {"usleep", "clock_gettime", "sched_yield"},
}  # fmt: skip


@pytest.mark.parametrize("isa", ["neon", "avx2"])
@pytest.mark.parametrize("system", CALLS)
def test_each_system_has_calls_of_its_own(system: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is compiled for each of them; here it runs with two of the four."""
    monkeypatch.setattr(systems, "name", system)
    texts = [kernel.assembly(TARGETS[isa]) for kernel in native_kernels()]
    called = set(re.findall(r"\t(?:bl|callq?)\t(\w+)", "\n".join(texts)))
    assert called == CALLS[system]


def test_time_in_nanoseconds_of_the_performance_counter() -> None:
    """As `windows.now` counts it: exactly, for a machine that has been on for years."""
    for each in (10_000_000, 3_579_545, 2_441_406):
        for count in (0, 1, each - 1, 3 * 365 * 86400 * each + 12345):
            wanted = count * 10**9 // each
            assert count // each * 10**9 + count % each * 10**9 // each == wanted < 1 << 63
            assert count % each * 10**9 < 1 << 63
