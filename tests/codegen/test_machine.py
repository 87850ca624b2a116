"""The architecture decides first what this machine can do, and an unknown one is named in an error."""

from __future__ import annotations

import builtins
import io
import os
import platform
import sys
import sysconfig
import types
from collections.abc import Iterator

import pytest

import ovjit as ov
from ovjit.codegen import kernel
from ovjit.codegen.cpu import emit, host, machine
from ovjit.codegen.cpu.targets import target_of
from ovjit.data import digits
from ovjit.errors import OvjitError, UnsupportedError
from tests.support.run import printed, python

CACHED = (
    machine.name, machine.check, machine.arm_features, host._cpu_fields, host._features, host.best_target,
    host._host, emit.initialize,
)  # fmt: skip


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What is known of this machine is forgotten, before and after the test has set another."""
    for function in CACHED:
        function.cache_clear()
    monkeypatch.delenv("OVJIT_ISA", raising=False)  # it names one of this machine's
    yield monkeypatch
    monkeypatch.undo()
    for function in CACHED:
        function.cache_clear()


def call_it(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: said)


@pytest.mark.parametrize(
    "said, name", [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("arm64", "aarch64"), ("ppc64le", "ppc64le")]
)
def test_architectures_have_one_name(said: str, name: str, another) -> None:
    call_it(another, said)
    assert machine.name() == name


@pytest.mark.parametrize("said", ["riscv64", "s390x", "i686", ""])
def test_an_unknown_machine_is_named(said: str, another) -> None:
    call_it(another, said)
    for attempt in (host.host_target, emit.initialize):
        with pytest.raises(UnsupportedError, match=f"{said or 'unknown'}.*x86_64 and aarch64") as caught:
            attempt()
        assert isinstance(caught.value, OvjitError)


def test_windows_is_asked_what_python_is_for(another) -> None:
    """There is no `os.uname`, and `platform.machine` may tell the CPU below an emulator."""
    another.delattr(os, "uname")
    another.setattr(platform, "machine", lambda: "ARM64")
    for said, name in (("win-amd64", "x86_64"), ("win-arm64", "aarch64")):
        machine.name.cache_clear()
        another.setattr(sysconfig, "get_platform", lambda said=said: said)
        assert machine.name() == name
    machine.name.cache_clear()
    another.setattr(sysconfig, "get_platform", lambda: "win32")
    with pytest.raises(UnsupportedError, match="this machine is 'x86'"):
        host.host_target()


@pytest.mark.parametrize("said", ["x86_64", "aarch64"])
def test_a_python_of_32_bits_is_refused(said: str, another) -> None:
    """Whatever the kernel below it is called."""
    call_it(another, said)
    another.setattr(machine, "sys", types.SimpleNamespace(platform="linux", maxsize=(1 << 31) - 1))
    with pytest.raises(UnsupportedError, match=f"'{said}'.*32-bit"):
        host.host_target()


#: What a program may do first on a machine of another name, where Numba cannot be installed: each call works,
#: or raises ovjit's own error.
UNKNOWN = """
import os, platform, sys
import numpy as np
platform.machine, platform.processor = lambda: sys.argv[1], lambda: ""
if sys.argv[3] == "os":  # so does what the system calls itself
    called = os.uname_result((*tuple(os.uname())[:4], sys.argv[1]))
    os.uname = lambda: called

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("numba", "llvmlite"):
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Missing())
import ovjit as ov
from ovjit.__main__ import main
from ovjit.data import digits
path, images, labels = digits()
blob = open(sys.argv[2], "rb").read()
core, model = ov.Core(), ov.Core().read_model(path)
first = model.input(0)
plain = {
    "read": lambda: core.read_model(path),
    "write": lambda: ov.save_model(model, "again.xml"),
    "query": lambda: core.query_model(model, "CPU"),
    "devices": lambda: core.available_devices,
    "name": lambda: core.get_property("CPU", "FULL_DEVICE_NAME"),
    "tensor": lambda: ov.Tensor(np.zeros(3, np.float32)).data.sum(),
    "reshape": lambda: model.reshape([4, 1, 8, 8]),
    "version": lambda: main(["--help"]),
}
refused = {
    "compile": lambda: core.compile_model(model, "CPU"),
    "compile a file": lambda: ov.compile_model(path),
    "with a folder": lambda: core.compile_model(path, "CPU", {"CACHE_DIR": "models"}),
    "import": lambda: core.import_model(blob, "CPU"),
    "capabilities": lambda: core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
}
for name, call in plain.items():
    try:
        call()
    except SystemExit as done:
        assert not done.code, name
for name, call in refused.items():
    try:
        call()
    except ov.errors.OvjitError as error:
        told = f"this machine is {sys.argv[1]!r}, linux: ovjit supports only x86_64"
        assert str(error).startswith(told), error
    else:
        raise AssertionError(name)
