"""Files of TensorFlow Lite's recurrent operators and variables, and LSTM's steps in f64."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.tflite.files import G, Op, T, const, quantized, write

SEED = 20261127
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


NAMED = {"Container": "", "SharedName": "v"}
HANDLE = Op("VAR_HANDLE", [], ["h"], "VarHandleOptions", NAMED)
READ = Op("READ_VARIABLE", ["h"], ["v"], "ReadVariableOptions")
ADD = Op("ADD", ["x", "v"], ["o"], "AddOptions")
ASSIGN = Op("ASSIGN_VARIABLE", ["h", "o"], [], "AssignVariableOptions")
ONCE = Op("CALL_ONCE", [], [], "CallOnceOptions", {"InitSubgraphIndex": 1})
TENSORS = [T("h", (1,), "RESOURCE"), *(T(name, (3,)) for name in "xvop")]
FIRST = np.float32([1, 2, 3])
INIT = G([TENSORS[0], const("k", FIRST)], [HANDLE, ASSIGN._replace(inputs=["h", "k"])], [], [], "init")


def recurrent_files() -> list[bytes]:
    """Each form of an LSTM, and a variable that is read and written."""
    counter = write(G(TENSORS, [ONCE, HANDLE, READ, ADD, ASSIGN], ["x"], ["o"]), INIT)
    return [*(Lstm(**form).data() for form in FORMS.values()), counter]
