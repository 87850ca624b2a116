"""LSTM, GRU and RNN as OpenVINO's sequences, their gates in its order."""

from __future__ import annotations

from ovjit.readers.onnx.activations import ALPHAS, BETAS, activation
from ovjit.readers.onnx.control import loop_over
from ovjit.readers.onnx.rule_language import *

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
#: ONNX's order of gates -> OpenVINO's: which of ONNX's comes where.
_LSTM = (2, 0, 3, 1)  # i o f c -> f i c o
_GRU = (0, 1, 2)  # z r h in both


def _parameters(functions: Sequence[str], values: Sequence[float], defaults: dict[str, float]) -> list[float]:
    """A parameter of each activation function: the next of `values`, else the default."""
    remaining = list(values)
    return [(remaining.pop(0) if remaining else defaults[f]) if f in defaults else 0.0 for f in functions]


class _Cell:
    """Inputs and attributes that RNN, GRU and LSTM have in common."""

    def __init__(self, n: OnnxNode, gates: int, functions: Sequence[str]):
        self.n = n
        self.hidden = n.attr("hidden_size")
        recurrence = n.shape(n[2])
        if self.hidden is None and recurrence is not None and isinstance(recurrence[-1], int):
            self.hidden = recurrence[-1]
        if not isinstance(self.hidden, int) or self.hidden < 1:
            raise ModelError("hidden_size is missing or not positive")
        n.check_count(self.hidden * gates, "hidden elements", 1 << 20)
        weights = n.shape(n[1])
        if weights is not None and (len(weights) != 3 or weights[1] not in (gates * self.hidden, ANY)):
            raise ModelError(
                f"the weights have the shape {list(weights)}, which does not match {gates} "
                f"gates of {self.hidden}"
            )
        # the default of version 1 is misspelt in the standard's schemas
        self.direction = n.attributes.get("direction", "forward").lower()
        self.count = _DIRECTIONS[self.direction]
        self.gates = gates
        self.batch_first = bool(n.attr("layout", 0))
        # [sequence, batch, input] -> [batch, sequence, input]
        self.x = n[0] if self.batch_first else n.transpose(n[0], [1, 0, 2])
        self.functions = [f.lower() for f in n.attr("activations") or list(functions) * self.count]
        if "activations" not in n.attributes:  # the standard's default is for two directions
            self.functions = self.functions[: len(functions) * self.count]
        if len(self.functions) != len(functions) * self.count:
            raise ModelError(f"{len(self.functions)} activations are given for {self.count} directions")
        self.alpha = _parameters(self.functions, n.attr("activation_alpha") or (), ALPHAS)
        self.beta = _parameters(self.functions, n.attr("activation_beta") or (), BETAS)
        self.each = len(functions)

    def part(self, direction: int) -> slice:
        """Slice of one direction's activations in the list of all."""
        return slice(direction * self.each, (direction + 1) * self.each)

    def run(self, op: str, states: int, *inputs: Output, **attrs: Any) -> list[Output]:
        """All outputs of one of OpenVINO's sequences: `inputs` are the elements, so many states, the lengths,
        weights and biases. Directions whose activations differ are sequences of their own."""
        n = self.n
        rows = list(zip(self.functions, self.alpha, self.beta, strict=True))
        if self.count == 1 or rows[self.part(0)] == rows[self.part(1)]:
            return n.all(op, *inputs, **self._attributes(0, self.direction), **attrs, opset=5)
        x, lengths = inputs[0], inputs[1 + states]
        parts = []
        for i, direction in enumerate(("forward", "reverse")):
            begin = [n.slice(v, 1, i, i + 1) for v in inputs[1 : 1 + states]]
            weights = [n.slice(v, 0, i, i + 1) for v in inputs[2 + states :]]
            attributes = {**self._attributes(i, direction), **attrs}
            parts.append(n.all(op, x, *begin, lengths, *weights, **attributes, opset=5))
        return [n.concat(both, 1) for both in zip(*parts, strict=True)]

    def _attributes(self, number: int, direction: str) -> dict[str, Any]:
        where = self.part(number)
        functions = self.functions[where]
        return {
            "hidden_size": self.hidden,
            "direction": direction,
            "activations": functions,
            "activations_alpha": self.alpha[where] if any(f in ALPHAS for f in functions) else (),
            "activations_beta": self.beta[where] if any(f in BETAS for f in functions) else (),
            "clip": float(self.n.attr("clip") or 0.0),
        }

    def activation(self, index: int, x: Output) -> Output:
        """Apply the activation number `index` to x."""
        return activation(self.n, self.functions[index], x, self.alpha[index], self.beta[index])

    def lengths(self) -> Output:
        n = self.n
        if n.has(4):
            return n.convert(n[4], "i32")
        return n.broadcast(n.convert(n.dim_of(self.x, 1), "i32"), n.dim_of(self.x, 0))

    def state(self, index: int) -> Output:
        """An initial state as [batch, directions, hidden]; zeros if the input is absent."""
        n = self.n
        if n.has(index):
            return n[index] if self.batch_first else n.transpose(n[index], [1, 0, 2])
        shape = n.concat([n.dim_of(self.x, 0), n.const(np.array([self.count, self.hidden]))], 0)
        return n.broadcast(n.like(self.x, 0), shape)

    def reorder_gates(self, value: Output, order: Sequence[int]) -> Output:
        """Reorder the gates along axis 1."""
        if list(order) == sorted(order):
            return value
        size = self.hidden
        n = self.n
        indices = np.concatenate([np.arange(size) + part * size for part in order])
        constant = n.value(value)
        if constant is not None:
            return n.const(np.ascontiguousarray(np.take(constant, indices, 1)), n.dtype(value))
        return n("Gather", value, indices, 1, opset=8)

    def bias(self, order: Sequence[int], parts: int) -> Output:
        """The sums of the input and recurrence biases, [directions, gates * hidden], with gates in
        `order`."""
        n = self.n
        if not n.has(3):
            return n.const(np.zeros((self.count, parts * self.hidden)), n.dtype(self.x))
        w, r = n.split(n[3], 1, [self.gates * self.hidden] * 2)
        return self.reorder_gates(n("Add", w, r), order)

    def sequences(self, y: Output) -> Output:
        """Transpose [batch, directions, sequence, hidden] to the layout of ONNX."""
        order = [0, 2, 1, 3] if self.batch_first else [2, 1, 0, 3]
        return self.n.transpose(y, order)

    def last(self, state: Output) -> Output:
        return state if self.batch_first else self.n.transpose(state, [1, 0, 2])


