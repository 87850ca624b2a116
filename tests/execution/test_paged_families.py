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
from ovjit.errors import ModelError, UnsupportedError
from tests.support.paged_families import (
    FAMILIES,
    LOST,
    PLACED,
    ROUNDED,
    SIZES,
    WINDOW,
    Biased,
    Chunked,
    Experts,
    chosen,
)
from tests.support.paged_models import Cache, alone, both_transformed, decoded, told
from tests.support.sweeps import in_turn, some

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


@pytest.mark.parametrize("name", in_turn(list(FAMILIES), 2))
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
def test_chunks_that_do_not_begin_at_blocks_are_refused(chunk: int) -> None:
    """The row of one query is that of a window."""
    model = Chunked(ov, chunk).build()
    with pytest.raises(
        UnsupportedError,
        match=f"chunked attention of {chunk} tokens is not supported: chunks must begin at blocks",
    ):
        paged_attention_transformation(model)
    assert len(model.get_sinks()) == 2 * SIZES.layers


@pytest.mark.parametrize("name", [
    "use_score_outputs", "allow_score_aggregation", "allow_xattention", "allow_adaptive_rkv", "allow_qq_bias",
])  # fmt: skip
def test_chunks_with_a_number_for_each_sequence_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"chunked attention cannot be combined with {name}"):
        paged_attention_transformation(Chunked(ov, 32).build(), **{name: True})


def of_tables(model: Any, sequences: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    return decoded(Cache(ov, ov.Core().compile_model(model, "CPU", F32), rng), sequences, rng)


@pytest.mark.parametrize("chunk", some([64, 8192, 96], 2))
def test_each_token_sees_its_own_chunk(chunk: int, tmp_path: Path) -> None:
    """Of a model in any mixture, and of its file in one call."""
    rng = np.random.default_rng(SEED)
    model = Chunked(ov, chunk).build()
    paged_attention_transformation(model)
    ov.save_model(model, tmp_path / "a.xml", compress_to_fp16=False)
    plain = ov.Core().compile_model(Chunked(ov, chunk).build(), "CPU", F32)
    sequences = [rng.integers(0, SIZES.words, n) for n in (5, 33, 64, 96, 97, 200)]
    wanted = [alone(plain, tokens) for tokens in sequences]
    of_file = ov.Core().compile_model(tmp_path / "a.xml", "CPU", F32)
    cache = Cache(ov, of_file, rng)
    logits = cache.request.infer(cache.inputs([(i, 0, tokens) for i, tokens in enumerate(sequences)]))[0]
    at_once = np.split(np.array(logits)[:, 0], np.cumsum([len(tokens) for tokens in sequences])[:-1])
    for found in (of_tables(model, sequences, rng), at_once):
        for got, want in zip(found, wanted, strict=True):
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), (SEED, chunk, len(want))


def test_chunks_of_layers_that_have_tables_of_their_own() -> None:
    rng = np.random.default_rng(SEED)
    model = Chunked(ov, 32).build()
    paged_attention_transformation(model, use_block_indices_inputs=True)
    plain = ov.Core().compile_model(Chunked(ov, 32).build(), "CPU", F32)
    sequences = [rng.integers(0, SIZES.words, n) for n in (5, 33, 97)]
    for got, tokens in zip(of_tables(model, sequences, rng), sequences, strict=True):
        want = alone(plain, tokens)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), (SEED, len(tokens))


@pytest.mark.parametrize("size", ["", "0", "x", "-32", "9" * 30])
def test_wrong_sizes_of_chunks_are_refused(size: str) -> None:
    model = Chunked(ov, 32).build()
    paged_attention_transformation(model)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "PagedAttentionExtension":
            node.set_rt_info({"size": size}, "attention_chunks_0")
    with pytest.raises(ModelError, match="no chunk size"):
        ov.Core().compile_model(model, "CPU", F32)


@pytest.mark.parametrize("name", ["past_lens", "subsequence_begins", "block_indices", "block_indices_begins"])
def test_hostile_tables_of_chunks_are_refused_before_anything_is_written(name: str) -> None:
    rng = np.random.default_rng(SEED)
    model = Chunked(ov, 32).build()
    paged_attention_transformation(model)
    cache = Cache(ov, ov.Core().compile_model(model, "CPU", F32), rng)
    tokens = rng.integers(0, SIZES.words, 70)
    for wrong in (-7, 1 << 20, np.iinfo(np.int32).max, np.iinfo(np.int32).min):
        inputs = cache.inputs([(0, 0, tokens), (1, 40, tokens[:9])])
        inputs[name][1 if len(inputs[name]) > 1 else 0] = wrong
        with pytest.raises(RuntimeError):
            cache.request.infer(inputs)
        assert not any(tensor.data.any() for tensor in cache.caches.values()), (name, wrong)


