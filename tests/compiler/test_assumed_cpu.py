"""Plans and kernels of low precision for CPUs that have it, run where they need not be had."""

from __future__ import annotations

import pytest

from tests.support.run import printed


@pytest.mark.parametrize(
    "more", [(), ("slow-dots",), ("amx-bf16", "amx-int8")], ids=["vectors", "slow dots", "matrix unit"]
)
def test_bf16_and_bytes_of_avx512(more: tuple[str, ...]) -> None:
    said = printed("-m", "tests.support.assumed_cpu", *more, OVJIT_PRECISION=None, OVJIT_ISA=None)
    unit = "amx-bf16" in more
    rows = [line.split("|") for line in said.splitlines()]
    assert len(rows) == 20, said
    for name, error, kernels in rows:
        if name == "quantized":
            assert ("conv_amx_u8i8" if unit else "conv_u8i8") in kernels, kernels
            assert "depthwise_u8" in kernels, kernels
            assert float(error) < 1e-6, name
            continue
        if name == "cached":
            assert "attention_few_bf16_f16" in kernels and "convert_f32" not in kernels, kernels
        if name == "cached in bytes":
            assert "attention_few_bf16_u8" in kernels and "dequantize" not in kernels, kernels
        # a sum of products of bf16 is right within some of its steps of 2^-8, and f32 would be far nearer
        assert "bf16" in kernels, f"{name}: {kernels}"
        if unit and name == "encoder":
            assert "attention_amx_bf16" in kernels, kernels
        if unit and name not in ("depthwise", "computed"):
            assert "amx_bf16" in kernels, f"{name}: {kernels}"
        assert 1e-4 < float(error) < 1e-2, f"{name}: {error}"


WITHOUT_DEPTH = """
import os
import numpy as np
import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu import host
from tests.support.assumed_cpu import answer
host.assume("avx512", ("avx512bf16", "avx512vnni", "amx-bf16", "amx-int8"))
os.environ["OVJIT_INTERP"] = "kernels"
x = op.parameter([40, 0], np.float32)
y = op.matmul(x, op.constant(np.zeros((0, 20), np.float32)), False, False)
got, kernels = answer(ov.Model([op.add(y, np.float32(3))], [x]), np.zeros((40, 0), np.float32), "bf16", "f16")
print(got.shape, np.unique(got), "amx_bf16" in kernels)
"""


def test_a_matrix_unit_multiplies_matrices_without_depth() -> None:
    """It would divide by the number of their lines."""
    assert printed("-c", WITHOUT_DEPTH, OVJIT_PRECISION=None, OVJIT_ISA=None) == "(40, 20) [3.] True\n"
