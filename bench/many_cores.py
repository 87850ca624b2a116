"""The runner on many cores, simulated: claims, barriers and shared cache lines of 16, 64 and 128 threads.

    python -m bench.many_cores [--models resnet50 bert128] [--threads 2 16 64 128] [--socket 64] [--far 250]

The steps, their chunks and their times are measured here, with one thread; so is what an atomic addition
takes on a line of one's own, and what handing a line to another core takes. `--near` and `--far` replace the
cost of a transfer within a socket and between two. Threads then walk the table as `walk` of
`ovjit.execution.runner_functions` does, and lines are taken one after the other.

`speedup` is the time of one thread over that of many. `grain` is the share of the makespan that is lost as a
step has no multiple of the threads in chunks, `lines` the share that goes to claims and barriers. Memory is
left out: `--bandwidth` (GB/s of a socket) makes chunks wait for it, with all bytes from memory.

Ways: `as it is`; `apart`: the counters of each step in a line of their own; `batches`: several chunks to a
claim while many are left; `groups`: eight threads have a part of the chunks and its counters for themselves,
and help other groups when it is taken; `split`: chunks of a step are cut until there are three for a thread,
or they take 1 us.
"""

from __future__ import annotations

import heapq
import math
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command

COLUMNS = ("model", "threads", "way", "us", "speedup", "efficiency", "grain", "lines")
KEYS = ("model", "threads", "way")
#: Counters of steps that share a line of 64 bytes: 16 bytes each.
PER_LINE = 4
#: A read of a line that others have read already takes as long from the line (ns). A pause between two looks.
SERVE, PAUSE = 8.0, 30.0
#: Chunks that `split` leaves alone (ns), and how many it wants for a thread.
SMALLEST, WANTED = 1000.0, 3


class Step(NamedTuple):
    """`ns` of all chunks on one thread."""

    name: str
    chunks: int
    ns: float
    bytes: float
    goes_on: bool


class Costs(NamedTuple):
    """Nanoseconds of an atomic operation: on a line of one's own, on another core's, on another socket's.
    `socket`: threads on each. `bandwidth`: bytes per ns of a socket."""

    local: float
    near: float
    far: float
    socket: int
    bandwidth: float = math.inf


class Way(NamedTuple):
    apart: bool = False
    batches: bool = False
    groups: bool = False
    split: bool = False


WAYS = {
    "as it is": Way(),
    "apart": Way(apart=True),
    "batches": Way(batches=True),
    "groups": Way(groups=True),
    "groups, batches": Way(groups=True, batches=True),
    "groups, split": Way(groups=True, split=True),
}
#: Threads of a group.
GROUP = 8


class Part:
    """What a group's threads claim of a step: chunks claimed from the first half and from the second, chunks
    that are done, and the line of these counters."""

    __slots__ = ("chunks", "done", "first", "line", "second")

    def __init__(self, chunks: int, line: Line):
        self.chunks, self.line = chunks, line
        self.first = self.second = self.done = 0


class Line:
    """A cache line: who wrote it last, who has a copy, until when it is on its way, and who looks at it."""

    __slots__ = ("copies", "free_at", "owner", "version", "watchers")

    def __init__(self) -> None:
        self.owner, self.version, self.free_at = 0, 0, 0.0
        self.copies: set[int] = {0}
        self.watchers: list[tuple[Generator, int]] = []


Action = tuple[str, Any, Any]


