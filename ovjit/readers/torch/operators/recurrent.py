"""LSTM, GRU and RNN of whole sequences.

Packed sequences have the rows of all samples one after another, the first steps first, and how many samples
each step has. Layers take them padded and with their lengths, so a pack is read as what it was made of.
"""

from __future__ import annotations

from ovjit.build.bodies import over_slices
from ovjit.readers.torch.dimensions import Padded
from ovjit.readers.torch.rule_language import *

#: PyTorch's gates in OpenVINO's order: i f g o -> f i g o, r z n -> z r n.
_ORDER = {"LSTMSequence": (1, 0, 2, 3), "GRUSequence": (1, 0, 2), "RNNSequence": (0,)}


def rnn_op(n: Call) -> str:
    """The name of OpenVINO's operation for an operator of recurrent layers."""
    return {"aten::lstm": "LSTMSequence", "aten::gru": "GRUSequence"}.get(n.op, "RNNSequence")


def list_states(states: Any) -> list[Output]:
    """The states of a layer as a list: two of an LSTM, else one."""
    return list(states) if isinstance(states, (list, tuple)) else [states]


@aten("lstm.input", "lstm", "gru.input", "gru", "rnn_tanh.input", "rnn_relu.input", "rnn_tanh", "rnn_relu")
def layers(
    n: Call, x: Output, hx: Any, params: Any, has_biases: bool = True, num_layers: int = 1,
    bidirectional: bool = False, batch_first: bool = False,
) -> list[Output]:  # fmt: skip
    states, single = list_states(hx), n.rank(x) == 2
    if single:
        x = n.unsqueeze(x, [0 if batch_first else 1])
        states = [n.unsqueeze(s, [1]) for s in states]
    if not batch_first:
        x = n.transpose(x, [1, 0, 2])
    x, finals = apply_stacked_layers(n, rnn_op(n), x, states, params, has_biases, num_layers, bidirectional)
    out = x if batch_first else n.transpose(x, [1, 0, 2])
    if single:
        out = n.squeeze(out, [0 if batch_first else 1])
        finals = [n.squeeze(f, [1]) for f in finals]
    return [out, *finals]


def apply_stacked_layers(
    n: Call, op: str, x: Output, states: list[Output], params: Any, has_biases: bool, num_layers: int,
    bidirectional: bool, lengths: Output | None = None,
) -> tuple[Output, list[Output]]:  # fmt: skip
    """Apply stacked recurrent layers to x [batch, length, size]; return the outputs and the last states.

    `lengths` are the numbers of steps of the samples; None means all steps.
    """
    ways = 2 if bidirectional else 1
    each = len(params) // (num_layers * ways)
    last: list[list[Output]] = [[] for _ in states]
    first = [_of_layers(n, s, num_layers, ways) for s in states]
    if lengths is None:
        lengths = n("Broadcast", n.dim_of(x, 1), n.one(n.size(x, 0)))
    elif each != 2 + 2 * has_biases:
        raise UnsupportedError("a layer with projections of packed sequences is not supported")
    for layer in range(num_layers):
        layer_weights = [
            params[(layer * ways + i) * each : (layer * ways + i + 1) * each] for i in range(ways)
        ]
        begin = [n.transpose(parts[layer], [1, 0, 2]) for parts in first]
        x, ends = _layer(n, op, x, lengths, begin, layer_weights, has_biases)
        for states_of_layers, end in zip(last, ends, strict=True):
            states_of_layers.append(end)
    return x, [n.transpose(n.concat(parts, 1), [1, 0, 2]) for parts in last]


def _of_layers(n: Call, state: Output, count: int, ways: int) -> list[Output]:
    """The states of each layer, by a Split: NNCF does not move quantizers through a Slice, which is used only
    if the number of rows is dynamic."""
    if n.size(state, 0) != count * ways:
        return [n.cut(state, 0, i * ways, (i + 1) * ways) for i in range(count)]
    return n.all("Split", state, 0, num_splits=count) if count > 1 else [state]


