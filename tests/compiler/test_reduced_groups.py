"""Reductions, softmax and normalizations with the elementwise nodes in front of them and behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import openvino
import openvino.opset13 as real
import pytest

import ovjit as ov
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import find_op
from tests.support.oracle import assert_same
from tests.support.sweeps import some

SEED = 20261122
o = ov.opset13


def axes(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def answers(made: Any, params: Sequence[Any], arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """What a model computes, and the `exec_type` of each step."""
    model = ov.Model([made.output(0)], list(params))
    config = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    result = np.array(request.infer(list(arrays))[0])
    return result, [row.exec_type for row in request.get_profiling_info()]


def distance(o, x, y):
    return o.sqrt(o.reduce_sum(o.power(o.subtract(x, y), np.float32(2)), axes(2)))


def masked_mean(o, x, m):
    m = o.convert(m, "f32")
    sums = o.reduce_sum(o.multiply(x, m), axes(1))
    return o.divide(sums, o.maximum(o.reduce_sum(m, axes(1)), np.float32(1e-6)))


#: name -> (how many kernels, what makes them of an opset and values, shapes of f32, or of bytes: "u8")
ONE: dict[str, tuple[int, Any, list[Any]]] = {
    "distance": (1, distance, [(3, 20, 37), (3, 20, 37)]),
    "distance to one": (1, distance, [(3, 20, 37), (37,)]),
    "mean of sizes": (1, lambda o, x: o.reduce_mean(o.abs(x), axes(0, 1, 2)), [(3, 9, 21)]),
    "log of sum of exp": (1, lambda o, x: o.log(o.reduce_sum(o.exp(x), axes(1), True)), [(3, 40, 21)]),
    "weighted, kept": (1, lambda o, x, w: o.reduce_sum(o.multiply(x, w), axes(1)), [(3, 40, 21), (40, 1)]),
    "weighted, adjacent": (1, lambda o, x, w: o.reduce_sum(o.multiply(x, w), axes(2)), [(3, 40, 21), (21,)]),
    "bytes": (1, lambda o, x: o.reduce_sum(o.convert(x, "f32"), axes(1)), [((5, 64, 33), "u8")]),
    "any": (1, lambda o, x: o.convert(o.reduce_logical_or(o.greater(x, np.float32(2.5)), axes(1)), "f32"),
            [(40, 33)]),
    "masked mean": (3, masked_mean, [(2, 30, 48), ((2, 30, 1), "u8")]),
    "picture": (1, lambda o, x, w: o.tanh(o.reduce_max(o.multiply(x, w), axes(2, 3), True)),
                [(2, 7, 9, 11), (7, 1, 1)]),
    "behind alone": (1, lambda o, x, y: o.relu(o.add(o.reduce_min(x, axes(0)), y)), [(9, 50), (50,)]),
    "softmax": (1, lambda o, x, m: o.softmax(o.add(o.multiply(x, np.float32(0.125)), m), -1),
                [(2, 3, 9, 37), (2, 1, 1, 37)]),
    "log-softmax": (1, lambda o, x: o.log_softmax(o.divide(x, np.float32(0.7)), -1), [(9, 50)]),
    "residual": (1, lambda o, x, y: o.mvn(o.add(x, y), axes(-1), True, 1e-5, "inside_sqrt"),
                 [(4, 9, 33), (4, 9, 33)]),
}  # fmt: skip


@pytest.mark.parametrize("opened", [False, True], ids=["known", "open"])
@pytest.mark.parametrize("name", ONE)
def test_groups_are_one_kernel(name: str, opened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenVINO has them; of open shapes, too, but for the steps that combine parts."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    many, make, given = ONE[name]
    rng, params, arrays = np.random.default_rng(SEED), [], []
    for one in given:
        shape, kind = one if one[-1] == "u8" else (one, "f32")
        array = rng.integers(0, 2, shape) if kind == "u8" else rng.standard_normal(shape)
        arrays.append(array.astype(np.uint8 if kind == "u8" else np.float32))
        params.append(real.parameter([-1] * len(shape) if opened else shape, arrays[-1].dtype.type))
    model = openvino.Model([make(real, *params)], params)
    kinds = assert_same(model, arrays, f"{name}, seed {SEED}")
    assert len(kinds) <= 2 * many if opened else len(kinds) == many, kinds


def test_what_others_read_and_what_is_rounded_is_left_alone() -> None:
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((5, 40)).astype(np.float32)
    wide = x.astype(np.float64)

    def count(make: Any) -> tuple[np.ndarray, list[str]]:
        p = o.parameter([5, 40], np.float32)
        return answers(make(p), [p], [x])

    def twice(p):
        e = o.exp(p)
        return o.add(o.reduce_sum(e, axes(1), True), e)

    got, kinds = count(twice)
    np.testing.assert_allclose(got, np.exp(wide).sum(1, keepdims=True) + np.exp(wide), rtol=1e-5)
    assert "exp_f32" in kinds
    got, kinds = count(lambda p: o.reduce_max(o.convert(o.convert(p, "bf16"), "f32"), axes(1)))
    np.testing.assert_array_equal(got, x.astype(ml_dtypes.bfloat16).astype(np.float32).max(1))
    assert len(kinds) == 2, kinds
    # more lanes than elements, and much to do for each
    p = o.parameter([3000, 3], np.float32)
    narrow = rng.standard_normal((3000, 3)).astype(np.float32)
    got, kinds = answers(o.reduce_sum(o.exp(p), axes(1)), [p], [narrow])
    np.testing.assert_allclose(got, np.exp(narrow.astype(np.float64)).sum(1), rtol=1e-5)
    assert "exp_f32" in kinds, kinds


def test_what_is_read_later_is_not_written_over() -> None:
    """Where a body turns out to broadcast the anchor's value, it is a step of its own."""
    p, q = (o.parameter([-1, -1], np.float32, name=name) for name in "pq")
    x = o.relu(p)
    made = o.multiply(o.add(o.softmax(x, 1), x), q)
    rng = np.random.default_rng(SEED)
    for one, other in (((5, 17), (5, 17)), ((1, 17), (5, 17)), ((5, 1), (5, 17))):
        a, b = (rng.standard_normal(s).astype(np.float32) for s in (one, other))
        got, _ = answers(made, [p, q], [a, b])
        z = np.maximum(a, 0).astype(np.float64)
        e = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        np.testing.assert_allclose(got, (e + z) * b, rtol=1e-5, err_msg=f"{one} {other}, seed {SEED}")


