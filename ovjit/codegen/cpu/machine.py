"""Detection of this machine: its architecture, then its CPU's features, by a source of that architecture.

`/proc/cpuinfo` alone is not trusted: an emulator shows the host's file, but its own architecture and
auxiliary vector.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Iterator

from ovjit.errors import UnsupportedError
from ovjit.out_of_memory import is_shortage, lacks_memory

X86_64, AARCH64 = "x86_64", "aarch64"
#: The architecture of NVIDIA GPUs, which no process runs on.
NVPTX = "nvptx64"
#: A system's name of an architecture -> LLVM's name.
_SPELLED = {"amd64": X86_64, "x64": X86_64, "arm64": AARCH64, "win32": "x86"}

_AT_HWCAP, _AT_HWCAP2 = 16, 26
#: Features of all AArch64 systems: their calling conventions require these vectors.
_ALWAYS = frozenset(("asimd",))
#: Linux's name of a feature -> (entry of the auxiliary vector, bit, macOS's name)
_ARM = {
    "asimd": (_AT_HWCAP, 1, ""),
    "atomics": (_AT_HWCAP, 8, "hw.optional.arm.FEAT_LSE"),
    "asimdhp": (_AT_HWCAP, 10, "hw.optional.arm.FEAT_FP16"),
    "asimddp": (_AT_HWCAP, 20, "hw.optional.arm.FEAT_DotProd"),
    "asimdfhm": (_AT_HWCAP, 23, "hw.optional.arm.FEAT_FHM"),
    "sve": (_AT_HWCAP, 22, ""),
    "i8mm": (_AT_HWCAP2, 13, "hw.optional.arm.FEAT_I8MM"),
    "bf16": (_AT_HWCAP2, 14, "hw.optional.arm.FEAT_BF16"),
}


@functools.cache
def name() -> str:
    """The architecture of this process: "x86_64", "aarch64", or the system's name of another one."""
    if hasattr(os, "uname"):
        reported = platform.machine()
    else:
        # Windows: the architecture that this Python was built for. ARM64 also runs x86-64 processes, for
        # which `platform` reports either architecture, depending on Python's version
        import sysconfig

        reported = sysconfig.get_platform().removeprefix("win-")
    reported = reported.lower()
    return _SPELLED.get(reported, reported)


def is_x86() -> bool:
    return name() == X86_64


def is_arm() -> bool:
    return name() == AARCH64


@functools.cache
def check() -> None:
    """Raise UnsupportedError if no code can be generated for this machine: LLVM would abort the process."""
    what = f"this machine is {name() or 'unknown'!r}, {sys.platform}"
    if name() not in (X86_64, AARCH64):
        raise UnsupportedError(f"{what}: ovjit supports only x86_64 and aarch64 (docs/platforms.md)")
    if sys.maxsize < 1 << 32:
        raise UnsupportedError(f"{what}, and this Python is a 32-bit build: ovjit needs a 64-bit Python")
    if is_arm() and "asimd" not in arm_features():
        raise UnsupportedError(f"{what} without the vector instructions (asimd) that ovjit needs")


@functools.cache
def check_process() -> None:
    """Raise UnsupportedError if this Python is known to be built for another architecture than the system
    reports: code for the reported one would end the process."""
    built = getattr(sys.implementation, "_multiarch", "").partition("-")[0]
    if built in (X86_64, AARCH64) and built != name():
        raise UnsupportedError(
            f"this machine is {name()!r}, {sys.platform}, but this Python is built for {built}: ovjit needs "
            f"one that is built for {name()}"
        )


@contextlib.contextmanager
def needing(package: str) -> Iterator[None]:
    """Raise UnsupportedError with the machine and the reason if `package`, which makes code, cannot be
    imported: it is missing, or its library is for another system."""
    try:
        yield
    except (ImportError, OSError) as error:
        if lacks_memory(error):
            raise MemoryError(f"not enough memory to import {package}: {error}") from error
        if is_shortage(error):
            raise
        raise UnsupportedError(
            f"this machine is {name()!r}, {sys.platform}, and {package} cannot be imported: {error}. ovjit "
            "supports x86_64 and aarch64 where Numba and llvmlite can be installed (docs/platforms.md)"
        ) from error


@functools.cache
def arm_features() -> frozenset[str]:
    """The features of an AArch64 CPU that the system lets programs use, by Linux's names."""
    if sys.platform == "darwin":
        return _ALWAYS | {f for f, (_, _, sysctl) in _ARM.items() if sysctl and _sysctl(sysctl)}
    if sys.platform != "linux":
        return _ALWAYS
    words = {word: _auxiliary(word) for word in (_AT_HWCAP, _AT_HWCAP2)}
    if not any(words.values()):
        listed = _find_common_features()
        return _ALWAYS if listed is None else listed.intersection(_ARM)
    return frozenset(f for f, (word, bit, _) in _ARM.items() if words[word] >> bit & 1)


#: Linux's system call and request by which a process gets permission to use AMX's registers (x86-64).
_ARCH_PRCTL, _ASK_FOR_STATE, _TILES = 158, 0x1023, 18


@functools.cache
def may_use_tiles() -> bool:
    """Request permission to use AMX's registers, for all threads and children. Returns whether it is
    given."""
    if sys.platform != "linux" or not is_x86():
        return False
    import ctypes

    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK_FOR_STATE, _TILES) == 0)


def _auxiliary(word: int) -> int:
    import ctypes

    try:
        ask = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return 0
    ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
    return ask(word)


def _find_common_features() -> frozenset[str] | None:
    """The features that all CPUs in `/proc/cpuinfo` have; None if it lists none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":")[2] for line in file if line.startswith("Features")]
    except OSError:
        return None
    return frozenset.intersection(*(frozenset(line.split()) for line in lines)) if lines else None


def _sysctl(key: str) -> bool:
    import ctypes

    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError):
        return False
    failed = ask(key.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return failed == 0 and value.value != 0
