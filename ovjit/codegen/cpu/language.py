"""The compiler of the kernel language: from a function's blocks to LLVM, with types and code in one pass.

Printed kernels use a subset of Python: int64s, numbers, vectors and intrinsics, `while`, `for` over `range`
and `if`; no objects, no exceptions, no reference counts. Numba's general type inference and lowering take
four times as long. `lower` visits the blocks once. Definitions precede uses in this order, so all types are
known when they are needed.

Variables of a single block are LLVM values. So are those with one definition that dominates all uses. Others
are stack slots, which LLVM's SROA promotes to registers.

Code that is not in the language raises `Outside`, and Numba's ordinary pipeline compiles it.
"""

from __future__ import annotations

import ast
import builtins
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import reading, types
from ovjit.codegen.cpu.printing import Builder
from ovjit.codegen.cpu.reading import Block, Function
from ovjit.codegen.cpu.scalars import F64, I1, I64, binary, cast, fits_int64, unary
from ovjit.codegen.cpu.types import Intrinsic, Outside
from ovjit.codegen.cpu.vector import OPERATORS, Vec, namespace
from ovjit.records import NamedTuple

_CASTS = {bool: types.boolean, int: types.int64, float: types.float64}

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.USub: operator.neg,
    ast.UAdd: operator.pos, ast.Invert: operator.invert, ast.Not: operator.not_,
}  # fmt: skip


class _Range(NamedTuple):
    """`range(start, stop, step)`. `start` is the stack slot of the next number."""

    start: ir.Value
    stop: ir.Value
    step: ir.Value


class _Again(Exception):
    """`name` was found to have two types: the pass starts again."""

    def __init__(self, name: str, widen: bool):
        self.name = name
        self.widen = widen


def lower(
    source: Function, function: ir.Function, words: Callable[[int], Mapping[str, Intrinsic]] = namespace
) -> None:
    """Emit the body of `function`, a C function of int64s that returns an int64. Raises Outside. `words`: the
    intrinsics for a number of lanes, which operators on vectors are."""
    widened: set[str] = set()  # variables of several integer types: int64
    varying: set[str] = set()  # variables of incompatible types: a slot for each type
    while True:
        try:
            _Walk(source, function, words, widened, varying).run()
            return
        except _Again as again:
            function.blocks.clear()
            (widened if again.widen else varying).add(again.name)


