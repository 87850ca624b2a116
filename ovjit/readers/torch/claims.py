"""Branches of Python code of which one way raises an exception."""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType
from typing import Any

#: What a value passes through between the question for its truth and the jump by that.
_BETWEEN = ("TO_BOOL", "UNARY_NOT", "NOT_TAKEN", "COPY", "EXTENDED_ARG")
#: What ends a way that is followed straight ahead.
_ENDS = ("RETURN", "YIELD", "FOR_ITER", "STORE", "DELETE")
#: How many instructions a way is followed.
_MOST = 60


def is_claim(frame: Any) -> bool:
    """Whether a frame asks for the truth of a value, and raises an exception for one of the answers, as by
    `assert a == b`, or `if a != b: raise ...`."""
    return _is_claim(frame.f_code, frame.f_lasti)


@lru_cache(4096)
def _is_claim(code: CodeType, at: int) -> bool:
    rows = list(dis.get_instructions(code))
    places = {row.offset: i for i, row in enumerate(rows)}
    i = places.get(at, len(rows))
    while i < len(rows) and rows[i].opname in _BETWEEN:
        i += 1
    if i >= len(rows) or "JUMP" not in rows[i].opname or "_IF_" not in rows[i].opname:
        return False
    return any(_raises(rows, way) for way in (i + 1, places.get(rows[i].argval, len(rows))))


def _raises(rows: list[dis.Instruction], start: int) -> bool:
    for row in rows[start : start + _MOST]:
        if row.opname == "RAISE_VARARGS":
            return True
        if "JUMP" in row.opname or row.opname.startswith(_ENDS):
            return False
    return False
