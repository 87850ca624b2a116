"""Kernels as functions: the text of a kernel is the source of a Python function with its constants folded.

    @kernel
    def scaled(x: Ptr, y: Ptr, n, rows, per_chunk, *, T):
        for row in share(rows, per_chunk):
            p = x + row * n * SIZE[T]
            for i in range(0, n, VL):
                storem[T](...)

Positional parameters are the kernel's arguments, in order; `Ptr` marks addresses, the default `Table(n)` a
table of int64s name0, name1 ... that `ld(name, i)` reads, all others are int64s; the default `Each("items")`
arguments name[i] for each item of a constant.
Keyword-only parameters are its constants (Triton's `constexpr`): `scaled(T="f32")` is a kernel, named
scaled_f32, for which they are folded, `if`s and conditional expressions over them decided, and what is left
printed, with those arguments that it still reads. What is printed:

    word[T](...)                 the word `word_<T>` of `ovjit.codegen.cpu.vector`, T an element type
    min(i, j) max(i, j)          of int64s
    for i in range(...)          a loop at run time; over `static_range(...)` or a constant, it is unrolled;
                                 there `break` may end an `if` at the loop's end: the rest is its `else`
    for i in share(n, per_chunk) what the chunk has of n items, per_chunk at a time
    p, q = placed(row, x, y)     the addresses of a row of tensors x and y: see DIMS
    w = registers()              w[1], w[1, 2] are variables from now on: constant indices only
    y = applied(body, a, *w)     what an elementwise body, a constant of the kernel, makes of vectors, here of
                                 a, w[1] and so on; where y are registers, its results are y[0], y[1] ...
    f(a, *(w[i] for i in tuple)) as many arguments as the constant `tuple` has items
    f(...)                       of `@inline def f(...)` the statements, or the expression that it returns;
                                 arguments may be `registers()`, which it reads and assigns to;
                                 `spaced` stores lanes that are apart

Whatever can be worked out from constants and from names of the function's module is worked out. For a row of
adjacent elements at a time there is `ovjit.codegen.template`, whose nest and masks come by themselves.

`@kernel(over=..., x=..., y=...)` declares parameters as tensors with named axes (`ovjit.codegen.tensors`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

from ovjit.codegen import printed, texts
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.expressions import ATOM, NUMBERS, OPERATORS, RUN_TIME, Expressions, bound_names
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.memory import DIMS as DIMS
from ovjit.codegen.memory import SIZE
from ovjit.codegen.parts import Inline, Source, inline, is_text
from ovjit.codegen.source import parameters
from ovjit.codegen.tensors import Signature, Tensor, say_items
from ovjit.codegen.words import (
    Each,
    Ptr,
    Table,
    applied,
    items,
    placed,
    registers,
    scatter,
    share,
    static_range,
    storem,
)
from ovjit.forks import made_once


@inline
def spaced(address, step, v, count, T):
    """Store the first lanes of v, `step` bytes from one to the next."""
    if step == SIZE[T]:
        storem[T](address, v, count)
    else:
        scatter[T](address, step, v, count)


class FunctionKernel:
    """A kernel's function; `kernel` makes kernels of it."""

    def __init__(self, function: Callable[..., Any], over: str = "", **declared: Any):
        self.function = function
        known = parameters(function)
        self.arguments = [p for p in known if not p.keyword_only]
        self.constants = tuple(p.name for p in known if p.keyword_only)
        #: What is declared of its tensors; None for a kernel that states its arguments one by one.
        self.signature: Signature | None = None
        if declared:
            names = [p.name for p in self.arguments]
            self.signature = Signature(function.__name__, over, declared, names)
        self._made: dict[tuple[Any, ...], Kernel] = {}

    @made_once
    def source(self) -> Source:
        return Source(self.function)

    def frame(self, constants: Mapping[str, Any]) -> KernelArgs:
        """The kernel's arguments."""
        frame = KernelArgs()
        tables = []
        for p in self.arguments:
            # annotations are texts where the module says so
            is_pointer = p.annotation in ("Ptr", Ptr, "Tensor", Tensor)
            if self.signature is not None and p.name in self.signature.structures:
                frame.fields += self.signature.structures[p.name].values()
            elif isinstance(p.default, Table):
                tables.append(p)
            elif isinstance(p.default, Each):
                frame.fields += p.default.fields(p.name, constants)
            else:
                frame.fields.append((p.name, is_pointer))
        if self.signature is not None:
            frame.integers(*self.signature.fields())
        for d in range(self.source.dims):
            frame.integers(f"d{d}", *(f"{name}_{d}" for name in self.source.placed))
        for p in tables:
            frame.table(p.name, p.default)
        return frame

    def __call__(self, **constants: Any) -> Kernel:
        """The kernel for these constants, made once, under the function's name and theirs."""
        key = tuple(constants.items())
        made = self._made.get(key)
        if made is None:
            made = self._made.setdefault(key, self.kernel(self._name(constants), **constants))
        return made

    def _name(self, constants: Mapping[str, Any]) -> str:
        """Constants as they are, True as what is true; None, False and "" are not in the name."""
        words = [self.function.__name__]
        for name in self.constants:
            value = constants.get(name)
            if value is not None and value is not False and value != "":
                words.append(name if value is True else str(value))
        return "_".join(words)

    def kernel(
        self,
        name: str,
        intrinsics: Callable[[Target], Mapping[str, Any]] | None = None,
        key: str = "",
        form: str = "f32",
        **constants: Any,
    ) -> Kernel:
        """The kernel for these constants; `form`: see `Kernel`. Arguments that it then does not read are not
        in its frame. TypeError for a constant that is missing or unknown."""
        if set(constants) != set(self.constants):
            raise TypeError(f"{self.function.__name__} has the constants {', '.join(self.constants)}")
        place = printed.place(self.function, constants)
        title = self.function.__qualname__
        text, fields, tables = texts.kept(place, title, lambda: self._print(constants))
        return Kernel(name, text, KernelArgs(fields, tables), intrinsics, key, form, self.signature)

    def _print(self, constants: Mapping[str, Any]) -> texts.Printed:
        frame = self.frame(constants)
        arguments = [p.name for p in self.arguments] + [name for name, _ in frame.fields]
        printer = _Printer(self.function, self.source, constants, arguments, self.signature)
        printer.block(self.source.body)
        read = set(re.findall(r"[A-Za-z_]\w*", "\n".join(printer.lines)))
        unread = {p.name for p in self.arguments if p.name not in read}
        unread |= {f"{name}_{d}" for name in unread for d in range(self.source.dims)}
        if self.signature is not None:
            self.signature.check(self.function.__name__, self.source.stored)
            derived = {*self.signature.fields()}
            derived |= {name for fields in self.signature.structures.values() for name, _ in fields.values()}
            unread |= derived - read
        frame.fields = [field for field in frame.fields if field[0] not in unread]
        head = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
        numbers = [f"    {number} = {value}" for value, number in printer.numbers.items()]
        text = "\n".join([*head, *numbers, *printer.lines, "    return 0", ""])
        return text, frame.fields, frame.tables


