"""Where buffers lie in the memory that a plan works in."""

from __future__ import annotations

import bisect

from ovjit.planning.constants import aligned
from ovjit.planning.views import Buffer


def assign_offsets(buffers: list[Buffer], alignment: int) -> int:
    """Give every buffer an offset so that those alive at the same step do not overlap; the total size.

    Largest first, each at the lowest gap among the already placed ones that live at the same time.
    """
    placed: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        size = aligned(max(buffer.size, 1), alignment)
        offset = 0
        for other in placed:  # sorted by offset
            if other.first <= buffer.last and buffer.first <= other.last:
                if other.offset - offset >= size:
                    break
                offset = max(offset, aligned(other.offset + max(other.size, 1), alignment))
        buffer.offset = offset
        bisect.insort(placed, buffer, key=lambda b: b.offset)
        total = max(total, offset + size)
    return total