assert main(["demo"]) == 2 and main(["profile", str(path)]) == 2
print("told")
"""


@pytest.mark.parametrize(
    ("said", "by"),
    [("riscv64", "os"), ("armv7l", "platform"), ("i686", "os"), ("ppc64le", "platform")],
)
def test_a_program_on_an_unknown_machine_is_told(said: str, by: str, tmp_path) -> None:
    blob = tmp_path / "x86.blob"
    blob.write_bytes(ov.compile_model(digits()[0], "CPU").export_model().getvalue())
    done = python("-c", UNKNOWN, said, blob, by, folder=tmp_path, OVJIT_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("told\n")
    assert done.stderr.count(f"ovjit: this machine is {said!r}") == 2


#: A process whose system reports the other architecture.
MISREPORTED = """
import platform, sys
platform.machine = lambda: sys.argv[1]
import ovjit as ov
from ovjit.data import digits
try:
    ov.compile_model(digits()[0], "CPU")
except ov.errors.OvjitError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(sys.implementation, "_multiarch"), reason="Python does not say it")
def test_a_python_of_the_other_architecture_is_refused(tmp_path) -> None:
    """LLVM ended the process with the status 1, and shipped code would end it by a signal."""
    other, own = ("aarch64", "x86_64") if machine.is_x86() else ("x86_64", "aarch64")
    said = printed("-c", MISREPORTED, other, folder=tmp_path, OVJIT_ISA="", OVJIT_HIDE="")
    assert said.startswith(f"this machine is '{other}', linux, but this Python is built for {own}")


def test_arm_is_asked_for_its_own_features(another) -> None:
    """And not for those of the list that an emulator shows, which are the host's."""
    call_it(another, "aarch64")
    words = {16: 1 << 1 | 1 << 20 | 1 << 23, 26: 1 << 13}
    another.setattr(machine, "_auxiliary", words.get)
    assert machine.arm_features() == {"asimd", "asimddp", "asimdfhm", "i8mm"}
    assert host.best_target() == "neon" and host.host_target().name == "neon"
    assert host.host_target().llvm_features.endswith(",+dotprod,+i8mm,+fp16fml")
    another.setenv("OVJIT_ISA", "avx2")
    with pytest.raises(ValueError, match="OVJIT_ISA=avx2 is not usable on this CPU; choose one of neon, gen"):
        host.host_target()
    another.setenv("OVJIT_ISA", "generic")
    assert host.host_target().machine == "aarch64"
    machine.arm_features.cache_clear()
    another.setattr(machine, "_auxiliary", lambda word: 0)
    each = ("fp asimd bf16 asimddp crc32", "fp asimd bf16")  # a large core and a small one
    listed = "\n".join(f"processor\t: {i}\nFeatures\t: {has}\n" for i, has in enumerate(each))
    real = builtins.open
    another.setattr(
        builtins,
        "open",
        lambda path, *a, **k: io.StringIO(listed) if path == "/proc/cpuinfo" else real(path, *a, **k),
    )
    assert machine.arm_features() == {"asimd", "bf16"}
    machine.arm_features.cache_clear()
    listed = "processor\t: 0\nflags\t: avx2\n"  # an emulator shows the host's
    assert machine.arm_features() == {"asimd"}


#: One CPU of x86-64 in /proc/cpuinfo.
LISTED = (
    b"processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: A name\n"
    b"stepping\t: 8\nflags\t\t: fpu avx2 fma\n\n"
)
#: What a list may be instead, of which nothing is taken.
ODD = {
    "empty": b"",
    "of an emulator's host": b"processor\t: 0\nFeatures\t: fp asimd\n\n",
    "without a stepping": LISTED.replace(b"stepping\t: 8\n", b""),
    "without flags": LISTED.replace(b"fpu avx2 fma", b""),
    "not UTF-8": LISTED.replace(b"A name", b"A\xff name"),
    "cut": LISTED[:70],
    "flags of another CPU": LISTED.replace(b"stepping", b"\nstepping"),
}


@pytest.mark.parametrize("what", ODD)
def test_a_list_of_flags_that_is_not_whole_is_not_believed(what: str, another) -> None:
    """LLVM is asked then."""
    real = builtins.open

    def opened(path, *a, **k):
        return io.BytesIO(listed) if path == "/proc/cpuinfo" else real(path, *a, **k)

    another.setattr(builtins, "open", opened)
    listed = LISTED * 2
    assert host._cpu_fields() == ("GenuineIntel", "6", "143", "A name", "8", "fpu avx2 fma")
    host._cpu_fields.cache_clear()
    listed = ODD[what]
    assert host._cpu_fields() is None


