"""Relocations of ELF objects, and jumps to distant functions, for each architecture.

`apply(kind, memory, at, place, target)` applies a relocation at the offset `at` of `memory`, which has the
address `place`, for the address `target` (symbol + addend). The kinds are those that LLVM emits for kernels:
position-independent code of the small code model. Numbers and equations are from "ELF for the Arm 64-bit
Architecture" and the "System V ABI, AMD64 supplement".
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import TypeAlias

from ovjit.records import NamedTuple

Memory: TypeAlias = "mmap.mmap | bytearray"


class Refused(Exception):
    """The object has content that this loader does not support."""


class Foreign(Refused):
    """The object is for another machine."""


class Architecture(NamedTuple):
    """`machine`: its number in ELF's header. `sizes`: relocation -> bytes that it writes. `jump`:
    instructions that jump to the address in the 8 bytes after them. `flushes`: the instruction cache must be
    flushed for new code."""

    machine: int
    sizes: dict[int, int]
    apply: Callable[[int, Memory, int, int, int], None]
    jump: bytes
    flushes: bool


def _x86_64(kind: int, memory: Memory, at: int, pc: int, target: int) -> None:
    if kind == _X86_ABSOLUTE_64:
        struct.pack_into("<Q", memory, at, target)
    else:  # PC32, PLT32
        struct.pack_into("<i", memory, at, target - pc)


_X86_ABSOLUTE_64, _X86_PC32, _X86_PLT32 = 1, 2, 4

(
    _ABS64, _ABS32, _PREL64, _PREL32, _ADR_PREL_LO21, _ADR_PREL_PG_HI21, _ADD_ABS_LO12_NC,
    _LDST8_ABS_LO12_NC, _JUMP26, _CALL26, _LDST16_ABS_LO12_NC, _LDST32_ABS_LO12_NC, _LDST64_ABS_LO12_NC,
    _LDST128_ABS_LO12_NC,
) = (257, 258, 260, 261, 274, 275, 277, 278, 282, 283, 284, 285, 286, 299)  # fmt: skip
_ADR_REACH = 1 << 20
#: Loads and stores have offsets in elements: relocation -> log2 of an element's bytes.
_SCALES = {
    _ADD_ABS_LO12_NC: 0, _LDST8_ABS_LO12_NC: 0, _LDST16_ABS_LO12_NC: 1, _LDST32_ABS_LO12_NC: 2,
    _LDST64_ABS_LO12_NC: 3, _LDST128_ABS_LO12_NC: 4,
}  # fmt: skip


def _aarch64(kind: int, memory: Memory, at: int, pc: int, target: int) -> None:
    if kind in (_ABS64, _PREL64):
        value = target - (pc if kind == _PREL64 else 0)
        struct.pack_into("<Q", memory, at, value & (1 << 64) - 1)
    elif kind == _PREL32:
        struct.pack_into("<i", memory, at, target - pc)
    elif kind == _ABS32:
        struct.pack_into("<I", memory, at, target)
    elif kind in (_CALL26, _JUMP26):
        _set_field(memory, at, _signed_field(target - pc, 26, 2), 0x03FFFFFF)
    elif kind in _SCALES:
        offset, scale = target & 0xFFF, _SCALES[kind]
        if offset & ((1 << scale) - 1):
            raise Refused(f"an address that is not a multiple of {1 << scale}")
        _set_field(memory, at, offset >> scale << 10, 0xFFF << 10)
    else:  # ADR and ADRP: two low bits in 29 and 30, the others from bit 5
        page, is_page = target & -0x1000, kind == _ADR_PREL_PG_HI21
        if is_page and pc & 0xFFF >= 0xFF8 and -_ADR_REACH <= page - pc < _ADR_REACH:
            # After an ADRP in a page's last two words, some Cortex-A53 load from a wrong address (erratum
            # 843419). ADR gives the same address.
            _set_field(memory, at, 0, 1 << 31)
            value = _signed_field(page - pc, 21, 0)
        elif is_page:
            value = _signed_field(page - (pc & -0x1000), 21, 12)
        else:
            value = _signed_field(target - pc, 21, 0)
        _set_field(memory, at, (value & 3) << 29 | value >> 2 << 5, 3 << 29 | 0x7FFFF << 5)


def _signed_field(value: int, bits: int, scale: int) -> int:
    """`value` without its `scale` low bits, as a field of `bits` bits. Raises Refused if it does not fit."""
    if value & ((1 << scale) - 1) or not -(1 << bits - 1) <= value >> scale < 1 << bits - 1:
        raise Refused("a target that is out of range")
    return value >> scale & (1 << bits) - 1


def _set_field(memory: Memory, at: int, field: int, mask: int) -> None:
    """Replace the bits of an instruction that are set in `mask` by `field`."""
    (word,) = struct.unpack_from("<I", memory, at)
    struct.pack_into("<I", memory, at, word & ~mask | field)


_WORDS = dict.fromkeys((_ABS32, _PREL32, _ADR_PREL_LO21, _ADR_PREL_PG_HI21, _CALL26, _JUMP26, *_SCALES), 4)
#: Name in `ovjit.codegen.cpu.machine` -> architecture.
ARCHITECTURES = {
    "x86_64": Architecture(
        62,
        {_X86_ABSOLUTE_64: 8, _X86_PC32: 4, _X86_PLT32: 4},
        _x86_64,
        b"\xff\x25\0\0\0\0",  # jmp *0(%rip)
        False,
    ),
    "aarch64": Architecture(
        183,
        {**_WORDS, _ABS64: 8, _PREL64: 8},
        _aarch64,
        struct.pack("<II", 0x58000050, 0xD61F0200),  # ldr x16, .+8; br x16
        True,
    ),
}
