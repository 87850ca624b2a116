"""Loops over vectors that load several vectors before they store one.

A warp waits for its loads. In a loop that stores, a load of the next iteration stays behind the store,
since the compiler does not know that they access other memory: a row is then read one vector at a time.
`interleave_loops` puts further loops before these:

    while i + VL <= n:                    while i + 2 * VL <= n:
        v = load_f32(x + i * 4)               v_of_0 = load_f32(x + i * 4)
        store_f32(y + i * 4, v)     ->        v = load_f32(x + (i + VL) * 4)
        i += VL                               store_f32(y + i * 4, v_of_0)
                                              store_f32(y + (i + VL) * 4, v)
                                              i += 2 * VL
                                          while i + VL <= n: ...

Results have the same bits: statements that are no stores keep their order. Loads come before stores of
earlier iterations. That is right where planning lets an input and an output share memory: there each lane
stores to what it has loaded itself. Kernels that load what they have stored have barriers
(`ovjit.codegen.gpu.barriers`), and loops with barriers stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence

from ovjit.codegen.gpu.barriers import BARRIER, LOADS, STORES
from ovjit.codegen.memory import SIZE
from ovjit.codegen.words import find

#: Statements of a body -> the iterations that are interleaved, in one loop before the other. Larger bodies
#: are bound by arithmetic.
COUNTS = ((6, (8, 2)), (12, (4,)), (48, (2,)))


def interleave_loops(source: str) -> str:
    """A kernel's source with interleaved loops; the same text if it has none."""
    tree = ast.parse(source)
    changed = False
    for function in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
        function.body, more = _visit(function.body)
        changed |= more
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n" if changed else source


def _visit(body: list[ast.stmt]) -> tuple[list[ast.stmt], bool]:
    """Statements with interleaved loops before loops, and whether there are some."""
    out: list[ast.stmt] = []
    changed = False
    for statement in body:
        loops = _interleave(statement) if isinstance(statement, ast.While) else []
        if loops:
            out += loops
            changed = True
        else:
            for name in ("body", "orelse"):
                inner = getattr(statement, name, None)
                if inner:
                    visited, more = _visit(inner)
                    setattr(statement, name, visited)
                    changed |= more
        out.append(statement)
    return out, changed


def _interleave(loop: ast.While) -> list[ast.stmt]:
    """The loops for several iterations at a time; none if it does not step over vectors, or may not be
    reordered."""
    counter, step = _counter_of(loop)
    statements = loop.body[:-1]
    if not counter or not statements:
        return []
    stores = [s for s in statements if isinstance(s, ast.Expr)]
    others = [s for s in statements if not isinstance(s, ast.Expr)]
    if not all(map(_is_store, stores)) or not all(map(_is_pure, others)):
        return []
    if not any(_word(node) in LOADS for s in statements for node in ast.walk(s)):
        return []
    assigned = [
        s.targets[0].id for s in others if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name)
    ]
    carried = _find_carried(others, set(assigned))
    if counter in assigned or carried & {name for s in stores for name in _names(s)}:
        return []
    counts = next((counts for most, counts in COUNTS if len(statements) <= most), ())
    names = [name for name in assigned if name not in carried]
    return [_loop_of(loop, others, stores, names, count) for count in counts]


def _loop_of(
    loop: ast.While, others: Sequence[ast.stmt], stores: Sequence[ast.stmt], names: Sequence[str], count: int
) -> ast.While:
    """The loop for `count` iterations at a time. `names`: the variables of an iteration."""
    counter, step = _counter_of(loop)
    body: list[ast.stmt] = []
    stores_of_all: list[ast.stmt] = []
    for k in range(count):
        renamed = {name: f"{name}_of_{k}" for name in names} if k < count - 1 else {}
        change = _Iteration(counter, step, k, renamed)
        body += [change.visit(copy.deepcopy(s)) for s in others]
        for i, store in enumerate(stores):  # values that a store loads are loaded with the others
            values, store_alone = _split_store(copy.deepcopy(store), f"{k}_{i}")
            body += [change.visit(s) for s in values]
            stores_of_all.append(change.visit(store_alone))
    advance = ast.AugAssign(ast.Name(counter, ast.Store()), ast.Add(), _times(step, count))
    end = ast.BinOp(ast.Name(counter, ast.Load()), ast.Add(), _times(step, count))
    assert isinstance(loop.test, ast.Compare)
    test = ast.Compare(end, loop.test.ops, copy.deepcopy(loop.test.comparators))
    return ast.While(test, [*body, *stores_of_all, advance], [])


