"""Where buffers lie in the memory that a plan works in."""

from __future__ import annotations

from ovjit.planning.constants import aligned
from ovjit.planning.views import Buffer

#: Steps of a span: placed buffers are looked up by spans.
SPAN = 8


def assign_offsets(buffers: list[Buffer], alignment: int) -> int:
    """Give every buffer an offset so that those alive at the same step do not overlap; the total size.

    Largest first, each at the lowest gap among the already placed ones that live at the same time.
    """
    spans: dict[int, list[Buffer]] = {}  # number of a span -> placed buffers that are alive in it
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        size = aligned(max(buffer.size, 1), alignment)
        own = range(buffer.first // SPAN, buffer.last // SPAN + 1)
        near = {id(other): other for span in own for other in spans.get(span, ())}.values()
        beside = [b for b in near if b.first <= buffer.last and buffer.first <= b.last]
        offset = 0
        for other in sorted(beside, key=lambda b: b.offset):
            if other.offset - offset >= size:
                break
            offset = max(offset, aligned(other.offset + max(other.size, 1), alignment))
        buffer.offset = offset
        for span in own:
            spans.setdefault(span, []).append(buffer)
        total = max(total, offset + size)
    return total