@pytest.mark.parametrize("words", [(1 << 64) - 1, 1 << 1, 1 << 1 | 1 << 63])
def test_bits_of_later_features_are_no_features(words: int, another) -> None:
    """The auxiliary vector of a CPU may have any bits beside those that are known."""
    call_it(another, "aarch64")
    another.setattr(machine, "_auxiliary", lambda word: words)
    target = host.host_target()
    assert target.name == "neon" and (len(target.extras) == 5) is (words + 1 == 1 << 64)


def test_macs_are_asked_for_features_beyond_vectors(another) -> None:
    """All of them have vectors, whose name of old systems is another one."""
    call_it(another, "arm64")
    another.setattr(sys, "platform", "darwin")
    have = {f"hw.optional.arm.FEAT_{name}" for name in ("DotProd", "FHM")}
    another.setattr(machine, "_sysctl", have.__contains__)
    assert machine.arm_features() == {"asimd", "asimddp", "asimdfhm"}
    another.setattr(machine, "_sysctl", lambda asked: False)
    machine.arm_features.cache_clear()
    assert machine.arm_features() == {"asimd"}


def test_arm_without_vectors_is_refused(another) -> None:
    call_it(another, "aarch64")
    another.setattr(machine, "_auxiliary", lambda word: 1 << 0)
    with pytest.raises(UnsupportedError, match="aarch64.*asimd"):
        host.host_target()


def test_kernels_of_another_architecture_have_other_names() -> None:
    """A folder of the cache may be shared, and code of the one ends the process on the other."""
    names = []
    for said in ("x86_64", "aarch64"):
        names.append(kernel._digest("text", "", target_of("generic", machine=said), "", ""))
    assert names[0] != names[1]


PRINTED = """
from ovjit.codegen.cpu import emit, host, machine
machine.name = lambda: "aarch64"
machine._auxiliary = lambda word: 2
import llvmlite.binding as llvm
from ovjit.execution import runner
generic = host.host_target()
llvm.initialize_all_targets(); llvm.initialize_all_asmprinters()
made_for = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(
    cpu="generic", opt=0, reloc="pic", codemodel="small")
for one in runner.native_kernels():
    text = one.text(generic)
    lines = [l for l in text.splitlines() if not l.startswith(("target triple", "target datalayout"))]
    print(made_for.emit_assembly(llvm.parse_assembly("\\n".join(lines))))
"""


def test_the_runner_in_arms_instructions(tmp_path) -> None:
    """Atomics have their order in the instruction; what waits yields, and sleeps by Arm's own system call."""
    text = printed("-c", PRINTED, OVJIT_CACHE=str(tmp_path), OVJIT_ISA="")
    words = set(text.split())
    assert words >= {"ldar", "stlr", "ldaxr", "stlxr", "yield", "mrs", "msr"} and "dmb" not in words
    assert "#98" in text and "#202" not in text
    assert "fpcr" in text.lower()


#: A process in which llvmlite or Numba are missing, or do not load. `gone`: their metadata, too.
LACKING = """
import importlib.metadata, importlib.util, sys
name, gone, error = sys.argv[1], sys.argv[2] == "gone", eval(sys.argv[3])
find, version = importlib.util.find_spec, importlib.metadata.version

class Missing:
    def find_spec(self, asked, path=None, target=None):
        if asked.partition(".")[0] == name:
            raise error

def asked_version(package):
    if package == name:
        raise importlib.metadata.PackageNotFoundError(package)
    return version(package)

def asked_spec(asked, package=None):
    return None if asked == name else find(asked, package)

if gone:
    importlib.util.find_spec, importlib.metadata.version = asked_spec, asked_version
import numpy as np, ovjit as ov
from ovjit import opset13
x = opset13.parameter([3, 7], np.float32)
model = ov.Model([opset13.relu(x)], [x], "m")
from ovjit.codegen import versions
if not gone:
    versions.versions()
sys.meta_path.insert(0, Missing())
try:
    ov.compile_model(model, "CPU")
except ov.errors.OvjitError as raised:
    print(raised)
"""


@pytest.mark.parametrize("package", ["numba", "llvmlite"])
@pytest.mark.parametrize(
    ("gone", "error"),
    [("gone", "ImportError('none here')"), ("there", "OSError('a library of another system')")],
)
def test_a_machine_without_a_compiler_is_told(package: str, gone: str, error: str, tmp_path) -> None:
    """As where no wheel of llvmlite fits. It was the error of the import."""
    given = {"OVJIT_CACHE": "0", "OVJIT_SHIPPED": "0"}
    said = printed("-c", LACKING, package, gone, error, folder=tmp_path, **given)
    assert said.startswith(f"this machine is {machine.name()!r}, {sys.platform}, and ")
    assert eval(error).args[0] in said and "ovjit supports x86_64 and aarch64" in said
