"""Caches of keys and values in bytes: KV_CACHE_PRECISION of u8, beside NumPy and the real OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from ovjit import opset13 as op
from tests.support.cached_attention import HEADS, compiled, decoder, kernels, shared_heads, step, stored

SEED = 20261122
U8 = {"KV_CACHE_PRECISION": "u8"}


def in_bytes(x: np.ndarray, name: str = "u8") -> np.ndarray:
    """Each group of a row rounded to even steps, 256 or 16, from its least element to its greatest."""
    kind, _, group = name.partition(":")
    if kind in ("f32", "f16"):
        return x.astype(kind.replace("f", "float")).astype(np.float64)
    top = {"u8": 255, "u4": 15}[kind]
    parts = x.reshape(*x.shape[:-1], -1, int(group or x.shape[-1]))
    low, high = parts.min(-1, keepdims=True), parts.max(-1, keepdims=True)
    scale = (high - low) * np.float32(1 / top)
    steps = np.float32(1) / np.where(scale > 0, scale, np.float32(np.inf))
    rounded = np.rint((parts - low) * steps)
    assert rounded.min(initial=0) >= 0 and rounded.max(initial=0) <= top
    near: np.ndarray = rounded.astype(np.float64) * scale + low
    assert (np.abs(near - parts) <= 0.501 * scale).all()
    return near.reshape(x.shape)


def asked(key: str, value: str) -> dict[str, Any]:
    """Properties for keys and values that are stored so."""
    found: dict[str, Any] = {}
    for which, name in (("KEY", key), ("VALUE", value)):
        kind, _, group = name.partition(":")
        found[f"{which}_CACHE_PRECISION"] = kind
        found |= {f"{which}_CACHE_GROUP_SIZE": int(group)} if group else {}
    return found


STORED = [
    (8, "u8", "u8"), (20, "u8", "u8"), (64, "u8", "u8"), (64, "u4", "u4"), (24, "u4", "u4"),
    (64, "u8:16", "u8:32"), (40, "u4:8", "u4:20"), (128, "u4:64", "u8:64"), (64, "u8", "u4"),
    (64, "u4:16", "f16"), (16, "f32", "u8"), (48, "f16", "f32"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "key", "value"),
    [*STORED[::2], *(pytest.param(*stored, marks=pytest.mark.long) for stored in STORED[1::2])],
)
def test_rows_grow_and_are_ordered(size: int, key: str, value: str, monkeypatch: pytest.MonkeyPatch):
    """What grows in place is what is copied, bit by bit; rows have been rounded once, by their own scales."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, size])
    model = decoder(ovjit, size=size)
    one, other = (compiled(model, **asked(key, value), PERF_COUNT=True) for _ in range(2))
    other._executable.program.__dict__["growing"] = {}
    assert stored(one) == [key, value] and len(one._executable.program.growing) == 2
    packed = {"u8", "u4"} & {key[:2], value[:2]}
    a, b = one.create_infer_request(), other.create_infer_request()
    kept = [np.zeros((2, HEADS, 0, size))] * 2
    for new in (5, 1, 1, 40, 1, 8, 9, 1):
        x = rng.standard_normal((2, HEADS, new, size)).astype(np.float32)
        x[0, 0, 0] = 0.3  # a row of one number has no scale
        order = rng.integers(0, 2, 2)
        rounded = [in_bytes(x * np.float32(f), name) for f, name in ((0.37, key), (2.1, value))]
        prompt = kept[0].shape[2] == 0 and bool(packed)
        kept = [np.concatenate([k[order], r], 2) for k, r in zip(kept, rounded, strict=True)]
        keys, values = kept
        if prompt:  # what is rounded to bytes is read as it was before
            keys, values = (
                x * np.float32(f) if name[:2] in packed else k
                for f, name, k in zip((0.37, 2.1), (key, value), kept, strict=True)
            )
        scores = x @ keys.swapaxes(-1, -2) / np.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        want = weights / weights.sum(-1, keepdims=True) @ values
        got = step(a, x, order)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5, err_msg=f"{new} more, seed {SEED}")
        assert got.tobytes() == step(b, x, order).tobytes(), f"{new} more, seed {SEED}"
        names = kernels(a)
        few = any(name.startswith(f"attention_few_f32_{key[:2]}") for name in names)
        widened = any(name.startswith("dequantize_rows") for name in names)
        assert few == (new < 9 and not prompt) and widened == (new >= 9 and bool(packed)), names
    for state, want in zip(a.query_state(), kept, strict=True):
        assert state.state.element_type == ovjit.Type.f32
        np.testing.assert_allclose(state.state.data, want, rtol=1e-5, atol=1e-6)
    told = [one.get_property(f"{which}_CACHE_PRECISION") for which in ("KEY", "VALUE")]
    assert told == [getattr(ovjit.Type, name.partition(":")[0]) for name in (key, value)]
    again = ovjit.Core().import_model(one.export_model(), "CPU").create_infer_request()
    for request in (a, again):
        for state, want in zip(request.query_state(), kept, strict=True):
            state.state = ovjit.Tensor(want.astype(np.float32))
    x = rng.standard_normal((2, HEADS, 1, size)).astype(np.float32)
    assert step(a, x).tobytes() == step(again, x).tobytes(), f"seed {SEED}"