class Run:
    """One inference by so many threads. `end` is when the last one is through."""

    def __init__(self, steps: Sequence[Step], threads: int, costs: Costs, way: Way):
        self.threads, self.costs, self.way = threads, costs, way
        self.steps = [_split(step, threads) for step in steps] if way.split else list(steps)
        count = len(steps)
        self.groups = max(1, threads // GROUP) if way.groups else 1
        shared = [Line() for _ in range(count)]
        #: Chunks of each step that are done, as all threads see them, and the line of this counter.
        self.done = [0] * count
        self.ends = [shared[s if way.apart or self.groups > 1 else s // PER_LINE] for s in range(count)]
        self.parts = [self._parts(step.chunks, end) for step, end in zip(self.steps, self.ends, strict=True)]
        self.slots: dict[Generator, int] = {}
        self.heap: list[tuple[float, int, Generator, Action]] = []
        self.number = 0
        self.end = 0.0
        self._go()

    def _parts(self, chunks: int, end: Line) -> list[Part]:
        if self.groups == 1:
            return [Part(chunks, end)]
        places = [chunks * g // self.groups for g in range(self.groups + 1)]
        return [Part(high - low, Line()) for low, high in zip(places, places[1:], strict=False)]

    def _go(self) -> None:
        for slot in range(self.threads):
            thread = self.walk(slot)
            self.slots[thread] = slot
            # threads join one after the other, by two operations on the job's line
            self._resume(thread, None, 2 * slot * self._between(0, slot), True)
        while self.heap:
            at, _, thread, action = heapq.heappop(self.heap)
            self._act(at, thread, action)

    def _resume(self, thread: Generator, answer: Any, at: float, fresh: bool = False) -> None:
        try:
            action = next(thread) if fresh else thread.send(answer)
        except StopIteration:
            self.end = max(self.end, at)
            return
        self._push(at, thread, action)

    def _push(self, at: float, thread: Generator, action: Action) -> None:
        self.number += 1
        heapq.heappush(self.heap, (at, self.number, thread, action))

    def _act(self, at: float, thread: Generator, action: Action) -> None:
        kind, given, more = action
        slot = self.slots[thread]
        if kind == "work":
            self._resume(thread, None, at + given)
        elif kind == "look":
            self._resume(thread, given.version, self._read(given, slot, at))
        elif kind == "watch":  # until step `more` has all its chunks
            ready = self._read(given, slot, at)
            if self.done[more] == self.steps[more].chunks:
                self._resume(thread, None, ready)
            else:
                given.watchers.append((thread, more))
        else:  # an atomic change, if nothing has changed the line since version `more`
            good = more is None or given.version == more
            ready = self._write(given, slot, at, good)
            self._resume(thread, good, ready)

    def _between(self, one: int, other: int) -> float:
        return self.costs.near if one // self.costs.socket == other // self.costs.socket else self.costs.far

    def _read(self, line: Line, slot: int, at: float) -> float:
        if slot in line.copies:
            return at + 1
        begin = max(at, line.free_at)
        line.free_at = begin + SERVE
        line.copies.add(slot)
        return begin + self._between(line.owner, slot)

    def _write(self, line: Line, slot: int, at: float, changes: bool) -> float:
        others = line.copies - {slot}
        begin = max(at, line.free_at)
        cost = max((self._between(slot, other) for other in others), default=0.0)
        if not others and line.owner != slot:
            cost = self._between(slot, line.owner)
        end = begin + max(cost, self.costs.local)
        line.free_at, line.owner, line.copies = end, slot, {slot}
        if changes:
            line.version += 1
            watchers, line.watchers = line.watchers, []
            for thread, step in watchers:
                self._push(end + PAUSE / 2, thread, ("watch", line, step))
        return end

    def walk(self, slot: int) -> Generator[Action, Any, None]:
        """What a thread does, as `walk` of the runner."""
        since, home = 0, slot // GROUP if self.groups > 1 else 0
        for s, step in enumerate(self.steps):
            for g in range(self.groups):
                yield from self._work(slot, s, self.parts[s][(home + g) % self.groups])
            if not step.goes_on or s + 1 == len(self.steps):
                while since <= s:
                    yield "watch", self.ends[since], since
                    since += 1

    def _work(self, slot: int, s: int, part: Part) -> Generator[Action, Any, None]:
        """Take chunks of a part of step `s` until all are taken."""
        middle = (part.chunks + 1) // 2
        while part.chunks:
            version = yield "look", part.line, None
            left = part.chunks - part.first - part.second
            if left <= 0:
                break
            in_first = part.first < middle and (slot % 2 == 0 or middle + part.second >= part.chunks)
            there = middle - part.first if in_first else part.chunks - middle - part.second
            taken = min(there, max(1, left // (2 * GROUP))) if self.way.batches else 1
            if not (yield "change", part.line, version):
                continue
            if in_first:
                part.first += taken
            else:
                part.second += taken
            yield "work", taken * self._chunk(self.steps[s]), None
            yield "change", part.line, None
            part.done += taken
            if self.groups == 1:
                self.done[s] = part.done
            elif part.done == part.chunks:
                yield "change", self.ends[s], None
                self.done[s] += part.chunks

    def _chunk(self, step: Step) -> float:
        """ns of one chunk: longer where all threads together want more of a socket's memory than there is."""
        sockets = math.ceil(self.threads / self.costs.socket)
        running = min(self.threads, step.chunks)
        return max(step.ns, step.bytes * running / (self.costs.bandwidth * sockets)) / step.chunks


def _split(step: Step, threads: int) -> Step:
    """The step in more chunks."""
    finer = min(WANTED * threads, int(step.ns / SMALLEST))
    return step._replace(chunks=max(step.chunks, finer))


def steps_of(path: str, inputs: Sequence[np.ndarray], rounds: int) -> list[Step]:
    """The steps of a model on these inputs, timed with one thread: the fastest of some runs each."""
    import ovjit as ov

    config = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1}
    request = ov.Core().compile_model(path, "CPU", config).create_infer_request()
    spent: list[list[int]] = []
    for _ in range(rounds + 2):
        request.infer(list(inputs))
        spent.append([row.real_ns for row in request._job.profile()])
    plan = request._job._table.plan
    if any(step.kernel is None for step in plan.steps):
        raise SystemExit(f"{path}: not all steps are kernels")
    best = np.min(spent[2:], axis=0)
    return [
        Step(step.name, plan.chunks_of(i), float(best[i]), plan.work_of(i)[1], step.goes_on)
        for i, step in enumerate(plan.steps)
    ]


def _adding(place, count, unused, unused2):  # type: ignore[no-untyped-def]  # printed as a kernel
    for _ in range(count):
        aadd(place, 1)  # type: ignore[name-defined]  # noqa: F821
    return 0


def _tossing(place, count, mine, other):  # type: ignore[no-untyped-def]  # printed as a kernel
    began = 0
    for i in range(count):
        spins = 0
        while aload(place) != mine:  # type: ignore[name-defined]  # noqa: F821
            pause()  # type: ignore[name-defined]  # noqa: F821
            spins += 1
            if spins > 300:
                give_way()  # type: ignore[name-defined]  # noqa: F821
        if i == 16:  # both threads run by now
            began = now()  # type: ignore[name-defined]  # noqa: F821
        astore(place, other)  # type: ignore[name-defined]  # noqa: F821
    return now() - began  # type: ignore[name-defined]  # noqa: F821


def measured() -> tuple[float, float]:
    """ns of an atomic addition alone, and of handing a line to another core: half of a round trip."""
    from ovjit.codegen.cpu import atomics
    from ovjit.codegen.cpu.objects import function
    from ovjit.codegen.kernel import Kernel, KernelArgs
    from ovjit.codegen.kernel_printing import printed_routine
    from ovjit.codegen.loading import addresses
    from ovjit.codegen.parts import routine

    def native(made: Any) -> Any:
        source = printed_routine(routine(made), "kernel")
        kernel = Kernel(made.__name__, source, KernelArgs(), lambda isa: atomics.intrinsics())
        return function(addresses((kernel,))[kernel], 4, True)

    adding, tossing = native(_adding), native(_tossing)
    memory = np.zeros(64, np.int64)
    place, count, tosses = -(-memory.ctypes.data // 64) * 64, 200_000, 216
    alone, handed = [], []
    for _ in range(9):
        began = time.perf_counter_ns()
        adding(place, count, 0, 0)
        alone.append((time.perf_counter_ns() - began) / count)
    for _ in range(100):  # short ones: other programs want the cores, too
        memory[:] = 0
        other = threading.Thread(target=tossing, args=(place, tosses, 1, 0))
        other.start()
        handed.append(tossing(place, tosses, 0, 1) / (2 * (tosses - 16)))
        other.join()
    return min(alone), min(handed)


def rows_of(name: str, steps: Sequence[Step], threads: Sequence[int], costs: Costs) -> list[dict[str, Any]]:
    """The table's rows of a model."""
    whole = sum(step.ns for step in steps)
    rows = []
    for count in threads:
        for label, way in WAYS.items():
            run = Run(steps, count, costs, way)
            ideal = sum(run._chunk(s) * math.ceil(s.chunks / count) for s in run.steps)
            rows.append({
                "model": name, "threads": count, "way": label, "us": run.end / 1e3,
                "speedup": whole / run.end, "efficiency": whole / run.end / count,
                "grain": (ideal - whole / count) / run.end, "lines": (run.end - ideal) / run.end,
            })  # fmt: skip
    return rows


def coarse(steps: Sequence[Step], threads: int) -> str:
    """The steps that lose most by their number of chunks."""
    lost = [(s.ns / s.chunks * math.ceil(s.chunks / threads) - s.ns / threads, s) for s in steps]
    lost.sort(key=lambda pair: -pair[0])
    return "; ".join(f"{s.name} ({s.chunks} chunks, {ns / 1e3:.1f} us lost)" for ns, s in lost[:5])


def main(argv: Sequence[str] | None = None) -> int:
    from bench.run import Subject

    parser = command.parser("many_cores", __doc__)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet", "bert128"])
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 16, 64, 128])
    parser.add_argument("--socket", type=int, default=64, help="threads of a socket")
    parser.add_argument("--near", type=float, help="ns of a transfer within a socket (default: measured)")
    parser.add_argument("--far", type=float, default=250.0, help="ns of one between sockets")
    parser.add_argument("--bandwidth", type=float, default=math.inf, help="GB/s of a socket's memory")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(argv)
    local, near = measured()
    print(f"an atomic addition: {local:.1f} ns alone, {near:.1f} ns to hand a line to another core")
    costs = Costs(local, options.near or near, options.far, options.socket, options.bandwidth)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            subject = Subject(name, Path(folder), None)
            with np.load(subject.inputs) as file:
                steps = steps_of(subject.paths["xml"], [file[n] for n in file.files], options.rounds)
            rows += rows_of(name, steps, options.threads, costs)
            for count in options.threads:
                print(f"{name}, {count} threads: {coarse(steps, count)}")
    return command.finish(options, "many_cores", KEYS, COLUMNS, rows, costs=costs._asdict())


if __name__ == "__main__":
    raise SystemExit(main())
