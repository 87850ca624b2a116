"""Conditions on input sizes that an exported program assumes, as its Python branches are the example's."""

from __future__ import annotations

import ast
import math
import operator
import random
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ovjit.readers.torch.pytorch import torch

_SIZE = re.compile(r"L(?:\[[^\]]+\])+\.size\(\)\[\d+\]")
#: That a length is not 0 or 1, for which strides have rules of their own.
_NOT_ONE = re.compile(r"[^%<>=!]+ (!= [01]|>= [012])|[^<>=!]+ != [^<>=!]*sym_max[^<>=!]+")
#: What is asserted where a number that is computed from sizes was taken for the example's.
_TAKEN = re.compile(r"for expression Eq\((?!.*Mod\()(?P<value>.*\W.*), (?P<number>\d{2,}|[2-9])\) on node")
_SYMBOL = re.compile(r"\b[su]\d+\b")
#: How many conditions a warning has, for how many sizes each is tried, and their least and greatest lengths.
_MOST, _TRIES, _LEAST, _GREATEST = 4, 300, 2, 48
_OPERATORS: Mapping[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.USub: operator.neg, ast.Not: operator.not_,
}  # fmt: skip
_FUNCTIONS: Mapping[str, Any] = {
    "sym_max": max, "sym_min": min, "max": max, "min": min, "ceil": math.ceil, "floor": math.floor,
}  # fmt: skip


def warn_of_guards(program: Any) -> None:
    """Warn of conditions on sizes without which a program is wrong."""
    conditions = [re.sub(r"L\['(\w+)'\]", r"\1", guard) for guard in _conditions(program)]
    conditions += dict.fromkeys(_specialized_sizes(program))
    if conditions:
        more = "" if len(conditions) <= _MOST else f" and {len(conditions) - _MOST} more conditions"
        message = "The program might be incorrect for other sizes than those with "
        warnings.warn(f"{message}{', '.join(conditions[:_MOST])}{more}", stacklevel=2)


def _conditions(program: Any) -> Iterator[str]:
    """The program's conditions that do not hold for all input sizes. Equality of two inputs' sizes is
    allowed."""
    for guard in dict.fromkeys(getattr(program, "_guards_code", None) or ()):
        sizes = list(dict.fromkeys(_SIZE.findall(guard)))
        if not sizes or _NOT_ONE.fullmatch(guard):
            continue
        sides = guard.split(" == ")
        if len(sides) == 2 and any(side.isdigit() for side in sides) and set(sides) & set(sizes):
            continue  # the length of one dimension, which the program's input has
        inputs = {size.rpartition(".")[0] for size in sizes}
        if len(sides) == 2 and set(sides) == set(sizes) and len(inputs) == 2:
            continue
        if not _is_implied(guard, sizes):
            yield guard


def _specialized_sizes(program: Any) -> Iterator[str]:
    """Sizes that a program has fixed to the example's and asserts, such as windows of half a length."""
    asserts = torch.ops.aten._assert_scalar.default
    messages = [node.args[-1] for node in program.graph.find_nodes(op="call_function", target=asserts)]
    matches = [match for match in map(_TAKEN.search, map(str, messages)) if match]
    names = _symbols(program) if matches else {}
    for match in matches:
        value = _SYMBOL.sub(lambda symbol: names.get(symbol[0], symbol[0]), match["value"])
        yield f"{value} == {match['number']}"


def _symbols(program: Any) -> dict[str, str]:
    """The sizes of inputs by the symbols that stand for them."""
    names: dict[str, str] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        for axis, length in enumerate(getattr(node.meta.get("val"), "shape", ())):
            names.setdefault(str(length), f"{node.name}.size()[{axis}]")
    return names


def _is_implied(guard: str, sizes: list[str]) -> bool:
    """Whether a condition holds for all sampled sizes. False if it is not arithmetic."""
    names = {size: f"size{i}" for i, size in enumerate(sizes)}
    text, draw = _SIZE.sub(lambda match: names[match[0]], guard), random.Random(0)
    try:
        tree = ast.parse(text, mode="eval").body
        for _ in range(_TRIES):
            if not _value(tree, {name: draw.randint(_LEAST, _GREATEST) for name in names.values()}):
                return False
    except (SyntaxError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError, MemoryError):
        return False
    return True


def _value(node: ast.AST, sizes: Mapping[str, int]) -> Any:
    """Evaluate arithmetic on sizes. KeyError for anything else: a file may contain any text here."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand, sizes))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _OPERATORS[type(node.ops[0])](_value(node.left, sizes), _value(node.comparators[0], sizes))
    if isinstance(node, ast.Call) and not node.keywords:  # torch.sym_max(...); max(...) since PyTorch 2.13
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return _FUNCTIONS[name](*(_value(each, sizes) for each in node.args))
    raise KeyError(type(node).__name__)
