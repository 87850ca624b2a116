"""The data of a plan: its steps, which call kernels, NumPy references or bodies, and the numbers of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ovjit.codegen.kernel import Kernel
from ovjit.graph.graph import Node, Value
from ovjit.planning.views import View
from ovjit.records import NamedTuple

#: Name, also in stored plans, of the kernel that clears a halo (`ovjit.codegen.halos`).
CLEAR_GAPS = "clear_gaps"
#: Fields of a row of the runner's table, int64s. STEP_NEXT: index of the first control step from this step
#: on, or the number of control steps (`ovjit.execution.control_steps`). STEP_GOES_ON: 1 if threads begin the
#: next step before all chunks of this step are done, and wait for both steps at the next one's end.
STEP_WORDS = 5
STEP_KERNEL, STEP_ARGS, STEP_CHUNKS, STEP_NEXT, STEP_GOES_ON = range(5)


class Step:
    """One call of a kernel. If `kernel` is None, a host step (`host`) or a control step (`control`). `why`:
    the reason of a copy that no operation of the model asks for."""

    __slots__ = (
        "args", "bytes", "chunks", "control", "flops", "host", "kernel", "name", "origins", "type", "why",
    )  # fmt: skip

    def __init__(
        self,
        kernel: Kernel | None,
        args: Sequence[Any],
        chunks: int,
        name: str,
        type: str,
        origins: Sequence[str],
        flops: float = 0,
        bytes: float = 0,
        host: HostCall | None = None,
        control: ControlCall | None = None,
        why: str = "",
    ):
        self.kernel = kernel
        self.args = args
        self.chunks = chunks
        self.name = name
        self.type = type
        self.origins = tuple(origins)
        self.flops = flops
        self.bytes = bytes
        self.host = host
        self.control = control
        self.why = why

    @property
    def goes_on(self) -> bool:
        """Whether the next step may begin before all chunks of this one are done. True for the clearing of a
        halo: the next step writes the inside, and readers come later."""
        return self.kernel is not None and self.kernel.name == CLEAR_GAPS


class ControlCall(NamedTuple):
    """Bodies that a control step runs, see `ovjit.execution.control_steps`. `function`: the runner's
    function. `room`: int64s after the bodies in the step's record. `endless`: the loop may not terminate."""

    function: str
    bodies: Sequence[Plan]
    room: int = 0
    endless: bool = False


class HostCall(NamedTuple):
    """A node that its NumPy reference evaluates between native steps, reading and writing these views."""

    node: Node
    inputs: Sequence[View]
    outputs: Sequence[View]


#: (number of steps, the group that is complete after them, its values with their views)
Probe = tuple[int, Any, list[tuple[Value, View]]]


class Plan:
    """The result of `Planner.finish`: what a job needs to run with these shapes. Sizes are in bytes."""

    __slots__ = (
        "address", "addresses", "arena", "arena_size", "block", "chunks", "composite", "cut", "data",
        "figures", "input_shapes", "memory", "output_shapes", "parallel", "pieces", "rows", "scratch_offset",
        "scratch_size", "steps", "probes", "trace", "types", "numbers", "words", "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.words: list[list[int]] = []  # argument block of each step
        self.data = np.empty(0, np.uint8)  # constants of this plan
        self.memory = self.data  # the model's constants
        self.addresses: Mapping[Any, int] = {}  # of the kernels of its steps and bodies, once they are loaded
        self.arena_size = 0  # without scratch
        self.scratch_offset = 0
        self.scratch_size = 0  # per thread
        self.parallel = False
        self.input_shapes: tuple[tuple[int, ...], ...] = ()
        self.output_shapes: list[tuple[int, ...]] = []
        self.written: tuple[int, ...] = ()  # inputs that steps write, of plans for cards
        self.cut: Any = None  # a `planning.partition.Cut` if the graph has a graph break
        self.composite: Any = None  # the object that runs instead of steps
        # of a watched program: when each group is done, and the types and known values of all values
        self.probes: list[Probe] | None = None
        self.types: Mapping[Value, Any] = {}
        # of kernels that Python runs: for each step, (base, offset, bytes) of the memory of its pointers
        self.pieces: list[list[tuple[int, int, int]]] | None = None
        # of a plan made by `ovjit.planning.parametric`, instead of `words` and the steps' own numbers: the
        # trace, the memory plan, all argument blocks in one array, chunks of each step, the source of flops
        # and bytes, space for the table's rows, and the array that has all of these, with its address
        self.trace: Any = None
        self.arena: Any = None
        self.block: np.ndarray | None = None
        self.chunks: np.ndarray | None = None
        self.figures: Callable[[int, int], int | None] | None = None
        self.rows: np.ndarray = self.data
        self.numbers: np.ndarray = self.data
        self.address = 0

    def describe(self) -> str:
        """The steps, a line each: chunks, flops and bytes."""
        sizes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in self.input_shapes)
        sizes_of_memory = f"arena of {self.arena_size} bytes, {self.scratch_size} bytes of scratch a thread"
        lines = [f"ovjit: plan for {sizes}: {len(self.steps)} steps, {sizes_of_memory}"]
        for i, step in enumerate(self.steps):
            kernel = step.kernel.name if step.kernel is not None else "ref_numpy"
            flops, moved = self.work_of(i)
            work = f"{self.chunks_of(i):4d} chunks {flops / 1e6:9.3f} Mflop {moved / 1e6:9.3f} MB"
            why = f" ({step.why})" if step.why else ""
            lines.append(f"  {i:4d} {step.type:20s} {kernel:36s} {work}  {step.name}{why}")
        return "\n".join(lines)

    def kernels(self) -> Iterator[Any]:
        """The kernels of its steps, and of its bodies' steps."""
        for step in self.steps:
            if step.kernel is not None:
                yield step.kernel
            for body in step.control.bodies if step.control is not None else ():
                yield from body.kernels()

    def chunks_of(self, index: int) -> int:
        """The number of chunks of a step."""
        return self.steps[index].chunks if self.chunks is None else int(self.chunks[index])

    def work_of(self, index: int) -> tuple[float, float]:
        """The flops and bytes of a step."""
        step = self.steps[index]
        flops, moved = (None, None) if self.figures is None else (self.figures(index, i) for i in (0, 1))
        return step.flops if flops is None else flops, step.bytes if moved is None else moved


class Strides(NamedTuple):
    """Byte strides of inputs and outputs that are not row-major, by index. `over`: output -> the input at the
    same address."""

    inputs: Mapping[int, Sequence[int]]
    outputs: Mapping[int, Sequence[int]]
    over: Mapping[int, int] = MappingProxyType({})
