"""The roofline of this machine: the peak arithmetic and bandwidth of its cores, measured with generated
kernels.

Compute: independent fused multiply-adds of the vector type that kernels use, without loads and stores.
Bandwidth: a sum over an array in the L2 cache, one in the last-level cache if there is one, and one in
memory. The first use measures them, in a second or two; the process keeps the results.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.codegen import loading
from ovjit.codegen.cpu import objects
from ovjit.codegen.cpu.formats import F32, WORD, Format, available_formats
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.records import NamedTuple
from ovjit.tiles.sizes import WAYS

#: Independent accumulators: more than latency times throughput of any core, and few enough for 16 registers.
ACCUMULATORS = 12
#: Vectors that one iteration of the stream kernel reads.
STREAMS = 8
#: Seconds of a sample, and the number of samples, of which the fastest counts. Long samples, such as those of
#: memory, are only repeated for ENOUGH seconds, but at least FEWEST times.
SAMPLE, SAMPLES = 2e-3, 15
ENOUGH, FEWEST = 0.2, 3
#: Cache sizes if the system does not report them.
L2_BYTES = 1 << 20
#: Bytes of the array in memory, which should exceed all caches. It is four times the last-level cache if that
#: is more, up to MOST_BYTES: a server's cache of hundreds of megabytes is shared, and memory may be limited.
MEMORY_BYTES, MOST_BYTES = 128 << 20, 512 << 20


class Level(NamedTuple):
    """A level of the memory hierarchy: `size` in bytes (inf: memory), and the `bandwidth` of reads in bytes
    per second."""

    name: str
    size: float
    bandwidth: float


class Roofline(NamedTuple):
    """The peaks of `threads` cores together: `flops` per second in f32, and the levels, smallest first.
    `peaks`: the operations per second in other formats, by name."""

    isa: str
    threads: int
    flops: float
    levels: tuple[Level, ...]
    peaks: Mapping[str, float] = {}

    def bandwidth(self, moved: float) -> float:
        """Bytes per second for a step that moves `moved` bytes: the bandwidth of the smallest level that
        holds them."""
        return next(level.bandwidth for level in self.levels if moved <= level.size)

    def share(self, flops: float, moved: float, seconds: float, form: str = "f32") -> float:
        """The share of the roofline that a step has reached: the larger one of its shares of compute, in that
        format, and of bandwidth.

        0 if the time is 0.
        """
        if seconds <= 0:
            return 0.0
        return max(flops / self.peaks.get(form, self.flops), moved / self.bandwidth(moved)) / seconds


def of_card(number: int) -> Roofline:
    """The peaks of a GPU, as its clocks and widths say; they are not measured."""
    from ovjit.gpu.driver import open_card

    card = open_card(number)
    major, minor = card.facts.capability
    memory = Level("memory", math.inf, card.peak_bandwidth())
    return Roofline(
        f"sm_{major}{minor}", card.attribute("MULTIPROCESSOR_COUNT"), card.peak_flops(), (memory,)
    )


def dot_kernel(form: Format) -> Kernel:
    """`turns` times ACCUMULATORS independent multiply-adds of the format's words, nothing loaded or stored;
    y = the sum of the accumulators.

    They begin with different words of y, so that no compiler finds them to be one.
    """
    frame = KernelArgs().pointers("y").integers("turns")
    lines = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    source = "\n".join([*lines, "    spin(y, turns)", "    return 0", ""])
    return Kernel(
        f"roof_dot_{form.name}", source, frame, lambda isa: {"spin": _compile_spin(isa, form)},
        f"{form.name}{' narrow' if form.listed else ''}", form.name,
    )  # fmt: skip


def _compile_spin(isa: Target, form: Format) -> Any:
    """Compile a loop of multiply-adds on registers, whose time gives the peak rate."""
    from ovjit.codegen.cpu import llvm_parts
    from ovjit.tiles.micro import multiply_add, narrow_products, widen_sums

    word, madd = multiply_add(isa, form)
    span = 1  # words that a call multiplies
    if form.listed:
        madd, span = narrow_products(isa, form, WAYS[0], "way") | widen_sums(isa, form), WAYS[0].span
    add = "add" if form.acc == "i32" else "fadd"
    lines = ["define fastcc void @spin(i64 %y, i64 %turns) noinline nounwind {", "entry:"]
    lines += ["%p = inttoptr i64 %y to ptr", f"%wp = getelementptr i8, ptr %p, i64 {WORD * isa.lanes}"]
    for m in range(ACCUMULATORS):
        lines.append(f"%from{m} = getelementptr i8, ptr %p, i64 {WORD * m}")
        lines.append(f"%first{m} = load {word}, ptr %from{m}, align {WORD}")
    lines += [f"%a = load {word}, ptr %p, align {WORD}", f"%w = load {word}, ptr %wp, align {WORD}"]
    words = range(span)
    lines += [f"%w{v}.{n} = {_other(word, '%w')}" for v in range(isa.tile_vectors) for n in words]
    lines += ["br label %head", "head:", "%i = phi i64 [ 0, %entry ], [ %next, %body ]"]
    for m in range(ACCUMULATORS):
        lines.append(f"%acc{m} = phi {word} [ %first{m}, %entry ], [ %new{m}, %body ]")
    lines += ["%more = icmp slt i64 %i, %turns", "br i1 %more, label %body, label %done", "body:"]
    lines.append("%next = add i64 %i, 1")
    for m in range(ACCUMULATORS):
        pairs = [("%a", "%w")]
        if form.products > 1:
            # The optimiser is to think of all operands as different, or it multiplies once for all sums.
            # As in a tile, a word is taken apart once for `tile_vectors` of them.
            row, v = divmod(m, isa.tile_vectors)
            pairs = [(f"%a{row}.{n}", f"%w{v}.{n}") for n in words]
            if not v:
                lines += [f"{a} = {_other(word, '%a')}" for a, _ in pairs]
        operands = ", ".join(f"{word} {value}" for values in zip(*pairs, strict=True) for value in values)
        if form.listed:
            lines.append(f"%sums{m} = call {word} @way({operands})")
            lines.append(f"%new{m} = call {word} @widen({word} %acc{m}, {word} %sums{m})")
        else:
            lines.append(f"%new{m} = call {word} @madd({word} %acc{m}, {operands})")
    lines += ["br label %head", "done:"]
    for m in range(1, ACCUMULATORS):
        lines.append(f"%sum{m} = {add} {word} {f'%sum{m - 1}' if m > 1 else '%acc0'}, %acc{m}")
    lines.append(f"store {word} %sum{ACCUMULATORS - 1}, ptr %p, align {WORD}")
    return llvm_parts.calling("spin", 2, {**madd, "spin": "\n".join([*lines, "ret void", "}"])})


def _other(word: Any, name: str) -> str:
    """LLVM text for the same value, hidden from the optimiser."""
    return f'call {word} asm sideeffect "", "=x,0"({word} {name})'


def stream_kernel() -> Kernel:
    """A kernel that adds up the `n` bytes at x, `turns` times over. The inner loop's step divides `n`."""
    frame = KernelArgs().pointers("x", "y").integers("n", "turns")
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
def measure(threads: int = 1, formats: frozenset[str] = frozenset()) -> Roofline:
    """The roofline of `threads` cores for the current instruction set, with the peaks of f32 and of these
    formats. It is measured once."""
    isa = host_target()
    (address,) = loading.addresses((stream_kernel(),)).values()
    stream = objects.function(address, 4)
    l2, last = cache_sizes()
    sizes = [("L2", l2)] + ([("L3", last)] if last > 2 * l2 else [])
    levels = []
    for name, size in sizes:
        # Half of the cache, as the core also accesses other data. Of a shared cache, each thread has a part.
        span = size // 2 if name == "L2" else size // 2 // threads
        levels.append(
            Level(name, size * (threads if name == "L2" else 1), _stream(stream, isa, span, threads))
        )
    span = min(max(MEMORY_BYTES, 4 * last), MOST_BYTES) // threads
    levels.append(Level("memory", math.inf, _stream(stream, isa, span, threads)))
    measured = (f for f in available_formats(isa) if f.name in formats and f is not F32)
    real = dot_peak(F32, threads)
    least = real if isa.slow_dots else 0.0  # products of bf16 are then made by multiply-adds
    peaks = {f.name: max(dot_peak(f, threads), least) for f in measured}
    return Roofline(isa.name, threads, real, tuple(levels), peaks)