@onnx_op("LSTM")
def lstm(n: OnnxNode) -> Any:
    cell = _Cell(n, 4, ("sigmoid", "tanh", "tanh"))
    if n.has(7) or n.attr("input_forget", 0):
        return _lstm_step_by_step(n, cell)
    w, r = (cell.reorder_gates(n[i], _LSTM) for i in (1, 2))
    inputs = [cell.x, cell.state(5), cell.state(6), cell.lengths(), w, r, cell.bias(_LSTM, 4)]
    y, h, c = cell.run("LSTMSequence", 2, *inputs)
    return [cell.sequences(y), cell.last(h), cell.last(c)]


def _lstm_step_by_step(n: OnnxNode, cell: _Cell) -> list[Output]:
    """An LSTM with peepholes, or with coupled input and forget gates, as a loop over steps."""
    size, clip = cell.hidden, float(n.attr("clip") or 0.0)
    coupled = bool(n.attr("input_forget", 0))
    x = n.transpose(cell.x, [1, 0, 2])
    steps = n.dim_of(x, 0)
    inside = None
    if n.has(4):  # which steps are before an item's end: [steps, batch, 1]
        numbers = n.upto(steps)
        lengths = n.reshape(n.convert(n[4], "i64"), [1, -1, 1])
        inside = n("Less", n.reshape(numbers, [-1, 1, 1]), lengths)

    def gate(index: int, value: Output) -> Output:
        return cell.activation(index, n("Clamp", value, min=-clip, max=clip) if clip else value)

    def once(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        """(h and c side by side, h) after one more step"""
        h, c = n.split(state, 1, [size] * 2)
        i, o, f, g = n.split(n("Add", now["x"], n("MatMul", h, now["r"], transpose_b=True)), 1, [size] * 4)
        if "p" in now:
            pi, po, pf = n.split(now["p"], 1, [size] * 3)
            i, f = n("Add", i, n("Multiply", pi, c)), n("Add", f, n("Multiply", pf, c))
        i, g = gate(first, i), gate(first + 1, g)
        f = n("Subtract", n.like(i, 1), i) if coupled else gate(first, f)
        c = n("Add", n("Multiply", f, c), n("Multiply", i, g))
        if "p" in now:
            o = n("Add", o, n("Multiply", po, c))
        h = n("Multiply", gate(first, o), cell.activation(first + 2, c))
        after = n.concat([h, c], 1)
        if "inside" not in now:
            return after, h
        # after an item's end nothing changes, and 0 comes out
        return n("Select", now["inside"], after, state), n("Select", now["inside"], h, n.like(h, 0))

    states = n.concat([cell.state(5), cell.state(6)], 2)
    ys, ends = [], []
    for d in range(cell.count):
        first = cell.part(d).start
        w, r = (n.squeeze(n.slice(n[i], 0, d, d + 1), [0]) for i in (1, 2))
        pieces = {"x": n("MatMul", x, w, transpose_b=True)}
        if n.has(3):
            biases = n.split(n.slice(n[3], 0, d, d + 1), 1, [4 * size] * 2)
            pieces["x"] = n("Add", pieces["x"], n("Add", *biases))
        if inside is not None:
            pieces["inside"] = inside
        fixed = {"r": r}
        if n.has(7):
            fixed["p"] = n.slice(n[7], 0, d, d + 1)
        backwards = cell.direction == "reverse" or d == 1
        if backwards:
            pieces = {name: n.backwards(piece, 0) for name, piece in pieces.items()}
        state = n.squeeze(n.slice(states, 1, d, d + 1), [1])
        state, y = loop_over(n, once, state, pieces, fixed)
        ys.append(n.unsqueeze(n.backwards(y, 0) if backwards else y, [1]))
        ends.append(n.unsqueeze(state, [1]))
    y = n.transpose(n.concat(ys, 1), [2, 1, 0, 3])  # [batch, directions, steps, hidden]
    h, c = n.split(n.concat(ends, 1), 2, [size] * 2)
    return [cell.sequences(y), cell.last(h), cell.last(c)]


@onnx_op("GRU")
def gru(n: OnnxNode) -> Any:
    cell = _Cell(n, 3, ("sigmoid", "tanh"))
    after = bool(n.attr("linear_before_reset"))
    if after and n.has(3):
        # the hidden gate's recurrent bias stays by itself: [z, r, h of the input, h of the recurrence]
        w, r = n.split(n[3], 1, [3 * cell.hidden] * 2)
        size = cell.hidden
        wz, wh = n.split(w, 1, [2 * size, size])
        rz, rh = n.split(r, 1, [2 * size, size])
        bias = n.concat([n("Add", wz, rz), wh, rh], 1)
    else:
        bias = cell.bias(_GRU, 4 if after else 3)
    inputs = [cell.x, cell.state(5), cell.lengths(), n[1], n[2], bias]
    y, h = cell.run("GRUSequence", 1, *inputs, linear_before_reset=after)
    return [cell.sequences(y) if n.is_output_used(0) else y, cell.last(h) if n.is_output_used(1) else h]


@onnx_op("RNN")
def rnn(n: OnnxNode) -> Any:
    cell = _Cell(n, 1, ("tanh",))
    inputs = [cell.x, cell.state(5), cell.lengths(), n[1], n[2], cell.bias((0,), 1)]
    y, h = cell.run("RNNSequence", 1, *inputs)
    return [cell.sequences(y) if n.is_output_used(0) else y, cell.last(h) if n.is_output_used(1) else h]
