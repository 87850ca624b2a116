"""Layers that are planned once: the plans are those that are made without it, and what differs is planned."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench import transformers
from ovjit import opset13 as ops
from ovjit.compiler.program import Program
from ovjit.planning import repeated_layers
from ovjit.planning.parametric import Traces
from ovjit.planning.plan_steps import Plan
from tests.support.threads import start_and_join

Tracked = list[tuple[Program, tuple, Any, Plan]]


#: The numbers of the layers that have been repeated.
repeated: list[int] = []


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Tracked:
    """Whatever is planned: program, shapes, room, plan."""
    found: Tracked = []
    plan = Program.plan

    def noting(self: Program, shapes: Any, strides: Any = None, room: Any = None) -> Plan:
        made = plan(self, shapes, room=room) if strides is None else plan(self, shapes, strides, room)
        found.append((self, tuple(map(tuple, shapes)), room, made))
        return made

    monkeypatch.setattr(Program, "plan", noting)
    repeat = repeated_layers._Template.repeat

    def counting(self: Any, layer: int) -> None:
        repeat(self, layer)
        repeated.append(layer)

    monkeypatch.setattr(repeated_layers._Template, "repeat", counting)
    return found


def anew(program: Program, shapes: tuple, room: Any, once: bool) -> Plan:
    """The plan of a fresh trace, with or without equal layers planned once."""
    kept = program.layers, program.traces
    program.traces = Traces()
    if not once:
        program.layers = None
    try:
        return program.plan(shapes, room=room)
    finally:
        program.layers, program.traces = kept


def facts(plan: Plan) -> dict[str, Any]:
    """What a trace has planned, in words that do not depend on the order in which numbers were made."""
    trace = plan.trace
    assert plan.block is not None and plan.chunks is not None
    return {
        "words": plan.block.tolist(),
        "chunks": plan.chunks.tolist(),
        "steps": [(s.kernel, s.name, s.type, s.origins) for s in plan.steps],
        "work": [plan.work_of(i) for i in range(len(plan.steps))],
        "buffers": list(trace.buffers),
        "offsets": list(plan.arena.offsets),
        "room": plan.arena.room.tolist(),
        "pointers": list(trace.pointers),
        "grows": trace.grows.tolist(),
        "data": plan.data.tobytes(),
        "outputs": plan.output_shapes,
        "sizes": (plan.arena_size, plan.scratch_size, plan.parallel),
    }


def check(found: Tracked, least: int) -> None:
    """All plans are the same without equal layers; at least so many layers are repeated in each of them."""
    for program, shapes, room, _ in list(found):
        if program.traces is None or program.traces.refused:
            continue
        before = len(repeated)
        one, other = (anew(program, shapes, room, once) for once in (True, False))
        assert not one.steps or len(repeated) - before >= least, f"{shapes}"
        have, want = facts(one), facts(other)
        for name, value in want.items():
            assert have[name] == value, f"{name} of {shapes}"


def step(new: int, past: int, rows: int = 1) -> dict[str, np.ndarray]:
    return {
        "input_ids": np.arange(rows * new).reshape(rows, new) % 90,
        "attention_mask": np.ones((rows, new + past), np.int64),
        "position_ids": np.tile(np.arange(past, past + new), (rows, 1)),
        "beam_idx": np.arange(rows, dtype=np.int32),
    }


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_decoders_layers_are_planned_once(kind: str, planned: Tracked) -> None:
    shared = 2 if kind == "llama" else 4
    sizes = transformers.Sizes(layers=6, wide=96, heads=4, shared=shared, inner=128, words=90)
    model = getattr(transformers, kind)(transformers.Net(ov, kind), sizes)
    request = ov.Core().compile_model(model, "CPU").create_infer_request()
    for new, past in ((5, 0), (1, 5), (1, 6), (3, 7)):
        request.infer(step(new, past))
    check(planned, 2)


def stack(count: int, odd: int = -1, change: str = "") -> Any:
    """[?, ?, 96] through layers of which the one numbered `odd` differs by `change`."""
    rng = np.random.default_rng(7)
    x = first = ops.parameter([-1, -1, 96], np.float32, name="x")
    common = ops.add(ops.reduce_max(x, np.int64([1]), True), np.float32(1))
    for i in range(count):
        odd_one = change if i == odd else ""
        wide = 160 if odd_one == "wide" else 128
        y = ops.mvn(x, ops.constant(np.int64([-1])), True, 1e-2 if odd_one == "eps" else 1e-5, "INSIDE_SQRT")
        up = rng.standard_normal((96, wide)).astype(np.float32) / 10
        up = np.zeros_like(up) if odd_one == "zeros" else up
        y = ops.matmul(y, ops.constant(up), False, False)
        y = ops.add(y, ops.constant(rng.standard_normal(wide).astype(np.float32)))
        y = ops.gelu(y, "tanh" if odd_one == "attribute" else "erf")
        y = ops.multiply(y, ops.constant(np.float32([0.25 if odd_one == "number" else 0.5])))
        down = rng.standard_normal((wide, 96)).astype(np.float32) / 10
        y = ops.matmul(y, ops.constant(down), False, False)
        y = ops.reshape(ops.transpose(y, np.int64([0, 2, 1])), np.int64([0, 4, 24, -1]), True)
        axis = 1 if odd_one == "softmax" else -1
        y = ops.transpose(ops.reshape(ops.softmax(y, axis), np.int64([0, 96, -1]), True), np.int64([0, 2, 1]))
        skipped = first if odd_one == "skip" else x
        x = ops.multiply(ops.add(skipped, y), common)
        if odd_one == "output":
            kept = x
    outputs = [x, kept] if change == "output" and odd >= 0 else [x]
    return ov.Model(outputs, [first], "stack")


CHANGES = ("eps", "attribute", "number", "wide", "softmax", "skip", "output", "zeros")


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_differs_is_planned(change: str, planned: Tracked) -> None:
    odd = 2 + CHANGES.index(change) % 7  # near the beginning, in the middle, the last
    model = stack(9, odd, change)
    compiled = ov.Core().compile_model(model, "CPU")
    plain = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    rng = np.random.default_rng(odd)
    for shape in ((2, 7, 96), (1, 1, 96)):
        x = rng.standard_normal(shape).astype(np.float32)
        assert_same_results(compiled, plain, x)
    check(planned, 0)


def assert_same_results(compiled: Any, plain: Any, x: np.ndarray) -> None:
    """The results are those of a program whose layers are all planned, bit by bit."""
    plain._executable.program.layers = None
    want = plain(x)
    have = compiled(x)
    for i in range(len(want)):
        np.testing.assert_array_equal(have[i], want[i], err_msg=f"{x.shape}")


def test_equal_layers_are_found_whatever_is_around_them(planned: Tracked) -> None:
    compiled = ov.Core().compile_model(stack(8), "CPU")
    compiled(np.ones((2, 3, 96), np.float32))
    ((program, *_),) = planned
    assert program.layers is not None and program.layers.count >= 7
    check(planned, 4)


def test_types_are_inferred_once_where_the_state_needs_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    inferred: list[tuple] = []
    infer = Program._traced_types

    def counting(self: Program, shapes: Any, room: Any = None) -> Any:
        inferred.append((id(self), tuple(shapes)))
        return infer(self, shapes, room)

    monkeypatch.setattr(Program, "_traced_types", counting)
    sizes = transformers.Sizes(layers=2, wide=96, heads=4, shared=4, inner=128, words=90)
    compiled = ov.Core().compile_model(transformers.gpt2(transformers.Net(ov, "gpt2"), sizes), "CPU")
    request, plain = compiled.create_infer_request(), compiled.create_infer_request()
    rows = request.infer(step(90, 0))["logits"]  # more than a state has room for at first
    assert len(inferred) == len(set(inferred)) >= 1
    for i in range(90):
        one = plain.infer(step(90, 0) | {k: v[:, i : i + 1] for k, v in step(90, 0).items() if "ids" in k}
                          | {"attention_mask": np.ones((1, i + 1), np.int64)})  # fmt: skip
        np.testing.assert_allclose(one["logits"][0, 0], rows[0, i], rtol=1e-4, atol=1e-4)


def test_layers_are_looked_for_once_and_before_the_first_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of threads that plan at once, one looks."""
    monkeypatch.setenv("OVJIT_SKIP", "trace_ahead")
    looked: list[Program] = []
    find = repeated_layers.find_layers

    def counting(*given: Any) -> Any:
        looked.append(given[0])
        time.sleep(0.05)  # long enough for all to ask
        return find(*given)

    monkeypatch.setattr(repeated_layers, "find_layers", counting)
    # a trace tells which of the kernels that no cache has are worth compiling
    monkeypatch.setattr(Program, "_unlikely", lambda program, missing: ())
    program = ov.Core().compile_model(stack(8), "CPU")._executable.program
    assert not looked
    plans: list[Plan] = []
    threads = [
        threading.Thread(target=lambda n=n: plans.append(program.plan(((2, n, 96),)))) for n in range(3, 7)
    ]
    start_and_join(threads)
    assert len(plans) == 4 and len(looked) == 1
    assert program.layers is not None and program.layers.count >= 7