class Random:
    """A random program around one anchor, with its value in f64."""

    def __init__(self, seed: int):
        self.rng = rng = np.random.default_rng([SEED, seed])
        self.opened = rng.random() < 0.5
        self.params: list[Any] = []
        self.arrays: list[np.ndarray] = []
        self.shape = tuple(int(rng.choice([1, 2, 3, 5, 16, 17, 33])) for _ in range(int(rng.integers(1, 5))))
        self.made, self.value = self.source(self.shape)
        for _ in range(int(rng.integers(1, 4))):
            self.step(self.shape)
        self.anchor()
        for _ in range(int(rng.integers(0, 3))):
            self.step(self.value.shape)

    def source(self, shape: tuple[int, ...]) -> tuple[Any, np.ndarray]:
        """A parameter of floats or bytes, or a constant, some of them turned."""
        kind = int(self.rng.integers(0, 5))
        if kind == 0:
            array = self.rng.standard_normal(shape).astype(np.float32)
            return o.constant(array), array.astype(np.float64)
        order = self.rng.permutation(len(shape)) if kind == 1 else np.arange(len(shape))
        lying = tuple(shape[i] for i in np.argsort(order))
        array = self.rng.standard_normal(lying).astype(np.float32)
        if kind == 2:
            array = self.rng.integers(0, 9, lying).astype(np.uint8)
        told = [-1 if self.opened and self.rng.random() < 0.7 else d for d in lying]
        p = o.parameter(told, array.dtype.type)
        self.params.append(p)
        self.arrays.append(array)
        made = o.convert(p, "f32") if kind == 2 else p
        made = o.transpose(made, order.astype(np.int64)) if kind == 1 and len(shape) > 1 else made
        return made, array.astype(np.float64).transpose(order)

    def step(self, shape: tuple[int, ...]) -> None:
        kind = int(self.rng.integers(0, 6))
        if kind < 4:
            other = tuple(1 if self.rng.random() < 0.4 else d for d in shape)
            y, v = self.source(other[int(self.rng.integers(0, 2)) * (len(other) > 1) :])
            name, f = (("add", np.add), ("multiply", np.multiply), ("subtract", np.subtract),
                       ("maximum", np.maximum))[kind]  # fmt: skip
            self.made, self.value = getattr(o, name)(self.made, y), f(self.value, v)
        else:
            name, f = (("abs", np.abs), ("tanh", np.tanh))[kind - 4]
            self.made, self.value = getattr(o, name)(self.made), f(self.value)

    def anchor(self) -> None:
        x, v, rng = self.made, self.value, self.rng
        kind, last = int(rng.integers(0, 10)), v.ndim - 1
        if kind < 7:
            over = tuple(sorted(rng.choice(v.ndim, int(rng.integers(1, v.ndim + 1)), replace=False).tolist()))
            keep = bool(rng.random() < 0.5)
            name, f = (("sum", np.sum), ("mean", np.mean), ("max", np.max), ("min", np.min),
                       ("l1", lambda v, **k: np.abs(v).sum(**k)), ("sum", np.sum),
                       ("l2", lambda v, **k: np.sqrt((v * v).sum(**k))))[kind]  # fmt: skip
            self.made = getattr(o, f"reduce_{name}")(x, axes(*over), keep)
            self.value = f(v, axis=over, keepdims=keep)
        elif kind == 7:
            over = tuple(range(int(rng.integers(0, v.ndim)), v.ndim))
            self.made = o.mvn(x, axes(*over), True, 1e-2, "inside_sqrt")
            spread = np.sqrt(v.var(over, keepdims=True) + 1e-2)
            self.value = (v - v.mean(over, keepdims=True)) / spread
        else:
            axis = int(rng.integers(0, v.ndim)) if rng.random() < 0.3 else last
            e = np.exp(v - v.max(axis, keepdims=True))
            self.made, self.value = o.softmax(x, axis), e / e.sum(axis, keepdims=True)
            if kind == 9:
                self.made = o.log_softmax(x, axis)
                self.value = v - v.max(axis, keepdims=True) - np.log(e.sum(axis, keepdims=True))


