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
from tests.support.paged_models import Cache, alone, decoded, decoder

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


def told(model: Any) -> Any:
    """What a model says of its ends and of its layers."""
    def ports(found: Any) -> list[Any]:
        return [
            (sorted(p.get_names()), p.get_element_type().get_type_name(), str(p.get_partial_shape()))
            for p in found
        ]

    layers = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "PagedAttentionExtension":
            info = node.get_rt_info()
            names = ("num_k_heads", "k_head_size", "num_v_heads", "v_head_size")
            inputs = [
                (x.get_element_type().get_type_name(), str(x.get_partial_shape()))
                for x in node.input_values()
            ]
            said = [info[n].astype(int) for n in names]
            layers.append((inputs, said, node.get_attributes(), ports(node.outputs())))
    return ports(model.inputs), ports(model.outputs), layers, len(model.get_sinks())


@pytest.mark.parametrize("flags", [(), *((f,) for f in FLAGS), FLAGS], ids=lambda f: "+".join(f)[:30])
def test_the_same_as_openvinos(flags: tuple[str, ...]) -> None:
    mine, real = decoder(ov), decoder(openvino)
    paged_attention_transformation(mine, **dict.fromkeys(flags, True))
    theirs.paged_attention_transformation(real, **dict.fromkeys(flags, True))
    assert told(mine) == told(real)


@pytest.mark.parametrize("kind", list(NEAR))
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