def _counter_of(loop: ast.While) -> tuple[str, ast.expr]:
    """The counter and the step of `while i + step <= n: ... i += step`; "" for other loops."""
    nothing = "", ast.Constant(0)
    test, last = loop.test, loop.body[-1]
    if loop.orelse or not isinstance(test, ast.Compare) or not isinstance(test.left, ast.BinOp):
        return nothing
    start, step = test.left.left, test.left.right
    if (
        not isinstance(test.ops[0], ast.LtE)
        or not isinstance(test.left.op, ast.Add)
        or not isinstance(start, ast.Name)
    ):
        return nothing
    if not isinstance(last, ast.AugAssign) or not isinstance(last.op, ast.Add):
        return nothing
    same = ast.dump(last.value) == ast.dump(step) and isinstance(last.target, ast.Name)
    if not same or last.target.id != start.id or "VL" not in _names(step):  # type: ignore[union-attr]
        return nothing
    return start.id, step


def _times(step: ast.expr, count: int) -> ast.expr:
    return ast.BinOp(ast.Constant(count), ast.Mult(), copy.deepcopy(step))


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _find_carried(statements: Sequence[ast.stmt], assigned: set[str]) -> set[str]:
    """Variables that an iteration reads before it assigns them."""
    defined: set[str] = set()
    carried: set[str] = set()
    for s in statements:
        assert isinstance(s, ast.Assign)
        carried |= (_names(s.value) & assigned) - defined
        defined |= _names(s.targets[0])
    return carried


def _word(node: ast.AST) -> str:
    """The word without its element type that a node calls; "" for another node."""
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    word, _, elem = name.rpartition("_")
    return word if elem in SIZE else name


def _is_store(statement: ast.stmt) -> bool:
    assert isinstance(statement, ast.Expr)
    inner = [node for node in ast.walk(statement.value) if isinstance(node, ast.Call)][1:]
    return _word(statement.value) in STORES and all(map(_has_no_effect, inner))


def _is_pure(statement: ast.stmt) -> bool:
    """True for an assignment of a value without effects."""
    single = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    return single and all(_has_no_effect(node) for node in ast.walk(statement) if isinstance(node, ast.Call))


def _has_no_effect(call: ast.Call) -> bool:
    """True for a load, and for a word without an address that has a result."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name == BARRIER or not name:
        return False
    if _word(call) in LOADS or name.startswith(("libm_", "seldom_")):
        return True
    try:
        word, _ = find(name)
    except KeyError:
        return False
    return bool(word.result) and "p" not in word.arguments


def _split_store(store: ast.stmt, number: str) -> tuple[list[ast.stmt], ast.stmt]:
    """Assignments of the values that a store computes, and the store of these variables."""
    assert isinstance(store, ast.Expr) and isinstance(store.value, ast.Call)
    values: list[ast.stmt] = []
    for i, argument in enumerate(store.value.args):
        if any(_word(node) in LOADS for node in ast.walk(argument)):
            name = f"stored_of_{number}_{i}"
            values.append(ast.Assign([ast.Name(name, ast.Store())], argument))
            store.value.args[i] = ast.Name(name, ast.Load())
    return values, store


class _Iteration(ast.NodeTransformer):
    """An iteration's statements: its counter, and names of variables of its own."""

    def __init__(self, counter: str, step: ast.expr, number: int, renamed: dict[str, str]):
        self.counter, self.step, self.number, self.renamed = counter, step, number, renamed

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id == self.counter and self.number:
            return ast.BinOp(ast.Name(node.id, ast.Load()), ast.Add(), _times(self.step, self.number))
        return ast.Name(self.renamed.get(node.id, node.id), node.ctx)
