"""Addresses of kernels in this process: of code that is loaded, provided, cached or shipped, or compiled now.

The runner does not import this module: programs provide plans with the addresses of their kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ovjit import debug
from ovjit.codegen import compiling
from ovjit.codegen.cpu import machine, objects
from ovjit.codegen.cpu.host import check_runs, host_target
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.disk.kernel_cache import default_cache

#: symbol -> object code of all kernels that this process has loaded; exports contain it.
object_code: dict[str, bytes] = {}


#: Kernels that would have to be compiled -> those that are unlikely to be needed.
Unlikely = Callable[[Collection[Kernel]], Collection[Kernel]]


def _none(kernels: Collection[Kernel]) -> Collection[Kernel]:
    return ()


def addresses(
    kernels: Iterable[Kernel],
    provided: Mapping[str, bytes] | None = None,
    unlikely: Unlikely = _none,
    target: Target | None = None,
) -> dict[Kernel, int]:
    """Load kernels. Compile those that are not in `provided` (symbol -> code), shipped or cached, except the
    `unlikely` ones. `target`: by default the host. Raises UnsupportedError for a target whose code does not
    run here, unless Python runs the kernels."""
    isa = target or host_target()
    if debug.flag("OVJIT_INTERP") != "kernels":
        machine.check_process()
        if target is not None:
            check_runs(target)
    symbols = {kernel: kernel.symbol(isa) for kernel in kernels}
    missing: dict[str, Kernel] = {}

    def load(kernel: Kernel, symbol: str, code: bytes) -> None:
        object_code[symbol] = code
        objects.load(symbol, code)
        _show(kernel, isa)

    for kernel, symbol in symbols.items():
        if objects.address_of(symbol) is None:
            code = (provided or {}).get(symbol)
            if code is None:
                code = _ready(kernel, symbol, isa)
            if code is None:
                missing[symbol] = kernel
            else:
                load(kernel, symbol, code)
    for kernel in unlikely(missing.values()) if missing else ():
        del missing[symbols.pop(kernel)]
    for symbol, code in compiling.compile_all(missing, isa) if missing else ():
        load(missing[symbol], symbol, code)
    return {kernel: objects.loaded_address(symbol) for kernel, symbol in symbols.items()}


class Loaded(dict[Any, int]):
    """kernel -> address of loaded kernels. `need` loads more, as `addresses` does."""

    def __init__(
        self,
        kernels: Iterable[Kernel] = (),
        provided: Mapping[str, bytes] | None = None,
        unlikely: Unlikely = _none,
        target: Target | None = None,
    ):
        self.provided, self.target = provided, target
        self.need(kernels, unlikely)

    def need(self, kernels: Iterable[Kernel], unlikely: Unlikely = _none) -> None:
        """Ensure that these kernels are loaded; see `addresses`."""
        missing = dict.fromkeys(kernel for kernel in kernels if kernel not in self)
        if missing:
            self.update(addresses(missing, self.provided, unlikely, self.target))


def _ready(kernel: Kernel, symbol: str, isa: Target) -> bytes | None:
    """The shipped or cached code of a kernel; None if it has to be compiled."""
    code, where = kernel.find_shipped(isa), "shipped"
    if code is None:
        code, where = default_cache().get(symbol), "cached"
    if code is not None:
        compiling.count(where)
    return code


def _show(kernel: Kernel, isa: Target) -> None:
    """OVJIT_DUMP=folder: write the source of each loaded kernel. OVJIT_DEBUG=4: print it to stderr;
    5: and its machine code."""
    level = debug.level()
    if level >= debug.SOURCES:
        debug.tell(f"ovjit: kernel {kernel.name}, {kernel.symbol(isa)}")
        debug.tell(kernel.source)
        if kernel.key:
            debug.tell(kernel.key)
    if level >= debug.ASSEMBLY:
        debug.tell(kernel.assembly(isa))
    folder = debug.flag("OVJIT_DUMP")
    if folder:
        import pathlib

        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{kernel.name[:80]}_{kernel.symbol(isa)[6:14]}.py").write_text(kernel.source)
