"""Numbers that Python chooses by the order of two sizes, chosen when the model runs.

`if window >= height: shift = 0` is the example's choice in a trace. Windows of attention are written so. Here
a branch that assigns numbers alone gives, for each, the one or the other by what is compared. The bodies of
other branches are both recorded, what follows a branch that returns as the body of the other side.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import operator
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ovjit.readers.torch.recording.loop_code import Change, extended_lists, parse_at
from ovjit.readers.torch.recording.loop_lists import Added
from ovjit.readers.torch.recording.recorded_branches import Branches

#: What changed functions call the names of this module that they use, what is compared, a branch that is
#: recorded, and what a function returns.
_MODULE, _TRUTH, _NAMED, _RESULT = "_ovjit_choices", "_ovjit_truth", "_ovjit_branch", "_ovjit_result"
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
#: Comparisons of lists, too, and what compares them.
_BY_FUNCTIONS = {ast.In: "within", ast.NotIn: "within", ast.Eq: "same", ast.NotEq: "same"}
_SPECIAL = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)


#: What bodies of a branch that are both recorded must not have: what leaves them, or gives others values.
_LEAVING = (
    ast.Return, ast.Break, ast.Continue, ast.Raise, ast.Assert, ast.Try, ast.With, ast.Delete, ast.Global,
    ast.Nonlocal, ast.FunctionDef, ast.ClassDef, ast.While, *_SPECIAL,
)  # fmt: skip
#: How many branches that return may follow each other: each has what follows twice.
_MOST_RETURNS = 4
#: Of how many items of a list or a dict one is chosen by a size.
_MOST_ITEMS = 64
_BRANCH = """
{truth} = 0
if {module}.is_open({truth}) and {module}.are_added({lists}):
    {branch} = {module}.Branches({truth}, {names}, locals())
    {branch}.other(locals())
    {start}
    {branch}.end(locals())
    {put}
elif {truth}: pass
else: pass
"""


class Choices(Change):
    """Replaces branches by sizes on `lines`, and `a if b else c`. `every`: by any condition on sizes, not by
    an order alone."""

    module = _MODULE
    every = False

    def __init__(self, lines: set[int]):
        super().__init__(lines)
        self._returns = 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.FunctionDef):
            node.body = self._returning(node.body)
        return super().generic_visit(node)

    def _returning(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Statements of a function of which one is a branch that returns: what follows is its other side."""
        for i, node in enumerate(body):
            if not isinstance(node, ast.If) or not self._is_order(node.test) or not _returns(node.body):
                continue
            remaining = [*node.orelse, *body[i + 1 :]]
            if not _returns(remaining) or self._returns >= _MOST_RETURNS:
                break
            self._returns += 1
            bodies = [_as_assignment(part) for part in (node.body, self._returning(remaining))]
            if not all(map(_is_recordable, bodies)):
                break
            result = ast.copy_location(ast.If(node.test, *bodies), node)
            return [*body[:i], result, *parse_at(f"return {_RESULT}", body[-1])]
        return body

    def visit_If(self, node: ast.If) -> Any:
        are_recordable = _is_recordable(node.body) and _is_recordable(node.orelse)
        self.generic_visit(node)
        if not self._is_order(node.test):
            return node
        truth = f"{_TRUTH}{node.lineno}_{node.col_offset}"
        if not node.orelse and all(map(_assigns, node.body)):
            self.any = True
            start, choice = parse_at(
                f"{truth} = 0\nif {_MODULE}.is_open({truth}): pass\nelif {truth}: pass", node
            )
            assert isinstance(start, ast.Assign) and isinstance(choice, ast.If)
            start.value = _condition(node.test)
            choice.body = [_as_either(part, truth) for part in copy.deepcopy(node.body)]
            plain = choice.orelse[0]
            assert isinstance(plain, ast.If)
            plain.body = node.body
            return [start, choice]
        if not are_recordable:
            return node
        self.any = True
        return _branch(node, truth)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        if not self._is_order(node.test) or any(isinstance(v, _SPECIAL) for v in ast.walk(node)):
            return node
        self.any = True
        (result,) = parse_at(f"{_MODULE}.either(0, lambda: 0, lambda: 0)", node)
        assert isinstance(result, ast.Expr) and isinstance(result.value, ast.Call)
        first, *bodies = result.value.args
        result.value.args[0] = _condition(node.test)
        for part, value in zip(bodies, (node.body, node.orelse), strict=True):
            assert isinstance(part, ast.Lambda)
            part.body = value
        return result.value

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        """`a > b or c` of conditions, wherever it is."""
        self.generic_visit(node)
        conditions = ast.Compare, ast.BoolOp
        if (
            not self.every
            or not self._is_order(node)
            or not all(isinstance(v, conditions) for v in node.values)
        ):
            return node
        self.any = True
        return _condition(node)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        """`items[n]`: which item it is is a condition."""
        self.generic_visit(node)
        is_item = isinstance(node.ctx, ast.Load) and not any(
            isinstance(part, (ast.Slice, ast.Starred)) for part in ast.walk(node.slice)
        )
        if not self.every or not is_item or not self._is_order(node):
            return node
        self.any = True
        return _call("item", [node.value, node.slice], node)

    def visit_Call(self, node: ast.Call) -> Any:
        """`rows.get(n)` and `rows.get(n, value)` of a dict."""
        self.generic_visit(node)
        is_get = isinstance(node.func, ast.Attribute) and node.func.attr == "get" and not node.keywords
        if not self.every or not is_get or len(node.args) not in (1, 2) or not self._is_order(node):
            return node
        assert isinstance(node.func, ast.Attribute)
        self.any = True
        return _call("got", [node.func.value, *node.args], node)

    def _is_order(self, test: ast.expr) -> bool:
        span = range(test.lineno, (test.end_lineno or test.lineno) + 1)
        if self.lines.isdisjoint(span) or any(isinstance(v, _SPECIAL) for v in ast.walk(test)):
            return False
        is_one = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _ORDERS)
        return is_one or self.every


