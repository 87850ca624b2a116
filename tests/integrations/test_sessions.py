"""Models with state in servers: no client gets what another one has left. And interrupts while requests are
submitted: every other client gets its own outcome."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.errors import InferenceError, ModelError, OvjitError
from ovjit.integrations import triton
from ovjit.integrations.limits import InvalidRequest, Overloaded
from ovjit.integrations.rest import RestModel
from ovjit.integrations.served import ServedModel
from ovjit.integrations.sessions import Session, sequence_of
from tests.support.interrupted import CALL_PATHS, SignalError, bytecodes, check_interrupted, sample_of

F32 = np.float32
SEED = 69


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    """A model with two variables: "sum" of all inputs, and "product". Its Reshape to `length` may fail."""
    x = ops.parameter([1, 4], F32, name="x")
    length = ops.parameter([1], np.int64, name="length")
    for port, name in ((x, "x"), (length, "length")):
        port.output(0).set_names({name})
    given = ops.reshape(ops.reshape(x, length, False), ops.constant(np.array([1, 4])), False)
    sinks, results = [], []
    for name, start, function in (("sum", 0, ops.add), ("product", 1, ops.multiply)):
        before = ops.read_value(ops.constant(np.full((1, 4), start, F32)), name)
        after = function(before, given)
        after.output(0).set_names({name})
        sinks.append(ops.assign(after, name))
        results.append(ops.result(after))
    folder = tmp_path_factory.mktemp("counter")
    ov.save_model(ov.Model(results, sinks, [x, length], "counter"), folder / "counter.xml", False)
    return folder / "counter.xml"


def inputs(value: float, length: int = 4) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 4), value, F32), "length": np.array([length], np.int64)}


def sums(served: ServedModel, value: float, *session: Any) -> float:
    """The sum after a request of the session (id, start, end)."""
    found = served(inputs(value), None, Session(*session) if session else None)
    assert (found["sum"] == found["sum"][0, 0]).all()
    return float(found["sum"][0, 0])


def test_a_model_with_state_is_refused_by_default(counter) -> None:
    before = threading.active_count()
    with pytest.raises(ModelError, match=r"counter.xml has state .*'sum'.*'sessions'.*'request'"):
        ServedModel(counter)
    with pytest.raises(OvjitError, match="'sessions' or 'request', not 'session'"):
        ServedModel(counter, state="session")
    for wrong in ({"sessions": 0}, {"sessions": True}, {"session_seconds": 0}, {"session_seconds": "x"}):
        with pytest.raises(OvjitError, match=next(iter(wrong)).split("_")[0]):
            ServedModel(counter, state="sessions", **wrong)
    for state in ("sessions", "request"):
        with pytest.raises(ModelError, match="rows of a batch"):
            ServedModel(counter, state=state, batches=True)
    assert threading.active_count() <= before


@pytest.mark.parametrize("jobs", [1, 3])
def test_state_of_a_request(serve, counter, jobs) -> None:
    served = serve(counter, jobs=jobs, state="request")
    with ThreadPoolExecutor(8) as clients:
        values = [float(1 + i % 5) for i in range(64)]
        assert list(clients.map(lambda value: sums(served, value), values)) == values
    with pytest.raises(InferenceError):
        served(inputs(7, length=3))
    assert sums(served, 2) == 2
    with pytest.raises(InvalidRequest, match="names no session"):
        served(inputs(1), None, Session(5, True))


def test_two_clients(serve, counter) -> None:
    served = serve(counter, state="sessions")
    assert [sums(served, 1, "a", True), sums(served, 10, 7, True)] == [1, 10]
    assert [sums(served, 2, "a"), sums(served, 20, 7), sums(served, 100, "7", True)] == [3, 30, 100]
    assert sums(served, 5, "a", True) == 5  # begins anew
    assert sums(served, 1, 7, False, True) == 31
    with pytest.raises(InvalidRequest, match="the session 7 has not begun, has ended, or was idle"):
        sums(served, 1, 7)
    assert sums(served, 4, 7, True, True) == 4
    for session in ((), ("b",), (7,)):
        with pytest.raises(InvalidRequest, match="sequence_start"):
            sums(served, 1, *session)
    assert sums(served, 1, "a") == 6


@pytest.mark.parametrize("jobs", [1, 4])
def test_many_clients_at_once(serve, counter, jobs) -> None:
    """Each client sends its requests without waiting for answers; they are computed in order."""
    served = serve(counter, jobs=jobs, state="sessions")
    rng = np.random.default_rng(SEED)
    values = rng.integers(1, 9, (12, 30)).astype(F32)

    def client(number: int) -> list[float]:
        last = values.shape[1] - 1
        futures = [
            served.submit(inputs(v), ["sum"], Session(number + 1, i == 0, i == last))
            for i, v in enumerate(values[number])
        ]
        return [float(f.result(60).outputs["sum"][0, 0]) for f in futures]

    for _ in range(2):
        with ThreadPoolExecutor(12) as clients:
            found = list(clients.map(client, range(12)))
        np.testing.assert_array_equal(found, values.cumsum(1), err_msg=f"seed {SEED}")


def test_a_request_that_fails_leaves_the_state_as_it_was(serve, counter) -> None:
    served = serve(counter, state="sessions", jobs=2)
    assert sums(served, 1, 1, True) == 1 and sums(served, 1, 2, True) == 1
    for number in (1, 2):
        with pytest.raises(InferenceError):
            served(inputs(9, length=3), None, Session(number))
        with pytest.raises(InvalidRequest, match="datatype"):
            served({**inputs(9), "x": np.zeros((1, 4))}, None, Session(number))
        assert sums(served, 1, number) == 2


def test_the_number_of_sessions_is_bounded(serve, counter) -> None:
    served = serve(counter, state="sessions", sessions=3, jobs=2)
    for number in (1, 2, 3):
        assert sums(served, number, number, True) == number
    for _ in range(3):
        with pytest.raises(Overloaded, match="3 sessions are open"):
            sums(served, 1, 4, True)
    assert sums(served, 1, 2, False, True) == 3
    deadline = time.monotonic() + 20
    while served._sessions.count > 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert sums(served, 1, 4, True) == 1
    assert sums(served, 1, 3) == 4


def test_idle_sessions_end(serve, counter) -> None:
    served = serve(counter, state="sessions", sessions=2, session_seconds=0.3)
    sums(served, 1, 1, True)
    sums(served, 1, 2, True)
    deadline = time.monotonic() + 20
    while served._sessions.count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(InvalidRequest, match="idle for 0.3 seconds"):
        sums(served, 1, 1)
    assert sums(served, 1, 3, True) == 1


def test_what_is_submitted_is_answered_before_the_end(counter) -> None:
    served = ServedModel(counter, state="sessions", jobs=2)
    futures = [served.submit(inputs(1), None, Session(i % 5 + 1, i < 5)) for i in range(50)]
    served.close()
    assert [f.result(0).outputs["sum"][0, 0] for f in futures] == [i // 5 + 1 for i in range(50)]
    with pytest.raises(OvjitError, match="unloaded"):
        served.submit(inputs(1), None, Session(1, True))
    assert not any(thread.is_alive() for thread in (served._sessions._thread, *served._threads))


@pytest.mark.parametrize(
    "parameters, want",
    [
        (None, None),
        ({}, None),
        ({"sequence_id": 0}, None),
        ({"sequence_id": ""}, None),
        ({"sequence_id": 3, "sequence_start": True}, Session(3, True)),
        ({"sequence_id": "x", "sequence_end": 1}, Session("x", False, True)),
        ({"sequence_id": 1.5}, "integer or a string"),
        ({"sequence_id": True}, "integer or a string"),
        ({"sequence_id": [1]}, "integer or a string"),
        ({"sequence_id": -1}, "between 1"),
        ({"sequence_id": 1 << 64}, "between 1"),
        ({"sequence_id": "x" * 257}, "256 characters"),
        ({"sequence_start": True}, "need a sequence_id"),
        ({"sequence_id": 0, "sequence_end": True}, "need a sequence_id"),
        ({"sequence_id": 1, "sequence_start": "yes"}, "true or false"),
        ({"sequence_id": 1, "sequence_end": 2}, "true or false"),
    ],
)
def test_parameters_of_requests(parameters, want) -> None:
    if isinstance(want, str):
        with pytest.raises(InvalidRequest, match=want):
            sequence_of(parameters)
    else:
        assert sequence_of(parameters) == want


def test_rest(serve, counter) -> None:
    rest = RestModel(serve(counter, state="sessions"), "counter")

    def ask(value: float, **parameters: Any) -> Any:
        tensors = [
            {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4},
            {"name": "length", "datatype": "INT64", "shape": [1], "data": [4]},
        ]
        body = json.dumps({"inputs": tensors, "outputs": [{"name": "sum"}], "parameters": parameters})
        path = "/v2/models/counter/infer"
        status, found = asyncio.run(rest.answer("POST", path, body.encode()))
        return found["outputs"][0]["data"][0] if status == 200 else (status, found["error"])

    assert ask(1, sequence_id=1, sequence_start=True) == 1
    assert ask(10, sequence_id=2, sequence_start=True) == 10
    assert ask(1, sequence_id=1) == 2 and ask(10, sequence_id=2, sequence_end=True) == 20
    for wrong in ({}, {"sequence_id": 2}, {"sequence_id": {}}, {"sequence_start": True}):
        status, text = ask(1, **wrong)
        assert status == 400 and "sequence" in text
    assert ask(1, sequence_id=1) == 3


def test_triton(tmp_path, counter, monkeypatch) -> None:
    """The repository of a model with state, and requests in the form of Triton's Python backend."""
    assert triton.main([str(counter), str(tmp_path)]) == 2
    assert triton.main([str(counter), str(tmp_path), "--name", "c", "--state", "sessions"]) == 0
    text = (tmp_path / "c/config.pbtxt").read_text()
    assert 'key: "state" value: { string_value: "sessions" }' in text and "count: 1" in text

    class Tensor:
        def __init__(self, name: str, array: np.ndarray):
            self._name, self._array = name, array

        def name(self) -> str:
            return self._name

        def as_numpy(self) -> np.ndarray:
            return self._array

    class Request:
        def __init__(self, value: float, identity: int, flags: int):
            self._value, self._identity, self._flags = value, identity, flags

        def inputs(self) -> list[Tensor]:
            return [Tensor(name, array) for name, array in inputs(self._value).items()]

        def requested_output_names(self) -> list[str]:
            return ["sum"]

        def correlation_id(self) -> int:
            return self._identity

        def flags(self) -> int:
            return self._flags

    backend: Any = types.ModuleType("triton_python_backend_utils")
    backend.Tensor, backend.TritonError = Tensor, str
    backend.InferenceResponse = lambda tensors, error=None: error or float(tensors[0].as_numpy()[0, 0])
    backend.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
    backend.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    model = triton.TritonPythonModel()
    parameters = {"state": {"string_value": "sessions"}, "sessions": {"string_value": "2"}}
    model.initialize({
        "model_repository": str(tmp_path / "c"), "model_version": "1", "model_name": "c",
        "model_config": json.dumps({"parameters": parameters}),
    })  # fmt: skip
    asked = [Request(1, 5, 1), Request(10, 6, 1), Request(1, 5, 0), Request(10, 6, 2), Request(1, 6, 0)]
    *right, wrong = model.execute(asked)
    assert right == [1, 10, 2, 20] and "the session 6" in wrong
    (refused,) = model.execute([Request(1, 0, 0)])
    assert "sequence_id" in refused
    model.finalize()


