"""Lesser instruction sets give the same answers: AVX2, and x86-64 without anything."""

from __future__ import annotations

import ctypes
import sys
import types
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest

from ovjit.codegen.cpu import host as cpu
from ovjit.codegen.cpu.host import best_target
from ovjit.codegen.cpu.targets import EXTRA, TARGETS
from ovjit.data import digits
from tests.support.isa_answers import OPS
from tests.support.networks import EXACT, NAMES, error, expected, real_core
from tests.support.run import printed

#: Of the output's largest value.
LIMIT = 1e-4
NAMES_OF_ISAS = list(TARGETS)
LESSER = [n for n in ("avx2", "generic") if NAMES_OF_ISAS.index(n) >= NAMES_OF_ISAS.index(best_target())]


def answers(isa: str, folder: Path, *asked: str) -> dict[str, np.ndarray]:
    out = folder / f"{isa}.npz"
    printed("-m", "tests.support.isa_answers", out, *asked, OVJIT_ISA=isa)
    with np.load(out) as arrays:
        found = dict(arrays)
    assert found.pop("isa") == isa
    return found


def wanted(name: str) -> np.ndarray:
    """The real OpenVINO's answer."""
    if name != "digits":
        return expected(name)
    xml, images, _ = digits()
    return np.array(real_core().compile_model(str(xml), "CPU", EXACT)(images)[0])


def test_linux_and_llvm_say_the_same_of_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    host = llvmlite.binding.get_host_cpu_features()
    named = {*EXTRA, *(f for isa in TARGETS.values() for f in isa.features)}
    wanted = {f for f in named if host.get(f)}
    assert cpu._cpu_fields() is None or cpu._features() == wanted
    monkeypatch.setattr(cpu, "_cpu_fields", lambda: None)
    cpu._features.cache_clear()
    try:
        assert cpu._features() == wanted
    finally:
        cpu._features.cache_clear()


def test_names_of_features_are_those_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = (
        "sse2 avx avx2 fma avx512f avx512dq avx512bw avx512cd avx512vl avx512_vnni avx512_bf16 avx_vnni "
        "bmi1 bmi2 f16c abm movbe amx_tile amx_bf16 amx_int8"
    )
    monkeypatch.setattr(cpu, "_cpu_fields", lambda: ("GenuineIntel", flags))
    monkeypatch.setattr(cpu.machine, "may_use_tiles", lambda: True)
    cpu._features.cache_clear()
    try:
        extra = {feature for feature, isa in EXTRA.items() if isa != "neon"}
        assert cpu._features() == {*TARGETS["avx512"].features, "avx2", *extra}
        flags = flags.replace("avx512", "no").replace("amx", "no")
        monkeypatch.setattr(cpu, "_cpu_fields", lambda: ("GenuineIntel", flags))
        cpu._features.cache_clear()
        assert cpu._features() == {"avx2", "fma", "avxvnni", "bmi", "bmi2", "f16c", "lzcnt", "movbe"}
    finally:
        cpu._features.cache_clear()


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("system", ["linux", "win32", "darwin"])
def test_tiles_want_permission_wherever_their_features_are_read(
    listed: bool, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the first of their instructions ends the process: also where there is no list of Linux's."""
    tiles = {"amx-bf16", "amx-int8"}
    features = dict.fromkeys((*TARGETS["avx512"].features, "avx512vnni", *tiles), True)
    linux = " ".join(cpu._LINUX.get(name, name) for name in features)
    monkeypatch.setattr(cpu, "_cpu_fields", lambda: ("GenuineIntel", linux) if listed else None)
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(cpu.machine, "sys", types.SimpleNamespace(platform=system, maxsize=sys.maxsize))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace(syscall=lambda *given: refused))
    try:
        for refused in (-1, 0):
            for function in (cpu._features, cpu.machine.may_use_tiles):
                function.cache_clear()
            usable = system == "linux" and refused == 0
            assert tiles & cpu._features() == (tiles if usable else set())
            assert "avx512vnni" in cpu._features()
    finally:
        for function in (cpu._features, cpu.machine.may_use_tiles):
            function.cache_clear()


