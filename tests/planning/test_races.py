"""Plans: no two chunks of a step meet, no step writes over what another still reads, and kernels touch what
they say. All operations' samples and the test networks, cut into many small chunks."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit.codegen import loading
from ovjit.compiler.program import Program
from ovjit.data import digits
from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.execution.executable import Executable
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Op
from ovjit.planning import chunks, plan, plan_steps, races
from ovjit.planning.plan import Planner
from ovjit.planning.touches import Piece, Rows, Trace
from ovjit.planning.views import ARENA, Buffer, Layout, View
from ovjit.tiles import lowering, sharing
from tests.support.compiled import program_of
from tests.support.op_samples import graph_of, native_ops
from tests.support.samples import samples_of
from tests.support.sweeps import in_turn

SEED = 20261120
#: Work of a chunk, so that samples have many.
SMALL = 200.0
Call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setattr(chunks.split, "__defaults__", (SMALL,))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Planner]:
    """The planners of all plans that are made."""
    made: list[Planner] = []
    real = Planner.finish

    def finish(self: Planner) -> Any:
        made.append(self)
        return real(self)

    monkeypatch.setattr(Planner, "finish", finish)
    return made


def sample_graphs(record: Op) -> Iterator[tuple[Graph, list[np.ndarray]]]:
    dtype = "f32" if "f32" in record.types else record.types[0]
    for inputs, attrs in samples_of(record, np.random.default_rng(SEED), dtype):
        yield graph_of(record, inputs, attrs, dtype)


# --- what kernels touch


class Run:
    """A plan's steps one by one, chunk by chunk, in memory of its own, seen byte by byte."""

    def __init__(self, program: Program, planner: Planner, made: plan.Plan, inputs: list[np.ndarray]):
        self.planner = planner
        self.plan = made
        self.addresses = loading.addresses(program.kernels)
        rng = np.random.default_rng(SEED)
        spare = made.scratch_offset + made.scratch_size + 64
        self.arena = plan.aligned_bytes(spare)
        self.arena[...] = rng.integers(0, 256, spare)
        self.inputs = [np.array(a, order="C") for a in inputs]
        self.outputs = [plan.aligned_bytes(b.size + 64) for b in planner.output_buffers]
        for out in self.outputs:
            out[...] = rng.integers(0, 256, out.size)
        self.data = plan.aligned_bytes(max(made.data.size, 1))
        self.data[: made.data.size] = made.data
        arrays = [self.arena, made.memory, self.data, *self.inputs, *self.outputs]
        self.bases = np.array([a.ctypes.data for a in arrays], np.int64)

    def memory(self, base: int) -> np.ndarray | None:
        if base == ARENA:
            return self.arena
        first = 3 + len(self.inputs)
        return self.outputs[base - first] if base >= first else None

    def kept(self) -> list[np.ndarray]:
        return [self.arena[: self.plan.arena_size], *self.outputs]

    def call(self, index: int, chunk: int) -> None:
        step = self.plan.steps[index]
        words = np.array(self.plan.words[index] or [0], np.int64)
        function = Call(self.addresses[step.kernel])
        scratch = self.arena.ctypes.data + self.plan.scratch_offset
        assert function(self.bases.ctypes.data, words.ctypes.data, chunk, scratch) == 0

    def written(self, index: int, chunk: int) -> list[np.ndarray]:
        """For arena and outputs: which bytes the chunk writes. The memory is afterwards as it was."""
        before = [m.copy() for m in self.kept()]
        changed = [np.zeros(m.size, bool) for m in before]
        reads, writes, _ = self.planner.trace.steps[index]
        read = {id(v.buffer) for v in reads}
        for flip in (0, 255):
            start = [m.copy() for m in before]
            if flip:  # what is written with the value that it had shows now
                for view in writes:
                    own = view.buffer.base == ARENA or view.buffer.base >= 3 + len(self.inputs)
                    if own and id(view.buffer) not in read:  # not an input that the step writes
                        place = 0 if view.buffer.base == ARENA else view.buffer.base - 2 - len(self.inputs)
                        low = view.buffer.offset if view.buffer.base == ARENA else 0
                        start[place][low : low + view.buffer.size] ^= flip
            for m, s in zip(self.kept(), start, strict=True):
                m[...] = s
            self.call(index, chunk)
            for c, m, s in zip(changed, self.kept(), start, strict=True):
                c |= m != s
        for m, b in zip(self.kept(), before, strict=True):
            m[...] = b
        return changed


