"""The stand-in for the driver, whose kernels are their PTX in the machine of `ptx_machine`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tests.support.fake_cuda import SUCCESS, FakeCuda, Work, number
from tests.support.ptx_machine import Machine, kernel_of

#: Bytes of the alignment of tensor maps.
_ALIGNMENT = 128


class PtxCuda(FakeCuda):
    """`instructions`: the number that kernels have run."""

    instructions = 0

    def launch(self, function: Any, grid: Any, block: Any, shared: int, stream: Any, arguments: Any,
               extra: Any) -> int:  # fmt: skip
        key = number(stream)
        work = self.capturing[key] if key in self.capturing else self.streams[key]
        code = super().launch(function, grid, block, shared, stream, arguments, extra)
        if code == SUCCESS:
            text = self.texts[number(function)]
            values = [
                _aligned_copy(arguments[i], int(size or 8))
                for i, (_, size) in enumerate(kernel_of(text).parameters)
            ]

            def run() -> None:
                spans = [
                    (begin, array.nbytes) for begin, array in (*self.memory.items(), *self.pinned.items())
                ]
                machine = Machine(text, spans)
                machine.launch(grid[0], block[1], values, shared, "ovjit team" in text)
                self.launches += 1
                self.instructions += machine.count

            work[-1] = Work(run, work[-1].uses)
        return code


def _aligned_copy(address: int, size: int) -> np.ndarray:
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    ctypes.memmove(memory.ctypes.data + begin, address, size)
    return memory[begin : begin + size]
