"""Caches of keys and values that are stored in bf16, where models compute in it: what the real OpenVINO shows
of them, which variables are such caches, and that they grow in place as others do."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from tests.support.cached_attention import HEADS, SIZE, decoder, step, stored
from tests.support.compiled import float_types

SEED = 20261120
BF16 = {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16"}  # u8 is the default

pytestmark = pytest.mark.skipif("bf16" not in float_types(), reason="this CPU multiplies no bf16")


def compiled(ov: Any, model: Any, **more: Any) -> Any:
    return ov.Core().compile_model(model, "CPU", {**BF16, **more})


def in_bf16(x: np.ndarray) -> bool:
    return not (np.ascontiguousarray(x).view(np.uint32) & 0xFFFF).any()


def test_which_variables_are_caches():
    assert stored(compiled(ovjit, decoder(ovjit))) == ["bf16", "bf16"]
    assert stored(compiled(ovjit, decoder(ovjit, "summed"))) == ["f32", "bf16"]
    assert stored(compiled(ovjit, decoder(ovjit, "output"))) == ["f32", "bf16"]
    assert stored(compiled(ovjit, decoder(ovjit, "anew"))) == ["f32", "f32"]
    assert stored(compiled(ovjit, decoder(ovjit), KV_CACHE_PRECISION="f32")) == ["f32", "f32"]
    plain = ovjit.Core().compile_model(decoder(ovjit), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert stored(plain) == ["f32", "f32"]


def test_what_is_told_of_it():
    model = compiled(ovjit, decoder(ovjit))
    for name in ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION"):
        assert model.get_property(name) == ovjit.Type.bf16
    model = compiled(ovjit, decoder(ovjit), KV_CACHE_PRECISION="f32")
    assert model.get_property("KV_CACHE_PRECISION") == ovjit.Type.f32


def growing_sum(ov: Any) -> Any:
    """As `decoder`, in the one form of which the real package lets states be set without 8-bit integers:
    keys and values multiplied by themselves."""
    ops = ov.opset13
    x = ops.parameter(ov.PartialShape([1, -1, SIZE]), np.float32, name="x")
    empty = ops.constant(ov.Tensor(np.zeros((1, 0, SIZE), np.float32)))
    seen = ops.read_value(empty, "seen", np.float32, ov.PartialShape([1, -1, SIZE]))
    whole = ops.concat([seen, x], 1)
    scores = ops.matmul(x, whole, False, True)
    return ov.Model([ops.result(scores)], [ops.assign(whole, "seen")], [x], "growing")


@pytest.mark.parametrize("ov", [ovjit, openvino], ids=["ovjit", "openvino"])
def test_states_are_f32_that_bf16_holds(ov):
    """As the real package shows them: of f32, rounded as they are set."""
    rng = np.random.default_rng(SEED)
    request = compiled(ov, growing_sum(ov)).create_infer_request()
    (state,) = request.query_state()
    assert state.state.element_type == ov.Type.f32
    x = rng.standard_normal((1, 3, SIZE)).astype(np.float32)
    request.infer([x])
    shown = np.array(state.state.data)
    assert state.state.element_type == ov.Type.f32 and in_bf16(shown)
    np.testing.assert_allclose(shown, x, rtol=2**-8)
    given = rng.standard_normal((1, 2, SIZE)).astype(np.float32)
    state.state = ov.Tensor(given)
    assert in_bf16(state.state.data)
    np.testing.assert_allclose(state.state.data, given, rtol=2**-8)
    scores = request.infer([x[:, :1]])[0]
    assert list(state.state.shape) == [1, 3, SIZE]
    np.testing.assert_allclose(scores[0, 0, :2], given[0] @ x[0, 0], rtol=0.02, atol=0.05)
    state.reset()
    request.infer([x])
    np.testing.assert_allclose(state.state.data, x, rtol=2**-8)


@pytest.mark.parametrize("size", [8, 7])
def test_they_grow_and_are_ordered(size: int, monkeypatch: pytest.MonkeyPatch):
    """What grows in place is what is copied, bit by bit, and near what f32 gives."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, size])
    model = decoder(ovjit, size=size)
    one, other = compiled(ovjit, model), compiled(ovjit, model)
    other._executable.program.__dict__["growing"] = {}
    exact = compiled(ovjit, model, INFERENCE_PRECISION_HINT="f32")
    assert len(one._executable.program.growing) == 2
    a, b, c = (m.create_infer_request() for m in (one, other, exact))
    for new in (5, 1, 1, 40, 1, 8, 1):
        x = rng.standard_normal((2, HEADS, new, size)).astype(np.float32)
        order = rng.integers(0, 2, 2)
        got, want, near = (step(r, x, order) for r in (a, b, c))
        assert got.tobytes() == want.tobytes(), f"{new} more, seed {SEED}"
        np.testing.assert_allclose(got, near, atol=0.05, err_msg=f"{new} more, seed {SEED}")
    for left, right in zip(a.query_state(), b.query_state(), strict=True):
        assert left.state.data.tobytes() == right.state.data.tobytes() and in_bf16(left.state.data)


def test_a_shown_state_can_be_written_to():
    rng = np.random.default_rng(SEED)
    a, b = (compiled(ovjit, decoder(ovjit)).create_infer_request() for _ in range(2))
    x = rng.standard_normal((1, HEADS, 3, SIZE)).astype(np.float32)
    step(a, x), step(b, x)
    for state in a.query_state():
        state.state.data[...] = 0.3
    for state in b.query_state():
        state.state = ovjit.Tensor(np.full((1, HEADS, 3, SIZE), 0.3, np.float32))
    assert step(a, x[:, :, :1]).tobytes() == step(b, x[:, :, :1]).tobytes()
    seen = a.query_state()[0].state
    before = seen.data.copy()
    step(a, x)
    np.testing.assert_array_equal(seen.data, before)


def test_blobs_keep_them():
    rng = np.random.default_rng(SEED)
    one = compiled(ovjit, decoder(ovjit))
    other = ovjit.Core().import_model(one.export_model(), "CPU", BF16)
    assert stored(other) == ["bf16", "bf16"] and len(other._executable.program.growing) == 2
    a, b = one.create_infer_request(), other.create_infer_request()
    for new in (4, 1, 1):
        x = rng.standard_normal((1, HEADS, new, SIZE)).astype(np.float32)
        assert step(a, x).tobytes() == step(b, x).tobytes()


def test_what_is_outgrown_is_not_traced_anew():
    """Room for more is made as often as it takes; one trace for the prompt and one for single tokens."""
    rng = np.random.default_rng(SEED)
    model = compiled(ovjit, decoder(ovjit))
    request = model.create_infer_request()
    step(request, rng.standard_normal((1, HEADS, 20, SIZE)).astype(np.float32))
    for _ in range(200):
        step(request, rng.standard_normal((1, HEADS, 1, SIZE)).astype(np.float32))
    traces = model._executable.program.main.program.traces
    assert traces.total <= 2 and traces.hits >= 1 and request._job.states().room > 220
