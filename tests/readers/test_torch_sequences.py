"""Packed sequences beside PyTorch: other lengths and batches than the example's, traces and scripts."""

from __future__ import annotations

from typing import Optional  # by this name scripts know it

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import UnsupportedError

torch = pytest.importorskip("torch")
rnn = torch.nn.utils.rnn
SEED = 20261127
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SORTED = [6, 4, 2], [6, 3, 1], [5, 3, 3], [4, 2]
UNSORTED = [4, 6, 2], [3, 5, 1], [2, 2, 2], [1, 4]


class Layers(torch.nn.Module):
    def __init__(self, kind: str, batch_first: bool, enforce_sorted: bool, **options):
        super().__init__()
        self.layers = getattr(torch.nn, kind)(4, 5, batch_first=batch_first, **options)
        self.batch_first, self.enforce_sorted = batch_first, enforce_sorted

    def forward(self, x, lengths):
        packed = rnn.pack_padded_sequence(x, lengths, self.batch_first, self.enforce_sorted)
        made, last = self.layers(packed)
        padded, counts = rnn.pad_packed_sequence(made, self.batch_first)
        return padded, counts, last


class Computed(torch.nn.Module):
    """The rows of a pack are computed with, and padded to the input's length."""

    def __init__(self, value: float, to_input: bool):
        super().__init__()
        self.layers = torch.nn.GRU(4, 5, batch_first=True)
        self.linear = torch.nn.Linear(5, 4)
        self.value, self.to_input = value, to_input

    def forward(self, x, lengths):
        made, _ = self.layers(rnn.pack_padded_sequence(x, lengths, True, False))
        rows = self.linear(torch.relu(made.data))
        again = rnn.PackedSequence(rows, made.batch_sizes, made.sorted_indices, made.unsorted_indices)
        made, last = self.layers(again)
        total: Optional[int] = x.size(1) if self.to_input else None  # noqa: UP045
        padded, counts = rnn.pad_packed_sequence(made, True, self.value, total)
        return padded, counts, last


def check(module, batch_first: bool, lengths, script: bool = False):
    from torch.utils._pytree import tree_leaves

    generator = torch.Generator().manual_seed(SEED)

    def inputs(counts):
        x = torch.randn(len(counts), 6, 4, generator=generator)
        return (x if batch_first else x.transpose(0, 1).contiguous()), torch.tensor(counts)

    module = module.eval()
    given = torch.jit.script(module) if script else module
    model = ov.convert_model(given, example_input=inputs(lengths[0]))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for counts in lengths:
        x, steps = inputs(counts)
        result = compiled([x.numpy(), steps.numpy()])
        with torch.no_grad():
            wanted = tree_leaves(module(x, steps))
        assert len(result) == len(wanted)
        for i, want in enumerate(wanted):
            assert result[i].shape == want.shape, f"seed {SEED}, {counts}, output {i}"
            np.testing.assert_allclose(result[i], want, 1e-4, 1e-5, err_msg=f"seed {SEED}, {counts}, {i}")
    return [op.get_type_name() for op in model.get_ordered_ops()]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_layers_of_packed_sequences(kind, batch_first, enforce_sorted) -> None:
    torch.manual_seed(SEED)
    module = Layers(kind, batch_first, enforce_sorted, bidirectional=batch_first, num_layers=2)
    kinds = check(module, batch_first, SORTED if enforce_sorted else UNSORTED)
    assert kinds.count(f"{kind}Sequence") == 2
    assert "NonZero" not in kinds  # layers take what is padded


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_scripts_of_packed_sequences(kind) -> None:
    torch.manual_seed(SEED)
    check(Layers(kind, True, False, bidirectional=True), True, UNSORTED, script=True)


@pytest.mark.parametrize(("value", "to_input"), [(0.0, False), (-1.5, True)])
def test_packs_that_are_computed_with(value, to_input) -> None:
    torch.manual_seed(SEED)
    check(Computed(value, to_input), True, UNSORTED)


def test_packed_sequences_with_projections_are_refused() -> None:
    module = Layers("LSTM", True, True, proj_size=3).eval()
    example = torch.zeros(3, 6, 4), torch.tensor(SORTED[0])
    with pytest.raises(UnsupportedError, match="projections of packed sequences"):
        ov.convert_model(module, example_input=example)
