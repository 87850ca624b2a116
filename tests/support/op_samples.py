"""Operations alone, on their own samples: native answers beside references in float64, within a tolerance."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from ovjit.codegen.cpu.host import host_target
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Op, all_ops
from tests.support.run import run
from tests.support.samples import has_samples, samples_of

SEED = 20261120


def native_ops() -> list[Op]:
    return [o for o in all_ops() if has_samples(o) and (o.scalar or o.lower or o.expand)]


#: Of an operation's samples so many at most, evenly, whatever a test takes; 0: all.
ASKED = os.environ.get("OVJIT_OP_SAMPLES")


def samples(record: Op, dtype: str, most: int = 0) -> Iterator[tuple[int, list[np.ndarray], dict]]:
    """The samples of one type, numbered: `most` of them, evenly, or fewer; 0: all."""
    every = list(samples_of(record, np.random.default_rng(SEED), dtype))
    most = int(ASKED) if ASKED else most
    step = -(-len(every) // most) if most else 1
    for i in range(0, len(every), step):
        yield i, *every[i]


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
    "SoftmaxAttention",
    "Pyramid",
    "ExperimentalDetectron",
    "Proposal",
    "MovedAnchors",
    "PSROI",
    "Deform",
    "PagedStates",
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
    "GatedDeltaNet",
    "SelectiveSSM",
    "WeightedSums",
)
#: Operations that give elements as they are, or numbers of their type: compared exactly, in that type.
ELEMENTS = ("SegmentMax", "RandomUniform")


def is_float(array: np.ndarray) -> bool:
    return dtypes.ELEMENT_TYPES[dtypes.from_numpy(array.dtype)].kind == "f"


def tolerance(record: Op, expected: np.ndarray, result: str) -> np.ndarray:
    scale = np.maximum(np.abs(expected), 1e-30)
    # alpha * x + beta: the product is rounded by itself where the CPU has no fused multiply-add
    unfused = record.name == "HardSigmoid" and host_target().name == "generic"
    if record.epilogue or record.name.startswith(SUMS) or unfused:
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
    return run(graph, data, threads=1)


def check(record: Op, inputs: list[np.ndarray], attrs: dict, dtype: str, where: str) -> None:
    checked = record.check_attributes(attrs)
    got = native_answer(record, inputs, attrs, dtype)
    empty = any(a.size == 0 for a in inputs) and record.name != "PagedAttention"  # whose options are empty
    exact = empty or record.name in ELEMENTS
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
