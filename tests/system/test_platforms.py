"""Checks for systems that are not available here: imports, functions that only Linux has, hand-over without
futex."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator

import pytest

from ovjit.codegen.cpu import systems
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.execution.runner import native_kernels
from tests.support import ROOT
from tests.support.house import sources, without_collections
from tests.support.run import printed

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
    with without_collections():
        wrong = [
            f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
            for path, text in sources()
            for node in at_import(ast.parse(text))
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
left_out = {"ovjit.as_openvino", "ovjit.as_onnxruntime",
            "ovjit.integrations.mlserver", "ovjit.integrations.mlserver_metrics",
            "ovjit.integrations.ray", "ovjit.__main__", "ovjit.compat.torch",
            "ovjit.compat.frontend.pytorch.torchdynamo.backend",
            "ovjit.compat.frontend.pytorch.torchdynamo.op_support", "ovjit.readers.frameworks.paddle_program",
            "ovjit.readers.tensorflow_graphs.lists",
            "ovjit.readers.tensorflow_graphs.complex_pairs",
            "ovjit.readers.tensorflow_graphs.graph_rewriter"}
root = pathlib.Path(ROOT)
for package in ("ovjit", "ovjit_ops"):
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        of_others = ("ovjit.integrations.vllm.", "ovjit.readers.frameworks.paddle_operators")
        others = name in left_out or name.startswith(of_others)  # want packages of others
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
memory = mapped.align(mapped.read_file("large", True))
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


#: Everything that hands work over.
HANDED_OVER = """
import threading
import numpy as np
import ovjit as ov
from ovjit.codegen.cpu.host import host_target
from ovjit.data import digits
from ovjit.execution import runner
path, images, labels = digits()
found = ov.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 2})
expected = found(images)[0]
few = images[:24]
expected_of_few = found(few)[0]
for streams in (1, 2):
    compiled = ov.compile_model(path, "CPU", {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": 2})
    request = compiled.create_infer_request()
    for _ in range(20):
        request.start_async(few)
        request.wait()
        assert np.array_equal(request.get_output_tensor(0).data, expected_of_few)
        assert np.array_equal(compiled(few)[0], expected_of_few)
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
"""

#: Compiled without the futex: what is made from here on sleeps in slices.
PORTABLE = f"""
from ovjit.codegen.cpu import systems
systems.name = "posix"
{HANDED_OVER}
print("usleep" in text, "syscall" in text)
"""


def test_work_is_handed_over_without_a_futex(tmp_path) -> None:
    said = printed("-c", PORTABLE, folder=tmp_path, OVJIT_CACHE="0", OVJIT_SHIPPED="0")
    assert said.split() == ["True", "False"]


#: What macOS and Windows have, by what Linux has, with a number of calls each. A wrong operation or size is
#: refused, as there. The counter runs at 10 MHz, as most of Windows' do.
STAND_INS = """
declare i64 @syscall(i64, ...)
declare i32 @clock_gettime(i32, i64*)
declare i32 @sched_yield()
@calls = global [8 x i64] zeroinitializer
define void @count(i64 %i) {
  %p = getelementptr [8 x i64], [8 x i64]* @calls, i64 0, i64 %i
  %old = atomicrmw add i64* %p, i64 1 seq_cst
  ret void
}
define i32 @wait(i64 %p, i32 %value, i64 %ns) {
  %spec = alloca [2 x i64]
  %first = getelementptr [2 x i64], [2 x i64]* %spec, i64 0, i64 0
  %second = getelementptr [2 x i64], [2 x i64]* %spec, i64 0, i64 1
  %s = udiv i64 %ns, 1000000000
  %rest = urem i64 %ns, 1000000000
  store i64 %s, i64* %first
  store i64 %rest, i64* %second
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, i64 %p, i64 128, i32 %value, i64* %first, i64 0, i64 0)
  %short = trunc i64 %r to i32
  ret i32 %short
}
define i32 @stir(i64 %p, i64 %count) {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, i64 %p, i64 129, i64 %count, i64 0, i64 0, i64 0)
  %short = trunc i64 %r to i32
  ret i32 %short
}
define i32 @__ulock_wait(i32 %operation, i64 %p, i64 %value, i32 %us) {
  %right = icmp eq i32 %operation, 16777217
  br i1 %right, label %go, label %no
go:
  call void @count(i64 0)
  %low = trunc i64 %value to i32
  %wide = zext i32 %us to i64
  %ns = mul i64 %wide, 1000
  %r = call i32 @wait(i64 %p, i32 %low, i64 %ns)
  ret i32 %r
no:
  call void @count(i64 7)
  ret i32 -22
}
define i32 @__ulock_wake(i32 %operation, i64 %p, i64 %value) {
  %kind = and i32 %operation, -257
  %right = icmp eq i32 %kind, 16777217
  br i1 %right, label %go, label %no
go:
  call void @count(i64 1)
  %flag = and i32 %operation, 256
  %all = icmp ne i32 %flag, 0
  %n = select i1 %all, i64 2147483647, i64 1
  %r = call i32 @stir(i64 %p, i64 %n)
  ret i32 %r
no:
  call void @count(i64 7)
  ret i32 -22
}
define i32 @WaitOnAddress(i64 %p, i64 %compared, i64 %bytes, i32 %ms) {
  %right = icmp eq i64 %bytes, 4
  br i1 %right, label %go, label %no
go:
  call void @count(i64 0)
  %at = inttoptr i64 %compared to i32*
  %value = load i32, i32* %at
  %wide = zext i32 %ms to i64
  %ns = mul i64 %wide, 1000000
  %r = call i32 @wait(i64 %p, i32 %value, i64 %ns)
  ret i32 1
no:
  call void @count(i64 7)
  ret i32 0
}
define void @WakeByAddressSingle(i64 %p) {
  call void @count(i64 1)
  %r = call i32 @stir(i64 %p, i64 1)
  ret void
}
define void @WakeByAddressAll(i64 %p) {
  call void @count(i64 1)
  %r = call i32 @stir(i64 %p, i64 2147483647)
  ret void
}
define i32 @QueryPerformanceCounter(i64 %p) {
  call void @count(i64 2)
  %spec = alloca [2 x i64]
  %first = getelementptr [2 x i64], [2 x i64]* %spec, i64 0, i64 0
  %second = getelementptr [2 x i64], [2 x i64]* %spec, i64 0, i64 1
  %r = call i32 @clock_gettime(i32 1, i64* %first)
  %s = load i64, i64* %first
  %ns = load i64, i64* %second
  %whole = mul i64 %s, 10000000
  %part = udiv i64 %ns, 100
  %ticks = add i64 %whole, %part
  %at = inttoptr i64 %p to i64*
  store i64 %ticks, i64* %at
  ret i32 1
}
define i32 @QueryPerformanceFrequency(i64 %p) {
  %at = inttoptr i64 %p to i64*
  store i64 10000000, i64* %at
  ret i32 1
}
define i32 @SwitchToThread() {
  %r = call i32 @sched_yield()
  ret i32 1
}
"""

#: Another system's functions in this process, `found`, and its module.
STANDING_IN = """
import ctypes, sys, time, types
name, names, text = sys.argv[1], sys.argv[2].split(), sys.argv[3]
from ovjit.codegen.cpu import elf, emit, machine, objects, systems
import llvmlite.binding as llvm
emit.initialize()
made_for = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
futex = "202" if machine.is_x86() else "98"
engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text.replace("FUTEX", futex)), made_for)
engine.finalize_object()
found = {name: engine.get_function_address(name) for name in names}
calls = (ctypes.c_int64 * 8).from_address(engine.get_global_value_address("calls"))
systems.name = name
elf.sys = types.SimpleNamespace(platform=name)  # llvmlite loads the code
"""

#: The runner of another system, with what it calls.
ELSEWHERE = (
    STANDING_IN
    + """
