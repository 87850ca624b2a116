"""A kernel: readable source, the argument block, and its content address.

Kernels are values: equal source is the same kernel, for any model or layer. The linker symbol derives from a
hash of all inputs of its machine code, and of nothing else.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ovjit import debug
from ovjit.codegen import shipped
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.tensors import Signature
from ovjit.codegen.versions import code_digest, file_digest, versions
from ovjit.errors import KernelSourceError
from ovjit.hashes import sha256


class KernelArgs:
    """The names of the integers of an argument block, in order. A pointer takes two: base, byte offset."""

    def __init__(
        self,
        fields: Iterable[tuple[str, bool]] = (),
        tables: Mapping[str, tuple[str, bool]] | None = None,
    ) -> None:
        self.fields = list(fields)
        self.tables = dict(tables or {})  # field -> (its table, whether it is the table's first)
        self._dimensions: int | None = None

    def pointers(self, *names: str) -> KernelArgs:
        self.fields += [(name, True) for name in names]
        return self

    def integers(self, *names: str) -> KernelArgs:
        self.fields += [(name, False) for name in names]
        return self

    def table(self, name: str, size: int) -> KernelArgs:
        """Add integers name0, name1 ... that the source reads by index: `ld(name, i)`."""
        fields = [f"{name}{i}" for i in range(size)]
        self.tables |= {field: (name, i == 0) for i, field in enumerate(fields)}
        return self.integers(*fields)

    @property
    def dimensions(self) -> int:
        """The number of dimensions of an elementwise kernel's rows, once it has all fields."""
        if self._dimensions is None:
            self._dimensions = sum(name.startswith("y0_") for name, _ in self.fields) - 1
        return self._dimensions

    def prologue(self) -> str:
        """Source that reads all fields into variables of their names; a table's variable is its address."""
        lines, slot = [], 0
        for name, is_pointer in self.fields:
            table, begins = self.tables.get(name, ("", False))
            if begins:
                lines.append(f"    {table} = args + {8 * slot}")
            elif table:
                pass
            elif is_pointer:
                lines.append(f"    {name} = ld(bases, ld(args, {slot})) + ld(args, {slot + 1})")
            else:
                lines.append(f"    {name} = ld(args, {slot})")
            slot += 1 + is_pointer
        return "\n".join(lines)

    def pack(self, values: Mapping[str, Any]) -> list[Any]:
        """The block for `values`, in order. Raises KeyError if one is missing."""
        return [values[name] for name, _ in self.fields]


class Kernel:
    """One native function `(bases, args, chunk, scratch) -> error code`.

    `name` is for display. `source` defines `kernel`; the runner's sources define more functions.
    `intrinsics(isa)` returns further names for the source. `key` (a text) and the file that defines
    `intrinsics` determine them completely.
    `form`: the tile format of its arithmetic, which determines the CPU features that its code uses.
    `signature`: the axes of its tensors, for its launch. Kernels are compared by content.
    """

    __slots__ = ("_intrinsics", "_symbols", "form", "frame", "key", "name", "signature", "source")

    def __init__(
        self,
        name: str,
        source: str,
        frame: KernelArgs,
        intrinsics: Callable[[Target], Mapping[str, Any]] | None = None,
        key: str = "",
        form: str = "f32",
        signature: Signature | None = None,
    ):
        self.name = name
        self.signature = signature
        self.form = form
        self.source = source
        self.frame = frame
        self.key = key
        self._intrinsics = intrinsics
        self._symbols: dict[Any, str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kernel) and (self.source, self.key) == (other.source, other.key)

    def __hash__(self) -> int:
        return hash((self.source, self.key))

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"

    def symbol(self, isa: Target | None = None) -> str:
        build = isa or host_target(), debug.flag("OVJIT_JIT")
        symbol = self._symbols.get(build)
        if symbol is None:
            digest = _digest(self.source, self.key, build[0], file_digest(self._intrinsics), build[1])
            symbol = self._symbols[build] = "ovjit_" + digest
        return symbol

    def intrinsics(self, isa: Target) -> Mapping[str, Any] | None:
        return self._intrinsics(isa) if self._intrinsics else None

    def compile(self, isa: Target) -> bytes:
        """The object code: shipped, or compiled now."""
        return self.find_shipped(isa) or self._named(self.content(isa), isa)

    def find_shipped(self, isa: Target) -> bytes | None:
        """The object code if it is shipped, else None."""
        code = shipped.find(self.content_key(isa), isa)
        return None if code is None else self._named(code, isa)

    def _named(self, code: bytes, isa: Target) -> bytes:
        return code.replace(shipped.SYMBOL.encode(), self.symbol(isa).encode())

    def content_key(self, isa: Target) -> str:
        """The kernel's name among shipped kernels."""
        return shipped.content_key(self.source, self.key, self.form, file_digest(self._intrinsics), isa)

    def content(self, isa: Target) -> bytes:
        """The object code, compiled now, with the symbol of all shipped kernels."""
        least = shipped.needed_by(self.source, self.key, self.form, isa)
        more = self.intrinsics(least)
        try:
            return _compiler().object_code(self.source, self.symbol(isa), least, more, shipped.SYMBOL)
        except KernelSourceError as error:
            raise KernelSourceError(f"kernel {self.name}: {error}") from None

    def text(self, isa: Target) -> str:
        """The optimised LLVM module as text, with the symbol of all shipped kernels."""
        symbol = self.symbol(isa)
        text = _compiler().optimised_text(self.source, symbol, isa, self.intrinsics(isa))
        return text.replace(symbol, shipped.SYMBOL)

    def assembly(self, isa: Target | None = None) -> str:
        isa = isa or host_target()
        return _compiler().assembly(self.source, self.symbol(isa), isa, self.intrinsics(isa))


def _compiler() -> Any:
    """`codegen.cpu.jit`, imported on demand."""
    from ovjit.codegen.cpu import jit

    return jit


@functools.lru_cache(4096)
def _digest(source: str, key: str, isa: Target, intrinsics: str, jit: str) -> str:
    here = (isa.machine, sys.platform)
    for_cpu = (isa.name, isa.cpu, isa.llvm_features)
    parts = [source, key, *here, *for_cpu, *versions(), code_digest(), intrinsics, jit]
    return sha256("\0".join(parts).encode()).hexdigest()[:40]