def run_graph(executable: Executable, inputs: list[np.ndarray]) -> list[np.ndarray]:
    job = executable.new_job()
    for i, array in enumerate(inputs):
        job.set_input(i, np.array(array, order="C"))
    job.run()
    return [out.copy() for out in job.outputs]


def check_touches(graph: Graph, inputs: list[np.ndarray], planned: list[Planner]) -> int:
    """Run every chunk of every native step alone and compare what it writes with what it says, and with what
    other chunks write. The number of chunks."""
    planned.clear()
    program = program_of(graph)
    made = program.plan([a.shape for a in inputs])
    if made.cut is not None or any(s.host or s.control for s in made.steps) or made.arena_size > 1 << 18:
        return 0
    run = Run(program, planned[-1], made, inputs)
    seen = 0
    for index, step in enumerate(made.steps):
        _, _, touches = run.planner.trace.steps[index]
        before = [np.zeros(m.size, bool) for m in run.kept()]
        for chunk in range(step.chunks if step.chunks <= 48 else 0):
            changed = run.written(index, chunk)
            where = f"chunk {chunk} of step {index}, {step.kernel.name}, of {step.name!r}"
            for b, c in zip(before, changed, strict=True):
                assert not (b & c).any(), f"{where} writes what an earlier chunk has written"
                b |= c
            if touches is not None:
                said = [np.zeros(m.size, bool) for m in run.kept()]
                for buffer, places in touches(chunk)[1]:
                    at = 0 if buffer.base == ARENA else buffer.base - 2 - len(run.inputs)
                    said[at][places + (buffer.offset if buffer.base == ARENA else 0)] = True
                for s, c in zip(said, changed, strict=True):
                    assert not (c & ~s).any(), f"{where} writes beside what it says"
            seen += 1
        for chunk in range(step.chunks):
            run.call(index, chunk)
    return seen


@pytest.mark.parametrize("record", in_turn(native_ops(), 3, 1), ids=lambda r: f"{r.name}-{r.opset}")
def test_samples(record: Op, planned: list[Planner]) -> None:
    """Of every third operation by default. The first sample runs chunk by chunk; it and every third
    other one are proved."""
    for i, (graph, inputs) in enumerate(sample_graphs(record)):
        if i == 0:
            check_touches(graph, inputs, planned)
        elif i % 3 == 1:
            program_of(graph).plan([v.shape for v in graph.inputs])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_samples_chunk_by_chunk(planned: list[Planner]) -> None:
    total = 0
    for record in native_ops():
        for graph, inputs in sample_graphs(record):
            total += check_touches(graph, inputs, planned)
    assert total > 5000


@pytest.mark.parametrize(("shape", "axis"), [((2, 40, 300), 1), ((600, 7), 1), ((3, 5, 60, 21), 2)])
def test_chunks_of_rows_side_by_side(shape: tuple[int, ...], axis: int, planned: list[Planner]) -> None:
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    graph = b.finish([b.add("Softmax", [x], {"axis": axis}).output])
    assert check_touches(graph, [rng.standard_normal(shape).astype(np.float32)], planned) > 1
    (step,) = planned[-1].steps
    assert step.kernel.name.startswith(("softmax_f32_beside", "softmax_f32_apart"))
    assert planned[-1].trace.steps[0][2] is not None, "the step does not say what its chunks touch"


def test_the_embedded_network() -> None:
    """Its plan is checked; every chunk of the halos, tiles and copies among it."""
    path, images, labels = digits()
    core = ovjit.Core()
    for count in (1, 5):
        model = core.read_model(path)
        model.reshape([count, *images.shape[1:]])
        compiled = core.compile_model(model, "CPU")
        assert (compiled(images[:count])[0].argmax(1) == labels[:count]).all()


