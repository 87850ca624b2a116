"""Sizes of chunks, the units of work that threads claim."""

from __future__ import annotations

from typing import Any

from ovjit.graph.symbolic import sym_max, sym_min
from ovjit.graph.traced import is_traced_number

#: Target size of a chunk in bytes or multiply-adds: about 10 us on one core of a CPU. A target may have
#: another one (`Target.chunk_work`).
CHUNK_WORK = 200_000
#: Minimum work (flops + bytes) of a program for several threads. Below, waking a thread costs more than it
#: gains.
PARALLEL_WORK = 2_000_000


def split(total: int, work_each: float, chunk_work: float = CHUNK_WORK) -> int:
    """The number of items per chunk, at least 1, such that a chunk has about `chunk_work`."""
    if is_traced_number(total) or is_traced_number(work_each):
        return _traced_split(total, work_each, chunk_work)
    if total <= 0:
        return 1
    return int(min(total, max(1, chunk_work // max(work_each, 1e-9))))


def split_for(target: Any, total: int, work_each: float) -> int:
    """`split` with the target's size of a chunk."""
    return split(total, work_each, target.chunk_work) if target.chunk_work else split(total, work_each)


def _traced_split(total: Any, work_each: Any, chunk_work: Any) -> Any:
    total = sym_max(1, total)
    if not is_traced_number(work_each):
        return sym_min(total, int(max(1, chunk_work // max(work_each, 1e-9))))
    if type(chunk_work) is float and chunk_work.is_integer():
        chunk_work = int(chunk_work)
    return sym_min(total, sym_max(1, chunk_work // sym_max(work_each, 1)))


def ceil_div(a: int, b: int) -> int:
    return a if type(b) is int and b == 1 else -(-a // b)
