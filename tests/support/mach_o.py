"""Kernels as object files of macOS, loaded and run by a process of Linux.

LLVM generates them and its loader for Mach-O loads them. C functions are called by jumps that are mapped far
from all code, as macOS's shared libraries are.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import llvmlite.binding as llvm

from ovjit.codegen.cpu import elf, emit, machine, objects
from ovjit.codegen.cpu.relocations import ARCHITECTURES

TRIPLE = {"x86_64": "x86_64", "aarch64": "arm64"}.get(machine.name(), "") + "-apple-macosx13.0"
_MAGIC, _SYMBOL_TABLE = 0xFEEDFACF, 2
#: Bits of a symbol's kind: those of its type, which are 0 for an undefined one, and external.
_TYPE, _EXTERNAL = 0x0E, 0x01
#: An address far from code and libraries, and bytes for jumps.
_FAR, _SIZE, _EACH = 1 << 36, 1 << 16, 16
#: Function of macOS -> Linux's.
_NAMES = {"__bzero": "bzero"}


def undefined(code: bytes) -> Iterator[str]:
    """The symbols of a Mach-O object that another one defines."""
    magic, *_, commands, _, _, _ = struct.unpack_from("<8I", code)
    assert magic == _MAGIC, "no Mach-O object of 64 bits"
    at = 32
    for _ in range(commands):
        command, size = struct.unpack_from("<II", code, at)
        if command == _SYMBOL_TABLE:
            symbols, count, texts, _ = struct.unpack_from("<4I", code, at + 8)
            for i in range(count):
                name, kind, _, _, _ = struct.unpack_from("<IBBHQ", code, symbols + 16 * i)
                if kind & _TYPE == 0 and kind & _EXTERNAL:
                    begin = texts + name
                    yield code[begin : code.index(b"\0", begin)].decode()
        at += size


class Distant:
    """Jumps to functions, far away. `called`: the names of the functions that have one."""

    def __init__(self, own: Mapping[str, int]):
        self._own = own
        self.called: dict[str, int] = {}
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        allowed = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._at = libc.mmap(_FAR, _SIZE, allowed, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)

    def add(self, symbol: str) -> None:
        """Let LLVM's loader find the symbol, which is a C function's name behind an underscore."""
        name = symbol[1:]
        if name in self.called:
            return
        address = self._own.get(name) or elf._external(_NAMES.get(name, name))
        jump = ARCHITECTURES[machine.name()].jump + struct.pack("<Q", address)
        at = self._at + _EACH * len(self.called)
        ctypes.memmove(at, jump, len(jump))
        if machine.is_arm():
            elf.flush(at, len(jump))
        llvm.add_symbol(symbol, at)
        self.called[name] = at


def compile_so(own: Mapping[str, int]) -> Distant:
    """Compile and load all kernels of this process so from now on. `own`: functions that Linux lacks."""
    emit.initialize_all()
    distant = Distant(own)
    load = objects._load_by_llvm

    def engine(*_: Any) -> Any:
        made_for = llvm.Target.from_triple(TRIPLE).create_target_machine(reloc="pic", codemodel="small")
        return llvm.create_mcjit_compiler(llvm.parse_assembly(f'target triple = "{TRIPLE}"'), made_for)

    def loading(symbol: str, code: bytes) -> int:
        for name in undefined(code):
            distant.add(name)
        return load(symbol, code)

    emit.triple = lambda isa: TRIPLE
    objects._execution_engine = engine
    objects._load_by_llvm = loading
    return distant
