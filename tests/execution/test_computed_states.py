"""Models with state whose results have computed numbers: these change from call to call, and nothing that a
caller, a variable or another request has is written again."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from tests.support.interrupted import SignalError, bytecodes, check_interrupted, sample_of

F32 = np.float32
SEED = 73
ROWS = (1, 2, 3, 4, 6, 12)


def computed(ov: Any) -> Any:
    """The sum of all inputs as a table of so many rows, and its largest elements: they are a variable of open
    shape, whose former elements are a result, too."""
    ops = ov.opset13
    x, rows = ops.parameter([12], F32, name="x"), ops.parameter([], np.int64, name="rows")
    before = ops.read_value(ops.constant(np.zeros(12, F32)), "sum")
    former = ov.opset6.read_value(ops.constant(np.ones(1, F32)), "best", ov.Type.f32, ov.PartialShape([-1]))
    pattern = ops.concat([ops.unsqueeze(rows, np.array(0)), np.array([-1])], 0)
    table = ops.reshape(ops.add(before, x), pattern, False)
    after = ops.reshape(table, np.array([12]), False)
    best = ops.topk(after, rows, 0, "max", "value").output(0)
    sinks = [ops.assign(after, "sum"), ops.assign(ops.multiply(best, F32(2)), "best")]
    former = ops.add(former, F32(0))
    hot = ops.one_hot(ops.convert(best, "i64"), rows, F32(1), F32(0), 1)
    results = [ops.result(v) for v in (ops.multiply(table, F32(0.5)), best, former, hot, after)]
    return ov.Model(results, sinks, [x, rows], "computed")


class Reference:
    """The values of NumPy."""

    def __init__(self) -> None:
        self.sum, self.best = np.zeros(12, F32), np.ones(1, F32)

    def __call__(self, x: np.ndarray, rows: int) -> list[np.ndarray]:
        former, self.sum = self.best, self.sum + x
        best = np.sort(self.sum)[::-1][:rows].copy()
        self.best = best * 2
        hot = (best.astype(np.int64)[:, None] == np.arange(rows)).astype(F32)
        return [self.sum.reshape(rows, -1) * F32(0.5), best, former, hot, self.sum]


def check_equal(found: Any, want: list[np.ndarray]) -> None:
    for mine, its in zip(found, want, strict=True):
        np.testing.assert_array_equal(mine, its)


def given(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    return rng.permutation(24)[:12].astype(F32) - 6, int(rng.choice(ROWS))


def values_of(request: Any) -> dict[str, Any]:
    return dict(sorted((state.name, state.state.data) for state in request.query_state()))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OVJIT_CHECK", "1")  # each plan of a trace is proved
    return ovjit.compile_model(computed(ovjit), "CPU")


def test_values_beside_openvino(compiled: Any) -> None:
    """Also after numbers that fail: the values of before stay."""
    there = openvino.compile_model(computed(openvino), "CPU").create_infer_request()
    here, reference, rng = compiled.create_infer_request(), Reference(), np.random.default_rng(SEED)
    for number in range(40):
        x, rows = given(rng)
        if number % 7 == 3:
            with pytest.raises(RuntimeError):
                here.infer([x, np.array((5, 7, 0, -1, 13)[number // 7 % 5])])
        if number % 11 == 10:
            reference = Reference()
            for request in (here, there):
                request.reset_state()
        want = reference(x, rows)
        for request in (here, there):
            check_equal(request.infer([x, np.array(rows)]).to_tuple(), want)
        check_equal(values_of(here).values(), list(values_of(there).values()))


def test_what_callers_have_stays(compiled: Any) -> None:
    """Shared results, tensors of variables, and tensors that were set and are no longer."""
    request, reference, rng = compiled.create_infer_request(), Reference(), np.random.default_rng(SEED)
    had: list[tuple[Any, np.ndarray]] = []
    for number in range(60):
        x, rows = given(rng)
        if number % 4 == 1:
            tensor = ovjit.Tensor(np.zeros((12,), F32))
            request.set_output_tensor(4, tensor)
        if number % 9 == 8:
            with pytest.raises(RuntimeError):
                request.infer([x, np.array(5)])
        share = number % 3 == 0
        found = request.infer([x, np.array(rows)], share_outputs=share).to_tuple()
        want = reference(x, rows)
        check_equal(found, want)
        if number % 3 == 1:
            had += [(array, array.copy()) for array in found]
        if number % 2:
            shown = [state.state for state in request.query_state()]
            had += [(tensor.data, tensor.data.copy()) for tensor in shown]
        for array, copied in had:
            np.testing.assert_array_equal(array, copied, err_msg=str(number))


def test_a_result_as_the_next_input(compiled: Any) -> None:
    """A shared result that is read where it lies is not written in that run."""
    request, reference = compiled.create_infer_request(), Reference()
    x = np.arange(12, dtype=F32)
    for rows in (3, 3, 4, 4, 12, 3):
        found = request.infer([x, np.array(rows)], share_inputs=True, share_outputs=True).to_tuple()
        check_equal(found, reference(x.copy(), rows))
        x = found[4]


def test_requests_in_turn_and_in_threads(compiled: Any) -> None:
    """Each has its own values."""
    pairs = [(compiled.create_infer_request(), Reference()) for _ in range(3)]
    rng = np.random.default_rng(SEED)
    for number in range(60):
        request, reference = pairs[number * 7 // 3 % 3]
        x, rows = given(rng)
        check_equal(request.infer([x, np.array(rows)]).to_tuple(), reference(x, rows))
    failed: list[BaseException] = []

    def run(number: int) -> None:
        request, reference = pairs[number]
        mine = np.random.default_rng((SEED, number))
        try:
            for _ in range(40):
                x, rows = given(mine)
                check_equal(request.infer([x, np.array(rows)]).to_tuple(), reference(x, rows))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def test_a_queue(compiled: Any) -> None:
    """The values are those of the request that a job has run on."""
    queue, references, failed = ovjit.AsyncInferQueue(compiled, 3), {}, []

    def check(request: Any, pair: Any) -> None:
        try:
            want = references.setdefault(id(request), Reference())(*pair)
            check_equal([tensor.data for tensor in request.output_tensors], want)
        except BaseException as error:
            failed.append(error)

    queue.set_callback(check)
    rng = np.random.default_rng(SEED)
    for _ in range(90):
        pair = given(rng)
        queue.start_async([pair[0], np.array(pair[1])], pair)
    queue.wait_all()
    assert not failed, failed
    assert sum(reference.sum.sum() for reference in references.values())


@pytest.mark.thread_unsafe(reason="a trace function belongs to its thread")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SignalError])
def test_interrupts(error: type[BaseException]) -> None:
    """After an exception at a bytecode, the values are those of before a call or those of after it."""
    request = ovjit.compile_model(computed(ovjit), "CPU").create_infer_request()
    ones, steps = np.ones(12, F32), (3, 5, 4, 4)
    shown: list[Any] = []

    def scenario() -> None:
        shown[:] = [(state.state.data, state.state.data.copy()) for state in request.query_state()]
        for rows in steps:
            try:
                request.infer([ones, np.array(rows)])
            except RuntimeError:
                assert rows == 5

    def check() -> None:
        for array, copied in shown:
            np.testing.assert_array_equal(array, copied)
        values = values_of(request)
        (count,) = set(values["sum"].tolist())
        assert 0 <= count <= len(steps) - 1 and count == int(count), count
        reference = Reference()
        reference.sum = values["sum"].copy()
        if values["best"].size:  # else it is computed in the next call
            reference.best = values["best"].copy()
        for rows in (4, 3):
            check_equal(request.infer([ones, np.array(rows)]).to_tuple(), reference(ones, rows))
        request.reset_state()

    scenario()
    check()
    numbers = sample_of(bytecodes(scenario), 150, SEED)
    check()
    assert check_interrupted(scenario, check, numbers, error) > 80