@pytest.mark.parametrize("model", [decoder, lambda ov: shared_heads()], ids=["plain", "shared"])
def test_a_prompt_is_read_before_it_is_rounded(model: Any, monkeypatch: pytest.MonkeyPatch):
    """Where nothing comes before it, as in OpenVINO; what follows reads bytes, in one trace more."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    models = [compiled(model(ovjit), KV_CACHE_PRECISION=kind, PERF_COUNT=True) for kind in ("u8", "f32")]
    requests = [one.create_infer_request() for one in models]
    for new in (3, *[1] * 50, 20):
        shapes = [p.partial_shape for p in models[0].inputs]
        heads = [1 if len(s) == 1 else s[1].get_length() for s in shapes]
        given = [
            np.zeros(1, np.int32) if len(s) == 1
            else rng.standard_normal((1, h, new, s[3].get_length())).astype(np.float32)
            for s, h in zip(shapes, heads, strict=True)
        ]  # fmt: skip
        got, want = (np.array(r.infer(given)[0]) for r in requests)
        before = requests[0].query_state()[0]._states.values[0].shape[2] - new
        assert (np.abs(got - want).max() < 1e-6) == (before == 0), f"{before} before, seed {SEED}"
        np.testing.assert_allclose(got, want, atol=0.05, err_msg=f"{before} before, seed {SEED}")
    assert models[0]._executable.program.main.program.traces.total <= 3


def test_what_a_row_takes():
    """Eight bytes for each group, and the numbers'."""
    for key, value, sizes in (("u8", "u4", (72, 40)), ("u8:16", "u4:32", (96, 48))):
        request = compiled(decoder(ovjit, size=64), **asked(key, value)).create_infer_request()
        step(request, np.ones((1, HEADS, 3, 64), np.float32))
        kept = request._job.states().values
        assert [(v.dtype, v.shape) for v in kept] == [(np.uint8, (1, HEADS, 3, n)) for n in sizes]


def test_states_are_f32():
    """Set and shown as f32; what has been shown is written again as the same bytes."""
    rng = np.random.default_rng(SEED)
    model = compiled(decoder(ovjit), **U8)
    one, other = model.create_infer_request(), model.create_infer_request()
    given = rng.standard_normal((2, 1, HEADS, 3, 8)).astype(np.float32)
    for request in (one, other):
        for state, value in zip(request.query_state(), given, strict=True):
            state.state = ovjit.Tensor(value)
    x = rng.standard_normal((1, HEADS, 1, 8)).astype(np.float32)
    for state, value in zip(one.query_state(), given, strict=True):
        np.testing.assert_allclose(state.state.data, in_bytes(value), rtol=1e-5, atol=1e-6)
        assert state.state.element_type == ovjit.Type.f32
    np.testing.assert_allclose(step(one, x), step(other, x), rtol=1e-5, atol=1e-6, err_msg=f"seed {SEED}")
    for state in one.query_state():
        state.state.data[...] = 0.3  # written to while it is shown
    for state in other.query_state():
        state.state = ovjit.Tensor(np.full((1, HEADS, 4, 8), 0.3, np.float32))
    assert step(one, x).tobytes() == step(other, x).tobytes()
    for request in (one, other):
        request.reset_state()
        assert [list(s.state.shape) for s in request.query_state()] == [[0, HEADS, 0, 8]] * 2
    assert step(one, x).tobytes() == step(other, x).tobytes()


