"""Routines: native functions with int64 arguments, several in an object file. The runner consists of them.

    @routine
    def submit(pool, job, unused, unused2):
        st[i64](job + NEXT * 8, 0)
        ...

    @block_routine
    def build_trie(begins, ends, chars, ...):  # native(address of int64 [parameters], 0, 0, 0)
        ...

They are written like kernels (`ovjit.codegen.function`). Each start needs some of them, so their printed
source is cached. Their modules are only imported if it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ovjit.codegen import texts
from ovjit.codegen.cpu.objects import entry_address
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.loading import addresses


def routines(
    name: str,
    functions: Sequence[str],
    module: str,
    intrinsics: Callable[[Target], Mapping[str, Any]] | None = None,
    key: str = "",
) -> Kernel:
    """A kernel with these functions of the module of this name, which is imported to print them. The first
    function is its `kernel`. `key`: identifies what `intrinsics` depends on besides the instruction set."""

    def make() -> texts.Printed:
        from ovjit.codegen.kernel_printing import printed_routine

        defined = [getattr(import_module(module), name) for name in functions]
        named = zip(defined, ("kernel", *functions[1:]), strict=True)
        return ("\n".join(printed_routine(routine, to) for routine, to in named), [], {})

    text, *_ = texts.find_or_print(texts.place_of(name, functions), name, make)
    return Kernel(name, text, KernelArgs(), intrinsics, key)


#: name -> symbol of routines whose object code a kept model has brought. It is loaded, and of these sources.
provided: dict[str, str] = {}


def load(name: str, functions: Sequence[str], kernel: Callable[[], Kernel]) -> dict[str, int]:
    """function -> address, for routines of this name: those that are `provided`, which takes no look-up of
    their printed source, else those of `kernel()`, which `routines` has made."""
    symbol = provided.get(name) or next(iter(addresses((kernel(),)))).symbol()
    return {name: entry_address(symbol, name if i else "kernel") for i, name in enumerate(functions)}
