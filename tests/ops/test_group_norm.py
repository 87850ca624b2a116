"""Groups of channels normalized, with what scales and shifts each channel, are one kernel in all their forms.

Oracle: NumPy in f64. `SEED` makes all the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as o

SEED = 20261122
C, G, H, W = 12, 3, 6, 7
EPS = 1e-3
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def of_channels(seed: int, channels: int = C) -> np.ndarray:
    return np.random.default_rng((SEED, seed)).standard_normal(channels).astype(np.float32)


def exact(x: np.ndarray, groups: int = G, affine: bool = True) -> np.ndarray:
    rows = x.astype(np.float64).reshape(x.shape[0], groups, -1)
    rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + EPS)
    shape = (-1, *(1,) * (x.ndim - 2))
    y, (scale, shift) = rows.reshape(x.shape), (of_channels(seed, x.shape[1]) for seed in (0, 1))
    return y * scale.reshape(shape) + shift.reshape(shape) if affine else y


def normalized(x: Any, channels: int = C, groups: int = G) -> Any:
    lists = (o.constant(of_channels(seed, channels)) for seed in (0, 1))
    return o.group_normalization(x, *lists, groups, EPS)


def affine(x: Any) -> Any:
    scale, shift = (of_channels(seed).reshape(1, C, 1, 1) for seed in (0, 1))
    return o.add(o.multiply(x, scale), shift)


def _of_instances(x: Any) -> Any:
    """As torch exports it: rows are instances, which have a scale of 1 and a shift of 0 of their own."""
    rows = o.mvn(o.reshape(x, ints(0, G, -1), True), ints(2), True, EPS, "inside_sqrt")
    rows = o.add(o.multiply(rows, np.ones((1, G, 1), np.float32)), np.zeros((1, G, 1), np.float32))
    return affine(o.reshape(rows, o.shape_of(x), False))


def standard(rows: Any, *over: int) -> Any:
    centred = o.subtract(rows, o.reduce_mean(rows, ints(*over), True))
    spread = o.reduce_mean(o.multiply(centred, centred), ints(*over), True)
    return o.divide(centred, o.sqrt(o.add(spread, np.float32(EPS))))


def _of_means(x: Any) -> Any:
    return affine(o.reshape(standard(o.reshape(x, ints(0, G, -1), True), 2), o.shape_of(x), False))


def _of_means_of_images(x: Any) -> Any:
    """As Keras does it: scaled while the groups are a dimension."""
    rows = standard(o.reshape(x, ints(-1, G, C // G, H, W), False), 2, 3, 4)
    scale, shift = (of_channels(seed).reshape(1, G, C // G, 1, 1) for seed in (0, 1))
    return o.reshape(o.add(o.multiply(rows, scale), shift), ints(-1, C, H, W), False)


def answer(make: Any, shape: Any, arrays: list[np.ndarray], dtype: Any = np.float32) -> tuple[Any, list[str]]:
    params = [o.parameter(ov.PartialShape(shape), dtype) for _ in arrays]
    config = {**F32, "PERF_COUNT": True}
    request = ov.Core().compile_model(ov.Model([make(*params)], params), "CPU", config).create_infer_request()
    out = np.array(request.infer(arrays)[0])
    return out, [row.exec_type for row in request.get_profiling_info()]


def data(*shape: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng((SEED, seed)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("make", [normalized, _of_instances, _of_means, _of_means_of_images])
def test_each_form_is_one_kernel(make: Any, is_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    x = data(2, C, H, W)
    open_shape = (2, C, H, W) if make is _of_means_of_images else (-1, C, -1, -1)
    got, names = answer(make, open_shape if is_open else x.shape, [x])
    assert len(names) == 1 and names[0].startswith("mvn"), names
    np.testing.assert_allclose(got, exact(x), atol=1e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("is_open", [False, True])
def test_what_is_around_joins(is_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums before and activations behind, of parts of rows below and above vectors, and of one element."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    few = [(1, 8, 2, 2, 2), (3, 12, 4, 1, 1), (2, 64, 8, 1, 5)]
    made = {}
    for batch, channels, groups, *space in (*few, (2, 16, 1, 7, 7), (1, 6, 6, 9, 3), (1, 9, 3, 8, 8)):

        def make(a: Any, b: Any, channels: int = channels, groups: int = groups) -> Any:
            return o.swish(normalized(o.add(a, b), channels, groups))

        arrays = [data(batch, channels, *space, seed=seed) for seed in (2, 3)]
        shape = (-1, channels, -1, -1) if is_open else arrays[0].shape
        got, names = answer(make, shape, arrays)
        y = exact(arrays[0].astype(np.float64) + arrays[1], groups)
        where = f"{arrays[0].shape}, seed {SEED}"
        np.testing.assert_allclose(got, y / (1 + np.exp(-y)), atol=2e-5, err_msg=where)
        made[where] = names
    assert all(len(names) == 1 for names in made.values()), made


def test_other_shapes_of_one_model() -> None:
    x = o.parameter([-1, C, -1, -1], np.float32)
    compiled = ov.compile_model(ov.Model([o.relu(normalized(x))], [x]), "CPU", F32)
    for shape in ((2, C, 6, 7), (1, C, 1, 1), (1, C, 40, 3), (3, C, 1, 9), (2, C, 6, 7)):
        array = data(*shape)
        want = np.maximum(exact(array), 0)
        np.testing.assert_allclose(compiled([array])[0], want, atol=1e-5, err_msg=f"{shape}, seed {SEED}")


def test_channels_last_and_a_channels_own_addend() -> None:
    """Rows that lie apart are put together; what is added to each channel before is read by parts, too."""

    def make(x: Any, each: Any) -> Any:
        images = o.add(o.transpose(x, ints(0, 3, 1, 2)), o.transpose(each, ints(0, 3, 1, 2)))
        return o.transpose(normalized(images), ints(0, 2, 3, 1))

    x, each = data(2, H, W, C), data(2, 1, 1, C, seed=4)
    params = [o.parameter(a.shape, np.float32) for a in (x, each)]
    got = ov.compile_model(ov.Model([make(*params)], params), "CPU", F32)([x, each])[0]
    want = exact((x + each).transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, want, atol=1e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("kind", ["f64", "boolean"])
def test_other_operands_of_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    dtype = np.float64 if kind == "f64" else np.float32
    x, chosen = data(2, C, 3, 3).astype(dtype), of_channels(0) > 0

    def make(p: Any) -> Any:
        if kind == "f64":
            lists = (o.constant(of_channels(seed).astype(dtype)) for seed in (0, 1))
            return o.group_normalization(p, *lists, G, EPS)
        lists = (o.constant(of) for of in (np.ones(C, dtype), np.zeros(C, dtype)))
        normal = o.group_normalization(p, *lists, G, EPS)
        return o.select(o.constant(chosen.reshape(C, 1, 1)), normal, dtype(-2))

    got, names = answer(make, x.shape, [x], dtype)
    assert len(names) == 1, names
    want = exact(x) if kind == "f64" else np.where(chosen.reshape(C, 1, 1), exact(x, G, False), -2)
    np.testing.assert_allclose(got, want, atol=1e-12 if kind == "f64" else 1e-5, err_msg=f"seed {SEED}")


def test_bf16() -> None:
    x = data(2, C, H, W)
    half = o.parameter(x.shape, ov.Type.bf16)
    lists = (o.constant(o.constant(of_channels(seed)).data.astype(np.float32)) for seed in (0, 1))
    normal = o.group_normalization(o.convert(half, "f32"), *lists, G, EPS)
    model = ov.Model([o.convert(o.swish(normal), "bf16")], [half])
    request = ov.compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    high = (x.view(np.uint32) >> 16).astype(np.uint16)
    given = ov.Tensor(high.view(np.int16), ov.Shape(x.shape), ov.Type.bf16)
    got = request.infer([given])[0]
    rounded = (high.astype(np.uint32) << 16).view(np.float32)
    y = exact(rounded)
    made = (np.asarray(got).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(made, y / (1 + np.exp(-y)), rtol=2**-8, atol=2**-9, err_msg=f"seed {SEED}")
    assert len(request.get_profiling_info()) == 1


def _moved(x: Any) -> Any:
    """Back in a shape whose channels are others."""
    rows = o.mvn(o.reshape(x, ints(0, G, -1), True), ints(2), True, EPS, "inside_sqrt")
    return o.transpose(o.reshape(rows, ints(0, H, W, C), True), ints(0, 3, 1, 2))


def _outside(x: Any) -> Any:
    rows = o.mvn(o.reshape(x, ints(0, G, -1), True), ints(2), True, EPS, "outside_sqrt")
    return affine(o.reshape(rows, o.shape_of(x), False))


def _of_other_groups(x: Any) -> Any:
    """Groups of what the batch has, too."""
    rows = o.mvn(o.reshape(x, ints(1, 2 * G, -1), False), ints(2), True, EPS, "inside_sqrt")
    return affine(o.reshape(rows, o.shape_of(x), False))


def _of_two_images(x: Any) -> Any:
    rows = o.mvn(o.reshape(x, ints(1, G, -1), False), ints(2), True, EPS, "inside_sqrt")
    return affine(o.reshape(rows, o.shape_of(x), False))


def _read_twice(x: Any) -> Any:
    rows = o.mvn(o.reshape(x, ints(0, G, -1), True), ints(2), True, EPS, "inside_sqrt")
    back = o.reshape(rows, o.shape_of(x), False)
    return o.add(affine(back), o.reduce_max(rows, ints(0, 1, 2), False))


def _scaled_by_places(x: Any) -> Any:
    rows = o.mvn(o.reshape(x, ints(0, G, -1), True), ints(2), True, EPS, "inside_sqrt")
    rows = o.multiply(rows, data(1, G, C // G * H * W, seed=5))
    return o.reshape(rows, o.shape_of(x), False)


def _of_parts_of_channels(x: Any) -> Any:
    rows = o.mvn(o.reshape(x, ints(0, 8, -1), True), ints(2), True, EPS, "inside_sqrt")
    return affine(o.reshape(rows, o.shape_of(x), False))


MISSES = [
    _of_parts_of_channels, _moved, _outside, _of_other_groups, _of_two_images, _read_twice, _scaled_by_places,
]  # fmt: skip


@pytest.mark.parametrize("make", MISSES)
def test_near_misses_stay_right(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data(2, C, H, W)
    got, names = answer(make, x.shape, [x])
    assert len(names) > 1 or make in (_of_other_groups, _scaled_by_places), names
    monkeypatch.setenv("OVJIT_INTERP", "1")
    np.testing.assert_allclose(got, answer(make, x.shape, [x])[0], atol=1e-5, err_msg=f"seed {SEED}")
