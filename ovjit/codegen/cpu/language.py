"""The language of kernels: from Numba's analysis of a function to LLVM, types and lowering in one walk.

What ovjit prints as kernels is small: int64s, numbers, vectors and intrinsics of fixed meaning, `while`,
`for` over `range` and `if`; no objects, no exceptions, no reference counts. Numba's type inference and
lowering, made for all of Python, take four times as long for it. `lower` goes through the blocks once, in an
order in which definitions come before uses, and knows every type when it needs it.

Variables that live in one block are LLVM values; others are memory, which LLVM's SROA turns into registers.
Whatever is not in the language raises `Outside`, and Numba's ordinary pipeline has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import llvmlite.ir as ir
from numba.core import ir as nir
from numba.core import types

from ovjit.codegen.cpu.scalars import F64, I1, I64, Outside, binary, cast, fits_int64, unary
from ovjit.codegen.cpu.vector import OPERATORS, Vec, namespace

_CASTS = {bool: types.boolean, int: types.int64, float: types.float64}


class _Range(NamedTuple):
    """`range(start, stop, step)`; once it is iterated over, `start` is the memory of what comes next."""

    start: ir.Value
    stop: ir.Value
    step: ir.Value


class _Next(NamedTuple):
    """What `next` of a range gave: the number, and whether there was one."""

    value: ir.Value
    valid: ir.Value


class _Again(Exception):
    """The walk begins anew, knowing that `name` has two types."""

    def __init__(self, name: str, widen: bool):
        self.name = name
        self.widen = widen


class _Context:
    """What intrinsics ask of Numba's target context."""

    def get_dummy_value(self) -> ir.Value:
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    def cast(self, b: ir.IRBuilder, value: ir.Value, source: Any, to: Any) -> ir.Value:
        return cast(b, value, source, to)

    def __getattr__(self, name: str) -> Any:
        raise Outside(f"an intrinsic that asks for the target context's {name}")


class _Typing:
    """What intrinsics are given as Numba's typing context: nothing."""

    def __getattr__(self, name: str) -> Any:
        raise Outside(f"an intrinsic that asks for the typing context's {name}")


_CONTEXT, _TYPING = _Context(), _Typing()


def lower(func_ir: nir.FunctionIR, function: ir.Function) -> None:
    """Print the body of `function`, a C function of int64s that gives an int64. Raises Outside."""
    widened: set[str] = set()  # variables of several integer types are int64
    varying: set[str] = set()  # variables of types that have nothing in common are one for each type
    while True:
        try:
            _Walk(func_ir, function, widened, varying).run()
            return
        except _Again as again:
            function.blocks.clear()
            (widened if again.widen else varying).add(again.name)


