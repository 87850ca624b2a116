"""Places of buffers in the arena: no two that live at once overlap, and each has the lowest gap there is."""

from __future__ import annotations

import random

import pytest

from ovjit.planning.arena import assign_offsets
from ovjit.planning.constants import align_up
from ovjit.planning.views import Buffer

ALIGNMENT = 64


def made(size: int, first: int, last: int) -> Buffer:
    buffer = Buffer(size)
    buffer.first, buffer.last = first, last
    return buffer


def some(rng: random.Random) -> list[Buffer]:
    steps, found = rng.choice((1, 7, 8, 9, 60)), []
    for _ in range(rng.randrange(40)):
        first = rng.randrange(-1, steps)
        length = rng.choice((0, 1, 2, 17, steps))
        found.append(made(rng.choice((0, 1, 63, 64, 65, 4096, rng.randrange(9999))), first, first + length))
    return found


def lowest_gaps(buffers: list[Buffer]) -> list[int]:
    """The offsets by the definition, each buffer compared with all placed ones."""
    offsets: dict[int, int] = {}
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        size = align_up(max(buffer.size, 1), ALIGNMENT)
        taken = [
            (offsets[id(b)], offsets[id(b)] + align_up(max(b.size, 1), ALIGNMENT))
            for b in placed
            if b.first <= buffer.last and buffer.first <= b.last
        ]
        starts = sorted({0, *(end for _, end in taken)})
        fits = (s for s in starts if all(s + size <= begin or end <= s for begin, end in taken))
        offsets[id(buffer)] = next(fits)
        placed.append(buffer)
    return [offsets[id(b)] for b in buffers]


@pytest.mark.parametrize("seed", range(60))
def test_each_buffer_has_the_lowest_gap(seed: int) -> None:
    buffers = some(random.Random(seed))
    total = assign_offsets(buffers, ALIGNMENT)
    assert [b.offset for b in buffers] == lowest_gaps(buffers), f"seed {seed}"
    assert total == max((b.offset + align_up(max(b.size, 1), ALIGNMENT) for b in buffers), default=0)


class Counted(Buffer):
    """Counts how often the step that a lifetime begins with is read."""

    looks = 0

    @property  # type: ignore[override]
    def first(self) -> int:
        Counted.looks += 1
        return self.begins

    @first.setter
    def first(self, step: int) -> None:
        self.begins = step


def test_a_long_chain_takes_work_in_proportion() -> None:
    def looks(count: int) -> int:
        buffers: list[Buffer] = [Counted(4096) for _ in range(count)]
        for i, buffer in enumerate(buffers):
            buffer.first, buffer.last = i, i + 1
        Counted.looks = 0
        assert assign_offsets(buffers, ALIGNMENT) == 2 * 4096
        return Counted.looks

    assert looks(20_000) < 12 * looks(2_000)