@pytest.mark.parametrize("kind", in_turn(["f32", "u8", "u4"], 2))
def test_what_is_added_for_a_key_is_an_element_of_it(kind: str) -> None:
    model = LOST["bias"](ov)
    paged_attention_transformation(model)
    compiled = ov.Core().compile_model(model, "CPU", F32 | {"KV_CACHE_PRECISION": kind})
    assert list(compiled.input("key_cache.0").get_partial_shape())[3].get_length() == SIZES.size + 2
    rng = np.random.default_rng(SEED)
    tokens = rng.integers(0, SIZES.words, 60)
    plain = ov.Core().compile_model(LOST["bias"](ov), "CPU", F32)
    got, want = decoded(Cache(ov, compiled, rng), [tokens], rng)[0], alone(plain, tokens)
    near = {"f32": 1e-5, "u8": 2e-2, "u4": 0.3}[kind]
    assert np.abs(got - want).max() <= near * np.abs(want).max(), SEED


@pytest.mark.parametrize("name", in_turn(list(ROUNDED), 2))
def test_what_is_added_by_the_places_of_keys(name: str) -> None:
    """Slopes have their linear part; each head of queries reads its own element of a key."""
    model = ROUNDED[name](ov)
    paged_attention_transformation(model)
    shared, heads = (4, 4) if "of" not in name else (int(name[9]), int(name[-1]))
    for slopes in given(ov, model, PLACES["alibi_slopes"]):
        assert slopes.size == heads and (slopes > 0).all()
    more = heads // shared + heads // shared % 2
    rng = np.random.default_rng(SEED)
    sequences = [rng.integers(0, SIZES.words, n) for n in (290, 33, 5)]
    plain = ov.Core().compile_model(ROUNDED[name](ov), "CPU", F32)
    wanted = [alone(plain, tokens) for tokens in sequences]
    for kind, near in (("f32", 1e-5), ("u8", 3e-2)):
        compiled = ov.Core().compile_model(model, "CPU", F32 | {"KV_CACHE_PRECISION": kind})
        assert list(compiled.input("key_cache.0").get_partial_shape())[3].get_length() == SIZES.size + more
        for got, want in zip(decoded(Cache(ov, compiled, rng), sequences, rng), wanted, strict=True):
            assert np.abs(got - want).max() <= near * np.abs(want).max(), (SEED, name, kind, len(want))


def test_what_is_added_by_keys_and_queries_is_refused() -> None:
    model = Biased(ov, odd=True).build()
    with pytest.raises(UnsupportedError, match="paged attention does not support it"):
        paged_attention_transformation(model)
    assert len(model.get_sinks()) == 2 * SIZES.layers


@pytest.mark.parametrize("name", PLACED)
def test_places_that_are_counted_are_an_input(name: str, tmp_path: Path) -> None:
    mine, real = both_transformed(PLACED[name](ov), tmp_path)
    assert told(mine) == told(real)


@pytest.mark.parametrize("name", in_turn([*FAMILIES, *LOST, *PLACED], 2))
def test_any_mixture_gives_what_one_sequence_gives(name: str) -> None:
    rng = np.random.default_rng(SEED)
    made = (FAMILIES | LOST | PLACED)[name]
    model = made(ov)
    plain = ov.Core().compile_model(made(ov), "CPU", F32)
    paged_attention_transformation(model)
    cache = Cache(ov, ov.Core().compile_model(model, "CPU", F32), rng)
    sequences = [rng.integers(0, SIZES.words, int(n)) for n in (5, 33, 70)]
    for got, tokens in zip(decoded(cache, sequences, rng), sequences, strict=True):
        want = alone(plain, tokens)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), (SEED, name, len(tokens))


def with_choices(equal: bool, kind: str, sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Logits [tokens, words] of a call, and experts of all layers [tokens, layers, 2] in the order of their
    numbers."""
    model = Experts(ov, equal).build()
    paged_attention_transformation(model)
    model.add_outputs([node.output(1) for node in model.get_ordered_ops() if node.get_type_name() == "TopK"])
    compiled = ov.Core().compile_model(model, "CPU", F32 | {"KV_CACHE_PRECISION": kind})
    cache = Cache(ov, compiled, np.random.default_rng(SEED))
    found = cache.request.infer(cache.inputs([(i, 0, tokens) for i, tokens in enumerate(sequences)]))
    chosen_by = [np.array(found[1 + i]).reshape(-1, 2) for i in range(SIZES.layers)]
    return np.array(found[0])[:, 0], np.sort(np.stack(chosen_by, 1), -1)


@pytest.mark.parametrize("kind", ["bf16", "u8"])
def test_small_caches_change_experts_and_that_alone_moves_logits_far(kind: str) -> None:
    """Where two experts are nearly as likely, rounded keys and values change the choice."""
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, SIZES.words, 64) for _ in range(12)]
    for equal in (False, True):
        want, wanted = with_choices(equal, "f32", sequences)
        got, experts = with_choices(equal, kind, sequences)
        changed = (experts != wanted).any((1, 2))
        assert changed.any()
        behind = np.logical_or.accumulate(changed.reshape(len(sequences), -1), 1).reshape(-1)
        far = np.abs(got - want).max(1) / np.abs(want).max()
        assert far[~behind].max() < 1e-2, (kind, equal)
        assert far[behind].max() < 1e-2 if equal else far[changed].max() > 5e-2, (kind, equal)


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
