"""Printer of kernels over rows (`ovjit.codegen.template`): a function of one row in its loop nest.

It extends the printer of all kernels (`ovjit.codegen.kernel_printing`) by statements about vectors of a row.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit.codegen import trace, words
from ovjit.codegen.cpu.ir import Body, literal
from ovjit.codegen.expressions import ATOM, RUN_TIME
from ovjit.codegen.kernel import KernelArgs
from ovjit.codegen.kernel_printing import Printer
from ovjit.codegen.memory import DIMS, SIZE
from ovjit.codegen.trace import WIDENED, Recorder

if TYPE_CHECKING:
    from ovjit.codegen.row_function import Finish, RowFunction, Start

_TRACED = ("exp", "exp_below_zero", "log", "tanh", "erf", "sigmoid", "not_below")
_LANE_BY_LANE = {name: getattr(words, name) for name in ("maximum", "minimum", "fma", "sqrt", "turned_pairs")}
_OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
_ACROSS = ("hadd", "hmul", "hmax", "hmin")
#: The words of expressions over rows.
_OF_ROWS = ("load", "splat", "count_of", *_ACROSS, *_LANE_BY_LANE, *_TRACED)
#: Statements that a row's function may have.
_STATEMENTS = (ast.Assign, ast.Expr, ast.For, ast.If)


@functools.cache
def _trace(name: str, dtype: str, count: int = 1, added: bool = False) -> Body:
    """The body of f(x0, ...) with `count` arguments; `added`: plus a further input."""
    recorder = Recorder()
    inputs = [recorder.input(f"x{k}", dtype) for k in range(count + added)]
    result = getattr(trace, name)(*inputs[:count])
    if added:
        result = inputs[count] + result
    return Body([dtype] * len(inputs), [dtype], recorder.lines, [result.name])


class RowPrinter(Printer):
    """Prints the function of a row. Expressions are vectors or numbers. Loops over `vectors` end with a
    masked iteration."""

    def __init__(
        self,
        row: RowFunction,
        types: Sequence[str],
        finish: Finish,
        start: Start,
        constants: Mapping[str, Any],
    ):
        arguments = (*row.tensors, *row.integers, *row.numbers)
        super().__init__(row.function, row.source, constants, arguments)
        self.indent = ""
        self.row = row
        self.types = dict(zip(row.tensors, types, strict=True))
        self.finish = finish
        self.start = start
        self.loops = 0
        self.first_loop = 0  # the first loop that reads the first tensor
        self.dtype = WIDENED.get(types[0], types[0])  # of vectors in registers
        self.vectors = set(row.numbers)
        self.tail = ""  # number of active lanes, in a masked iteration
        self.of_parts: dict[str, str] = {}  # operand with one element per part in this loop -> its type
        self.older: set[str] = set()  # variables whose inactive lanes the masked iteration keeps
        self.count = 0

    def kernel(self, frame: KernelArgs) -> str:
        """The source of the kernel."""
        self.block(self.source.body)
        body, operands = self.lines, []
        starts = self.start.body.inputs if self.start.body is not None else ()
        read = ("f", self.start.modes, starts), ("e", self.finish.modes, self.finish.types)
        for name, modes, dtypes in read:
            ones = [(k, dtype) for k, dtype in enumerate(dtypes) if modes[k] == "s"]
            operands += [f"{name}{k}_one = splat_{dtype}({name}{k}_row)" for k, dtype in ones]
        names = self.row.names(self.finish, self.start)
        out = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
        for body_of_tensor in (self.start.body, self.finish.body):
            if body_of_tensor is not None:
                out += [f"    # {line}" for line in body_of_tensor.text().splitlines()]
        out += [frame.prologue(), *(f"    {name} = {value}" for value, name in self.numbers.items())]
        out += [f"    {name}_all = splat_{self.dtype}({name})" for name in self.row.numbers]
        out += [
            "    row = chunk * per_chunk",
            "    stop = imin(row + per_chunk, rows)",
            "    while row < stop:",
        ]
        out += ["        rest = row"]
        for d in reversed(range(1, DIMS)):
            out += [f"        a{d} = urem(rest, d{d})", f"        rest = udiv(rest, d{d})"]
        out += ["        a0 = rest"]
        for name in names:
            out += [f"        {name}_row = {name}" + "".join(f" + a{d} * {name}_{d}" for d in range(DIMS))]
        out += [" " * 8 + line for line in (*operands, *body)]
        return "\n".join([*out, "        row += 1", "    return 0", ""])

    # --- statements

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for s in statements:
            if not isinstance(s, _STATEMENTS):
                raise self.make_error(s)
        super().block(statements)

    def test(self, e: ast.expr) -> bool:
        condition = super().test(e)
        if not isinstance(condition, bool):
            raise self.make_error(e)
        return condition

    def say_Assign(self, s: ast.Assign) -> None:
        (target,) = s.targets
        if not isinstance(target, ast.Name):
            raise self.make_error(s)
        name, value = target.id, self.text(s.value)
        if self.is_vector(s.value):
            self.vectors.add(name)
            if self.tail and name in self.older:
                value = f"blend_{self.dtype}({self.tail}, {value}, {name})"
        self.say(f"{name} = {value}")

    def say_Expr(self, s: ast.Expr) -> None:
        callee = self.callee(s.value)
        if callee not in (words.store, words.finish):
            raise self.make_error(s)
        tensor, index, value = s.value.args  # type: ignore[attr-defined]
        text = self.text(value)
        if callee is words.finish and self.finish.body is not None:
            operands = self.read("e", self.finish.modes, self.finish.types, self.bound(index, ATOM))
            text = self.inline(self.finish.body, [text, *operands])
        self.say(self.print_access("store", self.types[tensor.id], self.address_of(tensor.id, index), text))

    def say_For(self, s: ast.For) -> None:
        if self.callee(s.iter) is not words.vectors or not isinstance(s.target, ast.Name):
            raise self.make_error(s)
        i, n = s.target.id, self.text(s.iter.args[0])  # type: ignore[attr-defined]
        before, outer = set(self.vectors), self.lines
        self.lines = []
        self.loops += 1
        self.of_parts = {}
        self.block(s.body)
        end = f"{i}_end" if self.of_parts else n
        inner = [f"while {i} + VL <= {end}:", *("    " + line for line in self.lines), f"    {i} += VL"]
        count = f"imin({n} - {i}, VL)" if self.of_parts else f"{n} - {i}"
        self.lines, self.tail, self.older = [], count, before
        self.block(s.body)
        last = ["    " + line for line in self.lines]
        if self.of_parts:
            # vectors are placed as without parts: one that crosses an end has elements of both parts
            ones = [f"{name}_one = splat_{dtype}({name}_at)" for name, dtype in self.of_parts.items()]
            on = [f"{name}_at += {name}_part" for name in self.of_parts]
            both = [
                f"{name}_one = blend_{dtype}({end} - {i}, {name}_one, splat_{dtype}({name}_at))"
                for name, dtype in self.of_parts.items()
            ]
            outer += [f"{end} = 0", *(f"{name}_at = {name}_row - {name}_part" for name in self.of_parts)]
            inner = [f"if {end} == {i}:", *("    " + line for line in (*on, f"{end} += part", *ones)), *inner]
            last = [
                f"    while ({end} < {i} + VL) & ({end} < {n}):",
                *(" " * 8 + line for line in (*on, *both, f"{end} += part")),
                *last,
                f"    {i} += VL",
                *("    " + line for line in ones),
            ]
        inner += [f"if {i} < {n}:", *last]
        if self.of_parts:
            inner = [f"while {i} < {n}:", *("    " + line for line in inner)]
        self.lines, self.tail, self.older = [*outer, f"{i} = 0", *inner], "", set()

    def read(self, name: str, modes: str, types: Sequence[str], index: str) -> list[str]:
        """The sources of these operands' elements."""
        self.of_parts |= {f"{name}{k}": types[k] for k, mode in enumerate(modes) if mode == "c"}
        return [
            f"{name}{k}_one" if mode != "v"
            else self.print_access("load", dtype, f"{name}{k}_row + {index} * {SIZE[dtype]}")
            for k, (mode, dtype) in enumerate(zip(modes, types, strict=True))
        ]  # fmt: skip

    def print_element(self, index: ast.expr) -> str:
        """The source of an element of the first tensor, which the prologue's body computes."""
        body, stored = self.start.body, self.row.tensors[1]
        assert body is not None
        self.first_loop = self.first_loop or self.loops
        if self.start.is_stored and self.loops > self.first_loop:
            return self.print_access("load", self.types[stored], self.address_of(stored, index))
        operands = self.read("f", self.start.modes, body.inputs, self.bound(index, ATOM))
        value = self.inline(body, operands)
        if self.start.is_stored:
            self.say(self.print_access("store", self.types[stored], self.address_of(stored, index), value))
        return value

    # --- expressions

    def is_vector(self, e: ast.expr) -> bool:
        """Whether an expression is a vector, and not a number or an index."""
        if isinstance(e, ast.UnaryOp):
            return self.is_vector(e.operand)
        if isinstance(e, ast.BinOp):
            return self.is_vector(e.left) or self.is_vector(e.right)
        if isinstance(e, ast.Call):
            return isinstance(e.func, ast.Name) and e.func.id not in _ACROSS
        return isinstance(e, ast.Name) and e.id in self.vectors

    def as_Name(self, e: ast.Name) -> tuple[str, int]:
        return f"{e.id}_all" if e.id in self.row.numbers else e.id, ATOM

    def as_UnaryOp(self, e: ast.UnaryOp) -> tuple[str, int]:
        if isinstance(e.op, ast.USub) and self.is_vector(e.operand):
            return f"neg({self.text(e.operand)})", ATOM
        return super().as_UnaryOp(e)

    def as_BinOp(self, e: ast.BinOp) -> tuple[str, int]:
        """Arithmetic of vectors, or an index: the sum of two integers."""
        f, adds = e.right, isinstance(e.op, ast.Add)
        if adds and isinstance(f, ast.Call) and isinstance(f.func, ast.Name) and f.func.id in _TRACED:
            # a single body, so that its last product is fused with the sum
            inputs = [self.vector(x) for x in (*f.args, e.left)]
            return self.inline(_trace(f.func.id, self.dtype, len(f.args), True), inputs), ATOM
        if self.is_vector(e) and type(e.op) in _OPERATORS:
            return f"{_OPERATORS[type(e.op)]}({self.vector(e.left)}, {self.vector(e.right)})", ATOM
        if adds and isinstance(f, ast.Name) and f.id in self.row.integers:
            return super().as_BinOp(e)
        raise self.make_error(e)

    def call(self, e: ast.Call) -> str:
        name, args = getattr(e.func, "id", ""), e.args
        if name == "load" and isinstance(args[0], ast.Name):
            tensor = args[0].id
            if self.start.body is not None and tensor == self.row.tensors[0]:
                return self.print_element(args[1])
            return self.print_access("load", self.types[tensor], self.address_of(tensor, args[1]))
        if name == "splat":
            is_constant = self.known_number(args[0]) is not RUN_TIME
            return self.vector(args[0]) if is_constant else f"spread_{self.dtype}({self.text(args[0])})"
        if name == "count_of":  # an integer, broadcast to all lanes
            return f"const_{self.dtype}({self.text(args[0])})"
        if name in _ACROSS:
            return f"{name}_{self.dtype}({self.text(args[0])})"
        if name in _LANE_BY_LANE:
            return f"{_LANE_BY_LANE[name].printed}({', '.join(map(self.vector, args))})"
        if name in _TRACED:
            return self.inline(_trace(name, self.dtype, len(args)), list(map(self.vector, args)))
        raise self.make_error(e, f"no word of kernels over rows{words.suggest(name, _OF_ROWS)}")

    def vector(self, e: ast.expr) -> str:
        """The source of a vector. A number is broadcast to all lanes, once before the rows."""
        text = self.text(e)
        if self.is_vector(e):
            return text
        if not text.endswith("float_inf"):
            text = literal(float(text).hex(), self.dtype)
        return self.numbers.setdefault(f"const_{self.dtype}({text})", f"c{len(self.numbers)}")

    def address_of(self, tensor: str, index: ast.expr) -> str:
        return f"{tensor}_row + {self.bound(index, ATOM)} * {SIZE[self.types[tensor]]}"

    def print_access(self, what: str, dtype: str, address: str, value: str = "") -> str:
        count = f", {self.tail}" if self.tail else ""
        return f"{what}{'m' if self.tail else ''}_{dtype}({address}{', ' + value if value else ''}{count})"

    def inline(self, body: Body, inputs: Sequence[str]) -> str:
        """Print a traced body's lines with new names. Returns the source of its result."""
        self.count += 1
        names = {}
        for k, text in enumerate(inputs):
            if not re.fullmatch(r"\w+", text):
                self.say(f"v{self.count}_{k} = {text}")
                text = f"v{self.count}_{k}"
            names[f"x{k}"] = text
        lines, results = body.inline(names, self.numbers, "c", f"_{self.count}")
        self.lines += lines
        return results[0]