class EveryChoice(Choices):
    """Replaces branches by any condition on sizes."""

    every = True


def _branch(node: ast.If, truth: str) -> list[ast.stmt]:
    """A branch whose bodies are both recorded where what it asks is computed from sizes."""
    names = sorted({name for part in (*node.body, *node.orelse) for name in _stored_names(part)})
    branch = truth.replace(_TRUTH, _NAMED)
    lists = sorted(set().union(*map(_extended_lists, (node.body, node.orelse))))
    put = "\n    ".join([f"{name} = {branch}.state[{name!r}]" for name in names] or ["pass"])
    text = _BRANCH.format(
        truth=truth, module=_MODULE, branch=branch, names=tuple(names), start=put, put=put,
        lists=", ".join(lists),
    )  # fmt: skip
    start, choice = parse_at(text, node)
    assert isinstance(start, ast.Assign) and isinstance(choice, ast.If)
    start.value = _condition(node.test)
    begin, other, *remaining = choice.body
    one, two = ([_without_effect(part) for part in copy.deepcopy(body)] for body in (node.body, node.orelse))
    count = max(1, len(names))
    choice.body = [begin, *one, other, *remaining[:count], *two, *remaining[count:]]
    plain = choice.orelse[0]
    assert isinstance(plain, ast.If)
    plain.body, plain.orelse = node.body, node.orelse or plain.orelse
    return [start, choice]


