"""A stand-in for the CUDA driver's library: the card's memory is this process's, and kernels run as NumPy
vectors.

It checks the order and the arguments of calls: arguments have the types of the driver's parameters, the
driver is initialized and a context is current in the thread, addresses must lie in memory that is
allocated, elements are aligned, streams, events and graphs must exist, captured copies have pinned memory,
and nothing is freed twice or while a stream has work that uses it. The work of a stream takes place when
that stream is synchronized: a result that is read too early is wrong, and so is one of another stream that
was not waited for. Pageable memory is read at the call, as the driver may do, and pinned memory when the
stream gets there.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.gpu import functions
from ovjit.codegen.warps import block_form
from ovjit.execution.numpy_words import Memory
from ovjit.gpu.blocks import block_launch, starts_early
from ovjit.gpu.signatures import SIGNATURES, LaunchAttribute
from tests.support.block_meanings import CONSTANTS
from tests.support.card_words import CardWords
from tests.support.gpu_words import program

#: Results of the driver.
SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, INVALID_CONTEXT, NOT_FOUND = 0, 1, 2, 3, 201, 500
#: The first word of a tensor map of this driver.
MAP = 0x6D6170
#: The handle of the first card's primary context. Those of further ones follow.
CONTEXT = 77
#: Functions that need neither `cuInit` nor a context.
_FREE = ("cuInit", "cuDriverGetVersion", "cuGetErrorString")
_WORDS = {1: b"invalid argument", 2: b"out of memory", 100: b"no CUDA-capable device is detected",
          700: b"an illegal memory access was encountered",
          46: b"CUDA-capable device(s) is/are busy or unavailable", 3: b"initialization error",
          201: b"invalid device context"}  # fmt: skip


def number(value: Any) -> int:
    """The number in an argument of ctypes."""
    return int(getattr(value, "value", value) or 0)


def check_arguments(name: str, arguments: tuple[Any, ...]) -> None:
    """Fails unless ctypes would pass these arguments with the types of the driver's parameters."""
    kinds = SIGNATURES[name]
    assert len(arguments) == len(kinds), f"{name} has {len(kinds)} parameters, not {len(arguments)}"
    for i, (kind, argument) in enumerate(zip(kinds, arguments, strict=True)):
        if kind is not ctypes.c_void_p:
            given = getattr(argument, "value", argument)
            assert given is not None, f"{name}, argument {i} is NULL"
            assert kind is ctypes.c_char_p or kind(given).value == given, f"{name}, argument {i}: {given}"
        kind.from_param(argument)  # TypeError for another type


def target(reference: Any) -> Any:
    """The object that a `byref` argument refers to."""
    return getattr(reference, "_obj", reference)