def _layer(
    n: Call, op: str, x: Output, lengths: Output, begin: list[Output], layer_weights: list[Any],
    has_biases: bool,
) -> tuple[Output, list[Output]]:  # fmt: skip
    """The outputs of one layer and its last states, [batch, ways, hidden]. `lengths`: of each sample."""
    hidden: Any = n.size(layer_weights[0][1], 1)
    if len(layer_weights[0]) != 2 + 2 * has_biases:
        return _project_layer(n, x, begin, layer_weights, has_biases)

    def stack(parts: list[Output]) -> Output:
        return n.concat([n.unsqueeze(p, [0]) for p in parts], 0)

    weights = stack([_order_gates(n, p[0], op) for p in layer_weights])
    recurrences = stack([_order_gates(n, p[1], op) for p in layer_weights])
    biases = stack([_biases(n, p, op, hidden, has_biases) for p in layer_weights])
    attrs: dict[str, Any] = {
        "hidden_size": hidden, "direction": "bidirectional" if len(layer_weights) == 2 else "forward"
    }  # fmt: skip
    if op == "GRUSequence":
        attrs["linear_before_reset"] = True
    if op == "RNNSequence":
        attrs["activations"] = ["relu" if "relu" in n.op else "tanh"]
    result = n.all(op, x, *begin, lengths, weights, recurrences, biases, **attrs)
    ends = list(result[1:])
    if len(layer_weights) == 1:
        return n.squeeze(result[0], [1]), ends
    return _flat(n, n.transpose(result[0], [0, 2, 1, 3])), ends  # [batch, ways, length, hidden]


def _project_layer(
    n: Call, x: Output, begin: list[Output], layer_weights: list[Any], has_biases: bool
) -> tuple[Output, list[Output]]:
    """An LSTM layer with projection: the output of each step is projected before the next one. Directions run
    one after the other."""
    result = []
    for way, weights in enumerate(layer_weights):
        hidden, cell = (n.squeeze(n.cut(v, 1, way, way + 1), [1]) for v in begin)
        gates = n("MatMul", x, weights[0], transpose_a=False, transpose_b=True)
        for bias in weights[2:4] if has_biases else ():
            gates = n("Add", gates, bias)
        result.append(_steps(n, gates, hidden, cell, weights[1], weights[-1], backward=way == 1))
    out, *ends = ([parts[i] for parts in result] for i in range(3))
    return n.concat(out, 2), [n("Concat", *(n.unsqueeze(v, [1]) for v in end), axis=1) for end in ends]


def _steps(
    n: Call, gates: Output, hidden: Output, cell: Output, again: Output, projection: Output, backward: bool
) -> list[Output]:
    """A TensorIterator over steps of an LSTM: `gates` are the inputs' contributions to i, f, g, o. Returns
    [batch, length, size], the last output and the last cell state."""

    def once(state: list[Output], slices: list[Output], fixed: list[Output]) -> list[Output]:
        total = n("Add", slices[0], n("MatMul", state[0], fixed[0], transpose_a=False, transpose_b=True))
        out, after = _lstm_cell(n, total, state[1], 1)
        out = n("MatMul", out, fixed[1], transpose_a=False, transpose_b=True)
        return [out, after, out]

    name = n.reader.name(n.base, "TensorIterator")
    hidden, cell, rows = over_slices(n, once, [hidden, cell], [gates], [again, projection], name, 1, backward)
    n.reader.name_dimensions([rows, hidden, cell])
    return [rows, hidden, cell]


def _lstm_cell(n: Call, gates: Output, cell: Output, axis: int) -> list[Output]:
    """(next output, next cell state) from the sums of the gates i, f, g, o."""
    i, f, g, o = n.all("Split", gates, axis, num_splits=4)
    remembered, new = n("Multiply", n("Sigmoid", f), cell), n("Multiply", n("Sigmoid", i), n("Tanh", g))
    after = n("Add", remembered, new)
    return [n("Multiply", n("Sigmoid", o), n("Tanh", after)), after]


