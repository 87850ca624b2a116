"""The loader of object files: the same functions as llvmlite's, and a refusal of everything else."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest

from ovjit.codegen.cpu import elf, jit, machine, objects, relocations
from ovjit.codegen.cpu.emit import Kind, parse, target_machine
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.relocations import ARCHITECTURES
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.errors import UnsupportedError
from ovjit.execution.runner import native_kernels
from tests.support import aarch64_compiler
from tests.support.run import printed

SOURCE = """@njit(nogil=True)
def kernel(a, b, c, p):
    v = libm_tanh_f32(load_f32(p))
    store_f32(p, add(v, const_f32(0.1)))
    return a + twice(b)

@njit(nogil=True)
def other(a, b, c, p):
    return a * 100 + b
""".replace("twice(b)", "2 * b")


def code(symbol: str) -> bytes:
    return jit.object_code(SOURCE, symbol, host_target())


def call(address: int, *args: int) -> int:
    return objects.function(address, 4)(*args)


def test_functions_constants_and_calls_of_the_c_library() -> None:
    found = elf.load_object(code("test_elf_whole"))
    assert set(found) == {"test_elf_whole", "test_elf_whole_other"}
    data = np.linspace(-2, 2, 16, dtype=np.float32)
    lanes = host_target().lanes
    wanted = data.copy()
    wanted[:lanes] = np.tanh(data[:lanes].astype(np.float64)) + 0.1
    assert call(found["test_elf_whole"], 3, 4, 0, data.ctypes.data) == 11
    np.testing.assert_allclose(data, wanted, rtol=1e-6)
    assert call(found["test_elf_whole_other"], 3, 4, 0, 0) == 304


def test_the_runner_needs_no_llvmlite() -> None:
    for kernel in native_kernels():
        found = elf.load_object(kernel.compile(host_target()))
        assert len(found) == kernel.source.count("def ")


def test_memory_is_never_writable_and_executable() -> None:
    address = elf.load_object(code("test_elf_protected"))["test_elf_protected"]
    with open("/proc/self/maps") as file:
        for line in file:
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            if first <= address < last:
                assert line.split()[1] == "r-xp"
                return
    raise AssertionError("not mapped")


@pytest.mark.parametrize("keep", [0, 4, 40, 63, 64, 200, 0.5, 0.9, 0.999])
def test_a_part_of_an_object_is_refused(keep: float) -> None:
    whole = code("test_elf_part")
    with pytest.raises(elf.Refused):
        elf.load_object(whole[: int(keep if keep >= 1 or keep == 0 else keep * len(whole))])


def test_damage_is_refused_or_harmless() -> None:
    """No byte of the tables makes the loader raise anything else, or write outside of its memory."""
    whole = code("test_elf_damage")
    rng = np.random.default_rng(20261120)
    (table,) = struct.unpack_from("<Q", whole, 40)
    places = [
        *rng.integers(0, 64, 60),
        *rng.integers(table, len(whole), 400),
        *rng.integers(0, len(whole), 200),
    ]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        try:
            elf.load_object(bytes(damaged))
        except elf.Refused:
            pass


def test_what_is_unknown_is_left_to_llvmlite() -> None:
    text = """
