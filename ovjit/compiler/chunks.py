"""How work is cut into chunks, which threads claim one after the other."""

from __future__ import annotations

#: A chunk should keep one core busy for about this many bytes or multiply-adds: some 10 us.
CHUNK_WORK = 200_000


def split(total: int, work_each: float, chunk_work: float = CHUNK_WORK) -> int:
    """How many of `total` items one chunk takes, so that a chunk is worth claiming."""
    if total <= 0:
        return 1
    return int(min(total, max(1, chunk_work // max(work_each, 1e-9))))


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
