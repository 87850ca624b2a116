"""Finds the function that a frame calls from its source: PyTorch's operators record the sizes they take."""

from __future__ import annotations

import ast
import builtins
import linecache
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, MethodDescriptorType, ModuleType
from typing import Any

from ovjit.readers.torch.pytorch import torch


def calls_operator(frame: Any) -> bool:
    """Whether a frame's current instruction calls an operator of PyTorch's. False where that is not known."""
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
