"""The control-flow graph of a kernel's function, from its syntax tree.

Numba reads bytecode, with an instruction and a variable for each step of an expression. Here expressions stay
trees, and only statements and conditions make blocks. That takes a tenth of the time, and does not depend on
the version of Python. Source outside of the kernel language raises `Outside`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ovjit.codegen.cpu.types import Outside
from ovjit.codegen.source import definition
from ovjit.records import NamedTuple


class Assign(NamedTuple):
    """`target = value`; a target of None drops the value. `reads` are the variables that it reads."""

    target: str | None
    value: Any
    reads: tuple[str, ...]


class Begin(NamedTuple):
    """The beginning of loop number `loop` over `range(*arguments)`."""

    loop: int
    arguments: Sequence[ast.expr]
    reads: tuple[str, ...]
    target: None = None


class Item(NamedTuple):
    """The value of an Assign: the current number of loop `loop`."""

    loop: int


class Parameter(NamedTuple):
    """The value of an Assign: an argument of the function."""

    number: int


class Branch(NamedTuple):
    """The end of a block: `then` if the condition holds, else `other`."""

    test: ast.expr
    then: int
    other: int
    reads: tuple[str, ...]


class Next(NamedTuple):
    """The end of a block: `body` if `loop` has a next number, else `end`."""

    loop: int
    body: int
    end: int
    reads: tuple[str, ...] = ()


class Jump(NamedTuple):
    """The end of a block: go to `target`."""

    target: int
    reads: tuple[str, ...] = ()


class Return(NamedTuple):
    """The end of a block and of the function. `value` is None at the function's end without `return`."""

    value: ast.expr | None
    reads: tuple[str, ...]


class Block:
    """A basic block: the statements `body`, then the terminator `last`."""

    __slots__ = ("body", "last")

    def __init__(self) -> None:
        self.body: list[Assign | Begin] = []
        self.last: Branch | Next | Jump | Return | None = None

    def successors(self) -> list[int]:
        last = self.last
        if isinstance(last, Branch):
            return [last.other, last.then]
        if isinstance(last, Next):
            return [last.end, last.body]
        return [last.target] if isinstance(last, Jump) else []

    def steps(self) -> Iterator[Any]:
        yield from self.body
        yield self.last


class Function(NamedTuple):
    """Blocks by number, in source order; the first is the entry. `nests`: block -> the loops around it,
    outermost first, each named by its preheader."""

    blocks: dict[int, Block]
    nests: dict[int, tuple[int, ...]]
    locals: frozenset[str]
    globals: Mapping[str, Any]
    line: int


def read(function: Callable[..., Any]) -> Function:
    """The blocks of a function. Raises Outside if it has no source or is not in the language."""
    try:
        tree = definition(function)
    except (OSError, SyntaxError) as error:
        raise Outside(f"a function whose source cannot be read: {error}") from None
    code = function.__code__
    if code.co_freevars or code.co_cellvars or code.co_kwonlyargcount or code.co_flags & 0x0C:
        raise Outside("a function with parameters or variables that are not plain names")
    assigned = frozenset(code.co_varnames)
    reader = _Reader(assigned)
    for i, name in enumerate(code.co_varnames[: code.co_argcount]):
        reader.assign(name, Parameter(i), ())
    try:
        reader.statements(tree.body)
    except _NotRead as found:
        raise outside(found.node, code.co_firstlineno) from None
    reader.end(Return(None, ()))
    return Function(
        reader.blocks, reader.nests, frozenset(reader.versions), function.__globals__, code.co_firstlineno
    )


