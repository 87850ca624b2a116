"""The meaning in NumPy of the words for blocks of several warps on GPUs of compute capability 9.0: barriers
in shared memory, bulk copies, products of groups of four warps (`wgmma`).

A block's warps run as coroutines: one at a time, until it waits. `Block` knows what each warp has seen, by
vector clocks. It raises `NotArrived` if a warp reads what has not arrived, or whose arrival it has not
awaited, and if a copy is started to what another warp may still read; `Deadlock` if all warps wait. Copies
arrive as late as possible: when all warps wait.

Sums of a group, 64 rows x n columns, are an array [n / 2, lanes] of each of its warps. Warp v has the rows
16 v to 16 v + 15, and lane 4 g + t these columns of the rows g and g + 8, for each group of 32 columns: 8 t
+ 2 j + e, at the index 16 q + 4 j + 2 half + e: weights have their columns permuted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.meanings import from_memory, register_type, to_memory
from ovjit.codegen.warps import ATOM, GROUP, GROUP_ROWS, LINE, STRIP, Form
from ovjit.errors import InferenceError
from ovjit.graph.dtypes import numpy_dtype
from ovjit.records import NamedTuple
from tests.support.warp_meanings import NotArrived, elements_of

#: The name of pieces of memory that no kernel writes.
CONSTANTS = "constants"
#: Bytes that are tracked together.
_UNIT = 16
_PENDING = np.iinfo(np.int64).max


class Deadlock(InferenceError):
    """All warps of a block wait for each other."""


class Barrier:
    """A barrier in shared memory: a phase ends when all have arrived, and all bytes."""

    def __init__(self, count: int, warps: int, owner: int):
        self.count = self.missing = count
        self.bytes = self.phase = 0
        self.clock, self.next_clock = np.full(warps, -1), np.full(warps, -1)
        self.copies, self.next_copies = set[int](), set[int]()
        self.seen_by = {owner}

    def end_phase(self) -> None:
        if self.missing or self.bytes:
            return
        self.phase += 1
        self.missing = self.count
        self.clock = np.maximum(self.clock, self.next_clock)
        self.copies |= self.next_copies


class Copy(NamedTuple):
    """A copy on its way."""

    number: int
    at: int
    data: np.ndarray
    barrier: Barrier
    room: int


class Block:
    """The state that the warps of a block share, and their scheduler."""

    def __init__(self, form: Form, lanes: int):
        self.lanes, self.warps, units = lanes, form.warps, -(-form.size // _UNIT)
        self.content = np.zeros(form.size, np.uint8)
        self.barriers: dict[int, Barrier] = {}
        #: The number of the copy that wrote each unit, and when each warp has read it.
        self.written, self.read = np.full(units, -1), np.full((form.warps, units), -1)
        self.clocks = np.full((form.warps, form.warps), -1)
        np.fill_diagonal(self.clocks, 0)
        self.received: list[set[int]] = [set() for _ in range(form.warps)]
        self.on_the_way: list[Copy] = []
        self.count = 0
        self.products: list[list[list[slice]]] = [[] for _ in range(form.warps)]  # not awaited, of each warp
        self.calls: dict[tuple[int, int], tuple[int, int]] = {}
        self.numbers = [0] * form.warps
        self.has_waited = [form.size == 0] * form.warps  # a team waits as it begins
        self._waiting: list[Callable[[], bool] | None] = [None] * form.warps
        self._turns = [threading.Semaphore(0) for _ in range(form.warps)]
        self._main = threading.Semaphore(0)
        self._error: BaseException | None = None
        self._met, self.meetings = 0, 0

    # -- scheduling

    def run(self, warps: Sequence[Callable[[], int]]) -> int:
        """Run the program of each warp. Returns the greatest of their results."""
        results, alive = [0] * self.warps, set(range(self.warps))

        def start(warp: int) -> None:
            self._turns[warp].acquire()
            try:
                if self._error is None:
                    results[warp] = warps[warp]()
            except BaseException as error:
                self._error = self._error or error
            alive.discard(warp)
            self._main.release()

        threads = [threading.Thread(target=start, args=(warp,), daemon=True) for warp in range(self.warps)]
        for thread in threads:
            thread.start()
        while alive:
            warp = self._find_next(alive)
            self._waiting[warp] = None
            self._turns[warp].release()
            self._main.acquire()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        outstanding = [copy for copy in self.on_the_way if copy.barrier.phase >= 0]
        if outstanding:
            raise NotArrived("a block ends while copies to its shared memory are on their way")
        return max(results)

    def _find_next(self, alive: set[int]) -> int:
        while True:
            for warp in sorted(alive):
                waits = self._waiting[warp]
                if self._error is not None or waits is None or waits():
                    return warp
            if not self.on_the_way:
                self._error = Deadlock(f"the warps {sorted(alive)} wait, and nothing is on its way")
                continue
            self._deliver(self.on_the_way.pop(0))

    def _deliver(self, copy: Copy) -> None:
        self.content[copy.at : copy.at + copy.room] = 0xFF
        self.content[copy.at : copy.at + len(copy.data)] = copy.data
        copy.barrier.bytes -= len(copy.data)
        copy.barrier.next_copies.add(copy.number)
        copy.barrier.end_phase()

    def wait(self, warp: int, condition: Callable[[], bool]) -> None:
        """Let other warps run until the condition is true."""
        if not condition():
            self._waiting[warp] = condition
            self._main.release()
            self._turns[warp].acquire()
            if self._error is not None:
                raise self._error

    def meet(self, warp: int) -> None:
        """A barrier of all warps."""
        generation = self.meetings
        self._met += 1
        if self._met == self.warps:
            self.clocks[:] = self.clocks.max(0)
            together = set[int]().union(*self.received)
            self.received = [set(together) for _ in range(self.warps)]
            for barrier in self.barriers.values():
                barrier.seen_by = set(range(self.warps))
            self._met, self.meetings = 0, generation + 1
        self.wait(warp, lambda: self.meetings > generation)
        self.clocks[warp, warp] += 1

    # -- shared memory

    def span(self, address: int, size: int) -> slice:
        if not 0 <= address <= len(self.content) - size or address % _UNIT or size % _UNIT:
            raise NotArrived(f"{size} bytes at {address} are not in the shared memory, or not aligned")
        return slice(address // _UNIT, (address + size) // _UNIT)

    def barrier(self, warp: int, address: int) -> Barrier:
        state = self.barriers.get(address)
        if state is None or warp not in state.seen_by:
            raise NotArrived(f"warp {warp} uses the barrier at {address} before it has seen its begin")
        return state

    def start_copy(self, warp: int, at: int, data: np.ndarray, address: int, room: int = 0) -> None:
        """Start a copy that arrives at a barrier. Up to `room` bytes it leaves bytes undefined."""
        units, barrier = self.span(at, max(len(data), room)), self.barrier(warp, address)
        if not set(self.written[units].tolist()) <= {-1, *self.received[warp]}:
            raise NotArrived(f"a copy to {at} is started while another one is on its way")
        if (self.read[:, units] > self.clocks[warp][:, None]).any():
            raise NotArrived(f"a copy to {at} is started before all warps have read what was there")
        self.written[units] = self.count
        self.on_the_way.append(Copy(self.count, at, data, barrier, max(len(data), room)))
        self.count += 1

    def begin_read(self, warp: int, address: int, size: int) -> tuple[slice, np.ndarray]:
        """Bytes that an instruction of this warp reads until it is awaited."""
        units = self.span(address, size)
        if not set(self.written[units].tolist()) <= self.received[warp]:
            raise NotArrived(f"warp {warp} reads {size} bytes at {address} before it has awaited their copy")
        self.read[warp, units] = _PENDING
        return units, self.content[address : address + size]

    def end_reads(self, warp: int, count: int) -> None:
        """All but the last `count` products of a warp are complete."""
        groups = self.products[warp]
        done = [groups.pop(0) for _ in range(len(groups) - count)]
        for units in (units for group in done for units in group):
            self.read[warp, units] = self.clocks[warp, warp]
        for units in (units for group in groups for units in group):
            self.read[warp, units] = _PENDING


def run_block(form: Form, lanes: int, start: Callable[[Block, int], Callable[[], int]]) -> int:
    """Run a block: `start(block, warp)` gives the program of a warp. Returns its error code."""
    block = Block(form, lanes)
    return block.run([start(block, warp) for warp in range(form.warps)])


# --- the words


def block_memory(m: Any, size: int, warps: int) -> int:
    """The address of the shared memory of this block of `warps` warps, whose content is undefined."""
    return 0


def warp_number(m: Any) -> int:
    number: int = m.warp
    return number


def block_warps(m: Any, warps: int, blocks: int) -> int:
    """The number of warps of this block. They meet at `meet_block`. `blocks`: see `Form`."""
    return warps


def grid_warps(m: Any, requested: int, warps: int) -> int:
    """The number of warps of this launch, in blocks of `warps`: as many as are requested, or as a card runs
    at a time. They meet at `meet_grid`."""
    number: int = m.block.warps
    return number


def meet_grid(m: Any, p: int) -> None:
    """A barrier of all warps of this launch. The 4 bytes at p are zero before the first one."""
    counter = m.memory.at(p, 4, 4).view(np.uint32)
    if counter[0] != m.block.meetings % 2 << 31:
        raise NotArrived("the counter of a barrier is not zero before the first one")
    m.block.meet(m.warp)
    counter[0] = m.block.meetings % 2 << 31


def begin_barrier(m: Any, p: int, count: int) -> None:
    """A barrier of 8 bytes for `count` arrivals in each phase."""
    m.block.barriers[p] = Barrier(count, m.block.warps, m.warp)


def meet_block(m: Any) -> None:
    m.block.meet(m.warp)


def arrive(m: Any, p: int) -> None:
    """This warp arrives at a barrier: what it has read may be overwritten by those who await the phase."""
    barrier, clock = m.block.barrier(m.warp, p), m.block.clocks[m.warp]
    if barrier.missing <= 0:
        raise NotArrived(f"too many arrivals at the barrier at {p}")
    barrier.missing -= 1
    barrier.next_clock = np.maximum(barrier.next_clock, clock)
    barrier.next_copies |= m.block.received[m.warp]
    clock[m.warp] += 1
    barrier.end_phase()


def expect_copies(m: Any, p: int, size: int) -> None:
    """As `arrive`; the phase ends when `size` bytes have arrived, too."""
    m.block.barrier(m.warp, p).bytes += size
    arrive(m, p)


def await_phase(m: Any, p: int, parity: int) -> None:
    """Wait until the phase of this parity has ended. The one before the first has parity 1."""
    barrier = m.block.barrier(m.warp, p)
    m.block.wait(m.warp, lambda: barrier.phase % 2 != parity)
    m.block.clocks[m.warp] = np.maximum(m.block.clocks[m.warp], barrier.clock)
    m.block.received[m.warp] |= barrier.copies


def is_constant(memory: Any, address: int) -> bool:
    """True unless kernels may write this memory; always where no piece has the name of constants."""
    spans = [
        piece[:2]
        for piece, name in zip(memory.pieces, memory.names, strict=True)
        if name.startswith(CONSTANTS)
    ]
    return not spans or any(start <= address < stop for start, stop in spans)


def copy_strips(m: Any, to: int, source: int, step: int, last: int, count: int, p: int) -> None:
    """Start to copy `count` strips of STRIP bytes of the card's memory: `step` bytes apart, those behind
    number `last` repeat it. They arrive at the barrier p. Constant ones need no `await_leaders` before."""
    if not m.block.has_waited[m.warp] and not is_constant(m.memory, source):
        raise NotArrived("a kernel reads computed weights before it has awaited the kernels before it")
    for i in range(count):
        data = m.memory.at(source + min(i, last) * step, STRIP, 16).copy()
        m.block.start_copy(m.warp, to + i * STRIP, data, p)


def copy_box(
    m: Any, to: int, a: int, step: int, rows: int, depth: int, column: int, row: int, height: int, p: int
) -> None:
    """Start to copy `height` rows, from `row` on, and LINE bytes of each, from byte `column` on, of a matrix
    at a with `rows` rows of `depth` bytes, `step` bytes apart; zeros beyond its ends. In each row, the 16
    bytes at 16 c go to 16 (c ^ row % 8). The first arguments but `to` are arguments of the kernel."""
    if not m.block.has_waited[m.warp]:
        raise NotArrived("a kernel reads before it has awaited the kernels before it")
    if a % 16 or step % 16 or to % ATOM:
        raise NotArrived("a matrix for copies of boxes is not aligned")
    box = np.zeros((height, LINE), np.uint8)
    width = max(0, min(LINE, depth - column))
    for i in range(min(height, rows - row) if width else 0):
        box[i, :width] = m.memory.at(a + (row + i) * step + column, width)
    m.block.start_copy(m.warp, to, _swizzle(box), p)


def copy_pixels(
    m: Any, to: int, data: int, step_w: int, step_h: int, step_n: int, depth: int, width: int, height: int,
    count: int, pixels: int, lines: int, images: int, stride_w: int, stride_h: int, column: int, x: int,
    y: int,
    n: int, rows: int, p: int,
) -> None:  # fmt: skip
    """As `copy_box` for `images` x `lines` x `pixels` pixels of a tensor [count, height, width, depth],
    that are `stride_h` and `stride_w` apart from (n, y, x) on: its first rows; the others, up to `rows`,
    are undefined. x and y may be outside of the tensor. The arguments from `data` to `stride_h` are
    arguments of the kernel."""
    if not m.block.has_waited[m.warp]:
        raise NotArrived("a kernel reads before it has awaited the kernels before it")
    if data % 16 or step_w % 16 or step_h % 16 or step_n % 16 or to % ATOM or pixels * lines * images > rows:
        raise NotArrived("a tensor for copies of windows is not aligned, or they are too large")
    window = np.zeros((images, lines, pixels, LINE), np.uint8)
    size = max(0, min(LINE, depth - column))
    for i, j, k in np.ndindex(images, lines, pixels):
        at = n + i, y + j * stride_h, x + k * stride_w
        if size and all(0 <= a < end for a, end in zip(at, (count, height, width), strict=True)):
            offset = at[0] * step_n + at[1] * step_h + at[2] * step_w + column
            window[i, j, k, :size] = m.memory.at(data + offset, size)
    box = window.reshape(-1, LINE)
    m.block.start_copy(m.warp, to, _swizzle(box), p, rows * LINE)


def _swizzle(box: np.ndarray) -> np.ndarray:
    order = np.arange(8)[None] ^ np.arange(len(box))[:, None] % 8
    return np.take_along_axis(box.reshape(-1, 8, 16), order[..., None], 1).reshape(-1)


def start_followers(m: Any) -> None:
    """The kernel behind this one may start: it awaits the end of this one before it reads results."""


def await_leaders(m: Any) -> None:
    """Wait for the end of the kernels before this one, and see what they have stored."""
    m.block.has_waited[m.warp] = True


def set_registers(m: Any, count: int) -> None:
    """Each warp of this group has `count` registers for a thread from now on: more are taken when other
    groups have left theirs."""


def _factor(m: Any, address: int, rows: int) -> tuple[slice, np.ndarray]:
    """Rows of LINE bytes in the shared memory, in their order in the matrix."""
    if address % ATOM:
        raise NotArrived(f"a factor at {address} is not aligned")
    units, data = m.block.begin_read(m.warp, address, rows * LINE)
    order = np.arange(8)[None] ^ np.arange(rows)[:, None] % 8
    return units, np.take_along_axis(data.reshape(rows, 8, 16), order[..., None], 1).reshape(rows, LINE)


def _elements(lines: np.ndarray, dtype: str) -> np.ndarray:
    """Rows of bytes, read as elements of `dtype`, in a wider type in which NumPy's products are exact."""
    return elements_of(np.ascontiguousarray(lines).view(np.uint32), dtype)


