"""Expressions of kernels: folded to a constant, or printed as source with the precedence of its operator."""

from __future__ import annotations

import ast
import builtins
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ovjit.codegen import words
from ovjit.codegen.parts import Inline, Source
from ovjit.codegen.tensors import Signature, extent_of
from ovjit.codegen.words import Word, is_word, suggest
from ovjit.errors import KernelSourceError

#: Names that every kernel has.
_GIVEN = frozenset(("bases", "args", "chunk", "scratch", "VL"))
_PRINTED = {"min": "imin", "max": "imax"}
_CASTS = ("int", "float", "bool")
#: The words of `ovjit.codegen.words`.
_OF_ALL = {word for name in words.__all__ if isinstance(word := getattr(words, name), Word)}
NUMBERS = (bool, int, float)
#: Operator -> (its source, its precedence).
OPERATORS: dict[type, tuple[str, int]] = {
    ast.Or: ("or", 1), ast.And: ("and", 2), ast.BitOr: ("|", 5), ast.BitXor: ("^", 6), ast.BitAnd: ("&", 7),
    ast.LShift: ("<<", 8), ast.RShift: (">>", 8), ast.Add: ("+", 9), ast.Sub: ("-", 9), ast.Mult: ("*", 10),
    ast.Div: ("/", 10), ast.FloorDiv: ("//", 10), ast.Mod: ("%", 10), ast.USub: ("-", 11),
    ast.Invert: ("~", 11), ast.Not: ("not ", 3), ast.Lt: ("<", 4), ast.LtE: ("<=", 4), ast.Gt: (">", 4),
    ast.GtE: (">=", 4), ast.Eq: ("==", 4), ast.NotEq: ("!=", 4),
}  # fmt: skip
_COMPARE, ATOM = 4, 20


class _RunTime:
    """Marks a value that is only known at run time."""


RUN_TIME = _RunTime()