@aten("gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(n: Call, x: Output, hx: Any, w_ih: Output, w_hh: Output, b_ih: Any = None, b_hh: Any = None) -> Any:
    """One step of a layer: the next state and, for an LSTM, the next cell state."""
    states = list_states(hx)
    input_gates, recurrent_gates = n.also("linear", x, w_ih, b_ih), n.also("linear", states[0], w_hh, b_hh)
    axis = n.rank(x) - 1
    if n.op in ("aten::rnn_tanh_cell", "aten::rnn_relu_cell"):
        return n("Relu" if "relu" in n.op else "Tanh", n("Add", input_gates, recurrent_gates))
    if n.op == "aten::lstm_cell":
        return _lstm_cell(n, n("Add", input_gates, recurrent_gates), states[1], axis)
    (r, z, m), (r2, z2, m2) = (n.all("Split", v, axis, num_splits=3) for v in (input_gates, recurrent_gates))
    reset, update = n("Sigmoid", n("Add", r, r2)), n("Sigmoid", n("Add", z, z2))
    new = n("Tanh", n("Add", m, n("Multiply", reset, m2)))
    return n("Add", n("Multiply", n("Subtract", states[0], new), update), new)


def _flat(n: Call, steps: Output) -> Output:
    dims: list[Any] = n.sizes(steps)
    return n.to_shape(steps, [*dims[:2], dims[2] * dims[3]])


def _order_gates(n: Call, value: Output, op: str) -> Output:
    order = _ORDER[op]
    if len(order) == 1:
        return value
    parts = n.all("Split", value, 0, num_splits=len(order))
    return n("Concat", *(parts[i] for i in order), axis=0)


def _biases(n: Call, weights: Any, op: str, hidden: int, has_biases: bool) -> Output:
    """Return one bias per gate. The last gate of a GRU has two, as the reset gate is applied between them."""
    kind, count = n.dtype(weights[0]), len(_ORDER[op])
    if not has_biases:
        return n.const(np.zeros((count + (op == "GRUSequence")) * hidden), kind)
    a, b = weights[2], weights[3]
    if op != "GRUSequence":
        return _order_gates(n, n("Add", a, b), op)
    reset, update, new = n.all("Split", a, 0, num_splits=3)
    reset2, update2, new2 = n.all("Split", b, 0, num_splits=3)
    return n("Concat", n("Add", update, update2), n("Add", reset, reset2), new, new2, axis=0)


@aten("pad_sequence")
def pad_sequence(
    n: Call, x: Any, batch_first: bool = False, padding_value: Any = 0.0, padding_side: str = "right"
) -> Output:
    """Pad sequences to the longest, as one tensor."""
    if isinstance(x, Stacked):  # whose items have one shape
        return x.rows if batch_first else n.also("transpose", x.rows, 0, 1)
    lengths = [n.size(v, 0) for v in x]
    longest = reduce(lambda a, b: n.compute("Maximum", a, b), lengths)
    rows = []
    for value, length in zip(n.same_kind(list(x)), lengths, strict=True):
        pads = [
            n.ints([missing] + [0] * (n.rank(value) - 1))
            for missing in (0, n.compute("Subtract", longest, length))
        ]
        pads = pads[::-1] if padding_side == "left" else pads
        rows.append(n("Pad", value, *pads, n.like(value, padding_value), pad_mode="constant"))
    result: Output = n.also("stack", rows, 0 if batch_first else 1)
    return result


@aten("_pack_padded_sequence")
def pack_padded_sequence(n: Call, x: Output, lengths: Any, batch_first: bool) -> list[Output]:
    lengths = n.convert(n.tensor(lengths), "i64")
    rows = x if batch_first else _swap_batch_and_time(n, x)
    longest = n("ReduceMax", lengths, [0], keep_dims=True)
    rows = n("Slice", rows, [0], longest, [1], [1])
    counts = n("ReduceSum", n.convert(_is_step(n, lengths), "i64"), [1], keep_dims=False)
    return [_packed(n, Padded(rows, lengths)), counts]


@aten("_pad_packed_sequence")
def pad_packed_sequence(
    n: Call, data: Output, batch_sizes: Output, batch_first: bool, padding_value: Any, total_length: Any = -1
) -> list[Output]:
    rows, lengths = _pad_rows(n, data, batch_sizes)
    if isinstance(padding_value, Number) or padding_value != 0:
        within = n.unsqueeze(_swap_batch_and_time(n, _is_step(n, lengths)), list(range(2, n.rank(rows))))
        rows = n("Select", within, rows, n.like(rows, padding_value))
    constant, steps = n.known_number(total_length), (n.shape(batch_sizes) or (None,))[0]
    is_longest = isinstance(total_length, Number) and total_length.key == getattr(steps, "key", steps)
    if not is_longest and (constant is None or constant > 0):
        sizes = list(n.sizes(rows))
        sizes[1] = n.compute("Subtract", total_length, sizes[1])
        rows = n("Concat", rows, n.fill(padding_value, sizes, n.dtype(rows)), axis=1)
    return [rows if batch_first else _swap_batch_and_time(n, rows), lengths]


@aten("lstm.data", "gru.data", "rnn_tanh.data", "rnn_relu.data")
def packed_layers(
    n: Call, data: Output, batch_sizes: Output, hx: Any, params: Any, has_biases: bool = True,
    num_layers: int = 1, bidirectional: bool = False,
) -> list[Output]:  # fmt: skip
    rows, lengths = _pad_rows(n, data, batch_sizes)
    result, finals = apply_stacked_layers(
        n, rnn_op(n), rows, list_states(hx), params, has_biases, num_layers, bidirectional, lengths
    )
    return [_packed(n, Padded(result, lengths)), *finals]


def _packed(n: Call, padded: Padded) -> Output:
    """The PackedSequence's data for a padded batch, which is remembered for `_pad_rows`."""
    coordinates = n.transpose(n("NonZero", _is_step(n, padded.lengths), output_type="i64"), [1, 0])
    data = n("GatherND", _swap_batch_and_time(n, padded.rows), coordinates, batch_dims=0)
    n.reader.padded[data.node, data.index] = padded
    return data


def _pad_rows(n: Call, data: Output, batch_sizes: Output) -> Padded:
    """The padded form of packed data: the one it came from or, after arithmetic, a new one with zeros."""
    remembered = n.reader.padded.get((data.node, data.index))
    if remembered is not None:
        return remembered
    counts = n.convert(batch_sizes, "i64")
    samples = n.arange(Number(n("Gather", counts, 0, 0)))
    is_longer = n("Less", n.unsqueeze(samples, [1]), n.unsqueeze(counts, [0]))
    lengths = n("ReduceSum", n.convert(is_longer, "i64"), [1], keep_dims=False)
    is_step = _is_step(n, lengths)
    coordinates = n.transpose(n("NonZero", is_step, output_type="i64"), [1, 0])
    zeros = n.fill(0, [*n.sizes(is_step), *n.sizes(data)[1:]], n.dtype(data))
    return Padded(_swap_batch_and_time(n, n("ScatterNDUpdate", zeros, coordinates, data)), lengths)


def _is_step(n: Call, lengths: Output) -> Output:
    """Mask [steps, samples] of the steps within each sample's length."""
    longest = n("ReduceMax", lengths, [0], keep_dims=False)
    return n("Less", n.unsqueeze(n.arange(Number(longest)), [1]), n.unsqueeze(lengths, [0]))


def _swap_batch_and_time(n: Call, rows: Output) -> Output:
    """Swap the first two dimensions."""
    return n.transpose(rows, [1, 0, *range(2, n.rank(rows))])
