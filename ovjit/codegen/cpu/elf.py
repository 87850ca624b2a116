"""Load the object code of kernels without llvmlite: ELF objects that LLVM emits for ovjit, on x86-64 and
AArch64 (`relocations.py`).

Each object gets a mapping: its sections, then a jump for each C library function that it calls. Memory is
writable first and executable afterwards, never both. Where a system does not let memory become executable,
the code is written to a file in memory that is mapped as executable from the beginning. Then the instruction
cache is flushed if the architecture requires it. Unknown content raises `Refused`, and llvmlite loads the
object. Importing llvmlite takes as long as the rest of a small model's warm start.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
import sys
from collections.abc import Callable

from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.relocations import ARCHITECTURES, Architecture, Memory
from ovjit.codegen.cpu.relocations import Foreign as Foreign
from ovjit.codegen.cpu.relocations import Refused as Refused
from ovjit.errors import UnsupportedError
from ovjit.records import NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")

_RELOCATABLE = 1
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _REL = 1, 2, 4, 8, 9
_ALLOC, _WRITE, _TLS = 2, 1, 0x400
_GLOBAL = 1
_JUMP_BYTES = 16  # an architecture's jump, followed by the address
_LARGEST = 1 << 28


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


def load_object(code: bytes) -> dict[str, int]:
    """symbol -> address of the object's global functions. Raises Refused, and UnsupportedError where this
    process may execute no code of its own."""
    architecture = ARCHITECTURES.get(machine.name())
    if not (sys.platform == "linux" and architecture and sys.maxsize > 1 << 32):
        raise Refused("objects of another operating system")
    try:
        return _load(bytes(code), architecture)
    except (struct.error, ArithmeticError, LookupError, ValueError, OSError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def _load(code: bytes, architecture: Architecture) -> dict[str, int]:
    sections = _sections(code, architecture)
    offsets, size = _layout(sections)
    table = next(s for s in (*sections, None) if s is None or s.kind == _SYMTAB)
    if table is None:
        raise Refused("the object has no symbols")
    symbols = [_Symbol(*fields) for fields in _SYMBOL.iter_unpack(_content(code, table))]
    texts = _content(code, sections[table.link])
    outside = {s.name for s in symbols[1:] if s.section == 0}
    jumps = {name: size + _JUMP_BYTES * i for i, name in enumerate(sorted(outside))}
    size = max(size + _JUMP_BYTES * len(jumps), 1)

    def address(symbol: _Symbol, base: int) -> int:
        if symbol.section == 0:
            return base + jumps[symbol.name]
        return base + offsets[symbol.section] + symbol.value

    def fill(memory: Memory, base: int) -> None:
        """Write the code that is to run at the address `base`."""
        for number, at in offsets.items():
            if sections[number].kind != _NOBITS:
                memory[at : at + sections[number].size] = _content(code, sections[number])
        for name, at in jumps.items():
            jump = architecture.jump + struct.pack("<Q", _external(_text(texts, name)))
            memory[at : at + len(jump)] = jump
        for section in sections:
            if section.kind == _REL:
                raise Refused("relocations without addends")
            if section.kind == _RELA and section.info in offsets:
                for offset, info, addend in _RELOCATION.iter_unpack(_content(code, section)):
                    kind = info & 0xFFFFFFFF
                    if kind not in architecture.sizes:
                        raise Refused(f"a relocation of the unknown kind {kind}")
                    if not 0 <= offset <= sections[section.info].size - architecture.sizes[kind]:
                        raise Refused("a relocation outside of its section")
                    at = offsets[section.info] + offset
                    target = address(symbols[info >> 32], base) + addend
                    architecture.apply(kind, memory, at, base + at, target)

    base = _executable(size, fill)
    if architecture.flushes:
        flush(base, size)
    return {_text(texts, s.name): address(s, base) for s in symbols if s.info >> 4 == _GLOBAL and s.section}


def _executable(size: int, fill: Callable[[Memory, int], None]) -> int:
    """The address of executable memory that `fill(memory, address)` has written. Raises UnsupportedError."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fill(memory, base)
    try:
        protect(base, size, mmap.PROT_READ | mmap.PROT_EXEC)
    except OSError:
        return _executable_file(size, fill)
    # One reference too many, so that code is never unmapped: a plan, a late worker, or a daemon thread behind
    # the end of Python's modules may still run it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    return base


def _executable_file(size: int, fill: Callable[[Memory, int], None]) -> int:
    """As `_executable`: the memory is that of a file without a name, and executable from the beginning."""
    try:
        descriptor = _memory_file()
        try:
            os.ftruncate(descriptor, size)
            base = _libc().mmap(None, size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED, descriptor, 0)
            if base in (None, _FAILED):
                raise OSError(0, "the system does not allow executable memory")
            content = bytearray(size)
            fill(content, base)
            os.pwrite(descriptor, content, 0)
        finally:
            os.close(descriptor)
    except (OSError, AttributeError) as error:
        raise UnsupportedError(_NOT_EXECUTABLE.format("compiled kernels cannot run")) from error
    return int(base)