def dot_peak(form: Format, threads: int = 1) -> float:
    """Operations per second of `threads` cores with the format's instruction. Each call measures, as clocks
    change."""
    isa = host_target()
    if form.products > 1:  # the rate for the most favourable weights, see `ovjit.tiles.narrow`
        form = form._replace(listed=True)
    (address,) = loading.addresses((dot_kernel(form),)).values()
    call = objects.function(address, 4)

    def start(turns: int) -> Callable[[], int]:
        return bind_call(call, [np.zeros(2 * isa.lanes + ACCUMULATORS, np.float32)], [0, 0, turns])

    span = WAYS[0].span if form.listed else 1
    return 2.0 * form.group * span * isa.lanes * ACCUMULATORS * _rate(start, threads)


def cache_sizes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> tuple[int, int]:
    """(bytes of the second-level cache, bytes of the largest one above it or 0), as Linux reports them; else
    (L2_BYTES, 0)."""
    sizes: dict[int, int] = {}
    try:
        for entry in root.glob("index*"):
            text = (entry / "size").read_text().strip()
            unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
            sizes[int((entry / "level").read_text())] = int(text.rstrip("KMGkmg")) * unit
    except (OSError, ValueError):
        return L2_BYTES, 0
    return sizes.get(2, L2_BYTES), max((size for level, size in sizes.items() if level > 2), default=0)


