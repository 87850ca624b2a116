"""Products of rows that are quantised in groups with blocks of llama.cpp's files: beside the same in f64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.api.model.boundary import Constant
from ovjit.api.model.node import Output
from ovjit.codegen.cpu.formats import quantizes_blocks, quantizes_rows
from ovjit.codegen.cpu.host import host_target
from ovjit.readers.gguf.blocks import FORMS, groups_of
from tests.ops.test_dynamic_quantization import F32, SIZE, check, rounded, steps
from tests.readers.gguf_decoders import quantised

SEED = 20261120


def of_blocks(kind: str, outs: int, depth: int, rng: np.random.Generator) -> tuple[ov.Model, np.ndarray]:
    """x times a matrix of a file's blocks, and what these stand for in f64."""
    from gguf import GGMLQuantizationType, quants

    data = quantised(rng, kind, (outs, depth), 0.1)
    groups = groups_of(kind, data, (outs, depth), None)

    def stored(values: Any, dtype: str) -> Any:
        return Output._of(Constant._of(values, dtype, None, kind), 0)

    ops = ov.opset13
    real = ops.convert(stored(groups.codes, groups.dtype), "f32")
    if groups.zero is not None:
        one = isinstance(groups.zero, np.ndarray)
        real = ops.subtract(real, ops.constant(groups.zero) if one else stored(groups.zero, "f32"))
    scale = groups.scale
    if isinstance(scale, np.ndarray):
        real = ops.multiply(real, ops.convert(ops.constant(scale), "f32"))
    else:
        real = ops.multiply(real, stored(scale, "f32"))
    x = ops.parameter(ov.PartialShape([-1, depth]), np.float32)
    product = ops.matmul(x, ops.reshape(real, np.array([outs, depth]), False), False, True)
    return ov.Model([product], [x], kind), quants.dequantize(data, GGMLQuantizationType[kind])


def kinds() -> list[str]:
    """The types whose rows this CPU quantises: those of one scale need dot products of four bytes."""
    target = host_target()
    plain = ("Q8_0", "Q4_0") if quantizes_rows(target) else ()
    return [k for k, form in FORMS.items() if k in plain or (
        k not in ("Q8_0", "Q4_0", "IQ4_NL") and quantizes_blocks(target, form.bits)
    )]  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
def test_blocks_of_files_with_quantized_rows(kind: str) -> None:
    """Rows have groups of 32, or as small ones as the blocks; what a row gives does not depend on others."""
    outs, depth = 137, 512
    seed = [SEED, 400, *kind.encode()]
    rng = np.random.default_rng(seed)
    model, real = of_blocks(kind, outs, depth, rng)
    size = min(32, FORMS[kind].group)
    compiled = ov.Core().compile_model(model, "CPU", {**F32, "PERF_COUNT": True})
    x = (rng.standard_normal((70, depth)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    want = rounded(x, size) @ real.astype(np.float64).T
    whole = None
    for rows in (70, 17, 6, 5, 4, 3, 2, 1):
        request = compiled.create_infer_request()
        got = request.infer([x[:rows]])[0]
        assert [s.split("_")[0] for s in steps(request)] == ["quantize", "matmul"]
        check(got, want[:rows], f"{kind}: {rows} rows, seed {seed}")
        whole = got if whole is None else whole
        np.testing.assert_array_equal(got, whole[:rows], f"{kind}: {rows} rows, seed {seed}")


def test_blocks_of_files_are_exact_without_quantized_rows() -> None:
    rng = np.random.default_rng([SEED, 401])
    for config in ({SIZE: 0}, {SIZE: 24}, {"EXECUTION_MODE_HINT": "ACCURACY"}):
        model, real = of_blocks("Q4_K", 137, 512, rng)
        x = rng.standard_normal((9, 512)).astype(np.float32)
        got = ov.compile_model(model, "CPU", {**F32, **config})([x])[0]
        check(got, x.astype(np.float64) @ real.astype(np.float64).T, str(config))