class _Walk:
    def __init__(
        self,
        source: Function,
        function: ir.Function,
        words: Callable[[int], Mapping[str, Intrinsic]],
        widened: set[str],
        varying: set[str],
    ):
        self.source, self.words = source, words
        self.blocks = source.blocks
        self.widened, self.varying = widened, varying
        self.order = _order(self.blocks)
        shared = _shared(self.blocks, self.order)
        self.settled = _find_settled(self.blocks, self.order, shared) - varying
        self.shared = shared - self.settled
        self.function = function
        self.entry = self.function.append_basic_block("entry")
        self.basic_blocks = {at: self.function.append_basic_block(f"B{at}") for at in sorted(self.order)}
        self.b = Builder(self.entry)
        self.b.before = self.basic_blocks
        self.changed = _find_changes(source, self.order)
        self.unchanged: dict[tuple[str, Any, int], ir.Value] = {}  # loads hoisted out of a loop
        self.types: dict[str, Any] = {}
        self.slots: dict[tuple[str, Any], ir.Value] = {}
        self.values: dict[str, ir.Value] = {}  # of this block
        self.dominating: dict[str, ir.Value] = {}  # of variables with one dominating definition
        self.objects: dict[str, Any] = {}  # variables that are functions
        self.ranges: dict[int, _Range] = {}
        self.items: dict[int, ir.Value] = {}
        self.signatures: dict[tuple, Any] = {}
        self.arriving: dict[int, dict[str, Any]] = {self.order[0]: {}}
        self.done: set[int] = set()

    def run(self) -> None:
        for at in self.order:
            self.b.position_at_end(self.basic_blocks[at])
            self.b.nest = self.source.nests[at]
            self.values = {}
            for name in self.varying:
                self.types.pop(name, None)
            self.types.update(self.arriving[at])
            self.done.add(at)
            block = self.blocks[at]
            for step in block.body:
                if isinstance(step, reading.Begin):
                    self.ranges[step.loop] = self.range([self.operand(x) for x in step.arguments])
                else:
                    self.assign(step.target, self.expression(step.value))
            self.emit_terminator(block.last)
        self.b.position_at_end(self.entry)
        self.b.branch(self.basic_blocks[self.order[0]])

    # --- statements

    def emit_terminator(self, last: Any) -> None:
        """End the basic block: by a jump, a branch, the next item of a loop, or a return."""
        if isinstance(last, reading.Jump):
            self.arrive(last.target)
            self.b.branch(self.basic_blocks[last.target])
        elif isinstance(last, reading.Branch):
            self.branch(self.truth(last.test), last.then, last.other)
        elif isinstance(last, reading.Next):
            self.items[last.loop], valid = self.next(self.ranges[last.loop])
            self.branch(valid, last.body, last.end)
        elif last.value is None:
            raise Outside("a function that can end without returning a number")
        else:
            kind, value = self.operand(last.value)
            self.b.ret(cast(self.b, value, kind, types.int64))

    def branch(self, condition: ir.Value, then: int, other: int) -> None:
        self.arrive(then)
        self.arrive(other)
        self.b.cbranch(condition, self.basic_blocks[then], self.basic_blocks[other])

    def assign(self, name: str | None, result: Any) -> None:
        """Make `result` the value of a variable. Raises _Again if its type changes."""
        if name is None:
            return
        if not isinstance(result, tuple):
            if self.objects.setdefault(name, result) is not result:
                raise Outside(f"{name} has two values that are not numbers")
            return
        kind, value = result
        if kind is types.void:
            return
        if name in self.widened:
            kind, value = types.int64, cast(self.b, value, kind, types.int64)
        current = self.types.get(name, kind)
        if current != kind and name not in self.varying:
            raise _Again(name, fits_int64(current) and fits_int64(kind))
        self.types[name] = kind
        self.values[name] = value
        if name in self.settled:
            self.dominating[name] = value
        elif name in self.shared:
            slot = self.slots.get((name, kind))
            if slot is None:
                slot = self.slots[name, kind] = self.allocate(value.type, name)
            self.b.store(value, slot)

    def arrive(self, at: int) -> None:
        """Record the types of `varying` variables on this edge to block `at`. Raises Outside if edges differ
        in a variable that is read there."""
        mine = {name: self.types.get(name) for name in self.varying}
        there = self.arriving.get(at)
        if there is None:
            self.arriving[at] = {name: kind for name, kind in mine.items() if kind is not None}
            return
        for name in [n for n, kind in there.items() if mine[n] not in (kind, None)]:
            if at in self.done and _is_read(self.blocks, at, name):
                raise Outside(f"{name} is {there[name]} on one path and {mine[name]} on another")
            del there[name]

    def allocate(self, kind: ir.Type, name: str) -> ir.Value:
        """A stack slot in the entry block: in a loop each iteration would allocate another."""
        here = self.b.block
        self.b.position_at_end(self.entry)
        slot = self.b.alloca(kind, name=name)
        self.b.position_at_end(here)
        return slot

    def read(self, name: str) -> tuple[Any, ir.Value]:
        """The type and value of a variable."""
        kind = self.types.get(name)
        if kind is None:
            raise Outside(f"{name} has no value, or more than one type")
        value = self.dominating.get(name) or self.values.get(name)
        if value is None:
            slot = self.slots.get((name, kind))
            if slot is None:
                raise Outside(f"{name} has no value")
            value = self.values[name] = self.load_slot(name, kind, slot)
        return kind, value

    def load_slot(self, name: str, kind: Any, slot: ir.Value) -> ir.Value:
        """The value of a variable's slot, loaded before the loops that do not assign it."""
        nest = self.b.nest
        inner = sum(name in self.changed[loop] for loop in nest)
        if inner == len(nest):
            return self.b.load(slot)
        key = (name, kind, nest[inner])
        value = self.unchanged.get(key)
        if value is None:
            to = slot.allocated_type
            value = self.b.outside(to, f"load {to}, {slot.type} {slot.get_reference()}", inner)
            self.unchanged[key] = value
        return value

    # --- expressions: (type, value), or a Python object

    def expression(self, x: Any) -> Any:
        lower = _EXPRESSIONS.get(type(x))
        if lower is None:
            raise Outside(type(x).__name__)
        try:
            return lower(self, x)
        except Outside as error:
            error.context = error.context or f"in `{ast.unparse(x)}` ({self.source.line + x.lineno - 1})"
            raise

    def operand(self, x: ast.expr) -> tuple[Any, ir.Value]:
        """A number or a vector."""
        result = self.expression(x)
        if not isinstance(result, tuple):
            raise Outside(f"{result} is not a number")
        return result

    def truth(self, x: ast.expr) -> ir.Value:
        kind, value = self.operand(x)
        return cast(self.b, value, kind, types.boolean)

    def constant(self, x: ast.Constant) -> Any:
        return _number(x.value)

    def name(self, x: ast.Name) -> Any:
        name = x.id
        if name in self.source.locals:
            return self.objects[name] if name in self.objects else self.read(name)
        if name not in self.source.globals and not hasattr(builtins, name):
            raise Outside(f"the name {name} is not defined")
        return _number(self.source.globals.get(name, getattr(builtins, name, None)))

    def item(self, x: reading.Item) -> Any:
        return types.int64, self.items[x.loop]

    def parameter(self, x: reading.Parameter) -> Any:
        return types.int64, self.function.args[x.number]

    def binary(self, x: ast.BinOp) -> Any:
        return self.apply(type(x.op), self.operand(x.left), self.operand(x.right))

    def compare(self, x: ast.Compare) -> Any:
        return self.apply(type(x.ops[0]), self.operand(x.left), self.operand(x.comparators[0]))

    def apply(self, kind: type, lhs: tuple[Any, ir.Value], rhs: tuple[Any, ir.Value]) -> Any:
        f = _OPERATORS.get(kind)
        if f is None:
            raise Outside(f"the operator {kind.__name__}")
        if isinstance(lhs[0], Vec) and isinstance(rhs[0], Vec):
            return self.word(f, [lhs, rhs])
        return binary(self.b, f, lhs, rhs)

    def unary(self, x: ast.UnaryOp) -> Any:
        literal = x.operand.value if isinstance(x.operand, ast.Constant) else None
        if isinstance(x.op, ast.USub) and isinstance(literal, (int, float)):
            return _number(-literal)  # folded, since the minimum of int64 has no positive counterpart
        f, operand = _OPERATORS[type(x.op)], self.operand(x.operand)
        return self.word(f, [operand]) if isinstance(operand[0], Vec) else unary(self.b, f, operand)

    def choice(self, x: ast.IfExp) -> Any:
        """`a if test else b`: only one of them is computed."""
        return self.one_of(self.truth(x.test), lambda: self.operand(x.body), lambda: self.operand(x.orelse))

    def logical(self, x: ast.BoolOp) -> Any:
        """The value of `a and b`, `a or b`."""
        result = self.operand(x.values[0])
        for part in x.values[1:]:
            result = self.following(isinstance(x.op, ast.And), result, part)
        return result

    def following(self, both: bool, first: tuple[Any, ir.Value], part: ast.expr) -> tuple[Any, ir.Value]:
        ways: list[Callable[[], tuple[Any, ir.Value]]] = [lambda: self.operand(part), lambda: first]
        return self.one_of(cast(self.b, first[1], first[0], types.boolean), *(ways if both else ways[::-1]))

    def one_of(self, condition: ir.Value, *ways: Callable[[], tuple[Any, ir.Value]]) -> tuple[Any, ir.Value]:
        """The value of the first function if the condition is true, else of the second."""
        before = dict(self.values)
        ends = [self.function.append_basic_block("choice") for _ in ways]
        self.b.cbranch(condition, *ends)
        results = []
        for i, way in enumerate(ways):
            self.b.position_at_end(ends[i])
            self.values = dict(before)  # loads in this block do not dominate the following ones
            results.append(way())
            ends[i] = self.b.block
        kinds = {kind for kind, _ in results}
        kind = kinds.pop() if len(kinds) == 1 else types.int64
        if kinds and not all(fits_int64(one) for one, _ in results):
            raise Outside(f"either of {results[0][0]} and {results[1][0]}")
        values = []
        for end, (one, value) in zip(ends, results, strict=True):
            self.b.position_at_end(end)
            values.append(cast(self.b, value, one, kind))
        self.values = before
        after = self.function.append_basic_block("chosen")
        for end in ends:
            self.b.position_at_end(end)
            self.b.branch(after)
        self.b.position_at_end(after)
        phi = self.b.phi(values[0].type)
        for value, end in zip(values, ends, strict=True):
            phi.add_incoming(value, end)
        return kind, phi

    def call(self, x: ast.Call) -> Any:
        f = self.expression(x.func)
        args = [self.operand(a) for a in x.args]
        if isinstance(f, tuple):
            raise Outside("a call of a number")
        if f in _CASTS and len(args) == 1:
            return _CASTS[f], cast(self.b, args[0][1], args[0][0], _CASTS[f])
        return self.intrinsic(f, args)

    def word(self, f: Any, args: Sequence[tuple[Any, ir.Value]]) -> Any:
        """Emit an operator on vectors as its word."""
        if f not in OPERATORS:
            raise Outside(f"{getattr(f, '__name__', f)} of vectors")
        return self.intrinsic(self.words(args[0][0].lanes)[OPERATORS[f]], args)

    def intrinsic(self, f: Any, args: Sequence[tuple[Any, ir.Value]]) -> Any:
        if not isinstance(f, Intrinsic):
            raise Outside(f"a call of {f}")
        key = (f, *(kind for kind, _ in args))
        resolved = self.signatures.get(key)
        if resolved is None:
            resolved = self.signatures[key] = f.resolve(*key[1:])
            if resolved is None:
                raise Outside(f"{f} of {', '.join(str(kind) for kind, _ in args)}")
        signature, emit = resolved
        values = [cast(self.b, v, kind, to) for (kind, v), to in zip(args, signature.args, strict=True)]
        return signature.return_type, emit(self.b, *values)

    def range(self, args: Sequence[tuple[Any, ir.Value]]) -> _Range:
        if not all(fits_int64(kind) for kind, _ in args) or not 1 <= len(args) <= 3:
            raise Outside("range of values that are not int64")
        bounds = [cast(self.b, value, kind, types.int64) for kind, value in args]
        start, stop = (I64(0), bounds[0]) if len(bounds) == 1 else bounds[:2]
        slot = self.allocate(I64, "next")
        self.b.store(start, slot)
        return _Range(slot, stop, bounds[2] if len(bounds) == 3 else I64(1))

    def next(self, over: _Range) -> tuple[ir.Value, ir.Value]:
        """(the next number of a range, whether it is inside)."""
        b = self.b
        value = b.load(over.start)
        if isinstance(over.step, ir.Constant):
            valid = b.icmp_signed("<" if over.step.constant > 0 else ">", value, over.stop)
        else:
            up, down = (b.icmp_signed(sign, value, over.stop) for sign in "<>")
            valid = b.select(b.icmp_signed(">", over.step, I64(0)), up, down)
        b.store(b.add(value, over.step), over.start)
        return value, valid


