"""Kernel sources as Python functions: NumPy implementations of intrinsics (`ovjit.codegen.meanings`) on
checked memory.

`Words(lanes, memory)` has the intrinsics that `ovjit.codegen.cpu.vector` implements in LLVM.
`program(source)` is a kernel's source as a Python function over them. `Memory` has the pieces that may be
accessed. An access outside of them raises `OutOfBounds`.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen import meanings, words
from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.meanings import F32, OutOfBounds
from ovjit.codegen.source import parse_source


class Memory:
    """Pieces of this process's memory, (address, bytes, name) each."""

    def __init__(self, pieces: Sequence[tuple[int, int, str]]):
        self.pieces = [
            (address, address + size, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)))
            for address, size, _ in pieces
            if size
        ]
        self.names = [f"{name} ({size} bytes)" for _, size, name in pieces if size]

    def at(self, address: int, size: int, align: int = 1) -> np.ndarray:
        """`size` bytes from `address` on. Raises OutOfBounds unless they are aligned and in one piece."""
        if address % align:
            raise OutOfBounds(f"{size} bytes are accessed at an address that is not a multiple of {align}")
        for start, stop, piece in self.pieces:
            if start <= address and address + size <= stop:
                return piece[address - start : address - start + size]
        raise OutOfBounds(f"{size} bytes are accessed {self._where(address)}")

    def _where(self, address: int) -> str:
        def away(i: int) -> int:
            start, stop, _ = self.pieces[i]
            return max(start - address, address - stop, 0)

        if not self.pieces:
            return "outside of all memory"
        nearest = min(range(len(self.pieces)), key=away)
        return f"from byte {address - self.pieces[nearest][0]} on of {self.names[nearest]}"


class Words(dict):
    """The names that a kernel's source may use, created at first use."""

    def __init__(self, lanes: int, memory: Memory):
        super().__init__(VL=lanes, float_nan=math.nan, float_inf=math.inf, njit=lambda **_: lambda f: f)
        self |= {"__divided__": _divide, "__floored__": _floor_divide, "__rest__": _remainder}
        self.lanes = lanes
        self.memory = memory

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)  # then Python looks it up there
        result = self[name] = self.make_word(name)
        return result

    def make_word(self, name: str) -> Any:
        """The function of this name in a kernel's text."""
        operation, _, dtype = name.rpartition("_")
        if operation.startswith("libm_"):
            return functools.partial(meanings.libm, operation[5:])
        if operation.startswith("seldom_"):
            return functools.partial(meanings.seldom, operation[7:])
        word, elem = words.find(name)
        arguments = [self] if word.on_machine else []
        return functools.partial(word.meaning, *arguments, *([elem] if elem else []))

    def body(self, body: Body, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Apply an elementwise body to vectors."""
        lines, constants = body.source("    ")
        head = f"def body({', '.join(f'x{i}' for i in range(len(inputs)))}):"
        hoisted = [f"    {name} = {value}" for name, value in constants.values()]
        result = f"    return {body.result_names(constants)[0]}"
        exec(
            compile_source("\n".join([head, *hoisted, *lines, result])), self
        )  # what ovjit's tracer has printed
        value: np.ndarray = self["body"](*inputs)
        return value


# --- operators with other semantics than Python's


def _divide(x: Any, y: Any) -> Any:
    if isinstance(x, np.ndarray):
        return meanings.divide(x, y)
    with np.errstate(all="ignore"):
        result = float(np.float64(x) / np.float64(y))
    return F32(result) if isinstance(x, F32) and isinstance(y, F32) else result


def _floor_divide(x: Any, y: Any) -> Any:
    """x // y. A division by 0 gives 0 for integers, and the IEEE 754 result for reals."""
    if isinstance(x, int) and isinstance(y, int):
        return x // y if y else 0
    with np.errstate(all="ignore"):
        result = float(np.float64(x) // np.float64(y))
    return F32(result) if isinstance(x, F32) and isinstance(y, F32) else result


def _remainder(x: Any, y: Any) -> Any:
    if isinstance(x, int) and isinstance(y, int):
        return x % y if y else 0
    with np.errstate(all="ignore"):
        result = float(np.float64(x) % np.float64(y))
    return F32(result) if isinstance(x, F32) and isinstance(y, F32) else result


_OPERATORS = {ast.Div: "__divided__", ast.FloorDiv: "__floored__", ast.Mod: "__rest__"}


class _Operators(ast.NodeTransformer):
    """Replaces divisions by calls."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        name = _OPERATORS.get(type(node.op))
        return node if name is None else ast.Call(ast.Name(name, ast.Load()), [node.left, node.right], [])

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        assert isinstance(node.target, ast.Name)
        plain = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
        value = self.visit(plain)
        return ast.Assign([node.target], value)


@functools.lru_cache(256)
def compile_source(source: str) -> Any:
    tree = ast.fix_missing_locations(_Operators().visit(parse_source(source)))
    return compile(tree, "<kernel>", "exec")


def program(source: str, words: Words) -> Callable[[int, int, int, int], int]:
    """The kernel's source as a function `(bases, args, chunk, scratch) -> error code` over `words`."""
    exec(compile_source(source), words)  # text printed by ovjit's emitters
    kernel: Callable[[int, int, int, int], int] = words["kernel"]
    return kernel


__all__ = ["F32", "Memory", "OutOfBounds", "Words", "program"]