def _memory_file() -> int:
    """The descriptor of a file in memory that may be executed. Raises OSError."""
    try:
        return os.memfd_create("ovjit", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError:  # before Linux 6.3
        return os.memfd_create("ovjit", os.MFD_CLOEXEC)


_MFD_EXEC = 0x10
_FAILED = (1 << 64) - 1  # MAP_FAILED
_NOT_EXECUTABLE = (
    "this process may not make memory executable, so {}: SELinux's deny_execmem, MemoryDenyWriteExecute of "
    "systemd or a filter of system calls forbids it. Allow it for this program (MemoryDenyWriteExecute=no, "
    "setsebool deny_execmem off)"
)


def check_executable(consequence: str) -> None:
    """Raise UnsupportedError, with the `consequence`, if memory that is written may not become executable:
    LLVM ends the process there, and Numba is not imported."""
    if sys.platform != "linux":
        return
    memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        protect(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, mmap.PROT_READ | mmap.PROT_EXEC)
    except OSError as error:
        raise UnsupportedError(_NOT_EXECUTABLE.format(consequence)) from error


def protect(address: int, size: int, allowed: int) -> None:
    """Restrict the pages of mapped memory to `allowed` (mmap.PROT_READ ...). Raises OSError."""
    if _libc().mprotect(address, (size + mmap.PAGESIZE - 1) & -mmap.PAGESIZE, allowed):
        raise OSError(0, "the system does not allow memory to be protected")


def flush(address: int, size: int) -> None:
    """Flush the instruction cache for new code. Raises Refused if no library has a function for it.

    Linux flushes when it makes pages executable, but the architecture requires it of the program.
    """
    clear = _clear_cache()
    if clear is None:
        raise Refused("no function flushes the instruction cache")
    clear(address, address + size)


@functools.cache
def _clear_cache() -> Callable[[int, int], None] | None:
    """`__clear_cache` of the compiler's run-time library (GCC or LLVM); None without one."""
    for name in (None, "libgcc_s.so.1", "libclang_rt.builtins.so"):
        try:
            clear = ctypes.CDLL(name).__clear_cache
        except (OSError, AttributeError):
            continue
        clear.argtypes, clear.restype = [ctypes.c_void_p, ctypes.c_void_p], None
        return clear
    return None


def _sections(code: bytes, architecture: Architecture) -> list[_Section]:
    ident, kind, number, _, _, _, start, _, _, _, _, each, count, _ = _HEADER.unpack_from(code)
    if ident[:6] != b"\x7fELF\x02\x01":
        raise Refused("the object is not a 64-bit ELF file")
    if number != architecture.machine:
        raise Foreign("the object is for another machine")
    if (kind, each) != (_RELOCATABLE, _SECTION.size):
        raise Refused("the object is not relocatable code")
    return [_Section(*_SECTION.unpack_from(code, start + i * each)) for i in range(count)]


def _layout(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """(section number -> its offset in the mapping, size of the mapping)."""
    offsets: dict[int, int] = {}
    size = 0
    for number, section in enumerate(sections):
        # sections for unwinding have another kind: kernels throw nothing
        if section.flags & _ALLOC and section.size and section.kind in (_PROGBITS, _NOBITS):
            if section.flags & (_WRITE | _TLS) or section.alignment > mmap.PAGESIZE:
                raise Refused("a writable section")
            align = max(section.alignment, 1)
            offsets[number] = (size + align - 1) // align * align
            size = offsets[number] + section.size
            if size > _LARGEST:
                raise Refused("the object is too large")
    return offsets, (size + _JUMP_BYTES - 1) & -_JUMP_BYTES


def _content(code: bytes, section: _Section) -> bytes:
    content = code[section.offset : section.offset + section.size]
    if len(content) != section.size:
        raise Refused("a section outside of the object")
    return content


def _text(texts: bytes, at: int) -> str:
    return texts[at : texts.index(b"\0", at)].decode()


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    out = [ctypes.CDLL(None)]
    try:
        out.append(ctypes.CDLL("libm.so.6"))
    except OSError:
        pass  # other C libraries contain its functions
    return tuple(out)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = _libraries()[0]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mmap.restype = ctypes.c_void_p
    return libc


def _external(name: str) -> int:
    """The address of a C library function. Raises Refused for unknown functions."""
    for library in _libraries():
        try:
            address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            continue
        if address:
            return address
    raise Refused(f"the function {name} is not in a loaded library")
