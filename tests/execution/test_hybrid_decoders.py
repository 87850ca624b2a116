"""Decoders with recurrent layers, as exporters write them: tokens one by one give what a prompt gives, beside
OpenVINO, and against the recurrences in f64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as real
import pytest
from ovjit._offline_transformations import paged_attention_transformation

import ovjit as ov
from bench import hybrids

SEED = 20261123
#: OpenVINO's own logits differ by 1e-3 between a prompt and its tokens where there is attention.
FAR = {"delta": 3e-3, "jamba": 3e-3}
QUICK = ("mamba", "delta")


def named(name: str) -> Any:
    return pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long], id=name)


@pytest.mark.parametrize("name", [named(name) for name in hybrids.LAYERS])
def test_tokens_give_what_prompts_give(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.xml"
    real.save_model(hybrids.build(real, name), path, compress_to_fp16=False)
    ids = np.random.default_rng(SEED).integers(0, hybrids.WORDS, 20)
    ours = hybrids.Run(ov, str(path), 1)
    whole, parts, again = (np.concatenate(ours(ids, n)[0]) for n in (19, 3, 19))
    scale = abs(whole).max()
    assert abs(whole - parts).max() < 1e-5 * scale, f"seed {SEED}"
    assert (whole == again).all()  # nothing is left of the sequence before
    theirs = np.concatenate(hybrids.Run(real, str(path), 1)(ids, 19)[0])
    assert abs(whole - theirs).max() < FAR.get(name, 3e-5) * scale, f"seed {SEED}"


def test_recurrent_layers_are_not_rewritten_to_blocks() -> None:
    """Their states would be lost; the model stays as it is."""
    model = hybrids.build(ov, "jamba")
    with pytest.raises(
        RuntimeError, match=r"'layers.0.conv', 'layers.0.ssm', .* are not caches of attention"
    ):
        paged_attention_transformation(model)
    assert len(model.get_variables()) == 8 and len(model.get_parameters()) == 4


def rows_of(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def test_the_delta_rule_in_f64(tmp_path: Path) -> None:
    """One loop of the rule, [batch, heads, tokens, size], by NumPy."""
    ops, rng = ov.opset13, np.random.default_rng(SEED)
    net = hybrids.Net(ov, "one")
    decoder = hybrids.Hybrid(net)
    ids = decoder.ids
    made = decoder.delta(decoder.x, "layer")
    model = ov.Model([ops.result(made)], decoder.sinks, [ids, decoder.beams], "one")
    loop = next(o for o in model.get_ops() if o.get_type_name() == "Loop")
    values = [loop.input_value(i) for i in range(2, 8)]
    heads, size, count = hybrids.HEADS, hybrids.WIDE // hybrids.HEADS, 7
    shapes = [(2, heads, count, size)] * 3 + [(2, heads, count)] * 2 + [(2, heads, size, size)]
    given = rows_of(rng, *shapes)
    given[3] = -abs(given[3])
    given[0], given[1] = given[0] / size, given[1] / size**0.5
    inputs = [ops.parameter(ov.PartialShape([-1] * len(s)), np.float32) for s in shapes]
    for value, parameter in zip(values, inputs, strict=True):
        value.replace(parameter.output(0))
    words = ops.constant(np.zeros((2, count), np.int64))
    ids.output(0).replace(words.output(0))
    alone = ov.Model([ops.result(o) for o in loop.outputs()], inputs, "loop")
    found = ov.Core().compile_model(alone, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)
    q, k, v, g, beta, state = (x.astype(np.float64) for x in given)
    expected = np.zeros_like(v)
    for t in range(count):
        state = state * np.exp(g[:, :, t])[..., None, None]
        change = (v[:, :, t] - np.einsum("bhkv,bhk->bhv", state, k[:, :, t])) * beta[:, :, t, None]
        state = state + k[:, :, t, :, None] * change[:, :, None]
        expected[:, :, t] = np.einsum("bhkv,bhk->bhv", state, q[:, :, t])
    assert abs(found[0] - expected).max() < 1e-5 * abs(expected).max(), f"seed {SEED}"
    assert abs(found[1] - state).max() < 1e-5 * abs(state).max(), f"seed {SEED}"
