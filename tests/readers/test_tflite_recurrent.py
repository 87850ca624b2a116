"""TensorFlow Lite's recurrent operators and variables, which OpenVINO does not read, beside NumPy in f64.

The NumPy steps were compared with ai-edge-litert 2.3.0: 18 forms, those of real weights within 1e-4.
"""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("tflite")

from ovjit.errors import ModelError, UnsupportedError
from tests.support.tflite.files import G, Op, T, const, write
from tests.support.tflite.recurrent import (
    ADD,
    ASSIGN,
    BATCH,
    CELLS,
    FIRST,
    FORMS,
    HANDLE,
    INIT,
    INS,
    ONCE,
    READ,
    SEED,
    STEPS,
    TENSORS,
    Lstm,
)  # fmt: skip

F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


@pytest.mark.parametrize("form", FORMS)
def test_lstm(form: str) -> None:
    """The second inference begins with the last state of the first; `reset_state` with zeros."""
    lstm = Lstm(**FORMS[form])
    request = ov.compile_model(lstm.data(), "CPU", F32).create_infer_request()
    zeros = np.zeros((BATCH, lstm.outs)), np.zeros((BATCH, CELLS))
    state = zeros
    for inference in range(3):
        if inference == 2:
            request.reset_state()
            state = zeros
        x = lstm.rng.normal(size=lstm.shape(INS)).astype(np.float32)
        want, state = lstm.steps(x, state)
        got = request.infer([x])[0]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=f"{inference}, seed {SEED}")


@pytest.mark.parametrize("steps_first", [False, True])
def test_rnn(steps_first: bool) -> None:
    rng = np.random.default_rng(SEED)
    w, r, b = (rng.normal(0, 0.4, s).astype(np.float32) for s in ((4, INS), (4, 4), (4,)))
    shapes = [(STEPS, BATCH, n) if steps_first else (BATCH, STEPS, n) for n in (INS, 4)]
    tensors = [T("x", shapes[0]), const("w", w), const("r", r), const("b", b),
               T("h", (BATCH, 4), variable=True), T("y", shapes[1])]  # fmt: skip
    op = Op("UNIDIRECTIONAL_SEQUENCE_RNN", ["x", "w", "r", "b", "h"], ["y"], "SequenceRNNOptions",
            {"TimeMajor": steps_first, "FusedActivationFunction": 4})  # fmt: skip
    request = ov.compile_model(write(G(tensors, [op], ["x"], ["y"])), "CPU", F32).create_infer_request()
    h = np.zeros((BATCH, 4))
    for _ in range(2):
        x = rng.normal(size=shapes[0]).astype(np.float32)
        rows = []
        for now in x if steps_first else x.swapaxes(0, 1):
            h = np.tanh(now @ w.T + h @ r.T + b)
            rows.append(h)
        want = np.stack(rows, 0 if steps_first else 1)
        np.testing.assert_allclose(request.infer([x])[0], want, rtol=1e-4, atol=1e-5, err_msg=f"seed {SEED}")


# -- variables ----------------------------------------------------------------------------------------------


def test_variables_keep_their_values() -> None:
    """What an inference assigns is what the next one reads; before the first one, a subgraph assigns."""
    model = ov.Core().read_model(write(G(TENSORS, [ONCE, HANDLE, READ, ADD, ASSIGN], ["x"], ["o"]), INIT))
    assert {node.get_type_name() for node in model.get_ops()} >= {"ReadValue", "Assign"}
    request = ov.compile_model(model, "CPU", F32).create_infer_request()
    held = FIRST
    for value in (np.float32([1, 0, -1]), np.float32([5, 5, 5])):
        held = held + value
        np.testing.assert_array_equal(request.infer([value])[0], held)
    request.reset_state()
    np.testing.assert_array_equal(request.infer([FIRST])[0], FIRST * 2)


def test_variables_that_are_only_read_are_constants() -> None:
    model = ov.Core().read_model(write(G(TENSORS, [ONCE, HANDLE, READ, ADD], ["x"], ["o"]), INIT))
    assert {node.get_type_name() for node in model.get_ops()} == {"Parameter", "Constant", "Add", "Result"}
    np.testing.assert_array_equal(ov.compile_model(model, "CPU", F32)([FIRST])[0], FIRST * 2)


def test_variables_are_read_after_they_are_written() -> None:
    again = Op("READ_VARIABLE", ["h"], ["p"], "ReadVariableOptions")
    data = write(G(TENSORS, [ONCE, HANDLE, READ, ADD, ASSIGN, again], ["x"], ["p"]), INIT)
    request = ov.compile_model(data, "CPU", F32).create_infer_request()
    for count in (2, 3):
        np.testing.assert_array_equal(request.infer([FIRST])[0], FIRST * count)


def test_variables_without_a_value() -> None:
    with pytest.raises(ModelError, match="'/v' is read before it has a value"):
        ov.Core().read_model(write(G(TENSORS, [HANDLE, READ, ADD], ["x"], ["o"])))
    with pytest.raises(UnsupportedError, match="no VAR_HANDLE of this subgraph"):
        ov.Core().read_model(write(G(TENSORS, [READ, ADD], ["x"], ["o"])))


def test_a_variable_tensor_is_zero_at_first() -> None:
    tensors = [T("x", (3,)), T("s", (3,), variable=True), T("o", (3,))]
    data = write(G(tensors, [ADD._replace(inputs=["x", "s"])], ["x"], ["o"]))
    np.testing.assert_array_equal(ov.compile_model(data, "CPU", F32)([FIRST])[0], FIRST)


@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 4)])
def test_a_state_of_another_rank(shape: tuple[int, ...]) -> None:
    lstm = Lstm(**FORMS[next(iter(FORMS))])
    lstm.tensors[:] = [row._replace(shape=shape) if row.variable else row for row in lstm.tensors]
    with pytest.raises(ModelError, match="a state, is of rank"):
        ov.Core().read_model(lstm.data())