class FakeCuda:
    """A library with `cards` cards. `sources`: PTX -> the kernel's source, filled by `remember_sources`."""

    def __init__(self, cards: int = 1, capability: tuple[int, int] = (9, 0), memory: int = 1 << 30):
        self.cards, self.capability, self.capacity = cards, capability, memory
        self.calls: list[str] = []
        self.fail: dict[str, int] = {}
        self.memory: dict[int, np.ndarray] = {}
        #: Address of a card's memory, or stream -> its context.
        self.owners: dict[int, int] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.sources: dict[str, str] = {}
        self.modules: dict[int, str] = {}
        self.texts: dict[int, str] = {}
        self.most_shared: dict[int, int] = {}
        #: Functions that the driver has loaded; it loads others at their launch, which no graph captures.
        self.loaded: set[int] = set()
        #: Handle -> its work, each with the addresses of the memory that it uses.
        self.streams: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.failed: set[int] = set()  # captures
        self.graphs: dict[int, list[Work]] = {}
        self.events: dict[int, float] = {}
        self.launches = self.replays = self.instantiated = self.updates = 0
        self.version = 12040
        self.multiprocessors = 132
        #: Blocks that a multiprocessor runs at a time, and the warps of launches that all run at a time.
        self.resident, self.grids = 2, list[int]()
        self.is_initialized, self._thread = False, threading.local()
        self._next = 1 << 40

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        method = getattr(type(self), "do_" + name.removesuffix("_v2"), None)
        assert method is not None and name in SIGNATURES, f"the fake driver has no {name}"

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            check_arguments(name, arguments)
            if name in self.fail:
                self.failed |= set(self.capturing) if "Launch" in name else set()
                return self.fail[name]
            if not self.is_initialized and name not in _FREE:
                return NOT_INITIALIZED
            if name not in (*_FREE, "cuCtxPushCurrent_v2") and not name.startswith("cuDevice"):
                if not self.contexts or not 0 <= self.contexts[-1] - CONTEXT < self.cards:
                    return INVALID_CONTEXT
            return method(self, *arguments) or SUCCESS

        return call

    def new(self) -> int:
        self._next += 1
        return self._next

    @property
    def contexts(self) -> list[int]:
        """The stack of contexts of this thread."""
        stack: list[int] = self._thread.__dict__.setdefault("contexts", [])
        return stack

    @property
    def used(self) -> int:
        return sum(array.nbytes for array in self.memory.values())

    # -- library and cards

    def do_cuInit(self, flags: int) -> int:
        self.is_initialized = bool(self.cards)
        return SUCCESS if self.cards else 100

    def do_cuDriverGetVersion(self, version: Any) -> None:
        target(version).value = self.version

    def do_cuGetErrorString(self, code: int, text: Any) -> None:
        target(text).value = _WORDS.get(code, b"unknown error")

    def do_cuDeviceGetCount(self, count: Any) -> None:
        target(count).value = self.cards

    def do_cuDeviceGet(self, device: Any, index: int) -> int:
        if not 0 <= index < self.cards:
            return 101
        target(device).value = index
        return SUCCESS

    def do_cuDeviceGetName(self, name: Any, size: int, device: Any) -> None:
        name.value = b"NVIDIA Fake 100"

    def do_cuDeviceTotalMem(self, size: Any, device: Any) -> None:
        target(size).value = self.capacity

    def do_cuDeviceGetUuid(self, uuid: Any, device: Any) -> None:
        uuid.raw = bytes(range(16))

    def do_cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> None:
        known = {
            75: self.capability[0],
            76: self.capability[1],
            16: self.multiprocessors,
            33: 3,
            34: 0,
            50: 0,
            36: 2_619_000,
            37: 5120,
            38: 50 << 20,
            13: 1_980_000,
        }
        target(value).value = known.get(attribute, 0)

    def do_cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> None:
        target(context).value = CONTEXT + number(device)

    def do_cuCtxPushCurrent(self, context: Any) -> None:
        assert 0 <= number(context) - CONTEXT < self.cards
        self.contexts.append(number(context))

    def do_cuCtxPopCurrent(self, context: Any) -> None:
        target(context).value = self.contexts.pop()

    def do_cuMemGetInfo(self, free: Any, total: Any) -> None:
        target(free).value, target(total).value = self.capacity - self.used, self.capacity

    # -- memory

    def do_cuMemAlloc(self, address: Any, size: Any) -> int:
        count = number(size)
        assert count > 0
        if self.used + count > self.capacity:
            return OUT_OF_MEMORY
        array = np.full(count + 64, 0xA5, np.uint8)
        begin = (array.ctypes.data + 63) // 64 * 64 - array.ctypes.data
        inner = array[begin : begin + count]
        self.memory[inner.ctypes.data] = inner
        self.owners[inner.ctypes.data] = self.contexts[-1]
        target(address).value = inner.ctypes.data
        return SUCCESS

    def check_unused(self, memory: np.ndarray) -> None:
        """Nothing that a stream has to do uses this memory."""
        begin, end = memory.ctypes.data, memory.ctypes.data + memory.nbytes
        for work in self.streams.values():
            used = [address for item in work for address in item.uses if begin <= address < end]
            assert not used, "memory is freed that a stream's work uses"

    def do_cuMemFree(self, address: Any) -> None:
        self.check_unused(self.memory.get(number(address), np.empty(0)))
        assert self.memory.pop(number(address), None) is not None, "memory is freed that is not allocated"

    def do_cuMemAllocHost(self, address: Any, size: Any) -> None:
        array = np.zeros(number(size), np.uint8)
        self.pinned[array.ctypes.data] = array
        target(address).value = array.ctypes.data

    def do_cuMemFreeHost(self, address: Any) -> None:
        self.check_unused(self.pinned.get(number(address), np.empty(0)))
        assert self.pinned.pop(number(address), None) is not None

    def span(self, address: int, size: int, pinned: bool = False) -> np.ndarray:
        for begin, array in (*self.memory.items(), *(self.pinned.items() if pinned else ())):
            if begin <= address and address + size <= begin + array.nbytes:
                return array[address - begin : address - begin + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not in the card's memory")

    def is_pinned(self, address: int, stream: Any) -> bool:
        found = any(p <= address < p + a.nbytes for p, a in self.pinned.items())
        assert found or number(stream) not in self.capturing, "a graph would copy pageable memory"
        return found

    def owner(self, address: int) -> int:
        """The context of a card's memory."""
        return next(self.owners[a] for a, m in self.memory.items() if a <= address < a + m.nbytes)

    def do_cuMemcpyHtoDAsync(self, to: Any, source: Any, size: Any, stream: Any) -> None:
        content = np.ctypeslib.as_array((ctypes.c_uint8 * number(size)).from_address(number(source)))
        count, place = number(size), number(to)
        self.span(place, count)
        # pageable memory is read at once, pinned memory when the stream gets there
        is_pinned = self.is_pinned(number(source), stream)
        held = content if is_pinned else content.copy()
        self.enqueue(stream, lambda: self.span(place, count).__setitem__(slice(None), held),
                     place, number(source))  # fmt: skip

    def do_cuMemcpyDtoDAsync(self, to: Any, source: Any, size: Any, stream: Any) -> None:
        count, place, begin = number(size), number(to), number(source)
        self.span(place, count), self.span(begin, count)
        assert self.owner(place) == self.owner(begin) == self.contexts[-1], "memory of another card"
        self.enqueue(stream, lambda: self.span(place, count).__setitem__(
            slice(None), self.span(begin, count).copy()), place, begin)  # fmt: skip

    def do_cuMemcpyPeerAsync(self, to: Any, to_context: Any, source: Any, source_context: Any, size: Any,
                             stream: Any) -> None:  # fmt: skip
        ends = ((number(to), number(to_context)), (number(source), number(source_context)))
        assert all(self.owner(address) == context for address, context in ends)
        (place, _), (begin, _), count = *ends, number(size)
        self.span(place, count), self.span(begin, count)
        self.enqueue(stream, lambda: self.span(place, count).__setitem__(
            slice(None), self.span(begin, count).copy()), place, begin)  # fmt: skip

    def do_cuMemcpyDtoHAsync(self, to: Any, source: Any, size: Any, stream: Any) -> None:
        out = np.ctypeslib.as_array((ctypes.c_uint8 * number(size)).from_address(number(to)))
        count, place = number(size), number(source)
        self.span(place, count)
        self.is_pinned(number(to), stream)
        self.enqueue(stream, lambda: out.__setitem__(slice(None), self.span(place, count)),
                     place, number(to))  # fmt: skip

    def do_cuMemsetD8Async(self, address: Any, value: Any, size: Any, stream: Any) -> None:
        place, count, byte = number(address), number(size), number(value)
        self.span(place, count)
        self.enqueue(stream, lambda: self.span(place, count).fill(byte), place)

    def do_cuPointerGetAttribute(self, value: Any, attribute: int, address: Any) -> int:
        assert attribute == 9
        inside = any(a <= number(address) < a + m.nbytes for a, m in self.memory.items())
        target(value).value = self.owner(number(address)) - CONTEXT if inside else 0
        return SUCCESS if inside else INVALID_VALUE

    # -- kernels

    def do_cuModuleLoadDataEx(self, module: Any, text: Any, count: int, options: Any, values: Any) -> int:
        ptx = bytes(text).rstrip(b"\0").decode()
        if ptx not in self.sources:
            return 218
        target(module).value = key = self.new()
        self.modules[key], self.texts[key] = self.sources[ptx], ptx
        return SUCCESS

    def do_cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:
        if name != functions.ENTRY.encode():
            return NOT_FOUND
        target(function).value = number(module)
        return SUCCESS

    def do_cuLaunchKernel(self, function: Any, gx: int, gy: int, gz: int, bx: int, by: int, bz: int,
                          shared: int, stream: Any, arguments: Any, extra: Any) -> int:  # fmt: skip
        assert not starts_early(self.texts[number(function)]), "its PTX awaits the kernel before it"
        return self.launch(function, (gx, gy, gz), (bx, by, bz), shared, stream, arguments, extra)

    def do_cuLaunchKernelEx(self, config: Any, function: Any, arguments: Any, extra: Any) -> int:
        launch = target(config)
        assert launch.count == 1
        attribute = LaunchAttribute.from_address(launch.attributes)
        form = block_form(self.modules[number(function)])
        is_together = form is not None and form.requested != ""
        assert (attribute.number, attribute.value[0]) == (2 if is_together else 6, 1)
        assert is_together or self.capability >= (9, 0) and starts_early(self.texts[number(function)])
        grid, block = ([getattr(launch, f"{name}_{d}") for d in "xyz"] for name in ("grid", "block"))
        return self.launch(function, grid, block, launch.shared, launch.stream, arguments, extra)

    def launch(self, function: Any, grid: Any, block: Any, shared: int, stream: Any, arguments: Any,
               extra: Any) -> int:  # fmt: skip
        assert number(function) in self.loaded or number(stream) not in self.capturing
        text, source = self.texts[number(function)], self.modules[number(function)]
        form = block_form(source)
        first = 0 if form is None or not form.size else 1  # a tensor map comes first
        values = [ctypes.cast(p, ctypes.POINTER(ctypes.c_int64))[0] for p in arguments[first : first + 7]]
        assert tuple(grid[1:]) == (1, 1) and 0 < grid[0] < 1 << 31 and extra is None
        assert (block[0], block[2]) == (32, 1) and 0 < block[1] <= 32
        bases, args, start, end, scratch, _, error = values
        if form is None:
            assert shared == 0 and len(arguments) == 7
            self.enqueue(
                stream, lambda: self.run(source, grid[0] * block[1], *values), bases, args, scratch, error
            )
            return SUCCESS
        if form.requested and grid[0] > self.resident * self.multiprocessors:
            return 720  # too many blocks to run at a time
        if not form.size:
            assert shared == 0 and len(arguments) == 7 and block[1] == form.warps
            assert form.requested or (start, end) == (0, grid[0])
            warps = grid[0] * form.warps
            self.grids.append(warps)
            self.enqueue(stream, lambda: self.run(source, end, *values, grid=warps), bases, args, error)
            return SUCCESS
        if shared > max(48 << 10, self.most_shared.get(number(function), 0)):
            return INVALID_VALUE
        assert shared >= form.size + 1024 and block[1] == form.warps and (start, end) == (0, grid[0])
        described = tuple((ctypes.c_int64 * 16).from_address(arguments[0]))
        assert described[0] == MAP and len(arguments) == 8

        def run() -> None:
            self.check_map(text, self.span(args, 8).ctypes.data, bases, described)
            self.run(source, end, *values)

        self.enqueue(stream, run, bases, args, scratch, error, described[1])
        return SUCCESS

    def do_cuOccupancyMaxActiveBlocksPerMultiprocessor(self, count: Any, function: Any, threads: int,
                                                       shared: Any) -> None:  # fmt: skip
        assert number(function) in self.modules and 0 < threads <= 1024
        target(count).value = self.resident

    def do_cuFuncGetAttribute(self, value: Any, attribute: int, function: Any) -> None:
        assert number(function) in self.modules and attribute == 4 and not self.capturing
        self.loaded.add(number(function))

    def do_cuFuncSetAttribute(self, function: Any, attribute: int, value: int) -> int:
        assert number(function) in self.modules and attribute == 8
        if value > 227 << 10:
            return INVALID_VALUE
        self.most_shared[number(function)] = value
        return SUCCESS

    def do_cuTensorMapEncodeTiled(self, place: Any, kind: int, rank: int, address: Any, sizes: Any,
                                  steps: Any,
                                  box: Any, ones: Any, *modes: int) -> int:  # fmt: skip
        """The map is what it was made from, as int64s."""
        assert number(place) % 128 == 0 and kind == 0 and modes == (0, 3, 2, 0)
        lists = list(sizes), list(steps), list(box), list(ones)
        assert [*map(len, lists)] == [rank, rank - 1, rank, rank]
        if number(address) % 16 or any(step % 16 or not 0 < step < 1 << 40 for step in steps):
            return INVALID_VALUE
        if min(sizes) < 1 or max(sizes) > 1 << 32 or steps[0] < sizes[0] or box[0] != 128 or max(box) > 256:
            return INVALID_VALUE
        pairs = zip(steps, steps[1:], sizes[1:], strict=False)
        if any(b < a * (n - 1) or b % a for a, b, n in pairs):
            return INVALID_VALUE  # the reference has the dimensions one in the other, and multiples
        if min(box) < 1 or max(ones) > 8 or min(ones) < 1 or ones[0] != 1:
            return INVALID_VALUE
        last = sum((size - 1) * step for size, step in zip(sizes[1:], steps, strict=True))
        self.span(number(address), last + sizes[0])
        content = [MAP, number(address), *(n for each in lists for n in each)]
        ctypes.memmove(number(place), (ctypes.c_int64 * 16)(*content[:16]), 128)  # the last two strides are 1
        return SUCCESS

    def check_map(self, text: str, block: int, bases: int, described: tuple[int, ...]) -> None:
        """Fails unless a tensor map describes the tensor of the argument block."""
        form = block_launch(text)
        assert form is not None
        words = np.ctypeslib.as_array((ctypes.c_int64 * 96).from_address(block))
        base = ctypes.c_int64.from_address(bases + 8 * int(words[form.offset - 1])).value
        sizes, steps, box, strides = (
            form.numbers(field, words) for field in ("sizes", "steps", "box", "strides")
        )
        box = [n * s for n, s in zip(box, strides, strict=True)]
        assert [*described[2:]][:14] == ([*sizes, *steps, *box, *strides] + [0] * 14)[:14]
        assert described[1] == base + int(words[form.offset])

    def run(self, source: str, warps: int, bases: int, args: int, start: int, end: int, scratch: int,
            each: int, error: int, grid: int = 0) -> None:  # fmt: skip
        self.launches += 1
        assert warps >= end - start > warps - 32
        constants = int(self.span(bases, 16).view(np.int64)[1])
        memory = Memory(
            [
                (begin, array.nbytes, CONSTANTS if begin == constants else "the card's memory")
                for begin, array in self.memory.items()
            ]
        )
        words = CardWords(32, memory)
        words.grid = grid
        kernel = program(source, words)
        for i in range(end - start):
            with np.errstate(all="ignore"):
                code = kernel(bases, args, start + i, scratch + i * each)
            if code:
                self.span(error, 8, True).view(np.int64)[0] = code

    # -- streams, graphs, events

    def do_cuStreamCreate(self, stream: Any, flags: int) -> None:
        target(stream).value = key = self.new()
        self.streams[key], self.owners[key] = [], self.contexts[-1]

    def do_cuStreamDestroy(self, stream: Any) -> None:
        assert not self.streams[number(stream)], "a stream is destroyed that has work to do"
        del self.streams[number(stream)]

    def enqueue(self, stream: Any, run: Callable[[], Any], *uses: int) -> None:
        key = number(stream)
        assert self.owners.get(key) == self.contexts[-1], "a stream of another card"
        (self.capturing[key] if key in self.capturing else self.streams[key]).append(Work(run, uses))

    def do_cuStreamSynchronize(self, stream: Any) -> int:
        key = number(stream)
        assert key not in self.capturing, "a stream is synchronized while it is captured"
        work, self.streams[key] = self.streams[key], []
        for each in work:
            code = each.run()
            if isinstance(code, int) and code:
                return code
        return SUCCESS

    def do_cuStreamBeginCapture(self, stream: Any, mode: int) -> None:
        assert number(stream) not in self.capturing
        self.capturing[number(stream)] = []

    def do_cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        if number(stream) in self.failed:
            self.failed.remove(number(stream))
            del self.capturing[number(stream)]
            return 901  # the end of a capture that has failed
        target(graph).value = key = self.new()
        self.graphs[key] = self.capturing.pop(number(stream))
        return SUCCESS

    def do_cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> None:
        self.instantiated += 1
        target(executable).value = key = self.new()
        self.graphs[key] = list(self.graphs[number(graph)])

    def do_cuGraphExecUpdate(self, executable: Any, graph: Any, result: Any) -> int:
        assert len(result) == 3
        before, after = self.graphs[number(executable)], self.graphs[number(graph)]
        if len(before) != len(after):
            return 910
        self.updates += 1
        self.graphs[number(executable)] = list(after)
        return SUCCESS

    def do_cuGraphDestroy(self, graph: Any) -> None:
        del self.graphs[number(graph)]

    def do_cuGraphExecDestroy(self, graph: Any) -> None:
        del self.graphs[number(graph)]

    def do_cuGraphLaunch(self, graph: Any, stream: Any) -> None:
        self.replays += 1
        self.streams[number(stream)] += self.graphs[number(graph)]

    def do_cuEventCreate(self, event: Any, flags: int) -> None:
        target(event).value = key = self.new()
        self.events[key] = -1.0

    def do_cuEventDestroy(self, event: Any) -> None:
        del self.events[number(event)]

    def do_cuEventRecord(self, event: Any, stream: Any) -> None:
        key = number(event)
        self.enqueue(stream, lambda: self.events.__setitem__(key, float(self.launches)))

    def do_cuEventElapsedTime(self, milliseconds: Any, begin: Any, end: Any) -> None:
        first, last = self.events[number(begin)], self.events[number(end)]
        assert 0 <= first <= last, "the events have not passed"
        target(milliseconds).value = (last - first) * 0.25


class Work(NamedTuple):
    """What a stream has to do. `uses`: addresses in the memory that it reads or writes."""

    run: Callable[[], Any]
    uses: tuple[int, ...]


def install(monkeypatch: Any, fake: FakeCuda) -> FakeCuda:
    """Make `fake` the driver of this process, and remember which source became which PTX."""
    from ovjit.codegen.gpu import ptx
    from ovjit.gpu import driver

    compile_ptx = ptx.compile_ptx

    def remember(source: str, entry: str, of: Any = None) -> str:
        text = compile_ptx(source, entry, of) + f"// {len(fake.sources)}\n"
        fake.sources[text] = source
        return text

    monkeypatch.setattr(ptx, "compile_ptx", remember)
    monkeypatch.setattr(functions, "default_cache", lambda: _NoCache())
    monkeypatch.setattr(functions, "_numbers", {})
    monkeypatch.setattr(functions, "_texts", functions._texts[:1])
    monkeypatch.setattr(driver, "load_library", lambda: fake)
    driver.forget()
    return fake


class _NoCache:
    def get(self, name: str) -> None:
        return None

    def write(self, name: str, content: bytes, about: Any) -> None:
        return None