def zero_group(columns: int, m: Any, dtype: str) -> np.ndarray:
    return np.zeros((columns // 2, m.lanes), np.int32 if dtype[0] in "iu" else np.float32)


def multiply_group(columns: int, m: Any, dtype: str, pa: int, pb: int, sums: np.ndarray) -> np.ndarray:
    """sums + the products of the 64 rows of this group of warps and of the columns, of LINE bytes each.
    They, and both factors, must not be touched before `await_group`."""
    block, number = m.block, m.block.numbers[m.warp]
    block.numbers[m.warp] += 1
    if block.calls.setdefault((m.warp // GROUP, number), (pa, pb)) != (pa, pb):
        raise NotArrived("the warps of a group multiply different factors")
    (a_units, a), (b_units, b) = _factor(m, pa, GROUP_ROWS), _factor(m, pb, columns)
    block.products[m.warp].append([a_units, b_units])
    first = m.warp % GROUP * 16
    products = _elements(a[first : first + 16], dtype) @ _elements(b, "i8" if dtype == "u8" else dtype).T
    # [half, g, 8 columns of an instruction, t, e] -> [.., half, e, (g, t)]
    lanes = products.reshape(2, 8, columns // 8, 4, 2).transpose(2, 0, 4, 1, 3).reshape(-1, m.lanes)
    return (lanes + sums).astype(sums.dtype)


def await_group(m: Any, dtype: str, sums: np.ndarray, count: int) -> np.ndarray:
    """The sums, when all but the last `count` products of this warp are complete."""
    m.block.end_reads(m.warp, count)
    return sums


def part_of_group(m: Any, dtype: str, sums: np.ndarray, index: int) -> np.ndarray:
    """Register `index` of the sums."""
    if m.block.products[m.warp]:
        raise NotArrived("sums are read before their products are complete")
    part: np.ndarray = sums[index]
    return part


def _check_wait(m: Any) -> None:
    """Fails if a block accesses memory before it has awaited the kernels before it."""
    block = getattr(m, "block", None)
    if block is not None and not block.has_waited[m.warp]:
        raise NotArrived("a kernel accesses memory before it has awaited the kernels before it")


def load_eight(m: Any, dtype: str, p: int, at: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Eight adjacent elements from p + at on in lanes with `valid`, else zeros."""
    _check_wait(m)
    size = 8 * numpy_dtype(dtype).itemsize
    out = np.zeros((8, m.lanes), register_type(dtype))
    for lane in np.flatnonzero(valid):
        out[:, lane] = from_memory(m.memory.at(p + int(at[lane]), size, 16), dtype)
    return out


def load_fragment(m: Any, p: int, at: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Four adjacent words from p + at on in lanes with `valid`, else zeros."""
    _check_wait(m)
    out = np.zeros((4, m.lanes), np.int32)
    for lane in np.flatnonzero(valid):
        out[:, lane] = m.memory.at(p + int(at[lane]), 16, 16).view(np.int32)
    return out


def store_eight(m: Any, dtype: str, p: int, at: np.ndarray, values: np.ndarray, valid: np.ndarray) -> None:
    _check_wait(m)
    size = 8 * numpy_dtype(dtype).itemsize
    for lane in np.flatnonzero(valid):
        m.memory.at(p + int(at[lane]), size, 16)[:] = to_memory(np.ascontiguousarray(values[:, lane]), dtype)