class _Walk:
    def __init__(self, func_ir: nir.FunctionIR, function: ir.Function, widened: set[str], varying: set[str]):
        self.blocks = func_ir.blocks
        self.widened, self.varying = widened, varying
        self.order = _order(self.blocks)
        self.shared = _shared(self.blocks, self.order)
        self.function = function
        self.entry = self.function.append_basic_block("entry")
        self.places = {at: self.function.append_basic_block(f"B{at}") for at in sorted(self.order)}
        self.b = ir.IRBuilder(self.entry)
        self.types: dict[str, Any] = {}
        self.slots: dict[tuple[str, Any], ir.Value] = {}
        self.values: dict[str, ir.Value] = {}  # of this block
        self.objects: dict[str, Any] = {}  # what is known here and now: functions, ranges
        self.signatures: dict[tuple, Any] = {}
        self.arriving: dict[int, dict[str, Any]] = {self.order[0]: {}}
        self.done: set[int] = set()

    def run(self) -> None:
        for at in self.order:
            self.b.position_at_end(self.places[at])
            self.values = {}
            for name in self.varying:
                self.types.pop(name, None)
            self.types.update(self.arriving[at])
            self.done.add(at)
            for instruction in self.blocks[at].body:
                self.statement(instruction)
        self.b.position_at_end(self.entry)
        self.b.branch(self.places[self.order[0]])

    # --- statements

    def statement(self, s: Any) -> None:
        if isinstance(s, nir.Assign):
            self.assign(s.target.name, s.value)
        elif isinstance(s, nir.Branch):
            kind, value = self.read(s.cond.name)
            condition = cast(self.b, value, kind, types.boolean)
            self.arrive(s.truebr)
            self.arrive(s.falsebr)
            self.b.cbranch(condition, self.places[s.truebr], self.places[s.falsebr])
        elif isinstance(s, nir.Jump):
            self.arrive(s.target)
            self.b.branch(self.places[s.target])
        elif isinstance(s, nir.Return):
            kind, value = self.read(s.value.name)
            self.b.ret(cast(self.b, value, kind, types.int64))
        elif not isinstance(s, (nir.Del, nir.PopBlock)):
            raise Outside(f"{type(s).__name__} at {s.loc}")

    def assign(self, name: str, value: Any) -> None:
        try:
            result = self.expression(value)
        except Outside as error:
            error.add_context(f"in {value} at {value.loc}")
            raise
        if not isinstance(result, tuple) or isinstance(result, (_Range, _Next)):
            if self.objects.setdefault(name, result) is not result:
                raise Outside(f"{name} stands for two things that are no numbers")
            return
        kind, value = result
        if kind is types.void:
            return
        if name in self.widened:
            kind, value = types.int64, cast(self.b, value, kind, types.int64)
        known = self.types.get(name, kind)
        if known != kind and name not in self.varying:
            raise _Again(name, fits_int64(known) and fits_int64(kind))
        self.types[name] = kind
        self.values[name] = value
        if name in self.shared:
            slot = self.slots.get((name, kind))
            if slot is None:
                slot = self.slots[name, kind] = self.allocate(value.type, name)
            self.b.store(value, slot)

    def arrive(self, at: int) -> None:
        """Variables of several types have here what they have on the way to block `at`."""
        mine = {name: self.types.get(name) for name in self.varying}
        there = self.arriving.get(at)
        if there is None:
            self.arriving[at] = {name: kind for name, kind in mine.items() if kind is not None}
            return
        for name in [n for n, kind in there.items() if mine[n] not in (kind, None)]:
            if at in self.done and _is_read(self.blocks, at, name):
                raise Outside(f"{name} is {there[name]} and {mine[name]}")
            del there[name]

    def allocate(self, kind: ir.Type, name: str) -> ir.Value:
        """Memory of the function; made where it is entered, or every round of a loop would take more."""
        here = self.b.block
        self.b.position_at_end(self.entry)
        slot = self.b.alloca(kind, name=name)
        self.b.position_at_end(here)
        return slot

    def read(self, name: str) -> tuple[Any, ir.Value]:
        """The type and value of a variable."""
        kind = self.types.get(name)
        if kind is None:
            raise Outside(f"{name} has no value, or no one type")
        value = self.values.get(name)
        if value is None:
            slot = self.slots.get((name, kind))
            if slot is None:
                raise Outside(f"{name} has no value")
            value = self.values[name] = self.b.load(slot)
        return kind, value

    # --- expressions: (type, value), or a Python object

    def expression(self, x: Any) -> Any:
        if isinstance(x, nir.Var):
            return self.objects[x.name] if x.name in self.objects else self.read(x.name)
        if isinstance(x, (nir.Const, nir.Global, nir.FreeVar)):
            return _number(x.value)
        if isinstance(x, nir.Arg):
            return types.int64, self.function.args[x.index]
        if not isinstance(x, nir.Expr):
            raise Outside(type(x).__name__)
        if x.op == "call":
            return self.call(x)
        if x.op in ("binop", "inplace_binop"):
            f = x.fn if x.op == "binop" else x.immutable_fn
            left, right = self.read(x.lhs.name), self.read(x.rhs.name)
            if isinstance(left[0], Vec) and isinstance(right[0], Vec):
                return self.word(f, [left, right])
            return binary(self.b, f, left, right)
        if x.op == "unary":
            operand = self.read(x.value.name)
            return self.word(x.fn, [operand]) if isinstance(operand[0], Vec) else unary(self.b, x.fn, operand)
        if x.op == "cast":
            return self.read(x.value.name)
        if x.op == "getiter":
            return self.iterate(self.object(x.value.name, _Range))
        if x.op == "iternext":
            return self.next(self.object(x.value.name, _Range))
        if x.op == "pair_first":
            return types.int64, self.object(x.value.name, _Next).value
        if x.op == "pair_second":
            return types.boolean, self.object(x.value.name, _Next).valid
        raise Outside(f"{x.op}")

    def object(self, name: str, kind: type) -> Any:
        found = self.objects.get(name)
        if not isinstance(found, kind):
            raise Outside(f"{name} is not of the language")
        return found

    def call(self, x: nir.Expr) -> Any:
        f = self.objects.get(x.func.name)
        if f is None or x.kws or x.vararg:
            raise Outside("a call of this form")
        args = [self.read(a.name) for a in x.args]
        if f is range:
            return self.range(args)
        if f in _CASTS and len(args) == 1:
            return _CASTS[f], cast(self.b, args[0][1], args[0][0], _CASTS[f])
        return self.intrinsic(f, args)

    def word(self, f: Any, args: Sequence[tuple[Any, ir.Value]]) -> Any:
        """An operator on vectors: the word that it stands for."""
        if f not in OPERATORS:
            raise Outside(f"{getattr(f, '__name__', f)} of vectors")
        return self.intrinsic(namespace(args[0][0].lanes)[OPERATORS[f]], args)

    def intrinsic(self, f: Any, args: Sequence[tuple[Any, ir.Value]]) -> Any:
        definition = getattr(f, "_defn", None)
        if definition is None:
            raise Outside(f"a call of {f}")
        key = (f, *(kind for kind, _ in args))
        found = self.signatures.get(key)
        if found is None:
            found = self.signatures[key] = _resolve(f, definition, [kind for kind, _ in args])
        signature, generate = found
        values = [cast(self.b, v, kind, to) for (kind, v), to in zip(args, signature.args, strict=True)]
        return signature.return_type, generate(_CONTEXT, self.b, signature, values)

    def range(self, args: Sequence[tuple[Any, ir.Value]]) -> _Range:
        if not all(fits_int64(kind) for kind, _ in args) or not 1 <= len(args) <= 3:
            raise Outside("range of what is no int64")
        whole = [cast(self.b, value, kind, types.int64) for kind, value in args]
        start, stop = (I64(0), whole[0]) if len(whole) == 1 else whole[:2]
        return _Range(start, stop, whole[2] if len(whole) == 3 else I64(1))

    def iterate(self, over: _Range) -> _Range:
        slot = self.allocate(I64, "next")
        self.b.store(over.start, slot)
        return _Range(slot, over.stop, over.step)

    def next(self, over: _Range) -> _Next:
        b = self.b
        value = b.load(over.start)
        up, down = (b.icmp_signed(sign, value, over.stop) for sign in "<>")
        valid = b.select(b.icmp_signed(">", over.step, I64(0)), up, down)
        b.store(b.add(value, over.step), over.start)
        return _Next(value, valid)


