"""Folders of transformers: every family against NumPy in f64, types of weights, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("gguf")  # writes and computes the models of the tests

from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.checkpoint.reader import read_checkpoint
from ovjit.readers.checkpoint.settings import metadata_of
from tests.readers.gguf_decoders import Reference, Sizes, tensors
from tests.support.checkpoints import config_of, named, write_folder

SEED = 20261123
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
MODELS: dict[str, Sizes] = {
    "llama": Sizes("llama", tied=True),
    "mistral": Sizes("llama", window=4, extra={"config": {"model_type": "mistral"}}),
    "llama3": Sizes("llama", extra={"factors": True, "config": {"rope_scaling": LLAMA3}}),
    "qwen2": Sizes("qwen2", window=3),
    "qwen2 linear": Sizes(
        "qwen2", layers=1,
        extra={"scaling": "linear", "config": {"rope_scaling": {"type": "linear", "factor": 4.0}}},
    ),
    "qwen2 yarn": Sizes(
        "qwen2", layers=1, extra={"scaling": "yarn", "config": {"rope_parameters": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
        }}},
    ),
    "qwen3": Sizes("qwen3", layers=1),
    "qwen2_moe": Sizes("qwen2moe", layers=1, experts=4),
    "qwen3_moe": Sizes("qwen3moe", layers=1, experts=4),
    "gemma3": Sizes("gemma3", layers=7, window=4, tied=True),
    "phi3": Sizes("phi3", layers=1, window=5),
    "gpt2": Sizes("gpt2", shared=8, tied=True),
}  # fmt: skip


def folder_of(path: Path, s: Sizes, kind: str = "F32", **changes: Any) -> tuple[Path, dict[str, Any]]:
    made = tensors(s, "F32", np.random.default_rng([SEED, len(s.arch)]))
    arrays = {name: np.asarray(array) for name, (_, array) in made.items()}
    if s.extra.get("factors"):  # transformers computes them
        arrays.pop("rope_freqs.weight")
        config = config_of(s.arch, s)
        made["rope_freqs.weight"] = "F32", metadata_of(config).tensors["rope_freqs.weight"]
    return write_folder(path, config_of(s.arch, s) | changes, named(s.arch, arrays, s.size), kind), made


def logits_of(folder: Path, ids: np.ndarray, overrides: Any = None) -> np.ndarray:
    compiled = ov.Core().compile_model(read_checkpoint(folder, overrides), "CPU", EXACT)
    request, parts = compiled.create_infer_request(), []
    for begin, end in [(0, 6), *((i, i + 1) for i in range(6, len(ids)))]:
        given = [ids[None, begin:end], np.ones((1, end), np.int64), np.arange(begin, end)[None]]
        parts.append(request.infer([*given, np.zeros(1, np.int32)])["logits"][0].copy())
    return np.concatenate(parts)


@pytest.mark.parametrize("name", MODELS)
def test_families(tmp_path: Path, name: str) -> None:
    s = MODELS[name]
    folder, made = folder_of(tmp_path, s)
    ids = np.random.default_rng([SEED, 1]).integers(0, s.words, 9)
    expected, got = Reference(s, made)(ids), logits_of(folder, ids)
    assert abs(got - expected).max() < 2e-5 * abs(expected).max(), f"seed {SEED}"


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_entries_in_place_of_those_of_the_file(tmp_path: Path, name: str) -> None:
    """A scaling by either name, which keeps the base that it does not say, and a window."""
    base = {"rope_theta": 500.0}
    folder, _ = folder_of(tmp_path / "a", MODELS["qwen3"], rope_parameters={**base, "rope_type": "default"})
    scaling = {"rope_type": "linear", "factor": 4.0}
    other, _ = folder_of(
        tmp_path / "b", MODELS["qwen3"], rope_parameters=scaling | base, use_sliding_window=True,
        sliding_window=3, max_window_layers=0,
    )  # fmt: skip
    ids = np.random.default_rng([SEED, 1]).integers(0, 300, 9)
    windows = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}
    got = logits_of(folder, ids, {name: scaling, **windows})
    expected = logits_of(other, ids)
    assert abs(got - expected).max() < 2e-5 * abs(expected).max(), f"seed {SEED}"
    assert abs(logits_of(folder, ids) - expected).max() > 0.01 * abs(expected).max(), f"seed {SEED}"


@pytest.mark.parametrize("name, arch, usual", [
    ("mistral", "llama", {"attention.sliding_window": 4096}),
    ("mixtral", "llama", {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e6}),
    ("qwen3", "qwen3", {"attention.key_length": 128}),
    ("gemma2", "gemma2", {
        "attention.key_length": 256, "attention.scale": 1 / 16, "attention.sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    }),
    ("gemma3_text", "gemma3", {
        "attention.scale": 1 / 16, "attention.sliding_window": 4096, "rope.freq_base": 1e6,
        "rope.freq_base_swa": 1e4, "attn_logit_softcapping": 0.0,
    }),
    ("phi3", "phi3", {"attention.layer_norm_rms_epsilon": 1e-5, "attention.sliding_window": 0}),
])  # fmt: skip
def test_entries_that_a_file_leaves_out(name: str, arch: str, usual: dict[str, Any]) -> None:
    """They are what transformers takes; null stays null."""
    sizes = {"model_type": name, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if name == "mixtral":
        sizes |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    made = metadata_of(sizes).metadata
    assert {key: made[f"{arch}.{key}"] for key in usual} == usual
    empty = dict.fromkeys(("sliding_window", "attn_logit_softcapping", "final_logit_softcapping"))
    made = metadata_of(sizes | empty).metadata
    assert not made[f"{arch}.attention.sliding_window"] and not made.get(f"{arch}.attn_logit_softcapping")


def test_factors_of_llama3() -> None:
    """Each pair of a head, one by one: short waves stay, long ones are divided, between them a mixture."""
    got = metadata_of(config_of("llama", MODELS["llama3"])).tensors["rope_freqs.weight"]
    for i, divided in enumerate(got):
        wave = 2 * np.pi * 10000.0 ** (2 * i / 32)
        mix = (64 / wave - 1) / (4 - 1)
        expected = 1.0 if wave < 64 / 4 else 8.0 if wave > 64 / 1 else 1 / ((1 - mix) / 8 + mix)
        assert divided == pytest.approx(expected, rel=1e-6), i


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_halves_stay_as_they_are_stored(tmp_path: Path, kind: str) -> None:
    s = Sizes("qwen2", layers=1)
    folder, made = folder_of(tmp_path, s, kind)
    kinds = {c.get_element_type().get_type_name() for c in read_checkpoint(folder).get_ops() if is_matrix(c)}
    assert kinds == {kind.lower()}
    keep = np.float16 if kind == "F16" else None
    for name, (_, array) in made.items():
        cut = (array.view(np.uint32) >> 16 << 16).view(np.float32) if keep is None else array.astype(keep)
        made[name] = "F32", cut.astype(np.float32)
    ids = np.random.default_rng([SEED, 1]).integers(0, s.words, 8)
    expected, got = Reference(s, made)(ids), logits_of(folder, ids)
    assert abs(got - expected).max() < 2e-5 * abs(expected).max(), f"seed {SEED}"


def is_matrix(node: Any) -> bool:
    shape = node.output(0).get_partial_shape() if node.get_type_name() == "Constant" else []
    return len(shape) == 2 and min(d.get_length() for d in shape) > 1


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"model_type": "mamba"}, UnsupportedError, "model_type 'mamba'"),
        ({"hidden_act": "relu"}, UnsupportedError, "the activation 'relu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, UnsupportedError, "scaled by 'dynamic'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mscale": 1}}, UnsupportedError, "mscale"),
        ({"hidden_size": "wide"}, ModelError, "'hidden_size' is 'wide'"),
        ({"num_hidden_layers": None}, ModelError, "no 'num_hidden_layers'"),
        ({"num_hidden_layers": 3}, ModelError, "blk.2.attn_norm.weight"),
        ({"num_hidden_layers": 1 << 62}, ModelError, "'num_hidden_layers' is .* at most 10000"),
        ({"num_hidden_layers": 10**400}, ModelError, "not a number"),
        ({"num_attention_heads": 0}, ModelError, "'num_attention_heads' is 0"),
        ({"hidden_size": 1, "head_dim": None}, ModelError, "'head_dim' is 0"),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "partial_rotary_factor": -1}}, ModelError, "is -1"),
        ({"num_hidden_layers": 1}, UnsupportedError, "blk.1."),
        ({"model_type": []}, UnsupportedError, r"model_type \[\]"),
        ({"hidden_act": ["silu"]}, UnsupportedError, r"the activation \['silu'\]"),
        ({"sliding_window": "3", "use_sliding_window": True}, ModelError, "'sliding_window' is '3'"),
        ({"rope_parameters": [1]}, ModelError, r"'rope_parameters' is \[1\]"),
        ({"rope_parameters": {"full_attention": 3}}, ModelError, "'full_attention' is 3"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 5}, "sliding_attention": [1]}},
            ModelError,
            r"'sliding_attention' is \[1\]",
        ),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8,
                    "low_freq_factor": 1,
                    "high_freq_factor": 1,
                    "original_max_position_embeddings": 8,
                }
            },
            ModelError,
            "are both 1",
        ),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, change: Any, kind: Any, words: str) -> None:
    folder, _ = folder_of(tmp_path, Sizes("qwen2"), **change)
    with pytest.raises(kind, match=words) as caught:
        read_checkpoint(folder)
    assert str(folder) in str(caught.value)


def header_with(**changes: Any) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes
    text = json.dumps({"model.norm.weight": entry}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"\xff" * 64, "truncated"),
        ((1 << 20).to_bytes(8, "little") + b"{}", "truncated"),
        ((4).to_bytes(8, "little") + b"{{{{", "not valid JSON"),
        ((2).to_bytes(8, "little") + b"[]", "a JSON object"),
        (header_with(data_offsets=[0, 32]), "bytes 0 to 32 of 16"),
        (header_with(data_offsets=[8, 4]), "has -4 bytes"),
        (header_with(data_offsets=[0, 8]), "has 8 bytes"),
        (header_with(shape=[-1, 2]), "the shape"),
        (header_with(shape=[2.0, 2]), "the shape"),
        (header_with(shape=None), "two offsets"),
        (header_with(dtype="I64"), "has the unsupported type I64"),
        (header_with(), "does not use|is missing|has no"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_of("qwen2", Sizes("qwen2"))))
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises((ModelError, UnsupportedError), match=words):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "..", "a/b.safetensors"])
def test_an_index_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_of("qwen2", Sizes("qwen2"))))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="not the name of a file in this folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match="contains neither model.safetensors"):
        read_checkpoint(tmp_path)