# --- interrupts while requests are submitted

FILES = ("ovjit/integrations/served.py", *CALL_PATHS)


@pytest.mark.thread_unsafe(reason="a trace function belongs to its thread")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SignalError])
def test_interrupts_of_one_client(serve, tmp_path, error) -> None:
    """A signal's handler raises in the thread of one client. Another one gets its answers, no lock stays
    taken, no future is completed twice, and the model can be closed."""
    x, n = ops.parameter([1, 8], F32, name="x"), ops.parameter([1], np.int64, name="length")
    x.output(0).set_names({"x"})
    n.output(0).set_names({"length"})
    out = ops.reshape(ops.relu(x), n, False)
    out.output(0).set_names({"out"})
    ov.save_model(ov.Model([out], [x, n]), tmp_path / "m.xml", False)
    served = serve(tmp_path / "m.xml", jobs=2)
    data = np.arange(-4, 4, dtype=F32).reshape(1, 8)
    lost: list[BaseException] = []

    def ask(length: int = 8) -> Any:
        return served.submit({"x": data, "length": np.array([length])})

    def scenario() -> None:
        futures = [ask(), ask(5), ask(), ask()]
        for i, future in enumerate(futures):
            try:
                np.testing.assert_array_equal(future.result(20).outputs["out"], np.maximum(data[0], 0))
                assert i != 1
            except InferenceError:
                assert i == 1

    def other() -> None:
        try:
            for length in (8, 5, 8, 8):
                try:
                    found = ask(length).result(20).outputs["out"]
                    np.testing.assert_array_equal(found, np.maximum(data[0], 0))
                except InferenceError:
                    assert length == 5
        except BaseException as raised:
            lost.append(raised)

    def check() -> None:
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        other()
        thread.join(60)
        assert not thread.is_alive() and not lost, lost
        deadline = time.monotonic() + 20
        while not served._line.empty():
            assert time.monotonic() < deadline, served._line.qsize()
            time.sleep(0.001)

    scenario()
    check()
    numbers = sample_of(bytecodes(scenario, FILES), 120, SEED)
    assert check_interrupted(scenario, check, numbers, error, FILES) > 60
