"""The parts that kernels are printed from: a function's syntax tree, `@inline` functions, `@routine`s.

The printer is a separate module (`ovjit.codegen.kernel_printing`), which a start with cached sources never
imports.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import CodeType
from typing import Any

from ovjit.codegen.memory import DIMS
from ovjit.codegen.source import definition, parameters
from ovjit.forks import made_once

#: Nodes of a syntax tree that may contain names.
_WITH_NAMES = (ast.expr, ast.stmt, ast.comprehension, ast.keyword)
_NO_NAMES: frozenset[str] = frozenset()


class Source:
    """The source of a function: its statements, and the names in each expression."""

    def __init__(self, function: Callable[..., Any]):
        self.body = [s for s in definition(function).body if not is_text(s)]
        self.names: dict[ast.AST, frozenset[str]] = {}
        self.code: dict[ast.expr, CodeType] = {}  # of expressions that were constant
        self.stored: set[str] = set()
        self.placed: list[str] = []  # tensors that have strides
        self.dims = 0
        for s in self.body:
            self._scan(s)

    def name(self, name: str) -> ast.Name:
        """A name as an expression of this source."""
        node = ast.Name(name, ast.Load())
        self.names[node] = frozenset((name,))
        return node

    def _scan(self, node: ast.AST) -> frozenset[str]:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                self.stored.add(node.id)
            names = frozenset((node.id,))
        elif isinstance(node, ast.Constant):
            names = _NO_NAMES
        else:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "placed":
                self.dims = DIMS
                self.placed += [a.id for a in node.args[1:] if isinstance(a, ast.Name)]
            parts = set()
            for field in node._fields:
                inner = getattr(node, field)
                for part in inner if type(inner) is list else (inner,):
                    if isinstance(part, _WITH_NAMES):  # operators and contexts have none
                        parts.add(self._scan(part))
            names = next(iter(parts)) if len(parts) == 1 else _NO_NAMES.union(*parts)
        self.names[node] = names
        return names


class Inline:
    """Statements with parameters, inserted where they are called; a `return` at the end gives their value.

    With a `yield`, they are a loop's head: `for x, y in f(...)` is these statements, with the loop's body
    where they yield. A variable that they yield has the name of the loop's target; others are overwritten by
    a further call in that body.

    Parameters are not assigned to. Variables are prefixed with the function's name. A call may leave out a
    keyword-only parameter: it is then the caller's value of the same name.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = self.inlined = function
        declared = parameters(function)
        self.parameters = tuple(p.name for p in declared if not p.keyword_only)
        self.inherited = tuple(p.name for p in declared if p.keyword_only)

    @made_once
    def source(self) -> Source:
        return Source(self.function)

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError("an inline function is part of kernels: it is printed into them and cannot be called")


def inline(function: Callable[..., Any]) -> Any:
    """Decorator: the function is inlined into kernels."""
    return Inline(function)


class Routine:
    """A native function with its own int64 arguments, see `ovjit.codegen.routines`. `in_block`: its
    parameters are the int64s of a block in memory, whose address is its argument."""

    def __init__(self, function: Callable[..., Any], in_block: bool = False):
        self.function, self.in_block = function, in_block


def routine(function: Callable[..., Any]) -> Routine:
    """Decorator: the function is a routine."""
    return Routine(function)


def block_routine(function: Callable[..., Any]) -> Routine:
    """Decorator: the function is a routine whose parameters lie in a block."""
    return Routine(function, in_block=True)


def is_text(s: ast.stmt) -> bool:
    return isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
