"""The printer of kernels: from a function's syntax tree (`ovjit.codegen.function`) to its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit.codegen.expressions import ATOM, NUMBERS, OPERATORS, RUN_TIME, bound_names, elements
from ovjit.codegen.item_loops import ItemLoops
from ovjit.codegen.memory import DIMS
from ovjit.codegen.parts import Inline, Routine, Source, is_text
from ovjit.codegen.source import parameters
from ovjit.codegen.words import applied, items, placed, registers, share, static_range

if TYPE_CHECKING:
    from ovjit.codegen.kernel import KernelArgs
    from ovjit.codegen.source import Parameter
    from ovjit.codegen.tensors import Signature
    from ovjit.codegen.texts import Printed


def print_kernel(
    function: Callable[..., Any],
    source: Source,
    arguments: Sequence[Parameter],
    signature: Signature | None,
    frame: KernelArgs,
    constants: Mapping[str, Any],
    words_only: bool = False,
) -> Printed:
    """The text of a kernel for these constants, the arguments that it reads, and their tables. `frame`: all
    arguments; those that the text does not read are taken out of it. `words_only`: the kernel has no
    intrinsics of its own. Raises KernelSourceError for what is not part of the language."""
    names = [p.name for p in arguments] + [name for name, _ in frame.fields]
    printer = Printer(function, source, constants, names, signature)
    printer.words_only = words_only
    printer.block(source.body)
    read = set(re.findall(r"[A-Za-z_]\w*", "\n".join(printer.lines)))
    unread = {p.name for p in arguments if p.name not in read}
    unread |= {f"{name}_{d}" for name in unread for d in range(source.dims)}
    if signature is not None:
        signature.check(function.__name__, source.stored)
        derived = {*signature.fields()}
        derived |= {name for fields in signature.structures.values() for name, _ in fields.values()}
        unread |= derived - read
    frame.fields = [field for field in frame.fields if field[0] not in unread]
    head = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    numbers = [f"    {number} = {value}" for value, number in printer.numbers.items()]
    text = "\n".join([*head, *numbers, *printer.lines, "    return 0", ""])
    return text, frame.fields, frame.tables


#: Arguments of a routine whose parameters lie in a block: its address, and those that all routines have.
_BLOCK = ["block", "unused", "unused2", "unused3"]


def printed_routine(routine: Routine, name: str) -> str:
    """The definition of a routine under a name, with its parameters as arguments, or read from its block."""
    arguments = [p.name for p in parameters(routine.function)]
    source = Source(routine.function)
    printer = Printer(routine.function, source, {}, arguments)
    printer.block(source.body)
    loads: list[str] = []
    if routine.in_block:
        read = frozenset().union(*(source.names[s] for s in source.body))
        loads = [f"    {one} = ld(block, {i})" for i, one in enumerate(arguments) if one in read]
        arguments = _BLOCK
    head = ["@njit(nogil=True)", f"def {name}({', '.join(arguments)}):"]
    return "\n".join([*head, *loads, *printer.lines, ""])


class Printer(ItemLoops):
    """Prints statements as lines."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.several: set[str] = set()  # variables that are `registers()`
        self.numbers: dict[str, str] = {}  # constant of a body -> its variable
        self.bodies = [0]  # counted, also in inline functions
        #: Of an inline function that yields: the printer of the loop over it, and the loop.
        self.loop: tuple[Printer, ast.For] | None = None

    # --- statements

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for s in statements:
            method = getattr(self, f"say_{type(s).__name__}", None)
            if method is None:
                raise self.make_error(s)
            method(s)

    def inner(self, statements: Sequence[ast.stmt]) -> None:
        """Print a block with one more level of indentation."""
        outer, self.indent = self.indent, self.indent + "    "
        before = len(self.lines)
        self.block(statements)
        if len(self.lines) == before:
            self.say("pass")
        self.indent = outer

    def say_Pass(self, s: ast.Pass) -> None:
        pass

    def say_Break(self, s: ast.Break) -> None:
        self.say("break")

    def say_Continue(self, s: ast.Continue) -> None:
        self.say("continue")

    def say_Return(self, s: ast.Return) -> None:
        self.say(f"return {self.text(s.value)}" if s.value is not None else "return 0")

    def say_Expr(self, s: ast.Expr) -> None:
        part = self.part(s.value)
        if isinstance(s.value, ast.Yield):
            self.say_loop_body(s.value)
        elif part is not None:
            self.print_inline(part, s.value)  # type: ignore[arg-type]
        elif not is_text(s):
            self.say(self.text(s.value))

    def say_Assign(self, s: ast.Assign) -> None:
        (target,) = s.targets
        if self.callee(s.value) is registers:
            self.several.update(t.id for t in elements(target))  # type: ignore[attr-defined]
            return
        if self.callee(s.value) is placed:
            self.say_placed(target, s.value)  # type: ignore[arg-type]
            return
        part = self.part(s.value)
        if part is not None:
            value = self.print_inline(part, s.value)[0]  # type: ignore[arg-type]
        elif self.callee(s.value) is applied:
            several = isinstance(target, ast.Name) and target.id in self.several
            pairs = self.say_body(s.value, self.text(target), several)  # type: ignore[arg-type]
            for name, value in pairs:
                self.say(f"{name} = {value}")
            return
        else:
            constant = self.constant(s.value)
            if constant is not RUN_TIME and type(constant) not in NUMBERS:
                if not isinstance(target, ast.Name):
                    raise self.make_error(s)
                self.constants[target.id] = constant
                return
            value = self.text(s.value)
        self.say(f"{self.text(target)} = {value}")

    def say_AugAssign(self, s: ast.AugAssign) -> None:
        self.say(f"{self.text(s.target)} {OPERATORS[type(s.op)][0]}= {self.text(s.value)}")

    def say_If(self, s: ast.If, word: str = "if") -> None:
        test = self.test(s.test)
        if isinstance(test, bool):
            chosen = s.body if test else s.orelse
            if word == "if":
                self.block(chosen)
            elif chosen:
                self.say("else:")
                self.inner(chosen)
            return
        self.say(f"{word} {test[0]}:")
        self.inner(s.body)
        if len(s.orelse) == 1 and isinstance(s.orelse[0], ast.If):
            self.say_If(s.orelse[0], "elif")
        elif s.orelse:
            before = len(self.lines)
            self.say("else:")
            self.inner(s.orelse)
            if self.lines[before + 1 :] == [self.indent + "    pass"]:
                del self.lines[before:]

    def say_While(self, s: ast.While) -> None:
        test = self.test(s.test)
        if test is False:
            return
        self.say(f"while {'True' if test is True else test[0]}:")
        self.inner(s.body)

    def say_For(self, s: ast.For) -> None:
        if any(map(_continues, s.body)):  # the increment is at the end of the printed loop
            raise self.make_error(
                s, "a `continue` would skip the loop's step: put the statements after it under an `if`"
            )
        while isinstance(s.iter, ast.IfExp):
            test = self.test(s.iter.test)
            if not isinstance(test, bool):
                raise self.make_error(s.iter)
            s = ast.For(s.target, s.iter.body if test else s.iter.orelse, s.body, [])
        over, arguments = self.callee(s.iter), getattr(s.iter, "args", [])
        if over is items:
            self.say_items(s, arguments)
            return
        if isinstance(over, Inline):
            self.say_generator(over, s)
            return
        if over is share or over is range:
            assert isinstance(s.target, ast.Name)
            i = self.text(s.target)
            if over is share:
                stop, step = self.say_share(i, *(self.bound(a, 10) for a in arguments)), "1"
            else:
                start = self.text(arguments[0]) if len(arguments) > 1 else "0"
                stop = self.text(arguments[min(1, len(arguments) - 1)])
                step = self.text(arguments[2]) if len(arguments) > 2 else "1"
                self.say(f"{i} = {start}")
            self.say(f"while {i} < {stop}:")
            self.inner(s.body)
            self.say(f"    {i} += {step}")
            if self.lines[-2].endswith(" pass"):
                del self.lines[-2]
            return
        if over is static_range:
            values: Any = range(*(self.constant(a) for a in arguments))
        else:
            values = self.constant(s.iter)
        if values is RUN_TIME:
            raise self.make_error(s.iter)
        self.unroll(s, values)

    def say_generator(self, part: Inline, loop: ast.For) -> None:
        """Print `for x, y in f(...)` where f is an inline function that yields once."""
        inner = self.printer_of(part, loop.iter)  # type: ignore[arg-type]
        inner.loop = self, loop
        yielded = [node for node in part.source.names if isinstance(node, ast.Yield)]
        if not yielded:
            raise self.make_error(loop.iter, "it does not yield")
        for target, value in zip(elements(loop.target), elements(yielded[0].value), strict=True):
            if isinstance(value, ast.Name) and value.id in part.source.stored:
                inner.renamed[value.id] = self.text(target), ATOM
        inner.block(part.source.body)

    def say_loop_body(self, yielded: ast.Yield) -> None:
        """Print the body of the loop over this function, where it yields."""
        if self.loop is None:
            raise self.make_error(yielded, "a function that yields is called by a `for`")
        outer, loop = self.loop
        for target, value in zip(elements(loop.target), elements(yielded.value), strict=True):
            name, text = outer.text(target), self.text(value)
            if name != text:
                self.say(f"{name} = {text}")
        indent, outer.indent = outer.indent, self.indent
        outer.block(loop.body)
        outer.indent = indent

    def unroll(self, s: ast.For, values: Iterable[Any]) -> None:
        """Print an unrolled `for` over constants. If the body ends with an `if` that breaks, the following
        iterations are printed into its `else`."""
        body, last, outer = s.body, s.body[-1], self.indent
        leaves = isinstance(last, ast.If) and isinstance(last.body[-1], ast.Break)
        names: dict[str, Any] = {}
        for value in values:
            names |= dict(bound_names(s.target, value))
            self.constants |= names
            if not leaves:
                self.block(body)
                continue
            assert isinstance(last, ast.If)
            self.block(body[:-1])
            test = self.test(last.test)
            if test is True:
                self.block(last.body[:-1])
                break
            if test is not False:
                self.say(f"if {test[0]}:")
                self.inner(last.body[:-1])
                self.say("else:")
                self.indent += "    "
        if self.lines and self.lines[-1].endswith("else:"):
            self.say("pass")
        self.indent = outer
        for name in names:
            self.constants.pop(name, None)

    def say_placed(self, target: ast.expr, call: ast.Call) -> None:
        """Print `p, q = placed(row, x, y)`: the row's index along DIMS dimensions, and its addresses."""
        self.say_place(self.text(call.args[0]), "a", DIMS)
        self.say_addresses(target, call.args[1:], "a", DIMS)

    def say_addresses(self, target: ast.expr, tensors: Sequence[ast.expr], index: str, dims: int) -> None:
        for one, tensor in zip(elements(target), tensors, strict=True):
            name = self.text(tensor)
            offsets = "".join(f" + {index}{d} * {name}_{d}" for d in range(dims))
            self.say(f"{self.text(one)} = {name}{offsets}")

    def say_body(self, call: ast.Call, target: str, several: bool) -> list[tuple[str, str]]:
        """Print the lines of a traced body, with new names. Returns (variable, value) for results without a
        line of their own: inputs, constants, and values that are also another result."""
        body = self.constant(call.args[0])
        self.bodies[0] += 1
        suffix = f"_{self.bodies[0]}"
        texts: list[str] = []
        for argument in call.args[1:]:
            if isinstance(argument, ast.Starred):
                texts += [f"{self.text(argument.value)}{i}" for i in range(len(texts), len(body.inputs))]
            else:
                texts.append(self.text(argument))
        names = {}
        for i, text in enumerate(texts):
            names[f"x{i}"] = text
            if not text.isidentifier():
                names[f"x{i}"] = f"x{i}{suffix}"
                self.say(f"x{i}{suffix} = {text}")
        targets = [f"{target}{i}" if several else target for i in range(len(body.results))]
        lines, results = body.inline(names, self.numbers, "number", suffix, targets)
        for line in lines:
            self.say(line)
        return [pair for pair in zip(targets, results, strict=True) if pair[0] != pair[1]]

    # --- parts

    def bind_arguments(self, part: Inline, call: ast.Call) -> dict[str, ast.expr]:
        """Parameter of an inline function -> its argument. Inherited ones that the call leaves out are the
        names of this function."""
        arguments = dict(zip(part.parameters, call.args, strict=True))
        named = {k.arg: k.value for k in call.keywords}
        for name in part.inherited:
            if name not in named and name not in self.constants and name not in self.variables:
                raise self.make_error(call, f"it needs {name!r}, which {self.name} does not have")
            arguments[name] = named.pop(name) if name in named else self.source.name(name)
        if named:
            raise self.make_error(call, f"{', '.join(map(str, named))} is not a parameter")
        return arguments

    def printer_of(self, part: Inline, call: ast.Call) -> Printer:
        """The printer of an inline function's statements, for a call's arguments."""
        source = part.source
        arguments = self.bind_arguments(part, call)
        inner = Printer(part.function, source, {}, arguments, self.signature)
        inner.words_only = self.words_only
        for name, argument in arguments.items():
            value = self.constant(argument)
            if value is RUN_TIME:
                inner.renamed[name] = self.expression(argument)
            else:
                inner.constants[name] = value
            if isinstance(argument, ast.Name) and argument.id in self.several:
                inner.several.add(name)
        inner.renamed |= {n: (f"{part.function.__name__}_{n}", ATOM) for n in source.stored}
        inner.lines, inner.indent = self.lines, self.indent
        inner.numbers, inner.bodies = self.numbers, self.bodies
        return inner

    def print_inline(self, part: Inline, call: ast.Call) -> tuple[str, int]:
        """Print the statements of an inline function. Returns its result's source and precedence."""
        inner = self.printer_of(part, call)
        body, last = part.source.body, part.source.body[-1]
        if isinstance(last, ast.Return) and last.value is not None:
            inner.block(body[:-1])
            return inner.expression(last.value)
        inner.block(body)
        return "", ATOM


def _continues(statement: ast.stmt) -> bool:
    """Whether the statement has a `continue` of the loop around it."""
    if isinstance(statement, (ast.For, ast.While)):
        return any(map(_continues, statement.orelse))
    return isinstance(statement, ast.Continue) or any(
        _continues(child) for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)
    )