@state = internal global i64 5
define i64 @test_elf_global(i64 %a, i64 %b, i64 %c, i64 %d) {
  %x = load i64, ptr @state
  %y = add i64 %x, %a
  store i64 %y, ptr @state
  ret i64 %y
}"""
    machine = target_machine(host_target(), Kind.VECTORS)
    module = parse(text, host_target())
    module.data_layout = str(machine.target_data)
    made = machine.emit_object(module)
    with pytest.raises(elf.Refused, match="writable section"):
        elf.load_object(made)
    address = objects.load("test_elf_global", made)
    assert call(address, 1, 0, 0, 0) == 6 and call(address, 1, 0, 0, 0) == 7


ARM = ARCHITECTURES["aarch64"]


@pytest.mark.parametrize("isa", ["neon", "avx2"])
def test_code_for_another_machine_is_refused(isa: str) -> None:
    if TARGETS[isa].machine == machine.name():
        pytest.skip("this machine's own")
    with pytest.raises(elf.Refused, match="for another machine"):
        elf.load_object(jit.object_code(SOURCE, "test_elf_foreign", TARGETS[isa]))
    with pytest.raises(UnsupportedError, match="test_elf_foreign is for another machine"):
        objects.load("test_elf_foreign", jit.object_code(SOURCE, "test_elf_foreign", TARGETS[isa]))


def test_code_for_arm_is_mapped_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it runs here: calls go to jumps, jumps to functions, and constants are where they belong."""
    flushed = []
    monkeypatch.setattr(elf, "flush", lambda address, size: flushed.append((address, size)))
    found = elf._load(jit.object_code(SOURCE, "test_elf_arm", TARGETS["neon"]), ARM)
    assert set(found) == {"test_elf_arm", "test_elf_arm_other"}
    (base, size), begin = flushed[0], found["test_elf_arm"]
    words = np.frombuffer(ctypes.string_at(base, size), "<u4").astype(np.int64)
    calls, pages = [], []
    for i in range((begin - base) // 4, (found["test_elf_arm_other"] - base) // 4):
        word, place = int(words[i]), base + 4 * i
        if word >> 26 == 0b100101:  # bl
            calls.append(place + 4 * ((word & 0x3FFFFFF ^ 0x2000000) - 0x2000000))
        if word >> 31 and word >> 24 & 31 == 0b10000:  # adrp
            value = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
            pages.append((place & -4096) + ((value ^ 0x100000) - 0x100000) * 4096)
    assert len(calls) == 4 and all(base <= call < base + size for call in calls)  # tanhf for each lane
    for call in set(calls):
        jump = ctypes.string_at(call, 16)
        assert jump[:8] == ARM.jump
        assert struct.unpack("<Q", jump[8:])[0] == elf._external("tanhf")
    assert all(page == base & -4096 or base <= page < base + size for page in pages)


#: kind, instruction, where it lies, what it is to reach -> the instruction (by "ELF for the Arm 64-bit
#: Architecture" and the encodings of A64), or None where it cannot.
RELOCATIONS = {
    "adrp, the same page": (275, 0x90000000, 0x5008, 0x5FF8, 0x90000000),
    "adrp, three pages on": (275, 0x90000001, 0x5FF4, 0x8000, 0xF0000001),
    # as adr: Cortex-A53's erratum 843419
    "adrp at a page's end": (275, 0x90000001, 0x5FFC, 0x8010, 0x10010021),
    "adrp before a page's end": (275, 0x90000001, 0x5FF8, 0x4010, 0x10FF0041),
    "adrp at a page's end, far": (275, 0x90000001, 0xFFC, 0x101000, 0xB0000801),
    "adrp, a page back": (275, 0x90000000, 0x5000, 0x4FFF, 0xF0FFFFE0),
    "adrp, too far": (275, 0x90000000, 0, 1 << 32, None),
    "add": (277, 0x91000000, 0, 0x12345, 0x910D1400),
    "ldrb": (278, 0x39400000, 0, 0x12345, 0x394D1400),
    "ldrh": (284, 0x79400000, 0, 0x12344, 0x79468800),
    "ldr w": (285, 0xB9400000, 0, 0x12344, 0xB9434400),
    "ldr x": (286, 0xF9400000, 0, 0x12348, 0xF941A400),
    "ldr q": (299, 0x3DC00000, 0, 0x12340, 0x3DC0D000),
    "ldr q, not aligned": (299, 0x3DC00000, 0, 0x12348, None),
    "bl, on": (283, 0x94000000, 0x1000, 0x1FFC, 0x940003FF),
    "b, back": (282, 0x14000000, 0x1000, 0x0FFC, 0x17FFFFFF),
    "bl, too far": (283, 0x94000000, 0, 1 << 27, None),
    "bl, to half an instruction": (283, 0x94000000, 0, 2, None),
}


@pytest.mark.parametrize("what", RELOCATIONS)
def test_relocations_of_arm(what: str) -> None:
    kind, before, place, target, wanted = RELOCATIONS[what]
    memory = bytearray(struct.pack("<II", before, 0xDEADBEEF))
    if wanted is None:
        with pytest.raises(relocations.Refused):
            ARM.apply(kind, memory, 0, place, target)
        return
    ARM.apply(kind, memory, 0, place, target)
    assert [hex(word) for word in struct.unpack("<II", memory)] == [hex(wanted), hex(0xDEADBEEF)]


def test_relocated_addresses() -> None:
    memory = bytearray(8)
    ARM.apply(257, memory, 0, 0x5000, 0x123456789ABC)
    assert struct.unpack("<Q", memory)[0] == 0x123456789ABC
    ARM.apply(260, memory, 0, 0x5000, 0x4000)
    assert struct.unpack("<q", memory)[0] == -0x1000
    ARM.apply(261, memory, 4, 0x5004, 0x5000)
    assert struct.unpack("<ii", memory)[1] == -4
    for architecture in ARCHITECTURES.values():
        assert set(architecture.sizes.values()) <= {4, 8} and len(architecture.jump) <= 8


WARM = """
import sys, numpy as np, ovjit as ov
x = ov.opset8.parameter([8], np.float32)
y = ov.compile_model(ov.Model([ov.opset8.exp(x)], [x], "m"))(np.zeros(8, np.float32))[0]
assert y[0] == 1
print(sorted({"llvmlite", "numba"} & set(sys.modules)))
"""


def test_a_warm_start_imports_neither_numba_nor_llvmlite(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OVJIT_SHIPPED", "0")
    monkeypatch.delenv(aarch64_compiler.VARIABLE, raising=False)  # the first process compiles for itself
    assert [printed("-c", WARM).strip() for _ in "ab"] == ["['llvmlite', 'numba']", "[]"]