for function, address in found.items():
    llvm.add_symbol(function, address)
libraries = types.SimpleNamespace(**{n: ctypes.CFUNCTYPE(ctypes.c_int)(a) for n, a in found.items()})
objects.ctypes = types.SimpleNamespace(**{**vars(ctypes), "CDLL": lambda library: libraries})
"""
    + HANDED_OVER
    + """
assert "syscall" not in text
def clocks():  # Python's before and behind the runner's: another process may run between two readings
    return time.monotonic_ns(), runner.clock(), time.monotonic_ns()
first = clocks()
time.sleep(0.05)
last = clocks()
assert last[0] - first[2] - 1_000_000 < last[1] - first[1] < last[2] - first[0] + 1_000_000
print(*(n > 0 for n in calls))
"""
)

#: The same as macOS's object files, with another function of the C library.
MACH_O = (
    STANDING_IN
    + """
from tests.support import mach_o
distant = mach_o.compile_so(found)
"""
    + HANDED_OVER
    + """
op = ov.opset8
x = op.parameter([1, 30], np.float32)
given = np.linspace(0.2, 3, 30, dtype=np.float32)[None]
got = ov.compile_model(ov.Model([op.divide(op.tan(x), op.sinh(x))], [x], "m"), "CPU")([given])[0]
np.testing.assert_allclose(got, np.tan(given.astype(float)) / np.sinh(given.astype(float)), 1e-5)
print(*(n > 0 for n in calls), *sorted(distant.called))
"""
)


def given_to_stand_ins(system: str) -> tuple[str, str, str]:
    return system, " ".join(sorted(CALLS[system] - {"clock_gettime", "sched_yield"})), STAND_INS


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's functions stand in for others")
@pytest.mark.parametrize("system", ["darwin", "windows"])
def test_work_is_handed_over_by_what_other_systems_have(system: str, tmp_path) -> None:
    """Their modules run here, with functions of their names that wait by a futex."""
    given = {"OVJIT_CACHE": "0", "OVJIT_SHIPPED": "0"}
    said = printed("-c", ELSEWHERE, *given_to_stand_ins(system), folder=tmp_path, **given)
    waits, wakes, asks_for_the_time, *_, refused = said.split()
    assert (waits, wakes, refused) == ("True", "True", "False")
    assert asks_for_the_time == str(system == "windows")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's functions stand in for others")
def test_code_for_macos_calls_distant_functions(tmp_path) -> None:
    """Code of the small model branches to them, and LLVM's loader of Mach-O cannot reach them: it ends the
    process on Arm, and loads wrong branches on x86-64."""
    given = {"OVJIT_CACHE": "0", "OVJIT_SHIPPED": "0", "PYTHONPATH": str(ROOT)}
    said = printed("-c", MACH_O, *given_to_stand_ins("darwin"), folder=tmp_path, **given).split()
    assert said[:3] == ["True", "True", "False"] and said[7] == "False"
    assert CALLS["darwin"] < set(said[8:]), "functions of mathematics, too"


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
