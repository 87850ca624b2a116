"""The instruction of Python's that a frame is at, which tells why it asks for a truth or a number.

Instructions have other names in other versions of Python.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple


class Listing(NamedTuple):
    """The instructions of some code, and the place of each among them by its offset."""

    rows: list[dis.Instruction]
    places: dict[int, int]


@lru_cache(4096)
def listing(code: CodeType) -> Listing:
    rows = list(dis.get_instructions(code))
    return Listing(rows, {row.offset: i for i, row in enumerate(rows)})


def takes_part(frame: Any) -> bool:
    """Whether a frame reads, writes or deletes an item or a slice."""
    row, _ = _current(frame)
    return "SUBSCR" in row.opname or "SLICE" in row.opname or _is_subscription(row)


def takes_item(frame: Any) -> bool:
    """Whether a frame reads an item by a single index, no slice or tuple."""
    row, before = _current(frame)
    is_read = row.opname == "BINARY_SUBSCR" or _is_subscription(row)
    return is_read and (before is None or before.opname not in ("BUILD_SLICE", "BUILD_TUPLE"))


def calls(frame: Any, unpacks: bool = True) -> bool:
    """Whether a frame calls a function. `unpacks`: also with arguments that are unpacked, as `f(*values)`."""
    name = _current(frame)[0].opname
    return "CALL" in name and (unpacks or not name.endswith("_EX"))


def _is_subscription(row: dis.Instruction) -> bool:
    """Since Python 3.14 `a[b]` is a binary operator."""
    return row.opname == "BINARY_OP" and row.argrepr == "[]"


def _current(frame: Any) -> tuple[dis.Instruction, dis.Instruction | None]:
    """The frame's instruction, and the one that precedes it. A frame that calls a function of Python's may be
    at a cache behind its instruction."""
    rows, places = listing(frame.f_code)
    offset = frame.f_lasti
    while offset not in places:
        offset -= 2
    at = places[offset]
    return rows[at], rows[at - 1] if at else None
