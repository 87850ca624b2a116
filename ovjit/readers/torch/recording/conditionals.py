"""Numbers that Python chooses by the order of two sizes, chosen when the model runs.

`if window >= height: shift = 0` is the example's choice in a trace. Windows of attention are written so. Here
a branch that assigns numbers alone gives, for each, the one or the other by what is compared.
"""

from __future__ import annotations

import ast
import copy
import types
from collections.abc import Callable
from typing import Any

from ovjit.readers.torch.recording.loop_code import Change, parsed

#: What changed functions call the names of this module that they use, and what is compared.
_MODULE, _TRUTH = "_ovjit_choices", "_ovjit_truth"
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_SPECIAL = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)


class Choices(Change):
    """Replaces branches by an order on `lines` that only assign, and `a if b else c`."""

    module = _MODULE

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if not self._is_order(node.test) or node.orelse or not all(map(_assigns, node.body)):
            return node
        self.any = True
        truth = f"{_TRUTH}{node.lineno}_{node.col_offset}"
        start, choice = parsed(f"{truth} = 0\nif {_MODULE}.is_open({truth}): pass\nelif {truth}: pass", node)
        assert isinstance(start, ast.Assign) and isinstance(choice, ast.If)
        start.value = node.test
        choice.body = [_chosen(part, truth) for part in copy.deepcopy(node.body)]
        plain = choice.orelse[0]
        assert isinstance(plain, ast.If)
        plain.body = node.body
        return [start, choice]

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        if not self._is_order(node.test) or any(isinstance(v, _SPECIAL) for v in ast.walk(node)):
            return node
        self.any = True
        (made,) = parsed(f"{_MODULE}.either(0, lambda: 0, lambda: 0)", node)
        assert isinstance(made, ast.Expr) and isinstance(made.value, ast.Call)
        first, *rest = made.value.args
        made.value.args[0] = node.test
        for part, value in zip(rest, (node.body, node.orelse), strict=True):
            assert isinstance(part, ast.Lambda)
            part.body = value
        return made.value

    def _is_order(self, test: ast.expr) -> bool:
        is_one = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _ORDERS)
        return is_one and test.lineno in self.lines


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


def _chosen(part: Any, truth: str) -> ast.stmt:
    """`a = b` as `a = either(truth, b, a)`."""
    target: Any = part.targets[0] if isinstance(part, ast.Assign) else part.target
    old = copy.deepcopy(target)
    old.ctx = ast.Load()
    new = part.value if isinstance(part, ast.Assign) else ast.BinOp(copy.deepcopy(old), part.op, part.value)
    (made,) = parsed(f"_ = {_MODULE}.either({truth}, lambda: 0, lambda: 0)", part)
    assert isinstance(made, ast.Assign) and isinstance(made.value, ast.Call)
    for function, value in zip(made.value.args[1:], (new, old), strict=True):
        assert isinstance(function, ast.Lambda)
        function.body = value
    made.targets = [target]
    return made


def names(is_of_sizes: Callable[[Any], bool]) -> Any:
    """What changed functions use. `is_of_sizes` tells what is computed from sizes alone."""

    def either(truth: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
        import torch

        if not is_of_sizes(truth):
            return one() if truth else other()
        values = [one(), other()]
        numbers = [v for v in values if type(v) in (int, float) or is_of_sizes(v)]
        if len(numbers) < 2:
            return values[0 if truth else 1]
        if not any(isinstance(v, torch.Tensor) for v in values) and values[0] == values[1]:
            return values[0]
        kinds = {int: torch.int64, float: torch.float64}
        made = [torch.full((), v, dtype=kinds[type(v)]) if type(v) in kinds else v for v in values]
        is_real = any(v.is_floating_point() for v in made)
        return torch.where(truth, *(v.double() if is_real else v for v in made))

    return types.SimpleNamespace(is_open=is_of_sizes, either=either)
