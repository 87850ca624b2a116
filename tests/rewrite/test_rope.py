"""Rotary position embeddings as exporters write them are one kernel; what only looks like it is left alone.

Oracle: NumPy in f64, and the graph run by its references. `SEED` makes all the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as o

SEED = 20261122
B, H, E = 2, 3, 32
END = 2**62


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def cut(x: Any, start: int, stop: int, step: int = 1) -> Any:
    return o.slice(x, ints(start), ints(stop), ints(step), ints(-1))


def halves(x: Any) -> list[Any]:
    return [cut(x, 0, E // 2), cut(x, E // 2, END)]


def every_other(x: Any) -> list[Any]:
    return [cut(x, 0, END, 2), cut(x, 1, END, 2)]


def stacked(first: Any, second: Any) -> Any:
    both = o.concat([o.unsqueeze(first, ints(-1)), o.unsqueeze(second, ints(-1))], -1)
    return o.reshape(both, ints(0, 0, -1, E), True)


def with_turned(x: Any, turned: Any, c: Any, s: Any) -> Any:
    return o.add(o.multiply(x, c), o.multiply(turned, s))


def _sliced(x: Any, c: Any, s: Any) -> Any:
    first, second = halves(x)
    return with_turned(x, o.concat([o.negative(second), first], -1), c, s)


def _split(x: Any, c: Any, s: Any) -> Any:
    first, second = o.split(x, np.int64(3), 2).outputs()
    return with_turned(x, o.concat([o.multiply(second, np.float32(-1)), first], -1), c, s)


def _by_halves(x: Any, c: Any, s: Any) -> Any:
    (a, b), (c, _), (s, _) = halves(x), halves(c), halves(s)
    less = o.subtract(o.multiply(a, c), o.multiply(b, s))
    return o.concat([less, o.add(o.multiply(b, c), o.multiply(s, a))], -1)


def _gptj(x: Any, c: Any, s: Any) -> Any:
    first, second = every_other(x)
    return with_turned(x, stacked(o.negative(second), first), c, s)


def _flux(x: Any, c: Any, s: Any) -> Any:
    first, second = o.split(o.reshape(x, ints(0, 0, -1, E // 2, 2), True), np.int64(-1), 2).outputs()
    turned = o.concat([o.multiply(second, np.float32(-1)), first], -1)
    return with_turned(x, o.reshape(turned, ints(0, 0, -1, E), True), c, s)


def complex_product(a: Any, b: Any, c: Any, s: Any) -> Any:
    (c, _), (s, _) = every_other(c), every_other(s)
    less = o.subtract(o.multiply(a, c), o.multiply(b, s))
    return stacked(less, o.add(o.multiply(a, s), o.multiply(b, c)))


def _chatglm(x: Any, c: Any, s: Any) -> Any:
    return complex_product(*every_other(x), c, s)


def _complex(x: Any, c: Any, s: Any) -> Any:
    rows = o.reshape(x, ints(0, 0, -1, E // 2, 2), True)
    return complex_product(*(o.gather(rows, np.int64(i), np.int64(-1)) for i in (0, 1)), c, s)


#: Form -> whether the angles are of pairs of neighbours.
FORMS = {_sliced: 0, _split: 0, _by_halves: 0, _gptj: 1, _flux: 1, _chatglm: 1, _complex: 1}


def inputs_of(rng: np.random.Generator, length: int, pairs: int) -> list[np.ndarray]:
    x = rng.standard_normal((B, H, length, E)).astype(np.float32)
    angles = rng.uniform(-3, 3, (1, 1, length, E // 2))
    wide = np.repeat(angles, 2, -1) if pairs else np.concatenate([angles, angles], -1)
    return [x, *(f(wide).astype(np.float32) for f in (np.cos, np.sin))]


def exact(x: np.ndarray, c: np.ndarray, s: np.ndarray, pairs: int) -> np.ndarray:
    x = x.astype(np.float64)
    parts = x.reshape(*x.shape[:-1], *((E // 2, 2) if pairs else (2, E // 2)))
    first, second = np.moveaxis(parts, -1 if pairs else -2, 0)
    return x * c + np.stack([-second, first], -1 if pairs else -2).reshape(x.shape) * s


def made(make: Any, is_open: bool, precision: str = "f32") -> ov.CompiledModel:
    """x comes from a projection's rows, so that heads are a view."""
    rows, shared = (B, H, -1, E) if is_open else (B, H, 7, E), (1, 1, -1 if is_open else 7, E)
    x, c, s = (o.parameter(ov.PartialShape(shape), np.float32) for shape in (rows, shared, shared))
    config = {"INFERENCE_PRECISION_HINT": precision, "PERF_COUNT": True}
    return ov.Core().compile_model(ov.Model([make(x, c, s)], [x, c, s]), "CPU", config)


