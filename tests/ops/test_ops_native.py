"""Every native lowering against its NumPy reference in float64, on the operation's own samples."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from ovjit.graph import dtypes
from ovjit.graph.op import Op, all_ops
from tests.support.op_samples import ASKED, EPSILON, SEED, check, native_answers, native_ops, samples
from tests.support.samples import samples_of
from tests.support.sweeps import in_turn


def _check_samples(record: Op, most: int) -> None:
    types = record.types
    dtype = "f32" if "f32" in types else types[0]
    for i, inputs, attrs in samples(record, dtype, most):
        check(record, inputs, attrs, dtype, f"{record!r} sample {i} {attrs} seed {SEED}")


@pytest.mark.parametrize("record", native_ops(), ids=lambda r: f"{r.name}-{r.opset}")
def test_lowering_equals_reference(record: Op) -> None:
    """f32 (or the first type the operation has) on four samples at most."""
    _check_samples(record, 4)


@pytest.mark.long
@pytest.mark.parametrize("record", native_ops(), ids=lambda r: f"{r.name}-{r.opset}")
def test_lowering_equals_reference_on_all_samples(record: Op) -> None:
    _check_samples(record, 0)


def _others(record: Op) -> list[tuple[str, list[int]]]:
    """Every other element type, and the numbers of a few samples: of four or fewer, of the last."""
    found = []
    for dtype in record.types:
        if dtype in ("f32", "string") or dtypes.ELEMENT_TYPES[dtype].is_packed or dtype.startswith("f8"):
            continue
        count = sum(1 for _ in samples_of(record, np.random.default_rng(SEED), dtype))
        found.append((dtype, [i for i in range(count) if i in (4, 11) or i == count - 1 < 4]))
    return found


def _check_others(record: Op, chosen: list[tuple[str, list[int]]]) -> None:
    for dtype, numbers in chosen:
        for i, (inputs, attrs) in enumerate(samples_of(record, np.random.default_rng(SEED), dtype)):
            if i in numbers:
                check(record, inputs, attrs, dtype, f"{record!r} {dtype} sample {i} {attrs} seed {SEED}")


#: Of each of these kinds an operation takes one type by default; its name says which.
KINDS = (("f64", "f16", "bf16"), ("i32", "i64", "i8", "i16", "u8", "u16", "u32", "u64"))


def _some(record: Op, others: list[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """One type of each kind and those of none; all where OVJIT_OP_SAMPLES is set, as on emulated CPUs."""
    if ASKED:
        return others
    there = [dtype for dtype, _ in others]
    kinds = [[dtype for dtype in kind if dtype in there] for kind in KINDS]
    turn = zlib.crc32(record.name.encode())
    taken = {kind[(turn >> 3 * i) % len(kind)] for i, kind in enumerate(kinds) if kind}
    return [one for one in others if one[0] in taken or not any(one[0] in kind for kind in kinds)]


@pytest.mark.parametrize("record", in_turn(native_ops(), 3), ids=lambda r: f"{r.name}-{r.opset}")
def test_other_types(record: Op) -> None:
    """Some of these types, and each of these samples, which the types take in turn; of every third operation
    by default."""
    others = _some(record, _others(record))
    chosen = []
    for turn, (dtype, numbers) in enumerate(others):
        turns = max(1, min(len(numbers), len(others)))
        chosen.append((dtype, [n for at, n in enumerate(numbers) if at % turns == turn % turns]))
    _check_others(record, chosen)


@pytest.mark.long
@pytest.mark.parametrize("record", native_ops(), ids=lambda r: f"{r.name}-{r.opset}")
def test_other_types_on_each_sample(record: Op) -> None:
    """Each of these types on each of these samples."""
    _check_others(record, _others(record))


@pytest.mark.parametrize(
    "record", [o for o in native_ops() if o.scalar is not None], ids=lambda r: f"{r.name}-{r.opset}"
)
def test_special_values(record: Op) -> None:
    """NaN, infinities, zeros of both signs and denormals, in every lane."""
    types = record.types
    if "f32" not in types:
        pytest.skip("has no floating-point form")
    special = np.array(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 1.0, -1.0, 0.5, 88.8, -104.5, 3e38, -3e38],
        np.float32,
    )
    rng = np.random.default_rng(SEED)
    inputs, attrs = next(iter(samples_of(record, rng, "f32")))
    n = sum(a.shape == (1,) for a in inputs)
    if record.name in ("Selu", "HardSigmoid", "Swish"):
        n = 1  # the others are numbers
    if any(a.dtype != np.float32 or a.shape not in ((1,), ()) for a in inputs):
        pytest.skip("takes more than numbers")
    grid = np.meshgrid(*[special] * n, indexing="ij") if n else []
    grid = [g.reshape(-1) for g in grid]
    arrays = [grid.pop() if a.shape == (1,) and grid else a for a in inputs]
    check(record, arrays, attrs, "f32", f"{record!r} special values")


def test_registry_is_not_empty() -> None:
    assert len(native_ops()) > 60


@pytest.mark.parametrize("type_, limit", [("Sigmoid", 3), ("Swish", 4), ("SoftPlus", 3)])
def test_logistic_functions_are_exact_over_their_whole_range(type_, limit):
    """Where e^x overflows and where it is nothing beside 1; small results keep their digits, numbers that are
    none stay what they are."""
    rng = np.random.default_rng(SEED)
    tiny = 10.0 ** np.linspace(-37, 0, 2000)
    data = np.concatenate([np.linspace(-87.3, 110, 100_001), rng.normal(0, 3, 20_000), tiny, -tiny])
    data = np.append(data, [0, -0.0, np.inf, np.nan]).astype(np.float32)
    record = next(one for one in all_ops() if one.name == type_)
    answer = native_answers(record, [data], record.check_attributes({}), "f32", 1)[0]
    x = data.astype(np.float64)
    e = np.exp(-np.abs(x))
    logistic = np.where(x < 0, e, 1) / (1 + e)
    with np.errstate(invalid="ignore"):
        forms = {"Sigmoid": logistic, "Swish": x * logistic, "SoftPlus": np.maximum(x, 0) + np.log1p(e)}
        expected = forms[type_]
    finite = np.isfinite(expected) & (np.abs(expected) >= 2.0**-126)
    error = np.abs(answer[finite] - expected[finite]) / np.abs(expected[finite]) / EPSILON["f32"]
    assert error.max() <= limit, (SEED, data[finite][error.argmax()], error.max())
    none = ~np.isfinite(expected)
    np.testing.assert_array_equal(answer[none], expected[none].astype(np.float32))
