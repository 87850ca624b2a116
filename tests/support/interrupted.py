"""Interrupts at single bytecodes: `run_interrupted` raises an exception at the n-th one of ovjit's own files.

CPython raises what a signal's handler raises between two bytecodes of the main thread, at some of them in
one version and at others in the next. Here every bytecode is a place, but for two kinds. What is raised in a
finalizer CPython prints, and goes on. And from the end of a `with` to the call of `__exit__` it raises
nothing in any version, so that locks are released.
"""

from __future__ import annotations

import dis
import functools
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FrameType
from typing import Any

#: The files through which a call goes, from the API to the native runner and back.
CALL_PATHS = ("ovjit/api/run/", "ovjit/api/tensors/", "ovjit/execution/", "ovjit/planning/parametric.py")


class SignalError(Exception):
    """An exception of a signal's handler, such as that of a time limit."""


class Interrupter:
    """A trace function that raises `error` at the bytecode of this number, or calls `handler`. Its list
    `places` has those before it. `number` < 0: it only counts."""

    def __init__(
        self, number: int, error: type[BaseException], files: Sequence[str] = CALL_PATHS,
        handler: Callable[[], Any] | None = None,
    ):  # fmt: skip
        self.number = number
        self.error = error
        self.files = files
        self.handler = handler
        self.places: list[tuple[CodeType, int]] = []
        self.count = 0
        self.raised = ""
        #: Whether the exception came out of the scenario.
        self.came = False
        self._known: dict[CodeType, bool] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        known = self._known.get(code)
        if known is None:
            path = code.co_filename.replace("\\", "/")
            known = self._known[code] = any(part in path for part in self.files)
        if not known:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._count if self.number < 0 else self._step

    def _count(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.places.append((frame.f_code, frame.f_lasti))
        return self._count

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.count += 1
            code = frame.f_code
            if self.count > self.number and not self.raised and not _is_swallowed(frame):
                self.raised = f"{code.co_filename}:{frame.f_lineno} {code.co_name}, byte {frame.f_lasti}"
                sys.settrace(None)
                if self.handler is None:
                    raise self.error(self.raised)
                self.handler()
                return None
        return self._step


@functools.cache
def _ends_of_with(code: CodeType) -> frozenset[int]:
    """The bytecodes that call `__exit__` at the end of a `with` without an exception: three times None."""
    found: list[int] = []
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    for i, step in enumerate(steps[3:], 3):
        first = steps[i - 3]
        nones = [one.opname for one in steps[i - 2 : i]] in (["LOAD_CONST"] * 2, ["DUP_TOP"] * 2)
        called = step.opname in ("CALL_FUNCTION", "CALL", "PRECALL") and step.arg in (2, 3)
        if called and nones and first.opname == "LOAD_CONST" and first.argval is None:
            begin = i - 4 if steps[i - 4].opname in ("NOP", "POP_BLOCK") else i - 3
            end = i + 1 if step.opname == "PRECALL" else i
            found += [one.offset for one in steps[begin : end + 1]]
    return frozenset(found)


def _is_swallowed(frame: FrameType | None) -> bool:
    """Whether nothing can be raised here, or is ignored: see the head of this file."""
    if frame is not None and frame.f_lasti in _ends_of_with(frame.f_code):
        return True
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "_give_back", "<genexpr>"):
            return True
        frame = frame.f_back
    return False


def run_interrupted(
    scenario: Callable[[], Any], number: int, error: type[BaseException], files: Sequence[str] = CALL_PATHS
) -> Interrupter:
    """Run `scenario` with an exception at bytecode `number`. Its own errors are raised."""
    interrupter = Interrupter(number, error, files)
    before = sys.gettrace()
    try:
        sys.settrace(interrupter)
        try:
            scenario()
        finally:
            sys.settrace(before)
    except error as raised:
        if not interrupter.raised or interrupter.raised not in str(raised):
            raise
        interrupter.came = True
    return interrupter


def bytecodes(scenario: Callable[[], Any], files: Sequence[str] = CALL_PATHS) -> list[tuple[CodeType, int]]:
    """The bytecodes that `scenario` runs, in order."""
    interrupter = Interrupter(-1, KeyboardInterrupt, files)
    before = sys.gettrace()
    sys.settrace(interrupter)
    try:
        scenario()
    finally:
        sys.settrace(before)
    return interrupter.places


def sample_of(places: Sequence[tuple[CodeType, int]], count: int, seed: int) -> list[int]:
    """Some numbers of bytecodes: of different functions first, then of different places in them, each at a
    random one of its runs."""
    rng = random.Random(seed)
    runs: dict[CodeType, dict[int, list[int]]] = {}
    for number, (code, at) in enumerate(places):
        runs.setdefault(code, {}).setdefault(at, []).append(number)
    lists = [rng.sample([*by_place.values()], len(by_place)) for by_place in runs.values()]
    rng.shuffle(lists)
    found: list[int] = []
    while len(found) < count and any(lists):
        for numbers in lists:
            if numbers:
                found.append(rng.choice(numbers.pop()))
    return found[:count]


def distinct_of(places: Sequence[tuple[CodeType, int]]) -> list[int]:
    """The first run and the last run of each bytecode."""
    first: dict[tuple[CodeType, int], int] = {}
    last: dict[tuple[CodeType, int], int] = {}
    for number, place in enumerate(places):
        first.setdefault(place, number)
        last[place] = number
    return sorted({*first.values(), *last.values()})


def check_interrupted(
    scenario: Callable[[], Any],
    check: Callable[[], Any],
    numbers: Iterable[int],
    error: type[BaseException] = KeyboardInterrupt,
    files: Sequence[str] = CALL_PATHS,
) -> int:
    """For each number: run `scenario` with an exception there, then `check`. Returns how many were raised.
    Raises AssertionError with the place for an exception that was swallowed, and for a failed check.

    How many bytecodes a scenario with threads runs depends on when they end. One that ended before its number
    is run again with an exception at a bytecode that it has."""
    count = 0
    for number in numbers:
        where = ""
        try:
            interrupter = run_interrupted(scenario, number, error, files)
            if not interrupter.raised and interrupter.count:
                interrupter = run_interrupted(scenario, number % interrupter.count, error, files)
            where = interrupter.raised
            assert interrupter.came == bool(where), "it was swallowed"
            check()
        except BaseException as failed:
            raise AssertionError(f"after an interrupt at bytecode {number}: {where}: {failed!r}") from failed
        count += bool(where)
    return count


def check_handled(
    scenario: Callable[[], Any], handler: Callable[[], Any], check: Callable[[], Any], numbers: Iterable[int]
) -> int:
    """For each number: run `scenario` with a call of `handler` at that bytecode, as one of a signal's, then
    `check`. Returns how often it was called. Raises AssertionError with the place for what any of them
    raises."""
    count = 0
    for number in numbers:
        interrupter = Interrupter(number, SignalError, CALL_PATHS, handler)
        before = sys.gettrace()
        try:
            for _ in range(2):  # as in `check_interrupted`
                sys.settrace(interrupter)
                try:
                    scenario()
                finally:
                    sys.settrace(before)
                check()
                if interrupter.raised or not interrupter.count:
                    break
                interrupter = Interrupter(number % interrupter.count, SignalError, CALL_PATHS, handler)
        except BaseException as failed:
            raise AssertionError(
                f"a handler at bytecode {number}: {interrupter.raised}: {failed!r}"
            ) from failed
        count += bool(interrupter.raised)
    return count
