"""Texts of kernels that are kept: what is found is what would be printed, and nothing else is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovjit.codegen import printed
from ovjit.codegen.cpu.formats import F32
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.elementwise import Operand
from ovjit.codegen.function import kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.row_function import Finish
from ovjit.disk import kernel_cache
from ovjit.disk.kernel_cache import KernelCache
from ovjit_ops.movement import cpu_range
from ovjit_ops.normalization import cpu_softmax
from ovjit_ops.pooling import cpu_pooling
from ovjit_ops.recurrent import cpu_recurrent
from ovjit_ops.recurrent.step import make_step
from ovjit_ops.reduction import cpu_reduce
from tests.support import run

GRU = {"activations": (), "activations_alpha": (), "activations_beta": (), "clip": 0.0}
CUT = GRU | {"clip": 2.0}

PROGRAM = """
import sys
import ovjit as ov
from ovjit.codegen import parts
from ovjit.data import DIGITS_XML
prints = []
scan = parts.Source.__init__
def counted(self, f):
    prints.append(f.__qualname__)
    scan(self, f)
parts.Source.__init__ = counted
core = ov.Core()
executable = core.compile_model(core.read_model(str(DIGITS_XML)), "CPU")._executable
kernels = sorted(executable.program.kernels, key=lambda k: k.name)
print(len(prints), *(k.symbol() for k in kernels), *(repr(k.frame.fields) for k in kernels))
"""


def start(folder: Path) -> list[str]:
    return run.printed("-c", PROGRAM, OVJIT_CACHE=str(folder), OVJIT_SHIPPED="0").split(" ", 1)


def test_the_second_start_reads_no_function(tmp_path: Path) -> None:
    first, second, without = start(tmp_path / "kept"), start(tmp_path / "kept"), start(Path("0"))
    assert int(first[0]) > 0 == int(second[0])
    assert int(without[0]) == int(first[0])
    assert first[1] == second[1] == without[1]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelCache:
    """A cache of its own, for texts that did not come with ovjit."""
    own = KernelCache(tmp_path / "own")
    monkeypatch.setattr(kernel_cache, "_default", own)
    monkeypatch.setenv("OVJIT_SHIPPED", "0")
    return own


def names(kept: KernelCache) -> list[str]:
    return [entry.key for entry in kept.entries() if entry.key.startswith("printed_")]


def reduced(name: str) -> Kernel:
    """A reduction of f32 along rows."""
    body = cpu_reduce.as_it_is("f32", "f32")
    return cpu_reduce.reduce_kept.kernel(
        name, T="f32", R="f32", M="f32", out="f32", long=False, vectors=cpu_reduce.NARROW, front=body,
        how=cpu_reduce.reductions(name, "f32"), inputs=(Operand("f32", "v"),), operands=(), body=body,
    )  # fmt: skip


def test_a_kernel_that_is_found_is_the_one_that_was_printed(kept: KernelCache) -> None:
    how = (host_target(), cpu_recurrent.tiles_for(1, 1, host_target()), F32)
    for make in (
        lambda: cpu_range.numbers.kernel("range_i64", T="i64"),
        lambda: reduced("ReduceMax"),
        lambda: reduced("ReduceMin"),
        lambda: cpu_softmax.softmax.kernel(("f32", "f32"), Finish(None, ""), keep=True, normal=1e-38),
        lambda: cpu_recurrent.steps_kernel.__wrapped__(make_step("GRU", GRU), False, *how),
        lambda: cpu_recurrent.steps_kernel.__wrapped__(make_step("GRU", CUT), False, *how),
    ):
        before = len(names(kept))
        one = make()
        assert len(names(kept)) == before + 1
        two = make()
        assert len(names(kept)) == before + 1
        assert one == two and one.name == two.name
        assert one.frame.fields == two.frame.fields and one.frame.tables == two.frame.tables


def test_values_of_the_module_are_part_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    function, constants = cpu_reduce.reduce_rows.function, {"T": "f32"}
    before = printed.find_entry(function, constants)
    assert before is not None and before == printed.find_entry(function, constants)
    assert before != printed.find_entry(function, {"T": "i32"})
    assert before != printed.find_entry(function, constants, ())
    with monkeypatch.context() as changed:
        changed.setattr(cpu_reduce, "BLOCK", cpu_reduce.BLOCK + 1)
        assert before != printed.find_entry(function, constants)
    assert before == printed.find_entry(function, constants)


def test_other_functions_and_constants_are_printed_each_time(kept: KernelCache) -> None:
    @kernel
    def nothing(n, *, T):
        pass

    assert nothing.kernel("nothing", T="f32") == nothing.kernel("nothing", T="f32")
    assert printed.find_entry(cpu_pooling.pool.function, {"T": object()}) is None
    assert printed.find_entry(cpu_pooling.pool.function, {"T": ("f32", [1])}) is None
    assert names(kept) == []


def test_flags_of_programs_are_not_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    function, constants = cpu_reduce.reduce_rows.function, {"T": "f32"}
    before = printed.find_entry(function, constants)
    for name, value in (("OVJIT_PRECISION", "bf16"), ("OVJIT_SKIP", "weights"), ("OVJIT_WINOGRAD", "0")):
        monkeypatch.setenv(name, value)
        assert printed.find_entry(function, constants) == before


def test_equal_layers_read_a_text_once(kept: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    found = KernelCache.get
    monkeypatch.setattr(KernelCache, "get", lambda self, key: read.append(key) or found(self, key))
    one = reduced("ReduceMax")
    many = [reduced("ReduceMax") for _ in range(22)]
    assert all(other == one for other in many)
    assert len([key for key in read if key.startswith("printed_")]) == 1