@pytest.mark.parametrize("part", some(range(5), 2))
def test_random_groups(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    fused = 0
    for seed in range(part * 8, part * 8 + 8):
        it = Random(seed)
        got, kinds = answers(it.made, it.params, it.arrays)
        scale = max(1.0, float(np.abs(it.value).max()))
        where = f"seed {SEED}, {seed}: {it.shape}, {kinds}"
        np.testing.assert_allclose(got, it.value, rtol=2e-4, atol=3e-5 * scale, err_msg=where)
        words = ("reduce", "softmax", "mvn")
        fused += any(word in kind and not kind.startswith(words) for kind in kinds for word in words)
    assert fused >= 2, part


@pytest.mark.parametrize("dtype", ["f64", "i32", "i64", "u8", "boolean"])
def test_other_types(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared, converted and counted, in the types of elementwise kernels."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    kind = numpy_dtype(dtype)
    for shape, axis in (((9, 70), 0), ((9, 70), 1), ((300, 17), 1), ((2, 400, 5), 1)):
        x = rng.integers(0, 2 if dtype == "boolean" else 7, shape).astype(kind)
        p = o.parameter(shape, kind)
        over, where = axes(axis), f"{shape} {axis}, seed {SEED}"
        if dtype == "boolean":
            made = o.logical_not(o.reduce_logical_and(o.logical_not(p), over))
            want = ~(~x).all(axis)
        else:
            made = o.multiply(o.reduce_sum(o.add(p, kind.type(1)), over), kind.type(3))
            want = ((x + kind.type(1)).sum(axis, dtype=kind) * kind.type(3)).astype(kind)
        got, kinds = answers(made, [p], [x])
        np.testing.assert_array_equal(got, want, err_msg=where)
        assert len(kinds) <= 2 and all("reduce" in k for k in kinds), (where, kinds)


def test_parts_of_open_dimensions() -> None:
    """Dimensions of 1 of which each element is far from the next, where another one is open and may be 1."""
    rng = np.random.default_rng(SEED)
    x = o.parameter([-1, 5, 1], np.float32)
    part = o.gather(x, axes(2), axes(1))
    made = o.clamp(o.reduce_sum(part, axes(1, 2), True), -0.3, 0.7)
    compiled = ov.compile_model(ov.Model([made.output(0)], [x]), "CPU")
    for n in (3, 1, 40, 1):
        array = rng.standard_normal((n, 5, 1)).astype(np.float32)
        np.testing.assert_array_equal(compiled([array])[0], np.clip(array[:, 2:3], -0.3, 0.7))


@pytest.mark.parametrize("shape", [(3, 0, 5), (2, 0, 3, 4), (2, 0), (1, 0, 1, 1)], ids=str)
def test_nothing_is_reduced(shape: tuple[int, ...]) -> None:
    x = o.parameter(shape, np.float32)
    made = o.sqrt(o.add(o.reduce_sum(o.multiply(x, x), axes(1), True), np.float32(4)))
    l2 = o.sqrt(o.add(o.reduce_l2(x, axes(1), True), np.float32(4)))
    for result in ov.compile_model(ov.Model([made, l2], [x]), "CPU")([np.zeros(shape, np.float32)]).values():
        np.testing.assert_array_equal(result, np.full((shape[0], 1, *shape[2:]), 2, np.float32))


def test_means_of_quantized_numbers_are_of_reals() -> None:
    """The bytes in between have a mean that is no whole number."""
    x = o.parameter([3, 64], np.float32)
    low, high = (o.constant(np.float32(end)) for end in (-0.25, 3.5))
    steps = o.fake_quantize(x, low, high, low, high, 16)
    made = o.add(o.reduce_mean(steps, axes(1), True), np.float32(1))
    array = np.random.default_rng(SEED).uniform(-1, 4, (3, 64)).astype(np.float32)
    whole = np.rint((np.clip(array, -0.25, 3.5).astype(np.float64) + 0.25) * 4)
    want = whole.mean(1, keepdims=True) / 4 + 0.75
    result = ov.compile_model(ov.Model([made], [x]), "CPU")([array])[0]
    np.testing.assert_allclose(result, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint64])
def test_means_of_the_least_and_greatest_integers(dtype: type) -> None:
    """Rounded towards zero, by the kernel and by the reference: the lowest int64 has no absolute value."""
    info, record = np.iinfo(dtype), find_op("ReduceMean")
    x = np.array([[int(info.min), 0, 0], [int(info.max), 0, 0], [int(info.min) + 1, 0, 0]], dtype)
    p = ov.opset13.parameter([-1, 3], dtype)
    model = ov.Model([ov.opset13.reduce_mean(p, np.int64(1), False)], [p])
    (own,) = record.evaluate([x, np.array(1)], {"keep_dims": False})
    want = [int(abs(int(v)) // 3) * (1 if v >= 0 else -1) for v in x[:, 0]]
    assert own.tolist() == want
    assert ov.compile_model(model, "CPU")([x])[0].tolist() == want
