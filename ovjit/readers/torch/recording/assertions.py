"""Branches of Python code that raise an exception on one side, such as assertions."""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType
from typing import Any

#: Instructions that may come between the test of a value and the jump that depends on it.
_BETWEEN = ("TO_BOOL", "UNARY_NOT", "NOT_TAKEN", "COPY", "EXTENDED_ARG")
#: Instructions that test elements of their operands: comparisons of tuples, `in`, and calls of `any`, which
#: Python 3.11 makes of two instructions.
_OF_ELEMENTS = ("COMPARE_OP", "CONTAINS_OP", "PRECALL", "CALL")
#: Beginnings of instructions that end the search for a raise along one side of a branch.
_ENDS = ("RETURN", "YIELD", "FOR_ITER", "STORE", "DELETE")
#: Maximum number of instructions that are searched along one side.
_MOST = 60


def is_claim(frame: Any) -> bool:
    """Whether the frame's current instruction tests a value, and one side of the branch raises an exception.

    Examples are `assert a == b`, `if a != b: raise ...` and `if (a, b) != x.shape: raise ...`.
    """
    return _is_claim(frame.f_code, frame.f_lasti)


@lru_cache(4096)
def _is_claim(code: CodeType, at: int) -> bool:
    rows = list(dis.get_instructions(code))
    places = {row.offset: i for i, row in enumerate(rows)}
    i = places.get(at, len(rows))
    while i < len(rows) and (rows[i].opname in _BETWEEN or rows[i].opname in _OF_ELEMENTS):
        i += 1
    if i >= len(rows) or "JUMP" not in rows[i].opname or "_IF_" not in rows[i].opname:
        return False
    return any(_raises(rows, way) for way in (i + 1, places.get(rows[i].argval, len(rows))))


def _raises(rows: list[dis.Instruction], start: int) -> bool:
    """Whether the instructions from `start` on reach a raise without a jump or a store."""
    for row in rows[start : start + _MOST]:
        if row.opname == "RAISE_VARARGS":
            return True
        if "JUMP" in row.opname or row.opname.startswith(_ENDS):
            return False
    return False