_EXPRESSIONS: dict[type, Callable[[_Walk, Any], Any]] = {
    ast.Constant: _Walk.constant, ast.Name: _Walk.name, ast.BinOp: _Walk.binary, ast.Compare: _Walk.compare,
    ast.UnaryOp: _Walk.unary, ast.IfExp: _Walk.choice, ast.BoolOp: _Walk.logical, ast.Call: _Walk.call,
    reading.Item: _Walk.item, reading.Parameter: _Walk.parameter,
}  # fmt: skip


def _number(value: Any) -> Any:
    if type(value) is bool:
        return types.boolean, I1(value)
    if type(value) is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise Outside(f"the number {value}")
        return (types.int64 if value < 1 << 63 else types.uint64), _i64_constant(value)
    if type(value) is float:
        return types.float64, F64(value)
    return value


#: LLVM constants of int64, cached: kernels repeat few of them.
_i64_constant = functools.lru_cache(1024)(I64)


def _order(blocks: Mapping[int, Block]) -> list[int]:
    """The reachable blocks in reverse postorder."""
    first = min(blocks)
    visited, out = {first}, []
    stack = [(first, iter(blocks[first].successors()))]
    while stack:
        at, successors = stack[-1]
        for following in successors:
            if following not in visited:
                visited.add(following)
                stack.append((following, iter(blocks[following].successors())))
                break
        else:
            out.append(at)
            stack.pop()
    return out[::-1]


