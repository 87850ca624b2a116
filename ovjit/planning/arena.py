"""Assigns arena offsets to buffers by lifetime."""

from __future__ import annotations

from ovjit.planning.constants import align_up
from ovjit.planning.views import Buffer

#: Number of steps of a span. Placed buffers are indexed by span.
SPAN = 8


def assign_offsets(buffers: list[Buffer], alignment: int) -> int:
    """Assign offsets so that buffers alive at the same step do not overlap. Returns the arena's bytes.

    Buffers are placed largest first, each into the lowest gap between placed buffers of overlapping lifetime.
    """
    spans: dict[int, list[Buffer]] = {}  # index of a span -> placed buffers that are alive in it
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        size = align_up(max(buffer.size, 1), alignment)
        span_range = range(buffer.first // SPAN, buffer.last // SPAN + 1)
        near = {id(other): other for span in span_range for other in spans.get(span, ())}.values()
        beside = [b for b in near if b.first <= buffer.last and buffer.first <= b.last]
        offset = 0
        for other in sorted(beside, key=lambda b: b.offset):
            if other.offset - offset >= size:
                break
            offset = max(offset, align_up(other.offset + max(other.size, 1), alignment))
        buffer.offset = offset
        for span in span_range:
            spans.setdefault(span, []).append(buffer)
        total = max(total, offset + size)
    return total