@pytest.mark.parametrize("hidden", ["fma", "bmi1", "bmi2", "f16c", "abm", "movbe"])
def test_code_uses_nothing_that_a_machine_hides(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    flags = [f for f in ("sse2", "avx", "avx2", "fma", "bmi1", "bmi2", "f16c", "abm", "movbe") if f != hidden]
    monkeypatch.setattr(cpu, "_cpu_fields", lambda: ("GenuineIntel", " ".join(flags)))
    for function in (cpu._features, cpu.best_target):
        function.cache_clear()
    try:
        assert cpu.best_target() == "generic"
    finally:
        for function in (cpu._features, cpu.best_target):
            function.cache_clear()


def test_features_can_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = (
        "avx2 fma bmi1 bmi2 f16c abm movbe "
        "avx512f avx512dq avx512bw avx512cd avx512vl avx512_vnni avx512_bf16"
    )
    monkeypatch.setattr(cpu, "_cpu_fields", lambda: ("GenuineIntel", flags))
    monkeypatch.delenv("OVJIT_HIDE", raising=False)
    monkeypatch.delenv("OVJIT_ISA", raising=False)
    cached = cpu._features, cpu.best_target, cpu._host
    for function in cached:
        function.cache_clear()
    try:
        assert cpu.host_target().extras == ("avx512bf16", "avx512vnni")
        monkeypatch.setenv("OVJIT_HIDE", "avx512bf16")
        assert cpu.host_target().extras == ("avx512vnni",)
        assert cpu.host_target().llvm_features == "+avx512vnni"
        monkeypatch.setenv("OVJIT_HIDE", "avx512vnni,avx512bf16")
        assert cpu.host_target().extras == ()
        monkeypatch.setenv("OVJIT_HIDE", "avx512f")
        with pytest.raises(
            ValueError,
            match="OVJIT_HIDE=avx512f: avx512f is unknown; the features that can be hidden are avx512bf16",
        ):
            cpu.host_target()
    finally:
        for function in cached:
            function.cache_clear()


HIDDEN = {
    "no bf16": ("avx512", "avx512bf16"),
    "no vnni": ("avx512", "avx512bf16,avx512vnni"),
    "avx2 without vnni": ("avx2", "avxvnni"),
}


@pytest.mark.parametrize("what", HIDDEN)
def test_without_the_instructions_of_low_precision(what: str, tmp_path: Path) -> None:
    """What low precision says and computes where its instructions are hidden, beside OpenVINO in f32."""
    isa, hide = HIDDEN[what]
    if list(TARGETS).index(isa) < list(TARGETS).index(best_target()):
        pytest.skip(f"this CPU has no {isa}")
    xml, images, _ = digits()
    exact = wanted("digits")
    program = (
        "import sys, numpy as np, ovjit as ov; from ovjit.data import digits; xml, images, _ = digits();"
        "m = ov.compile_model(xml, 'CPU', {'INFERENCE_PRECISION_HINT': 'bf16'});"
        "print(m.get_property('INFERENCE_PRECISION_HINT').get_type_name(),"
        " ov.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')); np.save(sys.argv[1], m(images)[0])"
    )
    said = printed("-c", program, tmp_path / "out.npy", OVJIT_ISA=isa, OVJIT_HIDE=hide)
    assert said.split()[0] == ("bf16" if isa == "avx512" else "f32")
    assert "BF16" not in said
    off = error(np.load(tmp_path / "out.npy"), exact)
    assert off <= (0.05 if isa == "avx512" else LIMIT)


def test_there_are_lesser_ones() -> None:
    assert "generic" in LESSER


@pytest.mark.parametrize("isa", LESSER)
def test_operations_and_small_networks(isa: str, tmp_path: Path) -> None:
    """Operations to the precision that the best instruction set is held to; networks beside OpenVINO."""
    found = answers(isa, tmp_path, "--ops", "digits", "squeezenet", "shufflenet")
    assert set(found.pop("ops")) == OPS
    assert not found.pop("faults").tolist()
    assert set(found) == {"digits", "squeezenet", "shufflenet"}
    for name, got in found.items():
        off = error(got, wanted(name))
        assert off <= LIMIT, f"{name} with {isa}: off by {off:.2g} of the largest output"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("isa", LESSER)
def test_all_samples_and_networks(isa: str, tmp_path: Path) -> None:
    found = answers(isa, tmp_path, "--all-ops", *NAMES)
    assert set(found.pop("ops")) == OPS and not found.pop("faults").tolist()
    assert set(found) == set(NAMES)
    for name, got in found.items():
        off = error(got, expected(name))
        assert off <= LIMIT, f"{name} with {isa}: off by {off:.2g} of the largest output"