def _shared(blocks: Mapping[int, Block], order: Sequence[int]) -> set[str]:
    """The variables that occur in more than one block."""
    home: dict[str, int] = {}
    shared = set()
    for at in order:
        for step in blocks[at].steps():
            for name in step.reads:
                if home.setdefault(name, at) != at:
                    shared.add(name)
        for step in blocks[at].body:
            if step.target is not None and home.setdefault(step.target, at) != at:
                shared.add(step.target)
    return shared


def _find_settled(blocks: Mapping[int, Block], order: Sequence[int], shared: set[str]) -> set[str]:
    """The variables of `shared` with a single definition that dominates all uses."""
    home: dict[str, int] = {}
    out = set(shared)
    for at in order:
        for step in blocks[at].body:
            if step.target in home:
                out.discard(step.target)
            elif step.target is not None:
                home[step.target] = at
    before = _dominators(blocks, order)
    for at in order:
        here: set[str | None] = set()
        for step in blocks[at].steps():
            for name in step.reads:
                if home.get(name) not in before[at] or (home[name] == at and name not in here):
                    out.discard(name)
            here.add(getattr(step, "target", None))
    return out


def _dominators(blocks: Mapping[int, Block], order: Sequence[int]) -> dict[int, set[int]]:
    """block -> its dominators, itself included."""
    leading: dict[int, list[int]] = {at: [] for at in order}
    for at in order:
        for following in blocks[at].successors():
            leading[following].append(at)
    dominators = {at: set(order) for at in order}
    dominators[order[0]] = {order[0]}
    changed = True
    while changed:
        changed = False
        for at in order[1:]:
            new = set.intersection(*(dominators[one] for one in leading[at])) | {at}
            changed |= new != dominators[at]
            dominators[at] = new
    return dominators


def _find_changes(source: Function, order: Sequence[int]) -> dict[int, set[str | None]]:
    """loop -> the variables that are assigned in it."""
    out: dict[int, set[str | None]] = {loop: set() for at in order for loop in source.nests[at]}
    for at in order:
        for loop in source.nests[at]:
            out[loop].update(step.target for step in source.blocks[at].body)
    return out


def _is_read(blocks: Mapping[int, Block], at: int, name: str) -> bool:
    """True if `name` is live at the beginning of block `at`."""
    visited, stack = {at}, [at]
    while stack:
        here = stack.pop()
        for step in blocks[here].steps():
            if name in step.reads:
                return True
            if isinstance(step, reading.Assign) and step.target == name:
                break
        else:
            new = [n for n in blocks[here].successors() if n not in visited]
            visited.update(new)
            stack += new
    return False
