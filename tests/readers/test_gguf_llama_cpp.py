"""GGUF files beside llama.cpp itself, where `llama-cpp-python` is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")


from bench.gguf import llama_cpp_model
from tests.readers.gguf_decoders import Reference, Sizes, tensors, write
from tests.readers.test_gguf import EXACT, decoded

pytestmark = pytest.mark.pypi
SEED = 20261124
KINDS = (
    "F32",
    "F16",
    "Q8_0",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
)
MODELS = {
    "qwen2": Sizes("qwen2"),
    "qwen3": Sizes("qwen3", size=64, turned=64),
    "gemma2": Sizes("gemma2", window=4, tied=True),
    "gemma3": Sizes("gemma3", layers=7, window=4, tied=True),
    "phi3": Sizes("phi3"),
    "gpt2": Sizes("gpt2", shared=8),
    "mixtral": Sizes("llama", experts=4),
    "qwen3moe": Sizes("qwen3moe", experts=4),
    "qwen2moe": Sizes("qwen2moe", experts=4),
    "tied": Sizes("llama", layers=1, tied=True),
    "linear": Sizes("llama", layers=1, extra={"scaling": "linear"}),
    "gemma3, linear": Sizes("gemma3", layers=7, window=4, tied=True, extra={"scaling": "linear"}),
    "factors": Sizes("llama", layers=1, extra={"factors": True}),
    "part of heads": Sizes("phi3", layers=1, turned=16),
    "yarn, qwen2": Sizes("qwen2", layers=1, extra={"scaling": "yarn"}),
    "gpt2, tied": Sizes("gpt2", shared=8, tied=True),
    "yarn": Sizes("llama", layers=1, extra={"scaling": "yarn"}),
}


def beside(path: Path, s: Sizes, kind: str) -> tuple[float, float]:
    """The greatest differences of llama.cpp's logits and of ours from those in f64, over the greatest."""
    made = tensors(s, kind, np.random.default_rng(SEED))
    write(path, s, made)
    ids = np.random.default_rng([SEED, 1]).integers(0, s.words, 12)
    expected = Reference(s, made)(ids)
    ours = decoded(ov.compile_model(path, "CPU", EXACT), ids, 8)
    llama = llama_cpp_model(path, 1, logits_all=True)
    llama.eval([int(i) for i in ids[:8]])
    for i in ids[8:]:
        llama.eval([int(i)])
    theirs = np.array(llama.scores[: len(ids)])
    most = abs(expected).max()
    return abs(theirs - expected).max() / most, abs(ours - expected).max() / most


@pytest.mark.parametrize("kind", KINDS)
def test_types(tmp_path: Path, kind: str) -> None:
    theirs, ours = beside(tmp_path / "a.gguf", Sizes("llama", layers=1), kind)
    assert ours < 2e-5, f"seed {SEED}: {ours}"
    # rows are rounded to 8 bits, the cache to f16
    assert theirs < (2e-3 if kind in ("F32", "F16") else 5e-2), f"seed {SEED}: {theirs}"


@pytest.mark.parametrize("name", MODELS)
def test_architectures(tmp_path: Path, name: str) -> None:
    theirs, ours = beside(tmp_path / "a.gguf", MODELS[name], "F32")
    assert ours < 2e-5, f"seed {SEED}: {ours}"
    assert theirs < 2e-3, f"seed {SEED}: {theirs}"
