"""The functions of the CUDA driver that plans need, by ctypes. No CUDA toolkit is needed.

`cards()` lists the cards that can be used. `open_card(number)` gives the `Card` with the driver's
functions, once for a process. A `Card` cannot be used in a child after a fork: CUDA does not support that.

Source: the CUDA Driver API reference, functions of CUDA 12.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit import debug
from ovjit.codegen.cpu.targets import CARD_FEATURES
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.forks import ForkLock
from ovjit.gpu.signatures import LaunchAttribute, LaunchConfig, declare
from ovjit.records import NamedTuple

#: Least compute capability: kernels are PTX for it.
LEAST_CAPABILITY = (8, 0)
#: The oldest driver, and that which kernels for blocks, and early starts in graphs, need: CUDA 12.0 and 12.4,
#: as the driver counts.
LEAST_DRIVER, BLOCK_DRIVER = 12000, 12040
#: Results of driver calls -> what to do. Others are reported with the driver's own words.
ADVICE = {
    2: "the card has too little free memory: use smaller shapes, fewer requests or fewer programs",
    3: "this process may be forked from one that used the driver: start processes by 'spawn' or 'forkserver'",
    46: "the card is in exclusive mode and another process uses it, or it is not available",
    100: "the driver finds no card",
    101: "there is no card of this number",
    201: "the driver's context is no longer valid: compile the model again in a new process",
    209: "the driver has no code for this card",
    214: "the card reported a memory error (ECC): reset the card",
    218: "the driver cannot compile the kernel's PTX: a driver for CUDA 12.0 or newer is needed",
    222: "the driver is older than the PTX of the kernels: a driver for CUDA 12.0 or newer is needed",
    221: "the driver's compiler of PTX (libnvidia-ptxjitcompiler.so.1) is not installed",
    223: "CUDA_DISABLE_PTX_JIT forbids to compile PTX: unset it",
    700: "a kernel accessed memory outside of its tensors: please report this model",
    701: "a kernel needs more registers or shared memory than the card has: please report this model",
    702: "a kernel took longer than the system allows",
    715: "a kernel has an instruction that this card does not know: please report this model",
    716: "a kernel accessed memory at an address that is not aligned: please report this model",
    719: "a kernel failed, and the card's context is lost: use the CPU, or start a new process",
    802: "the system is not ready: the service nvidia-fabricmanager may be missing",
    803: "the driver's library and its kernel module have different versions: restart the computer",
    804: "the driver does not support this card",
}
#: Names of the driver's library. Not all Linux systems in Windows have its folder among the loader's.
LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
#: The reason why there is no card, without a driver.
NO_LIBRARY = f"the NVIDIA driver's library {LIBRARIES[0]} is not installed"
#: CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, CUDA_ERROR_NOT_SUPPORTED.
_NOT_UPDATED = (910, 801)
#: CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, ..._COOPERATIVE, CU_FUNC_ATTRIBUTE_NUM_REGS.
EARLY_START, AT_A_TIME, _REGISTERS = 6, 2, 4
#: Attributes of a card: numbers of CUdevice_attribute.
ATTRIBUTES = {
    "MULTIPROCESSOR_COUNT": 16, "PCI_BUS_ID": 33, "PCI_DEVICE_ID": 34, "PCI_DOMAIN_ID": 50,
    "MEMORY_CLOCK_RATE": 36, "GLOBAL_MEMORY_BUS_WIDTH": 37, "L2_CACHE_SIZE": 38,
    "COMPUTE_CAPABILITY_MAJOR": 75, "COMPUTE_CAPABILITY_MINOR": 76, "CLOCK_RATE": 13, "INTEGRATED": 18,
}  # fmt: skip


class CardError(OvjitError):
    """A call of a function of the CUDA driver failed. `code`: the driver's result."""

    def __init__(self, function: str, code: int, words: str):
        advice = ADVICE.get(code, "")
        super().__init__(
            f"[GPU] {function} failed: {words or f'error {code}'}{': ' if advice else ''}{advice}"
        )
        self.function, self.code = function, code


class CardFacts(NamedTuple):
    """A card as the driver describes it. `memory`: bytes."""

    number: int
    name: str
    capability: tuple[int, int]
    memory: int
    uuid: bytes


def load_library() -> Any:
    """The driver's library. Raises OSError where there is none."""
    *others, last = LIBRARIES
    for name in others:
        with contextlib.suppress(OSError):
            return declare(ctypes.CDLL(name))
    return declare(ctypes.CDLL(last))


