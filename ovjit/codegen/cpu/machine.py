"""What machine this is: its architecture first, then what its CPU has, asked where that architecture says it.

A CPU is never told by a list that may be another's: an emulator shows programs the host's `/proc/cpuinfo`,
but its own architecture and its own auxiliary vector.
"""

from __future__ import annotations

import functools
import os
import sys

from ovjit.errors import UnsupportedError

X86_64, AARCH64 = "x86_64", "aarch64"
#: What systems call an architecture, where that is not LLVM's name.
_SPELLED = {"amd64": X86_64, "x64": X86_64, "arm64": AARCH64, "win32": "x86"}

_AT_HWCAP, _AT_HWCAP2 = 16, 26
#: What is assumed where a system says nothing: the calling conventions of all have these vectors.
_ALWAYS = frozenset(("asimd",))
#: feature as Linux calls it -> (its word of the auxiliary vector, its bit, macOS's name of it)
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
    """The architecture of this process: "x86_64", "aarch64", or what else the system calls it."""
    if hasattr(os, "uname"):
        said = os.uname().machine
    else:
        # Windows: what this Python has been built for. ARM64 runs those for x86-64, too, and `platform`
        # calls such a process one or the other, by its version
        import sysconfig

        said = sysconfig.get_platform().removeprefix("win-")
    said = said.lower()
    return _SPELLED.get(said, said)


def is_x86() -> bool:
    return name() == X86_64


def is_arm() -> bool:
    return name() == AARCH64


@functools.cache
def check() -> None:
    """Raise UnsupportedError where no code can be made for this machine. LLVM would end the process."""
    what = f"this machine is {name() or 'unknown'!r}, {sys.platform}"
    if name() not in (X86_64, AARCH64):
        raise UnsupportedError(f"{what}: ovjit compiles for x86_64 and aarch64 alone (docs/platforms.md)")
    if sys.maxsize < 1 << 32:
        raise UnsupportedError(f"{what}, and this Python has 32 bits: ovjit needs one of 64 bits")
    if is_arm() and "asimd" not in arm_features():
        raise UnsupportedError(f"{what}, without the vectors (asimd) that ovjit's code has to have")


@functools.cache
def arm_features() -> frozenset[str]:
    """What an AArch64 CPU has, by Linux's names; no more than the system lets programs use."""
    if sys.platform == "darwin":
        return _ALWAYS | {f for f, (_, _, asked) in _ARM.items() if asked and _sysctl(asked)}
    if sys.platform != "linux":
        return _ALWAYS
    words = {word: _auxiliary(word) for word in (_AT_HWCAP, _AT_HWCAP2)}
    if not any(words.values()):
        listed = _listed()
        return _ALWAYS if listed is None else listed.intersection(_ARM)
    return frozenset(f for f, (word, bit, _) in _ARM.items() if words[word] >> bit & 1)


#: Linux's system call and its request for the registers of AMX (x86-64), which a process has to ask for.
_ARCH_PRCTL, _ASK_FOR_STATE, _TILES = 158, 0x1023, 18


@functools.cache
def may_use_tiles() -> bool:
    """Whether Linux lets this process use AMX's registers: asked for once, for all threads and children."""
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


def _listed() -> frozenset[str] | None:
    """The features of all CPUs in `/proc/cpuinfo`, which may be of several kinds; None where it has none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":")[2] for line in file if line.startswith("Features")]
    except OSError:
        return None
    return frozenset.intersection(*(frozenset(line.split()) for line in lines)) if lines else None


def _sysctl(asked: str) -> bool:
    import ctypes

    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError):
        return False
    failed = ask(asked.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return failed == 0 and value.value != 0
