"""Calls of native routines by code on the host: the arguments are a block of int64s.

_build_trie = native("ovjit_ops.text.cpu_word_steps", "build_trie")  # a `@block_routine`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel

#: Routine -> its module.
_modules: dict[str, str] = {}


def native(module: str, name: str) -> Callable[..., int]:
    """The routine `name` of a module, which is imported where the routine is compiled: at its first use. It
    takes addresses and integers, and returns an integer."""
    routine = routine_at(module, name)

    def call(*values: int) -> int:
        # its name keeps the block alive until the routine returns, which runs without the GIL
        return routine(address(block := np.array(values, np.int64)))  # noqa: F841

    return call


def routine_at(module: str, name: str) -> Callable[[int], int]:
    """As `native`, for the address of a block of the routine's arguments."""
    loaded: list[Callable[[int], int]] = []
    _modules[name] = module

    def call(block: int) -> int:
        if not loaded:
            loaded.append(_load(name))
        return loaded[0](block)

    return call


def _load(name: str) -> Callable[[int], int]:
    from ovjit.codegen.cpu.objects import function
    from ovjit.codegen.routines import load

    return function(load(name, (name,), lambda: _kernel(name))[name], 1)  # the others are not read


def _kernel(name: str) -> Kernel:
    from ovjit.codegen.routines import routines

    return routines(name, (name,), _modules[name])


def kernels() -> Iterator[Kernel]:
    """The kernels of the routines that imported modules name."""
    yield from map(_kernel, _modules)


def address(array: np.ndarray) -> int:
    """The address of an array's first element."""
    pointer: int = array.__array_interface__["data"][0]
    return pointer