def kernels(compiled: ov.CompiledModel, arrays: list[np.ndarray]) -> tuple[np.ndarray, list[str]]:
    request = compiled.create_infer_request()
    out = np.array(request.infer(arrays)[0])
    return out, [row.exec_type for row in request.get_profiling_info()]


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("make", FORMS)
def test_rotations_are_one_kernel(make: Any, is_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, compiled = np.random.default_rng(SEED), made(make, is_open)
    for length in (7, 1, 40) if is_open else (7,):
        arrays = inputs_of(rng, length, FORMS[make])
        got, names = kernels(compiled, arrays)
        assert len([n for n in names if n.startswith("rotate_")]) == 1, names
        # cosines and sines of half the width are copied to all of it
        assert {n for n in names if not n.startswith("rotate_")} <= {"copy_i32"} and len(names) <= 5, names
        want, message = exact(*arrays, FORMS[make]), f"{length}, seed {SEED}"
        np.testing.assert_allclose(got, want, atol=1e-5, err_msg=message)
    if make in (_sliced, _split, _gptj, _flux):
        assert len(names) == 1, names


def test_cosines_of_half_the_width_are_spread_once() -> None:
    rng = np.random.default_rng(SEED)

    def both(x: Any, c: Any, s: Any) -> Any:
        return o.add(_halved(x, c, s), _halved(o.exp(x), c, s))

    def _halved(x: Any, c: Any, s: Any) -> Any:
        (a, b), c, s = halves(x), one[0], one[1]
        less = o.subtract(o.multiply(a, c), o.multiply(b, s))
        return o.concat([less, o.add(o.multiply(b, c), o.multiply(a, s))], -1)

    one = [o.parameter([1, 1, 7, E // 2], np.float32) for _ in "cs"]
    x = o.parameter([B, H, 7, E], np.float32)
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    compiled = ov.Core().compile_model(ov.Model([both(x, *one)], [x, *one]), "CPU", config)
    data, c, s = inputs_of(rng, 7, 0)
    got, names = kernels(compiled, [data, c[..., : E // 2], s[..., : E // 2]])
    assert sum(n.startswith("copy") for n in names) == 2, names
    want = exact(data, c, s, 0) + exact(np.exp(data), c, s, 0)
    np.testing.assert_allclose(got, want, atol=1e-4, err_msg=f"seed {SEED}")


def test_rows_of_bf16() -> None:
    rng, compiled = np.random.default_rng(SEED), made(_of_a_product, False, "bf16")
    arrays = inputs_of(rng, 7, 0)
    got, _ = kernels(compiled, arrays)
    np.testing.assert_allclose(got, exact(*arrays, 0), atol=0.05, err_msg=f"seed {SEED}")


def _of_a_product(x: Any, c: Any, s: Any) -> Any:
    eye = o.constant(np.eye(E, dtype=np.float32))
    return o.matmul(_sliced(o.matmul(x, eye, False, False), c, s), eye, False, False)


def _not_negated(x: Any, c: Any, s: Any) -> Any:
    first, second = halves(x)
    return with_turned(x, o.concat([o.multiply(second, np.float32(-2)), first], -1), c, s)


def _the_other_one_negated(x: Any, c: Any, s: Any) -> Any:
    first, second = halves(x)
    return with_turned(x, o.concat([second, o.negative(first)], -1), c, s)


def _other_parts(x: Any, c: Any, s: Any) -> Any:
    parts = cut(x, E // 2 - 2, E - 2), cut(x, 0, E // 2)
    return with_turned(x, o.concat([o.negative(parts[0]), parts[1]], -1), c, s)


def _parts_of_two(x: Any, c: Any, s: Any) -> Any:
    return with_turned(x, o.concat([o.negative(halves(o.exp(x))[1]), halves(x)[0]], -1), c, s)


def _turned_heads(x: Any, c: Any, s: Any) -> Any:
    """What is cut is the last axis, and something else before it: its rows come in another order."""
    second = o.slice(x, ints(H - 1, E // 2), ints(-H - 1, END), ints(-1, 1), ints(1, 3))
    return with_turned(x, o.concat([o.negative(second), halves(x)[0]], -1), c, s)


def _turned_back(x: Any, c: Any, s: Any) -> Any:
    (a, b), (c, _), (s, _) = halves(x), halves(c), halves(s)
    less = o.subtract(o.multiply(a, c), o.multiply(b, s))
    return o.concat([less, o.add(o.multiply(b, s), o.multiply(a, c))], -1)


def _reshaped_otherwise(x: Any, c: Any, s: Any) -> Any:
    first, second = every_other(x)
    both = o.concat([o.unsqueeze(o.negative(second), ints(-1)), o.unsqueeze(first, ints(-1))], -1)
    mixed = o.reshape(both, ints(B, -1, H, E), True)
    return with_turned(x, o.transpose(mixed, ints(0, 2, 1, 3)), c, s)


MISSES = [
    _not_negated, _the_other_one_negated, _other_parts, _parts_of_two, _turned_heads, _turned_back,
    _reshaped_otherwise,
]  # fmt: skip


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("make", MISSES)
def test_near_misses_stay_right(make: Any, is_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = inputs_of(np.random.default_rng(SEED), 7, 0)
    got, names = kernels(made(make, is_open), arrays)
    if make is not _reshaped_otherwise:  # which turns pairs, and then moves them
        assert not any(n.startswith("rotate_") for n in names), names
    monkeypatch.setenv("OVJIT_INTERP", "1")
    want = made(make, is_open)(arrays)[0]
    np.testing.assert_allclose(got, want, atol=1e-5, err_msg=f"seed {SEED}")