def _returns(body: Sequence[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Return)


def _as_assignment(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """A body that assigns what it returned."""
    last = body[-1]
    assert isinstance(last, ast.Return)
    (result,) = parse_at(f"{_RESULT} = None", last)
    assert isinstance(result, ast.Assign)
    result.value = last.value or result.value
    return [*body[:-1], result]


def _is_recordable(body: Sequence[ast.stmt]) -> bool:
    """Whether a body does nothing but to give names values, and to add items to lists."""
    for node in (inner for part in body for inner in ast.walk(part)):
        if isinstance(node, _LEAVING):
            return False
        if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            return False
        if isinstance(node, ast.Expr) and not _adds(node.value):
            return False  # called for what it changes
        if isinstance(node, ast.Attribute) and node.attr.endswith("_") and not node.attr.endswith("__"):
            return False  # an operator in place
    return True


def _adds(value: ast.expr) -> bool:
    """Whether an expression adds an item to a list, or is a text."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute):
        return isinstance(value, ast.Constant)
    return value.func.attr == "append" and isinstance(value.func.value, ast.Name)


def _extended_lists(body: Sequence[ast.stmt]) -> set[str]:
    """Names of lists, none of its own, to which a body adds items."""
    local_names = {name for part in body for name in _stored_names(part)}
    return {name for part in body for name in extended_lists(part)} - local_names


def _stored_names(part: ast.stmt) -> Iterator[str]:
    for node in ast.walk(part):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _without_effect(part: Any) -> Any:
    """`a += b` as `a = a + b`, as a tensor may have other names."""

    class Plain(ast.NodeTransformer):
        def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
            if not isinstance(node.target, ast.Name):
                return node
            old = ast.Name(node.target.id, ast.Load())
            result = ast.Assign([node.target], ast.BinOp(old, node.op, node.value))
            return ast.fix_missing_locations(ast.copy_location(result, node))

    return Plain().visit(part)


def _condition(test: ast.expr) -> ast.expr:
    """A condition that may be open: `a and b`, `not a` and `a < b < c` ask for no truth of their parts."""
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "bool":
        return _condition(test.args[0]) if len(test.args) == 1 else test
    if isinstance(test, ast.BoolOp):
        name = "both" if isinstance(test.op, ast.And) else "one"
        parts = [_condition(value) for value in test.values]
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _call("negate", [_condition(test.operand)], test)
    elif isinstance(test, ast.Compare) and len(test.ops) > 1:
        values = [test.left, *test.comparators]
        if any(isinstance(v, ast.Call) for value in values[1:-1] for v in ast.walk(value)):
            return test  # which would be called twice
        name = "both"
        parts = [
            ast.copy_location(ast.Compare(copy.deepcopy(a), [op], [copy.deepcopy(b)]), test)
            for a, op, b in zip(values, test.ops, values[1:], strict=False)
        ]
    elif isinstance(test, ast.Compare) and isinstance(test.ops[0], tuple(_BY_FUNCTIONS)):
        result = _call(_BY_FUNCTIONS[type(test.ops[0])], [test.left, *test.comparators], test)
        is_negated = isinstance(test.ops[0], (ast.NotIn, ast.NotEq))
        return _call("negate", [result], test) if is_negated else result
    else:
        return test
    lambdas = []
    for part in parts:
        (late,) = parse_at("lambda: 0", test)
        assert isinstance(late, ast.Expr) and isinstance(late.value, ast.Lambda)
        late.value.body = part
        lambdas.append(late.value)
    return _call(name, lambdas, test)


def _call(name: str, arguments: Sequence[ast.expr], location: ast.expr) -> ast.expr:
    (result,) = parse_at(f"{_MODULE}.{name}()", location)
    assert isinstance(result, ast.Expr) and isinstance(result.value, ast.Call)
    result.value.args = list(arguments)
    return result.value


def _assigns(part: ast.stmt) -> bool:
    """Whether a statement gives one variable, or one item of a list, another value."""
    if isinstance(part, ast.Assign) and len(part.targets) == 1:
        target = part.targets[0]
    elif isinstance(part, ast.AugAssign):
        target = part.target
    else:
        return False
    return isinstance(target, (ast.Name, ast.Subscript)) and not any(
        isinstance(v, _SPECIAL) for v in ast.walk(part)
    )


def _as_either(part: Any, truth: str) -> ast.stmt:
    """`a = b` as `a = either(truth, b, a)`."""
    target: Any = part.targets[0] if isinstance(part, ast.Assign) else part.target
    old = copy.deepcopy(target)
    old.ctx = ast.Load()
    new = part.value if isinstance(part, ast.Assign) else ast.BinOp(copy.deepcopy(old), part.op, part.value)
    (result,) = parse_at(f"_ = {_MODULE}.either({truth}, lambda: 0, lambda: 0)", part)
    assert isinstance(result, ast.Assign) and isinstance(result.value, ast.Call)
    for function, value in zip(result.value.args[1:], (new, old), strict=True):
        assert isinstance(function, ast.Lambda)
        function.body = value
    result.targets = [target]
    return result


def _has_sizes(value: Any, is_of_sizes: Callable[[Any], bool]) -> bool:
    """Whether this is a size, or a tuple with one."""
    return any(map(is_of_sizes, value)) if isinstance(value, tuple) else is_of_sizes(value)


def _giving(value: Any) -> Callable[[], Any]:
    return lambda: value


def _look_ups(is_of_sizes: Callable[[Any], bool], either: Any, same: Any) -> Any:
    """`items[at]` and `items.get(at)` by sizes: what each item is chosen by is a condition."""

    def choose(rows: Sequence[tuple[Any, Any]], last: Any) -> Any:
        """The value of the first condition that holds, else the last one."""
        for truth, value in reversed(rows):
            last = either(truth, _giving(value), _giving(last))
        return last

    def item(items: Any, at: Any) -> Any:
        if isinstance(items, dict) and items and len(items) <= _MOST_ITEMS and _has_sizes(at, is_of_sizes):
            rows = [(same(at, key), value) for key, value in items.items()]
            return choose(rows, rows[-1][1])
        if type(items) not in (list, tuple) or not 0 < len(items) <= _MOST_ITEMS or not is_of_sizes(at):
            return items[at]
        position = at % len(items)  # from the end, too
        return choose([(position == i, value) for i, value in enumerate(items)], items[-1])

    def got(items: Any, *args: Any) -> Any:
        if not isinstance(items, dict) or len(items) > _MOST_ITEMS or not _has_sizes(args[0], is_of_sizes):
            return items.get(*args)
        rows = [(same(args[0], key), value) for key, value in items.items()]
        return choose(rows, args[1] if len(args) > 1 else None)

    return item, got


def _read_by(function: Any) -> dict[str, Any]:
    """Variables that a lambda reads of the function that it is in."""
    return {f"variable {k}": v for k, v in inspect.getclosurevars(function).nonlocals.items()}


def names(is_of_sizes: Callable[[Any], bool], every: bool = False) -> Any:
    """Return the namespace of helpers that rewritten functions call.

    `is_of_sizes` is true for values that are computed from sizes alone. With `every`, a choice between
    tensors is recorded with both branches.
    """

    def record_both(truth: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
        branch = Branches(truth, ("value",), {**_read_by(one), **_read_by(other)})
        branch.other({"value": one()})
        branch.end({"value": other()})
        return branch.state["value"]

    def either(truth: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
        import torch

        if not is_of_sizes(truth):
            return one() if truth else other()
        values = [one(), other()]
        numbers = [v for v in values if type(v) in (int, float) or is_of_sizes(v)]
        if len(numbers) < 2:
            return record_both(truth, one, other) if every else values[0 if truth else 1]
        if not any(isinstance(v, torch.Tensor) for v in values) and values[0] == values[1]:
            return values[0]
        kinds = {int: torch.int64, float: torch.float64}
        result = [torch.full((), v, dtype=kinds[type(v)]) if type(v) in kinds else v for v in values]
        is_real = any(v.is_floating_point() for v in result)
        return torch.where(as_truth(truth), *(v.double() if is_real else v for v in result))

    def as_truth(value: Any) -> Any:
        return value if value.dtype is sys.modules["torch"].bool else value != 0

    def combine(is_end: Callable[[Any], bool], name: str) -> Callable[..., Any]:
        def function(*parts: Callable[[], Any]) -> Any:
            open_ones, value = [], None
            for part in parts:
                value = part()
                if is_of_sizes(value):
                    open_ones.append(as_truth(value))
                elif is_end(value):
                    return value
            if not open_ones:
                return value
            return functools.reduce(getattr(sys.modules["torch"], name), open_ones)

        return function

    def negate(value: Any) -> Any:
        return ~as_truth(value) if is_of_sizes(value) else not value

    def are_added(*lists: Any) -> bool:
        return all(isinstance(each, Added) for each in lists)

    one = combine(bool, "logical_or")

    def within(value: Any, items: Any) -> Any:
        if not isinstance(items, (list, tuple, dict, set, frozenset)):
            return value in items
        if not any(_has_sizes(part, is_of_sizes) for part in (value, *items)):
            return value in items
        return one(*(functools.partial(same, value, item) for item in items)) if items else False

    every_one = combine(operator.not_, "logical_and")

    def same(a: Any, b: Any) -> Any:
        lists = isinstance(a, tuple) and isinstance(b, tuple) or isinstance(a, list) and isinstance(b, list)
        if not lists or len(a) != len(b) or not any(map(is_of_sizes, (*a, *b))):
            return a == b
        return every_one(*(functools.partial(operator.eq, *pair) for pair in zip(a, b, strict=True)))

    item, got = _look_ups(is_of_sizes, either, same)
    return types.SimpleNamespace(
        is_open=is_of_sizes, either=either, Branches=Branches, both=every_one, same=same,
        one=one, negate=negate, within=within, are_added=are_added, item=item, got=got,
    )  # fmt: skip