def _stream(call: Callable[..., int], isa: Target, span: int, threads: int) -> float:
    block = STREAMS * isa.lanes * 4
    count = max(1, span // block) * block
    arrays = [np.zeros(count // 4 + 16, np.float32) for _ in range(threads)]
    for array in arrays:
        array[:] = 1  # untouched memory is one page of zeros
    free = list(arrays)

    def start(turns: int) -> Callable[[], int]:
        x = free.pop() if free else arrays[0]
        free.insert(0, x)
        return bind_call(
            call, [x, np.zeros(isa.lanes, np.float32)], [0, -x.ctypes.data % 64, 1, 0, count, turns]
        )

    return count * _rate(start, threads)


def bind_call(call: Callable[..., int], arrays: list[np.ndarray], words: list[int]) -> Callable[[], int]:
    """A callable that runs native code with this argument block, and keeps the block's memory alive."""
    bases = np.array([a.ctypes.data for a in arrays], np.int64)
    args = np.array(words, np.int64)
    return lambda keep=arrays: call(bases.ctypes.data, args.ctypes.data, 0, 0)  # type: ignore[misc]


def _rate(start: Callable[[int], Callable[[], int]], threads: int) -> float:
    """Turns per second of `threads` threads together. `start(turns)` makes the call for one thread."""
    turns, seconds = 1, 0.0
    while seconds < SAMPLE:
        call = start(turns)
        seconds = min(_seconds(call), _seconds(call))  # the system may have interrupted one
        if seconds < SAMPLE:
            turns = turns * max(2, math.ceil(1.2 * SAMPLE / max(seconds, SAMPLE / 1000)))
    samples = min(SAMPLES, max(FEWEST, int(ENOUGH / seconds)))
    if threads == 1:
        call = start(turns)
        return turns / min(_seconds(call) for _ in range(samples))
    calls = [start(turns) for _ in range(threads)]
    gate = threading.Barrier(threads)
    spent = np.zeros((samples, threads))

    def run(i: int) -> None:
        for sample in range(samples):
            gate.wait()
            spent[sample, i] = _seconds(calls[i])

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return turns * threads / float(spent.max(axis=1).min())


def _seconds(call: Callable[[], int]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