class _Reader:
    """Reads statements to blocks. Each assignment outside of loops and branches begins a new version of its
    variable, which may have another type. Later statements read the latest version."""

    def __init__(self, assigned: frozenset[str]):
        self.assigned = assigned
        self.blocks: dict[int, Block] = {}
        self.nest: tuple[int, ...] = ()
        self.nests: dict[int, tuple[int, ...]] = {}
        self.versions: set[str] = set()
        self.current: dict[str, str] = {}
        self.depth = 0
        self.loops: list[tuple[int, int]] = []  # (where `continue` goes, where `break` goes)
        self.labels = 0
        self.ranges = 0
        self.here: Block | None = None
        self.begin_block(self.label())

    # --- blocks

    def label(self) -> int:
        self.labels += 1
        return self.labels

    def begin_block(self, label: int) -> None:
        """Begin the block `label`. If the current block has no terminator, it jumps there."""
        self.end(Jump(label))
        self.here = self.blocks[label] = Block()
        self.nests[label] = self.nest

    def enter(self) -> None:
        """Begin a loop: add its preheader. `leave` ends it."""
        before = self.label()
        self.begin_block(before)
        self.nest = (*self.nest, before)

    def leave(self, after: int) -> None:
        """End a loop, and begin the block `after`."""
        self.nest = self.nest[:-1]
        self.begin_block(after)

    def end(self, last: Branch | Next | Jump | Return) -> None:
        if self.here is not None:
            self.here.last = last
            self.here = None

    def branch(self, test: ast.expr, then: int, other: int) -> None:
        """End the block with a condition. `and`, `or` and `not` become branches."""
        if isinstance(test, ast.BoolOp):
            both = isinstance(test.op, ast.And)
            for part in test.values[:-1]:
                following = self.label()
                self.branch(part, *((following, other) if both else (then, following)))
                self.begin_block(following)
            self.branch(test.values[-1], then, other)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.branch(test.operand, other, then)
        elif isinstance(test, ast.Constant):
            self.end(Jump(then if test.value else other))
        else:
            self.end(Branch(test, then, other, self.reads(test)))

    # --- statements

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if self.here is None:  # after a return, break or continue
                return
            self.statement(statement)

    def inner(self, body: Sequence[ast.stmt]) -> None:
        self.depth += 1
        self.statements(body)
        self.depth -= 1

    def statement(self, s: ast.stmt) -> None:
        if isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Name):
            self.assign(s.targets[0].id, s.value, self.reads(s.value))
        elif isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
            before = ast.copy_location(ast.Name(s.target.id, ast.Load()), s)
            value = ast.copy_location(ast.BinOp(before, s.op, s.value), s)
            self.assign(s.target.id, value, self.reads(value))
        elif isinstance(s, ast.Expr):
            if not isinstance(s.value, ast.Constant):
                self.append(Assign(None, s.value, self.reads(s.value)))
        elif isinstance(s, ast.While) and not s.orelse:
            self.loop(s)
        elif isinstance(s, ast.For) and not s.orelse:
            self.over_range(s)
        elif isinstance(s, ast.If):
            self.choose(s)
        elif isinstance(s, ast.Return):
            self.end(Return(s.value, self.reads(s.value) if s.value else ()))
        elif isinstance(s, (ast.Break, ast.Continue)):
            self.end(Jump(self.loops[-1][isinstance(s, ast.Break)]))
        elif not isinstance(s, ast.Pass):
            raise _NotRead(s)

    def append(self, step: Assign | Begin) -> None:
        assert self.here is not None
        self.here.body.append(step)

    def assign(self, name: str, value: Any, reads: tuple[str, ...]) -> None:
        version = self.current.get(name)
        if version is None or self.depth == 0:
            version = name if version is None else f"{name}.{len(self.versions)}"
            self.current[name] = version
            self.versions.add(version)
        self.append(Assign(version, value, reads))

    def loop(self, s: ast.While) -> None:
        """A rotated `while` loop: the condition is tested before the loop and at its end."""
        self.enter()
        before, body, after = self.label(), self.label(), self.label()
        self.begin_block(before)
        self.branch(s.test, body, after)
        self.begin_block(body)
        self.loops.append((before, after))
        self.inner(s.body)
        self.loops.pop()
        if self.here is not None:
            self.branch(s.test, body, after)
        self.leave(after)

    def over_range(self, s: ast.For) -> None:
        over = s.iter
        if not isinstance(s.target, ast.Name) or not isinstance(over, ast.Call) or over.keywords:
            raise _NotRead(s)
        if not isinstance(over.func, ast.Name) or over.func.id != "range" or "range" in self.assigned:
            raise _NotRead(over)
        self.ranges += 1
        loop = self.ranges
        self.append(Begin(loop, over.args, tuple(n for a in over.args for n in self.reads(a))))
        self.enter()
        head, body, after = self.label(), self.label(), self.label()
        self.begin_block(head)
        self.end(Next(loop, body, after))
        self.begin_block(body)
        self.loops.append((head, after))
        self.depth += 1
        self.assign(s.target.id, Item(loop), ())
        self.statements(s.body)
        self.depth -= 1
        self.loops.pop()
        self.end(Jump(head))
        self.leave(after)

    def choose(self, s: ast.If) -> None:
        then, after = self.label(), self.label()
        other = self.label() if s.orelse else after
        self.branch(s.test, then, other)
        self.begin_block(then)
        self.inner(s.body)
        if s.orelse:
            self.end(Jump(after))
            self.begin_block(other)
            self.inner(s.orelse)
        self.begin_block(after)

    # --- expressions

    def reads(self, x: ast.expr) -> tuple[str, ...]:
        """The variables that an expression reads. The names in it are replaced by their current versions."""
        names: list[str] = []
        self._reads(x, names)
        return tuple(names)

    def _reads(self, x: Any, names: list[str]) -> None:
        kind = type(x)
        if kind is ast.Name:
            if x.id in self.assigned:
                x.id = self.current.get(x.id, x.id)
                names.append(x.id)
            elif x.id in self.versions:  # a condition that stands in two places
                names.append(x.id)
        elif kind is not ast.Constant:
            parts = _PARTS.get(kind)
            if parts is None:
                raise _NotRead(x)
            for part in parts(x):
                self._reads(part, names)


def _call_parts(x: ast.Call) -> Sequence[ast.expr]:
    if x.keywords or not isinstance(x.func, ast.Name):
        raise _NotRead(x)
    return (x.func, *x.args)


def _compare_parts(x: ast.Compare) -> Sequence[ast.expr]:
    if len(x.ops) != 1:
        raise _NotRead(x)
    return (x.left, x.comparators[0])


#: What expressions are made of.
_PARTS: dict[type, Callable[[Any], Sequence[ast.expr]]] = {
    ast.Call: _call_parts, ast.BinOp: lambda x: (x.left, x.right), ast.Compare: _compare_parts,
    ast.UnaryOp: lambda x: (x.operand,), ast.BoolOp: lambda x: x.values,
    ast.IfExp: lambda x: (x.test, x.body, x.orelse),
}  # fmt: skip


class _NotRead(Exception):
    """A part of the source is not in the kernel language."""

    def __init__(self, node: Any):
        self.node = node


def outside(node: Any, first: int) -> Outside:
    """The exception about a node of a function whose definition begins in line `first`."""
    return Outside(f"{type(node).__name__} in `{ast.unparse(node)[:80]}` ({first + node.lineno - 1})")
