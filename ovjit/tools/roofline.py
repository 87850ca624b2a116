"""This machine's roof: what one core can compute and move at most, measured by generated kernels.

Compute: independent fused multiply-adds on the vector type that kernels use, nothing loaded or stored.
Bandwidth: a sum over an array, for one in the L2 cache, in the last-level cache if there is one, and
in memory. Measured on first demand, within a second, and kept for the process.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen import kernel as kernels
from ovjit.codegen.cpu import objects
from ovjit.codegen.cpu.isa import Isa, host_isa
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.tiles.formats import WORD, Format

#: Independent accumulators: more than latency times throughput of any core, and few enough for 16 registers.
ACCUMULATORS = 12
#: Vectors that one turn of the stream kernel reads.
STREAMS = 8
#: Seconds of one sample, and how many are taken; the fastest counts.
SAMPLE, SAMPLES = 2e-3, 15
#: Cache sizes where the system does not tell.
L2_BYTES = 1 << 20
#: Bytes that are surely not in a cache; more where the last-level cache is larger than a quarter of it.
MEMORY_BYTES = 128 << 20


class Level(NamedTuple):
    """A place where data lies: `size` bytes of it (inf: memory), read at `bandwidth` bytes a second."""

    name: str
    size: float
    bandwidth: float


class Roof(NamedTuple):
    """What `threads` cores do together: `flops` a second in f32, and the levels, smallest first."""

    isa: str
    threads: int
    flops: float
    levels: tuple[Level, ...]

    def bandwidth(self, moved: float) -> float:
        """Bytes a second for a step that moves `moved` bytes: of the smallest level that holds them."""
        return next(level.bandwidth for level in self.levels if moved <= level.size)

    def share(self, flops: float, moved: float, seconds: float) -> float:
        """The larger of the shares of compute and of bandwidth that a step has reached; 0 for no time."""
        if seconds <= 0:
            return 0.0
        return max(flops / self.flops, moved / self.bandwidth(moved)) / seconds


def fma_kernel() -> Kernel:
    """`turns` times ACCUMULATORS independent `acc = acc * a + b`, nothing to hoist; y = their sum."""
    frame = Frame().pointers("y").integers("turns")
    names = [f"acc{i}" for i in range(ACCUMULATORS)]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += ["    a = load_f32(y)", "    b = load_f32(y + VL * 4)"]
    src += [f"    {name} = load_f32(y + {i} * 4)" for i, name in enumerate(names)]
    src += ["    i = 0", "    while i < turns:"]
    src += [f"        {name} = fma({name}, a, b)" for name in names]
    src += ["        i += 1", f"    total = {names[0]}"]
    src += [f"    total = add(total, {name})" for name in names[1:]]
    src += ["    store_f32(y, total)", "    return 0", ""]
    return Kernel("roof_fma_f32", "\n".join(src), frame)


def dot_kernel(form: Format) -> Kernel:
    """`turns` times ACCUMULATORS independent multiply-adds of the format's words, nothing loaded or
    stored."""
    frame = Frame().pointers("y").integers("turns")
    lines = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    source = "\n".join([*lines, "    spin(y, turns)", "    return 0", ""])
    return Kernel(
        f"roof_dot_{form.name}", source, frame, lambda isa: {"spin": _spin(isa, form)}, key=form.name
    )


def _spin(isa: Isa, form: Format) -> Any:
    from ovjit.codegen.cpu import parts
    from ovjit.tiles.micro import multiply_add

    word, madd = multiply_add(isa, form)
    size = WORD * isa.lanes
    lines = ["define fastcc void @spin(i64 %y, i64 %turns) noinline nounwind {", "entry:"]
    lines += ["%p = inttoptr i64 %y to ptr", f"%wp = getelementptr i8, ptr %p, i64 {size}"]
    lines += [f"%a = load {word}, ptr %p, align 4", f"%w = load {word}, ptr %wp, align 4"]
    lines += ["br label %head", "head:", "%i = phi i64 [ 0, %entry ], [ %next, %body ]"]
    for m in range(ACCUMULATORS):
        lines.append(f"%acc{m} = phi {word} [ zeroinitializer, %entry ], [ %new{m}, %body ]")
    lines += ["%more = icmp slt i64 %i, %turns", "br i1 %more, label %body, label %done", "body:"]
    lines.append("%next = add i64 %i, 1")
    for m in range(ACCUMULATORS):
        lines.append(f"%new{m} = call {word} @madd({word} %acc{m}, {word} %a, {word} %w)")
    lines += ["br label %head", "done:"]
    for m in range(ACCUMULATORS):
        lines.append(f"%to{m} = getelementptr i8, ptr %p, i64 {(2 + m) * size}")
        lines.append(f"store {word} %acc{m}, ptr %to{m}, align 4")
    return parts.calling("spin", 2, {**madd, "spin": "\n".join([*lines, "ret void", "}"])})


def stream_kernel() -> Kernel:
    """Sums `n` bytes (whole turns) of x, `turns` times over."""
    frame = Frame().pointers("x", "y").integers("n", "turns")
    names = [f"acc{i}" for i in range(STREAMS)]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += [f"    {name} = load_f32(x)" for name in names]
    src += [
        "    turn = 0",
        "    while turn < turns:",
        "        p = x",
        "        end = x + n",
        "        while p < end:",
    ]
    src += [f"            {name} = add({name}, load_f32(p + {i} * VL * 4))" for i, name in enumerate(names)]
    src += [f"            p += {STREAMS} * VL * 4", "        turn += 1", f"    total = {names[0]}"]
    src += [f"    total = add(total, {name})" for name in names[1:]]
    src += ["    store_f32(y, total)", "    return 0", ""]
    return Kernel("roof_stream_f32", "\n".join(src), frame)


@functools.cache
def measure(threads: int = 1) -> Roof:
    """The roof of `threads` cores for the instruction set that is compiled for, measured once."""
    isa = host_isa()
    addresses = kernels.addresses((fma_kernel(), stream_kernel()))
    fma, stream = (objects.function(address, 4) for address in addresses.values())
    l2, last = cache_sizes()
    sizes = [("L2", l2)] + ([("L3", last)] if last > 2 * l2 else [])
    levels = []
    for name, size in sizes:
        # Half of it: the rest is for whatever else the core touches. A shared cache is shared out.
        span = size // 2 if name == "L2" else size // 2 // threads
        levels.append(
            Level(name, size * (threads if name == "L2" else 1), _stream(stream, isa, span, threads))
        )
    levels.append(
        Level("memory", math.inf, _stream(stream, isa, max(MEMORY_BYTES, 4 * last) // threads, threads))
    )
    return Roof(isa.name, threads, _fma(fma, isa, threads), tuple(levels))


def dot_peak(form: Format) -> float:
    """Operations a second of one core by the format's instruction, by a new measurement."""
    isa = host_isa()
    address = next(iter(kernels.addresses((dot_kernel(form),)).values()))
    call = objects.function(address, 4)

    def start(turns: int) -> Callable[[], int]:
        return _bound(call, [np.zeros((2 + ACCUMULATORS) * isa.lanes, np.float32)], [0, 0, turns])

    return 2.0 * form.group * isa.lanes * ACCUMULATORS * _rate(start, 1)