@overload
def kernel(function: Callable[..., Any], /) -> FunctionKernel: ...


@overload
def kernel(*, over: str = "", **declared: Any) -> Callable[[Callable[..., Any]], FunctionKernel]: ...


def kernel(function: Callable[..., Any] | None = None, /, *, over: str = "", **declared: Any) -> Any:
    """Decorator: the function is a kernel's source. `declared`: its tensors and structures; `over`: the axes
    that its items count through (`ovjit.codegen.tensors`)."""
    if function is not None:
        return FunctionKernel(function)
    return lambda function: FunctionKernel(function, over, **declared)


def printed_routine(function: Callable[..., Any], name: str) -> str:
    """The definition of a function under a name, with its parameters as arguments."""
    given = [p.name for p in parameters(function)]
    source = Source(function)
    printer = _Printer(function, source, {}, given)
    printer.block(source.body)
    head = ["@njit(nogil=True)", f"def {name}({', '.join(given)}):"]
    return "\n".join([*head, *printer.lines, ""])


class _Printer(Expressions):
    """Prints statements as lines."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.several: set[str] = set()  # variables that are `registers()`
        self.lines: list[str] = []
        self.indent = "    "
        self.numbers: dict[str, str] = {}  # what bodies have as constants -> the name of it
        self.bodies = [0]  # counted, also in inline functions

    # --- statements

    def say(self, line: str) -> None:
        self.lines.append(self.indent + line)

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for s in statements:
            method = getattr(self, f"say_{type(s).__name__}", None)
            if method is None:
                raise self.unknown(s)
            method(s)

    def inner(self, statements: Sequence[ast.stmt]) -> None:
        """A block one step further in."""
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
        if part is not None:
            self.put(part, s.value)  # type: ignore[arg-type]
        elif not is_text(s):
            self.say(self.text(s.value))

    def say_Assign(self, s: ast.Assign) -> None:
        (target,) = s.targets
        if self.called(s.value) is registers:
            self.several.update(t.id for t in getattr(target, "elts", [target]))
            return
        if self.called(s.value) is placed:
            self.say_placed(target, s.value)  # type: ignore[arg-type]
            return
        part = self.part(s.value)
        if part is not None:
            value = self.put(part, s.value)[0]  # type: ignore[arg-type]
        elif self.called(s.value) is applied:
            several = isinstance(target, ast.Name) and target.id in self.several
            made = self.say_body(s.value, self.text(target), several)  # type: ignore[arg-type]
            for name, value in made:
                self.say(f"{name} = {value}")
            return
        else:
            known = self.constant(s.value)
            if known is not RUN_TIME and type(known) not in NUMBERS:
                if not isinstance(target, ast.Name):
                    raise self.unknown(s)
                self.known[target.id] = known
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
        if any(map(_continues, s.body)):  # what steps on stands at the end of the printed loop, or is copied
            raise self.unknown(s, "a `continue` would pass over the step: put what follows it under an `if`")
        while isinstance(s.iter, ast.IfExp):
            test = self.test(s.iter.test)
            if not isinstance(test, bool):
                raise self.unknown(s.iter)
            s = ast.For(s.target, s.iter.body if test else s.iter.orelse, s.body, [])
        over, arguments = self.called(s.iter), getattr(s.iter, "args", [])
        if over is items:
            say_items(self, s, arguments)
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
            raise self.unknown(s.iter)
        self.repeated(s, values)

    def say_share(self, i: str, count: str, per_chunk: str) -> str:
        """The chunk's first item and the one behind its last: the name of that one."""
        self.say(f"{i} = chunk * {per_chunk}")
        self.say(f"stop_{i} = imin({i} + {per_chunk}, {count})")
        return f"stop_{i}"

    def repeated(self, s: ast.For, values: Iterable[Any]) -> None:
        """`for` over constants. Where an `if` with `break` is last, what follows is its `else`."""
        body, last, outer = s.body, s.body[-1], self.indent
        leaves = isinstance(last, ast.If) and isinstance(last.body[-1], ast.Break)
        names: dict[str, Any] = {}
        for value in values:
            names |= dict(bound_names(s.target, value))
            self.known |= names
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
            self.known.pop(name, None)

    def say_placed(self, target: ast.expr, call: ast.Call) -> None:
        """`p, q = placed(row, x, y)`: the row's place along DIMS dimensions, its address in each tensor."""
        self.say_place(self.text(call.args[0]), "a", DIMS)
        self.say_addresses(target, call.args[1:], "a", DIMS)

    def say_place(self, item: str, name: str, dims: int) -> None:
        """Where an item is along each dimension: `name`0, `name`1 ..."""
        self.say(f"{name}0 = {item}")
        for d in reversed(range(1, dims)):
            self.say(f"{name}{d} = urem({name}0, d{d})")
            self.say(f"{name}0 = udiv({name}0, d{d})")

    def say_addresses(self, target: ast.expr, tensors: Sequence[ast.expr], place: str, dims: int) -> None:
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        for one, tensor in zip(targets, tensors, strict=True):
            name = self.text(tensor)
            places = "".join(f" + {place}{d} * {name}_{d}" for d in range(dims))
            self.say(f"{self.text(one)} = {name}{places}")

    def say_body(self, call: ast.Call, target: str, several: bool) -> list[tuple[str, str]]:
        """The lines of a traced body, their names made new. (variable, value) of results that are none of its
        lines: inputs, constants, what another result is as well."""
        body = self.constant(call.args[0])
        self.bodies[0] += 1
        own = f"_{self.bodies[0]}"
        given: list[str] = []
        for argument in call.args[1:]:
            if isinstance(argument, ast.Starred):
                given += [f"{self.text(argument.value)}{i}" for i in range(len(given), len(body.inputs))]
            else:
                given.append(self.text(argument))
        names = {}
        for i, text in enumerate(given):
            names[f"x{i}"] = text
            if not text.isidentifier():
                names[f"x{i}"] = f"x{i}{own}"
                self.say(f"x{i}{own} = {text}")
        targets = [f"{target}{i}" if several else target for i in range(len(body.results))]
        lines, results = body.inlined(names, self.numbers, "number", own, targets)
        for line in lines:
            self.say(line)
        return [pair for pair in zip(targets, results, strict=True) if pair[0] != pair[1]]

    # --- parts

    def put(self, part: Inline, call: ast.Call) -> tuple[str, int]:
        """Print the statements of an inline function; what it gives."""
        source = part.source
        inner = _Printer(part.function, source, {}, part.parameters, self.signature)
        for name, argument in zip(part.parameters, call.args, strict=True):
            value = self.constant(argument)
            if value is RUN_TIME:
                inner.renamed[name] = self.expression(argument)
            else:
                inner.known[name] = value
            if isinstance(argument, ast.Name) and argument.id in self.several:
                inner.several.add(name)
        inner.renamed |= {n: (f"{part.function.__name__}_{n}", ATOM) for n in source.stored}
        inner.lines, inner.indent = self.lines, self.indent
        inner.numbers, inner.bodies = self.numbers, self.bodies
        body, last = source.body, source.body[-1]
        if isinstance(last, ast.Return) and last.value is not None:
            inner.block(body[:-1])
            return inner.expression(last.value)
        inner.block(body)
        return "", ATOM


def _continues(statement: ast.stmt) -> bool:
    """Whether a `continue` in it goes on with the loop around it."""
    if isinstance(statement, (ast.For, ast.While)):
        return any(map(_continues, statement.orelse))
    return isinstance(statement, ast.Continue) or any(
        _continues(child) for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)
    )
