"""The matrix unit AMX: its words as LLVM prints them and as NumPy computes them, and when it is used."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen import shipped
from ovjit.codegen.cpu import amx, amx_test, host, jit, machine
from ovjit.codegen.cpu.formats import BF16, U8I8, matrix_format
from ovjit.codegen.cpu.targets import MATRIX, target_of, without_matrix_unit
from ovjit.disk.kernel_cache import KernelCache
from ovjit.engine import context_of

#: A CPU with the unit, whatever this one is.
TARGET = target_of("avx512", ("avx512bf16", "avx512vnni", *MATRIX))
HERE = sorted(MATRIX & set(host.host_target().extras))
needs_unit = pytest.mark.skipif(len(HERE) < len(MATRIX), reason="this machine has no matrix unit")


@pytest.mark.parametrize("feature", amx_test.FORMATS)
def test_words_are_instructions(feature: str) -> None:
    words = amx_test.test_of(feature).words(TARGET)
    text = jit.assembly(amx_test.SOURCE, "ovjit_test_amx", TARGET, words)
    product = {"amx-bf16": "tdpbf16ps", "amx-int8": "tdpbusd"}[feature]
    assert re.search(rf"\t{product}\t%tmm6, %tmm4, %tmm0", text), text
    for line in (r"ldtilecfg", r"tileloadd\t\(.*\), %tmm4", r"tilestored\t%tmm0, \(", "tilerelease"):
        assert re.search(rf"\t{line}", text), f"{line}\n{text}"


def test_a_configuration_has_eight_full_tiles() -> None:
    config = np.array(amx._configuration(), np.uint8)
    assert config[0] == 1 and not config[1:16].any() and not config[32:48].any() and not config[56:].any()
    assert config[16:32].view(np.uint16).tolist() == [64] * 8 and config[48:56].tolist() == [16] * 8


# --- arithmetic


def rounded(exact: Fraction) -> float:
    """The f32 nearest to a number, ties to even; subnormals are zeros."""
    if exact == 0:
        return 0.0
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length() - 24
    while abs(exact) / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    scaled = exact / Fraction(2) ** exponent
    value = round(scaled) * Fraction(2) ** exponent  # Python rounds ties to even
    return 0.0 if abs(value) < Fraction(2) ** -126 else float(value)


@pytest.mark.parametrize("seed", range(4))
def test_products_of_bf16_round_as_the_manual_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right, sums = (x[seed] for x in amx_test.operands("amx-bf16"))
    got = amx.multiply_tiles("bf16", sums, left, right).view(np.float32).reshape(16, 16)
    a, b = ((x.view(np.uint16).astype(np.uint32) << 16).view(np.float32) for x in (left, right))
    a, b = (np.where(np.abs(x) < 2.0**-126, 0, x).reshape(16, 16, 2) for x in (a, b))
    first = sums.view(np.float32).reshape(16, 16)
    for m, n in rng.integers(0, 16, (24, 2)):
        chains = [0.0, 0.0]
        for k in range(16):
            for i in range(2):
                product = Fraction(float(a[m, k, i])) * Fraction(float(b[k, n, i]))
                chains[i] = rounded(product + Fraction(chains[i]))
        start = 0.0 if abs(first[m, n]) < 2.0**-126 else float(first[m, n])
        want = rounded(Fraction(start) + Fraction(rounded(Fraction(chains[0]) + Fraction(chains[1]))))
        assert float(got[m, n]) == want, f"seed {seed}, row {m}, column {n}"


def test_subnormals_are_zeros() -> None:
    tiny = np.full((1, 1, 2), 0x0040, np.uint16)  # a subnormal bf16
    large = np.full((1, 1, 2), 0x7F00, np.uint16)
    sums = np.zeros((1, 1), np.float32)
    assert amx.multiply_bf16(sums, tiny, large)[0, 0] == 0
    small = np.full((1, 1, 2), 0x2000, np.uint16)  # 2 ** -63: products are normal or not
    assert amx.multiply_bf16(sums, small, small)[0, 0] == np.float32(2.0**-125)
    less = np.full((1, 1, 2), 0x1F80, np.uint16)
    assert amx.multiply_bf16(sums, less, small)[0, 0] == 0
    assert amx.multiply_bf16(np.full((1, 1), 1e-40, np.float32), less, less)[0, 0] == 0


def test_products_of_bytes_wrap_around() -> None:
    rng = np.random.default_rng(5)
    left, right, sums = (x[0] for x in amx_test.operands("amx-int8"))
    got = amx.multiply_tiles("u8i8", sums, left, right).view(np.int32).reshape(16, 16)
    a, b = left.reshape(16, 16, 4).astype(int), right.view(np.int8).reshape(16, 16, 4).astype(int)
    for m, n in rng.integers(0, 16, (24, 2)):
        exact = int(sums.view(np.int32).reshape(16, 16)[m, n]) + int((a[m] * b[:, n]).sum())
        assert got[m, n] == (exact + (1 << 31)) % (1 << 32) - (1 << 31)


@needs_unit
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("feature", amx_test.FORMATS)
def test_this_machine_has_the_same_bits(feature: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda _: made(20261123 + seed))
    assert amx_test.differences(feature, host.host_target()) == 0, f"seed {20261123 + seed}"


# --- when it is used


def test_formats_follow_the_features() -> None:
    assert [matrix_format(form, TARGET).name for form in (BF16, U8I8)] == ["amx_bf16", "amx_u8i8"]
    assert matrix_format(BF16, target_of("avx512", ("avx512bf16", "amx-int8"))) is BF16
    assert matrix_format(U8I8, without_matrix_unit(TARGET)) is U8I8


@pytest.mark.parametrize("wrong", [0, 7])
def test_the_verdict_is_kept(wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KernelCache(tmp_path)
    asked: list[str] = []

    def differences(feature: str, target: object) -> int:
        asked.append(feature)
        return wrong

    monkeypatch.setattr(amx_test, "default_cache", lambda: cache)
    monkeypatch.setattr(amx_test, "differences", differences)
    for _ in range(2):
        failing = amx_test.failing(sorted(MATRIX), TARGET, "one CPU")
        assert failing == (MATRIX if wrong else frozenset())
    assert sorted(asked) == sorted(MATRIX)
    amx_test.failing(sorted(MATRIX), TARGET, "another CPU")
    assert len(asked) == 4


@pytest.mark.parametrize("allowed", [False, True])
def test_linux_is_asked_for_the_registers(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = (
        "avx2 fma bmi1 bmi2 f16c abm movbe avx512f avx512dq avx512bw avx512cd avx512vl avx512_vnni "
        "amx_tile amx_int8"
    )
    monkeypatch.setattr(host, "_cpu_fields", lambda: ("GenuineIntel", flags))
    monkeypatch.setattr(machine, "may_use_tiles", lambda: allowed)
    monkeypatch.setattr(amx_test, "failing", lambda *_: frozenset())
    monkeypatch.delenv("OVJIT_HIDE", raising=False)
    monkeypatch.delenv("OVJIT_ISA", raising=False)
    cached = host._features, host.best_target, host._host
    for function in cached:
        function.cache_clear()
    try:
        assert host.host_target().extras == ("avx512vnni", *["amx-int8"] * allowed)
        monkeypatch.setenv("OVJIT_HIDE", "amx-int8")
        assert host.host_target().extras == ("avx512vnni",)
        monkeypatch.setattr(amx_test, "failing", lambda features, *_: frozenset(features))
        monkeypatch.delenv("OVJIT_HIDE")
        host._host.cache_clear()
        assert host.host_target().extras == ("avx512vnni",)
    finally:
        for function in cached:
            function.cache_clear()


@needs_unit
def test_a_property_leaves_it_alone() -> None:
    assert not MATRIX & set(context_of({"OVJIT_MATRIX_UNIT": False}).target.extras)
    x = op.parameter([20, 64], np.float32)
    weights = op.constant(np.ones((64, 32), np.float32))
    model = ov.Model([op.matmul(x, weights, False, False)], [x], "product")
    for used in (True, False):
        config = {"INFERENCE_PRECISION_HINT": "bf16", "OVJIT_MATRIX_UNIT": used, "PERF_COUNT": True}
        request = ov.compile_model(model, "CPU", config).create_infer_request()
        request.infer([np.ones((20, 64), np.float32)])
        kernels = [row.exec_type for row in request.get_profiling_info()]
        assert any("amx_bf16" in kernel for kernel in kernels) is used, kernels
        assert (request.get_output_tensor(0).data == 64).all()


def test_other_kernels_are_shipped_for_all_cpus() -> None:
    """What the unit does not multiply has the same name with and without it."""
    plain = without_matrix_unit(TARGET)
    names = [shipped.content_key("text", "key", "bf16", "", isa) for isa in (TARGET, plain)]
    assert names[0] == names[1]
    names = [shipped.content_key("text", "key", "amx_bf16", "", isa) for isa in (TARGET, plain)]
    assert names[0] != names[1]
