"""The loader of object files: the same functions as llvmlite's, and a refusal of everything else."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest

from ovjit.codegen.cpu import elf, jit, objects
from ovjit.codegen.cpu.emit import Kind, parse, target_machine
from ovjit.codegen.cpu.isa import host_isa
from ovjit.execution.runner import native_kernels

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
    return jit.object_code(SOURCE, symbol, host_isa())


def call(address: int, *args: int) -> int:
    return objects.function(address, 4)(*args)


def test_functions_constants_and_calls_of_the_c_library() -> None:
    found = elf.load_object(code("test_elf_whole"))
    assert set(found) == {"test_elf_whole", "test_elf_whole_other"}
    data = np.linspace(-2, 2, 16, dtype=np.float32)
    lanes = host_isa().lanes
    wanted = data.copy()
    wanted[:lanes] = np.tanh(data[:lanes].astype(np.float64)) + 0.1
    assert call(found["test_elf_whole"], 3, 4, 0, data.ctypes.data) == 11
    np.testing.assert_allclose(data, wanted, rtol=1e-6)
    assert call(found["test_elf_whole_other"], 3, 4, 0, 0) == 304


def test_the_runner_needs_no_llvmlite() -> None:
    for kernel in native_kernels():
        found = elf.load_object(kernel.compile(host_isa()))
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
    machine = target_machine(host_isa(), Kind.VECTORS)
    module = parse(text, host_isa())
    module.data_layout = str(machine.target_data)
    made = machine.emit_object(module)
    with pytest.raises(elf.Refused, match="written"):
        elf.load_object(made)
    address = objects.load("test_elf_global", made)
    assert call(address, 1, 0, 0, 0) == 6 and call(address, 1, 0, 0, 0) == 7


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
    outs = [
        subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, check=True) for _ in "ab"
    ]
    assert [out.stdout.strip() for out in outs] == ["['llvmlite', 'numba']", "[]"]
