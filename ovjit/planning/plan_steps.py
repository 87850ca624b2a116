"""What a plan consists of: steps, which call kernels, references or bodies, and what a job needs beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ovjit.codegen.kernel import Kernel
from ovjit.graph.graph import Node, Value
from ovjit.planning.views import View
from ovjit.records import NamedTuple

#: The kernel that clears a halo (`ovjit.codegen.halos`), by the name that a stored plan has of it.
CLEAR_GAPS = "clear_gaps"
#: A row of a plan made native. STEP_NEXT: the first control step that is not before this one, see
#: `ovjit.execution.control_steps`; their number where there is none. STEP_GOES_ON: 1 where threads go on to
#: the next step before all of this one is done, and wait for both at the end of that.
STEP_WORDS = 5
STEP_KERNEL, STEP_ARGS, STEP_CHUNKS, STEP_NEXT, STEP_GOES_ON = range(5)


class Step:
    """One call of a kernel in the program, or where `kernel` is None of the host or of bodies."""

    __slots__ = ("args", "bytes", "chunks", "control", "flops", "host", "kernel", "name", "origins", "type")

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

    @property
    def goes_on(self) -> bool:
        """Whether the next step may begin before this one is over. Readers of a cleared halo come after the
        next step, which writes the inside."""
        return self.kernel is not None and self.kernel.name == CLEAR_GAPS


class ControlCall(NamedTuple):
    """Bodies that a control step runs, see `ovjit.execution.control_steps`: the runner's function, the plans
    of the bodies, the number of words after them in its record, and whether it may be endless."""

    function: str
    bodies: Sequence[Plan]
    room: int = 0
    endless: bool = False


class HostCall(NamedTuple):
    """A node evaluated by its reference between native steps: input views in, output views out."""

    node: Node
    inputs: Sequence[View]
    outputs: Sequence[View]


#: A number of steps, the group that is complete after them, and where its values lie then.
Probe = tuple[int, Any, list[tuple[Value, View]]]


class Plan:
    """The result of `Planner.finish`: everything that a job needs to run with these shapes."""

    __slots__ = (
        "address", "addresses", "arena", "arena_size", "block", "chunks", "composite", "cut", "data",
        "figures", "input_shapes", "memory", "output_shapes", "parallel", "pieces", "rows", "scratch_offset",
        "scratch_size", "steps", "probes", "trace", "types", "whole", "words",
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
        self.cut: Any = None  # how the graph is cut (`compiler/partition.py`) when it cannot run in one piece
        self.composite: Any = None  # what runs in place of steps
        # of a watched program: when each group is done, and the types and known values of all values
        self.probes: list[Probe] | None = None
        self.types: Mapping[Value, Any] = {}
        # of kernels that Python runs: the (base, offset, bytes) that each step's pointers point into
        self.pieces: list[list[tuple[int, int, int]]] | None = None
        # of a plan made by `ovjit.planning.parametric`, in place of `words` and the steps' own numbers: its
        # maker, the arena's layout, all argument blocks in one array, the steps' chunks, the source of flops
        # and bytes, room for the rows of its table, and the array that holds all of these, its address
        self.trace: Any = None
        self.arena: Any = None
        self.block: np.ndarray | None = None
        self.chunks: np.ndarray | None = None
        self.figures: Callable[[int, int], int | None] | None = None
        self.rows: np.ndarray = self.data
        self.whole: np.ndarray = self.data
        self.address = 0

    def kernels(self) -> Iterator[Any]:
        """The kernels of its steps, and of its bodies' steps."""
        for step in self.steps:
            if step.kernel is not None:
                yield step.kernel
            for body in step.control.bodies if step.control is not None else ():
                yield from body.kernels()

    def chunks_of(self, index: int) -> int:
        """How many chunks a step has."""
        return self.steps[index].chunks if self.chunks is None else int(self.chunks[index])

    def work_of(self, index: int) -> tuple[float, float]:
        """The flops and bytes of a step."""
        step = self.steps[index]
        told = (None, None) if self.figures is None else (self.figures(index, 0), self.figures(index, 1))
        flops, moved = told
        return step.flops if flops is None else flops, step.bytes if moved is None else moved


class Strides(NamedTuple):
    """Byte strides of inputs and outputs that are not row-major, by index. `over`: output -> the input that
    begins at the same address."""

    inputs: Mapping[int, Sequence[int]]
    outputs: Mapping[int, Sequence[int]]
    over: Mapping[int, int] = MappingProxyType({})
