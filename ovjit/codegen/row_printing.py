"""The printer of kernels over rows (`ovjit.codegen.template`): a function of one row inside its loop nest."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit.codegen import trace, words
from ovjit.codegen.cpu.ir import Body, literal
from ovjit.codegen.kernel import KernelArgs
from ovjit.codegen.memory import DIMS, SIZE
from ovjit.codegen.trace import WIDENED, Recorder

if TYPE_CHECKING:
    from ovjit.codegen.template import Finish, Start, Template

_TRACED = ("exp", "exp_below_zero", "log", "tanh", "erf", "sigmoid", "not_below")
_LANE_BY_LANE = {name: getattr(words, name) for name in ("maximum", "minimum", "fma", "sqrt", "turned_pairs")}
_OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
_ACROSS = ("hadd", "hmul", "hmax", "hmin")


@functools.cache
def _traced(name: str, dtype: str, count: int = 1, added: bool = False) -> Body:
    """f(x0, ...) of so many, or what follows them + that."""
    recorder = Recorder()
    inputs = [recorder.input(f"x{k}", dtype) for k in range(count + added)]
    result = getattr(trace, name)(*inputs[:count])
    if added:
        result = inputs[count] + result
    return Body([dtype] * len(inputs), [dtype], recorder.lines, [result.name])


class Printer:
    """Prints one kernel: statements to lines, expressions to texts."""

    def __init__(
        self,
        template: Template,
        types: Sequence[str],
        finish: Finish,
        start: Start,
        constants: Mapping[str, Any],
    ):
        self.template = template
        self.types = dict(zip(template.tensors, types, strict=True))
        self.finish = finish
        self.start = start
        self.loops = 0
        self.first_loop = 0  # that reads the first tensor
        self.given = constants
        self.dtype = WIDENED.get(types[0], types[0])  # of vectors in registers
        self.vectors: set[str] = set()
        self.numbers: dict[str, str] = {}  # text of a constant vector -> its name
        self.lines: list[str] = []
        self.rest = ""  # how many lanes there are, where not all
        self.of_parts: dict[str, str] = {}  # what this loop reads one element of for each part, and its type
        self.older: set[str] = set()  # what the loop under a mask must leave as it is
        self.count = 0

    def text(self, frame: KernelArgs) -> str:
        self.block(self.template.body)
        body, operands = self.lines, []
        starts = self.start.body.inputs if self.start.body is not None else ()
        read = ("f", self.start.modes, starts), ("e", self.finish.modes, self.finish.types)
        for name, modes, dtypes in read:
            ones = [(k, dtype) for k, dtype in enumerate(dtypes) if modes[k] == "s"]
            operands += [f"{name}{k}_one = splat_{dtype}({name}{k}_row)" for k, dtype in ones]
        names = self.template.names(self.finish, self.start)
        out = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
        for made in (self.start.body, self.finish.body):
            if made is not None:
                out += [f"    # {line}" for line in made.text().splitlines()]
        out += [frame.prologue(), *(f"    {name} = {value}" for value, name in self.numbers.items())]
        out += [f"    {name}_all = splat_{self.dtype}({name})" for name in self.template.numbers]
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
        for statement in statements:
            self.statement(statement)

    def statement(self, s: ast.stmt) -> None:
        if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name):
            name = s.targets[0].id
            value, is_vector = self.value(s.value)
            if is_vector:
                self.vectors.add(name)
                if self.rest and name in self.older:
                    value = f"blend_{self.dtype}({self.rest}, {value}, {name})"
            self.lines.append(f"{name} = {value}")
        elif isinstance(s, ast.If) and isinstance(s.test, ast.Name) and s.test.id in self.given:
            self.block(s.body if self.given[s.test.id] else s.orelse)
        elif isinstance(s, ast.For):
            self.loop(s)
        elif isinstance(s, ast.Expr) and isinstance(s.value, ast.Call):
            self.store(s.value)
        else:
            raise self.unknown(s)

    def loop(self, s: ast.For) -> None:
        call = s.iter
        known = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "vectors"
        if not known or not isinstance(s.target, ast.Name):
            raise self.unknown(s)
        assert isinstance(call, ast.Call)
        i, (n, _) = s.target.id, self.value(call.args[0])
        before, outer = set(self.vectors), self.lines
        self.lines = []
        self.loops += 1
        self.of_parts = {}
        self.block(s.body)
        end = f"{i}_end" if self.of_parts else n
        inner = [f"while {i} + VL <= {end}:", *("    " + line for line in self.lines), f"    {i} += VL"]
        rest = f"imin({n} - {i}, VL)" if self.of_parts else f"{n} - {i}"
        self.lines, self.rest, self.older = [], rest, before
        self.block(s.body)
        last = ["    " + line for line in self.lines]
        if self.of_parts:
            # vectors are where they would be without parts: one over an end has elements of both sides
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
        self.lines, self.rest, self.older = [*outer, f"{i} = 0", *inner], "", set()

    def store(self, call: ast.Call) -> None:
        assert isinstance(call.func, ast.Name)
        if call.func.id not in ("store", "finish"):
            raise self.unknown(call)
        tensor, index, value = call.args
        text, _ = self.value(value)
        if call.func.id == "finish" and self.finish.body is not None:
            text = self.finished(text, self.value(index)[0])
        name = tensor.id if isinstance(tensor, ast.Name) else ""
        self.lines.append(self.moved("store", self.types[name], self.place(name, index), text))

    def finished(self, value: str, index: str) -> str:
        """The body behind the operation on `value`, as lines; the text of its result."""
        body = self.finish.body
        assert body is not None
        return self.inlined(body, [value, *self.read("e", self.finish.modes, self.finish.types, index)])

    def read(self, name: str, modes: str, types: Sequence[str], index: str) -> list[str]:
        """The texts of these operands' elements."""
        self.of_parts |= {f"{name}{k}": types[k] for k, mode in enumerate(modes) if mode == "c"}
        return [
            f"{name}{k}_one" if mode != "v"
            else self.moved("load", dtype, f"{name}{k}_row + {index} * {SIZE[dtype]}")
            for k, (mode, dtype) in enumerate(zip(modes, types, strict=True))
        ]  # fmt: skip

    def started(self, index: ast.expr) -> str:
        """An element of the first tensor, which the body in front makes; the text of it."""
        body, kept = self.start.body, self.template.tensors[1]
        assert body is not None
        self.first_loop = self.first_loop or self.loops
        if self.start.kept and self.loops > self.first_loop:
            return self.moved("load", self.types[kept], self.place(kept, index))
        operands = self.read("f", self.start.modes, body.inputs, self.value(index)[0])
        made = self.inlined(body, operands)
        if self.start.kept:
            self.lines.append(self.moved("store", self.types[kept], self.place(kept, index), made))
        return made

    # --- expressions

    def value(self, e: ast.expr) -> tuple[str, bool]:
        """(text, whether it is a vector)"""
        if isinstance(e, ast.Constant):
            return repr(e.value), False
        if isinstance(e, ast.Name):
            if e.id in self.given:
                return repr(self.given[e.id]), False
            if e.id in self.template.numbers:
                return f"{e.id}_all", True
            return ("float_inf" if e.id == "inf" else e.id), e.id in self.vectors
        if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
            text, is_vector = self.value(e.operand)
            return (f"neg({text})", True) if is_vector else (f"-{text}", False)
        if isinstance(e, ast.BinOp) and type(e.op) in _OPERATORS:
            return self.arithmetic(e)
        if isinstance(e, ast.Call) and isinstance(e.func, ast.Name):
            return self.call(e.func.id, e.args)
        raise self.unknown(e)

    def arithmetic(self, e: ast.BinOp) -> tuple[str, bool]:
        """Of vectors, or the sum of two integers."""
        f, adds = e.right, isinstance(e.op, ast.Add)
        if adds and isinstance(f, ast.Call) and isinstance(f.func, ast.Name) and f.func.id in _TRACED:
            # one body, of which a last product is fused with the sum
            inputs = [self.vector(self.value(x)) for x in (*f.args, e.left)]
            return self.inlined(_traced(f.func.id, self.dtype, len(f.args), True), inputs), True
        left, right = self.value(e.left), self.value(e.right)
        if left[1] or right[1]:
            return f"{_OPERATORS[type(e.op)]}({self.vector(left)}, {self.vector(right)})", True
        if adds and isinstance(f, ast.Name) and f.id in self.template.integers:
            return f"({left[0]} + {right[0]})", False  # a place
        raise self.unknown(e)

    def call(self, name: str, args: Sequence[ast.expr]) -> tuple[str, bool]:
        if name == "load" and isinstance(args[0], ast.Name):
            tensor = args[0].id
            if self.start.body is not None and tensor == self.template.tensors[0]:
                return self.started(args[1]), True
            return self.moved("load", self.types[tensor], self.place(tensor, args[1])), True
        if name == "splat":
            text, is_vector = self.value(args[0])
            known = not is_vector and re.fullmatch(r"-?(float_inf|[0-9.e+-]+)", text)
            return (self.number(text), True) if known else (f"spread_{self.dtype}({text})", True)
        if name == "count_of":  # an integer in all lanes
            return f"const_{self.dtype}({self.value(args[0])[0]})", True
        if name in _ACROSS:
            return f"{name}_{self.dtype}({self.value(args[0])[0]})", False
        if name in _LANE_BY_LANE:
            printed = _LANE_BY_LANE[name].printed
            return f"{printed}({', '.join(self.vector(self.value(a)) for a in args)})", True
        if name in _TRACED:
            inputs = [self.vector(self.value(a)) for a in args]
            return self.inlined(_traced(name, self.dtype, len(args)), inputs), True
        raise TypeError(f"{self.template.name}: a kernel has no word {name!r}")

    def vector(self, value: tuple[str, bool]) -> str:
        text, is_vector = value
        return text if is_vector else self.number(text)

    def number(self, text: str) -> str:
        """A number in all lanes, made once before the rows."""
        if not text.endswith("float_inf"):
            text = literal(float(text).hex(), self.dtype)
        return self.numbers.setdefault(f"const_{self.dtype}({text})", f"c{len(self.numbers)}")

    def place(self, tensor: str, index: ast.expr) -> str:
        return f"{tensor}_row + {self.value(index)[0]} * {SIZE[self.types[tensor]]}"

    def moved(self, what: str, dtype: str, address: str, value: str = "") -> str:
        rest = f", {self.rest}" if self.rest else ""
        return f"{what}{'m' if self.rest else ''}_{dtype}({address}{', ' + value if value else ''}{rest})"

    def inlined(self, body: Body, inputs: Sequence[str]) -> str:
        """A traced body as lines, its names made new; the text of its result."""
        self.count += 1
        names = {}
        for k, text in enumerate(inputs):
            if not re.fullmatch(r"\w+", text):
                self.lines.append(f"v{self.count}_{k} = {text}")
                text = f"v{self.count}_{k}"
            names[f"x{k}"] = text
        lines, results = body.inlined(names, self.numbers, "c", f"_{self.count}")
        self.lines += lines
        return results[0]

    def unknown(self, node: ast.AST) -> TypeError:
        return TypeError(f"{self.template.name}: a kernel cannot say {ast.unparse(node)!r}")
