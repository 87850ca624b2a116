"""A warp of an NVIDIA GPU as 32 threads of this CPU: they run the LLVM code that NVPTX would get.

Instructions of warps (shuffles, barriers, the lane's number, products of bytes) are functions in Python,
where the threads meet. So are those of tensor cores, which have their meaning in NumPy, and copies to shared
memory, which arrive at once.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ovjit.codegen.cpu import emit
from ovjit.codegen.gpu.ptx import TRIPLE, llvm_text
from ovjit.codegen.gpu.words import WARP
from tests.support import warp_meanings

#: Instruction -> element type of its factors.
_PRODUCTS = {
    "k16.row.col.f32.f32": "f16", "k16.row.col.bf16": "bf16", "k8.row.col.tf32": "f32",
    "k32.row.col.s8": "i8", "k32.row.col.u8.s8": "u8",
}  # fmt: skip
#: A barrier of a block or a launch, which has one warp.
_MEETING = re.compile(r'call void asm sideeffect "[^"]*bar[.]sync 0;[^"]*", "[^"]*"[(][^)]*[)]')
#: The declaration of an instruction with several results.
_COLLECTIVE = re.compile(r'declare (\{[^}]*\}) (@"nvvm\.[\w.]+)"\(([^)]*)\)')


def _by_memory(match: re.Match[str]) -> str:
    """A function that passes arguments and results in memory, since Python has no structures of registers."""
    result, name, arguments = match.groups()
    kinds = [argument.rsplit(" ", 1)[0] for argument in arguments.split(", ")]
    lines = [f'declare void {name}.together"(ptr, ptr)', f'define {result} {name}"({arguments}) {{']
    lines += ["  %in = alloca [10 x i64]", "  %out = alloca [4 x i32]"]
    for i, (kind, argument) in enumerate(zip(kinds, arguments.split(", "), strict=True)):
        lines += [
            f"  %p{i} = getelementptr i64, ptr %in, i64 {i}",
            f"  store {kind} {argument.rsplit(' ', 1)[1]}, ptr %p{i}",
        ]
    lines += [f'  call void {name}.together"(ptr %in, ptr %out)', f"  %result = load {result}, ptr %out"]
    return "\n".join([*lines, f"  ret {result} %result", "}"])


def _copy(to: int, source: int, size: int) -> None:
    ctypes.memset(to, 0, warp_meanings.COPIED)
    ctypes.memmove(to, source, size)


def _read_tiles(arguments: np.ndarray) -> np.ndarray:
    rows = [ctypes.string_at(address, warp_meanings.COPIED) for address in arguments[:, 0].tolist()]
    return np.frombuffer(b"".join(rows), np.uint32).reshape(4, WARP)


def _read_turned(arguments: np.ndarray) -> np.ndarray:
    tiles = _read_tiles(arguments).view(np.uint16).reshape(4, 8, 8).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).view(np.uint32).reshape(4, WARP)


def _mma(kind: str, arguments: np.ndarray) -> np.ndarray:
    words = np.ascontiguousarray(arguments.T.astype(np.uint32))
    sums = words[6:].view(np.int32 if kind[0] in "iu" else np.float32)
    factors = words[:4], np.concatenate([words[4:6], np.zeros_like(words[4:6])])
    return warp_meanings.mma(SimpleNamespace(lanes=WARP), kind, *factors, 0, sums)


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
        pointer = ctypes.c_void_p
        for register, value in (("tid.y", 0), ("ctaid.x", 0), ("ntid.y", 1), ("nctaid.x", 1)):
            self._define(f"read.ptx.sreg.{register}", lambda value=value: value, i32)
        self._define("cp.async.ca.shared.global.16.s", _copy, None, pointer, pointer, i32)
        self._define("cp.async.commit.group", lambda: None, None)
        self._define("cp.async.wait.group", lambda count: None, None, i32)
        collectives = {"ldmatrix.sync.aligned.m8n8.x4.b16.p3": _read_tiles}
        collectives["ldmatrix.sync.aligned.m8n8.x4.trans.b16.p3"] = _read_turned
        collectives |= {f"mma.m16n8{name}": functools.partial(_mma, kind) for name, kind in _PRODUCTS.items()}
        self._results: np.ndarray = np.zeros(0)
        for name, meaning in collectives.items():
            self._define(f"{name}.together", self._together(meaning), None, pointer, pointer)

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

    def _together(self, meaning: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
        """An instruction of all lanes: from their arguments [lanes, n] to four results of each lane."""

        def run(arguments: int, results: int) -> None:
            lane = self._local.lane
            self._board[lane] = np.frombuffer(ctypes.string_at(arguments, 80), np.int64)  # type: ignore[call-overload]
            self._barrier.wait(60)
            if lane == 0:
                self._results = meaning(np.stack(self._board))
            self._barrier.wait(60)
            own = np.ascontiguousarray(self._results[:, lane])
            ctypes.memmove(results, own.ctypes.data, own.nbytes)
            self._barrier.wait(60)

        return run

    @staticmethod
    def _dot(left: Any) -> Callable[..., int]:
        def dot(x: int, w: int, total: int) -> int:
            a, b = (np.array([v], np.int32).view(t).astype(np.int64) for v, t in ((x, left), (w, np.int8)))
            return int(np.array([(total + int(a @ b)) & 0xFFFFFFFF], np.uint32).view(np.int32)[0])

        return dot

    def _function(self, source: str) -> Any:
        if source not in self._compiled:
            text = re.sub(r"addrspace\([13]\)", "", llvm_text(source)).replace("llvm.nvvm.", "nvvm.")
            text = _COLLECTIVE.sub(_by_memory, text)
            text = _MEETING.sub('call void @"nvvm.bar.warp.sync"(i32 -1)', text)
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
