"""Python on emulated AArch64: qemu's user mode, Debian's Python 3.11 and PyPI's wheels for Arm.

    python -m tests.support.aarch64 -m ovjit demo           QEMU_CPU names the CPU

`prepare` fills the folder OVJIT_AARCH64 (by default one of the temporary folder) in some two minutes; it is
for Debian and Ubuntu, asks PyPI, and needs root where qemu-user-static or apt's lists for arm64 are missing.
Results are an AArch64 CPU's; the order of memory accesses and the time they take are this machine's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support import ROOT
from tests.support.environments import new_environment

HOME = Path(os.environ.get("OVJIT_AARCH64") or Path(tempfile.gettempdir()) / "ovjit-aarch64")
#: One of the first 64-bit server cores; one with dotprod and LSE; every feature of the emulator.
CPUS = ("cortex-a72", "neoverse-n1", "max")
#: What qemu is told. NumPy's BLAS gives NaN with SVE there, which ovjit does not use.
_TOLD = {"max": "max,sve=off"}
_EMULATOR = "qemu-aarch64-static"
_DEBS = (
    "python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 "
    "zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libreadline8 libtinfo6 "
    "libncursesw6 "
    "libcrypt1 libdb5.3 libnsl2 libtirpc3 libgomp1"
).split()
_WHEELS = (
    "numba llvmlite numpy defusedxml ml_dtypes onnx platformdirs pytest pytest-timeout pytest-xdist "
    "cloudpickle pillow gguf openvino>=2026.4"
).split()
_TAGS = ["manylinux2014", *(f"manylinux_2_{n}" for n in (17, 26, 27, 28, 31, 34, 35))]
#: Programs have a PYTHONPATH of their own, which does not name packages for another machine.
_SCRIPT = """#!/bin/sh
export PYTHONPATH="$OVJIT_AARCH64_SITE:$PYTHONPATH:{home}/site"
exec {emulator} -cpu "${{QEMU_CPU:-max}}" -L "{home}/root" "{home}/root/usr/bin/python3.11" "$@"
"""
#: Imported by Python as it starts.
_SITE = Path(__file__).parent / "aarch64_site"


def is_ready() -> bool:
    """Whether what is named above is all there."""
    ready = HOME / "ready"
    return ready.exists() and ready.read_text() == _wanted() and shutil.which(_EMULATOR) is not None


def _wanted() -> str:
    return " ".join((*_DEBS, *_WHEELS, _SCRIPT))


def prepare() -> None:
    """Fill the folder, once. RuntimeError with what failed."""
    if is_ready():
        return
    if shutil.which("apt-get") is None:
        raise RuntimeError("an emulated AArch64 is prepared on Debian and Ubuntu alone: there is no apt-get")
    for folder in ("root", "site", "debs", "wheels"):
        (HOME / folder).mkdir(parents=True, exist_ok=True)
    if shutil.which(_EMULATOR) is None:
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-y", "-qq", "qemu-user-static")
    if "arm64" not in _run("dpkg", "--print-foreign-architectures").split():
        _run("dpkg", "--add-architecture", "arm64")
        _run("apt-get", "update", "-qq")
    _run("apt-get", "download", "-qq", *(f"{name}:arm64" for name in _DEBS), folder=HOME / "debs")
    for package in (HOME / "debs").glob("*.deb"):
        _run("dpkg", "-x", str(package), str(HOME / "root"))
    pip = new_environment(HOME / "pip")
    platforms = [word for tag in _TAGS for word in ("--platform", f"{tag}_aarch64")]
    abis = [word for abi in ("cp311", "abi3", "none") for word in ("--abi", abi)]
    _run(
        str(pip), "-m", "pip", "download", "-q", "--only-binary=:all:", *platforms, *abis,
        "--python-version", "3.11", "--implementation", "cp", "-d", str(HOME / "wheels"), *_WHEELS,
    )  # fmt: skip
    for wheel in (HOME / "wheels").glob("*.whl"):
        shutil.unpack_archive(wheel, HOME / "site", "zip")
    script = HOME / "python"
    script.write_text(_SCRIPT.format(home=HOME, emulator=_EMULATOR))
    script.chmod(0o755)
    (HOME / "ready").write_text(_wanted())


def _run(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ...: {done.stderr[-1000:]}")
    return done.stdout


def environment(cpu: str, cache: Path | str) -> dict[str, str]:
    """The variables of a process on that CPU, whose kernels go to `cache`."""
    keep = {k: v for k, v in os.environ.items() if k not in ("OVJIT_ISA", "OVJIT_HIDE")}
    return keep | {
        "PYTHONPATH": str(ROOT), "OVJIT_AARCH64_SITE": str(_SITE), "OVJIT_CACHE": str(cache),
        "QEMU_CPU": _TOLD.get(cpu, cpu), "PYTHONDONTWRITEBYTECODE": "1",
        "OVJIT_AARCH64_PYTHON": str(HOME / "python"), "OVJIT_TEST_PATIENCE": "10",
    }  # fmt: skip


def run(cpu: str, cache: Path | str, *arguments: str, timeout: float = 1400, **variables: str) -> str:
    """What Python says to these arguments on that CPU, with more environment `variables`. AssertionError with
    its errors where it fails."""
    done = subprocess.run(
        [str(HOME / "python"), *arguments], capture_output=True, text=True, check=False, timeout=timeout,
        env=environment(cpu, cache) | variables, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    prepare()
    cpu = os.environ.get("QEMU_CPU", "max")
    return subprocess.call([str(HOME / "python"), *arguments], env=environment(cpu, HOME / "cache"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