class Library:
    """Calls the driver's functions and checks their results."""

    def __init__(self, library: Any):
        self._library = library
        self("cuInit", 0)

    def __call__(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            raise CardError(function, code, self.words(code))

    def leave_context(self) -> None:
        """Restore the context that the thread had before. An error of the card is reported elsewhere."""
        self._library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def words(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(code, ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")

    def driver_version(self) -> int:
        """The newest CUDA that the driver supports: 12040 is 12.4."""
        version = ctypes.c_int()
        self("cuDriverGetVersion", ctypes.byref(version))
        return version.value

    def attribute(self, name: str, device: int) -> int:
        value = ctypes.c_int()
        self("cuDeviceGetAttribute", ctypes.byref(value), ATTRIBUTES[name], device)
        return value.value

    def facts(self, number: int) -> CardFacts:
        device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
        uuid = ctypes.create_string_buffer(16)
        self("cuDeviceGet", ctypes.byref(device), number)
        self("cuDeviceGetName", name, len(name), device)
        self("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        self("cuDeviceGetUuid_v2", uuid, device)  # of a part of a divided card its own one
        major, minor = (
            self.attribute(f"COMPUTE_CAPABILITY_{part}", device.value) for part in ("MAJOR", "MINOR")
        )
        label = name.value.decode(errors="replace")
        return CardFacts(number, label, (major, minor), memory.value, uuid.raw)


_lock = ForkLock("cards")
#: (process, library or None, facts of usable cards, reason why there is none), once it was looked for.
_driver_state: tuple[int, Library | None, list[CardFacts], str] | None = None
_open: dict[int, Card] = {}


def _look() -> tuple[int, Library | None, list[CardFacts], str]:
    try:
        library = Library(load_library())
        if library.driver_version() < LEAST_DRIVER:  # it may lack functions
            return os.getpid(), None, [], "the driver is too old: one for CUDA 12.0 or newer is needed"
        count = ctypes.c_int()
        library("cuDeviceGetCount", ctypes.byref(count))
        cards = [library.facts(number) for number in range(count.value)]
    except OSError:
        return os.getpid(), None, [], NO_LIBRARY
    except CardError as error:
        return os.getpid(), None, [], str(error)
    usable = [card for card in cards if card.capability >= LEAST_CAPABILITY]
    least = ".".join(map(str, LEAST_CAPABILITY))
    reason = "" if usable else f"no card has compute capability {least} or more"
    return os.getpid(), library, usable, reason


def _state() -> tuple[int, Library | None, list[CardFacts], str]:
    global _driver_state
    with _lock.lock:
        if _driver_state is None:
            _driver_state = _look()
        return _driver_state


def forget() -> None:
    """Look for the driver and its cards anew. Cards that are open stay as they are."""
    global _driver_state
    with _lock.lock:
        _driver_state = None
        _open.clear()


def cards() -> list[CardFacts]:
    """The usable cards, in the driver's order; none without a driver."""
    return _state()[2]


def features_of(number: int) -> tuple[str, ...]:
    """The optional features of kernels for a card (`Target.extras`): early starts from compute capability
    9.0 on, and PTX for `sm_90a`, which runs on cards of 9.0 alone. Both need a newer driver. There are
    reports that cards of 12.0 do not capture early starts in graphs. OVJIT_HIDE hides features."""
    _, library, usable, _ = _state()
    if library is None or number >= len(usable) or library.driver_version() < BLOCK_DRIVER:
        return ()
    capability, hidden = usable[number].capability, debug.flag("OVJIT_HIDE").split(",")
    features = CARD_FEATURES[: ((9, 0) <= capability < (12, 0)) + (capability == (9, 0))]
    return tuple(feature for feature in features if feature not in hidden)


def why_no_card() -> str:
    """The reason why `cards` is empty; "" if it is not."""
    return _state()[3]


def open_card(number: int) -> Card:
    """The card of this index in `cards`. Raises UnsupportedError if there is none, CardError if it cannot
    be used."""
    pid, library, facts, reason = _state()
    if pid != os.getpid():
        raise UnsupportedError(
            "[GPU] this process was forked from one that used the CUDA driver, which does not work in it: "
            "start processes by 'spawn' or 'forkserver', or compile for the CPU"
        )
    if library is None or not 0 <= number < len(facts):
        raise UnsupportedError(
            f"[GPU] Context was not initialized for {number} device: "
            f"{reason or f'there are {len(facts)} cards'}"
        )
    with _lock.lock:
        card = _open.get(number)
        if card is None:
            card = _open[number] = Card(library, facts[number])
        return card


class Card:
    """A card with its primary context. Functions may be called from any thread.

    `with card:` makes its context the current one of this thread for several calls, and restores the one
    before: other packages, and other cards, have contexts of their own.
    """

    def __init__(self, library: Library, facts: CardFacts):
        self.facts, self._library, self._pid = facts, library, os.getpid()
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        library("cuDeviceGet", ctypes.byref(device), facts.number)
        library("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._functions: dict[tuple[str, str], Any] = {}
        self._modules: list[Any] = []
        #: Address of pinned memory -> its bytes.
        self._pinned: dict[int, int] = {}
        self._thread = threading.local()

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver in this card's context. Raises CardError."""
        if getattr(self._thread, "depth", 0):
            self._library(function, *arguments)
            return
        with self:
            self._library(function, *arguments)

    def __enter__(self) -> Card:
        if os.getpid() != self._pid:
            raise UnsupportedError(
                "[GPU] a compiled model of the parent process cannot be used after a fork: compile it in "
                "this process"
            )
        depth = getattr(self._thread, "depth", 0)
        if not depth:
            self._library("cuCtxPushCurrent_v2", self._context)
        self._thread.depth = depth + 1
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.depth -= 1
        if not self._thread.depth:
            self._library.leave_context()

    @property
    def context(self) -> int:
        """The driver's handle of the card's primary context."""
        return self._context.value or 0

    def attribute(self, name: str) -> int:
        """A fact of the card, of `ATTRIBUTES`."""
        return self._library.attribute(name, self.facts.number)

    def peak_flops(self) -> float:
        """Operations per second in f32, without tensor cores: two for each lane and cycle."""
        lanes = 64 if self.facts.capability == (8, 0) else 128  # of a multiprocessor
        return self.attribute("MULTIPROCESSOR_COUNT") * lanes * 2 * self.attribute("CLOCK_RATE") * 1e3

    def peak_bandwidth(self) -> float:
        """Bytes per second of the card's memory: two transfers in each cycle."""
        return 2e3 * self.attribute("MEMORY_CLOCK_RATE") * self.attribute("GLOBAL_MEMORY_BUS_WIDTH") / 8

    def driver_version(self) -> str:
        """The newest CUDA that the driver supports, such as "12.4"."""
        version = self._library.driver_version()
        return f"{version // 1000}.{version % 1000 // 10}"

    # -- memory

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of the card's memory, at least 16."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(int(size), 16)))
        return address.value

    def free(self, address: int) -> None:
        self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def allocate_pinned(self, size: int) -> np.ndarray:
        """Host memory that copies read and write without a buffer between; see `free_pinned`."""
        address = ctypes.c_void_p()
        self.call("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(max(int(size), 16)))
        memory = (ctypes.c_uint8 * max(int(size), 16)).from_address(address.value or 0)
        self._pinned[address.value or 0] = len(memory)
        return np.ctypeslib.as_array(memory)

    def free_pinned(self, memory: np.ndarray) -> None:
        self._pinned.pop(memory.ctypes.data, None)
        self.call("cuMemFreeHost", ctypes.c_void_p(memory.ctypes.data))

    def is_pinned(self, address: int) -> bool:
        """True if a byte of the host is in memory of `allocate_pinned`."""
        return any(begin <= address < begin + size for begin, size in list(self._pinned.items()))

    def device_of(self, address: int) -> int:
        """The number of the card whose memory has this address. Raises CardError for memory of the host."""
        device = ctypes.c_int()
        number = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        self.call("cuPointerGetAttribute", ctypes.byref(device), number, ctypes.c_uint64(address))
        return device.value

    def upload(self, address: int, array: np.ndarray, stream: Any) -> None:
        """Copy a contiguous array to the card, in the order of the stream."""
        if array.nbytes:
            source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
            self.call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, size, stream)

    def download(self, array: np.ndarray, address: int, stream: Any) -> None:
        """Copy to a contiguous array. It is complete when the stream is."""
        if array.nbytes:
            target, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
            self.call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), size, stream)

    def copy(self, address: int, source: int, size: int, stream: Any, to: Card | None = None) -> None:
        """Copy bytes of the card's memory, in the order of the stream. `to`: the card of `address`."""
        end, begin, count = ctypes.c_uint64(address), ctypes.c_uint64(source), ctypes.c_size_t(size)
        if size and to in (None, self):
            self.call("cuMemcpyDtoDAsync_v2", end, begin, count, stream)
        elif to is not None and size:
            self.call("cuMemcpyPeerAsync", end, to._context, begin, self._context, count, stream)

    def clear(self, address: int, size: int, stream: Any) -> None:
        self.call(
            "cuMemsetD8Async", ctypes.c_uint64(address), ctypes.c_ubyte(0), ctypes.c_size_t(size), stream
        )

    def free_bytes(self) -> tuple[int, int]:
        """(free, all) bytes of the card's memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    # -- kernels

    def has_function(self, ptx: str, entry: str) -> bool:
        """True if the driver has compiled this function already."""
        return (entry, ptx) in self._functions

    def function(self, ptx: str, entry: str, name: str = "") -> Any:
        """The function `entry` of PTX, which the driver compiles once for this card. `name`: for errors."""
        key = entry, ptx
        function = self._functions.get(key)
        if function is None:  # without a lock, under which other kernels would wait; the first of two stays
            function = self._functions.setdefault(key, self._load(ptx, entry, name))
        return function

    def _load(self, ptx: str, entry: str, name: str) -> Any:
        log, module, function = ctypes.create_string_buffer(8192), ctypes.c_void_p(), ctypes.c_void_p()
        options = (ctypes.c_int * 2)(5, 6)  # CU_JIT_ERROR_LOG_BUFFER and its size
        values = (ctypes.c_void_p * 2)(ctypes.cast(log, ctypes.c_void_p), len(log))
        try:  # drivers may compile a module, and load a function, at their first use: not in a capture
            self.call("cuModuleLoadDataEx", ctypes.byref(module), ptx.encode() + b"\0", 2, options, values)
            self.call("cuModuleGetFunction", ctypes.byref(function), module, entry.encode())
            self.call("cuFuncGetAttribute", ctypes.byref(ctypes.c_int()), _REGISTERS, function)
        except CardError as error:
            words = f"{self._library.words(error.code)} {log.value.decode(errors='replace').strip()[:800]}"
            raise CardError(f"{error.function} of {name}", error.code, words.strip()) from None
        self._modules.append(module)
        return function

    def launch(
        self,
        function: Any,
        blocks: int,
        warps: int,
        arguments: Sequence[int],
        stream: Any,
        *,
        shared: int = 0,
        attribute: int = 0,
        more: Sequence[int] = (),
    ) -> None:
        """Launch `blocks` blocks of `warps` warps, with the arguments at the addresses `more`, and int64s.
        `shared`: bytes of dynamic shared memory. `attribute`: EARLY_START for a kernel that may start while
        the one before it runs, and awaits its end itself; AT_A_TIME for blocks that await each other."""
        values = [ctypes.c_uint64(a & (2**64 - 1)) for a in arguments]
        addresses = [*more, *map(ctypes.addressof, values)]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        if not attribute:
            self.call("cuLaunchKernel", function, blocks, 1, 1, 32, warps, 1, shared, stream, pointers, None)
            return
        chosen = LaunchAttribute(attribute, 0, (ctypes.c_uint * 3)(1))
        config = LaunchConfig(blocks, 1, 1, 32, warps, 1, shared, stream, ctypes.addressof(chosen), 1)
        self.call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)

    # -- streams, graphs, events

    def create_stream(self) -> Any:
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), 1)  # CU_STREAM_NON_BLOCKING
        return stream

    def destroy_stream(self, stream: Any) -> None:
        self.call("cuStreamDestroy_v2", stream)

    def synchronize(self, stream: Any) -> None:
        """Wait until all work of the stream is complete, without the GIL."""
        self.call("cuStreamSynchronize", stream)

    def capture(self, stream: Any, launch: Callable[[], None], before: Any = None) -> Any:
        """An executable graph of what `launch` puts on the stream: `before` if that can be updated, which is
        otherwise destroyed."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", stream, 2)  # CU_STREAM_CAPTURE_MODE_RELAXED
        try:
            launch()
        except BaseException:  # the error of this one is a consequence
            with contextlib.suppress(CardError):
                self.call("cuStreamEndCapture", stream, ctypes.byref(graph))
            if graph:
                self.call("cuGraphDestroy", graph)
            raise
        self.call("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            if before is not None and self._update(before, graph):
                return before
            self.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_uint64(0))
        finally:
            self.call("cuGraphDestroy", graph)
        if before is not None:
            self.destroy_graph(before)
        return executable

    def _update(self, executable: Any, graph: Any) -> bool:
        """Give an executable graph the launches of another graph. False if their nodes differ."""
        result = (ctypes.c_uint64 * 3)()  # CUgraphExecUpdateResultInfo: a number and two nodes
        try:
            self.call("cuGraphExecUpdate_v2", executable, graph, result)
        except CardError as error:
            if error.code not in _NOT_UPDATED:
                raise
            return False
        return True

    def run_graph(self, graph: Any, stream: Any) -> None:
        self.call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self.call("cuGraphExecDestroy", graph)

    def create_event(self) -> Any:
        event = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(event), 0)
        return event

    def destroy_event(self, event: Any) -> None:
        self.call("cuEventDestroy_v2", event)

    def record(self, event: Any, stream: Any) -> None:
        self.call("cuEventRecord", event, stream)

    def elapsed_ns(self, begin: Any, end: Any) -> int:
        """Nanoseconds between two recorded events that have passed."""
        milliseconds = ctypes.c_float()
        self.call("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
        return int(milliseconds.value * 1e6)
