"""Paged attention: a decoder over blocks gives what it gives with state, however its work is cut; and the
transformation gives what OpenVINO's gives."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino._offline_transformations as theirs
import pytest
from ovjit._offline_transformations import paged_attention_transformation

import ovjit as ov
from bench import transformers
from ovjit.graph.paged_caches import TOP, CacheKind
from ovjit_ops.attention.paged_reference import read_block, write_block
from tests.support.paged_models import Cache, alone, decoded, decoder, told
from tests.support.sweeps import in_turn, some

SEED = 20261122
FLAGS = (
    "use_block_indices_inputs", "use_score_outputs", "allow_score_aggregation", "allow_cache_rotation",
    "allow_xattention", "allow_adaptive_rkv", "allow_qq_bias",
)  # fmt: skip
#: How far logits may be from those of decoding with state in f32, of the largest.
NEAR = {"f32": 1e-5, "f16": 1e-3, "bf16": 1e-2, "u8": 2e-2, "u4": 0.2}


def paged(kind: str, **flags: bool) -> Any:
    model = decoder(ov)
    paged_attention_transformation(model, **flags)
    return ov.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": kind}
    )


@pytest.mark.parametrize("flags", [(), *((f,) for f in FLAGS), FLAGS], ids=lambda f: "+".join(f)[:30])
def test_the_same_as_openvinos(flags: tuple[str, ...]) -> None:
    mine, real = decoder(ov), decoder(openvino)
    paged_attention_transformation(mine, **dict.fromkeys(flags, True))
    theirs.paged_attention_transformation(real, **dict.fromkeys(flags, True))
    assert told(mine) == told(real)


@pytest.mark.parametrize("kind", some(list(NEAR), 3))
def test_any_mixture_gives_what_one_sequence_gives(kind: str) -> None:
    rng = np.random.default_rng(SEED)
    compiled = paged(kind)
    plain = ov.Core().compile_model(decoder(ov), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    sequences = [rng.integers(0, 50, int(n)) for n in (5, 33, 64, 97, 150)]
    for got, tokens in zip(decoded(Cache(ov, compiled, rng), sequences, rng), sequences, strict=True):
        want = alone(plain, tokens)
        assert np.abs(got - want).max() <= NEAR[kind] * np.abs(want).max(), (SEED, kind, len(tokens))


@pytest.mark.parametrize("kind", ["f32", "f16", "u8", "u4"])
def test_blocks_lie_as_openvinos_do(kind: str) -> None:
    """Ports and bytes of the caches after a prompt of 40 tokens."""
    rng = np.random.default_rng(SEED)
    real = decoder(openvino)
    theirs.paged_attention_transformation(real)
    config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": kind}
    mine, other = paged(kind), openvino.Core().compile_model(real, "CPU", config)
    ports = [[(p.get_any_name(), str(p.get_partial_shape())) for p in c.inputs] for c in (mine, other)]
    assert ports[0] == ports[1]
    tokens, found = rng.integers(0, 50, 40), []
    for package, compiled in ((ov, mine), (openvino, other)):
        cache = Cache(package, compiled, np.random.default_rng(SEED), 3)
        cache.request.infer(cache.inputs([(0, 0, tokens)]))
        found.append({name: np.array(tensor.data).reshape(-1) for name, tensor in cache.caches.items()})
    for name in ("key_cache.0", "value_cache.0"):
        a, b = (x[name].view(np.uint8 if kind[0] == "u" else x[name].dtype).astype(np.float64) for x in found)
        assert np.mean(np.abs(a - b) > (1 if kind[0] == "u" else 1e-2)) < 0.02, (SEED, name)


@pytest.mark.parametrize("name, value, text", [
    ("past_lens", [-1], "past_lens"), ("subsequence_begins", [0, 4], "subsequence_begins"),
    ("subsequence_begins", [1, 5], "subsequence_begins"), ("block_indices", [48], "block_indices"),
    ("block_indices", [-1], "block_indices"), ("block_indices_begins", [0, 2], "block_indices_begins"),
    ("block_indices_begins", [0, 0], "fewer blocks"), ("past_lens", [28], "fewer blocks"),
])  # fmt: skip
def test_hostile_tables_are_refused_before_anything_is_written(
    name: str, value: list[int], text: str
) -> None:
    rng = np.random.default_rng(SEED)
    cache = Cache(ov, paged("f32"), rng)
    given = cache.inputs([(0, 0, rng.integers(0, 50, 5))])
    with pytest.raises(RuntimeError, match=text):
        cache.request.infer({**given, name: np.array(value, np.int32)})
    assert not any(tensor.data.any() for tensor in cache.caches.values())
    cache.request.infer(given)  # and the request is as good as before


def test_a_file_has_what_the_model_had() -> None:
    rng = np.random.default_rng(SEED)
    model = decoder(ov)
    paged_attention_transformation(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paged.xml"
        ov.save_model(model, path, compress_to_fp16=False)
        read = ov.Core().read_model(path)
        config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        compiled = ov.Core().compile_model(read, "CPU", config)
        tokens = [rng.integers(0, 50, 37)]
        (got,) = decoded(Cache(ov, compiled, rng), tokens, rng)
        blob = compiled.export_model().getvalue()
    again = ov.Core().import_model(blob, "CPU")
    (twice,) = decoded(Cache(ov, again, rng), tokens, rng)
    want = alone(ov.Core().compile_model(decoder(ov), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), tokens[0])
    for logits in (got, twice):
        assert np.abs(logits - want).max() <= 1e-5 * np.abs(want).max(), SEED


def test_models_without_state_are_refused() -> None:
    with pytest.raises(RuntimeError, match="stateful"):
        paged_attention_transformation(ov.Model([], [], "empty"))


def test_mixtures_share_plans() -> None:
    """Numbers of sequences, tokens and blocks make no plan of their own."""
    rng = np.random.default_rng(SEED)
    compiled = paged("f32")
    traces = compiled._executable.program.traces
    for _ in range(3):
        decoded(Cache(ov, compiled, rng), [rng.integers(0, 50, int(n)) for n in rng.integers(1, 150, 7)], rng)
        made, hits = traces.total, traces.hits
    assert made < 12 and hits > 3 * made and not traces.refused, (SEED, made, hits, traces.refused)


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(SEED)
    sequences = [rng.integers(0, 50, int(n)) for n in (700, 33, 5)]
    found = []
    for threads in (1, 2):
        model = decoder(ov)
        paged_attention_transformation(model)
        config = {"KV_CACHE_PRECISION": "u8", "INFERENCE_NUM_THREADS": threads}
        cache = Cache(ov, ov.Core().compile_model(model, "CPU", config), np.random.default_rng(SEED))
        found.append(decoded(cache, sequences, np.random.default_rng(SEED)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_long_sequence_is_cut_into_parts() -> None:
    """Tokens behind 700 others: parts of blocks are added up."""
    rng = np.random.default_rng(SEED)
    cache = Cache(ov, paged("f32"), rng)
    tokens = rng.integers(0, 50, 703)
    want = alone(ov.Core().compile_model(decoder(ov), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), tokens)
    cache.request.infer(cache.inputs([(0, 0, tokens[:700])]))
    for at in range(700, 703):
        got = np.array(cache.request.infer(cache.inputs([(0, at, tokens[at : at + 1])]))[0])[0, 0]
        assert np.abs(got - want[at]).max() <= 1e-5 * np.abs(want).max(), (SEED, at)


def test_hostile_tables_of_any_kind() -> None:
    """Random numbers in the tables: an error and no write, or an answer; never beside the caches."""
    rng = np.random.default_rng(SEED)
    compiled = paged("f32")
    for trial in range(150):
        cache = Cache(ov, compiled, rng, 6)
        given = cache.inputs([(0, 0, rng.integers(0, 50, 33)), (1, 3, rng.integers(0, 50, 2))])
        name = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins")[trial % 4]
        array = given[name].copy()
        limit = int(rng.choice([3, 8, 40, 2**31 - 1]))
        array[rng.integers(len(array))] = rng.integers(-limit, limit)
        try:
            cache.request.infer({**given, name: array})
        except RuntimeError as error:
            assert "paged attention" in str(error), (SEED, trial, name, array)
            assert not any(tensor.data.any() for tensor in cache.caches.values()), (SEED, trial)


def test_tables_of_all_layers_are_looked_at_first() -> None:
    """A bad table of the last layer: the first has written nothing."""
    rng = np.random.default_rng(SEED)
    cache = Cache(ov, paged("f32", use_block_indices_inputs=True), rng)
    given = cache.inputs([(0, 0, rng.integers(0, 50, 40))])
    table = np.array(cache.table(0, 40), np.int32)
    with pytest.raises(RuntimeError, match="block_indices"):
        bad = np.array([table[0], 48], np.int32)
        cache.request.infer({**given, "block_indices.0": table, "block_indices.1": bad})
    assert not any(tensor.data.any() for tensor in cache.caches.values())
    cache.request.infer({**given, "block_indices.0": table, "block_indices.1": table[::-1].copy()})
    assert all(tensor.data.any() for tensor in cache.caches.values())


def test_a_cache_needs_memory_without_gaps() -> None:
    rng = np.random.default_rng(SEED)
    cache = Cache(ov, paged("f32"), rng)
    tensor = cache.caches["key_cache.0"]
    shape = list(tensor.shape)
    window = ov.Tensor(tensor, ov.Coordinate([0, 0, 0, 0]), ov.Coordinate([*shape[:3], shape[3] // 2]))
    with pytest.raises(RuntimeError):
        cache.request.set_tensor("key_cache.0", window)
        cache.request.infer(cache.inputs([(0, 0, rng.integers(0, 50, 4))]))


@pytest.mark.parametrize("shared, rows", in_turn([(4, 6), (2, 5), (1, 4)], 2))
def test_tokens_of_a_draft_have_the_bits_of_each_alone(shared: int, rows: int) -> None:
    """Caches of f32; `shared`: heads of keys, of 4."""
    sizes = transformers.Sizes(layers=2, wide=64, heads=4, shared=shared, inner=96, words=50)
    model = decoder(ov, sizes)
    paged_attention_transformation(model)
    config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    compiled = ov.Core().compile_model(model, "CPU", config)
    tokens = np.random.default_rng(SEED).integers(0, 50, 700 + rows)
    found = []
    for each in (rows, 1):
        cache = Cache(ov, compiled, np.random.default_rng(SEED))
        cache.request.infer(cache.inputs([(0, 0, tokens[:700])]))
        parts = [
            cache.request.infer(cache.inputs([(0, at, tokens[at : at + each])]))[0].copy()
            for at in range(700, 700 + rows, each)
        ]
        found.append(np.concatenate(parts))
    np.testing.assert_array_equal(found[0], found[1], err_msg=f"{SEED}")


@pytest.mark.parametrize("kind", ["u8", "u4"])
@pytest.mark.parametrize("by_channel", [True, False])
def test_references_write_blocks_from_their_beginning(kind: str, by_channel: bool) -> None:
    """Numbers are read back within half a step, whether the block was empty or had tokens."""
    rng = np.random.default_rng(5)
    cache_kind = CacheKind(kind, 2, 8, 6, 0 if by_channel else 3, by_channel)
    cache = np.zeros((3, 2, cache_kind.bytes), np.uint8)
    tokens = rng.standard_normal((8, 6)).astype(np.float32)
    for first, stop in ((0, 3), (3, 8)):
        write_block(cache, 1, 1, cache_kind, first, tokens[first:stop])
    read = read_block(cache, 1, 1, cache_kind, 8)
    groups = tokens if by_channel else tokens.reshape(8, 2, 3)
    axis = 0 if by_channel else 2
    step = (groups.max(axis, keepdims=True) - groups.min(axis, keepdims=True)) / TOP[kind]
    # tokens of a block whose scales are widened are rounded twice
    far = np.abs(read.reshape(groups.shape) - groups) / step
    assert far.max() <= (1.01 if by_channel else 0.501)
    assert not cache[[0, 2]].any() and not cache[1, 0].any()
