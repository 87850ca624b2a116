"""The kernels of a program as PTX: in this process, in the kernel cache, or compiled now.

`Functions` is for the target "cuda" what `ovjit.codegen.loading.Loaded` is for CPUs. A kernel's number is the
index of its PTX, since a plan is made for any card.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.versions import code_digest
from ovjit.disk.kernel_cache import default_cache
from ovjit.forks import ForkLock
from ovjit.hashes import sha256
from ovjit.records import NamedTuple

#: The name of a kernel's entry point in its PTX.
ENTRY = "ovjit_entry"


class Ptx(NamedTuple):
    """The PTX of a kernel, and the name of the kernel for messages."""

    text: str
    name: str


_lock = ForkLock("ptx")
#: All PTX of this process; indices in `Functions` refer to it. Number 0 is no kernel.
_texts: list[Ptx] = [Ptx("", "")]
_numbers: dict[str, int] = {}


def ptx_of(number: int) -> Ptx:
    """The PTX of a kernel's number."""
    return _texts[number]


def symbols() -> dict[int, str]:
    """number -> name of the PTX that it has in caches and blobs."""
    with _lock.lock:
        return {number: symbol for symbol, number in _numbers.items()}


def use_ptx(symbol: str, text: str, name: str) -> int:
    """Use this text for the PTX named `symbol`, unless there is one. Returns its number."""
    with _lock.lock:
        if symbol not in _numbers:
            _numbers[symbol] = len(_texts)
            _texts.append(Ptx(text, name))
        return _numbers[symbol]


def number_of(kernel: Kernel, target: Target) -> int:
    """The number of a kernel's PTX, which is compiled unless the cache has it. Raises UnsupportedError for
    kernels with code of CPUs."""
    parts = ("ptx", kernel.source, kernel.key, target.name, target.cpu, *target.extras, code_digest())
    symbol = "ptx_" + sha256("\0".join(parts).encode()).hexdigest()[:40]
    with _lock.lock:
        if symbol in _numbers:
            return _numbers[symbol]
    cached = default_cache().get(symbol)
    if cached is None:
        from ovjit.codegen.gpu.ptx import compile_ptx

        text = compile_ptx(kernel.source, ENTRY, target)
        default_cache().write(symbol, text.encode(), {"name": kernel.name})
    else:
        text = cached.decode()
    return use_ptx(symbol, text, kernel.name)


class Functions(dict[Any, int]):
    """kernel -> the number of its PTX."""

    def __init__(self, target: Target):
        super().__init__()
        self.target = target
        self.provided: Mapping[str, bytes] | None = None

    def need(
        self,
        kernels: Iterable[Kernel],
        unlikely: Callable[[Collection[Kernel]], Collection[Kernel]] | None = None,
    ) -> None:
        """Ensure that these kernels have PTX, except `unlikely` ones."""
        missing = list(dict.fromkeys(kernel for kernel in kernels if kernel not in self))
        left_out = set(unlikely(missing)) if unlikely is not None and missing else set()
        for kernel in missing:
            if kernel not in left_out:
                self[kernel] = number_of(kernel, self.target)
