"""Plans for cards run in this process's memory, one chunk after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.gpu.words import WARP
from ovjit.execution.numpy_words import Memory
from ovjit.graph.dtypes import numpy_dtype
from tests.support.block_meanings import CONSTANTS
from tests.support.card_words import CardWords
from tests.support.gpu_words import program
from tests.support.warps import Warp


class PlanMemory:
    """A plan's memory in this process: arena, constants, data, inputs, outputs."""

    def __init__(self, plan: Any, inputs: Sequence[np.ndarray], dtypes: Sequence[str] | None = None):
        """`dtypes`: the element types of the outputs; f32 without."""
        self.plan = plan
        arena = np.zeros(plan.scratch_offset + plan.scratch_size + 64, np.uint8)
        constants = np.ascontiguousarray(plan.memory).view(np.uint8)
        data = np.concatenate(
            [np.ascontiguousarray(plan.data).view(np.uint8).reshape(-1), np.zeros(64, np.uint8)]
        )
        types = dtypes or ["f32"] * len(plan.output_shapes)
        self.outputs = [
            np.zeros(shape, numpy_dtype(dtype))
            for shape, dtype in zip(plan.output_shapes, types, strict=True)
        ]
        arrays = [*map(np.ascontiguousarray, inputs), *self.outputs]
        self.pieces = [arena, constants, data, *(a.reshape(-1).view(np.uint8) for a in arrays)]
        self.bases = np.array([piece.ctypes.data for piece in self.pieces], np.int64)
        self.scratch = arena.ctypes.data + plan.scratch_offset

    def run(self, run_chunk: Callable[[str, Memory, np.ndarray, int], int]) -> list[np.ndarray]:
        for i, (step, words) in enumerate(zip(self.plan.steps, self.plan.words, strict=True)):
            assert step.kernel is not None, f"{step.name} is not native"
            block = np.array(list(words) or [0], np.int64)
            named = [
                (a.ctypes.data, a.nbytes, CONSTANTS if a is self.pieces[1] else "memory")
                for a in (*self.pieces, self.bases, block)
                if a.nbytes
            ]
            for chunk in range(self.plan.chunks_of(i)):
                assert run_chunk(step.kernel.source, Memory(named), block, chunk) == 0
        return self.outputs

    def run_words(
        self, words: Callable[[int, Memory], Any] = CardWords, change: Callable[[str], str] = str
    ) -> list[np.ndarray]:
        """The outputs where kernels run as NumPy vectors of a warp, by `words` of lanes and memory. `change`:
        of kernels' sources."""

        def run_chunk(source: str, checked: Memory, block: np.ndarray, chunk: int) -> int:
            kernel = program(change(source), words(WARP, checked))
            with np.errstate(all="ignore"):
                return kernel(self.bases.ctypes.data, block.ctypes.data, chunk, self.scratch)

        return self.run(run_chunk)

    def run_threads(self) -> list[np.ndarray]:
        """The outputs where kernels run as the threads of a warp."""
        warp = Warp()

        def run_chunk(source: str, checked: Memory, block: np.ndarray, chunk: int) -> int:
            return warp.run(source, self.bases.ctypes.data, block.ctypes.data, chunk, self.scratch)

        try:
            return self.run(run_chunk)
        finally:
            warp.close()