def fma_peak() -> float:
    """Floating-point operations a second of one core, by a new measurement: clocks change."""
    address = next(iter(kernels.addresses((fma_kernel(),)).values()))
    return _fma(objects.function(address, 4), host_isa(), 1)


def cache_sizes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> tuple[int, int]:
    """(bytes of the second-level cache, of the largest above it or 0), as Linux tells, else (L2_BYTES, 0)."""
    found: dict[int, int] = {}
    try:
        for entry in root.glob("index*"):
            text = (entry / "size").read_text().strip()
            unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
            found[int((entry / "level").read_text())] = int(text.rstrip("KMGkmg")) * unit
    except (OSError, ValueError):
        return L2_BYTES, 0
    return found.get(2, L2_BYTES), max((size for level, size in found.items() if level > 2), default=0)


def _fma(call: Callable[..., int], isa: Isa, threads: int) -> float:
    def start(turns: int) -> Callable[[], int]:
        y = np.zeros(2 * isa.lanes + ACCUMULATORS, np.float32)
        return _bound(call, [y], [0, 0, turns])

    per_turn = 2.0 * isa.lanes * ACCUMULATORS
    return per_turn * _rate(start, threads)


def _stream(call: Callable[..., int], isa: Isa, span: int, threads: int) -> float:
    block = STREAMS * isa.lanes * 4
    count = max(1, span // block) * block
    arrays = [np.zeros(count // 4 + 16, np.float32) for _ in range(threads)]
    for array in arrays:
        array[:] = 1  # untouched memory is one page of zeros
    free = list(arrays)

    def start(turns: int) -> Callable[[], int]:
        x = free.pop() if free else arrays[0]
        free.insert(0, x)
        return _bound(
            call, [x, np.zeros(isa.lanes, np.float32)], [0, -x.ctypes.data % 64, 1, 0, count, turns]
        )

    return count * _rate(start, threads)


def _bound(call: Callable[..., int], arrays: list[np.ndarray], words: list[int]) -> Callable[[], int]:
    """The native call with this argument block; its memory lives as long as the callable."""
    bases = np.array([a.ctypes.data for a in arrays], np.int64)
    args = np.array(words, np.int64)
    return lambda keep=arrays: call(bases.ctypes.data, args.ctypes.data, 0, 0)  # type: ignore[misc]


def _rate(start: Callable[[int], Callable[[], int]], threads: int) -> float:
    """Turns a second that `threads` threads do together. `start(turns)` makes the call of one of them."""
    turns, seconds = 1, 0.0
    while seconds < SAMPLE:
        seconds = _seconds(start(turns))
        if seconds < SAMPLE:
            turns = turns * max(2, math.ceil(1.2 * SAMPLE / max(seconds, SAMPLE / 1000)))
    if threads == 1:
        call = start(turns)
        return turns / min(_seconds(call) for _ in range(SAMPLES))
    calls = [start(turns) for _ in range(threads)]
    gate = threading.Barrier(threads)
    spent = np.zeros((SAMPLES, threads))

    def run(i: int) -> None:
        for sample in range(SAMPLES):
            gate.wait()
            spent[sample, i] = _seconds(calls[i])

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return turns * threads / float(spent.max(axis=1).min())


def _seconds(call: Callable[[], int]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
