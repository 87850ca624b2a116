"""One inference on a card: inputs are copied to it, a CUDA graph runs the plan's steps, outputs are copied
back.

A job has a stream, and memory of the card for its arena, inputs, outputs and argument blocks. Constants are
uploaded once for a compiled model. Between host steps, which NumPy runs on the CPU, the steps of a table
are one graph.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.codegen.gpu.functions import ENTRY, ptx_of
from ovjit.codegen.warps import WARPS
from ovjit.errors import InferenceError
from ovjit.execution import blocks, runner
from ovjit.execution.job import Job
from ovjit.execution.table import Table
from ovjit.forks import ForkLock
from ovjit.gpu import blocks as card_blocks
from ovjit.gpu import memory as device_memory
from ovjit.gpu.driver import AT_A_TIME, EARLY_START, Card, CardError, open_card
from ovjit.gpu.memory import DeviceMemory, DeviceTensor, PinnedMemory, row_strides
from ovjit.graph import dtypes
from ovjit.planning.views import FIRST_IO, View

if TYPE_CHECKING:
    from ovjit.execution.executable import Executable

#: Bytes of scratch memory per thread that plans have at least; no kernel uses so little.
LEAST_SCRATCH = 4096
#: Maximum bytes of scratch memory of a step: its chunks run in rounds beyond that.
MOST_SCRATCH = 256 << 20
#: Maximum bytes of an input or output that is copied through pinned memory.
MOST_PINNED = 16 << 20
#: Kernels load and store 16 bytes at a time. Memory of others that is not aligned is copied.
ALIGNMENT = 16
#: Kernels that the driver compiles at a time: each takes a processor of the host for some 15 ms.
MOST_LOADED = 8
#: Maximum tables of a job whose graphs are kept. The oldest one's are updated for further shapes.
MOST_GRAPHS = 8


class Replay:
    """The steps of one table on the card: argument blocks, the plan's data, and a graph for each range of
    steps."""

    def __init__(self, card: Card, table: Table, stream: Any):
        self.card, self.table, self.base = card, table, table.args.ctypes.data
        self.arguments = DeviceMemory(card, table.args.nbytes)
        self.data = DeviceMemory(card, table.data.nbytes)
        self._upload(stream)
        #: (first step, end) -> the graph that runs these steps.
        self.graphs: dict[tuple[int, int], Any] = {}
        #: The graphs whose launches differ from the table's.
        self.outdated: set[tuple[int, int]] = set()

    def _upload(self, stream: Any) -> None:
        self.card.upload(self.arguments.address, self.table.args, stream)
        self.card.upload(self.data.address, self.table.data, stream)

    def serves(self, table: Table) -> bool:
        """True if its graphs can be updated for a table: that has the same kernels, with argument blocks of
        the same sizes."""
        mine, columns = self.table, (runner.STEP_KERNEL, runner.STEP_ARGS)
        return (
            mine.host == table.host
            and mine.rows.shape == table.rows.shape
            and mine.args.nbytes == table.args.nbytes
            and table.data.nbytes <= self.data.size
            and np.array_equal(mine.rows[:, columns[0]], table.rows[:, columns[0]])
            and np.array_equal(
                mine.rows[:, columns[1]] - self.base, table.rows[:, columns[1]] - table.args.ctypes.data
            )
        )

    def move_to(self, table: Table, stream: Any) -> None:
        """Run another table, which it `serves`, from now on. Graphs with the same launches stay."""
        before, self.table, self.base = self.table, table, table.args.ctypes.data
        self._upload(stream)
        plans = before.plan, table.plan
        same = len({(plan.scratch_offset, scratch_of_chunk(plan)) for plan in plans}) == 1
        chunks = before.rows[:, runner.STEP_CHUNKS] == table.rows[:, runner.STEP_CHUNKS]
        # launches of blocks have tensor maps, which have the sizes of a matrix
        chunks &= [form_of(number) is None for number in table.rows[:, runner.STEP_KERNEL].tolist()]
        for first, stop in self.graphs:
            if not (same and chunks[first:stop].all()):
                self.outdated.add((first, stop))

    def graph(self, first: int, stop: int) -> Any:
        """The graph of a range of steps; None if it has to be captured."""
        return None if (first, stop) in self.outdated else self.graphs.get((first, stop))

    def capture(self, first: int, stop: int, stream: Any, launch: Callable[[], None]) -> Any:
        """Capture the graph of a range of steps, which `launch` puts on the stream."""
        steps = first, stop
        graph = self.graphs[steps] = self.card.capture(stream, launch, self.graphs.get(steps))
        self.outdated.discard(steps)
        return graph

    def __del__(self) -> None:
        for graph in getattr(self, "graphs", {}).values():
            if not sys.is_finalizing():
                try:
                    self.card.destroy_graph(graph)
                except Exception:
                    pass


#: Guards `_constants`: jobs of several threads upload them once.
_uploading = ForkLock("cards")
#: Executable -> its constants on each card, by the card's number.
_constants: weakref.WeakKeyDictionary[Executable, dict[int, DeviceMemory]] = weakref.WeakKeyDictionary()


class DeviceState:
    """The stream and the memory of one job."""

    def __init__(self, job: DeviceJob, card: Card):
        self.card = card
        self.stream = card.create_stream()
        self.arena: DeviceMemory | None = None
        self.bases = DeviceMemory(card, job._bases.nbytes)
        #: An error code of each step, 0 for none, in pinned memory: kernels store there.
        self.errors: PinnedMemory | None = None
        #: Number of an input or output in the bases -> its memory, and its pinned memory.
        self.tensors: dict[int, DeviceMemory] = {}
        self.pinned: dict[int, PinnedMemory] = {}
        self.replays: OrderedDict[int, Replay] = OrderedDict()
        self.addresses, self._uploaded = np.zeros_like(job._bases), np.zeros_like(job._bases)
        #: Numbers of remote outputs that are written after the steps, as inputs lie in their memory.
        self.late_outputs: Collection[int] = ()

    def __del__(self) -> None:
        stream = getattr(self, "stream", None)
        if stream is not None and not sys.is_finalizing():
            try:
                self.card.synchronize(stream)
                self.replays.clear()
                self.card.destroy_stream(stream)
            except Exception:  # the card is lost, or this is a forked child
                pass

    def prepare(self, job: DeviceJob, table: Table) -> Replay:
        """Allocate the memory of a table's tensors, and write their addresses to the card."""
        plan, card = table.plan, self.card
        size = plan.scratch_offset + scratch_bytes(plan)
        if self.arena is None or self.arena.size < size:
            self._outdate()
            self.arena = None
            self.arena = DeviceMemory(card, size)
        if self.errors is None or self.errors.array.nbytes < 8 * len(plan.steps):
            self._outdate()
            self.errors = None
            self.errors = PinnedMemory(card, 8 * max(len(plan.steps), 64))
            self.errors.array[:] = 0
        replay = self._replay(table)
        self.addresses[0] = self.arena.address
        self.addresses[1] = constants_of(job.executable, card, plan.memory, self.stream).address
        self.addresses[2] = replay.data.address
        self.late_outputs = late = job.find_late_outputs()
        for i, array in enumerate([*job.inputs, *job.outputs]):
            assert array is not None
            remote = job.remote.get(i)
            if i in late or remote is not None and remote.address % ALIGNMENT:
                remote = None
            grows = i - len(job.inputs) in job.resident
            there = self._tensor(i + FIRST_IO, array.nbytes, grows) if remote is None else remote
            self.addresses[i + FIRST_IO] = there.address
        if not np.array_equal(self.addresses, self._uploaded):
            card.upload(self.bases.address, self.addresses, self.stream)
            self._uploaded[:] = self.addresses
        return replay

    @property
    def codes(self) -> np.ndarray:
        """The error codes of the steps. Only valid when the stream has been synchronized."""
        assert self.errors is not None
        return self.errors.array.view(np.int64)

    def _outdate(self) -> None:
        """Mark all graphs for an update before their next run, because memory at their addresses moves."""
        self.card.synchronize(self.stream)
        for replay in self.replays.values():
            replay.outdated.update(replay.graphs)

    def _tensor(self, i: int, size: int, grows: bool = False) -> DeviceMemory:
        """Memory for a tensor. `grows`: it has room for the larger tensors of further runs."""
        memory = self.tensors.get(i)
        if memory is None or memory.size < size:
            self.tensors.pop(i, None)
            memory = self.tensors[i] = DeviceMemory(self.card, size + size // 4 if grows else size)
        return memory

    def _replay(self, table: Table) -> Replay:
        replay = self.replays.get(id(table))
        if replay is None or replay.table is not table:
            replay = self._oldest_for(table) if len(self.replays) >= MOST_GRAPHS else None
            if replay is None:
                replay = Replay(self.card, table, self.stream)
            else:
                replay.move_to(table, self.stream)
            self.replays[id(table)] = replay
        self.replays.move_to_end(id(table))
        return replay

    def _oldest_for(self, table: Table) -> Replay | None:
        """Remove the replay that was not used for longest and serves a table; else the oldest one, and return
        None."""
        oldest = next((key for key, replay in self.replays.items() if replay.serves(table)), None)
        if oldest is not None:
            return self.replays.pop(oldest)
        self.card.synchronize(self.stream)
        self.replays.popitem(last=False)
        return None

    def staging(self, i: int, size: int) -> np.ndarray:
        """Pinned memory for a tensor."""
        memory = self.pinned.get(i)
        if memory is None or memory.array.nbytes < size:
            self.pinned.pop(i, None)
            memory = self.pinned[i] = PinnedMemory(self.card, size)
        return memory.array[:size]


def stand_in(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array without memory of its own, with the shape and type of a tensor on the card."""
    return np.broadcast_to(np.zeros((), dtypes.numpy_dtype(dtype)), shape)


def form_of(number: int) -> card_blocks.BlockLaunch | None:
    """The launch of blocks of the kernel with this number; None if its chunks are warps."""
    return card_blocks.block_launch(ptx_of(number).text) if number > 0 else None


def starts_early(number: int) -> bool:
    """True if the kernel with this number may start while the one before it runs."""
    return card_blocks.starts_early(ptx_of(number).text)


def function_of(card: Card, number: int) -> Any:
    """The function of the kernel with this number, which the driver compiles once for a card."""
    ptx, form = ptx_of(number), form_of(number)
    function = card.function(ptx.text, ENTRY, ptx.name)
    if form is not None and form.shared:
        card_blocks.allow_shared_memory(card, function, form)
    return function


def load_functions(card: Card, numbers: Collection[int]) -> dict[int, Any]:
    """The functions of kernels by their numbers. Threads let the driver compile several at a time."""
    missing = [number for number in numbers if not card.has_function(ptx_of(number).text, ENTRY)]
    if len(missing) > 1:
        from concurrent.futures import ThreadPoolExecutor

        with contextlib.suppress(RuntimeError):  # also when threads cannot start: errors are raised below
            with ThreadPoolExecutor(min(len(missing), MOST_LOADED)) as pool:
                list(pool.map(lambda number: function_of(card, number), missing))
    return {number: function_of(card, number) for number in numbers}


def scratch_bytes(plan: Any) -> int:
    """Bytes of scratch memory of the step with the most."""
    each = scratch_of_chunk(plan)
    most = max((plan.chunks_of(i) for i in range(len(plan.steps))), default=0)
    return min(each * most, max(MOST_SCRATCH, each))


def scratch_of_chunk(plan: Any) -> int:
    return plan.scratch_size if plan.scratch_size > LEAST_SCRATCH else 0


def constants_of(executable: Any, card: Card, memory: np.ndarray, stream: Any) -> DeviceMemory:
    """The constants of a compiled model on a card, uploaded at the first use."""
    with _uploading.lock:
        by_card = _constants.setdefault(executable, {})
        constants = by_card.get(card.facts.number)
        if constants is None:
            content = np.ascontiguousarray(memory).view(np.uint8).reshape(-1)
            constants = DeviceMemory(card, content.nbytes)
            card.upload(constants.address, content, stream)
            card.synchronize(stream)
            by_card[card.facts.number] = constants
        return constants


class DeviceJob(Job):
    """A job whose kernels run on a card."""

    __slots__ = ("_device", "remote", "resident")
    leads_in_python = True

    def __init__(self, executable: Executable):
        super().__init__(executable)
        self._device: DeviceState | None = None
        #: Number of an input or, after those, of an output -> its tensor in the card's memory.
        self.remote: dict[int, DeviceTensor] = {}
        #: Numbers of outputs that stay on the card, see `take_resident`. A composite gives arrays for them.
        self.resident: Collection[int] = ()

    def set_input(self, i: int, array: np.ndarray, address: int | None = None) -> None:
        super().set_input(i, array, address)
        self.remote.pop(i, None)

    def set_output(self, i: int, array: np.ndarray | None) -> None:
        self.remote.pop(len(self.inputs) + i, None)
        super().set_output(i, array)

    def set_remote_input(self, i: int, tensor: DeviceTensor) -> None:
        """Read input i where it lies on the card. Raises InferenceError for a tensor of another card."""
        self._check_remote(tensor)
        array = stand_in(tensor.shape, self.executable.inputs[i].dtype)
        self.set_input(i, array, 0)
        self.remote[i] = tensor

    def set_remote_output(self, i: int, tensor: DeviceTensor) -> None:
        """Write output i to a tensor on the card. Raises InferenceError for a tensor of another card."""
        self._check_remote(tensor)
        self.set_output(i, stand_in(tensor.shape, self.executable.outputs[i].dtype))
        self.remote[len(self.inputs) + i] = tensor

    def give_output(self, i: int, result: np.ndarray) -> None:
        if len(self.inputs) + i not in self.remote:  # else the composite's part has written it on the card
            super().give_output(i, result)

    def _shape_output(self, i: int, shape: tuple[int, ...]) -> None:
        if i in self.resident:
            assert self._table is not None
            dtype = self.executable.outputs[i].dtype
            if self._table.composite is None:
                self.outputs[i] = stand_in(shape, dtype)
                return
            if not self.outputs[i].flags.writeable:
                self.outputs[i] = np.empty(shape, dtypes.numpy_dtype(dtype))
        super()._shape_output(i, shape)

    def take_resident(self, i: int) -> DeviceTensor | None:
        """Output i of the last run, whose memory is the caller's from now on; None if it is an array of the
        host."""
        if self.outputs[i].flags.writeable:
            return None
        array = self.outputs[i]
        memory = self.device.tensors.pop(FIRST_IO + len(self.inputs) + i)
        strides = row_strides(array.shape, array.itemsize)
        return DeviceTensor(memory.card, memory.address, array.shape, strides, array.itemsize, memory)

    def give_spare(self, i: int, memory: DeviceMemory) -> None:
        """Make the next run write output i to this memory if it is large enough."""
        self.device.tensors[FIRST_IO + len(self.inputs) + i] = memory

    def _check_remote(self, tensor: DeviceTensor) -> None:
        if tensor.card is not self.device.card:
            raise InferenceError(
                f"the tensor is in the memory of card {tensor.card.facts.number}, and the model runs on card "
                f"{self.device.card.facts.number}"
            )
        if not tensor.is_contiguous:
            raise InferenceError(
                "a region of a remote tensor can be an input or output only if it is contiguous: copy it"
            )

    def find_late_outputs(self) -> list[int]:
        """The numbers of outputs whose remote memory is that of an input, or of another output, too, or is
        not aligned."""
        late: list[int] = []
        earlier: list[DeviceTensor] = []
        for i, tensor in sorted(self.remote.items()):  # inputs first
            overlaps = any(tensor.overlaps(other.address, other.size) for other in earlier)
            if i >= len(self.inputs) and (overlaps or tensor.address % ALIGNMENT):
                late.append(i)
            earlier.append(tensor)
        return late

    @property
    def device(self) -> DeviceState:
        if self._device is None:
            number = int(self.executable.config.get("card", 0))
            self._device = DeviceState(self, open_card(number))
        return self._device

    def _take(self, table: Table) -> None:
        super()._take(table)
        self.words[runner.ARENA_SIZE] = 0  # the host needs no arena

    def _run_segments(self, arena: blocks.Arena) -> None:
        words, table = self.words, self._table
        assert table is not None
        if table.composite is not None:
            if getattr(table.composite, "takes_remote", False):
                self._run_composite(table.composite)
            else:
                self._run_on_host(table.composite)
            return
        words[runner.STARTED] = runner.clock()
        try:
            self._run_table(table)
        finally:
            words[runner.ENDED] = runner.clock()

    def _run_on_host(self, composite: Any) -> None:
        """Run a composite, whose parts exchange arrays of the host, with copies of remote tensors."""
        remote, count, stream = dict(self.remote), len(self.inputs), self.device.stream
        copies: dict[int, np.ndarray] = {}
        for i, tensor in remote.items():
            dtype = (self.inputs[i] if i < count else self.outputs[i - count]).dtype  # type: ignore[union-attr]
            copies[i] = array = np.empty(tensor.shape, dtype)
            if i < count:
                device_memory.download(tensor, array, stream)
                self.set_input(i, array)
            else:
                self.set_output(i - count, array)
        try:
            self._run_composite(composite)
            for i, tensor in remote.items():
                if i >= count:
                    device_memory.upload(tensor, copies[i], stream)
        finally:
            for i, tensor in remote.items():
                (self.set_remote_input if i < count else self.set_remote_output)(
                    i - count * (i >= count), tensor
                )

    def _run_table(self, table: Table) -> None:
        with self.device.card:
            try:
                self._run_in_order(table)
            except BaseException:
                self._settle()
                raise
            if self.words[runner.ABORT]:
                self._settle()

    def _settle(self) -> None:
        """After a failure, wait for the work on the stream: it may use memory that is freed or reused
        next."""
        state = self._device
        if state is not None:
            with contextlib.suppress(CardError):
                state.card.synchronize(state.stream)
            if state.errors is not None:
                state.codes[:] = 0

    def _run_in_order(self, table: Table) -> None:
        words, state, steps = self.words, self.device, len(table.plan.steps)
        replay = state.prepare(self, table)
        self._upload_inputs(state)
        first = 0
        for stop in (*table.host, steps):
            if words[runner.ABORT]:
                return
            if stop > first:
                self._run_steps(state, replay, table, first, stop)
            if stop < steps:
                if not self._check_errors(state):
                    return
                self._run_host(stop)
            first = stop + 1
        pinned = self._download_outputs(state)
        self._download_written(state, table)
        if self._check_errors(state):
            for i, memory in pinned.items():
                array = self.outputs[i]
                array.reshape(-1).view(np.uint8)[:] = memory

    def _upload_inputs(self, state: DeviceState) -> None:
        for i, array in enumerate(self.inputs):
            assert array is not None
            if i in self.remote:
                tensor, address = self.remote[i], int(state.addresses[FIRST_IO + i])
                if address != tensor.address:
                    state.card.copy(address, tensor.address, tensor.size, state.stream)
                continue
            if array.dtype.hasobject:
                raise InferenceError(f"input {i} has strings, which a GPU does not take: compile for the CPU")
            content = array.reshape(-1).view(np.uint8)
            if 0 < content.nbytes <= MOST_PINNED and not state.card.is_pinned(content.ctypes.data):
                staging = state.staging(i, content.nbytes)
                staging[:] = content
                content = staging
            state.card.upload(int(state.addresses[FIRST_IO + i]), content, state.stream)

    def _download_outputs(self, state: DeviceState) -> dict[int, np.ndarray]:
        """Start the copies of all outputs. Returns the pinned memory of those that go through it."""
        pinned = {}
        for i, array in enumerate(self.outputs):
            at = len(self.inputs) + i
            address = int(state.addresses[FIRST_IO + at])
            if i in self.resident:
                continue
            if at in self.remote:
                if at in state.late_outputs:
                    state.card.copy(self.remote[at].address, address, array.nbytes, state.stream)
            elif 0 < array.nbytes <= MOST_PINNED:
                pinned[i] = state.staging(at, array.nbytes)
                state.card.download(pinned[i], address, state.stream)
            else:
                state.card.download(array.reshape(-1).view(np.uint8), address, state.stream)
        return pinned

    def _download_written(self, state: DeviceState, table: Table) -> None:
        """Start the copies of inputs that steps have written, such as paged caches."""
        for i in table.plan.written:
            array = self.inputs[i]
            assert array is not None
            address = int(state.addresses[FIRST_IO + i])
            if i not in self.remote and array.nbytes:
                state.card.download(array.reshape(-1).view(np.uint8), address, state.stream)
            elif i in self.remote and address != self.remote[i].address:
                state.card.copy(self.remote[i].address, address, self.remote[i].size, state.stream)

    def _check_errors(self, state: DeviceState) -> bool:
        """Wait for the stream. False if a kernel has reported an error, which becomes the job's."""
        state.card.synchronize(state.stream)
        codes = state.codes
        if not codes.any():
            return True
        first = int(codes.nonzero()[0][0])
        self.words[runner.ERROR] = first << 32 | int(codes[first])
        codes[:] = 0
        return False

    def _run_steps(self, state: DeviceState, replay: Replay, table: Table, first: int, stop: int) -> None:
        card, stream = state.card, state.stream
        if self._perf is not None:
            self._run_timed(state, replay, table, first, stop)
            return
        graph = replay.graph(first, stop)
        if graph is None:
            functions = self._functions(card, table, first, stop)

            def launch() -> None:
                for i in range(first, stop):
                    self._launch(state, replay, table, i, functions[i - first])

            graph = replay.capture(first, stop, stream, launch)
        card.run_graph(graph, stream)

    def _run_timed(self, state: DeviceState, replay: Replay, table: Table, first: int, stop: int) -> None:
        """Run steps one by one with events between, whose times go to the profile."""
        card, stream = state.card, state.stream
        functions = self._functions(card, table, first, stop)
        events = [card.create_event() for _ in range(stop - first + 1)]
        try:
            start = runner.clock()
            card.record(events[0], stream)
            for i in range(first, stop):
                self._launch(state, replay, table, i, functions[i - first])
                card.record(events[i - first + 1], stream)
            card.synchronize(stream)
            for i in range(first, stop):
                ends = [start + card.elapsed_ns(events[0], events[j]) for j in (i - first, i - first + 1)]
                self._perf[2 * i], self._perf[2 * i + 1] = ends  # type: ignore[index]
        finally:
            for event in events:
                card.destroy_event(event)

    def _functions(self, card: Card, table: Table, first: int, stop: int) -> Sequence[Any]:
        numbers = table.rows[first:stop, runner.STEP_KERNEL].tolist()
        loaded = load_functions(card, set(numbers))
        return [loaded[number] for number in numbers]

    def _launch(self, state: DeviceState, replay: Replay, table: Table, i: int, function: Any) -> None:
        plan, card = table.plan, state.card
        assert state.arena is not None and state.errors is not None
        chunks = int(table.rows[i, runner.STEP_CHUNKS])
        arguments = replay.arguments.address + int(table.rows[i, runner.STEP_ARGS]) - replay.base
        each = scratch_of_chunk(plan)
        scratch, error = state.arena.address + plan.scratch_offset, state.codes.ctypes.data + 8 * i
        number = int(table.rows[i, runner.STEP_KERNEL])
        form, attribute = form_of(number), EARLY_START if starts_early(number) else 0
        if form is not None and chunks:
            block = table.args.reshape(-1).view(np.int64)[(arguments - replay.arguments.address) // 8 :]
            count, requested = chunks, form.numbers("requested", block)[0]
            if requested:
                most = card_blocks.blocks_at_a_time(card, function, form)
                count, attribute = min(-(-requested // form.warps), most), AT_A_TIME
            maps = [card_blocks.map_of(card, form, block, state.addresses)] if form.sizes else []
            values = (state.bases.address, arguments, 0, chunks, scratch, 0, error)
            card.launch(function, count, form.warps, values, state.stream, shared=form.shared,
                        attribute=attribute, more=[described.address for described in maps])  # fmt: skip
            return
        round_ = chunks if not each else max(1, min(chunks, MOST_SCRATCH // each))
        for start in range(0, chunks, max(round_, 1)):
            count = min(round_, chunks - start)
            values = (state.bases.address, arguments, start, start + count, scratch, each, error)
            card.launch(function, -(-count // WARPS), WARPS, values, state.stream, attribute=attribute)

    # -- host steps

    def _array(self, value: Any, view: View) -> np.ndarray:
        """A copy of a tensor of this job in the host's memory."""
        dtype = dtypes.numpy_dtype(value.dtype)
        if view.count == 0:
            return np.empty(view.shape, dtype)
        memory, address = self._span(view)
        self.device.card.download(memory, address, self.device.stream)
        self.device.card.synchronize(self.device.stream)
        return np.ndarray(view.shape, dtype, memory.data, strides=view.strides)

    def _write(self, value: Any, view: View, result: np.ndarray) -> None:
        """Copy a result of a host step to its tensor on the card, and leave what lies between its
        elements."""
        if view.count == 0:
            return
        state = self.device
        memory, address = self._span(view)
        if memory.nbytes != view.count * view.itemsize:
            state.card.download(memory, address, state.stream)
            state.card.synchronize(state.stream)
        np.ndarray(view.shape, dtypes.numpy_dtype(value.dtype), memory.data, strides=view.strides)[...] = (
            result
        )
        state.card.upload(address, memory, state.stream)
        state.card.synchronize(state.stream)

    def _span(self, view: View) -> tuple[np.ndarray, int]:
        """Host memory for the bytes of a view, and their address on the card."""
        size = sum((d - 1) * s for d, s in zip(view.shape, view.strides, strict=True)) + view.itemsize
        base = int(self.device.addresses[view.buffer.base])
        return np.empty(size, np.uint8), base + view.buffer.offset + view.offset
