"""Branches of Python code that raise an exception on one side, such as assertions."""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType
from typing import Any

from ovjit.readers.torch.tracing.instructions import listing

#: Instructions that may come between the test of a value and the jump that depends on it.
_BETWEEN = ("TO_BOOL", "UNARY_NOT", "NOT_TAKEN", "COPY", "EXTENDED_ARG")
#: Instructions that test elements of their operands: comparisons of tuples, `in`, and calls of `any`, which
#: Python 3.11 makes of two instructions.
_OF_ELEMENTS = ("COMPARE_OP", "CONTAINS_OP", "PRECALL", "CALL")
#: Beginnings of instructions that end the search for a raise along one side of a branch.
_ENDS = ("RETURN", "YIELD", "FOR_ITER", "STORE", "DELETE")
#: Maximum number of instructions that are searched along one side.
_MOST = 60


def is_assertion(frame: Any) -> bool:
    """Whether the frame's current instruction is an assertion: a test of which one branch raises an
    exception.

    Examples are `assert a == b`, `if a != b: raise ...` and `if (a, b) != x.shape: raise ...`.
    """
    return _is_assertion_at(frame.f_code, frame.f_lasti)


class Assertions:
    """Tests that are assertions: by their code, or because they raised when they ran."""

    def __init__(self) -> None:
        self._lines: set[tuple[str, int]] = set()

    def __contains__(self, frame: Any) -> bool:
        return (frame.f_code.co_filename, frame.f_lineno) in self._lines or is_assertion(frame)

    def learn(self, code: CodeType, line: int, error: BaseException) -> bool:
        """Whether a test at a line is an assertion, because its own function raised the error."""
        at: Any = error.__traceback__
        while at.tb_next is not None:
            at = at.tb_next
        rows, row_by_offset = listing(code)
        row = row_by_offset.get(at.tb_lasti)
        if at.tb_frame.f_code is not code or row is None or rows[row].opname != "RAISE_VARARGS":
            return False
        self._lines.add((code.co_filename, line))
        return True


@lru_cache(4096)
def _is_assertion_at(code: CodeType, at: int) -> bool:
    rows, row_by_offset = listing(code)
    i = row_by_offset.get(at, len(rows))
    while i < len(rows) and (rows[i].opname in _BETWEEN or rows[i].opname in _OF_ELEMENTS):
        i += 1
    if i >= len(rows) or not _is_branch(rows[i]):
        return False
    return any(_raises(code, way) for way in (i + 1, row_by_offset.get(rows[i].argval, len(rows))))


def _is_branch(row: dis.Instruction) -> bool:
    return "JUMP" in row.opname and "_IF_" in row.opname


def _raises(code: CodeType, at: int) -> bool:
    """Whether the instructions from `at` on reach a raise without a store, and without a jump but those on a
    constant: Python 3.14 makes a loop of `any(...)`, which ends with True or False."""
    rows, row_by_offset = listing(code)
    constant: bool | None = None
    for _ in range(_MOST):
        if at >= len(rows):
            return False
        row, at = rows[at], at + 1
        if row.opname == "RAISE_VARARGS":
            return True
        if row.opname == "LOAD_CONST" and isinstance(row.argval, bool):
            constant = row.argval
        elif constant is not None and row.opname == "JUMP_FORWARD":
            at = row_by_offset[row.argval]
        elif constant is not None and _is_branch(row):
            at = row_by_offset[row.argval] if constant == ("TRUE" in row.opname) else at
            constant = None
        elif "JUMP" in row.opname or row.opname.startswith(_ENDS):
            return False
        elif row.opname not in _BETWEEN:
            constant = None
    return False
