"""Packed sequences: rows of all samples in a row, the first steps first, and how many samples each step has.

Layers of LSTM, GRU and RNN take them padded and with their lengths, so a pack is read as what it was made of.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.dimensions import Padded
from ovjit.readers.torch.operators.recurrent import list_states, rnn_op, stacked_layers
from ovjit.readers.torch.registry import aten
from ovjit.readers.torch.values import Number, Stacked


@aten("pad_sequence")
def pad_sequence(
    n: Call, x: Any, batch_first: bool = False, padding_value: Any = 0.0, padding_side: str = "right"
) -> Output:
    """Sequences of some lengths as one tensor, padded to the longest of them."""
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
def layers(
    n: Call, data: Output, batch_sizes: Output, hx: Any, params: Any, has_biases: bool = True,
    num_layers: int = 1, bidirectional: bool = False,
) -> list[Output]:  # fmt: skip
    rows, lengths = _pad_rows(n, data, batch_sizes)
    result, finals = stacked_layers(
        n, rnn_op(n), rows, list_states(hx), params, has_biases, num_layers, bidirectional, lengths
    )
    return [_packed(n, Padded(result, lengths)), *finals]


def _packed(n: Call, padded: Padded) -> Output:
    """The pack of what is padded, which is remembered."""
    coordinates = n.transpose(n("NonZero", _is_step(n, padded.lengths), output_type="i64"), [1, 0])
    data = n("GatherND", _swap_batch_and_time(n, padded.rows), coordinates, batch_dims=0)
    n.reader.padded[data.node, data.index] = padded
    return data


def _pad_rows(n: Call, data: Output, batch_sizes: Output) -> Padded:
    """The padded form of a packed sequence: that it was made of, or, after arithmetic, one with zeros."""
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
    """[steps, samples]: whether a sample has a step."""
    longest = n("ReduceMax", lengths, [0], keep_dims=False)
    return n("Less", n.unsqueeze(n.arange(Number(longest)), [1]), n.unsqueeze(lengths, [0]))


def _swap_batch_and_time(n: Call, rows: Output) -> Output:
    """The first two dimensions exchanged: samples and steps."""
    return n.transpose(rows, [1, 0, *range(2, n.rank(rows))])