@pytest.mark.parametrize("step", [2, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("kept", [0, 1 << 40])
def test_chunks_of_tiles_in_either_order(
    kept: int, step: int, planned: list[Planner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From panel to panel, and from pixels to pixels; several ranges of both, in groups too. Every `step`-th
    sample."""
    samples = [
        (graph, inputs, compile_graph(graph, {}))
        for name in ("Convolution", "GroupConvolution", "MatMul")
        for graph, inputs in itertools.islice(
            sample_graphs(next(r for r in native_ops() if r.name == name)), 0, None, step
        )
    ]
    wants = [run_graph(executable, inputs) for _, inputs, executable in samples]
    monkeypatch.setattr(lowering, "KEPT_WEIGHTS", kept)
    monkeypatch.setattr(sharing, "PANEL_BYTES", 1)
    monkeypatch.setattr(sharing, "CHUNK_FLOPS", 1)
    many = 0
    for (graph, inputs, _), want in zip(samples, wants, strict=True):
        for got, wanted in zip(run_graph(compile_graph(graph, {}), inputs), want, strict=True):
            assert np.array_equal(got, wanted), f"{graph}, seed {SEED}"
        check_touches(graph, inputs, planned)
        tiles = [step for step in planned[-1].steps if step.kernel.name.startswith(("conv_", "matmul_"))]
        many += any(step.chunks >= 4 for step in tiles)
    assert many > 3


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_networks() -> None:
    from tests.support import networks

    for name in networks.NAMES:
        ovjit.Core().compile_model(str(networks.build(name)), "CPU")


# --- it finds what is wrong


def chain() -> Graph:
    """Values of one size: a is read twice, once after b was made of it."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (16, 24), "element_type": "f32"}).output
    a = b.add("Softmax", [x], {"axis": 1}).output
    c = b.add("Softmax", [b.add("Relu", [a]).output], {"axis": 0}).output
    d = b.add("Softmax", [b.add("Add", [a, c]).output], {"axis": 1}).output
    e = b.add("Softmax", [b.add("Multiply", [d, c]).output], {"axis": 0}).output
    return b.finish([b.add("Add", [e, d]).output])


def padded() -> Graph:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (1, 8, 6, 6), "element_type": "f32"}).output
    w = b.add("Constant", (), {"value": np.ones((8, 8, 3, 3), np.float32), "element_type": "f32"}).output
    pads = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1), "dilations": (1, 1)}
    y = b.add("Relu", [b.add("Convolution", [x, w], pads).output]).output
    return b.finish([b.add("Convolution", [y, w], pads).output])


def refused(graph: Graph, text: str) -> None:
    with pytest.raises(OvjitError, match=text):
        program_of(graph).plan([v.shape for v in graph.inputs])


def test_correct_plans_pass() -> None:
    for graph in (chain(), padded()):
        assert program_of(graph).plan([v.shape for v in graph.inputs]).steps


def test_overlapping_tensors_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "assign_offsets", lambda buffers, alignment: max(b.size for b in buffers))
    refused(chain(), "wrote for another value|still reads")


