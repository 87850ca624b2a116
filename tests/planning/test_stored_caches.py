"""Caches of keys and values in another type than the compute type: KV_CACHE_PRECISION of f16 and bf16."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as op
from ovjit.graph.dtypes import numpy_dtype
from tests.support.cached_attention import HEADS, SIZE, compiled, decoder, kernels, shared_heads, step, stored

SEED = 20261121
NAMES = ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")


@pytest.mark.parametrize("size", [SIZE, 7, 40])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_halves_grow_and_are_ordered(kind: str, size: int, monkeypatch: pytest.MonkeyPatch):
    """What grows in place is what is copied, bit by bit; keys and values have been rounded once."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, size])
    model = decoder(ovjit, size=size)
    one, other = (compiled(model, KV_CACHE_PRECISION=kind, PERF_COUNT=True) for _ in range(2))
    other._executable.program.__dict__["growing"] = {}
    assert stored(one) == [kind, kind] and len(one._executable.program.growing) == 2
    a, b = one.create_infer_request(), other.create_infer_request()
    kept = [np.zeros((2, HEADS, 0, size))] * 2
    for new in (5, 1, 1, 40, 1, 8, 1):
        x = rng.standard_normal((2, HEADS, new, size)).astype(np.float32)
        order = rng.integers(0, 2, 2)
        rounded = [(x * np.float32(f)).astype(numpy_dtype(kind)).astype(np.float64) for f in (0.37, 2.1)]
        keys, values = kept = [np.concatenate([k[order], r], 2) for k, r in zip(kept, rounded, strict=True)]
        scores = x @ keys.swapaxes(-1, -2) / np.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        want = weights / weights.sum(-1, keepdims=True) @ values
        got = step(a, x, order)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=f"{new} more, seed {SEED}")
        assert got.tobytes() == step(b, x, order).tobytes(), f"{new} more, seed {SEED}"
    assert any(kind in name for name in kernels(a) if name.startswith("attention_few")), kernels(a)
    for state, value in zip(a.query_state(), kept, strict=True):
        assert state.state.element_type == ovjit.Type.f32
        np.testing.assert_array_equal(state.state.data, value)


def test_states_are_rounded_as_they_are_set():
    model = compiled(decoder(ovjit), KV_CACHE_PRECISION="f16")
    request = model.create_infer_request()
    given = np.full((1, HEADS, 3, SIZE), 0.3, np.float32)
    for state in request.query_state():
        state.state = ovjit.Tensor(given)
        np.testing.assert_array_equal(state.state.data, given.astype(np.float16).astype(np.float32))
    again = ovjit.Core().import_model(model.export_model(), "CPU")
    assert stored(again) == ["f16", "f16"] and again.get_property("KV_CACHE_PRECISION") == ovjit.Type.f16


def test_attention_reads_halves_below_repeated_heads():
    rng = np.random.default_rng(SEED)
    model = shared_heads()
    models = [compiled(model, KV_CACHE_PRECISION=kind, PERF_COUNT=True) for kind in ("f16", "f32")]
    requests = [one.create_infer_request() for one in models]
    for new in (9, 1, 1):
        x = rng.standard_normal((1, 4, new, 16)).astype(np.float32)
        more = rng.standard_normal((1, 2, new, 16)).astype(np.float32)
        got, want = (np.array(r.infer({"x": x, "new": more})[0]) for r in requests)
        np.testing.assert_allclose(got, want, atol=0.01, err_msg=f"seed {SEED}")
        assert not np.array_equal(got, want)
    names = kernels(requests[0])
    assert any(name.startswith("attention_few_f32_f16") for name in names), names
    assert not any(name.startswith("convert_f32") for name in names), names


def test_what_is_in_force(monkeypatch: pytest.MonkeyPatch):
    """Keys and values each in what is asked for of them, or of both; u8 by default, as there."""
    monkeypatch.delenv("OVJIT_PRECISION", raising=False)
    f32, bf16 = {"INFERENCE_PRECISION_HINT": "f32"}, {"INFERENCE_PRECISION_HINT": "bf16"}
    key, value = {"KEY_CACHE_PRECISION": "f16"}, {"VALUE_CACHE_PRECISION": "f16"}
    exact = {"EXECUTION_MODE_HINT": "ACCURACY"}
    for config, *want in (
        (f32, "f32", "f32"), ({}, "u8", "u8"), (bf16, "u8", "u8"), (exact, "f32", "f32"),
        (exact | {NAMES[0]: "u4"}, "u4", "u4"), (f32 | {NAMES[0]: "bf16"}, "bf16", "bf16"),
        (f32 | {NAMES[1]: "u8", NAMES[2]: "u4"}, "u8", "u4"), (key, "f16", "u8"), (f32 | value, "f32", "f16"),
        (f32 | {NAMES[0]: "u4", NAMES[2]: "f32"}, "u4", "f32"), (f32 | {NAMES[0]: "f32"} | key, "f16", "f32"),
        (bf16 | {NAMES[1]: "u4", NAMES[2]: "f32"}, "u4", "f32"),
    ):  # fmt: skip
        told = ovjit.Core().compile_model(decoder(ovjit), "CPU", config)
        assert stored(told) == want, config
        types = [getattr(ovjit.Type, kind) for kind in want]
        assert [told.get_property(name) for name in NAMES[1:]] == types, config
        assert told.get_property(NAMES[0]) in types, config


def test_windows_of_convolutions_are_no_caches():
    """What is asked for of keys and values does not round what a convolution reads."""
    x = op.parameter([1, 8, 4], np.float32, name="x")
    start = op.constant(np.zeros((1, 8, 2), np.float32))
    before = op.read_value(start, "w", np.float32, ovjit.PartialShape([1, 8, 2]))
    whole = op.concat([before, x], 2)
    weights = op.constant(np.random.default_rng(SEED).standard_normal((5, 8, 3)).astype(np.float32))
    y = op.convolution(whole, weights, [1], [0], [0], [1])
    bounds = [op.constant(np.array([n])) for n in (-2, 2**62, 1, 2)]
    model = ovjit.Model([op.result(y)], [op.assign(op.slice(whole, *bounds), "w")], [x], "window")
    assert stored(compiled(model, KV_CACHE_PRECISION="u8")) == ["f32"]
