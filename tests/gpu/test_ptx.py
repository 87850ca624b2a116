"""PTX of all kernels of all operations, assembled where the CUDA toolkit's assembler is installed."""

from __future__ import annotations

import functools
import subprocess
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.codegen.gpu.supported import has_gpu_code
from ovjit.compiler import compile as compile_graph
from ovjit.compiler.options import Options
from ovjit.errors import OvjitError
from tests.support.assembler import find_ptxas
from tests.support.op_samples import graph_of, native_ops, samples

OPERATIONS = native_ops()
TYPES = ("f32", "f16", "bf16", "f64", "i8", "u8", "i32", "i64", "boolean")
#: Every so many operations run by default, in f32.
STRIDE = 40


@functools.cache
def check_source(source: str) -> None:
    """A kernel's source becomes PTX, which is assembled for the oldest and a newer card."""
    ptx = compile_ptx(source, "entry")
    assert ".visible .entry entry(" in ptx and ".target sm_80" in ptx
    assembler = find_ptxas()
    if assembler is not None:
        command = [assembler, "-arch=sm_90", "-O1", "-o", "/dev/null", "/dev/stdin"]
        done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def cases() -> list[Any]:
    return [
        (record, dtype)
        if dtype == "f32" and i % STRIDE == 0
        else pytest.param((record, dtype), marks=pytest.mark.long)
        for i, record in enumerate(OPERATIONS)
        for dtype in TYPES
        if dtype in record.types
    ]


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case[0].name}-{case[0].opset}-{case[1]}")
def test_kernels_become_ptx(case: tuple[Any, str]) -> None:
    record, dtype = case
    rng_errors = (OvjitError, ValueError, TypeError, KeyError)
    try:
        found = list(samples(record, dtype, 2))
    except rng_errors:
        pytest.skip(f"there are no samples of {dtype}")
    for _, arrays, attrs in found:
        for precision in ("f32", "f16") if dtype == "f32" else ("f32",):
            try:
                graph, _ = graph_of(record, [np.asarray(a) for a in arrays], attrs, dtype)
                program = compile_graph(graph, TARGETS["cuda"], Options(precision=precision))
            except OvjitError:
                continue  # the operation does not take this type
            for kernel in program.kernels:
                if has_gpu_code(kernel):
                    check_source(kernel.source)
