"""Barriers of a warp in kernels' sources.

On a CPU a vector's elements are stored together. On a card each lane is a thread, and the threads of a warp
are ordered by barriers alone. `with_barriers` puts a barrier before each access to memory that the kernel
both loads and stores. So a lane loads what another one has stored, and no lane stores what another one has
still to load. Memory is known by the pointers that an address derives from: arguments, and the scratch
memory. Kernels that load one tensor and store another one, which are most, have no barrier: planning lets
them share memory only where each lane stores what it has loaded itself.

`st` has barriers of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ovjit.codegen.memory import SIZE

#: The word that is inserted, see `ovjit.codegen.gpu.words`.
BARRIER = "warp_barrier"
#: Words that load from an address, and words that store vectors.
LOADS = frozenset("load loadm evens thirds gather strided take splat ld".split())
STORES = frozenset("store storem scatter strided_store".split())
#: The pointer of addresses that are read from memory: it may be any.
_ANY = "*"


def with_barriers(source: str) -> str:
    """A kernel's source with the barriers that its lanes need; the same text if none is needed."""
    tree = ast.parse(source)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    pointers = _pointers(functions)
    nodes = [node for function in functions for node in ast.walk(function)]
    loaded, stored = (
        {root for node in nodes for root in _access_roots(node, words, pointers)} for words in (LOADS, STORES)
    )
    shared = _meeting(loaded, stored)
    if not shared:
        return source
    for function in functions:
        function.body = _guard(function.body, pointers, shared)
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _meeting(loaded: set[str], stored: set[str]) -> set[str]:
    """The pointers that are loaded from as well as stored to."""
    if _ANY in loaded and stored or _ANY in stored and loaded:
        return {_ANY}
    return loaded & stored


def _access_roots(node: ast.AST, words: frozenset[str], pointers: dict[str, set[str]]) -> set[str]:
    """The pointers of the address of a call of one of these words; none for other nodes."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
        return set()
    word, _, elem = node.func.id.rpartition("_")
    if elem not in SIZE or word not in words:
        return set()
    return _roots(node.args[0], pointers)


def _roots(expression: ast.AST, pointers: dict[str, set[str]]) -> set[str]:
    """The pointers that the value of an expression derives from."""
    roots: set[str] = set()
    nodes = [expression]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name):
            roots |= pointers.get(node.id, set())
        elif not isinstance(node, ast.Call):
            nodes += ast.iter_child_nodes(node)
        elif getattr(node.func, "id", "") in ("imin", "imax"):
            nodes += node.args
        elif getattr(node.func, "id", "") == "ld" and getattr(node.args[0], "id", "") not in (
            "args",
            "bases",
        ):
            roots.add(_ANY)
    return roots


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_argument(value: ast.AST) -> bool:
    """True for `ld(bases, ...) + ...`: a tensor's address."""
    return any(
        isinstance(node, ast.Call) and _name(node.func) == "ld" and _name(node.args[0]) == "bases"
        for node in ast.walk(value)
    )


def _pointers(functions: list[ast.FunctionDef]) -> dict[str, set[str]]:
    """Variable -> the pointers that its values derive from, in whatever order statements run."""
    roots = {"scratch": {"scratch"}}
    pairs = []
    for function in functions:
        if function.name != "kernel":  # a part of it: its arguments may be any pointers
            roots |= {argument.arg: {_ANY} for argument in function.args.args}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                pairs += [(t.id, node.value) for target in node.targets for t in ast.walk(target)
                          if isinstance(t, ast.Name)]  # fmt: skip
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                pairs.append((node.target.id, node.value))
    for name, value in pairs:
        if _is_argument(value):
            roots.setdefault(name, set()).add(name)
    changed = True
    while changed:
        changed = False
        for name, value in pairs:
            more = _roots(value, roots) - roots.get(name, set())
            if more:
                roots.setdefault(name, set()).update(more)
                changed = True
    return roots


def _guard(body: list[ast.stmt], pointers: dict[str, set[str]], shared: set[str]) -> list[ast.stmt]:
    """Statements with a barrier before each that accesses shared memory."""
    out: list[ast.stmt] = []
    for statement in body:
        needs = any(_is_shared(node, pointers, shared) for node in _own_nodes(statement))
        if needs:
            out += [_barrier(), *_split_store(statement, pointers, shared)]
        for name in ("body", "orelse"):
            inner = getattr(statement, name, None)
            if inner:
                setattr(statement, name, _guard(inner, pointers, shared))
        if needs and isinstance(statement, ast.While):
            statement.body.append(_barrier())  # its condition is evaluated again
        out.append(statement)
    return out


def _split_store(statement: ast.stmt, pointers: dict[str, set[str]], shared: set[str]) -> list[ast.stmt]:
    """For a store of a value that is loaded from shared memory: statements that compute the value, and a
    barrier. The store then reads a variable."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not _access_roots(call, STORES, pointers):
        return []
    before: list[ast.stmt] = []
    for i, argument in enumerate(call.args):
        if any(_is_shared(node, pointers, shared) for node in ast.walk(argument)):
            name = f"stored_{statement.lineno}_{i}"
            before.append(ast.Assign([ast.Name(name, ast.Store())], argument))
            call.args[i] = ast.Name(name, ast.Load())
    return [*before, _barrier()] if before else []


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """All nodes of a statement without those of statements in it."""
    nodes: list[ast.AST] = [statement]
    while nodes:
        node = nodes.pop()
        yield node
        nodes += (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt))


def _is_shared(node: ast.AST, pointers: dict[str, set[str]], shared: set[str]) -> bool:
    roots = _access_roots(node, LOADS | STORES, pointers)
    return bool(roots) and (_ANY in shared or _ANY in roots or bool(roots & shared))


def _barrier() -> ast.stmt:
    return ast.Expr(ast.Call(ast.Name(BARRIER, ast.Load()), [], []))
