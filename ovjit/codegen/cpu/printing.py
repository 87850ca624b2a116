"""A builder that writes instructions as LLVM text directly.

llvmlite makes an object for each instruction, looks up its name in a scope, and prints it with the module.
Here an instruction is a line of text, which takes a quarter of the time. Rare instructions (phis, whose
operands come later, allocas, atomics) are llvmlite's, and so are functions, blocks and types.

Operands are not checked here: LLVM checks them when it parses the text.

Loop-invariant instructions without side effects that cannot trap are written before the loop. LLVM's own
search for them would take as long as all of its other simplifications.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu.targets import Target

_I1 = ir.IntType(1)
_VOID = ir.VoidType()
_CONDITIONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


#: The loops around a block, outermost first, each named by its preheader.
Nest = tuple[int, ...]


class Line(ir.Value):
    """An instruction and its value, which varies with the loops of `nest`."""

    def __init__(self, kind: ir.Type, reference: str, text: str, nest: Nest):
        self.type = kind
        self.reference = reference
        self.text = text
        self.nest = nest

    def __str__(self) -> str:
        return self.text

    def get_reference(self) -> str:
        return self.reference

    @property
    def function_type(self) -> ir.FunctionType:
        """The function type that a function pointer points to."""
        return self.type.pointee


def _typed(value: ir.Value) -> str:
    return f"{value.type} {value.get_reference()}"


def _two(operation: str, fails: bool = False) -> Callable[..., Line]:
    def emit(self: Builder, x: ir.Value, y: ir.Value, name: str = "", flags: Sequence[str] = ()) -> Line:
        words = " ".join((operation, *flags)) if flags else operation
        text = f"{words} {x.type} {x.get_reference()}, {y.get_reference()}"
        return self.say(x.type, text) if fails else self.pure(x.type, text, x, y)

    return emit


def _cast(operation: str) -> Callable[..., ir.Value]:
    def emit(self: Builder, value: ir.Value, to: ir.Type, name: str = "") -> ir.Value:
        if value.type == to:
            return value
        return self.pure(to, f"{operation} {value.type} {value.get_reference()} to {to}", value)

    return emit


def _compare(operation: str, prefix: str, plain: Sequence[str] = ()) -> Callable[..., Line]:
    def emit(self: Builder, sign: str, x: ir.Value, y: ir.Value, name: str = "") -> Line:
        condition = _CONDITIONS.get(sign, sign)
        if sign in _CONDITIONS and sign not in plain:
            condition = prefix + condition
        kind = ir.VectorType(_I1, x.type.count) if isinstance(x.type, ir.VectorType) else _I1
        text = f"{operation} {condition} {x.type} {x.get_reference()}, {y.get_reference()}"
        return self.pure(kind, text, x, y)

    return emit


class Module(ir.Module):
    """A module of code for one target, which `isa_of` returns."""

    def __init__(self, isa: Target, name: str = ""):
        super().__init__(name)
        self.isa = isa


def isa_of(b: ir.IRBuilder) -> Target:
    """The target of the builder's code."""
    isa: Target = b.module.isa
    return isa


