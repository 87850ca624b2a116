"""The instruction of Python's that a frame is at, which tells why it asks for a truth or a number.

Instructions have other names in other versions of Python.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple


class Listing(NamedTuple):
    """The instructions of a code object, and the index of each by its offset."""

    rows: list[dis.Instruction]
    row_by_offset: dict[int, int]


@lru_cache(64)
def listing(code: CodeType) -> Listing:
    rows = list(dis.get_instructions(code))
    return Listing(rows, {row.offset: i for i, row in enumerate(rows)})


def takes_part(frame: Any) -> bool:
    """Whether a frame's instruction reads, writes or deletes an item or a slice."""
    now = _current(frame)
    return "SUBSCR" in now.name or "SLICE" in now.name or now.is_subscription


def takes_item(frame: Any) -> bool:
    """Whether a frame's instruction reads an item by a single index, not a slice or tuple."""
    now = _current(frame)
    is_read = now.name == "BINARY_SUBSCR" or now.is_subscription
    return is_read and now.before not in ("BUILD_SLICE", "BUILD_TUPLE")


def calls(frame: Any, unpacks: bool = True) -> bool:
    """Whether a frame's instruction calls a function. `unpacks`: also one with unpacked arguments, as
    `f(*values)`."""
    name = _current(frame).name
    return "CALL" in name and (unpacks or not name.endswith("_EX"))


class _Current(NamedTuple):
    """The names of an instruction and of the one that precedes it. `is_subscription`: whether it is the
    operator that `a[b]` has been since Python 3.14."""

    name: str
    before: str
    is_subscription: bool


def _current(frame: Any) -> _Current:
    return _at(frame.f_code, frame.f_lasti)


@lru_cache(4096)
def _at(code: CodeType, offset: int) -> _Current:
    """The instruction of a frame at `offset`. A frame that calls a Python function may be at an inline cache
    after its instruction."""
    rows, row_by_offset = listing(code)
    while offset not in row_by_offset:
        offset -= 2
    at = row_by_offset[offset]
    row, before = rows[at], rows[at - 1].opname if at else ""
    return _Current(row.opname, before, row.opname == "BINARY_OP" and row.argrepr == "[]")
