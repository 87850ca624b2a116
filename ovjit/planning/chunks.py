"""Sizes of chunks, the units of work that threads claim."""

from __future__ import annotations

from typing import Any

from ovjit.graph.symbolic import sym_max, sym_min
from ovjit.graph.traced import is_traced_number

#: A chunk should keep one core busy for about this many bytes or multiply-adds: some 10 us.
CHUNK_WORK = 200_000
#: Below this much work (flops + bytes) in all of a program, waking a second thread costs more than it gains.
PARALLEL_WORK = 2_000_000


def split(total: int, work_each: float, chunk_work: float = CHUNK_WORK) -> int:
    """How many of `total` items one chunk takes, so that a chunk is worth claiming."""
    if is_traced_number(total) or is_traced_number(work_each):
        return _traced_split(total, work_each, chunk_work)
    if total <= 0:
        return 1
    return int(min(total, max(1, chunk_work // max(work_each, 1e-9))))


def _traced_split(total: Any, work_each: Any, chunk_work: Any) -> Any:
    total = sym_max(1, total)
    if not is_traced_number(work_each):
        return sym_min(total, int(max(1, chunk_work // max(work_each, 1e-9))))
    if type(chunk_work) is float and chunk_work.is_integer():
        chunk_work = int(chunk_work)
    return sym_min(total, sym_max(1, chunk_work // sym_max(work_each, 1)))


def ceil_div(a: int, b: int) -> int:
    return a if type(b) is int and b == 1 else -(-a // b)
