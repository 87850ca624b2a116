"""The last product of decoders computes the last tokens' logits only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.generation.decoder import CHECKED, Decoder
from ovjit.generation.head import keep_last, last_product
from tests.readers.gguf_decoders import Sizes, tensors, write

SEED = 20261126
WIDE, WORDS = 32, 50
#: What follows the last product, by name.
TAILS = {
    "nothing": lambda y: y,
    "bias": lambda y: ops.add(ops.constant(np.linspace(-1, 1, WORDS, dtype=np.float32)), y),
    "cap": lambda y: ops.multiply(ops.tanh(ops.divide(y, np.float32(30))), np.float32(30)),
    "scale of f16": lambda y: ops.multiply(ops.convert(ops.constant(np.float16(0.5)), "f32"), y),
}


def model_of(tail: str, hidden_rank: int = 3, flat: bool = False) -> ov.Model:
    rng = np.random.default_rng(SEED)
    x = ops.parameter([-1] * (hidden_rank - 1) + [WIDE], np.float32, name="x")
    weights = rng.standard_normal((WORDS, WIDE)).astype(np.float16)
    y = ops.matmul(ops.relu(x), ops.convert(ops.constant(weights), "f32"), False, True)
    y = TAILS[tail](y)
    y = ops.reshape(y, np.array([-1, WORDS]), False) if flat else y
    y.output(0).set_names({"logits"})
    return ov.Model([ops.result(ops.relu(x)), ops.result(y)], [x], "head")


@pytest.mark.parametrize("tokens", [1, 3, 4, 9])
@pytest.mark.parametrize("tail", TAILS)
def test_logits_of_the_last_tokens(tail: str, tokens: int) -> None:
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    x = np.random.default_rng(SEED).standard_normal((2, tokens, WIDE), np.float32)
    wanted = ov.compile_model(model_of(tail), "CPU", config)(x)["logits"]
    model = model_of(tail)
    assert keep_last(model, 4)
    found = ov.compile_model(model, "CPU", config)(x)
    assert found[0].shape == x.shape, "other outputs are whole"
    assert found["logits"].shape == (2, min(tokens, 4), WORDS)
    np.testing.assert_allclose(found["logits"], wanted[:, -4:], rtol=1e-5, atol=1e-5, err_msg=f"{SEED}")


def test_other_forms_are_left_as_they_are() -> None:
    for model in (model_of("nothing", hidden_rank=2), model_of("bias", flat=True)):
        kinds = [node.get_type_name() for node in model.get_ordered_ops()]
        assert not keep_last(model, 4)
        assert [node.get_type_name() for node in model.get_ordered_ops()] == kinds
    x = ops.parameter([1, -1, WIDE], np.float32)
    model = ov.Model([ops.multiply(ops.relu(x), ops.sigmoid(x))], [x], "no product")
    assert not keep_last(model, 4)
    assert last_product(model)[0].get_type_name() == "Multiply"


def test_a_decoder_gives_as_many_rows_as_drafts_need(tmp_path: Path) -> None:
    s = Sizes("llama", layers=1, words=300, wide=64, heads=4, shared=2, size=16, turned=16, inner=64)
    write(path := tmp_path / "a.gguf", s, tensors(s, "F32", np.random.default_rng(SEED)))
    tokens = np.random.default_rng(SEED).integers(2, s.words, 3 * CHECKED)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    whole = Decoder(ov.Core().compile_model(path, "CPU", config)).feed(tokens)
    decoder = Decoder.load(path, config=config)
    assert whole.shape == decoder.feed(tokens).shape == (CHECKED, s.words)
    decoder.reset()
    np.testing.assert_allclose(decoder.feed(tokens), whole, rtol=1e-4, atol=1e-4 * abs(whole).max())
    decoder.reset()
    assert decoder.feed(tokens[:3]).shape == (3, s.words)
