"""A recorded module beside the module itself, for other sizes than the example's.

What follows sizes through Python code takes two sizes for different ones. Where that is wrong for some sizes,
the module and what was recorded of it differ there, though not for the example.
"""

from __future__ import annotations

import dis
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, islice
from types import CodeType, FrameType
from typing import Any

from ovjit.errors import unless_of_signal
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.agreement import agrees
from ovjit.readers.torch.tracing.effects import Effect, Effects
from ovjit.readers.torch.tracing.state import call_unchanged
from ovjit.readers.torch.tracing.trace import Prepared, quietly

#: For how many other sizes a module is run, and how many are tried.
MOST_SIZES, MOST_TRIES = 6, 12
#: For how many seconds a module runs for one other size at least, and how much longer than for all of them.
#: A loop that ends for the example may not end there.
LEAST_LIMIT, LONGER = 5.0, 10.0


class OtherSizes:
    """Examples of other sizes with the module's outputs: as many as the first trace can be compared with in
    `seconds`, at least one. The module has no other side effects (`effects`) for them than for the
    example."""

    def __init__(self, ready: Prepared, seconds: float, effects: Effects):
        self._ready = ready
        self._effects = effects
        self._seconds = seconds
        self._examples: list[tuple[list[Any], Any]] | None = None

    def wrong(self, script: Any) -> int:
        """Count the examples for which a trace raises an error or differs from the module."""
        return sum(right is not True for right in self._compare(script))

    def differs(self, program: Any) -> bool:
        """True if a program differs from the module for an example. Errors of the program do not count."""
        return any(right is False for right in self._compare(program))

    def _compare(self, recorded: Any) -> Iterator[bool | None]:
        """Yield for each example whether the recording's results agree with the module's; None for errors."""
        for leaves, expected in self._try_sizes() if self._examples is None else self._examples:
            try:
                with quietly(), torch.no_grad(), torch.jit.optimized_execution(False):
                    yield agrees(expected, call_unchanged(recorded, self._ready.module, leaves))
            except unless_of_signal(Exception):  # which the model would raise, too
                yield None

    def _try_sizes(self) -> Iterator[tuple[list[Any], Any]]:
        """Yield (tensors of other sizes, the module's outputs for them), and keep them for later calls."""
        self._examples = []
        names = list(self._ready.module.names)
        begin = time.perf_counter()
        for leaves in islice(_resize(self._ready.leaves), MOST_TRIES):
            result = self._outputs(leaves)
            if result is not None:
                self._examples.append((leaves, result))
                yield leaves, result
            if len(self._examples) == MOST_SIZES or time.perf_counter() - begin > self._seconds:
                break
        self._ready.module.names[:] = names

    def _outputs(self, leaves: Sequence[Any]) -> Any:
        """Return the module's outputs, or None if it fails for these sizes or exceeds the time limit."""
        try:
            with quietly(), torch.no_grad():
                return call_unchanged(self._run, self._ready.module, leaves)
        except unless_of_signal(Exception, SystemExit, Effect):
            return None

    def _run(self, *leaves: Any) -> Any:
        limit = max(LEAST_LIMIT, LONGER * self._seconds)
        with self._effects.no_others():
            return call_within(limit, self._ready.module, *leaves)


class _TimeLimitExceeded(BaseException):
    """Raised in Python code that runs for too long."""


#: Packages whose lines are not looked at: they have no loop that depends on a module.
_ENDING = sys.stdlib_module_names | {"torch", "ovjit", "numpy"}
#: Instructions of `with` statements in Python 3.10, 3.11 to 3.13, and later.
_WITH = "SETUP_WITH", "SETUP_ASYNC_WITH", "BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL"


@lru_cache
def _ends_of_with(code: CodeType) -> set[int]:
    """Bytecode offsets at which an asynchronous exception could leave the lock of a `with` locked: those of
    the statement's line, to which Python returns before it leaves the block, and of a `pass` in it."""
    begins, idle = {dis.opmap.get(name) for name in _WITH}, dis.opmap["NOP"]
    lines = {line for at, end, line in code.co_lines() if not begins.isdisjoint(code.co_code[at:end:2])}
    within = {at for first, end, line in code.co_lines() if line in lines for at in range(first, end, 2)}
    return within.union(at for at in range(0, len(code.co_code), 2) if lines and code.co_code[at] == idle)


def call_within(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function` with a time limit. Raises TimeoutError if its Python code runs for longer.

    A trace function of this thread looks at the time before each line of a module's code. So code ends
    between two lines of its own, as by an error that it raises itself. Another trace function, such as a
    debugger's, does not see the call.
    """
    end = time.perf_counter() + seconds

    def check(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _ENDING:
            return None
        if event == "line" and time.perf_counter() > end and frame.f_lasti not in _ends_of_with(frame.f_code):
            raise _TimeLimitExceeded
        return check

    tracer = sys.gettrace()
    sys.settrace(check)
    try:
        return function(*arguments)
    except _TimeLimitExceeded:
        raise TimeoutError(f"it takes more than {seconds} seconds") from None
    finally:
        sys.settrace(tracer)


def _resize(leaves: Sequence[Any]) -> Iterator[list[Any]]:
    """Tensors of other shapes, each shape once."""
    tried_shapes = {tuple(leaf.shape for leaf in leaves)}
    for change, axis in _changes([tuple(leaf.shape) for leaf in leaves]):
        result = [_with_lengths(leaf, change, axis) for leaf in leaves]
        shapes = tuple(leaf.shape for leaf in result)
        if shapes not in tried_shapes:
            tried_shapes.add(shapes)
            yield result


def _changes(shapes: Sequence[Sequence[int]]) -> Iterator[tuple[Mapping[int, int], int | None]]:
    """Yields (new length by the example's length, axis or None for all axes): the sizes to try, likely ones
    first. By default all dimensions of one length change together: by one, to twice the length, or to the
    length of other dimensions. If a shape has a length twice, as a square image has, one of its axes also
    changes alone. Axis 0, the number of samples, also changes if it is 1."""
    lengths = sorted({d for shape in shapes for d in shape if d > 1}, reverse=True)
    axes = {(a, d) for shape in shapes for a, d in enumerate(shape) if d > 1 and shape.count(d) > 1}
    alone = [({d: d + 1}, a) for a, d in sorted(axes, reverse=True)]
    yield {d: d + 1 for d in lengths}, None
    yield from alone[:1]
    for one, other in islice(combinations(lengths, 2), 2):
        yield {one: other}, None
        yield {one: other, other: one}, None
    yield from (({d: d + 1}, None) for d in lengths)
    yield {shape[0]: shape[0] + 1 for shape in shapes if shape}, 0
    yield from alone[1:]
    yield from (({d: result}, None) for d in lengths for result in (d * 2, d - 1))


def _with_lengths(leaf: Any, change: Mapping[int, int], axis: int | None) -> Any:
    """A tensor with other lengths of all axes equal to a length, or of one axis; its items are repeated."""
    for dim, length in enumerate(leaf.shape):
        if length in change and axis in (None, dim):
            leaf = leaf.index_select(dim, torch.arange(change[length]) % length)
    return leaf
