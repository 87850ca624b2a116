"""A warp of an NVIDIA GPU as 32 threads of this CPU: they run the LLVM code that NVPTX would get.

Instructions of warps (shuffles, barriers, the lane's number, products of bytes) are functions in Python,
where the threads meet.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ovjit.codegen.cpu import emit
from ovjit.codegen.gpu.ptx import TRIPLE, llvm_text
from ovjit.codegen.gpu.words import WARP


class Warp:
    """32 threads that run kernels' sources."""

    def __init__(self) -> None:
        emit.initialize()
        self._local, self._barrier, self._board = threading.local(), threading.Barrier(WARP), [0] * WARP
        self._pool = ThreadPoolExecutor(WARP)
        self._alive: list[Any] = []
        self._compiled: dict[str, tuple[Any, Any]] = {}
        i32 = ctypes.c_int32
        self._define("shfl.sync.bfly.i32", self._shuffle(lambda lane, i: lane ^ i), i32, i32, i32, i32, i32)
        self._define("shfl.sync.idx.i32", self._shuffle(lambda lane, i: i), i32, i32, i32, i32, i32)
        self._define("read.ptx.sreg.laneid", lambda: self._local.lane, i32)
        self._define("bar.warp.sync", self._meet, None, i32)
        self._define("idp4a.u.s", self._dot(np.uint8), i32, i32, i32, i32)
        self._define("idp4a.s.s", self._dot(np.int8), i32, i32, i32, i32)

    def close(self) -> None:
        self._pool.shutdown()

    def run(self, source: str, bases: int, args: int, chunk: int, scratch: int) -> int:
        """The error code of one chunk of a kernel, 0 for none."""
        kernel = self._function(source)

        def run_lane(lane: int) -> int:
            self._local.lane = lane
            return kernel(bases, args, chunk, scratch)

        return max(self._pool.map(run_lane, range(WARP)))

    def _define(self, name: str, function: Callable[..., Any], *kinds: Any) -> None:
        self._alive.append(ctypes.CFUNCTYPE(*kinds)(function))
        llvm.add_symbol(f"nvvm.{name}", ctypes.cast(self._alive[-1], ctypes.c_void_p).value)

    def _meet(self, mask: int) -> None:
        self._barrier.wait(60)

    def _shuffle(self, index_of: Callable[[int, int], int]) -> Callable[..., int]:
        def exchange(mask: int, value: int, index: int, clamp: int) -> int:
            lane = self._local.lane
            self._board[lane] = value
            self._barrier.wait(60)
            other = self._board[index_of(lane, index) % WARP]
            self._barrier.wait(60)
            return other

        return exchange

    @staticmethod
    def _dot(left: Any) -> Callable[..., int]:
        def dot(x: int, w: int, total: int) -> int:
            a, b = (np.array([v], np.int32).view(t).astype(np.int64) for v, t in ((x, left), (w, np.int8)))
            return int(np.array([(total + int(a @ b)) & 0xFFFFFFFF], np.uint32).view(np.int32)[0])

        return dot

    def _function(self, source: str) -> Any:
        if source not in self._compiled:
            text = llvm_text(source).replace("addrspace(1)", "").replace("llvm.nvvm.", "nvvm.")
            text = text.replace(TRIPLE, "").replace("define internal", "define")
            module = llvm.parse_assembly(text)
            module.triple = llvm.get_process_triple()
            features = llvm.get_host_cpu_features().flatten()
            target = llvm.Target.from_triple(module.triple)
            machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=1)
            engine = llvm.create_mcjit_compiler(module, machine)
            engine.finalize_object()
            kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)
            self._compiled[source] = kind(engine.get_function_address("ovjit_kernel")), engine
        return self._compiled[source][0]