class Builder(ir.IRBuilder):
    """llvmlite's builder with instructions as lines. It must be the only builder of its function."""

    def __init__(self, block: ir.Block):
        super().__init__(block)
        self._numbers = itertools.count()
        self._entry = block
        #: The loops around the current block, and each loop's preheader.
        self.nest: Nest = ()
        self.before: Mapping[int, ir.Block] = {}

    def say(self, kind: ir.Type, text: str) -> Line:
        """Append the instruction `text`, whose value has the type `kind`."""
        reference = f"%$.{next(self._numbers)}"
        line = Line(kind, reference, f"{reference} = {text}", self.nest)
        self._block.instructions.insert(self._anchor, line)
        self._anchor += 1
        return line

    def pure(self, kind: ir.Type, text: str, *operands: ir.Value) -> Line:
        """`say` for an instruction without side effects: it is hoisted out of loops that do not change its
        operands."""
        nest = self.nest
        if not nest or self._block is self._entry:
            return self.say(kind, text)
        inner = 0
        for operand in operands:
            if isinstance(operand, Line):
                varies = operand.nest
                if varies != nest[: len(varies)]:  # the operand was computed in another loop
                    return self.say(kind, text)
                inner = max(inner, len(varies))
            elif not isinstance(operand, (ir.Constant, ir.Argument, ir.AllocaInstr)):
                return self.say(kind, text)
        return self.outside(kind, text, inner)

    def outside(self, kind: ir.Type, text: str, inner: int) -> Line:
        """The instruction `text`, hoisted out of all but the `inner` outermost loops around this block."""
        if inner == len(self.nest):
            return self.say(kind, text)
        reference = f"%$.{next(self._numbers)}"
        line = Line(kind, reference, f"{reference} = {text}", self.nest[:inner])
        block = self.before[self.nest[inner]]
        block.instructions.insert(len(block.instructions) - block.is_terminated, line)
        return line

    def do(self, text: str) -> Line:
        """Append the instruction `text`, which has no value."""
        line = Line(_VOID, "", text, self.nest)
        self._block.instructions.insert(self._anchor, line)
        self._anchor += 1
        return line

    add, sub, mul = _two("add"), _two("sub"), _two("mul")
    sdiv, udiv, srem, urem = (_two(operation, True) for operation in ("sdiv", "udiv", "srem", "urem"))
    fadd, fsub, fmul, fdiv, frem = _two("fadd"), _two("fsub"), _two("fmul"), _two("fdiv"), _two("frem")
    shl, lshr, ashr = _two("shl"), _two("lshr"), _two("ashr")
    and_, or_, xor = _two("and"), _two("or"), _two("xor")
    trunc, zext, sext = _cast("trunc"), _cast("zext"), _cast("sext")
    fptrunc, fpext, bitcast = _cast("fptrunc"), _cast("fpext"), _cast("bitcast")
    fptoui, fptosi, uitofp, sitofp = _cast("fptoui"), _cast("fptosi"), _cast("uitofp"), _cast("sitofp")
    ptrtoint, inttoptr = _cast("ptrtoint"), _cast("inttoptr")
    icmp_signed, icmp_unsigned = _compare("icmp", "s", ("==", "!=")), _compare("icmp", "u", ("==", "!="))
    fcmp_ordered, fcmp_unordered = _compare("fcmp", "o"), _compare("fcmp", "u")

    def fneg(self, x: ir.Value, name: str = "", flags: Sequence[str] = ()) -> Line:
        return self.pure(x.type, f"{' '.join(('fneg', *flags))} {_typed(x)}", x)

    def select(
        self, condition: ir.Value, x: ir.Value, y: ir.Value, name: str = "", flags: Sequence[str] = ()
    ) -> Line:
        words = " ".join(("select", *flags))
        text = f"{words} {_typed(condition)}, {_typed(x)}, {_typed(y)}"
        return self.pure(x.type, text, condition, x, y)

    def load(self, p: ir.Value, name: str = "", align: int | None = None, typ: Any = None) -> Line:
        if typ is None:
            typ = p.allocated_type if isinstance(p, ir.AllocaInstr) else p.type.pointee
        end = "" if align is None else f", align {align}"
        return self.say(typ, f"load {typ}, {_typed(p)}{end}")

    def store(self, value: ir.Value, p: ir.Value, align: int | None = None) -> Line:
        end = "" if align is None else f", align {align}"
        return self.do(f"store {_typed(value)}, {_typed(p)}{end}")

    def gep(
        self,
        p: ir.Value,
        indices: Sequence[ir.Value],
        inbounds: bool = False,
        name: str = "",
        source_etype: ir.Type | None = None,
    ) -> ir.Value:
        if source_etype is None or isinstance(p.type, ir.VectorType):
            return super().gep(p, indices, inbounds, name, source_etype)
        words = "getelementptr inbounds" if inbounds else "getelementptr"
        steps = ", ".join(map(_typed, indices))
        return self.pure(p.type, f"{words} {source_etype}, {_typed(p)}, {steps}", p, *indices)

    def extract_element(self, vector: ir.Value, at: ir.Value, name: str = "") -> Line:
        text = f"extractelement {_typed(vector)}, {_typed(at)}"
        return self.pure(vector.type.element, text, vector, at)

    def insert_element(self, vector: ir.Value, value: ir.Value, at: ir.Value, name: str = "") -> Line:
        text = f"insertelement {_typed(vector)}, {_typed(value)}, {_typed(at)}"
        return self.pure(vector.type, text, vector, value, at)

    def shuffle_vector(self, x: ir.Value, y: ir.Value, mask: ir.Constant, name: str = "") -> Line:
        kind = ir.VectorType(x.type.element, mask.type.count)
        return self.pure(kind, f"shufflevector {_typed(x)}, {_typed(y)}, {_typed(mask)}", x, y)

    def call(self, f: Any, args: Sequence[ir.Value], name: str = "", cconv: Any = None, **more: Any) -> Any:
        if more or not isinstance(f, ir.Function) or f.function_type.var_arg:
            return super().call(f, args, name, cconv, **more)
        convention = f.calling_convention if cconv is None else cconv
        result = f.function_type.return_type
        words = f"call {convention} {result}" if convention else f"call {result}"
        text = f"{words} {f.get_reference()}({', '.join(map(_typed, args))})"
        if isinstance(result, ir.VoidType):
            return self.do(text)
        return self.pure(result, text, *args) if f.name.startswith("llvm.fma.") else self.say(result, text)

    def branch(self, target: ir.Block) -> Line:
        return self._end(f"br {_typed(target)}")

    def cbranch(self, condition: ir.Value, yes: ir.Block, no: ir.Block) -> Line:
        return self._end(f"br {_typed(condition)}, {_typed(yes)}, {_typed(no)}")

    def ret(self, value: ir.Value) -> Line:
        return self._end(f"ret {_typed(value)}")

    def _end(self, text: str) -> Line:
        assert not self.block.is_terminated
        line = self.do(text)
        self.block.terminator = line
        return line
