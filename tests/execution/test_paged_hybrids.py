"""Paged attention of decoders that have recurrent layers, too: the transformation gives what OpenVINO's
gives, and any mixture of sequences what decoding with state gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ovjit._offline_transformations import paged_attention_transformation

import ovjit as ov
from bench import hybrids
from tests.support.paged_hybrids import HYBRIDS
from tests.support.paged_models import Cache, alone, both_transformed, decoded, told
from tests.support.sweeps import some

SEED = 20261126
F32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
OPS = ("PagedCausalConv1D", "PagedGatedDeltaNet", "PagedSelectiveSSM")


class StateCache(Cache):
    """Sequences with blocks of states, of which the last one that a call has written begins the next call."""

    def __init__(self, package: Any, compiled: Any, rng: np.random.Generator, interval: int):
        super().__init__(package, compiled, rng)
        self.interval, self.last = interval, {}
        self.states: dict[str, Any] = {}
        for port in compiled.inputs:
            name = port.get_any_name()
            if "_state_table." in name:
                shape = [96, *[d.get_length() for d in list(port.get_partial_shape())[1:]]]
                tensor = package.Tensor(port.get_element_type(), package.Shape(shape))
                tensor.data[...] = 0
                self.states[name] = tensor
                self.request.set_tensor(name, tensor)
        self.unused = [int(i) for i in rng.permutation(96)]

    def inputs(self, rows: list[tuple[int, int, np.ndarray]]) -> dict[str, np.ndarray]:
        tables = []
        for sequence, past, new in rows:
            count = -(-(past % self.interval + len(new)) // self.interval)
            if sequence not in self.last:
                self.last[sequence] = self.unused.pop()
            own = [self.last[sequence], *(self.unused.pop() for _ in range(count))]
            self.unused[:0] = own[:-1]
            self.last[sequence] = own[-1]
            tables.append(own)
        lists = {
            "block_indices": np.concatenate(tables),
            "block_indices_begins": np.cumsum([0, *map(len, tables)]),
            "past_lens": [past for _, past, _ in rows],
            "cache_interval": [self.interval] * len(rows),
        }
        return super().inputs(rows) | {f"la.{name}": np.array(x, np.int32) for name, x in lists.items()}


def recurrent(model: Any) -> list[Any]:
    """What a model says of its recurrent layers."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() in OPS:
            inputs = [(str(x.get_element_type()), str(x.get_partial_shape())) for x in node.input_values()]
            names = [n.get_node().get_friendly_name() for n in node.input_values() if n.get_names()]
            found.append((node.get_type_name(), inputs, names, node.get_attributes(), str(node.output(0))))
    return found


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_same_as_openvinos(name: str, tmp_path: Path) -> None:
    mine, real = both_transformed(HYBRIDS[name](ov), tmp_path)
    assert told(mine) == told(real)
    assert len(recurrent(mine)) > 1
    assert [x[1:4] for x in recurrent(mine)] == [x[1:4] for x in recurrent(real)]
    kinds = {n.get_type_name() for n in mine.get_ordered_ops()}
    assert not kinds & {"Loop", "ReadValue", "GroupConvolution"}


@pytest.mark.parametrize("interval", some([5, 1000], 1))
@pytest.mark.parametrize("name", HYBRIDS)
def test_any_mixture_gives_what_one_sequence_gives(name: str, interval: int) -> None:
    rng = np.random.default_rng(SEED)
    model = HYBRIDS[name](ov)
    plain = ov.Core().compile_model(HYBRIDS[name](ov), "CPU", F32)
    paged_attention_transformation(model)
    cache = StateCache(ov, ov.Core().compile_model(model, "CPU", F32), rng, interval)
    assert {str(t.element_type) for t in cache.states.values()} == {"<Type: 'float32'>"}
    sequences = [rng.integers(0, hybrids.WORDS, int(n)) for n in (5, 33, 50)]
    for got, tokens in zip(decoded(cache, sequences, rng), sequences, strict=True):
        want = alone(plain, tokens)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), (SEED, name, len(tokens))


@pytest.mark.parametrize("name", ["mamba", "delta", "jamba"])
def test_other_states_are_refused(name: str) -> None:
    """Windows without the newest token's place, and state spaces of each channel: nothing has them in blocks.
    The model is as it was."""
    model = hybrids.build(ov, name)
    before = [n.get_friendly_name() for n in model.get_ordered_ops()]
    with pytest.raises(RuntimeError, match="not caches of attention|has no such attention"):
        paged_attention_transformation(model)
    assert [n.get_friendly_name() for n in model.get_ordered_ops()] == before