def test_blobs_keep_them():
    rng = np.random.default_rng(SEED)
    one = compiled(decoder(ovjit), **U8)
    other = ovjit.Core().import_model(one.export_model(), "CPU", {**U8, "INFERENCE_PRECISION_HINT": "f32"})
    assert stored(other) == ["u8", "u8"] and len(other._executable.program.growing) == 2
    assert other.get_property("KV_CACHE_PRECISION") == ovjit.Type.u8
    a, b = one.create_infer_request(), other.create_infer_request()
    for new in (4, 1, 1):
        x = rng.standard_normal((1, HEADS, new, 8)).astype(np.float32)
        assert step(a, x).tobytes() == step(b, x).tobytes(), f"seed {SEED}"


def test_attention_reads_bytes_below_repeated_heads():
    rng = np.random.default_rng(SEED)
    models = [compiled(shared_heads(), KV_CACHE_PRECISION=kind, PERF_COUNT=True) for kind in ("u8", "f32")]
    requests = [one.create_infer_request() for one in models]
    for new in (9, 1, 1):
        x = rng.standard_normal((1, 4, new, 16)).astype(np.float32)
        more = rng.standard_normal((1, 2, new, 16)).astype(np.float32)
        got, want = (np.array(r.infer({"x": x, "new": more})[0]) for r in requests)
        np.testing.assert_allclose(got, want, atol=0.05, err_msg=f"seed {SEED}")
        assert np.array_equal(got, want) == (new == 9)  # the first are read before they are bytes
    names = kernels(requests[0])
    assert any(name.startswith("attention_few_f32_u8") for name in names), names
    assert not any(name.startswith("dequantize") for name in names), names
    for model in models:
        traces = model._executable.program.main.program.traces
        assert traces.total == 2, "a prompt; tokens of any length"


def turned() -> Any:
    """Keys as columns, one behind the other: no row of them is ever whole."""
    x = op.parameter(ovjit.PartialShape([1, 2, -1, 8]), np.float32, name="x")
    start = op.constant(ovjit.Tensor(np.zeros((1, 2, 8, 0), np.float32)))
    before = op.read_value(start, "key", np.float32, ovjit.PartialShape([1, 2, 8, -1]))
    whole = op.concat([before, op.transpose(x, op.constant(np.array([0, 1, 3, 2])))], 3)
    y = op.matmul(x, whole, False, False)
    return ovjit.Model([op.result(y)], [op.assign(whole, "key")], [x], "turned")


def test_what_has_no_rows_is_stored_in_halves():
    """Of 4 bits in bytes, if they have rows of such."""
    model = compiled(decoder(ovjit, size=12), KV_CACHE_PRECISION="u4")
    assert stored(model) == ["u8", "u8"] and model.get_property("KV_CACHE_PRECISION") == ovjit.Type.u8
    model = compiled(decoder(ovjit, size=7), **U8)
    assert stored(model) == ["f16", "f16"] and model.get_property("KV_CACHE_PRECISION") == ovjit.Type.f16
    assert stored(compiled(turned(), **U8)) == ["f16"]
    request = compiled(turned(), **U8).create_infer_request()
    x = np.random.default_rng(SEED).standard_normal((1, 2, 3, 8)).astype(np.float32)
    for _ in range(2):
        got = np.array(request.infer([x])[0])
    np.testing.assert_allclose(got, x @ np.concatenate([x, x], 2).swapaxes(-1, -2), atol=0.01)


def test_what_is_refused():
    """Types and groups that OpenVINO refuses where there is attention, in its words."""
    for config in (
        {"KEY_CACHE_PRECISION": "i8"}, {"KV_CACHE_PRECISION": "u3"}, {"VALUE_CACHE_PRECISION": "u3"},
        {**asked("u8", "u8"), "KEY_CACHE_GROUP_SIZE": 7}, {**asked("u4", "u4"), "VALUE_CACHE_GROUP_SIZE": 16},
    ):  # fmt: skip
        said = []
        for package in (ovjit, openvino):
            with pytest.raises(RuntimeError, match="cache precision|be divided by group size") as error:
                package.Core().compile_model(decoder(package), "CPU", config)
            said.append(str(error.value))
        assert ("but gets" in said[0]) == ("but gets" in said[1]), said


