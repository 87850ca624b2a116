"""Warnings of code that makes a number of Python's of a dynamic dimension: a trace has the example's.

PyTorch's operators record the sizes they take, so the function that a frame calls is looked up in its source.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import linecache
import os
from collections.abc import Iterator
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, MethodDescriptorType, ModuleType
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.instructions import calls, takes_item, takes_part
from ovjit.readers.torch.tracing.patches import caller, outside, patch
from ovjit.readers.torch.tracing.recorder import tell
from ovjit.readers.torch.tracing.size_values import is_of_sizes
from ovjit.readers.torch.tracing.traced_nodes import is_open


def calls_operator(frame: Any) -> bool:
    """Whether a frame's current instruction calls a PyTorch operator. False if unknown."""
    called = _callee_expression(frame.f_code, frame.f_lasti)
    return called is not None and _is_operator(_value(called, frame))


def _value(node: ast.expr, frame: Any) -> Any:
    """Evaluate an expression in a frame. Returns `torch.Tensor` for calls of operators, None if unknown.

    It executes nothing but attribute access on modules and tensors.
    """
    if isinstance(node, ast.Name):
        tables: Any = (frame.f_locals, frame.f_globals, vars(builtins))
        return next((table[node.id] for table in tables if node.id in table), None)
    if isinstance(node, ast.Attribute):
        value = _value(node.value, frame)
        is_known = isinstance(value, (ModuleType, torch.Tensor)) or value is torch.Tensor
        return getattr(value, node.attr, None) if is_known else None
    if isinstance(node, ast.Call):
        return torch.Tensor if _is_operator(_value(node.func, frame)) else None
    return None


def _is_operator(value: Any) -> bool:
    if isinstance(value, MethodDescriptorType):
        return issubclass(torch.Tensor, value.__objclass__)
    if not isinstance(value, BuiltinFunctionType):
        return False
    module = value.__module__
    if module is None:
        return value.__self__ is None or isinstance(value.__self__, torch.Tensor)
    return module.partition(".")[0] == "torch"


@lru_cache(4096)
def _callee_expression(code: CodeType, at: int) -> ast.expr | None:
    """The expression that is called at a place of the code: `torch.eye`. None where nothing is called, and
    before Python 3.11, which does not tell the place in the source."""
    if not hasattr(code, "co_positions"):
        return None
    first, last, begin, end = list(code.co_positions())[at // 2]
    if first is None or last is None or begin is None or end is None:
        return None
    lines = [linecache.getline(code.co_filename, line).encode() for line in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    try:
        node = ast.parse(b"".join(lines).decode(), mode="eval").body
    except (SyntaxError, ValueError):  # the source has changed, or is not known
        return None
    return node.func if isinstance(node, ast.Call) else None


def warn_of_index(frame: Any) -> None:
    """Warn of a line that makes a dynamic dimension a Python number, such as the count of a loop."""
    frame = outside(frame)
    file, line = frame.f_code.co_filename, frame.f_lineno
    message = "A dynamic dimension used as a Python number might make the trace incorrect for other lengths"
    text = linecache.getline(file, line).strip()
    tell(f"{message}: {text} ({file}:{line})", torch.jit.TracerWarning, file, line)


@contextlib.contextmanager
def exporting() -> Iterator[set[str]]:
    """Context manager: warns of lines for which torch.export fixes a dynamic dimension to the example's
    length. Yields the files that need concrete numbers."""
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
    """Context manager: warns of lines that make a dynamic dimension a Python number by `__index__`, such as
    `range(n)` and `items[n]`; PyTorch does not."""

    def index(self: Any) -> int:
        frame = caller()
        if not calls_operator(frame):
            at = outside(frame)
            if is_open(self) if not takes_part(at) else takes_item(at) and is_of_sizes(self):
                warn_of_index(frame)
        return int(torch._C.TensorBase.__index__(self))

    return patch((torch.Tensor, "__index__", index))
