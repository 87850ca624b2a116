"""Load object code into this process, by ovjit's loader or llvmlite, and look up addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ovjit import locks, logs
from ovjit.codegen.cpu import elf
from ovjit.codegen.cpu.systems import system
from ovjit.errors import UnsupportedError
from ovjit.out_of_memory import COMPILED, check_headroom

lock = locks.rlock("loader")
_addresses: dict[str, int] = {}
#: symbol -> the llvmlite engine that has loaded its object.
_engines: dict[str, Any] = {}


def entry(symbol: str, name: str) -> str:
    """The symbol of the function `name` in the object of `symbol`. `kernel` has the object's own symbol."""
    return symbol if name == "kernel" else f"{symbol}_{name}"


def address_of(symbol: str) -> int | None:
    """The address of a kernel; None if it is not loaded."""
    return _addresses.get(symbol)


def loaded_address(symbol: str) -> int:
    """The address of a loaded kernel. Raises KeyError for others."""
    return _addresses[symbol]


def entry_address(symbol: str, name: str) -> int:
    """The address of the function `name` in the loaded object of `symbol`."""
    with lock:
        return _addresses.get(entry(symbol, name)) or _function_address(symbol, entry(symbol, name))


def load(symbol: str, code: bytes) -> int:
    """Load the object `code` and return the address of its function `symbol`. A loaded symbol is not loaded
    again.

    Raises UnsupportedError for code of another machine, and where no code may run: LLVM would abort.
    """
    address = _addresses.get(symbol)
    if address is not None:
        return address
    try:
        with lock:
            addresses = {} if symbol in _addresses else elf.load_object(code)
            _addresses.update(addresses if symbol in addresses else {})
    except elf.Foreign:
        raise UnsupportedError(f"the object code of {symbol} is for another machine") from None
    except elf.Refused as reason:
        logs.debug("llvmlite loads %s: %s", symbol, reason)
    return _addresses[symbol] if symbol in _addresses else _load_by_llvm(symbol, code)


def _load_by_llvm(symbol: str, code: bytes) -> int:
    check_headroom(COMPILED, "loading a kernel")
    from llvmlite import binding as llvm

    from ovjit.codegen.cpu.emit import initialize

    elf.check_executable("this code cannot be loaded")
    with lock:
        if symbol not in _addresses:
            engine = _execution_engine(llvm, initialize)
            engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            engine.finalize_object()
            _engines[symbol] = engine
            _addresses[symbol] = _function_address(symbol, symbol)
        return _addresses[symbol]


def _function_address(owner: str, symbol: str) -> int:
    address = _engines[owner].get_function_address(symbol) if owner in _engines else 0
    if not address:
        raise RuntimeError(f"the object code has no function {symbol}")
    return address


def function(address: int, arity: int, releases_gil: bool = True) -> Callable[..., int]:
    """A Python callable for a native function of `arity` int64s that returns an int64."""
    kind = ctypes.CFUNCTYPE if releases_gil else ctypes.PYFUNCTYPE
    # pointers have the size of an int64, and ctypes converts an int to one in a quarter of the time
    return kind(ctypes.c_int64, *[ctypes.c_void_p] * arity)(address)


def _execution_engine(llvm: Any, initialize: Callable[[], None]) -> Any:
    """An llvmlite engine for one object. It flushes the instruction cache if the architecture requires it.

    A shared engine would allocate memory for code and data at different times. If mappings in between exceed
    the reach of code, LLVM aborts.
    """
    initialize()
    for name, library in system().SYMBOLS.items():
        address = ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value
        llvm.add_symbol(name, address)
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