def layers(ov: Any, count: int, heads: int, size: int) -> Any:
    """A small decoder in the manner of Llama: norms, attention over caches, products with gates."""
    ops, rng = ov.opset13, np.random.default_rng([SEED, count])
    wide = heads * size

    def product(x: Any, to: int) -> Any:
        of = x.get_output_partial_shape(0)[2].get_length()
        weights = rng.standard_normal((of, to)).astype(np.float32) / np.sqrt(np.float32(of))
        return ops.matmul(x, ops.constant(weights), False, False)

    def normed(x: Any) -> Any:
        last = ops.constant(np.array([2]))
        mean = ops.reduce_mean(ops.multiply(x, x), last, True)
        return ops.divide(x, ops.sqrt(ops.add(mean, ops.constant(np.float32(1e-5)))))

    def by_heads(x: Any) -> Any:
        split = ops.reshape(x, ops.constant(np.array([0, 0, heads, size])), True)
        return ops.transpose(split, ops.constant(np.array([0, 2, 1, 3])))

    x = ops.parameter(ov.PartialShape([-1, -1, wide]), np.float32, name="x")
    order = ops.parameter(ov.PartialShape([-1]), np.int32, name="beam_idx")
    zero = ops.constant(np.int64(0))
    batch = ops.gather(ops.shape_of(x, "i64"), ops.constant(np.array([0], np.int64)), zero)
    sizes = [ops.constant(np.array([n], np.int64)) for n in (heads, 0, size)]
    y, sinks = x, []
    for i in range(count):
        rows, joined = normed(y), []
        for name in (f"key{i}", f"value{i}"):
            start = ops.broadcast(ops.constant(np.float32(0)), ops.concat([batch, *sizes], 0))
            before = ops.read_value(start, name, np.float32, ov.PartialShape([-1, heads, -1, size]))
            whole = ops.concat([ops.gather(before, order, zero), by_heads(product(rows, wide))], 2)
            sinks.append(ops.assign(whole, name))
            joined.append(whole)
        seen = ops.scaled_dot_product_attention(by_heads(product(rows, wide)), *joined)
        seen = ops.transpose(seen, ops.constant(np.array([0, 2, 1, 3])))
        seen = ops.reshape(seen, ops.constant(np.array([0, 0, wide])), True)
        y = ops.add(y, product(seen, wide))
        rows = normed(y)
        gated = ops.multiply(ops.swish(product(rows, 2 * wide)), product(rows, 2 * wide))
        y = ops.add(y, product(gated, wide))
    return ov.Model([ops.result(normed(y))], sinks, [x, order], "layers")


ERRORS = [(1, "u8", "u8"), (24, "u8", "u8"), (3, "u4", "u4"), (24, "u4:16", "u4:32"), (2, "u8:16", "u4:8")]


@pytest.mark.parametrize(("prompt", "key", "value"), ERRORS)
def test_the_error_is_not_above_openvinos(prompt: int, key: str, value: str):
    """Against f32, of a prompt and tokens: a root of mean squares as great as its own, or less."""
    rng = np.random.default_rng([SEED, prompt])
    given = [rng.standard_normal((1, n, 128)).astype(np.float32) for n in (prompt, *[1] * 16)]
    errors = []
    for ov in (ovjit, openvino):
        answers = []
        for caches in (asked(key, value), asked("f32", "f32")):
            config = {"INFERENCE_PRECISION_HINT": "f32", **caches}
            request = ov.Core().compile_model(layers(ov, 2, 4, 32), "CPU", config).create_infer_request()
            answers.append(np.concatenate([step(request, x) for x in given], 1))
        errors.append(np.sqrt(np.square(answers[0] - answers[1]).mean()))
    assert 0 < errors[0] <= 1.01 * errors[1], f"{errors}, seed {SEED}"


