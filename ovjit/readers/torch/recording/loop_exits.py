"""Loops in which `break`, `continue` and filters are branches, so that their bodies have one end.

What follows a branch that ends by `continue` becomes its other side. `break` sets a variable, and the body
ends with a branch that asks it and leaves the loop. A list that a loop with a filter makes is made before the
statement that it is in.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from typing import Any

#: What changed functions call the lists that a loop within a statement makes.
LIST = "_ovjit_list"
#: The variable of a loop that tells whether an iteration leaves it.
_LEFT = "_ovjit_left"
_EXITS = (ast.Break, ast.Continue)
_LOOPS = (ast.For, ast.While, ast.AsyncFor)


def remove_exits(definition: ast.FunctionDef, lines: set[int]) -> None:
    """Change the loops of a function that begin on these lines, and those within them."""
    _Filters(lines).generic_visit(definition)
    for node in ast.walk(definition):
        if isinstance(node, ast.For) and node.lineno in lines:
            for inner in ast.walk(node):
                if isinstance(inner, ast.For) and not inner.orelse:
                    inner.body = _straight(inner)


class Renamed(ast.NodeTransformer):
    """Gives variables other names."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_Name(self, node: ast.Name) -> Any:
        node.id = self.names.get(node.id, node.id)
        return node


class _Filters(ast.NodeTransformer):
    """Rewrites list comprehensions that have a filter as loops with a branch."""

    def __init__(self, lines: set[int]):
        self._lines = lines
        self._prologue: list[ast.stmt] | None = None  # what makes the lists of the statement, in one alone

    def visit_FunctionDef(self, node: Any) -> Any:
        return node  # a function of its own

    visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = visit_FunctionDef

    def visit_Assign(self, node: Any) -> Any:
        self._prologue, outer = [], self._prologue
        node = self.generic_visit(node)
        before, self._prologue = self._prologue or [], outer
        return [*before, node]

    visit_Return = visit_Expr = visit_AugAssign = visit_Assign

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Rewrite the generator of `sum` as a list comprehension."""
        is_sum = isinstance(node.func, ast.Name) and node.func.id == "sum"
        if is_sum and node.args and isinstance(node.args[0], ast.GeneratorExp):
            result = ast.ListComp(node.args[0].elt, node.args[0].generators)
            node.args[0] = ast.copy_location(result, node.args[0])
        return self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        part = node.generators[0]
        is_one = len(node.generators) == 1 and bool(part.ifs) and part.iter.lineno in self._lines
        if not is_one or self._prologue is None:
            return node
        name = f"{LIST}{node.lineno}_{node.col_offset}"
        names = {v.id: f"{name}_{v.id}" for v in ast.walk(part.target) if isinstance(v, ast.Name)}
        target, element, *tests = (Renamed(names).visit(v) for v in (part.target, node.elt, *part.ifs))
        test = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests)
        start, loop = ast.parse(f"{name} = []\nfor _ in _:\n  if _:\n    {name}.append(0)").body
        for inner in (*ast.walk(start), *ast.walk(loop)):
            ast.copy_location(inner, part.iter)
        assert isinstance(loop, ast.For) and isinstance(loop.body[0], ast.If)
        (append,) = loop.body[0].body
        assert isinstance(append, ast.Expr) and isinstance(append.value, ast.Call)
        loop.target, loop.iter, loop.body[0].test = target, part.iter, ast.copy_location(test, tests[0])
        append.value.args = [element]
        self._prologue += [start, loop]
        return ast.copy_location(ast.Name(name, ast.Load()), node)


def left_by(body: Sequence[ast.stmt]) -> tuple[Sequence[ast.stmt], str | None]:
    """A body of a changed loop without the branch that leaves it, and the variable that this asks; None where
    it is not left."""
    last = body[-1]
    if isinstance(last, ast.If) and isinstance(last.test, ast.Name) and last.test.id.startswith(_LEFT):
        return body[:-1], last.test.id
    return body, None


def _straight(loop: ast.For) -> list[ast.stmt]:
    """The body of a loop with branches for what leaves an iteration; as it is where that is elsewhere than in
    a branch."""
    exits = list(_exits(loop.body))
    if not exits:
        return loop.body
    name = f"{_LEFT}{loop.lineno}_{loop.col_offset}"
    body = _merge_following(loop.body, name)
    if any(_exits(body)):
        return loop.body
    if any(isinstance(each, ast.Break) for each in exits):
        (start,), (end,) = (ast.parse(text).body for text in (f"{name} = False", f"if {name}: break"))
        for part, location in ((start, loop.body[0]), (end, loop.body[-1])):
            for node in ast.walk(part):
                ast.copy_location(node, location)
        body = [start, *body, end]
    return body


def _merge_following(body: Sequence[ast.stmt], name: str) -> list[ast.stmt]:
    """Statements in which what follows a branch with an exit is part of its sides that have none."""
    for i, node in enumerate(body):
        if isinstance(node, _EXITS):
            return [*body[:i], *_exit(node, name)]
        if isinstance(node, ast.If) and any(_exits([node])):
            following = body[i + 1 :]
            bodies = _extend(node.body, following), _extend(node.orelse, copy.deepcopy(following))
            sides = [_merge_following(side, name) for side in bodies]
            result = ast.copy_location(ast.If(node.test, sides[0] or [_nothing(node)], sides[1]), node)
            return [*body[:i], result]
    return list(body)


def _extend(side: Sequence[ast.stmt], following: Sequence[ast.stmt]) -> list[ast.stmt]:
    """A side of a branch and what follows the branch, unless the side ends by an exit."""
    return [*side, *([] if side and isinstance(side[-1], _EXITS) else following)]


def _exit(node: ast.stmt, name: str) -> list[ast.stmt]:
    """Return the statements that replace an exit: none for `continue`, `name = True` for `break`."""
    if isinstance(node, ast.Continue):
        return []
    (result,) = ast.parse(f"{name} = True").body
    for inner in ast.walk(result):
        ast.copy_location(inner, node)
    return [result]


def _nothing(location: ast.stmt) -> ast.stmt:
    return ast.copy_location(ast.Pass(), location)


def _exits(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The exits of the loop of which these are statements: not those of loops within."""
    exits: list[ast.stmt] = []
    queue: list[ast.AST] = list(body)
    while queue:
        node = queue.pop()
        if isinstance(node, _EXITS):
            exits.append(node)
        elif not isinstance(node, (*_LOOPS, ast.FunctionDef, ast.Lambda)):
            queue += ast.iter_child_nodes(node)
    return exits