class Expressions:
    """Prints expressions by `text` and `bound`. Constant expressions are folded."""

    def __init__(
        self,
        function: Callable[..., Any],
        source: Source,
        constants: Mapping[str, Any],
        arguments: Iterable[str],
        signature: Signature | None = None,
    ):
        self.name = function.__name__
        self.function_code = function.__code__
        self.words_only = False  # whether every name that is called is a word of `ovjit.codegen.words`
        self.signature = signature
        self.source = source
        self.names = function.__globals__
        if function.__closure__:
            cells = zip(function.__code__.co_freevars, function.__closure__, strict=True)
            self.names = {**self.names, **{name: cell.cell_contents for name, cell in cells}}
        self.constants: dict[str, Any] = dict(constants)
        self.variables = _GIVEN | set(arguments) | source.stored
        self.renamed: dict[str, tuple[str, int]] = {}  # inlined name -> (source, precedence)
        self.fixed: dict[str, bool] = {}

    # --- constants

    def constant(self, e: ast.expr) -> Any:
        """The value of an expression; RUN_TIME if it is not constant."""
        if isinstance(e, ast.Constant):
            return e.value
        if isinstance(e, ast.Name) and e.id in self.constants:
            return self.constants[e.id]
        for name in self.source.names[e]:
            if name not in self.constants and not self._is_fixed(name):
                return RUN_TIME
        code = self.source.code.get(e)
        if code is None:
            code = self.source.code[e] = compile(ast.Expression(e), self.name, "eval")
        return eval(code, self.names, self.constants)

    def _is_fixed(self, name: str) -> bool:
        """Whether a name is a global or a builtin that is not an intrinsic or an inline function."""
        fixed = self.fixed.get(name)
        if fixed is None:
            binding = None if name in self.variables else self.names.get(name, getattr(builtins, name, None))
            fixed = self.fixed[name] = binding is not None and not isinstance(binding, (Word, Inline))
        return fixed

    def known_number(self, e: ast.expr) -> Any:
        """The value of a constant number, else RUN_TIME. Raises TypeError for other constants."""
        value = self.constant(e)
        if value is not RUN_TIME and type(value) not in NUMBERS:
            raise self.make_error(e)
        return value

    # --- parts

    def callee(self, e: ast.expr) -> Any:
        """The constant, global or builtin that an expression calls; None for others."""
        if not isinstance(e, ast.Call) or not isinstance(e.func, ast.Name):
            return None
        name = e.func.id
        if name in self.constants or name in self.variables:
            return self.constants.get(name)
        return self.names.get(name, getattr(builtins, name, None))

    def part(self, e: ast.expr) -> Inline | None:
        function = self.callee(e)
        return function if isinstance(function, Inline) else None

    def print_inline(self, part: Inline, call: ast.Call) -> tuple[str, int]:
        """Print the statements of an inline function. Returns the source of its result, and its
        precedence."""
        raise NotImplementedError

    # --- expressions

    def text(self, e: ast.expr) -> str:
        return self.expression(e)[0]

    def bound(self, e: ast.expr, strength: int) -> str:
        """The source of an operand, in parentheses if its precedence is below `strength`."""
        text, precedence = self.expression(e)
        return text if precedence >= strength else f"({text})"

    def test(self, e: ast.expr) -> Any:
        """A condition: True, False, or (source, precedence)."""
        if isinstance(e, ast.BoolOp):
            ends = isinstance(e.op, ast.Or)  # the value that decides the result
            word, strength = OPERATORS[type(e.op)]
            undecided = []
            for value in e.values:
                one = self.test(value)
                if one is ends:
                    return ends
                if not isinstance(one, bool):
                    undecided.append(one)
            if len(undecided) < 2:
                return undecided[0] if undecided else not ends
            texts = [text if precedence > strength else f"({text})" for text, precedence in undecided]
            return f" {word} ".join(texts), strength
        value = self.constant(e)
        return self.expression(e) if value is RUN_TIME else bool(value)

    def expression(self, e: ast.expr) -> tuple[str, int]:
        """(source, precedence of its outermost operator)"""
        value = self.known_number(e)
        if value is not RUN_TIME:
            return literal(value)
        method = getattr(self, f"as_{type(e).__name__}", None)
        if method is None:
            raise self.make_error(e)
        printed: tuple[str, int] = method(e)
        return printed

    def as_Name(self, e: ast.Name) -> tuple[str, int]:
        printed = self.renamed.get(e.id)
        if printed is None:
            if self.words_only and e.id not in self.variables:
                raise self.unknown_name(e)
            return e.id, ATOM
        return printed

    def as_BinOp(self, e: ast.BinOp) -> tuple[str, int]:
        word, strength = OPERATORS[type(e.op)]
        return f"{self.bound(e.left, strength)} {word} {self.bound(e.right, strength + 1)}", strength

    def as_UnaryOp(self, e: ast.UnaryOp) -> tuple[str, int]:
        word, strength = OPERATORS[type(e.op)]
        return f"{word}{self.bound(e.operand, strength)}", strength

    def as_Compare(self, e: ast.Compare) -> tuple[str, int]:
        words = [OPERATORS[type(o)][0] for o in e.ops]
        tail = [f" {w} {self.bound(x, _COMPARE + 1)}" for w, x in zip(words, e.comparators, strict=True)]
        return self.bound(e.left, _COMPARE + 1) + "".join(tail), _COMPARE

    def as_BoolOp(self, e: ast.BoolOp) -> tuple[str, int]:
        condition = self.test(e)
        return (repr(condition), ATOM) if isinstance(condition, bool) else condition

    def as_IfExp(self, e: ast.IfExp) -> tuple[str, int]:
        test = self.test(e.test)
        if not isinstance(test, bool):
            why = "its condition is known only at run time: write an `if` statement, or `select` for vectors"
            raise self.make_error(e, why)
        return self.expression(e.body if test else e.orelse)

    def as_Subscript(self, e: ast.Subscript) -> tuple[str, int]:
        if not isinstance(e.value, ast.Name):
            raise self.make_error(e)
        return self.subscript(e, e.value.id), ATOM

    def as_Attribute(self, e: ast.Attribute) -> tuple[str, int]:
        return self.tensor_attribute(e), ATOM

    def as_Call(self, e: ast.Call) -> tuple[str, int]:
        text = self.tensor_address(e)
        return (self.call(e), ATOM) if text is None else (text, OPERATORS[ast.Add][1])

    def tensor_attribute(self, e: ast.Attribute) -> str:
        """The name of the argument for `x.stride.h`, `x.size.h` or `window.field`."""
        signature, inner = self.signature, e.value
        if signature is not None and isinstance(inner, ast.Name):
            structure = self.text(inner)
            field = signature.structures.get(structure, {}).get(e.attr)
            if field is not None:
                return field[0]
            raise self.make_error(e, f"{structure!r} is not declared to have a field {e.attr!r}")
        if not isinstance(inner, ast.Attribute) or inner.attr not in ("stride", "size"):
            raise self.make_error(e)
        tensor = self.text(inner.value)
        self._check_axis(tensor, e.attr, e)
        return extent_of(e.attr) if inner.attr == "size" else f"{tensor}_{e.attr}"

    def tensor_address(self, call: ast.Call) -> str | None:
        """The source of the address `x.at(...)`; None for another call."""
        at = call.func
        if not (isinstance(at, ast.Attribute) and at.attr == "at" and isinstance(at.value, ast.Name)):
            return None
        tensor = self.text(at.value)
        text = self.bound(call.args[0], 9) if call.args else tensor
        for keyword in call.keywords:
            assert keyword.arg is not None
            self._check_axis(tensor, keyword.arg, call)
            text += f" + {self.bound(keyword.value, 11)} * {tensor}_{keyword.arg}"
        return text

    def _check_axis(self, tensor: str, axis: str, where: ast.AST) -> None:
        signature = self.signature
        if signature is None or axis not in signature.axes.get(tensor, ()):
            raise self.make_error(where, f"{tensor!r} is not declared to have an axis {axis!r}")

    def subscript(self, e: ast.Subscript, name: str) -> str:
        index = self.constant(e.slice)
        if index is RUN_TIME:
            raise self.unknown_name(e.slice) if isinstance(e.slice, ast.Name) else self.make_error(e)
        word = self.names.get(name)
        parts = "_".join(map(str, index if isinstance(index, tuple) else (index,)))
        if isinstance(word, Word) and name not in self.variables:
            return f"{word.printed}_{parts}"
        if name not in self.variables:
            raise self.unknown_name(e)
        return self.renamed.get(name, (name, ATOM))[0] + parts

    def call(self, e: ast.Call) -> str:
        part = self.part(e)
        if part is not None:
            if len(part.source.body) > 1:
                raise self.make_error(e)  # only an assignment may call functions with statements
            text, strength = self.print_inline(part, e)
            return text if strength == ATOM else f"({text})"
        arguments = ", ".join(text for a in e.args for text in self.argument(a))
        if not isinstance(e.func, (ast.Name, ast.Subscript)) or e.keywords:
            raise self.make_error(e)
        printed = self.callee_text(e, e.func)
        if self.words_only and printed not in _CASTS and not is_word(printed):
            name = e.func.value if isinstance(e.func, ast.Subscript) else e.func
            word = self.names.get(getattr(name, "id", ""))
            if not isinstance(word, Word) or word in _OF_ALL:  # others are the kernel's own intrinsics
                raise self.unknown_name(e.func)
        return f"{printed}({arguments})"

    def callee_text(self, call: ast.Call, callee: ast.Name | ast.Subscript) -> str:
        """The name of a called word in the text."""
        if isinstance(callee, ast.Subscript):
            return self.text(callee)
        name, word = callee.id, self.callee(call)
        if isinstance(word, Word):
            return word.printed
        if name in _PRINTED:
            return _PRINTED[name]
        if name in _CASTS or word is None:
            return name  # one of the kernel's intrinsics
        raise self.make_error(call)

    def argument(self, e: ast.expr) -> Iterator[str]:
        """The source of an argument; several for `*(f(i) for i in constant)`."""
        if not isinstance(e, ast.Starred):
            yield self.text(e)
            return
        each = e.value
        if not isinstance(each, ast.GeneratorExp) or len(each.generators) != 1 or each.generators[0].ifs:
            raise self.make_error(e)
        target, over = each.generators[0].target, each.generators[0].iter
        values = self.constant(over)
        if values is RUN_TIME:
            raise self.make_error(over)
        outer = self.constants
        for value in values:
            self.constants = {**outer, **dict(bound_names(target, value))}
            yield self.text(each.elt)
        self.constants = outer

    def make_error(self, node: ast.AST, why: str = "") -> KernelSourceError:
        """The error of an expression or statement: the kernel, the place in its file, and the reason."""
        code = self.function_code
        line = getattr(node, "lineno", 0)
        location = f" ({code.co_filename}, line {code.co_firstlineno - 1 + line})" if line else ""
        what = f"{self.name}: {ast.unparse(node)!r} is not part of the kernel language"
        return KernelSourceError(f"{what}{location}{why and ': ' + why}")

    def unknown_name(self, e: ast.expr) -> KernelSourceError:
        """The error of a name that is no word, variable or constant, with the nearest one."""
        name = e.value if isinstance(e, ast.Subscript) else e
        assert isinstance(name, ast.Name)
        word = self.names.get(name.id)
        if not isinstance(word, Word):
            like = {n for n, value in self.names.items() if isinstance(value, (Word, Inline, str))}
            like = like.union(self.variables, words.__all__)
            return self.make_error(e, f"unknown name{suggest(name.id, like)}")
        if is_word(f"{word.printed}_f32"):
            return self.make_error(e, f"the word is written {name.id}[T]")
        one_form = "takes no element type" if is_word(word.printed) else "is of other kernels"
        return self.make_error(e, f"the word {name.id} {one_form}")


def elements(e: ast.expr | None) -> list[ast.expr]:
    """The elements of a tuple; of another expression itself."""
    assert e is not None
    return e.elts if isinstance(e, ast.Tuple) else [e]


def bound_names(target: ast.expr, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) for a loop's target and one of its values."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple):
        for one, part in zip(target.elts, value, strict=True):
            yield from bound_names(one, part)


def literal(value: Any) -> tuple[str, int]:
    if isinstance(value, float) and not math.isfinite(value):
        text = "float_nan" if math.isnan(value) else "float_inf"
        return (f"-{text}", 11) if value < 0 else (text, ATOM)
    return repr(value), 11 if not isinstance(value, bool) and value < 0 else ATOM
