"""Loops of Python's over open dimensions, and other code that makes a number of Python's of one.

What is found is recorded in another trace, and warned of where that does not do: a trace has as many
iterations as the example.
"""

from __future__ import annotations

import contextlib
import linecache
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ovjit.readers.torch.recording.assertions import Claims
from ovjit.readers.torch.recording.callees import calls_operator
from ovjit.readers.torch.recording.instructions import calls, takes_item, takes_part
from ovjit.readers.torch.recording.loop_code import functions_of
from ovjit.readers.torch.recording.patches import caller, outside, patch, suspend_tracing
from ovjit.readers.torch.recording.recorder import tell
from ovjit.readers.torch.recording.size_values import is_of_sizes
from ovjit.readers.torch.recording.traced_nodes import is_open, is_traced


class Found:
    """Functions with loops over open dimensions, and the lines of these loops."""

    def __init__(self) -> None:
        self.lines: dict[Any, set[int]] = {}  # by function
        self._functions: dict[Any, list[Any]] = {}  # by code
        self._unequal: dict[Any, int] = {}  # the last line that `leave` was told of, by code

    def add(self, frame: Any) -> None:
        """Note the line that a frame is at."""
        if frame.f_lineno < self._unequal.get(frame.f_code, 0):
            return
        if frame.f_code not in self._functions:
            self._functions[frame.f_code] = functions_of(frame)
        for function in self._functions[frame.f_code]:
            self.lines.setdefault(function, set()).add(frame.f_lineno)

    def leave(self, frame: Any) -> None:
        """Leave out what stands before the line of a frame, as it gives items of unequal shapes."""
        last = self._unequal[frame.f_code] = max(frame.f_lineno, self._unequal.get(frame.f_code, 0))
        for function in self._functions.get(frame.f_code, ()):
            remaining = {line for line in self.lines.pop(function, ()) if line >= last}
            if remaining:
                self.lines[function] = remaining


class Conditions(Found):
    """Functions in which layers with weights order two sizes; `every`: those with any condition on sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.every = Found()
        #: Tests of which one answer ends in an exception: the other one holds for all sizes that are taken.
        self.claims = Claims()
        #: Whether a list or a dict has been asked for an item by a size.
        self.are_looked_up = False

    def look_up(self, frame: Any) -> None:
        """Note that a frame asks for an item by a size: whether it is this one is a condition."""
        self.every.add(frame)
        self.are_looked_up = True


def warn_of_index(frame: Any) -> None:
    """Warn of a line that makes an open dimension a number of Python's, such as how often a loop runs."""
    import torch

    frame = outside(frame)
    file, line = frame.f_code.co_filename, frame.f_lineno
    message = "A dynamic dimension used as a Python number might make the trace incorrect for other lengths"
    text = linecache.getline(file, line).strip()
    tell(f"{message}: {text} ({file}:{line})", torch.jit.TracerWarning, file, line)


@contextlib.contextmanager
def exporting() -> Iterator[set[str]]:
    """Warn of lines for which torch.export takes an open dimension to have the example's length. Gives the
    files that ask for numbers, or compare them in Python's functions."""
    import torch

    torch_folder, asking = os.path.dirname(torch.__file__) + os.sep, set[str]()

    def noting(original: Any) -> Any:
        def number(self: Any) -> Any:
            frame = caller()
            file = frame.f_code.co_filename
            if self.node.maybe_as_int() is None and not file.startswith(torch_folder):
                compares = isinstance(self, torch.SymBool)
                if not compares and not takes_part(outside(frame)):
                    warn_of_index(frame)
                if not compares or calls(frame):
                    asking.add(file)
            return original(self)

        return number

    rows = ((torch.SymInt, "__index__"), (torch.SymInt, "__int__"), (torch.SymFloat, "__int__"),
            (torch.SymFloat, "__float__"), (torch.SymBool, "__bool__"))  # fmt: skip
    with patch(*((kind, name, noting(getattr(kind, name))) for kind, name in rows if name in vars(kind))):
        yield asking


@contextlib.contextmanager
def note_loops(
    loops: Found | None, listed: Found | None = None, conditions: Conditions | None = None
) -> Iterator[None]:
    """Note which lines make an open dimension a number of Python's, or iterate over one, and warn of these:
    a trace has as many iterations as the example. `listed` are the lines that make a list of a tensor.

    Those are left out that fill a list with tensors of unequal shapes, such as detections of each class: what
    a recorded loop appends is stacked.
    """
    import torch

    def index(self: Any) -> int:
        frame = caller()
        if calls_operator(frame):
            pass
        elif not takes_part(outside(frame)) and is_open(self):
            warn_of_index(frame)
            if loops is not None:
                loops.add(frame)
        elif takes_item(outside(frame)) and is_of_sizes(self):
            warn_of_index(frame)
            if conditions is not None:
                conditions.look_up(frame)
        return int(torch._C.TensorBase.__index__(self))

    def noting(original: Any, loops: Found | None) -> Any:
        def call_noted(*args: Any, **named: Any) -> Any:
            if loops is not None and is_traced(args[0] if args else named.get("input")):
                loops.add(caller())
            return original(*args, **named)

        return call_noted

    def concatenate(tensors: Any, *more: Any, **named: Any) -> Any:
        frame = caller()
        if loops is not None and isinstance(tensors, list) and _is_unequal(tensors):
            if any(value is tensors for value in frame.f_locals.values()):  # no display such as [a, b]
                loops.leave(frame)
        return cat(tensors, *more, **named)

    tensor, cat = torch.Tensor, torch.cat
    rows = [(tensor, "__iter__"), (tensor, "__len__"), (tensor, "unbind"), (torch, "unbind")]
    noted_rows = [(owner, name, noting(getattr(owner, name), loops)) for owner, name in rows]
    noted_rows += [] if listed is None else [(tensor, "tolist", noting(tensor.tolist, listed))]
    with patch((tensor, "__index__", index), (torch, "cat", concatenate), *noted_rows):
        yield


def _is_unequal(tensors: Sequence[Any]) -> bool:
    with suspend_tracing():
        return len({tuple(t.shape) for t in tensors if hasattr(t, "shape")}) > 1
