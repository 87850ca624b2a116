"""Every native lowering against its NumPy reference in float64, on the operation's own samples."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.execution.build import compile_graph
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Op, all_ops

SEED = 20261120


def native_ops() -> list[Op]:
    return [o for o in all_ops() if o.samples is not None and (o.scalar or o.lower or o.expand)]


def graph_of(
    record: Op, inputs: list[np.ndarray], attrs: dict, dtype: str, most: int = 1
) -> tuple[Graph, list[np.ndarray]]:
    """The operation alone, of `most` outputs: data as Parameters; indices, shapes, weights as Constants."""
    b = Builder()
    values, data = [], []
    for i, array in enumerate(inputs):
        element = dtypes.from_numpy(array.dtype)
        weights = i == 1 and record.epilogue
        indices = i > 0 and record.scalar is None and record.variadic is None
        if element == dtype and not weights and not indices:
            values.append(b.add("Parameter", (), {"shape": array.shape, "element_type": element}).output)
            data.append(array)
        else:
            values.append(b.constant(array, element))
    node = b.add(record, values, attrs)
    return b.finish(node.outputs[:most]), data


EPSILON = {"f32": 2.0**-23, "f64": 2.0**-52, "f16": 2.0**-10, "bf16": 2.0**-7}
#: Operations in which terms cancel: their error is one of the largest addend.
SUMS = (
    "Reduce",
    "AvgPool",
    "LogSoftmax",
    "Gelu",
    "MVN",
    "GroupNorm",
    "BatchNorm",
    "AdaptiveAvg",
    "CumSum",
    "Interpolate",
    "GridSample",
    "FakeQuantize",
    "ROI",
    "CappedAttention",
    "GuardedAttention",
    "Pyramid",
    "ExperimentalDetectron",
    "Proposal",
    "MovedAnchors",
    "PSROI",
    "Deform",
    "NV12",
    "I420",
    "Einsum",
    "RoPE",
    "Embedding",
    "DFT",
    "IDFT",
    "RDFT",
    "IRDFT",
    "STFT",
    "ISTFT",
    "Inverse",
    "Col2Im",
    "GroupedMatMul",
    "ScaledDot",
    "LSTM",
    "GRU",
    "AUGRU",
    "RNN",
    "RecurrentSteps",
)


#: Operations that give elements as they are, or numbers of their type: compared exactly, in that type.
ELEMENTS = ("SegmentMax", "RandomUniform")


def is_float(array: np.ndarray) -> bool:
    return dtypes.ELEMENT_TYPES[dtypes.from_numpy(array.dtype)].kind == "f"


def tolerance(record: Op, expected: np.ndarray, result: str) -> np.ndarray:
    scale = np.maximum(np.abs(expected), 1e-30)
    if record.epilogue or record.name.startswith(SUMS):
        finite = np.abs(expected[np.isfinite(expected)])
        scale = np.maximum(scale, max(1.0, finite.max()) if finite.size else 1.0)
    return (record.ulp + 4) * EPSILON[result] * scale * (8 if record.epilogue else 1)


def native_answer(record: Op, inputs: list[np.ndarray], attrs: dict, dtype: str) -> np.ndarray:
    """The first output, of which alone is asked: kernels may then leave out the others."""
    return native_answers(record, inputs, attrs, dtype, 1)[0]


def native_answers(
    record: Op, inputs: list[np.ndarray], attrs: dict, dtype: str, most: int
) -> list[np.ndarray]:
    graph, data = graph_of(record, inputs, attrs, dtype, most)
    executable = compile_graph(graph, {"threads": 1})
    job = executable.new_job()
    for i, array in enumerate(data):
        job.set_input(i, np.asarray(array, order="C"))
    job.run()
    return job.outputs


def check(record: Op, inputs: list[np.ndarray], attrs: dict, dtype: str, where: str) -> None:
    checked = record.check_attributes(attrs)
    got = native_answer(record, inputs, attrs, dtype)
    exact = any(a.size == 0 for a in inputs) or record.name in ELEMENTS
    widen = is_float(got) and not exact
    wide = [a.astype(np.float64) if is_float(a) and widen else a for a in inputs]
    expected = record.evaluate(wide, checked)
    if record.in_real and inputs[0].dtype.kind in "iu":
        first = [a.astype(np.float64) for a in inputs[: record.in_real]]
        real = record.evaluate([*first, *inputs[record.in_real :]], checked)
        half = np.abs(got - real[0]) <= 0.5 + 1e-4  # either of the two that are next
        expected = (np.where(half, got, expected[0]), *expected[1:])
    compare(record, got, expected[0], exact, where)
    if len(expected) > 1:
        every = native_answers(record, inputs, attrs, dtype, len(expected))
        for i, (one, want) in enumerate(zip(every, expected, strict=True)):
            compare(record, one, want, exact, f"{where}, output {i} of all")


def compare(record: Op, got: np.ndarray, expected: np.ndarray, exact: bool, where: str) -> None:
    assert got.shape == expected.shape, where
    if exact or not is_float(got):
        np.testing.assert_array_equal(got, expected, err_msg=where)
        return
    with np.errstate(all="ignore"):
        expected = expected.astype(np.float64)
        limit = tolerance(record, expected, dtypes.from_numpy(got.dtype))
        narrow = expected.astype(got.dtype).astype(np.float64)
        got = got.astype(np.float64)
        error = np.abs(got - expected)
        same = (got == narrow) | (np.isnan(got) & np.isnan(expected)) | (error <= limit)
    assert same.all(), (
        f"{where}: error {np.nanmax(np.where(same, 0, error / np.maximum(limit, 1e-300)))} x limit"
    )


@pytest.mark.parametrize("record", native_ops(), ids=lambda r: f"{r.name}-{r.opset}")
def test_lowering_equals_reference(record: Op) -> None:
    """f32 (or the first type the operation has) on all samples."""
    types = record.types
    dtype = "f32" if "f32" in types else types[0]
    rng = np.random.default_rng(SEED)
    for i, (inputs, attrs) in enumerate(record.samples(rng, dtype)):
        check(record, inputs, attrs, dtype, f"{record!r} sample {i} {attrs} seed {SEED}")


@pytest.mark.parametrize("record", native_ops(), ids=lambda r: f"{r.name}-{r.opset}")
def test_other_types(record: Op) -> None:
    """Every other element type on a few samples: of four or fewer, on the last."""
    for dtype in record.types:
        if dtype in ("f32", "string") or dtypes.ELEMENT_TYPES[dtype].is_packed or dtype.startswith("f8"):
            continue
        rng = np.random.default_rng(SEED)
        samples = list(record.samples(rng, dtype))
        for i, (inputs, attrs) in enumerate(samples):
            if i in (4, 11) or i == len(samples) - 1 < 4:
                check(record, inputs, attrs, dtype, f"{record!r} {dtype} sample {i} {attrs} seed {SEED}")


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
    inputs, attrs = next(iter(record.samples(rng, "f32")))
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
