"""Warnings of code that makes a number of Python's of an open dimension: a trace has the example's."""

from __future__ import annotations

import contextlib
import linecache
import os
from collections.abc import Iterator
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.callees import calls_operator
from ovjit.readers.torch.tracing.instructions import calls, takes_item, takes_part
from ovjit.readers.torch.tracing.patches import caller, outside, patch
from ovjit.readers.torch.tracing.recorder import tell
from ovjit.readers.torch.tracing.size_values import is_of_sizes
from ovjit.readers.torch.tracing.traced_nodes import is_open


def warn_of_index(frame: Any) -> None:
    """Warn of a line that makes an open dimension a number of Python's, such as how often a loop runs."""
    frame = outside(frame)
    file, line = frame.f_code.co_filename, frame.f_lineno
    message = "A dynamic dimension used as a Python number might make the trace incorrect for other lengths"
    text = linecache.getline(file, line).strip()
    tell(f"{message}: {text} ({file}:{line})", torch.jit.TracerWarning, file, line)


@contextlib.contextmanager
def exporting() -> Iterator[set[str]]:
    """Warn of lines for which torch.export takes an open dimension to have the example's length. Gives the
    files that ask for numbers, or compare them in Python's functions."""
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


def index_warnings() -> contextlib.AbstractContextManager[None]:
    """Warn of lines that make an open dimension a number of Python's by `__index__`, such as `range(n)` and
    `items[n]`: PyTorch does not."""

    def index(self: Any) -> int:
        frame = caller()
        if not calls_operator(frame):
            at = outside(frame)
            if is_open(self) if not takes_part(at) else takes_item(at) and is_of_sizes(self):
                warn_of_index(frame)
        return int(torch._C.TensorBase.__index__(self))

    return patch((torch.Tensor, "__index__", index))
