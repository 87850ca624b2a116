"""Kernels of the operations' samples, printed for AArch64: which have inner loops of single numbers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from ovjit.codegen.cpu.targets import target_of
from ovjit.codegen.kernel import Kernel
from ovjit.compiler import compile as compile_program
from ovjit.compiler.options import Options
from ovjit.errors import OvjitError
from tests.fuzz.guarded_ops import element_types, graph_of, records
from tests.support.samples import samples_of

ALL = target_of("neon", ("lse", "dotprod", "i8mm", "bf16", "fp16fml"))
#: Beginnings of names of kernels with such a loop. Each of its steps depends on the one before, but
#: `inverse`'s, which makes f64 of the matrix that it then eliminates by vectors.
IN_ORDER = ("ctc_greedy", "ctc_loss", "gather_tree", "inverse", "nms_select_rotated", "nonzero_list")
#: Of kernels without any vector: they search and sort, or write some numbers.
PLAIN = ("evaluate", "gather_tree", "numbers", "search", "topk", "unique")
#: Functions of the C library that kernels call, a lane at a time.
CALLED = {"cosf", "exp", "expf", "fmodf", "log", "powf", "sincos", "sinf", "tanf"}
#: Of each operation so many samples.
SOME = 3

_OF_FLOATS = re.compile(
    r"^\tf(?:n?m(?:add|sub|ul)|add|sub|div|sqrt|max\w*|min\w*|abs|neg|rint\w|cvt\w*|cmp)\t[sdwx]\d+", re.M
)
_VECTOR = re.compile(r"\tv\d+\.|\tq\d+|\{ v")


def loops(text: str) -> Iterator[str]:
    """Blocks of the assembly that jump to themselves."""
    for block in re.split(r"^(?=\.LBB)", text, flags=re.M):
        name = re.match(r"\.LBB\w+(?=:)", block)
        if name and re.search(rf"\t(?:b\.\w+|cbn?z|tbn?z)\t.*{re.escape(name[0])}$", block, re.M):
            yield block


def kernels() -> Iterator[Kernel]:
    """Each once."""
    seen: set[str] = set()
    for record in records():
        rng = np.random.default_rng(zlib.crc32(record.name.encode()))
        for inputs, attrs in list(samples_of(record, rng, element_types(record)[0]))[:SOME]:
            try:
                graph, _ = graph_of(record, range(1, len(inputs)), "", inputs, attrs)
                program = compile_program(graph, ALL, Options())
            except OvjitError:
                continue
            for kernel in program.kernels:
                key = kernel.content_key(ALL)
                if key not in seen:
                    seen.add(key)
                    yield kernel


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_inner_loops_are_of_vectors() -> None:
    wrong, found = [], list(kernels())
    for kernel in found:
        text = kernel.assembly(ALL)
        single = [loop for loop in loops(text) if _OF_FLOATS.search(loop) and not _VECTOR.search(loop)]
        if single and not kernel.name.startswith(IN_ORDER):
            wrong.append(f"{kernel.name}: a loop of single numbers\n{single[0]}")
        if not _VECTOR.search(text) and not kernel.name.startswith(PLAIN):
            wrong.append(f"{kernel.name}: no vector")
        called = {name for name in re.findall(r"\tbl\t(\w+)", text) if not name.startswith("ovjit")}
        if called - CALLED:
            wrong.append(f"{kernel.name}: calls {called - CALLED}")
    assert len(found) > 300 and not wrong, "\n".join(wrong)