def _resolve(f: Any, definition: Any, kinds: Sequence[Any]) -> Any:
    """The signature and the emitter of an intrinsic for arguments of these types."""
    try:
        found = definition(_TYPING, *kinds)
    except TypeError as error:
        raise Outside(f"{f}: {error}") from None
    if found is None or len(found[0].args) != len(kinds):
        raise Outside(f"{f} of {', '.join(map(str, kinds))}")
    return found


def _number(value: Any) -> Any:
    if type(value) is bool:
        return types.boolean, I1(value)
    if type(value) is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise Outside(f"the number {value}")
        return (types.int64 if value < 1 << 63 else types.uint64), I64(value)
    if type(value) is float:
        return types.float64, F64(value)
    return value


def _order(blocks: dict[int, nir.Block]) -> list[int]:
    """The blocks that are reached, each but the first after one that leads to it."""
    first = min(blocks)
    seen, out = {first}, []
    stack = [(first, iter(_successors(blocks[first])))]
    while stack:
        at, left = stack[-1]
        for following in left:
            if following not in seen:
                seen.add(following)
                stack.append((following, iter(_successors(blocks[following]))))
                break
        else:
            out.append(at)
            stack.pop()
    return out[::-1]


def _successors(block: nir.Block) -> list[int]:
    last = block.body[-1]
    if isinstance(last, nir.Branch):
        return [last.falsebr, last.truebr]
    return [last.target] if isinstance(last, nir.Jump) else []


def _names(s: Any) -> Iterator[str]:
    """The variables that a statement reads."""
    if isinstance(s, nir.Assign):
        if isinstance(s.value, nir.Var):
            yield s.value.name
        elif isinstance(s.value, nir.Expr):
            for part in s.value._kws.values():
                for one in part if isinstance(part, (list, tuple)) else (part,):
                    if isinstance(one, nir.Var):
                        yield one.name
    elif isinstance(s, nir.Branch):
        yield s.cond.name
    elif isinstance(s, nir.Return):
        yield s.value.name


def _shared(blocks: dict[int, nir.Block], order: Sequence[int]) -> set[str]:
    """The variables that more than one block knows."""
    home: dict[str, int] = {}
    shared = set()
    for at in order:
        for s in blocks[at].body:
            for name in _names(s):
                if home.setdefault(name, at) != at:
                    shared.add(name)
            if isinstance(s, nir.Assign) and home.setdefault(s.target.name, at) != at:
                shared.add(s.target.name)
    return shared


def _is_read(blocks: dict[int, nir.Block], at: int, name: str) -> bool:
    """True when from the beginning of block `at` on, `name` may be read before it is assigned."""
    seen, left = {at}, [at]
    while left:
        here = left.pop()
        for s in blocks[here].body:
            if name in _names(s):
                return True
            if isinstance(s, nir.Assign) and s.target.name == name:
                break
        else:
            new = [n for n in _successors(blocks[here]) if n not in seen]
            seen.update(new)
            left += new
    return False