def test_a_tensor_that_ends_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is given away before its last reader."""
    real = plan.assign_offsets

    def early(buffers: list[Any], alignment: int) -> int:
        for buffer in buffers:
            buffer.last = buffer.first
        return real(buffers, alignment)

    monkeypatch.setattr(plan, "assign_offsets", early)
    refused(chain(), "wrote for another value|still reads")


def test_writing_over_what_is_read_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Planner, "_may_overwrite",
        lambda self, view, shape, itemsize, wanted: view.buffer.base == ARENA and view.shape == tuple(shape),
    )  # fmt: skip
    refused(chain(), "still reads")


def test_an_uncleared_halo_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planner, "halo_step", lambda self, view, layout: None)
    refused(padded(), "no step wrote")


def by_hand(step: Callable[[Planner, Any, Any], None]) -> None:
    """A planner with two tensors of 4 x 8 floats, and one step."""
    program = program_of(chain())
    kernel = next(k for k in program.kernels if k.name.startswith("copy_i32"))
    planner = Planner({}, [], [], {}, program.constants, target=program.context.target)
    planner.trace = Trace()

    class Group:
        name, origins, nodes, anchor, body, inputs, outputs = "by hand", (), (), None, (), (), ()

    planner.begin(Group())
    x, y = (planner.allocate((4, 8), 4, Layout((0, 1))) for _ in range(2))
    planner.trace.steps.append(((), (x,), None))
    planner.steps.append(plan.Step(kernel, [], 1, "first", "", ()))
    for view in (x, y):
        planner._touch(view.buffer, 0)
    names = [name for name, _ in kernel.frame.fields]
    planner.blank = dict.fromkeys(names, 0)  # type: ignore[attr-defined]
    planner.kernel = kernel  # type: ignore[attr-defined]
    step(planner, x, y)
    planner.finish()


def row_step(along: tuple[int, int], shift: int = 0, in_place: bool = False) -> Callable:
    def step(planner: Any, x: Any, y: Any) -> None:
        y = x if in_place else y
        reads = [Piece(x.ptr + shift, (along[0],), (8,), (4,), 4)]
        writes = [Piece(y.ptr, (along[1],), (8,), (4,), 4)]
        touches = Rows((4,), 1, reads, writes)
        planner.step(planner.kernel, planner.blank, 4, [x], [y], touches=touches)

    return step


def test_chunks_that_meet_are_found() -> None:
    by_hand(row_step((32, 32)))
    by_hand(row_step((32, 32), in_place=True))
    with pytest.raises(OvjitError, match="chunk 1 .* writes what its chunk 0 writes"):
        by_hand(row_step((32, 16)))
    with pytest.raises(OvjitError, match="chunk 0 .* reads what its chunk 1 writes"):
        by_hand(row_step((32, 32), shift=32, in_place=True))
    with pytest.raises(OvjitError, match="before its tensor"):
        by_hand(row_step((32, 32), shift=-4))
    with pytest.raises(OvjitError, match="outside of its output"):
        by_hand(row_step((32, 64)))


def test_steps_that_say_nothing_may_only_write_where_they_read() -> None:
    def step(planner: Any, x: Any, y: Any) -> None:
        planner.step(planner.kernel, planner.blank, 4, [x.slice(0, 1, 3)], [x.slice(0, 0, 3)])

    with pytest.raises(OvjitError, match="overwrite bytes that other chunks read"):
        by_hand(step)


def test_a_step_that_begins_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a step without waiters, a step may write beside that one's outputs, but not read them."""
    by_hand(row_step((32, 32)))
    monkeypatch.setattr(plan_steps, "CLEAR_GAPS", "copy_i32")
    for touched in (row_step((32, 32)), row_step((32, 32), in_place=True)):
        with pytest.raises(OvjitError, match="begins before step 0, on which it depends, is complete"):
            by_hand(touched)

    def beside(planner: Any, x: Any, y: Any) -> None:
        planner.step(planner.kernel, planner.blank, 1, [], [y])

    by_hand(beside)


def test_halos_are_cleared_beside_the_step_that_fills_them() -> None:
    made = program_of(padded()).plan([(1, 8, 6, 6)])
    first = [step.goes_on for step in made.steps]
    assert any(first) and not first[-1]
    assert all(step.kernel.name == "clear_gaps" for step in made.steps if step.goes_on)


@pytest.mark.parametrize("offset, meets", [(8, False), (4, True), (0, True)])
def test_parts_of_a_concatenation_lie_between_each_other(offset: int, meets: bool) -> None:
    """A step may write channels of pixels whose other channels it reads, but not channels that it reads."""
    buffer = Buffer(64)
    written, read = View(buffer, (4, 2), (16, 4), 4, 0), View(buffer, (3, 2), (16, 4), 4, offset)
    if meets:
        with pytest.raises(OvjitError, match="overwrite bytes that other chunks read"):
            races._check_in_place([read], [written], "a step")
    else:
        races._check_in_place([read], [written], "a step")
