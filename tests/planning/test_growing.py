"""Variables that grow in place: decoders' caches are equal to copied ones, bit by bit, and ordinary tensors
for readers. Beams change their order outside of the program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.execution import variables
from ovjit.execution.job import Job
from ovjit.execution.states import in_order, move_rows, moves_of
from ovjit.execution.table import Table
from ovjit.planning import parametric, plan
from ovjit.planning.parametric import Parametric, Recipe
from tests.support.decoders import HEADS, SIZE, decoder

SEED = 20261120


def compiled(model: ov.Model, grows: bool = True) -> ov.CompiledModel:
    out = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    if not grows:
        out._executable.program.__dict__["growing"] = {}
    return out


def given(rng: np.random.Generator, batch: int, new: int, order: Any = None) -> dict[str, np.ndarray]:
    order = np.arange(batch) if order is None else order
    x = rng.standard_normal((batch, new, HEADS * SIZE)).astype(np.float32)
    return {"x": x, "beam_idx": np.asarray(order, np.int32)}


def answers(request: ov.InferRequest, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    request.infer({k: v for k, v in inputs.items() if k in {p.any_name for p in request.model_inputs}})
    return [np.array(t.data) for t in request.output_tensors]


def same(one: list[np.ndarray], other: list[np.ndarray], message: str) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape and a.tobytes() == b.tobytes(), message


@pytest.mark.parametrize("told", [False, True], ids=["", "told"])
@pytest.mark.parametrize("beams", [False, True], ids=["plain", "beams"])
@pytest.mark.parametrize("check", [False, True], ids=["", "checked"])
def test_what_grows_is_what_is_copied(
    beams: bool, check: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random lengths, orders of beams, resets, looks at states and states that are set."""
    if check:
        monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, beams])
    model = decoder(beams=beams, told=told)
    one, other = compiled(model), compiled(model, grows=False)
    moved = count_moves(monkeypatch)
    assert len(one._executable.program.growing) == 4
    a, b = one.create_infer_request(), other.create_infer_request()
    batch = 3
    for step in range(25 if check else 70):
        what = rng.random()
        if what < 0.05:
            a.reset_state(), b.reset_state()
            batch = int(rng.integers(1, 4))
        elif what < 0.15:
            k = int(rng.integers(4))
            left, right = a.query_state()[k].state, b.query_state()[k].state
            assert left.data.tobytes() == right.data.tobytes(), step
            assert left.data.flags.c_contiguous
            if rng.random() < 0.5 and left.data.size:
                left.data[...] *= 2
                right.data[...] *= 2
        elif what < 0.2:
            value = [s.state.data for s in b.query_state()]
            for states in (a.query_state(), b.query_state()):
                for state, array in zip(states, value, strict=True):
                    state.state = ov.Tensor(np.ascontiguousarray(array[:, :, : array.shape[2] // 2]))
        order = None
        if beams and rng.random() < 0.4:
            order = rng.integers(0, batch, batch)
        inputs = given(rng, batch, int(rng.choice([1, 1, 1, 2, 5, 40])), order)
        same(answers(a, inputs), answers(b, inputs), f"seed {SEED}, step {step}")
    for left, right in zip(a.query_state(), b.query_state(), strict=True):
        assert left.state.data.tobytes() == right.state.data.tobytes()
    assert any(moved) or told or check


def count_moves(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether tables could be made those of other shapes, each time that it is tried from now on."""
    moved: list[bool] = []
    move = Table.move
    monkeypatch.setattr(Table, "move", lambda *a: moved.append(move(*a)) or moved[-1])
    return moved


@pytest.mark.parametrize("threads", [1, 2])
def test_each_token_moves_the_plan_of_the_one_before(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few steps tables are made anew only where there is no more room, and all is as it was: states
    that are looked at, other orders of beams, runs that fail or are refused in between."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    model = decoder(told=False)
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    for module in (parametric, plan):
        monkeypatch.setattr(module, "PARALLEL_WORK", 0)  # two threads take part in each step
    a = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    b = compiled(model, grows=False).create_infer_request()
    moved = count_moves(monkeypatch)
    for step in range(60):
        inputs = given(rng, 2, 5 if step == 0 else 1, [1, 0] if step == 20 else None)
        if step == 30:
            with pytest.raises(RuntimeError):
                a.infer({"x": inputs["x"], "beam_idx": np.arange(3, dtype=np.int32)})
        if step == 40:
            with monkeypatch.context() as patch:
                patch.setattr(Job, "run", stopped)
                with pytest.raises(RuntimeError, match="stopped"):
                    a._job.executable.program.run(a._job)
        if step == 50:
            left, right = a.query_state()[1].state, b.query_state()[1].state
            assert left.data.tobytes() == right.data.tobytes()
        same(answers(a, inputs), answers(b, inputs), f"seed {SEED}, step {step}")
    assert moved.count(True) >= 40, moved


def stopped(*args: Any) -> None:
    raise RuntimeError("stopped")


def test_a_plan_that_is_moved_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under OVJIT_CHECK=1 numbers that were forgotten are found."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    request = compiled(decoder(told=False)).create_infer_request()
    recipe = Parametric._recipe

    def forgets(self: Parametric, free: np.ndarray, memory: Any) -> Recipe:
        made = recipe(self, free, memory)
        free, rows, sizes, patches, _ = made._parts
        return Recipe(free, rows.tolist(), sizes.tolist(), patches.tolist()[::2])

    monkeypatch.setattr(Parametric, "_recipe", forgets)
    answers(request, given(rng, 1, 4))
    with pytest.raises(RuntimeError, match="was replayed for other shapes"):
        for _ in range(6):
            answers(request, given(rng, 1, 1))


def test_outputs_are_written_once() -> None:
    """The program within writes outputs where the request has them; what the user holds stays or goes as it
    does without state."""
    rng = np.random.default_rng(SEED)
    request = compiled(decoder(told=False)).create_infer_request()
    answers(request, given(rng, 2, 5))
    inner = request._job.parts[request._job.executable.program.main]
    assert inner.outputs[0] is request._job.outputs[0]
    answers(request, given(rng, 2, 1))
    shown = request.get_output_tensor(0)
    result = answers(request, given(rng, 2, 1))[0]
    assert inner.outputs[0] is request._job.outputs[0]
    assert shown.data.tobytes() == result.tobytes()
    mine = np.zeros((2, HEADS, 1, SIZE), np.float32)
    request.set_output_tensor(0, ov.Tensor(mine, shared_memory=True))
    inputs = given(rng, 2, 1)
    request.infer(inputs)
    assert inner.outputs[0] is request._job.outputs[0] and mine.any()
    with pytest.raises(RuntimeError):
        request.infer(given(rng, 2, 2))


def test_appending_copies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is room, the memory stays, and the program has no step that moves what is in it."""
    request = compiled(decoder()).create_infer_request()
    rng = np.random.default_rng(SEED)
    states = request._job.states() if hasattr(request, "_job") else request._states()
    answers(request, given(rng, 1, 4))
    memory = list(states.memory)
    made: list[Any] = []
    monkeypatch.setattr(variables, "with_room", lambda *a: made.append(a))
    for _ in range(20):
        answers(request, given(rng, 1, 1))
    assert not made
    assert all(x is y for x, y in zip(memory, states.memory, strict=True))
    states.settle()
    assert states.values[0].base is not None and states.values[0].shape[2] == 24


def test_orders() -> None:
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    for order in ([0, 1, 2], [2, 0, 1], [0, 0, 1], [1, 1, 1], [2, -2, 0], [-3, -1, 1]):
        moves, rows = moves_of(np.array(order), 3), value.copy()
        assert moves is not None and len(moves.to) == np.count_nonzero(np.array(order) % 3 != np.arange(3))
        before = rows[moves.to]
        move_rows(rows, moves, before)
        np.testing.assert_array_equal(rows, value[order])
        rows[moves.to] = before
        np.testing.assert_array_equal(rows, value)
    for none in ([0, 1], [0, 1, 2, 0], [0, 1, 3], [0, -4, 1]):
        assert moves_of(np.array(none), 3) is None
    np.testing.assert_array_equal(in_order(value, np.array([2, 0])), value[[2, 0]])
    np.testing.assert_array_equal(in_order(value, np.array([-1, 7]))[0], value[2])
    assert not in_order(value, np.array([-1, 7]))[1].any()


def test_beams_move_rows_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rows that change are copied; nothing is allocated anew while there is room."""
    rng = np.random.default_rng(SEED)
    request = compiled(decoder()).create_infer_request()
    answers(request, given(rng, 3, 4))
    states = request._job.states()
    memory = list(states.memory)
    made: list[Any] = []
    monkeypatch.setattr(variables, "with_room", lambda *a: made.append(a))
    monkeypatch.setattr(variables, "in_order", lambda *a: made.append(a))
    for order in ([0, 0, 1], [2, 1, 0], [1, 1, 1]):
        answers(request, given(rng, 3, 1, order))
    assert not made and all(x is y for x, y in zip(memory, states.memory, strict=True))


def test_a_step_that_fails_leaves_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were moved are moved back where the inference does not come to its end."""
    rng = np.random.default_rng(SEED)
    a, b = (compiled(decoder()).create_infer_request() for _ in range(2))
    first = given(rng, 3, 4)
    same(answers(a, first), answers(b, first), "the prompt")
    taken = variables.StatefulProgram._make_room

    def fails(*args: Any) -> None:
        raise RuntimeError("stopped")

    inputs = given(rng, 3, 1, [1, 1, 0])
    for _ in range(2):
        monkeypatch.setattr(variables.StatefulProgram, "_make_room", fails)
        with pytest.raises(RuntimeError, match="stopped"):
            answers(a, inputs)
        monkeypatch.setattr(variables.StatefulProgram, "_make_room", taken)
    same(answers(a, inputs), answers(b, inputs), "after it failed")


def test_beams_out_of_range_are_zeros_as_in_gather() -> None:
    rng = np.random.default_rng(SEED)
    model = decoder()
    request = compiled(model).create_infer_request()
    answers(request, given(rng, 2, 3))
    answers(request, given(rng, 2, 1, [1, 9]))
    state = request.query_state()[0].state.data
    assert state[0, :, :3].any() and not state[1, :, :3].any()


def test_a_value_that_is_an_output_too_is_copied() -> None:
    rng = np.random.default_rng(SEED)
    one, other = compiled(decoder(shared=True)), compiled(decoder(shared=True), grows=False)
    assert len(one._executable.program.growing) == 3
    a, b = one.create_infer_request(), other.create_infer_request()
    for new in (5, 1, 1, 40, 1):
        inputs = given(rng, 2, new)
        same(answers(a, inputs), answers(b, inputs), f"{new} more")


def test_a_refused_step_leaves_the_states() -> None:
    rng = np.random.default_rng(SEED)
    a, b = (compiled(decoder()).create_infer_request() for _ in range(2))
    for step in range(6):
        inputs = given(rng, 2, 2)
        if step == 3:
            with pytest.raises(RuntimeError):
                a.infer({"x": inputs["x"], "beam_idx": np.arange(3, dtype=np.int32)})
        same(answers(a, inputs), answers(b, inputs), f"step {step}")


def test_requests_and_blobs() -> None:
    """Requests grow apart; what is imported grows as well."""
    rng = np.random.default_rng(SEED)
    one = compiled(decoder())
    other = ov.Core().import_model(one.export_model(), "CPU")
    assert len(other._executable.program.growing) == 4
    a, b, c = one.create_infer_request(), one.create_infer_request(), other.create_infer_request()
    for new in (7, 1, 1, 30, 1):
        inputs, elsewhere = given(rng, 2, new, [1, 0]), given(rng, 1, 1)
        answers(b, elsewhere)
        same(answers(a, inputs), answers(c, inputs), f"{new} more")
    assert b.query_state()[0].state.data.shape == (1, HEADS, 5, SIZE)