def openvinos() -> dict[str, Any]:
    """What OpenVINO is asked for where ovjit is asked for nothing: it finds BF16 in the CPU by itself, also
    where ovjit is told to do without, and computes in it."""
    theirs, ours = (ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") for ov in (openvino, ovjit))
    if theirs.get_type_name() == ours.get_type_name():
        return {}
    return {"INFERENCE_PRECISION_HINT": ours.get_type_name(), "KV_CACHE_PRECISION": "u8"}


@pytest.mark.parametrize("prompt", [1, 3, 24])
def test_what_is_stored_by_default(prompt: int, monkeypatch: pytest.MonkeyPatch):
    """As in OpenVINO: its answers, which are not those of f32; these for who asks for f32 or accuracy."""
    monkeypatch.delenv("OVJIT_PRECISION", raising=False)
    monkeypatch.setenv("OVJIT_HIDE", "avx512bf16")  # or both round to bf16, each in its own places
    rng = np.random.default_rng([SEED, prompt])
    given = [rng.standard_normal((1, n, 128)).astype(np.float32) for n in (prompt, *[1] * 12, 4)]
    answers = []
    configs: list[dict[str, Any]] = [{}, {"INFERENCE_PRECISION_HINT": "f32"}]
    configs += [{"EXECUTION_MODE_HINT": "ACCURACY"}, {"KV_CACHE_PRECISION": "f32"}]
    for ov, config in ((openvino, openvinos()), *((ovjit, config) for config in configs)):
        model = ov.Core().compile_model(layers(ov, 2, 4, 32), "CPU", config)
        request = model.create_infer_request()
        answers.append(np.concatenate([step(request, x) for x in given], 1))
    theirs, ours, *exact = answers
    error, near = (np.sqrt(np.square(answer - theirs).mean()) for answer in (exact[0], ours))
    # where a number lies between two steps, the next bit of what it is made of decides
    assert error > 1e-3 and near < 0.1 * error, f"{near} {error}, seed {SEED}"
    for other in exact[1:]:
        np.testing.assert_allclose(other, exact[0], rtol=1e-5, atol=1e-6)
    assert stored(ovjit.Core().compile_model(shared_heads(), "CPU")) == ["f32", "f32"]


@pytest.mark.parametrize("turned", [True, False])
def test_where_positions_come_before_heads(turned: bool, monkeypatch: pytest.MonkeyPatch):
    """By default u8 where queries are turned as keys and values are, as in OpenVINO, else f32."""
    monkeypatch.delenv("OVJIT_PRECISION", raising=False)
    monkeypatch.setenv("OVJIT_HIDE", "avx512bf16")  # or both round to bf16, each in its own places

    def model(ov: Any) -> Any:
        ops = ov.opset13
        wide = ov.PartialShape([-1, -1, 2, 32])
        x = ops.parameter(wide, np.float32, name="x")
        q = x if turned else ops.parameter(ov.PartialShape([-1, 2, -1, 32]), np.float32, name="q")
        order = ops.parameter(ov.PartialShape([-1]), np.int32, name="beam_idx")
        zero, swap = ops.constant(np.int64(0)), ops.constant(np.array([0, 2, 1, 3]))
        batch = ops.gather(ops.shape_of(x, "i64"), ops.constant(np.array([0], np.int64)), zero)
        sinks, joined = [], []
        for name in ("key", "value"):
            sizes = ops.concat([batch, ops.constant(np.array([0, 2, 32], np.int64))], 0)
            before = ops.read_value(ops.broadcast(ops.constant(np.float32(0)), sizes), name, np.float32, wide)
            whole = ops.concat([ops.gather(before, order, zero), ops.relu(x)], 1)
            sinks.append(ops.assign(whole, name))
            joined.append(ops.transpose(whole, swap))
        y = ops.scaled_dot_product_attention(ops.transpose(x, swap) if turned else q, *joined)
        return ov.Model([ops.result(y)], sinks, [x, order] if turned else [x, order, q], "positions")

    answers: list[Any] = []
    for ov in (ovjit, openvino):
        rng = np.random.default_rng(SEED)
        one = ov.Core().compile_model(model(ov), "CPU", openvinos() if ov is openvino else {})
        request = one.create_infer_request()
        for new in (5, 1, 8, 1):
            data = rng.standard_normal((2, new, 2, 32)).astype(np.float32)
            given = {"x": data, "beam_idx": rng.integers(0, 2, 2).astype(np.int32)}
            more = {} if turned else {"q": data.swapaxes(1, 2)}
            answers.append(np.array(request.infer(given | more)[0]))
        if ov is ovjit:
            assert stored(one) == ["u8" if turned else "f32"] * 2
    for ours, theirs in zip(answers[:4], answers[4:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")
