"""TensorFlow Lite's recurrent operators and variables, which OpenVINO does not read, beside NumPy in f64.

The NumPy steps were compared with ai-edge-litert 2.3.0: 18 forms, those of real weights within 1e-4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("tflite")

from ovjit.errors import ModelError, UnsupportedError
from tests.support.tflite.files import G, Op, T, const, quantized, write

SEED = 20261127
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
BATCH, STEPS, INS, CELLS = 2, 5, 3, 6
FORMS: dict[str, dict[str, Any]] = {
    "plain": {}, "coupled": {"coupled": True}, "peepholes": {"peepholes": True},
    "coupled peepholes": {"coupled": True, "peepholes": True}, "projection": {"projection": 4},
    "norms": {"norms": True}, "clips": {"clip": 0.3, "projection": 4}, "steps first": {"steps_first": True},
    "relu": {"activation": 1}, "integers": {"integers": True, "projection": 4},
    "all": {"norms": True, "coupled": True, "peepholes": True, "projection": 4, "steps_first": True},
}  # fmt: skip


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


class Lstm:
    """A file with one UNIDIRECTIONAL_SEQUENCE_LSTM, and its steps in f64."""

    def __init__(
        self, coupled: bool = False, peepholes: bool = False, projection: int = 0, norms: bool = False,
        clip: float = 0.0, steps_first: bool = False, activation: int = 4, integers: bool = False,
    ):  # fmt: skip
        self.rng = np.random.default_rng(SEED)
        self.tensors: list[T] = []
        self.names: list[str] = []
        self.values: dict[str, np.ndarray] = {}
        self.clip, self.steps_first, self.integers = clip, steps_first, integers
        self.act = np.tanh if activation == 4 else lambda v: np.maximum(v, 0)
        self.outs = projection or CELLS
        gates = "fco" if coupled else "ifco"
        for kind, width in (("w", INS), ("r", self.outs)):
            for gate in "ifco":
                self._add(kind + gate, (CELLS, width) if gate in gates else None, 0.0)
        for gate in "ifo":
            self._add("p" + gate, (CELLS,) if peepholes and gate in gates else None, 0.0)
        for gate in "ifco":
            self._add("b" + gate, (CELLS,) if gate in gates else None, 0.0)
        self._add("projection", (projection, CELLS) if projection else None, 0.0)
        self._add("offset", (projection,) if projection else None, 0.0)
        for name, width in (("h", self.outs), ("c", CELLS)):
            self.tensors.append(T(name, (BATCH, width), variable=True))
            self.names.append(name)
        for gate in "ifco" if norms else "":
            self._add("n" + gate, (CELLS,) if gate in gates else None, 1.0)
        self.options = {"FusedActivationFunction": activation, "CellClip": clip, "ProjClip": clip,
                        "TimeMajor": steps_first}  # fmt: skip

    def _add(self, name: str, shape: tuple[int, ...] | None, mean: float) -> None:
        self.names.append(name if shape else "")
        if not shape:
            return
        value = self.rng.normal(mean, 0.4, shape).astype(np.float32)
        if self.integers and len(shape) == 2:
            scale = np.float32(abs(value).max() / 127)
            whole = np.round(value / scale).astype(np.int8)
            self.tensors.append(const(name, whole, quant=quantized(scale)))
            value = whole * scale
        else:
            self.tensors.append(const(name, value))
        self.values[name] = value.astype(np.float64)

    def shape(self, width: int) -> tuple[int, ...]:
        return (STEPS, BATCH, width) if self.steps_first else (BATCH, STEPS, width)

    def data(self) -> bytes:
        ends = [T("x", self.shape(INS)), T("y", self.shape(self.outs))]
        op = Op("UNIDIRECTIONAL_SEQUENCE_LSTM", ["x", *self.names], ["y"],
                "UnidirectionalSequenceLSTMOptions", self.options)  # fmt: skip
        return write(G([*ends, *self.tensors], [op], ["x"], ["y"]))

    def gate(self, gate: str, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> np.ndarray:
        known = self.values
        made = x @ known["w" + gate].T + h @ known["r" + gate].T + c * known.get("p" + gate, 0)
        if "n" + gate in known:
            centred = made - made.mean(-1, keepdims=True)
            made = centred / np.sqrt(made.var(-1, keepdims=True) + 1e-8) * known["n" + gate]
        return np.asarray(made + known["b" + gate])

    def steps(self, x: np.ndarray, state: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, Any]:
        h, c = state
        rows = []
        most = self.clip or np.inf
        for now in x.astype(np.float64) if self.steps_first else x.astype(np.float64).swapaxes(0, 1):
            f = sigmoid(self.gate("f", now, h, c))
            i = sigmoid(self.gate("i", now, h, c)) if "wi" in self.values else 1 - f
            c = np.clip(f * c + i * self.act(self.gate("c", now, h, c)), -most, most)
            h = sigmoid(self.gate("o", now, h, c)) * self.act(c)
            if "projection" in self.values:
                h = np.clip(h @ self.values["projection"].T + self.values["offset"], -most, most)
            rows.append(h)
        return np.stack(rows, 0 if self.steps_first else 1), (h, c)


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

NAMED = {"Container": "", "SharedName": "v"}
HANDLE = Op("VAR_HANDLE", [], ["h"], "VarHandleOptions", NAMED)
READ = Op("READ_VARIABLE", ["h"], ["v"], "ReadVariableOptions")
ADD = Op("ADD", ["x", "v"], ["o"], "AddOptions")
ASSIGN = Op("ASSIGN_VARIABLE", ["h", "o"], [], "AssignVariableOptions")
ONCE = Op("CALL_ONCE", [], [], "CallOnceOptions", {"InitSubgraphIndex": 1})
TENSORS = [T("h", (1,), "RESOURCE"), *(T(name, (3,)) for name in "xvop")]
FIRST = np.float32([1, 2, 3])
INIT = G([TENSORS[0], const("k", FIRST)], [HANDLE, ASSIGN._replace(inputs=["h", "k"])], [], [], "init")


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
