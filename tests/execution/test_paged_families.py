"""Paged attention of decoders whose attention differs by family: the transformation gives what OpenVINO's
gives, and any mixture of sequences what decoding with state gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from ovjit._offline_transformations import paged_attention_transformation

import ovjit as ov
from ovjit.errors import UnsupportedError
from tests.support.paged_families import FAMILIES, LOST, SIZES, WINDOW, Chunked, chosen
from tests.support.paged_models import Cache, alone, both_transformed, decoded, told

SEED = 20261125
F32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
#: Places of inputs that a family sets: scale, sliding window, slopes, sinks.
PLACES = {"scale": 9, "sliding_window": 10, "alibi_slopes": 11, "sinks": 20}


def given(package: Any, model: Any, place: int) -> list[np.ndarray]:
    """The value of an input of each layer, which depends on no input of the model."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "PagedAttentionExtension":
            one = package.Model([node.input_value(place)], [], "one")
            found.append(np.array(package.compile_model(one, "CPU", F32)([])[0]).reshape(-1))
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_as_openvinos(name: str, tmp_path: Path) -> None:
    mine, real = both_transformed(FAMILIES[name](ov), tmp_path)
    assert told(mine) == told(real)
    for what, place in PLACES.items():
        both = given(ov, mine, place), given(openvino, real, place)
        for one, other in zip(*both, strict=True):
            if what == "sinks":  # layers may come in another order
                one, other = np.sort(one), np.sort(other)
            np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=f"{name} {what}")
    windows = given(ov, mine, PLACES["sliding_window"])
    assert all(int(w[0]) == (WINDOW if name == "window" else 0) for w in windows)
    assert all(v.size == (SIZES.heads if name == "slopes" else 0) for v in given(ov, mine, 11))
    assert all(v.size == (SIZES.heads if name == "sinks" else 0) for v in given(ov, mine, 20))


def test_slopes_of_a_table_are_kept() -> None:
    model = LOST["table"](ov)
    paged_attention_transformation(model)
    slopes = 2.0 ** (-8 * np.arange(1, SIZES.heads + 1) / SIZES.heads)
    found = given(ov, model, PLACES["alibi_slopes"])
    assert len(found) == SIZES.layers
    for one in found:
        np.testing.assert_allclose(one, slopes, rtol=1e-6)


@pytest.mark.parametrize("chunk", [8, 31, 62, 63, 200])
def test_attention_by_chunks_is_refused(chunk: int) -> None:
    """The row of one query is that of a window."""
    model = Chunked(ov, chunk).build()
    with pytest.raises(UnsupportedError, match="chunks of keys"):
        paged_attention_transformation(model)
    assert len(model.get_sinks()) == 2 * SIZES.layers


@pytest.mark.parametrize("name", [*FAMILIES, *LOST])
def test_any_mixture_gives_what_one_sequence_gives(name: str) -> None:
    rng = np.random.default_rng(SEED)
    made = (FAMILIES | LOST)[name]
    model = made(ov)
    plain = ov.Core().compile_model(made(ov), "CPU", F32)
    paged_attention_transformation(model)
    cache = Cache(ov, ov.Core().compile_model(model, "CPU", F32), rng)
    sequences = [rng.integers(0, SIZES.words, int(n)) for n in (5, 33, 70)]
    for got, tokens in zip(decoded(cache, sequences, rng), sequences, strict=True):
        want = alone(plain, tokens)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), (SEED, name, len(tokens))


def test_each_sequence_has_what_its_own_length_chooses(tmp_path: Path) -> None:
    """Inputs are those of OpenVINO, whose transformation takes the longest sequence of a call for all."""
    mine, real = both_transformed(chosen(ov), tmp_path)
    assert told(mine) == told(real)
    plain = ov.Core().compile_model(chosen(ov), "CPU", F32)
    rng = np.random.default_rng(SEED)
    cache = Cache(ov, ov.Core().compile_model(mine, "CPU", F32), rng)
    sequences = [rng.integers(0, SIZES.words, n) for n in (5, 70, 12, 13, 40, 41)]
    logits = cache.request.infer(cache.inputs([(i, 0, tokens) for i, tokens in enumerate(sequences)]))[0]
    parts = np.split(np.array(logits)[:, 0], np.cumsum([len(tokens) for tokens in sequences])[:-1])
    for got, tokens in zip(parts, sequences, strict=True):
        want = alone(plain, tokens)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), (SEED, len(tokens))
