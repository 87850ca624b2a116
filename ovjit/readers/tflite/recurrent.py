"""Recurrent operators and variables, which keep their values from one inference to the next.

OpenVINO's front end reads none of them. LSTM's steps are those of LiteRT's kernel for real numbers. Weights
that are stored as integers are decompressed, and states that are quantised are rounded after each step.
"""

from __future__ import annotations

from ovjit.build.bodies import over_slices
from ovjit.readers.tflite.draft import Handle
from ovjit.readers.tflite.rule_language import *

Gate = tuple[int, int, int, int, int]
#: Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM, by gate: weights, recurrent weights, peephole, bias and norm.
INPUT: Gate = (1, 5, 9, 12, 20)
FORGET: Gate = (2, 6, 10, 13, 21)
CELL: Gate = (3, 7, -1, 14, 22)
OUTPUT: Gate = (4, 8, 11, 15, 23)
PROJECTION, PROJECTION_BIAS, STATE, CELL_STATE = 16, 17, 18, 19
#: Added to the variance of a gate's norm.
NORM_EPSILON = 1e-8


class _Lstm:
    """An LSTM step: the gates from an input row and the previous result."""

    def __init__(self, n: LiteNode):
        self.n = n
        #: Input 5 is left out where the input gate is what the forget gate leaves.
        self.coupled = not n.has(INPUT[1])
        self.gates = [FORGET, CELL, OUTPUT] if self.coupled else [INPUT, FORGET, CELL, OUTPUT]
        self.fixed = [i for gate in self.gates for i in gate[1:] if i >= 0 and n.has(i)]
        self.fixed += [i for i in (PROJECTION, PROJECTION_BIAS) if n.has(i)]

    def of_input(self, x: Output, gate: Gate) -> Output:
        return self.n("MatMul", x, self.n[gate[0]], transpose_b=True)

    def _gate(self, gate: Gate, x: Output, h: Output, c: Output, weights: dict[int, Output]) -> Output:
        """The argument of a gate's activation. A layer norm applies to the sums without the bias."""
        n = self.n
        _, recurrent, peephole, bias, norm = gate
        result = n("Add", x, n("MatMul", h, weights[recurrent], transpose_b=True))
        if peephole in weights:
            result = n("Add", result, n("Multiply", c, weights[peephole]))
        if norm in weights:
            result = n("Multiply", n.standardize(result, [-1], NORM_EPSILON), weights[norm])
        return n("Add", result, weights[bias]) if bias in weights else result

    def step(self, state: list[Output], pieces: list[Output], fixed: list[Output]) -> list[Output]:
        """[h, c] and the row of each gate -> [h, c, h]"""
        n, (h, c) = self.n, state
        weights = dict(zip(self.fixed, fixed, strict=True))
        rows = dict(zip(self.gates, pieces, strict=True))

        def gate(which: Gate, cell: Output) -> Output:
            return self._gate(which, rows[which], h, cell, weights)

        f = n("Sigmoid", gate(FORGET, c))
        i = n("Subtract", n.like(f, 1), f) if self.coupled else n("Sigmoid", gate(INPUT, c))
        g = n.activate(gate(CELL, c))
        c = n("Add", n("Multiply", f, c), n("Multiply", i, g))
        c = n.round_as_stored(CELL_STATE, self._clip(c, "CellClip"))
        o = n("Sigmoid", gate(OUTPUT, c))
        h = n("Multiply", o, n.activate(c))
        if PROJECTION in weights:
            h = n("MatMul", h, weights[PROJECTION], transpose_b=True)
            h = n("Add", h, weights[PROJECTION_BIAS]) if PROJECTION_BIAS in weights else h
            h = self._clip(h, "ProjClip")
        h = n.round_as_stored(STATE, h)
        return [h, c, h]

    def _clip(self, value: Output, option: str) -> Output:
        most = self.n.option(option, 0.0)
        return self.n("Clamp", value, min=-most, max=most) if most > 0 else value


@tflite_op("UNIDIRECTIONAL_SEQUENCE_LSTM")
def sequence_lstm(n: LiteNode) -> Any:
    """LSTM over axis 1, or axis 0 if it is time-major. A variable keeps the last state."""
    if n.option("DiagonalRecurrentTensors", False):
        raise UnsupportedError("diagonal recurrent weights are not supported")
    cell, axis = _Lstm(n), 0 if n.option("TimeMajor", False) else 1
    pieces = [cell.of_input(n[0], gate) for gate in cell.gates]
    state = [n.state(STATE), n.state(CELL_STATE)]
    fixed = [n[i] for i in cell.fixed]
    h, c, rows = over_slices(n, cell.step, state, pieces, fixed, n.base, axis)
    n.keep(STATE, h)
    n.keep(CELL_STATE, c)
    return rows


@tflite_op("UNIDIRECTIONAL_SEQUENCE_RNN")
def sequence_rnn(n: LiteNode) -> Any:
    """h = activation(x @ w.T + h @ r.T + bias)"""
    axis = 0 if n.option("TimeMajor", False) else 1
    rows = n("Add", n("MatMul", n[0], n[1], transpose_b=True), n[3])

    def once(state: list[Output], pieces: list[Output], fixed: list[Output]) -> list[Output]:
        h = n.activate(n("Add", pieces[0], n("MatMul", state[0], fixed[0], transpose_b=True)))
        return [h, h]

    h, result = over_slices(n, once, [n.state(4)], [rows], [n[2]], n.base, axis)
    n.keep(4, h)
    return result


# -- variables -------------------------------------------------------------------------------------------


@tflite_op("VAR_HANDLE")
def var_handle(n: LiteNode) -> Any:
    """Handle by which other operators refer to the variable."""
    names = [n.option(name, b"") or b"" for name in ("Container", "SharedName")]
    return Handle(b"/".join(bytes(name) for name in names).decode("utf-8", "replace"))


@tflite_op("READ_VARIABLE")
def read_variable(n: LiteNode) -> Any:
    return n.reader.variables.read(n, n.handle(0))


@tflite_op("ASSIGN_VARIABLE")
def assign_variable(n: LiteNode) -> Any:
    n.reader.variables.write(n.handle(0), n[1], n.scope)
    return []


@tflite_op("CALL_ONCE")
def call_once(n: LiteNode) -> Any:
    """CALL_ONCE: a subgraph that initializes variables."""
    with n.reader.variables.first_values():
        if n.subgraph(n.option("InitSubgraphIndex"), []):
            raise ModelError("a subgraph that is called once has no outputs")
    return []
